//! The attack table of the core (`filter/core/tests/attacks`), sent as HTTP to the filter in Envoy: what
//! the caller reads, what Envoy's log says, and that the server behind saw not a byte of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../filter/core/tests/attacks/cases.rs"]
mod cases;
mod support;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cases::{Case, Document, MARK, Scene, Sent, TABLE, assert_answer, refused_by_us};
use host_tests::keys::{random_text, sha256_hex};
use host_tests::raw::{self, RawAnswer};
use host_tests::server::{Place, Server};
use host_tests::upstream::Upstream;
use host_tests::{Options, World, now};
use p256::pkcs8::EncodePrivateKey;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use support::{assert_vm_never_failed, repointed};
use tokio::task::JoinSet;

/// How long Envoy may take to write down what it has already answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// How every token of the table begins whose header is not written by hand.
const JWT: &str = "eyJhbGci";
/// The session that the server behind opens for everybody.
const SESSION: &str = "1868a90c";

/// A world for the table: besides the usual, an issuer of its own for each case that says what an
/// issuer's keys are, and a place that nobody may ever ask.
struct Range {
    world: World,
    backend: Upstream,
    trap: Upstream,
    keys: Server,
}

#[tokio::test]
async fn no_attack_of_the_table_gets_past_the_filter_in_envoy() {
    let range = range().await;
    let mut wrong = Vec::new();
    let (mut tried, mut forwarded) = (0, 0);

    for (group, _) in TABLE {
        for case in cases::cases(group, "envoy") {
            tried += 1;
            forwarded += case.steps.iter().filter(|step| step["forwarded"] == true).count();
            wrong.extend(range.try_one(&case).await);
        }
    }

    assert!(wrong.is_empty(), "{} of {tried}: {wrong:#?}", wrong.len());
    assert_eq!(range.backend.count(), forwarded, "requests behind");
    assert_eq!(range.trap.server.bytes_received(), 0, "somebody was lured away");
    assert_vm_never_failed(&range.world).await;
}

impl Range {
    /// Sends what the case says; what was wrong about any answer.
    async fn try_one(&self, case: &Case) -> Vec<String> {
        let mut wrong = Vec::new();
        let jti = format!("{}-{}", case.name, random_text());
        let mut session = None;
        for (number, step) in case.steps.iter().enumerate() {
            let name = format!("{} step {}", case.name, number + 1);
            let mut scene = self.scene(case, &jti);
            scene.names.extend(session.clone().map(|session| ("SESSION", session)));
            let sent = scene.request(step);
            let bytes = bytes(step, &sent, &self.world.accept_issuer());
            for _ in 0..step["repeat"].as_u64().unwrap_or(1) {
                let (seen, log) = (self.seen(), self.log().len());
                let answers = self.send(step["together"].as_u64().unwrap_or(1), &bytes).await;
                let answers = match step["together"].is_null() {
                    true => answers,
                    false => all_but_one_served(&name, answers, &mut wrong),
                };
                for answer in answers {
                    let log = self.log_with(step, log, &answer).await;
                    let judge = || self.judge(&name, &scene, step, &sent, &answer, seen, &log);
                    let opened = answer.header("mcp-session-id").first().map(|id| id.to_string());
                    session = opened.or(session);
                    if let Err(why) = catch_unwind(AssertUnwindSafe(judge)) {
                        let why = why.downcast_ref::<String>().cloned().unwrap_or(name.clone());
                        wrong.push(why);
                    }
                }
            }
        }
        wrong
    }

    async fn send(&self, times: u64, bytes: &[u8]) -> Vec<RawAnswer> {
        let mut requests = JoinSet::new();
        for _ in 0..times {
            let (origin, bytes) = (self.world.accept_issuer(), bytes.to_vec());
            requests.spawn(async move { raw::send(&origin, &bytes).await });
        }
        requests.join_all().await
    }

    #[allow(clippy::too_many_arguments, reason = "all that is known of one answer")]
    fn judge(
        &self,
        name: &str,
        scene: &Scene,
        step: &Value,
        sent: &Sent,
        answer: &RawAnswer,
        seen: (u64, usize),
        log: &str,
    ) {
        assert!(!answer.head.contains(MARK), "{name}: {answer:?}");
        assert!(!log.contains(MARK) && !log.contains(JWT), "{name}: {log}");
        if step["forwarded"] == true {
            assert_eq!(
                (answer.status, self.backend.count()),
                (200, seen.1 + 1),
                "{name}: {answer:?}"
            );
            return self.assert_clean(name, sent);
        }
        assert_eq!(self.seen(), seen, "{name}: reached the server behind: {answer:?}");
        let mut step = step.clone();
        step["answers"] = scene.value(&step["answers"]);
        let field = |name: &str| answer.header(name).iter().map(|text| text.to_string()).collect();
        assert_answer(name, &step, sent.to_token_endpoint, answer.status, &field, &answer.body);
        if answer.status >= 400 && refused_by_us(&step) {
            let reason = reason(&step);
            assert!(log.contains(&reason), "{name}: no {reason} in {log}");
        }
    }

    /// Nothing that the client proved itself with has arrived, and our credential has.
    fn assert_clean(&self, name: &str, sent: &Sent) {
        let last = self.backend.last();
        let everything = format!("{:?}", last.headers);
        assert_eq!(last.header("x-api-key"), Some(self.world.warehouse_key.as_str()), "{name}");
        assert!(!everything.contains(MARK) && !everything.contains(JWT), "{name}: {everything}");
        assert!(!last.headers.contains_key("authorization"), "{name}");
        assert_eq!(last.body.as_ref(), sent.body, "{name}");
        let presents = sent.headers.iter().any(|(name, _)| name == "mcp-session-id");
        assert_eq!(last.header("mcp-session-id"), presents.then_some(SESSION), "{name}");
    }

    /// Bytes and requests that the server behind has got so far.
    fn seen(&self) -> (u64, usize) {
        (self.backend.server.bytes_received(), self.backend.count())
    }

    fn log(&self) -> String {
        self.world.envoy.as_ref().unwrap().log()
    }

    /// What has been logged since, once the reason of this refusal is there or its time is up; without
    /// the requests' identifiers, which are there to be found again.
    async fn log_with(&self, step: &Value, since: usize, answer: &RawAnswer) -> String {
        let began = std::time::Instant::now();
        loop {
            let log = self.log().split_off(since);
            let wanted = answer.status >= 400 && refused_by_us(step);
            if !wanted || log.contains(&reason(step)) || began.elapsed() > PATIENCE {
                let said = |line: &str| line.split(" request=").next().unwrap_or(line).to_owned();
                return log.lines().map(said).collect::<Vec<_>>().join("\n");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn scene(&self, case: &Case, jti: &str) -> Scene {
        let world = &self.world;
        let idp = world.idp.key();
        let mut scene = fixed_scene(&origin(&self.keys), &origin(&self.trap.server));
        let basic = STANDARD.encode(format!("claude:{}", world.claude.secret));
        let names = [
            ("AS", world.accept_issuer()),
            ("MCP", world.accept_url()),
            ("BILLING", format!("{}/billing", world.accept_issuer())),
            ("SECRET", world.claude.secret.clone()),
            ("BASIC", basic),
            ("JTI", jti.to_owned()),
        ];
        scene.names.extend(names);
        let own = world.accept_issuer();
        scene.names.extend(cases::surroundings(&own, &origin(&self.keys), &case.name));
        let own = world.jagway_key.kid().to_owned();
        scene.keys.push(("own", own, world.jagway_key.pem()));
        if case.steps[0]["jwks"].is_null() {
            scene.names.push(("IDP", world.idp.issuer().to_owned()));
            scene.names.push(("KID", idp.kid().to_owned()));
            // The fixed key of that name is for the issuers that only a case has.
            scene.keys.retain(|(name, ..)| *name != "idp");
            scene.keys.push(("idp", idp.kid().to_owned(), idp.pem()));
        } else {
            scene.names.push(("IDP", format!("{}{}", origin(&self.keys), path_of(case))));
            scene.names.push(("KID", "key-1".to_owned()));
        }
        scene
    }
}

/// One of those who redeem at once is served; the answers of the others.
fn all_but_one_served(
    name: &str,
    answers: Vec<RawAnswer>,
    wrong: &mut Vec<String>,
) -> Vec<RawAnswer> {
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    if served.len() != 1 {
        wrong.push(format!("{name}: {} were served", served.len()));
    }
    refused
}

fn reason(step: &Value) -> String {
    format!("refused [{}]", step["reason"].as_str().unwrap_or_default())
}

fn bytes(step: &Value, sent: &Sent, origin: &str) -> Vec<u8> {
    let fields = sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let host = sent.host.iter().map(|host| ("host", host.as_bytes()));
    let fields: Vec<_> = host.chain(fields).collect();
    let target = sent.path.as_bytes();
    match step["chunk"].as_u64() {
        Some(size) => {
            let trailers = step["trailers"].as_str().unwrap_or_default();
            raw::chunked(origin, target, &fields, &sent.body, size as usize, trailers)
        }
        None => raw::request(&sent.method, origin, target, &fields, &sent.body),
    }
}

/// Where the issuer of this case is, below the server of keys.
fn path_of(case: &Case) -> String {
    format!("/{}", case.name)
}

fn origin(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// What is the same in every world.
fn fixed_scene(keys_origin: &str, trap: &str) -> Scene {
    let keys = [("idp", 1, "key-1"), ("intruder", 2, "new-1"), ("beta", 3, "beta-1")];
    let keys = keys.into_iter().chain([("robot", 4, "robot-1"), ("prover", 5, "prover-1")]);
    let names = [("BETA", format!("{keys_origin}/beta")), ("TRAP", trap.to_owned())];
    Scene {
        now: now(),
        names: names.to_vec(),
        keys: keys.map(|(name, seed, kid)| (name, kid.to_owned(), pem(seed))).collect(),
    }
}

fn pem(seed: u8) -> String {
    let secret = p256::SecretKey::from_slice(&[seed; 32]).unwrap();
    secret.to_pkcs8_pem(Default::default()).unwrap().to_string()
}

async fn range() -> Range {
    let (backend, trap) = (Upstream::start(), Upstream::start());
    backend.answer(200, &[("mcp-session-id", SESSION)]);
    let place = Place::find();
    let scene = fixed_scene(&place.origin(), &origin(&trap.server));
    let (documents, paths) = documents(&scene, &place.origin());
    let issuers: Vec<String> =
        paths.iter().map(|path| format!("{}{path}", place.origin())).collect();
    let keys_origin = place.origin();
    let router = Router::new().fallback(document).with_state(Arc::new(documents));
    let keys = Server::start(place, router);

    let (backend_port, keys_port) = (backend.port(), keys.address().port());
    let options = Options {
        patch_ingress: Some(Box::new(move |config| trust(config, &issuers, scene, &keys_origin))),
        patch_bootstrap: Some(Box::new(move |text| {
            with_keys(repointed(text, "warehouse", backend_port), keys_port)
        })),
        ..Options::default()
    };
    Range { world: World::start(options).await, backend, trap, keys }
}

/// What there is to be fetched, by its path, and below which paths there are issuers of their own.
fn documents(scene: &Scene, keys: &str) -> (BTreeMap<String, Document>, Vec<String>) {
    let mut documents = BTreeMap::new();
    let mut issuers = vec!["/beta".to_owned()];
    for issuer in ["/beta", "/tenants", "/saml", "/logout"] {
        let set = scene.key_set(&json!({ "set": { "keys": [{ "key_of": "beta" }] } }));
        documents.insert(format!("{issuer}/keys"), set.unwrap());
    }
    let refused = json!({ "status": 401, "set": { "error": "invalid_client" } });
    documents.insert("/backend/token".to_owned(), scene.key_set(&refused).unwrap());
    for case in TABLE.iter().flat_map(|(group, _)| cases::cases(group, "envoy")) {
        let (first, path) = (&case.steps[0], path_of(&case));
        if !first["jwks"].is_null() {
            documents.insert(format!("{path}/keys"), scene.key_set(&first["jwks"]).unwrap());
            issuers.push(path);
        } else if !first["document"].is_null() {
            let mut scene = scene.clone();
            scene.names.extend(cases::surroundings(keys, keys, &case.name));
            documents.insert(path, scene.client_document(&first["document"]).unwrap());
        }
    }
    (documents, issuers)
}

/// Adds what the table takes for granted: the issuers, clients and resources of its cases.
fn trust(config: &mut Value, issuers: &[String], mut scene: Scene, keys: &str) {
    let mut trusted = vec!["acme".to_owned()];
    for (number, issuer) in issuers.iter().enumerate() {
        let name = format!("issuer-{number}");
        config["identity_providers"][&name] =
            json!({ "issuer": issuer, "cluster": "keys", "jwks_uri": format!("{issuer}/keys") });
        trusted.push(name);
    }
    let server = &mut config["authorization_server"];
    let own = server["issuer"].as_str().unwrap().to_owned();
    let robot = scene.value(&json!({ "key_of": "robot" }));
    let before = json!({ "key": { "env": "SIGNING_KEY" }, "kid": "own-0" });
    server["signing_keys"].as_array_mut().unwrap().push(before);
    server["clients"]["claude"]["identity_providers"] = json!(trusted);
    server["clients"]["other"] =
        json!({ "secret_sha256": sha256_hex("other-secret"), "identity_providers": ["acme"] });
    server["clients"]["robot"] = json!({
        "private_key_jwt": { "jwks": { "keys": [robot] } }, "identity_providers": trusted,
    });
    let billing = format!("{own}/billing");
    let mut resource = config["resources"][0].clone();
    resource["resource"] = billing.into();
    config["resources"].as_array_mut().unwrap().push(resource);
    scene.names.extend(cases::surroundings(&own, keys, ""));
    cases::furnish(config, &scene, &Value::Null);
}

/// The bootstrap with a cluster for the issuers of the table, and with trailers let through.
fn with_keys(text: String, port: u16) -> String {
    let trailers =
        "stat_prefix: ingress\n          http_protocol_options: { enable_trailers: true }";
    let text = text.replace("stat_prefix: ingress", trailers);
    let cluster = format!(
        "  clusters:\n  - name: keys\n    connect_timeout: 1s\n    load_assignment:\n      cluster_name: keys\n      \
         endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: \
         {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]\n"
    );
    text.replacen("  clusters:\n", &cluster, 1)
}

async fn document(
    State(all): State<Arc<BTreeMap<String, Document>>>,
    request: Request,
) -> Response {
    let Some(Document { status, fields, body }) = all.get(request.uri().path()) else {
        return Response::builder().status(404).body("".into()).unwrap();
    };
    let mut response = Response::builder().status(*status);
    for (name, value) in fields {
        response = response.header(*name, value);
    }
    response.body(body.clone().into()).unwrap()
}
