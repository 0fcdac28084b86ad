//! Whatever clients and peers send, the filter's VM stays up and answers the next one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::endpoints::Fault;
use host_tests::{Options, World, raw};
use serde_json::{Value, json};
use std::time::Duration;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const FORM: (&str, &[u8]) = ("content-type", b"application/x-www-form-urlencoded");

/// The origins of both listeners.
fn listeners(world: &World) -> [String; 2] {
    [world.upgrade_url().trim_end_matches("/mcp").to_owned(), world.accept_issuer()]
}

/// Envoy with the IdP's cluster leading to a peer of the test's own.
async fn with_idp_at(listener: &TcpListener) -> World {
    let port = listener.local_addr().unwrap().port();
    let patch = Box::new(move |text: String| repointed(text, "idp", port));
    World::start(Options { patch_bootstrap: Some(patch), ..Options::default() }).await
}

async fn redeem(world: &World) -> Answer {
    let basic = basic(&world.claude);
    let id_jag = id_jag(world, |_, _| {});
    let fields = [("grant_type", host_tests::names::GRANT_JWT_BEARER), ("assertion", &id_jag)];
    let headers =
        [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    post(&world.accept_token_endpoint(), &headers, host_tests::oauth_client::form(&fields)).await
}

#[tokio::test]
async fn any_byte_in_any_header_is_survived() {
    let world = World::start(Options::default()).await;
    let basic = basic(&world.claude);
    let names = [
        "authorization",
        "cookie",
        "x-foo",
        "x-api-key",
        "content-type",
        "origin",
        "host",
        "content-encoding",
        "x-jagway-a",
        "dpop",
    ];

    for origin in listeners(&world) {
        for byte in 0x80..=0xff_u8 {
            let value = [b"Bearer a".as_slice(), &[byte], b"b"].concat();
            let mut requests = vec![];
            for name in names {
                requests.push(raw::request("POST", &origin, b"/mcp", &[(name, &value)], b"{}"));
                let headers = [FORM, ("authorization", basic.as_bytes()), (name, &value)];
                requests.push(raw::request("POST", &origin, b"/token", &headers, b"a=b"));
            }
            let path = [b"/mcp/".as_slice(), &[byte]].concat();
            requests.push(raw::request("GET", &origin, &path, &[], b""));
            let query = [b"/mcp?a=".as_slice(), &[byte]].concat();
            requests.push(raw::request("GET", &origin, &query, &[], b""));
            for bytes in requests {
                let answer = raw::send(&origin, &bytes).await;
                assert!(
                    (400..500).contains(&answer.status),
                    "{}: {answer:?}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    assert_alive(&world).await;
}

#[tokio::test]
async fn odd_bytes_beside_a_good_credential_do_no_harm() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    let [egress, _] = listeners(&world);
    let bearer = format!("Bearer {}", world.alice.id_token);

    for byte in 0x80..=0xff_u8 {
        let value = [b"a".as_slice(), &[byte], b"b"].concat();
        let headers =
            [("authorization", bearer.as_bytes()), ("x-foo", value.as_slice()), ("cookie", &value)];
        let bytes = raw::request("POST", &egress, b"/mcp", &headers, b"{}");
        let answer = raw::send(&egress, &bytes).await;
        assert_eq!(answer.status, 200, "{byte:x}: {answer:?}");
        assert_eq!(upstream.last().headers["x-foo"].as_bytes(), value);
    }

    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn malformed_requests_are_survived() {
    let world = World::start(Options::default()).await;
    let many: String = (0..99).map(|n| format!("x-h{n}: {n}\r\n")).collect();
    let too_many: String = (0..2000).map(|n| format!("x-h{n}: {n}\r\n")).collect();
    let cookies: String = (0..60).map(|n| format!("cookie: c{n}=1\r\n")).collect();
    let large = format!("x-large: {}\r\n", "a".repeat(59_000));
    let larger = format!("x-large: {}\r\n", "a".repeat(200_000));
    let long_bearer = format!("authorization: Bearer {}\r\n", "a".repeat(50_000));
    let long_path = format!("GET /mcp/{} HTTP/1.1\r\nhost: HOST\r\n\r\n", "a".repeat(50_000));
    let post = |headers: &str| {
        format!("POST /mcp HTTP/1.1\r\nhost: HOST\r\ncontent-length: 0\r\n{headers}\r\n")
    };
    let cases = [
        ("no host", "GET /mcp HTTP/1.1\r\n\r\n".into()),
        ("HTTP/1.0 without host", "GET /mcp HTTP/1.0\r\n\r\n".into()),
        ("HTTP/0.9", "GET /mcp\r\n\r\n".into()),
        ("two hosts", "GET /mcp HTTP/1.1\r\nhost: HOST\r\nhost: other\r\n\r\n".into()),
        ("empty host", "GET /mcp HTTP/1.1\r\nhost:\r\n\r\n".into()),
        ("a hundred headers", post(&many)),
        ("two thousand headers", post(&too_many)),
        ("many cookies", post(&cookies)),
        ("a large header", post(&large)),
        ("a larger header", post(&larger)),
        ("a long bearer", post(&long_bearer)),
        ("a long path", long_path),
        ("NUL in a header", post("x-a: a\0b\r\n")),
        ("no header name", post(": b\r\n")),
        ("odd header name", post("x y: b\r\n")),
        ("pseudo header", post(":path: /mcp\r\n")),
        ("two lengths", post("content-length: 5\r\n")),
        ("length and chunks", post("transfer-encoding: chunked\r\n")),
        ("unknown coding", post("transfer-encoding: gzip, chunked\r\n")),
        ("CONNECT", "CONNECT HOST HTTP/1.1\r\nhost: HOST\r\n\r\n".into()),
        ("upgrade", "GET /mcp HTTP/1.1\r\nhost: HOST\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".into()),
        ("h2c", "GET /mcp HTTP/1.1\r\nhost: HOST\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n".into()),
        ("TRACE", "TRACE /mcp HTTP/1.1\r\nhost: HOST\r\n\r\n".into()),
        ("unknown method", "BREW /mcp HTTP/1.1\r\nhost: HOST\r\n\r\n".into()),
        ("absolute target", "GET http://other.example/mcp HTTP/1.1\r\nhost: HOST\r\n\r\n".into()),
        ("asterisk", "OPTIONS * HTTP/1.1\r\nhost: HOST\r\n\r\n".into()),
        ("nominated away", "POST /mcp HTTP/1.1\r\nhost: HOST\r\nconnection: authorization, x-api-key\r\nauthorization: Bearer a\r\ncontent-length: 0\r\n\r\n".into()),
        ("bad chunk", "POST /token HTTP/1.1\r\nhost: HOST\r\ncontent-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".into()),
        ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".into()),
    ];

    for origin in listeners(&world) {
        for (name, text) in &cases {
            let text: &String = text;
            let bytes = text.replace("HOST", origin.trim_start_matches("http://"));
            let answer = raw::send(&origin, bytes.as_bytes()).await;
            // 0: Envoy closes without a word where it cannot tell what was asked.
            let refused = answer.status == 0 || (400..500).contains(&answer.status);
            assert!(refused || answer.status == 501, "{name}: {answer:?}");
        }
    }

    assert_eq!(world.tickets.server.bytes_received(), 0);
    assert_eq!(world.warehouse.server.bytes_received(), 0);
    assert_alive(&world).await;
}

#[tokio::test]
async fn a_cluster_that_does_not_exist_is_an_outage() {
    let patch =
        |config: &mut Value| config["identity_providers"]["acme"]["cluster"] = json!("nowhere");
    let options = Options {
        patch_egress: Some(Box::new(patch)),
        patch_ingress: Some(Box::new(patch)),
        ..Options::default()
    };
    let world = World::start(options).await;

    for _ in 0..3 {
        let upgrade = post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await;
        let accept = redeem(&world).await;

        assert_eq!((upgrade.status, accept.status), (503, 503), "{upgrade:?} {accept:?}");
        assert_eq!(accept.header("retry-after").is_some(), upgrade.header("retry-after").is_some());
    }
    assert_vm_never_failed(&world).await;
    assert!(world.envoy.as_ref().unwrap().log().contains("nowhere"));
}

#[tokio::test]
async fn an_idp_that_closes_says_nothing_or_is_not_there_is_an_outage() {
    enum Manner {
        Closes,
        Resets,
        SaysNonsense,
        IsNotThere,
    }
    for (name, manner) in [
        ("closes", Manner::Closes),
        ("resets", Manner::Resets),
        ("says nonsense", Manner::SaysNonsense),
        ("is not there", Manner::IsNotThere),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = with_idp_at(&listener).await;
        let peer = match manner {
            Manner::IsNotThere => {
                drop(listener);
                None
            }
            _ => Some(tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut buffer = [0; 4096];
                    let _ = stream.read(&mut buffer).await;
                    match manner {
                        Manner::SaysNonsense => drop(stream.write_all(b"NONSENSE\r\n\r\n").await),
                        // Closing with unread bytes would reset too, but only by chance.
                        Manner::Resets => drop(stream.set_zero_linger()),
                        _ => {}
                    }
                }
            })),
        };

        let upgrade = post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await;
        let accept = redeem(&world).await;

        assert_eq!((upgrade.status, accept.status), (503, 503), "{name}: {upgrade:?} {accept:?}");
        assert!(upgrade.header("retry-after").is_some() && accept.header("retry-after").is_some());
        assert_alive_but_keyless(&world).await;
        if let Some(peer) = peer {
            peer.abort();
        }
    }
}

/// As [`assert_alive`], where nobody can be served for want of keys.
async fn assert_alive_but_keyless(world: &World) {
    assert_eq!(post(&world.accept_url(), &[], "{}").await.status, 401);
    assert_eq!(post(&world.upgrade_url(), &[], "{}").await.status, 401);
    assert_vm_never_failed(world).await;
}

#[tokio::test]
async fn an_idp_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = with_idp_at(&listener).await;
    let held = tokio::spawn(async move {
        let mut streams = vec![];
        while let Ok((stream, _)) = listener.accept().await {
            streams.push(stream);
        }
    });

    let token = id_token_of(&world, "alice");
    let (url, upgrade_url) = (world.upgrade_url(), world.upgrade_url());
    let (one, other, accept) =
        tokio::join!(post_as(&url, &token), post_as(&upgrade_url, &token), redeem(&world));

    assert_eq!((one.status, other.status, accept.status), (503, 503, 503), "{one:?} {accept:?}");
    assert_alive_but_keyless(&world).await;
    held.abort();
}

#[tokio::test]
async fn an_idp_without_keys_or_with_empty_answers_is_survived() {
    let empty = || Fault::Body(r#"{"keys": []}"#.into());
    for (name, path, fault) in [
        ("empty metadata", "/.well-known/oauth-authorization-server", Fault::Empty),
        ("empty JWKS body", "/jwks", Fault::Empty),
        ("no keys", "/jwks", empty()),
    ] {
        let world = World::start(Options::default()).await;
        world.idp.endpoints().fail(path, fault.clone());
        if path.contains("well-known") {
            world.idp.endpoints().fail("/.well-known/openid-configuration", fault);
        }

        let upgrade = post_as(&world.upgrade_url(), &id_token_of(&world, "alice")).await;
        let accept = redeem(&world).await;

        assert!([401, 502, 503].contains(&upgrade.status), "{name}: {upgrade:?}");
        assert!([400, 503].contains(&accept.status), "{name}: {accept:?}");
        assert_eq!(world.tickets.server.bytes_received(), 0);
        assert_alive_but_keyless(&world).await;
    }
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_are_survived() {
    let world = World::start(Options::default()).await;
    let basic = basic(&world.claude);
    let bearer = format!("Bearer {}", id_token_of(&world, "alice"));
    let [egress, ingress] = listeners(&world);
    let token_request = raw::request(
        "POST",
        &ingress,
        b"/token",
        &[FORM, ("authorization", basic.as_bytes())],
        &[b'a'; 3000],
    );
    let upload = raw::request(
        "POST",
        &egress,
        b"/mcp",
        &[("authorization", bearer.as_bytes())],
        &[b'a'; 3000],
    );

    for (origin, bytes) in [(ingress, token_request), (egress, upload)] {
        for cut in (1..bytes.len()).step_by(37) {
            let mut stream = raw::connect(&origin).await;
            stream.write_all(&bytes[..cut]).await.unwrap();
            // Every other one by reset.
            if cut % 2 == 0 {
                stream.set_zero_linger().unwrap();
            }
        }
    }

    assert_alive(&world).await;
}

#[tokio::test]
async fn five_hundred_quick_comings_and_goings_in_a_slow_exchange_are_survived() {
    let (world, upstream) = world_with_upstream(Options::default()).await;
    world.idp.endpoints().fail("/token", Fault::Delay(Duration::from_secs(2)));
    let [egress, _] = listeners(&world);
    let token = id_token_of(&world, "alice");
    let bearer = format!("Bearer {token}");
    let bytes =
        raw::request("POST", &egress, b"/mcp", &[("authorization", bearer.as_bytes())], b"{}");
    let mut comings = JoinSet::new();

    for n in 0..500 {
        let (egress, bytes) = (egress.clone(), bytes.clone());
        comings.spawn(async move {
            let mut stream = raw::connect(&egress).await;
            stream.write_all(&bytes).await.unwrap();
            if n % 2 == 0 {
                stream.set_zero_linger().unwrap();
            }
        });
    }
    comings.join_all().await;
    let last = post_as(&world.upgrade_url(), &token).await;

    assert_eq!(last.status, 200);
    assert_eq!(legs(&world), (1, 1));
    assert_eq!(upstream.last().claim("sub"), "alice");
    assert_alive(&world).await;
}

#[tokio::test]
async fn a_thousand_who_wait_for_the_same_failure_all_get_an_answer() {
    let world = World::start(Options { concurrency: 1, ..Options::default() }).await;
    // A key that nobody knows, and an identity provider that takes longer than anybody waits.
    world.idp.endpoints().fail("/jwks", Fault::Delay(Duration::from_secs(20)));
    let (endpoint, basic) = (world.accept_token_endpoint(), basic(&world.claude));
    let form = "application/x-www-form-urlencoded";
    let mut waiting = JoinSet::new();

    for n in 0..1000 {
        let id_jag = id_jag(&world, |header, _| header["kid"] = serde_json::json!(format!("k{n}")));
        let (endpoint, basic) = (endpoint.clone(), basic.clone());
        let body =
            format!("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={id_jag}");
        waiting.spawn(async move {
            let fields = [("content-type", form), ("authorization", basic.as_str())];
            tokio::time::timeout(Duration::from_secs(30), post(&endpoint, &fields, body)).await
        });
    }
    let answers = waiting.join_all().await;

    let refused = |answer: &Answer| matches!(answer.status, 400 | 503);
    let answered = answers.iter().filter(|answer| answer.as_ref().is_ok_and(refused)).count();
    assert_eq!(answered, 1000, "nobody is left without an answer");
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_server_behind_that_is_down_or_breaks_off_is_survived() {
    let mut world = World::start(Options::default()).await;
    let token = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await.token().to_owned();

    world.tickets.server.stop();
    world.warehouse.server.stop();
    let upgrade = post_as(&world.upgrade_url(), &world.alice.id_token).await;
    let accept = post_as(&world.accept_url(), &token).await;

    assert_eq!((upgrade.status, accept.status), (503, 503));
    assert_alive_but_keyless(&world).await;
}
