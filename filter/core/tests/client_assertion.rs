//! Clients that authenticate with `private_key_jwt` (RFC 7523 §2.2, §3; rfc7523bis).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The client `claude` is registered with key 4, `other` with a secret.
fn config() -> Value {
    let mut config = accept_config();
    config["authorization_server"]["clients"]["claude"] = json!({
        "private_key_jwt": { "jwks": { "keys": [key(4).public_jwk()] } },
        "identity_providers": ["acme"],
    });
    config
}

fn claims(jti: &str) -> Value {
    json!({
        "iss": "claude", "sub": "claude", "aud": AS, "iat": NOW, "exp": NOW + 60, "jti": jti,
    })
}

fn changed(change: Value) -> String {
    let mut claims = claims("1");
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    key(4).sign("client-authentication+jwt", &claims)
}

fn redeem_with(process: &mut Process, fields: &[(&str, &str)], id_jag: &str) -> Verdict {
    let form_type = [("content-type", "application/x-www-form-urlencoded")];
    let head = request("POST", "mcp.acme.example", "/token", &form_type);
    let grant =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", id_jag)];
    at_token_endpoint(process, head, form(&[grant.as_slice(), fields].concat()))
}

fn redeem(assertion: &str) -> (Verdict, Vec<String>) {
    let mut process = Process::new(&config(), 1);
    let fields = [("client_assertion_type", TYPE), ("client_assertion", assertion)];
    let verdict = redeem_with(&mut process, &fields, &id_jag("1"));
    (verdict, process.log)
}

#[test]
fn a_client_that_signs_for_itself_is_authenticated() {
    let key = key(4);
    let accepted = [
        ("the standard's typ", key.sign("client-authentication+jwt", &claims("1"))),
        ("typ JWT", key.sign("JWT", &claims("1"))),
        ("the token endpoint as audience", changed(json!({ "aud": format!("{AS}/token") }))),
        ("an audience in an array", changed(json!({ "aud": [AS] }))),
        ("no iat", changed(json!({ "iat": null }))),
        ("five minutes to go", changed(json!({ "exp": NOW + 360 }))),
    ];

    for (what, assertion) in accepted {
        let (verdict, log) = redeem(&assertion);
        assert_eq!(status(&verdict), 200, "{what}: {log:?}");
    }
}

#[test]
fn a_host_verifies_the_assertions_of_registered_clients() {
    let asked = with_host();

    let (verdict, log) = redeem(&changed(json!({})));

    assert_eq!((status(&verdict), asked.both()), (200, (2, 1)), "{log:?}");
}

#[test]
fn an_unsound_client_assertion_is_an_invalid_client_and_never_an_invalid_grant() {
    let cases = [
        ("iss is another", changed(json!({ "iss": "other" })), "client_mismatch"),
        ("no iss", changed(json!({ "iss": null })), "claim_missing"),
        ("no sub", changed(json!({ "sub": null })), "claim_missing"),
        ("no exp", changed(json!({ "exp": null })), "claim_missing"),
        ("no jti", changed(json!({ "jti": null })), "claim_missing"),
        ("no aud", changed(json!({ "aud": null })), "claim_missing"),
        ("another audience", changed(json!({ "aud": IDP })), "aud"),
        ("two audiences", changed(json!({ "aud": [AS, IDP] })), "aud"),
        ("both of ours", changed(json!({ "aud": [AS, format!("{AS}/token")] })), "aud"),
        ("expired", changed(json!({ "exp": NOW - 60 })), "expired"),
        ("too long to go", changed(json!({ "exp": NOW + 361 })), "lifetime"),
        ("not yet", changed(json!({ "nbf": NOW + 61 })), "nbf"),
        ("from the future", changed(json!({ "iat": NOW + 61 })), "iat"),
        ("another key", key(5).sign("JWT", &claims("1")), "kid_unknown"),
        ("an ID-JAG", id_jag("2"), "typ"),
        ("an access token's typ", key(4).sign("at+jwt", &claims("1")), "typ"),
        ("a client nobody knows", changed(json!({ "sub": "nobody" })), "client_not_authenticated"),
        (
            "a client with a secret",
            changed(json!({ "sub": "other", "iss": "other" })),
            "client_method_not_registered",
        ),
        ("opaque", "x".to_owned(), "jwt_format"),
    ];

    for (what, assertion, code) in cases {
        let (verdict, log) = redeem(&assertion);
        assert_eq!(status(&verdict), 401, "{what}: {log:?}");
        assert_eq!(body(&verdict)["error"], "invalid_client", "{what}");
        assert!(log.iter().any(|line| line.starts_with(&format!("refused [{code}]"))), "{log:?}");
    }
}

#[test]
fn a_client_authenticates_by_the_method_it_is_registered_for() {
    let assertion = key(4).sign("JWT", &claims("1"));
    let cases = [
        ("a secret", vec![("client_id", "claude"), ("client_secret", "s3cret")], 401),
        ("no type", vec![("client_assertion", assertion.as_str())], 401),
        (
            "another type",
            vec![("client_assertion_type", "x"), ("client_assertion", assertion.as_str())],
            401,
        ),
        ("no assertion", vec![("client_assertion_type", TYPE)], 401),
        (
            "another client_id",
            vec![
                ("client_assertion_type", TYPE),
                ("client_assertion", assertion.as_str()),
                ("client_id", "other"),
            ],
            401,
        ),
        (
            "a secret beside it",
            vec![
                ("client_assertion_type", TYPE),
                ("client_assertion", assertion.as_str()),
                ("client_secret", "x"),
            ],
            400,
        ),
    ];

    for (what, fields, code) in cases {
        let mut process = Process::new(&config(), 1);
        let verdict = redeem_with(&mut process, &fields, &id_jag("1"));
        assert_eq!(status(&verdict), code, "{what}: {:?}", process.log);
    }
}

#[test]
fn a_client_assertion_counts_once_for_all_workers() {
    let mut process = Process::new(&config(), 2);
    let assertion = key(4).sign("JWT", &claims("1"));
    let fields = [("client_assertion_type", TYPE), ("client_assertion", assertion.as_str())];
    let mut redeem = |worker: usize, id_jag: &str| {
        let form_type = [("content-type", "application/x-www-form-urlencoded")];
        let head = request("POST", "mcp.acme.example", "/token", &form_type);
        let grant =
            [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", id_jag)];
        let body = form(&[grant.as_slice(), &fields].concat());
        process.request_with_body(worker, 1, head, body);
        process.answer(&mut |_| answer(200, &jwks(&[1])));
        status(&process.verdict())
    };

    assert_eq!(redeem(0, &id_jag("1")), 200);
    assert_eq!(redeem(0, &id_jag("2")), 401);
    assert_eq!(redeem(1, &id_jag("2")), 401);
}

#[test]
fn where_an_assertion_cannot_be_remembered_it_does_not_count() {
    let mut process = Process::new(&config(), 1);
    let full: Vec<u8> = [0xff; 24].repeat(160);
    for bucket in 0..16384 {
        let key = format!("jagway/client-jti/{bucket:x}");
        assert!(jagway_core::store::Store::swap(&*process.store, &key, &full, 0).unwrap());
    }
    let assertion = changed(json!({}));
    let fields = [("client_assertion_type", TYPE), ("client_assertion", assertion.as_str())];

    let verdict = redeem_with(&mut process, &fields, &id_jag("1"));

    assert_eq!(
        (status(&verdict), &body(&verdict)["error"]),
        (503, &json!("temporarily_unavailable"))
    );
}
