//! What can only be seen with the whole document in view.

use super::fields::{Result, fail};
use super::{AuthorizationServer, Kind, Resource, raw};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Duplicates, missing counterparts, and entries that nothing uses.
pub(super) fn check(
    raw: &raw::Document,
    resources: &[Rc<Resource>],
    server: Option<&AuthorizationServer>,
) -> Result<()> {
    if resources.is_empty() {
        return fail("resources", "needs at least one entry");
    }
    let mut urls = BTreeSet::new();
    for (index, resource) in resources.iter().enumerate() {
        if !urls.insert(resource.url.as_str()) {
            return fail(format!("resources[{index}]"), "the same URL again");
        }
    }
    let accepts = resources.iter().any(|resource| matches!(resource.kind, Kind::Accept(_)));
    match (accepts, server) {
        (true, None) => return fail("authorization_server", "is needed for `accept`"),
        (false, Some(_)) => return fail("authorization_server", "no resource has `accept`"),
        _ => {}
    }
    let mut issuers = BTreeSet::new();
    for (name, provider) in &raw.identity_providers {
        let path = format!("identity_providers.{name}");
        if !issuers.insert(provider.issuer.as_str()) {
            return fail(format!("{path}.issuer"), "the same issuer again");
        }
        if server.is_some_and(|server| server.issuer.as_str() == provider.issuer) {
            // ID-JAG §9.3: an ID-JAG of our own making is never accepted.
            return fail(format!("{path}.issuer"), "is our own `authorization_server.issuer`");
        }
        let upgrades = raw.resources.iter().filter_map(|resource| resource.upgrade.as_ref());
        let used_by_upgrade = upgrades.clone().any(|upgrade| upgrade.identity_provider == *name);
        let clients = raw.authorization_server.iter().flat_map(|server| server.clients.values());
        let mut used_by_client = clients.flat_map(|client| &client.identity_providers);
        if !used_by_upgrade && !used_by_client.any(|used| used == name) {
            return fail(path, "nothing uses this identity provider");
        }
    }
    Ok(())
}
