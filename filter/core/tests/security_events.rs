//! Sessions that an identity provider tells to be over (RFC 8935, CAEP).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::revocation::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn an_event_ends_the_users_tokens_and_its_repetition_none_of_the_later_ones() {
    let mut process = Process::new(&config(), 2);
    let before = token(&mut process, "alice", "1");
    let bobs = token(&mut process, "bob", "2");
    process.now = NOW + 5;

    let verdict = push(&mut process, &event(json!({ "iat": NOW + 5 })));

    assert_eq!(status(&verdict), 202, "{:?}", process.log);
    assert_eq!(body(&verdict), Value::Null);
    assert_eq!(call(&mut process, 1, &before), 401);
    assert_eq!(reason(&process), "revoked");
    assert_eq!(call(&mut process, 1, &bobs), 0);
    let refused = redeem(&mut process, &grant_of("alice", "3", NOW + 4));
    assert_eq!((status(&refused), reason(&process)), (400, "revoked"));
    // The event's own time and the skew count, not when it comes.
    process.now = NOW + 66;
    let since = token(&mut process, "alice", "4");
    assert_eq!(status(&push(&mut process, &event(json!({ "iat": NOW + 5 })))), 202);
    assert_eq!(call(&mut process, 0, &since), 0);
    let line = process.log.iter().find(|line| line.starts_with("revoked ")).unwrap();
    assert!(line.contains("by=event") && !line.contains("alice"), "{line}");
}

#[test]
fn an_event_for_a_session_ends_all_of_its_users_and_one_for_a_device_is_refused() {
    let mut process = Process::new(&config(), 1);
    let token = token(&mut process, "alice", "1");
    let part = json!({ "format": "opaque", "id": "dMTlD" });
    let of = |name: &str| json!({ "format": "complex", "user": user(IDP, "alice"), name: part });

    let device = push(&mut process, &event(json!({ "sub_id": of("device") })));
    assert_eq!((status(&device), reason(&process)), (400, "sub_id_unsupported"));
    assert_eq!(call(&mut process, 0, &token), 0);

    let session = push(&mut process, &event(json!({ "sub_id": of("session") })));
    assert_eq!(status(&session), 202);
    assert_eq!(call(&mut process, 0, &token), 401);
}

#[test]
fn an_event_of_another_kind_is_received_and_changes_nothing() {
    let mut process = Process::new(&config(), 1);
    let token = token(&mut process, "alice", "1");
    let other = "https://schemas.openid.net/secevent/ssf/event-type/verification";

    let verdict = push(&mut process, &event(json!({ "events": { other: {} } })));

    assert_eq!(status(&verdict), 202);
    assert_eq!(process.counts["done.event_ignored"], 1);
    assert_eq!(call(&mut process, 0, &token), 0);
}

#[test]
fn an_event_that_does_not_pass_is_told_in_the_words_of_its_standard() {
    let mut process = Process::new(&config(), 1);
    let token = token(&mut process, "alice", "1");
    let sign = |change: Value| key(1).sign("secevent+jwt", &event(change));
    let good = sign(json!({}));
    let (input, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{input}.{}", "A".repeat(86));
    let cases = [
        ("junk", "junk".to_owned(), "invalid_request", "jwt_format"),
        ("nothing", String::new(), "invalid_request", "jwt_format"),
        ("an ID-JAG", id_jag("9"), "invalid_request", "typ"),
        ("Globex", sign(json!({ "iss": GLOBEX })), "invalid_issuer", "iss"),
        ("nobody", sign(json!({ "iss": "https://evil.example" })), "invalid_issuer", "iss"),
        (
            "another key",
            key(2).sign("secevent+jwt", &event(json!({}))),
            "invalid_key",
            "kid_unknown",
        ),
        ("forged", forged, "authentication_failed", "signature"),
        ("for others", sign(json!({ "aud": GLOBEX })), "invalid_audience", "aud"),
        ("stale", sign(json!({ "iat": NOW - 961 })), "invalid_request", "event_stale"),
        (
            "another's user",
            sign(json!({ "sub_id": user(GLOBEX, "alice") })),
            "access_denied",
            "sub_id_issuer",
        ),
        ("no user", sign(json!({ "sub_id": null })), "invalid_request", "sub_id_missing"),
        (
            "two events",
            sign(json!({ "events": { SESSION_REVOKED: {}, "x": {} } })),
            "invalid_request",
            "events",
        ),
    ];

    for (what, token, err, code) in cases {
        process.log.clear();
        let request = post("/security-events", "application/secevent+jwt", "");
        let verdict = send(&mut process, 0, request, &token);

        let words = (status(&verdict), body(&verdict)["err"].clone());
        assert_eq!(words, (400, json!(err)), "{what}: {:?}", process.log);
        assert!(body(&verdict)["description"].is_string() && body(&verdict)["error"].is_null());
        assert_eq!(header(&verdict, "content-language"), Some("en"), "{what}");
        assert!(refused(&process, code), "{what}: {:?}", process.log);
    }
    let media = post("/security-events", "application/jwt", "");
    let media = send(&mut process, 0, media, &sign(json!({})));
    assert_eq!((status(&media), &body(&media)["err"]), (400, &json!("invalid_request")));
    let got = request("GET", "mcp.acme.example", "/security-events", &[]);
    assert_eq!(status(&send(&mut process, 0, got, "")), 405);
    assert!(!process.counts.contains_key("done.revoked"), "{:?}", process.counts);
    assert_eq!(call(&mut process, 0, &token), 0);
}

#[test]
fn a_stream_may_know_us_by_another_name() {
    let mut config = config();
    config["identity_providers"]["acme"]["revocation"]["security_events"]["audience"] =
        json!("https://receiver.example/jagway");
    let mut process = Process::new(&config, 1);

    let by_issuer = push(&mut process, &event(json!({})));
    let by_name = push(
        &mut process,
        &event(json!({ "aud": ["https://other.example", "https://receiver.example/jagway"] })),
    );

    assert_eq!((status(&by_issuer), status(&by_name)), (400, 202));
}

#[test]
fn a_provider_signs_with_its_own_algorithms_only() {
    let mut config = config();
    config["identity_providers"]["globex"]["revocation"] =
        json!({ "global_token_revocation": true, "security_events": {} });
    config["identity_providers"]["acme"]["algorithms"] = json!(["RS256"]);
    let mut process = Process::new(&config, 1);
    let bearer = key(1).sign("JWT", &asking(json!({})));

    let asked = ask(&mut process, &bearer, &user(IDP, "alice"));
    assert_eq!((status(&asked), reason(&process)), (401, "alg_not_allowed"));

    process.log.clear();
    let pushed = push(&mut process, &event(json!({})));
    assert_eq!((status(&pushed), reason(&process)), (400, "alg_not_allowed"));
    assert_eq!(body(&pushed)["err"], "invalid_key");
}

#[test]
fn without_the_providers_keys_nobody_is_told_that_they_were_wrong() {
    let bearer = format!("Bearer {}", key(1).sign("JWT", &asking(json!({}))));
    let pushed = key(1).sign("secevent+jwt", &event(json!({})));
    let asked = json!({ "sub_id": user(IDP, "alice") }).to_string();
    let cases = [
        (post("/global-token-revocation", "application/json", &bearer), asked),
        (post("/security-events", "application/secevent+jwt", ""), pushed),
    ];

    for (request, body) in cases {
        let mut process = Process::new(&config(), 1);
        process.request_with_body(0, 1, request, body.into_bytes());
        process.answer(&mut |_| answer(500, b""));

        let verdict = process.verdict();
        assert_eq!((status(&verdict), reason(&process)), (503, "keys_unavailable"));
        assert!(header(&verdict, "retry-after").is_some());
    }
}
