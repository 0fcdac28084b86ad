//! The attack table: hostile requests as data, and how each is put together. One table for the
//! core and for the filter in Envoy, so that both are asked the same.
//!
//! An input says what differs from a sound request:
//!
//! * where: `to` (a place of `request.rs` instead of the token endpoint), `method`, `path`, `host`, `headers` (more),
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
//! What must come of it: `status`, `error`, `reason` (in the log) or `forwarded`; `rpc` (the
//! JSON-RPC code), `says` and `silent` (header fields), `answers` (members of the body), `callouts`.
#![allow(dead_code, reason = "each runner uses its part")]

mod forge;
mod request;
mod world;

pub use request::Sent;
use serde_json::{Map, Value, json};
pub use world::{Document, furnish, surroundings};

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

impl Scene {
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
