//! Servers that behave as the documentation of others says: no more of them than the settings for these are about.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host_tests::jwks::verify_with;
use host_tests::keys::{SigningKey, random_text};
use host_tests::names::{
    CLIENT_ASSERTION_JWT, GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE, TOKEN_ID_JAG, TOKEN_REFRESH,
    TYP_ID_JAG,
};
use host_tests::now;
use host_tests::oauth::{Form, OauthError, no_store};
use host_tests::server::{Place, Server};
use serde_json::{Value, json};

const TOKEN_SAML2: &str = "urn:ietf:params:oauth:token-type:saml2";
const TOKEN_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

type Answer = Result<Value, OauthError>;
type TokenEndpoint = dyn Fn(&HeaderMap, &Form) -> Answer + Send + Sync;

/// A running server.
pub struct Mimic {
    /// Where it is, without a slash.
    pub origin: String,
    /// What `grant_type`, and of exchanges what `requested_token_type`, it was asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
    _server: Server,
}

impl Mimic {
    fn start(
        place: Place,
        documents: Vec<(&str, Value)>,
        token_path: &str,
        answer: Box<TokenEndpoint>,
    ) -> Self {
        let (origin, asked) = (place.origin(), Arc::<Mutex<Vec<String>>>::default());
        let (answer, noted) = (Arc::new(answer), asked.clone());
        let token = move |headers: HeaderMap, body: Bytes| {
            let (answer, noted) = (answer.clone(), noted.clone());
            async move {
                let form = Form::parse(headers.get(header::CONTENT_TYPE), &body)?;
                let kind = form.get("requested_token_type").or(form.get("grant_type"));
                noted.lock().unwrap().push(kind.unwrap_or_default().to_owned());
                answer(&headers, &form).map(no_store)
            }
        };
        let mut router = Router::new().route(token_path, post(token));
        for (path, document) in documents {
            router = router.route(path, get(async move || Json(document)));
        }
        Self { origin, asked, _server: Server::start(place, router) }
    }
}

/// What an Okta org knows.
pub struct Okta {
    /// The AI agent.
    pub client_id: String,
    /// Its public key.
    pub client_key: Value,
    /// The resource connection: authorization server, client there, resource.
    pub connection: [String; 3],
    /// The scopes of that.
    pub scopes: Vec<String>,
    /// A refresh token of a user.
    pub refresh_token: String,
    /// The whole `SAMLResponse` of a user, in base64 with padding.
    pub saml_response: String,
}

/// The org authorization server; `key` signs.
pub fn okta(place: Place, key: &Arc<SigningKey>, knows: Okta) -> Mimic {
    let origin = place.origin();
    let metadata = json!({
        "issuer": origin,
        "token_endpoint": format!("{origin}/oauth2/v1/token"),
        "jwks_uri": format!("{origin}/oauth2/v1/keys"),
    });
    let documents = vec![
        ("/.well-known/openid-configuration", metadata),
        ("/oauth2/v1/keys", json!({"keys": [key.jwk()]})),
    ];
    let (key, used) = (key.clone(), Mutex::<HashSet<String>>::default());
    let from_saml = random_text();
    let answer = move |headers: &HeaderMap, form: &Form| {
        if headers.contains_key("authorization") || form.get("client_secret").is_some() {
            return Err(OauthError::new("invalid_client", "a key is registered"));
        }
        if form.need("client_assertion_type")? != CLIENT_ASSERTION_JWT {
            return Err(OauthError::new("invalid_client", "no assertion"));
        }
        let endpoint = format!("{origin}/oauth2/v1/token");
        let proven = |assertion: &str| knows.proves(assertion, &endpoint, &used);
        proven(form.need("client_assertion")?)?;
        if form.need("grant_type")? != GRANT_TOKEN_EXCHANGE {
            return Err(OauthError::new("unsupported_grant_type", "not here"));
        }
        let (subject, kind) = (form.need("subject_token")?, form.need("subject_token_type")?);
        match form.need("requested_token_type")? {
            TOKEN_REFRESH if kind == TOKEN_SAML2 => {
                if subject != knows.saml_response {
                    return Err(OauthError::new("invalid_grant", "SAML assertion invalid"));
                }
                if form.get("scope") != Some("openid offline_access") {
                    return Err(OauthError::new("invalid_scope", "offline_access is required"));
                }
                Ok(json!({
                    "access_token": from_saml,
                    "expires_in": 3600,
                    "issued_token_type": TOKEN_REFRESH,
                    "scope": "offline_access openid",
                    "token_type": "N_A",
                }))
            }
            TOKEN_ID_JAG if kind == TOKEN_REFRESH => {
                let is_from_saml = subject == from_saml;
                if subject != knows.refresh_token && !is_from_saml {
                    return Err(OauthError::new("invalid_grant", "the refresh token is invalid"));
                }
                if is_from_saml {
                    // The guide sends one assertion twice; with a `jti` in it, that would be one use too many.
                    proven(form.need("actor_token")?)?;
                    if form.need("actor_token_type")? != TOKEN_JWT {
                        return Err(OauthError::new("invalid_request", "actor_token_type"));
                    }
                }
                knows.id_jag(form, &origin, &key)
            }
            _ => Err(OauthError::new("invalid_request", "invalid subject token")),
        }
    };
    Mimic::start(place, documents, "/oauth2/v1/token", Box::new(answer))
}

impl Okta {
    /// "Private key JWT": `aud` is the token endpoint, the end is less than an hour away, each `jti` counts once.
    fn proves(
        &self,
        assertion: &str,
        endpoint: &str,
        used: &Mutex<HashSet<String>>,
    ) -> Result<(), OauthError> {
        let refused = |why: &str| OauthError::new("invalid_client", why);
        let key = serde_json::from_value(self.client_key.clone()).unwrap();
        let claims = verify_with(&key, assertion).map_err(|error| refused(&error))?;
        let is_sound = claims["aud"] == endpoint
            && claims["iss"] == self.client_id.as_str()
            && claims["sub"] == self.client_id.as_str()
            && claims["exp"].as_u64().is_some_and(|exp| exp <= now() + 3600);
        let jti = claims["jti"].as_str().map(str::to_owned);
        let is_new = jti.is_none_or(|jti| used.lock().unwrap().insert(jti));
        if is_sound && is_new { Ok(()) } else { Err(refused("verification failed")) }
    }

    fn id_jag(&self, form: &Form, issuer: &str, key: &SigningKey) -> Answer {
        let [audience, client_there, resource] = &self.connection;
        if form.need("audience")? != audience || form.need("resource")? != resource {
            return Err(OauthError::new("invalid_target", "Resource mismatch"));
        }
        let scope = form.need("scope")?;
        if !scope.split(' ').all(|scope| self.scopes.iter().any(|known| known == scope)) {
            return Err(OauthError::new("unauthorized_client", "Scope not permitted"));
        }
        let claims = json!({
            "iss": issuer, "sub": "00u1", "aud": audience, "client_id": client_there,
            "resource": resource, "scope": scope, "email": "alice@acme.example",
            "iat": now(), "exp": now() + 300, "jti": format!("IDAAG.{}", random_text()),
        });
        Ok(json!({
            "access_token": key.sign(&key.header(TYP_ID_JAG), &claims),
            "expires_in": 300,
            "issued_token_type": TOKEN_ID_JAG,
            "token_type": "N_A",
        }))
    }
}

/// Auth0 as the authorization server: the issuer ends in a slash, the secret comes in the body.
pub fn auth0(place: Place, key: &Arc<SigningKey>, client: [String; 2]) -> Mimic {
    let (issuer, key) = (format!("{}/", place.origin()), key.clone());
    let answer = move |_: &HeaderMap, form: &Form| {
        if [form.need("client_id")?, form.need("client_secret")?] != client {
            return Err(OauthError::new("invalid_client", "Unauthorized"));
        }
        redeemed(form, &key, &issuer, &client[0])?;
        Ok(json!({"access_token": "from-auth0", "expires_in": 86400, "token_type": "Bearer"}))
    };
    Mimic::start(place, vec![], "/oauth/token", Box::new(answer))
}

/// Keycloak as the authorization server: default scopes are granted unasked, an ID-JAG counts once.
pub fn keycloak(place: Place, key: &Arc<SigningKey>, client: [String; 2]) -> Mimic {
    let issuer = format!("{}/realms/tickets", place.origin());
    let token_endpoint = "/realms/tickets/protocol/openid-connect/token";
    let metadata = json!({
        "issuer": issuer,
        "token_endpoint": format!("{}{token_endpoint}", place.origin()),
        "grant_types_supported": ["client_credentials", GRANT_JWT_BEARER],
    });
    let (key, used) = (key.clone(), Mutex::<HashSet<String>>::default());
    let answer = move |headers: &HeaderMap, form: &Form| {
        let basic = format!("Basic {}", STANDARD.encode(client.join(":")));
        if headers.get("authorization").is_none_or(|given| given != basic.as_str()) {
            return Err(OauthError::new("invalid_client", "Invalid client credentials"));
        }
        let claims = redeemed(form, &key, &issuer, &client[0])?;
        let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        if lifetime > 300 || !used.lock().unwrap().insert(claims["jti"].to_string()) {
            return Err(OauthError::new("invalid_grant", "Token reuse detected"));
        }
        Ok(json!({
            "access_token": "from-keycloak",
            "expires_in": 300,
            "refresh_expires_in": 0,
            "token_type": "Bearer",
            "not-before-policy": 0,
            "scope": "email profile",
        }))
    };
    let documents = vec![("/realms/tickets/.well-known/openid-configuration", metadata)];
    Mimic::start(place, documents, token_endpoint, Box::new(answer))
}

/// Claims of the ID-JAG in a JWT bearer grant.
fn redeemed(form: &Form, key: &SigningKey, issuer: &str, client_id: &str) -> Answer {
    let wrong = || OauthError::new("invalid_grant", "the assertion is not good");
    if form.need("grant_type")? != GRANT_JWT_BEARER {
        return Err(OauthError::new("unsupported_grant_type", "not here"));
    }
    let jwk = serde_json::from_value(key.jwk()).unwrap();
    let claims = verify_with(&jwk, form.need("assertion")?).map_err(|_| wrong())?;
    let is_ours = claims["aud"] == issuer && claims["client_id"] == client_id;
    if is_ours { Ok(claims) } else { Err(wrong()) }
}

/// The token endpoint of an Entra tenant (v2.0), for client credentials.
pub fn entra(place: Place, tenant: &str, client: [String; 2]) -> Mimic {
    let answer = move |_: &HeaderMap, form: &Form| {
        if form.need("grant_type")? != "client_credentials" {
            return Err(OauthError::new("unsupported_grant_type", "AADSTS70003"));
        }
        if [form.need("client_id")?, form.need("client_secret")?] != client {
            return Err(OauthError::new("invalid_client", "AADSTS7000215"));
        }
        let target = form.need("scope")?.strip_suffix("/.default");
        let target = target.ok_or_else(|| OauthError::new("invalid_scope", "AADSTS1002012"))?;
        if form.get("resource").is_some_and(|resource| resource != target) {
            return Err(OauthError::new("invalid_target", "AADSTS9010010"));
        }
        Ok(json!({
            "token_type": "Bearer",
            "expires_in": 3599,
            "ext_expires_in": 3599,
            "access_token": "from-entra",
        }))
    };
    Mimic::start(place, vec![], &format!("/{tenant}/oauth2/v2.0/token"), Box::new(answer))
}

/// A `SAMLResponse` with a signature that nobody could verify, in base64 with padding.
pub fn saml_response(issuer: &str, audience: &str) -> String {
    let end = r#"NotOnOrAfter="2099-12-31T23:59:59Z""#;
    let id = format!("_{}", random_text());
    let signature = format!(
        r##"<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo><ds:Reference URI="#{id}"/></ds:SignedInfo><ds:SignatureValue>AAAA</ds:SignatureValue></ds:Signature>"##
    );
    let subject = format!(
        r#"<saml:Subject><saml:NameID>alice@acme.example</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData {end}/></saml:SubjectConfirmation></saml:Subject>"#
    );
    let conditions = format!(
        r#"<saml:Conditions {end}><saml:AudienceRestriction><saml:Audience>{audience}</saml:Audience></saml:AudienceRestriction></saml:Conditions>"#
    );
    let assertion = format!(
        r#"<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="{id}" Version="2.0"><saml:Issuer>{issuer}</saml:Issuer>{signature}{subject}{conditions}</saml:Assertion>"#
    );
    let status = r#"<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>"#;
    let response = format!(
        r#"<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_{}" Version="2.0">{status}{assertion}</samlp:Response>"#,
        random_text()
    );
    STANDARD.encode(response)
}
