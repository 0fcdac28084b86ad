//! The types of authorization detail that a resource understands (RFC 9396).

use super::fields::{Result, fail, identifier};
use crate::authorization_details::{Allowed, TYPE, Types};
use serde_json::{Map, Value};

pub(super) fn types(path: &str, raw: &Map<String, Value>) -> Result<Types> {
    let mut types = Vec::new();
    for (name, raw) in raw {
        let path = format!("{path}.authorization_details.{name}");
        identifier(&path, name)?;
        let mut members = Vec::new();
        let Value::Object(raw) = raw else {
            return fail(path, "must be an object: what each member may be");
        };
        for (name, raw) in raw {
            let path = format!("{path}.{name}");
            identifier(&path, name)?;
            if name == TYPE {
                return fail(path, "is there anyway");
            }
            members.push((name.clone(), allowed(&path, raw)?));
        }
        types.push((name.clone(), members));
    }
    Ok(Types::new(types))
}

fn allowed(path: &str, raw: &Value) -> Result<Allowed> {
    let list = match raw {
        Value::String(word) if word == "any" => return Ok(Allowed::Any),
        Value::Array(list) if !list.is_empty() => list,
        _ => return fail(path, "must be `any`, or a list of values"),
    };
    let mut values: Vec<String> = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let value = value.as_str().unwrap_or_default();
        identifier(&path, value)?;
        if values.iter().any(|other| other == value) {
            return fail(path, "named twice");
        }
        values.push(value.to_owned());
    }
    Ok(Allowed::Values(values))
}
