//! The keys of the IdP as they change and go missing, seen through the real Envoy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::endpoints::Fault;
use host_tests::oauth_client::form;
use host_tests::raw::{self, RawAnswer};
use host_tests::{Options, World};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::*;

/// Over a connection of its own, so that any worker may get it.
async fn redeem(world: &World, id_jag: &str) -> RawAnswer {
    let (origin, basic) = (world.accept_issuer(), basic(&world.claude));
    let fields = [("grant_type", host_tests::names::GRANT_JWT_BEARER), ("assertion", id_jag)];
    let headers: [(&str, &[u8]); 2] = [
        ("content-type", b"application/x-www-form-urlencoded"),
        ("authorization", basic.as_bytes()),
    ];
    let bytes = raw::request("POST", &origin, b"/token", &headers, form(&fields).as_bytes());
    raw::send(&origin, &bytes).await
}

fn key_fetches(world: &World) -> usize {
    world.idp.endpoints().count_from("Jagway", "/jwks")
}

fn of_unknown_key(world: &World, kid: &str) -> String {
    id_jag(world, |header, _| header["kid"] = json!(kid))
}

#[tokio::test]
async fn keys_are_fetched_once_for_all_workers() {
    let world = World::start(Options { concurrency: 4, ..Options::default() }).await;

    for _ in 0..16 {
        assert_eq!(redeem(&world, &id_jag(&world, |_, _| {})).await.status, 200);
    }

    // Once for each direction: they do not read each other's secrets.
    assert!(key_fetches(&world) <= 2, "{} fetches", key_fetches(&world));
}

#[tokio::test]
async fn unknown_keys_are_looked_for_once_in_a_while_and_a_new_one_is_found() {
    let world = World::start(Options { concurrency: 4, ..Options::default() }).await;
    assert_eq!(redeem(&world, &id_jag(&world, |_, _| {})).await.status, 200);
    let old = id_jag(&world, |_, _| {});
    let began = Instant::now();

    for n in 0..40 {
        assert_eq!(redeem(&world, &of_unknown_key(&world, &format!("k{n}"))).await.status, 400);
    }
    // One for each direction at first, and one for the unknown.
    assert!(key_fetches(&world) <= 3, "{} fetches", key_fetches(&world));
    world.idp.rotate("acme-2");
    // A grant of the key that is no longer published may pass as long as the old set is in use.
    assert!([200, 400].contains(&redeem(&world, &old).await.status));
    while redeem(&world, &id_jag(&world, |_, _| {})).await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(45), "the new key is never found");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let fetches = key_fetches(&world);
    for _ in 0..16 {
        assert_eq!(redeem(&world, &id_jag(&world, |_, _| {})).await.status, 200);
    }

    assert!(fetches <= 5, "{fetches} fetches in {:?}", began.elapsed());
    assert_eq!(key_fetches(&world), fetches);
}

#[tokio::test]
async fn the_two_directions_do_not_undo_each_others_restraint() {
    let world = World::start(Options { concurrency: 2, ..Options::default() }).await;
    assert_eq!(redeem(&world, &id_jag(&world, |_, _| {})).await.status, 200);
    let began = Instant::now();

    for n in 0..20 {
        let kid = format!("k{n}");
        assert_eq!(redeem(&world, &of_unknown_key(&world, &kid)).await.status, 400);
        let unknown = id_token(&world, |header, _| header["kid"] = json!(kid));
        assert_eq!(post_as(&world.upgrade_url(), &unknown).await.status, 401);
    }

    // One for each direction at first, and one for each in every 30 s.
    let windows = began.elapsed().as_secs() as usize / 30 + 1;
    let fetches = key_fetches(&world);
    assert!(fetches <= 2 + 2 * windows, "{fetches} fetches in {:?}", began.elapsed());
}

#[tokio::test]
async fn configured_endpoints_spare_the_discovery() {
    let patch = |config: &mut Value| {
        let acme = &mut config["identity_providers"]["acme"];
        let issuer = acme["issuer"].as_str().unwrap().to_owned();
        acme["jwks_uri"] = json!(format!("{issuer}/jwks"));
        acme["token_endpoint"] = json!(format!("{issuer}/token"));
    };
    let options = Options {
        patch_egress: Some(Box::new(patch)),
        patch_ingress: Some(Box::new(patch)),
        ..Options::default()
    };
    let world = World::start(options).await;
    let mut alice = world.client_with_id_token();

    assert_eq!(redeem(&world, &id_jag(&world, |_, _| {})).await.status, 200);
    alice.initialize().await.unwrap();

    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        assert_eq!(world.idp.endpoints().count_from("Jagway", path), 0, "{path}");
    }
    assert!((1..=2).contains(&key_fetches(&world)));
}

#[tokio::test]
async fn the_openid_form_of_the_metadata_serves_as_well() {
    let world = World::start(Options::default()).await;
    let path = "/.well-known/oauth-authorization-server";
    world.idp.endpoints().fail(path, Fault::Status(404));

    let answer = redeem(&world, &id_jag(&world, |_, _| {})).await;

    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn with_the_keys_at_hand_an_idp_that_is_down_is_not_missed() {
    let mut world = World::start(Options { concurrency: 4, ..Options::default() }).await;
    assert_eq!(redeem(&world, &id_jag(&world, |_, _| {})).await.status, 200);

    world.idp.server.stop();

    for _ in 0..12 {
        let answer = redeem(&world, &id_jag(&world, |_, _| {})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn without_keys_the_fault_is_ours_and_the_grant_is_not_spent() {
    let mut world = World::start(Options::default()).await;
    let good = id_jag(&world, |_, _| {});

    world.idp.server.stop();
    let down = redeem(&world, &good).await;
    world.idp.server.restart();
    let began = Instant::now();
    let mut up = redeem(&world, &good).await;
    while up.status == 503 {
        assert!(began.elapsed() < Duration::from_secs(15), "never tried again");
        tokio::time::sleep(Duration::from_millis(100)).await;
        up = redeem(&world, &good).await;
    }

    assert_eq!(down.status, 503, "{down:?}");
    assert_eq!(down.header("retry-after").len(), 1);
    assert!(down.body.contains("temporarily_unavailable"), "{down:?}");
    assert_eq!(up.status, 200, "{up:?}");
}

#[tokio::test]
async fn a_key_document_that_is_none_is_our_outage_not_a_bad_grant() {
    let cases = [
        ("nothing", Fault::Empty),
        ("junk", Fault::Junk),
        ("an array", Fault::Body("[]".into())),
        ("no keys member", Fault::Body("{}".into())),
        ("keys is no list", Fault::Body(r#"{"keys": 7}"#.into())),
        ("500", Fault::Status(500)),
        ("404", Fault::Status(404)),
        ("a redirect", Fault::Answer(302, vec![("location", "/jwks".into())], String::new())),
        ("very deep", Fault::Body("{\"keys\":".repeat(50_000))),
        ("very large", Fault::Body(format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(4 << 20)))),
    ];
    for (name, fault) in cases {
        let world = World::start(Options::default()).await;
        world.idp.endpoints().fail("/jwks", fault);

        let answer = redeem(&world, &id_jag(&world, |_, _| {})).await;

        assert_eq!(answer.status, 503, "{name}: {answer:?}");
        assert_vm_never_failed(&world).await;
    }
}

#[tokio::test]
async fn keys_that_are_no_use_are_passed_over() {
    let world = World::start(Options::default()).await;
    let key = world.idp.key();
    let mut private = key.jwk();
    private["d"] = json!("AAAA");
    let changed = |name: &str, value: Value| {
        let mut jwk = key.jwk();
        jwk[name] = value;
        jwk["kid"] = json!("other");
        jwk
    };
    let keys = json!({"keys": [
        7, null, "x", {}, {"kty": "oct", "k": "AAAA", "kid": "other"}, {"kty": "RSA", "n": "AA", "e": "AQ"},
        changed("x", json!("AAAA")), changed("crv", json!("P-999")), changed("use", json!("enc")), key.jwk(),
    ]});
    world.idp.endpoints().fail("/jwks", Fault::Body(keys.to_string()));

    let good = redeem(&world, &id_jag(&world, |_, _| {})).await;
    let other = redeem(&world, &of_unknown_key(&world, "other")).await;

    assert_eq!(good.status, 200, "{good:?}");
    assert_eq!(other.status, 400, "{other:?}");
    assert_vm_never_failed(&world).await;
}
