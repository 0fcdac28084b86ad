//! The variables that the configuration names, and those that its VM gets.
//!
//! Envoy passes a VM nothing of its own environment but the `host_env_keys`, and beside them the
//! literal `key_values`.

use std::collections::{BTreeMap, BTreeSet};

use host_tests::bootstrap::{Filter, field, items, text};
use host_tests::keys::{self, SigningKey};
use serde_json::Value;

use crate::checks::Finding;

/// The environment of one filter.
pub struct Environment {
    /// Where a variable is named (`resources[0]...secret.env`), and the variable.
    references: Vec<(String, String)>,
    passed: BTreeSet<String>,
    values: BTreeMap<String, String>,
    /// Values of the right form for the rest, so that one that is missing does not hide other faults.
    dummies: BTreeMap<String, String>,
    no_secrets: bool,
}

impl Environment {
    /// What `filter` would find. With `no_secrets` our own environment is not looked at.
    pub fn new(filter: &Filter, no_secrets: bool) -> Self {
        let mut references = Vec::new();
        collect(&filter.fields(), "", &mut references);

        let variables = field(field(&filter.plugin, "vm_config"), "environment_variables");
        let keys = items(field(variables, "host_env_keys"));
        let mut passed: BTreeSet<String> = keys.iter().map(|key| text(key).to_owned()).collect();
        let literal = field(variables, "key_values").as_object().into_iter().flatten();
        let mut values: BTreeMap<String, String> =
            literal.map(|(name, value)| (name.clone(), text(value).to_owned())).collect();
        passed.extend(values.keys().cloned());
        let mut dummies = BTreeMap::new();
        for (path, name) in &references {
            if !no_secrets && !values.contains_key(name) {
                values.extend(std::env::var(name).map(|value| (name.clone(), value)));
            }
            if is_digest(path) {
                dummies.insert(name.clone(), keys::sha256_hex(name));
            } else if !path.ends_with(".key.env") {
                dummies.insert(name.clone(), "dummy".to_owned());
            } else {
                dummies.entry(name.clone()).or_insert_with(|| SigningKey::es256("dummy").pem());
            }
        }
        Self { references, passed, values, dummies, no_secrets }
    }

    /// The references that would find nothing.
    pub fn findings(&self) -> Vec<Finding> {
        let missing = self.references.iter().filter_map(|(path, name)| {
            let problem = if !self.passed.contains(name) {
                "is not passed to the VM: `vm_config.environment_variables.host_env_keys` lacks it"
            } else if !self.no_secrets && !self.values.contains_key(name) {
                "is not set in the VM"
            } else {
                return None;
            };
            Some(Finding::error(path, format!("environment variable `{name}` {problem}")))
        });
        missing.collect()
    }

    /// The value of a variable, or a dummy where its lack is among the findings.
    pub fn value(&self, name: &str) -> Option<String> {
        self.values.get(name).or_else(|| self.dummies.get(name)).cloned()
    }
}

/// Every `{ env: NAME }` below `value`.
fn collect(value: &Value, path: &str, references: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match member {
                    Value::String(variable) if name == "env" => {
                        references.push((path, variable.clone()));
                    }
                    member => collect(member, &path, references),
                }
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                collect(element, &format!("{path}[{index}]"), references);
            }
        }
        _ => {}
    }
}

fn is_digest(path: &str) -> bool {
    path.ends_with("sha256.env")
}
