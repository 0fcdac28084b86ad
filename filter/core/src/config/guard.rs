//! Token endpoints of other authorization servers, guarded.

use super::build::Reading;
use super::fields::{Result, fail, identifier};
use super::raw::OtherGrants;
use super::server::{resources, used};
use super::{Guard, IdentityProvider, TokenEndpoint, raw};
use crate::routes::is_ambiguous;
use std::collections::BTreeMap;
use std::rc::Rc;

impl Reading<'_> {
    pub(super) fn guard(
        &self,
        path: &str,
        raw: &raw::Guard,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<Guard> {
        let issuer = self.issuer(path, &raw.issuer)?;
        let url = self.url(&format!("{path}.token_endpoint"), &raw.token_endpoint)?;
        if url.path_and_query().contains('?') {
            return fail(format!("{path}.token_endpoint"), "must have no query");
        }
        let mut clients = BTreeMap::new();
        for (id, client) in &raw.clients {
            let path = format!("{path}.clients.{id}");
            identifier(&path, id)?;
            if client.tls_client_auth.is_some() || client.self_signed_tls_client_auth.is_some() {
                return fail(
                    path,
                    "a guard reads no certificates: leave that to the server behind",
                );
            }
            if let Some(index) =
                client.resources.iter().position(|one| !raw.resources.contains(one))
            {
                return fail(
                    format!("{path}.resources[{index}]"),
                    "is not in the guard's `resources`",
                );
            }
            let client = self.registered_client(&path, client, providers, true)?;
            clients.insert(id.clone(), Rc::new(client));
        }
        if clients.is_empty() {
            return fail(format!("{path}.clients"), "no client could ever redeem an ID-JAG");
        }
        if raw.resources.is_empty() {
            return fail(format!("{path}.resources"), "needs the resources that ID-JAGs may name");
        }
        for (index, resource) in raw.resources.iter().enumerate() {
            self.url(&format!("{path}.resources[{index}]"), resource)?;
        }
        for (index, other) in raw.paths.iter().enumerate() {
            let path = format!("{path}.paths[{index}]");
            if is_ambiguous(other) || other.contains('?') || same_path(other, url.path()) {
                return fail(
                    path,
                    "must be another path than the token endpoint's, in normal form",
                );
            }
        }
        let trusts = clients.values().map(|client| &*client.identity_providers);
        let identity_providers = used(trusts, providers);
        if identity_providers.contains_key(issuer.as_str()) {
            // ID-JAG §9.3: a grant must cross a trust domain.
            return fail(format!("{path}.issuer"), "is one of its identity providers");
        }
        let (store, skew) = (raw.replay_store.as_ref(), raw.clock_skew.unwrap_or(60));
        let audiences = &raw.accepted_audiences;
        let rules = self.grant_rules(path, audiences, store, &issuer, skew, identity_providers)?;
        Ok(Guard {
            endpoint: TokenEndpoint {
                issuer,
                url,
                rules,
                accept_token_endpoint_audience: true,
                clients,
                client_documents: None,
            },
            resources: resources(&raw.resources),
            passes_other_grants: raw.other_grants == OtherGrants::Pass,
            paths: raw.paths.clone(),
        })
    }
}

/// Whether a lenient server could take `a` for `b`.
fn same_path(a: &str, b: &str) -> bool {
    let plain = |path: &str| path.replace('/', "").to_ascii_lowercase();
    plain(a) == plain(b)
}
