//! The Envoy runner, with configurations that need no filter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use host_tests::envoy::Envoy;

const NOTHING: &str = "static_resources: {}";

#[tokio::test]
async fn envoy_starts_tells_its_statistics_and_ends_with_its_owner() {
    let envoy = Envoy::start(NOTHING, &[], 2).await;
    let pid = envoy.pid();

    let workers = envoy.stat("server.concurrency").await;
    let log = envoy.log();
    drop(envoy);

    assert_eq!(workers, Some(2));
    assert!(log.contains("starting main dispatch loop"));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn two_envoys_run_side_by_side() {
    let one = Envoy::start(NOTHING, &[], 1).await;
    let other = Envoy::start(NOTHING, &[], 1).await;

    assert_ne!(one.admin(), other.admin());
    assert_eq!(one.stat("server.state").await, Some(0));
    assert_eq!(other.stat("no.such.thing").await, None);
}

#[tokio::test]
async fn a_refused_configuration_gives_the_log() {
    let refused = Envoy::try_start("static_resources: { nonsense: 1 }", &[], 1).await;

    let log = refused.err().expect("Envoy refuses unknown fields");
    assert!(log.contains("nonsense"), "{log}");
}
