//! The attack table: hostile requests as data, and how each is put together. One table for the
//! core and for the filter in Envoy, so that both are asked the same.
//!
//! An input says what differs from a sound request:
//!
//! * where: `to` (one of [`PLACES`] instead of the token endpoint), `method`, `path`, `host`, `headers` (more),
//!   `without_headers`, `many_headers`, `basic` (client and secret), `authorization` (the values), `scheme`;
//! * the body: `form` (all of it), `more`, `without_form`, `tail` (as text), `parameters`; `message` (members
//!   of a JSON body); `body` (as text), `body_hex`; `chunk` and `trailers` count where there is HTTP;
//! * tokens: `assertion`, `client_assertion`, `bearer`, `event` and the list `dpop`, each a text or `kind`, `key`,
//!   `header`, `claims`, `without_header`, `without`, `header_text`, `payload_text`, `header_hex`, `payload_hex`,
//!   `members`, `signature` and `compact` (`$H.$P.$S`; `$T` spells the signature otherwise); `client` and `by`
//!   (whose name they have for a client and for the issuer of the ID-JAG);
//! * the others: `jwks` of the issuer and `document` and `keys` of the client `$CLIENT` (`status`, `set`, `text`,
//!   `location`, `cache`), `metadata`; `backend` and `store`, answers of the backend's authorization server
//!   and of the fleet's store;
//! * the course: `steps`, and in each `later` (seconds), `worker`, `restart` or `beside` (another process or
//!   worker, with what `config` adds); `together`, `repeat`, `unfinished` (seconds without a body), `gone` (before
//!   there is an answer), `twice` (every answer to a callout). `$SESSION` is what the step before was given.
//!
//! What must come of it: `status`, `error`, `reason` (in the log) or `forwarded`, and then `sets`; `rpc` (the
//! JSON-RPC code), `says` and `silent` (header fields), `answers` (members of the body), `callouts`.
#![allow(dead_code, reason = "each runner uses its part")]

mod forge;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Stands in hostile values; neither an answer nor a log may repeat it.
pub const MARK: &str = "XMARKX";

/// The groups, in the order of the table.
pub const TABLE: [(&str, &str); 17] = [
    ("jwt", include_str!("jwt.json")),
    ("header", include_str!("header.json")),
    ("signature", include_str!("signature.json")),
    ("claims", include_str!("claims.json")),
    ("jwks", include_str!("jwks.json")),
    ("client", include_str!("client.json")),
    ("http", include_str!("http.json")),
    ("replay", include_str!("replay.json")),
    ("token", include_str!("token.json")),
    ("routing", include_str!("routing.json")),
    ("fields", include_str!("fields.json")),
    ("possession", include_str!("possession.json")),
    ("mcp", include_str!("mcp.json")),
    ("session", include_str!("session.json")),
    ("revocation", include_str!("revocation.json")),
    ("callouts", include_str!("callouts.json")),
    ("isolation", include_str!("isolation.json")),
];

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Where requests go: name, path, media type. What is not one of ours is a resource named in `world.json`.
const PLACES: [(&str, &str, &str); 13] = [
    ("token", "/token", FORM),
    ("revoke", "/revoke", FORM),
    ("logout", "/global-token-revocation", JSON),
    ("events", "/security-events", "application/secevent+jwt"),
    ("mcp", "/mcp", ""),
    ("tools", "/tools", JSON),
    ("strict", "/strict", JSON),
    ("modern", "/modern", JSON),
    ("vault", "/vault", ""),
    ("shelves", "/shelves", ""),
    ("relay", "/relay", ""),
    ("north", "/mcp", ""),
    ("south", "/mcp", ""),
];

/// Adds to a runner's configuration what the table takes for granted in every world.
pub fn furnish(config: &mut Value, scene: &Scene) {
    let world = serde_json::from_str(include_str!("world.json")).expect("JSON");
    add(config, scene.value(&world));
}

/// Adds `more` to `whole`: members to objects, items to lists; anything else takes its place.
pub fn add(whole: &mut Value, more: Value) {
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

/// Whether it is the filter that refuses what `step` says, rather than Envoy before it.
pub fn refused_by_us(step: &Value) -> bool {
    !step["error"].as_str().unwrap_or_default().is_empty() || !step["rpc"].is_null()
}

/// One case: a few requests, each with what must come of it.
pub struct Case {
    /// Its number in the table, and which of the inputs under that number it is.
    pub name: String,
    pub steps: Vec<Value>,
}

/// The entries of a group, as they stand in the table.
pub fn entries(group: &str) -> Vec<Value> {
    let (_, text) = TABLE.iter().find(|(name, _)| *name == group).expect("a group of the table");
    let table: Value = serde_json::from_str(text).unwrap_or_else(|why| panic!("{group}: {why}"));
    table["attacks"].as_array().expect("a list of attacks").clone()
}

/// The cases of a group for `runner` (`core` or `envoy`). An input has what it does not say from its
/// entry, and that from its group; a member named after the runner says what differs there, or
/// `false` if the input is not for it.
pub fn cases(group: &str, runner: &str) -> Vec<Case> {
    let (_, text) = TABLE.iter().find(|(name, _)| *name == group).expect("a group of the table");
    let table: Value = serde_json::from_str(text).unwrap_or_else(|why| panic!("{group}: {why}"));
    let mut cases = Vec::new();
    for entry in entries(group) {
        let id = entry["id"].as_str().expect("an id");
        let nothing = Vec::new();
        let inputs = entry["inputs"].as_array().unwrap_or(&nothing);
        for (index, input) in inputs.iter().enumerate() {
            let whole = over(&over(&table["default"], &entry), input);
            if whole[runner] == false {
                continue;
            }
            let steps = match whole["steps"].as_array() {
                Some(steps) => steps.iter().map(|step| over(&whole, step)).collect(),
                None => vec![whole.clone()],
            };
            let steps = steps
                .iter()
                .enumerate()
                .map(|(number, step)| over(&over(step, &step[runner]), &json!({ "step": number })));
            let steps = steps.collect();
            cases.push(Case { name: format!("{id}/{}", index + 1), steps });
        }
    }
    assert!(!cases.is_empty(), "{group}");
    cases
}

fn over(base: &Value, change: &Value) -> Value {
    let mut whole = base.as_object().cloned().unwrap_or_default();
    whole.extend(change.as_object().cloned().unwrap_or_default());
    Value::Object(whole)
}

/// What a request is put together from.
#[derive(Clone)]
pub struct Scene {
    /// Seconds since the epoch.
    pub now: u64,
    /// What `$NAME` stands for.
    pub names: Vec<(&'static str, String)>,
    /// P-256 keys: name, `kid`, PEM.
    pub keys: Vec<(&'static str, String, String)>,
}

/// A request, ready to be sent.
pub struct Sent {
    pub method: String,
    /// If it is not the usual one.
    pub host: Option<String>,
    pub path: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether it is for the token endpoint.
    pub to_token_endpoint: bool,
}

/// An answer to a request for a document.
pub struct Document {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub body: String,
}

impl Scene {
    /// The request that `input` describes: a sound one but for what the input says.
    pub fn request(&self, input: &Value) -> Sent {
        let (to, usual_path, media_type) = place(input);
        let takes_form = media_type == FORM;
        let assertion = match to {
            "token" => self.token("id_jag", &input["assertion"], input),
            _ => String::new(),
        };
        let kind = if to == "logout" { "revocation_token" } else { "access_token" };
        let bearer = match to == "token" && input["bearer"].is_null() {
            true => String::new(),
            false => self.token(kind, &input["bearer"], input),
        };
        let more = [("ASSERTION", assertion.as_str()), ("BEARER", bearer.as_str())];
        let text = |value: &Value| self.expand(value.as_str().expect("text"), &more);
        let pairs = |name: &str| -> Vec<(String, String)> {
            let pairs = input[name].as_array().into_iter().flatten();
            pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
        };

        let mut headers = Vec::new();
        if !media_type.is_empty() {
            headers.push(("content-type".to_owned(), media_type.to_owned()));
        }
        match (&input["authorization"], &input["basic"]) {
            (Value::Array(values), _) => {
                headers.extend(values.iter().map(|value| ("authorization".into(), text(value))));
            }
            (_, basic) if takes_form && input["client_assertion"].is_null() => {
                let basic = basic.as_str().unwrap_or("claude:$SECRET");
                let basic = STANDARD.encode(self.expand(basic, &more));
                headers.push(("authorization".into(), format!("Basic {basic}")));
            }
            _ if !takes_form && !input["bearer"].is_null() => {
                let scheme = input["scheme"].as_str().unwrap_or("Bearer");
                headers.push(("authorization".into(), format!("{scheme} {bearer}")));
            }
            _ => {}
        }
        let proofs = input["dpop"].as_array().into_iter().flatten();
        let proofs = proofs.map(|proof| ("dpop".to_owned(), self.proof(proof, &bearer, input)));
        headers.extend(proofs);
        let without = names(&input["without_headers"]);
        headers.retain(|(name, _)| !without.contains(name));
        headers.extend(pairs("headers"));
        for index in 0..input["many_headers"].as_u64().unwrap_or(0) {
            headers.push((format!("x-h{index}"), "1".into()));
        }

        let or = |name: &str, usual: &str| match &input[name] {
            Value::Null => usual.to_owned(),
            value => text(value),
        };
        let body = match (&input["body_hex"], takes_form) {
            (Value::String(hex), _) => forge::unhex(hex),
            (_, true) => self.form(input, assertion.clone(), &pairs, &text).into_bytes(),
            _ => or("body", &self.message(input)).into_bytes(),
        };
        let host = match to {
            "north" | "south" => Some(format!("{to}.example")),
            _ => None,
        };
        Sent {
            method: or("method", "POST"),
            host: input["host"].as_str().map(|host| self.expand(host, &[])).or(host),
            path: or("path", usual_path),
            headers: headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect(),
            body,
            to_token_endpoint: to == "token",
        }
    }

    /// The usual body of what takes no form, with the members that `input` has for it.
    fn message(&self, input: &Value) -> String {
        let usual = match place(input) {
            ("events", ..) => return self.token("event", &input["event"], input),
            ("logout", ..) => {
                json!({ "sub_id": { "format": "iss_sub", "iss": "$LOGOUT", "sub": "$JTI" } })
            }
            (_, _, JSON) => json!({
                "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": { "name": "stock_count" },
            }),
            _ => return String::new(),
        };
        self.value(&over(&usual, &input["message"])).to_string()
    }

    fn form(
        &self,
        input: &Value,
        assertion: String,
        pairs: &dyn Fn(&str) -> Vec<(String, String)>,
        text: &dyn Fn(&Value) -> String,
    ) -> String {
        if !input["body"].is_null() {
            return text(&input["body"]);
        }
        let mut fields = match input["form"].is_null() {
            true if place(input).0 == "revoke" => {
                vec![("token".to_owned(), text(&json!("$BEARER")))]
            }
            true => vec![
                ("grant_type".to_owned(), GRANT_JWT_BEARER.to_owned()),
                ("assertion".to_owned(), assertion),
            ],
            false => pairs("form"),
        };
        if !input["client_assertion"].is_null() {
            let token = self.token("client_assertion", &input["client_assertion"], input);
            fields.push(("client_assertion_type".into(), ASSERTION_TYPE.into()));
            fields.push(("client_assertion".into(), token));
        }
        let without = names(&input["without_form"]);
        fields.retain(|(name, _)| !without.contains(name));
        fields.extend(pairs("more"));
        for index in 0..input["parameters"].as_u64().unwrap_or(0) {
            fields.push((format!("p{index}"), "1".into()));
        }
        let mut form = form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(fields).finish();
        match input["tail"].is_null() {
            true => form,
            false => form + &text(&input["tail"]),
        }
    }

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
        let media_type = if spec["type"].is_null() { &json!(JSON) } else { &spec["type"] };
        let fields = [
            field("location", &spec["location"]),
            field("cache-control", &spec["cache"]),
            field("content-type", media_type),
        ];
        let status = spec["status"].as_u64().unwrap_or(200) as u16;
        Some(Document { status, fields: fields.into_iter().flatten().collect(), body })
    }

    /// `value` with everything in it that stands for something: names in texts, `$NOW` with a
    /// difference for a number, `{"key_of": ...}` for a public key with changes, `{"thumbprint_of":
    /// ...}` for its thumbprint.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                match text.strip_prefix("$NOW").map(|rest| rest.parse::<i64>()) {
                    Some(Ok(difference)) => json!(self.now as i64 + difference),
                    _ if text == "$NOW" => json!(self.now),
                    _ => json!(self.expand(text, &[])),
                }
            }
            Value::Array(items) => items.iter().flat_map(|item| self.copies(item)).collect(),
            Value::Object(members) if members.contains_key("thumbprint_of") => {
                self.thumbprint(members["thumbprint_of"].as_str().expect("a key")).into()
            }
            Value::Object(members) => self.object(members),
            other => other.clone(),
        }
    }

    fn copies(&self, item: &Value) -> Vec<Value> {
        let count = item["copies"].as_u64().unwrap_or(1) as usize;
        vec![self.value(item); count]
    }

    fn object(&self, members: &Map<String, Value>) -> Value {
        let base = members.get("key_of").map(|name| self.jwk(name.as_str().unwrap()));
        let own = members.iter().filter(|(name, _)| !["key_of", "copies"].contains(&name.as_str()));
        let own: Map<_, _> =
            own.map(|(name, value)| (self.expand(name, &[]), self.value(value))).collect();
        over(&base.unwrap_or(json!({})), &Value::Object(own))
    }

    /// `text` with `$NAME` replaced, and `$(x*3)` by `xxx`.
    fn expand(&self, text: &str, more: &[(&str, &str)]) -> String {
        let mut parts = text.split('$');
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            if let Some((inside, rest)) =
                part.strip_prefix('(').and_then(|part| part.split_once(')'))
            {
                let (piece, count) = inside.rsplit_once('*').expect("$(text*count)");
                whole.push_str(&piece.repeat(count.parse().expect("a count")));
                whole.push_str(rest);
                continue;
            }
            let end = part.find(|letter: char| !letter.is_ascii_uppercase()).unwrap_or(part.len());
            let (name, rest) = part.split_at(end);
            let now = self.now.to_string();
            let own = self.names.iter().map(|(name, value)| (*name, value.as_str()));
            let mut all = more.iter().copied().chain(own).chain([("NOW", now.as_str())]);
            let found = all.find(|(other, _)| *other == name);
            whole.push_str(found.unwrap_or_else(|| panic!("what is ${name}?")).1);
            whole.push_str(rest);
        }
        whole
    }
}

fn place(input: &Value) -> (&'static str, &'static str, &'static str) {
    let to = input["to"].as_str().unwrap_or("token");
    *PLACES.iter().find(|(name, ..)| *name == to).unwrap_or_else(|| panic!("where is {to}?"))
}

/// Fails unless `status`, header values and `body` are what `step` says they must be.
pub fn assert_answer(
    name: &str,
    step: &Value,
    to_token_endpoint: bool,
    status: u16,
    field: &dyn Fn(&str) -> Vec<String>,
    body: &str,
) {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    // RFC 8935 has it shorter.
    let error = answer["error"].as_str().or(answer["err"].as_str()).unwrap_or_default();
    let told = (status, error);
    let expected_error = step["error"].as_str().unwrap_or_default();
    assert_eq!(told, (step["status"].as_u64().unwrap() as u16, expected_error), "{name}: {body}");
    assert!(!body.contains(MARK), "{name}: {body}");
    let by_us = status < 400 || !error.is_empty();
    if to_token_endpoint && by_us {
        assert_eq!(field("cache-control"), ["no-store"], "{name}");
        assert_eq!(field("pragma"), ["no-cache"], "{name}");
        assert_eq!(field("content-type"), ["application/json"], "{name}");
        assert_eq!(field("www-authenticate").is_empty(), status != 401, "{name}");
        assert!(answer.get("refresh_token").is_none(), "{name}");
    }
    if to_token_endpoint && status >= 400 && by_us {
        let members: Vec<&String> = answer.as_object().unwrap().keys().collect();
        assert_eq!(members, ["error", "error_description"], "{name}");
    }
    assert_eq!(answer["error"]["code"].as_i64(), step["rpc"].as_i64(), "{name}: {body}");
    for pair in step["says"].as_array().into_iter().flatten() {
        let (name_of, part) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let values = field(name_of);
        assert!(values.len() == 1 && values[0].contains(part), "{name}: {name_of}: {values:?}");
    }
    for silent in names(&step["silent"]) {
        assert!(field(&silent).is_empty(), "{name}: {silent}");
    }
    for (member, value) in step["answers"].as_object().into_iter().flatten() {
        assert_eq!(&answer[member], value, "{name}: {member}");
    }
}

fn names(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|name| name.as_str().expect("a name").to_owned()).collect()
}
