//! Second leg: the ID-JAG for an access token, at the Resource AS (RFC 7523 §2.1, ID-JAG §4.4).

use crate::config::{ResourceAs, Upgrade};
use crate::http::Answer;
use crate::job::JobError;
use crate::json;
use crate::token_exchange::Assertion;
use crate::token_response::{Granted, success, wider};

/// Redeems `assertion` by the JWT bearer `grant` (ID-JAG §4.4), or the one for JWTs bound to a key. Scope is in
/// the ID-JAG; of one that is wider than was `asked` for, no more than that is wanted (RFC 7521 §4.1).
pub fn fields<'a>(
    upgrade: &'a Upgrade,
    server: &'a ResourceAs,
    grant: &'a str,
    assertion: &'a Assertion,
    asked: &'a str,
) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![("grant_type", grant), ("assertion", assertion.token.expose())];
    // MCP, authorization: clients say the resource in every token request (RFC 8707).
    if server.sends_resource {
        fields.push(("resource", upgrade.resource.as_str()));
    }
    match (&*upgrade.redemption_scope, assertion.is_wider) {
        ("", false) => {}
        ("", true) => fields.push(("scope", asked)),
        (scope, _) => fields.push(("scope", scope)),
    }
    fields
}

/// Reads the answer (RFC 6749 §5.1): a token for our resource, of no more scope than was asked for.
pub fn response(
    upgrade: &Upgrade,
    asked: &str,
    answer: &Answer,
    log: &mut dyn FnMut(String),
) -> Result<Granted, JobError> {
    let body = success(answer)?;
    let granted = Granted::read(&body)?;
    let resources = json::strings(&body, "resource").map_err(|_| JobError::BadAnswer)?;
    match resources {
        Some(resources) if resources != [upgrade.resource.as_str()] => {
            log("the token is for another resource".to_owned());
            return Err(JobError::BadAnswer);
        }
        None if upgrade.requires_resource => {
            log("the answer does not say which resource the token is for".to_owned());
            return Err(JobError::BadAnswer);
        }
        _ => {}
    }
    let scope = json::string(&body, "scope").map_err(|_| JobError::BadAnswer)?;
    if let Some(more) = wider(upgrade, asked, scope) {
        log(format!("more scope was granted than was asked for: {more:?}"));
        return Err(JobError::BadAnswer);
    }
    Ok(granted)
}
