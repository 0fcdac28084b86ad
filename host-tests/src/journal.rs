//! What passed between the parties, in order, with each token described but never shown whole.

use std::fmt;
use std::sync::{Arc, Mutex};

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// An append-only list of hops that all parties write to.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<Hop>>>);

/// One message from one party to another.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Who sent it.
    pub from: String,
    /// Who got it.
    pub to: String,
    /// What was asked or answered.
    pub what: String,
    /// The token or credential that mattered in it.
    pub token: Option<Token>,
}

/// The kinds of token and credential that travel in this world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What the IdP gives the client at login.
    IdToken,
    /// What the IdP gives the client to come back with.
    RefreshToken,
    /// The assertion for the Resource AS.
    IdJag,
    /// What opens the MCP server.
    AccessToken,
    /// What a legacy server or client knows.
    ApiKey,
    /// How a client proves itself at a token endpoint.
    ClientSecret,
}

/// A token as the journal keeps it: its kind, its first characters, and for a JWT its decoded content.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// The first characters only.
    pub start: String,
    /// The JOSE header, for a JWT.
    pub header: Option<Value>,
    /// The claims, for a JWT.
    pub claims: Option<Value>,
}

impl Journal {
    /// Appends a hop.
    pub fn record(&self, from: &str, to: &str, what: impl Into<String>, token: Option<Token>) {
        self.0.lock().unwrap().push(Hop {
            from: from.into(),
            to: to.into(),
            what: what.into(),
            token,
        });
    }

    /// Everything so far.
    pub fn hops(&self) -> Vec<Hop> {
        self.since(0)
    }

    /// Everything after the first `count` hops.
    pub fn since(&self, count: usize) -> Vec<Hop> {
        self.0.lock().unwrap().iter().skip(count).cloned().collect()
    }

    /// How many hops there are; to be given to [`Journal::since`] later.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Token {
    /// Describes a token without keeping it.
    pub fn new(kind: Kind, text: &str) -> Self {
        let mut parts = text.split('.').map(|part| {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()
        });
        let (header, claims) = (parts.next().flatten(), parts.next().flatten());
        Self { kind, start: text.chars().take(4).collect(), header, claims }
    }

    /// The parts of header and claims that tell the story, leaving out identifiers and times.
    pub fn key_claims(&self) -> Map<String, Value> {
        const TOLD: [&str; 9] =
            ["typ", "alg", "kid", "iss", "sub", "aud", "client_id", "resource", "scope"];
        let parts = [&self.header, &self.claims].into_iter().flatten();
        let members = parts.filter_map(Value::as_object).flatten();
        members
            .filter(|(name, _)| TOLD.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::IdToken => "ID token",
            Kind::RefreshToken => "refresh token",
            Kind::IdJag => "ID-JAG",
            Kind::AccessToken => "access token",
            Kind::ApiKey => "API key",
            Kind::ClientSecret => "client secret",
        })
    }
}

/// Who sent a request, as far as its headers tell: Envoy leaves its marks on requests and callouts alike,
/// the world's own clients give their name as user agent.
pub fn sender(headers: &HeaderMap) -> String {
    let marked =
        headers.keys().any(|name| name.as_str().starts_with("x-envoy-") || name == "x-request-id");
    if marked {
        return "Jagway".into();
    }
    let agent = headers.get("user-agent").and_then(|value| value.to_str().ok());
    agent.unwrap_or("somebody").into()
}
