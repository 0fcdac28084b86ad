//! The parts that the tests of the filter lean on, without the filter: each does what those tests take it to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use host_tests::jwks::http_client;
use host_tests::program::or_skip;
use host_tests::redis::{Redis, Webdis};

/// A redis with its webdis, or nothing on a machine without.
async fn redis_with_webdis() -> Option<(Redis, Webdis)> {
    let redis = or_skip(Redis::start().await)?;
    let webdis = or_skip(Webdis::start(&redis).await)?;
    Some((redis, webdis))
}

/// The answer to a command written as a path, within half a second.
async fn ask(webdis: &Webdis, command: &str) -> Result<(u16, String), reqwest::Error> {
    let asked = http_client("test").get(format!("{}/{command}", webdis.origin()));
    let answer = asked.timeout(Duration::from_millis(500)).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[tokio::test]
async fn webdis_says_200_to_the_first_and_to_the_second_who_set_a_key_and_only_the_body_tells_them_apart()
 {
    let Some((_redis, webdis)) = redis_with_webdis().await else { return };

    let first = ask(&webdis, "SET/jti:a/1/NX/PX/300000").await.unwrap();
    let second = ask(&webdis, "SET/jti:a/1/NX/PX/300000").await.unwrap();
    let other = ask(&webdis, "SET/jti:b%2fc/1/NX/PX/300000").await.unwrap();

    assert_eq!(first, (200, r#"{"SET":[true,"OK"]}"#.into()));
    assert_eq!(second, (200, r#"{"SET":null}"#.into()));
    assert_eq!(other, first);
}

#[tokio::test]
async fn webdis_forgets_a_key_when_its_time_is_over() {
    let Some((_redis, webdis)) = redis_with_webdis().await else { return };

    ask(&webdis, "SET/jti:a/1/NX/PX/50").await.unwrap();
    let mut again = String::new();
    for _ in 0..500 {
        (_, again) = ask(&webdis, "SET/jti:a/1/NX/PX/60000").await.unwrap();
        if again.contains("OK") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    assert_eq!(again, r#"{"SET":[true,"OK"]}"#);
}

#[tokio::test]
async fn webdis_lets_nothing_pass_but_what_a_replay_memory_needs() {
    let Some((_redis, webdis)) = redis_with_webdis().await else { return };
    ask(&webdis, "SET/jti:a/1").await.unwrap();

    for command in ["FLUSHALL", "flushdb", "CONFIG/GET/dir", "KEYS/*", "EVAL/x/0", "SHUTDOWN"] {
        let (status, _) = ask(&webdis, command).await.unwrap();
        assert_eq!(status, 403, "{command}");
    }
    let (_, kept) = ask(&webdis, "GET/jti:a").await.unwrap();

    assert_eq!(kept, r#"{"GET":"1"}"#);
}

#[tokio::test]
async fn a_frozen_redis_lets_webdis_wait_and_a_thawed_one_answers() {
    let Some((redis, webdis)) = redis_with_webdis().await else { return };

    redis.freeze();
    let frozen = ask(&webdis, "SET/jti:a/1/NX").await;
    redis.thaw();
    let thawed = ask(&webdis, "SET/jti:b/1/NX").await.unwrap();

    assert!(frozen.unwrap_err().is_timeout());
    assert_eq!(thawed.1, r#"{"SET":[true,"OK"]}"#);
}

#[tokio::test]
async fn a_redis_that_has_ended_is_no_yes() {
    let Some((mut redis, webdis)) = redis_with_webdis().await else { return };

    redis.stop();
    let stopped = ask(&webdis, "SET/jti:a/1/NX").await;

    let said_yes = stopped.is_ok_and(|(status, body)| status == 200 && body.contains("OK"));
    assert!(!said_yes);
}
