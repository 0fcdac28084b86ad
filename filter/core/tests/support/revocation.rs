//! Whoever revokes, and how; for the tests of revocation.

use super::*;
use jagway_core::digest::{hex, sha256};
use jagway_core::http::Request;
use jagway_core::worker::Verdict;
use serde_json::{Value, json};

pub const GLOBEX: &str = "https://globex.idp.example";
pub const OPERATOR: &str = "operator-token";
/// other:other-secret
pub const OTHER: &str = "Basic b3RoZXI6b3RoZXItc2VjcmV0";
pub const CLAUDE: &str = "Basic Y2xhdWRlOnMzY3JldA==";
pub const FORM: &str = "application/x-www-form-urlencoded";
pub const SESSION_REVOKED: &str =
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// Acme may revoke in both ways, Globex in none, and there is an operator.
pub fn config() -> Value {
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

pub fn post(path: &str, media_type: &str, authorization: &str) -> Request {
    let fields = [("content-type", media_type), ("authorization", authorization)];
    let sent = if authorization.is_empty() { 1 } else { 2 };
    request("POST", "mcp.acme.example", path, &fields[..sent])
}

/// The answer of this worker; whoever it asks for keys has key 1.
pub fn send(process: &mut Process, worker: usize, request: Request, body: &str) -> Verdict {
    process.request_with_body(worker, 7, request, body.as_bytes().to_vec());
    process.answer(&mut |_| answer(200, &jwks(&[1])));
    process.verdict()
}

pub fn call(process: &mut Process, worker: usize, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let request = request("POST", "mcp.acme.example", "/warehouse", &[("authorization", &bearer)]);
    process.request(worker, 8, request);
    status(&process.verdict())
}

/// An ID-JAG of this user, issued `at` this second.
pub fn grant_of(user: &str, jti: &str, at: u64) -> String {
    let mut claims = id_jag_claims(jti);
    for (name, value) in [("sub", json!(user)), ("iat", json!(at)), ("exp", json!(at + 600))] {
        claims[name] = value;
    }
    key(1).sign("oauth-id-jag+jwt", &claims)
}

pub fn redeem(process: &mut Process, assertion: &str) -> Verdict {
    at_token_endpoint(process, token_request(), grant(assertion))
}

pub fn token(process: &mut Process, user: &str, jti: &str) -> String {
    let at = process.now;
    let verdict = redeem(process, &grant_of(user, jti, at));
    body(&verdict)["access_token"].as_str().unwrap_or_else(|| panic!("{verdict:?}")).to_owned()
}

pub fn revoke(process: &mut Process, authorization: &str, token: &str) -> Verdict {
    let body = form(&[("token", token)]);
    let body = String::from_utf8(body).unwrap();
    send(process, 0, post("/revoke", FORM, authorization), &body)
}

pub fn user(issuer: &str, user: &str) -> Value {
    json!({ "format": "iss_sub", "iss": issuer, "sub": user })
}

pub fn ask(process: &mut Process, bearer: &str, subject: &Value) -> Verdict {
    let body = json!({ "sub_id": subject }).to_string();
    let authorization = format!("Bearer {bearer}");
    send(process, 0, post("/global-token-revocation", "application/json", &authorization), &body)
}

/// The token with which Acme asks, changed: `null` removes a claim.
pub fn asking(change: Value) -> Value {
    let mut claims = json!({
        "iss": IDP, "sub": "jagway", "aud": format!("{AS}/global-token-revocation"), "jti": "ask",
        "iat": NOW, "exp": NOW + 300,
    });
    apply(&mut claims, change);
    claims
}

pub fn event(change: Value) -> Value {
    let mut claims = json!({
        "iss": IDP, "aud": AS, "iat": NOW, "jti": "event", "sub_id": user(IDP, "alice"),
        "events": { SESSION_REVOKED: { "event_timestamp": NOW } },
    });
    apply(&mut claims, change);
    claims
}

pub fn apply(claims: &mut Value, change: Value) {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
}

pub fn push(process: &mut Process, claims: &Value) -> Verdict {
    let token = key(1).sign("secevent+jwt", claims);
    send(process, 0, post("/security-events", "application/secevent+jwt", ""), &token)
}

pub fn refused(process: &Process, code: &str) -> bool {
    process.log.iter().any(|line| line.starts_with(&format!("refused [{code}] ")))
}

/// The reason of the last refusal.
pub fn reason(process: &Process) -> &str {
    let last = process.log.iter().rev().find_map(|line| line.strip_prefix("refused ["));
    last.and_then(|line| line.split(']').next()).unwrap_or_default()
}
