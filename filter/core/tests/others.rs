//! EMA comes beside what a resource has: its own authorization servers, and the clients that use them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::http::Headers;
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const OWN_AS: &str = "https://login.warehouse.example";

/// [`accept_config`] with more in the resource's entry.
fn with(more: Value) -> Value {
    let mut config = accept_config();
    config["resources"][0]["accept"]
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    config
}

fn get(config: &Value, path: &str) -> Verdict {
    let mut process = Process::new(config, 1);
    process.request(0, 1, request("GET", "mcp.acme.example", path, &[]));
    process.verdict()
}

#[test]
fn metadata_names_the_resources_own_authorization_servers_too() {
    let servers = |more: Value| {
        let answer = get(&with(more), "/.well-known/oauth-protected-resource/warehouse");
        body(&answer)["authorization_servers"].clone()
    };

    assert_eq!(servers(json!({})), json!([AS]));
    assert_eq!(servers(json!({ "other_authorization_servers": [OWN_AS] })), json!([AS, OWN_AS]));
    let first = json!({ "other_authorization_servers": [OWN_AS], "others_first": true });
    assert_eq!(servers(first), json!([OWN_AS, AS]));
}

#[test]
fn their_tokens_go_on_untouched_and_with_nothing_of_ours() {
    let config = with(json!({ "other_authorization_servers": [OWN_AS] }));
    let theirs = key(5).sign("at+jwt", &json!({ "iss": OWN_AS, "aud": WAREHOUSE }));
    let claims_ours = key(5).sign("at+jwt", &json!({ "iss": AS, "aud": WAREHOUSE }));
    let call = |config: &Value, authorization: &str| {
        let mut process = Process::new(config, 1);
        let fields = [
            ("authorization", authorization),
            ("x-api-key", "smuggled"),
            ("x_api_key", "smuggled"),
            ("x-jagway-subject", "smuggled"),
        ];
        process.request(0, 1, request("POST", "mcp.acme.example", "/warehouse", &fields));
        let head = [(":status", "401"), ("www-authenticate", "Bearer realm=\"theirs\"")];
        let head = head.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        match process.verdict() {
            Verdict::Reply(reply) => Err(reply.status),
            Verdict::Forward(edits, after) => {
                let head = Headers::new(head.to_vec());
                let (answer, _) = process.responds(0, 1, &after, &head);
                assert!(answer.remove.is_empty() && answer.set.is_empty(), "nor is its answer");
                assert!(edits.set.is_empty());
                Ok(edits.remove)
            }
            other => panic!("{other:?}"),
        }
    };

    let smuggled = ["x-api-key", "x-jagway-subject", "x_api_key"].map(str::to_owned).to_vec();
    assert_eq!(call(&config, &format!("Bearer {theirs}")), Ok(smuggled.clone()));
    assert_eq!(call(&config, "Bearer opaque"), Ok(smuggled));
    assert_eq!(call(&config, &format!("Bearer {claims_ours}")), Err(401), "it says it is ours");
    assert_eq!(call(&config, "Basic dTpw"), Err(401));
    assert_eq!(call(&accept_config(), &format!("Bearer {theirs}")), Err(401), "by switch only");
}

#[test]
fn metadata_is_at_the_root_only_by_switch() {
    let root = "/.well-known/oauth-protected-resource";

    assert_eq!(status(&get(&accept_config(), root)), 404);
    let answer = get(&with(json!({ "metadata_at_root": true })), root);
    assert_eq!(body(&answer)["resource"], WAREHOUSE);
}

#[test]
fn a_configuration_that_would_confuse_them_is_refused() {
    let path = |config: &Value| {
        let config = config.to_string();
        let refused = jagway_core::config::Config::parse(config.as_bytes(), &env);
        refused.map(|_| ()).unwrap_err().path
    };
    let accept = "resources[0].accept";

    let ours = with(json!({ "other_authorization_servers": [AS] }));
    assert_eq!(path(&ours), format!("{accept}.other_authorization_servers"));
    let none = with(json!({ "others_first": true }));
    assert_eq!(path(&none), format!("{accept}.others_first"));
    let mut two = with(json!({ "metadata_at_root": true }));
    let mut second = two["resources"][0].clone();
    second["resource"] = json!(format!("{AS}/billing"));
    two["resources"].as_array_mut().unwrap().push(second);
    assert_eq!(path(&two), format!("{accept}.metadata_at_root"));
}
