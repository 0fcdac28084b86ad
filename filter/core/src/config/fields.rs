//! Single fields: secrets, keys, digests, URLs, names, numbers.

use super::build::Reading;
use super::{ConfigError, IdentityProvider, raw};
use crate::claims::MAX_IDENTIFIER;
use crate::digest::{self, Key};
use crate::http::Url;
use crate::jws::Algorithm;
use crate::names;
use crate::routes::is_ambiguous;
use crate::secret::Secret;
use crate::signing::SigningKey;
use crate::token_endpoint::scope_tokens;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A piece of configuration, or why it is refused.
pub(super) type Result<T> = core::result::Result<T, ConfigError>;

impl Reading<'_> {
    /// A variable's value without the newline that files of secrets end in. Never empty.
    pub(super) fn secret(&self, path: &str, reference: &raw::Reference) -> Result<Secret> {
        let name = &reference.env;
        let Some(value) = (self.env)(name) else {
            let problem = format!("environment variable `{name}` is not set in the VM");
            return fail(format!("{path}.env"), problem);
        };
        let value = value.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            return fail(format!("{path}.env"), format!("environment variable `{name}` is empty"));
        }
        let secret = Secret::new(value);
        self.secrets.borrow_mut().push(secret.clone());
        Ok(secret)
    }

    pub(super) fn signing_key(
        &self,
        path: &str,
        key: &raw::Reference,
        kid: Option<&str>,
    ) -> Result<SigningKey> {
        if let Some(kid) = kid {
            identifier(&format!("{path}.kid"), kid)?;
        }
        let pem = self.secret(&format!("{path}.key"), key)?;
        match SigningKey::from_pem(pem.expose(), kid) {
            Some(key) => Ok(key.with_engine(&self.engine)),
            None => fail(
                format!("{path}.key"),
                "must be a private key in PKCS#8 PEM, Ed25519 or P-256 (RSA is not signed with)",
            ),
        }
    }

    /// A secret that has to stand in a header: visible ASCII and inner spaces.
    pub(super) fn header_secret(&self, path: &str, reference: &raw::Reference) -> Result<Secret> {
        let secret = self.secret(path, reference)?;
        let visible = secret.expose().bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !visible || secret.expose() != secret.expose().trim() {
            return fail(format!("{path}.env"), "has characters that no header can carry");
        }
        Ok(secret)
    }

    pub(super) fn digest(&self, path: &str, raw: &raw::Digest) -> Result<Key> {
        let text = match raw {
            raw::Digest::Literal(text) => text.clone(),
            raw::Digest::Reference(reference) => self.secret(path, reference)?.expose().to_owned(),
        };
        match digest::from_hex(&text) {
            Some(key) if key == digest::sha256(b"") => fail(path, "is the digest of nothing"),
            Some(key) => Ok(key),
            None => fail(path, "must be 64 hexadecimal digits, or `{ env: NAME }`"),
        }
    }

    pub(super) fn url(&self, path: &str, text: &str) -> Result<Url> {
        match Url::parse(text) {
            None => fail(path, "must be an absolute URL in normal form, without fragment"),
            Some(url) if is_ambiguous(url.path()) => {
                fail(path, "has a path that no request is let through for")
            }
            Some(_) if text.len() > MAX_IDENTIFIER => {
                fail(path, format!("must have at most {MAX_IDENTIFIER} bytes"))
            }
            Some(url) if !url.is_https() && !self.allow_http => {
                fail(path, "must be https (or set `allow_insecure_http` for a trial)")
            }
            Some(url) => Ok(url),
        }
    }

    pub(super) fn optional_url(
        &self,
        path: &str,
        name: &str,
        text: &Option<String>,
    ) -> Result<Option<Url>> {
        text.as_ref().map(|text| self.url(&format!("{path}.{name}"), text)).transpose()
    }

    /// RFC 8414 §2: an issuer identifier has no query and no fragment.
    pub(super) fn issuer(&self, path: &str, text: &str) -> Result<Url> {
        let path = format!("{path}.issuer");
        let url = self.url(&path, text)?;
        if url.path_and_query().contains('?') {
            return fail(path, "must have no query");
        }
        Ok(url)
    }
}

pub(super) fn named<'a>(
    path: &str,
    name: &str,
    providers: &'a BTreeMap<String, Rc<IdentityProvider>>,
) -> Result<&'a Rc<IdentityProvider>> {
    match providers.get(name) {
        Some(provider) => Ok(provider),
        None => fail(path, format!("`{name}` is not in `identity_providers`")),
    }
}

pub(super) fn algorithms(path: &str, names: &[String]) -> Result<Vec<Algorithm>> {
    let mut algorithms = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match Algorithm::named(name) {
            Some(algorithm) => algorithms.push(algorithm),
            None => return fail(format!("{path}[{index}]"), "no asymmetric algorithm we offer"),
        }
    }
    if algorithms.is_empty() {
        return fail(path, "needs at least one algorithm");
    }
    Ok(algorithms)
}

pub(super) fn scopes(path: &str, raw: &[String]) -> Result<Vec<String>> {
    for (index, scope) in raw.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if scope_tokens(scope).is_none_or(|tokens| tokens.len() != 1) {
            return fail(path, "must be one scope token (RFC 6749 section 3.3)");
        }
        if raw.iter().take(index).any(|other| other == scope) {
            return fail(path, "named twice");
        }
    }
    Ok(raw.to_vec())
}

/// What is asked of a user's authentication: both fields of `path`.
pub(super) fn authentication(
    path: &str,
    required_acr: &[String],
    max_auth_age: Option<u64>,
) -> Result<()> {
    for (index, acr) in required_acr.iter().enumerate() {
        let plain = acr.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        if acr.is_empty() || !plain {
            return fail(format!("{path}.required_acr[{index}]"), "must be one acr value");
        }
    }
    if max_auth_age == Some(0) {
        return fail(format!("{path}.max_auth_age"), "must be 1 second or more");
    }
    Ok(())
}

/// A field name in lower case, as Envoy gives it; none that steers the proxy or is our own.
pub(super) fn header_name(path: &str, name: &str) -> Result<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let name = name.to_ascii_lowercase();
    let steering = [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if name.is_empty() || !name.bytes().all(token) || steering.contains(&name.as_str()) {
        return fail(path, "is not the name of a header that can carry a credential");
    }
    if name.starts_with(names::OWN_HEADER_PREFIX) || name.starts_with("x-envoy-") {
        return fail(path, "is a name that the proxy keeps for itself");
    }
    Ok(name)
}

pub(super) fn cluster(path: &str, name: &str) -> Result<String> {
    not_empty(&format!("{path}.cluster"), name)?;
    Ok(name.to_owned())
}

/// Text that has to equal a claim or stand in a JOSE header: bounded, and nothing that hides.
pub(super) fn identifier(path: &str, text: &str) -> Result<()> {
    not_empty(path, text)?;
    if text.len() > MAX_IDENTIFIER {
        return fail(path, format!("must have at most {MAX_IDENTIFIER} bytes"));
    }
    Ok(())
}

pub(super) fn not_empty(path: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return fail(path, "must not be empty");
    }
    Ok(())
}

pub(super) fn within(path: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if !(least..=most).contains(&value) {
        return fail(path, format!("must be {least} to {most} seconds"));
    }
    Ok(())
}

pub(super) fn fail<T>(path: impl Into<String>, problem: impl Into<String>) -> Result<T> {
    Err(ConfigError { path: path.into(), problem: problem.into() })
}
