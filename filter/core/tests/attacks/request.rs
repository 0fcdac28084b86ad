//! Requests of the attack table: where they go, and how each is put together.

use super::{Scene, forge, names, over};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
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
}

/// Where `input` goes.
pub(super) fn place(input: &Value) -> (&'static str, &'static str, &'static str) {
    let to = input["to"].as_str().unwrap_or("token");
    *PLACES.iter().find(|(name, ..)| *name == to).unwrap_or_else(|| panic!("where is {to}?"))
}
