//! Subject identifiers (RFC 9493), as far as they can name a user of an identity provider here.

use crate::claims;
use crate::digest::{Key, of_fields};
use serde_json::{Map, Value, json};

/// A user, named the way an ID-JAG names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectId {
    /// The identity provider.
    pub issuer: String,
    /// The tenant there in which `subject` is unique, if one is named.
    pub tenant: Option<String>,
    /// The user there.
    pub subject: String,
}

/// Why a subject identifier is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// What should hold it is not one strict JSON object.
    Json,
    /// It is absent, or there are two.
    Missing,
    /// Its format, or a member of a complex one, is none that is understood here.
    Unsupported,
    /// A member that the format demands is absent or of the wrong type, size or characters, or there
    /// is one that the format does not describe.
    Member,
}

impl Malformed {
    /// Stable code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Json => "body_json",
            Self::Missing => "sub_id_missing",
            Self::Unsupported => "sub_id_unsupported",
            Self::Member => "sub_id_member",
        }
    }
}

impl SubjectId {
    /// The user in `value`: format `iss_sub` (RFC 9493 §3.2.3), or `complex` (OpenID Shared
    /// Signals Framework) with such a `user` and perhaps an `opaque` `tenant` (RFC 9493 §3.2.4).
    ///
    /// A complex subject is all of its members together. One that also names a `session` is less than
    /// the user, and no token here says which it belongs to, so it is read as the user: tokens are
    /// short, and what is revoked too much comes back with the next grant. One that names a device is
    /// [`Malformed::Unsupported`], like any other format. [`Malformed::Member`] for a member that is not
    /// as its format describes; of a session, no more than its `format` is read.
    ///
    /// Does *not* check that whoever sent it may speak for the issuer it names.
    pub fn parse(value: &Value) -> Result<Self, Malformed> {
        let members = value.as_object().ok_or(Malformed::Member)?;
        match format(members)? {
            "iss_sub" => iss_sub(members, None),
            "complex" => {
                let known = ["format", "user", "tenant", "session"];
                if !members.keys().all(|name| known.contains(&name.as_str())) {
                    return Err(Malformed::Unsupported);
                }
                if let Some(session) = members.get("session") {
                    format(session.as_object().ok_or(Malformed::Member)?)?;
                }
                let tenant = members.get("tenant").map(opaque).transpose()?;
                let user = nested(members.get("user").ok_or(Malformed::Member)?, "iss_sub")?;
                iss_sub(user, tenant)
            }
            _ => Err(Malformed::Unsupported),
        }
    }

    /// The same, as [`SubjectId::parse`] reads it.
    pub fn to_value(&self) -> Value {
        let user = json!({ "format": "iss_sub", "iss": self.issuer, "sub": self.subject });
        match &self.tenant {
            None => user,
            Some(id) => {
                let tenant = json!({ "format": "opaque", "id": id });
                json!({ "format": "complex", "tenant": tenant, "user": user })
            }
        }
    }

    /// A name that two identity providers, or two tenants of one, cannot make collide.
    pub fn key(&self) -> Key {
        let tenant = self.tenant.as_deref();
        of_fields(&[
            b"sub",
            self.issuer.as_bytes(),
            &[u8::from(tenant.is_some())],
            tenant.unwrap_or_default().as_bytes(),
            self.subject.as_bytes(),
        ])
    }
}

fn format(members: &Map<String, Value>) -> Result<&str, Malformed> {
    claims::identifier(members, "format").map_err(|_| Malformed::Member)
}

fn nested<'a>(value: &'a Value, expected: &str) -> Result<&'a Map<String, Value>, Malformed> {
    let members = value.as_object().ok_or(Malformed::Member)?;
    if format(members)? == expected { Ok(members) } else { Err(Malformed::Unsupported) }
}

fn iss_sub(members: &Map<String, Value>, tenant: Option<String>) -> Result<SubjectId, Malformed> {
    let [issuer, subject] = ["iss", "sub"].map(|name| exactly(members, name, 3));
    Ok(SubjectId { issuer: issuer?, tenant, subject: subject? })
}

fn opaque(value: &Value) -> Result<String, Malformed> {
    exactly(nested(value, "opaque")?, "id", 2)
}

/// The member `name` of an identifier that has `count` of them, `format` included. RFC 9493 §3: it
/// "MUST NOT contain any members prohibited or not described by its Identifier Format".
fn exactly(
    members: &Map<String, Value>,
    name: &'static str,
    count: usize,
) -> Result<String, Malformed> {
    if members.len() != count {
        return Err(Malformed::Member);
    }
    claims::identifier(members, name).map(str::to_owned).map_err(|_| Malformed::Member)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_subject_is_read_back_as_written() {
        let plain = SubjectId { issuer: "i".into(), tenant: None, subject: "s".into() };
        let tenant = SubjectId { tenant: Some("t".into()), ..plain.clone() };

        for subject in [&plain, &tenant] {
            assert_eq!(SubjectId::parse(&subject.to_value()).as_ref(), Ok(subject));
        }
        assert_ne!(plain.key(), tenant.key());
    }

    fn user() -> Value {
        json!({ "format": "iss_sub", "iss": "https://idp", "sub": "alice" })
    }

    #[test]
    fn a_user_is_named_by_issuer_and_subject_and_perhaps_tenant() {
        let tenant = json!({ "format": "opaque", "id": "t1" });
        let cases = [
            (user(), None),
            (json!({ "format": "complex", "user": user() }), None),
            (json!({ "format": "complex", "user": user(), "tenant": tenant }), Some("t1")),
            (json!({ "format": "complex", "user": user(), "session": tenant }), None),
        ];

        for (value, tenant) in cases {
            let subject = SubjectId::parse(&value).unwrap();
            assert_eq!((&*subject.issuer, &*subject.subject), ("https://idp", "alice"), "{value}");
            assert_eq!(subject.tenant.as_deref(), tenant, "{value}");
        }
    }

    #[test]
    fn a_subject_that_cannot_be_looked_up_here_is_unsupported() {
        let opaque = json!({ "format": "opaque", "id": "1" });
        let email = json!({ "format": "email", "email": "alice@acme.example" });
        let cases = [
            opaque.clone(),
            email.clone(),
            json!({ "format": "ISS_SUB", "iss": "https://idp", "sub": "alice" }),
            json!({ "format": "aliases", "identifiers": [user()] }),
            json!({ "format": "complex", "user": email }),
            json!({ "format": "complex", "user": { "format": "complex", "user": user() } }),
            json!({ "format": "complex", "user": user(), "device": opaque }),
            json!({ "format": "complex", "user": user(), "session": opaque, "device": opaque }),
            json!({ "format": "complex", "user": user(), "tenant": user() }),
        ];

        for value in cases {
            assert_eq!(SubjectId::parse(&value), Err(Malformed::Unsupported), "{value}");
        }
    }

    #[test]
    fn members_are_what_the_format_describes() {
        let long = "x".repeat(257);
        let cases = [
            json!(null),
            json!("alice"),
            json!([user()]),
            json!({}),
            json!({ "format": ["iss_sub"], "iss": "https://idp", "sub": "alice" }),
            json!({ "iss": "https://idp", "sub": "alice" }),
            json!({ "format": "iss_sub", "iss": "https://idp" }),
            json!({ "format": "iss_sub", "sub": "alice" }),
            json!({ "format": "iss_sub", "iss": "https://idp", "sub": "" }),
            json!({ "format": "iss_sub", "iss": "https://idp", "sub": 1 }),
            json!({ "format": "iss_sub", "iss": "https://idp", "sub": null }),
            json!({ "format": "iss_sub", "iss": ["https://idp"], "sub": "alice" }),
            json!({ "format": "iss_sub", "iss": "https://idp", "sub": "al\nice" }),
            json!({ "format": "iss_sub", "iss": "https://idp", "sub": long }),
            json!({ "format": "iss_sub", "iss": "https://idp", "sub": "alice", "email": "a@b" }),
            json!({ "format": "complex" }),
            json!({ "format": "complex", "session": { "format": "opaque", "id": "1" } }),
            json!({ "format": "complex", "user": user(), "session": "1" }),
            json!({ "format": "complex", "user": user(), "session": null }),
            json!({ "format": "complex", "user": user(), "session": { "id": "1" } }),
            json!({ "format": "complex", "user": "alice" }),
            json!({ "format": "complex", "user": user(), "tenant": "t1" }),
            json!({ "format": "complex", "user": user(), "tenant": null }),
            json!({ "format": "complex", "user": user(), "tenant": { "format": "opaque" } }),
            json!({
                "format": "complex", "user": user(),
                "tenant": { "format": "opaque", "id": "t1", "iss": "https://idp" },
            }),
        ];

        for value in cases {
            assert_eq!(SubjectId::parse(&value), Err(Malformed::Member), "{value}");
        }
    }
}
