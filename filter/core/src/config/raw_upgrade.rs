//! What is upgraded, as it is written.

use super::raw::{Digest, MutualTls, NoSettings, Reference};
use super::read::{Read, Reader, object, words};
use serde_json::{Map, Value};

/// Something that was read, and how it was written.
pub(super) struct Written<T> {
    pub read: T,
    pub value: Value,
}

impl<T: Read> Read for Written<T> {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        Self { read: T::read(value, reader), value: value.clone() }
    }
}

object! {
    pub(super) struct Upgrade {
        pub url: Option<String>,
        pub identity_provider: String,
        pub authorization_server: Option<ResourceAs>,
        pub authorization_servers: Vec<ResourceAs> = default,
        pub discovery: Option<Discovery>,
        pub ema: Ema = default,
        pub pass_ema_clients: bool = default,
        pub scopes: Vec<String> = default,
        pub redemption_scopes: Vec<String> = default,
        pub step_up_scopes: Vec<String> = default,
        pub authorization_details: Option<Value>,
        pub actor: Option<Actor>,
        pub dpop: Bound = default,
        pub cache: Option<bool>,
        pub max_token_age: Option<u64>,
        pub accept_wider_scope: bool = default,
        pub require_resource: bool = default,
        pub mutual_tls: Option<MutualTls>,
        pub callers: Vec<Caller>,
    }
}

object! {
    pub(super) struct ResourceAs {
        pub issuer: String,
        pub cluster: String,
        pub token_endpoint: Option<String>,
        pub audience: Option<String>,
        pub send_resource: Option<bool>,
        pub client: Client,
    }
}

object! {
    /// Our registration at an authorization server.
    pub(super) struct Client {
        pub id: String,
        pub secret: Option<Reference>,
        pub token_endpoint_auth_method: Option<SecretMethod>,
        pub private_key_jwt: Option<PrivateKeyJwt>,
        pub tls_client_auth: Option<NoSettings>,
    }
}

words! {
    /// How a secret is sent.
    #[derive(PartialEq)]
    pub(super) enum SecretMethod {
        Basic = "client_secret_basic",
        Post = "client_secret_post",
    }
}

object! {
    pub(super) struct PrivateKeyJwt {
        pub key: Reference,
        pub kid: Option<String>,
        pub audience: AssertionAudience = default,
    }
}

words! {
    /// Whom a client assertion is addressed to.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum AssertionAudience {
        /// The authorization server's issuer identifier (rfc7523bis).
        #[default]
        Issuer = "issuer",
        /// Its token endpoint, which some servers still ask for.
        TokenEndpoint = "token_endpoint",
    }
}

object! {
    pub(super) struct Discovery {
        pub cluster: String,
    }
}

words! {
    /// Whether a server speaks EMA.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Ema {
        /// It does; if its metadata does not say so, we try nevertheless.
        #[default]
        Required = "required",
        /// If its metadata says so; else it is reached with a client credentials grant.
        Preferred = "preferred",
        /// It does not: it is reached with a client credentials grant.
        Never = "never",
    }
}

words! {
    /// Whether tokens are bound to a key of ours (RFC 9449).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Bound {
        /// They are not.
        #[default]
        No = "off",
        /// If the servers do that.
        Preferred = "preferred",
        /// Others are not used.
        Required = "required",
    }
}

object! {
    pub(super) struct Actor {
        pub token: Option<Reference>,
        pub kind: TokenType as "type" = default,
        pub client_assertion: bool = default,
    }
}

words! {
    /// Types of tokens (RFC 8693 §3).
    #[derive(Default)]
    pub(super) enum TokenType {
        #[default]
        Jwt = "jwt",
        AccessToken = "access_token",
        IdToken = "id_token",
    }
}

object! {
    pub(super) struct Caller {
        pub name: Option<String>,
        pub id_token: Option<NoSettings>,
        pub access_token: Option<AccessToken>,
        pub refresh_token: Option<RefreshToken>,
        pub api_key: Option<ApiKey>,
        pub basic: Option<Basic>,
        pub certificate: Option<Certificate>,
        pub workload_token: Option<WorkloadToken>,
        pub saml: Option<Saml>,
        pub subject: Option<Subject>,
    }
}

object! {
    pub(super) struct AccessToken {
        pub audience: String,
        pub typ: Typ = default,
    }
}

words! {
    /// Which `typ` an access token may have.
    #[derive(Default, PartialEq)]
    pub(super) enum Typ {
        #[default]
        AtJwt = "at+jwt",
        Any = "any",
    }
}

object! {
    pub(super) struct RefreshToken {
        pub header: String,
    }
}

object! {
    pub(super) struct ApiKey {
        pub header: String,
        pub sha256: Digest,
    }
}

object! {
    pub(super) struct Basic {
        pub id: String,
        pub secret_sha256: Digest,
    }
}

object! {
    pub(super) struct Certificate {
        pub subject_dn: Option<String>,
        pub san_uri: Option<String>,
        pub san_dns: Option<String>,
        pub sha256: Vec<String> = default,
    }
}

object! {
    pub(super) struct WorkloadToken {
        pub issuer: String,
        pub audience: String,
        /// By name of the claim; of the claims in a claim that is an object, the same again.
        pub claims: Map<String, Value>,
        pub max_lifetime: Option<u64>,
    }
}

object! {
    pub(super) struct Saml {
        pub header: Option<String>,
        pub issuer: String,
        pub audience: String,
    }
}

object! {
    pub(super) struct Subject {
        pub id_token: Option<Reference>,
        pub refresh_token: Option<Reference>,
        pub client_credentials: Option<Grant>,
        pub jwt_bearer: Option<Grant>,
    }
}

object! {
    pub(super) struct Grant {
        pub scopes: Vec<String> = default,
    }
}

object! {
    /// What an identity provider wants of token exchanges.
    #[derive(Default)]
    pub(super) struct TokenExchange {
        pub refresh_token_as: RefreshTokenAs = default,
        pub send_resource: Option<bool>,
        pub parameters: Map<String, Value> = default,
        pub pairwise_subjects: bool = default,
        pub saml: Option<SamlExchange>,
    }
}

words! {
    /// What a refresh token is good for at an identity provider.
    #[derive(Default, PartialEq)]
    pub(super) enum RefreshTokenAs {
        #[default]
        SubjectToken = "subject_token",
        IdToken = "id_token",
    }
}

object! {
    pub(super) struct SamlExchange {
        pub payload: Payload = default,
        pub encoding: Encoding = default,
        pub sent_as: SamlAs as "as" = default,
    }
}

words! {
    /// What is sent of a SAML response.
    #[derive(Default, PartialEq)]
    pub(super) enum Payload {
        #[default]
        Assertion = "assertion",
        Response = "response",
    }
}

words! {
    /// How it is written.
    #[derive(Default, PartialEq)]
    pub(super) enum Encoding {
        #[default]
        Base64Url = "base64url",
        Base64 = "base64",
    }
}

words! {
    /// What it is exchanged for.
    #[derive(Default, PartialEq)]
    pub(super) enum SamlAs {
        #[default]
        Saml2 = "saml2",
        RefreshToken = "refresh_token",
    }
}
