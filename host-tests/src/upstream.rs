//! An upstream server that takes anything, keeps it byte for byte, and answers as it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;

use crate::journal::{Kind, Token};
use crate::server::{Place, Server};

/// The running server.
pub struct Upstream {
    /// Stop it here to see it go down.
    pub server: Server,
    state: Arc<Mutex<Inner>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Every header.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

struct Inner {
    received: Vec<Received>,
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    documents: HashMap<String, String>,
    challenge: Option<String>,
}

impl Received {
    /// The only value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let only = values.next().filter(|_| values.next().is_none());
        only.and_then(|value| value.to_str().ok())
    }

    /// The bearer token.
    pub fn bearer(&self) -> &str {
        self.header("authorization").and_then(|text| text.strip_prefix("Bearer ")).unwrap_or("")
    }

    /// A claim of the bearer token, not verified.
    pub fn claim(&self, name: &str) -> Value {
        let token = Token::new(Kind::AccessToken, self.bearer());
        token.claims.map(|claims| claims[name].clone()).unwrap_or_default()
    }
}

impl Upstream {
    /// Starts it; it answers 200, and names the user of the bearer token that it is shown, if there is one.
    pub fn start() -> Self {
        Self::start_at(Place::find())
    }

    /// As [`Upstream::start`], at the place found before.
    pub fn start_at(place: Place) -> Self {
        let (received, headers, documents) = (vec![], vec![], HashMap::new());
        let inner = Inner { received, status: 200, headers, documents, challenge: None };
        let state = Arc::new(Mutex::new(inner));
        let router = Router::new().fallback(take).with_state(state.clone());
        Self { server: Server::start(place, router), state }
    }

    /// From now on it answers 200 with this JSON to whatever is asked at this path.
    pub fn publish(&self, path: &str, document: &Value) {
        self.state.lock().unwrap().documents.insert(path.into(), document.to_string());
    }

    /// From now on it answers 401 with this challenge to whoever shows no credential.
    pub fn challenge(&self, challenge: &str) {
        self.state.lock().unwrap().challenge = Some(challenge.into());
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// How it answers from now on.
    pub fn answer(&self, status: u16, headers: &[(&'static str, &'static str)]) {
        let mut inner = self.state.lock().unwrap();
        (inner.status, inner.headers) = (status, headers.to_vec());
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().received.len()
    }

    /// The latest request.
    pub fn last(&self) -> Received {
        self.received().pop().expect("a request has arrived")
    }
}

async fn take(State(state): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut inner = state.lock().unwrap();
    let received = Received {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body,
    };
    inner.received.push(received.clone());
    if let Some(document) = inner.documents.get(parts.uri.path()) {
        let json = Response::builder().header("content-type", "application/json");
        return json.body(document.clone().into()).unwrap();
    }
    let challenge = inner.challenge.as_ref().filter(|_| received.header("authorization").is_none());
    if let Some(challenge) = challenge {
        let refusal = Response::builder().status(401).header("www-authenticate", challenge);
        return refusal.body(Body::empty()).unwrap();
    }
    let mut response = Response::builder().status(inner.status);
    for (name, value) in &inner.headers {
        response = response.header(*name, *value);
    }
    let user = received.claim("sub");
    response.body(user.as_str().unwrap_or("upstream").to_owned().into()).unwrap()
}
