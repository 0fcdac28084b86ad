//! One grant, one token, however many proxies there are: two Envoys that share nothing but a redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::names::GRANT_JWT_BEARER;
use host_tests::oauth_client::form;
use host_tests::patches::with_cluster;
use host_tests::program::or_skip;
use host_tests::raw::{self, RawAnswer};
use host_tests::redis::{Redis, Webdis};
use host_tests::upstash::Upstash;
use host_tests::world::Beside;
use host_tests::{Options, World};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::*;
use tokio::task::JoinSet;

/// Who may redeem one grant at once, over both Envoys.
const AT_ONCE: usize = 100;

/// A world whose grants are spent in what answers at this port. A token for it stands in `STORE_TOKEN`.
async fn world(port: u16, token: &str, front: Value, timeout_ms: u32) -> World {
    let mut store = json!({ "cluster": "replay", "timeout_ms": timeout_ms });
    store.as_object_mut().unwrap().extend(front.as_object().unwrap().clone());
    let patch = move |config: &mut Value| config["authorization_server"]["replay_store"] = store;
    let keys = "host_env_keys: [SIGNING_KEY";
    let patch_bootstrap = move |text: String| {
        with_cluster(text, "replay", port).replace(keys, &format!("{keys}, STORE_TOKEN"))
    };
    let options = Options {
        patch_ingress: Some(Box::new(patch)),
        patch_bootstrap: Some(Box::new(patch_bootstrap)),
        env: vec![("STORE_TOKEN".into(), token.into())],
        ..Options::default()
    };
    World::start(options).await
}

async fn world_before_webdis(webdis: &Webdis, timeout_ms: u32) -> World {
    world(webdis.port(), "unused", json!({ "webdis": {} }), timeout_ms).await
}

async fn world_before_upstash(upstash: &Upstash, token: &str, timeout_ms: u32) -> World {
    let url = format!("http://127.0.0.1:{}/", upstash.port());
    let front = json!({ "rest": { "url": url, "token": { "env": "STORE_TOKEN" } } });
    world(upstash.port(), token, front, timeout_ms).await
}

/// A token request with a new grant, as bytes. It names the first Envoy, whichever gets it.
fn token_request(world: &World) -> Vec<u8> {
    let assertion = id_jag(world, |_, _| {});
    let body = form(&[("grant_type", GRANT_JWT_BEARER), ("assertion", &assertion)]);
    let basic = basic(&world.claude);
    let headers: [(&str, &[u8]); 2] = [
        ("content-type", b"application/x-www-form-urlencoded"),
        ("authorization", basic.as_bytes()),
    ];
    raw::request("POST", &world.accept_issuer(), b"/token", &headers, body.as_bytes())
}

fn error(answer: &RawAnswer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["error"].as_str().unwrap_or_default().to_owned()
}

/// So many rounds in which everybody redeems the same grant at the same time, each over a connection of its own.
async fn assert_one_of_all(world: &World, beside: &Beside, rounds: usize) {
    let origins = [world.accept_issuer(), beside.origin()];
    for round in 0..rounds {
        let request = token_request(world);
        let mut requests = JoinSet::new();
        for n in 0..AT_ONCE {
            let (origin, request) = (origins[n % 2].clone(), request.clone());
            requests.spawn(async move {
                let answer = raw::send(&origin, &request).await;
                (answer.status, error(&answer))
            });
        }
        let mut answers = requests.join_all().await;
        answers.sort();

        assert_eq!(answers[0].0, 200, "round {round}: {answers:?}");
        let refused = (400, "invalid_grant".to_owned());
        assert!(answers[1..].iter().all(|answer| *answer == refused), "round {round}: {answers:?}");
    }
    let issued = issued(&world.envoy.as_ref().unwrap().admin_page("/stats").await)
        + issued(&beside.envoy.admin_page("/stats").await);
    assert_eq!(issued, rounds as u64);
    assert_eq!(world.warehouse.recorder.count(), 0);
    assert_vm_never_failed(world).await;
}

/// How many tokens a proxy has issued, as it counts them itself.
fn issued(stats: &str) -> u64 {
    let mut lines = stats.lines();
    let line = lines.find_map(|line| line.split_once("jagway.done.issued: "));
    line.map_or(0, |(_, count)| count.parse().unwrap())
}

/// How many workers of a proxy of this origin have had connections.
async fn workers_busy(stats: &str, origin: &str) -> usize {
    let address = origin.trim_start_matches("http://").replace(':', "_");
    let had = |worker| {
        let name = format!("listener.{address}.worker_{worker}.downstream_cx_total: ");
        let count = stats.lines().find_map(|line| line.strip_prefix(&name));
        count.expect("the statistic exists") != "0"
    };
    (0..2).filter(|worker| had(*worker)).count()
}

#[tokio::test]
async fn of_a_hundred_who_redeem_a_grant_at_two_proxies_one_gets_a_token() {
    let Some(redis) = or_skip(Redis::start().await) else { return };
    let Some(webdis) = or_skip(Webdis::start(&redis).await) else { return };
    let world = world_before_webdis(&webdis, 2000).await;
    let beside = world.start_beside().await;

    assert_one_of_all(&world, &beside, 200).await;

    let first = world.envoy.as_ref().unwrap().admin_page("/stats").await;
    let second = beside.envoy.admin_page("/stats").await;
    assert_eq!(workers_busy(&first, &world.accept_issuer()).await, 2);
    assert_eq!(workers_busy(&second, &beside.origin()).await, 2);
}

#[tokio::test]
async fn a_redis_that_is_asked_in_json_lets_one_of_a_hundred_pass_too() {
    let Some(redis) = or_skip(Redis::start().await) else { return };
    let upstash = Upstash::start(&redis);
    let world = world_before_upstash(&upstash, &upstash.token, 2000).await;
    let beside = world.start_beside().await;

    assert_one_of_all(&world, &beside, 20).await;
}

/// Redeems a new grant at once with a few others and fails unless all are told within a second or so that it is
/// our trouble, and no token is issued.
async fn assert_nothing_is_issued(world: &World) {
    let before = issued(&world.envoy.as_ref().unwrap().admin_page("/stats").await);
    let mut requests = JoinSet::new();
    for _ in 0..10 {
        let (origin, request) = (world.accept_issuer(), token_request(world));
        requests.spawn(async move {
            let began = Instant::now();
            (raw::send(&origin, &request).await, began.elapsed())
        });
    }
    for (answer, took) in requests.join_all().await {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(error(&answer), "temporarily_unavailable");
        assert_eq!(answer.header("retry-after").len(), 1, "{answer:?}");
        assert!(!answer.body.contains("access_token"), "{answer:?}");
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }
    let after = issued(&world.envoy.as_ref().unwrap().admin_page("/stats").await);
    assert_eq!(after, before);
    assert_eq!(world.warehouse.recorder.count(), 0);
}

async fn redeem(world: &World) -> RawAnswer {
    raw::send(&world.accept_issuer(), &token_request(world)).await
}

#[tokio::test]
async fn while_redis_hangs_nothing_is_issued_and_after_that_new_grants_are_good() {
    let Some(redis) = or_skip(Redis::start().await) else { return };
    let Some(webdis) = or_skip(Webdis::start(&redis).await) else { return };
    let world = world_before_webdis(&webdis, 300).await;
    assert_eq!(redeem(&world).await.status, 200);

    redis.freeze();
    assert_nothing_is_issued(&world).await;
    redis.thaw();

    let began = Instant::now();
    while redeem(&world).await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "never again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_store_that_is_gone_or_has_no_redis_issues_nothing() {
    let Some(mut redis) = or_skip(Redis::start().await) else { return };
    let Some(webdis) = or_skip(Webdis::start(&redis).await) else { return };
    let world = world_before_webdis(&webdis, 300).await;
    assert_eq!(redeem(&world).await.status, 200);

    redis.stop();
    assert_nothing_is_issued(&world).await;
    drop(webdis);
    assert_nothing_is_issued(&world).await;

    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_front_that_does_not_take_our_token_issues_nothing() {
    let Some(redis) = or_skip(Redis::start().await) else { return };
    let mut upstash = Upstash::start(&redis);
    let world = world_before_upstash(&upstash, "wrong", 300).await;

    assert_nothing_is_issued(&world).await;
    assert!(upstash.endpoints.count("/") > 0, "it was asked");
    upstash.server.stop();
    assert_nothing_is_issued(&world).await;

    assert_vm_never_failed(&world).await;
}
