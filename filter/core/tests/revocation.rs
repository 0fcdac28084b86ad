//! Revocation: what is revoked opens nothing from then on, at any worker (RFC 7009, RFC 8935, CAEP, Global
//! Token Revocation).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::{hex, sha256};
use jagway_core::http::Request;
use jagway_core::site::Site;
use jagway_core::store::{Memory, Store, Unavailable};
use jagway_core::worker::{Verdict, Worker};
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const GLOBEX: &str = "https://globex.idp.example";
const OPERATOR: &str = "operator-token";
/// other:other-secret
const OTHER: &str = "Basic b3RoZXI6b3RoZXItc2VjcmV0";
const CLAUDE: &str = "Basic Y2xhdWRlOnMzY3JldA==";
const FORM: &str = "application/x-www-form-urlencoded";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// Acme may revoke in both ways, Globex in none, and there is an operator.
fn config() -> Value {
    let mut config = accept_config();
    let globex =
        json!({ "issuer": GLOBEX, "cluster": "idp", "jwks_uri": format!("{GLOBEX}/keys") });
    config["identity_providers"]["globex"] = globex;
    config["identity_providers"]["acme"]["revocation"] =
        json!({ "global_token_revocation": true, "security_events": {} });
    let server = &mut config["authorization_server"];
    server["clients"]["other"]["identity_providers"] = json!(["acme", "globex"]);
    server["revocation"] = json!({ "operator_token_sha256": hex(&sha256(OPERATOR.as_bytes())) });
    config
}

fn post(path: &str, media_type: &str, authorization: &str) -> Request {
    let fields = [("content-type", media_type), ("authorization", authorization)];
    let sent = if authorization.is_empty() { 1 } else { 2 };
    request("POST", "mcp.acme.example", path, &fields[..sent])
}

/// The answer of this worker; whoever it asks for keys has key 1.
fn send(process: &mut Process, worker: usize, request: Request, body: &str) -> Verdict {
    process.request_with_body(worker, 7, request, body.as_bytes().to_vec());
    process.answer(&mut |_| answer(200, &jwks(&[1])));
    process.verdict()
}

fn call(process: &mut Process, worker: usize, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let request = request("POST", "mcp.acme.example", "/warehouse", &[("authorization", &bearer)]);
    process.request(worker, 8, request);
    status(&process.verdict())
}

/// An ID-JAG of this user, issued `at` this second.
fn grant_of(user: &str, jti: &str, at: u64) -> String {
    let mut claims = id_jag_claims(jti);
    for (name, value) in [("sub", json!(user)), ("iat", json!(at)), ("exp", json!(at + 600))] {
        claims[name] = value;
    }
    key(1).sign("oauth-id-jag+jwt", &claims)
}

fn redeem(process: &mut Process, assertion: &str) -> Verdict {
    at_token_endpoint(process, token_request(), grant(assertion))
}

fn token(process: &mut Process, user: &str, jti: &str) -> String {
    let at = process.now;
    let verdict = redeem(process, &grant_of(user, jti, at));
    body(&verdict)["access_token"].as_str().unwrap_or_else(|| panic!("{verdict:?}")).to_owned()
}

fn revoke(process: &mut Process, authorization: &str, token: &str) -> Verdict {
    let body = form(&[("token", token)]);
    let body = String::from_utf8(body).unwrap();
    send(process, 0, post("/revoke", FORM, authorization), &body)
}

fn user(issuer: &str, user: &str) -> Value {
    json!({ "format": "iss_sub", "iss": issuer, "sub": user })
}

fn ask(process: &mut Process, bearer: &str, subject: &Value) -> Verdict {
    let body = json!({ "sub_id": subject }).to_string();
    let authorization = format!("Bearer {bearer}");
    send(process, 0, post("/global-token-revocation", "application/json", &authorization), &body)
}

/// The token with which Acme asks, changed: `null` removes a claim.
fn asking(change: Value) -> Value {
    let mut claims = json!({
        "iss": IDP, "sub": "jagway", "aud": format!("{AS}/global-token-revocation"), "jti": "ask",
        "iat": NOW, "exp": NOW + 300,
    });
    apply(&mut claims, change);
    claims
}

fn event(change: Value) -> Value {
    let mut claims = json!({
        "iss": IDP, "aud": AS, "iat": NOW, "jti": "event", "sub_id": user(IDP, "alice"),
        "events": { SESSION_REVOKED: { "event_timestamp": NOW } },
    });
    apply(&mut claims, change);
    claims
}

fn apply(claims: &mut Value, change: Value) {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
}

fn push(process: &mut Process, claims: &Value) -> Verdict {
    let token = key(1).sign("secevent+jwt", claims);
    send(process, 0, post("/security-events", "application/secevent+jwt", ""), &token)
}

fn refused(process: &Process, code: &str) -> bool {
    process.log.iter().any(|line| line.starts_with(&format!("refused [{code}] ")))
}

/// The reason of the last refusal.
fn reason(process: &Process) -> &str {
    let last = process.log.iter().rev().find_map(|line| line.strip_prefix("refused ["));
    last.and_then(|line| line.split(']').next()).unwrap_or_default()
}

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

#[test]
fn the_endpoints_exist_where_somebody_may_use_them() {
    let provider = |ways: Value| {
        let mut config = accept_config();
        config["identity_providers"]["acme"]["revocation"] = ways;
        config
    };
    let operator = {
        let mut config = accept_config();
        config["authorization_server"]["revocation"] =
            json!({ "operator_token_sha256": hex(&sha256(b"x")) });
        config
    };
    let cases = [
        ("nobody", accept_config(), false, false),
        ("an operator", operator, true, false),
        ("a provider asks", provider(json!({ "global_token_revocation": true })), true, false),
        ("a provider pushes", provider(json!({ "security_events": {} })), false, true),
    ];

    for (what, config, asks, pushes) in cases {
        let mut process = Process::new(&config, 1);
        let mut exists = |authority: &str, path: &str| {
            process.request(0, 1, request("GET", authority, path, &[]));
            status(&process.verdict()) == 405
        };
        let here = "mcp.acme.example";
        assert!(exists(here, "/revoke"), "{what}");
        assert_eq!(exists(here, "/global-token-revocation"), asks, "{what}");
        assert_eq!(exists(here, "/security-events"), pushes, "{what}");
        for path in ["/revoke", "/global-token-revocation", "/security-events"] {
            assert!(!exists("other.example", path), "{what}");
            assert!(!exists(here, &format!("{path}/")), "{what}");
        }
    }
}

#[test]
fn an_issuer_with_a_path_has_its_endpoints_below_it() {
    let mut config = config();
    config["authorization_server"]["issuer"] = json!(format!("{AS}/as/"));
    let mut process = Process::new(&config, 1);
    let mut get = |path: &str| {
        process.request(0, 1, request("GET", "mcp.acme.example", path, &[]));
        process.verdict()
    };

    let metadata = body(&get("/.well-known/oauth-authorization-server/as/"));
    assert_eq!(metadata["revocation_endpoint"], format!("{AS}/as/revoke"));
    for path in ["/as/revoke", "/as/global-token-revocation", "/as/security-events"] {
        assert_eq!(status(&get(path)), 405, "{path}");
    }
    assert_eq!(status(&get("/revoke")), 404);
}

#[test]
fn a_revocation_is_remembered_as_long_as_what_it_ended_could_be_used() {
    let mut process = Process::new(&config(), 1);
    let single = token(&mut process, "bob", "1");
    let of_user = token(&mut process, "alice", "2");
    let unused = grant_of("alice", "3", NOW);
    revoke(&mut process, CLAUDE, &single);
    ask(&mut process, OPERATOR, &user(IDP, "alice"));

    // Access tokens live for 300 s, ID-JAGs for 600 s, and 60 s of skew.
    process.now = NOW + 359;
    for token in [&single, &of_user] {
        assert_eq!((call(&mut process, 0, token), reason(&process)), (401, "revoked"));
    }
    process.now = NOW + 659;
    assert_eq!(status(&redeem(&mut process, &unused)), 400);
    assert_eq!(reason(&process), "revoked");
}

#[test]
fn a_tenant_counts_where_the_provider_has_several() {
    let in_tenant = |tenant: &str| {
        let tenant = json!({ "format": "opaque", "id": tenant });
        json!({ "format": "complex", "user": user(IDP, "alice"), "tenant": tenant })
    };
    let grant_in = |jti: &str, tenant: &str| {
        let mut claims = id_jag_claims(jti);
        claims["tenant"] = json!(tenant);
        key(1).sign("oauth-id-jag+jwt", &claims)
    };
    let mut several = config();
    several["identity_providers"]["acme"]["tenants"] = json!(["one", "two"]);
    let mut process = Process::new(&several, 1);
    let tokens = ["one", "two"].map(|tenant| {
        let verdict = redeem(&mut process, &grant_in(tenant, tenant));
        body(&verdict)["access_token"].as_str().unwrap().to_owned()
    });

    ask(&mut process, OPERATOR, &in_tenant("one"));
    assert_eq!(tokens.each_ref().map(|token| call(&mut process, 0, token)), [401, 0]);
    ask(&mut process, OPERATOR, &user(IDP, "alice"));
    assert_eq!(tokens.each_ref().map(|token| call(&mut process, 0, token)), [401, 401]);

    // A provider that is one tenant, and says so to us but not in its grants.
    let mut process = Process::new(&config(), 1);
    let token = token(&mut process, "alice", "1");
    ask(&mut process, OPERATOR, &in_tenant("one"));
    assert_eq!(call(&mut process, 0, &token), 401);
}

#[test]
fn a_revocation_overtakes_a_grant_that_waits_to_be_spent() {
    let mut config = config();
    config["authorization_server"]["replay_store"] = json!({ "cluster": "redis", "webdis": {} });
    let mut process = Process::new(&config, 1);
    token_with_store(&mut process, "1");
    process.request_with_body(0, 1, token_request(), grant(&grant_of("alice", "2", NOW)));
    assert_eq!(process.callouts.len(), 1, "it asks the fleet's store");

    process.request_with_body(
        0,
        2,
        post("/global-token-revocation", "application/json", &format!("Bearer {OPERATOR}")),
        json!({ "sub_id": user(IDP, "alice") }).to_string().into_bytes(),
    );
    assert_eq!(status(&process.verdict()), 204);
    process.now = NOW + 1;
    process.answer(&mut |_| answer(200, br#"{"SET":[true,"OK"]}"#));

    assert_eq!((status(&process.verdict()), reason(&process)), (400, "revoked"));
}

fn token_with_store(process: &mut Process, jti: &str) {
    process.request_with_body(0, 1, token_request(), grant(&grant_of("bob", jti, NOW)));
    process.answer(&mut |callout| match callout.cluster.as_str() {
        "redis" => answer(200, br#"{"SET":[true,"OK"]}"#),
        _ => answer(200, &jwks(&[1])),
    });
    assert_eq!(status(&process.verdict()), 200);
}

#[test]
fn a_revocation_overtakes_a_request_that_waits_for_the_backends_token() {
    let mut config = config();
    config["resources"][0]["accept"]["credential"] = json!({
        "client_credentials": {
            "issuer": "https://backend.example", "cluster": "backend",
            "token_endpoint": "https://backend.example/token",
            "client": { "id": "jagway", "secret": { "env": "AS_SECRET" } },
        },
    });
    let mut process = Process::new(&config, 1);
    let bearer = format!("Bearer {}", token(&mut process, "alice", "1"));
    let call = request("POST", "mcp.acme.example", "/warehouse", &[("authorization", &bearer)]);
    process.request(0, 1, call);
    assert_eq!(process.callouts.len(), 1, "it asks for the backend's token");

    process.request_with_body(
        0,
        2,
        post("/revoke", FORM, CLAUDE),
        form(&[("token", &bearer[7..])]),
    );
    assert_eq!(status(&process.verdict()), 200);
    let token = json!({ "access_token": "b", "token_type": "Bearer", "expires_in": 60 });
    process.answer(&mut |_| json_answer(200, &token));

    assert_eq!((status(&process.verdict()), reason(&process)), (401, "revoked"));
}

/// A store that may be out of order.
#[derive(Default)]
struct Brittle {
    memory: Memory,
    /// What the keys begin with that it does not answer for, while it is down.
    down: Cell<Option<&'static str>>,
}

impl Store for Brittle {
    fn get(&self, key: &str) -> Result<(Vec<u8>, u32), Unavailable> {
        let down = self.down.get().is_some_and(|start| key.starts_with(start));
        if down { Err(Unavailable) } else { self.memory.get(key) }
    }

    fn swap(&self, key: &str, value: &[u8], version: u32) -> Result<bool, Unavailable> {
        self.memory.swap(key, value, version)
    }
}

fn with_store(store: Rc<Brittle>) -> Process {
    let mut process = Process::new(&config(), 0);
    let mut worker = Worker::new(Rc::new(Site::new(parse(&config()), store)), 1);
    let place = worker.join(NOW).unwrap();
    worker.listens(place, place as u32, NOW);
    process.workers.push(worker);
    process
}

#[test]
fn while_nobody_knows_what_is_revoked_nothing_passes_and_nothing_is_spent() {
    // All that tells, and the lists alone.
    for down in ["jagway/revoked", "jagway/revoked-"] {
        let store = Rc::new(Brittle::default());
        let mut process = with_store(store.clone());
        let token = token(&mut process, "alice", "1");
        let assertion = grant_of("alice", "2", NOW);
        jagway_core::revocation::revoke_token(&*store, "another", NOW + 600, NOW).unwrap();
        store.down.set(Some(down));

        assert_eq!((call(&mut process, 0, &token), reason(&process)), (503, "revocation_store"));
        let redeemed = redeem(&mut process, &assertion);
        assert_eq!((status(&redeemed), reason(&process)), (503, "revocation_store"));
        let answers = [
            revoke(&mut process, CLAUDE, &token),
            ask(&mut process, OPERATOR, &user(IDP, "alice")),
            push(&mut process, &event(json!({}))),
        ];
        for verdict in &answers {
            assert_eq!((status(verdict), reason(&process)), (503, "revocation_store"));
            // RFC 7009 §2.2.1: "the client must assume the token still exists and may retry".
            assert!(header(verdict, "retry-after").is_some());
        }
        store.down.set(None);
        assert_eq!(call(&mut process, 0, &token), 0);
        assert_eq!(status(&redeem(&mut process, &assertion)), 200);
    }
}

#[test]
fn where_there_is_no_room_left_nobody_is_told_that_a_token_is_revoked() {
    let mut process = Process::new(&config(), 1);
    let token = token(&mut process, "alice", "1");
    let full: Vec<u8> =
        (0..80u64).flat_map(|n| [[7; 8], n.to_be_bytes(), [0; 8], [0xff; 8]]).flatten().collect();
    for bucket in 0..8192u32 {
        let of_issuer = format!("origin-{}", jagway_core::digest::short_digest(IDP));
        for table in ["token", &of_issuer] {
            let key = format!("jagway/revoked-{table}/{bucket:x}");
            assert!(process.store.swap(&key, &full, 0).unwrap());
        }
    }

    let answers = [
        revoke(&mut process, CLAUDE, &token),
        ask(&mut process, OPERATOR, &user(IDP, "alice")),
        push(&mut process, &event(json!({}))),
    ];

    for verdict in &answers {
        assert_eq!(status(verdict), 503, "{verdict:?}");
        assert!(header(verdict, "retry-after").is_some());
    }
    assert!(!process.counts.contains_key("done.revoked"), "{:?}", process.counts);
    assert_eq!(call(&mut process, 0, &token), 0, "it says the truth");
}

#[test]
fn a_configuration_that_nobody_could_revoke_with_is_refused_at_its_field() {
    use jagway_core::config::Config;
    let acme = "/identity_providers/acme/revocation";
    let server = "/authorization_server/revocation";
    let path = "identity_providers.acme.revocation";
    let operator = "authorization_server.revocation.operator_token_sha256";
    let cases = [
        (acme, json!({}), path),
        (acme, json!({ "global_token_revocation": false }), path),
        (
            acme,
            json!({ "global_token_revocation": "yes" }),
            &format!("{path}.global_token_revocation"),
        ),
        (acme, json!({ "security_events": true }), &format!("{path}.security_events")),
        (
            acme,
            json!({ "security_events": { "aud": "x" } }),
            &format!("{path}.security_events.aud"),
        ),
        (
            acme,
            json!({ "security_events": { "audience": "" } }),
            &format!("{path}.security_events.audience"),
        ),
        (acme, json!({ "events": {} }), &format!("{path}.events")),
        (server, json!({}), operator),
        (server, json!(true), "authorization_server.revocation"),
        (
            server,
            json!({ "operator_token_sha256": { "env": "NOT_SET" } }),
            &format!("{operator}.env"),
        ),
        (server, json!({ "operator_token_sha256": { "file": "x" } }), &format!("{operator}.file")),
        (server, json!({ "operator_token_sha256": 1 }), operator),
        (acme, json!([]), path),
        (
            server,
            json!({ "operator_token": "x" }),
            "authorization_server.revocation.operator_token",
        ),
        (server, json!({ "operator_token_sha256": "operator-token" }), operator),
        (server, json!({ "operator_token_sha256": hex(&sha256(b"")) }), operator),
    ];

    for (pointer, value, expected) in cases {
        let mut config = accept_config();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value.clone();
        let error = Config::parse(config.to_string().as_bytes(), &env).err();
        assert_eq!(error.map(|error| error.path).as_deref(), Some(expected), "{value}");
    }
    for name in ["revoke", "global-token-revocation", "security-events"] {
        let mut config = config();
        config["resources"][0]["resource"] = json!(format!("{AS}/{name}"));
        let error = Config::parse(config.to_string().as_bytes(), &env).err().unwrap();
        assert_eq!(error.path, "resources[0]", "{name}");
    }
}

#[test]
fn a_provider_that_speaks_for_no_client_revokes_nothing_and_the_operator_is_told() {
    let mut config = upgrade_config();
    config["identity_providers"]["acme"]["revocation"] = json!({ "global_token_revocation": true });

    let warnings = parse(&config).warnings;

    let expected = "identity_providers.acme.revocation: nothing here uses it";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
}
