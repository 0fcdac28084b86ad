//! A call to an MCP server that is accepted for: what its message says, whose session it is, and which
//! scope it needs. Only where the operator asks for it (`accept.mcp`): else bodies are not looked at.

use crate::access_token::AccessToken;
use crate::config::Mcp;
use crate::error::Error;
use crate::http::Request;
use crate::mcp::{self, Fault, Message, Revision, VERSION_HEADER, missing};
use crate::reply::Surface;
use crate::session::{Holder, OwnedHolder, Sessions};

/// The header that carries a session of MCP 2025.
pub const SESSION_HEADER: &str = "mcp-session-id";
/// The version of requests that name none: it had no header for it.
const UNNAMED_VERSION: &str = "2025-03-26";

/// What a call that goes on changes in its head and in the head of its answer.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    /// Header fields of the request that do not travel on.
    pub remove: Vec<&'static str>,
    /// The server's own session id, in the place of what the client presented.
    pub session: Option<String>,
    /// To whom a session of the answer is bound; without, the client does not see one, if sessions are
    /// bound at all.
    pub holder: Option<OwnedHolder>,
}

/// Checks what can be seen by the head alone: HTTP method, content type and encoding, protocol version.
///
/// Does *not* check a version that is not named ([`check`] does).
pub fn check_head(mcp: &Mcp, request: &Request) -> Result<Revision, Error> {
    let version = request.headers.text(VERSION_HEADER);
    if version.is_some_and(|version| !accepts(mcp, version)) {
        return Err(unsupported(mcp));
    }
    mcp::check_headers(request.method(), &request.headers).map_err(|fault| match fault {
        Fault::UnsupportedVersion => unsupported(mcp),
        fault => Error::Mcp(fault),
    })
}

/// Checks a whole call in order: its head, the message in `body`, that the headers say the same, the
/// session, the scope of `token`. The id of a request goes into `surface`, so that it can be answered.
///
/// `resource` is the resource identifier, `sessions` what sessions are bound by. Does *not* check the
/// body's size, nor the token beyond its scope.
pub fn check(
    mcp: &Mcp,
    sessions: &Sessions,
    resource: &str,
    token: &AccessToken,
    request: &Request,
    body: &[u8],
    surface: &mut Surface,
) -> Result<Passed, Error> {
    let revision = check_head(mcp, request)?;
    let message = message(request, body)?;
    if let (Surface::Resource { id, .. }, Some(message)) = (surface, &message) {
        // The id of a response is the server's, who alone knows what it answers.
        *id = message.method.as_ref().and(message.id.clone());
    }
    if !request.headers.has(VERSION_HEADER) && !accepts_unnamed(mcp, message.as_ref()) {
        return Err(unsupported(mcp));
    }
    if let Some(message) = &message {
        mcp::agree(revision, &request.headers, message).map_err(Error::Mcp)?;
    }
    let holder = Holder { resource, subject: &token.subject, client_id: &token.client_id };
    let passed = session(mcp, sessions, revision, &holder, request)?;
    if let Some(message) = &message {
        check_scope(mcp, &token.scope, message)?;
    }
    Ok(passed)
}

/// The message of a POST. What comes with another method is looked at by nobody, so nothing may.
fn message(request: &Request, body: &[u8]) -> Result<Option<Message>, Error> {
    match request.method() {
        "POST" => mcp::read(body).map(Some).map_err(Error::Mcp),
        _ if body.is_empty() => Ok(None),
        _ => Err(Error::Mcp(Fault::BodyNotTaken)),
    }
}

fn unsupported(mcp: &Mcp) -> Error {
    Error::ProtocolVersion(mcp.revisions.clone())
}

fn accepts(mcp: &Mcp, version: &str) -> bool {
    mcp.revisions.iter().any(|accepted| accepted == version)
}

/// MCP 2025-11-25, Protocol Version Header: without one a "server SHOULD assume protocol version
/// `2025-03-26`". `initialize` has none yet: what follows it names the version agreed on.
fn accepts_unnamed(mcp: &Mcp, message: Option<&Message>) -> bool {
    let begins = message.is_some_and(|message| message.method.as_deref() == Some("initialize"));
    let has_sessions = |version: &String| Revision::of(version) == Some(Revision::Sessions);
    accepts(mcp, UNNAMED_VERSION) || begins && mcp.revisions.iter().any(has_sessions)
}

/// MCP 2025-11-25, Session Management; Security Best Practices, Session Hijacking.
fn session(
    mcp: &Mcp,
    sessions: &Sessions,
    revision: Revision,
    holder: &Holder<'_>,
    request: &Request,
) -> Result<Passed, Error> {
    let mut passed = Passed::default();
    if revision == Revision::Sessions {
        // They mean nothing there and were not compared with the body: nobody shall go by them.
        passed.remove.extend(["mcp-method", "mcp-name"]);
    }
    if !mcp.bind_sessions {
        return Ok(passed);
    }
    passed.remove.push(SESSION_HEADER);
    if revision == Revision::Sessions {
        passed.holder = Some(holder.to_owned());
        if request.headers.has(SESSION_HEADER) {
            let presented = request.headers.sole(SESSION_HEADER);
            let presented = presented.ok_or(Error::Mcp(Fault::HeaderMismatch))?;
            let id = sessions.unbind(presented, holder);
            passed.session = Some(id.ok_or(Error::Mcp(Fault::SessionUnknown))?);
        }
    }
    Ok(passed)
}

/// A response answers what the server asked: it is no operation, and needs nothing.
fn check_scope(mcp: &Mcp, granted: &str, message: &Message) -> Result<(), Error> {
    if mcp.deny_unlisted && message.method.is_some() && !mcp.scopes.lists(message) {
        return Err(Error::Mcp(Fault::NotOffered));
    }
    let needed = mcp.scopes.needed(message);
    if !missing(granted, &needed).is_empty() {
        return Err(Error::InsufficientScope(needed.join(" ")));
    }
    Ok(())
}
