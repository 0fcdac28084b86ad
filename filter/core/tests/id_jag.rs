//! The ID-JAG, check by check (ID-JAG §3.1, §4.4.1; RFC 7523 §3; RFC 8725).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::assertions::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn spellings_that_mean_the_same_are_accepted() {
    let header = |typ: &str| format!(r#"{{"typ":"{typ}","alg":"ES256","kid":"key-1"}}"#);
    let accepted = [
        ("typ in another case", with_header(&header("OAuth-ID-JAG+JWT"))),
        ("typ with its prefix", with_header(&header("application/oauth-id-jag+jwt"))),
        ("no kid", with_header(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256"}"#)),
        (
            "a case variant of alg beside it",
            with_header(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256","Alg":"none","kid":"key-1"}"#),
        ),
        ("aud as an array of one", changed(json!({ "aud": [AS] }))),
        ("resource as an array of one", changed(json!({ "resource": [WAREHOUSE] }))),
        ("one configured resource and none named", changed(json!({ "resource": null }))),
        ("exp just inside the skew", changed(json!({ "iat": NOW - 300, "exp": NOW - 59 }))),
        ("nbf just inside the skew", changed(json!({ "nbf": NOW + 60 }))),
        ("lifetime at the cap", changed(json!({ "exp": NOW + 600 }))),
        ("unknown claims", changed(json!({ "email": "a@b.example", "x": { "y": [1] } }))),
    ];

    for (what, assertion) in accepted {
        let (verdict, log) = redeem(&assertion);
        assert_eq!(status(&verdict), 200, "{what}: {log:?}");
    }
}

#[test]
fn an_id_jag_of_unsound_form_is_an_invalid_grant() {
    let good = id_jag("1");
    let [head, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let unused_bits = {
        // A 64-byte signature leaves four unused bits in its last letter.
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = letters.find(signature.chars().last().unwrap()).unwrap();
        let twin = letters.chars().nth(last ^ 1).unwrap();
        format!("{head}.{payload}.{}{twin}", &signature[..signature.len() - 1])
    };
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(20), "]".repeat(20));
    let cases = [
        ("two parts", format!("{head}.{payload}"), "jwt_format"),
        ("no signature", format!("{head}.{payload}."), "jwt_format"),
        ("four parts", format!("{good}.x"), "jwt_format"),
        ("five parts", format!("{head}.a.b.c.d"), "jwe_not_supported"),
        ("JSON form", r#"{"payload":"x"}"#.to_owned(), "jwt_charset"),
        ("leading space", format!(" {good}"), "jwt_charset"),
        ("trailing newline", format!("{good}\n"), "jwt_charset"),
        ("padding", format!("{good}=="), "jwt_charset"),
        ("Bearer before it", format!("Bearer {good}"), "jwt_charset"),
        ("impossible length", format!("{head}.{payload}.{signature}AAA"), "b64_noncanonical"),
        ("unused bits set", unused_bits, "b64_noncanonical"),
        ("signature of 63 bytes", format!("{head}.{payload}.{}", &signature[..84]), "signature"),
        ("header with a twin", raw(r#"{"typ":"a","typ":"b"}"#, "{}"), "header_json"),
        ("header an array", raw("[]", "{}"), "header_json"),
        (
            "header too large",
            with_header(&format!("{{\"x\":\"{}\"}}", "a".repeat(2048))),
            "header_too_large",
        ),
        (
            "payload no JSON",
            raw(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256"}"#, "x"),
            "payload_json",
        ),
        (
            "payload too deep",
            raw(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256"}"#, &deep),
            "payload_json",
        ),
        (
            "payload with a twin",
            raw(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256"}"#, r#"{"iss":"a","iss":"b"}"#),
            "payload_json",
        ),
    ];

    for (what, assertion, code) in cases {
        let (verdict, log) = redeem(&assertion);
        assert_refused(&verdict, &log, code, what);
    }
}

#[test]
fn an_id_jag_with_an_unsound_header_is_an_invalid_grant() {
    let header = |members: &str| with_header(&format!(r#"{{"typ":"oauth-id-jag+jwt",{members}}}"#));
    let typ = |typ: &str| with_header(&format!(r#"{{"typ":{typ},"alg":"ES256","kid":"key-1"}}"#));
    let cases = [
        ("no typ", with_header(r#"{"alg":"ES256"}"#), "typ"),
        ("typ JWT", typ(r#""JWT""#), "typ"),
        ("typ of an access token", typ(r#""at+jwt""#), "typ"),
        ("typ of a client assertion", typ(r#""client-authentication+jwt""#), "typ"),
        ("typ with a suffix", typ(r#""oauth-id-jag+jwt;x""#), "typ"),
        ("typ with a space", typ(r#""oauth-id-jag+jwt ""#), "typ"),
        ("typ an array", typ(r#"["oauth-id-jag+jwt"]"#), "header_type"),
        ("alg none", header(r#""alg":"none""#), "alg_not_allowed"),
        ("alg None", header(r#""alg":"None""#), "alg_not_allowed"),
        ("alg HS256", header(r#""alg":"HS256""#), "alg_not_allowed"),
        ("alg in lower case", header(r#""alg":"es256""#), "alg_not_allowed"),
        ("alg missing", header(r#""kid":"key-1""#), "alg_not_allowed"),
        ("alg a number", header(r#""alg":1"#), "header_type"),
        ("alg not in the issuer's list", header(r#""alg":"EdDSA""#), "alg_not_allowed"),
        ("crit", header(r#""alg":"ES256","crit":["exp"],"kid":"key-1""#), "crit"),
        ("b64", header(r#""alg":"ES256","b64":false,"kid":"key-1""#), "crit"),
        ("jwk", header(r#""alg":"ES256","kid":"key-1","jwk":{}"#), "header_forbidden_param"),
        ("jku", header(r#""alg":"ES256","jku":"https://x.example""#), "header_forbidden_param"),
        ("x5c", header(r#""alg":"ES256","x5c":[]"#), "header_forbidden_param"),
        ("zip", header(r#""alg":"ES256","zip":"DEF""#), "jwe_not_supported"),
        ("kid a number", header(r#""alg":"ES256","kid":7"#), "header_type"),
        ("kid empty", header(r#""alg":"ES256","kid":"""#), "header_type"),
        ("kid unknown", header(r#""alg":"ES256","kid":"../../etc""#), "kid_unknown"),
        ("kid in another case", header(r#""alg":"ES256","kid":"KEY-1""#), "kid_unknown"),
    ];

    for (what, assertion, code) in cases {
        let (verdict, log) = redeem(&assertion);
        assert_refused(&verdict, &log, code, what);
    }
}

#[test]
fn an_id_jag_with_unsound_claims_is_an_invalid_grant() {
    let cases = [
        ("no iss", json!({ "iss": null }), "claim_missing"),
        ("iss an array", json!({ "iss": [IDP] }), "claim_type"),
        ("iss with a slash", json!({ "iss": format!("{IDP}/") }), "iss"),
        ("iss in upper case", json!({ "iss": "https://ACME.idp.example" }), "iss"),
        ("iss with its port", json!({ "iss": format!("{IDP}:443") }), "iss"),
        ("iss our own", json!({ "iss": AS }), "iss"),
        ("aud with a slash", json!({ "aud": format!("{AS}/") }), "aud"),
        ("aud a prefix", json!({ "aud": format!("{AS}.evil") }), "aud"),
        ("aud the token endpoint", json!({ "aud": format!("{AS}/token") }), "aud"),
        ("aud the resource", json!({ "aud": WAREHOUSE }), "aud"),
        ("aud the client", json!({ "aud": "claude" }), "aud"),
        ("aud with another", json!({ "aud": [AS, "https://other.example"] }), "aud"),
        ("aud twice the same", json!({ "aud": [AS, AS] }), "aud"),
        ("aud an empty array", json!({ "aud": [] }), "aud"),
        ("no aud", json!({ "aud": null }), "claim_missing"),
        ("aud an object", json!({ "aud": {} }), "claim_type"),
        ("expired", json!({ "iat": NOW - 300, "exp": NOW - 60 }), "expired"),
        ("exp a string", json!({ "exp": "1800000300" }), "claim_type"),
        ("exp a fraction", json!({ "exp": 1_800_000_200.5 }), "claim_type"),
        ("exp negative", json!({ "exp": -1 }), "claim_type"),
        ("no exp", json!({ "exp": null }), "claim_missing"),
        ("no iat", json!({ "iat": null }), "claim_missing"),
        ("iat in the future", json!({ "iat": NOW + 61 }), "iat"),
        ("exp before iat", json!({ "iat": NOW + 30, "exp": NOW + 20 }), "lifetime"),
        ("lifetime over the cap", json!({ "exp": NOW + 601 }), "lifetime"),
        ("exp far ahead", json!({ "exp": u64::MAX }), "lifetime"),
        ("nbf in the future", json!({ "nbf": NOW + 61 }), "nbf"),
        ("nbf a string", json!({ "nbf": "0" }), "claim_type"),
        ("no sub", json!({ "sub": null }), "claim_missing"),
        ("sub empty", json!({ "sub": "" }), "claim_missing"),
        ("sub a number", json!({ "sub": 7 }), "claim_type"),
        ("no jti", json!({ "jti": null }), "claim_missing"),
        ("jti too long", json!({ "jti": "j".repeat(257) }), "claim_type"),
        ("jti with a NUL", json!({ "jti": "a\0b" }), "claim_type"),
        ("no client_id", json!({ "client_id": null }), "claim_missing"),
        ("another client", json!({ "client_id": "other" }), "client_mismatch"),
        ("client in another case", json!({ "client_id": "Claude" }), "client_mismatch"),
        ("client with a space", json!({ "client_id": "claude " }), "client_mismatch"),
        ("bound to a key", json!({ "cnf": { "jkt": "x" } }), "cnf"),
        ("for a tenant of ours", json!({ "aud_tenant": "t1" }), "tenant"),
        ("a foreign resource", json!({ "resource": "https://other.example/mcp" }), "resource"),
        ("own and foreign", json!({ "resource": [WAREHOUSE, "https://o.example"] }), "resource"),
        ("resource with a slash", json!({ "resource": format!("{WAREHOUSE}/") }), "resource"),
        ("resource a number", json!({ "resource": 1 }), "claim_type"),
        ("resource an empty array", json!({ "resource": [] }), "claim_type"),
        ("scope an array", json!({ "scope": ["stock.read"] }), "claim_type"),
    ];

    for (what, change, code) in cases {
        let (verdict, log) = redeem(&changed(change));
        assert_refused(&verdict, &log, code, what);
    }
}

#[test]
fn an_id_jag_signed_by_anyone_else_is_an_invalid_grant() {
    let claims = id_jag_claims("1");
    let forged = |kid: &str| {
        let key = jagway_core::signing::SigningKey::from_pem(&pem(2), Some(kid)).unwrap();
        key.sign("oauth-id-jag+jwt", &claims)
    };
    let mut tampered = id_jag("1");
    let at = tampered.find('.').unwrap() + 5;
    let other = if tampered.as_bytes()[at] == b'A' { "B" } else { "A" };
    tampered.replace_range(at..at + 1, other);

    let (verdict, log) = redeem(&forged("key-1"));
    assert_refused(&verdict, &log, "signature", "another key under the same name");
    let (verdict, log) = redeem(&forged("key-2"));
    assert_refused(&verdict, &log, "kid_unknown", "another key");
    let (verdict, _) = redeem(&tampered);
    assert_eq!(body(&verdict)["error"], "invalid_grant", "changed after signing");
}

#[test]
fn all_invalid_grants_read_alike() {
    let cases = [changed(json!({ "iss": "https://x.example" })), changed(json!({ "aud": "x" }))];
    let texts: Vec<Value> = cases.iter().map(|assertion| body(&redeem(assertion).0)).collect();

    assert_eq!(texts[0], texts[1]);
}

#[test]
fn of_two_faults_in_an_assertion_the_earlier_check_speaks() {
    let header =
        |members: &str, claims: &Value| raw(&format!("{{{members}}}"), &claims.to_string());
    let claims = |change: Value| {
        let mut claims = id_jag_claims("1");
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let sound = r#""typ":"oauth-id-jag+jwt","alg":"ES256","kid":"key-1""#;
    let strange = r#""typ":"oauth-id-jag+jwt","alg":"ES256","kid":"strange""#;
    let forged = |change: Value| {
        let key = jagway_core::signing::SigningKey::from_pem(&pem(2), Some("key-1")).unwrap();
        key.sign("oauth-id-jag+jwt", &claims(change))
    };
    let expired = json!({ "iat": NOW - 300, "exp": NOW - 60, "client_id": "other" });
    let cases = [
        ("typ before alg", header(r#""alg":"none""#, &claims(json!({}))), "typ"),
        (
            "alg before payload",
            raw(r#"{"typ":"oauth-id-jag+jwt","alg":"none"}"#, "x"),
            "alg_not_allowed",
        ),
        ("issuer before key", header(strange, &claims(json!({ "iss": "x" }))), "iss"),
        ("key before audience", header(strange, &claims(json!({ "aud": "x" }))), "kid_unknown"),
        ("signature before audience", forged(json!({ "aud": "x" })), "signature"),
        (
            "audience before times",
            header(sound, &claims(json!({ "aud": "x", "exp": NOW - 99 }))),
            "aud",
        ),
        ("times before client", header(sound, &claims(expired)), "expired"),
        (
            "presence before client",
            header(sound, &claims(json!({ "jti": "", "client_id": "other" }))),
            "claim_missing",
        ),
        (
            "client before resource",
            header(
                sound,
                &claims(json!({ "client_id": "other", "resource": "https://o.example" })),
            ),
            "client_mismatch",
        ),
    ];

    for (what, assertion, code) in cases {
        let (verdict, log) = redeem(&assertion);
        assert_refused(&verdict, &log, code, what);
    }
}
