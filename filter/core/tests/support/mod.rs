//! Two cores and a clock: workers that share a store in memory, and an identity provider made of
//! one key. No network, no time but a number.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod assertions;
pub mod hosts;
pub mod revocation;
pub mod servers;

use jagway_core::config::Config;
use jagway_core::digest::{hex, sha256};
use jagway_core::engine::Engine;
use jagway_core::flow::Moment;
use jagway_core::http::{Answer, CallFailed, Callout, Headers, Request};
use jagway_core::signing::SigningKey;
use jagway_core::site::Site;
use jagway_core::store::Memory;
use jagway_core::worker::{AfterResponse, ResponseEdits, Run, StreamId, Todo, Verdict, Worker};
use p256::elliptic_curve::SecretKey;
use p256::pkcs8::EncodePrivateKey;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The moment at which every test begins, in seconds since the epoch.
pub const NOW: u64 = 1_800_000_000;

pub const IDP: &str = "https://acme.idp.example";
pub const AS: &str = "https://mcp.acme.example";
pub const WAREHOUSE: &str = "https://mcp.acme.example/warehouse";
pub const CLIENT_SECRET: &str = "s3cret";

/// A P-256 key that is the same in every run; `seed` tells keys apart.
pub fn pem(seed: u8) -> String {
    let secret = SecretKey::<p256::NistP256>::from_slice(&[seed; 32]).unwrap();
    secret.to_pkcs8_pem(Default::default()).unwrap().to_string()
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_pem(&pem(seed), Some(&format!("key-{seed}"))).unwrap()
}

/// The identity provider's key set: key 1.
pub fn jwks(seeds: &[u8]) -> Vec<u8> {
    let keys: Vec<Value> = seeds.iter().map(|seed| key(*seed).public_jwk()).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

pub fn env(name: &str) -> Option<String> {
    Some(match name {
        "SIGNING_KEY" => pem(9),
        "WAREHOUSE_KEY" => "warehouse-key".to_owned(),
        "IDP_SECRET" => "idp-secret".to_owned(),
        "AS_SECRET" => "as-secret".to_owned(),
        "BOT_REFRESH" => "bot-refresh-token".to_owned(),
        "OTHER_REFRESH" => "other-refresh-token".to_owned(),
        "BOT_ID_TOKEN" => servers::id_token(&json!({ "exp": NOW + 120 })),
        "OLD_ID_TOKEN" => servers::id_token(&json!({ "exp": NOW })),
        "ENDLESS_ID_TOKEN" => servers::id_token(&json!({ "exp": null })),
        "ACTOR" => "actor-token".to_owned(),
        "WITH_COLON" => "a:b c%".to_owned(),
        "WITH_NEWLINE" => "secret\n".to_owned(),
        "TWO_LINES" => "one\ntwo".to_owned(),
        "EMPTY" => String::new(),
        "NOT_A_KEY" => "not a key".to_owned(),
        _ => return None,
    })
}

/// A configuration that accepts ID-JAGs of one provider for one client and one resource.
pub fn accept_config() -> Value {
    json!({
        "identity_providers": {
            "acme": { "issuer": IDP, "cluster": "idp", "jwks_uri": format!("{IDP}/keys") },
        },
        "authorization_server": {
            "issuer": AS,
            "signing_keys": [{ "key": { "env": "SIGNING_KEY" }, "kid": "own-1" }],
            "clients": {
                "claude": {
                    "secret_sha256": hex(&sha256(CLIENT_SECRET.as_bytes())),
                    "identity_providers": ["acme"],
                },
                "other": {
                    "secret_sha256": hex(&sha256(b"other-secret")),
                    "identity_providers": ["acme"],
                },
            },
        },
        "resources": [{
            "resource": WAREHOUSE,
            "accept": {
                "name": "Warehouse",
                "scopes": ["stock.read", "stock.write"],
                "credential": { "header": "X-API-Key", "value": { "env": "WAREHOUSE_KEY" } },
            },
        }],
    })
}

/// A configuration that upgrades callers of a resource whose authorization server is `as_issuer`.
pub fn upgrade_config() -> Value {
    json!({
        "identity_providers": {
            "acme": {
                "issuer": IDP,
                "cluster": "idp",
                "client": { "id": "jagway", "secret": { "env": "IDP_SECRET" } },
            },
        },
        "resources": [{
            "resource": WAREHOUSE,
            "upgrade": {
                "url": "https://tickets.internal.example/mcp",
                "identity_provider": "acme",
                "authorization_server": {
                    "issuer": AS,
                    "cluster": "as",
                    "client": { "id": "claude", "secret": { "env": "AS_SECRET" } },
                },
                "scopes": ["stock.read"],
                "callers": [
                    { "id_token": {} },
                    {
                        "api_key": { "header": "x-api-key", "sha256": hex(&sha256(b"bot-key")) },
                        "subject": { "refresh_token": { "env": "BOT_REFRESH" } },
                    },
                    {
                        "api_key": { "header": "x-api-key", "sha256": hex(&sha256(b"other-key")) },
                        "subject": { "refresh_token": { "env": "OTHER_REFRESH" } },
                    },
                ],
            },
        }],
    })
}

thread_local! {
    static ENGINE: RefCell<Engine> = RefCell::default();
}

/// From here on this test's configurations find a host that does all it can. How often it is asked.
pub fn with_host() -> Rc<hosts::Asked> {
    let asked = Rc::<hosts::Asked>::default();
    let (verify, sign) = (hosts::rightly, hosts::right);
    let engine = Engine::probe(Box::new(hosts::Host { asked: asked.clone(), verify, sign }));
    assert_eq!(engine.natives(), 6);
    asked.verify.set(0);
    asked.sign.set(0);
    ENGINE.set(engine);
    asked
}

pub fn parse(config: &Value) -> Config {
    let engine = || ENGINE.with_borrow(Engine::clone);
    Config::parse_with(config.to_string().as_bytes(), &env, &engine).unwrap()
}

/// Claims of a sound ID-JAG for [`accept_config`], with `jti`.
pub fn id_jag_claims(jti: &str) -> Value {
    json!({
        "iss": IDP, "sub": "alice", "aud": AS, "client_id": "claude", "jti": jti,
        "iat": NOW, "exp": NOW + 300, "resource": WAREHOUSE, "scope": "stock.read stock.write",
    })
}

pub fn id_jag(jti: &str) -> String {
    key(1).sign("oauth-id-jag+jwt", &id_jag_claims(jti))
}

/// A token request with `fields` and HTTP Basic as `claude`.
pub fn token_request() -> Request {
    let basic = "Basic Y2xhdWRlOnMzY3JldA==";
    request(
        "POST",
        "mcp.acme.example",
        "/token",
        &[("content-type", "application/x-www-form-urlencoded"), ("authorization", basic)],
    )
}

pub fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(fields).finish().into_bytes()
}

pub fn grant(assertion: &str) -> Vec<u8> {
    form(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion)])
}

pub fn request(method: &str, authority: &str, path: &str, fields: &[(&str, &str)]) -> Request {
    let head = [(":method", method), (":authority", authority), (":path", path)];
    let all = head.iter().chain(fields);
    let headers = all.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    let source = "192.0.2.1:1234".to_owned();
    Request { headers: Headers::new(headers.collect()), source, certificate: None }
}

pub fn json_answer(status: u16, body: &Value) -> Result<Answer, CallFailed> {
    answer(status, body.to_string().as_bytes())
}

pub fn answer(status: u16, body: &[u8]) -> Result<Answer, CallFailed> {
    let headers = Headers::new(vec![(":status".to_owned(), status.to_string().into_bytes())]);
    Ok(Answer { status, headers, body: body.to_vec() })
}

/// How a stream went on.
pub fn status(verdict: &Verdict) -> u16 {
    match verdict {
        Verdict::Forward(..) | Verdict::Pass => 0,
        Verdict::Reply(reply) => reply.status,
        Verdict::Answer(answer) => answer.status,
    }
}

pub fn body(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Reply(reply) => serde_json::from_str(&reply.body).unwrap_or_default(),
        _ => Value::Null,
    }
}

pub fn header<'a>(verdict: &'a Verdict, name: &str) -> Option<&'a str> {
    match verdict {
        Verdict::Forward(..) | Verdict::Pass | Verdict::Answer(_) => None,
        Verdict::Reply(reply) => {
            let mut fields = reply.headers.iter();
            fields.find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
        }
    }
}

/// Workers of one process. What they ask for is done in order, except that callouts wait until
/// [`Process::answer`].
pub struct Process {
    pub workers: Vec<Worker>,
    pub store: Rc<Memory>,
    pub now: u64,
    pub callouts: Vec<(usize, Run, Callout)>,
    pub concluded: Vec<(usize, StreamId, Verdict)>,
    pub log: Vec<String>,
    pub counts: BTreeMap<String, u64>,
    pub closed: Vec<(usize, StreamId)>,
    entropy: Cell<u64>,
}

impl Process {
    pub fn new(config: &Value, workers: usize) -> Self {
        let store = Rc::new(Memory::default());
        let mut process = Self {
            workers: Vec::new(),
            store: store.clone(),
            now: NOW,
            callouts: Vec::new(),
            concluded: Vec::new(),
            log: Vec::new(),
            counts: BTreeMap::new(),
            closed: Vec::new(),
            entropy: Cell::new(0),
        };
        for index in 0..workers {
            let site = Rc::new(Site::new(parse(config), store.clone()));
            let mut worker = Worker::new(site, index as u64 + 1);
            let place = worker.join(NOW).unwrap();
            // The queue of worker n is number n.
            worker.listens(place, place as u32, NOW);
            process.workers.push(worker);
        }
        process
    }

    /// Another configuration's worker, with the same store.
    pub fn beside(other: &Self, config: &Value) -> Self {
        let mut process = Self::new(config, 0);
        process.store = other.store.clone();
        let site = Rc::new(Site::new(parse(config), other.store.clone()));
        process.workers.push(Worker::new(site, 77));
        process
    }

    pub fn moment(&self) -> Moment {
        self.entropy.set(self.entropy.get() + 1);
        Moment { now: self.now, entropy: sha256(&self.entropy.get().to_be_bytes()) }
    }

    pub fn request(&mut self, worker: usize, stream: StreamId, request: Request) {
        let moment = self.moment();
        let todo = self.workers[worker].request(stream, request, false, moment);
        self.perform(worker, todo);
    }

    pub fn request_with_body(
        &mut self,
        worker: usize,
        stream: StreamId,
        request: Request,
        body: Vec<u8>,
    ) {
        let moment = self.moment();
        let todo = self.workers[worker].request(stream, request, true, moment);
        let collects = todo.iter().any(|todo| matches!(todo, Todo::Collect(..)));
        self.perform(worker, todo);
        if collects {
            let todo = self.workers[worker].body(stream, body, moment);
            self.perform(worker, todo);
        }
    }

    /// As when workers start.
    pub fn warm_up(&mut self) {
        for worker in 0..self.workers.len() {
            let moment = self.moment();
            let todo = self.workers[worker].warm_up(moment);
            self.perform(worker, todo);
        }
    }

    pub fn tick(&mut self) {
        for worker in 0..self.workers.len() {
            let moment = self.moment();
            let todo = self.workers[worker].tick(moment);
            self.perform(worker, todo);
            let todo = self.workers[worker].cut(self.now);
            self.perform(worker, todo);
        }
    }

    /// Answers every callout that waits, and those that follow, with what `host` says.
    pub fn answer(&mut self, host: &mut dyn FnMut(&Callout) -> Result<Answer, CallFailed>) {
        while !self.callouts.is_empty() {
            let (worker, run, callout) = self.callouts.remove(0);
            let moment = self.moment();
            let todo = self.workers[worker].answered(&run, host(&callout), moment);
            self.perform(worker, todo);
        }
    }

    /// The server behind answers what `worker` forwarded on `stream`; nothing can be sent once more.
    pub fn responds(
        &mut self,
        worker: usize,
        stream: StreamId,
        after: &AfterResponse,
        headers: &Headers,
    ) -> (ResponseEdits, Vec<Todo>) {
        let moment = self.moment();
        self.workers[worker].response(stream, after, headers, &mut || None, moment)
    }

    /// The one verdict there is.
    pub fn verdict(&mut self) -> Verdict {
        assert_eq!(self.concluded.len(), 1, "{:?}", self.concluded);
        self.concluded.remove(0).2
    }

    fn perform(&mut self, worker: usize, todo: Vec<Todo>) {
        for todo in todo {
            match todo {
                Todo::Conclude(stream, verdict) => self.concluded.push((worker, stream, verdict)),
                Todo::Dispatch(run, callout) => self.callouts.push((worker, run, callout)),
                Todo::Warn(line) | Todo::Info(line) => self.log.push(line),
                Todo::Count(kind, what) => {
                    *self.counts.entry(format!("{kind}.{what}")).or_default() += 1
                }
                Todo::Collect(..) => {}
                Todo::Close(stream) => self.closed.push((worker, stream)),
                Todo::Wake => {
                    let moment = self.moment();
                    let todo = self.workers[worker].turn(moment);
                    self.perform(worker, todo);
                }
                Todo::Tell(queue, key) => {
                    let moment = self.moment();
                    let other = queue as usize;
                    let todo = self.workers[other].note(&key, moment);
                    self.perform(other, todo);
                }
            }
        }
    }
}

/// Sends `request` with `body` to a fresh Resource AS whose identity provider has key 1.
pub fn at_token_endpoint(process: &mut Process, request: Request, body: Vec<u8>) -> Verdict {
    process.request_with_body(0, 1, request, body);
    process.answer(&mut |_| answer(200, &jwks(&[1])));
    process.verdict()
}
