//! Keys that change while requests keep coming, through the real Envoy: Jagway's own, and the IdP's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::endpoints::Fault;
use host_tests::envoy::Envoy;
use host_tests::jwks::http_client;
use host_tests::keys::{SigningKey, random_text};
use host_tests::names::{GRANT_JWT_BEARER, TYP_ID_JAG};
use host_tests::oauth_client::form;
use host_tests::raw::{self, RawAnswer};
use host_tests::upstream::Upstream;
use host_tests::{Options, World};
use jsonwebtoken::decode_header;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// As [`raw::send`], but an Envoy that ends just then is an answer too, without a status.
async fn send(origin: &str, bytes: &[u8]) -> RawAnswer {
    let Ok(mut stream) = TcpStream::connect(origin.trim_start_matches("http://")).await else {
        return RawAnswer { status: 0, head: String::new(), body: String::new() };
    };
    let _ = stream.write_all(bytes).await;
    raw::read(&mut stream).await
}

/// Over a connection of its own, so that any worker, or either of two Envoys, may get it.
async fn redeem(origin: &str, basic: &str, id_jag: &str) -> RawAnswer {
    let body = form(&[("grant_type", GRANT_JWT_BEARER), ("assertion", id_jag)]);
    let headers: [(&str, &[u8]); 2] = [
        ("content-type", b"application/x-www-form-urlencoded"),
        ("authorization", basic.as_bytes()),
    ];
    let bytes = raw::request("POST", origin, b"/token", &headers, body.as_bytes());
    send(origin, &bytes).await
}

/// As [`redeem`], for a call with this token.
async fn call(origin: &str, token: &str) -> RawAnswer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_bytes())];
    send(origin, &raw::request("POST", origin, b"/mcp", &headers, b"{}")).await
}

fn token_of(answer: &RawAnswer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

fn kid_of(token: &str) -> String {
    decode_header(token).unwrap().kid.unwrap()
}

/// The setting `signing_keys`, for the keys with these names.
fn signing_keys(names: &[&str]) -> String {
    let key = |name: &&str| json!({ "key": { "env": format!("KEY_{name}") }, "kid": name });
    json!(names.iter().map(key).collect::<Vec<_>>()).to_string()
}

/// A world that signs with the key called OLD and has one called NEW in its environment, with a recording server
/// behind the ingress listener; and that environment.
async fn world_with_two_keys() -> (World, Upstream, Vec<(String, String)>) {
    let backend = Upstream::start();
    let port = backend.port();
    let keys = ["OLD", "NEW"].map(|name| (format!("KEY_{name}"), SigningKey::es256(name).pem()));
    let patch_ingress = |config: &mut Value| {
        config["authorization_server"]["signing_keys"] = json!("THE KEYS");
    };
    let patch_bootstrap = move |text: String| {
        let text = repointed(text, "warehouse", port);
        let names = "host_env_keys: [SIGNING_KEY";
        let text = text.replace(names, &format!("{names}, KEY_OLD, KEY_NEW"));
        text.replace("\"THE KEYS\"", &signing_keys(&["OLD"]))
    };
    let options = Options {
        env: keys.to_vec(),
        patch_ingress: Some(Box::new(patch_ingress)),
        patch_bootstrap: Some(Box::new(patch_bootstrap)),
        ..Options::default()
    };
    let world = World::start(options).await;
    let own = [
        ("IDP_CLIENT_SECRET", &world.app.secret),
        ("TICKETS_AS_SECRET", &world.jagway_at_tickets.secret),
        ("CI_BOT_REFRESH", &world.ci_bot.refresh_token),
        ("WAREHOUSE_KEY", &world.warehouse_key),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.clone()));
    (world, backend, own.into_iter().chain(keys).collect())
}

/// Starts an Envoy with these keys beside the one there is, on the same ports, and then stops that one.
async fn roll(world: &mut World, env: &[(String, String)], names: &[&str]) {
    let text = world.bootstrap_text().replace(&signing_keys(&["OLD"]), &signing_keys(names));
    let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    world.envoy = Some(Envoy::start(&text, &env, 2).await);
}

/// Clients that go on redeeming and calling: tokens they were given are used again and again.
struct Trickle {
    seen: Arc<Mutex<Seen>>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    tokens: Vec<String>,
    rounds: usize,
    over: bool,
    refused: Vec<String>,
}

impl Trickle {
    /// Lets four clients loose on a world.
    fn start(world: &World) -> Self {
        let (seen, mut clients) = (Arc::<Mutex<Seen>>::default(), JoinSet::new());
        let (key, origin, basic) = (world.idp.key(), world.accept_issuer(), basic(&world.claude));
        let (header, claims) = world.idp.id_jag_parts(&world.warehouse_connection(), "alice");
        for _ in 0..4 {
            let (seen, key, header) = (seen.clone(), key.clone(), header.clone());
            let (origin, basic, mut claims) = (origin.clone(), basic.clone(), claims.clone());
            clients.spawn(async move {
                while !seen.lock().unwrap().over {
                    claims["jti"] = json!(random_text());
                    Self::round(&seen, &origin, &basic, &key.sign(&header, &claims)).await;
                }
            });
        }
        Self { seen, clients }
    }

    async fn round(seen: &Mutex<Seen>, origin: &str, basic: &str, id_jag: &str) {
        let answer = redeem(origin, basic, id_jag).await;
        let token = (answer.status == 200).then(|| token_of(&answer));
        let sample: Vec<_> = {
            let mut seen = seen.lock().unwrap();
            seen.tokens.extend(token);
            seen.tokens.iter().step_by(seen.tokens.len() / 4 + 1).cloned().collect()
        };
        let mut answers = vec![answer];
        for token in sample {
            answers.push(call(origin, &token).await);
        }
        let mut seen = seen.lock().unwrap();
        seen.rounds += 1;
        // A connection that was cut because its Envoy ended is no refusal.
        let refused = answers.into_iter().filter(|answer| ![0, 200].contains(&answer.status));
        seen.refused.extend(refused.map(|answer| format!("{answer:?}")));
    }

    /// Waits until whatever was under way is done, and some more.
    async fn a_while(&self) {
        let rounds = || self.seen.lock().unwrap().rounds;
        let goal = rounds() + 40;
        until(20, "requests keep coming", || rounds() >= goal).await;
    }

    /// Uses no tokens but those of this key from now on; gives the others.
    async fn keep_to(&self, kid: &str) -> Vec<String> {
        let all = std::mem::take(&mut self.seen.lock().unwrap().tokens);
        let (kept, dropped) = all.into_iter().partition(|token| kid_of(token) == kid);
        self.seen.lock().unwrap().tokens = kept;
        self.a_while().await;
        dropped
    }

    async fn stop_and_assert_none_was_refused(&mut self) {
        self.seen.lock().unwrap().over = true;
        while self.clients.join_next().await.is_some() {}
        let seen = self.seen.lock().unwrap();
        assert!(seen.refused.is_empty(), "{} refused: {}", seen.refused.len(), seen.refused[0]);
    }
}

#[tokio::test]
async fn our_own_key_is_replaced_and_no_good_token_is_refused() {
    let (mut world, backend, env) = world_with_two_keys().await;
    let origin = world.accept_issuer();
    let mut trickle = Trickle::start(&world);
    trickle.a_while().await;

    // Published before it signs, and as long as tokens of the old one live.
    roll(&mut world, &env, &["OLD", "NEW"]).await;
    trickle.a_while().await;
    let prepared = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await;
    roll(&mut world, &env, &["NEW", "OLD"]).await;
    trickle.a_while().await;
    let replaced = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await;
    let keys = http_client("test").get(format!("{origin}/.well-known/jagway/jwks.json"));
    let keys: Value = keys.send().await.unwrap().json().await.unwrap();
    let old_still = call(&origin, prepared.token()).await;
    let old = trickle.keep_to("NEW").await;
    roll(&mut world, &env, &["NEW"]).await;
    trickle.a_while().await;
    trickle.stop_and_assert_none_was_refused().await;

    assert_eq!((&*kid_of(prepared.token()), &*kid_of(replaced.token())), ("OLD", "NEW"));
    let kids: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
    assert_eq!(kids, ["NEW", "OLD"]);
    assert_eq!(old_still.status, 200, "{old_still:?}");
    let before = backend.count();
    for token in old.iter().take(20).chain([&prepared.token().to_owned()]) {
        let refused = call(&origin, token).await;
        assert_eq!(refused.status, 401, "{refused:?}");
        assert!(refused.header("www-authenticate").concat().contains("invalid_token"));
    }
    assert!(old.len() > 20);
    assert_eq!(backend.count(), before);
    assert_eq!(call(&origin, replaced.token()).await.status, 200);
    assert_vm_never_failed(&world).await;
}

/// A grant that this key has signed.
fn id_jag_by(world: &World, key: &SigningKey) -> String {
    let (_, claims) = world.idp.id_jag_parts(&world.warehouse_connection(), "alice");
    key.sign(&key.header(TYP_ID_JAG), &claims)
}

fn publish(world: &World, keys: &[&SigningKey]) {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    world.idp.endpoints().fail("/jwks", Fault::Body(json!({ "keys": keys }).to_string()));
}

/// Redeems grants of these keys in turn for this long; the statuses of those that were refused.
async fn stream(world: &World, keys: &[&SigningKey], long: Duration) -> Vec<u16> {
    let (origin, basic, began) = (world.accept_issuer(), basic(&world.claude), Instant::now());
    let mut refused = vec![];
    for key in keys.iter().cycle() {
        let answer = redeem(&origin, &basic, &id_jag_by(world, key)).await;
        refused.extend((answer.status != 200).then_some(answer.status));
        if began.elapsed() >= long {
            break;
        }
    }
    refused
}

/// The IdP takes a new key into use every three seconds, and publishes the last one or not; how many grants of
/// published keys were refused, by round.
async fn refused_while_the_idp_rotates(overlap: bool) -> Vec<Vec<u16>> {
    let world = World::start(Options { concurrency: 4, ..Options::default() }).await;
    let mut last = world.idp.key();
    let mut refused = vec![stream(&world, &[&last], Duration::from_secs(2)).await];
    for round in 0..4 {
        let next = SigningKey::es256(&format!("acme-{}", round + 2));
        let published = if overlap { vec![&next, &last] } else { vec![&next] };
        publish(&world, &published);
        refused.push(stream(&world, &published, Duration::from_secs(3)).await);
        last = next;
    }
    assert_vm_never_failed(&world).await;
    refused
}

#[tokio::test]
async fn an_idp_that_rotates_with_overlap_has_no_good_grant_refused() {
    let refused = refused_while_the_idp_rotates(true).await;

    assert!(refused.iter().all(Vec::is_empty), "{refused:?}");
}

#[tokio::test]
async fn an_idp_that_rotates_without_overlap_has_no_grant_of_its_new_key_refused() {
    let refused = refused_while_the_idp_rotates(false).await;

    assert!(refused.iter().all(Vec::is_empty), "{refused:?}");
}

#[tokio::test]
async fn forty_cold_grants_on_four_workers_are_one_fetch_of_the_keys() {
    // The other direction, which has keys of its own, is sent elsewhere.
    let patch = |config: &mut Value| {
        let acme = &mut config["identity_providers"]["acme"];
        acme["jwks_uri"] = json!(format!("{}/elsewhere", acme["issuer"].as_str().unwrap()));
    };
    let patch_egress = Some(Box::new(patch) as Box<_>);
    let world = World::start(Options { concurrency: 4, patch_egress, ..Options::default() }).await;
    world.idp.endpoints().fail("/jwks", Fault::Delay(Duration::from_millis(300)));
    let mut requests = JoinSet::new();

    for _ in 0..40 {
        let (origin, basic) = (world.accept_issuer(), basic(&world.claude));
        let id_jag = id_jag(&world, |_, _| {});
        requests.spawn(async move { redeem(&origin, &basic, &id_jag).await.status });
    }
    let statuses = requests.join_all().await;

    assert_eq!(statuses, [200; 40]);
    assert_eq!(world.idp.endpoints().count_from("Jagway", "/jwks"), 1);
    assert_vm_never_failed(&world).await;
}
