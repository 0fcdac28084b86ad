//! What the pages of `examples/upgrade` say to write: each block is a configuration, and those for the services that
//! nobody can have on a test machine work in Envoy against servers that behave as these are documented.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mimics;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use host_tests::egress::{Listener, Setup, port_of};
use host_tests::envoy::Envoy;
use host_tests::keys::{SigningKey, random_text, sha256_hex};
use host_tests::names::{TOKEN_ID_JAG, TOKEN_REFRESH};
use host_tests::server::Place;
use host_tests::upstream::Upstream;
use host_tests::{repository, wasm};
use jagway_core::config::Config;
use mimics::{Mimic, Okta};
use serde_json::{Value, json};
use support::{Answer, post};

const PROVIDERS: &str = "identity-providers.md";
const REFERENCE: &str = "README.md";
const AGENT: &str = "wlp1a2b3c4d5";
const RESOURCE: &str = "https://tickets.vendor.example/mcp";

#[test]
fn every_block_of_the_pages_is_a_configuration() {
    for page in [PROVIDERS, REFERENCE] {
        let blocks = blocks(page);

        assert!(blocks.len() >= 4, "{page} has {} blocks", blocks.len());
        for (section, block) in blocks {
            let document = completed(&block).to_string();
            let parsed = Config::parse(document.as_bytes(), &|name| Some(variable(name)));
            let problem = parsed.err().map(|error| error.to_string());
            assert_eq!(problem, None, "{page}, {section}: {document}");
        }
    }
}

#[tokio::test]
async fn the_settings_for_okta_and_auth0_lead_from_a_refresh_token_to_a_token() {
    let way = Way::from_okta_to("Auth0", "Okta", |_| {}).await;

    let answers = [way.ask("x-api-key", &way.api_key).await, way.ask("x-api-key", "no").await];

    assert_eq!(answers.map(|answer| answer.status), [200, 401], "{}", way.log());
    assert_eq!(way.upstream.last().bearer(), "from-auth0");
    assert_eq!(*way.okta.asked.lock().unwrap(), [TOKEN_ID_JAG]);
}

#[tokio::test]
async fn the_settings_for_okta_and_keycloak_take_default_scopes_that_nobody_asked_for() {
    let way = Way::from_okta_to("Keycloak", "Okta", |_| {}).await;

    let answer = way.ask("x-api-key", &way.api_key).await;

    assert_eq!(answer.status, 200, "{answer:?}\n{}", way.log());
    assert_eq!(way.upstream.last().bearer(), "from-keycloak");
}

#[tokio::test]
async fn the_settings_for_saml_at_okta_get_a_refresh_token_first_and_name_the_actor() {
    let way = Way::from_okta_to("Auth0", "SAML", |_| {}).await;
    let other = mimics::saml_response("http://www.okta.com/exk1a2b3c4d5", AGENT);
    let elsewhere = mimics::saml_response("http://www.okta.com/exk1a2b3c4d5", "another-agent");

    let first = way.ask("x-saml-response", &way.saml_response).await;
    let asked_first = way.okta.asked.lock().unwrap().clone();
    let again = way.ask("x-saml-response", &way.saml_response).await;
    let refused = [
        way.ask("x-saml-response", &elsewhere).await,
        way.ask("x-saml-response", &other).await,
        way.ask("x-saml-response", "PHg+").await,
    ];

    assert_eq!((first.status, again.status), (200, 200), "{first:?}\n{}", way.log());
    assert_eq!(way.upstream.last().bearer(), "from-auth0");
    assert!(way.upstream.last().header("x-saml-response").is_none());
    assert_eq!(asked_first, [TOKEN_REFRESH, TOKEN_ID_JAG]);
    assert_eq!(refused.map(|answer| answer.status), [401, 401, 401]);
    // Only the one that Jagway finds nothing wrong with has been shown to the provider.
    assert_eq!(way.okta.asked.lock().unwrap()[2..], [TOKEN_REFRESH]);
}

#[tokio::test]
async fn what_okta_refuses_is_told_as_the_page_says() {
    type Change = fn(&mut Okta);
    let cases: [(&str, u16, Change); 4] = [
        ("invalid_client", 502, |okta| okta.client_key = SigningKey::es256("2026-01").jwk()),
        ("invalid_grant", 401, |okta| okta.refresh_token = random_text()),
        ("invalid_target", 403, |okta| okta.connection[2].push('/')),
        ("unauthorized_client", 403, |okta| okta.scopes.clear()),
    ];
    let page = fs::read_to_string(page(PROVIDERS)).unwrap();

    for (code, status, change) in cases {
        let way = Way::from_okta_to("Auth0", "Okta", change).await;

        let answer = way.ask("x-api-key", &way.api_key).await;

        assert_eq!(answer.status, status, "{code}: {answer:?}");
        assert!(way.log().contains(code), "{code}: {}", way.log());
        assert_eq!(way.upstream.count(), 0, "{code}");
        assert!(page.contains(&format!("| `{code}` | {status} |")), "{code} {status}");
    }
}

#[tokio::test]
async fn the_settings_for_entra_get_client_credentials_if_the_resource_is_the_start_of_the_scope() {
    let (_, block) = block("Microsoft Entra ID");
    let tenant = "11111111-2222-3333-4444-555555555555";
    let secret = random_text();
    let mut refused = block.clone();
    refused["resources"][0]["resource"] = json!("https://tickets.acme.example/other");

    for (block, status) in [(block, 200), (refused, 403)] {
        let client = block["identity_providers"]["entra"]["client"]["id"].as_str().unwrap();
        let entra = mimics::entra(Place::find(), tenant, [client.to_owned(), secret.clone()]);
        let upstream = Upstream::start();
        // No ID token of Entra's is to be had: who calls is not what this is about.
        let key = random_text();
        let mut document = completed(&block);
        document["resources"][0]["upgrade"]["callers"] = json!([{
            "api_key": {"header": "x-api-key", "sha256": sha256_hex(&key)},
            "subject": {"client_credentials": {}},
        }]);
        let replaced = [("https://login.microsoftonline.com", &*entra.origin)];
        let clusters = [("mcp", upstream.port()), ("entra", port_of(&entra.origin))];
        let env = [("ENTRA_SECRET", &*secret)];
        let (listener, envoy) = served(document, &replaced, &clusters, &env).await;

        let answer = post(&listener.url("/mcp"), &[("x-api-key", &*key)], "{}").await;

        assert_eq!(answer.status, status, "{answer:?}\n{}", envoy.log());
        assert_eq!(upstream.count(), usize::from(status == 200));
        assert_eq!(*entra.asked.lock().unwrap(), ["client_credentials"]);
    }
}

/// A legacy client's way: Envoy with what the page says, an Okta org, another's authorization server.
struct Way {
    okta: Mimic,
    upstream: Upstream,
    listener: Listener,
    envoy: Envoy,
    api_key: String,
    saml_response: String,
    _server: Mimic,
}

impl Way {
    /// The callers are those of the block `from`, the authorization server is that of the block `to`.
    async fn from_okta_to(to: &str, from: &str, change: impl FnOnce(&mut Okta)) -> Self {
        let (okta_place, place) = (Place::find(), Place::find());
        let (issuer_key, client_key) =
            (Arc::new(SigningKey::es256("okta-1")), SigningKey::es256("2026-01"));
        let (mut document, (_, there)) = (completed(&block(from).1), block(to));
        let upgrade = &mut document["resources"][0]["upgrade"];
        for (name, value) in there["resources"][0]["upgrade"].as_object().unwrap() {
            upgrade[name] = value.clone();
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let real_issuer = text(&upgrade["authorization_server"]["issuer"]);
        let client = [text(&upgrade["authorization_server"]["client"]["id"]), random_text()];
        let cluster = text(&upgrade["authorization_server"]["cluster"]);

        let origin = real_issuer.split('/').take(3).collect::<Vec<_>>().join("/");
        let audience = real_issuer.replace(&origin, &place.origin());
        let (api_key, refresh_token) = (random_text(), random_text());
        let saml_response = mimics::saml_response("http://www.okta.com/exk1a2b3c4d5", AGENT);
        let mut knows = Okta {
            client_id: AGENT.into(),
            client_key: client_key.jwk(),
            connection: [audience, client[0].clone(), RESOURCE.into()],
            scopes: vec!["tickets.read".into()],
            refresh_token: refresh_token.clone(),
            saml_response: saml_response.clone(),
        };
        change(&mut knows);
        let okta = mimics::okta(okta_place, &issuer_key, knows);
        let secret = client[1].clone();
        let server = match to {
            "Auth0" => mimics::auth0(place, &issuer_key, client),
            _ => mimics::keycloak(place, &issuer_key, client),
        };

        let upstream = Upstream::start();
        let replaced = [("https://acme.okta.com", &*okta.origin), (&*origin, &*server.origin)];
        let clusters = [
            ("mcp", upstream.port()),
            ("okta", port_of(&okta.origin)),
            (&*cluster, port_of(&server.origin)),
        ];
        let env = [
            ("OKTA_KEY", &*client_key.pem()),
            ("AUTH0_SECRET", &*secret),
            ("KEYCLOAK_SECRET", &*secret),
            ("CI_SHA256", &*sha256_hex(&api_key)),
            ("CI_REFRESH", &*refresh_token),
        ];
        let (listener, envoy) = served(document, &replaced, &clusters, &env).await;
        Self { okta, upstream, listener, envoy, api_key, saml_response, _server: server }
    }

    async fn ask(&self, header: &str, credential: &str) -> Answer {
        let url = self.listener.url("/mcp");
        post(&url, &[(header, credential), ("content-type", "application/json")], "{}").await
    }

    fn log(&self) -> String {
        self.envoy.log()
    }
}

/// Envoy with this configuration, in which what is elsewhere is here.
async fn served(
    mut document: Value,
    replaced: &[(&str, &str)],
    clusters: &[(&str, u16)],
    env: &[(&str, &str)],
) -> (Listener, Envoy) {
    let listener = Listener::find();
    document["allow_insecure_http"] = json!(true);
    document["resources"][0]["upgrade"]["url"] = json!(listener.url("/mcp"));
    let mut text = document.to_string();
    for (old, new) in replaced {
        assert!(text.contains(old), "{old} is not in {text}");
        text = text.replace(old, new);
    }
    // Building takes a while and blocks.
    let wasm = tokio::task::spawn_blocking(wasm::filter).await.unwrap();
    let config = serde_json::from_str(&text).unwrap();
    let envoy = listener.serve(Setup { wasm: &wasm, config, clusters, env }).await;
    (listener, envoy)
}

/// The whole configuration of which `block` is a part: what is not of the document is of `upgrade`.
fn completed(block: &Value) -> Value {
    let mut document = json!({});
    let mut upgrade = json!({});
    for (name, value) in block.as_object().unwrap() {
        let whole = ["identity_providers", "refresh_token_store", "resources"];
        let part = if whole.contains(&&**name) { &mut document } else { &mut upgrade };
        part[name] = value.clone();
    }
    let fill = |pointer: &mut Value, name: &str, value: Value| {
        if pointer[name].is_null() {
            pointer[name] = value;
        }
    };
    let acme = json!({
        "issuer": "https://idp.acme.example",
        "cluster": "idp",
        "client": {"id": "jagway", "secret": {"env": "IDP_CLIENT_SECRET"}},
    });
    fill(&mut document, "identity_providers", json!({"acme": acme}));
    fill(&mut document, "resources", json!([{"resource": RESOURCE, "upgrade": upgrade}]));
    let providers = document["identity_providers"].as_object().unwrap();
    let mut registered = providers.iter().filter(|(_, provider)| !provider["client"].is_null());
    let provider = registered.next().unwrap().0.clone();
    let upgrade = &mut document["resources"][0]["upgrade"];
    fill(upgrade, "identity_provider", json!(provider));
    fill(upgrade, "callers", json!([{"id_token": {}}]));
    if upgrade["authorization_servers"].is_null() {
        let client = json!({"id": "acme", "secret": {"env": "VENDOR_SECRET"}});
        let server = json!({"issuer": "https://auth.vendor.example", "cluster": "vendor_as", "client": client});
        fill(upgrade, "authorization_server", server);
    }
    document
}

/// A value for a variable, by its name.
fn variable(name: &str) -> String {
    match name {
        name if name.ends_with("SHA256") => sha256_hex(name),
        name if name.ends_with("KEY") => SigningKey::es256("2026-01").pem(),
        name => name.to_lowercase(),
    }
}

/// The first block of a section of the page of providers; "SAML" is the second of Okta's.
fn block(section: &str) -> (String, Value) {
    let (section, index) = if section == "SAML" { ("Okta", 1) } else { (section, 0) };
    let mut blocks = blocks(PROVIDERS).into_iter().filter(|(name, _)| name == section);
    blocks.nth(index).unwrap_or_else(|| panic!("no block for {section}"))
}

/// Every block of YAML of a page, with the heading it is under.
fn blocks(name: &str) -> Vec<(String, Value)> {
    let text = fs::read_to_string(page(name)).unwrap();
    let (mut section, mut blocks, mut open) = (String::new(), vec![], None::<String>);
    for line in text.lines() {
        match &mut open {
            None if line == "```yaml" => open = Some(String::new()),
            None => {
                section = line.strip_prefix("## ").map_or(section, str::to_owned);
            }
            Some(yaml) if line == "```" => {
                let block: BTreeMap<String, Value> = serde_saphyr::from_str(yaml).unwrap();
                blocks.push((section.clone(), json!(block)));
                open = None;
            }
            Some(yaml) => *yaml += &format!("{line}\n"),
        }
    }
    blocks
}

fn page(name: &str) -> std::path::PathBuf {
    repository().join("examples/upgrade").join(name)
}
