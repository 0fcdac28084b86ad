//! Users whom their identity provider or the operator revokes (Global Token Revocation).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::{hex, sha256};
use jagway_core::http::Request;
use serde_json::{Value, json};
use support::revocation::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_user_whom_the_identity_provider_or_the_operator_revokes_begins_anew() {
    let provider = key(1).sign("global-token-revocation+jwt", &asking(json!({})));
    for (by, bearer) in [("identity_provider", provider.as_str()), ("operator", OPERATOR)] {
        let mut process = Process::new(&config(), 2);
        let alices = token(&mut process, "alice", "1");
        let bobs = token(&mut process, "bob", "2");
        let unused = grant_of("alice", "3", NOW);
        process.now = NOW + 5;

        let verdict = ask(&mut process, bearer, &user(IDP, "alice"));

        assert_eq!(status(&verdict), 204, "{by}: {:?}", process.log);
        for worker in 0..2 {
            assert_eq!(call(&mut process, worker, &alices), 401, "{by}");
            assert_eq!(reason(&process), "revoked");
            assert_eq!(call(&mut process, worker, &bobs), 0, "{by}");
        }
        let refused = redeem(&mut process, &unused);
        assert_eq!((status(&refused), reason(&process)), (400, "revoked"), "{by}");
        assert_eq!(body(&refused)["error"], "invalid_grant");
        process.now = NOW + 6;
        let anew = token(&mut process, "alice", "4");
        assert_eq!(call(&mut process, 0, &anew), 0, "{by}: a new login");
        let line = process.log.iter().find(|line| line.starts_with("revoked ")).unwrap();
        assert!(line.contains(&format!("by={by}")) && !line.contains("alice"), "{line}");
        assert_eq!(process.counts["done.revoked"], 1);
    }
}

#[test]
fn a_grant_that_was_refused_as_revoked_is_not_spent() {
    let mut process = Process::new(&config(), 1);
    let assertion = grant_of("alice", "1", NOW);
    ask(&mut process, OPERATOR, &user(IDP, "alice"));

    for _ in 0..2 {
        assert_eq!(status(&redeem(&mut process, &assertion)), 400);

        assert_eq!(reason(&process), "revoked");
    }
}

#[test]
fn who_may_not_ask_revokes_nobody() {
    let mut process = Process::new(&config(), 1);
    let token = token(&mut process, "alice", "1");
    let sign = |typ: &str, change: Value| key(1).sign(typ, &asking(change));
    let typ = "global-token-revocation+jwt";
    let (alice, bob) = (user(IDP, "alice"), user(GLOBEX, "bob"));
    let cases: Vec<(&str, String, &Value, u16, &str)> = vec![
        ("opaque", "wrong".to_owned(), &alice, 401, "jwt_format"),
        ("the digest", hex(&sha256(OPERATOR.as_bytes())), &alice, 401, "jwt_format"),
        ("Globex", sign(typ, json!({ "iss": GLOBEX })), &bob, 401, "iss"),
        ("nobody", sign(typ, json!({ "iss": "https://evil.example" })), &alice, 401, "iss"),
        ("our own", sign(typ, json!({ "iss": AS })), &alice, 401, "iss"),
        ("another key", key(2).sign(typ, &asking(json!({}))), &alice, 401, "kid_unknown"),
        ("for our issuer", sign(typ, json!({ "aud": AS })), &alice, 401, "aud"),
        ("an ID-JAG", id_jag("9"), &alice, 401, "typ"),
        ("an access token", token.clone(), &alice, 401, "typ"),
        ("without jti", sign(typ, json!({ "jti": null })), &alice, 401, "claim_missing"),
        ("for a day", sign(typ, json!({ "exp": NOW + 86_400 })), &alice, 401, "lifetime"),
        ("expired", sign(typ, json!({ "exp": NOW - 60 })), &alice, 401, "expired"),
        ("for another's user", sign(typ, json!({})), &bob, 403, "sub_id_issuer"),
        ("of nobody", OPERATOR.to_owned(), &Value::Null, 400, "sub_id_member"),
    ];

    for (what, bearer, subject, expected, code) in cases {
        process.log.clear();
        let verdict = ask(&mut process, &bearer, subject);

        assert_eq!(status(&verdict), expected, "{what}: {:?}", process.log);
        assert_eq!(reason(&process), code, "{what}");
        let challenge = "Bearer realm=\"revocation\", error=\"invalid_token\"";
        let challenge = (expected == 401).then_some(challenge);
        assert_eq!(header(&verdict, "www-authenticate"), challenge, "{what}");
    }
    let foreign = ask(&mut process, OPERATOR, &user("https://evil.example", "alice"));
    assert_eq!((status(&foreign), reason(&process)), (403, "sub_id_issuer"));
    assert!(!process.counts.contains_key("done.revoked"), "{:?}", process.counts);
    assert_eq!(call(&mut process, 0, &token), 0);
    assert_eq!(status(&ask(&mut process, OPERATOR, &bob)), 204, "any that is trusted");
}

#[test]
fn a_request_for_global_token_revocation_has_one_form() {
    let path = "/global-token-revocation";
    let operator = format!("Bearer {OPERATOR}");
    let (json, good) = ("application/json", json!({ "sub_id": user(IDP, "alice") }).to_string());
    let with = |fields: &[(&str, &str)]| request("POST", "mcp.acme.example", path, fields);
    let media = ("content-type", json);
    let bearer = ("authorization", operator.as_str());
    let email = json!({ "sub_id": { "format": "email", "email": "a@b.example" } }).to_string();
    let cases: Vec<(&str, Request, &str, u16, &str)> = vec![
        ("no token", with(&[media]), &good, 401, "no_token"),
        ("Basic", with(&[media, ("authorization", CLAUDE)]), &good, 401, "no_token"),
        ("two", with(&[media, bearer, bearer]), &good, 400, "authorization_malformed"),
        ("GET", request("GET", "mcp.acme.example", path, &[bearer]), "", 405, "method"),
        ("a form", with(&[("content-type", FORM), bearer]), &good, 400, "content_type"),
        (
            "encoded",
            with(&[media, bearer, ("content-encoding", "br")]),
            &good,
            415,
            "content_encoding",
        ),
        ("no JSON", with(&[media, bearer]), "sub_id=alice", 400, "body_json"),
        ("nothing", with(&[media, bearer]), "", 400, "body_json"),
        ("no user", with(&[media, bearer]), "{}", 400, "sub_id_missing"),
        ("e-mail", with(&[media, bearer]), &email, 400, "sub_id_unsupported"),
    ];
    let mut process = Process::new(&config(), 1);

    for (what, request, body, expected, code) in cases {
        process.log.clear();
        let verdict = send(&mut process, 0, request, body);

        assert_eq!(status(&verdict), expected, "{what}: {:?}", process.log);
        assert_eq!(reason(&process), code, "{what}");
        let challenge = (expected == 401).then_some("Bearer realm=\"revocation\"");
        assert_eq!(header(&verdict, "www-authenticate"), challenge, "{what}");
    }
    assert!(!process.counts.contains_key("done.revoked"), "{:?}", process.counts);
}

#[test]
fn the_identity_providers_token_counts_once() {
    let mut process = Process::new(&config(), 1);
    let bearer = key(1).sign("JWT", &asking(json!({})));
    assert_eq!(status(&ask(&mut process, &bearer, &user(IDP, "alice"))), 204);
    process.now = NOW + 10;
    let since = token(&mut process, "alice", "1");

    let again = ask(&mut process, &bearer, &user(IDP, "alice"));

    assert_eq!((status(&again), reason(&process)), (401, "jti_replayed"));
    assert_eq!(call(&mut process, 0, &since), 0);
}
