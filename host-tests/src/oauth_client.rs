//! The client's side of OAuth: login, token exchange and redemption, each as plain HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client_auth::{AuthMethod, Client};
use crate::jwks::http_client;
use crate::keys::{SigningKey, base64url, random_text};
use crate::names::{
    CLIENT_ASSERTION_JWT, GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE, TOKEN_ID_JAG,
    TYP_CLIENT_ASSERTION,
};
use crate::now;
use crate::through::http_client_through;

/// Where the code comes back to; nobody listens there, the redirect is read and not followed.
pub const REDIRECT_URI: &str = "http://127.0.0.1/callback";

/// A client with what it needs to prove itself.
#[derive(Clone)]
pub struct OauthClient {
    /// Its identifier at this server.
    pub id: String,
    /// Its secret, empty when it has none.
    pub secret: String,
    /// Its key, for `private_key_jwt`.
    pub key: Option<SigningKey>,
    /// How it proves itself.
    pub method: AuthMethod,
    http: reqwest::Client,
}

/// What a token endpoint said.
#[derive(Debug)]
pub struct TokenAnswer {
    /// The status.
    pub status: u16,
    /// `Cache-Control`, which must be `no-store`.
    pub cache_control: Option<String>,
    /// The JSON body, or null.
    pub body: Value,
}

/// What a login gives.
#[derive(Clone)]
pub struct LoginTokens {
    /// The ID token.
    pub id_token: String,
    /// The refresh token.
    pub refresh_token: String,
}

impl OauthClient {
    /// A client with a new secret or a new key, as its method wants; `name` is how the journal calls it.
    pub fn new(id: &str, name: &str, method: AuthMethod) -> Self {
        let (secret, key) = match method {
            AuthMethod::Basic | AuthMethod::Post => (random_text(), None),
            AuthMethod::PrivateKeyJwt => (String::new(), Some(SigningKey::es256("2026-01"))),
        };
        Self { id: id.into(), secret, key, method, http: http_client(name) }
    }

    /// The same client, all of whose requests go to `origin`, whatever their URL.
    pub fn through(&self, origin: &str) -> Self {
        Self { http: http_client_through(origin, "EMA client"), ..self.clone() }
    }

    /// Its registration at the server. A secret is taken in the header and in the body alike.
    pub fn registration(&self) -> Client {
        let methods = match self.method {
            AuthMethod::Basic | AuthMethod::Post => vec![AuthMethod::Basic, AuthMethod::Post],
            AuthMethod::PrivateKeyJwt => vec![AuthMethod::PrivateKeyJwt],
        };
        Client {
            id: self.id.clone(),
            secret: self.secret.clone(),
            key: self.key.as_ref().map(SigningKey::jwk),
            methods,
        }
    }

    /// Logs a user in through the IdP's form and redeems the code.
    pub async fn login(&self, idp_issuer: &str, user: &str, password: &str) -> LoginTokens {
        let (verifier, state, nonce) =
            (random_text() + &random_text(), random_text(), random_text());
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "openid email offline_access"),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &base64url(&Sha256::digest(&verifier))),
            ("code_challenge_method", "S256"),
        ]);
        let authorize = format!("{idp_issuer}/authorize");
        let page = self
            .http
            .get(format!("{authorize}?{query}"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let login = page
            .split(r#"name="login" value=""#)
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();

        let filled_in = form(&[("login", login), ("username", user), ("password", password)]);
        let sent_back = self.post(&authorize, filled_in).send().await.unwrap();
        let location = sent_back.headers()["location"].to_str().unwrap();
        let answer: Vec<(String, String)> =
            form_urlencoded::parse(location.split_once('?').unwrap().1.as_bytes())
                .into_owned()
                .collect();
        let value = |name: &str| answer.iter().find(|(known, _)| known == name).unwrap().1.as_str();
        assert_eq!(value("state"), state);
        assert_eq!(value("iss"), idp_issuer);

        let fields = [
            ("grant_type", "authorization_code"),
            ("code", value("code")),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", &verifier),
        ];
        let tokens =
            self.token_request(idp_issuer, &format!("{idp_issuer}/token"), &fields).await.body;
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        LoginTokens { id_token: text("id_token"), refresh_token: text("refresh_token") }
    }

    /// Leg 1: a subject token for an ID-JAG (RFC 8693).
    pub async fn exchange(
        &self,
        idp_issuer: &str,
        subject: (&str, &str),
        audience: &str,
        resource: &str,
        scope: &str,
    ) -> TokenAnswer {
        let (subject_token_type, subject_token) = subject;
        let fields = [
            ("grant_type", GRANT_TOKEN_EXCHANGE),
            ("requested_token_type", TOKEN_ID_JAG),
            ("subject_token", subject_token),
            ("subject_token_type", subject_token_type),
            ("audience", audience),
            ("resource", resource),
            ("scope", scope),
        ];
        self.token_request(idp_issuer, &format!("{idp_issuer}/token"), &fields).await
    }

    /// Leg 2: an ID-JAG for an access token (RFC 7523).
    pub async fn redeem(&self, issuer: &str, token_endpoint: &str, id_jag: &str) -> TokenAnswer {
        let fields = [("grant_type", GRANT_JWT_BEARER), ("assertion", id_jag)];
        self.token_request(issuer, token_endpoint, &fields).await
    }

    /// Any token request, with this client's proof added.
    pub async fn token_request(
        &self,
        issuer: &str,
        token_endpoint: &str,
        fields: &[(&str, &str)],
    ) -> TokenAnswer {
        let mut fields = fields.to_vec();
        let assertion =
            self.key.as_ref().map(|key| self.assertion(key, issuer)).unwrap_or_default();
        match self.method {
            AuthMethod::Basic => {}
            AuthMethod::Post => {
                fields.extend([("client_id", self.id.as_str()), ("client_secret", &self.secret)])
            }
            AuthMethod::PrivateKeyJwt => {
                fields.extend([
                    ("client_assertion_type", CLIENT_ASSERTION_JWT),
                    ("client_assertion", &assertion),
                ]);
            }
        }
        let mut request = self.post(token_endpoint, form(&fields));
        if self.method == AuthMethod::Basic {
            // Neither half holds a character that form encoding would change.
            let credentials = STANDARD.encode(format!("{}:{}", self.id, self.secret));
            request = request.header("authorization", format!("Basic {credentials}"));
        }
        let response = request.send().await.unwrap();
        let cache_control =
            response.headers().get("cache-control").map(|value| value.to_str().unwrap().into());
        let status = response.status().as_u16();
        TokenAnswer { status, cache_control, body: response.json().await.unwrap_or_default() }
    }

    /// RFC 7523 §2.2, made out to the issuer alone.
    fn assertion(&self, key: &SigningKey, issuer: &str) -> String {
        let claims = json!({"iss": self.id, "sub": self.id, "aud": issuer, "jti": random_text(), "iat": now(), "exp": now() + 60});
        key.sign(&key.header(TYP_CLIENT_ASSERTION), &claims)
    }

    fn post(&self, url: &str, body: String) -> reqwest::RequestBuilder {
        self.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body)
    }
}

impl TokenAnswer {
    /// The `access_token`, which for an exchange is the ID-JAG.
    pub fn token(&self) -> &str {
        self.body["access_token"].as_str().unwrap_or_else(|| panic!("no token: {self:?}"))
    }

    /// The error code, or nothing.
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }
}

/// A form body.
pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}
