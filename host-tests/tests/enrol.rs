//! `cargo enrol` as an operator runs it, against panva's oidc-provider; a script plays the user in front of a browser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use host_tests::keys::{SigningKey, sha256_hex};
use host_tests::node::{Part, Parts};
use host_tests::program::or_skip;
use host_tests::server::{Place, Server};
use jagway_core::config::{Caller, Config, Kind, Presents};
use jagway_core::signing;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

const SECRET: &str = "the+client secret/of:jagway";
const AUDIENCE: &str = "https://auth.vendor.example";
const RESOURCE: &str = "https://tickets.vendor.example/mcp";
const PATIENCE: Duration = Duration::from_secs(60);

/// The provider, with one client as an operator registers it for this.
async fn provider(parts: &Parts, changed: Value) -> Part {
    let mut client = json!({
        "id": "jagway",
        "secret": SECRET,
        "redirect_uri": "http://127.0.0.1/callback",
        "metadata": {
            "application_type": "native",
            "grant_types": [
                "authorization_code",
                "refresh_token",
                "urn:ietf:params:oauth:grant-type:device_code",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ],
        },
        "id_jag": { (AUDIENCE): { "client_id": "jagway-there", "resources": [RESOURCE], "scopes": [] } },
    });
    let mut input = json!({
        "port": 0,
        "users": {
            "alice": { "email": "alice@acme.example" },
            "ci-bot": { "email": "ci-bot@acme.example" },
        },
        "features": {
            "devInteractions": { "enabled": true },
            "resourceIndicators": { "enabled": false },
            "deviceFlow": { "enabled": true },
            "revocation": { "enabled": true },
        },
        "interval": 1,
    });
    merge(&mut client, &changed["client"]);
    merge(&mut input, &changed["provider"]);
    input["clients"] = json!([client]);
    parts.start("idp.mjs", &input).await
}

/// `with` laid over `value`; null takes away.
fn merge(value: &mut Value, with: &Value) {
    for (name, with) in with.as_object().into_iter().flatten() {
        match with {
            Value::Object(_) if value[name].is_object() => merge(&mut value[name], with),
            Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
            with => value[name] = with.clone(),
        }
    }
}

/// The command, running.
struct Enrol {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
    told: String,
    directory: TempDir,
}

/// How it ended.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
    directory: TempDir,
}

impl Enrol {
    /// Runs it in a new directory, with the client's secret in its environment.
    fn start(issuer: &str, arguments: &[&str]) -> Self {
        Self::start_as(issuer, &["--client-secret-env", "IDP_CLIENT_SECRET"], SECRET, arguments)
    }

    fn start_as(issuer: &str, client: &[&str], secret: &str, arguments: &[&str]) -> Self {
        let directory = TempDir::with_prefix("jagway-").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_enrol"))
            .args(["--issuer", issuer, "--client-id", "jagway"])
            .args(client)
            .args(arguments)
            .current_dir(&directory)
            .env_remove("SSL_CERT_FILE")
            .env("IDP_CLIENT_SECRET", secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stderr, told: String::new(), directory }
    }

    /// The page that it asks the user to open.
    async fn page(&mut self) -> String {
        while let Some(line) = timeout(PATIENCE, self.stderr.next_line()).await.unwrap().unwrap() {
            self.told += &format!("{line}\n");
            if let Some(url) = line.strip_prefix("  http") {
                return format!("http{url}");
            }
        }
        panic!("no page: {}", self.told)
    }

    /// Answers the question, if there is one, and waits for the end.
    async fn end(mut self, answer: &str) -> Ended {
        let mut stdin = self.child.stdin.take().unwrap();
        // It may have ended without a question.
        let _ = stdin.write_all(answer.as_bytes()).await;
        drop(stdin);
        let mut stdout = String::new();
        let mut pipe = self.child.stdout.take().unwrap();
        let rest = async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                self.told += &format!("{line}\n");
            }
        };
        let all = async { tokio::join!(pipe.read_to_string(&mut stdout), rest).0.unwrap() };
        timeout(PATIENCE, all).await.unwrap();
        let code = self.child.wait().await.unwrap().code().unwrap();
        Ended { code, stdout, stderr: self.told, directory: self.directory }
    }
}

impl Ended {
    /// What lies in the directory where it ran.
    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// The refresh token in the only file, which is for its owner alone.
    fn refresh_token(&self, name: &str) -> String {
        let file = self.directory.path().join(name);
        assert_eq!(self.files(), std::slice::from_ref(&file), "{}", self.stderr);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::read_to_string(&file).unwrap()
    }

    /// The key, which stands on stdout once and on stderr never.
    fn key(&self) -> String {
        let key = self.stdout.lines().find(|line| line.starts_with("jgw_")).expect("a key");
        assert_eq!(key.len(), "jgw_".len() + 43);
        assert_eq!(self.stdout.matches(key).count(), 1);
        assert_eq!(self.stderr.matches(key).count(), 0);
        key.to_owned()
    }

    fn says(&self, what: &str) {
        assert!(self.stderr.contains(what), "{what}\n{}", self.stderr);
    }
}

async fn log_in(parts: &Parts, page: &str, user: &str) -> Value {
    parts.run("browser.mjs", &json!({ "url": page, "user": user })).await
}

/// The filter's configuration with the `callers` of the snippet.
fn configuration(issuer: &str, stdout: &str) -> Value {
    let from = stdout.find("callers:").unwrap();
    let snippet = &stdout[from..stdout[from..].find("\n\n").unwrap() + from];
    let snippet: Value = serde_saphyr::from_str(snippet).unwrap();
    json!({
        "allow_insecure_http": true,
        "identity_providers": { "acme": {
            "issuer": issuer, "cluster": "idp", "client": { "id": "jagway", "secret": { "env": "SECRET" } },
        }},
        "resources": [{ "resource": RESOURCE, "upgrade": {
            "url": "https://tools.acme.example/mcp",
            "identity_provider": "acme",
            "authorization_server": {
                "issuer": AUDIENCE, "cluster": "as", "client": { "id": "there", "secret": { "env": "SECRET" } },
            },
            "callers": snippet["callers"],
        }}],
    })
}

/// Whether the filter takes the snippet, and reads from it this header, this key and this refresh token.
fn assert_bound(issuer: &str, ended: &Ended, header: &str, variable: &str, token: &str) {
    let document = configuration(issuer, &ended.stdout).to_string();
    let environment = |name: &str| match name {
        "SECRET" => Some("one".to_owned()),
        name => (name == variable).then(|| token.to_owned()),
    };
    let config = Config::parse(document.as_bytes(), &environment).unwrap();
    let Kind::Upgrade(upgrade) = &config.resources[0].kind else { panic!("no upgrade") };
    let [Caller { presents: Presents::ApiKey(named, sha256), .. }] = &upgrade.callers[..] else {
        panic!("no key")
    };
    assert_eq!(named, header);
    assert_eq!(jagway_core::digest::hex(sha256), sha256_hex(&ended.key()));
}

#[tokio::test]
async fn a_device_login_binds_a_key_that_the_filter_takes() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();

    let mut enrol = Enrol::start(issuer, &["--scope", "openid email offline_access"]);
    let page = enrol.page().await;
    log_in(&parts, &page, "ci-bot").await;
    let ended = enrol.end("y\n").await;

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.says(r#"sub "ci-bot", email "ci-bot@acme.example""#);
    let token = ended.refresh_token("ci-bot.refresh-token");
    for output in [&ended.stdout, &ended.stderr] {
        assert!(!output.contains(&token) && !output.contains(SECRET));
    }
    assert_bound(issuer, &ended, "x-api-key", "CI_BOT_REFRESH", &token);
    assert!(ended.stdout.contains(&format!("# ci-bot is \"ci-bot\" at {issuer}\n")));
}

#[tokio::test]
async fn a_browser_login_binds_a_key_and_the_printed_lines_give_a_shell_the_token() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();

    let arguments = [
        "--flow",
        "browser",
        "--caller",
        "night-build",
        "--header",
        "X-Build-Key",
        "--refresh-token-file",
        "it's here",
    ];
    let mut enrol = Enrol::start(issuer, &arguments);
    let page = enrol.page().await;
    let last = log_in(&parts, &page, "ci-bot").await;
    let ended = enrol.end("yes\n").await;

    assert_eq!(last, json!({ "status": 200, "text": "Logged in. Go back to the terminal." }));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let token = ended.refresh_token("it's here");
    assert_bound(issuer, &ended, "x-build-key", "NIGHT_BUILD_REFRESH", &token);
    let line = ended.stdout.lines().find(|line| line.starts_with("export ")).unwrap();
    let script = format!("{line}; printf %s \"$NIGHT_BUILD_REFRESH\"");
    let shell = Command::new("sh").args(["-c", &script]).output().await.unwrap();
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), token);
}

#[tokio::test]
async fn the_wrong_user_is_shown_and_refused_and_nothing_is_left() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();

    for answer in ["n\n", "\n", ""] {
        let mut enrol = Enrol::start(issuer, &["--flow", "browser"]);
        let page = enrol.page().await;
        log_in(&parts, &page, "alice").await;
        let ended = enrol.end(answer).await;

        ended.says(r#"sub "alice""#);
        ended.says("not bound: nothing was written");
        assert_eq!((ended.code, ended.stdout.as_str(), ended.files().len()), (1, "", 0));
    }
}

#[tokio::test]
async fn a_client_with_a_key_and_a_public_one_can_enrol_too() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let pem = SigningKey::es256("unused").pem();
    let jwk = signing::SigningKey::from_pem(&pem, None).unwrap().public_jwk();
    let with_key = json!({ "client": { "secret": null, "metadata": {
        "token_endpoint_auth_method": "private_key_jwt", "jwks": { "keys": [jwk] },
    }}});
    let public = json!({ "client": { "secret": null, "metadata": { "token_endpoint_auth_method": "none" } } });
    let to_endpoint =
        ["--private-key-env", "IDP_CLIENT_SECRET", "--audience-of-assertion", "token_endpoint"];
    let cases = [(&with_key, &to_endpoint[..2]), (&with_key, &to_endpoint[..]), (&public, &[])];

    for (registered, client) in cases {
        let provider = provider(&parts, registered.clone()).await;
        let issuer = provider.said["issuer"].as_str().unwrap();
        let mut enrol = Enrol::start_as(issuer, client, &pem, &["--yes"]);
        let page = enrol.page().await;
        log_in(&parts, &page, "ci-bot").await;
        let ended = enrol.end("").await;

        assert_eq!(ended.code, 0, "{client:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.contains("A public client"), client.is_empty());
        ended.refresh_token("ci-bot.refresh-token");
        ended.key();
    }
}

#[tokio::test]
async fn a_dash_prints_the_refresh_token_and_writes_no_file() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();

    let mut enrol =
        Enrol::start(issuer, &["--flow", "browser", "--refresh-token-file", "-", "--yes"]);
    let page = enrol.page().await;
    log_in(&parts, &page, "ci-bot").await;
    let ended = enrol.end("").await;

    assert_eq!((ended.code, ended.files().len()), (0, 0), "{}", ended.stderr);
    let line = ended.stdout.lines().find(|line| line.starts_with("export ")).unwrap();
    let token =
        line.strip_prefix("export CI_BOT_REFRESH='").and_then(|rest| rest.strip_suffix('\''));
    assert!(token.is_some_and(|token| token.len() > 20 && !ended.stderr.contains(token)), "{line}");
}

#[tokio::test]
async fn an_exchange_on_trial_says_what_the_provider_does() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();
    let cases = [
        (
            AUDIENCE,
            RESOURCE,
            0,
            r#"gives an ID-JAG for it, to be redeemed by client "jagway-there""#,
        ),
        ("https://other.example", RESOURCE, 1, "may not go to that audience or resource"),
    ];

    for (audience, resource, code, told) in cases {
        let arguments = [
            "--flow",
            "browser",
            "--yes",
            "--check-exchange",
            "--audience",
            audience,
            "--resource",
            resource,
        ];
        let mut enrol = Enrol::start(issuer, &arguments);
        let page = enrol.page().await;
        log_in(&parts, &page, "ci-bot").await;
        let ended = enrol.end("").await;

        ended.says(told);
        assert_eq!(ended.code, code);
        ended.refresh_token("ci-bot.refresh-token");
        ended.key();
    }
}

#[tokio::test]
async fn a_refresh_token_that_the_trial_rotated_is_the_one_that_is_kept() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({ "provider": { "rotate": true } })).await;
    let issuer = provider.said["issuer"].as_str().unwrap();
    let check = ["--check-exchange", "--audience", AUDIENCE, "--resource", RESOURCE];

    let mut enrol = Enrol::start(issuer, &[&["--flow", "browser", "--yes"], &check[..]].concat());
    let page = enrol.page().await;
    log_in(&parts, &page, "ci-bot").await;
    let ended = enrol.end("").await;

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.says("the new one is kept");
    let token = ended.refresh_token("ci-bot.refresh-token");
    assert_eq!(refreshed(&provider, &token).await, 200);
}

#[tokio::test]
async fn a_refresh_token_that_is_not_bound_is_revoked() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let mut provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();

    let mut enrol = Enrol::start(issuer, &[]);
    let page = enrol.page().await;
    log_in(&parts, &page, "alice").await;
    let ended = enrol.end("n\n").await;

    ended.says("not bound");
    assert_eq!(provider.end().await, Some(json!({ "revoked": true })));
}

#[tokio::test]
async fn a_login_that_is_denied_is_told_in_either_flow() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();

    for flow in ["device", "browser"] {
        let mut enrol = Enrol::start(issuer, &["--flow", flow, "--yes"]);
        let page = enrol.page().await;
        let leaves = json!({ "url": page, "user": "ci-bot", "cancel": true });
        parts.run("browser.mjs", &leaves).await;
        let ended = enrol.end("").await;

        ended.says("the login was denied");
        assert_eq!((ended.code, ended.stdout.as_str(), ended.files().len()), (1, "", 0), "{flow}");
    }
}

#[tokio::test]
async fn a_login_without_a_refresh_token_says_what_is_missing() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let never = json!({ "client": { "metadata": { "grant_types": ["authorization_code"] } } });
    let cases = [
        (json!({}), "openid", "most want `offline_access` in --scope"),
        (never, "openid offline_access", "allow the client refresh tokens there"),
    ];

    for (changed, scope, told) in cases {
        let provider = provider(&parts, changed).await;
        let issuer = provider.said["issuer"].as_str().unwrap();
        let mut enrol = Enrol::start(issuer, &["--flow", "browser", "--yes", "--scope", scope]);
        let page = enrol.page().await;
        log_in(&parts, &page, "ci-bot").await;
        let ended = enrol.end("").await;

        ended.says(told);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.files().len()), (1, "", 0));
    }
}

#[tokio::test]
async fn nobody_who_logs_in_is_told_when_the_time_is_over() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();

    for flow in ["device", "browser"] {
        let ended = Enrol::start(issuer, &["--flow", flow, "--timeout", "1"]).end("y\n").await;

        ended.says("nobody logged in in time");
        assert_eq!((ended.code, ended.stdout.as_str(), ended.files().len()), (1, "", 0), "{flow}");
    }
}

#[tokio::test]
async fn an_answer_with_another_state_does_not_end_the_login() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();

    let mut enrol = Enrol::start(issuer, &["--flow", "browser", "--yes"]);
    let page = enrol.page().await;
    let parameters = form_urlencoded::parse(page.split_once('?').unwrap().1.as_bytes());
    let back = parameters.into_owned().find(|(name, _)| name == "redirect_uri").unwrap().1;
    let http = host_tests::jwks::http_client("test");
    let forged = http.get(format!("{back}?code=stolen&state=guessed")).send().await.unwrap();
    log_in(&parts, &page, "ci-bot").await;
    let ended = enrol.end("").await;

    assert_eq!(forged.status(), 400);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.key();
}

#[tokio::test]
async fn a_provider_behind_tls_must_be_vouched_for() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let self_signed = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (ours, stranger) = (self_signed(), self_signed());
    let tls = json!({ "cert": ours.cert.pem(), "key": ours.signing_key.serialize_pem() });
    let provider = provider(&parts, json!({ "provider": { "tls": tls } })).await;
    let issuer = provider.said["issuer"].as_str().unwrap();
    let places = TempDir::with_prefix("jagway-").unwrap();
    let file = |name: &str, trusted: &rcgen::Certificate| {
        let file = places.path().join(name);
        fs::write(&file, trusted.pem()).unwrap();
        file.display().to_string()
    };

    let trusting = ["--ca-file", &file("ours", &ours.cert), "--yes"];
    let mut enrol = Enrol::start(issuer, &trusting);
    let page = enrol.page().await;
    log_in(&parts, &page, "ci-bot").await;
    let bound = enrol.end("").await;
    let other = Enrol::start(issuer, &["--ca-file", &file("other", &stranger.cert)]).end("").await;

    assert!(issuer.starts_with("https://"));
    assert_eq!(bound.code, 0, "{}", bound.stderr);
    bound.refresh_token("ci-bot.refresh-token");
    other.says("TLS: invalid peer certificate");
    assert_eq!((other.code, other.stdout.as_str()), (1, ""));
}

#[tokio::test]
async fn a_provider_that_calls_itself_otherwise_is_refused() {
    let place = Place::find();
    let issuer = place.origin();
    let document = json!({ "issuer": format!("{issuer}/") });
    let router =
        Router::new().route("/.well-known/openid-configuration", get(async || Json(document)));
    let _server = Server::start(place, router);

    let ended = Enrol::start(&issuer, &[]).end("").await;

    ended.says(&format!("issuer mismatch: \"{issuer}\" was asked, and calls itself \"{issuer}/\""));
    assert_eq!((ended.code, ended.stdout.as_str(), ended.files().len()), (1, "", 0));
}

#[tokio::test]
async fn what_cannot_work_is_told_before_anybody_logs_in_and_without_the_secret() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider =
        provider(&parts, json!({ "provider": { "features": { "deviceFlow": null } } })).await;
    let issuer = provider.said["issuer"].as_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let nowhere = Place::find().origin();
    let cases: [(&str, &[&str], i32, &str); 7] = [
        ("http://idp.example", &[], 2, "--issuer must be https (http is for this machine only)"),
        (issuer, &["--client-secret", SECRET], 2, "there is no option --client-secret"),
        (issuer, &["--flow", "device"], 1, "the provider has no device flow"),
        (issuer, &["--port", &port], 1, "cannot be had"),
        (issuer, &["--refresh-token-file", "no/such/place"], 1, "no/such/place: cannot be written"),
        (issuer, &["--ca-file", "no-such-file"], 1, "no-such-file: "),
        (&nowhere, &[], 1, "Connection refused"),
    ];

    for (issuer, arguments, code, told) in cases {
        let ended = Enrol::start(issuer, arguments).end("").await;

        ended.says(told);
        assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.files().len()), (code, "", 0));
    }
}

#[tokio::test]
async fn a_wrong_client_secret_is_told_and_not_shown() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let provider = provider(&parts, json!({})).await;
    let issuer = provider.said["issuer"].as_str().unwrap();
    let client = ["--client-secret-env", "IDP_CLIENT_SECRET"];

    let ended = Enrol::start_as(issuer, &client, "not/the+secret", &[]).end("").await;

    ended.says("the provider does not take the client's proof");
    assert!(!ended.stderr.contains("not/the+secret"));
    assert_eq!((ended.code, ended.stdout.as_str(), ended.files().len()), (1, "", 0));
}

/// What a provider that lies says at its token endpoint.
struct Liar {
    issuer: String,
    id_token: Arc<Mutex<String>>,
    _server: Server,
}

impl Liar {
    fn start(key: &SigningKey) -> Self {
        let place = Place::find();
        let issuer = place.origin();
        let id_token: Arc<Mutex<String>> = Arc::default();
        let metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
        });
        let (keys, said) = (json!({ "keys": [key.jwk()] }), id_token.clone());
        let token = async move || {
            Json(json!({ "id_token": *said.lock().unwrap(), "refresh_token": "refresh" }))
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(async || Json(metadata)))
            .route("/jwks", get(async || Json(keys)))
            .route("/token", post(token));
        Self { issuer, id_token, _server: Server::start(place, router) }
    }

    /// A login by the code flow that ends with what `say` makes of the nonce.
    async fn tell(&self, say: impl FnOnce(&str) -> String) -> Ended {
        let mut enrol = Enrol::start(&self.issuer, &["--yes"]);
        let page = enrol.page().await;
        let asked: HashMap<String, String> =
            form_urlencoded::parse(page.split_once('?').unwrap().1.as_bytes())
                .into_owned()
                .collect();
        *self.id_token.lock().unwrap() = say(&asked["nonce"]);
        let back = format!("{}?code=c&state={}", asked["redirect_uri"], asked["state"]);
        host_tests::jwks::http_client("test").get(back).send().await.unwrap();
        enrol.end("").await
    }
}

#[tokio::test]
async fn an_id_token_that_is_not_for_this_login_binds_nothing() {
    let (key, other) = (SigningKey::es256("1"), SigningKey::es256("1"));
    let liar = Liar::start(&key);
    let issuer = liar.issuer.as_str();
    let now = host_tests::now();
    let claims = |nonce: &str, changed: Value| {
        let mut claims = json!({
            "iss": issuer, "aud": "jagway", "sub": "mallory", "nonce": nonce, "iat": now, "exp": now + 300,
        });
        merge(&mut claims, &changed);
        claims
    };
    let cases = [
        (&key, json!({ "nonce": "another" }), "it belongs to another login (nonce)"),
        (&key, json!({ "nonce": null }), "it belongs to another login (nonce)"),
        (&key, json!({ "aud": "somebody" }), "not good: aud"),
        (&key, json!({ "iss": "https://evil.example" }), "not good: iss"),
        (&key, json!({ "iat": now - 600, "exp": now - 300 }), "not good: expired"),
        (&other, json!({}), "not good: signature"),
    ];

    let good = liar.tell(|nonce| key.sign(&key.header("JWT"), &claims(nonce, json!({})))).await;
    assert_eq!(good.code, 0, "{}", good.stderr);
    for (key, changed, told) in cases {
        let ended = liar.tell(|nonce| key.sign(&key.header("JWT"), &claims(nonce, changed))).await;

        ended.says(told);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.files().len()), (1, "", 0));
    }
}

/// The status of a refresh with this token.
async fn refreshed(provider: &Part, token: &str) -> u16 {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let form = host_tests::oauth_client::form(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", token),
    ]);
    let request = host_tests::jwks::http_client("test")
        .post(provider.said["token_endpoint"].as_str().unwrap())
        .basic_auth("jagway", Some(encode(SECRET)))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    request.send().await.unwrap().status().as_u16()
}
