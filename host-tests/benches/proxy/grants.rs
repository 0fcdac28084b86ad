//! The rows h: an ID-JAG in, an access token out, at Jagway's token endpoint and at those of FastMCP and the Python SDK.

use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host_tests::dpop::DpopKey;
use host_tests::keys::{SigningKey, random_text};
use host_tests::mtls::{Accepted, Authority, CLIENT_SUBJECT, Tunnel, listener_socket};
use host_tests::names::{CLIENT_ASSERTION_JWT, GRANT_JWT_BEARER, TYP_ID_JAG};
use host_tests::program::or_skip;
use host_tests::python::{PythonParts, PythonServer};
use reqwest::Url;
use serde_json::json;

use crate::cpu::{self, Process};
use crate::load::{Expected, Plan, Program, Target};
use crate::row::{Around, Row, Supply};
use crate::scene::{Accept, CLIENT, HOST, IDP, ISSUER, PUBLIC_CLIENT, Scene};
use crate::tokens::{Minter, Pool, SHORT_LIFETIME};

/// A client assertion must end in 300 s at most.
const ASSERTION_LIFETIME: u64 = 240;

/// All rows of grants.
pub async fn rows(scene: &Scene, plan: Plan) -> Vec<Row> {
    let first = Row::first_slice(5_000, plan);
    let [rs256, es256] = [0, 1].map(|key| scene.id_jags(key, first));
    let mut rows = Vec::new();

    let target = scene.accept_gateway(&scene.plain_accept()).await;
    for (name, pool) in [("h_rs256_basic", &rs256), ("h_es256_basic", &es256)] {
        rows.push(row(name, &target, pool.clone(), Box::new(scene.basic_grant())));
    }
    let target = scene.accept_gateway(&scene.plain_accept()).await;
    let parameters = format!("client_id={CLIENT}&client_secret={}", scene.secret);
    let around = move |length| grant(HOST, "", &parameters, length);
    rows.push(row("h_rs256_post", &target, rs256.clone(), Box::new(around)));
    rows.push(private_key_jwt(scene, &rs256).await);
    rows.push(tls_client_auth(scene, &rs256).await);
    rows.push(none(scene, first).await);
    rows.extend(python_rows(scene, plan).await);
    rows
}

/// A row of grants.
pub fn row(name: &str, target: &Rc<Target>, pool: Rc<Pool>, around: Box<Around>) -> Row {
    let supply = Supply::New(pool);
    Row { unit: "grants/s", expected: Expected::Token, ..Row::new(name, target, supply, around) }
}

/// What stands around an ID-JAG in a token request with HTTP Basic (RFC 6749 section 2.3.1). Id and secret are made of
/// characters that nothing is done to.
pub fn around_basic(host: String, secret: &str) -> impl Fn(usize) -> (Vec<u8>, Vec<u8>) + 'static {
    let line = basic(secret);
    // The Python SDK wants `client_id` in the form even beside HTTP Basic; all get the same.
    move |length| grant(&host, &line, &format!("client_id={CLIENT}"), length)
}

/// The header line in which the client proves itself by its secret.
fn basic(secret: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{CLIENT}:{secret}")))
}

/// The request that revokes `token` (RFC 7009 §2.1).
pub fn revocation(host: &str, secret: &str, token: &str) -> Vec<u8> {
    let form = format!("token={token}");
    let head = format!(
        "POST /revoke HTTP/1.1\r\nHost: {host}\r\n{}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        basic(secret),
        form.len()
    );
    (head + &form).into_bytes()
}

/// What stands around an ID-JAG of this length, or what begins with one, in a token request with these header lines and
/// parameters.
fn grant(host: &str, lines: &str, parameters: &str, length: usize) -> (Vec<u8>, Vec<u8>) {
    let start = form(parameters);
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{start}",
        start.len() + length
    );
    (head.into_bytes(), vec![])
}

/// The form of a token request with these parameters, as far as the ID-JAG.
fn form(parameters: &str) -> String {
    format!("grant_type={}&{parameters}&assertion=", escaped(GRANT_JWT_BEARER))
}

/// A value in a form.
fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn private_key_jwt(scene: &Scene, id_jags: &Rc<Pool>) -> Row {
    let key = SigningKey::es256("client");
    let client = json!({"private_key_jwt": {"jwks": {"keys": [key.jwk()]}}});
    let accept = Accept { client, ..scene.plain_accept() };
    let target = scene.accept_gateway(&accept).await;
    let minter = Minter::new(&key, "client-authentication+jwt");
    let kind = escaped(CLIENT_ASSERTION_JWT);
    let pool = Pool::behind(id_jags, move || {
        let claims = json!({"iss": CLIENT, "sub": CLIENT, "aud": ISSUER});
        let assertion = minter.sign_for(ASSERTION_LIFETIME, &claims);
        format!("&client_assertion_type={kind}&client_assertion={assertion}")
    });
    let around = |length| grant(HOST, "", &format!("client_id={CLIENT}"), length);
    row("h_rs256_private_key_jwt", &target, pool, Box::new(around))
}

/// A client that proves nothing, with ID-JAGs that are bound to its key (RFC 9449).
async fn none(scene: &Scene, first: usize) -> Row {
    let target = scene.accept_gateway(&Accept { public: true, ..scene.plain_accept() }).await;
    let form = form(&format!("client_id={}", escaped(PUBLIC_CLIENT)));
    let between = format!("\r\n\r\n{form}");
    let (pool, id_jag) = scene.bound_id_jags(DpopKey::new(), between, first);
    let content = "Content-Type: application/x-www-form-urlencoded";
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: {HOST}\r\n{content}\r\nContent-Length: {}\r\nDPoP: ",
        form.len() + id_jag
    );
    let around = move |_| (head.clone().into_bytes(), vec![]);
    row("h_es256_none_dpop", &target, pool, Box::new(around))
}

async fn tls_client_auth(scene: &Scene, id_jags: &Rc<Pool>) -> Row {
    let authority = Authority::new();
    let accepted = Accepted::SignedBy(authority.pem());
    let accept = Accept {
        client: json!({"tls_client_auth": {"subject_dn": CLIENT_SUBJECT}}),
        mutual_tls: Some(listener_socket(&authority.server(), &accepted)),
        ..scene.plain_accept()
    };
    let behind = scene.accept_gateway(&accept).await;
    let origin = format!("http://{}", behind.address);
    let tunnel = Tunnel::start(&origin, &authority, Some(&authority.client()));
    let address = tunnel.origin().trim_start_matches("http://").parse().unwrap();
    let (process, started) = (behind.process, behind.started);
    let program = Box::new(Through(behind, tunnel));
    let target = Rc::new(Target { address, process, started, program });
    let around = |length| grant(HOST, "", &format!("client_id={CLIENT}"), length);
    row("h_rs256_tls_client_auth", &target, id_jags.clone(), Box::new(around))
}

struct Through(Rc<Target>, #[allow(dead_code, reason = "it lives as long")] Tunnel);

impl Program for Through {
    fn log(&self) -> String {
        self.0.program.log()
    }
}

/// The same grant with the same client authentication, at what one would otherwise take.
async fn python_rows(scene: &Scene, plan: Plan) -> Vec<Row> {
    const SCRIPTS: [(&str, &str, usize, bool); 3] = [
        ("h_fastmcp", "fastmcp_resource_as.py", 1_000, true),
        ("h_fastmcp_in_memory", "fastmcp_resource_as.py", 2_000, false),
        ("h_python_sdk", "sdk_resource_as.py", 3_000, false),
    ];
    let install = tokio::task::spawn_blocking(PythonParts::install);
    let Some(parts) = or_skip(install.await.unwrap()) else { return vec![] };
    let mut rows = Vec::new();
    for (name, script, rate, own_storage) in SCRIPTS {
        let secret = random_text();
        let mut input = json!({
            "idp": {"issuer": IDP, "jwks_uri": format!("http://127.0.0.1:{}/keys", scene.idp.port), "alg": "RS256"},
            "client": {"id": CLIENT, "secret": secret},
            "scopes": ["mcp.tools"],
            "access_log": false,
        });
        // Where FastMCP keeps what it keeps by itself.
        let home = own_storage.then(|| tempfile::tempdir().unwrap());
        if let Some(home) = &home {
            input["own_storage"] = json!(home.path());
        }
        let server = parts.start(script, &input).await;
        let (issuer, resource) = (server.said["issuer"].clone(), server.said["resource"].clone());
        let claims = json!({
            "iss": IDP, "sub": "00u1a2b3", "aud": issuer, "client_id": CLIENT,
            "resource": resource, "scope": "mcp.tools",
        });
        let minter = Minter::new(&scene.idp_keys[0], TYP_ID_JAG);
        let pool = Pool::new(Row::first_slice(rate, plan), move || {
            minter.sign_for(SHORT_LIFETIME, &claims)
        });
        let url = Url::parse(issuer.as_str().unwrap()).unwrap();
        let address = ([127, 0, 0, 1], url.port().unwrap()).into();
        let process = Process(server.pid());
        process.pin(cpu::MEASURED);
        let program = Box::new(Python { server, _home: home });
        let target = Rc::new(Target { address, process, started: Duration::ZERO, program });
        let around = around_basic(address.to_string(), &secret);
        rows.push(row(name, &target, pool, Box::new(around)));
    }
    rows
}

struct Python {
    server: PythonServer,
    _home: Option<tempfile::TempDir>,
}

impl Program for Python {
    fn log(&self) -> String {
        self.server.log()
    }
}
