//! Refresh tokens that are good for one use each, through the real Envoy: by many workers, by two proxies, and after a
//! crash. The IdP ends the whole grant if one is ever used twice; it must never have to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::endpoints::{Fault, Gate};
use host_tests::keys::sha256_hex;
use host_tests::patches::with_cluster;
use host_tests::program::or_skip;
use host_tests::raw::{self, RawAnswer};
use host_tests::redis::{Redis, Webdis};
use host_tests::upstream::Upstream;
use host_tests::{Options, World};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::*;
use tokio::task::JoinSet;

/// Callers who are all bound to the same refresh token: each is one exchange, and one use of it.
const CALLERS: usize = 60;

fn key(caller: usize) -> String {
    format!("key of caller {caller}")
}

/// A world whose IdP renews, with the fleet's memory at this port, or none.
async fn world(store: Option<u16>) -> (World, Upstream) {
    let upstream = Upstream::start();
    let port = upstream.port();
    let patch_egress = move |config: &mut Value| {
        let caller = |caller| {
            json!({
                "api_key": {"header": "x-api-key", "sha256": sha256_hex(&key(caller))},
                "subject": {"refresh_token": {"env": "CI_BOT_REFRESH"}},
            })
        };
        let callers: Vec<_> = (0..CALLERS).map(caller).collect();
        config["resources"][0]["upgrade"]["callers"] = json!(callers);
        if store.is_some() {
            let redis = json!({"cluster": "refresh", "timeout_ms": 500, "webdis": {}});
            config["refresh_token_store"] = redis;
        }
    };
    let patch_bootstrap = move |text: String| {
        let text = repointed(text, "tickets", port);
        with_cluster(text, "refresh", store.unwrap_or(1))
    };
    let options = Options {
        concurrency: 4,
        patch_egress: Some(Box::new(patch_egress)),
        patch_bootstrap: Some(Box::new(patch_bootstrap)),
        ..Options::default()
    };
    let world = World::start(options).await;
    world.idp.renew_refresh_tokens();
    (world, upstream)
}

/// A call over a connection of its own. It names the first Envoy, whichever is at `origin`.
async fn call(world: &World, origin: &str, caller: usize) -> RawAnswer {
    raw::send(origin, &request(world, caller)).await
}

fn request(world: &World, caller: usize) -> Vec<u8> {
    let key = key(caller);
    raw::request("POST", &first(world), b"/mcp", &[("x-api-key", key.as_bytes())], b"{}")
}

fn first(world: &World) -> String {
    world.upgrade_url().trim_end_matches("/mcp").to_owned()
}

/// These callers, one after the other and each at the next of the origins, are served; each use was of the newest.
async fn assert_in_a_row(world: &World, origins: &[String], callers: impl Iterator<Item = usize>) {
    for caller in callers {
        let (_, before) = world.idp.refresh_tokens_reused_and_renewed();
        let answer = call(world, &origins[caller % origins.len()], caller).await;
        assert_eq!((answer.status, &*answer.body), (200, "ci-bot"), "{caller}: {answer:?}");
        let used = world.idp.refresh_tokens_reused_and_renewed();
        assert_eq!(used, (0, before + 1), "caller {caller}");
    }
}

/// These callers at once: all are served, one after the other.
async fn assert_at_once(world: &World, origins: &[String], callers: std::ops::Range<usize>) {
    let mut calls = JoinSet::new();
    for caller in callers {
        let (origin, request) = (origins[caller % origins.len()].clone(), request(world, caller));
        calls.spawn(async move { raw::send(&origin, &request).await.status });
    }
    let statuses = calls.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn thirty_exchanges_by_four_workers_each_use_the_newest_token() {
    let (world, _upstream) = world(None).await;
    let origins = [first(&world)];

    assert_in_a_row(&world, &origins, 0..30).await;
    assert_at_once(&world, &origins, 30..34).await;

    assert_eq!(world.idp.refresh_tokens_reused_and_renewed(), (0, 34));
    assert_eq!(legs(&world), (34, 34));
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn without_a_store_a_crash_ends_the_grant_and_the_log_says_what_to_do() {
    let (mut world, _upstream) = world(None).await;
    let origins = [first(&world)];
    assert_in_a_row(&world, &origins, 0..3).await;

    world.restart_envoy().await;
    let answer = call(&world, &origins[0], 3).await;

    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(world.idp.refresh_tokens_reused_and_renewed(), (1, 3));
    let log = world.envoy.as_ref().unwrap().log();
    assert!(log.contains("\"callers[3]\": its refresh token is taken no longer"), "{log}");
}

#[tokio::test]
async fn two_proxies_use_each_token_once_and_a_crash_of_one_loses_none() {
    let Some(redis) = or_skip(Redis::start().await) else { return };
    let Some(webdis) = or_skip(Webdis::start(&redis).await) else { return };
    let (mut world, _upstream) = world(Some(webdis.port())).await;
    let beside = world.start_beside().await;
    let origins = [first(&world), beside.egress_origin()];

    assert_in_a_row(&world, &origins, 0..30).await;
    assert_at_once(&world, &origins, 30..33).await;
    world.restart_envoy().await;
    assert_in_a_row(&world, &origins, 33..45).await;

    assert_eq!(world.idp.refresh_tokens_reused_and_renewed(), (0, 45));
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_token_that_the_store_does_not_take_is_kept_by_the_process_until_it_does() {
    let Some(redis) = or_skip(Redis::start().await) else { return };
    let Some(webdis) = or_skip(Webdis::start(&redis).await) else { return };
    let (world, _upstream) = world(Some(webdis.port())).await;
    let beside = world.start_beside().await;
    let origins = [first(&world), beside.egress_origin()];
    assert_in_a_row(&world, &origins, 0..2).await;

    // The IdP renews while the store hangs.
    let gate = Gate::closed();
    world.idp.endpoints().fail("/token", Fault::Held(gate.clone()));
    let (origin, request) = (first(&world), request(&world, 2));
    let pending = tokio::spawn(async move { raw::send(&origin, &request).await });
    until(5, "the IdP is asked", || legs(&world).0 == 3).await;
    redis.freeze();
    gate.open();
    let renewed = pending.await.unwrap();
    world.idp.endpoints().heal("/token");
    let cached = call(&world, &origins[0], 0).await;
    let refused = [call(&world, &origins[0], 4).await, call(&world, &origins[1], 5).await];
    let asked = legs(&world).0;
    redis.thaw();

    assert_eq!((renewed.status, cached.status), (200, 200), "{renewed:?} {cached:?}");
    for answer in &refused {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after").len(), 1, "{answer:?}");
    }
    assert_eq!(asked, 3, "nobody uses a token without knowing that it is the newest");
    let log = world.envoy.as_ref().unwrap().log();
    assert!(log.contains("is remembered by this process only"), "{log}");
    assert!(log.contains("refresh_token_store"), "{log}");
    // The lock that could not be given up ends by itself.
    for (caller, origin) in [(6, &origins[0]), (7, &origins[1])] {
        let began = Instant::now();
        while call(&world, origin, caller).await.status != 200 {
            assert!(began.elapsed() < Duration::from_secs(40), "never again");
        }
    }
    assert_eq!(world.idp.refresh_tokens_reused_and_renewed(), (0, 5));
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_client_that_leaves_during_an_exchange_that_is_not_kept_does_not_take_the_new_token_along()
 {
    let patch = |config: &mut Value| {
        config["resources"][0]["upgrade"]["cache"] = json!(false);
    };
    let patch_egress = Some(Box::new(patch) as Box<_>);
    let (world, _upstream) =
        world_with_upstream(Options { patch_egress, ..Options::default() }).await;
    world.idp.renew_refresh_tokens();
    let gate = Gate::closed();
    world.idp.endpoints().fail("/token", Fault::Held(gate.clone()));
    let (url, key) = (world.upgrade_url(), world.caller_key.clone());

    let leaves = tokio::spawn(async move { post(&url, &[("x-api-key", &key)], "{}").await.status });
    until(5, "the IdP is asked", || legs(&world).0 == 1).await;
    leaves.abort();
    let _ = leaves.await;
    let envoy = world.envoy.as_ref().unwrap();
    while envoy.stat("http.egress.downstream_rq_active").await != Some(0) {}
    gate.open();
    until(5, "the IdP has renewed", || legs(&world) == (1, 1)).await;
    let answer = post(&world.upgrade_url(), &[("x-api-key", &world.caller_key)], "{}").await;

    assert_eq!((answer.status, &*answer.body), (200, "ci-bot"), "{answer:?}");
    assert_eq!(world.idp.refresh_tokens_reused_and_renewed(), (0, 2));
    assert_vm_never_failed(&world).await;
}
