//! The attack table: hostile requests as data, and how each is put together. One table for the
//! core and for the filter in Envoy, so that both are asked the same.
//!
//! An input says what differs from a sound request:
//!
//! * where: `to` (`mcp` instead of the token endpoint), `method`, `path`, `headers` (more),
//!   `without_headers`, `many_headers`, `basic` (client and secret), `authorization` (the values);
//! * the form: `form` (all of it), `more`, `without_form`, `tail` (as text), `body` (as text), `parameters`;
//!   `chunk` and `trailers` count where there is HTTP;
//! * tokens: `assertion`, `client_assertion`, `bearer`, each a text or `kind`, `key`, `header`, `claims`,
//!   `without_header`, `without`, `header_text`, `payload_text`, `header_hex`, `payload_hex`, `members`,
//!   `signature` and `compact` (`$H.$P.$S`; `$T` spells the signature otherwise);
//! * the issuer: `jwks` (`status`, `set`, `text`, `location`, `cache`), `metadata`;
//! * the course: `steps`, and in each `later` (seconds), `worker`, `restart`; `together`, `repeat`,
//!   `unfinished` (seconds without a body).
//!
//! What must come of it: `status`, `error`, `reason` (in the log) or `forwarded`; `says` and `silent`
//! (header fields), `answers` (members of the body), `callouts`.
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
pub const TABLE: [(&str, &str); 11] = [
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
];

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
        let to_token_endpoint = input["to"] != "mcp";
        let (assertion, bearer) = match to_token_endpoint {
            true => (self.token("id_jag", &input["assertion"], input), String::new()),
            false => (String::new(), self.token("access_token", &input["bearer"], input)),
        };
        let more = [("ASSERTION", assertion.as_str()), ("BEARER", bearer.as_str())];
        let text = |value: &Value| self.expand(value.as_str().expect("text"), &more);
        let pairs = |name: &str| -> Vec<(String, String)> {
            let pairs = input[name].as_array().into_iter().flatten();
            pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
        };

        let mut headers = Vec::new();
        if to_token_endpoint {
            headers.push(("content-type".into(), "application/x-www-form-urlencoded".into()));
        }
        match (&input["authorization"], &input["basic"]) {
            (Value::Array(values), _) => {
                headers.extend(values.iter().map(|value| ("authorization".into(), text(value))));
            }
            (_, basic) if to_token_endpoint && input["client_assertion"].is_null() => {
                let basic = basic.as_str().unwrap_or("claude:$SECRET");
                let basic = STANDARD.encode(self.expand(basic, &more));
                headers.push(("authorization".into(), format!("Basic {basic}")));
            }
            _ if !input["bearer"].is_null() => {
                headers.push(("authorization".into(), format!("Bearer {bearer}")));
            }
            _ => {}
        }
        let without = names(&input["without_headers"]);
        headers.retain(|(name, _)| !without.contains(name));
        headers.extend(pairs("headers"));
        for index in 0..input["many_headers"].as_u64().unwrap_or(0) {
            headers.push((format!("x-h{index}"), "1".into()));
        }

        let path = if to_token_endpoint { "/token" } else { "/mcp" };
        let or = |name: &str, usual: &str| match &input[name] {
            Value::Null => usual.to_owned(),
            value => text(value),
        };
        let body = match to_token_endpoint {
            true => self.form(input, assertion.clone(), &pairs, &text),
            false => or("body", ""),
        };
        Sent {
            method: or("method", "POST"),
            path: or("path", path),
            headers: headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect(),
            body: body.into_bytes(),
            to_token_endpoint,
        }
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
        if *spec == "no answer" {
            return None;
        }
        let usual = json!({ "keys": [{ "key_of": "idp" }] });
        let body = match (&spec["text"], &spec["set"]) {
            (Value::String(text), _) => text.clone(),
            (_, Value::Null) => self.value(&usual).to_string(),
            (_, set) => self.value(set).to_string(),
        };
        let field = |name, value: &Value| Some((name, self.expand(value.as_str()?, &[])));
        let fields = [field("location", &spec["location"]), field("cache-control", &spec["cache"])];
        let status = spec["status"].as_u64().unwrap_or(200) as u16;
        Some(Document { status, fields: fields.into_iter().flatten().collect(), body })
    }

    /// `value` with everything in it that stands for something: names in texts, `$NOW` with a
    /// difference for a number, `{"key_of": ...}` for a public key with changes.
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
        let own: Map<_, _> = own.map(|(name, value)| (name.clone(), self.value(value))).collect();
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
    let error = answer["error"].as_str().unwrap_or_default();
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
