//! First leg: an identity assertion for an ID-JAG, at the identity provider (RFC 8693, ID-JAG §4.3).

use crate::config::{ResourceAs, Upgrade};
use crate::http::Answer;
use crate::job::JobError;
use crate::json;
use crate::jws::is_media_type;
use crate::names;
use crate::secret::Secret;
use crate::token_response::{success, wider};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// A token with its type (RFC 8693 §3).
#[derive(Debug, Clone)]
pub struct Typed {
    /// The token.
    pub token: Secret,
    /// `subject_token_type` or `actor_token_type`.
    pub kind: &'static str,
}

/// The ID-JAG we got. It goes to the token endpoint of the Resource AS it names, nowhere else.
#[derive(Debug)]
pub struct Assertion {
    /// The ID-JAG.
    pub token: Secret,
    /// The scope it grants, if the identity provider says so and it is not more than was asked for.
    pub scope: Option<String>,
    /// Whether it grants more scope than was asked for: the Resource AS is to leave that out.
    pub is_wider: bool,
}

/// Asks for an ID-JAG (ID-JAG §4.3). `audience` is the Resource AS, `resource` the MCP server.
pub fn fields<'a>(
    upgrade: &'a Upgrade,
    server: &'a ResourceAs,
    subject: &'a Typed,
    actor: Option<&'a Typed>,
    scope: &'a str,
) -> Vec<(&'a str, &'a str)> {
    let rules = &upgrade.identity_provider.exchange;
    let mut fields = vec![
        ("grant_type", names::GRANT_TOKEN_EXCHANGE),
        ("requested_token_type", names::TOKEN_TYPE_ID_JAG),
        ("audience", server.audience.as_deref().unwrap_or(server.party.issuer.as_str())),
        ("subject_token", subject.token.expose()),
        ("subject_token_type", subject.kind),
    ];
    if rules.sends_resource {
        fields.push(("resource", upgrade.resource.as_str()));
    }
    if !scope.is_empty() {
        fields.push(("scope", scope));
    }
    if !upgrade.authorization_details.is_empty() {
        fields.push(("authorization_details", &upgrade.authorization_details));
    }
    if let Some(actor) = actor {
        fields.push(("actor_token", actor.token.expose()));
        fields.push(("actor_token_type", actor.kind));
    }
    fields.extend(rules.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    fields
}

/// What an ID-JAG is held against.
pub struct Expected<'a> {
    /// The way it is for.
    pub upgrade: &'a Upgrade,
    /// The server it is for.
    pub server: &'a ResourceAs,
    /// The user it must be about, if that is known.
    pub subject: Option<&'a str>,
    /// Thumbprint of the key it must be bound to, and whether it may be bound to none.
    pub key: Option<(&'a str, bool)>,
    /// Scope that was asked for; empty: none.
    pub scope: &'a str,
    /// Now, in seconds since the epoch.
    pub now: u64,
}

/// Reads the answer (ID-JAG §4.3.4): the issued type is an ID-JAG, the token type is `N_A`.
///
/// The ID-JAG is decoded, not verified (the Resource AS does that), to find a wrong `typ`, `aud`,
/// `client_id`, `resource`, `sub`, `cnf` or `exp` here, where the log can say so; the Resource AS will
/// only say `invalid_grant`. What is found goes to `log`.
pub fn response(
    expected: &Expected<'_>,
    answer: &Answer,
    log: &mut dyn FnMut(String),
) -> Result<Assertion, JobError> {
    let body = success(answer)?;
    if !is_issued(&body, names::TOKEN_TYPE_ID_JAG) {
        log("issued_token_type or token_type is not that of an ID-JAG".to_owned());
        return Err(JobError::BadAnswer);
    }
    let token = text(&body, "access_token").unwrap_or_default();
    let Some((header, claims)) = decoded(token) else {
        log("access_token is no JWT".to_owned());
        return Err(JobError::BadAnswer);
    };
    let fresh = json::seconds(&claims, "exp").ok().flatten().is_some_and(|exp| exp > expected.now);
    if !text(&header, "typ").is_some_and(|typ| is_media_type(typ, names::TYP_ID_JAG)) || !fresh {
        log("what was issued is no ID-JAG, or has expired".to_owned());
        return Err(JobError::BadAnswer);
    }
    addressed(expected, &claims, log)?;
    let resource = expected.upgrade.resource.as_str();
    let resources = json::strings(&body, "resource").map_err(|_| JobError::BadAnswer)?;
    if resources.is_some_and(|resources| resources != [resource]) {
        log("another resource was granted than was asked for".to_owned());
        return Err(JobError::BadAnswer);
    }
    about(expected, &claims, log)?;
    let scope = text(&body, "scope").or(text(&claims, "scope"));
    let more = wider(expected.upgrade, expected.scope, scope);
    if let Some(more) = &more {
        log(format!("more scope was granted than was asked for: {more:?}"));
    }
    let is_wider = more.is_some();
    let scope = scope.filter(|_| !is_wider).map(str::to_owned);
    Ok(Assertion { token: Secret::new(token), scope, is_wider })
}

/// `aud`, `client_id`, `resource`: whom the ID-JAG is for.
fn addressed(
    expected: &Expected<'_>,
    claims: &Map<String, Value>,
    log: &mut dyn FnMut(String),
) -> Result<(), JobError> {
    let values = [
        ("aud", expected.server.party.issuer.as_str()),
        ("client_id", expected.server.client.id.as_str()),
        ("resource", expected.upgrade.resource.as_str()),
    ];
    for (name, value) in values {
        if name == "resource" && !claims.contains_key(name) {
            continue;
        }
        let found = json::strings(claims, name).ok().flatten();
        if found.as_deref() != Some(&[value]) {
            // Neither is a secret, and a slash more or less is the usual mistake.
            let found: String = format!("{found:?}").chars().take(256).collect();
            log(format!("the ID-JAG's {name} is {found}, expected {value:?}"));
            return Err(JobError::Misconfigured);
        }
    }
    Ok(())
}

/// `sub` and `cnf`: whose it is, and who may use it.
fn about(
    expected: &Expected<'_>,
    claims: &Map<String, Value>,
    log: &mut dyn FnMut(String),
) -> Result<(), JobError> {
    let subject = text(claims, "sub").ok_or(JobError::BadAnswer)?;
    if expected.subject.is_some_and(|expected| expected != subject) {
        log("the ID-JAG is about another user (or `pairwise_subjects` is to be set)".to_owned());
        return Err(JobError::BadAnswer);
    }
    let Some((thumbprint, may_be_unbound)) = expected.key else {
        return Ok(());
    };
    let bound_to = claims.get("cnf").and_then(|cnf| cnf.get("jkt"));
    match bound_to.map(|jkt| jkt.as_str() == Some(thumbprint)) {
        Some(true) => Ok(()),
        None if may_be_unbound && !claims.contains_key("cnf") => Ok(()),
        _ => {
            log("the ID-JAG is not bound to our key (ID-JAG section 9.8)".to_owned());
            Err(JobError::BadAnswer)
        }
    }
}

/// Whether `body` is the answer to a token exchange for a token that is no access token.
pub fn is_issued(body: &Map<String, Value>, kind: &str) -> bool {
    let token_type = text(body, "token_type");
    text(body, "issued_token_type") == Some(kind)
        && token_type.is_some_and(|kind| kind.eq_ignore_ascii_case(names::TOKEN_TYPE_N_A))
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    json::string(object, name).ok().flatten()
}

/// Header and claims of a JWT that is not verified.
pub fn decoded(token: &str) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let part = |index| {
        let part = token.split('.').nth(index)?;
        json::object(&URL_SAFE_NO_PAD.decode(part).ok()?)
    };
    Some((part(0)?, part(1)?))
}
