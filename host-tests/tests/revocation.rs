//! Revocation through the real Envoy: what four workers are told by one, they all know at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use host_tests::keys::{random_text, sha256_hex};
use host_tests::oauth_client::form;
use host_tests::upstream::Upstream;
use host_tests::{Options, World, now};
use serde_json::{Value, json};
use support::*;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// Four workers, an IdP that may revoke in both ways, and an operator.
async fn four_workers(operator_token: &str) -> (World, Upstream) {
    let digest = sha256_hex(operator_token);
    world_with_backend(Options {
        concurrency: 4,
        patch_ingress: Some(Box::new(move |config| {
            config["identity_providers"]["acme"]["revocation"] =
                json!({"global_token_revocation": true, "security_events": {}});
            config["authorization_server"]["revocation"] = json!({"operator_token_sha256": digest});
        })),
        ..Options::default()
    })
    .await
}

async fn token_of(world: &World, user: &str) -> String {
    let assertion = id_jag(world, |_, claims| claims["sub"] = json!(user));
    world.redeem_at_jagway(&assertion).await.token().to_owned()
}

fn user(world: &World, user: &str) -> Value {
    json!({"format": "iss_sub", "iss": world.idp.issuer(), "sub": user})
}

/// Fifty requests at once, each over a connection of its own: none passes.
async fn assert_dead(world: &World, backend: &Upstream, token: &str) {
    let before = backend.count();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (url, token) = (world.accept_url(), token.to_owned());
            tokio::spawn(async move { post_as(&url, &token).await })
        })
        .collect();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.status, 401, "{answer:?}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    assert_eq!(backend.count(), before);
    assert!(world.envoy.as_ref().unwrap().log().contains("refused [revoked]"));
}

async fn ask(world: &World, bearer: &str, subject: &Value) -> Answer {
    let headers =
        [("content-type", "application/json"), ("authorization", &*format!("Bearer {bearer}"))];
    let url = format!("{}/global-token-revocation", world.accept_issuer());
    post(&url, &headers, json!({"sub_id": subject}).to_string()).await
}

async fn push(world: &World, change: impl FnOnce(&mut Value)) -> Answer {
    let mut claims = json!({
        "iss": world.idp.issuer(), "aud": world.accept_issuer(), "iat": now(), "jti": random_text(),
        "sub_id": user(world, "alice"), "events": {SESSION_REVOKED: {}},
    });
    change(&mut claims);
    let token = world.idp.sign(&claims, &world.idp.key().header("secevent+jwt"));
    let url = format!("{}/security-events", world.accept_issuer());
    post(&url, &[("content-type", "application/secevent+jwt")], token).await
}

/// Waits until a grant made anew opens the resource again: with the next second of the clock.
async fn assert_begins_anew(world: &World, user: &str) {
    let began = Instant::now();
    loop {
        let assertion = id_jag(world, |_, claims| claims["sub"] = json!(user));
        let redeemed = world.redeem_at_jagway(&assertion).await;
        if redeemed.status == 200 {
            assert_eq!(post_as(&world.accept_url(), redeemed.token()).await.status, 200);
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{redeemed:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_token_that_its_client_revokes_is_dead_at_every_worker_at_once() {
    let (world, backend) = four_workers("unused").await;
    let (first, second) = (token_of(&world, "alice").await, token_of(&world, "alice").await);
    assert_eq!(post_as(&world.accept_url(), &first).await.status, 200);
    let revoke = async |authorization: &str, token: &str| {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("authorization", authorization),
        ];
        let url = format!("{}/revoke", world.accept_issuer());
        post(&url, &headers, form(&[("token", token), ("token_type_hint", "access_token")])).await
    };

    let stranger = revoke("Basic Y2xhdWRlOndyb25n", &first).await;
    assert_eq!((stranger.status, &stranger.json()["error"]), (401, &json!("invalid_client")));
    assert_eq!(post_as(&world.accept_url(), &first).await.status, 200);
    let revoked = revoke(&basic(&world.claude), &first).await;

    assert_eq!((revoked.status, revoked.body.as_str()), (200, ""));
    assert_dead(&world, &backend, &first).await;
    assert_eq!(post_as(&world.accept_url(), &second).await.status, 200);
    assert_eq!(revoke(&basic(&world.claude), "junk").await.status, 200);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_user_whom_the_provider_or_the_operator_revokes_is_out_everywhere_until_a_new_login() {
    let operator = random_text();
    let (world, backend) = four_workers(&operator).await;
    let (alices, bobs) = (token_of(&world, "alice").await, token_of(&world, "bob").await);
    let unused = id_jag(&world, |_, _| {});
    let claims = json!({
        "iss": world.idp.issuer(), "sub": "jagway", "jti": random_text(), "iat": now(), "exp": now() + 60,
        "aud": format!("{}/global-token-revocation", world.accept_issuer()),
    });
    let header = world.idp.key().header("global-token-revocation+jwt");
    let bearer = world.idp.sign(&claims, &header);

    let wrong = ask(&world, &random_text(), &user(&world, "alice")).await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("www-authenticate").unwrap().starts_with("Bearer "), "{wrong:?}");
    assert_eq!(post_as(&world.accept_url(), &alices).await.status, 200);
    let asked = ask(&world, &bearer, &user(&world, "alice")).await;

    assert_eq!((asked.status, asked.body.as_str()), (204, ""));
    assert_dead(&world, &backend, &alices).await;
    let refused = world.redeem_at_jagway(&unused).await;
    assert_eq!((refused.status, refused.error()), (400, "invalid_grant"));
    assert_eq!(post_as(&world.accept_url(), &bobs).await.status, 200);
    assert_eq!(ask(&world, &bearer, &user(&world, "alice")).await.status, 401, "a second time");
    assert_begins_anew(&world, "alice").await;

    assert_eq!(ask(&world, &operator, &user(&world, "bob")).await.status, 204);
    assert_dead(&world, &backend, &bobs).await;
    assert!(!world.envoy.as_ref().unwrap().log().contains(&operator));
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn an_event_that_the_provider_pushes_ends_the_users_tokens_everywhere() {
    let (world, backend) = four_workers("unused").await;
    let token = token_of(&world, "alice").await;

    let misdirected = push(&world, |claims| claims["aud"] = json!("https://other.example")).await;
    assert_eq!(misdirected.status, 400);
    assert_eq!(misdirected.json()["err"], "invalid_audience");
    assert_eq!(misdirected.header("content-language"), Some("en"));
    let other = "https://schemas.openid.net/secevent/ssf/event-type/verification";
    let ignored = push(&world, |claims| claims["events"] = json!({other: {}})).await;
    assert_eq!(ignored.status, 202);
    assert_eq!(post_as(&world.accept_url(), &token).await.status, 200);
    let received = push(&world, |_| {}).await;

    assert_eq!((received.status, received.body.as_str()), (202, ""));
    assert_dead(&world, &backend, &token).await;
    assert_vm_never_failed(&world).await;
}
