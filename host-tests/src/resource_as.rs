//! The authorization server of Tickets, which takes nothing but ID-JAGs (RFC 7523 in the ID-JAG profile).
//!
//! It checks by itself, with its own code, so that the filter is judged by somebody else.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::client_auth::{Client, Registry};
use crate::endpoints::{Endpoints, Fault};
use crate::idp::Address;
use crate::journal::{Journal, Kind, Token, sender};
use crate::jwks::KeySource;
use crate::keys::{SigningKey, random_text};
use crate::names::{GRANT_JWT_BEARER, PROFILE_ID_JAG, TYP_ACCESS_TOKEN, TYP_ID_JAG};
use crate::now;
use crate::oauth::{Form, OauthError, narrowed, no_store};
use crate::server::{Place, Server};

/// The running Resource AS.
pub struct ResourceAs {
    /// Stop it here to see the Resource AS go down.
    pub server: Server,
    state: Arc<TicketsAs>,
}

struct TicketsAs {
    issuer: String,
    resource: String,
    scopes: Vec<String>,
    trusted_issuer: String,
    trusted_keys: KeySource,
    clients: Registry,
    key: SigningKey,
    seen: Mutex<HashSet<String>>,
    demands_client_id: AtomicBool,
    journal: Journal,
    endpoints: Endpoints,
}

impl ResourceAs {
    /// Starts it at `place` for one resource, trusting one IdP.
    pub fn start(
        place: Place,
        journal: &Journal,
        resource: &str,
        scopes: &[&str],
        idp: &Address,
    ) -> Self {
        let issuer = place.origin();
        let state = Arc::new(TicketsAs {
            clients: Registry::new(&issuer, &format!("{issuer}/token")),
            resource: resource.into(),
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            trusted_issuer: idp.issuer.clone(),
            trusted_keys: KeySource::new(&idp.jwks_uri, "Tickets AS"),
            key: SigningKey::es256("tickets-1"),
            seen: Mutex::default(),
            demands_client_id: AtomicBool::new(false),
            journal: journal.clone(),
            endpoints: Endpoints::new("Tickets AS", journal),
            issuer,
        });
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/moved/token", post(token))
            .with_state(state.clone());
        Self { server: Server::start(place, state.endpoints.before(router)), state }
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.state.issuer
    }

    /// Where ID-JAGs are redeemed.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.state.issuer)
    }

    /// From now on its token endpoint is elsewhere, and its metadata says so.
    pub fn move_token_endpoint(&self) {
        let issuer = self.issuer();
        let metadata = json!({"issuer": issuer, "token_endpoint": format!("{issuer}/moved/token")});
        let endpoints = self.endpoints();
        endpoints
            .fail("/.well-known/oauth-authorization-server", Fault::Body(metadata.to_string()));
        endpoints.fail("/token", Fault::Status(404));
    }

    /// Where the keys are published.
    pub fn jwks_uri(&self) -> String {
        format!("{}/jwks", self.state.issuer)
    }

    /// Registers a client.
    pub fn register(&self, client: Client) {
        self.state.clients.register(client);
    }

    /// The registered clients.
    pub fn clients(&self) -> &Registry {
        &self.state.clients
    }

    /// Some servers demand `client_id` in the body even beside HTTP Basic; this one does so too when told.
    pub fn demand_client_id_in_body(&self, demanded: bool) {
        self.state.demands_client_id.store(demanded, Ordering::SeqCst);
    }

    /// Counters and faults, by path.
    pub fn endpoints(&self) -> &Endpoints {
        &self.state.endpoints
    }

    /// Signs anything with the real key: the header and the claims may lie.
    pub fn sign(&self, claims: &Value, header: &Value) -> String {
        self.state.key.sign(header, claims)
    }

    /// The header of an honest access token.
    pub fn header(&self) -> Value {
        self.state.key.header(TYP_ACCESS_TOKEN)
    }
}

/// RFC 8414, with what the ID-JAG profile adds.
async fn metadata(State(server): State<Arc<TicketsAs>>) -> Json<Value> {
    let issuer = &server.issuer;
    Json(json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["none"],
        "grant_types_supported": [GRANT_JWT_BEARER],
        "authorization_grant_profiles_supported": [PROFILE_ID_JAG],
        "scopes_supported": server.scopes,
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
    }))
}

async fn jwks(State(server): State<Arc<TicketsAs>>) -> Json<Value> {
    Json(json!({ "keys": [server.key.jwk()] }))
}

async fn token(
    State(server): State<Arc<TicketsAs>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, OauthError> {
    let from = sender(&headers);
    let answered = redeem(&server, &from, &headers, &body).await;
    if let Err(refusal) = &answered {
        server.journal.record(
            "Tickets AS",
            &from,
            format!("refuses: {} ({})", refusal.code, refusal.description),
            None,
        );
    }
    answered
}

async fn redeem(
    server: &TicketsAs,
    from: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, OauthError> {
    let form = Form::parse(headers.get(header::CONTENT_TYPE), body)?;
    if server.demands_client_id.load(Ordering::SeqCst) && form.get("client_id").is_none() {
        return Err(OauthError::new("invalid_client", "client_id is missing in the body"));
    }
    let client = server.clients.authenticate(headers, &form)?;
    if form.need("grant_type")? != GRANT_JWT_BEARER {
        return Err(OauthError::new("unsupported_grant_type", "only ID-JAGs are taken here"));
    }
    let assertion = form.need("assertion")?;
    let what = format!("POST /token: jwt-bearer as {}", client.id);
    server.journal.record(from, "Tickets AS", what, Some(Token::new(Kind::IdJag, assertion)));

    let claims = checked(server, &client, assertion)
        .await
        .map_err(|why| OauthError::new("invalid_grant", why))?;
    if form.all("resource").any(|resource| resource != server.resource) {
        return Err(OauthError::new("invalid_target", "that resource is not served here"));
    }
    let granted: Vec<String> =
        claims["scope"].as_str().unwrap_or_default().split(' ').map(Into::into).collect();
    let within: Vec<String> =
        server.scopes.iter().filter(|scope| granted.contains(scope)).cloned().collect();
    let scope = narrowed(form.get("scope"), &within)?;

    let access_token = issue(server, &client, &claims, &scope);
    server.journal.record(
        "Tickets AS",
        from,
        "200: issues",
        Some(Token::new(Kind::AccessToken, &access_token)),
    );
    Ok(no_store(json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": scope,
        "resource": server.resource,
    })))
}

async fn checked(server: &TicketsAs, client: &Client, assertion: &str) -> Result<Value, String> {
    let claims = server
        .trusted_keys
        .verify(assertion, TYP_ID_JAG, &server.trusted_issuer, &server.issuer)
        .await?;
    if claims["client_id"] != client.id.as_str() {
        return Err("issued for another client".into());
    }
    if claims.get("resource").is_some_and(|resource| *resource != server.resource.as_str()) {
        return Err("issued for another resource".into());
    }
    if !claims["sub"].is_string() || !claims["iat"].is_u64() {
        return Err("sub or iat is missing".into());
    }
    let jti = claims["jti"].as_str().ok_or("jti is missing")?;
    // Last, so that a token refused for another reason is not used up.
    if !server.seen.lock().unwrap().insert(jti.into()) {
        return Err("used before".into());
    }
    Ok(claims)
}

/// RFC 9068 §2.
fn issue(server: &TicketsAs, client: &Client, id_jag: &Value, scope: &str) -> String {
    let claims = json!({
        "iss": server.issuer,
        "sub": id_jag["sub"],
        "aud": server.resource,
        "client_id": client.id,
        "jti": random_text(),
        "iat": now(),
        "exp": now() + 300,
        "scope": scope,
    });
    server.key.sign(&server.key.header(TYP_ACCESS_TOKEN), &claims)
}
