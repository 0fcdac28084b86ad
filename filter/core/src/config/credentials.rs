//! Credentials of the servers behind, and whom each is for.

use super::build::Reading;
use super::fields::{Result, fail, header_name, identifier, named, scopes};
use super::{BackendAs, Credential, IdentityHeader, IdentityProvider, MappedCredential, Whom, raw};
use crate::digest::base64url;
use crate::http::Url;
use crate::secret::Secret;
use crate::subject::{LocalSubject, SAML_MEMBERS, SubjectRules};
use crate::subject_id::SubjectId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::rc::Rc;

type Providers = BTreeMap<String, Rc<IdentityProvider>>;

impl Reading<'_> {
    pub(super) fn credentials(
        &self,
        path: &str,
        raw: &raw::Accept,
        providers: &Providers,
    ) -> Result<Vec<MappedCredential>> {
        let all: Vec<(String, &raw::Credential)> =
            match (&raw.credential, raw.credentials.as_slice()) {
                (Some(one), []) => vec![(format!("{path}.credential"), one)],
                (None, all) if !all.is_empty() => {
                    let path = |index| format!("{path}.credentials[{index}]");
                    all.iter().enumerate().map(|(index, one)| (path(index), one)).collect()
                }
                (None, _) => {
                    return fail(
                        path,
                        "needs a `credential` (or `credentials`) of the server behind",
                    );
                }
                (Some(_), _) => {
                    return fail(
                        format!("{path}.credentials"),
                        "stands beside `credential`: one or the other",
                    );
                }
            };
        let mut mapped: Vec<MappedCredential> = Vec::new();
        for (path, raw_credential) in all {
            let whom = match &raw_credential.whom {
                None => Whom::Anyone,
                Some(whom) => whom_for(&format!("{path}.for"), whom, providers)?,
            };
            if mapped.iter().any(|other| other.whom == Whom::Anyone || other.whom == whom) {
                return fail(path, "an entry before it is for everybody this one is for");
            }
            let credential = self.backend_credential(&path, raw_credential)?;
            if matches!(credential, Credential::None) && raw.identity_header.is_none() {
                return fail(
                    format!("{path}.none"),
                    "leaves the server behind without any credential",
                );
            }
            let identity =
                raw.identity_header.as_ref().map(|header| header.name.to_ascii_lowercase());
            if identity.is_some() && identity.as_deref() == credential.header() {
                return fail(path, "stands in the same header as `identity_header`");
            }
            mapped.push(MappedCredential { whom, credential });
        }
        Ok(mapped)
    }

    pub(super) fn identity_header(
        &self,
        path: &str,
        raw: &raw::IdentityHeader,
        resource: &Url,
    ) -> Result<IdentityHeader> {
        let path = format!("{path}.identity_header");
        let audience = raw.audience.as_deref().unwrap_or(resource.as_str());
        identifier(&format!("{path}.audience"), audience)?;
        let name = header_name(&format!("{path}.name"), &raw.name)?;
        Ok(IdentityHeader { name, audience: audience.to_owned() })
    }

    fn backend_credential(&self, path: &str, raw: &raw::Credential) -> Result<Credential> {
        let raw::Credential {
            header,
            value,
            bearer,
            basic,
            client_credentials,
            token_exchange,
            none,
            ..
        } = raw;
        let authorization = "authorization".to_owned();
        match (header, value, bearer, basic, client_credentials, token_exchange, none) {
            (Some(header), Some(value), None, None, None, None, None) => {
                let name = header_name(&format!("{path}.header"), header)?;
                Ok(Credential::Header(name, self.header_secret(&format!("{path}.value"), value)?))
            }
            (None, None, Some(token), None, None, None, None) => {
                let token = self.header_secret(&format!("{path}.bearer"), token)?;
                let value = Secret::new(format!("Bearer {}", token.expose()));
                Ok(Credential::Header(authorization, value))
            }
            (None, None, None, Some(basic), None, None, None) => {
                let path = format!("{path}.basic");
                identifier(&format!("{path}.user"), &basic.user)?;
                if basic.user.contains(':') {
                    // RFC 7617 §2: the first colon ends the user.
                    return fail(format!("{path}.user"), "must have no colon");
                }
                let password = self.secret(&format!("{path}.password"), &basic.password)?;
                let pair = Secret::new(format!("{}:{}", basic.user, password.expose()));
                let value = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
                Ok(Credential::Header(authorization, value))
            }
            (None, None, None, None, Some(server), None, None) => {
                let path = format!("{path}.client_credentials");
                Ok(Credential::Token(Rc::new(self.backend_as(&path, server, false)?)))
            }
            (None, None, None, None, None, Some(server), None) => {
                let path = format!("{path}.token_exchange");
                Ok(Credential::Token(Rc::new(self.backend_as(&path, server, true)?)))
            }
            (None, None, None, None, None, None, Some(raw::NoSettings {})) => Ok(Credential::None),
            _ => fail(
                path,
                "needs exactly one of `header` with `value`, `bearer`, `basic`, \
                 `client_credentials`, `token_exchange` and `none`",
            ),
        }
    }

    fn backend_as(&self, path: &str, raw: &raw::BackendAs, on_behalf: bool) -> Result<BackendAs> {
        Ok(BackendAs {
            party: self.party(path, (&raw.issuer, &raw.cluster), &raw.token_endpoint, &None)?,
            client: self.client(&format!("{path}.client"), &raw.client)?,
            scope: scopes(&format!("{path}.scopes"), &raw.scopes)?.join(" "),
            resource: self.optional_url(path, "resource", &raw.resource)?,
            on_behalf,
        })
    }
}

/// One way to name a user (as their issuer, this server, SAML or an e-mail address names them), a group
/// or a scope.
fn whom_for(path: &str, raw: &raw::Whom, providers: &Providers) -> Result<Whom> {
    let raw::Whom {
        identity_provider,
        tenant,
        sub,
        group,
        aud_sub,
        aud_tenant,
        saml,
        email,
        scope,
    } = raw;
    let subject = |subject: LocalSubject| Ok(Whom::Subject(base64url(&subject.key())));
    let texts = [identity_provider, tenant, sub, group, aud_sub, aud_tenant, email, scope];
    for text in texts.into_iter().flatten() {
        identifier(path, text)?;
    }
    let provider = |name: &String| named(&format!("{path}.identity_provider"), name, providers);
    match (identity_provider, sub, group, aud_sub, saml, email, scope) {
        (Some(name), Some(sub), None, None, None, None, None) if aud_tenant.is_none() => {
            let provider = provider(name)?;
            let tenants = &provider.subjects.tenants;
            if !tenants.is_empty() && !tenant.as_ref().is_some_and(|one| tenants.contains(one)) {
                let problem = format!("must be one of `identity_providers.{name}.tenants`");
                return fail(format!("{path}.tenant"), problem);
            }
            let issuer = provider.party.issuer.as_str().to_owned();
            let (tenant, sub) = (tenant.clone(), sub.clone());
            subject(LocalSubject::Provider(SubjectId { issuer, tenant, subject: sub }))
        }
        (Some(name), None, Some(group), None, None, None, None)
            if tenant.is_none() && aud_tenant.is_none() =>
        {
            let provider = provider(name)?;
            if !provider.subjects.groups {
                let problem = format!("`identity_providers.{name}.subjects.groups` is not set");
                return fail(format!("{path}.group"), problem);
            }
            Ok(Whom::Group(provider.party.issuer.as_str().to_owned(), group.clone()))
        }
        (None, None, None, Some(own), None, None, None) if tenant.is_none() => {
            some_provider(&format!("{path}.aud_sub"), "aud_sub", providers, |one| one.aud_sub)?;
            subject(LocalSubject::Own { tenant: aud_tenant.clone(), subject: own.clone() })
        }
        (None, None, None, None, Some(saml), None, None)
            if tenant.is_none() && aud_tenant.is_none() =>
        {
            let path_of = format!("{path}.saml");
            some_provider(&path_of, "saml", providers, |one| one.saml.is_some())?;
            saml_whom(&format!("{path}.saml"), saml)
        }
        (None, None, None, None, None, Some(email), None)
            if tenant.is_none() && aud_tenant.is_none() =>
        {
            let path_of = format!("{path}.email");
            let links = |one: &SubjectRules| !one.email_domains.is_empty();
            some_provider(&path_of, "email_domains", providers, links)?;
            let Some((name, domain)) = email.rsplit_once('@') else {
                return fail(format!("{path}.email"), "must be an e-mail address");
            };
            subject(LocalSubject::Email(format!("{name}@{}", domain.to_ascii_lowercase())))
        }
        (None, None, None, None, None, None, Some(scope))
            if tenant.is_none() && aud_tenant.is_none() =>
        {
            Ok(Whom::Scope(scope.clone()))
        }
        _ => fail(
            path,
            "needs exactly one of `identity_provider` with `sub` (and `tenant`) or `group`, `aud_sub` \
             (and `aud_tenant`), `saml`, `email` and `scope`",
        ),
    }
}

/// Names that no identity provider may use would be names that nobody ever has.
fn some_provider(
    path: &str,
    setting: &str,
    providers: &Providers,
    may: impl Fn(&SubjectRules) -> bool,
) -> Result<()> {
    match providers.values().any(|provider| may(&provider.subjects)) {
        true => Ok(()),
        false => fail(path, format!("no identity provider has `subjects.{setting}`")),
    }
}

fn saml_whom(path: &str, raw: &[(String, String)]) -> Result<Whom> {
    let written = |name: &str| raw.iter().find(|(other, _)| other == name);
    let mut members = Vec::new();
    for name in ["issuer", "nameid"].iter().chain(&SAML_MEMBERS) {
        if let Some((_, value)) = written(name) {
            identifier(&format!("{path}.{name}"), value)?;
            members.push(((*name).to_owned(), value.clone()));
        }
    }
    if members.len() != raw.len() || written("issuer").is_none() || written("nameid").is_none() {
        return fail(path, "must have `issuer`, `nameid` and optional members of a saml-nameid");
    }
    Ok(Whom::Subject(base64url(&LocalSubject::Saml(members).key())))
}
