//! Second leg: the ID-JAG for an access token, at the Resource AS (RFC 7523 §2.1, ID-JAG §4.4).

use crate::client_credential::token_request;
use crate::config::Upgrade;
use crate::http::{Answer, Callout, Url};
use crate::job::JobError;
use crate::json;
use crate::names;
use crate::token_exchange::Assertion;
use crate::token_response::{Granted, success};

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
pub fn response(upgrade: &Upgrade, answer: &Answer) -> Result<Granted, JobError> {
    let body = success(answer)?;
    let granted = Granted::read(&body)?;
    let resources = json::strings(&body, "resource").map_err(|_| JobError::BadAnswer)?;
    if resources.is_some_and(|resources| resources != [upgrade.resource.as_str()]) {
        return Err(JobError::BadAnswer);
    }
    Ok(granted)
}
