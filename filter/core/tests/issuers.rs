//! Trusted issuers: whom they speak for, and their keys (RFC 7517).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::token_exchange::decoded;
use jagway_core::worker::Verdict;
use serde_json::json;
use std::collections::BTreeSet;
use support::assertions::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn an_issuer_that_may_not_speak_for_the_client_is_refused() {
    let mut config = accept_config();
    config["identity_providers"]["beta"] = json!({ "issuer": "https://beta.example", "cluster": "beta", "jwks_uri": "https://beta.example/k" });
    config["authorization_server"]["clients"]["other"]["identity_providers"] = json!(["beta"]);
    let mut process = Process::new(&config, 1);

    let assertion = changed(json!({ "iss": "https://beta.example" }));
    let verdict = at_token_endpoint(&mut process, token_request(), grant(&assertion));

    assert_refused(&verdict, &process.log, "issuer_not_for_client", "another client's issuer");
}

#[test]
fn one_issuers_key_is_no_other_issuers() {
    let mut config = accept_config();
    config["identity_providers"]["beta"] = json!({ "issuer": "https://beta.example", "cluster": "beta", "jwks_uri": "https://beta.example/k" });
    config["authorization_server"]["clients"]["claude"]["identity_providers"] =
        json!(["acme", "beta"]);
    let mut process = Process::new(&config, 1);
    let assertion = changed(json!({ "iss": "https://beta.example" }));

    process.request_with_body(0, 1, token_request(), grant(&assertion));
    process.answer(&mut |callout| match callout.cluster.as_str() {
        "beta" => answer(200, &jwks(&[3])),
        _ => answer(200, &jwks(&[1])),
    });

    let verdict = process.verdict();
    assert_refused(&verdict, &process.log, "kid_unknown", "signed by the other issuer");
}

/// A process, the keys its issuer publishes, and how often they were fetched.
struct Issuer {
    process: Process,
    published: Vec<u8>,
    fetches: usize,
}

impl Issuer {
    fn new() -> Self {
        Self { process: Process::new(&accept_config(), 2), published: vec![1], fetches: 0 }
    }

    /// Redeems a new grant signed by the key of `seed` at a worker; the status, and the fetches so far.
    fn redeem(&mut self, seed: u8, worker: usize) -> (u16, usize) {
        let now = self.process.now;
        let mut claims = id_jag_claims(&format!("{seed} {now} {worker}"));
        (claims["iat"], claims["exp"]) = (json!(now), json!(now + 300));
        let assertion = key(seed).sign("oauth-id-jag+jwt", &claims);
        self.process.request_with_body(worker, 1, token_request(), grant(&assertion));
        self.process.answer(&mut |_| {
            self.fetches += 1;
            answer(200, &jwks(&self.published))
        });
        (status(&self.process.verdict()), self.fetches)
    }
}

#[test]
fn grants_that_waited_for_the_same_keys_get_tokens_with_names_of_their_own() {
    let mut process = Process::new(&accept_config(), 1);

    for stream in 1..=3 {
        let body = grant(&id_jag(&stream.to_string()));
        process.request_with_body(0, stream, token_request(), body);
    }
    process.answer(&mut |_| answer(200, &jwks(&[1])));

    let token = |verdict: &Verdict| body(verdict)["access_token"].as_str().unwrap().to_owned();
    let tokens = process.concluded.iter().map(|(_, _, verdict)| token(verdict));
    let names: BTreeSet<String> = tokens
        .map(|token| decoded(&token).unwrap().1["jti"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 3);
}

#[test]
fn an_unknown_kid_is_fetched_for_once_in_thirty_seconds() {
    let mut issuer = Issuer::new();

    assert_eq!(issuer.redeem(1, 0), (200, 1));
    assert_eq!(issuer.redeem(2, 0), (400, 1), "within the second");
    issuer.process.now += 1;
    assert_eq!(issuer.redeem(2, 0), (400, 2), "looked for");
    assert_eq!(issuer.redeem(3, 1), (400, 2), "and in vain");
    issuer.published.push(2);
    issuer.process.now += 29;
    assert_eq!(issuer.redeem(2, 1), (400, 2), "within 30 s");
    issuer.process.now += 1;
    assert_eq!(issuer.redeem(2, 0), (200, 3), "after 30 s");
    issuer.process.now += 1;
    assert_eq!(issuer.redeem(2, 1), (200, 3), "the other worker");
}

#[test]
fn an_issuer_that_changes_its_keys_again_and_again_has_no_grant_refused() {
    for overlap in [0, 1] {
        let mut issuer = Issuer::new();
        assert_eq!(issuer.redeem(1, 0).0, 200);

        for seed in 2..8 {
            issuer.process.now += 2;
            issuer.published.push(seed);
            let gone = issuer.published.len() - 1 - overlap;
            issuer.published.drain(..gone);
            for worker in [0, 1] {
                for seed in issuer.published.clone() {
                    assert_eq!(issuer.redeem(seed, worker).0, 200, "key {seed} at {worker}");
                }
            }
        }

        assert_eq!(issuer.fetches, 7);
    }
}

#[test]
fn a_key_set_without_one_usable_key_does_not_replace_a_good_one() {
    let mut process = Process::new(&accept_config(), 1);
    assert_eq!(status(&at_token_endpoint(&mut process, token_request(), grant(&id_jag("1")))), 200);
    process.now += 31;
    let unknown = jagway_core::signing::SigningKey::from_pem(&pem(2), Some("key-2")).unwrap();
    let unknown = unknown.sign("oauth-id-jag+jwt", &id_jag_claims("2"));

    process.request_with_body(0, 1, token_request(), grant(&unknown));
    process.answer(&mut |_| answer(200, br#"{"keys":[{"kty":"junk"}]}"#));
    assert_eq!(status(&process.verdict()), 503);

    process.request_with_body(0, 1, token_request(), grant(&id_jag("3")));
    assert_eq!(status(&process.verdict()), 200);
}

#[test]
fn keys_that_cannot_be_had_are_our_outage_and_not_the_grants() {
    let mut process = Process::new(&accept_config(), 1);
    process.request_with_body(0, 1, token_request(), grant(&id_jag("1")));
    process.answer(&mut |_| answer(500, b""));
    let down = process.verdict();
    process.now += 5;
    let up = at_token_endpoint(&mut process, token_request(), grant(&id_jag("1")));
    process.now += 400;
    process.request_with_body(0, 1, token_request(), {
        let mut claims = id_jag_claims("2");
        claims["iat"] = json!(process.now);
        claims["exp"] = json!(process.now + 300);
        grant(&key(1).sign("oauth-id-jag+jwt", &claims))
    });
    process.answer(&mut |_| answer(500, b""));
    let stale = process.verdict();

    assert_eq!((status(&down), header(&down, "retry-after")), (503, Some("5")));
    assert_eq!(body(&down)["error"], "temporarily_unavailable");
    assert_eq!(status(&up), 200);
    assert_eq!(status(&stale), 200, "the last good keys serve on");
}

#[test]
fn a_key_that_its_issuer_took_back_is_noticed_by_an_idle_worker_too() {
    let mut process = Process::new(&accept_config(), 2);
    process.warm_up();
    process.answer(&mut |_| answer(200, &jwks(&[1])));
    let mut fetches = 0;

    for _ in 0..320 {
        process.now += 1;
        process.tick();
        process.answer(&mut |_| {
            fetches += 1;
            answer(200, &jwks(&[2]))
        });
    }
    let late = json!({ "iat": process.now, "exp": process.now + 300 });
    process.request_with_body(1, 1, token_request(), grant(&changed(late)));

    process.answer(&mut |_| answer(200, &jwks(&[2])));
    assert_refused(&process.verdict(), &process.log, "kid_unknown", "a key of five minutes ago");
    assert_eq!(fetches, 1, "once for both workers");
}

#[test]
fn the_keys_of_many_issuers_are_fetched_a_share_each_second() {
    let mut config = accept_config();
    let mut names = vec!["acme".to_owned()];
    for number in 0..90 {
        let issuer = format!("https://idp{number}.example");
        let provider =
            json!({ "issuer": issuer, "cluster": "idp", "jwks_uri": format!("{issuer}/k") });
        names.push(format!("idp{number}"));
        config["identity_providers"][names.last().unwrap()] = provider;
    }
    config["authorization_server"]["clients"]["claude"]["identity_providers"] = json!(names);
    let mut process = Process::new(&config, 1);
    let mut fetched = Vec::new();

    for second in 0..16 {
        process.now += 1;
        process.tick();
        if second == 0 {
            process.warm_up();
        }
        fetched.push(process.callouts.len());
        process.answer(&mut |_| answer(200, &jwks(&[1])));
    }

    assert_eq!(fetched[0], 32);
    assert!(fetched[1..].iter().all(|fetches| *fetches <= 7), "{fetched:?}");
    assert_eq!(fetched.iter().sum::<usize>(), 91);
}
