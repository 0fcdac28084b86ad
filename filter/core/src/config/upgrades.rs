//! Reading what is upgraded.

use super::build::Reading;
use super::callers::check_together;
use super::fields::{Result, cluster, fail, identifier, named, scopes, within};
use super::raw_upgrade::{self as raw, Written};
use super::{
    Actor, Caller, Client, ClientCredential, Discovery, Ema, ExchangeRules, IdentityProvider,
    Presents, ResourceAs, Upgrade,
};
use crate::authorization_details;
use crate::caller;
use crate::digest::{Key, of_fields};
use crate::http::Url;
use crate::names;
use crate::saml::{Encoding, Payload};
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Parameters that are the protocol's own.
const OWN_PARAMETERS: [&str; 15] = [
    "actor_token",
    "actor_token_type",
    "assertion",
    "audience",
    "authorization_details",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "requested_token_type",
    "resource",
    "scope",
    "subject_token",
    "subject_token_type",
];

pub(super) type Providers = BTreeMap<String, Rc<IdentityProvider>>;

impl Reading<'_> {
    pub(super) fn upgrade(
        &self,
        path: &str,
        Written { read: raw, value }: &Written<raw::Upgrade>,
        resource: &Url,
        providers: &Providers,
    ) -> Result<Upgrade> {
        let url = self.optional_url(path, "url", &raw.url)?.unwrap_or_else(|| resource.clone());
        let (name, field) = (&raw.identity_provider, format!("{path}.identity_provider"));
        let provider = named(&field, name, providers)?;
        let Some(idp_client) = &provider.client else {
            let problem =
                format!("identity_providers.{name}.client is needed to exchange tokens there");
            return fail(field, problem);
        };
        let servers = self.resource_servers(path, raw, provider)?;
        let max_token_age = raw.max_token_age.unwrap_or(300);
        within(&format!("{path}.max_token_age"), max_token_age, 1, 3600)?;
        let callers = self.callers(path, raw, (provider, idp_client), providers)?;
        let scopes = |name: &str, list: &[String]| scopes(&format!("{path}.{name}"), list);
        Ok(Upgrade {
            way: way(value, resource, provider, idp_client),
            resource: resource.clone(),
            url,
            identity_provider: provider.clone(),
            idp_client: idp_client.clone(),
            discovery: discovery(path, raw, resource, &servers)?,
            servers,
            ema: raw.ema,
            scope: scopes("scopes", &raw.scopes)?.join(" "),
            redemption_scope: scopes("redemption_scopes", &raw.redemption_scopes)?.join(" "),
            step_up_scopes: scopes("step_up_scopes", &raw.step_up_scopes)?,
            authorization_details: details(path, raw.authorization_details.as_ref())?,
            actor: self.actor(path, raw.actor.as_ref(), idp_client)?,
            dpop: raw.dpop,
            presented: caller::headers(&callers),
            callers,
            passes_ema_clients: raw.pass_ema_clients,
            // A challenge would send it to an authorization server that is none of its business.
            hidden: ["www-authenticate", "dpop-nonce"].map(str::to_owned).into(),
            caches: raw.cache.unwrap_or(true),
            max_token_age,
            takes_wider_scope: raw.accept_wider_scope,
            requires_resource: raw.require_resource,
        })
    }

    fn resource_servers(
        &self,
        path: &str,
        upgrade: &raw::Upgrade,
        provider: &IdentityProvider,
    ) -> Result<Vec<Rc<ResourceAs>>> {
        let all: Vec<(String, &raw::ResourceAs)> =
            match (&upgrade.authorization_server, upgrade.authorization_servers.as_slice()) {
                (Some(one), []) => vec![(format!("{path}.authorization_server"), one)],
                (None, all) if !all.is_empty() => {
                    let path = |index| format!("{path}.authorization_servers[{index}]");
                    all.iter().enumerate().map(|(index, one)| (path(index), one)).collect()
                }
                _ => return fail(path, "needs `authorization_server`, or `authorization_servers`"),
            };
        let mut servers: Vec<Rc<ResourceAs>> = Vec::new();
        for (path, raw) in all {
            let server = self.resource_as(&path, raw)?;
            if server.party.issuer == provider.party.issuer && upgrade.ema != Ema::Never {
                // ID-JAG §9.3: a grant must cross a trust domain.
                return fail(format!("{path}.issuer"), "is the identity provider itself");
            }
            if servers.iter().any(|other| other.party.issuer == server.party.issuer) {
                return fail(format!("{path}.issuer"), "the same issuer again");
            }
            servers.push(Rc::new(server));
        }
        Ok(servers)
    }

    fn resource_as(&self, path: &str, raw: &raw::ResourceAs) -> Result<ResourceAs> {
        if let Some(audience) = &raw.audience {
            identifier(&format!("{path}.audience"), audience)?;
        }
        Ok(ResourceAs {
            party: self.party(path, (&raw.issuer, &raw.cluster), &raw.token_endpoint, &None)?,
            client: self.client(&format!("{path}.client"), &raw.client)?,
            audience: raw.audience.clone(),
            sends_resource: raw.send_resource.unwrap_or(true),
        })
    }

    fn actor(
        &self,
        path: &str,
        raw: Option<&raw::Actor>,
        client: &Client,
    ) -> Result<Option<Actor>> {
        let Some(raw) = raw else {
            return Ok(None);
        };
        let path = format!("{path}.actor");
        let kind = match raw.kind {
            raw::TokenType::Jwt => names::TOKEN_TYPE_JWT,
            raw::TokenType::AccessToken => names::TOKEN_TYPE_ACCESS_TOKEN,
            raw::TokenType::IdToken => names::TOKEN_TYPE_ID_TOKEN,
        };
        match (&raw.token, raw.client_assertion) {
            (Some(token), false) => {
                let token = self.secret(&format!("{path}.token"), token)?;
                Ok(Some(Actor::Token(token, kind)))
            }
            (None, true) if matches!(client.credential, ClientCredential::PrivateKey { .. }) => {
                Ok(Some(Actor::ClientAssertion))
            }
            (None, true) => fail(
                format!("{path}.client_assertion"),
                "needs `private_key_jwt` of the client at the identity provider",
            ),
            _ => fail(path, "needs exactly one of `token` and `client_assertion: true`"),
        }
    }

    fn callers(
        &self,
        path: &str,
        raw: &raw::Upgrade,
        at_provider: (&Rc<IdentityProvider>, &Client),
        providers: &Providers,
    ) -> Result<Vec<Caller>> {
        let mut callers: Vec<Caller> = Vec::new();
        for (index, caller) in raw.callers.iter().enumerate() {
            let path = format!("{path}.callers[{index}]");
            let caller =
                self.caller(&path, caller, raw.mutual_tls.as_ref(), at_provider, providers)?;
            let name = caller.name.unwrap_or_else(|| format!("callers[{index}]"));
            if callers.iter().any(|other| same_caller(&other.presents, &caller.presents)) {
                return fail(path, "the same caller again: this entry would never be used");
            }
            if callers.iter().any(|other| other.name == name) {
                return fail(format!("{path}.name"), "used twice");
            }
            callers.push(Caller { name, presents: caller.presents, subject: caller.subject });
        }
        if callers.is_empty() {
            return fail(format!("{path}.callers"), "nobody could ever call");
        }
        check_together(path, raw, &callers, at_provider.0)?;
        Ok(callers)
    }

    pub(super) fn exchange_rules(
        &self,
        path: &str,
        raw: Option<&raw::TokenExchange>,
    ) -> Result<ExchangeRules> {
        let default = raw::TokenExchange::default();
        let raw = raw.unwrap_or(&default);
        let mut parameters = Vec::new();
        for (name, value) in &raw.parameters {
            let path = format!("{path}.token_exchange.parameters.{name}");
            let Value::String(value) = value else {
                return fail(path, "must be a string");
            };
            if name.is_empty() || OWN_PARAMETERS.contains(&name.as_str()) {
                return fail(path, "is not for the configuration to say");
            }
            parameters.push((name.clone(), value.clone()));
        }
        let saml = raw.saml.as_ref();
        let is_response = saml.is_some_and(|saml| saml.payload == raw::Payload::Response);
        let is_base64 = saml.is_some_and(|saml| saml.encoding == raw::Encoding::Base64);
        Ok(ExchangeRules {
            refreshes_id_token: raw.refresh_token_as == raw::RefreshTokenAs::IdToken,
            sends_resource: raw.send_resource.unwrap_or(true),
            parameters,
            pairwise_subjects: raw.pairwise_subjects,
            saml_payload: if is_response { Payload::Response } else { Payload::Assertion },
            saml_encoding: if is_base64 { Encoding::Base64 } else { Encoding::Base64Url },
            saml_for_refresh_token: saml
                .is_some_and(|saml| saml.sent_as == raw::SamlAs::RefreshToken),
        })
    }

    /// Our registration at an authorization server.
    pub(super) fn client(&self, path: &str, raw: &raw::Client) -> Result<Client> {
        identifier(&format!("{path}.id"), &raw.id)?;
        if raw.secret.is_none() && raw.token_endpoint_auth_method.is_some() {
            return fail(format!("{path}.token_endpoint_auth_method"), "is for a `secret`");
        }
        let credential = match (&raw.secret, &raw.private_key_jwt, &raw.tls_client_auth) {
            (Some(secret), None, None) => {
                let secret = self.secret(&format!("{path}.secret"), secret)?;
                match raw.token_endpoint_auth_method {
                    Some(raw::SecretMethod::Post) => ClientCredential::SecretInBody(secret),
                    _ => ClientCredential::Secret(secret),
                }
            }
            (None, Some(jwt), None) => {
                let path = format!("{path}.private_key_jwt");
                let key = self.signing_key(&path, &jwt.key, jwt.kid.as_deref())?;
                if key.algorithm() != "ES256" {
                    return fail(format!("{path}.key"), "must be a P-256 key (ES256)");
                }
                ClientCredential::PrivateKey { key: Box::new(key), audience: jwt.audience }
            }
            (None, None, Some(_)) => ClientCredential::Certificate,
            _ => {
                let problem =
                    "needs exactly one of `secret`, `private_key_jwt` and `tls_client_auth`";
                return fail(path, problem);
            }
        };
        Ok(Client { id: raw.id.clone(), credential })
    }
}

fn discovery(
    path: &str,
    raw: &raw::Upgrade,
    resource: &Url,
    servers: &[Rc<ResourceAs>],
) -> Result<Option<Rc<Discovery>>> {
    let path = format!("{path}.discovery");
    let Some(raw) = &raw.discovery else {
        return match servers {
            [_] => Ok(None),
            _ => fail(path, "is needed to choose one of several servers"),
        };
    };
    let allowed = servers.iter().map(|server| server.party.issuer.as_str().to_owned()).collect();
    let cluster = cluster(&path, &raw.cluster)?;
    Ok(Some(Rc::new(Discovery { path, cluster, resource: resource.clone(), allowed })))
}

fn details(path: &str, raw: Option<&Value>) -> Result<String> {
    let text = raw.map(Value::to_string).unwrap_or_default();
    if raw.is_some() && authorization_details::requested(&text).is_err() {
        let problem = "must be a list of objects, each with a `type` (RFC 9396)";
        return fail(format!("{path}.authorization_details"), problem);
    }
    Ok(text)
}

/// Digest of the way as it is written, and of where it leads through.
fn way(raw: &Value, resource: &Url, provider: &IdentityProvider, client: &Client) -> Key {
    let party = format!("{:?} {:?} {client:?}", provider.party, provider.exchange);
    let fields = [resource.as_str(), &raw.to_string(), &party];
    of_fields(&fields.map(str::as_bytes))
}

fn same_caller(a: &Presents, b: &Presents) -> bool {
    match (a, b) {
        (Presents::IdToken, Presents::IdToken) => true,
        (Presents::AccessToken { .. }, Presents::AccessToken { .. }) => true,
        (Presents::RefreshToken(a), Presents::RefreshToken(b)) => a == b,
        (Presents::Saml { header: a, .. }, Presents::Saml { header: b, .. }) => a == b,
        (Presents::ApiKey(header, key), Presents::ApiKey(other, other_key)) => {
            header == other && key == other_key
        }
        (Presents::Basic(id, _), Presents::Basic(other, _)) => id == other,
        (Presents::Certificate(a), Presents::Certificate(b)) => a == b,
        (Presents::Workload(a), Presents::Workload(b)) => {
            a.rules == b.rules && Rc::ptr_eq(&a.issuer, &b.issuer)
        }
        _ => false,
    }
}
