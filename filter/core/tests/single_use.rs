//! A grant counts once, for whoever it is meant for (RFC 7523 §3 (7)).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::base64url;
use support::assertions::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_grant_is_redeemed_once_by_whichever_worker() {
    let mut process = Process::new(&accept_config(), 3);
    let mut redeem = |worker: usize, assertion: &str| {
        process.request_with_body(worker, 1, token_request(), grant(assertion));
        process.answer(&mut |_| answer(200, &jwks(&[1])));
        status(&process.verdict())
    };

    let first = id_jag("1");
    assert_eq!(redeem(0, &first), 200);
    assert_eq!(redeem(0, &first), 400);
    assert_eq!(redeem(1, &first), 400);
    assert_eq!(redeem(2, &id_jag("2")), 200);
}

#[test]
fn a_refused_request_burns_nobodys_grant() {
    let mut process = Process::new(&accept_config(), 1);
    let assertion = id_jag("1");
    let other = request(
        "POST",
        "mcp.acme.example",
        "/token",
        &[
            ("content-type", "application/x-www-form-urlencoded"),
            // other:other-secret
            ("authorization", "Basic b3RoZXI6b3RoZXItc2VjcmV0"),
        ],
    );

    let refused = at_token_endpoint(&mut process, other, grant(&assertion));
    let wrong_scope = [grant(&assertion), b"&scope=admin".to_vec()].concat();
    let wrong_scope = at_token_endpoint(&mut process, token_request(), wrong_scope);
    let redeemed = at_token_endpoint(&mut process, token_request(), grant(&assertion));

    assert_refused(&refused, &process.log, "client_mismatch", "another client");
    assert_eq!(status(&wrong_scope), 400);
    assert_eq!(status(&redeemed), 200);
}

#[test]
fn the_high_s_twin_of_a_signature_is_the_same_grant() {
    let good = id_jag("1");
    let (input, signature) = good.rsplit_once('.').unwrap();
    let bytes = {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap()
    };
    let signature = p256::ecdsa::Signature::from_slice(&bytes).unwrap();
    let (r, s) = (signature.r(), signature.s());
    let twin = p256::ecdsa::Signature::from_scalars(*r, -*s).unwrap();
    let twin = format!("{input}.{}", base64url(&twin.to_bytes()));
    let mut process = Process::new(&accept_config(), 1);

    let first = at_token_endpoint(&mut process, token_request(), grant(&twin));
    let second = at_token_endpoint(&mut process, token_request(), grant(&good));

    assert_eq!(status(&first), 200);
    assert_refused(&second, &process.log, "jti_replayed", "the twin");
}

#[test]
fn a_grant_is_remembered_as_long_as_it_could_be_redeemed() {
    let mut process = Process::new(&accept_config(), 1);
    let assertion = id_jag("1");
    let redeem = |process: &mut Process| {
        status(&at_token_endpoint(process, token_request(), grant(&assertion)))
    };

    assert_eq!(redeem(&mut process), 200);
    process.now = NOW + 300 + 59;
    assert_eq!(redeem(&mut process), 400, "in the last second of the skew");
    assert!(process.log.iter().any(|line| line.contains("jti_replayed")), "{:?}", process.log);
}

/// [`accept_config`] with another replay mode.
fn with_replay(mode: serde_json::Value) -> serde_json::Value {
    let mut config = accept_config();
    config["identity_providers"]["acme"]["replay"] = mode;
    config
}

#[test]
fn a_grant_may_be_used_as_often_as_its_issuers_entry_says() {
    let uses = |mode| {
        let mut process = Process::new(&with_replay(mode), 2);
        let mut redeem = |worker| {
            process.request_with_body(worker, 1, token_request(), grant(&id_jag("1")));
            process.answer(&mut |_| answer(200, &jwks(&[1])));
            status(&process.verdict()) == 200
        };
        (0..8).filter(|nth| redeem(nth % 2)).count()
    };

    assert_eq!(uses(serde_json::json!("single_use")), 1);
    assert_eq!(uses(serde_json::json!({ "bounded": 2 })), 3);
    assert_eq!(uses(serde_json::json!("off")), 8);
}

/// Two processes that share nothing but what `redis` remembers.
fn fleet(answers: &[&str]) -> (Vec<u16>, Vec<String>) {
    let mut config = accept_config();
    config["authorization_server"]["replay_store"] =
        serde_json::json!({ "cluster": "redis", "timeout_ms": 200, "webdis": {} });
    let mut commands = Vec::new();
    let statuses = answers.iter().map(|redis| {
        let mut process = Process::new(&config, 1);
        process.request_with_body(0, 1, token_request(), grant(&id_jag("1")));
        process.answer(&mut |callout| {
            if callout.cluster != "redis" {
                return answer(200, &jwks(&[1]));
            }
            assert_eq!((callout.method, callout.timeout), ("POST", 200));
            commands.push(callout.body.expose().to_owned());
            match *redis {
                "" => Err(jagway_core::http::CallFailed::NoAnswer),
                text => answer(200, text.as_bytes()),
            }
        });
        status(&process.verdict())
    });
    (statuses.collect(), commands)
}

#[test]
fn with_a_store_of_the_fleet_what_it_says_counts() {
    let (statuses, commands) = fleet(&[r#"{"SET":[true,"OK"]}"#, r#"{"SET":null}"#, "", "{}"]);

    assert_eq!(statuses, [200, 400, 503, 503]);
    assert_eq!(commands.len(), 4);
    assert!(commands.iter().all(|command| *command == commands[0]), "the same name everywhere");
    // Remembered until the grant has expired, with the skew: 300 s, 60 s and one.
    assert!(commands[0].ends_with("/1/NX/PX/361000"), "{}", commands[0]);
}

#[test]
fn a_client_that_left_while_the_store_was_asked_is_no_trouble() {
    let mut config = accept_config();
    config["authorization_server"]["replay_store"] =
        serde_json::json!({ "cluster": "redis", "webdis": {} });
    let mut process = Process::new(&config, 1);
    process.request_with_body(0, 1, token_request(), grant(&id_jag("1")));
    let (worker, run, _) = process.callouts.remove(0);
    let moment = process.moment();
    let todo = process.workers[worker].answered(&run, answer(200, &jwks(&[1])), moment);
    assert!(!todo.is_empty());

    process.workers[0].gone(1);
    process.answer(&mut |_| answer(200, br#"{"SET":[true,"OK"]}"#));
    process.tick();

    assert!(process.concluded.is_empty());
    assert!(process.callouts.is_empty());
}
