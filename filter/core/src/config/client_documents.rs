//! Clients that nobody registered: whose metadata documents are read (Client ID Metadata Documents).

use super::build::Reading;
use super::fields::{Result, cluster, fail};
use super::server::{resources, trusts};
use super::{ClientDocuments, DocumentHost, IdentityProvider, Party, raw};
use crate::client_metadata::client_url;
use crate::http::Url;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Where they stand in the document.
pub(super) const PATH: &str = "authorization_server.client_id_metadata_documents";

impl Reading<'_> {
    pub(super) fn client_documents(
        &self,
        raw: &raw::ClientDocuments,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<ClientDocuments> {
        let mut hosts = BTreeMap::new();
        for (name, host) in &raw.hosts {
            let path = format!("{PATH}.hosts.{name}");
            hosts.insert(name.clone(), Rc::new(self.document_host(&path, name, host, providers)?));
        }
        if hosts.is_empty() {
            return fail(format!("{PATH}.hosts"), "needs at least one host");
        }
        if raw.allow_public {
            let path = format!("{PATH}.allow_public");
            self.warn(&path, "whoever holds the key of a bound ID-JAG is taken for its client");
        }
        let allow_public = raw.allow_public;
        Ok(ClientDocuments { hosts, allow_public, allow_http: self.allow_http })
    }

    fn document_host(
        &self,
        path: &str,
        name: &str,
        raw: &raw::RegisteredClient,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<DocumentHost> {
        let origin = format!("https://{name}");
        // Any client there: what no `client_id` can have would be an entry that nothing uses. A `*`
        // would look like one for every name.
        let fits = client_url(&format!("{origin}/client"), self.allow_http);
        let fits = fits.filter(|_| !name.contains('*'));
        let Some(issuer) = fits.and(Url::parse(&origin)).filter(|url| url.authority() == name)
        else {
            return fail(path, "must be a host name as it stands in URLs, without scheme and port");
        };
        let by_document = [
            "secret_sha256",
            "private_key_jwt",
            "tls_client_auth",
            "self_signed_tls_client_auth",
            "dpop_bound_access_tokens",
        ];
        let here = [
            raw.secret_sha256.is_some(),
            raw.private_key_jwt.is_some(),
            raw.tls_client_auth.is_some(),
            raw.self_signed_tls_client_auth.is_some(),
            raw.dpop_bound_access_tokens,
        ];
        if let Some((field, _)) = by_document.iter().zip(here).find(|(_, here)| *here) {
            return fail(format!("{path}.{field}"), "is what a client's own document says");
        }
        let cluster = cluster(path, raw.cluster.as_deref().unwrap_or_default())?;
        Ok(DocumentHost {
            party: Rc::new(Party::new(path, issuer, cluster, None, None, self.allow_http)),
            identity_providers: Rc::new(trusts(path, &raw.identity_providers, providers)?),
            resources: resources(&raw.resources),
        })
    }
}
