//! Other people's parts at both ends: panva's oidc-provider, the MCP SDKs for TypeScript and server-everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::Write;

use host_tests::keys::random_text;
use host_tests::node::Parts;
use host_tests::panva::Panva;
use host_tests::{Options, World};
use serde_json::{Value, json};

/// The parts, or nothing on a machine without Node. Where everything must be tried, that is a failure.
fn parts() -> Option<Parts> {
    match Parts::install() {
        Ok(parts) => Some(parts),
        Err(why) if std::env::var("CI").is_ok_and(|value| value == "true") => panic!("{why}"),
        Err(why) => {
            // Past the capture of a passing test's output: who skips must say so.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "skipped: {why}").unwrap();
            None
        }
    }
}

#[tokio::test]
async fn the_sdk_that_speaks_ema_reaches_server_everything_which_sees_a_key_and_no_token() {
    let Some(parts) = parts() else { return };
    let key = random_text();
    let mut everything = parts.start("everything.mjs", &json!({"port": 0, "key": key})).await;
    let port = port(&everything.said["url"]);
    let world = World::start(Options {
        panva: Some(Panva { parts: parts.clone(), alg: "ES256" }),
        env: vec![("WAREHOUSE_KEY".into(), key)],
        patch_bootstrap: Some(Box::new(move |text| support::repointed(text, "warehouse", port))),
        ..Options::default()
    })
    .await;

    let input = json!({
        "idp": {
            "token_endpoint": world.idp_address.token_endpoint,
            "id_token": world.alice.id_token,
            "client": {"id": world.app.id, "secret": world.app.secret},
        },
        "accept": {
            "url": world.accept_url(),
            "issuer": world.accept_issuer(),
            "client": {"id": world.claude.id, "secret": world.claude.secret},
        },
        "tool": "echo",
        "arguments": {"message": "hello through Jagway"},
    });
    let seen_by_client = parts.run("xaa-client.mjs", &input).await;
    let seen_by_server = everything.end().await.unwrap();

    let echoed = seen_by_client["result"]["content"][0]["text"].as_str().unwrap();
    assert!(echoed.contains("hello through Jagway"), "{seen_by_client}");
    assert!(has(&seen_by_client["tools"], "echo"), "{seen_by_client}");
    assert!(seen_by_server["requests"].as_u64().unwrap() >= 4, "{seen_by_server}");
    assert_eq!(seen_by_server["refused"], 0);
    assert!(has(&seen_by_server["headers"], "x-api-key"), "{seen_by_server}");
    assert!(!has(&seen_by_server["headers"], "authorization"), "{seen_by_server}");
    assert_eq!(seen_by_server["jwt_in"], json!([]));
}

#[tokio::test]
async fn the_sdk_without_ema_reaches_tickets_with_an_id_token_or_an_api_key_of_oidc_provider() {
    let Some(parts) = parts() else { return };
    let panva = Some(Panva { parts: parts.clone(), alg: "RS256" });
    let world = World::start(Options { panva, ..Options::default() }).await;
    let callers = [
        ("alice", json!({"authorization": format!("Bearer {}", world.alice.id_token)})),
        ("ci-bot", json!({"x-api-key": world.caller_key})),
    ];

    let mut answers = vec![];
    for (user, headers) in callers {
        let input = json!({"url": world.upgrade_url(), "headers": headers, "tool": "list_tickets"});
        answers.push((user, parts.run("legacy-client.mjs", &input).await));
    }
    let arrived = world.tickets.recorder.requests();

    for (user, answer) in answers {
        assert_eq!(answer["tools"], json!(["list_tickets"]));
        let tickets = &answer["result"]["structuredContent"];
        assert_eq!(tickets["caller"], user);
        assert_eq!(tickets["client"], world.jagway_at_tickets.id.as_str());
        assert_eq!(tickets["scope"], "tickets.read tickets.write");
    }
    assert!(arrived.len() >= 8, "{arrived:?}");
    for request in arrived {
        assert!(!request.mentions(&world.alice.id_token), "{request:?}");
        assert!(!request.mentions(&world.caller_key), "{request:?}");
        assert!(request.header("x-api-key").is_empty(), "{request:?}");
    }
    assert_eq!(world.idp.endpoints().count("/token"), 0);
}

fn has(list: &Value, wanted: &str) -> bool {
    list.as_array().unwrap().iter().any(|item| item == wanted)
}

fn port(url: &Value) -> u16 {
    reqwest::Url::parse(url.as_str().unwrap()).unwrap().port().unwrap()
}
