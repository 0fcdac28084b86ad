//! What is looked at in calls of an accepted resource.

use super::fields::{Result, fail, identifier, scopes};
use super::raw;
use crate::mcp::{MAX_BODY, ScopeRule, ScopeRules, VERSIONS, name_member};

/// What is looked at in calls of an accepted resource.
#[derive(Debug)]
pub struct Mcp {
    /// Largest body, in bytes.
    pub max_body: usize,
    /// Which scope an operation needs.
    pub scopes: ScopeRules,
    /// Whether operations are refused that no rule is about.
    pub deny_unlisted: bool,
    /// Whether sessions are bound to their holders.
    pub bind_sessions: bool,
    /// Whether a DPoP proof must be for the body too.
    pub content_digest: bool,
    /// Versions of the protocol that are accepted.
    pub revisions: Vec<String>,
}

/// `raw`, for a resource whose scopes are `known`.
pub(super) fn mcp(path: &str, raw: &raw::Mcp, known: &[String]) -> Result<Mcp> {
    let path = format!("{path}.mcp");
    let max_body = raw.max_body.unwrap_or(MAX_BODY);
    if !(1024..=4 * MAX_BODY).contains(&max_body) {
        return fail(format!("{path}.max_body"), "must be 1024 to 4194304 bytes");
    }
    let deny_unlisted = matches!(raw.unlisted, raw::Unlisted::Deny);
    if deny_unlisted && raw.scopes.is_empty() {
        return fail(format!("{path}.scopes"), "lists nothing, so nothing could ever be called");
    }
    let mut rules: Vec<ScopeRule> = Vec::new();
    for (index, raw) in raw.scopes.iter().enumerate() {
        let path = format!("{path}.scopes[{index}]");
        let rule = rule(&path, raw, known, deny_unlisted)?;
        if rules.iter().any(|other| other.method == rule.method && other.name == rule.name) {
            return fail(path, "the same operation again");
        }
        rules.push(rule);
    }
    Ok(Mcp {
        max_body,
        scopes: ScopeRules::new(rules),
        deny_unlisted,
        bind_sessions: matches!(raw.sessions, raw::Sessions::Bind),
        content_digest: raw.content_digest,
        revisions: revisions(&format!("{path}.revisions"), raw.revisions.as_deref())?,
    })
}

fn rule(path: &str, raw: &raw::McpScope, known: &[String], lists: bool) -> Result<ScopeRule> {
    identifier(&format!("{path}.method"), &raw.method)?;
    if let Some(name) = &raw.name {
        identifier(&format!("{path}.name"), name)?;
        if name_member(&raw.method).is_none() {
            return fail(format!("{path}.name"), "this method acts on nothing that has a name");
        }
    }
    let field = format!("{path}.scopes");
    let needed = scopes(&field, &raw.scopes)?;
    if needed.is_empty() && !lists {
        return fail(field, "needs nothing, as if this entry were not there");
    }
    if let Some(unknown) = needed.iter().find(|scope| !known.contains(scope)) {
        return fail(field, format!("`{unknown}` is not in the resource's `scopes`"));
    }
    Ok(ScopeRule { method: raw.method.clone(), name: raw.name.clone(), scopes: needed })
}

fn revisions(path: &str, raw: Option<&[String]>) -> Result<Vec<String>> {
    let Some(raw) = raw else {
        return Ok(VERSIONS.map(str::to_owned).to_vec());
    };
    for (index, version) in raw.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !VERSIONS.contains(&version.as_str()) {
            return fail(path, format!("must be one of {}", VERSIONS.join(", ")));
        }
        if raw.iter().take(index).any(|other| other == version) {
            return fail(path, "named twice");
        }
    }
    if raw.is_empty() {
        return fail(path, "needs at least one version");
    }
    Ok(raw.to_vec())
}
