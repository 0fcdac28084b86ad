//! Resources: what is upgraded and what is accepted for.

use super::build::Reading;
use super::fields::{Result, authentication, fail, scopes};
use super::mcp::mcp;
use super::{
    Accept, Binding, Credentials, IdentityProvider, Kind, Resource, authorization_details, raw,
};
use crate::call;
use crate::http::Url;
use crate::names;
use std::collections::BTreeMap;
use std::rc::Rc;

impl Reading<'_> {
    pub(super) fn resource(
        &self,
        path: &str,
        raw: &raw::Resource,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<Resource> {
        let resource = self.url(&format!("{path}.resource"), &raw.resource)?;
        if resource.path_and_query().contains('?') {
            return fail(format!("{path}.resource"), "must have no query");
        }
        match (&raw.upgrade, &raw.accept) {
            (Some(upgrade), None) => {
                let path = format!("{path}.upgrade");
                let upgrade = self.upgrade(&path, upgrade, &resource, providers)?;
                let url = upgrade.url.clone();
                Ok(Resource { resource, url, kind: Kind::Upgrade(Rc::new(upgrade)) })
            }
            (None, Some(accept)) => {
                let path = format!("{path}.accept");
                let accept = self.accept(&path, accept, &resource, providers)?;
                let kind = Kind::Accept(Rc::new(accept));
                Ok(Resource { url: resource.clone(), resource, kind })
            }
            _ => fail(path, "needs exactly one of `upgrade` and `accept`"),
        }
    }

    fn accept(
        &self,
        path: &str,
        raw: &raw::Accept,
        resource: &Url,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<Accept> {
        let granted = scopes(&format!("{path}.scopes"), &raw.scopes)?;
        let default_scopes = scopes(&format!("{path}.default_scopes"), &raw.default_scopes)?;
        if let Some(unknown) = default_scopes.iter().find(|scope| !granted.contains(scope)) {
            let problem = format!("`{unknown}` is not in `scopes`");
            return fail(format!("{path}.default_scopes"), problem);
        }
        for (index, origin) in raw.allowed_origins.iter().enumerate() {
            let path = format!("{path}.allowed_origins[{index}]");
            let url = self.url(&path, origin)?;
            if url.origin() != origin {
                return fail(path, "must be an origin: scheme, host and port, no path");
            }
        }
        authentication(path, &raw.required_acr, raw.max_auth_age)?;
        let mcp = raw.mcp.as_ref().map(|raw| mcp(path, raw, &granted)).transpose()?;
        let covers_body = raw.mcp.as_ref().is_some_and(|mcp| mcp.content_digest);
        if covers_body && !matches!(raw.bound_tokens, Some(raw::Binding::Dpop)) {
            let path = format!("{path}.mcp.content_digest");
            return fail(path, "needs `bound_tokens: dpop`: else there is no proof to have it");
        }
        let metadata = resource.with_well_known(names::WELL_KNOWN_PROTECTED_RESOURCE);
        let mut accept = Accept {
            name: raw.name.clone(),
            scope: granted.join(" ").into(),
            resource_metadata: metadata.as_str().into(),
            own_headers: Vec::new(),
            hidden: Rc::default(),
            scopes: granted,
            default_scopes,
            allowed_origins: raw.allowed_origins.clone(),
            other_authorization_servers: self.others(path, raw)?,
            others_first: raw.others_first,
            metadata_at_root: raw.metadata_at_root,
            binding: raw.bound_tokens.map(|binding| match binding {
                raw::Binding::Dpop => Binding::Dpop,
                raw::Binding::Certificate => Binding::Certificate,
            }),
            authorization_details: authorization_details::types(path, &raw.authorization_details)?,
            credentials: Credentials::new(self.credentials(path, raw, providers)?),
            identity_header: match &raw.identity_header {
                None => None,
                Some(raw) => Some(self.identity_header(path, raw, resource)?),
            },
            mcp,
            required_acr: raw.required_acr.clone(),
            max_auth_age: raw.max_auth_age,
        };
        accept.own_headers = own_headers(&accept);
        accept.hidden = hidden(&accept);
        Ok(accept)
    }
}

/// What the credentials of the backend, and who calls, are told it in.
fn own_headers(accept: &Accept) -> Vec<String> {
    let credentials = accept.credentials.iter().filter_map(|mapped| mapped.credential.header());
    let identity = accept.identity_header.iter().map(|header| header.name.as_str());
    let mut names: Vec<String> = credentials.chain(identity).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Cookies and challenges of the backend are between it and us; it may echo what we sent, too; and a session that
/// cannot be bound would be anybody's.
fn hidden(accept: &Accept) -> Rc<[String]> {
    let binds = accept.mcp.as_ref().is_some_and(|mcp| mcp.bind_sessions);
    let hidden = ["set-cookie", "www-authenticate", "proxy-authenticate"].into_iter();
    let hidden = hidden.chain(accept.own_headers.iter().map(String::as_str));
    hidden.chain(binds.then_some(call::SESSION_HEADER)).map(str::to_owned).collect()
}

impl Reading<'_> {
    /// The resource's own authorization servers: EMA comes beside them, it does not take their place.
    fn others(&self, path: &str, raw: &raw::Accept) -> Result<Vec<Url>> {
        let mut others = Vec::new();
        for (index, issuer) in raw.other_authorization_servers.iter().enumerate() {
            let path = format!("{path}.other_authorization_servers[{index}]");
            others.push(self.url(&path, issuer)?);
        }
        if raw.others_first && others.is_empty() {
            return fail(format!("{path}.others_first"), "needs `other_authorization_servers`");
        }
        Ok(others)
    }
}
