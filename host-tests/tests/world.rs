//! The world by itself, without the filter: its parties keep to the protocol and refuse what they must.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use host_tests::client_auth::AuthMethod;
use host_tests::endpoints::Fault;
use host_tests::journal::Kind;
use host_tests::keys::SigningKey;
use host_tests::mcp_client::{McpClient, McpError};
use host_tests::names::{TOKEN_ID_JAG, TOKEN_ID_TOKEN, TOKEN_REFRESH, TYP_ID_JAG};
use host_tests::oauth_client::{OauthClient, TokenAnswer};
use host_tests::{Options, World, now};
use serde_json::{Value, json};
use std::time::Duration;

async fn world() -> World {
    World::start(Options { envoy: false, ..Options::default() }).await
}

/// Leg 1 for Tickets with this subject token.
async fn exchange(world: &World, subject: (&str, &str)) -> TokenAnswer {
    let (audience, resource) = (world.tickets_as.issuer(), world.tickets.resource.as_str());
    world.app.exchange(world.idp.issuer(), subject, audience, resource, "tickets.read other").await
}

/// Leg 2 at the Tickets AS.
async fn redeem(world: &World, id_jag: &str) -> TokenAnswer {
    let server = &world.tickets_as;
    world.jagway_at_tickets.redeem(server.issuer(), &server.token_endpoint(), id_jag).await
}

/// A sound ID-JAG for Tickets, changed by the test before the IdP's real key signs it.
fn id_jag(world: &World, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let (mut header, mut claims) = world.idp.id_jag_parts(&world.tickets_connection(), "alice");
    change(&mut header, &mut claims);
    world.idp.sign(&claims, &header)
}

fn status(error: McpError) -> u16 {
    match error {
        McpError::Http(answer) => answer.status.as_u16(),
        McpError::Rpc(error) => panic!("refused in JSON-RPC: {error}"),
    }
}

#[tokio::test]
async fn a_client_that_speaks_ema_reaches_tickets_by_both_legs() {
    let world = world().await;

    let leg1 = exchange(&world, (TOKEN_ID_TOKEN, &world.alice.id_token)).await;
    let leg2 = redeem(&world, leg1.token()).await;
    let mut client =
        McpClient::new(&world.tickets.resource, "EMA client").with_bearer(leg2.token());
    client.initialize().await.unwrap();
    let tools = client.tools().await.unwrap();
    let tickets = client.call("list_tickets", json!({})).await.unwrap();

    assert_eq!(leg1.body["issued_token_type"], TOKEN_ID_JAG);
    assert_eq!(leg1.body["token_type"], "N_A");
    assert_eq!(leg1.body["scope"], "tickets.read");
    assert_eq!(leg1.cache_control.as_deref(), Some("no-store"));
    assert_eq!(leg2.body["token_type"], "Bearer");
    assert_eq!(tools, ["list_tickets"]);
    assert_eq!(tickets["caller"], "alice");
    assert_eq!(tickets["client"], "jagway-at-tickets");
    assert_eq!(tickets["scope"], "tickets.read");
}

#[tokio::test]
async fn a_refresh_token_is_a_subject_token_too() {
    let world = world().await;

    let leg1 = exchange(&world, (TOKEN_REFRESH, &world.ci_bot.refresh_token)).await;
    world.idp.revoke(&world.ci_bot.refresh_token);
    let revoked = exchange(&world, (TOKEN_REFRESH, &world.ci_bot.refresh_token)).await;

    assert_eq!(redeem(&world, leg1.token()).await.status, 200);
    assert_eq!((revoked.status, revoked.error()), (400, "invalid_grant"));
}

#[tokio::test]
async fn every_way_of_client_authentication_works_at_both_servers() {
    for method in [AuthMethod::Basic, AuthMethod::Post, AuthMethod::PrivateKeyJwt] {
        let options = Options {
            envoy: false,
            idp_auth: method,
            tickets_as_auth: method,
            ..Options::default()
        };
        let world = World::start(options).await;

        let leg1 = exchange(&world, (TOKEN_ID_TOKEN, &world.alice.id_token)).await;
        let leg2 = redeem(&world, leg1.token()).await;

        assert_eq!(leg2.status, 200, "{method:?}");
        assert_eq!(world.idp.clients().methods_used().last(), Some(&method));
        assert_eq!(world.tickets_as.clients().methods_used(), [method]);
    }
}

#[tokio::test]
async fn the_idp_refuses_subject_tokens_that_are_not_its_own_current_and_the_clients() {
    let world = world().await;
    let key = world.idp.key();
    let sound = json!({"iss": world.idp.issuer(), "sub": "alice", "aud": "legacy-app", "iat": now(), "exp": now() + 60});
    let with = |name: &str, value: Value| {
        let mut claims = sound.clone();
        claims[name] = value;
        key.sign(&key.header("JWT"), &claims)
    };
    let cases = [
        ("expired", with("exp", json!(now() - 1))),
        ("another client's", with("aud", json!("other-app"))),
        ("another issuer's", with("iss", json!("http://other.example"))),
        ("an ID-JAG", key.sign(&key.header(TYP_ID_JAG), &sound)),
        ("signed by another key", SigningKey::es256(key.kid()).sign(&key.header("JWT"), &sound)),
        ("no token at all", "nonsense".into()),
    ];

    let control = exchange(&world, (TOKEN_ID_TOKEN, &with("sub", json!("alice")))).await;

    assert_eq!(control.status, 200);
    for (name, token) in cases {
        let answer = exchange(&world, (TOKEN_ID_TOKEN, &token)).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{name}");
    }
}

#[tokio::test]
async fn the_idp_gives_id_jags_only_along_its_connections() {
    let world = world().await;
    let idp = world.idp.issuer();
    let subject = (TOKEN_ID_TOKEN, world.alice.id_token.as_str());
    let (audience, resource) = (world.tickets_as.issuer(), world.tickets.resource.as_str());

    let unknown_audience =
        world.app.exchange(idp, subject, "http://other.example", resource, "").await;
    let unknown_resource =
        world.app.exchange(idp, subject, audience, "http://other.example/mcp", "").await;
    let unknown_scope = world.app.exchange(idp, subject, audience, resource, "admin").await;
    world.idp.disconnect("legacy-app");
    let disconnected = exchange(&world, subject).await;

    assert_eq!((unknown_audience.status, unknown_audience.error()), (400, "invalid_target"));
    assert_eq!((unknown_resource.status, unknown_resource.error()), (400, "invalid_target"));
    assert_eq!((unknown_scope.status, unknown_scope.error()), (400, "invalid_scope"));
    assert_eq!((disconnected.status, disconnected.error()), (400, "invalid_target"));
}

#[tokio::test]
async fn an_impostor_is_an_invalid_client_at_both_servers() {
    let world = world().await;
    let impostor = |id: &str| OauthClient::new(id, "Impostor", AuthMethod::Basic);
    let (audience, resource) = (world.tickets_as.issuer(), world.tickets.resource.as_str());
    let subject = (TOKEN_ID_TOKEN, world.alice.id_token.as_str());

    let leg1 =
        impostor("legacy-app").exchange(world.idp.issuer(), subject, audience, resource, "").await;
    let good = id_jag(&world, |_, _| {});
    let leg2 = impostor("jagway-at-tickets")
        .redeem(audience, &world.tickets_as.token_endpoint(), &good)
        .await;

    assert_eq!((leg1.status, leg1.error()), (401, "invalid_client"));
    assert_eq!((leg2.status, leg2.error()), (401, "invalid_client"));
}

#[tokio::test]
async fn the_tickets_as_refuses_every_spoiled_id_jag() {
    let world = world().await;
    let claim = |name: &'static str, value: Value| id_jag(&world, |_, claims| claims[name] = value);
    let forged = {
        let (header, claims) = world.idp.id_jag_parts(&world.tickets_connection(), "alice");
        SigningKey::es256(world.idp.key().kid()).sign(&header, &claims)
    };
    let cases = [
        ("forged", forged),
        ("expired", claim("exp", json!(now() - 1))),
        ("for another audience", claim("aud", json!("http://other.example"))),
        (
            "for two audiences",
            claim("aud", json!([world.tickets_as.issuer(), "http://other.example"])),
        ),
        ("for another client", claim("client_id", json!("somebody"))),
        ("for another resource", claim("resource", json!("http://other.example/mcp"))),
        ("of another issuer", claim("iss", json!("http://other.example"))),
        ("of another type", id_jag(&world, |header, _| header["typ"] = json!("JWT"))),
        ("an ID token", world.alice.id_token.clone()),
    ];

    for (name, token) in cases {
        let answer = redeem(&world, &token).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{name}");
    }
}

#[tokio::test]
async fn an_id_jag_is_good_for_one_redemption() {
    let world = world().await;
    let good = id_jag(&world, |_, _| {});

    let first = redeem(&world, &good).await;
    let second = redeem(&world, &good).await;

    assert_eq!(first.status, 200);
    assert_eq!((second.status, second.error()), (400, "invalid_grant"));
}

#[tokio::test]
async fn the_tickets_as_can_demand_client_id_in_the_body_beside_basic() {
    let world = world().await;
    world.tickets_as.demand_client_id_in_body(true);

    let answer = redeem(&world, &id_jag(&world, |_, _| {})).await;

    assert_eq!((answer.status, answer.error()), (401, "invalid_client"));
}

#[tokio::test]
async fn after_a_rotation_old_id_tokens_are_still_exchanged_and_new_id_jags_accepted() {
    let world = world().await;
    let before = exchange(&world, (TOKEN_ID_TOKEN, &world.alice.id_token)).await;
    assert_eq!(redeem(&world, before.token()).await.status, 200);

    world.idp.rotate("acme-2");
    let after = exchange(&world, (TOKEN_ID_TOKEN, &world.alice.id_token)).await;

    assert_eq!(redeem(&world, after.token()).await.status, 200);
    assert_eq!(world.idp.endpoints().count_from("Tickets AS", "/jwks"), 2);
}

#[tokio::test]
async fn tickets_challenges_whoever_brings_no_access_token_or_a_wrong_one() {
    let world = world().await;
    let expired = world.tickets_as.sign(
        &json!({"iss": world.tickets_as.issuer(), "aud": world.tickets.resource, "sub": "alice", "exp": now() - 1}),
        &world.tickets_as.header(),
    );

    let McpError::Http(bare) =
        McpClient::new(&world.tickets.resource, "nobody").initialize().await.unwrap_err()
    else {
        panic!("answered in JSON-RPC")
    };
    let challenge = bare.headers["www-authenticate"].to_str().unwrap();

    assert_eq!(bare.status, 401);
    assert!(
        challenge.contains(r#"/.well-known/oauth-protected-resource/mcp""#)
            && !challenge.contains("error=")
    );
    for token in [expired.as_str(), &world.alice.id_token, "nonsense"] {
        let refused =
            McpClient::new(&world.tickets.resource, "nobody").with_bearer(token).initialize().await;
        assert_eq!(status(refused.unwrap_err()), 401);
    }
}

#[tokio::test]
async fn warehouse_opens_to_its_key_alone_and_records_what_arrived() {
    let world = world().await;
    let client =
        |key: &str| McpClient::new(&world.warehouse.url, "legacy").with_header("x-api-key", key);
    assert_eq!(world.warehouse.server.bytes_received(), 0);

    let refused = client("wrong").initialize().await.unwrap_err();
    let mut good = client(&world.warehouse_key);
    good.initialize().await.unwrap();
    let tools = good.tools().await.unwrap();
    let echoed = good.call("echo", json!({"text": "tea"})).await.unwrap();

    assert_eq!(status(refused), 401);
    assert_eq!(tools, ["stock_list", "echo"]);
    assert_eq!(echoed, json!({"text": "tea"}));
    assert_eq!(world.warehouse.recorder.count(), 5);
    assert_eq!(world.warehouse.recorder.requests()[0].header("x-api-key"), ["wrong"]);
    assert!(world.warehouse.server.bytes_received() > 0);
}

#[tokio::test]
async fn endpoints_fail_as_told_and_heal() {
    let world = world().await;
    let endpoints = world.idp.endpoints();
    let asked = endpoints.count("/token");
    let subject = (TOKEN_ID_TOKEN, world.alice.id_token.as_str());

    endpoints.fail_times("/token", 1, Fault::Status(500));
    let broken = exchange(&world, subject).await;
    endpoints.fail("/token", Fault::Junk);
    let junk = exchange(&world, subject).await;
    endpoints.fail("/token", Fault::Empty);
    let empty = exchange(&world, subject).await;
    endpoints.fail("/token", Fault::Delay(Duration::from_millis(200)));
    let began = std::time::Instant::now();
    let slow = exchange(&world, subject).await;
    endpoints.heal("/token");

    assert_eq!(broken.status, 500);
    assert_eq!((junk.status, junk.body), (200, Value::Null));
    assert_eq!((empty.status, empty.body), (200, Value::Null));
    assert_eq!(slow.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(endpoints.count("/token"), asked + 4);
    assert_eq!(exchange(&world, subject).await.status, 200);
}

#[tokio::test]
async fn a_stopped_server_is_gone_and_comes_back_at_the_same_place() {
    let mut world = world().await;
    let http = host_tests::jwks::http_client("test");
    let uri = world.idp.jwks_uri();
    assert!(http.get(&uri).send().await.is_ok());

    world.idp.server.stop();
    let gone = http.get(&uri).send().await;
    world.idp.server.restart();

    assert!(gone.is_err());
    assert!(http.get(&uri).send().await.is_ok());
}

#[tokio::test]
async fn the_journal_tells_the_story_and_keeps_no_secret() {
    let world = world().await;
    let start = world.journal.len();

    let leg1 = exchange(&world, (TOKEN_ID_TOKEN, &world.alice.id_token)).await;
    redeem(&world, leg1.token()).await;

    let hops = world.journal.since(start);
    let told: Vec<_> = hops
        .iter()
        .filter_map(|hop| Some((hop.from.as_str(), hop.to.as_str(), hop.token.as_ref()?.kind)))
        .collect();
    assert_eq!(
        told,
        [
            ("EMA client", "Acme IdP", Kind::IdToken),
            ("Acme IdP", "EMA client", Kind::IdJag),
            ("Direct client", "Tickets AS", Kind::IdJag),
            ("Tickets AS", "Direct client", Kind::AccessToken),
        ]
    );
    assert_eq!(hops[1].token.as_ref().unwrap().key_claims()["client_id"], "jagway-at-tickets");
    let everything = format!("{:?}", world.journal.hops());
    for secret in
        [leg1.token(), &world.alice.id_token, &world.alice.refresh_token, &world.app.secret]
    {
        assert!(!everything.contains(secret));
    }
}

#[tokio::test]
async fn the_idp_can_sign_with_rsa_as_well() {
    let world = World::start(Options { envoy: false, rs256: true, ..Options::default() }).await;
    let key = world.idp.rs256_key().unwrap();
    let (_, claims) = world.idp.id_jag_parts(&world.tickets_connection(), "alice");

    let answer = redeem(&world, &key.sign(&key.header(TYP_ID_JAG), &claims)).await;

    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn without_the_filter_envoy_passes_on_what_the_servers_refuse() {
    let world = World::start(Options { filter: false, ..Options::default() }).await;

    let upgrade = world.client_with_id_token().initialize().await.unwrap_err();
    let accept = world.client_with_access_token("anything").initialize().await.unwrap_err();
    let mut keyed = McpClient::new(&world.accept_url(), "legacy")
        .with_header("x-api-key", &world.warehouse_key);
    keyed.initialize().await.unwrap();
    let stock = keyed.call("stock_list", json!({})).await.unwrap();

    assert_eq!(status(upgrade), 401);
    assert_eq!(status(accept), 401);
    assert_eq!(stock["kettles"], 12);
    let hops = world.journal.hops();
    assert!(hops.iter().any(|hop| hop.from == "Tickets MCP" && hop.to == "Jagway"));
    assert!(hops.iter().any(|hop| hop.from == "Warehouse MCP" && hop.to == "Jagway"));
    assert_eq!(world.warehouse.recorder.requests()[0].header("authorization"), ["Bearer anything"]);
}

#[tokio::test]
async fn the_worlds_json_has_the_agreed_shape() {
    let world = world().await;

    let json = world.json();

    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&json), ["accept", "envoy_admin", "idp", "upgrade"]);
    assert_eq!(
        names(&json["idp"]),
        ["client", "id_token", "issuer", "jwks_uri", "refresh_token", "token_endpoint"]
    );
    assert_eq!(
        names(&json["upgrade"]),
        ["api_key", "api_key_header", "id_token", "resource", "url"]
    );
    assert_eq!(
        names(&json["accept"]),
        ["client", "issuer", "resource", "scopes", "token_endpoint", "url"]
    );
    assert_eq!(names(&json["accept"]["client"]), ["id", "secret"]);
    assert!(json["accept"]["scopes"].is_array());
}

#[tokio::test]
async fn the_idp_gives_the_legacy_app_id_jags_for_jagway_under_its_name_there() {
    let world = world().await;

    let answer = world.exchange_for_warehouse().await;

    let token = host_tests::journal::Token::new(Kind::IdJag, answer.token());
    assert_eq!(token.key_claims()["client_id"], "claude");
    assert_eq!(token.key_claims()["aud"], world.accept_issuer().as_str());
    assert_eq!(token.key_claims()["resource"], world.accept_url().as_str());
    assert_eq!(token.key_claims()["typ"], TYP_ID_JAG);
}
