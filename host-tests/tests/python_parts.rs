//! The MCP SDK for Python at the accept side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use host_tests::program::or_skip;
use host_tests::python::PythonParts;
use host_tests::{Options, World};
use serde_json::{Value, json};

/// What the client is told of the world.
fn input(world: &World, method: &str) -> Value {
    let client = |id: &str, secret: &str| json!({"id": id, "secret": secret});
    json!({
        "idp": {
            "token_endpoint": world.idp_address.token_endpoint,
            "id_token": world.alice.id_token,
            "client": client(&world.app.id, &world.app.secret),
        },
        "accept": {
            "url": world.accept_url(),
            "issuer": world.accept_issuer(),
            "client": client(&world.claude.id, &world.claude.secret),
            "method": method,
        },
        "scope": "stock.read",
    })
}

#[tokio::test]
async fn the_sdk_for_python_redeems_an_id_jag_in_both_its_ways_and_lists_the_tools_of_warehouse() {
    let Some(parts) = or_skip(PythonParts::install()) else { return };
    let world = World::start(Options::default()).await;

    let mut said = vec![];
    for method in ["client_secret_basic", "client_secret_post"] {
        said.push(parts.run("identity_assertion_client.py", &input(&world, method)).await);
    }
    let arrived = world.warehouse.recorder.requests();

    for said in said {
        assert_eq!(said["tools"], json!(["stock_list", "echo"]), "{said}");
        let token = json!({"token_type": "Bearer", "scope": "stock.read", "expires_in": 300});
        assert_eq!(said["token"], token);
    }
    assert!(!arrived.is_empty());
    for request in arrived {
        assert_eq!(request.header("x-api-key"), [world.warehouse_key.as_str()], "{request:?}");
        assert!(request.header("authorization").is_empty(), "{request:?}");
    }
}
