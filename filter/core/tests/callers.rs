//! Who may call a resource that is upgraded for: each kind of credential, alone and beside others.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::client_certificate::ClientCertificate;
use jagway_core::digest::{hex, sha256, short_digest};
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::servers::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BASIC_SECRET: &str = "p+ss w%rd:";
const SPIFFE: &str = "spiffe://acme.example/agent";

/// One caller of each kind.
fn everybody() -> Value {
    let bound = json!({ "refresh_token": { "env": "BOT_REFRESH" } });
    let digest = hex(&sha256(BASIC_SECRET.as_bytes()));
    changed_config(&[
        ("upgrade/mutual_tls", json!({ "chain": "verified" })),
        (
            "upgrade/callers",
            json!([
                { "name": "user", "id_token": {} },
                { "name": "mobile", "refresh_token": { "header": "x-refresh-token" } },
                { "name": "ci-bot", "subject": bound, "api_key": {
                    "header": "x-api-key", "sha256": hex(&sha256(b"bot-key")),
                } },
                { "name": "cron", "subject": bound, "basic": { "id": "cron", "secret_sha256": digest } },
                { "name": "agent", "subject": bound, "certificate": { "san_uri": SPIFFE } },
            ]),
        ),
    ])
}

/// Base64 with padding, as Basic has it.
fn basic(pair: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

fn bearer(change: Value) -> String {
    format!("Bearer {}", id_token(&change))
}

fn certificate(uri: &str) -> Option<ClientCertificate> {
    ClientCertificate::from_attributes(&"0f".repeat(32), "CN=agent", uri, "")
}

/// A request of which the connection has a certificate for `uri`.
fn with_certificate(world: &mut World, uri: &str, fields: &[(&str, &str)]) -> Verdict {
    let mut request = request("POST", HOST, "/mcp", fields);
    request.certificate = certificate(uri);
    world.process.request(0, 1, request);
    world.settle();
    world.process.verdict()
}

#[test]
fn each_kind_of_caller_gets_a_token_and_is_named_in_the_record() {
    let bearer = bearer(json!({}));
    let basic = basic(&format!("cron:{BASIC_SECRET}"));
    let cases = [
        ("user", "authorization", bearer.as_str(), "id_token"),
        ("mobile", "x-refresh-token", "own-RT-of-mobile", "refresh_token"),
        ("ci-bot", "x-api-key", "bot-key", "refresh_token"),
        ("cron", "authorization", basic.as_str(), "refresh_token"),
        ("agent", "", "", "refresh_token"),
    ];

    for (name, header, value, kind) in cases {
        let mut world = World::of(&everybody(), 1);
        let verdict = match header {
            "" => with_certificate(&mut world, SPIFFE, &[]),
            header => world.call(&[(header, value)]),
        };
        assert!(world.authorization(&verdict).starts_with("Bearer AS-token-"), "{name}");
        let subject = world.servers.last("exchange").get("subject_token_type").to_owned();
        assert_eq!(subject, format!("urn:ietf:params:oauth:token-type:{kind}"), "{name}");
        let sub = if name == "user" { short_digest("alice") } else { String::new() };
        let line = format!("exchanged caller={name:?} sub={sub} resource={WAREHOUSE}");
        assert!(world.has_logged(&line), "{name}: {:?}", world.process.log);
        assert_eq!(world.process.counts["done.exchanged"], 1, "{name}");
    }
}

#[test]
fn what_a_caller_presents_goes_no_further_however_its_name_is_spelled() {
    let secrets = [
        ("x-api-key", "bot-key"),
        ("x_api_key", "bot-key"),
        ("x_api-key", "k"),
        ("x_refresh_token", "t"),
        ("cookie", "c"),
        ("dpop", "d"),
        ("proxy-authorization", "p"),
        ("proxy_authorization", "p"),
        ("x-jagway-user", "u"),
        ("x_jagway_user", "u"),
        ("x-other", "stays"),
    ];
    let mut world = World::of(&everybody(), 1);

    let verdict = world.call(&secrets);

    let Verdict::Forward(edits, _) = verdict else { panic!("{:?}", world.process.log) };
    for (name, _) in secrets {
        assert_eq!(edits.remove.iter().any(|removed| removed == name), name != "x-other", "{name}");
    }
    let set: Vec<&str> = edits.set.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(set, ["authorization"]);
    for call in &world.servers.calls {
        assert!(!format!("{:?}{:?}", call.form, call.headers).contains("bot-key"), "{}", call.to);
    }
}

#[test]
fn two_credentials_are_one_too_many_whatever_they_are() {
    let bearer = bearer(json!({}));
    let basic = basic(&format!("cron:{BASIC_SECRET}"));
    let all = [
        ("authorization", bearer.as_str()),
        ("authorization", basic.as_str()),
        ("x-refresh-token", "own-RT-of-mobile"),
        ("x-api-key", "bot-key"),
        ("certificate", SPIFFE),
    ];

    for (index, first) in all.iter().enumerate() {
        for second in all.iter().skip(index) {
            let mut world = World::of(&everybody(), 1);
            let both = [*first, *second];
            let shows = both.iter().any(|(name, _)| *name == "certificate");
            let fields: Vec<(&str, &str)> =
                both.into_iter().filter(|(name, _)| *name != "certificate").collect();
            if fields.is_empty() {
                continue;
            }
            let uri = if shows { SPIFFE } else { "" };
            let verdict = with_certificate(&mut world, uri, &fields);
            let what = format!("{first:?} {second:?}");
            assert_eq!((status(&verdict), world.refused()), (400, "several_credentials"), "{what}");
            assert_eq!(body(&verdict)["error"], "invalid_request", "{what}");
            assert!(world.servers.calls.is_empty(), "{what}: {:?}", world.servers.calls);
        }
    }
}

#[test]
fn a_password_comes_as_it_is_or_form_encoded() {
    let good = ["p+ss w%rd:", "p%2Bss+w%25rd%3A", "p%2bss%20w%25rd%3a"];
    let bad = ["", "p", "p+ss w%rd", "p+ss w%rd: ", "p%2Bss%2Bw%25rd%3A", "p%252Bss+w%25rd%3A"];

    for (password, expected) in
        good.iter().map(|good| (good, 0)).chain(bad.iter().map(|bad| (bad, 401)))
    {
        let mut world = World::of(&everybody(), 1);
        let verdict = world.call(&[("authorization", &basic(&format!("cron:{password}")))]);
        assert_eq!(status(&verdict), expected, "{password}: {:?}", world.process.log);
    }
    // Both or neither.
    for (pair, expected) in [("%63ron:p%2Bss+w%25rd%3A", 0), ("%63ron:p+ss w%rd:", 401)] {
        let verdict = World::of(&everybody(), 1).call(&[("authorization", &basic(pair))]);
        assert_eq!(status(&verdict), expected, "{pair}");
    }
}

/// A token under `header` with the claims of a sound ID Token but for `change`.
fn under(header: &Value, change: Value) -> String {
    let claims = json!({
        "iss": IDP, "sub": "alice", "aud": "jagway", "iat": NOW, "exp": NOW + 3600,
    });
    format!("Bearer {}", assertions::raw(&header.to_string(), &merged(claims, &change).to_string()))
}

#[test]
fn a_credential_that_does_not_pass_is_refused_and_spends_nothing() {
    let sound = json!({ "alg": "ES256", "kid": "key-1", "typ": "JWT" });
    let header = |change: Value| under(&merged(sound.clone(), &change), json!({}));
    let claims = |change: Value| under(&sound, change);
    let long = format!("Bearer {}", "a".repeat(20_000));
    let cases: Vec<(&str, &str, String, &str)> = vec![
        ("no credential", "x-other", "x".into(), "no_credential"),
        ("an unknown key", "x-api-key", "guess".into(), "api_key_unknown"),
        ("an empty key", "x-api-key", String::new(), "api_key_unknown"),
        ("a key with a space", "x-api-key", "bot-key ".into(), "api_key_unknown"),
        ("a key in another case", "x-api-key", "BOT-KEY".into(), "api_key_unknown"),
        ("a key as a bearer token", "authorization", "Bearer bot-key".into(), ""),
        ("no scheme", "authorization", "bot-key".into(), "no_credential"),
        ("another scheme", "authorization", "Digest x".into(), "no_credential"),
        ("nothing", "authorization", String::new(), "no_credential"),
        ("an empty token", "authorization", "Bearer ".into(), ""),
        ("a name without a password", "authorization", basic("cron"), "api_key_unknown"),
        ("no name", "authorization", basic(&format!(":{BASIC_SECRET}")), "api_key_unknown"),
        (
            "another name",
            "authorization",
            basic(&format!("root:{BASIC_SECRET}")),
            "api_key_unknown",
        ),
        ("no base64", "authorization", "Basic %%%".into(), "api_key_unknown"),
        ("no padding", "authorization", "Basic Y3Jvbjo".into(), "api_key_unknown"),
        ("no text", "authorization", "Basic //86/w==".into(), "api_key_unknown"),
        ("an empty pair", "authorization", "Basic ".into(), "api_key_unknown"),
        ("an opaque token", "authorization", "Bearer abc".into(), ""),
        ("a very long token", "authorization", long, ""),
        ("an access token", "authorization", header(json!({ "typ": "at+jwt" })), "typ"),
        (
            "a client assertion",
            "authorization",
            header(json!({ "typ": "client-authentication+jwt" })),
            "typ",
        ),
        ("an ID-JAG", "authorization", format!("Bearer {}", id_jag("1")), "typ"),
        ("a proof", "authorization", header(json!({ "typ": "dpop+jwt" })), "typ"),
        ("no algorithm", "authorization", header(json!({ "alg": "none" })), "alg"),
        ("a symmetric algorithm", "authorization", header(json!({ "alg": "HS256" })), "alg"),
        ("another curve", "authorization", header(json!({ "alg": "ES384" })), ""),
        ("an unknown key id", "authorization", header(json!({ "kid": "key-7" })), ""),
        ("a critical extension", "authorization", header(json!({ "crit": ["x"], "x": 1 })), ""),
        ("another audience", "authorization", claims(json!({ "aud": "x" })), "aud"),
        ("no audience", "authorization", claims(json!({ "aud": null })), ""),
        (
            "two audiences, no azp",
            "authorization",
            claims(json!({ "aud": ["jagway", "x"] })),
            "aud",
        ),
        (
            "two audiences, another azp",
            "authorization",
            claims(json!({ "aud": ["jagway", "x"], "azp": "x" })),
            "aud",
        ),
        ("another azp", "authorization", claims(json!({ "azp": "x" })), "aud"),
        ("an azp that is no text", "authorization", claims(json!({ "azp": ["jagway"] })), ""),
        ("another issuer", "authorization", claims(json!({ "iss": AS })), "iss"),
        ("no issuer", "authorization", claims(json!({ "iss": null })), ""),
        ("no user", "authorization", claims(json!({ "sub": null })), ""),
        ("an empty user", "authorization", claims(json!({ "sub": "" })), ""),
        ("an expired one", "authorization", claims(json!({ "exp": NOW - 60 })), "expired"),
        ("no end", "authorization", claims(json!({ "exp": null })), ""),
        ("an end of text", "authorization", claims(json!({ "exp": "4000000000" })), ""),
        ("one from the future", "authorization", claims(json!({ "iat": NOW + 61 })), ""),
        ("one for later", "authorization", claims(json!({ "nbf": NOW + 61 })), ""),
        (
            "another's signature",
            "authorization",
            {
                let token = header(json!({}));
                let (rest, _) = token.rsplit_once('.').unwrap();
                format!("{rest}.{}", "A".repeat(86))
            },
            "",
        ),
    ];

    for (what, name, value, code) in &cases {
        let mut world = World::of(&everybody(), 1);
        let verdict = world.call(&[(name, value)]);
        assert_eq!(status(&verdict), 401, "{what}: {:?}", world.process.log);
        if !code.is_empty() {
            assert!(world.refused().contains(code), "{what}: {}", world.refused());
        }
        let challenge = header_of(&verdict);
        let bare = world.refused() == "no_credential";
        let expected = if bare {
            "Bearer realm=\"mcp\""
        } else {
            "Bearer realm=\"mcp\", error=\"invalid_token\""
        };
        assert_eq!(challenge, expected, "{what}");
        assert!(world.servers.token_calls().is_empty(), "{what}");
        let signed = value.starts_with("Bearer ey") && !["typ", "alg"].contains(code);
        assert!(signed || world.servers.calls.is_empty(), "{what}: {:?}", world.servers.calls);
    }
}

fn header_of(verdict: &Verdict) -> &str {
    header(verdict, "www-authenticate").unwrap_or_default()
}

#[test]
fn a_certificate_is_a_credential_only_if_it_is_a_callers() {
    for (uri, expected) in [(SPIFFE, 0), ("spiffe://acme.example/agent2", 401), ("", 401)] {
        let mut world = World::of(&everybody(), 1);
        let verdict = with_certificate(&mut world, uri, &[]);
        assert_eq!(status(&verdict), expected, "{uri}");
        assert_eq!(world.servers.calls.is_empty(), expected == 401, "{uri}");
    }
    // One that is nobody's does not stand in the way of another credential.
    let mut world = World::of(&everybody(), 1);
    let verdict = with_certificate(&mut world, "spiffe://x.example", &[("x-api-key", "bot-key")]);
    assert_eq!(status(&verdict), 0);
}

#[test]
fn an_id_token_may_say_that_it_is_for_us_and_more() {
    for change in [
        json!({ "aud": ["jagway"] }),
        json!({ "azp": "jagway" }),
        json!({ "aud": ["x", "jagway"], "azp": "jagway" }),
        json!({ "iat": NOW - 100, "exp": NOW - 59 }),
        json!({ "iat": NOW + 60, "nbf": NOW + 60 }),
        json!({ "nonce": "n", "at_hash": "h", "acr": "mfa" }),
    ] {
        let mut world = World::of(&everybody(), 1);
        let verdict = world.call(&[("authorization", &bearer(change.clone()))]);
        assert_eq!(status(&verdict), 0, "{change}: {:?}", world.process.log);
    }
}

#[test]
fn a_scheme_is_known_in_any_case() {
    let token = id_token(&json!({}));

    for scheme in ["Bearer", "bearer", "BEARER"] {
        let mut world = World::of(&everybody(), 1);
        assert_eq!(status(&world.call(&[("authorization", &format!("{scheme} {token}"))])), 0);
    }
}

#[test]
fn a_caller_is_known_only_where_it_is_listed() {
    let kinds = [
        ("authorization", bearer(json!({}))),
        ("authorization", basic(&format!("cron:{BASIC_SECRET}"))),
        ("x-refresh-token", "own-RT-of-mobile".to_owned()),
        ("x-api-key", "bot-key".to_owned()),
    ];

    for (only, (name, _)) in [(0, kinds[0].clone()), (1, kinds[2].clone()), (2, kinds[3].clone())] {
        let mut config = everybody();
        let callers = config.pointer_mut("/resources/0/upgrade/callers").unwrap();
        *callers = json!([callers[only]]);
        for (header, value) in &kinds {
            let mut world = World::of(&config, 1);
            let verdict = world.call(&[(header, value)]);
            let is_known = *header == name && !value.starts_with("Basic");
            assert_eq!(status(&verdict), if is_known { 0 } else { 401 }, "{only} {header} {value}");
        }
    }
}
