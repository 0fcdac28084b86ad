//! Who may revoke what, and where. Read by hand: it is little, and derived readers are large.

use super::build::Reading;
use super::fields::{Result, fail, identifier};
use super::{GrantRules, IdentityProvider, algorithms_of, raw};
use crate::digest::Key;
use crate::http::Url;
use crate::jws::Algorithm;
use serde_json::Value;
use std::rc::Rc;

/// Where our Resource AS takes revocations.
pub struct Revocation {
    /// The endpoint for single tokens (RFC 7009).
    pub token: Url,
    /// The endpoint of Global Token Revocation, if anybody may ask there.
    pub user: Option<Url>,
    /// What identity providers that may ask there sign with.
    pub user_algorithms: Vec<Algorithm>,
    /// The endpoint that security events are pushed to (RFC 8935), if anybody may push.
    pub events: Option<Url>,
    /// What identity providers that may push sign with.
    pub event_algorithms: Vec<Algorithm>,
    /// SHA-256 of the bearer token with which the operator may revoke any user.
    pub operator_token_sha256: Option<Key>,
    /// How long, in seconds, a grant or token from before the revocation of its user can be good at most,
    /// without skew.
    pub longest_life: u64,
}

impl Revocation {
    /// The endpoints there are.
    pub fn endpoints(&self) -> impl Iterator<Item = &Url> {
        [Some(&self.token), self.user.as_ref(), self.events.as_ref()].into_iter().flatten()
    }
}

/// How an identity provider may have its users' tokens revoked.
#[derive(Debug, Default)]
pub struct ProviderRevocation {
    /// By Global Token Revocation.
    pub global_token_revocation: bool,
    /// By security events.
    pub security_events: Option<SecurityEvents>,
}

/// The stream of events that an identity provider pushes.
#[derive(Debug)]
pub struct SecurityEvents {
    /// Our name there; `None`: our issuer identifier.
    pub audience: Option<String>,
}

impl Reading<'_> {
    pub(super) fn revocation(
        &self,
        raw: Option<&Value>,
        issuer: &Url,
        rules: &GrantRules,
        access_token_lifetime: u64,
    ) -> Result<Revocation> {
        let operator = raw.map(|raw| self.operator(raw)).transpose()?;
        let base = issuer.path().trim_end_matches('/');
        let at = |name: &str| issuer.with_path(&format!("{base}/{name}"));
        let providers = || rules.identity_providers.values();
        let asks = |provider: &&Rc<IdentityProvider>| provider.revocation.global_token_revocation;
        let pushes =
            |provider: &&Rc<IdentityProvider>| provider.revocation.security_events.is_some();
        let user = operator.is_some() || providers().any(|provider| asks(&provider));
        let events = providers().any(|provider| pushes(&provider));
        // An ID-JAG from before may be redeemed while it lives, and what it became lives on from there.
        let id_jag = providers().map(|provider| provider.max_id_jag_lifetime).max();
        Ok(Revocation {
            token: at("revoke"),
            user: user.then(|| at("global-token-revocation")),
            user_algorithms: algorithms_of(providers().filter(asks)),
            events: events.then(|| at("security-events")),
            event_algorithms: algorithms_of(providers().filter(pushes)),
            operator_token_sha256: operator,
            longest_life: access_token_lifetime.saturating_add(id_jag.unwrap_or_default()),
        })
    }

    fn operator(&self, raw: &Value) -> Result<Key> {
        let path = "authorization_server.revocation";
        let [digest] = members(path, raw, ["operator_token_sha256"])?;
        let path = format!("{path}.operator_token_sha256");
        match digest {
            None => fail(path, "is missing"),
            Some(Value::String(text)) => self.digest(&path, &raw::Digest::Literal(text.clone())),
            Some(reference) => {
                let [env] = members(&path, reference, ["env"])?;
                let Some(env) = env.and_then(Value::as_str) else {
                    return fail(path, "must be 64 hexadecimal digits, or `{ env: NAME }`");
                };
                self.digest(&path, &raw::Digest::Reference(raw::Reference { env: env.to_owned() }))
            }
        }
    }
}

pub(super) fn of_provider(path: &str, raw: Option<&Value>) -> Result<ProviderRevocation> {
    let Some(raw) = raw else {
        return Ok(ProviderRevocation::default());
    };
    let path = format!("{path}.revocation");
    let [global, events] = members(&path, raw, ["global_token_revocation", "security_events"])?;
    let global_token_revocation = match global {
        None => false,
        Some(Value::Bool(global)) => *global,
        Some(_) => return fail(format!("{path}.global_token_revocation"), "must be true or false"),
    };
    let security_events =
        events.map(|events| stream(&format!("{path}.security_events"), events)).transpose()?;
    if !global_token_revocation && security_events.is_none() {
        return fail(path, "needs `global_token_revocation` or `security_events`");
    }
    Ok(ProviderRevocation { global_token_revocation, security_events })
}

fn stream(path: &str, raw: &Value) -> Result<SecurityEvents> {
    let [audience] = members(path, raw, ["audience"])?;
    let path = format!("{path}.audience");
    let audience = match audience {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => return fail(path, "must be a string"),
    };
    audience.iter().try_for_each(|audience| identifier(&path, audience))?;
    Ok(SecurityEvents { audience })
}

/// The members of an object that has no other.
fn members<'a, const N: usize>(
    path: &str,
    value: &'a Value,
    names: [&str; N],
) -> Result<[Option<&'a Value>; N]> {
    let Value::Object(members) = value else {
        return fail(path, "must be an object");
    };
    match members.keys().find(|name| !names.contains(&name.as_str())) {
        Some(unknown) => fail(format!("{path}.{unknown}"), "unknown field"),
        None => Ok(names.map(|name| members.get(name))),
    }
}
