//! The official conformance suite for MCP: against Jagway as authorization server, and with Jagway in the EMA client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;

use host_tests::node::Parts;
use host_tests::program::or_skip;
use host_tests::{Options, World};
use serde_json::{Value, json};

/// What the suite found in this scenario; nothing on a machine that cannot run it.
async fn checks(url: &str, scenario: &str) -> Option<Vec<Value>> {
    let parts = or_skip(Parts::install())?;
    let said = parts.run("conformance.mjs", &json!({"url": url, "scenario": scenario})).await;
    let cannot = said["cannot"].as_str();
    or_skip(cannot.map_or(Ok(()), |why| Err(why.to_owned())))?;
    Some(said["checks"].as_array().unwrap().clone())
}

/// The suite has no scenario for a server of the jwt-bearer grant alone: it asks every server for the code flow. What
/// fails must be that and nothing else: Jagway has no code flow, so it promises neither `code` nor PKCE, even with
/// `compat_authorization_endpoint`, which the world has on. Status, content type, issuer and token endpoint pass.
#[tokio::test]
async fn all_that_the_conformance_suite_misses_in_the_metadata_is_the_code_flow() {
    let world = World::start(Options::default()).await;

    let scenario = "authorization-server-metadata-endpoint";
    let Some(checks) = checks(&world.accept_issuer(), scenario).await else { return };

    let found: Vec<_> = checks
        .iter()
        .map(|check| ["id", "status", "errorMessage"].map(|name| check[name].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            [
                "authorization-server-metadata",
                "FAILURE",
                "Response body does not include valid \"response_types_supported\" claim, \
                 Response body does not include valid \"code_challenge_methods_supported\" claim",
            ],
            // A SHOULD: clients are known by the operator's list.
            [
                "authorization-server-metadata-cimd",
                "WARNING",
                "Authorization server metadata does not include \"client_id_metadata_document_supported\"",
            ],
        ]
    );
}

/// The suite is identity provider, authorization server and MCP server; a legacy client with an API key calls through
/// Envoy. How many checks there are is the suite's affair, and how often a token is shown; which there are is not.
#[test]
fn a_legacy_client_behind_jagway_passes_every_check_of_the_scenario_for_ema_clients() {
    let run = Command::new(env!("CARGO_BIN_EXE_conformance")).output().unwrap();

    let said = String::from_utf8(run.stdout).unwrap();
    let last = said.lines().last().unwrap_or_default();
    let cannot = last.strip_prefix("conformance: cannot run: ");
    if or_skip(cannot.map_or(Ok(()), |why| Err(why.to_owned()))).is_none() {
        return;
    }
    let words = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}\n{words}");
    let mut checks: Vec<_> = said.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(checks.pop(), Some("conformance"));
    assert_eq!(last, format!("conformance: {} passed, 0 failed", checks.len()));
    checks.sort();
    checks.dedup();
    let passed = [
        "SUCCESS  authorization-server-metadata",
        "SUCCESS  complete-flow-jwt-bearer",
        "SUCCESS  complete-flow-token-exchange",
        "SUCCESS  prm-pathbased-requested",
        "SUCCESS  token-request",
        "SUCCESS  valid-bearer-token",
    ];
    assert_eq!(checks, passed);
}
