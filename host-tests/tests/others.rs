//! A resource that keeps its own authorization server beside EMA, through the real Envoy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::Options;
use host_tests::jwks::http_client;
use serde_json::{Value, json};
use support::*;

#[tokio::test]
async fn clients_of_the_servers_own_authorization_server_go_on_as_they_came() {
    let (world, upstream) = world_with_backend(Options {
        patch_ingress: Some(Box::new(|config| {
            config["resources"][0]["accept"]["other_authorization_servers"] =
                json!(["http://login.warehouse.example"]);
        })),
        ..Options::default()
    })
    .await;
    upstream.answer(401, &[("www-authenticate", "Bearer realm=\"its own\"")]);
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", world.accept_issuer());
    let metadata: Value =
        http_client("test").get(metadata).send().await.unwrap().json().await.unwrap();

    let nobody = post(&world.accept_url(), &[], "{}").await;
    assert_eq!((nobody.status, upstream.count()), (401, 0));
    let fields = [("authorization", "Bearer its-own-token"), ("x-api-key", "smuggled")];
    let theirs = post(&world.accept_url(), &fields, "{}").await;

    let servers = json!([world.accept_issuer(), "http://login.warehouse.example"]);
    assert_eq!(metadata["authorization_servers"], servers);
    assert_eq!(theirs.status, 401, "the server's own word");
    assert_eq!(theirs.header("www-authenticate"), Some("Bearer realm=\"its own\""));
    let seen = upstream.last();
    assert_eq!(seen.header("authorization"), Some("Bearer its-own-token"));
    assert_eq!(seen.header("x-api-key"), None);
}
