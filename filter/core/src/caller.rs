//! Who calls a resource that is upgraded for: the one credential of a request, and whom it stands for.

use crate::config::{Caller, Presents, Subject, Upgrade};
use crate::digest::{Key, of_fields, sha256};
use crate::error::Error;
use crate::form;
use crate::http::Request;
use crate::jws::{Fault, is_media_type};
use crate::names;
use crate::secret::{Secret, same_digest};
use crate::token_exchange::decoded;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What stands for a caller at the identity provider.
#[derive(Debug, Clone)]
pub enum SubjectToken {
    /// An ID Token issued to our client.
    IdToken(Secret),
    /// An access token of the identity provider.
    AccessToken(Secret),
    /// A refresh token issued to our client.
    RefreshToken {
        /// As it was configured, or as the caller sent it: it may have been replaced since.
        original: Secret,
        /// Whether the caller sent it.
        presented: bool,
    },
    /// An access token that our client gets for itself, of this scope.
    ClientCredentials(String),
    /// An access token that the identity provider gives for this JWT, of this scope.
    JwtBearer(Secret, String),
    /// A SAML assertion or response: what the caller sent until it is checked, what is sent on after.
    Saml(Secret),
    /// The token of a workload that is yet to be told from others.
    Workload(Secret),
}

impl SubjectToken {
    /// How many bytes of it are kept.
    pub fn size(&self) -> usize {
        match self {
            Self::IdToken(token)
            | Self::AccessToken(token)
            | Self::RefreshToken { original: token, .. }
            | Self::JwtBearer(token, _)
            | Self::Saml(token)
            | Self::Workload(token) => token.expose().len(),
            Self::ClientCredentials(_) => 0,
        }
    }

    /// Digest of what it is and of what is secret in it.
    fn key(&self) -> Key {
        let (kind, secret, scope) = match self {
            Self::IdToken(token) => ("id_token", token.expose(), ""),
            Self::AccessToken(token) => ("access_token", token.expose(), ""),
            Self::RefreshToken { original, .. } => ("refresh_token", original.expose(), ""),
            Self::ClientCredentials(scope) => ("client_credentials", "", scope.as_str()),
            Self::JwtBearer(token, scope) => ("jwt_bearer", token.expose(), scope.as_str()),
            Self::Saml(text) => ("saml", text.expose(), ""),
            Self::Workload(token) => ("workload", token.expose(), ""),
        };
        of_fields(&[kind.as_bytes(), secret.as_bytes(), scope.as_bytes()])
    }
}

/// A caller that is known by what it presents.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name, for the record.
    pub name: String,
    /// Its place among the callers of the configuration.
    pub index: usize,
    /// What stands for it.
    pub subject: SubjectToken,
    /// Whether the subject token came with the request, and has yet to pass the checks of its kind.
    pub is_own: bool,
    /// Whether nobody here can tell if what it presents is genuine: only its form is checked.
    pub is_unproven: bool,
    /// Digest of the credential it presented, and of what that stands for.
    pub key: Key,
}

/// The caller that the one credential of `request` stands for.
///
/// API keys, passwords and certificates are compared, by digest and in constant time, with all there
/// are. A token that stands for itself is *not* yet verified here.
///
/// [`Error::NoCredential`] if there is none that any caller has, [`Error::SeveralCredentials`] if there is
/// more than one, [`Error::UnknownApiKey`] if it is nobody's.
pub fn identify(upgrade: &Upgrade, request: &Request) -> Result<Known, Error> {
    match (presented(upgrade, request)?, by_certificate(upgrade, request)) {
        (None, None) => Err(Error::NoCredential),
        (Some(_), Some(_)) => Err(Error::SeveralCredentials),
        (None, Some(caller)) => {
            let certificate = request.certificate.as_ref().map(|certificate| certificate.sha256);
            known(upgrade, caller, &certificate.unwrap_or_default(), None)
        }
        (Some(Presented::Basic(user, password)), None) => {
            let digest = sha256(password.as_bytes());
            // As RFC 7617 has them, or each form-encoded, as RFC 6749 §2.3.1 does.
            let decoded = form::decode(&password).map(|password| sha256(password.as_bytes()));
            let decoded_user = form::decode(&user);
            let is = |caller: &&Caller| match &caller.presents {
                Presents::Basic(id, expected) => {
                    let encoded = decoded.is_some_and(|decoded| same_digest(expected, &decoded))
                        && decoded_user.as_ref() == Some(id);
                    (same_digest(expected, &digest) && *id == user) | encoded
                }
                _ => false,
            };
            let caller = upgrade.callers.iter().rfind(is).ok_or(Error::UnknownApiKey)?;
            known(upgrade, caller, &of_fields(&[user.as_bytes(), &digest]), None)
        }
        (Some(Presented::Value(header, value)), None) => by_value(upgrade, header, value),
    }
}

/// Whether `request` comes from a client that speaks EMA itself: it has a token of the Resource AS, or has
/// no credential yet and asks for directions.
///
/// The token is *not* verified, only read: the server it goes to is the one that issued it or trusts who
/// did.
pub fn speaks_ema(upgrade: &Upgrade, request: &Request) -> bool {
    let certified = by_certificate(upgrade, request).is_some();
    let mut headers = upgrade.presented.iter().flat_map(|name| request.headers.all(name));
    let token = match (headers.next(), headers.next()) {
        (None, _) => return !certified,
        (Some(only), None) => only,
        _ => return false,
    };
    let Some((scheme, token)) = request
        .headers
        .text("authorization")
        .filter(|value| value.as_bytes() == token)
        .and_then(|value| value.split_once(' '))
    else {
        return false;
    };
    let is_scheme = ["bearer", "dpop"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    // The whole of it goes on, so it must be that one token and nothing behind it (RFC 7515 §3.1).
    let is_jws = token.split('.').count() == 3
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let is_alone = is_jws && is_scheme && !certified;
    let claims = decoded(token).map(|(_, claims)| claims).filter(|_| is_alone);
    let issuer = claims.as_ref().and_then(|claims| claims.get("iss")?.as_str());
    let mut servers = upgrade.servers.iter();
    issuer.is_some_and(|issuer| servers.any(|server| server.party.issuer.as_str() == issuer))
}

/// The caller whose certificate the connection showed.
fn by_certificate<'a>(upgrade: &'a Upgrade, request: &Request) -> Option<&'a Caller> {
    let shown = request.certificate.as_ref()?;
    upgrade.callers.iter().find(|caller| match &caller.presents {
        Presents::Certificate(registered) => registered.matches(shown),
        _ => false,
    })
}

/// Names of the header fields in which `callers` present something, each once.
pub fn headers(callers: &[Caller]) -> Vec<String> {
    let mut headers = vec!["authorization".to_owned()];
    for caller in callers {
        let (Presents::ApiKey(header, _)
        | Presents::RefreshToken(header)
        | Presents::Saml { header, .. }) = &caller.presents
        else {
            continue;
        };
        if !headers.contains(header) {
            headers.push(header.clone());
        }
    }
    headers
}

enum Presented<'a> {
    /// A value in a header; the bearer's, if it is `authorization`.
    Value(&'a str, &'a [u8]),
    /// User and password of HTTP Basic (RFC 7617).
    Basic(String, String),
}

/// The one credential in the headers of `request`.
fn presented<'a>(
    upgrade: &'a Upgrade,
    request: &'a Request,
) -> Result<Option<Presented<'a>>, Error> {
    let all = |name: &'a String| request.headers.all(name).map(move |value| (&**name, value));
    let mut values = upgrade.presented.iter().flat_map(all);
    let (name, value) = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(only), None) => only,
        _ => return Err(Error::SeveralCredentials),
    };
    if name != "authorization" {
        return Ok(Some(Presented::Value(name, value)));
    }
    // Envoy joins two fields into one with a comma, which neither Bearer nor Basic has.
    if value.contains(&b',') {
        return Err(Error::SeveralCredentials);
    }
    let space = value.iter().position(|byte| *byte == b' ').ok_or(Error::NoCredential)?;
    let (scheme, rest) = value.split_at_checked(space).ok_or(Error::NoCredential)?;
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(Some(Presented::Value(name, rest)));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(Error::NoCredential);
    }
    let pair = STANDARD.decode(rest).ok().and_then(|pair| String::from_utf8(pair).ok());
    let pair = pair.ok_or(Error::UnknownApiKey)?;
    let (user, password) = pair.split_once(':').ok_or(Error::UnknownApiKey)?;
    Ok(Some(Presented::Basic(user.to_owned(), password.to_owned())))
}

fn by_value(upgrade: &Upgrade, header: &str, value: &[u8]) -> Result<Known, Error> {
    let digest = sha256(value);
    // Every key is compared, whichever it is.
    let is_key = |caller: &&Caller| match &caller.presents {
        Presents::ApiKey(name, expected) => same_digest(expected, &digest) & (name == header),
        _ => false,
    };
    if let Some(caller) = upgrade.callers.iter().rfind(is_key) {
        return known(upgrade, caller, &digest, None);
    }
    let text = core::str::from_utf8(value).map_err(|_| Error::IdToken(Fault::Charset))?;
    let caller = by_kind(upgrade, header, text).ok_or(Error::UnknownApiKey)?;
    known(upgrade, caller, &digest, Some(Secret::new(text)))
}

/// The caller that presents tokens of this kind: which it is, a JWT says itself, unverified.
fn by_kind<'a>(upgrade: &'a Upgrade, header: &str, token: &str) -> Option<&'a Caller> {
    let is_bearer = header == "authorization";
    let may_be = |caller: &&Caller| match &caller.presents {
        Presents::IdToken | Presents::AccessToken { .. } | Presents::Workload(_) => is_bearer,
        Presents::RefreshToken(name) | Presents::Saml { header: name, .. } => header == name,
        Presents::ApiKey(..) | Presents::Basic(..) | Presents::Certificate(_) => false,
    };
    let mut kinds = upgrade.callers.iter().filter(may_be);
    let first = kinds.next()?;
    if kinds.next().is_none() {
        return Some(first);
    }
    let claims = decoded(token);
    let text = |object: &Map<String, Value>, name: &str| {
        object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (typ, issuer) = match &claims {
        Some((header, claims)) => (text(header, "typ"), text(claims, "iss")),
        None => Default::default(),
    };
    let typed = is_media_type(&typ, names::TYP_ACCESS_TOKEN);
    let provider = upgrade.identity_provider.party.issuer.as_str();
    let is = |caller: &&Caller| match &caller.presents {
        Presents::IdToken => claims.is_some() && issuer == provider && !typed,
        Presents::AccessToken { untyped, .. } => issuer == provider && (typed || *untyped),
        Presents::Workload(workload) => issuer == workload.issuer.party.issuer.as_str(),
        Presents::Saml { .. } => claims.is_none(),
        _ => true,
    };
    upgrade.callers.iter().filter(may_be).find(is)
}

/// `token` is what the caller presents if that stands for itself.
fn known(
    upgrade: &Upgrade,
    caller: &Caller,
    credential: &Key,
    token: Option<Secret>,
) -> Result<Known, Error> {
    let token = token.unwrap_or_else(|| Secret::new(""));
    let subject = match (&caller.presents, &caller.subject) {
        // Which of those with this issuer it is, its claims say once they are verified.
        (Presents::Workload(_), _) => SubjectToken::Workload(token),
        (Presents::RefreshToken(_), _) => {
            SubjectToken::RefreshToken { original: token, presented: true }
        }
        (Presents::AccessToken { .. }, _) => SubjectToken::AccessToken(token),
        (Presents::Saml { .. }, _) => SubjectToken::Saml(token),
        (_, subject) => stands_for(subject, &token),
    };
    let is_place = |other: &Caller| core::ptr::eq(other, caller);
    Ok(Known {
        key: of_fields(&[caller.name.as_bytes(), credential, &subject.key()]),
        name: caller.name.clone(),
        index: upgrade.callers.iter().position(is_place).ok_or(Error::UnknownApiKey)?,
        is_own: matches!(caller.subject, Subject::Own)
            || matches!(caller.presents, Presents::Workload(_)),
        is_unproven: caller.presents.is_unproven(),
        subject,
    })
}

/// What `subject` means for a caller that presents `token`.
pub fn stands_for(subject: &Subject, token: &Secret) -> SubjectToken {
    match subject {
        Subject::Own => SubjectToken::IdToken(token.clone()),
        Subject::IdToken(token) => SubjectToken::IdToken(token.clone()),
        Subject::RefreshToken(token) => {
            SubjectToken::RefreshToken { original: token.clone(), presented: false }
        }
        Subject::ClientCredentials(scope) => SubjectToken::ClientCredentials(scope.clone()),
        Subject::JwtBearer(scope) => SubjectToken::JwtBearer(token.clone(), scope.clone()),
    }
}
