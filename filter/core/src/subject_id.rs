//! Who a user is at their identity provider (RFC 9493): in our access tokens, and in what identity
//! providers tell us of their users.

use crate::claims;
use crate::digest::{Key, of_fields};
use crate::json;
use crate::jws::Fault;
use serde_json::{Map, Value, json};

/// A user, as one identity provider names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectId {
    /// The identity provider.
    pub issuer: String,
    /// The tenant there in which `subject` is unique, if there is one.
    pub tenant: Option<String>,
    /// The user there.
    pub subject: String,
}

impl SubjectId {
    /// A subject identifier of the format `iss_sub` (RFC 9493 §3.2.5), or `complex` with a `user` of
    /// that format and perhaps a `tenant` of the format `opaque` (OpenID SSF).
    ///
    /// [`Fault::ClaimType`] for anything else.
    pub fn parse(value: &Value) -> Result<Self, Fault> {
        let fault = Fault::ClaimType("sub_id");
        let members = value.as_object().ok_or(fault)?;
        let format = |members| json::string(members, "format").ok().flatten();
        let (user, tenant) = match format(members) {
            Some("iss_sub") => (members, None),
            Some("complex") => {
                let user = members.get("user").and_then(Value::as_object).ok_or(fault)?;
                let tenant = match members.get("tenant") {
                    None => None,
                    Some(tenant) => {
                        let tenant = tenant.as_object().ok_or(fault)?;
                        if format(tenant) != Some("opaque") {
                            return Err(fault);
                        }
                        Some(claims::identifier(tenant, "id")?.to_owned())
                    }
                };
                (user, tenant)
            }
            _ => return Err(fault),
        };
        if format(user) != Some("iss_sub") {
            return Err(fault);
        }
        Ok(Self {
            issuer: claims::identifier(user, "iss")?.to_owned(),
            tenant,
            subject: claims::identifier(user, "sub")?.to_owned(),
        })
    }

    /// The same, as [`SubjectId::parse`] reads it.
    pub fn to_value(&self) -> Value {
        let user = json!({ "format": "iss_sub", "iss": self.issuer, "sub": self.subject });
        match &self.tenant {
            None => user,
            Some(id) => {
                let tenant = json!({ "format": "opaque", "id": id });
                Value::Object(Map::from_iter([
                    ("format".to_owned(), "complex".into()),
                    ("tenant".to_owned(), tenant),
                    ("user".to_owned(), user),
                ]))
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

    #[test]
    fn what_does_not_name_one_user_of_one_issuer_is_refused() {
        let user = json!({ "format": "iss_sub", "iss": "i", "sub": "s" });
        for value in [
            json!(null),
            json!("s"),
            json!({ "iss": "i", "sub": "s" }),
            json!({ "format": "iss_sub", "iss": "i" }),
            json!({ "format": "iss_sub", "iss": "i", "sub": "" }),
            json!({ "format": "iss_sub", "iss": ["i"], "sub": "s" }),
            json!({ "format": "email", "email": "a@b.example" }),
            json!({ "format": "opaque", "id": "s" }),
            json!({ "format": "aliases", "identifiers": [user] }),
            json!({ "format": "complex" }),
            json!({ "format": "complex", "user": { "format": "opaque", "id": "s" } }),
            json!({ "format": "complex", "user": user, "tenant": "t" }),
            json!({ "format": "complex", "user": user, "tenant": { "format": "opaque" } }),
            json!({ "format": "complex", "user": user, "tenant": { "format": "uri", "id": "t" } }),
        ] {
            assert!(SubjectId::parse(&value).is_err(), "{value}");
        }
    }
}
