//! Claim checks that every JWT profile shares (RFC 7519 §4.1).

use crate::json;
use crate::jws::Fault;
use serde_json::{Map, Value};

/// Longest `sub`, `client_id` or `jti` taken.
pub const MAX_IDENTIFIER: usize = 256;

/// The claim `name`: present, a non-empty string of at most 256 bytes without control characters.
/// It becomes a key and a log field.
pub fn identifier<'a>(
    claims: &'a Map<String, Value>,
    name: &'static str,
) -> Result<&'a str, Fault> {
    let text = json::string(claims, name).map_err(|_| Fault::ClaimType(name))?;
    let text = text.filter(|text| !text.is_empty()).ok_or(Fault::Missing(name))?;
    if text.len() > MAX_IDENTIFIER || text.chars().any(char::is_control) {
        return Err(Fault::ClaimType(name));
    }
    Ok(text)
}

/// `iss` is exactly `issuer`.
pub fn issued_by(claims: &Map<String, Value>, issuer: &str) -> Result<(), Fault> {
    if identifier(claims, "iss")? == issuer { Ok(()) } else { Err(Fault::Issuer) }
}

/// `aud`, a string or an array of strings, with `expected` in it. Returns all of it.
pub fn audiences<'a>(
    claims: &'a Map<String, Value>,
    expected: &str,
) -> Result<Vec<&'a str>, Fault> {
    let audiences = json::strings(claims, "aud").map_err(|_| Fault::ClaimType("aud"))?;
    let audiences = audiences.ok_or(Fault::Missing("aud"))?;
    if audiences.contains(&expected) { Ok(audiences) } else { Err(Fault::Audience) }
}

/// The token may be presented by whoever has it: one that is bound to a key (`cnf`, RFC 7800) is refused
/// where nobody asks for the key.
pub fn is_bearer(claims: &Map<String, Value>) -> Result<(), Fault> {
    if claims.contains_key("cnf") { Err(Fault::Confirmation) } else { Ok(()) }
}

/// When a token was issued and when it ends, and from when on it may be used, if it says; in seconds since the
/// epoch.
pub type Times = (u64, u64, Option<u64>);

/// The `iat`, `exp` and `nbf` of a token. `exp` and `iat` must be there.
///
/// Does *not* compare them with anything, see [`in_time`].
pub fn read_times(claims: &Map<String, Value>) -> Result<Times, Fault> {
    let time = |name| json::seconds(claims, name).map_err(|_| Fault::ClaimType(name));
    let exp = time("exp")?.ok_or(Fault::Missing("exp"))?;
    let iat = time("iat")?.ok_or(Fault::Missing("iat"))?;
    Ok((iat, exp, time("nbf")?))
}

/// The `exp`, `nbf`, `iat` of a token at `now` (seconds since the epoch), with `skew` seconds of
/// grace. `exp` and `iat` must be there.
///
/// Returns `(iat, exp)`.
pub fn times(claims: &Map<String, Value>, now: u64, skew: u64) -> Result<(u64, u64), Fault> {
    let times = read_times(claims)?;
    in_time(times, now, skew).map(|()| (times.0, times.1))
}

/// Whether a token with these times is good at `now` (seconds since the epoch), with `skew` seconds of
/// grace.
pub fn in_time((iat, exp, nbf): Times, now: u64, skew: u64) -> Result<(), Fault> {
    if now >= exp.saturating_add(skew) {
        return Err(Fault::Expired);
    }
    if nbf.is_some_and(|nbf| nbf > now.saturating_add(skew)) {
        return Err(Fault::NotYetValid);
    }
    if iat > now.saturating_add(skew) {
        return Err(Fault::IssuedInFuture);
    }
    if exp <= iat {
        return Err(Fault::Lifetime);
    }
    Ok(())
}

/// The `exp`, `nbf`, `iat` of an assertion that must end soon: at `now` (seconds since the epoch), it
/// is good and has at most `most` seconds to go, with `skew` seconds of grace. Only `exp` must be
/// there (RFC 7523 §3).
///
/// Returns `exp`.
pub fn near_end(claims: &Map<String, Value>, now: u64, skew: u64, most: u64) -> Result<u64, Fault> {
    let time = |name| json::seconds(claims, name).map_err(|_| Fault::ClaimType(name));
    let exp = time("exp")?.ok_or(Fault::Missing("exp"))?;
    let latest = now.saturating_add(skew);
    if now >= exp.saturating_add(skew) {
        return Err(Fault::Expired);
    }
    if exp > latest.saturating_add(most) {
        return Err(Fault::Lifetime);
    }
    if time("nbf")?.is_some_and(|nbf| nbf > latest) {
        return Err(Fault::NotYetValid);
    }
    if time("iat")?.is_some_and(|iat| iat > latest) {
        return Err(Fault::IssuedInFuture);
    }
    Ok(exp)
}

/// The one audience of a token, as a string or an array of exactly that string. [`Fault::Audience`] if it has
/// several, or none.
pub fn only_audience(claims: &Map<String, Value>) -> Result<&str, Fault> {
    let audiences = json::strings(claims, "aud").map_err(|_| Fault::ClaimType("aud"))?;
    match audiences.as_deref() {
        None => Err(Fault::Missing("aud")),
        Some([only]) => Ok(only),
        Some(_) => Err(Fault::Audience),
    }
}

/// `aud` is `expected`, as a string or an array of exactly that string. No prefix, no case, no
/// slash is forgiven.
pub fn sole_audience(claims: &Map<String, Value>, expected: &str) -> Result<(), Fault> {
    sole_audience_of(claims, |audience| audience == expected)
}

/// As [`sole_audience`], where any of several exact strings `is_us`.
pub fn sole_audience_of(
    claims: &Map<String, Value>,
    is_us: impl Fn(&str) -> bool,
) -> Result<(), Fault> {
    only_audience(claims).and_then(|only| if is_us(only) { Ok(()) } else { Err(Fault::Audience) })
}
