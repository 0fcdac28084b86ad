//! Both engines over the same signatures, inside a real host. For the tests only: `host-tests/tests/engines.rs`
//! says with which.
//!
//! The configuration is `{"groups": [{"alg", "jwk", "cases": [[text in hex, signature in hex], ...]}]}`.
//! Each tick runs one group and logs one line; the last line is about signing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code)]
#[path = "../src/host.rs"]
mod host;
#[path = "../src/signatures.rs"]
mod signatures;

use host::{Buffer, Level};
use jagway_core::engine::{Engine, ForeignFunctions};
use jagway_core::json;
use jagway_core::jwk::KeySet;
use jagway_core::jws::{self, Algorithm, HeaderRules, Jws};
use jagway_core::signing::SigningKey;
use proxy_wasm::traits::{Context, RootContext};
use signatures::Signatures;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How many tokens are signed.
const TOKENS: usize = 100;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::<Root>::default());
}}

#[derive(Default)]
struct Root {
    groups: Vec<Group>,
    asked: Rc<Cell<usize>>,
    engine: Engine,
}

struct Group {
    algorithm: Algorithm,
    keys: [KeySet; 2],
    cases: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The host's functions, counted.
struct Counted(Rc<Cell<usize>>);

impl ForeignFunctions for Counted {
    fn verify_signature(&self, hash: &str, key: &[u8], sig: &[u8], text: &[u8]) -> Option<bool> {
        let verdict = Signatures.verify_signature(hash, key, sig, text);
        self.0.set(self.0.get() + usize::from(verdict.is_some()));
        verdict
    }

    fn sign(&self, hash: &str, private_key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        let signature = Signatures.sign(hash, private_key, text);
        self.0.set(self.0.get() + usize::from(signature.is_some()));
        signature
    }
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let bytes = host::body(Buffer::PluginConfiguration, 0, size).unwrap();
        self.engine = Engine::probe(Box::new(Counted(self.asked.clone())));
        host::log(Level::Info, &format!("engines: probed: {}", self.engine));
        let document = json::document(&bytes).unwrap();
        for group in document["groups"].as_array().unwrap().iter().rev() {
            let jwk = group["jwk"].as_object().unwrap();
            let keys = || KeySet::of_jwk(jwk).unwrap_or_default();
            let case = |case: &serde_json::Value| {
                (unhex(case[0].as_str().unwrap()), unhex(case[1].as_str().unwrap()))
            };
            self.groups.push(Group {
                algorithm: Algorithm::named(group["alg"].as_str().unwrap()).unwrap(),
                keys: [keys(), keys().with_engine(&self.engine)],
                cases: group["cases"].as_array().unwrap().iter().map(case).collect(),
            });
        }
        host::set_tick_period(1);
        true
    }

    fn on_tick(&mut self) {
        self.asked.set(0);
        let line = match self.groups.pop() {
            Some(group) => group.run(),
            None => {
                host::set_tick_period(0);
                signed(&self.engine)
            }
        };
        host::log(Level::Info, &format!("engines: {line} asked={}", self.asked.get()));
    }
}

impl Group {
    fn run(&self) -> String {
        let (mut taken, mut first_difference) = (0, None);
        let mut spent = [Duration::ZERO; 2];
        for (index, (text, signature)) in self.cases.iter().enumerate() {
            let jws = Jws {
                algorithm: self.algorithm,
                kid: None,
                jwk: None,
                claims: Default::default(),
                signing_input: text,
                signature: signature.clone(),
            };
            let [portable, native] = [0, 1].map(|engine| {
                let began = Instant::now();
                (self.keys[engine].verify(&jws).is_ok(), began.elapsed())
            });
            if portable.0 != native.0 {
                first_difference.get_or_insert(index);
            }
            if portable.0 {
                taken += 1;
                spent[0] += portable.1;
                spent[1] += native.1;
            }
        }
        let [portable, native] = spent.map(|spent| spent.as_micros() / taken.max(1));
        format!(
            "{} cases={} taken={taken} first_difference={first_difference:?} portable_us={portable} \
             native_us={native}",
            self.algorithm.name(),
            self.cases.len(),
        )
    }
}

/// How many of the tokens by `engine` portable code verifies.
fn signed(engine: &Engine) -> String {
    let key = SigningKey::from_p256_scalar(&[7; 32]).unwrap();
    let keys = KeySet::of_jwk(key.public_jwk().as_object().unwrap()).unwrap();
    let rules = HeaderRules { typ: |_| true, algorithms: &[Algorithm::ES256], forbid_keys: true };
    let mut spent = [Duration::ZERO; 2];
    let mut good = 0;
    let engines = [Engine::portable(), engine.clone()];
    for (engine, spent) in engines.iter().zip(&mut spent) {
        let key = SigningKey::from_p256_scalar(&[7; 32]).unwrap().with_engine(engine);
        for token in 0..TOKENS {
            let began = Instant::now();
            let token = key.sign("JWT", &[("token", token)].into_iter().collect());
            *spent += began.elapsed();
            let jws = jws::parse(token.as_bytes(), &rules).unwrap();
            good += usize::from(keys.verify(&jws).is_ok());
        }
    }
    let [portable, native] = spent.map(|spent| spent.as_micros() / TOKENS as u128);
    format!("signing tokens={} taken={good} portable_us={portable} native_us={native}", 2 * TOKENS)
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}
