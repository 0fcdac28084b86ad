//! What a request costs once everything is warm, in figures that do not depend on time: calls of the host,
//! instructions, requests of our own, memory. A journey that costs more than [`ALLOWED`] says what to write there.
//!
//! `cargo bench -p host-tests --bench instructions` tells where the instructions go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counted;
#[path = "../../filter/core/tests/support/mod.rs"]
mod parts;

use counted::Counts;
use counted::journey::{Journey, renamed};
use jagway_core::digest::{hex, sha256};
use parts::{accept_config, upgrade_config};
use serde_json::json;

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
        instructions: 32_400,
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
        instructions: 117_000,
        calls: &[
            ("proxy_call_foreign_function", 1),
            ("proxy_get_current_time_nanoseconds", 1),
            ("proxy_get_header_map_pairs", 2),
            ("proxy_get_shared_data", 1),
            ("proxy_remove_header_map_value", 1),
            ("proxy_replace_header_map_value", 1),
        ],
    },
    Allowed {
        journey: "accept, new token, after a revocation",
        instructions: 144_000,
        calls: &[
            ("proxy_call_foreign_function", 1),
            ("proxy_get_current_time_nanoseconds", 1),
            ("proxy_get_header_map_pairs", 2),
            ("proxy_get_shared_data", 3),
            ("proxy_remove_header_map_value", 1),
            ("proxy_replace_header_map_value", 1),
        ],
    },
    Allowed {
        journey: "upgrade, warm",
        instructions: 44_600,
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
        instructions: 393_000,
        calls: &[
            ("proxy_call_foreign_function", 2),
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
fn a_token_that_is_new_is_looked_for_in_the_lists_once_there_is_something_on_them() {
    let mut journey = Journey::start(&accept_config());
    let (token, _) = journey.grant(0);
    let (revoked, _) = journey.grant(1);
    journey.revoke(&revoked);

    let counts = settled(20, |round| journey.accept(&renamed(&token, round)));

    assert_allowed("accept, new token, after a revocation", &counts);
    // And what is remembered is not looked for again.
    let counts = settled(20, |_| journey.accept(&token));
    assert_allowed("accept, warm", &counts);
}

#[test]
fn a_caller_that_is_known_is_upgraded_at_the_cost_it_had() {
    let mut journey = Journey::start(&upgrade_config());

    let counts = settled(100, |_| journey.upgrade());

    assert_allowed("upgrade, warm", &counts);
}

#[test]
fn a_caller_among_a_thousand_costs_what_it_costs_among_three() {
    let among = |others: usize| {
        let mut config = upgrade_config();
        let callers = config["resources"][0]["upgrade"]["callers"].as_array_mut().unwrap();
        for number in 0..others {
            let mut caller = callers[1].clone();
            caller["api_key"]["sha256"] = hex(&sha256(&number.to_be_bytes())).into();
            callers.push(caller);
        }
        let mut journey = Journey::start(&config);
        settled(20, |_| journey.upgrade()).total()
    };

    let (few, many) = (among(0), among(1_000));

    assert!(many <= few + few / 20, "{few} instructions, and {many}");
}

#[test]
fn a_user_among_a_thousand_with_a_credential_each_costs_what_anybody_costs() {
    let among = |others: usize| {
        let mut config = accept_config();
        let accept = &mut config["resources"][0]["accept"];
        let key = json!({ "header": "x-api-key", "value": { "env": "WAREHOUSE_KEY" } });
        let whom = (0..others).map(|number| format!("user-{number}")).chain(["alice".to_owned()]);
        let credentials = whom.map(|user| {
            let mut credential = key.clone();
            credential["for"] = json!({ "identity_provider": "acme", "sub": user });
            credential
        });
        accept["credentials"] = credentials.collect();
        accept.as_object_mut().unwrap().remove("credential");
        let mut journey = Journey::start(&config);
        let (token, _) = journey.grant(0);
        let grant = settled(20, |round| journey.grant(1 + round).1).total();
        (settled(20, |_| journey.accept(&token)).total(), grant)
    };

    let (few, many) = (among(0), among(1_000));

    // A tree of a thousand names is ten comparisons deep.
    assert!(many.0 <= few.0 + few.0 / 10, "{few:?} instructions, and {many:?}");
    assert!(many.1 <= few.1 + few.1 / 10, "{few:?} instructions, and {many:?}");
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
