//! Accept through the real Envoy: EMA clients in, the backend's own credential out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::jwks::http_client;
use host_tests::keys::SigningKey;
use host_tests::upstream::Upstream;
use host_tests::{Options, World, now, raw};
use serde_json::{Value, json};
use support::*;

/// A world with a recording backend, and an access token for it.
async fn opened() -> (World, Upstream, String) {
    let (world, backend) = world_with_backend(Options::default()).await;
    let token = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await.token().to_owned();
    (world, backend, token)
}

async fn get(url: &str) -> Answer {
    let response = http_client("test").get(url).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.text().await.unwrap() }
}

#[tokio::test]
async fn a_client_finds_its_way_by_the_documents_alone() {
    let (world, backend) = world_with_backend(Options::default()).await;
    let issuer = world.accept_issuer();

    let refused = post(&world.accept_url(), &[], "{}").await;
    let resource = get(&format!("{issuer}/.well-known/oauth-protected-resource/mcp")).await;
    let server = get(&format!("{issuer}/.well-known/oauth-authorization-server")).await;
    let keys = get(server.json()["jwks_uri"].as_str().unwrap()).await;

    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("www-authenticate").unwrap(),
        format!(
            r#"Bearer realm="mcp", resource_metadata="{issuer}/.well-known/oauth-protected-resource/mcp", scope="stock.read stock.write""#
        )
    );
    assert_eq!(
        resource.json(),
        json!({
            "resource": world.accept_url(),
            "authorization_servers": [issuer],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["stock.read", "stock.write"],
            "resource_name": "Warehouse",
        })
    );
    assert_eq!(
        server.json(),
        json!({
            "issuer": issuer,
            "token_endpoint": world.accept_token_endpoint(),
            "jwks_uri": format!("{issuer}/.well-known/jagway/jwks.json"),
            "grant_types_supported": ["urn:ietf:params:oauth:grant-type:jwt-bearer"],
            "authorization_grant_profiles_supported": ["urn:ietf:params:oauth:grant-profile:id-jag"],
            "token_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported":
                ["ES256", "RS256", "PS256", "EdDSA"],
            "revocation_endpoint": format!("{issuer}/revoke"),
            "revocation_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt"],
            "revocation_endpoint_auth_signing_alg_values_supported":
                ["ES256", "RS256", "PS256", "EdDSA"],
            "scopes_supported": ["stock.read", "stock.write"],
            "authorization_endpoint": format!("{issuer}/authorize"),
            "response_types_supported": ["none"],
        })
    );
    assert_eq!(keys.json(), json!({"keys": [world.jagway_key.jwk()]}));
    for (name, document) in [("resource", &resource), ("server", &server), ("keys", &keys)] {
        assert_eq!(document.status, 200, "{name}");
        assert_eq!(document.header("content-type"), Some("application/json"), "{name}");
        assert_eq!(document.header("access-control-allow-origin"), Some("*"), "{name}");
        assert!(document.header("cache-control").unwrap().starts_with("max-age="), "{name}");
        // ID-JAG §9.4: whom we trust is nobody's business.
        assert!(!document.body.contains(world.idp.issuer()), "{name}");
        assert!(!document.body.contains("claude"), "{name}");
    }
    assert_eq!(backend.server.bytes_received(), 0);
}

#[tokio::test]
async fn every_document_is_for_reading_only_and_stands_at_one_place() {
    let (world, backend) = world_with_backend(Options::default()).await;
    let origin = world.accept_issuer();
    let documents = [
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-authorization-server",
        "/.well-known/jagway/jwks.json",
    ];
    let ask = |method: &'static str, target: &'static str| {
        let origin = origin.clone();
        async move {
            let headers: [(&str, &[u8]); 2] =
                [("origin", b"https://any.example"), ("access-control-request-method", b"GET")];
            raw::send(&origin, &raw::request(method, &origin, target.as_bytes(), &headers, b""))
                .await
        }
    };

    for target in documents {
        let (full, head) = (ask("GET", target).await, ask("HEAD", target).await);
        assert_eq!((full.status, head.status), (200, 200), "{target}");
        assert!(head.body.is_empty(), "{target}");
        let preflight = ask("OPTIONS", target).await;
        assert_eq!(preflight.status, 204, "{target}");
        assert_eq!(preflight.header("access-control-allow-origin"), ["*"], "{target}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let refused = ask(method, target).await;
            assert_eq!(refused.status, 405, "{method} {target}");
            assert_eq!(refused.header("allow"), ["GET, HEAD"], "{method} {target}");
        }
    }
    for target in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/",
        "/.well-known/oauth-protected-resource/other",
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/openid-configuration",
        "/.well-known/",
        "/jwks",
        "/",
        "/MCP",
        "/mcpx",
        "/tokens",
    ] {
        assert_eq!(ask("GET", target).await.status, 404, "{target}");
    }
    let authorize = ask(
        "GET",
        "/authorize?response_type=code&client_id=claude&redirect_uri=http%3A%2F%2Fevil.example",
    )
    .await;
    assert_eq!(authorize.status, 400);
    assert!(authorize.header("location").is_empty());
    assert_eq!(backend.server.bytes_received(), 0);
}

#[tokio::test]
async fn a_head_request_is_told_what_a_get_would_be() {
    let (world, _backend) = world_with_backend(Options::default()).await;
    let origin = world.accept_issuer();
    let target = b"/.well-known/oauth-protected-resource/mcp";

    let full = raw::send(&origin, &raw::request("GET", &origin, target, &[], b"")).await;
    let head = raw::send(&origin, &raw::request("HEAD", &origin, target, &[], b"")).await;

    // RFC 9110 section 9.3.2.
    for name in ["content-type", "cache-control", "access-control-allow-origin"] {
        assert_eq!(full.header(name), head.header(name), "{name}");
    }
    assert!(
        [vec![], full.header("content-length")].contains(&head.header("content-length")),
        "{head:?}"
    );
}

#[tokio::test]
async fn what_is_no_good_access_token_for_this_resource_opens_nothing() {
    let (world, backend, good) = opened().await;
    let token = host_tests::journal::Token::new(host_tests::journal::Kind::AccessToken, &good);
    let (header, claims) = (token.header.unwrap(), token.claims.unwrap());
    let signed = |change: &dyn Fn(&mut Value, &mut Value)| {
        let (mut header, mut claims) = (header.clone(), claims.clone());
        change(&mut header, &mut claims);
        format!("Bearer {}", world.jagway_key.sign(&header, &claims))
    };
    let claim = |name: &str, value: Value| signed(&|_, claims| claims[name] = value.clone());
    let spoiled = |at: usize| {
        let mut parts: Vec<String> = good.split('.').map(Into::into).collect();
        parts[at] =
            if at == 2 { parts[2].chars().rev().collect() } else { format!("{}A", parts[at]) };
        format!("Bearer {}", parts.join("."))
    };
    let forged = SigningKey::es256(world.jagway_key.kid()).sign(&header, &claims);
    let bare = 401;
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("expired", claim("exp", json!(now() - 120)), 401, "invalid_token"),
        ("not yet valid", claim("nbf", json!(now() + 3600)), 401, "invalid_token"),
        (
            "for another resource",
            claim("aud", json!("http://other.example/mcp")),
            401,
            "invalid_token",
        ),
        ("for our issuer", claim("aud", json!(world.accept_issuer())), 401, "invalid_token"),
        ("of another issuer", claim("iss", json!(world.idp.issuer())), 401, "invalid_token"),
        (
            "without exp",
            signed(&|_, claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
            401,
            "invalid_token",
        ),
        ("exp as text", claim("exp", json!("4102444800")), 401, "invalid_token"),
        ("typ JWT", signed(&|header, _| header["typ"] = json!("JWT")), 401, "invalid_token"),
        (
            "no typ",
            signed(&|header, _| drop(header.as_object_mut().unwrap().remove("typ"))),
            401,
            "invalid_token",
        ),
        ("alg none", signed(&|header, _| header["alg"] = json!("none")), 401, "invalid_token"),
        ("alg HS256", signed(&|header, _| header["alg"] = json!("HS256")), 401, "invalid_token"),
        ("unknown kid", signed(&|header, _| header["kid"] = json!("other")), 401, "invalid_token"),
        ("crit", signed(&|header, _| header["crit"] = json!(["x"])), 401, "invalid_token"),
        ("forged", format!("Bearer {forged}"), 401, "invalid_token"),
        ("spoiled header", spoiled(0), 401, "invalid_token"),
        ("spoiled claims", spoiled(1), 401, "invalid_token"),
        ("spoiled signature", spoiled(2), 401, "invalid_token"),
        ("an ID-JAG", format!("Bearer {}", id_jag(&world, |_, _| {})), 401, "invalid_token"),
        ("an ID token", format!("Bearer {}", world.alice.id_token), 401, "invalid_token"),
        ("opaque", "Bearer opaque".into(), 401, "invalid_token"),
        ("dots", "Bearer ..".into(), 401, "invalid_token"),
        ("DPoP", format!("DPoP {good}"), 401, "invalid_token"),
        ("Basic", "Basic Y2xhdWRlOnNlY3JldA==".into(), bare, ""),
        ("Negotiate", "Negotiate abc".into(), bare, ""),
        ("no scheme", good.clone(), 400, "invalid_request"),
        ("Bearer alone", "Bearer".into(), 400, "invalid_request"),
        ("empty", String::new(), 400, "invalid_request"),
        ("two in one", format!("Bearer {good}, Bearer {good}"), 400, "invalid_request"),
        ("joined", format!("Bearer {good},Bearer {good}"), 400, "invalid_request"),
        ("Basic first", format!("Basic abc, Bearer {good}"), bare, ""),
        ("quoted", format!("Bearer \"{good}\""), 400, "invalid_request"),
    ];

    for (name, authorization, status, error) in &cases {
        let answer = post(&world.accept_url(), &[("authorization", authorization)], "{}").await;

        assert_eq!(answer.status, *status, "{name}: {answer:?}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("/.well-known/oauth-protected-resource/mcp\""), "{name}");
        match *error {
            "" => assert!(!challenge.contains("error="), "{name}: {challenge}"),
            error => {
                assert!(challenge.contains(&format!("error=\"{error}\"")), "{name}: {challenge}")
            }
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
    }
    assert_eq!(backend.server.bytes_received(), 0);
    assert_eq!(post_as(&world.accept_url(), &good).await.status, 200);
    let lower =
        post(&world.accept_url(), &[("authorization", &format!("bearer {good}"))], "{}").await;
    assert_eq!(lower.status, 200);
}

#[tokio::test]
async fn browsers_from_elsewhere_tokens_in_the_query_and_two_fields_are_refused() {
    let (world, backend, good) = opened().await;
    let (origin, bearer) = (world.accept_issuer(), format!("Bearer {good}"));
    let token = ("authorization", bearer.as_bytes());
    let query = format!("/mcp?access_token={good}");
    let escaped = format!("/mcp?a=b&%61ccess%5ftoken={good}");
    type Row<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a [u8])], u16);
    let cases: [Row; 13] = [
        ("foreign origin", "POST", "/mcp", &[token, ("origin", b"https://evil.example")], 403),
        ("null origin", "POST", "/mcp", &[token, ("origin", b"null")], 403),
        ("origin with a path", "POST", "/mcp", &[token, ("origin", b"https://evil.example/")], 403),
        ("foreign origin, no token", "POST", "/mcp", &[("origin", b"https://evil.example")], 403),
        (
            "two origins",
            "POST",
            "/mcp",
            &[token, ("origin", origin.as_bytes()), ("origin", b"https://evil.example")],
            403,
        ),
        (
            "foreign preflight",
            "OPTIONS",
            "/mcp",
            &[("origin", b"https://evil.example"), ("access-control-request-method", b"POST")],
            403,
        ),
        (
            "preflight",
            "OPTIONS",
            "/mcp",
            &[("origin", origin.as_bytes()), ("access-control-request-method", b"POST")],
            204,
        ),
        ("OPTIONS that is no preflight", "OPTIONS", "/mcp", &[], 401),
        ("token in the query", "POST", &query, &[], 400),
        ("escaped token in the query", "POST", &escaped, &[], 400),
        ("token in both", "POST", &query, &[token], 400),
        ("two fields", "POST", "/mcp", &[token, token], 400),
        (
            "two fields of two schemes",
            "POST",
            "/mcp",
            &[token, ("authorization", b"Basic abc")],
            400,
        ),
    ];

    for (name, method, target, headers, status) in cases {
        let bytes = raw::request(method, &origin, target.as_bytes(), headers, b"");
        let answer = raw::send(&origin, &bytes).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }

    assert_eq!(backend.server.bytes_received(), 0);
    let own: [(&str, &[u8]); 2] = [token, ("origin", origin.as_bytes())];
    let bytes = raw::request("POST", &origin, b"/mcp?x=y", &own, b"{}");
    assert_eq!(raw::send(&origin, &bytes).await.status, 200);
    assert_eq!(backend.last().target, "/mcp?x=y");
}

#[tokio::test]
async fn every_method_needs_the_token_and_passes_with_it() {
    let (world, backend, good) = opened().await;
    let (origin, bearer) = (world.accept_issuer(), format!("Bearer {good}"));
    let methods = ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD"];

    for method in methods {
        let without = raw::request(method, &origin, b"/mcp", &[], b"");
        assert_eq!(raw::send(&origin, &without).await.status, 401, "{method}");
    }
    assert_eq!(backend.server.bytes_received(), 0);
    for method in methods {
        let with = [("authorization", bearer.as_bytes())];
        let with = raw::request(method, &origin, b"/mcp", &with, b"");
        assert_eq!(raw::send(&origin, &with).await.status, 200, "{method}");
        assert_eq!(backend.last().method, method);
    }
}

#[tokio::test]
async fn paths_that_could_be_read_in_two_ways_never_reach_the_backend() {
    let (world, backend, _) = opened().await;
    let origin = world.accept_issuer();
    let targets = [
        "/mcp/..;/x",
        "/mcp;x=1",
        "/%6dcp",
        "/%6Dcp",
        "/mcp%2f..",
        "/mcp%2F",
        "/mcp%5c..",
        "//mcp",
        "/mcp//",
        "/./mcp",
        "/x/../mcp",
        "/mcp/.",
        "/mcp/..",
        "/MCP",
        "/mcp%00",
        "/mcp%3bx",
        "/mcp%20",
        "/mcp/%2e%2e/x",
        "/mcp/.%2e/x",
        "/mcp\\x",
        "/token/../mcp",
        "/.well-known/../mcp",
        "/.well-known/oauth-protected-resource/mcp/../../../mcp",
        "/mcp#x",
        "/mcp?",
        "mcp",
        "*",
        "http://127.0.0.1/mcp",
        "/mcp/%252e%252e",
        "/authorize/../mcp",
        "/mcp/\u{e9}",
        "/?/mcp",
    ];

    for method in ["GET", "POST", "OPTIONS"] {
        for target in targets {
            let bytes = raw::request(method, &origin, target.as_bytes(), &[], b"");
            let answer = raw::send(&origin, &bytes).await;
            assert!((300..500).contains(&answer.status), "{method} {target}: {answer:?}");
        }
    }

    assert_eq!(backend.server.bytes_received(), 0);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn the_backend_sees_its_own_key_and_nothing_of_the_clients() {
    let (world, backend, good) = opened().await;
    let bearer = format!("Bearer {good}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-api-key", "CLIENTS"),
        ("X-API-Key", "CLIENTS"),
        ("cookie", "CLIENTS"),
        ("dpop", "CLIENTS"),
        ("proxy-authorization", "CLIENTS"),
        ("x-jagway-subject", "CLIENTS"),
        ("x-harmless", "kept"),
    ];

    assert_eq!(post(&world.accept_url(), &headers, "the body").await.status, 200);

    let request = backend.last();
    assert_eq!(request.header("x-api-key"), Some(world.warehouse_key.as_str()));
    assert_eq!(request.header("x-harmless"), Some("kept"));
    assert_eq!(&request.body[..], b"the body");
    let everything = format!("{:?}", request.headers);
    assert!(!everything.contains("CLIENTS") && !everything.contains(&good), "{everything}");
    for name in ["authorization", "cookie", "dpop", "proxy-authorization", "x-jagway-subject"] {
        assert!(!request.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn how_we_prove_ourselves_at_the_backend_is_nobodys_business() {
    let (world, backend, good) = opened().await;
    let headers = [
        ("www-authenticate", "Basic realm=\"backend\""),
        ("set-cookie", "session=1"),
        ("x-harmless", "kept"),
    ];
    let cases = [(401, 502), (200, 200), (403, 403), (404, 404), (500, 500), (302, 302)];

    for (says, told) in cases {
        backend.answer(says, &headers);
        let answer = post_as(&world.accept_url(), &good).await;

        assert_eq!(answer.status, told, "{says}");
        assert_eq!(answer.header("www-authenticate"), None, "{says}");
        assert_eq!(answer.header("set-cookie"), None, "{says}");
        assert_eq!(answer.header("x-harmless"), Some("kept"), "{says}");
    }
}

#[tokio::test]
async fn an_event_stream_arrives_event_by_event_while_it_is_open() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let number = port.local_addr().unwrap().port();
    let patch = Box::new(move |text: String| repointed(text, "warehouse", number));
    let world = World::start(Options { patch_bootstrap: Some(patch), ..Options::default() }).await;
    let token = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await.token().to_owned();
    let origin = world.accept_issuer();

    let mut client = raw::connect(&origin).await;
    let headers = format!("Bearer {token}");
    let bytes =
        raw::request("GET", &origin, b"/mcp", &[("authorization", headers.as_bytes())], b"");
    client.write_all(&bytes).await.unwrap();
    let (mut backend, _) = port.accept().await.unwrap();
    backend
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    for event in ["one", "two", "three"] {
        let data = format!("data: {event}\n\n");
        let chunk = format!("{:x}\r\n{data}\r\n", data.len());
        backend.write_all(chunk.as_bytes()).await.unwrap();
        // The next event is sent only when this one is there: a buffer anywhere would stop us here.
        let mut buffer = [0; 4096];
        while !seen.contains(&data) {
            let read = client.read(&mut buffer);
            let count =
                tokio::time::timeout(std::time::Duration::from_secs(5), read).await.expect(event);
            let count = count.unwrap();
            assert!(count > 0, "closed");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    assert!(seen.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_large_upload_passes_to_the_backend_byte_for_byte() {
    let (world, backend, good) = opened().await;
    let body: Vec<u8> =
        (0..8 * 1024 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let bearer = format!("Bearer {good}");

    let answer = post(&world.accept_url(), &[("authorization", &bearer)], body.clone()).await;

    assert_eq!(answer.status, 200);
    assert_eq!(backend.last().body, body);
}

#[tokio::test]
async fn the_backends_credential_may_be_an_authorization_header() {
    let patch = Box::new(|config: &mut Value| {
        config["resources"][0]["accept"]["credential"]["header"] = json!("Authorization");
    });
    let options = Options { patch_ingress: Some(patch), ..Options::default() };
    let (world, backend) = world_with_backend(options).await;
    let token = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await.token().to_owned();

    let answer = post_as(&world.accept_url(), &token).await;

    assert_eq!(answer.status, 200);
    assert_eq!(backend.last().header("authorization"), Some(world.warehouse_key.as_str()));
}

#[tokio::test]
async fn a_browser_page_that_is_allowed_can_read_what_it_is_told() {
    let patch = Box::new(|config: &mut Value| {
        config["resources"][0]["accept"]["allowed_origins"] = json!(["https://app.example"]);
    });
    let options = Options { patch_ingress: Some(patch), ..Options::default() };
    let (world, _backend) = world_with_backend(options).await;
    let token = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await.token().to_owned();
    let bearer = format!("Bearer {token}");
    let page = ("origin", "https://app.example");

    let refused = post(&world.accept_url(), &[page], "{}").await;
    let served = post(&world.accept_url(), &[page, ("authorization", &bearer)], "{}").await;

    // Without these the preflight that we answered was for nothing.
    assert_eq!((refused.status, served.status), (401, 200));
    for answer in [&refused, &served] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    }
    let exposed = refused.header("access-control-expose-headers").unwrap_or_default();
    assert!(exposed.contains("WWW-Authenticate"), "{exposed}");
}
