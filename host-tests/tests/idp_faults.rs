//! An IdP that is slow, broken, or says what it should not, before legacy clients of the real Envoy: each is told whose
//! trouble it is, nothing goes further, and all is well once the IdP is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::endpoints::{Fault, Gate};
use host_tests::names::{TOKEN_ID_JAG, TOKEN_ID_TOKEN};
use host_tests::upstream::Upstream;
use host_tests::{Options, World, now};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::*;

/// A fault of the IdP's token endpoint, what the client is told, and what the log says of it.
struct Case {
    name: &'static str,
    fault: Fault,
    status: u16,
    logged: String,
}

async fn world() -> (World, Upstream) {
    world_with_upstream(Options { concurrency: 4, ..Options::default() }).await
}

/// An answer with an ID-JAG for Alice in which the test has changed something.
fn issued(world: &World, change: impl FnOnce(&mut Value, &mut Value, &mut Value)) -> Fault {
    let (mut header, mut claims) = world.idp.id_jag_parts(&world.tickets_connection(), "alice");
    let mut answer =
        json!({"issued_token_type": TOKEN_ID_JAG, "token_type": "N_A", "expires_in": 300});
    change(&mut header, &mut claims, &mut answer);
    if answer.get("access_token").is_none() {
        answer["access_token"] = json!(world.idp.sign(&claims, &header));
    }
    Fault::Body(answer.to_string())
}

/// Tries each case on a new user; the IdP is well again after it, and so is the next request.
async fn assert_each(world: &World, upstream: &Upstream, cases: Vec<Case>) {
    for Case { name, fault, status, logged } in cases {
        let (redeemed, received) = (legs(world).1, upstream.server.bytes_received());
        let logged_before = world.envoy.as_ref().unwrap().log().len();
        let token = id_token_of(world, "alice");
        world.idp.endpoints().fail("/token", fault);

        let answer = post_as(&world.upgrade_url(), &token).await;
        let log = world.envoy.as_ref().unwrap().log().split_off(logged_before);

        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{name}: {answer:?}");
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&logged)).collect();
        assert_eq!(lines.len(), 1, "{name}: not one line with {logged}:\n{log}");
        assert!(!log.contains("eyJ") && !log.contains(&world.app.secret), "{name}: {log}");
        assert_eq!(legs(world).1, redeemed, "{name}: something reached the Resource AS");
        assert_eq!(upstream.server.bytes_received(), received, "{name}: something reached Tickets");
        heal(world, &token, name).await;
    }
    assert_vm_never_failed(world).await;
}

/// The IdP is well: the same client is served after what little time failures are remembered.
async fn heal(world: &World, token: &str, name: &str) {
    world.idp.endpoints().heal("/token");
    let began = Instant::now();
    loop {
        let answer = post_as(&world.upgrade_url(), token).await;
        if answer.status == 200 {
            return assert_eq!(answer.body, "alice", "{name}");
        }
        assert!(began.elapsed() < Duration::from_secs(12), "{name}: never healed: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_idp_that_fails_is_an_outage_and_one_that_answers_nonsense_is_a_bad_gateway() {
    let (world, upstream) = world().await;
    let (trap, issuer) = (Upstream::start(), world.idp.issuer().to_owned());
    let elsewhere = format!("http://127.0.0.1:{}/token", trap.port());
    let json = || ("content-type", "application/json".to_owned());
    let html = || ("content-type", "text/html".to_owned());
    let page = || "<html>We are down for maintenance</html>".to_owned();
    let exchange = |what: &str| format!("token exchange at \"{issuer}\": {what}");
    let huge = format!("{{\"access_token\": \"{}\"}}", "x".repeat(1 << 20));
    let case = |name, fault, status, logged| Case { name, fault, status, logged };
    let cases = vec![
        case("500 in HTML", Fault::Answer(500, vec![html()], page()), 503, exchange("500 none")),
        case("200 in HTML", Fault::Answer(200, vec![html()], page()), 502, exchange("200 none")),
        case("404 in HTML", Fault::Answer(404, vec![html()], page()), 502, exchange("404 none")),
        case("junk", Fault::Junk, 502, exchange("200 none")),
        case("empty", Fault::Empty, 502, exchange("200 none")),
        case("half JSON", Fault::Body("{\"access_token\": \"x".into()), 502, exchange("200 none")),
        case("a list", Fault::Body("[{}]".into()), 502, exchange("200 none")),
        case("deep", Fault::Body("[".repeat(100_000)), 502, exchange("200 none")),
        case("huge", Fault::Body(huge), 502, exchange("200 none")),
        case("no status that is known", Fault::Status(299), 502, exchange("299 none")),
        case(
            "a redirect",
            Fault::Answer(307, vec![("location", elsewhere.clone())], String::new()),
            502,
            exchange("307 none"),
        ),
        case(
            "a redirect with a code",
            Fault::Answer(
                302,
                vec![("location", elsewhere), json()],
                "{\"error\":\"moved\"}".into(),
            ),
            502,
            exchange("302 moved"),
        ),
    ];

    assert_each(&world, &upstream, cases).await;

    assert_eq!(trap.server.bytes_received(), 0);
}

#[tokio::test]
async fn what_is_issued_to_or_about_somebody_else_is_not_redeemed() {
    let (world, upstream) = world().await;
    let spoilt =
        |name: &'static str, value: Value| issued(&world, |_, claims, _| claims[name] = value);
    let typed = |typ| issued(&world, |header, _, _| header["typ"] = json!(typ));
    let answered = |name: &'static str, value| issued(&world, |_, _, answer| answer[name] = value);
    let case = |name, fault, logged: &str| Case { name, fault, status: 502, logged: logged.into() };
    let id_token = world.alice.id_token.clone();
    let cases = vec![
        case("another user", spoilt("sub", json!("mallory")), "ID-JAG is about another user"),
        case("no user", spoilt("sub", json!(null)), "token exchange at"),
        case("another audience", spoilt("aud", json!("http://as.example")), "the ID-JAG's aud is"),
        case("another client", spoilt("client_id", json!("other")), "the ID-JAG's client_id is"),
        case(
            "another resource",
            spoilt("resource", json!("http://mcp.example/mcp")),
            "the ID-JAG's resource is",
        ),
        case("two audiences", spoilt("aud", json!(["a", "b"])), "the ID-JAG's aud is"),
        case("expired", spoilt("exp", json!(now() - 1)), "is no ID-JAG, or has expired"),
        case("typ of an ID token", typed("JWT"), "is no ID-JAG, or has expired"),
        case("typ of an access token", typed("at+jwt"), "is no ID-JAG, or has expired"),
        case("an ID token", answered("access_token", json!(id_token)), "is no ID-JAG"),
        case(
            "an ID token that is called one",
            answered("issued_token_type", json!(TOKEN_ID_TOKEN)),
            "issued_token_type",
        ),
        case("a bearer token", answered("token_type", json!("Bearer")), "token_type"),
        case("no token", answered("access_token", json!("")), "access_token"),
        case("no JWT", answered("access_token", json!("opaque")), "access_token"),
        case(
            "another resource in the answer",
            answered("resource", json!("http://mcp.example/mcp")),
            "another resource was granted",
        ),
    ];

    assert_each(&world, &upstream, cases).await;
}

#[tokio::test]
async fn an_idp_that_does_not_answer_in_time_or_breaks_off_is_an_outage() {
    let (mut world, upstream) = world().await;
    let kept = id_token_of(&world, "alice");
    assert_eq!(post_as(&world.upgrade_url(), &kept).await.body, "alice");
    let (token, other) = (id_token_of(&world, "alice"), id_token_of(&world, "alice"));
    let asked = upstream.count();

    let gate = Gate::closed();
    world.idp.endpoints().fail("/token", Fault::Held(gate.clone()));
    let began = Instant::now();
    let slow = post_as(&world.upgrade_url(), &token).await;
    let patience = began.elapsed();
    // What comes too late is for nobody.
    gate.open();
    heal(&world, &token, "slow").await;

    world.idp.server.cut_answers(Some(40));
    let cut = post_as(&world.upgrade_url(), &other).await;
    let meanwhile = post_as(&world.upgrade_url(), &kept).await;
    world.idp.server.cut_answers(None);
    heal(&world, &other, "cut").await;

    world.idp.server.stop();
    let down = post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await;
    let still = post_as(&world.upgrade_url(), &kept).await;
    world.idp.server.restart();
    heal(&world, &id_token_of(&world, "alice"), "down").await;

    for (name, answer) in [("slow", &slow), ("cut", &cut), ("down", &down)] {
        assert_eq!(answer.status, 503, "{name}: {answer:?}");
        assert!(answer.header("retry-after").is_some(), "{name}: {answer:?}");
    }
    assert!(patience < Duration::from_secs(8), "{patience:?}");
    assert_eq!((meanwhile.status, still.status), (200, 200));
    let log = world.envoy.as_ref().unwrap().log();
    assert!(log.contains("identity_providers.acme: \""), "{log}");
    assert_eq!(upstream.count(), asked + 5);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn an_idp_that_throttles_is_left_alone_by_all_workers_for_as_long_as_it_says() {
    const SECONDS: u64 = 4;
    let (world, upstream) = world().await;
    let kept = id_token_of(&world, "alice");
    assert_eq!(post_as(&world.upgrade_url(), &kept).await.body, "alice");
    let before = legs(&world).0;
    let slow_down = vec![("retry-after", SECONDS.to_string())];
    world.idp.endpoints().fail_times("/token", 1, Fault::Answer(429, slow_down, String::new()));

    let began = Instant::now();
    let throttled = post_as(&world.upgrade_url(), &id_token_of(&world, "bob")).await;
    let (mut refused, mut served) = (0, 0);
    while legs(&world).0 == before + 1 {
        assert!(began.elapsed() < Duration::from_secs(SECONDS + 10), "it is never asked again");
        let answer = post_as(&world.upgrade_url(), &id_token_of(&world, "bob")).await;
        let by_kept = post_as(&world.upgrade_url(), &kept).await;
        assert_eq!((by_kept.status, &*by_kept.body), (200, "alice"));
        served += 1;
        if answer.status == 503 {
            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=SECONDS).contains(&after), "{answer:?}");
            refused += 1;
        }
    }
    let left_alone = began.elapsed();
    let healed = post_as(&world.upgrade_url(), &id_token_of(&world, "bob")).await;

    assert_eq!(throttled.status, 503, "{throttled:?}");
    assert_eq!(throttled.header("retry-after"), Some(&*SECONDS.to_string()));
    // Seconds are whole, so the last may be short.
    assert!(left_alone >= Duration::from_secs(SECONDS - 1), "{left_alone:?}");
    assert!(refused > 10 && served > 10, "{refused} {served}");
    assert_eq!((healed.status, &*healed.body), (200, "bob"));
    let bobs = upstream.received().iter().filter(|request| request.claim("sub") == "bob").count();
    assert_eq!(bobs, legs(&world).1 - 1);
    assert_vm_never_failed(&world).await;
}
