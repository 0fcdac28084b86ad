//! The authorization server of a backend that Jagway stands before: it gives Jagway tokens of its own, for Jagway
//! itself (RFC 6749 §4.4) or for the user whom a JWT of Jagway's names (RFC 8693).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::post;
use serde_json::json;

use crate::client_auth::{AuthMethod, Client, Registry};
use crate::endpoints::Endpoints;
use crate::journal::Journal;
use crate::jwks::KeySource;
use crate::keys::random_text;
use crate::names::GRANT_TOKEN_EXCHANGE;
use crate::oauth::{Form, OauthError, no_store};
use crate::server::{Place, Server};

/// `typ` of the JWT in which Jagway tells a backend who calls.
pub const TYP_IDENTITY: &str = "jagway-identity+jwt";

/// The running authorization server.
pub struct BackendAs {
    /// Stop it here to see it go down.
    pub server: Server,
    /// Counters and faults; its path is `/token`.
    pub endpoints: Endpoints,
    /// Jagway's `client_id` here.
    pub client_id: String,
    /// Jagway's secret here.
    pub secret: String,
    state: Arc<Shared>,
}

struct Shared {
    issuer: String,
    clients: Registry,
    jagway: OnceLock<(String, KeySource)>,
    issued: AtomicU64,
}

impl BackendAs {
    /// Starts it. It believes nobody's JWTs until [`BackendAs::trust`].
    pub fn start() -> Self {
        let (place, secret) = (Place::find(), random_text());
        let issuer = place.origin();
        let clients = Registry::new(&issuer, &format!("{issuer}/token"));
        let methods = vec![AuthMethod::Basic, AuthMethod::Post];
        let id = "jagway-at-backend".to_owned();
        clients.register(Client { id: id.clone(), secret: secret.clone(), key: None, methods });
        let jagway = OnceLock::new();
        let state = Arc::new(Shared { issuer, clients, jagway, issued: AtomicU64::new(0) });
        let router = Router::new().route("/token", post(token)).with_state(state.clone());
        let endpoints = Endpoints::new("Backend AS", &Journal::default());
        let server = Server::start(place, endpoints.before(router));
        Self { server, endpoints, client_id: id, secret, state }
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.state.issuer
    }

    /// Where tokens are given.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.state.issuer)
    }

    /// Believes the JWTs of this Jagway, by the keys it publishes.
    pub fn trust(&self, jagway: &str) {
        let keys = format!("{jagway}/.well-known/jagway/jwks.json");
        let trusted = (jagway.to_owned(), KeySource::new(&keys, "Backend AS"));
        assert!(self.state.jagway.set(trusted).is_ok(), "it trusts one Jagway already");
    }
}

/// Gives `service-1`, or `for-alice-1`, and so on: no token twice.
async fn token(
    State(server): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, OauthError> {
    let form = Form::parse(headers.get(header::CONTENT_TYPE), &body)?;
    server.clients.authenticate(&headers, &form)?;
    let whose = match form.need("grant_type")? {
        "client_credentials" => "service".to_owned(),
        GRANT_TOKEN_EXCHANGE => format!("for-{}", user(&server, &form).await?),
        _ => return Err(OauthError::new("unsupported_grant_type", "not one of the two")),
    };
    let number = server.issued.fetch_add(1, Ordering::SeqCst) + 1;
    let access_token = format!("{whose}-{number}");
    Ok(no_store(json!({
        "access_token": access_token,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 300,
    })))
}

async fn user(server: &Shared, form: &Form) -> Result<String, OauthError> {
    if form.need("subject_token_type")? != "urn:ietf:params:oauth:token-type:jwt" {
        return Err(OauthError::new("invalid_request", "not the subject token type taken here"));
    }
    let invalid = |why: String| OauthError::new("invalid_request", why);
    let (jagway, keys) = server.jagway.get().ok_or_else(|| invalid("nobody is trusted".into()))?;
    let subject_token = form.need("subject_token")?;
    let claims = keys.verify(subject_token, TYP_IDENTITY, jagway, &server.issuer).await;
    let claims = claims.map_err(invalid)?;
    Ok(claims["sub_id"]["sub"].as_str().unwrap_or_default().to_owned())
}
