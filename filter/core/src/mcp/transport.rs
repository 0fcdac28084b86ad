//! Streamable HTTP (MCP, Transports): what a request's headers must be, and must say of its body.

use super::{Fault, Message};
use crate::http::Headers;
use crate::names;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Versions of the protocol that are known, newest first.
pub const VERSIONS: [&str; 4] = [STATELESS, "2025-11-25", "2025-06-18", "2025-03-26"];
/// The version that did away with sessions.
const STATELESS: &str = "2026-07-28";

/// The header with the version of the protocol.
pub const VERSION_HEADER: &str = "mcp-protocol-version";
const METHOD_HEADER: &str = "mcp-method";
const NAME_HEADER: &str = "mcp-name";
/// Fields that are decided on: a server that takes `_` for `-` must not find a second of them.
const DECIDING: [&str; 6] = [
    "content-encoding",
    "content-type",
    METHOD_HEADER,
    NAME_HEADER,
    VERSION_HEADER,
    "mcp-session-id",
];

/// How the transport works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// 2025-03-26 to 2025-11-25: sessions, GET for a stream, DELETE to end a session.
    Sessions,
    /// 2026-07-28: every request stands alone, and headers repeat what the body says.
    Stateless,
}

impl Revision {
    /// The revision of `version`, one of [`VERSIONS`].
    pub fn of(version: &str) -> Option<Self> {
        match VERSIONS.iter().find(|known| **known == version)? {
            &STATELESS => Some(Self::Stateless),
            _ => Some(Self::Sessions),
        }
    }
}

/// The revision that a request with these headers is to be judged by.
///
/// Without `MCP-Protocol-Version` it is [`Revision::Sessions`]: 2025-03-26 had no such header, and
/// `initialize` comes without. Checked besides: that `http_method` is one the revision has, and that a
/// POST's content is JSON in UTF-8, not encoded. Not checked: `Accept`, `Origin`, `Last-Event-ID`,
/// the session ([`crate::session`]), and that a GET or DELETE has no body.
pub fn check_headers(http_method: &str, headers: &Headers) -> Result<Revision, Fault> {
    let is_twin =
        |name: &str| name.contains('_') && DECIDING.contains(&name.replace('_', "-").as_str());
    if headers.names().any(is_twin) {
        return Err(Fault::HeaderMismatch);
    }
    let revision = revision(headers)?;
    let allowed = match revision {
        Revision::Sessions => "POST, GET, DELETE",
        Revision::Stateless => "POST",
    };
    if !allowed.split(", ").any(|method| method == http_method) {
        return Err(Fault::MethodNotAllowed(allowed));
    }
    if http_method == "POST" {
        check_content(headers)?;
    }
    Ok(revision)
}

fn revision(headers: &Headers) -> Result<Revision, Fault> {
    if !headers.has(VERSION_HEADER) {
        return Ok(Revision::Sessions);
    }
    let version = headers.sole(VERSION_HEADER).ok_or(Fault::HeaderMismatch)?;
    let version = core::str::from_utf8(version).unwrap_or_default();
    Revision::of(version).ok_or(Fault::UnsupportedVersion)
}

/// A body that we read otherwise than the server does is one that we have not read.
fn check_content(headers: &Headers) -> Result<(), Fault> {
    let content_type = headers.text("content-type").ok_or(Fault::ContentType)?;
    let (media_type, parameter) = match content_type.split_once(';') {
        Some((media_type, parameter)) => (media_type, Some(parameter.trim())),
        None => (content_type, None),
    };
    // RFC 9110 §8.3.1: any case, and quotes around the value make no difference.
    let utf8 = ["charset=utf-8", "charset=\"utf-8\""];
    let plain = parameter
        .is_none_or(|parameter| utf8.iter().any(|utf8| parameter.eq_ignore_ascii_case(utf8)));
    if !media_type.trim().eq_ignore_ascii_case(names::JSON) || !plain {
        return Err(Fault::ContentType);
    }
    let mut encodings = headers.all("content-encoding");
    if encodings.any(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(Fault::ContentEncoding);
    }
    Ok(())
}

/// Whether the headers say the same of a POST as its body does (MCP 2026-07-28, Server Validation).
///
/// A version in `_meta` must be the header's, in either revision: a server that goes by the body must
/// not follow other rules than we. In [`Revision::Stateless`] a request must have it, `Mcp-Method`,
/// and, to call a tool, get a prompt or read a resource, `Mcp-Name`; whatever is repeated must be
/// equal, byte for byte. A notification need not repeat anything: "header requirements for notification
/// POSTs are not defined". In [`Revision::Sessions`] the two headers mean nothing and are not looked
/// at. `Mcp-Param-*` is not checked: which argument each repeats is known to the server alone.
pub fn agree(revision: Revision, headers: &Headers, message: &Message) -> Result<(), Fault> {
    let version = message.protocol_version.as_deref();
    if version.is_some() && version != headers.text(VERSION_HEADER) {
        return Err(Fault::HeaderMismatch);
    }
    if revision == Revision::Sessions {
        return Ok(());
    }
    let method = message.method.as_deref().ok_or(Fault::ResponseNotTaken)?;
    let is_request = message.id.is_some();
    let is_named = matches!(method, "tools/call" | "prompts/get" | "resources/read");
    let method_agrees = match headers.sole(METHOD_HEADER) {
        Some(header) => header == method.as_bytes(),
        None => !is_request && !headers.has(METHOD_HEADER),
    };
    let name_agrees = match headers.sole(NAME_HEADER) {
        Some(header) => decode(header)
            .is_some_and(|name| message.name.as_ref().is_some_and(|own| own.as_bytes() == name)),
        None => !is_named && !headers.has(NAME_HEADER),
    };
    let version_agrees = version.is_some() || !is_request;
    if method_agrees && name_agrees && version_agrees { Ok(()) } else { Err(Fault::HeaderMismatch) }
}

/// The value that `header` carries, plain or as `=?base64?...?=` (MCP 2026-07-28, Value Encoding).
/// `None` if it has bytes that no plain value has, or is not strict base64.
fn decode(header: &[u8]) -> Option<Vec<u8>> {
    let encoded = header.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?="));
    if let Some(encoded) = encoded {
        return STANDARD.decode(encoded).ok();
    }
    let plain = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
    header.iter().all(plain).then(|| header.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::read;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let field = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        Headers::new(fields.iter().map(field).collect())
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const NEW: (&str, &str) = (VERSION_HEADER, STATELESS);

    #[test]
    fn the_version_decides_on_the_revision_and_its_methods() {
        let stateless = Err(Fault::MethodNotAllowed("POST"));
        let sessions = Err(Fault::MethodNotAllowed("POST, GET, DELETE"));
        for (method, version, outcome) in [
            ("POST", None, Ok(Revision::Sessions)),
            ("GET", None, Ok(Revision::Sessions)),
            ("POST", Some("2025-03-26"), Ok(Revision::Sessions)),
            ("DELETE", Some("2025-06-18"), Ok(Revision::Sessions)),
            ("GET", Some("2025-11-25"), Ok(Revision::Sessions)),
            ("PUT", Some("2025-11-25"), sessions),
            ("get", Some("2025-11-25"), sessions),
            ("", None, sessions),
            ("POST", Some("2026-07-28"), Ok(Revision::Stateless)),
            ("GET", Some("2026-07-28"), stateless),
            ("DELETE", Some("2026-07-28"), stateless),
            ("POST", Some("2024-11-05"), Err(Fault::UnsupportedVersion)),
            ("POST", Some("2026-07-28 "), Err(Fault::UnsupportedVersion)),
            ("POST", Some("2025-11-25, 2026-07-28"), Err(Fault::UnsupportedVersion)),
            ("POST", Some(""), Err(Fault::UnsupportedVersion)),
        ] {
            let fields: Vec<_> = version
                .map(|version| (VERSION_HEADER, version))
                .into_iter()
                .chain([JSON])
                .collect();
            assert_eq!(check_headers(method, &headers(&fields)), outcome, "{method} {version:?}");
        }
    }

    #[test]
    fn a_deciding_header_is_there_once_and_in_one_spelling() {
        for fields in [
            &[JSON, NEW, NEW][..],
            &[JSON, NEW, (VERSION_HEADER, "2025-06-18")],
            &[JSON, NEW, ("mcp_name", "x")],
            &[JSON, ("mcp_session_id", "x")],
            &[JSON, ("content-type", "application/json"), ("mcp-session_id", "x")],
        ] {
            let headers = headers(fields);
            assert_eq!(check_headers("POST", &headers), Err(Fault::HeaderMismatch), "{headers:?}");
        }
    }

    #[test]
    fn only_plain_json_is_taken() {
        for (content_type, encoding, outcome) in [
            ("application/json", None, Ok(Revision::Sessions)),
            ("Application/JSON; charset=UTF-8", Some("identity"), Ok(Revision::Sessions)),
            ("application/json;charset=\"utf-8\"", None, Ok(Revision::Sessions)),
            ("application/json; charset=utf-16", None, Err(Fault::ContentType)),
            ("application/json; charset=utf-8; charset=utf-16", None, Err(Fault::ContentType)),
            ("application/json; boundary=x", None, Err(Fault::ContentType)),
            ("application/json;", None, Err(Fault::ContentType)),
            ("application/json, text/plain", None, Err(Fault::ContentType)),
            ("application/jsonx", None, Err(Fault::ContentType)),
            ("text/plain", None, Err(Fault::ContentType)),
            ("", None, Err(Fault::ContentType)),
            ("application/json", Some("gzip"), Err(Fault::ContentEncoding)),
            ("application/json", Some("identity, gzip"), Err(Fault::ContentEncoding)),
            ("application/json", Some(""), Err(Fault::ContentEncoding)),
        ] {
            let encoding = encoding.map(|encoding| ("content-encoding", encoding));
            let fields: Vec<_> =
                [("content-type", content_type)].into_iter().chain(encoding).collect();
            assert_eq!(check_headers("POST", &headers(&fields)), outcome, "{fields:?}");
        }
        assert_eq!(check_headers("POST", &headers(&[JSON, JSON])), Err(Fault::ContentType));
        assert_eq!(check_headers("POST", &headers(&[])), Err(Fault::ContentType));
    }

    /// A request, its `params` without `_meta`.
    fn message(method: &str, params: &str, version: &str) -> Message {
        let meta = format!(r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}"}}"#);
        let params = format!("{{{params}{meta}}}");
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        read(body.as_bytes()).unwrap()
    }

    #[test]
    fn headers_that_repeat_the_body_agree() {
        for (name, header) in [
            ("search", "search"),
            ("two words", "two words"),
            ("search", "=?base64?c2VhcmNo?="),
            ("\u{4e16}", "=?base64?5LiW?="),
            ("=?base64?x?=", "=?base64?PT9iYXNlNjQ/eD89?="),
            ("=?base64?=", "=?base64?="),
            ("", ""),
        ] {
            let message = message("tools/call", &format!("\"name\":\"{name}\","), STATELESS);
            let headers = headers(&[NEW, (METHOD_HEADER, "tools/call"), (NAME_HEADER, header)]);

            assert_eq!(agree(Revision::Stateless, &headers, &message), Ok(()), "{name} {header}");
        }
    }

    #[test]
    fn a_name_that_differs_or_cannot_be_decoded_is_refused() {
        for (name, header) in [
            ("search", "Search"),
            ("search", "delete"),
            ("search", ""),
            ("search", "=?base64?c2VhcmNo"),
            ("search", "=?BASE64?c2VhcmNo?="),
            ("search", "=?base64?c2VhcmNoCg==?="),
            ("a", "=?base64?YQ?="),
            ("a", "=?base64?YR==?="),
            ("a", "=?base64?Y Q==?="),
            ("a", "=?base64?%%%%?="),
            ("\u{4e16}", "\u{4e16}"),
            ("=?base64?YQ==?=", "=?base64?YQ==?="),
        ] {
            let message = message("tools/call", &format!("\"name\":\"{name}\","), STATELESS);
            let headers = headers(&[NEW, (METHOD_HEADER, "tools/call"), (NAME_HEADER, header)]);

            let outcome = agree(Revision::Stateless, &headers, &message);

            assert_eq!(outcome, Err(Fault::HeaderMismatch), "{name} {header}");
        }
    }

    #[test]
    fn headers_are_required_once_where_they_mean_something() {
        let call = message("tools/call", "\"name\":\"a\",", STATELESS);
        let list = message("tools/list", "", STATELESS);
        let old = message("tools/list", "", "2025-11-25");
        let (to_call, to_list) = ((METHOD_HEADER, "tools/call"), (METHOD_HEADER, "tools/list"));
        let name = (NAME_HEADER, "a");

        for (fields, message, agrees) in [
            (&[NEW, to_call, name][..], &call, true),
            (&[NEW, to_call], &call, false),
            (&[NEW, name], &call, false),
            (&[NEW, to_call, to_call, name], &call, false),
            (&[NEW, to_call, name, name], &call, false),
            (&[NEW, to_list, name], &call, false),
            (&[NEW, to_list], &list, true),
            (&[NEW, to_list, name], &list, false),
            (&[NEW], &list, false),
            (&[NEW, to_list], &old, false),
        ] {
            let headers = headers(fields);
            let outcome = agree(Revision::Stateless, &headers, message);
            assert_eq!(outcome.is_ok(), agrees, "{headers:?}");
        }
    }

    #[test]
    fn a_request_says_its_version_in_the_body_and_a_notification_need_not() {
        let request = read(br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).unwrap();
        let notification = read(br#"{"jsonrpc":"2.0","method":"notifications/x"}"#).unwrap();
        let response = read(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap();
        let fields = headers(&[NEW, (METHOD_HEADER, "tools/list")]);
        let judge = |headers: &Headers, message| agree(Revision::Stateless, headers, message);

        assert_eq!(judge(&fields, &request), Err(Fault::HeaderMismatch));
        assert_eq!(judge(&headers(&[NEW]), &notification), Ok(()));
        assert_eq!(judge(&fields, &notification), Err(Fault::HeaderMismatch));
        assert_eq!(judge(&fields, &response), Err(Fault::ResponseNotTaken));
    }

    #[test]
    fn before_2026_mirrored_headers_mean_nothing_but_versions_never_differ() {
        let plain = read(br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).unwrap();
        let new = message("tools/list", "", STATELESS);
        let fields = headers(&[(METHOD_HEADER, "x"), (METHOD_HEADER, "y"), (NAME_HEADER, "z")]);

        assert_eq!(agree(Revision::Sessions, &fields, &plain), Ok(()));
        assert_eq!(agree(Revision::Sessions, &fields, &new), Err(Fault::HeaderMismatch));
    }
}
