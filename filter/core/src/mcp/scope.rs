//! Which scope an operation needs.

use super::Message;

/// What one kind of operation needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRule {
    /// The method it is about.
    pub method: String,
    /// The tool, prompt, resource or task it is about, compared byte for byte; `None` for all.
    pub name: Option<String>,
    /// Scope tokens (RFC 6749 §3.3), all of which are needed.
    pub scopes: Vec<String>,
}

impl ScopeRule {
    fn is_about(&self, message: &Message) -> bool {
        message.method.as_ref() == Some(&self.method)
            && (self.name.is_none() || self.name == message.name)
    }
}

/// Every rule of a resource. Without a rule for it, an operation needs nothing.
#[derive(Debug, Clone, Default)]
pub struct ScopeRules(Vec<ScopeRule>);

impl ScopeRules {
    /// `rules`, in any order: all that match count.
    pub fn new(rules: Vec<ScopeRule>) -> Self {
        Self(rules)
    }

    /// Whether a rule is about `message`. A response is about nothing.
    pub fn lists(&self, message: &Message) -> bool {
        self.0.iter().any(|rule| rule.is_about(message))
    }

    /// Every scope token that `message` needs, each once: what a challenge names, all at once (MCP,
    /// Scope Challenge Handling; RFC 6750 §3.1). Nothing for a response.
    pub fn needed(&self, message: &Message) -> Vec<&str> {
        let mut needed = Vec::new();
        for scope in
            self.0.iter().filter(|rule| rule.is_about(message)).flat_map(|rule| &rule.scopes)
        {
            if !needed.contains(&scope.as_str()) {
                needed.push(scope.as_str());
            }
        }
        needed
    }
}

/// Those of `needed` that are not in `granted`, a space-separated list.
pub fn missing<'a>(granted: &str, needed: &[&'a str]) -> Vec<&'a str> {
    needed.iter().copied().filter(|scope| !granted.split(' ').any(|has| has == *scope)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rules() -> ScopeRules {
        let rule = |method: &str, name: Option<&str>, scopes: &[&str]| ScopeRule {
            method: method.to_owned(),
            name: name.map(str::to_owned),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        ScopeRules::new(vec![
            rule("tools/call", None, &["tools"]),
            rule("tools/call", Some("delete"), &["files.write", "tools"]),
            rule("resources/read", Some("delete"), &["files.read"]),
        ])
    }

    fn message(method: Option<&str>, name: Option<&str>) -> Message {
        let (method, name) = (method.map(str::to_owned), name.map(str::to_owned));
        Message { id: Some(1.into()), method, name, protocol_version: None }
    }

    #[test]
    fn an_operation_needs_what_all_rules_for_it_say() {
        let rules = rules();

        for (method, name, needed) in [
            (Some("tools/call"), Some("delete"), &["tools", "files.write"][..]),
            (Some("tools/call"), Some("Delete"), &["tools"]),
            (Some("tools/call"), Some("delete "), &["tools"]),
            (Some("Tools/call"), Some("delete"), &[]),
            (Some("tools/list"), None, &[]),
            (None, None, &[]),
        ] {
            assert_eq!(rules.needed(&message(method, name)), needed, "{method:?} {name:?}");
        }
    }

    #[test]
    fn only_a_whole_token_of_the_granted_scope_counts() {
        let needed = ["files.write", "tools"];

        assert!(missing("tools x files.write", &needed).is_empty());
        assert_eq!(missing("tools.x files.writer", &needed), needed);
        assert_eq!(missing("TOOLS files.write", &needed), ["tools"]);
        assert_eq!(missing("", &needed), needed);
    }
}
