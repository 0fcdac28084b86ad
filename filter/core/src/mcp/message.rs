//! One JSON-RPC message of a request's body: what is asked, and of what.

use super::Fault;
use crate::json;
use serde_json::{Map, Value};

/// Longest `id` that is a string, in bytes: it is echoed.
const MAX_ID: usize = 256;
/// Member of `_meta` with the protocol version (MCP 2026-07-28, Versioning).
const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Members with a meaning, of the message and of its `params`.
const TOP: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: &[&str] =
    &["name", "arguments", "uri", "taskId", "_meta", "requestState", "inputResponses"];

/// A request, a notification or a response, as far as decisions need it. Only [`read`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// `id`, a string or an integer; `None` for a notification.
    pub id: Option<Value>,
    /// `method`; `None` for a response.
    pub method: Option<String>,
    /// What the method acts on, exactly as written: the name of a tool or prompt, the URI of a
    /// resource, the id of a task. `None` for methods that have no such thing.
    pub name: Option<String>,
    /// The protocol version that `params._meta` declares.
    pub protocol_version: Option<String>,
}

/// The member of `params` that says what `method` acts on (MCP 2026-07-28, Standard Request Headers;
/// 2025-11-25, Resources and Tasks).
pub fn name_member(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Some("uri"),
        "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

/// The message in `body`, which must go on as it is: the same bytes that were read.
///
/// Refused: what is not one strict JSON object ([`json::outline`]), arrays, anything but JSON-RPC 2.0,
/// member names that a server blind to case would take for known ones, an `id` that is `null`, a
/// fraction or long, `params` that are no object, a request without `id`, and a method that acts on
/// something without its name. Not checked: `arguments`, size ([`super::MAX_BODY`]), whether the
/// method or the name exists.
pub fn read(body: &[u8]) -> Result<Message, Fault> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Fault::Batch);
    }
    let message = json::outline(body).ok_or(Fault::NotJson)?;
    refuse_variants(&message, TOP)?;
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(Fault::NotAMessage);
    }
    let id = message.get("id").map(checked_id).transpose()?;
    match (message.get("method"), message.get("result"), message.get("error")) {
        (Some(Value::String(method)), None, None) => request(&message, id, method),
        (None, Some(Value::Object(_)), None) | (None, None, Some(Value::Object(_)))
            if id.is_some() && !message.contains_key("params") =>
        {
            Ok(Message { id, method: None, name: None, protocol_version: None })
        }
        _ => Err(Fault::NotAMessage),
    }
}

fn request(
    message: &Map<String, Value>,
    id: Option<Value>,
    method: &str,
) -> Result<Message, Fault> {
    // Every notification of MCP is named so. A request without `id` would have its effect and no
    // answer; a server may also take it for one that needs no care.
    if id.is_none() != method.starts_with("notifications/") {
        return Err(Fault::NotificationMismatch);
    }
    let empty = Map::new();
    let params = object(message, "params")?.unwrap_or(&empty);
    refuse_variants(params, PARAMS)?;
    let meta = object(params, "_meta")?.unwrap_or(&empty);
    refuse_variants(meta, &[PROTOCOL_VERSION])?;
    let text = |map, name| json::string(map, name).map_err(|_| Fault::Params);
    let name = match name_member(method) {
        Some(member) => Some(text(params, member)?.ok_or(Fault::MissingName)?.to_owned()),
        None => None,
    };
    let protocol_version = text(meta, PROTOCOL_VERSION)?.map(str::to_owned);
    Ok(Message { id, method: Some(method.to_owned()), name, protocol_version })
}

/// MCP, Requests: "The ID MUST be a string or integer", "MUST NOT be `null`".
fn checked_id(id: &Value) -> Result<Value, Fault> {
    let sound = match id {
        Value::String(text) => text.len() <= MAX_ID,
        Value::Number(number) => number.is_i64() || number.is_u64(),
        _ => false,
    };
    if sound { Ok(id.clone()) } else { Err(Fault::Id) }
}

fn object<'a>(
    map: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, Fault> {
    match map.get(name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Fault::Params),
    }
}

/// Some JSON libraries take `Method` for `method`, and the last of the two wins. What they would
/// read must be what was decided on, so such names are refused, with the real one there or not.
fn refuse_variants(map: &Map<String, Value>, known: &[&str]) -> Result<(), Fault> {
    let folded = |text: &str, known: &str| text.chars().map(fold).eq(known.chars().map(fold));
    let is_variant = |name: &String| known.iter().any(|known| name != known && folded(name, known));
    if map.keys().any(is_variant) { Err(Fault::CaseVariant) } else { Ok(()) }
}

/// `letter` in lower case; also the four outside ASCII that are an ASCII letter in another case.
fn fold(letter: char) -> char {
    match letter {
        '\u{130}' | '\u{131}' => 'i',
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => letter.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_tool_call_is_read_with_its_name_and_version() {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "search", "arguments": { "Name": [{ "name": 1 }] },
            "_meta": { PROTOCOL_VERSION: "2026-07-28" },
        }});

        let message = read(body.to_string().as_bytes()).unwrap();

        assert_eq!(message.id, Some(json!(1)));
        assert_eq!(message.method.as_deref(), Some("tools/call"));
        assert_eq!(message.name.as_deref(), Some("search"));
        assert_eq!(message.protocol_version.as_deref(), Some("2026-07-28"));
    }

    #[test]
    fn what_a_method_acts_on_is_under_its_own_member() {
        for (method, params, name) in [
            ("prompts/get", r#"{"name":"p"}"#, Some("p")),
            ("resources/read", r#"{"uri":"file:///a/../b","name":"x"}"#, Some("file:///a/../b")),
            ("resources/subscribe", r#"{"uri":"u"}"#, Some("u")),
            ("tasks/cancel", r#"{"taskId":"t"}"#, Some("t")),
            ("tools/list", r#"{"name":"x"}"#, None),
        ] {
            let body =
                format!(r#"{{"jsonrpc":"2.0","id":"a","method":"{method}","params":{params}}}"#);
            assert_eq!(read(body.as_bytes()).unwrap().name.as_deref(), name, "{method}");
        }
    }

    #[test]
    fn notifications_and_responses_are_read() {
        let notification =
            read(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).unwrap();
        let result = read(br#"{"jsonrpc":"2.0","id":7,"result":{"method":"x"}}"#).unwrap();
        let error = read(br#"{"jsonrpc":"2.0","id":"7","error":{"code":-1}}"#).unwrap();

        assert_eq!(notification.id, None);
        assert_eq!((result.id, result.method), (Some(json!(7)), None));
        assert_eq!(error.method, None);
    }

    /// What follows `{"jsonrpc":"2.0",`.
    #[test]
    fn a_message_that_is_not_quite_one_is_refused() {
        let long_id = format!(r#""id":"{}","method":"ping"}}"#, "x".repeat(257));
        for (rest, fault) in [
            (r#""id":1}"#, Fault::NotAMessage),
            (r#""id":1,"method":7}"#, Fault::NotAMessage),
            (r#""id":1,"method":"ping","result":{}}"#, Fault::NotAMessage),
            (r#""id":1,"result":{},"error":{}}"#, Fault::NotAMessage),
            (r#""id":1,"result":{},"params":{}}"#, Fault::NotAMessage),
            (r#""result":{}}"#, Fault::NotAMessage),
            (r#""jsonrpc":"2.0","id":1,"method":"ping"}"#, Fault::NotJson),
            (r#""id":1,"method":"ping","m\u0065thod":"x"}"#, Fault::NotJson),
            (r#""id":1,"method":"ping","params":{"a":1e999}}"#, Fault::NotJson),
            (r#""id":1,"method":"ping"}{}"#, Fault::NotJson),
            (r#""id":null,"method":"ping"}"#, Fault::Id),
            (r#""id":1.0,"method":"ping"}"#, Fault::Id),
            (r#""id":1e30,"method":"ping"}"#, Fault::Id),
            (r#""id":{},"method":"ping"}"#, Fault::Id),
            (&long_id, Fault::Id),
            (r#""method":"tools/call","params":{"name":"x"}}"#, Fault::NotificationMismatch),
            (r#""method":"ping"}"#, Fault::NotificationMismatch),
            (r#""id":1,"method":"notifications/x"}"#, Fault::NotificationMismatch),
            (r#""id":1,"method":"ping","params":[]}"#, Fault::Params),
            (r#""id":1,"method":"ping","params":null}"#, Fault::Params),
            (r#""id":1,"method":"ping","params":{"_meta":"x"}}"#, Fault::Params),
            (r#""id":1,"method":"tools/call","params":{"name":["x"]}}"#, Fault::Params),
            (r#""id":1,"method":"tools/call","params":{"uri":"x"}}"#, Fault::MissingName),
            (r#""id":1,"method":"tools/call"}"#, Fault::MissingName),
            (r#""id":1,"method":"resources/read","params":{"name":"x"}}"#, Fault::MissingName),
        ] {
            let body = format!(r#"{{"jsonrpc":"2.0",{rest}"#);
            assert_eq!(read(body.as_bytes()), Err(fault), "{rest}");
        }
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cases: &[(&[u8], Fault)] = &[
            (b"", Fault::NotJson),
            (b"null", Fault::NotJson),
            (b"\xef\xbb\xbf{}", Fault::NotJson),
            (b"{\"a\":\"\xff\"}", Fault::NotJson),
            (&utf16, Fault::NotJson),
            (b"[]", Fault::Batch),
            (b" [{}]", Fault::Batch),
            (b"{}", Fault::NotAMessage),
            (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Fault::NotAMessage),
            (br#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, Fault::NotAMessage),
        ];

        for (body, fault) in cases {
            assert_eq!(read(body), Err(*fault), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn names_that_are_known_ones_in_another_case_are_refused() {
        for member in [
            r#""Method":"tools/call""#,
            r#""METHOD":1"#,
            r#""Id":2"#,
            r#""ıd":2"#,
            r#""paramſ":{}"#,
            r#""params":{"Name":"x"}"#,
            r#""params":{"\u004eame":"x"}"#,
            r#""params":{"taſKId":"x"}"#,
            r#""params":{"_Meta":{}}"#,
            r#""params":{"requeststate":""}"#,
            r#""params":{"_meta":{"io.modelcontextprotocol/protocolversion":"x"}}"#,
        ] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping",{member}}}"#);
            assert_eq!(read(body.as_bytes()), Err(Fault::CaseVariant), "{member}");
        }
    }
}
