//! What holds for everything that is revoked, whoever asked for it: where, for whom, and as long as what.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::{hex, sha256};
use jagway_core::site::Site;
use jagway_core::store::{Memory, Store, Unavailable};
use jagway_core::worker::Worker;
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use support::revocation::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn the_endpoints_exist_where_somebody_may_use_them() {
    let provider = |ways: Value| {
        let mut config = accept_config();
        config["identity_providers"]["acme"]["revocation"] = ways;
        config
    };
    let operator = {
        let mut config = accept_config();
        config["authorization_server"]["revocation"] =
            json!({ "operator_token_sha256": hex(&sha256(b"x")) });
        config
    };
    let cases = [
        ("nobody", accept_config(), false, false),
        ("an operator", operator, true, false),
        ("a provider asks", provider(json!({ "global_token_revocation": true })), true, false),
        ("a provider pushes", provider(json!({ "security_events": {} })), false, true),
    ];

    for (what, config, asks, pushes) in cases {
        let mut process = Process::new(&config, 1);
        let mut exists = |authority: &str, path: &str| {
            process.request(0, 1, request("GET", authority, path, &[]));
            status(&process.verdict()) == 405
        };
        let here = "mcp.acme.example";
        assert!(exists(here, "/revoke"), "{what}");
        assert_eq!(exists(here, "/global-token-revocation"), asks, "{what}");
        assert_eq!(exists(here, "/security-events"), pushes, "{what}");
        for path in ["/revoke", "/global-token-revocation", "/security-events"] {
            assert!(!exists("other.example", path), "{what}");
            assert!(!exists(here, &format!("{path}/")), "{what}");
        }
    }
}

#[test]
fn an_issuer_with_a_path_has_its_endpoints_below_it() {
    let mut config = config();
    config["authorization_server"]["issuer"] = json!(format!("{AS}/as/"));
    let mut process = Process::new(&config, 1);
    let mut get = |path: &str| {
        process.request(0, 1, request("GET", "mcp.acme.example", path, &[]));
        process.verdict()
    };

    let metadata = body(&get("/.well-known/oauth-authorization-server/as/"));
    assert_eq!(metadata["revocation_endpoint"], format!("{AS}/as/revoke"));
    for path in ["/as/revoke", "/as/global-token-revocation", "/as/security-events"] {
        assert_eq!(status(&get(path)), 405, "{path}");
    }
    assert_eq!(status(&get("/revoke")), 404);
}

#[test]
fn a_revocation_is_remembered_as_long_as_what_it_ended_could_be_used() {
    let mut process = Process::new(&config(), 1);
    let single = token(&mut process, "bob", "1");
    let of_user = token(&mut process, "alice", "2");
    let unused = grant_of("alice", "3", NOW);
    revoke(&mut process, CLAUDE, &single);
    ask(&mut process, OPERATOR, &user(IDP, "alice"));

    // Access tokens live for 300 s, ID-JAGs for 600 s, and 60 s of skew.
    process.now = NOW + 359;
    for token in [&single, &of_user] {
        assert_eq!((call(&mut process, 0, token), reason(&process)), (401, "revoked"));
    }
    process.now = NOW + 659;
    assert_eq!(status(&redeem(&mut process, &unused)), 400);
    assert_eq!(reason(&process), "revoked");
}

#[test]
fn a_tenant_counts_where_the_provider_has_several() {
    let in_tenant = |tenant: &str| {
        let tenant = json!({ "format": "opaque", "id": tenant });
        json!({ "format": "complex", "user": user(IDP, "alice"), "tenant": tenant })
    };
    let grant_in = |jti: &str, tenant: &str| {
        let mut claims = id_jag_claims(jti);
        claims["tenant"] = json!(tenant);
        key(1).sign("oauth-id-jag+jwt", &claims)
    };
    let mut several = config();
    several["identity_providers"]["acme"]["tenants"] = json!(["one", "two"]);
    let mut process = Process::new(&several, 1);
    let tokens = ["one", "two"].map(|tenant| {
        let verdict = redeem(&mut process, &grant_in(tenant, tenant));
        body(&verdict)["access_token"].as_str().unwrap().to_owned()
    });

    ask(&mut process, OPERATOR, &in_tenant("one"));
    assert_eq!(tokens.each_ref().map(|token| call(&mut process, 0, token)), [401, 0]);
    ask(&mut process, OPERATOR, &user(IDP, "alice"));
    assert_eq!(tokens.each_ref().map(|token| call(&mut process, 0, token)), [401, 401]);

    // A provider that is one tenant, and says so to us but not in its grants.
    let mut process = Process::new(&config(), 1);
    let token = token(&mut process, "alice", "1");
    ask(&mut process, OPERATOR, &in_tenant("one"));
    assert_eq!(call(&mut process, 0, &token), 401);
}

#[test]
fn a_revocation_overtakes_a_grant_that_waits_to_be_spent() {
    let mut config = config();
    config["authorization_server"]["replay_store"] = json!({ "cluster": "redis", "webdis": {} });
    let mut process = Process::new(&config, 1);
    token_with_store(&mut process, "1");
    process.request_with_body(0, 1, token_request(), grant(&grant_of("alice", "2", NOW)));
    assert_eq!(process.callouts.len(), 1, "it asks the fleet's store");

    process.request_with_body(
        0,
        2,
        post("/global-token-revocation", "application/json", &format!("Bearer {OPERATOR}")),
        json!({ "sub_id": user(IDP, "alice") }).to_string().into_bytes(),
    );
    assert_eq!(status(&process.verdict()), 204);
    process.now = NOW + 1;
    process.answer(&mut |_| answer(200, br#"{"SET":[true,"OK"]}"#));

    assert_eq!((status(&process.verdict()), reason(&process)), (400, "revoked"));
}

fn token_with_store(process: &mut Process, jti: &str) {
    process.request_with_body(0, 1, token_request(), grant(&grant_of("bob", jti, NOW)));
    process.answer(&mut |callout| match callout.cluster.as_str() {
        "redis" => answer(200, br#"{"SET":[true,"OK"]}"#),
        _ => answer(200, &jwks(&[1])),
    });
    assert_eq!(status(&process.verdict()), 200);
}

#[test]
fn a_revocation_overtakes_a_request_that_waits_for_the_backends_token() {
    let mut config = config();
    config["resources"][0]["accept"]["credential"] = json!({
        "client_credentials": {
            "issuer": "https://backend.example", "cluster": "backend",
            "token_endpoint": "https://backend.example/token",
            "client": { "id": "jagway", "secret": { "env": "AS_SECRET" } },
        },
    });
    let mut process = Process::new(&config, 1);
    let bearer = format!("Bearer {}", token(&mut process, "alice", "1"));
    let call = request("POST", "mcp.acme.example", "/warehouse", &[("authorization", &bearer)]);
    process.request(0, 1, call);
    assert_eq!(process.callouts.len(), 1, "it asks for the backend's token");

    process.request_with_body(
        0,
        2,
        post("/revoke", FORM, CLAUDE),
        form(&[("token", &bearer[7..])]),
    );
    assert_eq!(status(&process.verdict()), 200);
    let token = json!({ "access_token": "b", "token_type": "Bearer", "expires_in": 60 });
    process.answer(&mut |_| json_answer(200, &token));

    assert_eq!((status(&process.verdict()), reason(&process)), (401, "revoked"));
}

/// A store that may be out of order.
#[derive(Default)]
struct Brittle {
    memory: Memory,
    /// What the keys begin with that it does not answer for, while it is down.
    down: Cell<Option<&'static str>>,
}

impl Store for Brittle {
    fn get(&self, key: &str) -> Result<(Vec<u8>, u32), Unavailable> {
        let down = self.down.get().is_some_and(|start| key.starts_with(start));
        if down { Err(Unavailable) } else { self.memory.get(key) }
    }

    fn swap(&self, key: &str, value: &[u8], version: u32) -> Result<bool, Unavailable> {
        self.memory.swap(key, value, version)
    }
}

fn with_store(store: Rc<Brittle>) -> Process {
    let mut process = Process::new(&config(), 0);
    let mut worker = Worker::new(Rc::new(Site::new(parse(&config()), store)), 1);
    let place = worker.join(NOW).unwrap();
    worker.listens(place, place as u32, NOW);
    process.workers.push(worker);
    process
}

#[test]
fn while_nobody_knows_what_is_revoked_nothing_passes_and_nothing_is_spent() {
    // All that tells, and the lists alone.
    for down in ["jagway/revoked", "jagway/revoked-"] {
        let store = Rc::new(Brittle::default());
        let mut process = with_store(store.clone());
        let token = token(&mut process, "alice", "1");
        let assertion = grant_of("alice", "2", NOW);
        jagway_core::revocation::revoke_token(&*store, "another", NOW + 600, NOW).unwrap();
        store.down.set(Some(down));

        assert_eq!((call(&mut process, 0, &token), reason(&process)), (503, "revocation_store"));
        let redeemed = redeem(&mut process, &assertion);
        assert_eq!((status(&redeemed), reason(&process)), (503, "revocation_store"));
        let answers = [
            revoke(&mut process, CLAUDE, &token),
            ask(&mut process, OPERATOR, &user(IDP, "alice")),
            push(&mut process, &event(json!({}))),
        ];
        for verdict in &answers {
            assert_eq!((status(verdict), reason(&process)), (503, "revocation_store"));
            // RFC 7009 §2.2.1: "the client must assume the token still exists and may retry".
            assert!(header(verdict, "retry-after").is_some());
        }
        store.down.set(None);
        assert_eq!(call(&mut process, 0, &token), 0);
        assert_eq!(status(&redeem(&mut process, &assertion)), 200);
    }
}

#[test]
fn where_there_is_no_room_left_nobody_is_told_that_a_token_is_revoked() {
    let mut process = Process::new(&config(), 1);
    let token = token(&mut process, "alice", "1");
    let full: Vec<u8> =
        (0..80u64).flat_map(|n| [[7; 8], n.to_be_bytes(), [0; 8], [0xff; 8]]).flatten().collect();
    for bucket in 0..8192u32 {
        let of_issuer = format!("origin-{}", jagway_core::digest::short_digest(IDP));
        for table in ["token", &of_issuer] {
            let key = format!("jagway/revoked-{table}/{bucket:x}");
            assert!(process.store.swap(&key, &full, 0).unwrap());
        }
    }

    let answers = [
        revoke(&mut process, CLAUDE, &token),
        ask(&mut process, OPERATOR, &user(IDP, "alice")),
        push(&mut process, &event(json!({}))),
    ];

    for verdict in &answers {
        assert_eq!(status(verdict), 503, "{verdict:?}");
        assert!(header(verdict, "retry-after").is_some());
    }
    assert!(!process.counts.contains_key("done.revoked"), "{:?}", process.counts);
    assert_eq!(call(&mut process, 0, &token), 0, "it says the truth");
}

#[test]
fn a_configuration_that_nobody_could_revoke_with_is_refused_at_its_field() {
    use jagway_core::config::Config;
    let acme = "/identity_providers/acme/revocation";
    let server = "/authorization_server/revocation";
    let path = "identity_providers.acme.revocation";
    let operator = "authorization_server.revocation.operator_token_sha256";
    let cases = [
        (acme, json!({}), path),
        (acme, json!({ "global_token_revocation": false }), path),
        (
            acme,
            json!({ "global_token_revocation": "yes" }),
            &format!("{path}.global_token_revocation"),
        ),
        (acme, json!({ "security_events": true }), &format!("{path}.security_events")),
        (
            acme,
            json!({ "security_events": { "aud": "x" } }),
            &format!("{path}.security_events.aud"),
        ),
        (
            acme,
            json!({ "security_events": { "audience": "" } }),
            &format!("{path}.security_events.audience"),
        ),
        (acme, json!({ "events": {} }), &format!("{path}.events")),
        (server, json!({}), operator),
        (server, json!(true), "authorization_server.revocation"),
        (
            server,
            json!({ "operator_token_sha256": { "env": "NOT_SET" } }),
            &format!("{operator}.env"),
        ),
        (server, json!({ "operator_token_sha256": { "file": "x" } }), &format!("{operator}.file")),
        (server, json!({ "operator_token_sha256": 1 }), operator),
        (acme, json!([]), path),
        (
            server,
            json!({ "operator_token": "x" }),
            "authorization_server.revocation.operator_token",
        ),
        (server, json!({ "operator_token_sha256": "operator-token" }), operator),
        (server, json!({ "operator_token_sha256": hex(&sha256(b"")) }), operator),
    ];

    for (pointer, value, expected) in cases {
        let mut config = accept_config();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value.clone();
        let error = Config::parse(config.to_string().as_bytes(), &env).err();
        assert_eq!(error.map(|error| error.path).as_deref(), Some(expected), "{value}");
    }
    for name in ["revoke", "global-token-revocation", "security-events"] {
        let mut config = config();
        config["resources"][0]["resource"] = json!(format!("{AS}/{name}"));
        let error = Config::parse(config.to_string().as_bytes(), &env).err().unwrap();
        assert_eq!(error.path, "resources[0]", "{name}");
    }
}

#[test]
fn a_provider_that_speaks_for_no_client_revokes_nothing_and_the_operator_is_told() {
    let mut config = upgrade_config();
    config["identity_providers"]["acme"]["revocation"] = json!({ "global_token_revocation": true });

    let warnings = parse(&config).warnings;

    let expected = "identity_providers.acme.revocation: nothing here uses it";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
}
