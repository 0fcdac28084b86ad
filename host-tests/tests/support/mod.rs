//! What the tests of the filter share.
#![allow(dead_code)]

pub mod refusing;

use std::time::{Duration, Instant};

use host_tests::jwks::http_client;
use host_tests::oauth_client::OauthClient;
use host_tests::upstream::Upstream;
use host_tests::{Options, World, now};
use serde_json::{Value, json};

/// A world in which a recording server stands behind the egress listener in place of Tickets.
pub async fn world_with_upstream(options: Options) -> (World, Upstream) {
    let upstream = Upstream::start();
    let port = upstream.port();
    let patch = Box::new(move |text: String| repointed(text, "tickets", port));
    let world = World::start(Options { patch_bootstrap: Some(patch), ..options }).await;
    (world, upstream)
}

/// As [`world_with_upstream`], for the ingress listener and Warehouse.
pub async fn world_with_backend(options: Options) -> (World, Upstream) {
    let upstream = Upstream::start();
    let port = upstream.port();
    let patch = Box::new(move |text: String| repointed(text, "warehouse", port));
    let world = World::start(Options { patch_bootstrap: Some(patch), ..options }).await;
    (world, upstream)
}

/// The bootstrap with this cluster leading to another port.
pub fn repointed(text: String, cluster: &str, port: u16) -> String {
    let start = text.find(&format!("cluster_name: {cluster}\n")).expect("the cluster is there");
    let digits = start + text[start..].find("port_value: ").unwrap() + "port_value: ".len();
    let end = digits + text[digits..].find(' ').unwrap();
    format!("{}{port}{}", &text[..digits], &text[end..])
}

/// An ID token of the IdP, changed by the test before the real key signs it.
pub fn id_token(world: &World, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let mut header = world.idp.key().header("JWT");
    let mut claims = json!({
        "iss": world.idp.issuer(), "sub": "alice", "aud": world.app.id, "iat": now(), "exp": now() + 3600,
        "jti": host_tests::keys::random_text(),
    });
    change(&mut header, &mut claims);
    world.idp.sign(&claims, &header)
}

/// An ID token of this user that nobody has seen before.
pub fn id_token_of(world: &World, user: &str) -> String {
    id_token(world, |_, claims| claims["sub"] = json!(user))
}

/// A sound ID-JAG for Warehouse that nobody has seen before, changed by the test before the IdP's real key signs it.
pub fn id_jag(world: &World, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let (mut header, mut claims) = world.idp.id_jag_parts(&world.warehouse_connection(), "alice");
    change(&mut header, &mut claims);
    world.idp.sign(&claims, &header)
}

/// A POST over a connection of its own, so that any worker may get it.
pub async fn post(url: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
    let mut request = http_client("test").post(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.text().await.unwrap() }
}

/// A POST with a bearer token.
pub async fn post_as(url: &str, token: &str) -> Answer {
    post(url, &[("authorization", &format!("Bearer {token}"))], "{}").await
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// How many token requests the filter has made, at the IdP and at the Tickets AS.
pub fn legs(world: &World) -> (usize, usize) {
    let count =
        |endpoints: &host_tests::endpoints::Endpoints| endpoints.count_from("Jagway", "/token");
    (count(world.idp.endpoints()), count(world.tickets_as.endpoints()))
}

/// Every byte that the IdP and the Tickets AS have ever received.
pub fn bytes_called_out(world: &World) -> u64 {
    world.idp.server.bytes_received() + world.tickets_as.server.bytes_received()
}

/// HTTP Basic credentials of a client whose parts need no encoding.
pub fn basic(client: &OauthClient) -> String {
    use base64::Engine;
    let text = format!("{}:{}", client.id, client.secret);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// Waits until `what` is so, and fails if it is not within `seconds`.
pub async fn until(seconds: u64, name: &str, mut what: impl FnMut() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {name}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fails unless the filter is alive on both listeners and no VM ever failed.
pub async fn assert_alive(world: &World) {
    let token = id_token_of(world, "alice");
    let upgrade = post_as(&world.upgrade_url(), &token).await;
    // Whatever the server says: the filter has let it through or refused it with a reason.
    assert!(upgrade.status != 500 && upgrade.status != 503, "{upgrade:?}");
    let accept = post(&world.accept_url(), &[], "{}").await;
    assert_eq!(accept.status, 401, "{accept:?}");
    assert_vm_never_failed(world).await;
}

/// Fails if a VM of the filter ever failed.
pub async fn assert_vm_never_failed(world: &World) {
    let envoy = world.envoy.as_ref().unwrap();
    let stats = envoy.admin_page("/stats?filter=vm_reload").await;
    assert!(stats.contains("wasm.jagway-egress.vm_reload: "), "no such statistic: {stats}");
    assert!(stats.lines().all(|line| line.ends_with(": 0")), "{stats}");
    let log = envoy.log();
    for word in ["panicked", "VM failed", "unreachable", "Uncaught R", "is in fail state"] {
        assert!(!log.contains(word), "{word}: {}", envoy.log_tail(30));
    }
}
