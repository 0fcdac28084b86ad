//! Who a grant's user is here: tenants, and the names by which this Resource AS knows users (ID-JAG
//! §3.1, §3.2, §6.3, §9.5).
//!
//! There is no user store. A user is a name that a credential of the backend may be mapped to, and
//! the `sub` of the access token.

use crate::claims;
use crate::digest::{Key, of_fields};
use crate::json;
use crate::jws::Fault;
use crate::subject_id::SubjectId;
use serde_json::{Map, Value};

/// What one issuer is believed about its users, beyond that they are its users.
#[derive(Debug, Clone, Default)]
pub struct SubjectRules {
    /// Tenants it may speak of. Empty: it has none to tell apart.
    pub tenants: Vec<String>,
    /// Whether it may name users by our own identifiers (`aud_sub`).
    pub aud_sub: bool,
    /// Our tenants it may speak for (`aud_tenant`).
    pub aud_tenants: Vec<String>,
    /// How it names users by SAML NameIDs (`sub_id`).
    pub saml: Option<SamlRules>,
    /// Domains whose e-mail addresses it may link users by.
    pub email_domains: Vec<String>,
    /// Whether `groups` of its users count.
    pub groups: bool,
}

/// What is believed of a `sub_id` of the format `saml-nameid` (ID-JAG §3.2).
#[derive(Debug, Clone)]
pub struct SamlRules {
    /// SAML issuers that belong to the ID-JAG issuer. A `sub_id` establishes no trust of its own.
    pub issuers: Vec<String>,
    /// Optional members that are part of a user's name.
    pub identified_by: Vec<String>,
}

/// The optional members of a `saml-nameid` (ID-JAG §3.2.2).
pub const SAML_MEMBERS: [&str; 4] =
    ["nameid_format", "name_qualifier", "sp_name_qualifier", "sp_provided_id"];

/// A user, as this Resource AS names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalSubject {
    /// By the identity provider's name.
    Provider(SubjectId),
    /// By our own: `aud_sub`, within `aud_tenant`.
    Own {
        /// `aud_tenant`.
        tenant: Option<String>,
        /// `aud_sub`.
        subject: String,
    },
    /// By a SAML NameID: issuer, name and the members that count, in a fixed order.
    Saml(Vec<(String, String)>),
    /// By a linked e-mail address.
    Email(String),
}

impl LocalSubject {
    /// A stable name that no other kind of name, issuer or tenant can collide with, and that does not
    /// tell who it is.
    pub fn key(&self) -> Key {
        match self {
            Self::Provider(id) => id.key(),
            Self::Own { tenant, subject } => of_fields(&[
                b"aud_sub",
                &[u8::from(tenant.is_some())],
                tenant.as_deref().unwrap_or_default().as_bytes(),
                subject.as_bytes(),
            ]),
            Self::Saml(members) => {
                let texts = members.iter().flat_map(|(name, value)| [name, value]);
                let mut fields: Vec<&[u8]> = vec![b"saml-nameid"];
                fields.extend(texts.map(|text| text.as_bytes()));
                of_fields(&fields)
            }
            Self::Email(address) => of_fields(&[b"email", address.as_bytes()]),
        }
    }
}

/// Who a grant is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The identity provider's name for the user.
    pub id: SubjectId,
    /// Ours.
    pub local: LocalSubject,
    /// The name by e-mail address, if the issuer may link by it.
    pub email: Option<LocalSubject>,
    /// The groups that count.
    pub groups: Vec<String>,
}

/// The tenant claims of a grant (ID-JAG §6.3): `tenant` is the issuer's, `aud_tenant` is ours, and
/// neither stands for the other.
///
/// A multi-tenant issuer must name one of the tenants it is configured with. An `aud_tenant` must be
/// one this issuer may speak for. Returns `tenant`, which a single-tenant issuer may give too: it
/// keeps users apart and grants nothing.
pub fn tenant(claims: &Map<String, Value>, rules: &SubjectRules) -> Result<Option<String>, Fault> {
    let tenant = optional(claims, "tenant")?;
    let listed = |tenant: &String| rules.tenants.contains(tenant);
    if !rules.tenants.is_empty() && !tenant.as_ref().is_some_and(listed) {
        return Err(Fault::Tenant);
    }
    let named = |tenant: &String| rules.aud_tenants.contains(tenant);
    match optional(claims, "aud_tenant")? {
        Some(tenant) if !named(&tenant) => Err(Fault::Tenant),
        // Who may speak for some of our tenants names no users outside of them.
        None if !rules.aud_tenants.is_empty()
            && rules.aud_sub
            && claims.contains_key("aud_sub") =>
        {
            Err(Fault::Tenant)
        }
        _ => Ok(tenant),
    }
}

/// Resolves the user of a grant whose tenants have passed [`tenant`]: by `sub_id` where the issuer's
/// users are known by SAML NameIDs, by `aud_sub` where the issuer may assert it, and else by issuer,
/// tenant and subject.
pub fn resolve(
    claims: &Map<String, Value>,
    rules: &SubjectRules,
    id: SubjectId,
) -> Result<Subject, Fault> {
    let own = match rules.aud_sub {
        true => optional(claims, "aud_sub")?,
        false => None,
    };
    let local = match (&rules.saml, own) {
        (Some(rules), _) => saml(claims, rules)?,
        (None, Some(subject)) => {
            LocalSubject::Own { tenant: optional(claims, "aud_tenant")?, subject }
        }
        (None, None) => LocalSubject::Provider(id.clone()),
    };
    let groups = match claims.get("groups") {
        Some(Value::Array(_)) if rules.groups => {
            let groups = json::strings(claims, "groups").map_err(|_| Fault::ClaimType("groups"))?;
            groups.unwrap_or_default().into_iter().map(str::to_owned).collect()
        }
        Some(_) if rules.groups => return Err(Fault::ClaimType("groups")),
        _ => Vec::new(),
    };
    Ok(Subject { id, local, email: email(claims, rules)?, groups })
}

fn optional(claims: &Map<String, Value>, name: &'static str) -> Result<Option<String>, Fault> {
    match claims.contains_key(name) {
        true => claims::identifier(claims, name).map(|text| Some(text.to_owned())),
        false => Ok(None),
    }
}

/// ID-JAG §3.2.2: missing, malformed, of another format, or of a SAML issuer that is not this ID-JAG
/// issuer's: no user.
fn saml(claims: &Map<String, Value>, rules: &SamlRules) -> Result<LocalSubject, Fault> {
    let id = claims.get("sub_id").and_then(Value::as_object).ok_or(Fault::Subject)?;
    if json::string(id, "format").ok().flatten() != Some("saml-nameid") {
        return Err(Fault::Subject);
    }
    let text = |name| claims::identifier(id, name).map_err(|_| Fault::Subject);
    let issuer = text("issuer")?;
    if !rules.issuers.iter().any(|trusted| trusted == issuer) {
        return Err(Fault::Subject);
    }
    let mut members = vec![
        ("issuer".to_owned(), issuer.to_owned()),
        ("nameid".to_owned(), text("nameid")?.to_owned()),
    ];
    for name in SAML_MEMBERS {
        if id.contains_key(name) && rules.identified_by.iter().any(|member| member == name) {
            members.push((name.to_owned(), text(name)?.to_owned()));
        }
    }
    Ok(LocalSubject::Saml(members))
}

/// An address counts if its domain is one this issuer may link by and the issuer does not say that
/// it is unverified. It finds a user, it never authorizes (ID-JAG §3.1).
fn email(claims: &Map<String, Value>, rules: &SubjectRules) -> Result<Option<LocalSubject>, Fault> {
    if rules.email_domains.is_empty() {
        return Ok(None);
    }
    let verified = match claims.get("email_verified") {
        None => true,
        Some(Value::Bool(verified)) => *verified,
        Some(_) => return Err(Fault::ClaimType("email_verified")),
    };
    let Some(address) = optional(claims, "email")? else {
        return Ok(None);
    };
    let Some((name, domain)) = address.rsplit_once('@') else {
        return Ok(None);
    };
    let domain = domain.to_ascii_lowercase();
    let linked = verified && !name.is_empty() && rules.email_domains.contains(&domain);
    Ok(linked.then(|| LocalSubject::Email(format!("{name}@{domain}"))))
}
