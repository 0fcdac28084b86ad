//! What is upgraded: the way from a caller to an access token.

pub use super::raw_upgrade::{AssertionAudience, Bound, Ema};
use super::{Client, IdentityProvider, Party};
use crate::claim_rule::ClaimRule;
use crate::client_certificate::RegisteredCertificate;
use crate::digest::{Key, of_fields};
use crate::http::Url;
use crate::saml::{Encoding, Payload};
use crate::secret::Secret;
use std::rc::Rc;

/// How callers of a resource are upgraded.
pub struct Upgrade {
    /// Digest of all that makes a token of this way what it is, as configured: who may go it, too.
    pub way: Key,
    /// Resource identifier of the MCP server.
    pub resource: Url,
    /// Where callers reach it through this proxy.
    pub url: Url,
    /// Who issues the ID-JAG.
    pub identity_provider: Rc<IdentityProvider>,
    /// Our registration there.
    pub idp_client: Rc<Client>,
    /// Who may redeem it: one if it is given, those that may be found if it is to be discovered.
    pub servers: Vec<Rc<ResourceAs>>,
    /// Where the resource itself is asked who its authorization server is.
    pub discovery: Option<Rc<Discovery>>,
    /// Whether the server speaks EMA.
    pub ema: Ema,
    /// Scope to ask the identity provider for.
    pub scope: String,
    /// Scope to ask the Resource AS for; empty: what the ID-JAG says.
    pub redemption_scope: String,
    /// Scope that may be asked for besides, if the server says that it is missing.
    pub step_up_scopes: Vec<String>,
    /// `authorization_details` to ask for, as JSON text; empty: none.
    pub authorization_details: String,
    /// Who acts for the user, if the identity provider is to know.
    pub actor: Option<Actor>,
    /// Whether tokens are bound to a key of ours (RFC 9449).
    pub dpop: Bound,
    /// Who may call.
    pub callers: Vec<Caller>,
    /// Header fields in which they present something ([`crate::caller::headers`]).
    pub presented: Vec<String>,
    /// Whether clients that bring a token of the Resource AS pass untouched.
    pub passes_ema_clients: bool,
    /// Header fields of the server's answers that no client of ours sees.
    pub hidden: Rc<[String]>,
    /// Whether tokens are kept.
    pub caches: bool,
    /// Longest time an access token is used without asking the identity provider again, seconds.
    pub max_token_age: u64,
    /// Whether a Resource AS may grant more scope than was asked for.
    pub takes_wider_scope: bool,
    /// Whether a Resource AS must say which resource its token is for.
    pub requires_resource: bool,
}

impl Upgrade {
    /// Who issues the tokens of workloads that may call.
    pub fn workload_issuers(&self) -> impl Iterator<Item = &Rc<IdentityProvider>> {
        self.callers.iter().filter_map(|caller| match &caller.presents {
            Presents::Workload(workload) => Some(&workload.issuer),
            _ => None,
        })
    }
}

/// An authorization server that redeems ID-JAGs.
#[derive(Debug)]
pub struct ResourceAs {
    /// How to reach it.
    pub party: Rc<Party>,
    /// Our registration there.
    pub client: Client,
    /// What the identity provider calls it, if not by its issuer identifier.
    pub audience: Option<String>,
    /// Whether `resource` is sent to it.
    pub sends_resource: bool,
}

/// Where a resource is asked who its authorization server is (RFC 9728).
#[derive(Debug)]
pub struct Discovery {
    /// Where this stands in the configuration, for the log.
    pub path: String,
    /// The Envoy cluster that reaches the resource.
    pub cluster: String,
    /// The resource.
    pub resource: Url,
    /// Issuer identifiers of the servers that may be found.
    pub allowed: Vec<String>,
}

impl Discovery {
    /// The key under which the answer is shared.
    pub fn key(&self) -> Key {
        let allowed = self.allowed.join(" ");
        let resource = self.resource.as_str();
        of_fields(&[b"resource", resource.as_bytes(), self.cluster.as_bytes(), allowed.as_bytes()])
    }
}

/// `actor_token` of the exchange.
#[derive(Debug)]
pub enum Actor {
    /// A token of this type.
    Token(Secret, &'static str),
    /// A client assertion of ours, as for authentication but another one.
    ClientAssertion,
}

/// Who may call a resource that is upgraded, and as whom.
#[derive(Debug)]
pub struct Caller {
    /// Its name for the record.
    pub name: String,
    /// How it is known.
    pub presents: Presents,
    /// Whom it stands for.
    pub subject: Subject,
}

impl Caller {
    /// Whether a refresh token stands for it.
    pub fn uses_refresh_token(&self) -> bool {
        self.presents.is_unproven() || matches!(self.subject, Subject::RefreshToken(_))
    }
}

/// How a caller is known.
#[derive(Debug)]
pub enum Presents {
    /// By an ID Token of the identity provider, issued to our client.
    IdToken,
    /// By an access token of the identity provider.
    AccessToken {
        /// One of its audiences.
        audience: String,
        /// Whether its `typ` may be that of any JWT.
        untyped: bool,
    },
    /// By a JWT that another issuer made for a workload.
    Workload(Rc<Workload>),
    /// By a SAML assertion or response, in this header, of this issuer for this audience. Its signature is the
    /// identity provider's to verify.
    Saml {
        /// The header.
        header: String,
        /// Entity identifier of the issuer.
        issuer: String,
        /// Entity identifier of the service provider.
        audience: String,
    },
    /// By an opaque refresh token of the identity provider, issued to our client, in this header.
    RefreshToken(String),
    /// By an API key of this SHA-256, in this header.
    ApiKey(String, Key),
    /// By HTTP Basic: this user, and a password of this SHA-256.
    Basic(String, Key),
    /// By the certificate of its connection.
    Certificate(RegisteredCertificate),
}

impl Presents {
    /// Whether nobody here can tell if it is genuine: only its form is checked, and the rest is for the identity
    /// provider to say.
    pub fn is_unproven(&self) -> bool {
        matches!(self, Self::RefreshToken(_) | Self::Saml { .. })
    }
}

/// Whom a caller stands for.
#[derive(Debug)]
pub enum Subject {
    /// Itself: what it presents is the subject token.
    Own,
    /// The user of this ID Token, which the operator bound it to.
    IdToken(Secret),
    /// The user of this refresh token, which the operator bound it to.
    RefreshToken(Secret),
    /// Our own client at the identity provider: with an access token by client credentials, of this scope.
    ClientCredentials(String),
    /// Whom the identity provider takes the caller's JWT for, in a JWT bearer grant: with an access token of this
    /// scope.
    JwtBearer(String),
}

/// Which workloads of an issuer are meant.
#[derive(Debug)]
pub struct Workload {
    /// Who issues their tokens.
    pub issuer: Rc<IdentityProvider>,
    /// The one audience of the tokens.
    pub audience: String,
    /// What their claims must say.
    pub rules: Vec<ClaimRule>,
    /// Longest life of a token, in seconds.
    pub max_lifetime: u64,
}

/// What an identity provider wants of token exchanges that others do not.
#[derive(Debug, Clone)]
pub struct ExchangeRules {
    /// Whether a refresh token is first used to get an ID Token, which is then exchanged.
    pub refreshes_id_token: bool,
    /// Whether `resource` is sent.
    pub sends_resource: bool,
    /// Further parameters, sent as they are.
    pub parameters: Vec<(String, String)>,
    /// Whether a user's `sub` in an ID-JAG may differ from that in an ID Token.
    pub pairwise_subjects: bool,
    /// What is sent of a SAML response.
    pub saml_payload: Payload,
    /// How it is written.
    pub saml_encoding: Encoding,
    /// Whether it is first exchanged for a refresh token, which is then exchanged.
    pub saml_for_refresh_token: bool,
}
