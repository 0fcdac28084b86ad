//! Event streams through the real Envoy: they may outlive the token they were opened with, but not by much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use host_tests::jwks::http_client;
use host_tests::{Options, World};
use serde_json::json;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server whose answers are event streams that never end.
async fn endless() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(events(stream));
        }
    });
    port
}

async fn events(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        stream.write_all(b"8\r\n: here\n\n\r\n").await?;
    }
}

#[tokio::test]
async fn an_event_stream_ends_with_its_token() {
    let port = endless().await;
    let world = World::start(Options {
        patch_ingress: Some(Box::new(|config| {
            config["authorization_server"]["access_token_lifetime"] = json!(3);
            config["authorization_server"]["clock_skew"] = json!(0);
        })),
        patch_bootstrap: Some(Box::new(move |text| repointed(text, "warehouse", port))),
        ..Options::default()
    })
    .await;
    let token = access_token(&world).await;

    let began = Instant::now();
    let chunks = read_to_the_cut(open(&world, &token).await).await;

    assert!(chunks > 5, "it was a stream: {chunks}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let log = world.envoy.as_ref().unwrap().log();
    assert!(log.contains("cut an event stream"), "{log}");
}

#[tokio::test]
async fn an_event_stream_ends_when_its_token_is_revoked() {
    let port = endless().await;
    let world = World::start(Options {
        concurrency: 4,
        patch_bootstrap: Some(Box::new(move |text| repointed(text, "warehouse", port))),
        ..Options::default()
    })
    .await;
    let token = access_token(&world).await;
    let response = open(&world, &token).await;

    let basic = basic(&world.claude);
    let fields =
        [("content-type", "application/x-www-form-urlencoded"), ("authorization", basic.as_str())];
    let revoked =
        post(&format!("{}/revoke", world.accept_issuer()), &fields, format!("token={token}")).await;
    let began = Instant::now();
    read_to_the_cut(response).await;

    assert_eq!(revoked.status, 200);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// A token for Warehouse that nobody has used before.
async fn access_token(world: &World) -> String {
    let (issuer, endpoint) = (world.accept_issuer(), world.accept_token_endpoint());
    let answer = world.claude.redeem(&issuer, &endpoint, &id_jag(world, |_, _| {})).await;
    answer.body["access_token"].as_str().unwrap().to_owned()
}

async fn open(world: &World, token: &str) -> reqwest::Response {
    let request = http_client("test").get(world.accept_url()).bearer_auth(token);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

/// Reads until the stream breaks off; how many pieces there were. A client can tell that from an end.
async fn read_to_the_cut(mut response: reqwest::Response) -> usize {
    let mut chunks = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(20), response.chunk()).await {
            Ok(Ok(Some(_))) => chunks += 1,
            Ok(Ok(None)) => panic!("it ended, and was not cut"),
            Ok(Err(_)) => return chunks,
            Err(_) => panic!("still open"),
        }
    }
}
