//! The configuration's bytes as JSON, in whichever of its two wire forms the host hands them over.
//!
//! A `google.protobuf.StringValue` arrives as its text, JSON. A `google.protobuf.Struct`, which is what
//! YAML in an Envoy bootstrap makes, arrives from Envoy as the message's own bytes (seen in 1.40,
//! against its documentation, which promises JSON).

use crate::json;
use crate::protobuf::field;
use serde_json::{Map, Value};

/// How deep a `Struct` may nest: as deep as JSON may.
const MAX_DEPTH: usize = 16;

/// The document in `bytes`; `None` if it is neither one strict JSON object nor a `Struct`.
///
/// A `Struct` is read strictly, too: unknown fields, a name or a kind of value given twice, and more than
/// one byte for a boolean are refused.
pub(super) fn parse(bytes: &[u8]) -> Option<Map<String, Value>> {
    json::document(bytes).or_else(|| members(bytes, MAX_DEPTH))
}

/// `Struct`: `map<string, Value> fields = 1`.
fn members(mut message: &[u8], levels: usize) -> Option<Map<String, Value>> {
    let mut members = Map::new();
    while !message.is_empty() {
        let (0x0a, entry) = field(&mut message)? else {
            return None;
        };
        let (name, value) = member(entry, levels)?;
        if members.insert(name, value).is_some() {
            return None;
        }
    }
    Some(members)
}

/// An entry of such a map: `string key = 1`, `Value value = 2`.
fn member(mut message: &[u8], levels: usize) -> Option<(String, Value)> {
    let (mut name, mut value) = (None, None);
    while !message.is_empty() {
        match field(&mut message)? {
            (0x0a, bytes) if name.is_none() => name = Some(text(bytes)?),
            (0x12, bytes) if value.is_none() => value = Some(json(bytes, levels)?),
            _ => return None,
        }
    }
    // A default value may be left out; a `Value` has none.
    Some((name.unwrap_or_default(), value?))
}

/// `Value`: one of `null_value = 1`, `number_value = 2`, `string_value = 3`, `bool_value = 4`,
/// `struct_value = 5`, `list_value = 6`.
fn json(mut message: &[u8], levels: usize) -> Option<Value> {
    let levels = levels.checked_sub(1)?;
    let kind = field(&mut message)?;
    if !message.is_empty() {
        return None;
    }
    Some(match kind {
        (0x08, [0]) => Value::Null,
        (0x11, bytes) => number(f64::from_le_bytes(bytes.try_into().ok()?))?,
        (0x1a, bytes) => text(bytes)?.into(),
        (0x20, [value @ (0 | 1)]) => (*value == 1).into(),
        (0x2a, bytes) => members(bytes, levels)?.into(),
        (0x32, bytes) => list(bytes, levels)?.into(),
        _ => return None,
    })
}

/// `ListValue`: `repeated Value values = 1`.
fn list(mut message: &[u8], levels: usize) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    while !message.is_empty() {
        let (0x0a, value) = field(&mut message)? else {
            return None;
        };
        values.push(json(value, levels)?);
    }
    Some(values)
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(str::to_owned)
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
    use prost::Message;
    use prost_types::{ListValue, Struct, value::Kind};
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn message(value: &Value) -> Struct {
        let fields = value.as_object().unwrap().iter();
        Struct { fields: fields.map(|(name, value)| (name.clone(), kind(value))).collect() }
    }

    fn kind(value: &Value) -> prost_types::Value {
        let kind = match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(value) => Kind::BoolValue(*value),
            Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap()),
            Value::String(value) => Kind::StringValue(value.clone()),
            Value::Array(values) => {
                Kind::ListValue(ListValue { values: values.iter().map(kind).collect() })
            }
            Value::Object(_) => Kind::StructValue(message(value)),
        };
        prost_types::Value { kind: Some(kind) }
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, _| json!({ "x": inner }))
    }

    #[test]
    fn a_struct_message_reads_like_the_same_json() {
        for document in [
            json!({}),
            json!({ "number": 600, "half": 0.5, "less": -1.5, "text": "x", "list": [true] }),
            json!({ "": null, "no": false, "none": [], "inner": { "a": { "b": [[1, {}], ""] } } }),
            json!({ "long": "ä".repeat(20_000) }),
            nested(16),
        ] {
            let read = parse(&message(&document).encode_to_vec());

            assert_eq!(read, parse(document.to_string().as_bytes()));
            assert_eq!(read.map(Value::Object), Some(document));
        }
    }

    #[test]
    fn what_is_no_strict_struct_is_refused() {
        let number = b"\x11\0\0\0\0\0\0\xf8\x7f".as_slice();
        for (what, value) in [
            ("no kind", b"".as_slice()),
            ("two kinds", b"\x08\0\x20\x01"),
            ("another null", b"\x08\x01"),
            ("another boolean", b"\x20\x02"),
            ("a longer boolean", b"\x20\x81\0"),
            ("an unknown kind", b"\x38\0"),
            ("a group", b"\x2b\x2c"),
            ("a number of four bytes", b"\x15\0\0\0\0"),
            ("a number cut off", b"\x11\0\0"),
            ("not a number", number),
            ("text cut off", b"\x1a\x05x"),
            ("text that is not UTF-8", b"\x1a\x01\xff"),
            ("a length that does not end", b"\x1a\xff\xff\xff\xff\xff"),
            ("a list of anything", b"\x32\x02\x08\0"),
        ] {
            let entry = [b"\x0a\x01x\x12", &[value.len() as u8][..], value].concat();
            let message = [&[0x0a, entry.len() as u8][..], &entry].concat();

            assert_eq!(parse(&message), None, "{what}");
        }
        let twice = message(&json!({ "a": 1 })).encode_to_vec().repeat(2);
        assert_eq!(parse(&twice), None);
        assert_eq!(parse(&message(&nested(17)).encode_to_vec()), None);
        assert_eq!(parse(b"\x0a\x03\x0a\x01x"), None);
        assert_eq!(parse(b"not a document"), None);
    }
}
