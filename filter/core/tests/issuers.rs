//! Trusted issuers: whom they speak for, and their keys (RFC 7517).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::json;
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

#[test]
fn an_unknown_kid_is_fetched_for_once_in_thirty_seconds() {
    let mut process = Process::new(&accept_config(), 2);
    let rotated = |jti: &str| {
        let key = jagway_core::signing::SigningKey::from_pem(&pem(2), Some("key-2")).unwrap();
        key.sign("oauth-id-jag+jwt", &id_jag_claims(jti))
    };
    let mut fetches = 0;
    let mut published = vec![1];
    let mut redeem = |process: &mut Process, published: &[u8], assertion: &str, worker| {
        process.request_with_body(worker, 1, token_request(), grant(assertion));
        process.answer(&mut |_| {
            fetches += 1;
            answer(200, &jwks(published))
        });
        (status(&process.verdict()), fetches)
    };

    assert_eq!(redeem(&mut process, &published, &id_jag("1"), 0), (200, 1));
    assert_eq!(redeem(&mut process, &published, &rotated("2"), 0), (400, 1), "within 30 s");
    process.now += 31;
    published.push(2);
    assert_eq!(redeem(&mut process, &published, &rotated("3"), 0), (200, 2), "after 30 s");
    assert_eq!(redeem(&mut process, &published, &rotated("4"), 1), (200, 2), "the other worker");
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
