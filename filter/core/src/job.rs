//! Jobs: what runs once for the whole process, and whose results all workers share.

use crate::digest::{Key, hex, short_digest};
use crate::exchange::Exchange;
use crate::{backend, client_discovery};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// Work whose result belongs to the process and to nobody's stream.
#[derive(Debug, Clone)]
pub enum Job {
    /// Fetch the authorization server metadata of a party (RFC 8414, OIDC Discovery).
    Metadata(Rc<crate::config::Party>),
    /// Fetch the key set of an identity provider (RFC 7517).
    Keys(Rc<crate::config::Party>),
    /// Ask a resource who its authorization server is (RFC 9728).
    Resource(Rc<crate::config::Discovery>),
    /// Exchange a subject for an access token: both legs of EMA.
    Exchange(Rc<Exchange>),
    /// Get a token for a backend from its authorization server.
    Backend(Rc<backend::Fetch>),
    /// Fetch what a client says about itself, and its keys (Client ID Metadata Document).
    ClientMetadata(Rc<client_discovery::Fetch>),
}

impl Job {
    /// Everything that makes this job what it is, as a digest.
    pub fn key(&self) -> Key {
        match self {
            Self::Metadata(party) => party.metadata_key,
            Self::Keys(party) => party.keys_key,
            Self::Resource(discovery) => discovery.key(),
            Self::Exchange(exchange) => exchange.key,
            Self::Backend(fetch) => fetch.key,
            Self::ClientMetadata(fetch) => fetch.key,
        }
    }

    /// Whether its result is for more than those who wait for it.
    pub fn is_kept(&self) -> bool {
        !matches!(self, Self::Exchange(exchange) if !exchange.upgrade.caches)
    }

    /// Where a result under `key` lies in the shared store.
    pub fn place(&self, key: &Key) -> Place {
        match self {
            // As many keys as there are parties in the configuration.
            Self::Metadata(_) | Self::Keys(_) | Self::Resource(_) => {
                Place { key: format!("jagway/document/{}", hex(key)), ways: 1 }
            }
            Self::Exchange(exchange) => Place::of_token(key, exchange.caller.is_unproven),
            Self::Backend(_) => Place::of_token(key, false),
            Self::ClientMetadata(fetch) => Place::of_client(fetch.host(), key),
        }
    }
}

/// A bucket of the shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its key.
    pub key: String,
    /// How many results it holds.
    pub ways: usize,
}

impl Place {
    /// Where the token under `key` lies. Clients cause these, so there is a fixed number of buckets; those
    /// who can cause them with what nobody here can prove have buckets of their own.
    pub fn of_token(key: &Key, is_unproven: bool) -> Self {
        let bucket = key.first().copied().unwrap_or_default();
        let kind = if is_unproven { "unproven" } else { "token" };
        Self { key: format!("jagway/{kind}/{bucket:x}"), ways: 16 }
    }

    /// Where the metadata of a client lies. Whoever can name a URL causes these before anything is
    /// proven, so there are fewer, and what lies there is small: 256 clients of each listed host, which cannot crowd out another's.
    fn of_client(host: &str, key: &Key) -> Self {
        let bucket = key.first().copied().unwrap_or_default() % 32;
        Self { key: format!("jagway/client-{}/{bucket:x}", short_digest(host)), ways: 8 }
    }
}

/// How good a result must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Any that is usable.
    Usable,
    /// One made after this second, unless one was tried for less than 30 s ago in vain.
    NewerThan(u64),
}

/// A result.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// The result itself.
    pub data: Vec<u8>,
    /// When it was made. This and the following in seconds since the epoch.
    pub made_at: u64,
    /// From when on it should be made anew while it still serves.
    pub refresh_at: u64,
    /// From when on it must not be used.
    pub usable_until: u64,
}

impl core::fmt::Debug for Value {
    /// Without the data, which may be a token.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Value(made at {}, usable until {})", self.made_at, self.usable_until)
    }
}

/// Why a job has no result: what the waiting requests need to know of it. The log of the worker
/// that ran it knows more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobError {
    /// The other side is down, slow, or throttles us; or our own machinery is.
    Unavailable,
    /// The other side is to be left alone for so many seconds.
    Throttled(u64),
    /// The other side answered something that its standard does not allow.
    BadAnswer,
    /// The other side does not accept *us*: our credential, our registration.
    Misconfigured,
    /// The identity provider does not accept the subject token (any more).
    SubjectRejected,
    /// The subject or the client may not have this.
    Forbidden,
    /// The user has to authenticate again, or better (RFC 9470).
    StepUp {
        /// `acr_values` as the identity provider gave them.
        acr_values: Option<String>,
        /// `max_age` in seconds.
        max_age: Option<u64>,
    },
}

impl JobError {
    /// Whether this is a "no" to the subject or the client, and not a failure of somebody's: what
    /// was granted before then counts no longer.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::SubjectRejected | Self::Forbidden | Self::StepUp { .. })
    }

    /// How long, in seconds, waiting requests are told the same without another try.
    pub fn remembered_for(&self) -> u64 {
        match self {
            Self::Unavailable | Self::BadAnswer => 2,
            Self::Throttled(seconds) => (*seconds).min(60),
            Self::Misconfigured | Self::SubjectRejected => 5,
            Self::Forbidden | Self::StepUp { .. } => 10,
        }
    }
}
