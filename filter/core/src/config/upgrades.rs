//! Reading what is upgraded.

use super::build::Reading;
use super::fields::{Result, cluster, fail, header_name, identifier, named, scopes, within};
use super::reader::Object;
use super::{
    Actor, AssertionAudience, Bound, Caller, Client, ClientCredential, Discovery, Ema,
    ExchangeRules, IdentityProvider, Party, Presents, ResourceAs, Subject, Upgrade,
};
use crate::authorization_details;
use crate::client_certificate::RegisteredCertificate;
use crate::digest::{self, of_fields};
use crate::http::Url;
use crate::names;
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

type Providers = BTreeMap<String, Rc<IdentityProvider>>;

impl Reading<'_> {
    pub(super) fn upgrade(
        &self,
        path: &str,
        raw: &Value,
        resource: &Url,
        providers: &Providers,
    ) -> Result<Upgrade> {
        let fields = Object::new(path, raw)?;
        let url = match fields.text("url")? {
            None => resource.clone(),
            Some(url) => self.url(&fields.at("url"), url)?,
        };
        let name = fields.required_text("identity_provider")?;
        let at = fields.at("identity_provider");
        let provider = named(&at, name, providers)?;
        let Some(idp_client) = &provider.client else {
            let problem =
                format!("identity_providers.{name}.client is needed to exchange tokens there");
            return fail(at, problem);
        };
        let servers = self.resource_servers(&fields, provider)?;
        let discovery = self.discovery(&fields, resource, &servers)?;
        let mutual_tls = self.chain(&fields)?;
        let callers = self.callers(&fields, mutual_tls)?;
        let scope = scopes(&fields.at("scopes"), &fields.texts("scopes")?)?.join(" ");
        let redemption = fields.texts("redemption_scopes")?;
        let step_up = fields.texts("step_up_scopes")?;
        let max_token_age = fields.number("max_token_age", 300)?;
        within(&fields.at("max_token_age"), max_token_age, 1, 3600)?;
        let details = match fields.value("authorization_details") {
            None => String::new(),
            Some(details) => match authorization_details::requested(&details.to_string()) {
                Ok(_) => details.to_string(),
                Err(_) => {
                    let problem = "must be a list of objects, each with a `type` (RFC 9396)";
                    return fail(fields.at("authorization_details"), problem);
                }
            },
        };
        let upgrade = Upgrade {
            way: way(raw, resource, provider, idp_client),
            resource: resource.clone(),
            url,
            identity_provider: provider.clone(),
            idp_client: idp_client.clone(),
            servers,
            discovery,
            ema: fields.choice(
                "ema",
                &[
                    ("required", Ema::Required),
                    ("preferred", Ema::Preferred),
                    ("never", Ema::Never),
                ],
                Ema::Required,
            )?,
            scope,
            redemption_scope: scopes(&fields.at("redemption_scopes"), &redemption)?.join(" "),
            step_up_scopes: scopes(&fields.at("step_up_scopes"), &step_up)?,
            authorization_details: details,
            actor: self.actor(&fields)?,
            dpop: fields.choice(
                "dpop",
                &[
                    ("off", Bound::No),
                    ("preferred", Bound::Preferred),
                    ("required", Bound::Required),
                ],
                Bound::No,
            )?,
            callers,
            passes_ema_clients: fields.flag("pass_ema_clients", false)?,
            caches: fields.flag("cache", true)?,
            max_token_age,
            takes_wider_scope: fields.flag("accept_wider_scope", false)?,
            requires_resource: fields.flag("require_resource", false)?,
        };
        fields.finish()?;
        Ok(upgrade)
    }

    fn resource_servers(
        &self,
        fields: &Object<'_>,
        provider: &IdentityProvider,
    ) -> Result<Vec<Rc<ResourceAs>>> {
        let one = fields.value("authorization_server");
        let several = fields.list("authorization_servers")?;
        let all: Vec<(String, &Value)> = match (one, several) {
            (Some(one), []) => vec![(fields.at("authorization_server"), one)],
            (None, all) if !all.is_empty() => {
                let path = |index| format!("{}[{index}]", fields.at("authorization_servers"));
                all.iter().enumerate().map(|(index, one)| (path(index), one)).collect()
            }
            _ => {
                let problem = "needs `authorization_server`, or `authorization_servers`";
                return fail(&*fields.path, problem);
            }
        };
        let mut servers: Vec<Rc<ResourceAs>> = Vec::new();
        for (path, raw) in all {
            let server = self.resource_as(&path, raw)?;
            if server.party.issuer == provider.party.issuer {
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

    fn resource_as(&self, path: &str, raw: &Value) -> Result<ResourceAs> {
        let fields = Object::new(path, raw)?;
        let optional = |name: &str, text: Option<&str>| match text {
            None => Ok(None),
            Some(text) => self.url(&format!("{path}.{name}"), text).map(Some),
        };
        let audience = fields.text("audience")?;
        if let Some(audience) = audience {
            identifier(&fields.at("audience"), audience)?;
        }
        let server = ResourceAs {
            party: Rc::new(Party {
                path: path.to_owned(),
                issuer: self.issuer(path, fields.required_text("issuer")?)?,
                cluster: cluster(path, fields.required_text("cluster")?)?,
                token_endpoint: optional("token_endpoint", fields.text("token_endpoint")?)?,
                jwks_uri: None,
                allow_http: self.allow_http,
            }),
            client: self.client(&fields.at("client"), fields.required("client")?)?,
            audience: audience.map(str::to_owned),
        };
        fields.finish()?;
        Ok(server)
    }

    fn discovery(
        &self,
        fields: &Object<'_>,
        resource: &Url,
        servers: &[Rc<ResourceAs>],
    ) -> Result<Option<Rc<Discovery>>> {
        let Some(raw) = fields.object("discovery")? else {
            return match servers {
                [_] => Ok(None),
                _ => fail(fields.at("discovery"), "is needed to choose one of several servers"),
            };
        };
        let discovery = Discovery {
            path: raw.path.clone(),
            cluster: cluster(&raw.path, raw.required_text("cluster")?)?,
            resource: resource.clone(),
            allowed: servers.iter().map(|server| server.party.issuer.as_str().to_owned()).collect(),
        };
        raw.finish()?;
        Ok(Some(Rc::new(discovery)))
    }

    fn actor(&self, fields: &Object<'_>) -> Result<Option<Actor>> {
        let Some(raw) = fields.object("actor")? else {
            return Ok(None);
        };
        let token = raw.reference("token")?;
        let types = [
            ("jwt", names::TOKEN_TYPE_JWT),
            ("access_token", names::TOKEN_TYPE_ACCESS_TOKEN),
            ("id_token", names::TOKEN_TYPE_ID_TOKEN),
        ];
        let kind = raw.choice("type", &types, names::TOKEN_TYPE_JWT)?;
        let assertion = raw.flag("client_assertion", false)?;
        let actor = match (token, assertion) {
            (Some(token), false) => Actor::Token(self.secret(&raw.at("token"), &token)?, kind),
            (None, true) => Actor::ClientAssertion,
            _ => {
                return fail(
                    &*raw.path,
                    "needs exactly one of `token` and `client_assertion: true`",
                );
            }
        };
        raw.finish()?;
        Ok(Some(actor))
    }

    /// Whether the listener's client certificates are verified; `None`: they are not read.
    fn chain(&self, fields: &Object<'_>) -> Result<Option<bool>> {
        let Some(raw) = fields.object("mutual_tls")? else {
            return Ok(None);
        };
        raw.required("chain")?;
        let chain = raw.choice("chain", &[("verified", true), ("untrusted", false)], false)?;
        raw.finish()?;
        Ok(Some(chain))
    }

    fn callers(&self, fields: &Object<'_>, chain: Option<bool>) -> Result<Vec<Caller>> {
        let mut callers: Vec<Caller> = Vec::new();
        for (index, raw) in fields.list("callers")?.iter().enumerate() {
            let path = format!("{}[{index}]", fields.at("callers"));
            let name = format!("callers[{index}]");
            let caller = self.caller(Object::new(&*path, raw)?, name, chain)?;
            if callers.iter().any(|other| same_caller(&other.presents, &caller.presents)) {
                return fail(path, "the same caller again: this entry would never be used");
            }
            if callers.iter().any(|other| other.name == caller.name) {
                return fail(format!("{path}.name"), "used twice");
            }
            callers.push(caller);
        }
        if callers.is_empty() {
            return fail(fields.at("callers"), "nobody could ever call");
        }
        Ok(callers)
    }

    fn caller(&self, fields: Object<'_>, name: String, chain: Option<bool>) -> Result<Caller> {
        let name = match fields.text("name")? {
            None => name,
            Some(name) => {
                identifier(&fields.at("name"), name)?;
                name.to_owned()
            }
        };
        let mut found = Vec::new();
        if let Some(raw) = fields.object("id_token")? {
            raw.finish()?;
            found.push(Presents::IdToken);
        }
        if let Some(raw) = fields.object("refresh_token")? {
            let header = header_name(&raw.at("header"), raw.required_text("header")?)?;
            raw.finish()?;
            found.push(Presents::RefreshToken(header));
        }
        if let Some(raw) = fields.object("api_key")? {
            let header = header_name(&raw.at("header"), raw.required_text("header")?)?;
            let digest = self.digest(&raw.at("sha256"), &raw.digest("sha256")?)?;
            raw.finish()?;
            found.push(Presents::ApiKey(header, digest));
        }
        if let Some(raw) = fields.object("basic")? {
            let id = raw.required_text("id")?;
            identifier(&raw.at("id"), id)?;
            let digest = self.digest(&raw.at("secret_sha256"), &raw.digest("secret_sha256")?)?;
            raw.finish()?;
            found.push(Presents::Basic(id.to_owned(), digest));
        }
        if let Some(raw) = fields.object("certificate")? {
            found.push(Presents::Certificate(certificate(raw, chain)?));
        }
        let presents = match (found.pop(), found.pop()) {
            (Some(presents), None) => presents,
            _ => {
                return fail(
                    &*fields.path,
                    "needs exactly one credential that the caller presents",
                );
            }
        };
        let subject = self.subject(&fields, &presents)?;
        fields.finish()?;
        Ok(Caller { name, presents, subject })
    }

    /// Whom a caller stands for that presents this.
    fn subject(&self, fields: &Object<'_>, presents: &Presents) -> Result<Subject> {
        let at = fields.at("subject");
        let raw = match (fields.object("subject")?, presents) {
            (None, Presents::IdToken | Presents::RefreshToken(_)) => return Ok(Subject::Own),
            (Some(_), Presents::IdToken | Presents::RefreshToken(_)) => {
                return fail(at, "what this caller presents is its own subject");
            }
            (None, _) => return fail(at, "this caller is nobody until it is bound to a user"),
            (Some(raw), _) => raw,
        };
        let mut found = Vec::new();
        if let Some(token) = raw.reference("id_token")? {
            found.push(Subject::IdToken(self.secret(&raw.at("id_token"), &token)?));
        }
        if let Some(token) = raw.reference("refresh_token")? {
            found.push(Subject::RefreshToken(self.secret(&raw.at("refresh_token"), &token)?));
        }
        if let Some(grant) = raw.object("client_credentials")? {
            let scope = scopes(&grant.at("scopes"), &grant.texts("scopes")?)?.join(" ");
            grant.finish()?;
            found.push(Subject::ClientCredentials(scope));
        }
        let subject = match (found.pop(), found.pop()) {
            (Some(subject), None) => subject,
            _ => {
                let problem =
                    "needs exactly one of `refresh_token`, `id_token` and `client_credentials`";
                return fail(&*raw.path, problem);
            }
        };
        raw.finish()?;
        Ok(subject)
    }

    pub(super) fn exchange_rules(&self, path: &str, raw: Option<&Value>) -> Result<ExchangeRules> {
        let none = Value::Object(Default::default());
        let fields = Object::new(format!("{path}.token_exchange"), raw.unwrap_or(&none))?;
        let mut parameters = Vec::new();
        if let Some(raw) = fields.object("parameters")? {
            let path = raw.path.clone();
            for (name, value) in raw.all() {
                let path = format!("{path}.{name}");
                let Value::String(value) = value else {
                    return fail(path, "must be a string");
                };
                if name.is_empty() || OWN_PARAMETERS.contains(&name.as_str()) {
                    return fail(path, "is not for the configuration to say");
                }
                parameters.push((name.clone(), value.clone()));
            }
        }
        let rules = ExchangeRules {
            refreshes_id_token: fields.choice(
                "refresh_token_as",
                &[("subject_token", false), ("id_token", true)],
                false,
            )?,
            sends_resource: fields.flag("send_resource", true)?,
            parameters,
            pairwise_subjects: fields.flag("pairwise_subjects", false)?,
        };
        fields.finish()?;
        Ok(rules)
    }

    /// Our registration at an authorization server.
    pub(super) fn client(&self, path: &str, raw: &Value) -> Result<Client> {
        let fields = Object::new(path, raw)?;
        let id = fields.required_text("id")?;
        identifier(&fields.at("id"), id)?;
        let methods = [("client_secret_basic", true), ("client_secret_post", false)];
        let basic = fields.choice("token_endpoint_auth_method", &methods, true)?;
        let mut found = Vec::new();
        if let Some(secret) = fields.reference("secret")? {
            let secret = self.secret(&fields.at("secret"), &secret)?;
            found.push(match basic {
                true => ClientCredential::Secret(secret),
                false => ClientCredential::SecretInBody(secret),
            });
        } else if fields.value("token_endpoint_auth_method").is_some() {
            return fail(fields.at("token_endpoint_auth_method"), "is for a `secret`");
        }
        if let Some(jwt) = fields.object("private_key_jwt")? {
            found.push(self.private_key_jwt(jwt)?);
        }
        if let Some(certificate) = fields.object("tls_client_auth")? {
            certificate.finish()?;
            found.push(ClientCredential::Certificate);
        }
        let credential = match (found.pop(), found.pop()) {
            (Some(credential), None) => credential,
            _ => {
                let problem =
                    "needs exactly one of `secret`, `private_key_jwt` and `tls_client_auth`";
                return fail(path, problem);
            }
        };
        fields.finish()?;
        Ok(Client { id: id.to_owned(), credential })
    }

    fn private_key_jwt(&self, fields: Object<'_>) -> Result<ClientCredential> {
        let Some(reference) = fields.reference("key")? else {
            return fail(fields.at("key"), "is missing");
        };
        let key = self.signing_key(&fields.path, &reference, fields.text("kid")?)?;
        if key.algorithm() != "ES256" {
            return fail(fields.at("key"), "must be a P-256 key (ES256)");
        }
        let audiences = [
            ("issuer", AssertionAudience::Issuer),
            ("token_endpoint", AssertionAudience::TokenEndpoint),
        ];
        let audience = fields.choice("audience", &audiences, AssertionAudience::Issuer)?;
        fields.finish()?;
        Ok(ClientCredential::PrivateKey { key: Box::new(key), audience })
    }
}

/// The one thing that a caller's certificate is known by (RFC 8705 §2.1.2).
fn certificate(fields: Object<'_>, chain: Option<bool>) -> Result<RegisteredCertificate> {
    let mut names = Vec::new();
    for name in ["subject_dn", "san_uri", "san_dns"] {
        if let Some(text) = fields.text(name)? {
            identifier(&fields.at(name), text)?;
            let text = text.to_owned();
            names.push(match name {
                "subject_dn" => RegisteredCertificate::SubjectDn(text),
                "san_uri" => RegisteredCertificate::SanUri(text),
                _ => RegisteredCertificate::SanDns(text),
            });
        }
    }
    let mut digests = Vec::new();
    for (index, text) in fields.texts("sha256")?.iter().enumerate() {
        match digest::from_hex(text) {
            Some(key) => digests.push(key),
            None => {
                let path = format!("{}[{index}]", fields.at("sha256"));
                return fail(path, "must be 64 hexadecimal digits");
            }
        }
    }
    // A name says something only where somebody vouches for it.
    if chain.is_none() || !names.is_empty() && chain != Some(true) {
        return fail(&*fields.path, "needs `mutual_tls: { chain: verified }` beside `callers`");
    }
    if !digests.is_empty() {
        names.push(RegisteredCertificate::Sha256(digests));
    }
    let certificate = match (names.pop(), names.pop()) {
        (Some(certificate), None) => certificate,
        _ => {
            let problem = "needs exactly one of `subject_dn`, `san_uri`, `san_dns` and `sha256`";
            return fail(&*fields.path, problem);
        }
    };
    fields.finish()?;
    Ok(certificate)
}

/// Digest of the way as it is written, but for who may go it.
fn way(
    raw: &Value,
    resource: &Url,
    provider: &IdentityProvider,
    client: &Client,
) -> crate::digest::Key {
    let mut raw = raw.clone();
    if let Some(members) = raw.as_object_mut() {
        members.remove("callers");
    }
    let rules = format!("{:?}", provider.exchange);
    let party = format!("{:?}", provider.party);
    let client = format!("{client:?}");
    let raw = raw.to_string();
    let fields = [resource.as_str(), &raw, &party, &rules, &client];
    of_fields(&fields.map(str::as_bytes))
}

fn same_caller(a: &Presents, b: &Presents) -> bool {
    match (a, b) {
        (Presents::IdToken, Presents::IdToken) => true,
        (Presents::RefreshToken(a), Presents::RefreshToken(b)) => a == b,
        (Presents::ApiKey(header, key), Presents::ApiKey(other, other_key)) => {
            header == other && key == other_key
        }
        (Presents::Basic(id, _), Presents::Basic(other, _)) => id == other,
        (Presents::Certificate(a), Presents::Certificate(b)) => a == b,
        _ => false,
    }
}
