//! Configurations that are refused, each with the path of its field.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::config::{Config, Credential};
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn refusal(config: &Value) -> (String, String) {
    match Config::parse(config.to_string().as_bytes(), &env) {
        Ok(_) => ("accepted".to_owned(), String::new()),
        Err(error) => (error.path, error.problem),
    }
}

/// `config` with the value at `pointer` set (parents are there), or removed by `null`.
fn with(config: Value, pointer: &str, value: Value) -> Value {
    let mut config = config;
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(members), Value::Null) => drop(members.remove(name)),
        (Value::Object(members), value) => drop(members.insert(name.to_owned(), value)),
        (Value::Array(items), value) => items[name.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer}"),
    }
    config
}

#[test]
fn the_plain_configurations_are_accepted() {
    assert_eq!(refusal(&accept_config()).0, "accepted");
    assert_eq!(refusal(&upgrade_config()).0, "accepted");
}

#[test]
fn a_wrong_accept_configuration_is_refused_at_its_field() {
    let server = "/authorization_server";
    let cases = [
        ("/surprise", json!(1), "surprise"),
        ("/identity_providers/acme/isuer", json!("x"), "identity_providers.acme.isuer"),
        ("/resources/0/accept/policy", json!({}), "resources[0].accept.policy"),
        ("/resources/0/accept/scopes", json!("stock.read"), "resources[0].accept.scopes"),
        ("/resources/0/accept/credential", json!(null), "resources[0].accept"),
        ("/resources/0/accept", json!(null), "resources[0]"),
        ("/resources/0/resource", json!("warehouse"), "resources[0].resource"),
        ("/resources/0/resource", json!("http://mcp.acme.example/x"), "resources[0].resource"),
        ("/resources/0/resource", json!("https://mcp.acme.example/x#y"), "resources[0].resource"),
        ("/resources/0/resource", json!("https://mcp.acme.example/x?y"), "resources[0].resource"),
        (
            "/resources/0/accept/credential/value",
            json!({ "env": "NOT_SET" }),
            "resources[0].accept.credential.value.env",
        ),
        (
            "/resources/0/accept/credential/value",
            json!({ "env": "EMPTY" }),
            "resources[0].accept.credential.value.env",
        ),
        (
            "/resources/0/accept/credential/value",
            json!("literal"),
            "resources[0].accept.credential.value",
        ),
        (
            "/resources/0/accept/credential/header",
            json!("x api key"),
            "resources[0].accept.credential.header",
        ),
        (
            "/resources/0/accept/credential/header",
            json!("Host"),
            "resources[0].accept.credential.header",
        ),
        (
            "/resources/0/accept/credential/header",
            json!("TE"),
            "resources[0].accept.credential.header",
        ),
        (
            "/resources/0/accept/credential/header",
            json!("x-jagway-key"),
            "resources[0].accept.credential.header",
        ),
        ("/resources/0/accept/scopes", json!(["a", "a"]), "resources[0].accept.scopes[1]"),
        ("/resources/0/accept/scopes", json!(["a b"]), "resources[0].accept.scopes[0]"),
        ("/resources/0/accept/default_scopes", json!(["x"]), "resources[0].accept.default_scopes"),
        (
            "/resources/0/accept/allowed_origins",
            json!(["https://app.example/"]),
            "resources[0].accept.allowed_origins[0]",
        ),
        ("/resources", json!([]), "resources"),
        (server, json!(null), "authorization_server"),
        ("/authorization_server/issuer", json!(IDP), "identity_providers.acme.issuer"),
        (
            "/authorization_server/issuer",
            json!(" https://x.example"),
            "authorization_server.issuer",
        ),
        (
            "/authorization_server/signing_keys/0/kid",
            json!(""),
            "authorization_server.signing_keys[0].kid",
        ),
        (
            "/authorization_server/signing_keys/0/kid",
            json!("k".repeat(257)),
            "authorization_server.signing_keys[0].kid",
        ),
        (
            "/authorization_server/signing_keys",
            (0..65)
                .map(|n| json!({ "key": { "env": "SIGNING_KEY" }, "kid": n.to_string() }))
                .collect(),
            "authorization_server.signing_keys",
        ),
        ("/authorization_server/rate_limits", json!({}), "authorization_server.rate_limits"),
        (
            "/authorization_server/rate_limits",
            json!({ "per_source_per_minute": 0 }),
            "authorization_server.rate_limits",
        ),
        (
            "/resources/0/accept/credential/value",
            json!({ "env": "TWO_LINES" }),
            "resources[0].accept.credential.value.env",
        ),
        ("/resources/0/resource", json!(format!("{AS}/token")), "resources[0]"),
        ("/resources/0/resource", json!(format!("{AS}/a;b")), "resources[0].resource"),
        ("/resources/0/resource", json!(format!("{AS}/a%2Fb")), "resources[0].resource"),
        (
            "/resources/0/resource",
            json!(format!("{AS}/{}", "a".repeat(256))),
            "resources[0].resource",
        ),
        ("/authorization_server/signing_keys", json!([]), "authorization_server.signing_keys"),
        (
            "/authorization_server/signing_keys",
            json!([{ "key": { "env": "NOT_A_KEY" } }]),
            "authorization_server.signing_keys[0].key",
        ),
        (
            "/authorization_server/signing_keys",
            json!([{ "key": { "env": "SIGNING_KEY" } }, { "key": { "env": "SIGNING_KEY" } }]),
            "authorization_server.signing_keys[1].kid",
        ),
        (
            "/authorization_server/access_token_lifetime",
            json!(3601),
            "authorization_server.access_token_lifetime",
        ),
        (
            "/authorization_server/access_token_lifetime",
            json!(0),
            "authorization_server.access_token_lifetime",
        ),
        ("/authorization_server/clock_skew", json!(301), "authorization_server.clock_skew"),
        ("/authorization_server/clients", json!({}), "authorization_server.clients"),
        (
            "/authorization_server/clients/claude/secret_sha256",
            json!("abc"),
            "authorization_server.clients.claude.secret_sha256",
        ),
        (
            "/authorization_server/clients/claude/secret_sha256",
            json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            "authorization_server.clients.claude.secret_sha256",
        ),
        (
            "/authorization_server/clients/claude/secret_sha256",
            json!(null),
            "authorization_server.clients.claude",
        ),
        (
            "/authorization_server/clients/claude/private_key_jwt",
            json!({ "jwks": { "keys": [] } }),
            "authorization_server.clients.claude",
        ),
        (
            "/authorization_server/clients/claude",
            json!({ "private_key_jwt": { "jwks": { "keys": [] } }, "identity_providers": ["acme"] }),
            "authorization_server.clients.claude.private_key_jwt.jwks",
        ),
        (
            "/authorization_server/clients/claude",
            json!({
                "private_key_jwt": { "jwks": { "keys": [{ "kty": "oct", "k": "AAAA" }] } },
                "identity_providers": ["acme"],
            }),
            "authorization_server.clients.claude.private_key_jwt.jwks",
        ),
        (
            "/authorization_server/clients/claude/identity_providers",
            json!(["acne"]),
            "authorization_server.clients.claude.identity_providers[0]",
        ),
        (
            "/authorization_server/clients/claude/identity_providers",
            json!([]),
            "authorization_server.clients.claude.identity_providers",
        ),
        (
            "/authorization_server/clients/claude/identity_providers",
            json!(["acme", "acme"]),
            "authorization_server.clients.claude.identity_providers[1]",
        ),
        (
            "/identity_providers/idle",
            json!({ "issuer": "https://idle.example", "cluster": "x" }),
            "identity_providers.idle",
        ),
        (
            "/identity_providers/zwilling",
            json!({ "issuer": IDP, "cluster": "x" }),
            "identity_providers.zwilling.issuer",
        ),
        ("/identity_providers/acme/cluster", json!(""), "identity_providers.acme.cluster"),
        (
            "/identity_providers/acme/algorithms",
            json!(["RS256", "none"]),
            "identity_providers.acme.algorithms[1]",
        ),
        (
            "/identity_providers/acme/algorithms",
            json!(["HS256"]),
            "identity_providers.acme.algorithms[0]",
        ),
        ("/identity_providers/acme/algorithms", json!([]), "identity_providers.acme.algorithms"),
        (
            "/identity_providers/acme/required_acr",
            json!(["a b"]),
            "identity_providers.acme.required_acr[0]",
        ),
        ("/identity_providers/acme/max_auth_age", json!(0), "identity_providers.acme.max_auth_age"),
        (
            "/identity_providers/acme/max_id_jag_lifetime",
            json!(3601),
            "identity_providers.acme.max_id_jag_lifetime",
        ),
        (
            "/identity_providers/acme/jwks_uri",
            json!("http://acme.idp.example/keys"),
            "identity_providers.acme.jwks_uri",
        ),
    ];

    for (pointer, value, path) in cases {
        let config = with(accept_config(), pointer, value.clone());
        let (found, problem) = refusal(&config);
        assert_eq!(found, path, "{pointer} = {value}: {problem}");
        assert!(!problem.is_empty());
    }
}

#[test]
fn a_wrong_upgrade_configuration_is_refused_at_its_field() {
    let upgrade = "resources[0].upgrade";
    let callers = |callers: Value| ("/resources/0/upgrade/callers", callers);
    let key = |more: Value| {
        let mut caller = json!({
            "api_key": { "header": "x-api-key", "sha256": "00".repeat(32) },
            "subject": { "refresh_token": { "env": "BOT_REFRESH" } },
        });
        for (name, value) in more.as_object().unwrap() {
            match value {
                Value::Null => drop(caller.as_object_mut().unwrap().remove(name)),
                value => caller[name] = value.clone(),
            }
        }
        caller
    };
    let cases = [
        (callers(json!([])), "callers"),
        (callers(json!([{}])), "callers[0]"),
        (
            callers(json!([{ "id_token": {}, "subject": { "refresh_token": { "env": "X" } } }])),
            "callers[0].subject",
        ),
        (callers(json!([{ "id_token": { "x": 1 } }])), "callers[0].id_token.x"),
        (callers(json!([{ "id_token": {} }, { "id_token": {} }])), "callers[1]"),
        (callers(json!([key(json!({})), key(json!({}))])), "callers[1]"),
        (callers(json!([key(json!({ "subject": null }))])), "callers[0].subject"),
        (
            callers(json!([key(json!({ "subject": { "refresh_token": { "env": "NOT_SET" } } }))])),
            "callers[0].subject.refresh_token.env",
        ),
        (
            callers(json!([key(json!({ "api_key": { "header": "x", "sha256": "plain" } }))])),
            "callers[0].api_key.sha256",
        ),
        (
            callers(json!([key(
                json!({ "api_key": { "header": "connection", "sha256": "00".repeat(32) } })
            )])),
            "callers[0].api_key.header",
        ),
        (("/resources/0/upgrade/identity_provider", json!("nobody")), "identity_provider"),
        (("/resources/0/upgrade/url", json!("tickets")), "url"),
        (("/resources/0/upgrade/max_token_age", json!(0)), "max_token_age"),
        (
            ("/resources/0/upgrade/authorization_server/issuer", json!(IDP)),
            "authorization_server.issuer",
        ),
        (
            ("/resources/0/upgrade/authorization_server/client", json!({ "id": "x" })),
            "authorization_server.client",
        ),
        (
            (
                "/resources/0/upgrade/authorization_server/client",
                json!({ "id": "x", "private_key_jwt": { "key": { "env": "NOT_A_KEY" } } }),
            ),
            "authorization_server.client.private_key_jwt.key",
        ),
        (
            (
                "/resources/0/upgrade/authorization_server/token_endpoint",
                json!("https://as.example/a/../b"),
            ),
            "authorization_server.token_endpoint",
        ),
    ];

    for ((pointer, value), path) in cases {
        let config = with(upgrade_config(), pointer, value.clone());
        let (found, problem) = refusal(&config);
        assert_eq!(found, format!("{upgrade}.{path}"), "{pointer} = {value}: {problem}");
    }
    let without_client = with(upgrade_config(), "/identity_providers/acme/client", Value::Null);
    assert_eq!(refusal(&without_client).0, "resources[0].upgrade.identity_provider");
    let mut twice = upgrade_config();
    let again = twice["resources"][0].clone();
    twice["resources"].as_array_mut().unwrap().push(again);
    assert_eq!(refusal(&twice).0, "resources[1]");
    twice["resources"][1]["upgrade"]["url"] = json!("https://tickets.internal.example/mcp/");
    assert_eq!(refusal(&twice).0, "resources[1]", "with a slash it is the same");
    let both = with(
        upgrade_config(),
        "/authorization_server",
        accept_config()["authorization_server"].clone(),
    );
    assert_eq!(refusal(&both).0, "authorization_server");
}

#[test]
fn documents_that_are_none_are_refused() {
    for bytes in
        [b"".as_slice(), b"[]", b"nonsense", b"{\"resources\":[],\"resources\":[]}", b"\xff"]
    {
        assert!(Config::parse(bytes, &env).is_err(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn no_refusal_tells_a_secret() {
    let config = with(
        accept_config(),
        "/authorization_server/signing_keys",
        json!([{ "key": { "env": "WAREHOUSE_KEY" } }]),
    );

    let (path, problem) = refusal(&config);

    assert_eq!(path, "authorization_server.signing_keys[0].key");
    assert!(!problem.contains("warehouse-key"), "{problem}");
}

#[test]
fn a_secret_that_was_written_down_is_not_repeated() {
    let fields = [
        "/authorization_server/signing_keys/0/key",
        "/resources/0/accept/credential/value",
        "/authorization_server/clients/claude/secret_sha256",
        "/identity_providers/acme/max_id_jag_lifetime",
    ];

    for field in fields {
        let (_, problem) = refusal(&with(accept_config(), field, json!("hunter2")));
        assert!(!problem.contains("hunter2"), "{field}: {problem}");
        assert!(problem.starts_with("must be"), "{field}: {problem}");
    }
}

#[test]
fn plain_http_is_allowed_only_with_the_switch_and_then_warned_about() {
    let mut config = accept_config();
    config["allow_insecure_http"] = json!(true);
    config["identity_providers"]["acme"]["issuer"] = json!("http://127.0.0.1:8080");
    config["identity_providers"]["acme"]["jwks_uri"] = json!("http://127.0.0.1:8080/keys");

    let config = parse(&config);

    assert!(config.warnings.iter().any(|line| line.starts_with("allow_insecure_http")));
    assert!(parse(&accept_config()).warnings.is_empty());
}

#[test]
fn settings_that_nothing_uses_are_warned_about() {
    let idle = [
        (accept_config(), "client", json!({ "id": "x", "secret": { "env": "IDP_SECRET" } })),
        (accept_config(), "token_endpoint", json!(format!("{IDP}/token"))),
        (upgrade_config(), "max_id_jag_lifetime", json!(300)),
        (upgrade_config(), "required_acr", json!(["mfa"])),
        (upgrade_config(), "max_auth_age", json!(300)),
    ];

    for (config, field, value) in idle {
        let path = format!("identity_providers.acme.{field}");
        let config = parse(&with(config, &format!("/identity_providers/acme/{field}"), value));
        assert_eq!(config.warnings.len(), 1, "{field}");
        assert!(config.warnings[0].starts_with(&path), "{:?}", config.warnings);
    }
}

#[test]
fn the_newline_at_the_end_of_a_secret_is_not_part_of_it() {
    let config = with(
        accept_config(),
        "/resources/0/accept/credential/value",
        json!({ "env": "WITH_NEWLINE" }),
    );

    let config = parse(&config);

    let jagway_core::config::Kind::Accept(accept) = &config.resources[0].kind else { panic!() };
    let first = accept.credentials.iter().next().unwrap();
    let Credential::Header(_, value) = &first.credential else { panic!() };
    assert_eq!(value.expose(), "secret");
}

#[test]
fn without_any_secret_what_workers_share_could_be_opened_by_anybody() {
    let mut config = upgrade_config();
    for client in
        ["/identity_providers/acme/client", "/resources/0/upgrade/authorization_server/client"]
    {
        let client = config.pointer_mut(client).unwrap();
        *client = json!({ "id": client["id"], "tls_client_auth": {} });
    }
    config["resources"][0]["upgrade"]["callers"] = json!([{ "id_token": {} }]);

    assert_eq!(refusal(&config).0, "sealing_secret");
    config["sealing_secret"] = json!({ "env": "AS_SECRET" });
    parse(&config);
}
