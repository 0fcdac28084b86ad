//! What the server behind gets in the place of the client's token, through the real Envoy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::backend_as::{BackendAs, TYP_IDENTITY};
use host_tests::endpoints::Fault;
use host_tests::jwks::KeySource;
use host_tests::patches::with_cluster;
use host_tests::upstream::Upstream;
use host_tests::{Options, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use support::*;
use tokio::task::JoinSet;

/// Options with these settings in the place of the resource's credential, and secrets for them.
fn options(settings: Value, secrets: &[(&str, &str)]) -> Options {
    let patch = move |config: &mut Value| {
        config["identity_providers"]["acme"]["subjects"] = json!({ "groups": true });
        let accept = config["resources"][0]["accept"].as_object_mut().unwrap();
        accept.remove("credential");
        accept.extend(settings.as_object().unwrap().clone());
    };
    Options {
        concurrency: 4,
        patch_ingress: Some(Box::new(patch)),
        env: secrets.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        ..Options::default()
    }
}

/// A world with these options in which a recording server stands behind the ingress listener; `port` is that of an
/// authorization server that Envoy is to reach.
async fn world_with(options: Options, port: u16) -> (World, Upstream) {
    let names: Vec<_> = options.env.iter().map(|(name, _)| format!(", {name}")).collect();
    let upstream = Upstream::start();
    let behind = upstream.port();
    let patch = move |text: String| {
        let text = with_cluster(repointed(text, "warehouse", behind), "backend_as", port);
        let keys = "host_env_keys: [SIGNING_KEY";
        text.replace(keys, &format!("{keys}{}", names.concat()))
    };
    let patch_bootstrap = Some(Box::new(patch) as Box<_>);
    (World::start(Options { patch_bootstrap, ..options }).await, upstream)
}

/// An access token for this user, or the status of the refusal.
async fn token(world: &World, user: &str, groups: &[&str], scope: &str) -> Result<String, u16> {
    let id_jag = id_jag(world, |_, claims| {
        claims["sub"] = json!(user);
        claims["groups"] = json!(groups);
        claims["scope"] = json!(scope);
    });
    let answer = world.redeem_at_jagway(&id_jag).await;
    let token = answer.body["access_token"].as_str().map(str::to_owned);
    token.ok_or(answer.status)
}

async fn alices(world: &World) -> String {
    token(world, "alice", &[], "stock.read").await.unwrap()
}

#[tokio::test]
async fn everybody_gets_the_credential_that_is_theirs_and_nobody_goes_without() {
    let settings = json!({ "credentials": [
        { "bearer": { "env": "FOR_ALICE" }, "for": { "identity_provider": "acme", "sub": "alice" } },
        { "basic": { "user": "ops", "password": { "env": "FOR_OPS" } },
          "for": { "identity_provider": "acme", "group": "ops" } },
        { "header": "x-api-key", "value": { "env": "WAREHOUSE_KEY" }, "for": { "scope": "stock.write" } },
    ] });
    let secrets = [("FOR_ALICE", "alices-own"), ("FOR_OPS", "open-sesame")];
    let (world, backend) = world_with(options(settings, &secrets), 1).await;
    // ops:open-sesame
    let basic = "Basic b3BzOm9wZW4tc2VzYW1l";
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, [Option<&'a str>; 2]);
    let cases: [Case; 4] = [
        ("alice", &["ops"], "stock.read", [Some("Bearer alices-own"), None]),
        ("bob", &["staff", "ops"], "stock.read", [Some(basic), None]),
        ("bob", &[], "stock.write", [None, Some(&world.warehouse_key)]),
        ("carol", &["OPS"], "stock.read stock.write", [None, Some(&world.warehouse_key)]),
    ];

    let nobodys = token(&world, "bob", &["staff"], "stock.read").await;
    assert_eq!(nobodys, Err(400));
    assert_eq!(backend.server.bytes_received(), 0);
    for (user, groups, scope, expected) in cases {
        let token = token(&world, user, groups, scope).await.unwrap();
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("x-api-key", "smuggled")];
        let answer = post(&world.accept_url(), &headers, "{}").await;
        assert_eq!(answer.status, 200, "{user}: {answer:?}");
        let arrived = backend.last();
        let sent = ["authorization", "x-api-key"].map(|name| arrived.header(name));
        // What this user's credential does not replace is the backend's own affair, but never a token of ours.
        assert_eq!(sent, expected, "{user} {scope}");
    }
    assert_vm_never_failed(&world).await;
}

/// A backend whose own authorization server gives Jagway tokens in this way.
async fn world_with_backend_as(kind: &str) -> (World, Upstream, BackendAs) {
    let backend_as = BackendAs::start();
    let settings = json!({ "credential": { kind: {
        "issuer": backend_as.issuer(),
        "cluster": "backend_as",
        "token_endpoint": backend_as.token_endpoint(),
        "client": { "id": backend_as.client_id, "secret": { "env": "BACKEND_SECRET" } },
        "scopes": ["all"],
    } } });
    let options = options(settings, &[("BACKEND_SECRET", &backend_as.secret)]);
    let port = backend_as.server.address().port();
    let (world, backend) = world_with(options, port).await;
    backend_as.trust(&world.accept_issuer());
    (world, backend, backend_as)
}

/// As many calls at once with each of these tokens, each over a connection of its own; their statuses.
async fn at_once(world: &World, tokens: &[&String], times: usize) -> Vec<u16> {
    let mut calls = JoinSet::new();
    for token in tokens {
        for _ in 0..times {
            let (url, token) = (world.accept_url(), token.to_string());
            calls.spawn(async move { post_as(&url, &token).await.status });
        }
    }
    calls.join_all().await
}

fn bearers(backend: &Upstream) -> BTreeSet<String> {
    backend.received().iter().map(|request| request.bearer().to_owned()).collect()
}

#[tokio::test]
async fn forty_cold_calls_of_everybody_are_one_request_for_a_token_of_our_own() {
    let (world, backend, backend_as) = world_with_backend_as("client_credentials").await;
    let bobs = token(&world, "bob", &[], "stock.read").await.unwrap();
    backend_as.endpoints.fail("/token", Fault::Delay(Duration::from_millis(200)));

    let statuses = at_once(&world, &[&alices(&world).await, &bobs], 20).await;

    assert_eq!(statuses, [200; 40]);
    assert_eq!(backend_as.endpoints.count("/token"), 1);
    assert_eq!(bearers(&backend), BTreeSet::from(["service-1".to_owned()]));
    assert_eq!(backend.count(), 40);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn forty_cold_calls_of_two_users_are_a_request_for_each_and_no_token_is_mixed_up() {
    let (world, backend, backend_as) = world_with_backend_as("token_exchange").await;
    let (alice, bob) =
        (alices(&world).await, token(&world, "bob", &[], "stock.read").await.unwrap());
    backend_as.endpoints.fail("/token", Fault::Delay(Duration::from_millis(200)));

    let statuses = at_once(&world, &[&alice], 40).await;
    assert_eq!(statuses, [200; 40]);
    assert_eq!(backend_as.endpoints.count("/token"), 1);
    assert_eq!(bearers(&backend), BTreeSet::from(["for-alice-1".to_owned()]));
    let statuses = at_once(&world, &[&alice, &bob], 20).await;

    assert_eq!(statuses, [200; 40]);
    assert_eq!(backend_as.endpoints.count("/token"), 2);
    let both = ["for-alice-1", "for-bob-2"].map(str::to_owned);
    assert_eq!(bearers(&backend), BTreeSet::from(both));
    let for_bob =
        backend.received().iter().filter(|request| request.bearer() == "for-bob-2").count();
    assert_eq!(for_bob, 20);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn an_authorization_server_that_gives_nothing_keeps_the_call_from_the_backend() {
    let refusal = Fault::Answer(400, vec![], r#"{"error":"invalid_grant"}"#.into());
    for (fault, expected) in [(Fault::Status(500), 503), (Fault::Junk, 502), (refusal, 502)] {
        let (world, backend, backend_as) = world_with_backend_as("token_exchange").await;
        backend_as.endpoints.fail("/token", fault.clone());

        let answer = post_as(&world.accept_url(), &alices(&world).await).await;

        assert_eq!(answer.status, expected, "{fault:?}: {answer:?}");
        // No word to the client that its own token is at fault.
        assert_eq!(answer.header("www-authenticate"), None, "{answer:?}");
        assert_eq!(backend.server.bytes_received(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_token_that_the_backend_refuses_is_a_502_once_and_then_another_token() {
    let (world, backend, backend_as) = world_with_backend_as("client_credentials").await;
    let alice = alices(&world).await;
    assert_eq!(at_once(&world, &[&alice], 16).await, [200; 16]);

    backend.answer(401, &[("www-authenticate", "Bearer realm=\"backend\""), ("set-cookie", "a=b")]);
    let refused = post_as(&world.accept_url(), &alice).await;
    backend.answer(200, &[]);
    let before = backend.count();
    let statuses = at_once(&world, &[&alice], 16).await;

    assert_eq!(refused.status, 502, "{refused:?}");
    assert_eq!(refused.header("www-authenticate"), None);
    assert_eq!(refused.header("set-cookie"), None);
    assert_eq!(statuses, [200; 16]);
    let after = backend.received().split_off(before);
    let used: BTreeSet<_> = after.iter().map(|request| request.bearer()).collect();
    assert_eq!(used, BTreeSet::from(["service-2"]));
    assert_eq!(backend_as.endpoints.count("/token"), 2);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_signed_header_tells_the_backend_who_calls_and_it_can_check_that() {
    let settings = json!({
        "credential": { "header": "x-api-key", "value": { "env": "WAREHOUSE_KEY" } },
        "identity_header": { "name": "x-who", "audience": "warehouse" },
    });
    let (world, backend) = world_with(options(settings, &[]), 1).await;
    let issuer = world.accept_issuer();
    let keys = KeySource::new(&format!("{issuer}/.well-known/jagway/jwks.json"), "Warehouse");
    let mut seen = BTreeSet::new();

    for user in ["alice", "bob", "alice"] {
        let token = token(&world, user, &[], "stock.read").await.unwrap();
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("x-who", "root"), ("x_who", "root")];
        assert_eq!(post(&world.accept_url(), &headers, "{}").await.status, 200);
        let arrived = backend.last();
        let who = arrived.header("x-who").expect("one header").to_owned();
        let claims = keys.verify(&who, TYP_IDENTITY, &issuer, "warehouse").await.unwrap();

        assert_eq!(claims["sub_id"]["iss"], world.idp.issuer());
        assert_eq!(claims["sub_id"]["sub"], user);
        assert_eq!(claims["client_id"], "claude");
        assert_eq!(claims["scope"], "stock.read");
        assert!(claims["exp"].as_u64().unwrap() <= host_tests::now() + 60);
        for name in ["x_who", "authorization"] {
            assert!(!arrived.headers.contains_key(name), "{arrived:?}");
        }
        // It opens nothing here.
        let before = backend.count();
        assert_eq!(post_as(&world.accept_url(), &who).await.status, 401);
        assert_eq!(backend.count(), before);
        seen.insert(who);
    }

    assert_eq!(seen.len(), 3, "each is of one token");
    assert_vm_never_failed(&world).await;
}
