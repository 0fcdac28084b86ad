//! What an operator finds afterwards: counters on Envoy's admin page, and lines of the log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::names::GRANT_JWT_BEARER;
use host_tests::oauth_client::form;
use host_tests::{Options, World};
use support::*;

#[tokio::test]
async fn refusals_are_counted_by_reason_and_logged_with_the_id_of_the_request() {
    let patch = |text: String| {
        let told = "stat_prefix: ingress
          always_set_request_id_in_response: true";
        text.replace("stat_prefix: ingress", told)
    };
    let patch_bootstrap = Some(Box::new(patch) as Box<_>);
    let world =
        World::start(Options { concurrency: 4, patch_bootstrap, ..Options::default() }).await;
    let url = world.accept_url();
    let token_endpoint = world.accept_token_endpoint();
    let id_jag = id_jag(&world, |_, _| {});
    assert_eq!(world.redeem_at_jagway(&id_jag).await.status, 200);
    let basic = basic(&world.claude);
    let fields = [("grant_type", GRANT_JWT_BEARER), ("assertion", id_jag.as_str())];
    let again = form(&fields);
    let headers =
        [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let before = world.warehouse.recorder.count();

    // Spread over the workers, each of which defines the counters for itself.
    for (code, times) in [("no_token", 12), ("jwt_format", 8), ("jti_replayed", 6)] {
        for _ in 0..times {
            let answer = match code {
                "no_token" => post(&url, &[], "{}").await,
                "jwt_format" => post_as(&url, "XMARKX").await,
                _ => post(&token_endpoint, &headers, again.clone()).await,
            };
            let id = answer.header("x-request-id").expect("Envoy gives each request an id");
            let line = format!("request=\"{id}\"");
            let log = world.envoy.as_ref().unwrap().log();
            let lines: Vec<_> = log.lines().filter(|text| text.contains(&line)).collect();
            assert_eq!(lines.len(), 1, "{code} {id}: {lines:?}");
            assert!(lines[0].contains(&format!("jagway: refused [{code}]")), "{lines:?}");
            assert!(!lines[0].contains("XMARKX"), "{lines:?}");
        }
        let envoy = world.envoy.as_ref().unwrap();
        let counted = envoy.stat(&format!("wasmcustom.jagway.refused.{code}")).await;
        let page = envoy.admin_page("/stats?filter=jagway.refused").await;
        assert_eq!(counted, Some(times), "{code}: {page}");
    }
    // An id that no proxy makes is the client's own word.
    post(&url, &[("x-request-id", "XMARKX\" refused [none]")], "{}").await;
    assert!(!world.envoy.as_ref().unwrap().log().contains("XMARKX"));
    let prometheus = world.envoy.as_ref().unwrap().admin_page("/stats/prometheus").await;
    assert!(prometheus.contains("jagway_refused_no_token{} 13"), "not there");
    assert_eq!(world.warehouse.recorder.count(), before);
}
