//! Single use across a whole fleet: a Redis that every proxy reaches over HTTP.
//!
//! One command decides: `SET key 1 NX PX milliseconds`. Whoever sets is first. No answer is no
//! permission.

use crate::digest::{Key, base64url};
use crate::http::{Answer, Callout};
pub use crate::redis::{Front, Redis as ReplayStore};
use crate::replay::Spend;

impl ReplayStore {
    /// Asks to be the first under `key`, to be remembered for `life` seconds.
    pub fn request(&self, key: &Key, life: u64) -> Callout {
        let name = format!("jagway:{}", base64url(key));
        let life = life.saturating_mul(1000).to_string();
        self.command(&["SET", &name, "1", "NX", "PX", &life])
    }

    /// Reads the answer to [`ReplayStore::request`]. `None`: nobody knows.
    pub fn response(&self, answer: &Answer) -> Option<Spend> {
        Some(if self.was_set(answer)? { Spend::First } else { Spend::Again })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Headers, Url};
    use crate::secret::Secret;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn webdis() -> ReplayStore {
        ReplayStore {
            path: String::new(),
            cluster: "redis".into(),
            timeout: 200,
            front: Front::Webdis(None),
        }
    }

    fn rest() -> ReplayStore {
        let url = Url::parse("https://redis.example/").unwrap();
        ReplayStore { front: Front::Rest(url, Secret::new("token")), ..webdis() }
    }

    #[test]
    fn one_command_sets_if_absent_and_ends_by_itself() {
        let callout = webdis().request(&[7; 32], 300);
        let name = format!("jagway:{}", base64url(&[7; 32]));

        assert_eq!(callout.body.expose(), format!("SET/{name}/1/NX/PX/300000"));
        assert_eq!((callout.method, callout.path.as_str(), callout.timeout), ("POST", "/", 200));
        let callout = rest().request(&[7; 32], 300);
        let body = format!("[\"SET\",\"{name}\",\"1\",\"NX\",\"PX\",\"300000\"]");
        assert_eq!(callout.body.expose(), body);
        let authorization = callout.headers.iter().find(|(name, _)| *name == "authorization");
        assert_eq!(authorization.unwrap().1.expose(), "Bearer token");
    }

    #[test]
    fn only_a_plain_yes_is_a_yes() {
        let read = |store: &ReplayStore, status, body: &str| {
            let body = body.as_bytes().to_vec();
            store.response(&Answer { status, headers: Headers::default(), body })
        };

        assert_eq!(read(&webdis(), 200, r#"{"SET":[true,"OK"]}"#), Some(Spend::First));
        assert_eq!(read(&webdis(), 200, r#"{"SET":null}"#), Some(Spend::Again));
        assert_eq!(read(&rest(), 200, r#"{"result":"OK"}"#), Some(Spend::First));
        assert_eq!(read(&rest(), 200, r#"{"result":null}"#), Some(Spend::Again));
        for (status, body) in [
            (500, r#"{"SET":[true,"OK"]}"#),
            (403, ""),
            (200, ""),
            (200, "{}"),
            (200, "null"),
            (200, r#"{"SET":[false,"ERR"]}"#),
            (200, r#"{"SET":true}"#),
            (200, r#"{"SET":"OK"}"#),
            (200, r#"{"result":true}"#),
            (200, r#"{"error":"no"}"#),
            (200, r#"{"GET":null}"#),
        ] {
            assert_eq!(read(&webdis(), status, body), None, "{body}");
            assert_eq!(read(&rest(), status, body), None, "{body}");
        }
    }
}
