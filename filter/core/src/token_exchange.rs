//! First leg: an identity assertion for an ID-JAG, at the identity provider (RFC 8693, ID-JAG §4.3).

use crate::client_credential::token_request;
use crate::config::Upgrade;
use crate::http::{Answer, Callout, Url};
use crate::job::JobError;
use crate::json;
use crate::jws::is_media_type;
use crate::names;
use crate::secret::Secret;
use crate::token_response::success;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What is exchanged. No protocol text makes an API key one of these.
#[derive(Debug, Clone)]
pub enum SubjectToken {
    /// An ID Token issued to our client.
    IdToken(Secret),
    /// A refresh token issued to our client.
    RefreshToken(Secret),
}

impl SubjectToken {
    /// `subject_token_type` (RFC 8693 §3).
    pub fn token_type(&self) -> &'static str {
        match self {
            Self::IdToken(_) => names::TOKEN_TYPE_ID_TOKEN,
            Self::RefreshToken(_) => names::TOKEN_TYPE_REFRESH_TOKEN,
        }
    }

    /// The token.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::IdToken(secret) | Self::RefreshToken(secret) => secret,
        }
    }
}

/// The ID-JAG we got. It goes to the token endpoint of the Resource AS it names, nowhere else.
#[derive(Debug)]
pub struct Assertion(pub Secret);

/// Asks for an ID-JAG (ID-JAG §4.3). `audience` is the Resource AS, `resource` the MCP server.
pub fn request(
    upgrade: &Upgrade,
    token_endpoint: &Url,
    subject: &SubjectToken,
    now: u64,
    random: &[u8; 32],
) -> Callout {
    let mut fields = vec![
        ("grant_type", names::GRANT_TOKEN_EXCHANGE),
        ("requested_token_type", names::TOKEN_TYPE_ID_JAG),
        ("audience", upgrade.resource_as.issuer.as_str()),
        ("resource", upgrade.resource.as_str()),
        ("subject_token", subject.secret().expose()),
        ("subject_token_type", subject.token_type()),
    ];
    if !upgrade.scope.is_empty() {
        fields.push(("scope", &upgrade.scope));
    }
    let party = &upgrade.identity_provider.party;
    token_request(party, token_endpoint, &upgrade.idp_client, &fields, now, random)
}

/// Reads the answer (ID-JAG §4.3.4): the issued type is an ID-JAG, the token type is `N_A`.
///
/// The ID-JAG is decoded, not verified (the Resource AS does that), to find a wrong `typ`, `aud`,
/// `client_id`, `resource` or `exp` here, where the log can say so; the Resource AS will only say
/// `invalid_grant`. What is found goes to `log`.
pub fn response(
    upgrade: &Upgrade,
    answer: &Answer,
    now: u64,
    log: &mut dyn FnMut(String),
) -> Result<Assertion, JobError> {
    let body = success(answer)?;
    let text = |name| json::string(&body, name).ok().flatten();
    if text("issued_token_type") != Some(names::TOKEN_TYPE_ID_JAG)
        || !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case(names::TOKEN_TYPE_N_A))
    {
        return Err(JobError::BadAnswer);
    }
    if body.contains_key("refresh_token") {
        log("the refresh token was rotated, which is not followed yet: bind the new one".to_owned());
    }
    let token = text("access_token").ok_or(JobError::BadAnswer)?;
    let part = |index| {
        let part = token.split('.').nth(index)?;
        json::object(&URL_SAFE_NO_PAD.decode(part).ok()?)
    };
    let header = part(0).ok_or(JobError::BadAnswer)?;
    let claims = part(1).ok_or(JobError::BadAnswer)?;
    let typ = json::string(&header, "typ").ok().flatten();
    let fresh = json::seconds(&claims, "exp").ok().flatten().is_some_and(|exp| exp > now);
    if !typ.is_some_and(|typ| is_media_type(typ, names::TYP_ID_JAG)) || !fresh {
        log("what was issued is no ID-JAG, or has expired".to_owned());
        return Err(JobError::BadAnswer);
    }
    let expected = [
        ("aud", upgrade.resource_as.issuer.as_str()),
        ("client_id", upgrade.resource_as_client.id.as_str()),
        ("resource", upgrade.resource.as_str()),
    ];
    for (name, value) in expected {
        let found = json::strings(&claims, name).ok().flatten();
        if name == "resource" && !claims.contains_key(name) {
            continue;
        }
        if found.as_deref() != Some(&[value]) {
            // Neither is a secret, and a slash more or less is the usual mistake.
            log(format!("the ID-JAG's {name} is {found:?}, expected {value:?}"));
            return Err(JobError::Misconfigured);
        }
    }
    Ok(Assertion(Secret::new(token)))
}
