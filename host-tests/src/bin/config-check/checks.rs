//! The checks, each of what the filter cannot see of its own surroundings.

use host_tests::bootstrap::{Bootstrap, Filter, field, items, text};
use jagway_core::config::Config;
use serde_json::Value;

use crate::environment::Environment;

/// Something to tell about one field.
#[derive(Clone, PartialEq)]
pub struct Finding {
    /// Whether it is allowed nevertheless.
    pub is_warning: bool,
    /// The field, as the filter would name it in Envoy's log, or a field of what is around it.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Finding {
    /// Something that must not stay so.
    pub fn error(path: &str, problem: impl Into<String>) -> Self {
        Self { is_warning: false, path: path.to_owned(), problem: problem.into() }
    }

    /// Something that may stay so.
    pub fn warning(path: &str, problem: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::error(path, problem) }
    }
}

/// Everything there is to tell about one filter.
pub fn findings(bootstrap: &Bootstrap, filter: &Filter, no_secrets: bool) -> Vec<Finding> {
    let environment = Environment::new(filter, no_secrets);
    let mut findings = environment.findings();
    match Config::parse(filter.document.as_bytes(), &|name| environment.value(name)) {
        Err(error) => findings.push(Finding::error(&error.path, error.problem)),
        Ok(config) => {
            let warnings = config.warnings.iter();
            findings.extend(warnings.map(|warning| match warning.split_once(": ") {
                Some((path, problem)) => Finding::warning(path, problem),
                None => Finding::warning("(document)", warning),
            }));
            findings.extend(clusters(bootstrap, &config));
        }
    }
    findings.extend(plugin(filter));
    findings.extend(connection_manager(&filter.connection_manager));
    findings
}

fn clusters(bootstrap: &Bootstrap, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, cluster) in config.clusters() {
        if bootstrap.clusters.contains(&cluster) {
            continue;
        }
        let problem = format!("Envoy has no cluster `{cluster}`");
        let finding = if bootstrap.has_cds {
            Finding::warning(&path, format!("{problem}, unless CDS brings it"))
        } else {
            Finding::error(&path, problem)
        };
        // Several resources may go to one identity provider.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

fn plugin(filter: &Filter) -> Vec<Finding> {
    let plugin = &filter.plugin;
    let mut findings = Vec::new();
    if text(field(field(plugin, "vm_config"), "vm_id")).is_empty() {
        let problem = "must be set: what workers share, and who else may read it, goes by it";
        findings.push(Finding::error("vm_config.vm_id", problem));
    }
    // An enum may be written as its number; FAIL_OPEN is 3.
    let policy = field(plugin, "failure_policy");
    if text(policy) == "FAIL_OPEN" || policy.as_u64() == Some(3) {
        let problem = "must not be FAIL_OPEN: a fault would let every request through unchecked";
        findings.push(Finding::error("failure_policy", problem));
    }
    if is_true(field(plugin, "fail_open")) {
        let problem = "must not be true: a fault would let every request through unchecked";
        findings.push(Finding::error("fail_open", problem));
    }
    let fields = filter.fields();
    let accepted = resources(&fields, "accept");
    let reads_forms = !accepted.is_empty() || !items(field(&fields, "guards")).is_empty();
    if reads_forms && !is_true(field(plugin, "allow_on_headers_stop_iteration")) {
        let problem = "must be true for `accept` and `guards`: else the form sent to the token endpoint never arrives";
        findings.push(Finding::error("allow_on_headers_stop_iteration", problem));
    }
    findings.extend(listener(filter, &fields, &accepted));
    findings.extend(metadata_route(filter, &fields));
    findings
}

/// What stands below this member of resources.
fn resources<'a>(fields: &'a Value, kind: &str) -> Vec<&'a Value> {
    items(field(fields, "resources")).iter().filter_map(|one| one.get(kind)).collect()
}

/// What the listener must be like for what the configuration asks of it.
fn listener(filter: &Filter, fields: &Value, accepted: &[&Value]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let limit = field(&filter.listener, "per_connection_buffer_limit_bytes").as_u64();
    let bodies = accepted.iter().filter_map(|accept| accept.get("mcp"));
    let bodies = bodies.map(|mcp| field(mcp, "max_body").as_u64().unwrap_or(1 << 20));
    if bodies.max().is_some_and(|body| body > limit.unwrap_or(1 << 20)) {
        let path = "per_connection_buffer_limit_bytes";
        let problem = "is less than `mcp.max_body`: Envoy refuses what it cannot hold";
        findings.push(Finding::warning(path, problem));
    }
    // A name in a certificate counts only where somebody vouches for it.
    let mut readers = resources(fields, "upgrade");
    readers.push(field(fields, "authorization_server"));
    let mut chains = readers.into_iter().map(|reader| field(field(reader, "mutual_tls"), "chain"));
    let untrusted = filter.listener.to_string().contains("ACCEPT_UNTRUSTED");
    if chains.any(|chain| text(chain) == "verified") && untrusted {
        let path = "trust_chain_verification";
        let problem = "is ACCEPT_UNTRUSTED, but `mutual_tls.chain` says that chains are verified";
        findings.push(Finding::error(path, problem));
    }
    findings
}

/// Clients that pass untouched look for the metadata of the server behind.
fn metadata_route(filter: &Filter, fields: &Value) -> Option<Finding> {
    const METADATA: &str = "/.well-known/oauth-protected-resource";
    let hosts = field(field(&filter.connection_manager, "route_config"), "virtual_hosts");
    let mut routes = items(hosts).iter().flat_map(|host| items(field(host, "routes"))).peekable();
    let leads_there = |route: &Value| {
        let way = field(route, "match");
        let start = field(way, "prefix").as_str();
        let start = start.or_else(|| field(way, "path_separated_prefix").as_str());
        match (field(way, "path").as_str(), start) {
            (Some(path), _) => path.starts_with(METADATA),
            (None, Some(start)) => METADATA.starts_with(start) || start.starts_with(METADATA),
            // A pattern may lead anywhere.
            (None, None) => true,
        }
    };
    let mut upgrades = resources(fields, "upgrade").into_iter();
    let passes = upgrades.any(|upgrade| is_true(field(upgrade, "pass_ema_clients")));
    // Routes from RDS are not seen here.
    if !passes || routes.peek().is_none() || routes.any(leads_there) {
        return None;
    }
    let problem = format!("has no way to `{METADATA}`, which `pass_ema_clients` needs");
    Some(Finding::warning("route_config", problem))
}

fn connection_manager(manager: &Value) -> Vec<Finding> {
    const WHY: &str = "or the server behind may read a path otherwise than the filter did";
    let mut findings = Vec::new();
    for path in ["normalize_path", "merge_slashes"] {
        if !is_true(field(manager, path)) {
            findings.push(Finding::warning(path, format!("should be true, {WHY}")));
        }
    }
    let path = "path_with_escaped_slashes_action";
    if text(field(manager, path)) != "REJECT_REQUEST" {
        findings.push(Finding::warning(path, format!("should be REJECT_REQUEST, {WHY}")));
    }
    findings
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true)
}
