//! What a caller is told when the IdP or the Resource AS does not give a token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::endpoints::Fault;
use host_tests::names::{TOKEN_ID_JAG, TOKEN_ID_TOKEN};
use host_tests::upstream::Upstream;
use host_tests::{Options, World};
use serde_json::{Value, json};
use support::*;

/// An OAuth error answer.
fn error(status: u16, code: &str) -> Fault {
    json_answer(status, json!({"error": code, "error_description": "SECRET-WORDS"}))
}

fn json_answer(status: u16, body: Value) -> Fault {
    let kind = ("content-type", "application/json".to_owned());
    Fault::Answer(status, vec![kind], body.to_string())
}

fn bare(status: u16) -> Fault {
    Fault::Answer(status, vec![], String::new())
}

/// Answers that mean the same whichever of the two servers gives them, and what the caller is told. Never two
/// in a row that say the server is down: it would be left alone for a while.
fn common() -> Vec<(&'static str, Fault, u16)> {
    let html = ("content-type", "text/html".to_owned());
    let deep = "[".repeat(100_000);
    vec![
        ("429", bare(429), 503),
        ("invalid_client", error(401, "invalid_client"), 502),
        ("500", bare(500), 503),
        ("invalid_client as 400", error(400, "invalid_client"), 502),
        ("503", error(503, "temporarily_unavailable"), 503),
        ("unauthorized_client", error(400, "unauthorized_client"), 403),
        ("unsupported_grant_type", error(400, "unsupported_grant_type"), 502),
        ("invalid_target", error(400, "invalid_target"), 403),
        ("invalid_scope", error(400, "invalid_scope"), 403),
        ("access_denied", error(400, "access_denied"), 403),
        ("access_denied as 403", error(403, "access_denied"), 403),
        ("an unknown error", error(400, "no_such_code"), 502),
        ("an error that is no text", json_answer(400, json!({"error": 7})), 502),
        ("temporarily_unavailable as 400", error(400, "temporarily_unavailable"), 503),
        ("404", bare(404), 502),
        ("204", bare(204), 502),
        ("a redirect", Fault::Answer(302, vec![("location", "/token".into())], String::new()), 502),
        (
            "a redirect that keeps the method",
            Fault::Answer(307, vec![("location", "/token".into())], String::new()),
            502,
        ),
        ("nothing", Fault::Empty, 502),
        ("junk", Fault::Junk, 502),
        ("HTML", Fault::Answer(200, vec![html.clone()], "<html>sign in</html>".into()), 502),
        ("HTML with 400", Fault::Answer(400, vec![html], "<html>no</html>".into()), 502),
        ("an array", Fault::Body("[]".into()), 502),
        ("an empty object", Fault::Body("{}".into()), 502),
        (
            "a member twice",
            Fault::Body(r#"{"access_token":"a","access_token":"b","token_type":"Bearer"}"#.into()),
            502,
        ),
        ("very deep JSON", Fault::Body(deep), 502),
        ("a very large answer", Fault::Body(format!(r#"{{"x":"{}"}}"#, "x".repeat(4 << 20))), 502),
    ]
}

/// Sends a new user's request while `fault` is on at the chosen server, and looks at what came back.
async fn check(
    world: &World,
    upstream: &Upstream,
    at_idp: bool,
    row: (&str, Fault, u16),
) -> Answer {
    let (name, fault, status) = row;
    let place = if at_idp { "IdP" } else { "RAS" };
    let endpoints = if at_idp { world.idp.endpoints() } else { world.tickets_as.endpoints() };
    let served = upstream.count();

    endpoints.fail("/token", fault);
    let answer = post_as(&world.upgrade_url(), &id_token_of(world, "alice")).await;
    endpoints.heal("/token");

    assert_eq!(answer.status, status, "{place}: {name}: {answer:?}");
    assert_eq!(answer.header("retry-after").is_some(), status == 503, "{place}: {name}");
    assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{place}: {name}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{place}: {name}");
    assert!(!answer.body.contains("SECRET-WORDS"), "{place}: {name}: {answer:?}");
    assert_eq!(upstream.count(), served, "{place}: {name}");
    answer
}

async fn warm_world() -> (World, Upstream) {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    assert_eq!(post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await.status, 200);
    (world, upstream)
}

#[tokio::test]
async fn each_answer_of_the_idp_has_its_meaning_for_the_caller() {
    let (world, upstream) = warm_world().await;
    let own = [
        ("invalid_grant", error(400, "invalid_grant"), 401),
        ("invalid_request", error(400, "invalid_request"), 401),
    ];

    for row in common().into_iter().chain(own) {
        let before = legs(&world);
        check(&world, &upstream, true, row).await;
        assert_eq!(legs(&world), (before.0 + 1, before.1));
    }

    assert_eq!(post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await.status, 200);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn each_answer_of_the_resource_as_has_its_meaning_for_the_caller() {
    let (world, upstream) = warm_world().await;

    for row in common() {
        check(&world, &upstream, false, row).await;
    }

    assert_eq!(post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await.status, 200);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_demand_for_another_login_reaches_the_caller_as_a_challenge() {
    let (world, upstream) = warm_world().await;
    let step_up = |acr: &str| json!({"error": "insufficient_user_authentication", "acr_values": acr, "max_age": 60});

    let plain =
        check(&world, &upstream, true, ("plain", json_answer(400, step_up("mfa")), 401)).await;
    let hostile = "x\", realm=\"evil\r\nset-cookie: a=b";
    let quoted =
        check(&world, &upstream, true, ("hostile", json_answer(400, step_up(hostile)), 401)).await;

    assert_eq!(
        plain.header("www-authenticate"),
        Some(
            r#"Bearer realm="mcp", error="insufficient_user_authentication", acr_values="mfa", max_age="60""#
        )
    );
    assert_eq!(quoted.header("set-cookie"), None);
    let challenge = quoted.header("www-authenticate").unwrap();
    assert!(challenge.contains(r#"acr_values="x\", realm=\"evil"#), "{challenge}");
}

#[tokio::test]
async fn an_id_jag_that_is_not_one_or_not_ours_is_never_redeemed() {
    let (world, upstream) = warm_world().await;
    let connection = world.tickets_connection();
    let answer = |change: &dyn Fn(&mut Value, &mut Value)| {
        let (header, mut claims) = world.idp.id_jag_parts(&connection, "alice");
        let mut body =
            json!({"issued_token_type": TOKEN_ID_JAG, "token_type": "N_A", "expires_in": 300});
        change(&mut body, &mut claims);
        if body.get("access_token").is_none() {
            body["access_token"] = world.idp.sign(&claims, &header).into();
        }
        Fault::Body(body.to_string())
    };
    let cases = [
        ("issued_token_type", answer(&|body, _| body["issued_token_type"] = json!(TOKEN_ID_TOKEN))),
        (
            "no issued_token_type",
            answer(&|body, _| drop(body.as_object_mut().unwrap().remove("issued_token_type"))),
        ),
        ("token_type", answer(&|body, _| body["token_type"] = json!("Bearer"))),
        (
            "no token_type",
            answer(&|body, _| drop(body.as_object_mut().unwrap().remove("token_type"))),
        ),
        ("access_token is no JWT", answer(&|body, _| body["access_token"] = json!("opaque"))),
        ("access_token is no text", answer(&|body, _| body["access_token"] = json!(7))),
        ("another audience", answer(&|_, claims| claims["aud"] = json!("http://other.example"))),
        ("two audiences", answer(&|_, claims| claims["aud"] = json!([connection.audience, "x"]))),
        ("another client", answer(&|_, claims| claims["client_id"] = json!("somebody"))),
    ];
    let before = legs(&world);
    let count = cases.len();

    for (name, fault) in cases {
        check(&world, &upstream, true, (name, fault, 502)).await;
    }
    let good = answer(&|body, _| body["token_type"] = json!("n_a"));
    world.idp.endpoints().fail_times("/token", 1, good);
    let control = post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await;

    assert_eq!(control.status, 200, "{control:?}");
    assert_eq!(legs(&world), (before.0 + count + 1, before.1 + 1));
}

#[tokio::test]
async fn an_access_token_that_cannot_be_used_is_not() {
    let (world, upstream) = warm_world().await;
    let resource = world.tickets.resource.as_str();
    let cases = [
        ("token_type", json!({"access_token": "a", "token_type": "DPoP", "expires_in": 60})),
        ("no token_type", json!({"access_token": "a", "expires_in": 60})),
        ("N_A", json!({"access_token": "a", "token_type": "N_A", "expires_in": 60})),
        ("no token", json!({"token_type": "Bearer", "expires_in": 60})),
        ("an empty token", json!({"access_token": "", "token_type": "Bearer", "expires_in": 60})),
        ("a token with a line break", json!({"access_token": "a\r\nx: y", "token_type": "Bearer"})),
        ("a token with a space", json!({"access_token": "a b", "token_type": "Bearer"})),
        ("a huge token", json!({"access_token": "a".repeat(70_000), "token_type": "Bearer"})),
        (
            "another resource",
            json!({"access_token": "a", "token_type": "Bearer", "resource": "http://other.example/mcp"}),
        ),
        (
            "two resources",
            json!({"access_token": "a", "token_type": "Bearer", "resource": [resource, "http://other.example/mcp"]}),
        ),
        (
            "expires_in is negative",
            json!({"access_token": "a", "token_type": "Bearer", "expires_in": -1}),
        ),
        (
            "expires_in is zero",
            json!({"access_token": "a", "token_type": "Bearer", "expires_in": 0}),
        ),
        (
            "expires_in is text",
            json!({"access_token": "a", "token_type": "Bearer", "expires_in": "soon"}),
        ),
    ];

    for (name, body) in cases {
        check(&world, &upstream, false, (name, Fault::Body(body.to_string()), 502)).await;
    }
    let good = json!({"access_token": "a", "token_type": "bearer", "resource": [resource]});
    world.tickets_as.endpoints().fail_times("/token", 1, Fault::Body(good.to_string()));
    let control = post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await;

    assert_eq!(control.status, 200, "{control:?}");
    assert_eq!(upstream.last().bearer(), "a");
}

#[tokio::test]
async fn a_refused_id_jag_is_followed_by_one_new_one() {
    let (world, upstream) = warm_world().await;
    let before = legs(&world);

    let twice = check(&world, &upstream, false, ("twice", error(400, "invalid_grant"), 502)).await;
    let after_twice = legs(&world);
    world.tickets_as.endpoints().fail_times("/token", 1, error(400, "invalid_grant"));
    let once = post_as(&world.upgrade_url(), &id_token_of(&world, "bob")).await;

    assert_eq!((twice.status, once.status), (502, 200));
    assert_eq!(after_twice, (before.0 + 2, before.1 + 2));
    assert_eq!(legs(&world), (before.0 + 4, before.1 + 4));
    assert_eq!(upstream.last().claim("sub"), "bob");
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_moment_and_then_tried_again() {
    let (world, _upstream) = warm_world().await;
    let token = id_token_of(&world, "alice");
    let before = legs(&world);
    world.idp.endpoints().fail_times("/token", 1, bare(500));

    let first = post_as(&world.upgrade_url(), &token).await;
    let second = post_as(&world.upgrade_url(), &token).await;
    let began = std::time::Instant::now();
    while post_as(&world.upgrade_url(), &token).await.status != 200 {
        assert!(began.elapsed().as_secs() < 15, "never tried again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    assert_eq!((first.status, second.status), (503, 503));
    assert_eq!(legs(&world), (before.0 + 2, before.1 + 1));
}

#[tokio::test]
async fn metadata_of_somebody_else_is_not_believed() {
    let cases = [
        (
            "another issuer",
            json!({"issuer": "http://other.example", "token_endpoint": "TOKEN", "jwks_uri": "JWKS"}),
        ),
        (
            "the issuer with a slash",
            json!({"issuer": "ISSUER/", "token_endpoint": "TOKEN", "jwks_uri": "JWKS"}),
        ),
        ("no issuer", json!({"token_endpoint": "TOKEN", "jwks_uri": "JWKS"})),
        (
            "endpoints elsewhere",
            json!({"issuer": "ISSUER", "token_endpoint": "http://other.example/token", "jwks_uri": "http://other.example/jwks"}),
        ),
    ];
    for (name, document) in cases {
        let (world, upstream) = world_with_upstream(Options::default()).await;
        let text = document.to_string().replace("ISSUER", world.idp.issuer());
        let text = text
            .replace("TOKEN", &world.idp.token_endpoint())
            .replace("JWKS", &world.idp.jwks_uri());
        for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]
        {
            world.idp.endpoints().fail(path, Fault::Body(text.clone()));
        }

        let answer = post_as(&world.upgrade_url(), &world.alice.id_token).await;

        assert!([502, 503].contains(&answer.status), "{name}: {answer:?}");
        assert_eq!(legs(&world), (0, 0), "{name}");
        assert_eq!(upstream.server.bytes_received(), 0, "{name}");
    }
}
