//! `authorization_details` (RFC 9396): what an ID-JAG grants beyond scopes, narrowed to what the
//! resource's configuration understands and to what the client asks for.

use crate::json;
use serde_json::{Map, Value};

/// Most details one list may have.
const MAX_DETAILS: usize = 32;
/// Most values one member of a detail may have.
const MAX_VALUES: usize = 64;
/// The one member that every detail has (RFC 9396 §2).
pub const TYPE: &str = "type";

/// The types of detail that a resource understands, each with the members it may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Types(Vec<(String, Members)>);

/// The members that a detail of one type may have.
pub type Members = Vec<(String, Allowed)>;

/// Which values a member of a detail may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Every string.
    Any,
    /// These strings only.
    Values(Vec<String>),
}

/// One detail: an object with a `type` that is a string. Nothing else in it has been evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Detail(Map<String, Value>);

/// Not an array of at most 32 objects with a string `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Whose details cannot be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request's: `invalid_authorization_details` (RFC 9396 §5).
    Request,
    /// The ID-JAG's: it has a detail that is not understood, and every one must be.
    Claim,
}

impl Refusal {
    /// Stable code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Request => "authorization_details_request",
            Self::Claim => "authorization_details_claim",
        }
    }
}

/// The details in `text`, the parameter of a token request (RFC 9396 §6).
///
/// [`Malformed`] unless it is strict JSON of the right shape. Does *not* evaluate them: [`granted`]
/// does.
pub fn requested(text: &str) -> Result<Vec<Detail>, Malformed> {
    let wrapped = ["{\"\":", text, "}"].concat();
    let wrapper = json::object(wrapped.as_bytes()).ok_or(Malformed)?;
    // More than one member: `text` was not one value.
    let sole = wrapper.get("").filter(|_| wrapper.len() == 1);
    claimed(sole.ok_or(Malformed)?)
}

/// The details in `value`, the claim of an ID-JAG (ID-JAG §3.1).
///
/// [`Malformed`] unless it has the right shape. Does *not* evaluate them: [`granted`] does.
pub fn claimed(value: &Value) -> Result<Vec<Detail>, Malformed> {
    let list = value.as_array().filter(|list| list.len() <= MAX_DETAILS).ok_or(Malformed)?;
    let detail = |item: &Value| {
        let members = item.as_object().ok_or(Malformed)?;
        members.get(TYPE).and_then(Value::as_str).ok_or(Malformed)?;
        Ok(Detail(members.clone()))
    };
    list.iter().map(detail).collect()
}

/// The details to grant, in the order of the ID-JAG: those of the claim, narrowed to `types`; if the
/// request has details too, the part of the claim that covers each of them, and no more.
///
/// * `strict`: whether a claimed detail that is not understood refuses the request
///   ([`Refusal::Claim`]) instead of being left out.
/// * [`Refusal::Request`]: "the AS MUST refuse to process any unknown authorization details type or
///   authorization details not conforming to the respective type definition" (RFC 9396 §5). Nor may
///   a request ask for what the claim does not grant, or for nothing.
///
/// A claimed detail without some member does not limit it, so it covers a request that names the
/// member; without such a request it is granted as it is, also where the type restricts the member's
/// values. Does *not* check that details agree with scope and resource.
pub fn granted(
    types: &Types,
    claimed: Option<&[Detail]>,
    requested: Option<&[Detail]>,
    strict: bool,
) -> Result<Vec<Value>, Refusal> {
    let mut open = Vec::new();
    for detail in requested.unwrap_or_default() {
        // Of a request nothing is taken away silently.
        let known = types.narrow(detail) == Ok(Some(detail.0.clone()));
        open.push(known.then_some(&detail.0).ok_or(Refusal::Request)?);
    }
    let mut granted = Vec::new();
    for detail in claimed.unwrap_or_default() {
        let held = match types.narrow(detail) {
            Ok(Some(held)) => held,
            Err(NotUnderstood) if strict => return Err(Refusal::Claim),
            Ok(None) | Err(NotUnderstood) => continue,
        };
        if requested.is_none() {
            granted.push(Value::Object(held));
            continue;
        }
        open.retain(|wanted| match common(&held, wanted) {
            Some(part) => {
                granted.push(Value::Object(part));
                false
            }
            None => true,
        });
    }
    if !open.is_empty() || requested.is_some() && granted.is_empty() {
        return Err(Refusal::Request);
    }
    Ok(granted)
}

/// How many of the details `claimed` are not granted at all, whatever a request names: they are not
/// understood, or nothing in them is allowed.
pub fn left_out(types: &Types, claimed: &[Detail]) -> usize {
    claimed.iter().filter(|detail| !matches!(types.narrow(detail), Ok(Some(_)))).count()
}

/// A type that the resource does not know, or a member that the type does not have.
#[derive(Debug, PartialEq, Eq)]
struct NotUnderstood;

impl Types {
    /// The types, each with its members; of a name used twice the first counts. `type` itself need
    /// not be listed.
    pub fn new(types: Vec<(String, Members)>) -> Self {
        Self(types)
    }

    /// The names of the types: `authorization_details_types_supported` (RFC 9396 §10).
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// What is left of `detail` of the values that its type allows; `None` if some member has none
    /// left: without that member the detail could mean more, not less.
    fn narrow(&self, detail: &Detail) -> Result<Option<Map<String, Value>>, NotUnderstood> {
        let name = detail.0.get(TYPE).and_then(Value::as_str).ok_or(NotUnderstood)?;
        let members = named(&self.0, name).ok_or(NotUnderstood)?;
        let mut narrowed = Map::new();
        let mut whole = true;
        // To the end, even if nothing is left: whether it is understood does not hang on the order.
        for (name, value) in &detail.0 {
            let left = match name.as_str() {
                TYPE => Some(value.clone()),
                name => named(members, name).ok_or(NotUnderstood)?.narrow(value)?,
            };
            match left {
                Some(left) => drop(narrowed.insert(name.clone(), left)),
                None => whole = false,
            }
        }
        Ok(whole.then_some(narrowed))
    }
}

fn named<'a, T>(list: &'a [(String, T)], name: &str) -> Option<&'a T> {
    list.iter().find(|(other, _)| other == name).map(|(_, found)| found)
}

impl Allowed {
    /// What is left of `value`, a string or an array of strings; `None` if nothing is.
    fn narrow(&self, value: &Value) -> Result<Option<Value>, NotUnderstood> {
        let allows = |text: &str| match self {
            Self::Any => true,
            Self::Values(values) => values.iter().any(|value| value == text),
        };
        match value {
            Value::String(text) => Ok(allows(text).then(|| value.clone())),
            Value::Array(items)
                if items.len() <= MAX_VALUES && items.iter().all(Value::is_string) =>
            {
                Ok(kept(items, |item| item.as_str().is_some_and(allows)))
            }
            _ => Err(NotUnderstood),
        }
    }
}

/// What `held` and `wanted` have in common, if `held` covers all that `wanted` names.
fn common(held: &Map<String, Value>, wanted: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut part = held.clone();
    for (name, wanted) in wanted {
        let value = match (held.get(name), wanted) {
            (None, wanted) => wanted.clone(),
            (Some(Value::Array(held)), Value::Array(wanted)) => {
                let covered = wanted.iter().all(|value| held.contains(value));
                kept(held, |value| covered && wanted.contains(value))?
            }
            (Some(held), wanted) => Some(wanted).filter(|wanted| *wanted == held)?.clone(),
        };
        part.insert(name.clone(), value);
    }
    Some(part)
}

/// The `items` for which `keep` holds, if there are any.
fn kept(items: &[Value], keep: impl Fn(&Value) -> bool) -> Option<Value> {
    let left: Vec<Value> = items.iter().filter(|item| keep(item)).cloned().collect();
    (!left.is_empty()).then_some(Value::Array(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// `files` with some `actions`, any `locations` and an `owner`; `mail` without members.
    fn types() -> Types {
        let values = |values: &[&str]| {
            Allowed::Values(values.iter().map(|value| value.to_string()).collect())
        };
        let files = vec![
            ("actions".to_owned(), values(&["read", "write", "list"])),
            ("locations".to_owned(), Allowed::Any),
            ("owner".to_owned(), values(&["me", "us"])),
        ];
        Types::new(vec![("files".to_owned(), files), ("mail".to_owned(), Vec::new())])
    }

    /// What is granted of `claim` for `request`; null is absent.
    fn grant(claim: Value, request: Value, strict: bool) -> Result<Value, Refusal> {
        let claim = (!claim.is_null()).then(|| claimed(&claim).unwrap());
        let request = (!request.is_null()).then(|| requested(&request.to_string()).unwrap());
        granted(&types(), claim.as_deref(), request.as_deref(), strict).map(Value::Array)
    }

    fn read_in(location: &str) -> Value {
        json!({"type": "files", "actions": ["read"], "locations": [location]})
    }

    #[test]
    fn what_is_not_an_array_of_typed_objects_is_malformed() {
        let many = format!("[{}]", [r#"{"type":"mail"}"#; 33].join(","));

        for text in [
            "",
            " ",
            "null",
            "mail",
            "\"[]\"",
            "{}",
            r#"{"type":"mail"}"#,
            "[null]",
            "[[]]",
            r#"["mail"]"#,
            "[{}]",
            r#"[{"type":null}]"#,
            r#"[{"type":["mail"]}]"#,
            r#"[{"Type":"mail"}]"#,
            r#"[{"type":"mail"},{}]"#,
            r#"[{"type":"mail"},]"#,
            r#"[{"type":"mail","type":"files"}]"#,
            r#"[{"type":"mail","\u0074ype":"files"}]"#,
            r#"[{"type":"mail","a":{"b":1,"b":2}}]"#,
            r#"[{"type":"mail"}] []"#,
            r#"[{"type":"mail"}]}"#,
            r#"[{"type":"mail"}],"a":[]"#,
            r#"[],"":[{"type":"mail"}]"#,
            r#"[],"\u0000":[]"#,
            &many,
        ] {
            assert_eq!(requested(text), Err(Malformed), "{text}");
        }
        for value in [json!("[]"), json!({}), json!(null), json!([1]), json!([{"type": 1}])] {
            assert_eq!(claimed(&value), Err(Malformed), "{value}");
        }
    }

    #[test]
    fn up_to_32_details_are_read() {
        let text = format!(" [{}]\n", [r#"{"type":"mail"}"#; 32].join(","));

        assert_eq!(requested(&text).map(|list| list.len()), Ok(32));
    }

    #[test]
    fn without_details_nothing_is_granted() {
        assert_eq!(grant(json!(null), json!(null), true), Ok(json!([])));
        assert_eq!(grant(json!([]), json!(null), true), Ok(json!([])));
    }

    #[test]
    fn a_claim_is_granted_as_far_as_the_types_allow() {
        let rest = json!({"type": "mail"});

        for (claimed, left) in [
            (read_in("/a"), vec![read_in("/a")]),
            (json!({"type": "files"}), vec![json!({"type": "files"})]),
            (
                json!({"type": "files", "actions": ["delete", "write", "read"]}),
                vec![json!({"type": "files", "actions": ["write", "read"]})],
            ),
            (json!({"type": "files", "actions": ["delete"]}), vec![]),
            (json!({"type": "files", "actions": []}), vec![]),
            (json!({"type": "files", "locations": []}), vec![]),
            (json!({"type": "files", "actions": ["READ"]}), vec![]),
            (
                json!({"type": "files", "owner": "me"}),
                vec![json!({"type": "files", "owner": "me"})],
            ),
            (json!({"type": "files", "owner": "you"}), vec![]),
            (json!({"type": "files", "owner": "you", "actions": ["read"]}), vec![]),
        ] {
            let expected = json!([left, vec![rest.clone()]].concat());

            assert_eq!(grant(json!([claimed, rest]), json!(null), true), Ok(expected), "{claimed}");
        }
    }

    #[test]
    fn a_claimed_detail_that_is_not_understood_is_left_out_or_refuses_all() {
        let rest = json!({"type": "mail"});
        let long = vec!["read"; MAX_VALUES + 1];

        for unknown in [
            json!({"type": "payment"}),
            json!({"type": ""}),
            json!({"type": "Files"}),
            json!({"type": "mail", "actions": ["read"]}),
            json!({"type": "files", "actions": ["read"], "limit": "1"}),
            json!({"type": "files", "actions": ["delete"], "zone": "1"}),
            json!({"type": "files", "actions": null}),
            json!({"type": "files", "actions": 1}),
            json!({"type": "files", "locations": true}),
            json!({"type": "files", "locations": {"a": "b"}}),
            json!({"type": "files", "locations": ["a", ["b"]]}),
            json!({"type": "files", "actions": ["read", 1]}),
            json!({"type": "files", "actions": long}),
        ] {
            let claim = json!([unknown, rest]);

            assert_eq!(grant(claim.clone(), json!(null), false), Ok(json!([rest])), "{unknown}");
            assert_eq!(grant(claim, json!(null), true), Err(Refusal::Claim), "{unknown}");
        }
    }

    #[test]
    fn a_request_gets_the_part_of_the_claim_that_it_names() {
        let claim = json!([
            {"type": "mail"},
            {"type": "files", "actions": ["read", "delete", "write"], "locations": ["/a", "/b"]},
            {"type": "files", "locations": ["/c"], "owner": "me"},
        ]);

        for (request, expected) in [
            (json!([{"type": "mail"}]), json!([{"type": "mail"}])),
            (
                json!([{"type": "files", "actions": ["write"]}, {"type": "mail"}]),
                json!([
                    {"type": "mail"},
                    {"type": "files", "actions": ["write"], "locations": ["/a", "/b"]},
                ]),
            ),
            (
                json!([{"type": "files", "actions": ["write", "read"], "locations": ["/b"]}]),
                json!([{"type": "files", "actions": ["read", "write"], "locations": ["/b"]}]),
            ),
            (
                json!([{"type": "files", "actions": ["list"], "locations": ["/c"]}]),
                json!([
                    {"type": "files", "actions": ["list"], "locations": ["/c"], "owner": "me"},
                ]),
            ),
            (
                json!([
                    {"type": "files", "locations": ["/b"]},
                    {"type": "files", "locations": ["/a"]},
                ]),
                json!([
                    {"type": "files", "actions": ["read", "write"], "locations": ["/b"]},
                    {"type": "files", "actions": ["read", "write"], "locations": ["/a"]},
                ]),
            ),
            (
                json!([{"type": "files"}]),
                json!([{"type": "files", "actions": ["read", "write"], "locations": ["/a", "/b"]}]),
            ),
        ] {
            assert_eq!(grant(claim.clone(), request.clone(), false), Ok(expected), "{request}");
        }
    }

    #[test]
    fn a_request_for_what_is_not_claimed_or_not_understood_is_refused() {
        let claim = json!([
            {"type": "files", "actions": ["read", "delete"], "locations": ["/a"], "owner": "me"},
            {"type": "files", "actions": ["write"], "locations": ["/b"]},
            {"type": "payment"},
        ]);

        for request in [
            json!([]),
            json!([{"type": "mail"}]),
            json!([{"type": "payment"}]),
            json!([{"type": "files", "actions": ["read"]}, {"type": "payment"}]),
            json!([{"type": "files", "actions": ["read"]}, {"type": "mail"}]),
            json!([{"type": "files", "actions": ["delete"]}]),
            json!([{"type": "files", "actions": ["read", "delete"]}]),
            json!([{"type": "files", "actions": ["read", "write"]}]),
            json!([{"type": "files", "actions": ["write"], "locations": ["/a"]}]),
            json!([{"type": "files", "actions": "read"}]),
            json!([{"type": "files", "actions": []}]),
            json!([{"type": "files", "actions": null}]),
            json!([{"type": "files", "locations": []}]),
            json!([{"type": "files", "locations": {"a": "b"}}]),
            json!([{"type": "files", "locations": ["/a"], "owner": ["me"]}]),
            json!([{"type": "files", "locations": ["/a"], "owner": "us"}]),
            json!([{"type": "files", "locations": ["/b"], "owner": "you"}]),
            json!([{"type": "files", "actions": ["read"], "limit": "1"}]),
        ] {
            let refused = Err(Refusal::Request);

            assert_eq!(grant(claim.clone(), request.clone(), false), refused, "{request}");
            assert_eq!(grant(json!(null), request.clone(), false), refused, "{request}");
            assert_eq!(grant(json!([]), request.clone(), false), refused, "{request}");
        }
    }

    #[test]
    fn a_claim_without_a_member_covers_no_more_of_it_than_the_type_allows() {
        let claim = json!([{"type": "files"}]);
        let allowed = json!([{"type": "files", "actions": ["read"]}]);
        let more = json!([{"type": "files", "actions": ["read", "delete"]}]);

        assert_eq!(grant(claim.clone(), allowed.clone(), true), Ok(allowed));
        assert_eq!(grant(claim, more, true), Err(Refusal::Request));
    }

    #[test]
    fn a_strict_resource_refuses_a_claim_even_if_what_is_requested_is_understood() {
        let claim = json!([{"type": "mail"}, {"type": "payment"}]);
        let request = json!([{"type": "mail"}]);

        assert_eq!(grant(claim.clone(), request.clone(), true), Err(Refusal::Claim));
        assert_eq!(grant(claim, request, false), Ok(json!([{"type": "mail"}])));
    }

    #[test]
    fn details_of_which_nothing_is_left_are_counted() {
        let claim = json!([
            {"type": "mail"},
            {"type": "payment"},
            {"type": "files", "actions": ["delete"]},
            {"type": "files", "actions": ["delete", "read"]},
        ]);

        let count = left_out(&types(), &claimed(&claim).unwrap());

        assert_eq!(count, 2);
    }

    #[test]
    fn the_names_of_the_types_are_told() {
        assert_eq!(types().names().collect::<Vec<_>>(), ["files", "mail"]);
    }
}
