//! Clients that nobody registered: their `client_id` is the URL of their metadata (Client ID Metadata
//! Documents).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::config::Config;
use jagway_core::digest::base64url;
use jagway_core::http::{Answer, CallFailed, Callout, Headers, Request};
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ID: &str = "https://client.example/app.json";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

type Answered = Result<Answer, CallFailed>;

/// Clients at `client.example` count as registered; nobody else is.
fn config() -> Value {
    let mut config = accept_config();
    config["authorization_server"]["clients"] = json!({});
    config["authorization_server"]["client_id_metadata_documents"] = json!({
        "hosts": {
            "client.example": { "cluster": "client_example", "identity_providers": ["acme"] },
        },
    });
    config
}

fn with(mut config: Value, pointer: &str, value: Value) -> Value {
    *config.pointer_mut(pointer).unwrap() = value;
    config
}

fn allowing_public_clients() -> Value {
    let mut config = config();
    config["authorization_server"]["client_id_metadata_documents"]["allow_public"] = json!(true);
    config
}

/// The document of a client with key 4, with `changes`; a null removes its member.
fn document(changes: Value) -> Value {
    let mut document = json!({
        "client_id": ID,
        "client_name": "App",
        "redirect_uris": [],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": { "keys": [key(4).public_jwk()] },
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(document.as_object_mut().unwrap().remove(name)),
            value => document[name] = value.clone(),
        }
    }
    document
}

fn public_document() -> Value {
    document(json!({ "token_endpoint_auth_method": "none", "jwks": null }))
}

/// An answer with these fields, and `body`.
fn page(status: u16, fields: &[(&str, &str)], body: &[u8]) -> Answered {
    let mut headers = vec![(":status".to_owned(), status.to_string().into_bytes())];
    headers
        .extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().into())));
    Ok(Answer { status, headers: Headers::new(headers), body: body.to_vec() })
}

fn json_page(document: &Value) -> Answered {
    page(200, &[("content-type", "application/json")], document.to_string().as_bytes())
}

/// Everybody that is called: the identity provider has key 1, the client's host answers as given.
fn world(mut client: impl FnMut(&str) -> Answered) -> impl FnMut(&Callout) -> Answered {
    move |callout| match callout.cluster.as_str() {
        "idp" => answer(200, &jwks(&[1])),
        "client_example" => {
            assert_eq!((callout.method, callout.authority.as_str()), ("GET", "client.example"));
            client(&callout.path)
        }
        other => panic!("{other}"),
    }
}

fn assertion_of(client_id: &str, seed: u8, jti: &str, now: u64) -> String {
    let claims = json!({
        "iss": client_id, "sub": client_id, "aud": AS, "exp": now + 60, "jti": jti,
    });
    key(seed).sign("client-authentication+jwt", &claims)
}

fn id_jag_for(client_id: &str, jti: &str, now: u64) -> String {
    let mut claims = id_jag_claims(jti);
    claims["client_id"] = json!(client_id);
    claims["iat"] = json!(now);
    claims["exp"] = json!(now + 300);
    key(1).sign("oauth-id-jag+jwt", &claims)
}

fn head(more: &[(&str, &str)]) -> Request {
    let form_type = [("content-type", "application/x-www-form-urlencoded")];
    request("POST", "mcp.acme.example", "/token", &[form_type.as_slice(), more].concat())
}

fn form_of(id_jag: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let grant =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", id_jag)];
    form(&[grant.as_slice(), more].concat())
}

/// The client of this identifier asks with a sound ID-JAG and an assertion signed with key `seed`.
fn ask(process: &mut Process, worker: usize, (id, seed): (&str, u8), jti: &str) {
    let assertion = assertion_of(id, seed, jti, process.now);
    let fields = [("client_assertion_type", TYPE), ("client_assertion", assertion.as_str())];
    let body = form_of(&id_jag_for(id, jti, process.now), &fields);
    process.request_with_body(worker, 1, head(&[]), body);
}

/// The client with key 4 asks, and its host answers with `client`.
fn redeem(process: &mut Process, jti: &str, client: impl FnMut(&str) -> Answered) -> Verdict {
    ask(process, 0, (ID, 4), jti);
    process.answer(&mut world(client));
    process.verdict()
}

fn nobody(path: &str) -> Answered {
    panic!("{path} was fetched")
}

fn assert_refused(process: &Process, verdict: &Verdict, (code, error, reason): (u16, &str, &str)) {
    let log = &process.log;
    assert_eq!(status(verdict), code, "{log:?}");
    assert_eq!(body(verdict)["error"], error, "{log:?}");
    assert_eq!(body(verdict).get("access_token"), None);
    let reason = format!("refused [{reason}]");
    assert!(log.iter().any(|line| line.starts_with(&reason)), "{reason} not in {log:?}");
}

#[test]
fn a_host_verifies_the_assertions_of_clients_that_nobody_registered() {
    let asked = with_host();
    let mut process = Process::new(&config(), 1);

    let verdict = redeem(&mut process, "1", |_| json_page(&document(json!({}))));

    assert_eq!((status(&verdict), asked.both()), (200, (2, 1)), "{:?}", process.log);
}

#[test]
fn a_client_is_whoever_holds_the_keys_of_its_document() {
    let sound = document(json!({}));
    let by_uri = document(json!({ "jwks": null, "jwks_uri": "https://client.example/keys?v=1" }));
    let dots = "https://client.example/.well-known/app";
    let elsewhere = document(json!({ "client_id": dots }));

    for (id, document, paths) in [
        (ID, &sound, vec!["/app.json"]),
        (ID, &by_uri, vec!["/app.json", "/keys?v=1"]),
        (dots, &elsewhere, vec!["/.well-known/app"]),
    ] {
        let mut process = Process::new(&config(), 1);
        let mut fetched = Vec::new();
        ask(&mut process, 0, (id, 4), "1");
        process.answer(&mut world(|path| {
            fetched.push(path.to_owned());
            if path.starts_with("/keys") { answer(200, &jwks(&[4])) } else { json_page(document) }
        }));
        let verdict = process.verdict();

        assert_eq!(status(&verdict), 200, "{:?}", process.log);
        assert_eq!(fetched, paths);
        let issued = format!("issued client={id:?}");
        assert!(process.log.iter().any(|line| line.starts_with(&issued)), "{:?}", process.log);
    }
}

#[test]
fn the_metadata_says_that_such_clients_are_welcome() {
    let document = |config: &Value| {
        let mut process = Process::new(config, 1);
        let path = "/.well-known/oauth-authorization-server";
        process.request(0, 1, request("GET", "mcp.acme.example", path, &[]));
        body(&process.verdict())
    };
    let methods = |document: &Value| {
        let methods = document["token_endpoint_auth_methods_supported"].as_array().unwrap();
        methods.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };

    let without = document(&accept_config());
    let with = document(&config());
    let with_public = document(&allowing_public_clients());

    assert_eq!(without.get("client_id_metadata_document_supported"), None);
    assert_eq!(with["client_id_metadata_document_supported"], true);
    assert!(!methods(&with).contains(&"none".to_owned()));
    assert_eq!(with_public["client_id_metadata_document_supported"], true);
    assert!(methods(&with_public).contains(&"none".to_owned()));
}

#[test]
fn a_document_is_fetched_once_for_all_workers() {
    let mut process = Process::new(&config(), 3);

    for worker in 0..3 {
        ask(&mut process, worker, (ID, 4), &worker.to_string());
    }
    let mut fetched = 0;
    process.answer(&mut world(|_| {
        fetched += 1;
        json_page(&document(json!({})))
    }));

    assert_eq!(fetched, 1);
    assert_eq!(process.concluded.len(), 3);
    assert!(process.concluded.iter().all(|(_, _, verdict)| status(verdict) == 200));
}

#[test]
fn an_identifier_that_is_no_clean_url_at_a_listed_host_is_unknown_and_nothing_is_called() {
    let long = format!("https://client.example/{}", "a".repeat(512));

    for id in [
        "claude",
        "http://client.example/app.json",
        "https://client.example",
        "https://client.example/",
        "https://client.example/a/../app.json",
        "https://client.example/%2e%2e/app.json",
        "https://client.example/app.json?a=b",
        "https://client.example/app.json#a",
        "https://user@client.example/app.json",
        "https://client.example@other.example/app.json",
        "https://client.example:8443/app.json",
        "https://client.example:22/app.json",
        "https://CLIENT.example/app.json",
        "https://client.example./app.json",
        "https://sub.client.example/app.json",
        "https://client.example.other.example/app.json",
        "https://other.example/app.json",
        "https://127.0.0.1/app.json",
        "https://[::1]/app.json",
        "https://169.254.169.254/latest/meta-data",
        &long,
    ] {
        for config in [config(), allowing_public_clients()] {
            let mut process = Process::new(&config, 1);

            ask(&mut process, 0, (id, 4), "1");
            let calls = process.callouts.len();
            let verdict = process.verdict();

            assert_eq!(calls, 0, "{id}");
            let reason = if id == long { "claim_type" } else { "client_not_authenticated" };
            assert_refused(&process, &verdict, (401, "invalid_client", reason));
        }
    }
}

#[test]
fn a_document_that_is_not_sound_is_no_registration() {
    let good = document(json!({})).to_string();
    let json = [("content-type", "application/json")];
    let changed = |changes: Value| json_page(&document(changes));
    let fat = document(json!({ "client_name": "a".repeat(5 * 1024) })).to_string();
    let foreign = json!({ "jwks": null, "jwks_uri": "https://other.example/keys" });
    let no_key = json!({ "jwks": { "keys": [] } });
    let html = [("content-type", "text/html")];
    let to = [("location", "https://client.example/other"), json[0]];
    let cases = [
        ("not there", page(404, &json, good.as_bytes()), "client_metadata_status"),
        ("gone", page(410, &[], b""), "client_metadata_status"),
        ("forbidden", page(403, &[], b""), "client_metadata_status"),
        ("created", page(201, &json, good.as_bytes()), "client_metadata_status"),
        ("no content", page(204, &[], b""), "client_metadata_status"),
        ("moved", page(301, &to, good.as_bytes()), "client_metadata_status"),
        ("found", page(302, &to, good.as_bytes()), "client_metadata_status"),
        ("redirected", page(308, &to, good.as_bytes()), "client_metadata_status"),
        ("not modified", page(304, &[], b""), "client_metadata_status"),
        ("HTML", page(200, &html, good.as_bytes()), "client_metadata_media_type"),
        ("no media type", page(200, &[], good.as_bytes()), "client_metadata_media_type"),
        (
            "almost JSON",
            page(200, &[("content-type", "application/jsonp")], good.as_bytes()),
            "client_metadata_media_type",
        ),
        ("too large", page(200, &json, fat.as_bytes()), "client_metadata_too_large"),
        ("junk", page(200, &json, b"{"), "client_metadata_json"),
        (
            "another client",
            changed(json!({ "client_id": "https://client.example/b" })),
            "client_metadata_client_id",
        ),
        ("a secret", changed(json!({ "client_secret": "x" })), "client_metadata_shared_secret"),
        (
            "a method with a secret",
            changed(json!({ "token_endpoint_auth_method": "client_secret_basic" })),
            "client_metadata_auth_method",
        ),
        (
            "no method",
            changed(json!({ "token_endpoint_auth_method": null })),
            "client_metadata_auth_method",
        ),
        ("foreign keys", changed(foreign), "client_metadata_jwks_uri"),
        ("no key", changed(no_key), "client_metadata_key_set"),
    ];

    for (what, answer, code) in cases {
        let mut process = Process::new(&config(), 1);
        let mut fetched = 0;
        let verdict = redeem(&mut process, "1", |path| {
            assert_eq!(path, "/app.json", "{what}");
            fetched += 1;
            answer.clone()
        });

        assert_eq!(fetched, 1, "{what}");
        assert_refused(&process, &verdict, (401, "invalid_client", "client_metadata"));
        assert!(process.log.iter().any(|line| line.ends_with(code)), "{what}: {:?}", process.log);
        assert!(!process.log.iter().any(|line| line.contains(ID)), "{what}: {:?}", process.log);
    }
}

#[test]
fn keys_elsewhere_that_are_not_sound_are_no_registration_either() {
    let by_uri = document(json!({ "jwks": null, "jwks_uri": "https://client.example/keys" }));
    let long = json!({ "keys": [key(4).public_jwk()], "more": "a".repeat(16 * 1024) });
    let cases = [
        ("not there", page(404, &[], b"")),
        ("moved", page(301, &[("location", "https://client.example/k")], &jwks(&[4]))),
        ("junk", answer(200, b"junk")),
        ("no key", answer(200, &jwks(&[]))),
        ("too large", answer(200, long.to_string().as_bytes())),
    ];

    for (what, keys) in cases {
        let mut process = Process::new(&config(), 1);
        let verdict = redeem(&mut process, "1", |path| match path {
            "/app.json" => json_page(&by_uri),
            "/keys" => keys.clone(),
            other => panic!("{what}: {other}"),
        });

        assert_refused(&process, &verdict, (401, "invalid_client", "client_metadata"));
    }
}

#[test]
fn a_host_that_is_down_is_an_outage_and_not_the_clients_fault() {
    let by_uri = document(json!({ "jwks": null, "jwks_uri": "https://client.example/keys" }));
    let down = || {
        [
            Err(CallFailed::NoAnswer),
            Err(CallFailed::NoCluster),
            page(500, &[], b""),
            page(503, &[], b""),
            page(429, &[], b""),
        ]
    };

    for (of_keys, failure) in
        down().map(|one| (false, one)).into_iter().chain(down().map(|one| (true, one)))
    {
        let mut process = Process::new(&config(), 1);
        let verdict = redeem(&mut process, "1", |path| match path {
            "/app.json" if of_keys => json_page(&by_uri),
            _ => failure.clone(),
        });

        let expected = (503, "temporarily_unavailable", "client_metadata_unavailable");
        assert_refused(&process, &verdict, expected);
        assert_eq!(header(&verdict, "retry-after"), Some("5"));
    }
}

#[test]
fn a_fault_is_forgotten_in_seconds() {
    let faults = [
        page(404, &[], b""),
        page(200, &[], b"junk"),
        page(503, &[("cache-control", "max-age=99")], b""),
    ];

    for fault in faults {
        let mut process = Process::new(&config(), 1);
        redeem(&mut process, "1", |_| fault.clone());

        process.now += 10;
        let verdict = redeem(&mut process, "2", |_| json_page(&document(json!({}))));

        assert_eq!(status(&verdict), 200, "{:?}", process.log);
    }
}

#[test]
fn a_document_serves_as_long_as_its_host_says_within_bounds() {
    let by_uri = document(json!({ "jwks": null, "jwks_uri": "https://client.example/keys" }));
    let inline = document(json!({}));
    let cases = [
        (&inline, "", "", 300),
        (&inline, "max-age=120", "", 120),
        (&inline, "public, max-age=120", "", 120),
        (&inline, "max-age=0", "", 60),
        (&inline, "no-store", "", 60),
        (&inline, "no-cache, max-age=3000", "", 60),
        (&inline, "max-age=86400", "", 3600),
        (&inline, "max-age=99999999999999999999", "", 300),
        (&inline, "max-age=-1", "", 300),
        (&by_uri, "max-age=900", "max-age=120", 120),
        (&by_uri, "max-age=120", "max-age=900", 120),
    ];

    for (document, control, keys_control, fresh) in cases {
        let host = |path: &str| match path {
            "/keys" => page(200, &[("cache-control", keys_control)], &jwks(&[4])),
            _ => {
                let fields = [("content-type", "application/json"), ("cache-control", control)];
                page(200, &fields, document.to_string().as_bytes())
            }
        };
        let mut process = Process::new(&config(), 1);
        redeem(&mut process, "1", host);

        process.now = NOW + fresh - 1;
        let before = status(&redeem(&mut process, "2", nobody));
        process.now = NOW + fresh;
        let mut refreshed = false;
        let after = status(&redeem(&mut process, "3", |path| {
            refreshed = true;
            host(path)
        }));

        assert_eq!((before, after), (200, 200), "{control}: {:?}", process.log);
        assert!(refreshed, "{control}");
    }
}

#[test]
fn while_its_host_is_down_a_document_serves_for_another_hour_and_no_longer() {
    let mut process = Process::new(&config(), 1);
    redeem(&mut process, "1", |_| json_page(&document(json!({}))));
    let down = |_: &str| page(503, &[], b"");

    process.now = NOW + 300 + 3599;
    let within = redeem(&mut process, "2", down);
    process.now = NOW + 300 + 3600;
    let beyond = redeem(&mut process, "3", down);

    assert_eq!(status(&within), 200, "{:?}", process.log);
    let expected = (503, "temporarily_unavailable", "client_metadata_unavailable");
    assert_refused(&process, &beyond, expected);
}

#[test]
fn a_document_that_was_taken_away_or_spoilt_serves_no_longer() {
    let spoilt = document(json!({ "token_endpoint_auth_method": "client_secret_post" }));

    for no in [page(404, &[], b""), json_page(&spoilt)] {
        let mut process = Process::new(&config(), 1);
        redeem(&mut process, "1", |_| json_page(&document(json!({}))));
        process.now += 300;
        redeem(&mut process, "2", |_| no.clone());

        process.now += 1;
        let verdict = redeem(&mut process, "3", |_| no.clone());

        assert_refused(&process, &verdict, (401, "invalid_client", "client_metadata"));
    }
}

#[test]
fn after_a_look_in_vain_a_new_key_is_not_looked_for_for_half_a_minute() {
    let rotated = document(json!({ "jwks": { "keys": [key(5).public_jwk()] } }));
    let mut process = Process::new(&config(), 1);
    redeem(&mut process, "1", |_| json_page(&document(json!({}))));

    process.now += 1;
    ask(&mut process, 0, (ID, 5), "2");
    process.answer(&mut world(|_| json_page(&document(json!({})))));
    let in_vain = process.verdict();
    assert_refused(&process, &in_vain, (401, "invalid_client", "kid_unknown"));
    process.now += 29;
    ask(&mut process, 0, (ID, 5), "2");
    process.answer(&mut world(nobody));
    let early = process.verdict();
    assert_refused(&process, &early, (401, "invalid_client", "kid_unknown"));
    process.now += 1;
    ask(&mut process, 0, (ID, 5), "3");
    process.answer(&mut world(|_| json_page(&rotated)));
    let found = process.verdict();
    ask(&mut process, 0, (ID, 4), "4");
    process.answer(&mut world(nobody));
    let old = process.verdict();

    assert_eq!(status(&found), 200, "{:?}", process.log);
    assert_refused(&process, &old, (401, "invalid_client", "kid_unknown"));
}

#[test]
fn a_document_that_is_never_twice_the_same_is_not_asked_for_again_and_again() {
    let mut process = Process::new(&config(), 1);
    let mut fetched = 0;

    for second in 0..30 {
        ask(&mut process, 0, (ID, 5), "1");
        process.answer(&mut world(|_| {
            fetched += 1;
            json_page(&document(json!({ "jwks": { "keys": [key(10 + fetched).public_jwk()] } })))
        }));
        let verdict = process.verdict();
        assert_refused(&process, &verdict, (401, "invalid_client", "kid_unknown"));
        assert!(fetched <= 2, "{fetched} in {second} s");
        process.now += 1;
    }
}

#[test]
fn an_assertion_that_is_not_the_clients_is_refused_as_of_any_other_client() {
    let sign = |changes: Value| {
        let mut claims = json!({ "iss": ID, "sub": ID, "aud": AS, "exp": NOW + 60, "jti": "1" });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        key(4).sign("JWT", &claims)
    };
    let cases = [
        (assertion_of(ID, 5, "1", NOW), "kid_unknown"),
        (sign(json!({ "iss": "https://client.example/b" })), "client_mismatch"),
        (sign(json!({ "aud": ID })), "aud"),
        (sign(json!({ "exp": NOW - 61 })), "expired"),
    ];

    for (assertion, code) in cases {
        let mut process = Process::new(&config(), 1);
        let fields = [("client_assertion_type", TYPE), ("client_assertion", assertion.as_str())];
        let body = form_of(&id_jag_for(ID, "1", NOW), &fields);
        process.request_with_body(0, 1, head(&[]), body);
        process.answer(&mut world(|_| json_page(&document(json!({})))));
        let verdict = process.verdict();

        assert_refused(&process, &verdict, (401, "invalid_client", code));
    }
}

#[test]
fn an_assertion_counts_once_and_a_grant_is_its_clients_alone() {
    let mut process = Process::new(&config(), 1);
    let client = |_: &str| json_page(&document(json!({})));
    let assertion = assertion_of(ID, 4, "1", NOW);
    let other = "https://client.example/b";
    let mut send = |assertion: &str, id_jag: &str, more: &[(&str, &str)]| {
        let fields = [("client_assertion_type", TYPE), ("client_assertion", assertion)];
        let body = form_of(id_jag, &[fields.as_slice(), more].concat());
        process.request_with_body(0, 1, head(&[]), body);
        process.answer(&mut world(client));
        let verdict = process.verdict();
        (status(&verdict), body_error(&verdict), process.log.pop().unwrap())
    };

    let foreign = send(&assertion, &id_jag_for(other, "1", NOW), &[]);
    let again = send(&assertion, &id_jag_for(ID, "1", NOW), &[]);
    let fresh = assertion_of(ID, 4, "2", NOW);
    let mismatch = send(&fresh, &id_jag_for(ID, "1", NOW), &[("client_id", other)]);
    let fresh = assertion_of(ID, 4, "3", NOW);
    let sound = send(&fresh, &id_jag_for(ID, "1", NOW), &[("client_id", ID)]);

    assert_eq!((foreign.0, foreign.1.as_str()), (400, "invalid_grant"), "{}", foreign.2);
    assert_eq!((again.0, again.1.as_str()), (401, "invalid_client"), "{}", again.2);
    assert_eq!((mismatch.0, mismatch.1.as_str()), (401, "invalid_client"), "{}", mismatch.2);
    assert_eq!(sound.0, 200, "{}", sound.2);
}

fn body_error(verdict: &Verdict) -> String {
    body(verdict)["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_registered_client_of_the_same_name_wins_and_nothing_is_fetched() {
    let registered = json!({
        "private_key_jwt": { "jwks": { "keys": [key(5).public_jwk()] } },
        "identity_providers": ["acme"],
    });
    let mut config = allowing_public_clients();
    config["authorization_server"]["clients"] = json!({ ID: registered });
    let mut process = Process::new(&config, 1);

    ask(&mut process, 0, (ID, 5), "1");
    process.answer(&mut world(nobody));
    let own = process.verdict();
    ask(&mut process, 0, (ID, 4), "2");
    process.answer(&mut world(nobody));
    let by_document = process.verdict();
    let fields = [("client_id", ID)];
    process.request_with_body(0, 1, head(&[]), form_of(&id_jag_for(ID, "3", NOW), &fields));
    process.answer(&mut world(nobody));
    let public = process.verdict();

    assert_eq!(status(&own), 200, "{:?}", process.log);
    assert_refused(&process, &by_document, (401, "invalid_client", "kid_unknown"));
    assert_refused(&process, &public, (401, "invalid_client", "client_public"));
}

#[test]
fn a_client_that_lists_other_grants_only_is_refused_once_it_is_authenticated() {
    let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
    let jwt_bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer";

    for (types, code) in
        [(json!([exchange]), 400), (json!([]), 400), (json!([exchange, jwt_bearer]), 200)]
    {
        let described = document(json!({ "grant_types": types }));
        let mut process = Process::new(&config(), 1);
        let verdict = redeem(&mut process, "1", |_| json_page(&described));
        ask(&mut process, 0, (ID, 5), "2");
        process.answer(&mut world(nobody));
        let stranger = process.verdict();

        assert_eq!(status(&verdict), code, "{types}: {:?}", process.log);
        if code == 400 {
            assert_refused(&process, &verdict, (400, "unauthorized_client", "client_grant_type"));
        }
        assert_refused(&process, &stranger, (401, "invalid_client", "kid_unknown"));
    }
}

/// How a public client says who it is: by a parameter, or by Basic with an empty secret.
fn ask_in_public(process: &mut Process, basic: bool, id_jag: &str) {
    // https%3A%2F%2Fclient.example%2Fapp.json:
    let encoded = "Basic aHR0cHMlM0ElMkYlMkZjbGllbnQuZXhhbXBsZSUyRmFwcC5qc29uOg==";
    match basic {
        true => {
            let head = head(&[("authorization", encoded)]);
            process.request_with_body(0, 1, head, form_of(id_jag, &[]));
        }
        false => {
            let body = form_of(id_jag, &[("client_id", ID)]);
            process.request_with_body(0, 1, head(&[]), body);
        }
    }
}

#[test]
fn a_public_client_is_not_even_looked_up_unless_such_are_admitted() {
    let mut process = Process::new(&config(), 1);

    for basic in [false, true] {
        ask_in_public(&mut process, basic, &id_jag_for(ID, "1", NOW));
        process.answer(&mut world(nobody));
        let verdict = process.verdict();

        assert_refused(&process, &verdict, (401, "invalid_client", "client_public"));
    }
    let verdict = redeem(&mut process, "2", |_| json_page(&public_document()));
    let expected = (401, "invalid_client", "client_method_not_registered");
    assert_refused(&process, &verdict, expected);
}

#[test]
fn a_public_client_needs_a_grant_that_is_bound_to_a_key() {
    let mut bound = id_jag_claims("1");
    bound["client_id"] = json!(ID);
    bound["cnf"] = json!({ "jkt": "a".repeat(43) });
    let bound = key(1).sign("oauth-id-jag+jwt", &bound);

    for basic in [false, true] {
        let mut process = Process::new(&allowing_public_clients(), 1);
        ask_in_public(&mut process, basic, &id_jag_for(ID, "1", NOW));
        process.answer(&mut world(|_| json_page(&public_document())));
        let unbound = process.verdict();
        assert_refused(&process, &unbound, (400, "invalid_grant", "public_client_unbound"));
        process.log.clear();

        ask_in_public(&mut process, basic, &bound);
        process.answer(&mut world(nobody));
        process.verdict();

        let unbound = process.log.iter().any(|line| line.contains("public_client_unbound"));
        assert!(!unbound, "{:?}", process.log);
    }
}

#[test]
fn a_client_whose_document_has_keys_must_use_them() {
    for basic in [false, true] {
        let mut process = Process::new(&allowing_public_clients(), 1);
        ask_in_public(&mut process, basic, &id_jag_for(ID, "1", NOW));
        process.answer(&mut world(|_| json_page(&document(json!({})))));
        let verdict = process.verdict();

        let expected = (401, "invalid_client", "client_method_not_registered");
        assert_refused(&process, &verdict, expected);
    }
}

#[test]
fn no_secret_makes_a_client_of_a_document() {
    let mut process = Process::new(&allowing_public_clients(), 1);
    let fields = [("client_id", ID), ("client_secret", "x")];

    process.request_with_body(0, 1, head(&[]), form_of(&id_jag_for(ID, "1", NOW), &fields));
    process.answer(&mut world(nobody));
    let verdict = process.verdict();

    assert_refused(&process, &verdict, (401, "invalid_client", "client_not_authenticated"));
}

#[test]
fn what_the_operator_says_of_a_host_holds_for_its_clients() {
    let host = "/authorization_server/client_id_metadata_documents/hosts/client.example";
    let mut other_resource = config();
    let mut second = other_resource["resources"][0].clone();
    second["resource"] = json!("https://mcp.acme.example/second");
    other_resource["resources"].as_array_mut().unwrap().push(second);
    other_resource.pointer_mut(host).unwrap()["resources"] =
        json!(["https://mcp.acme.example/second"]);
    let mut other_issuer = config();
    other_issuer["identity_providers"]["else"] =
        json!({ "issuer": "https://else.example", "cluster": "else" });
    other_issuer["authorization_server"]["clients"]["claude"] =
        accept_config()["authorization_server"]["clients"]["claude"].clone();
    other_issuer.pointer_mut(host).unwrap()["identity_providers"] = json!(["else"]);

    for (config, code) in
        [(other_resource, "not_entitled"), (other_issuer, "issuer_not_for_client")]
    {
        let mut process = Process::new(&config, 1);
        let verdict = redeem(&mut process, "1", |_| json_page(&document(json!({}))));

        assert_refused(&process, &verdict, (400, "invalid_grant", code));
    }
}

#[test]
fn a_flood_of_made_up_clients_is_bounded_and_hurts_no_registered_one() {
    let mut config = config();
    let own = &accept_config()["authorization_server"]["clients"]["claude"];
    config["authorization_server"]["clients"] = json!({ "claude": own });
    let mut process = Process::new(&config, 1);

    for number in 0..2500 {
        // Whoever sends these needs no key.
        let claims = json!({ "sub": format!("https://client.example/{number}") }).to_string();
        let parts = [br#"{"alg":"ES256"}"#.as_slice(), claims.as_bytes(), b"x"].map(base64url);
        let assertion = parts.join(".");
        let fields = [("client_assertion_type", TYPE), ("client_assertion", assertion.as_str())];
        process.request_with_body(0, number, head(&[]), form_of("x", &fields));
    }
    let (calls, refused) = (process.callouts.len(), std::mem::take(&mut process.concluded));
    let flooded = process.log.iter().filter(|line| line.contains("no room")).count();

    assert!(calls <= 32 * 8 * 8, "{calls} callouts at once");
    assert_eq!(calls + refused.len(), 2500);
    assert!(flooded > 0 && refused.iter().all(|(_, _, verdict)| status(verdict) == 503));
    process.request_with_body(0, 9999, token_request(), grant(&id_jag("1")));
    process.answer(&mut world(|_| page(404, &[], b"")));
    let claude = process.concluded.iter().find(|(_, stream, _)| *stream == 9999);
    assert_eq!(claude.map(|(_, _, verdict)| status(verdict)), Some(200));
    process.concluded.clear();
    let verdict = redeem(&mut process, "2", |_| json_page(&document(json!({}))));
    assert_eq!(status(&verdict), 200);
}

#[test]
fn a_host_is_refused_that_no_client_could_have() {
    let documents = "/authorization_server/client_id_metadata_documents";
    let path = "authorization_server.client_id_metadata_documents";
    let entry = json!({ "cluster": "client_example", "identity_providers": ["acme"] });
    let host = |name: &str| (json!({ name: entry }), format!("hosts.{name}"));
    let one = |entry: Value, field: &str| {
        (json!({ "client.example": entry }), format!("hosts.client.example{field}"))
    };
    let cases = [
        (json!({}), "hosts".to_owned()),
        host(""),
        host("https://client.example"),
        host("client.example/app"),
        host("client.example?"),
        host("Client.example"),
        host("client.example:443"),
        host("client.example:8443"),
        host("127.0.0.1"),
        host("[::1]"),
        host("user@client.example"),
        host("*.client.example"),
        host("client example"),
        one(json!({ "identity_providers": ["acme"] }), ".cluster"),
        one(json!({ "cluster": "", "identity_providers": ["acme"] }), ".cluster"),
        one(json!({ "cluster": "c", "identity_providers": [] }), ".identity_providers"),
        one(json!({ "cluster": "c", "identity_providers": ["x"] }), ".identity_providers[0]"),
        one(
            json!({ "cluster": "c", "identity_providers": ["acme"], "resources": ["x"] }),
            ".resources[0]",
        ),
        one(json!({ "cluster": "c", "identity_providers": ["acme"], "colour": 1 }), ".colour"),
        one(
            json!({ "cluster": "c", "identity_providers": ["acme"], "dpop_bound_access_tokens": true }),
            ".dpop_bound_access_tokens",
        ),
        one(
            json!({ "cluster": "c", "identity_providers": ["acme"], "secret_sha256": "a".repeat(64) }),
            ".secret_sha256",
        ),
        one(
            json!({
                "cluster": "c",
                "identity_providers": ["acme"],
                "private_key_jwt": { "jwks": { "keys": [] } },
            }),
            ".private_key_jwt",
        ),
    ];

    for (hosts, field) in cases {
        let config = with(config(), &format!("{documents}/hosts"), hosts.clone());
        let refused = Config::parse(config.to_string().as_bytes(), &env).err();

        let refused = refused.map(|error| error.path);
        assert_eq!(refused, Some(format!("{path}.{field}")), "{hosts}");
    }
}

#[test]
fn clusters_of_listed_hosts_are_named_with_their_place_in_the_configuration() {
    let clusters = parse(&config()).clusters();

    let path = "authorization_server.client_id_metadata_documents.hosts.client.example.cluster";
    assert!(clusters.contains(&(path.to_owned(), "client_example".to_owned())), "{clusters:?}");
}

#[test]
fn admitting_public_clients_is_warned_about() {
    let path = "authorization_server.client_id_metadata_documents.allow_public";

    assert!(parse(&config()).warnings.is_empty());
    let warnings = parse(&allowing_public_clients()).warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with(path), "{warnings:?}");
}

#[test]
fn a_registration_says_whether_its_tokens_must_be_bound() {
    let mut config = accept_config();
    config["authorization_server"]["clients"]["claude"]["dpop_bound_access_tokens"] = json!(true);

    let config = parse(&config);

    let clients = &config.authorization_server.as_ref().unwrap().endpoint.clients;
    assert!(clients["claude"].dpop_bound && !clients["other"].dpop_bound);
}
