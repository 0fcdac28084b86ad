//! Everybody but the core under attack: the configuration that names them, their keys, their answers.

use crate::cases::{self, Document, Scene};
use crate::support::*;
use jagway_core::http::{Answer, CallFailed, Callout, Headers};
use serde_json::{Value, json};
use std::sync::LazyLock;

const BETA: &str = "https://beta.example";
const KEYS: &str = "https://keys.example";

/// Two issuers, two resources, clients with a secret and one with a key.
pub fn config(step: &Value, case: &str) -> Value {
    let mut config = accept_config();
    if !step["metadata"].is_null() {
        let acme = config["identity_providers"]["acme"].as_object_mut().unwrap();
        acme.remove("jwks_uri");
    }
    config["identity_providers"]["beta"] =
        json!({ "issuer": BETA, "cluster": "beta", "jwks_uri": format!("{BETA}/keys") });
    let server = &mut config["authorization_server"];
    let before = json!({ "key": { "env": "SIGNING_KEY" }, "kid": "own-0" });
    server["signing_keys"].as_array_mut().unwrap().push(before);
    server["clients"]["claude"]["identity_providers"] = json!(["acme", "beta"]);
    let scene = scene(NOW, case);
    let robot = scene.value(&json!({ "key_of": "robot" }));
    server["clients"]["robot"] = json!({
        "private_key_jwt": { "jwks": { "keys": [robot] } }, "identity_providers": ["acme", "beta"],
    });
    config["resources"][0]["resource"] = format!("{AS}/mcp").into();
    let mut billing = config["resources"][0].clone();
    billing["resource"] = format!("{AS}/billing").into();
    config["resources"].as_array_mut().unwrap().push(billing);
    cases::furnish(&mut config, &scene, &step["config"]);
    config
}

pub fn scene(now: u64, jti: &str) -> Scene {
    // The same in every case, and slow to make.
    static ALL: LazyLock<Vec<(&str, String, String)>> = LazyLock::new(|| {
        let keys = [("idp", 1, "key-1"), ("intruder", 2, "new-1"), ("beta", 3, "beta-1")];
        let more = [("robot", 4, "robot-1"), ("prover", 5, "prover-1"), ("own", 9, "own-1")];
        let keys = keys.into_iter().chain(more);
        keys.map(|(name, seed, kid)| (name, kid.to_owned(), pem(seed))).collect()
    });
    let names = [
        ("IDP", IDP),
        ("BETA", BETA),
        ("AS", AS),
        ("MCP", "https://mcp.acme.example/mcp"),
        ("BILLING", "https://mcp.acme.example/billing"),
        ("TRAP", "https://trap.example"),
        ("SECRET", CLIENT_SECRET),
        ("BASIC", "Y2xhdWRlOnMzY3JldA=="),
        ("KID", "key-1"),
        ("JTI", jti),
    ];
    let names = names.map(|(name, value)| (name, value.to_owned())).into_iter();
    let names = names.chain(cases::surroundings(AS, KEYS, jti)).collect();
    Scene { now, names, keys: ALL.clone() }
}

/// Everybody answers for themselves; nobody else is ever asked.
pub fn answer_to(
    callout: &Callout,
    scene: &Scene,
    keys: &Value,
    step: &Value,
) -> Result<Answer, CallFailed> {
    let client = scene.value(&json!("$CLIENT"));
    let client = client.as_str().unwrap().strip_prefix(KEYS).unwrap();
    let set = |name: &str| json!({ "keys": [{ "key_of": name }] });
    let Callout { method, cluster, authority, path, .. } = callout;
    let told = match (*method, cluster.as_str(), authority.as_str(), path.as_str()) {
        ("GET", "idp", "acme.idp.example", "/keys" | "/other") => scene.key_set(keys),
        ("GET", "idp", "acme.idp.example", path) if path.starts_with("/.well-known/") => {
            scene.document(&Value::Null, &step["metadata"])
        }
        ("GET", "beta", "beta.example", "/keys")
        | ("GET", "keys", "keys.example", "/tenants/keys" | "/saml/keys" | "/logout/keys") => {
            scene.document(&Value::Null, &set("beta"))
        }
        ("GET", "keys", "keys.example", path) if path == client => {
            scene.client_document(&step["document"])
        }
        ("GET", "keys", "keys.example", path) if path == format!("{client}/keys") => {
            scene.document(&step["keys"], &set("robot"))
        }
        ("POST", "keys", "keys.example", "/backend/token") => {
            let usual = json!({
                "access_token": "backend-token", "token_type": "Bearer", "expires_in": 300,
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            });
            scene.document(&step["backend"], &usual)
        }
        ("POST", "store", "webdis", "/") => {
            scene.document(&step["store"], &json!({ "SET": [true, "OK"] }))
        }
        other => panic!("{other:?} was asked"),
    };
    let Document { status, fields, body } = told.ok_or(CallFailed::NoAnswer)?;
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes()));
    Ok(Answer { status, headers: Headers::new(fields.collect()), body: body.into_bytes() })
}
