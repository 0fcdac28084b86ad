//! What must be known of a request to send it once more: all of it, and where it arrived.
//!
//! Envoy rewrites host and path after us, and does not show the result before the request is over. So each request
//! that is over tells where the next one for the same URL arrives.

use crate::config::Upgrade;
use crate::digest::{hex, of_fields};
use crate::http::Headers;
use crate::store::{self, Store};

/// Largest request body that is kept to be sent once more, in bytes.
pub const MAX_KEPT: usize = 64 * 1024;
/// In the place of an authority: the one that the request went with.
const AS_IT_WENT: &str = "-";
/// In the place of authority and path: not all requests for one URL arrive alike.
const DIFFERS: &str = "?";

/// The way that Envoy chose for a request.
#[derive(Default)]
pub struct Route {
    /// The cluster.
    pub cluster: String,
    /// The name of the route; empty if it has none.
    pub name: String,
}

/// A request that can be sent once more, as it arrived the first time.
#[derive(Default)]
pub struct Resend {
    /// The Envoy cluster that it went to.
    pub(crate) cluster: String,
    /// The authority that it arrived for.
    pub(crate) authority: String,
    /// The path that it arrived for, with its own query.
    pub(crate) path: String,
    /// Its head as it left us.
    pub(crate) headers: Headers,
    /// Its body, all of it.
    pub(crate) body: Vec<u8>,
}

impl Resend {
    /// The request for `upgrade` with the head `headers`, as it left us, and `body`, which went by `route`. `None` if
    /// that is not all of its body, or if we do not know where it arrived.
    pub fn new(
        store: &dyn Store,
        upgrade: &Upgrade,
        route: Route,
        headers: &Headers,
        body: Vec<u8>,
    ) -> Option<Self> {
        let told = headers.has("content-length");
        let length = headers.text("content-length").and_then(|length| length.parse().ok());
        if route.cluster.is_empty() || told && length != Some(body.len()) {
            return None;
        }
        let (arrived, _) = store.get(&place(upgrade, &route)).ok()?;
        let (authority, path) = core::str::from_utf8(&arrived).ok()?.split_once(' ')?;
        let authority = match authority {
            AS_IT_WENT => headers.text(":authority")?,
            authority => authority,
        };
        let (_, query) = split(headers.text(":path")?);
        let (authority, path) = (authority.to_owned(), format!("{path}{query}"));
        Some(Self { cluster: route.cluster, authority, path, headers: headers.clone(), body })
    }
}

/// Whether a request for `upgrade` with this head may be sent once more: one for its very URL, whose answer has an end.
/// The answer to a GET for events has none, and would be read to the end before the client sees any of it.
pub fn is_kept(upgrade: &Upgrade, headers: &Headers) -> bool {
    let events =
        |value: &[u8]| value.to_ascii_lowercase().windows(12).any(|at| at == b"event-stream");
    let (path, _) = split(headers.text(":path").unwrap_or_default());
    path == upgrade.url.path()
        && !headers.has("upgrade")
        && !(headers.text(":method") == Some("GET") && headers.all("accept").any(events))
}

/// Remembers, for all workers, that a request for the URL of `upgrade`, which left us with the head `went`, arrived as
/// one for `path` at `authority`. The route may rewrite both, after us: this is seen only when the request is over.
pub fn arrived(
    store: &dyn Store,
    upgrade: &Upgrade,
    went: &Headers,
    route: &Route,
    (authority, path): (&str, &str),
) {
    let ((path, query), (_, own)) = (split(path), split(went.text(":path").unwrap_or_default()));
    if authority.is_empty() || path.is_empty() || route.cluster.is_empty() {
        return;
    }
    let authority = if went.text(":authority") == Some(authority) { AS_IT_WENT } else { authority };
    let now = match query == own {
        true => format!("{authority} {path}"),
        false => DIFFERS.to_owned(),
    };
    // What is not remembered is not sent again: no fault.
    let _ = store::update(store, &place(upgrade, route), |old| {
        // It goes by more than the URL, such as a tenant's header: who knows where the next one belongs?
        let next = match old {
            b"" => &now,
            old if old == now.as_bytes() || old == DIFFERS.as_bytes() => return (None, ()),
            _ => DIFFERS,
        };
        (Some(next.as_bytes().to_vec()), ())
    });
}

/// Where the shared store has it: as many as there are routes to each resource.
fn place(upgrade: &Upgrade, route: &Route) -> String {
    let names = [upgrade.url.as_str(), &route.cluster, &route.name].map(str::as_bytes);
    let [url, cluster, name] = names;
    format!("jagway/arrived/{}", hex(&of_fields(&[b"arrived", url, cluster, name])))
}

/// A path, and its query with the question mark.
fn split(path: &str) -> (&str, &str) {
    path.split_at(path.find('?').unwrap_or(path.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Kind};
    use crate::store::Memory;
    use std::rc::Rc;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const CONFIG: &str = r#"{
        "identity_providers": { "acme": {
            "issuer": "https://idp.example", "cluster": "idp",
            "client": { "id": "a", "secret": { "env": "A" } }
        } },
        "resources": [{ "resource": "https://mcp.example/mcp", "upgrade": {
            "url": "https://in.example/mcp", "identity_provider": "acme", "scopes": ["a"],
            "authorization_server": {
                "issuer": "https://as.example", "cluster": "as",
                "client": { "id": "a", "secret": { "env": "A" } }
            },
            "callers": [{ "id_token": {} }]
        } }]
    }"#;

    fn upgrade() -> Rc<Upgrade> {
        let config = Config::parse(CONFIG.as_bytes(), &|_| Some("secret".to_owned())).unwrap();
        match &config.resources[0].kind {
            Kind::Upgrade(upgrade) => upgrade.clone(),
            Kind::Accept(_) => panic!("it is upgraded"),
        }
    }

    fn head(fields: &[(&str, &str)]) -> Headers {
        let ours = [(":method", "POST"), (":authority", "in.example"), (":path", "/mcp?a=b")];
        let ours = ours.iter().filter(|(name, _)| fields.iter().all(|(other, _)| other != name));
        let fields = ours.chain(fields);
        Headers::new(
            fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect(),
        )
    }

    fn route() -> Route {
        Route { cluster: "mcp".to_owned(), name: String::new() }
    }

    fn resend(store: &Memory, fields: &[(&str, &str)], body: &[u8]) -> Option<(String, String)> {
        let resend = Resend::new(store, &upgrade(), route(), &head(fields), body.to_vec())?;
        Some((resend.authority, resend.path))
    }

    #[test]
    fn only_a_request_for_the_very_url_whose_answer_ends_is_kept() {
        let cases: [(&[(&str, &str)], bool); 7] = [
            (&[], true),
            (&[("accept", "application/json, text/event-stream")], true),
            (&[(":method", "GET"), ("accept", "application/json")], true),
            (&[(":method", "GET"), ("accept", "application/json, Text/Event-Stream")], false),
            (&[("upgrade", "websocket")], false),
            (&[(":path", "/mcp/below")], false),
            (&[(":path", "/mcp/")], false),
        ];

        for (fields, kept) in cases {
            assert_eq!(is_kept(&upgrade(), &head(fields)), kept, "{fields:?}");
        }
    }

    #[test]
    fn a_request_is_sent_again_only_where_one_like_it_has_arrived() {
        let store = Memory::default();

        let before = resend(&store, &[], b"");
        arrived(&store, &upgrade(), &head(&[]), &route(), ("vendor.example", "/v1/mcp?a=b"));
        let after = resend(&store, &[(":path", "/mcp?c=d")], b"");

        assert_eq!(before, None);
        assert_eq!(after, Some(("vendor.example".to_owned(), "/v1/mcp?c=d".to_owned())));
    }

    #[test]
    fn an_authority_that_no_route_rewrites_stays_the_one_of_each_request() {
        let store = Memory::default();

        for authority in ["in.example", "IN.example:443"] {
            let went = head(&[(":authority", authority)]);
            arrived(&store, &upgrade(), &went, &route(), (authority, "/mcp?a=b"));
        }
        let sent = resend(&store, &[(":authority", "In.example")], b"");

        assert_eq!(sent, Some(("In.example".to_owned(), "/mcp?a=b".to_owned())));
    }

    #[test]
    fn nothing_is_sent_again_where_requests_for_one_url_do_not_arrive_alike() {
        for second in
            [("b.example", "/mcp?a=b"), ("a.example", "/b?a=b"), ("a.example", "/mcp?a=c")]
        {
            let store = Memory::default();

            for at in [("a.example", "/mcp?a=b"), second, ("a.example", "/mcp?a=b")] {
                arrived(&store, &upgrade(), &head(&[]), &route(), at);
            }

            assert_eq!(resend(&store, &[], b""), None, "{second:?}");
        }
    }

    #[test]
    fn a_body_of_another_length_than_was_told_is_not_sent_again() {
        let store = Memory::default();
        arrived(&store, &upgrade(), &head(&[]), &route(), ("in.example", "/mcp?a=b"));
        let told: [(&[(&str, &str)], bool); 6] = [
            (&[], true),
            (&[("content-length", "2")], true),
            (&[("content-length", "1")], false),
            (&[("content-length", "3")], false),
            (&[("content-length", "two")], false),
            (&[("content-length", "2"), ("content-length", "2")], false),
        ];

        for (fields, sent) in told {
            assert_eq!(resend(&store, fields, b"{}").is_some(), sent, "{fields:?}");
        }
    }
}
