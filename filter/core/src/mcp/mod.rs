//! What a request to an MCP server says, read strictly enough that the server cannot read it otherwise,
//! and the rules of the Streamable HTTP transport in revisions 2025-03-26 to 2026-07-28.

mod message;
mod scope;
mod transport;

pub use message::{Message, name_member, read};
pub use scope::{ScopeRule, ScopeRules, missing};
pub use transport::{Revision, VERSION_HEADER, VERSIONS, agree, check_headers};

use serde_json::{Value, json};

/// Largest body of a request that is read, in bytes, where the operator sets nothing else.
pub const MAX_BODY: usize = 1024 * 1024;

/// Why a request does not go on to the MCP server. None says anything that the caller sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The body is larger than is read.
    BodyTooLarge,
    /// The content is not declared as JSON in UTF-8.
    ContentType,
    /// The content is encoded.
    ContentEncoding,
    /// Not one of these HTTP methods, the value of `Allow`.
    MethodNotAllowed(&'static str),
    /// The body is not one JSON value that every parser reads alike.
    NotJson,
    /// Several messages in an array, which 2025-06-18 did away with.
    Batch,
    /// The object is no JSON-RPC 2.0 request, notification or response.
    NotAMessage,
    /// A member's name differs from one with a meaning by case only.
    CaseVariant,
    /// `id` is neither a string nor an integer, or is too long.
    Id,
    /// A request without `id`, or a notification with one.
    NotificationMismatch,
    /// A response, which 2026-07-28 has no use for.
    ResponseNotTaken,
    /// `params` or `_meta` is not what the method takes.
    Params,
    /// The method acts on something, and the message does not say on what.
    MissingName,
    /// Header and body do not say the same, or a required header is absent, malformed or repeated.
    HeaderMismatch,
    /// A protocol version that is not known.
    UnsupportedVersion,
    /// The session is not known, or not this caller's: there is no telling which.
    SessionUnknown,
    /// A body with a GET or DELETE, which nobody would look at.
    BodyNotTaken,
    /// An operation that the operator does not offer.
    NotOffered,
}

impl Fault {
    /// The HTTP status of the answer.
    pub fn status(self) -> u16 {
        match self {
            // Not 404, which would tell a client of 2025 that its session has ended.
            Self::NotOffered => 403,
            Self::SessionUnknown => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::BodyTooLarge => 413,
            Self::ContentType | Self::ContentEncoding => 415,
            _ => 400,
        }
    }

    /// The code of the JSON-RPC error (JSON-RPC 2.0 §5.1; MCP 2026-07-28, Error Codes).
    pub fn json_rpc_code(self) -> i32 {
        match self {
            Self::NotJson => -32700,
            Self::NotOffered => -32601,
            Self::Params | Self::MissingName => -32602,
            Self::HeaderMismatch => -32020,
            Self::UnsupportedVersion => -32022,
            _ => -32600,
        }
    }

    /// The name of this reason for logs; stable.
    pub fn code(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "mcp_body_too_large",
            Self::ContentType => "mcp_content_type",
            Self::ContentEncoding => "mcp_content_encoding",
            Self::MethodNotAllowed(_) => "mcp_method_not_allowed",
            Self::NotJson => "mcp_not_json",
            Self::Batch => "mcp_batch",
            Self::NotAMessage => "mcp_not_a_message",
            Self::CaseVariant => "mcp_case_variant",
            Self::Id => "mcp_id",
            Self::NotificationMismatch => "mcp_notification_mismatch",
            Self::ResponseNotTaken => "mcp_response_not_taken",
            Self::Params => "mcp_params",
            Self::MissingName => "mcp_missing_name",
            Self::HeaderMismatch => "mcp_header_mismatch",
            Self::UnsupportedVersion => "mcp_unsupported_version",
            Self::SessionUnknown => "mcp_session_unknown",
            Self::BodyNotTaken => "mcp_body_not_taken",
            Self::NotOffered => "mcp_not_offered",
        }
    }

    /// What the caller reads.
    fn text(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "The body is too large",
            Self::ContentType => "The content must be application/json in UTF-8",
            Self::ContentEncoding => "The content must not be encoded",
            Self::MethodNotAllowed(_) => "The HTTP method is not allowed",
            Self::NotJson => "The body is not one well-formed JSON object",
            Self::Batch => "Batches are not allowed",
            Self::NotAMessage => "The body is not a JSON-RPC 2.0 message",
            Self::CaseVariant => "A member's name differs from a known one by case only",
            Self::Id => "The id must be a short string or an integer",
            Self::NotificationMismatch => "Requests have an id, notifications have none",
            Self::ResponseNotTaken => "Responses are not allowed",
            Self::Params => "The params are not valid",
            Self::MissingName => "The params do not name what the method is for",
            Self::HeaderMismatch => "The headers do not match the body",
            Self::UnsupportedVersion => "The protocol version is not supported",
            Self::SessionUnknown => "The session is not known",
            Self::BodyNotTaken => "A body goes with POST only",
            Self::NotOffered => "This is not offered here",
        }
    }
}

/// The JSON-RPC error for `fault`. `id` is the request's, if it could be read; MCP has no `null`
/// there, so without one the member is absent. `supported` are the versions a client may go on with.
pub fn refusal_body(fault: Fault, supported: &[String], id: Option<&Value>) -> Value {
    let (code, message) = (fault.json_rpc_code(), fault.text());
    let mut body = error_body(code, message, id);
    let error = body.get_mut("error").and_then(Value::as_object_mut);
    if let (Fault::UnsupportedVersion, Some(error)) = (fault, error) {
        error.insert("data".to_owned(), json!({ "supported": supported }));
    }
    body
}

/// A JSON-RPC error (JSON-RPC 2.0 §5.1); `id` as in [`refusal_body`].
pub fn error_body(code: i32, message: &str, id: Option<&Value>) -> Value {
    let error = json!({ "code": code, "message": message });
    match id {
        Some(id) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
        None => json!({ "jsonrpc": "2.0", "error": error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_refusal_echoes_the_id_and_nothing_else() {
        let id = json!("a-7");

        let body = refusal_body(Fault::HeaderMismatch, &[], Some(&id));

        let error = json!({ "code": -32020, "message": "The headers do not match the body" });
        assert_eq!(body, json!({ "jsonrpc": "2.0", "id": "a-7", "error": error }));
        assert_eq!(refusal_body(Fault::NotJson, &[], None).get("id"), None);
    }

    #[test]
    fn a_client_of_another_version_learns_which_there_are() {
        let body = refusal_body(Fault::UnsupportedVersion, &["2026-07-28".to_owned()], None);

        assert_eq!(body["error"]["code"], -32022);
        assert_eq!(body["error"]["data"]["supported"][0], "2026-07-28");
    }
}
