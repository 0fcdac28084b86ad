//! What the filter makes of its configuration, and what of it may be read in Envoy's log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::client_auth::AuthMethod;
use host_tests::jwks::http_client;
use host_tests::keys::SigningKey;
use host_tests::oauth_client::form;
use host_tests::{Options, World, raw};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::*;

/// A change that spoils a configuration, and the path that the log must name.
type Row = (&'static str, fn(&mut Value), &'static str);

/// The log of an Envoy that refuses to start with this.
async fn refusal(name: &str, options: Options) -> String {
    match World::try_start(options).await {
        Ok(_) => panic!("{name}: Envoy starts"),
        Err(log) => log,
    }
}

/// The line in which the filter says why.
fn reason<'a>(name: &str, log: &'a str) -> &'a str {
    let line = log.lines().find(|line| line.contains("jagway: configuration refused: "));
    line.unwrap_or_else(|| panic!("{name}: no reason in the log:\n{log}"))
}

fn names(line: &str, path: &str) -> bool {
    let said = line.split("configuration refused: ").nth(1).unwrap_or_default();
    said.strip_prefix(path).is_some_and(|rest| rest.starts_with(':'))
}

/// What is wrong with the way in which a refusal was told.
fn faults_of(name: &str, path: &str, log: &str) -> Vec<String> {
    let line = reason(name, log);
    // Where a whole member is missing at the top, there is no path but its name.
    let missing = line.contains(&format!("missing field `{path}`"));
    let mut faults = vec![];
    if !missing && !names(line, path) {
        faults.push(format!("{name}: {path} is not named in {line}"));
    }
    if let Some(line) = log.lines().find(|line| line.contains("hunter2")) {
        faults.push(format!("{name}: a secret is shown: {line}"));
    }
    faults
}

fn upgrade(config: &mut Value) -> &mut Value {
    &mut config["resources"][0]["upgrade"]
}

fn accept(config: &mut Value) -> &mut Value {
    &mut config["resources"][0]["accept"]
}

fn server(config: &mut Value) -> &mut Value {
    &mut config["authorization_server"]
}

fn acme(config: &mut Value) -> &mut Value {
    &mut config["identity_providers"]["acme"]
}

fn remove(value: &mut Value, name: &str) {
    value.as_object_mut().unwrap().remove(name);
}

#[tokio::test]
async fn an_upgrade_configuration_with_a_fault_is_refused_by_its_path() {
    let cases: Vec<Row> = vec![
        ("unknown field", |c| c["colour"] = json!(1), "colour"),
        (
            "unknown field inside",
            |c| upgrade(c)["colour"] = json!(1),
            "resources[0].upgrade.colour",
        ),
        (
            "unknown field of a caller",
            |c| upgrade(c)["callers"][0]["colour"] = json!(1),
            "resources[0].upgrade.callers[0].colour",
        ),
        (
            "secret by value",
            |c| acme(c)["client"]["secret"] = json!("hunter2"),
            "identity_providers.acme.client.secret",
        ),
        (
            "missing env",
            |c| acme(c)["client"]["secret"] = json!({"env": "NOT_SET"}),
            "identity_providers.acme.client.secret.env",
        ),
        (
            "no switch for http",
            |c| remove(c, "allow_insecure_http"),
            "identity_providers.acme.issuer",
        ),
        (
            "unknown identity provider",
            |c| upgrade(c)["identity_provider"] = json!("other"),
            "resources[0].upgrade.identity_provider",
        ),
        (
            "unused identity provider",
            |c| {
                c["identity_providers"]["other"] =
                    json!({"issuer": "http://other.example", "cluster": "idp"})
            },
            "identity_providers.other",
        ),
        (
            "the same issuer twice",
            |c| c["identity_providers"]["other"] = acme(c).clone(),
            "identity_providers.other.issuer",
        ),
        (
            "the same resource twice",
            |c| {
                let again = c["resources"][0].clone();
                c["resources"].as_array_mut().unwrap().push(again)
            },
            "resources[1]",
        ),
        (
            "the same caller twice",
            |c| {
                let again = upgrade(c)["callers"][1].clone();
                upgrade(c)["callers"].as_array_mut().unwrap().push(again)
            },
            "resources[0].upgrade.callers[2]",
        ),
        ("no URL", |c| acme(c)["issuer"] = json!("acme"), "identity_providers.acme.issuer"),
        (
            "URL with fragment",
            |c| acme(c)["issuer"] = json!("http://acme.example/#x"),
            "identity_providers.acme.issuer",
        ),
        (
            "URL with query",
            |c| acme(c)["issuer"] = json!("http://acme.example/?x"),
            "identity_providers.acme.issuer",
        ),
        (
            "URL with user",
            |c| upgrade(c)["url"] = json!("http://me@acme.example/"),
            "resources[0].upgrade.url",
        ),
        (
            "URL not in normal form",
            |c| c["resources"][0]["resource"] = json!("http://ACME.example/a/../b"),
            "resources[0].resource",
        ),
        (
            "another scheme",
            |c| acme(c)["jwks_uri"] = json!("file:///etc/passwd"),
            "identity_providers.acme.jwks_uri",
        ),
        (
            "HMAC",
            |c| acme(c)["algorithms"] = json!(["ES256", "HS256"]),
            "identity_providers.acme.algorithms[1]",
        ),
        (
            "none",
            |c| acme(c)["algorithms"] = json!(["none"]),
            "identity_providers.acme.algorithms[0]",
        ),
        (
            "no algorithm",
            |c| acme(c)["algorithms"] = json!([]),
            "identity_providers.acme.algorithms",
        ),
        (
            "endless ID-JAGs",
            |c| acme(c)["max_id_jag_lifetime"] = json!(100_000),
            "identity_providers.acme.max_id_jag_lifetime",
        ),
        (
            "ID-JAGs of no life",
            |c| acme(c)["max_id_jag_lifetime"] = json!(0),
            "identity_providers.acme.max_id_jag_lifetime",
        ),
        (
            "two credentials",
            |c| acme(c)["client"]["private_key_jwt"] = json!({"key": {"env": "IDP_CLIENT_SECRET"}}),
            "identity_providers.acme.client",
        ),
        (
            "no credential",
            |c| remove(&mut acme(c)["client"], "secret"),
            "identity_providers.acme.client",
        ),
        ("no client", |c| remove(acme(c), "client"), "resources[0].upgrade.identity_provider"),
        (
            "no key",
            |c| {
                acme(c)["client"] =
                    json!({"id": "a", "private_key_jwt": {"key": {"env": "IDP_CLIENT_SECRET"}}})
            },
            "identity_providers.acme.client.private_key_jwt.key",
        ),
        (
            "the IdP as its own Resource AS",
            |c| upgrade(c)["authorization_server"]["issuer"] = acme(c)["issuer"].clone(),
            "resources[0].upgrade.authorization_server.issuer",
        ),
        (
            "no cluster",
            |c| upgrade(c)["authorization_server"]["cluster"] = json!(""),
            "resources[0].upgrade.authorization_server.cluster",
        ),
        ("no callers", |c| upgrade(c)["callers"] = json!([]), "resources[0].upgrade.callers"),
        (
            "a key bound to nobody",
            |c| remove(&mut upgrade(c)["callers"][1], "subject"),
            "resources[0].upgrade.callers[1].subject",
        ),
        (
            "two kinds of caller in one",
            |c| upgrade(c)["callers"][1]["id_token"] = json!({}),
            "resources[0].upgrade.callers[1]",
        ),
        (
            "digest too short",
            |c| upgrade(c)["callers"][1]["api_key"]["sha256"] = json!("abcd"),
            "resources[0].upgrade.callers[1].api_key.sha256",
        ),
        (
            "digest of nothing",
            |c| {
                upgrade(c)["callers"][1]["api_key"]["sha256"] =
                    json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
            },
            "resources[0].upgrade.callers[1].api_key.sha256",
        ),
        (
            "digest as number",
            |c| upgrade(c)["callers"][1]["api_key"]["sha256"] = json!(7),
            "resources[0].upgrade.callers[1].api_key.sha256",
        ),
        (
            "a header of ours",
            |c| upgrade(c)["callers"][1]["api_key"]["header"] = json!("X-Jagway-Key"),
            "resources[0].upgrade.callers[1].api_key.header",
        ),
        (
            "a header that is none",
            |c| upgrade(c)["callers"][1]["api_key"]["header"] = json!("x key"),
            "resources[0].upgrade.callers[1].api_key.header",
        ),
        (
            "a pseudo header",
            |c| upgrade(c)["callers"][1]["api_key"]["header"] = json!(":path"),
            "resources[0].upgrade.callers[1].api_key.header",
        ),
        (
            "two scopes in one",
            |c| upgrade(c)["scopes"] = json!(["a", "b c"]),
            "resources[0].upgrade.scopes[1]",
        ),
        (
            "the same scope twice",
            |c| upgrade(c)["scopes"] = json!(["a", "a"]),
            "resources[0].upgrade.scopes[1]",
        ),
        ("scopes as text", |c| upgrade(c)["scopes"] = json!("a b"), "resources[0].upgrade.scopes"),
        (
            "age as text",
            |c| upgrade(c)["max_token_age"] = json!("300"),
            "resources[0].upgrade.max_token_age",
        ),
        (
            "age as fraction",
            |c| upgrade(c)["max_token_age"] = json!(1.5),
            "resources[0].upgrade.max_token_age",
        ),
        (
            "age below zero",
            |c| upgrade(c)["max_token_age"] = json!(-1),
            "resources[0].upgrade.max_token_age",
        ),
        ("resources as object", |c| c["resources"] = json!({}), "resources"),
        ("no resource", |c| c["resources"] = json!([]), "resources"),
        ("neither kind", |c| remove(&mut c["resources"][0], "upgrade"), "resources[0]"),
        (
            "a server for nobody",
            |c| c["authorization_server"] = json!({"issuer": "http://x.example", "signing_keys": [{"key": {"env": "IDP_CLIENT_KEY"}}], "clients": {}}),
            "authorization_server.signing_keys[0].key.env",
        ),
    ];

    let mut wrong = vec![];
    for (name, spoil, path) in cases {
        let patch = Box::new(spoil);
        let log = refusal(name, Options { patch_egress: Some(patch), ..Options::default() }).await;
        wrong.extend(faults_of(name, path, &log));
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_accept_configuration_with_a_fault_is_refused_by_its_path() {
    let cases: Vec<Row> = vec![
        ("unknown field", |c| server(c)["colour"] = json!(1), "authorization_server.colour"),
        (
            "unknown field of a client",
            |c| server(c)["clients"]["claude"]["colour"] = json!(1),
            "authorization_server.clients.claude.colour",
        ),
        ("no server", |c| remove(c, "authorization_server"), "authorization_server"),
        ("no keys", |c| server(c)["signing_keys"] = json!([]), "authorization_server.signing_keys"),
        (
            "a key that is none",
            |c| server(c)["signing_keys"][0]["key"] = json!({"env": "WAREHOUSE_KEY"}),
            "authorization_server.signing_keys[0].key",
        ),
        (
            "a key by value",
            |c| server(c)["signing_keys"][0]["key"] = json!("hunter2"),
            "authorization_server.signing_keys[0].key",
        ),
        (
            "the same key twice",
            |c| {
                let again = server(c)["signing_keys"][0].clone();
                server(c)["signing_keys"].as_array_mut().unwrap().push(again)
            },
            "authorization_server.signing_keys[1].kid",
        ),
        (
            "tokens of no life",
            |c| server(c)["access_token_lifetime"] = json!(0),
            "authorization_server.access_token_lifetime",
        ),
        (
            "tokens of a day",
            |c| server(c)["access_token_lifetime"] = json!(86_400),
            "authorization_server.access_token_lifetime",
        ),
        (
            "wide clocks",
            |c| server(c)["clock_skew"] = json!(3600),
            "authorization_server.clock_skew",
        ),
        ("no clients", |c| server(c)["clients"] = json!({}), "authorization_server.clients"),
        (
            "a client nobody speaks for",
            |c| server(c)["clients"]["claude"]["identity_providers"] = json!([]),
            "authorization_server.clients.claude.identity_providers",
        ),
        (
            "an unknown provider",
            |c| server(c)["clients"]["claude"]["identity_providers"] = json!(["acme", "other"]),
            "authorization_server.clients.claude.identity_providers[1]",
        ),
        (
            "a provider twice",
            |c| server(c)["clients"]["claude"]["identity_providers"] = json!(["acme", "acme"]),
            "authorization_server.clients.claude.identity_providers[1]",
        ),
        (
            "a digest in base64",
            |c| {
                server(c)["clients"]["claude"]["secret_sha256"] =
                    json!("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
            },
            "authorization_server.clients.claude.secret_sha256",
        ),
        (
            "issuer with query",
            |c| server(c)["issuer"] = json!("http://x.example/?a"),
            "authorization_server.issuer",
        ),
        (
            "the IdP's issuer as our own",
            |c| server(c)["issuer"] = acme(c)["issuer"].clone(),
            "identity_providers.acme.issuer",
        ),
        (
            "both kinds",
            |c| c["resources"][0]["upgrade"] = json!({"identity_provider": "acme", "authorization_server": {"issuer": "http://x.example", "cluster": "x", "client": {"id": "x"}}, "callers": []}),
            "resources[0]",
        ),
        (
            "origin with a path",
            |c| accept(c)["allowed_origins"] = json!(["https://a.example/"]),
            "resources[0].accept.allowed_origins[0]",
        ),
        (
            "any origin",
            |c| accept(c)["allowed_origins"] = json!(["*"]),
            "resources[0].accept.allowed_origins[0]",
        ),
        (
            "default scope that is none",
            |c| accept(c)["default_scopes"] = json!(["admin"]),
            "resources[0].accept.default_scopes",
        ),
        (
            "credential in the host",
            |c| accept(c)["credential"]["header"] = json!("Host"),
            "resources[0].accept.credential.header",
        ),
        (
            "credential in a header of Envoy's",
            |c| accept(c)["credential"]["header"] = json!("x-envoy-a"),
            "resources[0].accept.credential.header",
        ),
        (
            "credential not there",
            |c| accept(c)["credential"]["value"]["env"] = json!("NOT_SET"),
            "resources[0].accept.credential.value.env",
        ),
        ("no credential", |c| remove(accept(c), "credential"), "resources[0].accept"),
        ("switch as text", |c| c["allow_insecure_http"] = json!("yes"), "allow_insecure_http"),
        ("empty", |c| *c = json!({}), "resources"),
    ];

    let mut wrong = vec![];
    for (name, spoil, path) in cases {
        let patch = Box::new(spoil);
        let log = refusal(name, Options { patch_ingress: Some(patch), ..Options::default() }).await;
        wrong.extend(faults_of(name, path, &log));
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn keys_that_must_not_sign_and_empty_secrets_are_refused() {
    let rsa = tokio::task::spawn_blocking(|| SigningKey::rs256("rsa").pem()).await.unwrap();
    let es256 = SigningKey::es256("x").pem();
    let half = es256[..es256.len() / 2].to_owned();
    let cases = [
        ("RSA", "SIGNING_KEY", rsa.clone(), "authorization_server.signing_keys[0].key"),
        ("half a key", "SIGNING_KEY", half, "authorization_server.signing_keys[0].key"),
        (
            "an empty key",
            "SIGNING_KEY",
            String::new(),
            "authorization_server.signing_keys[0].key.env",
        ),
        (
            "an empty secret",
            "WAREHOUSE_KEY",
            "\n".into(),
            "resources[0].accept.credential.value.env",
        ),
    ];

    for (name, variable, value, path) in cases {
        let env = vec![(variable.to_owned(), value.clone())];
        let log = refusal(name, Options { env, ..Options::default() }).await;

        let line = reason(name, &log);
        assert!(names(line, path), "{name}: {path} is not named in {line}");
        let shown = value.lines().any(|line| line.len() > 30 && log.contains(line));
        assert!(!shown, "{name}: the key is in the log");
    }
    let env = vec![("IDP_CLIENT_KEY".to_owned(), rsa)];
    let options = Options { idp_auth: AuthMethod::PrivateKeyJwt, env, ..Options::default() };
    let log = refusal("RSA for a client", options).await;
    assert!(names(reason("", &log), "identity_providers.acme.client.private_key_jwt.key"));
}

/// The bootstrap with every plugin configuration as the text `change` makes of its JSON.
fn as_string_value(text: &str, change: &dyn Fn(&str) -> String) -> String {
    let mut parts = text.split("google.protobuf.Struct\n");
    let mut made = parts.next().unwrap().to_owned();
    for part in parts {
        let start = part.find("value: ").unwrap() + "value: ".len();
        let mut values = serde_json::Deserializer::from_str(&part[start..]).into_iter::<Value>();
        let config = values.next().unwrap().unwrap();
        let end = start + values.byte_offset();
        let written = Value::String(change(&config.to_string()));
        made.push_str("google.protobuf.StringValue\n");
        made.push_str(&format!("{}{written}{}", &part[..start], &part[end..]));
    }
    made
}

#[tokio::test]
async fn the_configuration_may_be_json_in_a_string_too() {
    let patch = Box::new(|text: String| as_string_value(&text, &str::to_owned));
    let world = World::start(Options { patch_bootstrap: Some(patch), ..Options::default() }).await;

    let mut alice = world.client_with_id_token();
    alice.initialize().await.unwrap();
    let id_jag = id_jag(&world, |_, _| {});
    let redeemed = world.redeem_at_jagway(&id_jag).await;

    assert_eq!(redeemed.status, 200);
}

#[tokio::test]
async fn a_document_that_is_not_one_strict_object_is_refused() {
    type Change = fn(&str) -> String;
    let cases: [(&str, Change); 7] = [
        ("empty text", |_| String::new()),
        ("an array", |json| format!("[{json}]")),
        ("text", |_| "hello".into()),
        ("cut off", |json| json[..json.len() - 1].into()),
        ("two documents", |json| format!("{json}{json}")),
        ("a member twice", |json| format!("{{\"allow_insecure_http\":true,{}", &json[1..])),
        ("YAML", |_| "resources:\n- resource: http://a.example\n".into()),
    ];

    for (name, change) in cases {
        let patch = Box::new(move |text: String| as_string_value(&text, &change));
        let options = Options { patch_bootstrap: Some(patch), ..Options::default() };
        let log = refusal(name, options).await;
        reason(name, &log);
    }
    let none = Box::new(|text: String| {
        let json = as_string_value(&text, &|_| "GONE".into());
        json.replace("\"GONE\"", "\"\"")
    });
    let options = Options { patch_bootstrap: Some(none), ..Options::default() };
    reason("nothing", &refusal("nothing", options).await);
}

#[tokio::test]
async fn no_secret_and_no_token_is_ever_in_envoys_log() {
    let options = Options {
        idp_auth: AuthMethod::Basic,
        tickets_as_auth: AuthMethod::PrivateKeyJwt,
        ..Options::default()
    };
    let world = World::start(options).await;
    let envoy = world.envoy.as_ref().unwrap();
    let logging = format!("{}/logging?wasm=trace", envoy.admin());
    assert_eq!(http_client("admin").post(&logging).send().await.unwrap().status(), 200);
    let basic = basic(&world.claude);
    let mut secrets = vec![
        world.app.secret.clone(),
        world.claude.secret.clone(),
        world.caller_key.clone(),
        world.warehouse_key.clone(),
        world.alice.refresh_token.clone(),
        world.ci_bot.refresh_token.clone(),
        basic.trim_start_matches("Basic ").to_owned(),
    ];
    for pem in [world.jagway_key.pem(), world.jagway_at_tickets.key.as_ref().unwrap().pem()] {
        secrets.extend(pem.lines().filter(|line| !line.starts_with('-')).map(Into::into));
    }
    let mut tokens = vec![world.alice.id_token.clone()];

    for mut client in [world.client_with_id_token(), world.client_with_api_key()] {
        client.initialize().await.unwrap();
        client.call("list_tickets", json!({})).await.unwrap();
    }
    let exchanged = world.exchange_for_warehouse().await;
    tokens.push(exchanged.token().to_owned());
    let redeemed = world.redeem_at_jagway(exchanged.token()).await;
    tokens.push(redeemed.token().to_owned());
    let mut claude = world.client_with_access_token(redeemed.token());
    claude.initialize().await.unwrap();
    claude.call("stock_list", json!({})).await.unwrap();
    // And the ways that end in a refusal.
    world.redeem_at_jagway(exchanged.token()).await;
    let expired = id_jag(&world, |_, claims| claims["exp"] = json!(1));
    world.redeem_at_jagway(&expired).await;
    post_as(&world.accept_url(), &expired).await;
    post_as(&world.upgrade_url(), &expired).await;
    let wrong = host_tests::keys::random_text();
    post(&world.upgrade_url(), &[("x-api-key", &wrong)], "").await;
    let body = form(&[("grant_type", &wrong), ("client_secret", &wrong), ("client_id", "claude")]);
    let kind = ("content-type", "application/x-www-form-urlencoded");
    post(&world.accept_token_endpoint(), &[kind], body).await;
    world.idp.revoke(&world.ci_bot.refresh_token);
    world.idp.disconnect("legacy-app");
    post_as(&world.upgrade_url(), &id_token_of(&world, "bob")).await;
    tokens.push(expired);
    secrets.push(wrong);
    for seen in world.tickets.recorder.requests() {
        let bearer = seen.header("authorization")[0].trim_start_matches("Bearer ").to_owned();
        tokens.push(bearer);
    }

    secrets.extend(tokens.iter().map(|token| token.rsplit('.').next().unwrap().to_owned()));
    let log = envoy.log();
    let dump = envoy.admin_page("/config_dump").await;
    assert!(log.contains("refused ["), "the log says nothing");
    for secret in secrets {
        assert!(secret.len() > 10, "{secret} is too short to look for");
        assert!(!log.contains(&secret), "{secret} is in the log");
        assert!(!dump.contains(&secret), "{secret} is in the configuration dump");
    }
}

#[tokio::test]
async fn without_the_envoy_setting_a_token_request_ends_in_time_and_the_log_says_why() {
    let patch = Box::new(|text: String| {
        let setting = "                allow_on_headers_stop_iteration: true\n";
        assert!(text.contains(setting));
        text.replace(setting, "")
    });
    let world = World::start(Options { patch_bootstrap: Some(patch), ..Options::default() }).await;
    let (origin, basic) = (world.accept_issuer(), basic(&world.claude));
    let headers: [(&str, &[u8]); 2] = [
        ("content-type", b"application/x-www-form-urlencoded"),
        ("authorization", basic.as_bytes()),
    ];
    let bytes = raw::request("POST", &origin, b"/token", &headers, b"grant_type=x");

    let began = Instant::now();
    let answer = raw::send(&origin, &bytes).await;

    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(14));
    assert!(world.envoy.as_ref().unwrap().log().contains("allow_on_headers_stop_iteration"));
    assert_eq!(world.warehouse.server.bytes_received(), 0);
    assert_vm_never_failed(&world).await;
}
