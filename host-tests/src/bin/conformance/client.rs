//! The client's side: as the operator, an Envoy for this run of the suite; and then, through it, the legacy client.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use host_tests::egress::{Listener, Setup, port_of};
use host_tests::jwks::http_client;
use host_tests::keys::{random_text, sha256_hex};
use host_tests::node::Parts;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::suite::WASM;

/// Less than the suite gives us: killed from outside, we would leave Envoy behind.
const PATIENCE: Duration = Duration::from_secs(35);

/// Calls the MCP server at this URL as the suite's context says.
pub async fn run(url: &str) -> ExitCode {
    match timeout(PATIENCE, through_envoy(url)).await {
        Ok(seen) => {
            println!("{seen}");
            ExitCode::SUCCESS
        }
        Err(_) => {
            eprintln!("not done within {PATIENCE:?}");
            ExitCode::FAILURE
        }
    }
}

async fn through_envoy(url: &str) -> Value {
    let context = std::env::var("MCP_CONFORMANCE_CONTEXT").expect("the suite tells its context");
    let context: Value = serde_json::from_str(&context).unwrap();
    let given = |name: &str| context[name].as_str().unwrap();
    let issuer = authorization_server(url).await;
    let (listener, key) = (Listener::find(), random_text());
    // Kept until the client is done.
    let _envoy = listener
        .serve(Setup {
            wasm: Path::new(&std::env::var_os(WASM).expect("the filter has been built")),
            config: config(&context, url, &issuer, &listener.url("/mcp"), &key),
            clusters: &[
                ("mcp", port_of(url)),
                ("idp", port_of(given("idp_issuer"))),
                ("as", port_of(&issuer)),
            ],
            env: &[
                ("BOUND_ID_TOKEN", given("idp_id_token")),
                // The suite's IdP registers no secret, and asks for none.
                ("IDP_SECRET", "none-is-registered"),
                ("AS_SECRET", given("client_secret")),
            ],
        })
        .await;

    let input = json!({
        "url": listener.url("/mcp"),
        "headers": {"x-api-key": key},
        "tool": "test-tool",
    });
    let parts = tokio::task::spawn_blocking(Parts::install).await.unwrap().unwrap();
    parts.run("legacy-client.mjs", &input).await
}

/// The context says everything but this. Who sets Envoy up has to know it: clusters are not discovered.
async fn authorization_server(url: &str) -> String {
    let metadata = url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp");
    let answer = http_client("operator").get(metadata).send().await.unwrap();
    let metadata: Value = answer.json().await.unwrap();
    metadata["authorization_servers"][0].as_str().unwrap().into()
}

fn config(context: &Value, resource: &str, issuer: &str, url: &str, key: &str) -> Value {
    json!({
        "allow_insecure_http": true,
        "identity_providers": {"idp": {
            "issuer": context["idp_issuer"],
            "cluster": "idp",
            "token_endpoint": context["idp_token_endpoint"],
            "client": {"id": context["idp_client_id"], "secret": {"env": "IDP_SECRET"}},
        }},
        "resources": [{
            "resource": resource,
            "upgrade": {
                "url": url,
                "identity_provider": "idp",
                "authorization_servers": [{
                    "issuer": issuer,
                    "cluster": "as",
                    "client": {"id": context["client_id"], "secret": {"env": "AS_SECRET"}},
                }],
                "discovery": {"cluster": "mcp"},
                "callers": [{
                    "api_key": {"header": "x-api-key", "sha256": sha256_hex(key)},
                    "subject": {"id_token": {"env": "BOUND_ID_TOKEN"}},
                }],
            },
        }],
    })
}
