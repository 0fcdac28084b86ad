//! Resources that are accepted for, and what their servers get in the place of the client's token.

use super::{Client, Mcp, Party};
use crate::authorization_details::Types;
use crate::http::Url;
use crate::secret::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How a resource that knows nothing of EMA is fronted.
pub struct Accept {
    /// Its name for people.
    pub name: Option<String>,
    /// Scopes that may be granted.
    pub scopes: Vec<String>,
    /// Those, space-separated: what a refusal says to ask for.
    pub scope: Rc<str>,
    /// URL of its metadata (RFC 9728 §3.1).
    pub resource_metadata: Rc<str>,
    /// Scopes granted if the ID-JAG has none.
    pub default_scopes: Vec<String>,
    /// Browser origins allowed besides the resource's own.
    pub allowed_origins: Vec<String>,
    /// The authorization details it understands (RFC 9396).
    pub authorization_details: Types,
    /// Credentials of the backend, and whom each is for.
    pub credentials: Credentials,
    /// Header that tells the backend who calls.
    pub identity_header: Option<IdentityHeader>,
    /// What is looked at in calls; `None`: bodies are not looked at.
    pub mcp: Option<Mcp>,
    /// Authentication context classes of which a token must have one; empty: any.
    pub required_acr: Vec<String>,
    /// Longest time since the user authenticated, in seconds.
    pub max_auth_age: Option<u64>,
    /// What its tokens must be bound to.
    pub binding: Option<Binding>,
    /// Authorization servers of its own, whose tokens it checks itself.
    pub other_authorization_servers: Vec<Url>,
    /// Whether metadata names those before us.
    pub others_first: bool,
    /// Whether its metadata is at the root of its host too.
    pub metadata_at_root: bool,
    /// Names of the header fields that we set for the backend.
    pub own_headers: Vec<String>,
    /// Header fields of the backend's answers that no client sees.
    pub hidden: Rc<[String]>,
}

/// What a token is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// A key of the client's (RFC 9449).
    Dpop,
    /// A certificate of the client's (RFC 8705).
    Certificate,
}

/// Credentials of the backend, and whom each is for: the first that fits counts.
pub struct Credentials {
    all: Vec<MappedCredential>,
    /// Where those for one user are; there may be as many as users.
    subjects: BTreeMap<String, usize>,
    /// Where the others are, in order.
    others: Vec<usize>,
    /// By issuer, the groups that any is for.
    groups: BTreeMap<String, BTreeSet<String>>,
}

impl Credentials {
    /// In this order.
    pub fn new(all: Vec<MappedCredential>) -> Self {
        let (mut subjects, mut others) = (BTreeMap::new(), Vec::new());
        let mut groups = BTreeMap::<_, BTreeSet<_>>::new();
        for (index, mapped) in all.iter().enumerate() {
            if let Whom::Group(issuer, group) = &mapped.whom {
                groups.entry(issuer.clone()).or_default().insert(group.clone());
            }
            match &mapped.whom {
                Whom::Subject(name) => drop(subjects.entry(name.clone()).or_insert(index)),
                _ => others.push(index),
            }
        }
        Self { all, subjects, others, groups }
    }

    /// The place of the first that is for this holder.
    pub fn place(&self, holder: &Holder<'_>) -> Option<usize> {
        let is_for = |place: &usize| self.all.get(*place).is_some_and(|one| one.is_for(holder));
        let other = self.others.iter().copied().find(is_for);
        self.subjects.get(holder.subject).copied().into_iter().chain(other).min()
    }

    /// The first that is for this holder.
    pub fn first(&self, holder: &Holder<'_>) -> Option<&Credential> {
        self.all.get(self.place(holder)?).map(|mapped| &mapped.credential)
    }

    /// Whether membership in `group` of `issuer` decides which of them a user gets.
    pub fn ask_for_group(&self, issuer: &str, group: &str) -> bool {
        self.groups.get(issuer).is_some_and(|groups| groups.contains(group))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &MappedCredential> {
        self.all.iter()
    }
}

/// A credential of the backend, and whom it is for.
pub struct MappedCredential {
    /// Whom it is for.
    pub whom: Whom,
    /// The credential.
    pub credential: Credential,
}

/// Whom a credential is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Whom {
    /// Everybody.
    Anyone,
    /// The user with this name ([`crate::subject::LocalSubject::key`], as base64url).
    Subject(String),
    /// The members of a group of this issuer.
    Group(String, String),
    /// Whoever was granted this scope.
    Scope(String),
}

/// A credential of the backend.
pub enum Credential {
    /// A header with a fixed value.
    Header(String, Secret),
    /// A bearer token from the backend's own authorization server.
    Token(Rc<BackendAs>),
    /// None: the identity header is enough.
    None,
}

impl Credential {
    /// The header it stands in.
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Header(name, _) => Some(name),
            Self::Token(_) => Some("authorization"),
            Self::None => None,
        }
    }
}

/// How bearer tokens for a backend are got from its authorization server.
#[derive(Debug)]
pub struct BackendAs {
    /// The authorization server.
    pub party: Rc<Party>,
    /// Our registration there.
    pub client: Client,
    /// Scope to ask for, space-separated; may be empty.
    pub scope: String,
    /// `resource` to ask for (RFC 8707).
    pub resource: Option<Url>,
    /// Whether the token is for the user (RFC 8693) and not for us (RFC 6749 §4.4).
    pub on_behalf: bool,
}

/// A header that tells the backend who calls: a JWT of ours, for it alone, for a minute.
#[derive(Debug)]
pub struct IdentityHeader {
    /// Its name.
    pub name: String,
    /// `aud` of the JWT.
    pub audience: String,
}

/// What a credential is chosen by: nothing but what the access token says.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The user's name here.
    pub subject: &'a str,
    /// The identity provider.
    pub issuer: &'a str,
    /// The user's groups there.
    pub groups: &'a [String],
    /// Granted scope, space-separated.
    pub scope: &'a str,
}

impl MappedCredential {
    /// Whether it is for this holder.
    fn is_for(&self, holder: &Holder<'_>) -> bool {
        match &self.whom {
            Whom::Anyone => true,
            Whom::Subject(name) => name == holder.subject,
            Whom::Group(issuer, group) => {
                issuer == holder.issuer && holder.groups.iter().any(|other| other == group)
            }
            Whom::Scope(scope) => holder.scope.split(' ').any(|other| other == scope),
        }
    }
}
