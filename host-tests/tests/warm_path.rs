//! What a request costs once everything is warm, in figures that do not depend on time: calls of the host,
//! instructions, requests of our own, memory. A journey that costs more than [`ALLOWED`] says what to write there.
//!
//! `cargo test -p host-tests --test warm_path -- --ignored --nocapture` tells where the instructions go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counted;
#[path = "../../filter/core/tests/support/mod.rs"]
mod parts;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::Command;

use counted::{Counts, End, Setup, Worker, profile};
use host_tests::{repository, wasm};
use jagway_core::signing::SigningKey;
use parts::servers::{HOST, Servers, part};
use parts::{NOW, accept_config, env, grant, id_jag, upgrade_config};
use serde_json::{Value, json};

/// What a journey may cost.
struct Allowed {
    journey: &'static str,
    /// The most instructions, in all callbacks: a tenth more than when this was written.
    instructions: u64,
    /// Exactly these calls of the host.
    calls: &'static [(&'static str, u64)],
}

const ALLOWED: &[Allowed] = &[
    Allowed {
        journey: "accept, warm",
        instructions: 38_000,
        calls: &[
            ("proxy_get_current_time_nanoseconds", 1),
            ("proxy_get_header_map_pairs", 2),
            ("proxy_get_shared_data", 1),
            ("proxy_remove_header_map_value", 1),
            ("proxy_replace_header_map_value", 1),
        ],
    },
    Allowed {
        journey: "accept, new token",
        instructions: 23_167_000,
        calls: &[
            ("proxy_get_current_time_nanoseconds", 1),
            ("proxy_get_header_map_pairs", 2),
            ("proxy_get_shared_data", 3),
            ("proxy_remove_header_map_value", 1),
            ("proxy_replace_header_map_value", 1),
        ],
    },
    Allowed {
        journey: "upgrade, warm",
        instructions: 61_000,
        calls: &[
            ("proxy_get_buffer_bytes", 1),
            ("proxy_get_current_time_nanoseconds", 1),
            ("proxy_get_header_map_pairs", 2),
            ("proxy_remove_header_map_value", 1),
            ("proxy_replace_header_map_value", 1),
        ],
    },
    Allowed {
        journey: "grant",
        instructions: 37_445_000,
        calls: &[
            ("proxy_get_buffer_bytes", 1),
            ("proxy_get_current_time_nanoseconds", 2),
            ("proxy_get_header_map_pairs", 1),
            ("proxy_get_shared_data", 3),
            ("proxy_increment_metric", 1),
            ("proxy_log", 1),
            ("proxy_send_local_response", 1),
            ("proxy_set_shared_data", 1),
        ],
    },
];

/// What clients and Envoy say about themselves.
const CLIENT: [(&str, &str); 7] = [
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2025-11-25"),
    ("user-agent", "claude-code/2.0 (cli)"),
    ("content-length", "1024"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
];

/// A worker and the servers it talks to.
struct Journey {
    worker: Worker,
    servers: Servers,
    /// Bytes of the body of a call.
    body: usize,
}

impl Journey {
    fn start(config: &Value) -> Self {
        Self::of(&std::fs::read(wasm::filter()).unwrap(), config, false)
    }

    fn of(module: &[u8], config: &Value, profiled: bool) -> Self {
        let names = ["SIGNING_KEY", "WAREHOUSE_KEY", "IDP_SECRET", "AS_SECRET", "BOT_REFRESH"];
        let names = names.into_iter().chain(["OTHER_REFRESH"]);
        let environment = names.map(|name| (name.to_owned(), env(name).unwrap())).collect();
        let foreign = BTreeMap::new();
        let setup = Setup { module, config, environment, time: NOW, foreign, profiled };
        let mut worker = Worker::start(setup).unwrap();
        let mut servers = Servers::default();
        servers.now = NOW;
        worker.tick(&mut |callout| servers.answer(callout).unwrap()).unwrap();
        Self { worker, servers, body: 1024 }
    }

    fn request(&mut self, fields: &[(&str, &str)], body: &[u8]) -> (End, Counts) {
        let servers = &mut self.servers;
        self.worker.request(fields, body, &mut |callout| servers.answer(callout).unwrap()).unwrap()
    }

    /// A call of an MCP server that goes on: what it goes on with in the field `name`, and what it cost.
    fn call(&mut self, url: (&str, &str), shown: (&str, &str), name: &str) -> (String, Counts) {
        let head = [(":method", "POST"), (":authority", url.0), (":path", url.1)];
        let fields = [&head, &CLIENT[..], &[shown]].concat();
        let (end, counts) = self.request(&fields, &vec![b' '; self.body]);
        let End::Forwarded(fields) = end else { panic!("{end:?} {:?}", self.worker.log()) };
        let value = fields.into_iter().find(|(field, _)| field == name).unwrap().1;
        (String::from_utf8(value).unwrap(), counts)
    }

    /// A call of the resource that is accepted for.
    fn accept(&mut self, token: &str) -> Counts {
        let bearer = format!("Bearer {token}");
        let url = ("mcp.acme.example", "/warehouse");
        let (credential, counts) = self.call(url, ("authorization", &bearer), "x-api-key");
        assert_eq!(credential, "warehouse-key");
        counts
    }

    /// A call of the resource that is upgraded for.
    fn upgrade(&mut self) -> Counts {
        let caller = ("x-api-key", "bot-key");
        let (credential, counts) = self.call((HOST, "/mcp"), caller, "authorization");
        assert!(credential.starts_with("Bearer AS-token-"));
        counts
    }

    /// A grant: the access token, and what it cost.
    fn grant(&mut self, jti: usize) -> (String, Counts) {
        let head = [
            (":method", "POST"),
            (":authority", "mcp.acme.example"),
            (":path", "/token"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("authorization", "Basic Y2xhdWRlOnMzY3JldA=="),
        ];
        let assertion = id_jag(&format!("grant-{jti:04}"));
        let (end, counts) = self.request(&[&head, &CLIENT[1..]].concat(), &grant(&assertion));
        let End::Replied(200, body) = end else { panic!("{end:?} {:?}", self.worker.log()) };
        let answer: Value = serde_json::from_slice(&body).unwrap();
        (answer["access_token"].as_str().unwrap().to_owned(), counts)
    }
}

/// A token like `token`, of another name.
fn renamed(token: &str, jti: usize) -> String {
    let mut claims = part(token, 1);
    claims["jti"] = json!(format!("token-{jti:04}"));
    let key = SigningKey::from_pem(&env("SIGNING_KEY").unwrap(), Some("own-1")).unwrap();
    key.sign("at+jwt", &claims)
}

/// What the last of `rounds` requests cost. It is what the one before cost, and half of them took as much memory as
/// all: nothing grows.
fn settled(rounds: usize, mut request: impl FnMut(usize) -> Counts) -> Counts {
    let counts: Vec<Counts> = (0..rounds).map(&mut request).collect();
    let (last, before) = (&counts[rounds - 1], &counts[rounds - 2]);
    assert_eq!(last.calls, before.calls);
    assert_eq!(last.memory, counts[rounds / 2].memory);
    // Random bytes differ from one to the next, and trees and heaps lie differently.
    let (most, least) = (last.total().max(before.total()), last.total().min(before.total()));
    assert!(most - least <= least / 50, "{before:?} {last:?}");
    last.clone()
}

fn assert_allowed(journey: &str, counts: &Counts) {
    let calls: Vec<_> = counts.calls.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let (measured, tenth) = (counts.total(), counts.total() / 10);
    let allowed = ALLOWED.iter().find(|allowed| allowed.journey == journey);
    let most = allowed.map_or(0, |allowed| allowed.instructions);
    println!("{journey}: {measured} instructions, {most} are allowed; {:?}", counts.instructions);
    assert!(
        measured <= most && allowed.is_some_and(|allowed| allowed.calls == calls),
        "\n{journey}: {measured} instructions, and {most} are allowed; by callback: {:#?}\nThe calls of the host \
         are {calls:?}, and {:?} are expected.\nIf this is as it must be, write in warm_path.rs:\n    Allowed {{\n        \
         journey: {journey:?},\n        instructions: {},\n        calls: &{calls:?},\n    }},\n",
        counts.instructions,
        allowed.map(|allowed| allowed.calls).unwrap_or_default(),
        (measured + tenth) / 1000 * 1000,
    );
}

#[test]
fn a_token_that_is_known_opens_its_resource_at_the_cost_it_had() {
    let mut journey = Journey::start(&accept_config());
    let (token, _) = journey.grant(0);

    let counts = settled(100, |_| journey.accept(&token));

    assert_allowed("accept, warm", &counts);
}

#[test]
fn a_token_that_is_new_opens_its_resource_at_the_cost_it_had() {
    let mut journey = Journey::start(&accept_config());
    let (token, _) = journey.grant(0);

    let counts = settled(20, |round| journey.accept(&renamed(&token, round)));

    assert_allowed("accept, new token", &counts);
}

#[test]
fn a_caller_that_is_known_is_upgraded_at_the_cost_it_had() {
    let mut journey = Journey::start(&upgrade_config());

    let counts = settled(100, |_| journey.upgrade());

    assert_allowed("upgrade, warm", &counts);
}

#[test]
fn a_grant_is_redeemed_at_the_cost_it_had() {
    let mut journey = Journey::start(&accept_config());

    let counts = settled(20, |round| journey.grant(round).1);

    assert_allowed("grant", &counts);
}

#[test]
fn a_body_that_nothing_looks_into_is_not_read() {
    let mut journey = Journey::start(&accept_config());
    let (token, _) = journey.grant(0);
    let small = settled(3, |_| journey.accept(&token));

    journey.body = 64 * 1024;
    let large = settled(3, |_| journey.accept(&token));

    assert_eq!(large.calls.get("proxy_get_buffer_bytes"), None);
    assert_eq!(large.calls, small.calls);
}

#[test]
fn a_thousand_requests_leave_the_memory_as_large_as_a_hundred() {
    let mut journey = Journey::start(&upgrade_config());
    let hundred = settled(100, |_| journey.upgrade());

    let thousand = settled(900, |_| journey.upgrade());

    assert_eq!(thousand.memory, hundred.memory);

    let mut journey = Journey::start(&accept_config());
    let (token, _) = journey.grant(0);
    let hundred = settled(100, |_| journey.accept(&token));

    let thousand = settled(900, |_| journey.accept(&token));

    assert_eq!(thousand.memory, hundred.memory);
}

#[test]
#[ignore = "says where the instructions go; it judges nothing"]
fn every_journey_by_callback_and_by_function() {
    let build = ["build", "--release", "-p", "jagway", "--target", "wasm32-wasip1"];
    let mut cargo = Command::new("cargo");
    cargo.args(build).args(["--target-dir", "target/profile"]).current_dir(repository());
    // As it is shipped, but for the names.
    assert!(cargo.env("CARGO_PROFILE_RELEASE_STRIP", "none").status().unwrap().success());
    let path = repository().join("target/profile/wasm32-wasip1/release/jagway.wasm");
    let module = std::fs::read(path).unwrap();
    let names = profile::names(&module);
    let [mut accept, mut upgrade] =
        [accept_config(), upgrade_config()].map(|config| Journey::of(&module, &config, true));
    let (token, _) = accept.grant(0);
    (0..20).for_each(|_| drop((accept.accept(&token), upgrade.upgrade())));

    upgrade.worker.take_profile();
    let counts = upgrade.upgrade();
    show("upgrade, warm", &counts, upgrade.worker.take_profile(), &names);
    accept.worker.take_profile();
    let counts = accept.accept(&token);
    show("accept, warm", &counts, accept.worker.take_profile(), &names);
    let counts = accept.accept(&renamed(&token, 1));
    show("accept, new token", &counts, accept.worker.take_profile(), &names);
    let (_, counts) = accept.grant(1);
    show("grant", &counts, accept.worker.take_profile(), &names);
}

fn show(
    journey: &str,
    counts: &Counts,
    costs: BTreeMap<u32, profile::Cost>,
    names: &BTreeMap<u32, String>,
) {
    println!("\n== {journey}: {} instructions\n{:?}", counts.total(), counts.calls);
    for (callback, count) in &counts.instructions {
        println!("{count:>36} {callback}");
    }
    let mut costs: Vec<_> = costs.into_iter().collect();
    for by_own in [true, false] {
        costs.sort_by_key(|(_, cost)| Reverse(if by_own { cost.own } else { cost.all }));
        println!("\n-- {journey}\n{:>10} {:>12} {:>12}", "calls", "own", "all");
        for (function, profile::Cost { calls, own, all }) in costs.iter().take(60) {
            let name = names.get(function).map_or("?", String::as_str);
            println!("{calls:>10} {own:>12} {all:>12} {name}");
        }
    }
}
