//! The parts that the tests of the filter lean on, without the filter: each does what those tests take it to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use host_tests::jwks::http_client;
use host_tests::mtls::{
    Accepted, Authority, CLIENT_DNS, CLIENT_SUBJECT, CLIENT_URI, Identity, Tunnel,
    with_client_certificates,
};
use host_tests::patches::with_cluster;
use host_tests::program::or_skip;
use host_tests::redis::{Redis, Webdis};
use host_tests::through::http_client_through;
use host_tests::upstash::Upstash;
use host_tests::{Options, World};
use serde_json::{Value, json};

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

/// What the JSON front says to this command, with this token.
async fn ask_in_json(front: &Upstash, token: &str, command: &Value) -> (u16, Value) {
    let url = format!("http://{}/", front.server.address());
    let asked = http_client("test").post(url).bearer_auth(token).json(command);
    let answer = asked.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn the_json_front_says_ok_to_the_first_and_null_to_the_second_who_set_a_key() {
    let Some(redis) = or_skip(Redis::start().await) else { return };
    let front = Upstash::start(&redis);
    let set = json!(["SET", "jti:a b\r\n", "1", "NX", "PX", "300000"]);

    let first = ask_in_json(&front, &front.token, &set).await;
    let second = ask_in_json(&front, &front.token, &set).await;
    let kept = ask_in_json(&front, &front.token, &json!(["GET", "jti:a b\r\n"])).await;

    assert_eq!(first, (200, json!({"result": "OK"})));
    assert_eq!(second, (200, json!({"result": null})));
    assert_eq!(kept, (200, json!({"result": "1"})));
}

#[tokio::test]
async fn the_json_front_refuses_strangers_and_what_is_no_command_of_a_replay_memory() {
    let Some(mut redis) = or_skip(Redis::start().await) else { return };
    let front = Upstash::start(&redis);
    let set = json!(["SET", "a", "1", "NX"]);

    let stranger = ask_in_json(&front, "wrong", &set).await;
    let mut refused = vec![];
    for command in
        [json!(["FLUSHALL"]), json!([]), json!({"a": 1}), json!(["SET", "a"]), json!([["SET"]])]
    {
        refused.push(ask_in_json(&front, &front.token, &command).await);
    }
    let first = ask_in_json(&front, &front.token, &set).await;
    redis.stop();
    let stopped = ask_in_json(&front, &front.token, &set).await;

    assert_eq!(stranger, (401, json!({"error": "Unauthorized"})));
    for (status, body) in refused {
        assert_eq!(status, 400, "{body}");
        assert!(body["error"].is_string() && body.get("result").is_none(), "{body}");
    }
    assert_eq!(first.1["result"], "OK");
    assert_eq!(stopped.0, 502, "{}", stopped.1);
}

#[tokio::test]
async fn what_one_envoy_of_a_world_issues_the_other_takes_and_both_go_by_one_name() {
    let world = World::start(Options::default()).await;
    let beside = world.start_beside().await;
    let (issuer, token_endpoint) = (world.accept_issuer(), world.accept_token_endpoint());
    let claude_there = world.claude.through(&beside.origin());
    let id_jags = [world.exchange_for_warehouse().await, world.exchange_for_warehouse().await];

    let from_first = world.redeem_at_jagway(id_jags[0].token()).await;
    let from_second = claude_there.redeem(&issuer, &token_endpoint, id_jags[1].token()).await;
    let at_first = status_with(&http_client("test"), &world, from_second.token()).await;
    let second = http_client_through(&beside.origin(), "test");
    let at_second = status_with(&second, &world, from_first.token()).await;
    let refused = status_with(&second, &world, "anything").await;

    // 406 is Warehouse's own word on a body that is no MCP.
    assert_eq!([at_first.0, at_second.0, refused.0], [406, 406, 401]);
    assert!(refused.1.contains(&issuer), "{}", refused.1);
    assert_eq!(world.warehouse.recorder.count(), 2);
    assert_ne!(world.envoy.as_ref().unwrap().pid(), beside.envoy.pid());
}

/// The status and the challenge for this token.
async fn status_with(http: &reqwest::Client, world: &World, token: &str) -> (u16, String) {
    let asked = http.post(world.accept_url()).bearer_auth(token).body("{}");
    let answer = asked.send().await.unwrap();
    let challenge = answer.headers().get("www-authenticate");
    let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), challenge.unwrap_or_default())
}

#[tokio::test]
async fn a_cluster_can_be_added_to_the_bootstrap() {
    let Some((_redis, webdis)) = redis_with_webdis().await else { return };
    let port = webdis.port();
    let patch = move |text| {
        let text = with_cluster(text, "replay", port);
        text.replace("route: { cluster: warehouse,", "route: { cluster: replay,")
    };
    let options =
        Options { filter: false, patch_bootstrap: Some(Box::new(patch)), ..Options::default() };
    let world = World::start(options).await;

    let answer = http_client("test").get(format!("{}/PING", world.accept_issuer())).send().await;

    assert_eq!(answer.unwrap().text().await.unwrap(), r#"{"PING":[true,"PONG"]}"#);
}

/// A world without the filter whose ingress listener asks for client certificates, and tells Warehouse what it saw.
async fn world_with_client_certificates(authority: &Authority, accepted: Accepted) -> World {
    let server = authority.server();
    let patch = move |text: String| {
        let told = "stat_prefix: ingress
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: { subject: true, uri: true, dns: true }";
        let text = text.replace("stat_prefix: ingress", told);
        with_client_certificates(text, "ingress", &server, &accepted)
    };
    let patch_bootstrap = Some(Box::new(patch) as Box<_>);
    World::start(Options { filter: false, patch_bootstrap, ..Options::default() }).await
}

/// Asks for Warehouse with this certificate: what Envoy told Warehouse of it, or nothing if it hung up.
async fn seen_of(world: &World, authority: &Authority, shown: Option<&Identity>) -> Option<String> {
    let tunnel = Tunnel::start(&world.accept_issuer(), authority, shown);
    let http = http_client_through(tunnel.origin(), "test");
    let answer = http.post(world.accept_url()).body("{}").send().await.ok()?;
    // Warehouse's own word: nobody has shown it its key.
    assert_eq!(answer.status(), 401);
    let arrived = world.warehouse.recorder.requests();
    let told = arrived.last().unwrap().header("x-forwarded-client-cert").join(" ");
    Some(told)
}

#[tokio::test]
async fn a_listener_that_asks_for_certificates_of_an_authority_takes_no_others() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (claude, stranger) = (authority.client(), other.client());
    let self_signed = Identity::self_signed_client();
    let accepted = Accepted::SignedBy(authority.pem());
    let world = world_with_client_certificates(&authority, accepted).await;

    let mut refused = vec![];
    for shown in [None, Some(&stranger), Some(&self_signed)] {
        refused.push(seen_of(&world, &authority, shown).await);
    }
    let told = seen_of(&world, &authority, Some(&claude)).await.unwrap();

    assert_eq!(refused, [None, None, None]);
    assert_eq!(
        told,
        format!(
            "Hash={};Subject=\"{CLIENT_SUBJECT}\";URI={CLIENT_URI};DNS={CLIENT_DNS}",
            claude.sha256_hex()
        )
    );
}

#[tokio::test]
async fn a_listener_that_takes_any_certificate_tells_them_apart_by_digest_and_takes_none_as_well() {
    let authority = Authority::new();
    let identities =
        [Identity::self_signed_client(), Identity::self_signed_client(), authority.client()];
    let world = world_with_client_certificates(&authority, Accepted::Any).await;

    let nobody = seen_of(&world, &authority, None).await;
    let mut told = vec![];
    for shown in &identities {
        told.push(seen_of(&world, &authority, Some(shown)).await.unwrap());
    }

    // Whatever `require_client_certificate` says: ACCEPT_UNTRUSTED takes no certificate for a bad one.
    assert_eq!(nobody.unwrap(), "");
    for (told, identity) in told.iter().zip(&identities) {
        assert!(told.starts_with(&format!("Hash={};", identity.sha256_hex())), "{told}");
    }
}

#[tokio::test]
async fn both_legs_and_a_call_go_through_a_listener_that_asks_for_certificates() {
    let authority = Authority::new();
    let (server, accepted) = (authority.server(), Accepted::SignedBy(authority.pem()));
    let patch = move |text: String| with_client_certificates(text, "ingress", &server, &accepted);
    let world =
        World::start(Options { patch_bootstrap: Some(Box::new(patch)), ..Options::default() })
            .await;
    let tunnel = Tunnel::start(&world.accept_issuer(), &authority, Some(&authority.client()));
    let id_jag = world.exchange_for_warehouse().await;

    let claude = world.claude.through(tunnel.origin());
    let (issuer, token_endpoint) = (world.accept_issuer(), world.accept_token_endpoint());
    let token = claude.redeem(&issuer, &token_endpoint, id_jag.token()).await;
    let http = http_client_through(tunnel.origin(), "test");
    let (status, _) = status_with(&http, &world, token.token()).await;

    // Warehouse's own word on a body that is no MCP: the filter has let it through.
    assert_eq!(status, 406);
    assert_eq!(world.warehouse.recorder.count(), 1);
}
