//! What the attack table takes for granted, and what others answer.

use super::{Scene, names, over};
use serde_json::{Value, json};

/// Adds to a runner's configuration what the table takes for granted in every world, and `more`.
pub fn furnish(config: &mut Value, scene: &Scene, more: &Value) {
    let world = serde_json::from_str(include_str!("world.json")).expect("JSON");
    for part in [&world, more].into_iter().filter(|part| !part.is_null()) {
        add(config, scene.value(part));
    }
}

/// Adds `more` to `whole`: members to objects, items to lists; anything else takes its place.
fn add(whole: &mut Value, more: Value) {
    match (whole, more) {
        (Value::Object(whole), Value::Object(more)) => {
            for (name, value) in more {
                add(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(whole), Value::Array(more)) => whole.extend(more),
        (whole, more) => *whole = more,
    }
}

/// What names stand for that are alike in every world: resources at the origin `own`, and what is
/// below the origin `keys`, of which `case` has its own client.
pub fn surroundings(own: &str, keys: &str, case: &str) -> Vec<(&'static str, String)> {
    let (scheme, host) = keys.split_once("://").expect("an origin");
    vec![
        ("TOOLS", format!("{own}/tools")),
        ("STRICT", format!("{own}/strict")),
        ("MODERN", format!("{own}/modern")),
        ("VAULT", format!("{own}/vault")),
        ("SHELVES", format!("{own}/shelves")),
        ("RELAY", format!("{own}/relay")),
        ("NORTH", format!("{scheme}://north.example/mcp")),
        ("SOUTH", format!("{scheme}://south.example/mcp")),
        ("TENANTS", format!("{keys}/tenants")),
        ("SAML", format!("{keys}/saml")),
        ("LOGOUT", format!("{keys}/logout")),
        ("BACKEND", format!("{keys}/backend")),
        ("CLIENT", format!("{keys}/{case}")),
        ("HOST", host.to_owned()),
    ]
}

/// An answer to a request for a document.
pub struct Document {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub body: String,
}

impl Scene {
    /// What an issuer answers who is asked for its keys; `None` if nothing.
    pub fn key_set(&self, spec: &Value) -> Option<Document> {
        self.document(spec, &json!({ "keys": [{ "key_of": "idp" }] }))
    }

    /// What the host of the client `$CLIENT` answers: its document, with what `spec` has in `changes`.
    pub fn client_document(&self, spec: &Value) -> Option<Document> {
        let usual = json!({
            "client_id": "$CLIENT", "client_name": "App", "redirect_uris": [],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": { "keys": [{ "key_of": "robot" }] },
        });
        let mut usual = over(&usual, &spec["changes"]);
        let without = names(&spec["without"]);
        usual.as_object_mut().expect("an object").retain(|name, _| !without.contains(name));
        self.document(spec, &usual)
    }

    /// An answer as `spec` says, with `usual` for a body.
    pub fn document(&self, spec: &Value, usual: &Value) -> Option<Document> {
        if *spec == "no answer" {
            return None;
        }
        let body = match (&spec["text"], &spec["set"]) {
            (Value::String(text), _) => self.expand(text, &[]),
            (_, Value::Null) => self.value(usual).to_string(),
            (_, set) => self.value(set).to_string(),
        };
        let field = |name, value: &Value| Some((name, self.expand(value.as_str()?, &[])));
        let media_type =
            if spec["type"].is_null() { &json!("application/json") } else { &spec["type"] };
        let fields = [
            field("location", &spec["location"]),
            field("cache-control", &spec["cache"]),
            field("content-type", media_type),
        ];
        let status = spec["status"].as_u64().unwrap_or(200) as u16;
        Some(Document { status, fields: fields.into_iter().flatten().collect(), body })
    }
}
