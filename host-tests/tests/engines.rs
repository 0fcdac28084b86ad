//! Two engines, one verdict, by the functions of a real Envoy; and Envoy with and without them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "engines/cases.rs"]
mod signatures;
mod support;

use std::collections::BTreeMap;

use host_tests::client_auth::AuthMethod;
use host_tests::envoy::Envoy;
use host_tests::jwks::verify_with;
use host_tests::world::Patch;
use host_tests::{Options, World, wasm};
use jagway_core::jwk::KeySet;
use jagway_core::jws::{self, Algorithm, HeaderRules};
use serde_json::{Value, json};
use signatures::Group;
use support::{assert_alive, id_jag, until};

const BOOTSTRAP: &str = r#"
bootstrap_extensions:
- name: envoy.bootstrap.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService
    singleton: true
    config:
      root_id: engines
      vm_config: { runtime: envoy.wasm.runtime.v8, code: { local: { filename: "${WASM}" } } }
      configuration: { "@type": type.googleapis.com/google.protobuf.StringValue, value: ${CASES} }
"#;

/// What a line of the log says after `engines: `.
struct Line {
    what: String,
    numbers: BTreeMap<String, String>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (_, said) = line.rsplit_once("engines: ")?;
        let (what, numbers) = said.split_once(' ')?;
        let numbers = numbers.split(' ').filter_map(|pair| pair.split_once('='));
        let numbers = numbers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self { what: what.to_owned(), numbers })
    }

    fn number(&self, name: &str) -> usize {
        self.numbers[name].parse().unwrap()
    }
}

/// Runs all `groups` through both engines in Envoy. What it says of each, and then of signing.
async fn run(groups: &[Group]) -> Vec<Line> {
    let module = tokio::task::spawn_blocking(|| wasm::example("engines")).await.unwrap();
    let written: Vec<Value> = groups.iter().map(Group::written).collect();
    let cases = json!({ "groups": written }).to_string();
    let bootstrap = BOOTSTRAP
        .replace("${WASM}", &module.display().to_string())
        .replace("${CASES}", &json!(cases).to_string());
    let envoy = Envoy::start(&bootstrap, &[], 1).await;
    assert!(envoy.log().contains(
        "engines: probed: the host verifies RS256, RS384, RS512, ES256, ES384 and signs ES256"
    ));
    until(120, "the last group", || envoy.log().contains("engines: signing")).await;
    let log = envoy.log();
    log.lines().filter_map(Line::parse).filter(|line| line.what != "probed:").collect()
}

#[tokio::test]
async fn both_engines_have_the_same_verdict_on_every_signature() {
    let groups = signatures::all();
    let mut asked = BTreeMap::<String, usize>::new();

    let lines = run(&groups).await;

    let whats: Vec<_> = lines.iter().map(|line| &line.what).collect();
    assert_eq!(lines.len(), groups.len() + 1, "{whats:?}");
    for (line, group) in lines.iter().zip(&groups) {
        println!("{} {:?}", line.what, line.numbers);
        assert_eq!(line.what, group.algorithm);
        assert_eq!(line.numbers["first_difference"], "None", "{:?}", group.jwk);
        assert_eq!(line.number("cases"), group.cases.len());
        assert_eq!(line.number("taken"), group.good, "{:?}", group.jwk);
        *asked.entry(line.what.clone()).or_default() += line.number("asked");
    }
    let signing = &lines[groups.len()];
    println!("{} {:?}", signing.what, signing.numbers);
    assert_eq!((signing.number("tokens"), signing.number("taken")), (200, 200));
    assert_eq!(signing.number("asked"), 100);
    let cases: usize = groups.iter().map(|group| group.cases.len()).sum();
    println!("{cases} signatures in {} groups; asked: {asked:?}", groups.len());
    assert!(cases > 2500, "{cases}");
    for algorithm in ["RS256", "RS384", "RS512", "ES256", "ES384"] {
        assert!(asked[algorithm] > 150, "{algorithm}: {asked:?}");
    }
    assert_eq!(asked["PS256"], 0);
}

/// Both ways, with our own assertions at both authorization servers: a call of `upgrade`, a grant and a
/// call of `accept`. The access token of the latter.
async fn journey(world: &World) -> String {
    let mut alice = world.client_with_id_token();
    alice.initialize().await.unwrap();
    alice.call("list_tickets", json!({})).await.unwrap();
    let token = world.redeem_at_jagway(&id_jag(world, |_, _| {})).await.token().to_owned();
    let mut claude = world.client_with_access_token(&token);
    claude.initialize().await.unwrap();
    claude.call("stock_list", json!({})).await.unwrap();
    assert_alive(world).await;
    token
}

async fn world(options: Options) -> World {
    let (idp_auth, tickets_as_auth) = (AuthMethod::PrivateKeyJwt, AuthMethod::PrivateKeyJwt);
    World::start(Options { idp_auth, tickets_as_auth, ..options }).await
}

/// What Envoy says of who verifies and signs: in its log, once for each worker and listener, and as a
/// gauge.
async fn told(world: &World) -> (Vec<String>, Option<u64>) {
    let envoy = world.envoy.as_ref().unwrap();
    let log = envoy.log();
    let lines = log.lines().filter_map(|line| Some(line.split_once("signatures: ")?.1.to_owned()));
    let mut lines: Vec<String> = lines.collect();
    lines.sort_unstable();
    lines.dedup();
    (lines, envoy.stat("wasmcustom.jagway.native_signatures").await)
}

#[tokio::test]
async fn what_the_host_signs_is_a_jws_like_any_other() {
    let world = world(Options::default()).await;

    let token = journey(&world).await;

    let all = "the host verifies RS256, RS384, RS512, ES256, ES384 and signs ES256, the rest is \
               portable";
    assert_eq!(told(&world).await, (vec![all.to_owned()], Some(6)));
    let jwk = world.jagway_key.jwk();
    let keys = KeySet::of_jwk(jwk.as_object().unwrap()).unwrap();
    let rules = HeaderRules { typ: |_| true, algorithms: &[Algorithm::ES256], forbid_keys: true };
    assert!(keys.verify(&jws::parse(token.as_bytes(), &rules).unwrap()).is_ok());
    let claims = verify_with(&serde_json::from_value(jwk).unwrap(), &token).unwrap();
    assert_eq!(claims["iss"], world.accept_issuer());
}

#[tokio::test]
async fn without_the_hosts_functions_everything_works() {
    let off =
        || -> Option<Patch> { Some(Box::new(|config| config["native_signatures"] = json!(false))) };
    let options = Options { patch_egress: off(), patch_ingress: off(), ..Options::default() };
    let world = world(options).await;

    journey(&world).await;

    assert_eq!(told(&world).await, (vec!["all portable".to_owned()], Some(0)));
}

#[tokio::test]
async fn a_key_that_the_host_cannot_sign_with_is_told() {
    let world = world(Options { eddsa: true, ..Options::default() }).await;

    journey(&world).await;

    let (lines, natives) = told(&world).await;
    let hint = "; our own key is EdDSA, and ES256 would be faster here";
    assert_eq!(lines.iter().filter(|line| line.ends_with(hint)).count(), 1, "{lines:?}");
    assert_eq!(natives, Some(6));
}
