//! A JWS in compact form, taken apart but not believed (RFC 7515, RFC 8725).

use crate::json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest token read at all.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Longest JOSE header read, decoded.
const MAX_HEADER: usize = 2 * 1024;
/// Longest `kid` looked up.
const MAX_KID: usize = 256;
/// Header parameters that bring a key or say where one is (RFC 7515 §4.1.2 to §4.1.8).
const KEYS: [&str; 6] = ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"];

/// What is wrong with a JWT. The caller learns none of this; the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Longer than 16 KiB.
    TooLarge,
    /// A byte outside base64url and `.`: nothing is trimmed, nothing is stripped.
    Charset,
    /// Not three parts, or an empty part.
    Format,
    /// Five parts, or a header that speaks of encryption.
    JweNotSupported,
    /// Not canonical base64url (RFC 4648 §5 without padding).
    Base64,
    /// Header longer than 2 KiB.
    HeaderTooLarge,
    /// Header is not one strict JSON object.
    HeaderJson,
    /// `alg`, `typ` or `kid` has the wrong type or size.
    HeaderType(&'static str),
    /// `crit` or `b64`: we implement no extension (RFC 7515 §4.1.11).
    Crit,
    /// A key or a key's address in the header (`jwk`, `jku`, `x5c`, `x5t`, `x5u`).
    ForbiddenParameter,
    /// `typ` is not the one this kind of token has (RFC 8725 §3.11).
    Typ,
    /// `alg` is not in the allow-list.
    AlgorithmNotAllowed,
    /// Payload is not one strict JSON object.
    PayloadJson,
    /// A claim this kind of token must have is absent or empty.
    Missing(&'static str),
    /// A claim has the wrong type, size or characters.
    ClaimType(&'static str),
    /// `iss` is not a trusted issuer.
    Issuer,
    /// No key of that issuer fits `kid` and `alg`.
    KeyUnknown,
    /// The signature does not verify.
    Signature,
    /// `aud` is not us, and us alone where that is the rule.
    Audience,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    NotYetValid,
    /// `iat` lies in the future.
    IssuedInFuture,
    /// `exp` is not after `iat`, or further from it than allowed.
    Lifetime,
    /// `client_id` is another client's.
    ClientMismatch,
    /// The issuer may not speak for this client.
    IssuerNotForClient,
    /// `tenant` or `aud_tenant` is missing, or is none that the issuer may speak of.
    Tenant,
    /// What the token is bound to was not shown, cannot be checked, or is missing where it must be.
    Confirmation,
    /// `resource` names something not governed here.
    Resource,
    /// The user cannot be told from the claims that name users here.
    Subject,
    /// The token was revoked, or its user's session was.
    Revoked,
    /// (`iss`, `jti`) was seen before.
    Replayed,
}

impl Fault {
    /// Stable code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Charset => "jwt_charset",
            Self::Format => "jwt_format",
            Self::JweNotSupported => "jwe_not_supported",
            Self::Base64 => "b64_noncanonical",
            Self::HeaderTooLarge => "header_too_large",
            Self::HeaderJson => "header_json",
            Self::HeaderType(_) => "header_type",
            Self::Crit => "crit",
            Self::ForbiddenParameter => "header_forbidden_param",
            Self::Typ => "typ",
            Self::AlgorithmNotAllowed => "alg_not_allowed",
            Self::PayloadJson => "payload_json",
            Self::Missing(_) => "claim_missing",
            Self::ClaimType(_) => "claim_type",
            Self::Issuer => "iss",
            Self::KeyUnknown => "kid_unknown",
            Self::Signature => "signature",
            Self::Audience => "aud",
            Self::Expired => "expired",
            Self::NotYetValid => "nbf",
            Self::IssuedInFuture => "iat",
            Self::Lifetime => "lifetime",
            Self::ClientMismatch => "client_mismatch",
            Self::IssuerNotForClient => "issuer_not_for_client",
            Self::Tenant => "tenant",
            Self::Confirmation => "cnf",
            Self::Resource => "resource",
            Self::Subject => "subject_unresolved",
            Self::Revoked => "revoked",
            Self::Replayed => "jti_replayed",
        }
    }
}

/// Signature algorithms offered (RFC 7518 §3.1, RFC 8037). No `none`, no HMAC: neither is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the registered ones")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    const ALL: [(Self, &'static str); 9] = [
        (Self::RS256, "RS256"),
        (Self::RS384, "RS384"),
        (Self::RS512, "RS512"),
        (Self::PS256, "PS256"),
        (Self::PS384, "PS384"),
        (Self::PS512, "PS512"),
        (Self::ES256, "ES256"),
        (Self::ES384, "ES384"),
        (Self::EdDSA, "EdDSA"),
    ];

    /// The algorithm registered under exactly this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, other)| *other == name).map(|(algorithm, _)| *algorithm)
    }

    /// The name it is registered under.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(other, _)| *other == self).map_or("", |(_, name)| name)
    }
}

/// A JWS whose form is sound. Nothing in it has been verified: only what the choice of a key
/// needs may be read from it before [`crate::jwk::KeySet::verify`] has said yes.
#[derive(Debug)]
pub struct Jws<'a> {
    /// Allowed algorithm of the header.
    pub algorithm: Algorithm,
    /// `kid` of the header: an untrusted look-up key.
    pub kid: Option<String>,
    /// `jwk` of the header, as sent: an object, and the only key the header brings or points to.
    /// Good for nothing but a token that is to be verified with its own key (RFC 9449 §4.3).
    pub jwk: Option<Map<String, Value>>,
    /// The claims.
    pub claims: Map<String, Value>,
    /// `header.payload` as sent.
    pub signing_input: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

/// The header rules of one kind of token.
pub struct HeaderRules<'a> {
    /// Whether this `typ` (absent: `None`) belongs to the kind of token.
    pub typ: fn(Option<&str>) -> bool,
    /// Algorithms allowed.
    pub algorithms: &'a [Algorithm],
    /// Whether key material in the header is refused. If not, it is ignored, but for [`Jws::jwk`].
    pub forbid_keys: bool,
}

/// Takes `token` apart: form, strict base64url, strict JSON, `typ`, `crit`, `alg`.
///
/// Does *not* verify the signature and does *not* look at claims.
pub fn parse<'a>(token: &'a [u8], rules: &HeaderRules<'_>) -> Result<Jws<'a>, Fault> {
    if token.len() > MAX_TOKEN {
        return Err(Fault::TooLarge);
    }
    // Base64url has no other byte, so only a token that is refused needs to be looked through for one.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    take_apart(token, rules)
        .map_err(|fault| if token.iter().all(allowed) { fault } else { Fault::Charset })
}

fn take_apart<'a>(token: &'a [u8], rules: &HeaderRules<'_>) -> Result<Jws<'a>, Fault> {
    let text = core::str::from_utf8(token).map_err(|_| Fault::Charset)?;
    let mut parts = text.split('.');
    let (header, payload, signature) =
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(header), Some(payload), Some(signature), None) => (header, payload, signature),
            (_, _, _, Some(_)) if text.split('.').count() == 5 => {
                return Err(Fault::JweNotSupported);
            }
            _ => return Err(Fault::Format),
        };
    if header.is_empty() || payload.is_empty() || signature.is_empty() {
        return Err(Fault::Format);
    }
    let signing_input = text.as_bytes().get(..header.len() + 1 + payload.len());

    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Base64);
    let header = decode(header)?;
    let signature = decode(signature)?;
    if header.len() > MAX_HEADER {
        return Err(Fault::HeaderTooLarge);
    }
    let mut header = json::object(&header).ok_or(Fault::HeaderJson)?;
    let (algorithm, kid) = check_header(&header, rules)?;
    let claims = json::object(&decode(payload)?).ok_or(Fault::PayloadJson)?;
    Ok(Jws {
        algorithm,
        kid,
        jwk: sole_jwk(&mut header),
        claims,
        signing_input: signing_input.ok_or(Fault::Format)?,
        signature,
    })
}

/// Whether `typ` is the media type `expected`: case-insensitive, with or without the
/// `application/` prefix (RFC 7515 §4.1.9), nothing else.
pub fn is_media_type(typ: &str, expected: &str) -> bool {
    let prefix = "application/";
    let bare = match typ.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => typ.get(prefix.len()..).unwrap_or(""),
        _ => typ,
    };
    bare.eq_ignore_ascii_case(expected)
}

fn check_header(
    header: &Map<String, Value>,
    rules: &HeaderRules<'_>,
) -> Result<(Algorithm, Option<String>), Fault> {
    let text = |name| json::string(header, name).map_err(|_| Fault::HeaderType(name));
    let has_any = |names: &[&str]| header.keys().any(|name| names.contains(&name.as_str()));
    if has_any(&["enc", "zip", "epk", "p2c", "p2s"]) {
        return Err(Fault::JweNotSupported);
    }
    if !(rules.typ)(text("typ")?) {
        return Err(Fault::Typ);
    }
    if has_any(&["crit", "b64"]) {
        return Err(Fault::Crit);
    }
    if rules.forbid_keys && has_any(&KEYS) {
        return Err(Fault::ForbiddenParameter);
    }
    let kid = text("kid")?;
    if kid.is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID) {
        return Err(Fault::HeaderType("kid"));
    }
    let algorithm = text("alg")?
        .and_then(Algorithm::named)
        .filter(|algorithm| rules.algorithms.contains(algorithm))
        .ok_or(Fault::AlgorithmNotAllowed)?;
    Ok((algorithm, kid.map(str::to_owned)))
}

/// Two keys could disagree, so a `jwk` beside another is none.
fn sole_jwk(header: &mut Map<String, Value>) -> Option<Map<String, Value>> {
    let jwk = header.remove("jwk");
    match jwk {
        Some(Value::Object(jwk)) if !KEYS.iter().any(|name| header.contains_key(*name)) => {
            Some(jwk)
        }
        _ => None,
    }
}
