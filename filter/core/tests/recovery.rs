//! Requests whose token the server refuses: what it says, and what is sent once more (RFC 6750 §3.1, RFC 9470
//! §3, RFC 9449 §9).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::http::Headers;
use jagway_core::job::JobError;
use jagway_core::recovery::{Refusal, refusal};
use jagway_core::upgrade::Sent;
use jagway_core::worker::{AfterResponse, Verdict};
use serde_json::{Value, json};
use std::rc::Rc;
use support::servers::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const INVALID: [(&str, &str); 2] =
    [(":status", "401"), ("www-authenticate", "Bearer error=\"invalid_token\"")];

fn fields(fields: &[(&str, &str)]) -> Headers {
    let field = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    Headers::new(fields.iter().map(field).collect())
}

/// Where more scope may be asked for: two more.
fn stepping() -> Vec<(&'static str, Value)> {
    vec![("upgrade/step_up_scopes", json!(["stock.write", "stock.admin"]))]
}

/// A request was forwarded.
fn forwarded(changes: &[(&str, Value)]) -> (World, Rc<AfterResponse>) {
    let mut world = World::new(changes);
    let after = forward(&mut world);
    (world, after)
}

fn forward(world: &mut World) -> Rc<AfterResponse> {
    world.forward("POST", "/mcp", &[])
}

fn sent(changes: &[(&str, Value)]) -> Rc<Sent> {
    forwarded(changes).1.sent.clone().unwrap()
}

fn step_up(acr_values: Option<&str>, max_age: Option<u64>) -> Option<Refusal> {
    let acr_values = acr_values.map(str::to_owned);
    Some(Refusal::Authentication(JobError::StepUp { acr_values, max_age }))
}

#[test]
fn what_a_refusal_means_is_read_from_status_and_challenges() {
    let token = Some(Refusal::Token);
    let scope = |text: &str| Some(Refusal::Scope(text.to_owned()));
    let both = scope("stock.read stock.write");
    let insufficient = "error=\"insufficient_user_authentication\"";
    let weak = format!("Bearer {insufficient}, acr_values=\"mfa phr\", max_age=60");
    let weak_twice = format!("Bearer {insufficient}, acr_values=a, acr_values=b");
    let wants = "Bearer error=\"insufficient_scope\", scope=\"stock.write\"";
    let cases: Vec<(&str, Vec<&str>, Option<Refusal>)> = vec![
        ("200", vec![], None),
        ("200", vec!["Bearer error=\"invalid_token\""], None),
        ("302", vec![], None),
        ("400", vec!["Bearer error=\"invalid_token\""], None),
        ("404", vec![], None),
        ("407", vec![], None),
        ("500", vec!["Bearer error=\"invalid_token\""], None),
        ("401", vec![], token.clone()),
        ("401", vec![""], token.clone()),
        ("401", vec!["Bearer"], token.clone()),
        ("401", vec!["Bearer error=\"invalid_token\""], token.clone()),
        ("401", vec!["Bearer error=invalid_token, error_description=\"x\""], token.clone()),
        ("401", vec!["DPoP algs=\"ES256\", error=\"invalid_token\""], token.clone()),
        ("401", vec!["Basic realm=\"x\""], token.clone()),
        ("401", vec!["Negotiate YWJj=="], token.clone()),
        ("401", vec!["Bearer error=\"use_dpop_nonce\""], token.clone()),
        ("401", vec![wants], token.clone()),
        ("401", vec!["\"", "=,=", "Bearer error="], token.clone()),
        ("401", vec![&weak], step_up(Some("mfa phr"), Some(60))),
        ("401", vec!["Basic realm=\"x\"", &weak], step_up(Some("mfa phr"), Some(60))),
        ("401", vec!["bearer ERROR=insufficient_user_authentication"], step_up(None, None)),
        (
            "401",
            vec!["DPoP error=\"insufficient_user_authentication\", max_age=\"0\""],
            step_up(None, Some(0)),
        ),
        (
            "401",
            vec!["Bearer realm=\"a, b\", error=\"insufficient_user_authentication\", max_age=-1"],
            step_up(None, None),
        ),
        ("401", vec![&weak_twice], step_up(None, None)),
        ("401", vec!["Basic error=\"insufficient_user_authentication\""], token.clone()),
        ("401", vec!["Bearer error_description=\"insufficient_user_authentication\""], token),
        ("403", vec![], None),
        ("403", vec!["Bearer error=\"invalid_token\""], None),
        ("403", vec!["Bearer error=\"insufficient_scope\""], None),
        ("403", vec!["Bearer error=\"insufficient_scope\", scope=\"\""], None),
        ("403", vec!["Bearer scope=\"stock.write\""], None),
        ("403", vec![wants], both.clone()),
        ("403", vec!["Bearer error=insufficient_scope, scope=stock.write"], both.clone()),
        ("403", vec!["DPoP error=\"insufficient_scope\", scope=\"stock.write\""], both.clone()),
        (
            "403",
            vec!["Basic realm=\"x\", Bearer error=\"insufficient_scope\", scope=\"stock.write\""],
            both.clone(),
        ),
        ("403", vec!["Basic realm=\"x\"", wants], both.clone()),
        (
            "403",
            vec!["Bearer error=\"insufficient_scope\", scope=\"stock.read stock.write\""],
            both,
        ),
        (
            "403",
            vec!["Bearer error=\"insufficient_scope\", scope=\"stock.admin stock.write\""],
            // In the operator's order, whatever the server's is.
            scope("stock.read stock.write stock.admin"),
        ),
        ("403", vec!["Bearer error=\"insufficient_scope\", scope=\"stock.read\""], None),
        ("403", vec!["Bearer error=\"insufficient_scope\", scope=\"stock.write other\""], None),
        ("403", vec!["Bearer error=\"insufficient_scope\", scope=\"Stock.Write\""], None),
        (
            "403",
            vec!["Bearer error=\"insufficient_scope\", scope=\"stock.write\", scope=\"a\""],
            None,
        ),
        ("403", vec!["Bearer error=\"insufficient_scope\", scope=\"stock.write \""], None),
        ("403", vec!["Basic error=\"insufficient_scope\", scope=\"stock.write\""], None),
        ("403", vec![&weak], None),
    ];
    let sent = sent(&stepping());

    for (status, challenges, expected) in cases {
        let mut head = vec![(":status", status)];
        head.extend(challenges.iter().map(|challenge| ("www-authenticate", *challenge)));
        assert_eq!(refusal(&sent, &fields(&head)), expected, "{status} {challenges:?}");
    }
}

#[test]
fn an_answer_without_one_status_is_no_refusal() {
    let sent = sent(&[]);

    assert_eq!(refusal(&sent, &fields(&[])), None);
    assert_eq!(refusal(&sent, &fields(&[(":status", "401"), (":status", "401")])), None);
}

#[test]
fn a_nonce_is_a_reason_to_prove_once_more_only_for_a_bound_token() {
    let nonce = ("dpop-nonce", "n");
    let demand = ("www-authenticate", "DPoP error=\"use_dpop_nonce\"");
    for (mode, head, expected) in [
        ("required", vec![demand, nonce], Refusal::Nonce),
        ("required", vec![demand], Refusal::Token),
        ("required", vec![nonce], Refusal::Token),
        ("required", vec![demand, nonce, nonce], Refusal::Token),
        ("required", vec![demand, ("dpop-nonce", "a b")], Refusal::Token),
        ("off", vec![demand, nonce], Refusal::Token),
    ] {
        let sent = sent(&[("upgrade/dpop", json!(mode))]);
        let head = [vec![(":status", "401")], head].concat();
        assert_eq!(refusal(&sent, &fields(&head)), Some(expected), "{mode} {head:?}");
    }
}

#[test]
fn scope_is_widened_from_whatever_was_asked_for_and_only_where_that_is_allowed() {
    let wants = |scope: &str| {
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
        fields(&[(":status", "403"), ("www-authenticate", &challenge)])
    };
    for (scopes, allowed, asked, expected) in [
        (json!([]), json!(["a"]), "a", Some("a")),
        (json!([]), json!(["a", "b"]), "b a", Some("a b")),
        (json!([]), json!(["a", "b"]), "b b a b", Some("a b")),
        (json!(["a"]), json!(["b"]), "a b", Some("a b")),
        (json!(["a"]), json!([]), "b", None),
        (json!(["a"]), json!(["a"]), "a", None),
        (json!(["a"]), json!(["b"]), "b c", None),
    ] {
        let sent = sent(&[("upgrade/scopes", scopes.clone()), ("upgrade/step_up_scopes", allowed)]);
        let expected = expected.map(|scope| Refusal::Scope(scope.to_owned()));
        assert_eq!(refusal(&sent, &wants(asked)), expected, "{scopes} {asked}");
    }
}

/// The body of every request that can be sent once more.
const KEPT: Option<&[u8]> = Some(b"{\"a\":1}");

#[test]
fn a_refused_request_is_sent_once_more_as_it_was_with_a_new_token() {
    let mut world = World::new(&[]);
    let head = [
        ("content-type", "application/json"),
        ("content-length", "7"),
        ("x-request-id", "r-1"),
        ("x-envoy-expected-rq-timeout-ms", "15000"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("expect", "100-continue"),
        ("accept", "application/json"),
        ("accept", "text/event-stream"),
        ("cookie", "theirs"),
        ("dpop", "theirs"),
    ];
    let after = world.forward("POST", "/mcp?x=y", &head);
    let first = after.sent.as_ref().unwrap().token.access_token().to_owned();

    let edits = world.answers(&after, &fields(&INVALID), KEPT);

    assert!(edits.hold);
    let Verdict::Answer(answer) = world.process.verdict() else {
        panic!("{:?}", world.process.log)
    };
    assert_eq!((answer.status, answer.body), (200, b"{\"answer\":\"the second\"}".to_vec()));
    let again = world.servers.last("upstream");
    assert_eq!((again.method, &*again.path, &*again.body), ("POST", "/warehouse?x=y", "{\"a\":1}"));
    let token = again.header("authorization").strip_prefix("Bearer ").unwrap().to_owned();
    assert!(token.starts_with("AS-token-") && token != first);
    let mut names: Vec<&str> = again.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept", "authorization", "content-type", "x-request-id"]);
    assert_eq!(world.servers.count("exchange"), 2);
    assert_eq!(world.process.counts["upstream_refused.token"], 1);
    assert_eq!(world.process.counts["done.sent_again"], 1);
    // The next request has the new one at once.
    assert_eq!(world.bot_token(), format!("Bearer {token}"));
}

#[test]
fn the_second_answer_is_the_last_whatever_it_is() {
    let more = [
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("mcp-session-id", "s"),
        ("content-type", "text/plain"),
    ];
    let hidden = [
        ("www-authenticate", "Bearer error=\"invalid_token\""),
        ("dpop-nonce", "n"),
        ("content-length", "1"),
        ("connection", "close"),
        ("x-envoy-upstream-service-time", "1"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "1"),
    ];

    for code in [200, 202, 204, 400, 401, 403, 404, 500, 503] {
        let (mut world, after) = forwarded(&stepping());
        let head = [&more[..], &hidden[..]].concat();
        world.servers.once("upstream", code, &head, json!("whatever"));
        world.answers(&after, &fields(&INVALID), KEPT);
        let Verdict::Answer(answer) = world.process.verdict() else { panic!("{code}") };
        assert_eq!((answer.status, answer.body), (code, b"whatever".to_vec()));
        let shown: Vec<(&str, &[u8])> = answer.headers.fields().collect();
        let expected: Vec<(&str, &[u8])> =
            more.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        assert_eq!(shown, expected, "{code}");
        assert_eq!(world.servers.count("upstream"), 1, "{code}: no third try");
    }
}

#[test]
fn a_server_that_does_not_answer_the_second_time_is_a_bad_gateway() {
    let long = "a".repeat(256 * 1024 + 1);
    for (code, body, expected) in [
        (SILENCE, "", Some("resend")),
        (200, long.as_str(), Some("resend")),
        (200, &long[1..], None),
    ] {
        let (mut world, after) = forwarded(&[]);
        world.servers.once("upstream", code, &[], json!(body));
        world.answers(&after, &fields(&INVALID), KEPT);
        let verdict = world.process.verdict();
        assert_eq!(status(&verdict), if expected.is_some() { 502 } else { 200 }, "{code}");
        assert_eq!(world.refused(), expected.unwrap_or("none"));
    }
}

#[test]
fn what_cannot_be_sent_once_more_goes_on_as_it_is() {
    for (what, method, body, holds) in [
        ("not kept", "POST", None, false),
        ("a body that is no text", "POST", Some(&[0xff][..]), true),
        ("a method nobody knows", "REPORT", KEPT, true),
        ("a method in lower case", "post", KEPT, true),
    ] {
        let mut world = World::new(&[]);
        let after = world.forward(method, "/mcp", &[]);
        let edits = world.answers(&after, &fields(&INVALID), body);
        assert_eq!(edits.hold, holds, "{what}");
        assert_eq!(edits.remove, ["www-authenticate"], "{what}");
        if holds {
            assert!(matches!(world.process.verdict(), Verdict::Pass), "{what}");
        }
        assert!(world.process.concluded.is_empty(), "{what}");
        assert_eq!(world.servers.count("upstream"), 0, "{what}");
        assert!(!world.process.counts.contains_key("done.sent_again"), "{what}");
    }
}

#[test]
fn the_token_is_dropped_though_the_request_cannot_be_sent_once_more() {
    let (mut world, after) = forwarded(&[]);

    world.answers(&after, &fields(&INVALID), None);

    let first = after.sent.as_ref().unwrap().token.access_token();
    assert_ne!(world.bot_token(), format!("Bearer {first}"));
}

#[test]
fn an_answer_that_refuses_nothing_goes_on_and_costs_nothing() {
    for code in ["200", "202", "400", "403", "404", "500"] {
        let (mut world, after) = forwarded(&stepping());
        let calls = world.servers.calls.len();
        let edits = world.answers(&after, &fields(&[(":status", code)]), KEPT);
        assert!(!edits.hold, "{code}");
        assert_eq!(world.servers.calls.len(), calls, "{code}");
    }
}

#[test]
fn a_server_that_refuses_the_new_token_too_gets_no_third_for_a_while() {
    let (mut world, after) = forwarded(&[]);
    world.answers(&after, &fields(&INVALID), KEPT);
    world.process.concluded.clear();

    for second in 1..29 {
        world.later(1);
        let after = forward(&mut world);
        world.answers(&after, &fields(&INVALID), KEPT);
        assert!(matches!(world.process.verdict(), Verdict::Pass), "{second}");
    }
    assert_eq!(world.servers.count("exchange"), 2);
    world.later(2);
    let after = forward(&mut world);
    world.answers(&after, &fields(&INVALID), KEPT);

    assert_eq!(world.servers.count("exchange"), 3);
}

#[test]
fn a_caller_that_gets_no_other_token_is_told_why() {
    for (error, expected) in [
        ("invalid_grant", 401),
        ("access_denied", 403),
        ("invalid_client", 502),
        ("temporarily_unavailable", 503),
    ] {
        let (mut world, after) = forwarded(&[]);
        world.servers.once("exchange", 400, &[], json!({ "error": error }));
        world.answers(&after, &fields(&INVALID), KEPT);
        assert_eq!(status(&world.process.verdict()), expected, "{error}");
        assert_eq!(world.servers.count("upstream"), 0, "{error}");
    }
}

#[test]
fn a_user_who_must_authenticate_is_told_so_by_us() {
    for resend in [KEPT, None] {
        let (mut world, after) = forwarded(&[]);
        let challenge = "Bearer realm=\"theirs\", error=\"insufficient_user_authentication\", \
            acr_values=\"mfa\", max_age=\"60\", resource_metadata=\"https://x.example/\"";
        let head = fields(&[(":status", "401"), ("www-authenticate", challenge)]);

        let edits = world.answers(&after, &head, resend);

        assert!(edits.hold);
        let verdict = world.process.verdict();
        let expected = "Bearer realm=\"mcp\", error=\"insufficient_user_authentication\", \
            acr_values=\"mfa\", max_age=\"60\"";
        assert_eq!((status(&verdict), header(&verdict, "www-authenticate")), (401, Some(expected)));
        assert_eq!(body(&verdict)["error"], "insufficient_user_authentication");
        assert_eq!(world.process.counts["upstream_refused.authentication"], 1);
        assert_eq!(world.servers.count("exchange"), 1, "a new token would not help");
        assert_eq!(world.servers.count("upstream"), 0);
    }
}

/// The server wants `scope`.
fn wants(scope: &str) -> Headers {
    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    fields(&[(":status", "403"), ("www-authenticate", &challenge)])
}

#[test]
fn scope_that_is_missing_is_asked_for_once_and_remembered_for_the_caller() {
    let (mut world, after) = forwarded(&stepping());

    world.answers(&after, &wants("stock.write"), KEPT);

    assert_eq!(status(&world.process.verdict()), 200);
    let asked = |world: &World| world.servers.last("exchange").get("scope").to_owned();
    assert_eq!(asked(&world), "stock.read stock.write");
    assert_eq!(world.process.counts["upstream_refused.scope"], 1);
    let wide = world.servers.last("upstream").header("authorization").to_owned();
    assert_eq!(world.bot_token(), wide);
    assert_eq!(world.servers.count("exchange"), 2);
    // It comes on top of what is there.
    let after = forward(&mut world);
    world.answers(&after, &wants("stock.admin"), KEPT);
    world.process.concluded.clear();
    assert_eq!(asked(&world), "stock.read stock.write stock.admin");
    // Another caller has not asked.
    world.call(&[("x-api-key", "other-key")]);
    assert_eq!(asked(&world), "stock.read");
}

#[test]
fn scope_that_cannot_be_had_leaves_the_servers_own_answer() {
    let (mut world, after) = forwarded(&stepping());
    let first = after.sent.as_ref().unwrap().token.access_token().to_owned();
    world.servers.once("exchange", 400, &[], json!({ "error": "invalid_scope" }));

    let edits = world.answers(&after, &wants("stock.write"), KEPT);

    assert!(edits.hold && edits.remove.contains(&"www-authenticate".to_owned()));
    assert!(matches!(world.process.verdict(), Verdict::Pass));
    assert_eq!(world.servers.count("upstream"), 0);
    assert_eq!(world.bot_token(), format!("Bearer {first}"), "what there was is still good");
}

#[test]
fn wider_scope_that_is_had_no_longer_gives_way_to_what_is_configured() {
    let (mut world, after) = forwarded(&stepping());
    world.answers(&after, &wants("stock.write"), KEPT);
    world.process.concluded.clear();
    world.later(301);
    world.servers.once("exchange", 400, &[], json!({ "error": "invalid_scope" }));

    assert_eq!(status(&world.bot()), 0);

    let calls = world.servers.calls.iter().filter(|call| call.to == "exchange");
    let scopes: Vec<&str> = calls.map(|call| call.get("scope")).collect();
    let wide = "stock.read stock.write";
    assert_eq!(scopes, ["stock.read", wide, wide, "stock.read"]);
    world.later(301);
    world.bot();
    assert_eq!(world.servers.last("exchange").get("scope"), "stock.read", "and stays so");
}

#[test]
fn without_step_up_scopes_nothing_is_widened() {
    let (mut world, after) = forwarded(&[]);

    let edits = world.answers(&after, &wants("stock.write"), KEPT);

    assert!(!edits.hold);
    assert_eq!(world.servers.count("exchange"), 1);
}

fn bound() -> [(&'static str, Value); 1] {
    [("upgrade/dpop", json!("required"))]
}

/// The server wants a nonce.
fn wants_nonce(nonce: &str) -> Headers {
    let challenge = ("www-authenticate", "DPoP error=\"use_dpop_nonce\"");
    fields(&[(":status", "401"), challenge, ("dpop-nonce", nonce)])
}

#[test]
fn a_nonce_that_is_missing_comes_with_the_same_token_and_another_proof() {
    let (mut world, after) = forwarded(&bound());
    let token = after.sent.as_ref().unwrap().token.access_token().to_owned();
    let first = world.went.text("dpop").unwrap().to_owned();

    world.answers(&after, &wants_nonce("n-1"), KEPT);

    assert_eq!(status(&world.process.verdict()), 200);
    let again = world.servers.last("upstream");
    assert_eq!(again.header("authorization"), format!("DPoP {token}"));
    let proof = again.header("dpop");
    assert_ne!(proof, first);
    thumbprint(proof, "POST", WAREHOUSE, Some(&token), world.process.now);
    assert_eq!(part(proof, 1)["nonce"], "n-1");
    assert_eq!(world.servers.count("exchange"), 1);
    assert_eq!(world.process.counts["upstream_refused.nonce"], 1);
    // The next request has it from the start.
    let Verdict::Forward(edits, _) = world.bot() else { panic!() };
    assert_eq!(part(edits.set[1].1.expose(), 1)["nonce"], "n-1");
}

#[test]
fn a_bearer_token_in_the_place_of_a_bound_one_comes_without_a_proof() {
    let (mut world, after) = forwarded(&[("upgrade/dpop", json!("preferred"))]);
    world.servers.redemption = json!({ "token_type": "Bearer" });

    world.answers(&after, &fields(&INVALID), KEPT);

    assert_eq!(status(&world.process.verdict()), 200);
    let again = world.servers.last("upstream");
    assert!(again.header("authorization").starts_with("Bearer "));
    assert_eq!(again.header("dpop"), "");
}

#[test]
fn what_is_not_kept_is_got_anew_for_the_second_try() {
    let (mut world, after) = forwarded(&[("upgrade/cache", json!(false))]);

    world.answers(&after, &fields(&INVALID), KEPT);

    assert_eq!(status(&world.process.verdict()), 200);
    assert_eq!(world.servers.count("exchange"), 2);
}

#[test]
fn a_client_that_leaves_during_the_second_try_leaves_nothing_behind() {
    let (mut world, after) = forwarded(&[]);
    assert!(world.response(&after, &fields(&INVALID), KEPT).hold);

    world.process.workers[0].gone(1);
    world.settle();
    world.later(60);
    world.process.tick();
    world.settle();

    assert!(world.process.concluded.is_empty());
    assert_eq!(world.servers.count("upstream"), 0);
    assert_eq!(status(&world.bot()), 0);
}
