//! Second leg: the ID-JAG for an access token, at the Resource AS (RFC 7523 §2.1, ID-JAG §4.4).

use crate::client_credential::token_request;
use crate::config::Upgrade;
use crate::http::{Answer, Callout, Url};
use crate::job::JobError;
use crate::json;
use crate::names;
use crate::secret::Secret;
use crate::token_exchange::Assertion;
use crate::token_response::success;

/// Longest access token taken.
const MAX_TOKEN: usize = 8 * 1024;

/// What the Resource AS granted.
#[derive(Debug)]
pub struct Granted {
    /// The access token for the MCP server.
    pub access_token: Secret,
    /// Its life in seconds, if the server said so.
    pub expires_in: Option<u64>,
}

/// Redeems `assertion` (ID-JAG §4.4). Scope and resource are in the ID-JAG.
pub fn request(
    upgrade: &Upgrade,
    token_endpoint: &Url,
    assertion: &Assertion,
    now: u64,
    random: &[u8; 32],
) -> Callout {
    let fields = [("grant_type", names::GRANT_JWT_BEARER), ("assertion", assertion.0.expose())];
    let client = &upgrade.resource_as_client;
    token_request(&upgrade.resource_as, token_endpoint, client, &fields, now, random)
}

/// Reads the answer (RFC 6749 §5.1): a bearer token, for our resource if the server says which.
///
/// Does *not* look into the token: it is the Resource AS's own.
pub fn response(upgrade: &Upgrade, answer: &Answer) -> Result<Granted, JobError> {
    let body = success(answer)?;
    let text = |name| json::string(&body, name).map_err(|_| JobError::BadAnswer);
    let token = text("access_token")?.ok_or(JobError::BadAnswer)?;
    // RFC 6750 §2.1: the token must be able to stand in a header.
    let token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(token68) {
        return Err(JobError::BadAnswer);
    }
    // RFC 6749 §7.1: a token of a type we do not know must not be used.
    if !text("token_type")?.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(JobError::BadAnswer);
    }
    let resources = json::strings(&body, "resource").map_err(|_| JobError::BadAnswer)?;
    if resources.is_some_and(|resources| resources != [upgrade.resource.as_str()]) {
        return Err(JobError::BadAnswer);
    }
    let expires_in = json::seconds(&body, "expires_in").map_err(|_| JobError::BadAnswer)?;
    if expires_in == Some(0) {
        return Err(JobError::BadAnswer);
    }
    Ok(Granted { access_token: Secret::new(token), expires_in })
}
