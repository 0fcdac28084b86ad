//! What stands for a caller at the identity provider: what it brings itself, and what it is bound to.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::short_digest;
use serde_json::{Value, json};
use support::servers::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn bound_to(subject: Value) -> (&'static str, Value) {
    ("upgrade/callers", json!([key_caller("bot-key", subject)]))
}

fn refreshing() -> (&'static str, Value) {
    ("idp/token_exchange", json!({ "refresh_token_as": "id_token" }))
}

fn kind(world: &World) -> String {
    let kind = world.servers.last("exchange").get("subject_token_type");
    kind.strip_prefix("urn:ietf:params:oauth:token-type:").unwrap().to_owned()
}

/// The refresh tokens that were used, in order.
fn used(world: &World) -> Vec<&str> {
    let calls = world.servers.calls.iter();
    let tokens = calls.filter_map(|call| match call.to {
        "exchange" if call.get("subject_token_type").ends_with(":refresh_token") => {
            Some(call.get("subject_token"))
        }
        "refresh" => Some(call.get("refresh_token")),
        _ => None,
    });
    tokens.collect()
}

#[test]
fn a_caller_that_is_bound_to_an_id_token_goes_by_it_until_it_ends() {
    let mut world = World::new(&[bound_to(json!({ "id_token": { "env": "BOT_ID_TOKEN" } }))]);
    let first = world.bot_token();
    assert_eq!(world.servers.last("exchange").get("subject_token"), env("BOT_ID_TOKEN").unwrap());
    assert_eq!(kind(&world), "id_token");

    world.later(119);
    assert_eq!(world.bot_token(), first, "the token of 300 s");
    world.later(1);
    let verdict = world.bot();

    assert_eq!((status(&verdict), world.refused()), (502, "exchange_misconfigured"));
    let line = "the ID token that \"callers[0]\" is bound to has expired";
    assert!(world.has_logged(line), "{:?}", world.process.log);
}

#[test]
fn an_id_token_that_has_ended_is_not_spent() {
    for (name, expected) in [("OLD_ID_TOKEN", 502), ("ENDLESS_ID_TOKEN", 0)] {
        let mut world = World::new(&[bound_to(json!({ "id_token": { "env": name } }))]);
        assert_eq!(status(&world.bot()), expected, "{name}");
        assert_eq!(world.servers.calls.is_empty(), expected == 502, "{name}");
    }
}

#[test]
fn the_record_names_the_user_of_an_id_token() {
    let mut world = World::new(&[bound_to(json!({ "id_token": { "env": "BOT_ID_TOKEN" } }))]);

    world.bot_token();

    let line = format!("caller=\"callers[0]\" sub={}", short_digest("alice"));
    assert!(world.has_logged(&line), "{:?}", world.process.log);
}

#[test]
fn each_renewed_refresh_token_is_used_once_and_the_one_before_never_again() {
    for changes in [vec![], vec![refreshing()]] {
        let mut world = World::new(&changes);
        world.servers.renews = true;

        for _ in 0..4 {
            world.bot_token();
            world.later(301);
        }

        let used = used(&world);
        assert_eq!(used.len(), 4);
        assert_eq!(used[0], "bot-refresh-token");
        assert!(used[1..].iter().all(|token| token.starts_with("renewed-RT-")), "{used:?}");
        let mut distinct = used.clone();
        distinct.dedup();
        assert_eq!(used, distinct);
    }
}

#[test]
fn another_worker_goes_on_with_the_renewed_refresh_token() {
    let mut world = World::of(&upgrade_config(), 2);
    world.servers.renews = true;
    world.at(0, &[("x-api-key", "bot-key")]);

    world.later(301);
    let verdict = world.at(1, &[("x-api-key", "bot-key")]);

    assert_eq!(status(&verdict), 0, "{:?}", world.process.log);
    assert_eq!(used(&world), ["bot-refresh-token", "renewed-RT-1"]);
}

#[test]
fn a_renewed_refresh_token_is_kept_whatever_becomes_of_the_rest() {
    type Spoil = fn(&mut World);
    let spoils: [(&str, Spoil, u16); 5] = [
        ("type", |world| world.servers.exchange = json!({ "issued_token_type": "x" }), 502),
        ("no token", |world| world.servers.exchange = json!({ "access_token": null }), 502),
        ("another's", |world| world.servers.claims = json!({ "client_id": "x" }), 502),
        (
            "resource",
            |world| world.servers.exchange = json!({ "resource": "https://x.example" }),
            502,
        ),
        ("redemption", |world| world.servers.once("redemption", 500, &[], json!({})), 503),
    ];

    for (what, spoil, expected) in spoils {
        let mut world = World::new(&[]);
        world.servers.renews = true;
        spoil(&mut world);
        assert_eq!(status(&world.bot()), expected, "{what}: {:?}", world.process.log);
        world.servers.exchange = Value::Null;
        world.servers.claims = Value::Null;
        world.later(10);
        assert_eq!(status(&world.bot()), 0, "{what}: {:?}", world.process.log);
        assert_eq!(used(&world)[..2], ["bot-refresh-token", "renewed-RT-1"], "{what}");
    }
}

#[test]
fn a_renewed_refresh_token_is_kept_though_the_id_token_with_it_is_bad() {
    for refresh in [json!({ "id_token": null }), json!({ "id_token": 1 })] {
        let mut world = World::new(&[refreshing()]);
        world.servers.renews = true;
        world.servers.refresh = refresh.clone();
        assert_eq!(status(&world.bot()), 502, "{refresh}");
        world.servers.refresh = Value::Null;
        world.later(10);

        assert_eq!(status(&world.bot()), 0, "{refresh}: {:?}", world.process.log);
        assert_eq!(used(&world), ["bot-refresh-token", "renewed-RT-1"]);
    }
}

#[test]
fn only_what_can_be_a_refresh_token_takes_the_place_of_another() {
    let longest = "a".repeat(8 * 1024);
    let cases = [
        (json!("new"), true),
        (json!(longest), true),
        (json!(format!("{longest}a")), false),
        (json!(""), false),
        (json!(7), false),
        (json!(["new"]), false),
        (json!(null), false),
    ];

    for (renewed, is_taken) in cases {
        let mut world = World::new(&[]);
        world.servers.exchange = json!({ "refresh_token": renewed });
        world.bot_token();
        world.later(301);
        world.bot_token();
        assert_eq!(used(&world)[1] != "bot-refresh-token", is_taken, "{renewed}");
    }
}

#[test]
fn a_refresh_token_that_is_taken_no_longer_is_told_to_the_operator() {
    for (leg, changes) in [("exchange", vec![]), ("refresh", vec![refreshing()])] {
        for error in ["invalid_grant", "invalid_request"] {
            let mut world = World::new(&changes);
            world.servers.once(leg, 400, &[], json!({ "error": error }));
            let verdict = world.bot();
            assert_eq!((status(&verdict), world.refused()), (401, "subject_rejected"), "{leg}");
            let line =
                "\"callers[1]\": its refresh token is taken no longer: it has to be bound anew";
            assert!(world.has_logged(line), "{leg} {error}: {:?}", world.process.log);
            assert_eq!(used(&world).len(), 1, "{leg}: nobody has a newer one");
        }
    }
}

#[test]
fn a_provider_that_exchanges_id_tokens_only_gets_one_that_was_just_refreshed() {
    let mut world = World::new(&[refreshing()]);

    world.bot_token();

    assert_eq!(world.servers.token_calls(), ["refresh", "exchange", "redemption"]);
    let refresh = world.servers.last("refresh");
    assert_eq!(refresh.get("refresh_token"), "bot-refresh-token");
    assert_eq!(refresh.names(), ["client_id", "grant_type", "refresh_token"]);
    assert_eq!(kind(&world), "id_token");
    let token = world.servers.last("exchange").get("subject_token");
    assert_eq!(part(token, 1)["jti"], 1);
}

#[test]
fn a_caller_without_a_user_goes_by_a_token_of_our_own_client() {
    for (grant, scope) in [
        (json!({ "scopes": ["directory.read", "x"] }), "directory.read x"),
        (json!({ "scopes": [] }), ""),
        (json!({}), ""),
    ] {
        let mut world = World::new(&[bound_to(json!({ "client_credentials": grant }))]);
        world.bot_token();
        let calls = world.servers.token_calls();
        assert_eq!(calls, ["client_credentials", "exchange", "redemption"]);
        assert_eq!(world.servers.last("client_credentials").get("scope"), scope);
        assert_eq!(world.servers.last("exchange").get("subject_token"), "IDP-own-token");
        assert_eq!(kind(&world), "access_token");
    }
}

#[test]
fn a_token_of_our_own_client_must_be_a_bearer_token() {
    for (answer, expected) in [
        (json!({ "token_type": "bearer" }), 0),
        (json!({ "token_type": "DPoP" }), 502),
        (json!({ "token_type": null }), 502),
        (json!({ "access_token": null }), 502),
    ] {
        let mut world = World::new(&[bound_to(json!({ "client_credentials": {} }))]);
        world.servers.client_credentials = answer.clone();
        assert_eq!(status(&world.bot()), expected, "{answer}");
        assert_eq!(world.servers.count("exchange"), usize::from(expected == 0), "{answer}");
    }
}

#[test]
fn a_refresh_token_that_a_caller_brings_is_renewed_for_whoever_brings_it_again() {
    let callers = json!([{ "refresh_token": { "header": "x-refresh-token" } }]);
    for more in [None, Some(refreshing())] {
        let mut changes = vec![("upgrade/callers", callers.clone())];
        changes.extend(more);
        let mut world = World::new(&changes);
        world.servers.renews = true;

        for token in ["RT-of-one", "RT-of-two", "RT-of-one", "RT-of-two"] {
            let verdict = world.call(&[("x-refresh-token", token)]);
            assert_eq!(status(&verdict), 0, "{token}: {:?}", world.process.log);
            world.later(301);
        }

        let used = used(&world);
        assert_eq!(used[..2], ["RT-of-one", "RT-of-two"]);
        assert!(used[2..].iter().all(|token| token.starts_with("renewed-RT-")), "{used:?}");
        assert_ne!(used[2], used[3]);
    }
}

/// Two callers, both bound to one refresh token.
fn twins() -> Vec<(&'static str, Value)> {
    let bound = json!({ "refresh_token": { "env": "BOT_REFRESH" } });
    let callers = [key_caller("bot-key", bound.clone()), key_caller("other-key", bound)];
    vec![("upgrade/callers", json!(callers))]
}

#[test]
fn callers_that_share_a_refresh_token_take_turns() {
    for workers in [1, 2] {
        for more in [None, Some(refreshing())] {
            let mut changes = twins();
            changes.extend(more);
            let mut world = World::of(&changed_config(&changes), workers);
            world.servers.renews = true;
            // The metadata is there already.
            world.process.warm_up();
            world.settle();

            world.begin(0, 1, &[("x-api-key", "bot-key")]);
            world.begin(workers - 1, 2, &[("x-api-key", "other-key")]);
            assert_eq!(world.process.callouts.len(), 1, "one goes first");
            for _ in 0..3 {
                world.later(1);
                world.process.tick();
                assert_eq!(world.process.callouts.len(), 1, "as long as it takes");
            }
            world.settle();
            world.later(1);
            world.process.tick();
            world.settle();

            let verdicts: Vec<u16> =
                world.process.concluded.iter().map(|(.., verdict)| status(verdict)).collect();
            assert_eq!(verdicts, [0, 0], "{:?}", world.process.log);
            assert_eq!(used(&world), ["bot-refresh-token", "renewed-RT-1"]);
        }
    }
}

#[test]
fn whoever_waits_for_its_turn_too_long_is_told_to_come_back() {
    let mut world = World::new(&twins());
    world.process.warm_up();
    world.settle();
    world.begin(0, 1, &[("x-api-key", "bot-key")]);
    world.begin(0, 2, &[("x-api-key", "other-key")]);

    for _ in 0..9 {
        world.later(1);
        world.process.tick();
    }

    let (_, stream, verdict) = world.process.concluded.remove(0);
    assert_eq!((stream, status(&verdict)), (2, 503));
    assert!(world.has_logged("refresh_token_busy"), "{:?}", world.process.log);
    assert_eq!(world.process.callouts.len(), 1, "the other one still has its turn");
}

#[test]
fn a_client_that_leaves_does_not_take_the_renewed_refresh_token_with_it() {
    for caches in [true, false] {
        let mut world = World::new(&[("upgrade/cache", json!(caches))]);
        world.servers.renews = true;
        world.process.warm_up();
        world.settle();

        world.begin(0, 1, &[("x-api-key", "bot-key")]);
        assert_eq!(world.process.callouts.len(), 1);
        world.process.workers[0].gone(1);
        world.settle();
        world.process.concluded.clear();
        world.later(21);
        world.process.tick();

        let verdict = world.bot();
        assert_eq!(status(&verdict), 0, "{caches}: {:?}", world.process.log);
    }
}
