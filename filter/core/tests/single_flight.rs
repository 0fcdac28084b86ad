//! Jobs run once for the whole process: many workers, one store, a clock that is a number.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::flow::Moment;
use jagway_core::http::{Callout, Request};
use jagway_core::worker::{Todo, Verdict};
use serde_json::json;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn config() -> serde_json::Value {
    let mut config = upgrade_config();
    config["identity_providers"]["acme"]["token_endpoint"] = json!(format!("{IDP}/token"));
    let server = &mut config["resources"][0]["upgrade"]["authorization_server"];
    server["token_endpoint"] = json!(format!("{AS}/token"));
    config
}

fn call() -> Request {
    request("POST", "tickets.internal.example", "/mcp", &[("x-api-key", "bot-key")])
}

fn servers(callout: &Callout) -> Result<jagway_core::http::Answer, jagway_core::http::CallFailed> {
    match callout.cluster.as_str() {
        "idp" => json_answer(
            200,
            &json!({
                "access_token": id_jag("1"),
                "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag",
                "token_type": "N_A",
            }),
        ),
        _ => json_answer(
            200,
            &json!({ "access_token": "granted", "token_type": "Bearer", "expires_in": 300 }),
        ),
    }
}

fn all_forwarded(process: &mut Process) -> usize {
    let concluded = std::mem::take(&mut process.concluded);
    for (_, _, verdict) in &concluded {
        match verdict {
            Verdict::Forward(edits, _) => assert_eq!(edits.set[0].1.expose(), "Bearer granted"),
            other => panic!("{other:?}"),
        }
    }
    concluded.len()
}

#[test]
fn many_requests_on_many_workers_cause_one_exchange() {
    let mut process = Process::new(&config(), 4);
    for stream in 0..6 {
        for worker in 0..4 {
            process.request(worker, stream, call());
        }
    }
    assert_eq!(process.callouts.len(), 1);

    let mut calls = 0;
    process.answer(&mut |callout| {
        calls += 1;
        servers(callout)
    });

    assert_eq!(calls, 2, "one exchange, one redemption");
    assert_eq!(all_forwarded(&mut process), 24);
}

#[test]
fn an_exchange_goes_on_when_the_client_that_began_it_is_gone() {
    let mut process = Process::new(&config(), 2);
    process.request(0, 1, call());
    process.request(1, 2, call());

    process.workers[0].gone(1);
    process.answer(&mut servers);

    assert_eq!(all_forwarded(&mut process), 1);
    process.request(0, 3, call());
    assert_eq!(all_forwarded(&mut process), 1);
    assert!(process.callouts.is_empty());
}

#[test]
fn a_result_nobody_waits_for_any_more_is_kept_for_the_next() {
    let mut process = Process::new(&config(), 2);
    process.request(0, 1, call());
    process.workers[0].gone(1);
    process.answer(&mut servers);

    process.request(1, 2, call());

    assert_eq!(all_forwarded(&mut process), 1);
    assert!(process.callouts.is_empty());
}

#[test]
fn when_the_leader_dies_another_takes_over_after_its_lease() {
    let mut process = Process::new(&config(), 2);
    process.request(0, 1, call());
    // Worker 0's VM is gone, with the callout it waited for.
    process.callouts.clear();
    process.now += 15;
    process.request(1, 2, call());
    assert!(process.callouts.is_empty(), "the lease still holds");

    process.now += 6;
    let moment = process.moment();
    let todo = process.workers[1].tick(moment);
    assert!(todo.iter().any(|todo| matches!(todo, Todo::Wake)));
    let moment = process.moment();
    let todo = process.workers[1].turn(moment);

    assert!(todo.iter().any(|todo| matches!(todo, Todo::Dispatch(..))));
}

#[test]
fn a_stream_does_not_wait_for_ever() {
    let mut process = Process::new(&config(), 1);
    process.request(0, 1, call());

    process.now += 10;
    process.tick();

    let verdict = process.verdict();
    assert_eq!((status(&verdict), header(&verdict, "retry-after")), (503, Some("5")));
}

#[test]
fn only_so_many_streams_wait_at_once() {
    let mut process = Process::new(&config(), 1);
    for stream in 0..10_000 {
        process.request(0, stream, call());
    }
    assert!(process.concluded.is_empty());

    process.request(0, 10_000, call());

    let verdict = process.verdict();
    assert_eq!((status(&verdict), header(&verdict, "retry-after")), (503, Some("5")));
    process.answer(&mut servers);
    assert_eq!(all_forwarded(&mut process), 10_000);
}

#[test]
fn a_job_whose_answer_never_comes_gives_way_to_another_try() {
    let mut process = Process::new(&config(), 1);
    process.request(0, 1, call());
    process.callouts.clear();
    process.now += 21;
    process.tick();
    process.concluded.clear();

    process.now += 3;
    process.request(0, 2, call());
    process.answer(&mut servers);

    assert_eq!(all_forwarded(&mut process), 1);
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_the_next_runs() {
    let mut process = Process::new(&config(), 1);
    process.request(0, 1, call());
    let (_, late, _) = process.callouts.remove(0);
    process.now += 21;
    process.tick();
    process.concluded.clear();
    process.now += 3;
    process.request(0, 2, call());

    let moment = process.moment();
    let todo = process.workers[0].answered(&late, answer(500, b""), moment);
    assert!(todo.is_empty());
    process.answer(&mut servers);

    assert_eq!(all_forwarded(&mut process), 1);
}

#[test]
fn a_failure_is_told_to_all_who_wait_and_remembered_for_a_moment_only() {
    let mut process = Process::new(&config(), 3);
    for worker in 0..3 {
        process.request(worker, 1, call());
    }
    let mut calls = 0;
    process.answer(&mut |_| {
        calls += 1;
        answer(500, b"")
    });
    assert_eq!(process.concluded.len(), 3);
    assert!(process.concluded.drain(..).all(|(_, _, verdict)| status(&verdict) == 503));

    process.request(0, 2, call());
    assert_eq!(status(&process.verdict()), 503);
    assert_eq!(calls, 1, "not asked again at once");

    process.now += 3;
    process.request(0, 3, call());
    process.answer(&mut servers);
    assert_eq!(all_forwarded(&mut process), 1);
}

#[test]
fn keys_are_fetched_once_for_all_workers() {
    let mut config = accept_config();
    config["identity_providers"]["acme"]["jwks_uri"] = serde_json::Value::Null;
    config["identity_providers"]["acme"].as_object_mut().unwrap().remove("jwks_uri");
    let mut process = Process::new(&config, 4);
    for worker in 0..4 {
        let grant = grant(&id_jag(&worker.to_string()));
        process.request_with_body(worker, 1, token_request(), grant);
    }

    let mut calls = Vec::new();
    process.answer(&mut |callout| {
        calls.push(callout.path.clone());
        match callout.path.as_str() {
            "/keys" => answer(200, &jwks(&[1])),
            _ => json_answer(200, &json!({ "issuer": IDP, "jwks_uri": format!("{IDP}/keys") })),
        }
    });

    assert_eq!(calls, ["/.well-known/oauth-authorization-server", "/keys"]);
    let good = process.concluded.iter().filter(|(_, _, verdict)| status(verdict) == 200);
    assert_eq!(good.count(), 4);
}

#[test]
fn what_workers_share_is_sealed_and_junk_there_counts_as_nothing() {
    use jagway_core::store::Store;
    let mut process = Process::new(&config(), 1);
    process.request(0, 1, call());
    process.answer(&mut servers);
    all_forwarded(&mut process);

    let keys: Vec<String> = (0..=255u8).map(|bucket| format!("jagway/token/{bucket:x}")).collect();
    let mut found = 0;
    for key in &keys {
        let (bytes, version) = process.store.get(key).unwrap();
        found += usize::from(!bytes.is_empty());
        assert!(!bytes.windows(7).any(|window| window == b"granted"));
        process.store.swap(key, b"{junk", version).unwrap();
    }
    assert_eq!(found, 1);

    process.request(0, 2, call());
    assert_eq!(all_forwarded(&mut process), 1, "from the worker's own cache");
    let mut fresh = Process::new(&config(), 1);
    fresh.store = process.store.clone();
    fresh.request(0, 1, call());
    fresh.answer(&mut servers);
    assert_eq!(all_forwarded(&mut fresh), 1);
}

#[test]
fn two_configurations_in_one_vm_do_not_undo_each_others_restraint() {
    let mut accept = Process::new(&accept_config(), 1);
    let mut upgrade = upgrade_config();
    upgrade["identity_providers"]["acme"]["jwks_uri"] = json!(format!("{IDP}/keys"));
    let mut fetches = 0;

    for round in 0..10 {
        // The same store, seen with the secrets of another configuration.
        let mut other = Process::beside(&accept, &upgrade);
        let unknown = jagway_core::signing::SigningKey::from_pem(&pem(5), Some("unknown")).unwrap();
        let claims =
            json!({ "iss": IDP, "aud": "jagway", "sub": "a", "iat": NOW, "exp": NOW + 60 });
        let bearer = format!("Bearer {}", unknown.sign("JWT", &claims));
        let fields = [("authorization", bearer.as_str())];
        other.request(0, 1, request("POST", "tickets.internal.example", "/mcp", &fields));
        let id_jag = unknown.sign("oauth-id-jag+jwt", &id_jag_claims(&round.to_string()));
        accept.request_with_body(0, 1, token_request(), grant(&id_jag));
        for process in [&mut accept, &mut other] {
            process.answer(&mut |_| {
                fetches += 1;
                answer(200, &jwks(&[1]))
            });
        }
    }

    assert_eq!(fetches, 2, "once each");
}

#[test]
fn what_is_known_to_be_needed_is_fetched_ahead() {
    let mut process = Process::new(&upgrade_config(), 2);
    let moment: Moment = process.moment();

    for worker in 0..2 {
        let todo = process.workers[worker].warm_up(moment);
        let wakes = todo.iter().filter(|todo| matches!(todo, Todo::Wake)).count();
        // Keys and metadata of the provider, metadata of the Resource AS; led by one worker.
        assert_eq!(wakes, if worker == 0 { 3 } else { 0 });
    }
}

#[test]
fn many_subjects_at_once_find_room() {
    let mut config = config();
    config["identity_providers"]["acme"]["jwks_uri"] = json!(format!("{IDP}/keys"));
    let mut process = Process::new(&config, 1);
    let bearer = |user: usize| {
        let claims = json!({
            "iss": IDP, "aud": "jagway", "sub": user.to_string(), "iat": NOW, "exp": NOW + 3600,
        });
        format!("Bearer {}", key(1).sign("JWT", &claims))
    };
    let ask = |process: &mut Process, user: usize| {
        let bearer = bearer(user);
        let fields = [("authorization", bearer.as_str())];
        let stream = user as u32;
        process.request(0, stream, request("POST", "tickets.internal.example", "/mcp", &fields));
    };
    ask(&mut process, 0);
    let (_, keys, _) = process.callouts.remove(0);
    let moment = process.moment();
    let todo = process.workers[0].answered(&keys, answer(200, &jwks(&[1])), moment);
    assert!(todo.iter().any(|todo| matches!(todo, Todo::Wake)));

    for user in 1..3000 {
        ask(&mut process, user);
    }

    assert!(process.concluded.is_empty(), "{:?}", process.concluded.first());
}
