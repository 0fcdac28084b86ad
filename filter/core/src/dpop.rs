//! Proofs of possession sent along with a request (DPoP, RFC 9449): the checks of §4.3, and the
//! nonces of §8 and §9.

use crate::claims;
use crate::digest::{base64url, hmac_sha256, sha256};
use crate::engine::Engine;
use crate::http::{Headers, Url};
use crate::json;
use crate::jwk::{self, KeySet};
use crate::jws::{self, Algorithm, HeaderRules, Jws};
use crate::names;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

/// Algorithms a proof may be signed with: `dpop_signing_alg_values_supported` (§5.1).
pub const ALGORITHMS: &[Algorithm] =
    &[Algorithm::ES256, Algorithm::RS256, Algorithm::PS256, Algorithm::EdDSA];

/// Their names.
pub fn algorithm_names() -> Vec<&'static str> {
    ALGORITHMS.iter().map(|algorithm| algorithm.name()).collect()
}

/// Longest time a nonce of ours is taken, in seconds.
const NONCE_LIFETIME: u64 = 300;
/// How far the clock that made a nonce may be ahead of the one that reads it, in seconds.
const NONCE_SKEW: u64 = 60;

/// A proof that has passed every check made here. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proof {
    /// RFC 7638 thumbprint of the key that was shown to be held: what `cnf.jkt` is compared with.
    pub thumbprint: String,
    /// Its unique identifier, good for one use with this key at this URI.
    pub jti: String,
    /// The first second, since the epoch, at which the proof is too old: until then `jti` is to be
    /// remembered.
    pub until: u64,
}

/// What a proof is checked against.
pub struct Expected<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The request's public URL, from configuration: what the client addressed, not what proxies made
    /// of it. A query in it is not looked at.
    pub uri: &'a str,
    /// The access token of the request. `None`: a request that has none, to the token endpoint.
    pub access_token: Option<&'a [u8]>,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// How far `iat` may be from now, before and after, in seconds.
    pub window: u64,
    /// `Some`: a nonce of these is demanded.
    pub nonces: Option<&'a Nonces>,
    /// Verifies the signature. `None`: portable code does.
    pub engine: Option<&'a Engine>,
}

/// Why there is no proof. [`Fault::Nonce`] is told the client as `use_dpop_nonce`, with a nonce;
/// everything else as `invalid_dpop_proof`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The header field is there twice, or has a list.
    Several,
    /// Form, header, key or `jti` are not those of a proof.
    Malformed(jws::Fault),
    /// Not signed by the key it brings.
    Signature,
    /// `htm` is not the request's method.
    Method,
    /// `htu` is not the request's URI.
    Uri,
    /// No `nonce`, or none that is good now (§8, §9).
    Nonce,
    /// `iat` is no whole number, or too far from now.
    IssuedAt,
    /// `ath` is not the hash of the request's access token.
    AccessToken,
    /// `content_digest` is not the digest of the request's body.
    ContentDigest,
    /// The proof was used before.
    Replayed,
    /// This client's requests must have one (§5.2).
    Missing,
}

impl Fault {
    /// Stable code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Several => "dpop_several",
            Self::Malformed(_) => "dpop_malformed",
            Self::Signature => "dpop_signature",
            Self::Method => "dpop_method",
            Self::Uri => "dpop_uri",
            Self::Nonce => "dpop_nonce",
            Self::IssuedAt => "dpop_iat",
            Self::AccessToken => "dpop_ath",
            Self::ContentDigest => "dpop_content_digest",
            Self::Replayed => "dpop_jti_replayed",
            Self::Missing => "dpop_missing",
        }
    }
}

/// The proof in `headers`, unread; `Ok(None)` if there is none.
///
/// [`Fault::Several`] if there is more than one `DPoP` field (§4.3 (1)), or a comma in it: some hop
/// has joined two.
pub fn proof(headers: &Headers) -> Result<Option<&[u8]>, Fault> {
    let mut fields = headers.all("dpop");
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(proof), None) if !proof.contains(&b',') => Ok(Some(proof)),
        _ => Err(Fault::Several),
    }
}

/// The checks of §4.3, in this order: form and header, the key, the signature by it, `htm`, `htu`;
/// `nonce`; `jti`, `iat`, `ath`. So a client learns that it needs a nonce only with
/// a proof made for this request, and learns it whatever its clock says.
///
/// `ath` where there is no access token is refused, as it cannot be checked; a `nonce` that was not asked
/// for is ignored.
///
/// Does *not* check that the proof was not used before, that it is for the body ([`covers`]), that the access token is bound to this key
/// ([`crate::confirmation::Confirmation::holds`]), and claims that proofs do not have (`exp`, `nbf`).
pub fn verify(proof: &[u8], expected: &Expected<'_>) -> Result<Proof, Fault> {
    let (jws, thumbprint) = signed(proof, expected.engine)?;
    let claims = &jws.claims;
    let text = |name| json::string(claims, name).ok().flatten();
    if text("htm") != Some(expected.method) {
        return Err(Fault::Method);
    }
    if !text("htu").is_some_and(|htu| is_same(htu, expected.uri)) {
        return Err(Fault::Uri);
    }
    if let Some(nonces) = expected.nonces
        && !text("nonce").is_some_and(|nonce| nonces.accepts(nonce, expected.now))
    {
        return Err(Fault::Nonce);
    }
    let jti = claims::identifier(claims, "jti").map_err(Fault::Malformed)?;
    let iat = json::seconds(claims, "iat")
        .ok()
        .flatten()
        .filter(|iat| iat.abs_diff(expected.now) <= expected.window)
        .ok_or(Fault::IssuedAt)?;
    let ath = expected.access_token.map(|token| base64url(&sha256(token)));
    if claims.contains_key("ath") != ath.is_some() || text("ath") != ath.as_deref() {
        return Err(Fault::AccessToken);
    }
    let until = iat.saturating_add(expected.window).saturating_add(1);
    Ok(Proof { thumbprint, jti: jti.to_owned(), until })
}

/// Whether a proof that has passed [`verify`] is for this raw `body` too: its `content_digest` (the MCP
/// extension for DPoP).
///
/// Does *not* verify the proof again: only one that was verified with the head may come here.
pub fn covers(proof: &[u8], body: &[u8]) -> Result<(), Fault> {
    let payload = proof.split(|byte| *byte == b'.').nth(1).unwrap_or_default();
    let claims = URL_SAFE_NO_PAD.decode(payload).ok().and_then(|payload| json::object(&payload));
    let claims = claims.ok_or(Fault::ContentDigest)?;
    let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(body)));
    match json::string(&claims, "content_digest") == Ok(Some(&digest)) {
        true => Ok(()),
        false => Err(Fault::ContentDigest),
    }
}

/// A proof's JWS, verified with the key in its header, and that key's thumbprint.
fn signed<'a>(proof: &'a [u8], engine: Option<&Engine>) -> Result<(Jws<'a>, String), Fault> {
    let rules = HeaderRules {
        typ: |typ| typ.is_some_and(|typ| jws::is_media_type(typ, names::TYP_DPOP)),
        algorithms: ALGORITHMS,
        // §4.2: this is the one kind of token that brings its key, as `jwk`; see [`Jws::jwk`].
        forbid_keys: false,
    };
    let mut jws = jws::parse(proof, &rules).map_err(Fault::Malformed)?;
    // There is one key to choose from.
    jws.kid = None;
    let key = jws.jwk.as_ref();
    let key = key.and_then(|jwk| Some((KeySet::of_jwk(jwk)?, jwk::thumbprint(jwk)?)));
    let (keys, thumbprint) = key.ok_or(Fault::Malformed(jws::Fault::HeaderType("jwk")))?;
    let keys = keys.with_engine(engine.unwrap_or(&Engine::portable()));
    keys.verify(&jws).map_err(|_| Fault::Signature)?;
    Ok((jws, thumbprint))
}

/// Whether `htu`, its query and fragment left out, is `uri`: the scheme and the host in any case, the
/// default port written or not, no path as good as `/` (§4.3 (9); RFC 3986 §6.2.2.1, §6.2.3). The path
/// is compared as written: who writes it in another way addresses it in another way.
fn is_same(htu: &str, uri: &str) -> bool {
    let htu = htu.split(['?', '#']).next().and_then(|htu| htu.split_once("://"));
    let (Some((scheme, rest)), Some(uri)) = (htu, Url::parse(uri)) else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    scheme.eq_ignore_ascii_case(if uri.is_https() { "https" } else { "http" })
        && uri.is_at(authority)
        && path == uri.path()
}

/// Makes and knows nonces without remembering them: a nonce is the time it was made, and a tag over
/// that. Every worker with the same keys takes what any of them has made.
pub struct Nonces {
    keys: Vec<[u8; 32]>,
}

impl Nonces {
    /// Nonces under `keys`: the first tags, all verify. Without a key no nonce is good.
    pub fn new(keys: Vec<[u8; 32]>) -> Self {
        Self { keys }
    }

    /// A nonce made at `now` (seconds since the epoch): 24 bytes, as base64url. The same second gives
    /// the same nonce; it is `jti` that makes a proof count once. Empty if there is no key.
    pub fn fresh(&self, now: u64) -> String {
        let time = now.to_be_bytes();
        let nonce = |key| base64url(&[time.as_slice(), &tag(key, &time)].concat());
        self.keys.first().map(nonce).unwrap_or_default()
    }

    /// Whether `nonce` was made here, at most 300 s before `now` (seconds since the epoch), and at
    /// most 60 s after, as another clock may have been ahead. Tags are compared in constant time.
    pub fn accepts(&self, nonce: &str, now: u64) -> bool {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).unwrap_or_default();
        let Some((time, found)) = bytes.split_first_chunk::<8>() else {
            return false;
        };
        let made_at = u64::from_be_bytes(*time);
        let is_current = made_at <= now.saturating_add(NONCE_SKEW)
            && now <= made_at.saturating_add(NONCE_LIFETIME);
        is_current && self.keys.iter().any(|key| tag(key, time).ct_eq(found).into())
    }
}

/// Half of an HMAC-SHA256, which leaves 128 bits to guess (RFC 2104 §5).
fn tag(key: &[u8; 32], time: &[u8; 8]) -> [u8; 16] {
    let mut tag = [0; 16];
    let whole = hmac_sha256(key, &[b"dpop-nonce", time]);
    tag.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_nonce_is_good_for_five_minutes_and_a_minute_ahead() {
        let nonces = Nonces::new(vec![[1; 32]]);
        let nonce = nonces.fresh(NOW);

        let good = [NOW - 60, NOW, NOW + 300].map(|now| nonces.accepts(&nonce, now));
        let bad = [0, NOW - 61, NOW + 301, u64::MAX].map(|now| nonces.accepts(&nonce, now));

        assert_eq!((good, bad), ([true; 3], [false; 4]));
    }

    #[test]
    fn the_first_key_makes_nonces_and_all_keys_know_theirs() {
        let old = Nonces::new(vec![[1; 32]]);
        let both = Nonces::new(vec![[2; 32], [1; 32]]);

        assert!(both.accepts(&old.fresh(NOW), NOW));
        assert!(both.accepts(&both.fresh(NOW), NOW));
        assert!(!old.accepts(&both.fresh(NOW), NOW));
    }

    #[test]
    fn what_we_did_not_make_is_no_nonce() {
        let nonces = Nonces::new(vec![[1; 32]]);
        let nonce = nonces.fresh(NOW);
        let bytes = URL_SAFE_NO_PAD.decode(&nonce).unwrap();
        let mut bad: Vec<String> = (0..bytes.len())
            .map(|at| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                base64url(&bytes)
            })
            .collect();
        bad.extend([0, 7, 8, 23].map(|length| base64url(&bytes[..length])));
        bad.push(base64url(&[bytes.as_slice(), &[0]].concat()));
        bad.extend([format!("{nonce}="), format!("{nonce}A"), format!(" {nonce}"), "ä".into()]);

        for bad in bad {
            assert!(!nonces.accepts(&bad, NOW), "{bad}");
        }
        assert!(nonces.accepts(&nonce, NOW));
    }

    #[test]
    fn without_a_key_no_nonce_is_good() {
        let nonces = Nonces::new(Vec::new());

        assert_eq!(nonces.fresh(NOW), "");
        assert!(!nonces.accepts("", NOW));
        assert!(!nonces.accepts(&base64url(&NOW.to_be_bytes()), NOW));
    }
}
