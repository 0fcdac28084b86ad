//! Upgrade through the real Envoy: legacy credentials in, access tokens of the Tickets AS out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::client_auth::AuthMethod;
use host_tests::endpoints::Fault;
use host_tests::keys::{SigningKey, random_text};
use host_tests::names::{TYP_ACCESS_TOKEN, TYP_ID_JAG};
use host_tests::{Options, World, now, raw};
use serde_json::json;
use std::time::Duration;
use support::*;

#[tokio::test]
async fn callers_with_an_id_token_and_with_an_api_key_reach_tickets_as_themselves() {
    let world = World::start(Options::default()).await;

    let mut alice = world.client_with_id_token();
    alice.initialize().await.unwrap();
    let alices = alice.call("list_tickets", json!({})).await.unwrap();
    let mut bot = world.client_with_api_key();
    bot.initialize().await.unwrap();
    let bots = bot.call("list_tickets", json!({})).await.unwrap();

    assert_eq!(alices["caller"], "alice");
    assert_eq!(bots["caller"], "ci-bot");
    for tickets in [alices, bots] {
        assert_eq!(tickets["client"], "jagway-at-tickets");
        assert_eq!(tickets["scope"], "tickets.read tickets.write");
    }
}

#[tokio::test]
async fn jagway_proves_itself_by_secret_or_by_key_at_either_server() {
    use AuthMethod::{Basic, PrivateKeyJwt};
    for (at_idp, at_tickets_as) in [
        (Basic, Basic),
        (PrivateKeyJwt, Basic),
        (Basic, PrivateKeyJwt),
        (PrivateKeyJwt, PrivateKeyJwt),
    ] {
        let options =
            Options { idp_auth: at_idp, tickets_as_auth: at_tickets_as, ..Options::default() };
        let (world, _upstream) = world_with_upstream(options).await;

        let answer = post_as(&world.upgrade_url(), &world.alice.id_token).await;

        assert_eq!(answer.status, 200, "{at_idp:?} {at_tickets_as:?}");
        assert_eq!(world.idp.clients().methods_used().last(), Some(&at_idp));
        assert_eq!(world.tickets_as.clients().methods_used(), [at_tickets_as]);
    }
}

#[tokio::test]
async fn no_credential_of_the_caller_and_no_header_of_ours_travels_on() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    let hostile = [
        ("cookie", "session=COOKIE"),
        ("dpop", "DPOP"),
        ("proxy-authorization", "Basic PROXY"),
        ("x-jagway-subject", "FORGED"),
        ("X-Jagway-Anything", "FORGED"),
        ("x-harmless", "kept"),
    ];
    let bearer = format!("Bearer {}", world.alice.id_token);
    let callers = [("authorization", bearer.as_str()), ("x-api-key", &world.caller_key)];

    for caller in callers {
        let mut headers = hostile.to_vec();
        headers.push(caller);
        // Cold, then warm.
        for _ in 0..2 {
            assert_eq!(post(&world.upgrade_url(), &headers, "{}").await.status, 200);
        }
    }

    assert_eq!(upstream.count(), 4);
    for request in upstream.received() {
        for name in ["cookie", "dpop", "proxy-authorization", "x-api-key"] {
            assert_eq!(request.header(name), None, "{name}");
        }
        assert_eq!(request.header("x-harmless"), Some("kept"));
        let everything = format!("{:?}", request.headers);
        assert!(
            !everything.contains("x-jagway-") && !everything.contains("FORGED"),
            "{everything}"
        );
        assert!(!everything.contains(&world.alice.id_token));
        assert!(!everything.contains(&world.caller_key));
        assert_eq!(request.claim("client_id"), "jagway-at-tickets");
        assert_eq!(request.headers.get_all("authorization").iter().count(), 1);
    }
}

#[tokio::test]
async fn a_large_upload_arrives_byte_for_byte_whether_cold_or_warm() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    let body: Vec<u8> =
        (0..8 * 1024 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let origin = world.upgrade_url().trim_end_matches("/mcp").to_owned();

    for token in [&world.alice.id_token, &world.alice.id_token, &id_token_of(&world, "bob")] {
        let bearer = format!("Bearer {token}");
        let counted = post(&world.upgrade_url(), &[("authorization", &bearer)], body.clone()).await;
        assert_eq!(counted.status, 200);
        assert_eq!(upstream.last().body, body);
    }
    let bearer = format!("Bearer {}", id_token_of(&world, "carol"));
    let bytes =
        raw::chunked(&origin, b"/mcp", &[("authorization", bearer.as_bytes())], &body, 65_521, "");
    let chunked = raw::send(&origin, &bytes).await;

    assert_eq!(chunked.status, 200);
    assert_eq!(upstream.last().body, body);
    assert_eq!(upstream.last().claim("sub"), "carol");
}

#[tokio::test]
async fn the_access_token_is_used_again_without_asking_anybody() {
    let (world, upstream) =
        world_with_upstream(Options { concurrency: 4, ..Options::default() }).await;
    assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);
    let asked = bytes_called_out(&world);

    for _ in 0..12 {
        assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);
    }

    assert_eq!(bytes_called_out(&world), asked);
    assert_eq!(legs(&world), (1, 1));
    let tokens: Vec<_> = upstream.received().iter().map(|one| one.bearer().to_owned()).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]));
}

#[tokio::test]
async fn a_token_near_its_end_is_refreshed_behind_requests_that_still_use_it() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    let grant = |token: &str| {
        json!({"access_token": token, "token_type": "Bearer", "expires_in": 20}).to_string()
    };
    world.tickets_as.endpoints().fail("/token", Fault::Body(grant("first")));
    assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);
    assert_eq!(legs(&world), (1, 1));
    world.tickets_as.endpoints().fail("/token", Fault::Body(grant("second")));
    // So slow that whoever waited for it would be seen to.
    world.idp.endpoints().fail("/token", Fault::Delay(Duration::from_secs(1)));

    // Until a request sets off the refresh: it must have been answered before the refresh is done.
    let began = std::time::Instant::now();
    while legs(&world).0 == 1 {
        assert!(began.elapsed() < Duration::from_secs(20), "no refresh before the token ends");
        assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);
        assert_eq!(upstream.last().bearer(), "first");
        assert_eq!(legs(&world).1, 1, "the request waited for the refresh");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until(5, "the refresh is done", || legs(&world) == (2, 2)).await;
    let began = std::time::Instant::now();
    while upstream.last().bearer() == "first" {
        assert!(began.elapsed() < Duration::from_secs(5), "the new token is never used");
        assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);
    }

    assert_eq!(upstream.last().bearer(), "second");
    assert_eq!(legs(&world), (2, 2));
}

#[tokio::test]
async fn a_credential_that_does_not_pass_costs_nothing_and_reaches_nobody() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    let claim = |name: &'static str, value| id_token(&world, |_, claims| claims[name] = value);
    let typed = |typ: &'static str| id_token(&world, |header, _| header["typ"] = json!(typ));
    let forged = {
        let token = id_token(&world, |_, _| {});
        let claims =
            host_tests::journal::Token::new(host_tests::journal::Kind::IdToken, &token).claims;
        let key = world.idp.key();
        SigningKey::es256(key.kid()).sign(&key.header("JWT"), &claims.unwrap())
    };
    let bearer = |token: String| ("authorization", format!("Bearer {token}"));
    let cases = [
        ("expired", bearer(claim("exp", json!(now() - 120)))),
        ("forged", bearer(forged)),
        ("another client's", bearer(claim("aud", json!("other-app")))),
        ("two clients', without azp", bearer(claim("aud", json!([world.app.id, "other-app"])))),
        ("of another issuer", bearer(claim("iss", json!("http://other.example")))),
        ("from the future", bearer(claim("iat", json!(now() + 3600)))),
        ("without a subject", bearer(claim("sub", json!(null)))),
        ("an access token", bearer(typed(TYP_ACCESS_TOKEN))),
        ("an ID-JAG", bearer(typed(TYP_ID_JAG))),
        ("unsigned", bearer(id_token(&world, |header, _| header["alg"] = json!("none")))),
        ("HMAC", bearer(id_token(&world, |header, _| header["alg"] = json!("HS256")))),
        (
            "of an unknown key",
            bearer(id_token(&world, |header, _| header["kid"] = json!("nobody"))),
        ),
        ("no token", bearer("nonsense".into())),
        ("empty", ("authorization", "Bearer ".into())),
        ("another scheme", ("authorization", format!("Basic {}", world.alice.id_token))),
        ("no scheme", ("authorization", world.alice.id_token.clone())),
        ("a refresh token", bearer(world.alice.refresh_token.clone())),
        ("an API key as bearer", bearer(world.caller_key.clone())),
        ("a wrong API key", ("x-api-key", random_text())),
        ("an empty API key", ("x-api-key", String::new())),
        ("an ID token as API key", ("x-api-key", world.alice.id_token.clone())),
        ("nothing", ("x-nothing", String::new())),
    ];

    for (name, (header, value)) in cases {
        let answer = post(&world.upgrade_url(), &[(header, &value)], "{}").await;

        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Bearer realm=\"mcp\""), "{name}: {challenge}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
    }
    assert_eq!(legs(&world), (0, 0));
    assert_eq!(upstream.server.bytes_received(), 0);
    assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);
}

#[tokio::test]
async fn two_credentials_are_refused_however_they_are_sent() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    let origin = world.upgrade_url().trim_end_matches("/mcp").to_owned();
    let bearer = format!("Bearer {}", world.alice.id_token);
    let (bearer, key) = (bearer.as_bytes(), world.caller_key.as_bytes());
    let joined = [bearer, b", ", bearer].concat();
    let joined_keys = [key, b",", key].concat();
    type Row<'a> = (&'a str, u16, &'a [(&'a str, &'a [u8])]);
    let cases: [Row; 5] = [
        ("a token and a key", 400, &[("authorization", bearer), ("x-api-key", key)]),
        ("two tokens", 400, &[("authorization", bearer), ("authorization", bearer)]),
        ("two keys", 400, &[("x-api-key", key), ("x-api-key", key)]),
        // One field with a comma is no list of credentials, but it is no credential either.
        ("two tokens in one field", 400, &[("authorization", &joined)]),
        ("two keys in one field", 401, &[("x-api-key", &joined_keys)]),
    ];

    let mut wrong = vec![];
    for (name, status, headers) in cases {
        let answer =
            raw::send(&origin, &raw::request("POST", &origin, b"/mcp", headers, b"{}")).await;
        if answer.status != status {
            wrong.push(format!("{name}: {answer:?}"));
        }
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(legs(&world), (0, 0));
    assert_eq!(upstream.server.bytes_received(), 0);
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_not_used_again() {
    let options = Options { concurrency: 1, ..Options::default() };
    let (world, upstream) = world_with_upstream(options).await;
    assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);

    upstream.answer(401, &[]);
    let refused = post_as(&world.upgrade_url(), &world.alice.id_token).await;
    upstream.answer(200, &[]);
    let again = post_as(&world.upgrade_url(), &world.alice.id_token).await;

    assert_eq!((refused.status, again.status), (401, 200));
    assert_eq!(legs(&world), (2, 2));
    let received = upstream.received();
    assert_eq!(received[0].bearer(), received[1].bearer());
    assert_ne!(received[1].bearer(), received[2].bearer());
}

#[tokio::test]
async fn what_is_not_configured_does_not_exist() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    let origin = world.upgrade_url().trim_end_matches("/mcp").to_owned();
    let bearer = format!("Bearer {}", world.alice.id_token);
    let headers: [(&str, &[u8]); 1] = [("authorization", bearer.as_bytes())];
    let elsewhere: [(&str, &[u8]); 2] = [headers[0], ("host", b"other.example")];

    for target in ["/", "/mcpx", "/MCP", "/other", "/token", "/mc"] {
        let bytes = raw::request("POST", &origin, target.as_bytes(), &headers, b"{}");
        assert_eq!(raw::send(&origin, &bytes).await.status, 404, "{target}");
    }
    let bytes = raw::request("POST", &origin, b"/mcp", &elsewhere, b"{}");
    assert_eq!(raw::send(&origin, &bytes).await.status, 404);

    assert_eq!(upstream.server.bytes_received(), 0);
    assert_eq!(legs(&world), (0, 0));
}

#[tokio::test]
async fn a_refresh_that_fails_is_not_noticed_while_the_token_lives() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    let grant = |token: &str| {
        json!({"access_token": token, "token_type": "Bearer", "expires_in": 20}).to_string()
    };
    world.tickets_as.endpoints().fail("/token", Fault::Body(grant("first")));
    assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);
    world.tickets_as.endpoints().fail("/token", Fault::Body(grant("second")));
    world.idp.endpoints().fail("/token", Fault::Status(500));

    // The first refresh fails; what the caller sees is the old token, then for want of any an outage, then the new one.
    let (began, mut seen) = (std::time::Instant::now(), vec![]);
    while seen.last() != Some(&"second".to_owned()) {
        assert!(began.elapsed() < Duration::from_secs(40), "{seen:?}");
        let answer = post_as(&world.upgrade_url(), &world.alice.id_token).await;
        let what = match answer.status {
            200 => upstream.last().bearer().to_owned(),
            status => status.to_string(),
        };
        if what == "503" {
            world.idp.endpoints().heal("/token");
        }
        if seen.last() != Some(&what) {
            seen.push(what);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    assert_eq!(seen, ["first", "503", "second"]);
    // One that worked, one refresh that failed, one that failed for want of a token, and the last.
    assert!(legs(&world).0 <= 4, "{:?}", legs(&world));
}

#[tokio::test]
async fn the_end_of_an_id_token_ends_what_was_got_for_it() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    // Only our skew of 60 s still carries it.
    let token = id_token(&world, |_, claims| {
        claims["iat"] = json!(now() - 600);
        claims["exp"] = json!(now() - 56);
    });
    // Our IdP has no skew, so it gets its own way of saying yes.
    let (header, claims) = world.idp.id_jag_parts(&world.tickets_connection(), "alice");
    let issued = json!({
        "issued_token_type": host_tests::names::TOKEN_ID_JAG, "token_type": "N_A",
        "access_token": world.idp.sign(&claims, &header),
    });
    world.idp.endpoints().fail_times("/token", 1, Fault::Body(issued.to_string()));
    let first = post_as(&world.upgrade_url(), &token).await;

    let (began, mut last) = (std::time::Instant::now(), first.status);
    while last == 200 {
        assert!(began.elapsed() < Duration::from_secs(15), "the ID token never ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
        last = post_as(&world.upgrade_url(), &token).await.status;
    }

    assert_eq!((first.status, last), (200, 401), "{first:?}");
    assert!(upstream.count() >= 1);
}

#[tokio::test]
async fn a_token_is_not_used_longer_than_the_operator_says() {
    let patch = Box::new(|config: &mut serde_json::Value| {
        config["resources"][0]["upgrade"]["max_token_age"] = json!(2);
    });
    let options = Options { patch_egress: Some(patch), ..Options::default() };
    let (world, upstream) = world_with_upstream(options).await;
    let began = std::time::Instant::now();

    while legs(&world).1 < 3 {
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", legs(&world));
        assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // A token of five minutes was used for two seconds, and no shorter.
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert!(upstream.count() > 10);
}

#[tokio::test]
async fn an_api_key_may_come_as_a_bearer_token() {
    let patch = Box::new(|config: &mut serde_json::Value| {
        config["resources"][0]["upgrade"]["callers"][1]["api_key"]["header"] =
            json!("Authorization");
    });
    let options = Options { patch_egress: Some(patch), ..Options::default() };
    let (world, upstream) = world_with_upstream(options).await;

    let by_key = post_as(&world.upgrade_url(), &world.caller_key).await;
    let who = upstream.last().claim("sub");
    let by_id_token = post_as(&world.upgrade_url(), &world.alice.id_token).await;
    let wrong = post_as(&world.upgrade_url(), &random_text()).await;

    assert_eq!((by_key.status, by_id_token.status, wrong.status), (200, 200, 401));
    assert_eq!(who, "ci-bot");
    assert_eq!(upstream.last().claim("sub"), "alice");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn a_server_that_refuses_every_token_does_not_make_us_storm_the_idp() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    upstream.answer(401, &[]);

    for _ in 0..30 {
        assert_eq!(post_as(&world.upgrade_url(), &world.alice.id_token).await.status, 401);
    }

    // A new token is worth a try; a new one for each request is not.
    assert!(legs(&world).0 <= 10, "{:?} exchanges for 30 requests", legs(&world));
}
