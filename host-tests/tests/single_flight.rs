//! One exchange for all who wait for it, over all workers of the proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::endpoints::Fault;
use host_tests::upstream::Upstream;
use host_tests::{Options, World, raw};
use std::time::Duration;
use support::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn four_workers() -> (World, Upstream) {
    world_with_upstream(Options { concurrency: 4, ..Options::default() }).await
}

/// As many requests at once, each over a connection of its own; their statuses.
async fn at_once(world: &World, tokens: impl Iterator<Item = String>) -> Vec<u16> {
    let mut requests = JoinSet::new();
    for token in tokens {
        let url = world.upgrade_url();
        requests.spawn(async move { post_as(&url, &token).await.status });
    }
    requests.join_all().await
}

/// Connections that have sent a request and wait.
async fn waiting(world: &World, count: usize, token: &str) -> Vec<TcpStream> {
    let origin = world.upgrade_url().trim_end_matches("/mcp").to_owned();
    let bearer = format!("Bearer {token}");
    let bytes =
        raw::request("POST", &origin, b"/mcp", &[("authorization", bearer.as_bytes())], b"{}");
    let mut streams = vec![];
    for _ in 0..count {
        let mut stream = raw::connect(&origin).await;
        stream.write_all(&bytes).await.unwrap();
        streams.push(stream);
    }
    streams
}

/// How many workers have had a connection of the egress listener.
async fn workers_busy(world: &World) -> usize {
    let address = world.upgrade_url().replace("http://", "").replace("/mcp", "").replace(':', "_");
    let envoy = world.envoy.as_ref().unwrap();
    let mut busy = 0;
    for worker in 0..4 {
        let name = format!("listener.{address}.worker_{worker}.downstream_cx_total");
        busy += usize::from(envoy.stat(&name).await.expect("the statistic exists") > 0);
    }
    busy
}

#[tokio::test]
async fn fifty_cold_requests_on_four_workers_are_one_exchange() {
    let (world, upstream) = four_workers().await;

    let statuses = at_once(&world, (0..50).map(|_| world.alice.id_token.clone())).await;

    assert_eq!(statuses, [200; 50]);
    assert!(workers_busy(&world).await >= 2, "all connections went to one worker");
    assert_eq!(legs(&world), (1, 1));
    assert_eq!(world.idp.endpoints().count_from("Jagway", "/jwks"), 1);
    let metadata = "/.well-known/oauth-authorization-server";
    assert_eq!(world.idp.endpoints().count_from("Jagway", metadata), 1);
    assert_eq!(world.tickets_as.endpoints().count_from("Jagway", metadata), 1);
    assert_eq!(upstream.count(), 50);
}

#[tokio::test]
async fn fifty_requests_wait_for_one_slow_exchange() {
    let (world, _upstream) = four_workers().await;
    world.idp.endpoints().fail("/token", Fault::Delay(Duration::from_secs(2)));

    let statuses = at_once(&world, (0..50).map(|_| world.alice.id_token.clone())).await;

    assert_eq!(statuses, [200; 50]);
    assert_eq!(legs(&world), (1, 1));
}

#[tokio::test]
async fn everybody_who_waits_is_told_of_one_failure() {
    let (world, upstream) = four_workers().await;
    world
        .idp
        .endpoints()
        .fail("/token", Fault::Answer(400, vec![], r#"{"error":"invalid_target"}"#.into()));

    let statuses = at_once(&world, (0..50).map(|_| world.alice.id_token.clone())).await;

    assert_eq!(statuses, [403; 50]);
    assert_eq!(legs(&world), (1, 0));
    assert_eq!(upstream.server.bytes_received(), 0);
}

#[tokio::test]
async fn an_exchange_goes_on_when_one_or_all_who_wait_for_it_leave() {
    let (world, upstream) = four_workers().await;
    world.idp.endpoints().fail("/token", Fault::Delay(Duration::from_secs(1)));

    for (round, (coming, leaving)) in [(20, 1), (20, 19), (20, 20), (1, 1)].into_iter().enumerate()
    {
        let (token, served) = (id_token_of(&world, "alice"), upstream.count());
        let mut streams = waiting(&world, coming, &token).await;
        until(5, "the exchange is under way", || legs(&world).0 == round + 1).await;
        streams.drain(..leaving);
        for mut stream in streams {
            assert_eq!(raw::read(&mut stream).await.status, 200);
        }
        until(5, "the exchange is done", || legs(&world) == (round + 1, round + 1)).await;
        // Whoever left is not served.
        assert!(upstream.count() - served <= coming);

        let asked = bytes_called_out(&world);
        let statuses = at_once(&world, (0..8).map(|_| token.clone())).await;

        assert_eq!(statuses, [200; 8]);
        // The redemption may still have been under way; nothing new was.
        assert_eq!(legs(&world), (round + 1, round + 1), "{asked}");
    }
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn users_who_come_at_once_are_not_mixed_up() {
    let (world, upstream) = four_workers().await;
    world.idp.endpoints().fail("/token", Fault::Delay(Duration::from_millis(300)));
    let mut requests = JoinSet::new();

    for user in 0..12 {
        let name = format!("user-{user}");
        let bearer = format!("Bearer {}", id_token_of(&world, &name));
        for _ in 0..8 {
            let (url, name, bearer) = (world.upgrade_url(), name.clone(), bearer.clone());
            requests.spawn(async move {
                let headers = [("authorization", bearer.as_str()), ("x-test-user", &name)];
                post(&url, &headers, "{}").await.status
            });
        }
    }
    let statuses = requests.join_all().await;

    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(upstream.count(), 96);
    for request in upstream.received() {
        assert_eq!(request.claim("sub").as_str(), request.header("x-test-user"));
    }
    assert_eq!(legs(&world), (12, 12));
}
