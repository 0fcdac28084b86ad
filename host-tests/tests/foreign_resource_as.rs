//! Upgrade in front of other people's Resource ASes: FastMCP and the MCP SDK for Python, each with its MCP server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::egress::{Listener, Setup, port_of};
use host_tests::envoy::Envoy;
use host_tests::idp::Connection;
use host_tests::keys::{random_text, sha256_hex};
use host_tests::mcp_client::McpClient;
use host_tests::program::or_skip;
use host_tests::python::{PythonParts, PythonServer};
use host_tests::{Options, World, wasm};
use serde_json::{Value, json};
use support::{Answer, post};

const FASTMCP: &str = "fastmcp_resource_as.py";
const SDK: &str = "sdk_resource_as.py";
const CLIENT: &str = "jagway-there";

/// The one resource that the foreign server has.
const RIGHT: &str = "/mcp";
/// One that operator and IdP believe in, and the server does not.
const UNKNOWN_THERE: &str = "/unknown-there";
/// One for which Jagway has a secret that is not the registered one.
const WRONG_SECRET: &str = "/wrong-secret";
/// One that the IdP's administrator has not allowed.
const NOT_ALLOWED: &str = "/not-allowed";

/// A legacy client's way to `whoami`: the world's IdP, Envoy with the filter, the foreign server.
struct Way {
    world: World,
    server: PythonServer,
    listener: Listener,
    /// The API keys that are bound to Alice and to the bot.
    keys: [String; 2],
    _envoy: Envoy,
}

impl Way {
    /// Starts everything; nothing on a machine without Python. Jagway is registered there with a secret, or without.
    async fn to(script: &str, confidential: bool) -> Option<Self> {
        let install = tokio::task::spawn_blocking(PythonParts::install);
        let parts = or_skip(install.await.unwrap())?;
        let world = World::start(Options { envoy: false, ..Options::default() }).await;
        let secret = random_text();
        let mut client = json!({"id": CLIENT});
        if confidential {
            client["secret"] = json!(secret);
        }
        let idp = &world.idp_address;
        let input = json!({
            "idp": {"issuer": idp.issuer, "jwks_uri": idp.jwks_uri, "alg": "ES256"},
            "client": client,
            "scopes": ["mcp.tools"],
        });
        let server = parts.start(script, &input).await;
        Some(Self::behind_envoy(world, server, &secret).await)
    }

    async fn behind_envoy(world: World, server: PythonServer, secret: &str) -> Self {
        let issuer = server.said["issuer"].as_str().unwrap();
        let (origin, port) = (issuer.trim_end_matches('/'), port_of(issuer));
        world.idp.connect(Connection {
            client_id: world.app.id.clone(),
            audience: issuer.into(),
            client_id_there: CLIENT.into(),
            resources: [RIGHT, UNKNOWN_THERE, WRONG_SECRET]
                .map(|path| format!("{origin}{path}"))
                .into(),
            scopes: vec!["mcp.tools".into()],
        });
        let (listener, keys) = (Listener::find(), [random_text(), random_text()]);
        let paths = [RIGHT, UNKNOWN_THERE, WRONG_SECRET, NOT_ALLOWED];
        let resources = paths.map(|path| {
            json!({
                "resource": format!("{origin}{path}"),
                "upgrade": upgrade(issuer, listener.url(path), path == WRONG_SECRET, &keys),
            })
        });
        let setup = Setup {
            // Building takes a while and blocks.
            wasm: &tokio::task::spawn_blocking(wasm::filter).await.unwrap(),
            config: json!({
                "allow_insecure_http": true,
                "identity_providers": {"acme": {
                    "issuer": world.idp_address.issuer,
                    "cluster": "idp",
                    "client": {"id": world.app.id, "secret": {"env": "IDP_SECRET"}},
                }},
                "resources": resources,
            }),
            clusters: &[("mcp", port), ("as", port), ("idp", port_of(&world.idp_address.issuer))],
            env: &[
                ("IDP_SECRET", &world.app.secret),
                ("SECRET", secret),
                ("WRONG_SECRET", "not-the-one-that-is-registered"),
                ("ALICE", &world.alice.refresh_token),
                ("BOT", &world.ci_bot.refresh_token),
            ],
        };
        let envoy = listener.serve(setup).await;
        Self { world, server, listener, keys, _envoy: envoy }
    }

    /// What the server says of the caller with this key.
    async fn whoami(&self, key: &str) -> Value {
        let url = self.listener.url(RIGHT);
        let mut client = McpClient::new(&url, "Legacy client").with_header("x-api-key", key);
        client.initialize().await.unwrap_or_else(|why| panic!("{why:?}\n{}", self.server.log()));
        assert_eq!(client.tools().await.unwrap(), ["whoami"]);
        client.call("whoami", json!({})).await.unwrap()
    }

    /// What a request of the caller with this key gets.
    async fn ask(&self, path: &str, key: &str) -> Answer {
        let headers = [
            ("x-api-key", key),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
        post(&self.listener.url(path), &headers, list).await
    }

    /// Whether the MCP server has got any request.
    fn has_been_called(&self) -> bool {
        let log = self.server.log();
        assert!(log.contains("\"POST /token HTTP/1.1\""), "it logs no requests: {log}");
        [RIGHT, UNKNOWN_THERE, WRONG_SECRET, NOT_ALLOWED]
            .iter()
            .any(|path| log.contains(&format!("\"POST {path} HTTP/1.1\"")))
    }
}

fn upgrade(issuer: &str, url: String, wrong_secret: bool, keys: &[String; 2]) -> Value {
    let secret = if wrong_secret { "WRONG_SECRET" } else { "SECRET" };
    let caller = |key: &str, refresh_token: &str| {
        json!({
            "api_key": {"header": "x-api-key", "sha256": sha256_hex(key)},
            "subject": {"refresh_token": {"env": refresh_token}},
        })
    };
    json!({
        "url": url,
        "identity_provider": "acme",
        "authorization_server":
            {"issuer": issuer, "cluster": "as", "client": {"id": CLIENT, "secret": {"env": secret}}},
        "scopes": ["mcp.tools"],
        "callers": [caller(&keys[0], "ALICE"), caller(&keys[1], "BOT")],
    })
}

#[tokio::test]
async fn two_users_with_api_keys_get_through_and_are_told_apart() {
    // FastMCP makes public clients of all that register; a secret has to be put into its store.
    for (script, confidential) in [(FASTMCP, true), (FASTMCP, false), (SDK, true)] {
        let Some(way) = Way::to(script, confidential).await else { return };
        let [alice, bot] = &way.keys;

        let (first, second) = (way.whoami(alice).await, way.whoami(bot).await);
        let again = way.whoami(alice).await;

        let seen = |user| json!({"caller": user, "client": CLIENT, "scopes": ["mcp.tools"]});
        let expected = [seen("alice"), seen("ci-bot"), seen("alice")];
        assert_eq!([first, second, again], expected, "{script} {confidential}");
    }
}

#[tokio::test]
async fn a_refusal_there_or_at_the_identity_provider_is_told_as_what_it_is() {
    for script in [FASTMCP, SDK] {
        let Some(way) = Way::to(script, true).await else { return };
        let [alice, bot] = &way.keys;
        way.world.idp.revoke(&way.world.ci_bot.refresh_token);
        // FastMCP looks at the `resource` of the request, and says that it is not its own (RFC 8707); the SDK's
        // user looks at the ID-JAG alone.
        let (status, error) =
            if script == FASTMCP { (403, "access_denied") } else { (502, "bad_gateway") };
        // Only what the IdP says of the user is the caller's fault.
        let cases = [
            ("a resource that the server does not have", UNKNOWN_THERE, alice, status, error),
            ("a secret that is not ours there", WRONG_SECRET, alice, 502, "bad_gateway"),
            ("a resource that the IdP does not allow", NOT_ALLOWED, alice, 403, "access_denied"),
            ("a user whose login has been revoked", RIGHT, bot, 401, "invalid_token"),
        ];

        let mut answers = vec![];
        for (name, path, key, status, error) in cases {
            answers.push((name, status, error, way.ask(path, key).await));
        }
        let called = way.has_been_called();
        let other = way.whoami(alice).await;

        for (name, status, error, answer) in answers {
            assert_eq!(answer.status, status, "{script}: {name}: {answer:?}");
            assert_eq!(answer.json()["error"], error, "{script}: {name}");
        }
        assert!(!called, "{script}: {}", way.server.log());
        assert!(way.has_been_called() && other["caller"] == "alice", "{script}: {other}");
        // A client that did not prove itself got no further: only the other resource's ID-JAGs were looked at.
        let log = way.server.log();
        let mut rejected = log.lines().filter(|line| line.contains("ID-JAG rejected"));
        assert!(rejected.clone().count() > 0 || script == FASTMCP, "{script}: {log}");
        assert!(rejected.all(|line| line.contains(UNKNOWN_THERE)), "{script}: {log}");
    }
}
