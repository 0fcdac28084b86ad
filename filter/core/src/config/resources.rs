//! Resources: what is upgraded and what is accepted for.

use super::build::Reading;
use super::fields::{Result, authentication, cluster, fail, header_name, named, scopes, within};
use super::mcp::mcp;
use super::{
    Accept, Binding, Caller, IdentityProvider, Kind, Party, Resource, Upgrade,
    authorization_details, raw,
};
use crate::http::Url;
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
                let url = match &upgrade.url {
                    None => resource.clone(),
                    Some(url) => self.url(&format!("{path}.url"), url)?,
                };
                let upgrade = self.upgrade(&path, upgrade, &resource, providers)?;
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

    fn upgrade(
        &self,
        path: &str,
        raw: &raw::Upgrade,
        resource: &Url,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<Upgrade> {
        let field = format!("{path}.identity_provider");
        let provider = named(&field, &raw.identity_provider, providers)?;
        let Some(idp_client) = &provider.client else {
            let problem = format!(
                "identity_providers.{}.client is needed to exchange tokens there",
                raw.identity_provider
            );
            return fail(field, problem);
        };
        let server = &raw.authorization_server;
        let server_path = format!("{path}.authorization_server");
        let issuer = self.issuer(&server_path, &server.issuer)?;
        if issuer == provider.party.issuer {
            // ID-JAG §9.3: a grant must cross a trust domain.
            return fail(format!("{server_path}.issuer"), "is the identity provider itself");
        }
        let mut callers: Vec<Caller> = Vec::new();
        for (index, caller) in raw.callers.iter().enumerate() {
            let path = format!("{path}.callers[{index}]");
            let caller = self.caller(&path, caller)?;
            if callers.iter().any(|other| same_caller(other, &caller)) {
                return fail(path, "the same caller again: this entry would never be used");
            }
            callers.push(caller);
        }
        if callers.is_empty() {
            return fail(format!("{path}.callers"), "nobody could ever call");
        }
        let max_token_age = raw.max_token_age.unwrap_or(300);
        within(&format!("{path}.max_token_age"), max_token_age, 1, 3600)?;
        Ok(Upgrade {
            resource: resource.clone(),
            identity_provider: provider.clone(),
            idp_client: idp_client.clone(),
            resource_as: Rc::new(Party {
                path: server_path.clone(),
                issuer,
                cluster: cluster(&server_path, &server.cluster)?,
                token_endpoint: self.optional_url(
                    &server_path,
                    "token_endpoint",
                    &server.token_endpoint,
                )?,
                jwks_uri: None,
                allow_http: self.allow_http,
            }),
            resource_as_client: Rc::new(
                self.client(&format!("{server_path}.client"), &server.client)?,
            ),
            scope: scopes(&format!("{path}.scopes"), &raw.scopes)?.join(" "),
            callers,
            max_token_age,
        })
    }

    fn caller(&self, path: &str, raw: &raw::Caller) -> Result<Caller> {
        match (&raw.id_token, &raw.api_key, &raw.subject) {
            (Some(raw::NoSettings {}), None, None) => Ok(Caller::IdToken),
            (None, Some(key), Some(subject)) => Ok(Caller::ApiKey {
                header: header_name(&format!("{path}.api_key.header"), &key.header)?,
                sha256: self.digest(&format!("{path}.api_key.sha256"), &key.sha256)?,
                refresh_token: self
                    .secret(&format!("{path}.subject.refresh_token"), &subject.refresh_token)?,
            }),
            (None, Some(_), None) => {
                fail(format!("{path}.subject"), "an API key is nobody until it is bound to a user")
            }
            (Some(_), None, Some(_)) => {
                fail(format!("{path}.subject"), "an ID Token is its own subject")
            }
            _ => fail(path, "needs exactly one of `id_token` and `api_key`"),
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
        Ok(Accept {
            name: raw.name.clone(),
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
            credentials: self.credentials(path, raw, providers)?,
            identity_header: match &raw.identity_header {
                None => None,
                Some(raw) => Some(self.identity_header(path, raw, resource)?),
            },
            mcp,
            required_acr: raw.required_acr.clone(),
            max_auth_age: raw.max_auth_age,
        })
    }
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

fn same_caller(a: &Caller, b: &Caller) -> bool {
    match (a, b) {
        (Caller::IdToken, Caller::IdToken) => true,
        (
            Caller::ApiKey { header, sha256, .. },
            Caller::ApiKey { header: other, sha256: other_sha256, .. },
        ) => header == other && sha256 == other_sha256,
        _ => false,
    }
}
