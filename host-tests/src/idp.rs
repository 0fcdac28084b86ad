//! Acme, the enterprise's IdP: login by OIDC code flow, and token exchange (RFC 8693) to ID-JAGs.

mod login;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::client_auth::{Client, Registry};
use crate::endpoints::Endpoints;
use crate::journal::Journal;
use crate::keys::{SigningKey, random_text};
use crate::names::{GRANT_TOKEN_EXCHANGE, TOKEN_ID_JAG, TYP_ID_JAG};
use crate::now;
use crate::server::{Place, Server};

/// The running IdP.
pub struct Idp {
    /// Stop it here to see the IdP go down.
    pub server: Server,
    state: Arc<Acme>,
}

/// Where an IdP is found.
pub struct Address {
    /// The issuer identifier.
    pub issuer: String,
    /// Where tokens are exchanged.
    pub token_endpoint: String,
    /// Where the keys are published.
    pub jwks_uri: String,
}

/// What the administrator allows: this client gets ID-JAGs for that Resource AS.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's id here.
    pub client_id: String,
    /// The issuer of the Resource AS.
    pub audience: String,
    /// The client's id there.
    pub client_id_there: String,
    /// The resources it may name.
    pub resources: Vec<String>,
    /// The scopes it may have.
    pub scopes: Vec<String>,
}

struct Acme {
    issuer: String,
    journal: Journal,
    endpoints: Endpoints,
    clients: Registry,
    keys: Mutex<Keys>,
    users: Mutex<HashMap<String, String>>,
    connections: Mutex<Vec<Connection>>,
    logins: Mutex<HashMap<String, login::Login>>,
    codes: Mutex<HashMap<String, login::Code>>,
    refresh_tokens: Mutex<HashMap<String, Grant>>,
    renewing: Mutex<Renewing>,
}

/// Refresh tokens that are good for one use each (RFC 9700 §4.14.2).
#[derive(Default)]
struct Renewing {
    is_on: bool,
    /// What was used, and whose it was.
    spent: HashMap<String, Grant>,
    reused: usize,
}

/// Signing keys: the first published one signs; retired ones only verify what was signed before.
struct Keys {
    published: Vec<SigningKey>,
    retired: Vec<SigningKey>,
}

/// What a user once allowed a client.
#[derive(Clone)]
struct Grant {
    client_id: String,
    user: String,
    auth_time: u64,
}

impl Idp {
    /// Starts it with an ES256 key, and publishes an RS256 key as well when asked (slow to make).
    pub fn start(journal: &Journal, with_rs256: bool) -> Self {
        let place = Place::find();
        let issuer = place.origin();
        let mut published = vec![SigningKey::es256("acme-1")];
        if with_rs256 {
            published.push(SigningKey::rs256("acme-rsa-1"));
        }
        let state = Arc::new(Acme {
            clients: Registry::new(&issuer, &format!("{issuer}/token")),
            endpoints: Endpoints::new("Acme IdP", journal),
            journal: journal.clone(),
            keys: Mutex::new(Keys { published, retired: vec![] }),
            users: Mutex::default(),
            connections: Mutex::default(),
            logins: Mutex::default(),
            codes: Mutex::default(),
            refresh_tokens: Mutex::default(),
            renewing: Mutex::default(),
            issuer,
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/jwks", get(jwks))
            .route("/authorize", get(login::ask).post(login::submit))
            .route("/token", post(token::endpoint))
            .with_state(state.clone());
        Self { server: Server::start(place, state.endpoints.before(router)), state }
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.state.issuer
    }

    /// Where tokens are exchanged.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.state.issuer)
    }

    /// Where the keys are published.
    pub fn jwks_uri(&self) -> String {
        format!("{}/jwks", self.state.issuer)
    }

    /// All three together.
    pub fn address(&self) -> Address {
        Address {
            issuer: self.issuer().into(),
            token_endpoint: self.token_endpoint(),
            jwks_uri: self.jwks_uri(),
        }
    }

    /// Counters and faults, by path.
    pub fn endpoints(&self) -> &Endpoints {
        &self.state.endpoints
    }

    /// The registered clients.
    pub fn clients(&self) -> &Registry {
        &self.state.clients
    }

    /// Registers a client.
    pub fn register(&self, client: Client) {
        self.state.clients.register(client);
    }

    /// Adds a user, whose name is also the `sub`.
    pub fn add_user(&self, name: &str, password: &str) {
        self.state.users.lock().unwrap().insert(name.into(), password.into());
    }

    /// Allows a client a Resource AS.
    pub fn connect(&self, connection: Connection) {
        self.state.connections.lock().unwrap().push(connection);
    }

    /// Withdraws every permission of a client.
    pub fn disconnect(&self, client_id: &str) {
        self.state.connections.lock().unwrap().retain(|known| known.client_id != client_id);
    }

    /// Revokes a refresh token.
    pub fn revoke(&self, refresh_token: &str) {
        self.state.refresh_tokens.lock().unwrap().remove(refresh_token);
    }

    /// From now on whoever exchanges a refresh token gets another one, and a second use of one ends the whole
    /// grant: all refresh tokens of that user.
    pub fn renew_refresh_tokens(&self) {
        self.state.renewing.lock().unwrap().is_on = true;
    }

    /// How often a refresh token was used that had been renewed, and how many were used and renewed.
    pub fn refresh_tokens_reused_and_renewed(&self) -> (usize, usize) {
        let renewing = self.state.renewing.lock().unwrap();
        (renewing.reused, renewing.spent.len())
    }

    /// The key that signs at present.
    pub fn key(&self) -> SigningKey {
        self.state.key()
    }

    /// The published RS256 key, if it was asked for.
    pub fn rs256_key(&self) -> Option<SigningKey> {
        let keys = self.state.keys.lock().unwrap();
        keys.published.iter().find(|key| key.alg() == "RS256").cloned()
    }

    /// Takes a new ES256 key into use and stops publishing the present one.
    pub fn rotate(&self, kid: &str) {
        let mut keys = self.state.keys.lock().unwrap();
        let old = std::mem::replace(&mut keys.published[0], SigningKey::es256(kid));
        keys.retired.push(old);
    }

    /// Signs anything with the real key: the header and the claims may lie.
    pub fn sign(&self, claims: &Value, header: &Value) -> String {
        self.key().sign(header, claims)
    }

    /// The header and the claims of a sound ID-JAG, for a test to spoil before signing.
    pub fn id_jag_parts(&self, connection: &Connection, user: &str) -> (Value, Value) {
        let claims = self.state.id_jag_claims(
            connection,
            user,
            now(),
            &connection.resources,
            &connection.scopes.join(" "),
        );
        (self.key().header(TYP_ID_JAG), claims)
    }
}

impl Acme {
    fn key(&self) -> SigningKey {
        self.keys.lock().unwrap().published[0].clone()
    }

    fn id_jag_claims(
        &self,
        connection: &Connection,
        user: &str,
        auth_time: u64,
        resources: &[String],
        scope: &str,
    ) -> Value {
        let mut claims = json!({
            "iss": self.issuer,
            "sub": user,
            "aud": connection.audience,
            "client_id": connection.client_id_there,
            "jti": random_text(),
            "iat": now(),
            "exp": now() + 300,
            "scope": scope,
            "email": format!("{user}@acme.example"),
            "auth_time": auth_time,
        });
        match resources {
            [] => {}
            [one] => claims["resource"] = json!(one),
            several => claims["resource"] = json!(several),
        }
        claims
    }
}

async fn metadata(State(acme): State<Arc<Acme>>) -> Json<Value> {
    let issuer = &acme.issuer;
    let algorithms: Vec<_> =
        acme.keys.lock().unwrap().published.iter().map(SigningKey::alg).collect();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token", GRANT_TOKEN_EXCHANGE],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "scopes_supported": ["openid", "email", "offline_access"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": true,
        "identity_chaining_requested_token_types_supported": [TOKEN_ID_JAG],
    }))
}

async fn jwks(State(acme): State<Arc<Acme>>) -> Json<Value> {
    let keys: Vec<_> = acme.keys.lock().unwrap().published.iter().map(SigningKey::jwk).collect();
    Json(json!({ "keys": keys }))
}
