//! Tokens that their clients revoke (RFC 7009): they open nothing from then on, at any worker.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::http::Request;
use serde_json::json;
use support::revocation::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_token_that_its_client_revokes_opens_nothing_at_any_worker() {
    let mut process = Process::new(&accept_config(), 3);
    let (first, second) = (token(&mut process, "alice", "1"), token(&mut process, "alice", "2"));
    assert_eq!(call(&mut process, 1, &first), 0);

    let verdict = revoke(&mut process, CLAUDE, &first);

    assert_eq!(status(&verdict), 200);
    assert_eq!(header(&verdict, "cache-control"), Some("no-store"));
    for worker in 0..3 {
        assert_eq!(call(&mut process, worker, &first), 401, "{worker}");
        assert_eq!(call(&mut process, worker, &second), 0, "{worker}: the other token");
    }
    assert!(refused(&process, "revoked"), "{:?}", process.log);
    assert_eq!(process.counts["done.revoked"], 1);
    assert_eq!(status(&revoke(&mut process, CLAUDE, &first)), 200, "again");
}

#[test]
fn a_revoked_token_is_told_as_invalid_with_the_way_to_another() {
    let mut process = Process::new(&accept_config(), 1);
    let bearer = format!("Bearer {}", token(&mut process, "alice", "1"));
    revoke(&mut process, CLAUDE, &bearer[7..]);

    process.request(
        0,
        1,
        request("POST", "mcp.acme.example", "/warehouse", &[("authorization", &bearer)]),
    );

    let verdict = process.verdict();
    assert_eq!((status(&verdict), &body(&verdict)["error"]), (401, &json!("invalid_token")));
    let challenge = header(&verdict, "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\", resource_metadata="), "{challenge}");
}

#[test]
fn a_client_revokes_no_tokens_but_its_own() {
    let mut process = Process::new(&accept_config(), 1);
    let token = token(&mut process, "alice", "1");

    let verdict = revoke(&mut process, OTHER, &token);

    // RFC 7009 §2.1, §2.2.1; RFC 6749 §5.2.
    assert_eq!((status(&verdict), &body(&verdict)["error"]), (400, &json!("invalid_grant")));
    assert_eq!(reason(&process), "token_of_another_client");
    assert_eq!(call(&mut process, 0, &token), 0);
}

#[test]
fn what_is_no_token_of_ours_is_told_as_revoked_and_revokes_nothing() {
    let mut process = Process::new(&accept_config(), 1);
    let good = token(&mut process, "alice", "1");
    let claims = json!({
        "iss": AS, "aud": WAREHOUSE, "sub": "s", "client_id": "claude", "jti": "t", "iat": NOW,
        "exp": NOW + 300, "sub_id": user(IDP, "alice"),
    });
    let own = jagway_core::signing::SigningKey::from_pem(&pem(9), Some("own-1")).unwrap();
    let elsewhere = {
        let mut claims = claims.clone();
        claims["iss"] = json!(IDP);
        own.sign("at+jwt", &claims)
    };
    let (spoiled, _) = good.split_at(good.len() - 4);
    let cases = [
        ("opaque", "45ghiukldjahdnhzdauz".to_owned()),
        ("an ID-JAG", id_jag("2")),
        ("another key", key(1).sign("at+jwt", &claims)),
        ("another kind of ours", own.sign("jagway-identity+jwt", &claims)),
        ("another issuer", elsewhere),
        ("a spoiled signature", spoiled.to_owned()),
        ("too large", "a".repeat(17_000)),
        ("not ASCII", "tøken".to_owned()),
    ];

    for (what, token) in cases {
        assert_eq!(status(&revoke(&mut process, CLAUDE, &token)), 200, "{what}");
    }
    assert!(!process.counts.contains_key("done.revoked"), "{:?}", process.counts);
    assert_eq!(call(&mut process, 0, &good), 0);
    // Long expired, and still ours.
    process.now = NOW + 10_000;
    assert_eq!(status(&revoke(&mut process, CLAUDE, &good)), 200);
    assert_eq!(status(&revoke(&mut process, OTHER, &good)), 400);
}

#[test]
fn the_revocation_endpoint_is_asked_as_the_token_endpoint_is() {
    let mut config = accept_config();
    config["authorization_server"]["rate_limits"] = json!({ "per_client_per_minute": 2 });
    let good = "token=a&token_type_hint=refresh_token&x=y";
    let with = |fields: &[(&str, &str)]| request("POST", "mcp.acme.example", "/revoke", fields);
    let form = ("content-type", FORM);
    let basic = ("authorization", CLAUDE);
    let cases: Vec<(&str, Request, &str, u16, &str)> = vec![
        ("sound", with(&[form, basic]), good, 200, ""),
        ("in the body", with(&[form]), "token=a&client_id=claude&client_secret=s3cret", 200, ""),
        ("a third time", with(&[form, basic]), good, 429, "rate_limited"),
        ("GET", request("GET", "mcp.acme.example", "/revoke", &[basic]), "", 405, "method"),
        (
            "in the query",
            request("POST", "mcp.acme.example", "/revoke?token=a", &[form, basic]),
            good,
            400,
            "query_parameters",
        ),
        ("JSON", with(&[("content-type", "application/json"), basic]), "{}", 400, "content_type"),
        (
            "encoded",
            with(&[form, basic, ("content-encoding", "gzip")]),
            good,
            415,
            "content_encoding",
        ),
        (
            "too large",
            with(&[form, basic, ("content-length", "65537")]),
            good,
            413,
            "body_too_large",
        ),
        ("nobody", with(&[form]), good, 401, "client_public"),
        (
            "not proven",
            with(&[form]),
            "token=a&client_id=claude&client_secret=x",
            401,
            "client_not_authenticated",
        ),
        (
            "two ways",
            with(&[form, basic]),
            "token=a&client_secret=s3cret",
            400,
            "several_client_authentications",
        ),
        ("two tokens", with(&[form, basic]), "token=a&token=b", 400, "parameter_repeated"),
    ];
    let mut process = Process::new(&config, 1);

    for (what, request, body, expected, code) in cases {
        process.log.clear();
        let verdict = send(&mut process, 0, request, body);

        assert_eq!(status(&verdict), expected, "{what}: {:?}", process.log);
        assert_eq!(reason(&process), code, "{what}");
        if expected == 401 {
            let challenge = format!("Basic realm=\"{AS}\"");
            assert_eq!(header(&verdict, "www-authenticate"), Some(&*challenge), "{what}");
        }
    }
    process.now = NOW + 60;
    let verdict = send(&mut process, 0, with(&[form, basic]), "token_type_hint=access_token");
    assert_eq!((status(&verdict), reason(&process)), (400, "parameter_missing"));
    let elsewhere = request("POST", "other.example", "/revoke", &[form, basic]);
    assert_eq!(status(&send(&mut process, 0, elsewhere, good)), 404);
}
