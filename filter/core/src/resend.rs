//! What must be known of a request to send it once more: all of it, and where it arrived.
//!
//! Envoy rewrites host and path after us, and does not show the result before the request is over. So each request
//! that is over tells where the next one for the same URL arrives; before any is, it is taken that the server is
//! called by its resource identifier.

use crate::config::Upgrade;
use crate::digest::{Tagger, hex, of_fields};
use crate::http::Headers;
use crate::store::{self, Store};
use crate::upgrade::Sent;

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
        let (authority, base) = match core::str::from_utf8(&arrived).ok()? {
            // None is over yet: the server's own name for itself is what Envoy will have made of it. Where others
            // are over, by other ways, this one may lead elsewhere.
            "" if !store.get(&anywhere(upgrade)).ok()?.0.is_empty() => return None,
            "" => (upgrade.resource.authority(), upgrade.resource.path()),
            arrived => arrived.split_once(' ')?,
        };
        let authority = match authority {
            AS_IT_WENT => headers.text(":authority")?,
            authority => authority,
        };
        let (path, query) = split(headers.text(":path")?);
        let path = match below(upgrade, path)? {
            "" => format!("{base}{query}"),
            below => format!("{}{below}{query}", base.trim_end_matches('/')),
        };
        let authority = authority.to_owned();
        Some(Self { cluster: route.cluster, authority, path, headers: headers.clone(), body })
    }
}

/// What of `path` lies below the URL of `upgrade`; empty at that URL itself.
fn below<'a>(upgrade: &Upgrade, path: &'a str) -> Option<&'a str> {
    match path == upgrade.url.path() {
        true => Some(""),
        false => path.strip_prefix(upgrade.url.path().trim_end_matches('/')),
    }
}

/// Whether a request for `upgrade` with this head may be sent once more: one whose answer has an end.
/// The answer to a GET for events has none, and would be read to the end before the client sees any of it.
pub fn is_kept(upgrade: &Upgrade, headers: &Headers) -> bool {
    let is_events = |at: &[u8]| at.eq_ignore_ascii_case(b"event-stream");
    let events = |value: &[u8]| value.windows(12).any(is_events);
    let (path, _) = split(headers.text(":path").unwrap_or_default());
    below(upgrade, path).is_some()
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
    // Only what comes for the very URL tells how that is rewritten.
    let (asked, _) = split(went.text(":path").unwrap_or_default());
    let is_whole = !authority.is_empty() && !path.is_empty() && !route.cluster.is_empty();
    if !is_whole || asked != upgrade.url.path() {
        return;
    }
    let authority = if went.text(":authority") == Some(authority) { AS_IT_WENT } else { authority };
    let now = match query == own {
        true => format!("{authority} {path}"),
        false => DIFFERS.to_owned(),
    };
    // What is not remembered is not sent again: no fault.
    let _ = store::update(store, &anywhere(upgrade), |old| (old.is_empty().then(|| vec![1]), ()));
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

/// Where it has whether any request for the URL of `upgrade` is over, whichever way it went.
fn anywhere(upgrade: &Upgrade) -> String {
    format!("jagway/arrived-at-all/{}", hex(&of_fields(&[upgrade.url.as_str().as_bytes()])))
}

/// Fields that no two requests share, and no route goes by.
const NEVER_ALIKE: [&str; 13] = [
    "authorization",
    "dpop",
    "content-length",
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "last-event-id",
];

/// The name of all that Envoy could choose a way by for a request that `went` with this head, for `sent`: to ask Envoy
/// where a request arrived costs more than all else that is done for it, so of those alike only the first is asked for.
pub fn likeness(mut tagger: Tagger, sent: &Sent, went: &Headers) -> u128 {
    tagger.field(&sent.upgrade.way);
    // What it presented is no longer in the head, but a route may have been chosen by it.
    tagger.field(&sent.caller.known.key);
    for (name, value) in went.parts() {
        if !NEVER_ALIKE.iter().any(|never| never.as_bytes() == name) {
            tagger.field(name);
            tagger.field(value);
        }
    }
    tagger.tag()
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
    fn only_a_request_whose_answer_ends_is_kept() {
        let cases: [(&[(&str, &str)], bool); 7] = [
            (&[], true),
            (&[("accept", "application/json, text/event-stream")], true),
            (&[(":method", "GET"), ("accept", "application/json")], true),
            (&[(":method", "GET"), ("accept", "application/json, Text/Event-Stream")], false),
            (&[("upgrade", "websocket")], false),
            (&[(":path", "/mcp/below")], true),
            (&[(":path", "/elsewhere")], false),
        ];

        for (fields, kept) in cases {
            assert_eq!(is_kept(&upgrade(), &head(fields)), kept, "{fields:?}");
        }
    }

    #[test]
    fn a_request_is_sent_again_where_one_like_it_has_arrived_or_else_where_the_resource_says() {
        let store = Memory::default();

        let before = resend(&store, &[], b"");
        let below = resend(&store, &[(":path", "/mcp/x?c=d")], b"");
        arrived(&store, &upgrade(), &head(&[]), &route(), ("vendor.example", "/v1/mcp?a=b"));
        let after = resend(&store, &[(":path", "/mcp?c=d")], b"");

        let after_below = resend(&store, &[(":path", "/mcp/x?c=d")], b"");
        let at = |authority: &str, path: &str| Some((authority.to_owned(), path.to_owned()));
        assert_eq!(before, at("mcp.example", "/mcp?a=b"));
        assert_eq!(below, at("mcp.example", "/mcp/x?c=d"));
        assert_eq!(after, at("vendor.example", "/v1/mcp?c=d"));
        assert_eq!(after_below, at("vendor.example", "/v1/mcp/x?c=d"));
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
