//! The guard through the real Envoy, in front of an authorization server that is nobody of ours: the one of
//! Tickets, which sees sound grants only, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::upstream::Upstream;
use host_tests::{Options, World};
use serde_json::{Value, json};
use support::*;

/// The ingress configuration with the accepted resource taken out and a guard put in its place: of the
/// ingress listener's own `/token`, for the server with this `issuer`.
fn guarded(config: &mut Value, issuer: &str, resource: &str, client: &str) {
    let origin = config["authorization_server"]["issuer"].as_str().unwrap().to_owned();
    let members = config.as_object_mut().unwrap();
    members.remove("authorization_server");
    members.remove("resources");
    members.insert(
        "guards".into(),
        json!([{
            "issuer": issuer,
            "token_endpoint": format!("{origin}/token"),
            "clients": { client: { "identity_providers": ["acme"] } },
            "resources": [resource],
            "paths": ["/.well-known/oauth-authorization-server"],
        }]),
    );
}

/// A world whose guard stands before a server that records what it gets.
async fn with_recorder(concurrency: u32) -> (World, Upstream) {
    let upstream = Upstream::start();
    let port = upstream.port();
    let world = World::start(Options {
        concurrency,
        patch_ingress: Some(Box::new(move |config| {
            let resource = config["resources"][0]["resource"].as_str().unwrap().to_owned();
            guarded(config, GUARDED, &resource, "claude");
        })),
        patch_bootstrap: Some(Box::new(move |text| repointed(text, "warehouse", port))),
        ..Options::default()
    })
    .await;
    (world, upstream)
}

const GUARDED: &str = "http://as.behind.example";
const BASIC: &str = "Basic Y2xhdWRlOmJlaGluZA==";

fn grant_for(world: &World, change: impl FnOnce(&mut Value)) -> String {
    id_jag(world, |_, claims| {
        claims["aud"] = json!(GUARDED);
        change(claims);
    })
}

/// Redeems as `claude`, whose secret only the server behind knows: claude:behind.
async fn redeem(token_endpoint: String, id_jag: String) -> Answer {
    let fields = [("content-type", "application/x-www-form-urlencoded"), ("authorization", BASIC)];
    let body = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={id_jag}&odd=%7e+x"
    );
    post(&token_endpoint, &fields, body).await
}

#[tokio::test]
async fn the_server_behind_gets_sound_grants_once_and_nothing_else_at_all() {
    let (world, upstream) = with_recorder(4).await;
    let sound = grant_for(&world, |_| {});
    let refused = [
        ("another audience", grant_for(&world, |claims| claims["aud"] = json!("http://other"))),
        ("two audiences", grant_for(&world, |claims| claims["aud"] = json!([GUARDED, "x"]))),
        ("another client", grant_for(&world, |claims| claims["client_id"] = json!("other"))),
        ("another resource", grant_for(&world, |claims| claims["resource"] = json!("http://x/"))),
        ("somebody's tenant", grant_for(&world, |claims| claims["aud_tenant"] = json!("t"))),
        ("no JWT", "junk".to_owned()),
    ];

    for (what, grant) in &refused {
        let answer = redeem(world.accept_token_endpoint(), grant.clone()).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some("invalid_grant")),
            "{what}"
        );
    }
    let other_grant = post(
        &world.accept_token_endpoint(),
        &[("content-type", "application/x-www-form-urlencoded")],
        "grant_type=client_credentials",
    )
    .await;
    assert_eq!(other_grant.json()["error"], "unsupported_grant_type");
    assert_eq!(upstream.count(), 0, "nothing of these went on");

    // Forty at once, over four workers: one goes on.
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..40 {
        requests.spawn(redeem(world.accept_token_endpoint(), sound.clone()));
    }
    let answers = requests.join_all().await;
    let refused = answers.iter().filter(|answer| answer.json()["error"] == "invalid_grant");
    assert_eq!(refused.count(), 39);
    assert_eq!(upstream.count(), 1);
    let seen = upstream.last();
    let body = String::from_utf8_lossy(&seen.body).into_owned();
    assert!(body.ends_with(&format!("assertion={sound}&odd=%7e+x")), "byte for byte: {body}");
    assert_eq!(seen.header("authorization"), Some(BASIC), "the client proves itself there");
}

/// The port that this cluster of the bootstrap leads to.
fn port_of(text: &str, cluster: &str) -> u16 {
    let start = text.find(&format!("cluster_name: {cluster}\n")).expect("the cluster is there");
    let digits = start + text[start..].find("port_value: ").unwrap() + "port_value: ".len();
    text[digits..].split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_real_authorization_server_issues_through_its_guard() {
    let world = World::start(Options {
        patch_ingress: Some(Box::new(|config| {
            guarded(config, "http://ISSUER", "http://RESOURCE/mcp", "jagway-at-tickets");
        })),
        patch_bootstrap: Some(Box::new(|text| {
            let (server, resource) = (port_of(&text, "tickets_as"), port_of(&text, "tickets"));
            let text = text
                .replace("http://ISSUER", &format!("http://127.0.0.1:{server}"))
                .replace("http://RESOURCE", &format!("http://127.0.0.1:{resource}"));
            repointed(text, "warehouse", server)
        })),
        ..Options::default()
    })
    .await;
    let (header, claims) = world.idp.id_jag_parts(&world.tickets_connection(), "alice");
    let id_jag = world.idp.sign(&claims, &header);
    let (issuer, guarded) = (world.tickets_as.issuer(), world.accept_token_endpoint());

    let first = world.jagway_at_tickets.redeem(issuer, &guarded, &id_jag).await;
    let again = world.jagway_at_tickets.redeem(issuer, &guarded, &id_jag).await;

    assert_eq!(first.status, 200, "{}", first.body);
    let token = first.body["access_token"].as_str().unwrap();
    let answer = post_as(&world.tickets.resource, token).await;
    assert_ne!(answer.status, 401, "it is a token of the server behind");
    assert_eq!((again.status, &again.body["error"]), (400, &json!("invalid_grant")));
}
