//! Answers of token endpoints that we call (RFC 6749 §5, RFC 8693 §2.2.2, RFC 9470).

use crate::config::Upgrade;
use crate::http::{Answer, MAX_ANSWER};
use crate::job::{JobError, Value as Shared};
use crate::json;
use crate::secret::Secret;
use crate::site::Token;
use serde_json::{Map, Value};
use std::cell::OnceCell;

/// Longest access token taken.
const MAX_TOKEN: usize = 8 * 1024;
/// Longest `acr_values` handed on, in bytes.
const MAX_ACR: usize = 512;
/// An access token without a stated life is not cached; requests that wait for it now share it.
const UNSTATED_LIFE: u64 = 2;
/// A token is not used in its last seconds: it has to survive the way to the server.
const MARGIN: u64 = 5;

/// A token that a server granted us.
#[derive(Debug)]
pub struct Granted {
    /// The access token.
    pub access_token: Secret,
    /// Whether it is bound to our key (RFC 9449), and not a bearer token.
    pub bound: bool,
    /// Its life in seconds, if the server said so.
    pub expires_in: Option<u64>,
}

impl Granted {
    /// The token in the body of a success (RFC 6749 §5.1): a bearer token, or one that is bound by DPoP.
    ///
    /// Does *not* look into the token: it is for the server that granted it to understand.
    pub fn read(body: &Map<String, Value>) -> Result<Self, JobError> {
        let text = |name| json::string(body, name).map_err(|_| JobError::BadAnswer);
        let token = text("access_token")?.ok_or(JobError::BadAnswer)?;
        // RFC 6750 §2.1: the token must be able to stand in a header.
        let token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(token68) {
            return Err(JobError::BadAnswer);
        }
        // RFC 6749 §7.1: a token of a type we do not know must not be used.
        let kind = text("token_type")?.ok_or(JobError::BadAnswer)?;
        let bound = kind.eq_ignore_ascii_case("dpop");
        if !bound && !kind.eq_ignore_ascii_case("bearer") {
            return Err(JobError::BadAnswer);
        }
        let expires_in = json::seconds(body, "expires_in").map_err(|_| JobError::BadAnswer)?;
        if expires_in == Some(0) {
            return Err(JobError::BadAnswer);
        }
        Ok(Self { access_token: Secret::new(token), bound, expires_in })
    }

    /// As [`Granted::read`], for where only a bearer token is of use.
    pub fn bearer(body: &Map<String, Value>) -> Result<Self, JobError> {
        Self::read(body).and_then(|granted| match granted.bound {
            true => Err(JobError::BadAnswer),
            false => Ok(granted),
        })
    }

    /// The token as workers share it, got at `now` and used for at most `most` seconds.
    ///
    /// It is refreshed ahead of time, so that nobody waits for that: after 70 to 80 % of its life, by
    /// `random`, so that not all tokens of one login storm are refreshed in the same second.
    pub fn to_value(&self, now: u64, most: u64, random: u8) -> Shared {
        let stated = self.expires_in.map(|life| life.saturating_sub(MARGIN.min(life / 2)));
        let life = stated.unwrap_or(UNSTATED_LIFE).min(most);
        let jitter = life.saturating_mul(u64::from(random)) / 2560;
        let kind = if self.bound { BOUND } else { BEARER };
        Shared {
            data: format!("{kind}{}", self.access_token.expose()).into_bytes(),
            made_at: now,
            refresh_at: now.saturating_add((life - life / 5).saturating_sub(jitter)),
            usable_until: now.saturating_add(life),
        }
    }
}

/// What comes before a token in a shared value: how it is sent.
const BEARER: &str = "Bearer ";
/// See [`BEARER`].
const BOUND: &str = "DPoP ";

/// What of `granted` was not `asked` for, unless nothing was or more is welcome.
pub fn wider(upgrade: &Upgrade, asked: &str, granted: Option<&str>) -> Option<String> {
    if asked.is_empty() || upgrade.takes_wider_scope {
        return None;
    }
    let known = |scope: &&str| !asked.split(' ').any(|other| other == *scope);
    let mut more = granted?.split(' ').filter(|scope| !scope.is_empty()).filter(known);
    more.next().map(|scope| scope.chars().take(64).collect())
}

/// The token in a shared value.
pub fn token(value: &Shared) -> Option<Token> {
    let text = core::str::from_utf8(&value.data).ok()?;
    let bound = text.starts_with(BOUND);
    let scheme = if bound { BOUND } else { BEARER };
    text.strip_prefix(scheme)?;
    Some(Token {
        sent: Secret::new(text),
        begins: scheme.len(),
        bound,
        made_at: value.made_at,
        refresh_at: value.refresh_at,
        usable_until: value.usable_until,
        proof_key: OnceCell::new(),
    })
}

/// The JSON object in a 200 answer.
///
/// Any other answer becomes the reason for which there is no token. The status is not looked at
/// beyond "throttled or down": servers disagree about it, the `error` code is what counts.
pub fn success(answer: &Answer) -> Result<Map<String, Value>, JobError> {
    if answer.status == 429 || answer.status >= 500 {
        return Err(JobError::Unavailable);
    }
    let body = Some(&answer.body).filter(|body| body.len() <= MAX_ANSWER);
    let object = body.and_then(|body| json::object(body)).ok_or(JobError::BadAnswer)?;
    if answer.status == 200 {
        return Ok(object);
    }
    let text = |name| json::string(&object, name).ok().flatten();
    Err(match text("error") {
        // RFC 8693 §2.2.2 says `invalid_request` for a bad subject token, the ID-JAG draft says
        // `invalid_grant`; servers do either.
        Some("invalid_grant" | "invalid_request") => JobError::SubjectRejected,
        Some("invalid_client" | "unsupported_grant_type") => JobError::Misconfigured,
        Some(
            "unauthorized_client"
            | "invalid_target"
            | "invalid_scope"
            | "access_denied"
            | "invalid_authorization_details",
        ) => JobError::Forbidden,
        Some("insufficient_user_authentication") => JobError::StepUp {
            acr_values: text("acr_values").filter(|text| text.len() <= MAX_ACR).map(str::to_owned),
            max_age: json::seconds(&object, "max_age").ok().flatten(),
        },
        Some("temporarily_unavailable" | "server_error") => JobError::Unavailable,
        _ => JobError::BadAnswer,
    })
}

/// `error` of an error answer, for the log: it is not a secret, but it is not ours either, so only
/// what the registry's grammar allows passes.
pub fn error_code(answer: &Answer) -> String {
    let object = json::object(answer.body.get(..4096).unwrap_or(&answer.body));
    let code = object.as_ref().and_then(|object| json::string(object, "error").ok().flatten());
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    code.unwrap_or("none").chars().filter(plain).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Headers;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_error_answer_has_its_meaning() {
        let cases = [
            (400, r#"{"error":"invalid_grant"}"#, JobError::SubjectRejected),
            (401, r#"{"error":"invalid_grant"}"#, JobError::SubjectRejected),
            (400, r#"{"error":"invalid_request"}"#, JobError::SubjectRejected),
            (401, r#"{"error":"invalid_client"}"#, JobError::Misconfigured),
            (400, r#"{"error":"unsupported_grant_type"}"#, JobError::Misconfigured),
            (400, r#"{"error":"unauthorized_client"}"#, JobError::Forbidden),
            (400, r#"{"error":"invalid_target"}"#, JobError::Forbidden),
            (403, r#"{"error":"access_denied"}"#, JobError::Forbidden),
            (400, r#"{"error":"invalid_scope"}"#, JobError::Forbidden),
            (429, r#"{"error":"slow_down"}"#, JobError::Unavailable),
            (500, "oops", JobError::Unavailable),
            (503, "", JobError::Unavailable),
            (400, "", JobError::BadAnswer),
            (400, "<html>", JobError::BadAnswer),
            (302, "", JobError::BadAnswer),
            (200, "", JobError::BadAnswer),
            (200, "[]", JobError::BadAnswer),
            (
                400,
                r#"{"error":"insufficient_user_authentication","max_age":60,"acr_values":"mfa"}"#,
                JobError::StepUp { acr_values: Some("mfa".into()), max_age: Some(60) },
            ),
        ];

        for (status, body, meaning) in cases {
            let body = body.as_bytes().to_vec();
            let answer = Answer { status, headers: Headers::default(), body };
            assert_eq!(success(&answer).map(|_| ()), Err(meaning), "{status}");
        }
    }
}
