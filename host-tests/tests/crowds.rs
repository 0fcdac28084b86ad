//! Many clients at once through the real Envoy: those who leave cost nothing, and nobody ever speaks as another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::endpoints::{Fault, Gate};
use host_tests::keys::sha256_hex;
use host_tests::patches::with_egress_env;
use host_tests::raw;
use host_tests::upstream::Upstream;
use host_tests::{Options, World};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::*;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const WORKERS: u32 = 4;

fn key(caller: usize) -> String {
    format!("key of caller {caller}")
}

/// A world with `callers` API keys; the `n`th stands for the user that `user` names, by an ID token of that user.
async fn world(callers: usize, user: fn(usize) -> String) -> (World, Upstream) {
    let name = |caller: usize| format!("ID_TOKEN_OF_{caller}");
    let patch_egress = move |config: &mut Value| {
        let upgrade = &mut config["resources"][0]["upgrade"];
        upgrade["max_token_age"] = json!(2);
        let caller = |caller| {
            json!({
                "api_key": {"header": "x-api-key", "sha256": sha256_hex(&key(caller))},
                "subject": {"id_token": {"env": name(caller)}},
            })
        };
        upgrade["callers"].as_array_mut().unwrap().extend((0..callers).map(caller));
    };
    let env_of_world = move |world: &World| {
        (0..callers).map(|caller| (name(caller), id_token_of(world, &user(caller)))).collect()
    };
    let upstream = Upstream::start();
    let port = upstream.port();
    let patch_bootstrap = move |text: String| {
        let names: Vec<_> = (0..callers).map(name).collect();
        let text = with_egress_env(text, names.iter().map(String::as_str));
        repointed(text, "tickets", port)
    };
    let options = Options {
        concurrency: WORKERS,
        patch_egress: Some(Box::new(patch_egress)),
        env_of_world: Some(Box::new(env_of_world)),
        patch_bootstrap: Some(Box::new(patch_bootstrap)),
        ..Options::default()
    };
    (World::start(options).await, upstream)
}

fn origin(world: &World) -> String {
    world.upgrade_url().trim_end_matches("/mcp").to_owned()
}

async fn stat(world: &World, name: &str) -> u64 {
    let envoy = world.envoy.as_ref().unwrap();
    envoy.stat(name).await.unwrap_or_else(|| panic!("there is no {name}"))
}

/// Waits until a gauge of Envoy is at this value.
async fn until_stat(world: &World, name: &str, value: u64) {
    let began = std::time::Instant::now();
    let mut last = stat(world, name).await;
    while last != value {
        assert!(began.elapsed() < Duration::from_secs(20), "{name} is {last}, never {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        last = stat(world, name).await;
    }
}

/// The memory that the proxy holds, in KiB.
fn memory(world: &World) -> u64 {
    let status = format!("/proc/{}/status", world.envoy.as_ref().unwrap().pid());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn ten_thousand_clients_that_leave_during_their_exchange_leave_nothing_behind() {
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 1000;
    const KEYS: usize = 20;
    let (world, upstream) = world(ROUNDS * KEYS, |_| "alice".into()).await;
    let (origin, active) = (origin(&world), "http.egress.downstream_rq_active");
    let mut held = vec![];

    for round in 0..ROUNDS {
        let gate = Gate::closed();
        world.idp.endpoints().fail("/token", Fault::Held(gate.clone()));
        let mut clients = vec![];
        for client in 0..CLIENTS {
            let key = key(round * KEYS + client % KEYS);
            let headers: [(&str, &[u8]); 1] = [("x-api-key", key.as_bytes())];
            let bytes = raw::request("POST", &origin, b"/mcp", &headers, b"{}");
            let mut stream = raw::connect(&origin).await;
            stream.write_all(&bytes).await.unwrap();
            clients.push(stream);
        }
        until_stat(&world, active, CLIENTS as u64).await;
        for client in clients.iter().step_by(2) {
            client.set_zero_linger().unwrap();
        }
        drop(clients);
        until_stat(&world, active, 0).await;
        gate.open();
        // The exchanges belong to nobody who left: they go on.
        let exchanged = (round + 1) * KEYS;
        until(10, "the exchanges are done", || legs(&world) == (exchanged, exchanged)).await;
        held.push(memory(&world));
    }

    assert_eq!(upstream.server.bytes_received(), 0);
    until_stat(&world, "http.egress.downstream_cx_active", 0).await;
    assert_eq!(stat(&world, "http.egress.downstream_rq_total").await as usize, ROUNDS * CLIENTS);
    let growth = held[ROUNDS - 1].saturating_sub(held[0]);
    assert!(growth < 48 * 1024, "{growth} KiB more, by round: {held:?}");
    world.idp.endpoints().heal("/token");
    for n in 0..20 {
        let answer = post(&world.upgrade_url(), &[("x-api-key", &key(n % KEYS))], "{}").await;
        assert_eq!((answer.status, &*answer.body), (200, "alice"), "{answer:?}");
    }
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn two_hundred_cold_requests_on_four_workers_are_one_exchange_a_key() {
    const KEYS: usize = 10;
    let (world, upstream) = world(KEYS, |caller| format!("user-{caller}")).await;
    let gate = Gate::closed();
    world.idp.endpoints().fail("/token", Fault::Held(gate.clone()));
    let mut calls = JoinSet::new();

    for call in 0..200 {
        let (url, key) = (world.upgrade_url(), key(call % KEYS));
        calls.spawn(async move {
            let answer = post(&url, &[("x-api-key", &key)], "{}").await;
            assert_eq!((answer.status, answer.body), (200, format!("user-{}", call % KEYS)));
        });
    }
    until_stat(&world, "http.egress.downstream_rq_active", 200).await;
    gate.open();
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }

    assert_eq!(legs(&world), (KEYS, KEYS));
    assert_eq!(upstream.count(), 200);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn two_hundred_callers_each_speak_for_themselves_however_they_come_and_go() {
    const EACH: usize = 100;
    const ROUNDS: usize = 8;
    // The IdP is a debug build with one thread, and must answer in time whatever else the machine does.
    let at_once = Arc::new(Semaphore::new(40));
    let (world, upstream) = world(EACH, |caller| format!("key-user-{caller}")).await;
    let by_key = (0..EACH).map(|n| (format!("key-user-{n}"), "x-api-key", key(n)));
    let by_token = (0..EACH).map(|n| {
        let user = format!("token-user-{n}");
        let bearer = format!("Bearer {}", id_token_of(&world, &user));
        (user, "authorization", bearer)
    });
    let callers = Arc::new(by_key.chain(by_token).collect::<Vec<_>>());
    let mut served = 0;

    // Tokens end after two seconds: each round some are new, some are old, and some are being made anew.
    for round in 0..ROUNDS {
        let mut calls = JoinSet::new();
        for n in 0..callers.len() {
            // Another order each time, neighbours apart: 77 and 200 have no common divisor.
            let (n, callers) = ((n * 77 + round * 13) % callers.len(), callers.clone());
            let (url, origin, leaves) = (world.upgrade_url(), origin(&world), n % 5 == round % 5);
            let at_once = at_once.clone();
            calls.spawn(async move {
                let _permit = at_once.acquire().await.unwrap();
                let (user, header, credential) = &callers[n];
                let fields = [(*header, credential.as_str()), ("x-test-user", user.as_str())];
                if leaves {
                    let fields = fields.map(|(name, value)| (name, value.as_bytes()));
                    let bytes = raw::request("POST", &origin, b"/mcp", &fields, b"{}");
                    let mut stream = raw::connect(&origin).await;
                    stream.write_all(&bytes).await.unwrap();
                    return None;
                }
                let answer = post(&url, &fields, "{}").await;
                Some((user.clone(), answer.status, answer.body))
            });
        }
        while let Some(call) = calls.join_next().await {
            if let Some((user, status, body)) = call.unwrap() {
                assert_eq!((status, &body), (200, &user), "round {round}");
                served += 1;
            }
        }
        if round == ROUNDS / 2 {
            // And once all tokens at once are good no longer.
            upstream.answer(401, &[]);
            for n in (0..callers.len()).step_by(7) {
                let (_, header, credential) = &callers[n];
                let refused = post(&world.upgrade_url(), &[(*header, credential)], "{}").await;
                assert_eq!(refused.status, 401, "{refused:?}");
            }
            upstream.answer(200, &[]);
        }
    }

    assert_eq!(served, ROUNDS * EACH * 2 * 4 / 5);
    for request in upstream.received() {
        if let Some(user) = request.header("x-test-user") {
            assert_eq!(request.claim("sub"), user);
        }
    }
    let address = origin(&world).replace("http://", "").replace(':', "_");
    for worker in 0..WORKERS {
        let name = format!("listener.{address}.worker_{worker}.downstream_cx_total");
        assert!(stat(&world, &name).await > 0, "{name}");
    }
    assert_vm_never_failed(&world).await;
}
