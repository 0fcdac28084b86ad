//! Other authorization servers, and how they are reached.

use crate::digest::{Key, of_fields};
use crate::http::Url;

/// An authorization server that Jagway calls: an identity provider or a Resource AS.
#[derive(Debug)]
pub struct Party {
    /// Where it stands in the configuration, for the log.
    pub path: String,
    /// Its issuer identifier.
    pub issuer: Url,
    /// The Envoy cluster that reaches it.
    pub cluster: String,
    /// Its token endpoint, if not to be discovered.
    pub token_endpoint: Option<Url>,
    /// Its key set, if not to be discovered.
    pub jwks_uri: Option<Url>,
    /// Whether endpoints may be plain `http`.
    pub allow_http: bool,
    /// The key under which its metadata is shared.
    pub metadata_key: Key,
    /// The key under which its key set is shared.
    pub keys_key: Key,
}

impl Party {
    /// The server `issuer` that `cluster` reaches, at `path` in the configuration.
    pub fn new(
        path: &str,
        issuer: Url,
        cluster: String,
        token_endpoint: Option<Url>,
        jwks_uri: Option<Url>,
        allow_http: bool,
    ) -> Self {
        let mut party = Self {
            path: path.to_owned(),
            issuer,
            cluster,
            token_endpoint,
            jwks_uri,
            allow_http,
            metadata_key: [0; 32],
            keys_key: [0; 32],
        };
        party.metadata_key = party.document_key("metadata");
        party.keys_key = party.document_key("keys");
        party
    }

    /// The key under which `kind` of document of this party is shared.
    pub fn document_key(&self, kind: &str) -> Key {
        let text = |url: &Option<Url>| url.as_ref().map_or("", Url::as_str).to_owned();
        of_fields(&[
            kind.as_bytes(),
            self.issuer.as_str().as_bytes(),
            self.cluster.as_bytes(),
            text(&self.jwks_uri).as_bytes(),
            &[u8::from(self.allow_http)],
        ])
    }
}
