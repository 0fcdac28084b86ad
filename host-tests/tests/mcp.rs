//! `accept.mcp` through the real Envoy: messages are read as they travel on, sessions are their
//! holders', operations need their scope.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::mcp_client::McpError;
use host_tests::upstream::Upstream;
use host_tests::{Options, World, raw};
use serde_json::{Value, json};
use support::*;

/// Options with this `accept.mcp`.
fn options(mcp: Value) -> Options {
    let patch = Box::new(move |config: &mut Value| {
        config["resources"][0]["accept"]["mcp"] = mcp;
    });
    Options { patch_ingress: Some(patch), ..Options::default() }
}

/// An access token for this user with this scope.
async fn token(world: &World, user: &str, scope: &str) -> String {
    let id_jag = id_jag(world, |_, claims| {
        claims["sub"] = json!(user);
        claims["scope"] = json!(scope);
    });
    world.redeem_at_jagway(&id_jag).await.token().to_owned()
}

async fn send(
    world: &World,
    method: &str,
    token: &str,
    headers: &[(&str, &[u8])],
    body: &[u8],
) -> raw::RawAnswer {
    let bearer = format!("Bearer {token}");
    let own = [
        ("authorization", bearer.as_bytes()),
        ("accept", &b"application/json, text/event-stream"[..]),
    ];
    let all: Vec<_> = own.iter().chain(headers).copied().collect();
    let origin = world.accept_issuer();
    raw::send(&origin, &raw::request(method, &origin, b"/mcp", &all, body)).await
}

const JSON: (&str, &[u8]) = ("content-type", b"application/json");
const V25: (&str, &[u8]) = ("mcp-protocol-version", b"2025-06-18");
const V26: (&str, &[u8]) = ("mcp-protocol-version", b"2026-07-28");

#[tokio::test]
async fn a_client_works_in_a_session_that_is_nobody_elses() {
    let mcp = json!({ "unlisted": "deny", "scopes": [
        { "method": "initialize" },
        { "method": "notifications/initialized" },
        { "method": "tools/list" },
        { "method": "tools/call", "scopes": ["stock.read"] },
        { "method": "tools/call", "name": "echo", "scopes": ["stock.write"] },
    ]});
    let world = World::start(options(mcp)).await;
    let alice = token(&world, "alice", "stock.read").await;
    let bob = token(&world, "bob", "stock.read stock.write").await;
    let mut client = world.client_with_access_token(&alice);

    client.initialize().await.unwrap();
    let tools = client.tools().await.unwrap();
    let stock = client.call("stock_list", json!({})).await.unwrap();
    let before = world.warehouse.recorder.count();
    let scope = client.call("echo", json!({ "text": "x" })).await.unwrap_err();
    let method = client.request("prompts/list", json!({})).await.unwrap_err();

    assert!(tools.contains(&"stock_list".to_owned()));
    assert_eq!(stock["kettles"], 12);
    let McpError::Http(scope) = scope else { panic!("{scope:?}") };
    assert_eq!(scope.status, 403);
    let challenge = scope.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("scope=\"stock.read stock.write\""), "{challenge}");
    assert!(challenge.contains("/.well-known/oauth-protected-resource/mcp\""), "{challenge}");
    let McpError::Http(method) = method else { panic!("{method:?}") };
    assert_eq!(method.status, 403);
    assert!(method.body.contains("-32601"), "{}", method.body);
    assert_eq!(world.warehouse.recorder.count(), before);

    // The server knows the session by its own name, the client by another.
    let own = world.warehouse.recorder.requests().pop().unwrap();
    let own = own.header("mcp-session-id").join(",");
    let opened = send(&world, "POST", &alice, &[JSON], &initialize()).await;
    let bound = opened.header("mcp-session-id").join(",");
    assert!(!own.is_empty() && !own.contains('.'), "{own}");
    assert!(bound.contains('.'), "{bound}");
    let before = world.warehouse.recorder.count();
    for (holder, presented) in [(&bob, &bound), (&alice, &own), (&bob, &own)] {
        for (method, body) in [("POST", &list()[..]), ("GET", b""), ("DELETE", b"")] {
            let session = ("mcp-session-id", presented.as_bytes());
            let refused = send(&world, method, holder, &[JSON, V25, session], body).await;
            assert_eq!(refused.status, 404, "{method} {refused:?}");
            assert_eq!(refused.header("content-type"), ["application/json"], "{method}");
        }
    }
    assert_eq!(world.warehouse.recorder.count(), before);
    let session = ("mcp-session-id", bound.as_bytes());
    let ended = send(&world, "DELETE", &alice, &[V25, session], b"").await;
    assert!((200..300).contains(&ended.status), "{ended:?}");
    let ended = send(&world, "POST", &alice, &[JSON, V25, session], &list()).await;
    assert_eq!(ended.status, 404, "the server itself knows it no more");
    assert!(world.envoy.as_ref().unwrap().log().contains("refused [mcp_session_unknown]"));
    assert_vm_never_failed(&world).await;
}

fn initialize() -> Vec<u8> {
    let client = json!({ "name": "x", "version": "0" });
    let params =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    message.to_string().into_bytes()
}

fn list() -> Vec<u8> {
    br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_vec()
}

async fn opened(mcp: Value) -> (World, Upstream, String) {
    let (world, backend) = world_with_backend(options(mcp)).await;
    let token = token(&world, "alice", "stock.read").await;
    (world, backend, token)
}

#[tokio::test]
async fn what_is_not_read_alike_by_everybody_never_reaches_the_backend() {
    let (world, backend, good) = opened(json!({ "max_body": 4096 })).await;
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"a",{meta}}}}}"#
    );
    let large = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x{}"}}"#, "x".repeat(4096));
    let (to_call, name) = (("mcp-method", &b"tools/call"[..]), ("mcp-name", &b"b"[..]));
    let zip = ("content-encoding", &b"gzip"[..]);
    type Row<'a> = (&'a str, &'a [(&'a str, &'a [u8])], &'a [u8], u16, &'a str);
    let cases: [Row; 14] = [
        ("POST", &[JSON], b"", 400, "-32700"),
        ("POST", &[JSON], b"{", 400, "-32700"),
        ("POST", &[JSON], b"[]", 400, "-32600"),
        ("POST", &[JSON], br#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, 400, "-32700"),
        ("POST", &[JSON, zip], &list(), 415, "-32600"),
        ("POST", &[("content-type", b"text/plain")], &list(), 415, "-32600"),
        ("POST", &[JSON], large.as_bytes(), 413, "-32600"),
        ("POST", &[JSON, V26, to_call, name], call.as_bytes(), 400, "-32020"),
        ("POST", &[JSON, V26], &list(), 400, "-32020"),
        ("POST", &[JSON, ("mcp-protocol-version", b"1")], &list(), 400, "-32022"),
        ("GET", &[V26], b"", 405, "-32600"),
        ("PUT", &[JSON], &list(), 405, "-32600"),
        ("GET", &[JSON, V25], &list(), 400, "-32600"),
        ("DELETE", &[JSON, V25], &list(), 400, "-32600"),
    ];

    for (method, headers, body, status, code) in cases {
        let refused = send(&world, method, &good, headers, body).await;
        assert_eq!(refused.status, status, "{method} {refused:?}");
        assert!(refused.body.contains(code), "{method} {refused:?}");
        assert_eq!(refused.header("content-type"), ["application/json"], "{method}");
        assert_eq!(refused.header("cache-control"), ["no-store"], "{method}");
        assert_eq!(!refused.header("allow").is_empty(), status == 405, "{method}");
    }

    assert_eq!(backend.server.bytes_received(), 0);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_message_travels_on_byte_for_byte_however_it_arrives() {
    let (world, backend, good) = opened(json!({})).await;
    let (origin, bearer) = (world.accept_issuer(), format!("Bearer {good}"));
    let message = |size: usize| {
        let text = "\u{e4}\\u00e4 ".repeat(size);
        format!(" {{\"method\" :\n\"ping\",\"params\":{{\"x\":\"{text}\"}},\"id\":10,\"jsonrpc\":\"2.0\"}} ")
            .into_bytes()
    };
    let headers: [(&str, &[u8]); 2] = [("authorization", bearer.as_bytes()), JSON];

    for (size, chunk, trailers) in [(3, 1, ""), (3, 7, "x-end: 1\r\n"), (50_000, 4_096, "")] {
        let body = message(size);
        let bytes = raw::chunked(&origin, b"/mcp", &headers, &body, chunk, trailers);
        let answer = raw::send(&origin, &bytes).await;
        assert_eq!(answer.status, 200, "{size} {chunk} {answer:?}");
        assert_eq!(backend.last().body, body, "{size} {chunk}");
    }
    let over = vec![b' '; 1024 * 1024 + 1];
    let count = backend.count();
    let bytes = raw::chunked(&origin, b"/mcp", &headers, &over, 65_536, "");
    assert_eq!(raw::send(&origin, &bytes).await.status, 413);
    assert_eq!(backend.count(), count);
}

#[tokio::test]
async fn a_session_that_cannot_be_bound_is_no_answer() {
    let (world, backend, good) = opened(json!({})).await;

    backend.answer(200, &[("mcp-session-id", "one"), ("mcp-session-id", "two")]);
    let twice = send(&world, "POST", &good, &[JSON], &initialize()).await;
    backend.answer(200, &[("mcp-session-id", "one")]);
    let once = send(&world, "POST", &good, &[JSON], &initialize()).await;

    assert_eq!((twice.status, once.status), (502, 200));
    assert!(twice.header("mcp-session-id").is_empty(), "{twice:?}");
    let bound = once.header("mcp-session-id").join(",");
    assert!(bound.starts_with("one."), "{once:?}");
    let session = ("mcp-session-id", bound.as_bytes());
    assert_eq!(send(&world, "GET", &good, &[V25, session], b"").await.status, 200);
    assert_eq!(backend.last().header("mcp-session-id"), Some("one"));
}

#[tokio::test]
async fn a_resource_can_ask_for_a_stronger_and_fresher_authentication() {
    let patch = Box::new(|config: &mut Value| {
        config["resources"][0]["accept"]["required_acr"] = json!(["phr"]);
        config["resources"][0]["accept"]["max_auth_age"] = json!(600);
    });
    let options = Options { patch_ingress: Some(patch), ..Options::default() };
    let (world, backend) = world_with_backend(options).await;
    let of = |acr: &'static str, ago: u64| {
        id_jag(&world, |_, claims| {
            claims["acr"] = json!(acr);
            claims["auth_time"] = json!(host_tests::now() - ago);
        })
    };

    for (acr, ago) in [("pwd", 0), ("phr", 3600)] {
        let token = world.redeem_at_jagway(&of(acr, ago)).await.token().to_owned();
        let refused = post_as(&world.accept_url(), &token).await;
        assert_eq!(refused.status, 401, "{acr} {ago}");
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"insufficient_user_authentication\""), "{challenge}");
        assert!(challenge.ends_with("acr_values=\"phr\", max_age=\"600\""), "{challenge}");
    }

    assert_eq!(backend.server.bytes_received(), 0);
    let token = world.redeem_at_jagway(&of("phr", 5)).await.token().to_owned();
    assert_eq!(post_as(&world.accept_url(), &token).await.status, 200);
}
