//! Strict JSON (RFC 8259): what two parsers could read differently is refused.

use core::fmt;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep arrays and objects may nest. The wasm stack is small; a stack overflow is a trap.
const MAX_DEPTH: usize = 16;
/// How many members one object from outside may have.
const MAX_MEMBERS: usize = 256;
/// How deep a message may nest of which we read the top only: arguments of tools are anybody's.
const MAX_OUTLINE_DEPTH: usize = 64;
/// How many levels of such a message are kept.
const OUTLINE_LEVELS: usize = 3;

/// The object in `bytes`.
///
/// Refused: anything but one UTF-8 object, a byte order mark, trailing bytes, a member name used
/// twice (after unescaping, at any depth), nesting deeper than 16, more than 256 members.
pub fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    read(bytes, Bounds { depth: MAX_DEPTH, members: MAX_MEMBERS, kept: usize::MAX })
}

/// The object in `bytes`, as [`object`] reads it but with any number of members: for what the
/// operator wrote.
pub fn document(bytes: &[u8]) -> Option<Map<String, Value>> {
    read(bytes, Bounds { depth: MAX_DEPTH, members: usize::MAX, kept: usize::MAX })
}

/// The top of the object in `bytes`, as [`object`] reads it but with any number of members and up to
/// 64 levels.
///
/// Everything is checked, but only three levels are kept: an array or object further down comes back
/// empty. A list of a hundred thousand small objects is so not made into as many maps.
pub fn outline(bytes: &[u8]) -> Option<Map<String, Value>> {
    let (depth, kept) = (MAX_OUTLINE_DEPTH, OUTLINE_LEVELS);
    read(bytes, Bounds { depth, members: usize::MAX, kept })
}

fn read(bytes: &[u8], bounds: Bounds) -> Option<Map<String, Value>> {
    // Once for all of it; from bytes, each string is looked through by itself.
    let text = core::str::from_utf8(bytes).ok()?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0, bounds }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// The member `name` as a string: `Ok(None)` if absent, `Err` if it has another type.
pub fn string<'a>(map: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, WrongType> {
    match map.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(WrongType),
    }
}

/// The member `name` as whole seconds: `Ok(None)` if absent, `Err` if it is not a non-negative
/// integer. A fraction is refused: no known issuer emits one, and accepting it needs rounding.
pub fn seconds(map: &Map<String, Value>, name: &str) -> Result<Option<u64>, WrongType> {
    match map.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(WrongType),
    }
}

/// The member `name` as a list of strings; a single string counts as a list of one (RFC 7519
/// §4.1.3, RFC 8707). `Ok(None)` if absent, `Err` for any other type.
pub fn strings<'a>(
    map: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<Vec<&'a str>>, WrongType> {
    match map.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(vec![text])),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().ok_or(WrongType))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(WrongType),
    }
}

/// A member is there but is not what its definition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongType;

#[derive(Clone, Copy)]
struct Bounds {
    depth: usize,
    members: usize,
    /// How many levels of arrays and objects keep what they hold.
    kept: usize,
}

struct Strict {
    depth: usize,
    bounds: Bounds,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<Strict, E> {
        if self.depth == self.bounds.depth {
            return Err(E::custom("nested too deep"));
        }
        Ok(Strict { depth: self.depth + 1, bounds: self.bounds })
    }

    fn keeps(&self) -> bool {
        self.depth < self.bounds.kept
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            if self.keeps() {
                list.push(item);
            }
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.deeper()?)?;
            if map.len() >= self.bounds.members {
                return Err(A::Error::custom("too many members"));
            }
            // RFC 7519 §4 lets a parser take the last of two equal names; the next hop may take
            // the first. Refuse instead.
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("member name used twice"));
            }
        }
        if !self.keeps() {
            map = Map::new();
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn one_object_is_read_and_case_variants_are_different_names() {
        let map = object(br#" {"alg":"RS256","Alg":"none","n":[1,-2,3.5,null,true,{"a":"b"}]} "#);

        assert_eq!(map.unwrap()["alg"], "RS256");
    }

    #[test]
    fn what_parsers_could_read_differently_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(17), "]".repeat(17));
        let wide: Vec<String> = (0..300).map(|n| format!("\"m{n}\":1")).collect();
        let wide = format!("{{{}}}", wide.join(","));
        let bad: &[&[u8]] = &[
            b"",
            b"null",
            b"[]",
            b"\"x\"",
            b"{} {}",
            b"{}x",
            b"\xef\xbb\xbf{}",
            br#"{"a":1,"a":2}"#,
            br#"{"a":1,"\u0061":2}"#,
            br#"{"x":{"a":1,"a":2}}"#,
            br#"{"a":1,}"#,
            br#"{"a":"\ud800"}"#,
            b"{\"a\":\"\xff\"}",
            b"{\"a\":NaN}",
            b"{\"a\":1e999}",
            b"{/**/}",
            deep.as_bytes(),
            wide.as_bytes(),
        ];

        for bytes in bad {
            assert!(object(bytes).is_none(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_outline_is_checked_throughout_and_kept_at_the_top() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(63), "]".repeat(63));
        let deeper = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));

        let map = outline(br#"{"a":{"b":{"c":1,"d":{"e":2},"f":[3]}},"g":[[[4]]]}"#).unwrap();

        let kept = serde_json::json!({"a":{"b":{"c":1,"d":{},"f":[]}},"g":[[[]]]});
        assert_eq!(Value::Object(map), kept);
        assert!(outline(deep.as_bytes()).is_some());
        assert!(outline(deeper.as_bytes()).is_none());
        assert!(outline(br#"{"a":{"b":{"c":{"d":{"e":1,"\u0065":2}}}}}"#).is_none());
    }

    #[test]
    fn seconds_are_whole_and_not_negative() {
        let map = object(br#"{"a":1,"b":1.5,"c":-1,"d":"1","e":1e3,"f":null}"#).unwrap();

        assert_eq!(seconds(&map, "a"), Ok(Some(1)));
        assert_eq!(seconds(&map, "absent"), Ok(None));
        for name in ["b", "c", "d", "e", "f"] {
            assert_eq!(seconds(&map, name), Err(WrongType), "{name}");
        }
    }
}
