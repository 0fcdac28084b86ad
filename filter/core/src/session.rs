//! Sessions of MCP 2025 that only their holder can use, without a memory of them: what the client gets
//! is the server's `Mcp-Session-Id` and a tag over it and whom it was given to.

use crate::digest::{base64url, hmac_sha256};
use subtle::ConstantTimeEq;

/// Longest session id of a server, in bytes.
const MAX_ID: usize = 1024;
/// Bytes of a tag: 128 bits are out of reach for one who can only try them on us.
const TAG: usize = 16;

/// Whom a session belongs to: claims of the access token that opened it.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The resource, `aud`.
    pub resource: &'a str,
    /// The user, `sub`.
    pub subject: &'a str,
    /// The client, `client_id`.
    pub client_id: &'a str,
}

/// A [`Holder`] that outlives the access token.
#[derive(Debug, Clone)]
pub struct OwnedHolder {
    resource: String,
    subject: String,
    client_id: String,
}

impl Holder<'_> {
    /// The same, for later.
    pub fn to_owned(&self) -> OwnedHolder {
        OwnedHolder {
            resource: self.resource.to_owned(),
            subject: self.subject.to_owned(),
            client_id: self.client_id.to_owned(),
        }
    }
}

impl OwnedHolder {
    /// The same, borrowed.
    pub fn as_holder(&self) -> Holder<'_> {
        let Self { resource, subject, client_id } = self;
        Holder { resource, subject, client_id }
    }
}

/// Binds sessions to their holders, and knows them again.
pub struct Sessions {
    keys: Vec<[u8; 32]>,
}

impl Sessions {
    /// The first of `keys` binds; all are good to know sessions by, so keys can be changed while
    /// sessions go on. They must be secret, and the same in all workers. Without keys every session is
    /// refused.
    pub fn new(keys: Vec<[u8; 32]>) -> Self {
        Self { keys }
    }

    /// What the client gets for `id`, the server's `Mcp-Session-Id`.
    ///
    /// `None` if the id is empty, longer than 1024 bytes, or not "visible ASCII characters (ranging
    /// from 0x21 to 0x7E)" (MCP 2025-11-25, Session Management), and if there is no key.
    pub fn bind(&self, id: &[u8], holder: &Holder<'_>) -> Option<String> {
        let id = sound(id)?;
        Some(format!("{id}.{}", tag(self.keys.first()?, id, holder)))
    }

    /// The server's id in `presented`, what a client sent as `Mcp-Session-Id`.
    ///
    /// `None` if it was not bound to this `holder`. The answer is then 404, as for a session that has
    /// ended: the client starts anew, and nobody learns whose it was. Not checked: whether the session
    /// still exists; and it is no authentication, which the access token is.
    pub fn unbind(&self, presented: &[u8], holder: &Holder<'_>) -> Option<String> {
        let dot = presented.iter().rposition(|byte| *byte == b'.')?;
        let (id, found) = presented.split_at_checked(dot)?;
        let id = sound(id)?;
        let is_tag = |key| {
            let expected = format!(".{}", tag(key, id, holder));
            bool::from(expected.as_bytes().ct_eq(found))
        };
        self.keys.iter().any(is_tag).then(|| id.to_owned())
    }
}

/// The tag of `id` for `holder` under `key`, in base64url.
fn tag(key: &[u8; 32], id: &str, holder: &Holder<'_>) -> String {
    let fields = ["mcp-session", holder.resource, holder.subject, holder.client_id, id];
    let whole = hmac_sha256(key, &fields.map(str::as_bytes));
    base64url(&whole.into_iter().take(TAG).collect::<Vec<u8>>())
}

fn sound(id: &[u8]) -> Option<&str> {
    let visible = !id.is_empty() && id.len() <= MAX_ID && id.iter().all(u8::is_ascii_graphic);
    core::str::from_utf8(id).ok().filter(|_| visible)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const ALICE: Holder<'_> =
        Holder { resource: "https://a.example/mcp", subject: "alice", client_id: "agent" };

    #[test]
    fn a_session_is_known_again_to_its_holder() {
        let sessions = Sessions::new(vec![[7; 32]]);

        for id in ["1868a90c-b45f", "a.b.c", "!~", ".", &"x".repeat(1024)] {
            let bound = sessions.bind(id.as_bytes(), &ALICE).unwrap();

            assert_eq!(bound.len(), id.len() + 1 + 22);
            assert_eq!(sessions.unbind(bound.as_bytes(), &ALICE).as_deref(), Some(id));
        }
    }

    #[test]
    fn a_session_of_another_user_client_or_resource_is_not_known() {
        let sessions = Sessions::new(vec![[7; 32]]);
        let bound = sessions.bind(b"1868a90c", &ALICE).unwrap();

        for other in [
            Holder { subject: "bob", ..ALICE },
            Holder { client_id: "agent2", ..ALICE },
            Holder { resource: "https://b.example/mcp", ..ALICE },
            Holder { subject: "alicea", client_id: "gent", ..ALICE },
        ] {
            assert_eq!(sessions.unbind(bound.as_bytes(), &other), None, "{other:?}");
        }
    }

    #[test]
    fn what_was_not_bound_as_it_is_presented_is_not_known() {
        let sessions = Sessions::new(vec![[7; 32]]);
        let bound = sessions.bind(b"1868a90c", &ALICE).unwrap();
        let tag = bound.strip_prefix("1868a90c.").unwrap();
        let shorter = bound.strip_suffix(|_: char| true).unwrap();
        let long = format!("{}.{tag}", "x".repeat(1025));

        for presented in [
            "",
            ".",
            "1868a90c",
            "1868a90c.",
            tag,
            &format!(".{tag}"),
            &format!("1868a90d.{tag}"),
            &format!("1868A90C.{tag}"),
            &format!("1868a90c.x.{tag}"),
            &format!("{bound}="),
            &format!("{bound}.{tag}"),
            &format!(" {bound}"),
            shorter,
            &long,
        ] {
            assert_eq!(sessions.unbind(presented.as_bytes(), &ALICE), None, "{presented}");
        }
    }

    #[test]
    fn an_id_that_is_not_visible_ascii_is_not_bound() {
        let sessions = Sessions::new(vec![[7; 32]]);

        for id in [&b""[..], b"a b", b"a\n", b"\x7f", b"\xff", "\u{e4}".as_bytes(), &[b'x'; 1025]] {
            assert_eq!(sessions.bind(id, &ALICE), None, "{id:?}");
        }
    }

    #[test]
    fn sessions_go_on_while_keys_change() {
        let old = Sessions::new(vec![[1; 32]]);
        let both = Sessions::new(vec![[2; 32], [1; 32]]);
        let new = Sessions::new(vec![[2; 32]]);
        let before = old.bind(b"id", &ALICE).unwrap();
        let after = both.bind(b"id", &ALICE).unwrap();

        assert!(both.unbind(before.as_bytes(), &ALICE).is_some());
        assert!(new.unbind(after.as_bytes(), &ALICE).is_some());
        assert!(new.unbind(before.as_bytes(), &ALICE).is_none());
        assert!(Sessions::new(vec![]).unbind(after.as_bytes(), &ALICE).is_none());
    }
}
