//! The suite's side: it is run by Node, and what it says of each check is read.

use host_tests::node::Parts;
use host_tests::{envoy_binary, wasm};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

const SCENARIO: &str = "auth/enterprise-managed-authorization";
/// Where this program lies and where the filter does, for when the suite calls back.
const CLIENT: &str = "JAGWAY_CONFORMANCE_CLIENT";
pub const WASM: &str = "JAGWAY_CONFORMANCE_WASM";
/// What the suite records when somebody reads the protected resource metadata.
const METADATA_READ: &str = "prm-pathbased-requested";

/// What the suite found.
pub struct Outcome {
    /// The checks that judge; what the suite merely tells (`INFO`) is left out.
    pub checks: Vec<Check>,
    /// The suite's own verdict, on checks and client.
    pub passed: bool,
    /// What it said.
    pub words: String,
}

/// One check.
pub struct Check {
    /// Its name in the suite.
    pub id: String,
    /// `SUCCESS`, `FAILURE`, `WARNING` or `SKIPPED`.
    pub status: String,
    /// What was seen.
    pub description: String,
}

impl Outcome {
    /// How many checks passed.
    pub fn passes(&self) -> usize {
        self.checks.iter().filter(|check| check.status == "SUCCESS").count()
    }

    /// How many did not; a client that ended badly counts as one.
    pub fn failures(&self) -> usize {
        let failures = self.checks.len() - self.passes();
        if self.passed { failures } else { failures.max(1) }
    }
}

/// Builds what is needed and runs the scenario. An error says why this machine cannot.
pub async fn run() -> Result<Outcome, String> {
    // Each takes a while and blocks; and the suite gives its client no time for it.
    let parts = spawn_blocking(Parts::install).await.unwrap()?;
    spawn_blocking(envoy_binary::find).await.unwrap();
    let wasm = spawn_blocking(wasm::filter).await.unwrap();
    let this = std::env::current_exe().unwrap();
    let input = json!({
        "scenario": SCENARIO,
        // A shell puts the path in, and so it may have spaces.
        "command": format!("\"${CLIENT}\" client"),
        "env": {CLIENT: this, WASM: wasm},
    });

    let said = parts.run("conformance.mjs", &input).await;
    match said["cannot"].as_str() {
        Some(why) => Err(why.into()),
        None => Ok(outcome(&said)),
    }
}

fn outcome(said: &Value) -> Outcome {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = said["checks"].as_array().unwrap().iter();
    let judging = all.filter(|check| check["status"] != "INFO");
    let mut checks: Vec<_> = judging
        .map(|check| Check {
            id: text(&check["id"]),
            status: text(&check["status"]),
            description: text(&check["description"]),
        })
        .collect();
    // The first reading was ours (see `client`), and proves nothing about the filter.
    if let Some(ours) = checks.iter().position(|check| check.id == METADATA_READ) {
        checks.remove(ours);
    }
    Outcome { checks, passed: said["passed"] == true, words: text(&said["words"]) }
}
