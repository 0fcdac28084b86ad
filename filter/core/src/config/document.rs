//! The configuration's bytes as JSON, in whichever of its two wire forms the host hands them over.
//!
//! A `google.protobuf.StringValue` arrives as its text, JSON. A `google.protobuf.Struct`, which is what
//! YAML in an Envoy bootstrap makes, arrives from Envoy as the message's own bytes (seen in 1.40,
//! against its documentation, which promises JSON).

use crate::json;
use prost::Message;
use prost_types::{Struct, value::Kind};
use serde_json::{Map, Value};

/// The document in `bytes`; `None` if it is neither one strict JSON object nor a `Struct`.
pub(super) fn parse(bytes: &[u8]) -> Option<Map<String, Value>> {
    json::document(bytes).or_else(|| Struct::decode(bytes).ok().and_then(members))
}

fn members(message: Struct) -> Option<Map<String, Value>> {
    message.fields.into_iter().map(|(name, value)| Some((name, json(value)?))).collect()
}

fn json(value: prost_types::Value) -> Option<Value> {
    Some(match value.kind? {
        Kind::NullValue(_) => Value::Null,
        Kind::BoolValue(value) => value.into(),
        Kind::StringValue(value) => value.into(),
        Kind::NumberValue(value) => number(value)?,
        Kind::StructValue(value) => members(value)?.into(),
        Kind::ListValue(list) => list.values.into_iter().map(json).collect::<Option<_>>()?,
    })
}

/// A `Struct` has only floating point; a whole number is meant as one.
fn number(value: f64) -> Option<Value> {
    let whole = value.trunc() == value && (0.0..=9_007_199_254_740_992.0).contains(&value);
    if whole {
        Some((value as u64).into())
    } else {
        serde_json::Number::from_f64(value).map(Value::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_struct_message_reads_like_the_same_json() {
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let list = prost_types::ListValue { values: vec![value(Kind::BoolValue(true))] };
        let message = Struct {
            fields: [
                ("number".to_owned(), value(Kind::NumberValue(600.0))),
                ("half".to_owned(), value(Kind::NumberValue(0.5))),
                ("text".to_owned(), value(Kind::StringValue("x".to_owned()))),
                ("list".to_owned(), value(Kind::ListValue(list))),
            ]
            .into(),
        };

        let document = parse(&message.encode_to_vec()).unwrap();

        let same = br#"{"number":600,"half":0.5,"text":"x","list":[true]}"#;
        assert_eq!(document, parse(same).unwrap());
        assert_eq!(parse(b"not a document"), None);
    }
}
