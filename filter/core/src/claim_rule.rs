//! Rules about claims: which workloads of an issuer that serves everybody are meant.

use serde_json::{Map, Value};

/// Longest pattern.
const MAX_PATTERN: usize = 1024;
/// What a `*` does not match. Issuers join names to longer ones with these.
const SEPARATORS: [char; 2] = [':', '/'];

/// What one claim must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRule {
    /// Where the claim is: its name, after those of the objects it is in. A list, since names of claims
    /// have dots in them (`kubernetes.io`). An empty one finds nothing.
    pub path: Vec<String>,
    /// What its value must be.
    pub pattern: Pattern,
}

impl ClaimRule {
    /// Whether `claims` has the claim, with a value of the pattern.
    ///
    /// A string is compared as it is, a boolean or a whole number by its text. Anything else, an array
    /// above all, never matches: which of its items should?
    pub fn matches(&self, claims: &Map<String, Value>) -> bool {
        let Some((first, rest)) = self.path.split_first() else {
            return false;
        };
        let value = rest
            .iter()
            .try_fold(claims.get(first), |value, name| Some(value?.as_object()?.get(name)));
        match value.flatten() {
            Some(Value::String(text)) => self.pattern.matches(text),
            Some(Value::Bool(is)) => self.pattern.matches(if *is { "true" } else { "false" }),
            Some(Value::Number(number)) if !number.is_f64() => {
                self.pattern.matches(&number.to_string())
            }
            _ => false,
        }
    }

    /// Whether `claims` is as all `rules` say. `false` if there are none: whoever the issuer knows is no
    /// choice.
    pub fn all_match(rules: &[Self], claims: &Map<String, Value>) -> bool {
        !rules.is_empty() && rules.iter().all(|rule| rule.matches(claims))
    }
}

/// Text in which a `*` stands for one character or more, of which none is `:` or `/`.
///
/// `:` and `/` part a text into segments; each may have one `*`. There is no way to write a `*` that
/// stands for itself, nor one that goes across segments. Case counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern in `text`.
    ///
    /// `None` if it is longer than 1024 bytes, has two `*` in one segment, or has no text of its own
    /// between `*` and separators: it would match nearly anything.
    pub fn parse(text: &str) -> Option<Self> {
        let is_wild = |c| c == '*' || SEPARATORS.contains(&c);
        let mut segments = text.split(SEPARATORS);
        let is_sound = text.len() <= MAX_PATTERN
            && !text.chars().all(is_wild)
            && segments.all(|segment| segment.matches('*').count() <= 1);
        is_sound.then(|| Self(text.to_owned()))
    }

    /// Whether the whole of `text` is of this pattern, in time that grows with the length of both.
    pub fn matches(&self, text: &str) -> bool {
        let mut expected = self.0.split_inclusive(SEPARATORS);
        let mut given = text.split_inclusive(SEPARATORS);
        loop {
            // A segment ends in its separator, if it has one.
            match (expected.next(), given.next()) {
                (Some(expected), Some(given)) if is_segment(expected, given) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

fn is_segment(expected: &str, given: &str) -> bool {
    let Some((before, after)) = expected.split_once('*') else {
        return expected == given;
    };
    let rest = given.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    // Without the last test `*` would match the separator at the end of a segment.
    rest.is_some_and(|rest| !rest.is_empty() && !rest.ends_with(SEPARATORS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rule(path: &[&str], pattern: &str) -> ClaimRule {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        ClaimRule { path, pattern: Pattern::parse(pattern).unwrap() }
    }

    #[test]
    fn a_star_stands_for_one_character_or_more_of_one_segment() {
        let cases = [
            ("main", "main", true),
            ("main", "Main", false),
            ("main", "main ", false),
            ("main", "", false),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/x:ref:refs/heads/main", true),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/x-y.z:ref:refs/heads/main", true),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/*:ref:refs/heads/main", true),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/:ref:refs/heads/main", false),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/x/y:ref:refs/heads/main", false),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme-evil/x:ref:refs/heads/main", false),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/x:ref:refs/heads/main2", false),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/x:ref:refs/heads/main:", false),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/x:ref:refs/heads/main/y", false),
            ("repo:acme/*:ref:refs/heads/main", "xrepo:acme/x:ref:refs/heads/main", false),
            (
                "repo:acme/*:ref:refs/heads/main",
                "repo:acme/x:ref:refs/heads/main:ref:refs/heads/main",
                false,
            ),
            ("repo:acme/*:ref:refs/heads/main", "repo:acme/x:pull_request", false),
            ("repo:acme/*", "repo:acme/x:ref:refs/heads/main", false),
            ("repo:acme/*", "repo:acme/x:", false),
            ("repo:acme/*", "repo:acme/:", false),
            ("repo:acme/*", "repo:acme/", false),
            ("acme/*/x", "acme//x", false),
            ("acme/*:x", "acme/a/x", false),
            ("refs/heads/release-*", "refs/heads/release-1", true),
            ("refs/heads/release-*", "refs/heads/release-", false),
            ("a*a", "aa", false),
            ("a*a", "aba", true),
            ("a*a", "a", false),
            ("*é:x", "üé:x", true),
        ];

        for (pattern, text, expected) in cases {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(text), expected, "{pattern:?} {text}");
        }
    }

    #[test]
    fn a_pattern_that_says_nothing_or_too_much_is_none() {
        let long = "x".repeat(1025);

        for text in ["", "*", "**", "*:*", "*/*", ":", "/", "a**", "a*b*", "x:*a*", &long] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn strings_booleans_and_whole_numbers_are_compared_by_their_text() {
        let claims = json!({
            "a": "x", "b": true, "c": 42, "d": -1, "e": 1.5, "f": null, "g": ["x"], "h": { "a": "x" },
            "i.j": { "k": { "l": "x" } }, "i": { "j": "y" },
        });
        let cases: &[(&[&str], &str, bool)] = &[
            (&["a"], "x", true),
            (&["b"], "true", true),
            (&["b"], "false", false),
            (&["c"], "42", true),
            (&["c"], "4*", true),
            (&["d"], "-1", true),
            (&["e"], "1.5", false),
            (&["f"], "null", false),
            (&["g"], "x", false),
            (&["g", "0"], "x", false),
            (&["h"], "x", false),
            (&["h", "a"], "x", true),
            (&["h", "b"], "x", false),
            (&["a", "a"], "x", false),
            (&["i.j", "k", "l"], "x", true),
            (&["i", "j", "k", "l"], "x", false),
            (&["none"], "x", false),
            (&[], "x", false),
        ];

        for (path, pattern, expected) in cases {
            let rule = rule(path, pattern);
            assert_eq!(rule.matches(claims.as_object().unwrap()), *expected, "{rule:?}");
        }
    }

    #[test]
    fn all_rules_must_match_and_there_must_be_one() {
        let claims = json!({ "a": "x", "b": "y" });
        let claims = claims.as_object().unwrap();

        assert!(ClaimRule::all_match(&[rule(&["a"], "x"), rule(&["b"], "y")], claims));
        assert!(!ClaimRule::all_match(&[rule(&["a"], "x"), rule(&["b"], "z")], claims));
        assert!(!ClaimRule::all_match(&[], claims));
    }
}
