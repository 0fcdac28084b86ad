//! Reading who may call, and as whom.

use super::build::Reading;
use super::fields::{Result, fail, header_name, identifier, named, scopes, within};
use super::raw::{Chain, MutualTls};
use super::raw_upgrade as raw;
use super::upgrades::Providers;
use super::{Caller, Client, Ema, IdentityProvider, Presents, Subject, Workload};
use crate::claim_rule::{ClaimRule, Pattern};
use crate::client_certificate::RegisteredCertificate;
use crate::digest;
use crate::http::Url;
use serde_json::{Map, Value};
use std::rc::Rc;

/// A caller as it is read; its name, if it has one.
pub(super) struct Read {
    pub name: Option<String>,
    pub presents: Presents,
    pub subject: Subject,
}

impl Reading<'_> {
    pub(super) fn caller(
        &self,
        path: &str,
        raw: &raw::Caller,
        mutual_tls: Option<&MutualTls>,
        (provider, client): (&Rc<IdentityProvider>, &Client),
        providers: &Providers,
    ) -> Result<Read> {
        if let Some(name) = &raw.name {
            identifier(&format!("{path}.name"), name)?;
        }
        let mut found = Vec::new();
        if raw.id_token.is_some() {
            found.push(Presents::IdToken);
        }
        if let Some(raw) = &raw.access_token {
            let path = format!("{path}.access_token.audience");
            identifier(&path, &raw.audience)?;
            if raw.audience == client.id {
                // OIDC Core §2: that is the audience of ID Tokens.
                return fail(path, "is a client; an access token's audience is a resource");
            }
            let untyped = raw.typ == raw::Typ::Any;
            found.push(Presents::AccessToken { audience: raw.audience.clone(), untyped });
        }
        if let Some(raw) = &raw.refresh_token {
            let header = header_name(&format!("{path}.refresh_token.header"), &raw.header)?;
            if header == "authorization" {
                let problem = "must be a header of its own: nothing tells it from other tokens";
                return fail(format!("{path}.refresh_token.header"), problem);
            }
            found.push(Presents::RefreshToken(header));
        }
        if let Some(raw) = &raw.api_key {
            let header = header_name(&format!("{path}.api_key.header"), &raw.header)?;
            let digest = self.digest(&format!("{path}.api_key.sha256"), &raw.sha256)?;
            found.push(Presents::ApiKey(header, digest));
        }
        if let Some(raw) = &raw.basic {
            identifier(&format!("{path}.basic.id"), &raw.id)?;
            let digest = self.digest(&format!("{path}.basic.secret_sha256"), &raw.secret_sha256)?;
            found.push(Presents::Basic(raw.id.clone(), digest));
        }
        if let Some(raw) = &raw.certificate {
            found.push(Presents::Certificate(certificate(path, raw, mutual_tls)?));
        }
        if let Some(raw) = &raw.workload_token {
            let path = format!("{path}.workload_token");
            found.push(Presents::Workload(Rc::new(workload(&path, raw, provider, providers)?)));
        }
        if let Some(raw) = &raw.saml {
            found.push(saml(&format!("{path}.saml"), raw)?);
        }
        let presents = match (found.pop(), found.pop()) {
            (Some(presents), None) => presents,
            _ => return fail(path, "needs exactly one credential that the caller presents"),
        };
        let subject = self.subject(path, raw.subject.as_ref(), &presents)?;
        Ok(Read { name: raw.name.clone(), presents, subject })
    }

    /// Whom a caller stands for that presents this.
    fn subject(
        &self,
        path: &str,
        raw: Option<&raw::Subject>,
        presents: &Presents,
    ) -> Result<Subject> {
        let path = format!("{path}.subject");
        let is_own = match presents {
            Presents::IdToken
            | Presents::AccessToken { .. }
            | Presents::RefreshToken(_)
            | Presents::Saml { .. } => true,
            Presents::ApiKey(..)
            | Presents::Basic(..)
            | Presents::Certificate(_)
            | Presents::Workload(_) => false,
        };
        let raw = match raw {
            None if is_own => return Ok(Subject::Own),
            Some(_) if is_own => return fail(path, "what this caller presents is its own subject"),
            None => return fail(path, "this caller is nobody until it is bound to a user"),
            Some(raw) => raw,
        };
        let grant = |name: &str, grant: &raw::Grant| -> Result<String> {
            Ok(scopes(&format!("{path}.{name}.scopes"), &grant.scopes)?.join(" "))
        };
        match (&raw.refresh_token, &raw.id_token, &raw.client_credentials, &raw.jwt_bearer) {
            (Some(token), None, None, None) => {
                Ok(Subject::RefreshToken(self.secret(&format!("{path}.refresh_token"), token)?))
            }
            (None, Some(token), None, None) => {
                Ok(Subject::IdToken(self.secret(&format!("{path}.id_token"), token)?))
            }
            (None, None, Some(raw), None) => {
                Ok(Subject::ClientCredentials(grant("client_credentials", raw)?))
            }
            (None, None, None, Some(raw)) if matches!(presents, Presents::Workload(_)) => {
                Ok(Subject::JwtBearer(grant("jwt_bearer", raw)?))
            }
            (None, None, None, Some(_)) => {
                fail(format!("{path}.jwt_bearer"), "needs a `workload_token`, which is the JWT")
            }
            _ => fail(
                path,
                "needs exactly one of `refresh_token`, `id_token`, `client_credentials` and `jwt_bearer`",
            ),
        }
    }
}

/// What no entry shows by itself: that each token can be told from others, that somebody proves it, and that it stays
/// here.
pub(super) fn check_together(
    path: &str,
    raw: &raw::Upgrade,
    callers: &[Caller],
    provider: &IdentityProvider,
) -> Result<()> {
    let any = |is: &dyn Fn(&Presents) -> bool| callers.iter().any(|caller| is(&caller.presents));
    let id_tokens = any(&|one| matches!(one, Presents::IdToken));
    if id_tokens && any(&|one| matches!(one, Presents::AccessToken { untyped: true, .. })) {
        let problem = "`typ: any` cannot be told from the `id_token` of another entry";
        return fail(format!("{path}.callers"), problem);
    }
    // Client credentials are had without asking the identity provider: anything at all would pass.
    if raw.ema != Ema::Required && any(&Presents::is_unproven) {
        let problem = "must be `required`: only the identity provider can tell whether a \
                       `refresh_token` or `saml` of a caller is genuine";
        return fail(format!("{path}.ema"), problem);
    }
    // Such a token would pass for the server's own, and go on to it.
    let servers = raw.authorization_server.iter().chain(&raw.authorization_servers);
    let is_of_server = |issuer: &Url| servers.clone().any(|one| one.issuer == issuer.as_str());
    let meets = any(&|one| match one {
        Presents::IdToken | Presents::AccessToken { .. } => is_of_server(&provider.party.issuer),
        Presents::Workload(workload) => is_of_server(&workload.issuer.party.issuer),
        _ => false,
    });
    if raw.pass_ema_clients && meets {
        let problem = "cannot tell tokens of callers from those of an authorization server that is their issuer";
        return fail(format!("{path}.pass_ema_clients"), problem);
    }
    Ok(())
}

/// The one thing that a caller's certificate is known by (RFC 8705 §2.1.2).
fn certificate(
    path: &str,
    raw: &raw::Certificate,
    mutual_tls: Option<&MutualTls>,
) -> Result<RegisteredCertificate> {
    let path = format!("{path}.certificate");
    let names = [&raw.subject_dn, &raw.san_uri, &raw.san_dns];
    for name in names.into_iter().flatten() {
        identifier(&path, name)?;
    }
    let is_verified = mutual_tls.is_some_and(|tls| tls.chain == Chain::Verified);
    // A name says something only where somebody vouches for it.
    if mutual_tls.is_none() || names.iter().any(|name| name.is_some()) && !is_verified {
        return fail(path, "needs `mutual_tls: { chain: verified }` beside `callers`");
    }
    let mut digests = Vec::new();
    for (index, text) in raw.sha256.iter().enumerate() {
        match digest::from_hex(text) {
            Some(key) => digests.push(key),
            None => {
                return fail(format!("{path}.sha256[{index}]"), "must be 64 hexadecimal digits");
            }
        }
    }
    match (names.map(Option::as_ref), digests.is_empty()) {
        ([Some(name), None, None], true) => Ok(RegisteredCertificate::SubjectDn(name.clone())),
        ([None, Some(name), None], true) => Ok(RegisteredCertificate::SanUri(name.clone())),
        ([None, None, Some(name)], true) => Ok(RegisteredCertificate::SanDns(name.clone())),
        ([None, None, None], false) => Ok(RegisteredCertificate::Sha256(digests)),
        _ => fail(path, "needs exactly one of `subject_dn`, `san_uri`, `san_dns` and `sha256`"),
    }
}

fn workload(
    path: &str,
    raw: &raw::WorkloadToken,
    provider: &Rc<IdentityProvider>,
    providers: &Providers,
) -> Result<Workload> {
    let issuer = named(&format!("{path}.issuer"), &raw.issuer, providers)?;
    if Rc::ptr_eq(issuer, provider) {
        let problem = "is the identity provider: its tokens are `id_token` or `access_token`";
        return fail(format!("{path}.issuer"), problem);
    }
    identifier(&format!("{path}.audience"), &raw.audience)?;
    let max_lifetime = raw.max_lifetime.unwrap_or(3600);
    within(&format!("{path}.max_lifetime"), max_lifetime, 1, 86_400)?;
    let mut rules = Vec::new();
    claim_rules(&format!("{path}.claims"), &raw.claims, &[], &mut rules)?;
    if rules.is_empty() {
        return fail(format!("{path}.claims"), "would let in every workload of that issuer");
    }
    Ok(Workload { issuer: issuer.clone(), audience: raw.audience.clone(), rules, max_lifetime })
}

/// One rule for each value, however deep: the document is no deeper than JSON is read.
fn claim_rules(
    path: &str,
    claims: &Map<String, Value>,
    inside: &[String],
    rules: &mut Vec<ClaimRule>,
) -> Result<()> {
    for (name, value) in claims {
        let at = format!("{path}.{name}");
        let claim = [inside, std::slice::from_ref(name)].concat();
        let text = match value {
            Value::Object(claims) => {
                claim_rules(&at, claims, &claim, rules)?;
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null | Value::Array(_) => return fail(at, "must be a string"),
        };
        match Pattern::parse(&text) {
            Some(pattern) => rules.push(ClaimRule { path: claim, pattern }),
            None => {
                return fail(at, "is no pattern: text, with one `*` at most between `:` and `/`");
            }
        }
    }
    Ok(())
}

fn saml(path: &str, raw: &raw::Saml) -> Result<Presents> {
    let header = raw.header.as_deref().unwrap_or("authorization");
    identifier(&format!("{path}.issuer"), &raw.issuer)?;
    identifier(&format!("{path}.audience"), &raw.audience)?;
    Ok(Presents::Saml {
        header: header_name(&format!("{path}.header"), header)?,
        issuer: raw.issuer.clone(),
        audience: raw.audience.clone(),
    })
}
