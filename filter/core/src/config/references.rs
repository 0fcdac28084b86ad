//! What can only be seen with the whole document in view.

use super::fields::{Result, fail};
use super::{AuthorizationServer, Binding, Caller, Guard, Kind, Resource, client_documents, raw};
use crate::http::Url;
use crate::names;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Duplicates, missing counterparts, and entries that nothing uses. Returns warnings: settings that
/// nothing uses.
pub(super) fn check(
    raw: &raw::Document,
    resources: &[Rc<Resource>],
    server: Option<&AuthorizationServer>,
    guards: &[Rc<Guard>],
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if resources.is_empty() && guards.is_empty() {
        return fail("resources", "needs at least one entry");
    }
    // As requests are matched: by authority and path, a terminating slash or none.
    let route =
        |url: &Url| (url.authority().to_owned(), url.path().trim_end_matches('/').to_owned());
    let mut routes = BTreeSet::new();
    for (index, resource) in resources.iter().enumerate() {
        let path = format!("resources[{index}]");
        if !routes.insert(route(&resource.url)) {
            return fail(path, "the same URL again: this entry would never be used");
        }
        let own = server.iter().flat_map(|server| {
            let metadata = server.issuer.with_well_known(names::WELL_KNOWN_AUTHORIZATION_SERVER);
            let fixed = [server.endpoint.url.clone(), server.jwks_uri.clone(), metadata];
            fixed.into_iter().chain(server.revocation.endpoints().cloned())
        });
        if own.into_iter().any(|own| route(&own) == route(&resource.url)) {
            return fail(path, "is where our own authorization server answers");
        }
    }
    for (index, guard) in guards.iter().enumerate() {
        let path = format!("guards[{index}].token_endpoint");
        let host = guard.endpoint.url.authority();
        let elsewhere = |url: &Url| url.authority() != host;
        // What a guard lets pass unjudged must not be a way around something that is judged.
        if !resources.iter().all(|resource| elsewhere(&resource.url))
            || !server.is_none_or(|server| elsewhere(&server.issuer))
        {
            return fail(path, "is on a host that something else here answers on");
        }
        if guards.iter().take(index).any(|other| !elsewhere(&other.endpoint.url)) {
            return fail(path, "is on the host of another guard");
        }
    }
    let accepts = resources.iter().any(|resource| matches!(resource.kind, Kind::Accept(_)));
    match (accepts, server) {
        (true, None) => return fail("authorization_server", "is needed for `accept`"),
        (false, Some(_)) => return fail("authorization_server", "no resource has `accept`"),
        _ => {}
    }
    for (index, resource) in resources.iter().enumerate() {
        let Kind::Accept(accept) = &resource.kind else {
            continue;
        };
        let path = format!("resources[{index}].accept");
        let ours = server.map(|server| &server.issuer);
        if accept.other_authorization_servers.iter().any(|other| Some(other) == ours) {
            let path = format!("{path}.other_authorization_servers");
            return fail(path, "is our own `authorization_server.issuer`");
        }
        let same_host =
            |other: &&Rc<Resource>| other.resource.origin() == resource.resource.origin();
        if accept.metadata_at_root && resources.iter().filter(same_host).count() > 1 {
            let path = format!("{path}.metadata_at_root");
            return fail(path, "is for a host with one resource");
        }
    }
    for (index, resource) in resources.iter().enumerate() {
        if let (Kind::Accept(accept), Some(server)) = (&resource.kind, server)
            && accept.binding == Some(Binding::Certificate)
            && !server.reads_certificates
        {
            let path = format!("resources[{index}].accept.bound_tokens");
            return fail(path, "needs `authorization_server.mutual_tls`");
        }
    }
    let registered = raw.authorization_server.iter().flat_map(|server| &server.clients);
    let registered =
        registered.map(|(id, client)| (format!("authorization_server.clients.{id}"), client));
    let hosts = document_hosts(raw);
    let hosts =
        hosts.map(|(name, host)| (format!("{}.hosts.{name}", client_documents::PATH), host));
    for (path, client) in registered.chain(hosts) {
        let accepted = |name: &String| {
            let mut named = resources.iter().filter(|resource| resource.resource.as_str() == name);
            named.any(|resource| matches!(resource.kind, Kind::Accept(_)))
        };
        if let Some(index) = client.resources.iter().position(|name| !accepted(name)) {
            let path = format!("{path}.resources[{index}]");
            return fail(path, "is not the `resource` of an entry with `accept`");
        }
    }
    let uses_refresh_tokens = resources.iter().any(|resource| match &resource.kind {
        Kind::Upgrade(upgrade) => upgrade.callers.iter().any(Caller::uses_refresh_token),
        Kind::Accept(_) => false,
    });
    if raw.refresh_token_store.is_some() && !uses_refresh_tokens {
        return fail("refresh_token_store", "no caller has a refresh token");
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
        let used_by_upgrade = resources.iter().any(|resource| match &resource.kind {
            Kind::Upgrade(upgrade) => {
                let mut used = upgrade.workload_issuers().chain([&upgrade.identity_provider]);
                used.any(|used| used.party.issuer.as_str() == provider.issuer)
            }
            Kind::Accept(_) => false,
        });
        let clients = raw.authorization_server.iter().flat_map(|server| &server.clients);
        let hosts = document_hosts(raw).flat_map(|(_, host)| &host.identity_providers);
        let guarded = raw.guards.iter().flat_map(|guard| &guard.clients);
        let clients = clients.chain(guarded);
        let used_by_client = clients.flat_map(|(_, client)| &client.identity_providers);
        let used_by_client = used_by_client.chain(hosts).any(|used| used.name() == name);
        if !used_by_upgrade && !used_by_client {
            return fail(path, "nothing uses this identity provider");
        }
        // Of no use, but nothing that anybody could be misled by: one entry may serve both configurations.
        let idle = [
            ("client", provider.client.is_some() && !used_by_upgrade),
            ("token_exchange", provider.token_exchange.is_some() && !used_by_upgrade),
            ("token_endpoint", provider.token_endpoint.is_some() && !used_by_upgrade),
            ("max_id_jag_lifetime", provider.max_id_jag_lifetime.is_some() && !used_by_client),
            ("required_acr", !provider.required_acr.is_empty() && !used_by_client),
            ("max_auth_age", provider.max_auth_age.is_some() && !used_by_client),
            ("revocation", provider.revocation.is_some() && !used_by_client),
            ("tenants", !provider.tenants.is_empty() && !used_by_client),
        ];
        let idle = idle.iter().filter(|(_, idle)| *idle);
        warnings.extend(idle.map(|(field, _)| format!("{path}.{field}: nothing here uses it")));
    }
    Ok(warnings)
}

fn document_hosts(raw: &raw::Document) -> impl Iterator<Item = &(String, raw::RegisteredClient)> {
    let server = raw.authorization_server.iter();
    let documents = server.filter_map(|server| server.client_id_metadata_documents.as_ref());
    documents.flat_map(|documents| &documents.hosts)
}
