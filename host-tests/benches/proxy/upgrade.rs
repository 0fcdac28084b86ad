//! The rows f and i: an API key or an ID token in, an access token of the MCP server's own authorization server out.
//!
//! Identity provider and authorization server answer at once: what is measured is Jagway, and the way.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use host_tests::keys::{base64url, random_text, sha256_hex};
use host_tests::names::{TOKEN_ID_JAG, TYP_ID_JAG};
use host_tests::now;
use serde_json::{Value, json};

use crate::contenders::get;
use crate::gateway::{self, Setup, wasm};
use crate::load::{Connection, Expected, Target, percentile};
use crate::report::Figure;
use crate::row::{Row, Supply};
use crate::scene::{ANSWER, IDP, Scene, metadata};
use crate::tokens::{Minter, unique};
use crate::upstream::{Credential, Server, response};

const RESOURCE: &str = "http://mcp.bench.example/mcp";
const AUTHORIZATION_SERVER: &str = "http://as.bench.example";
/// Jagway at the identity provider, and at the authorization server.
const CLIENT: &str = "jagway";
const TOKEN: &str = "an-access-token-of-the-server-behind";

/// The row of warm requests with an API key.
pub async fn row(scene: &Scene) -> Row {
    let key = random_text();
    let target = gateway(scene, &key).await;
    let supply = Supply::Same(Rc::new(vec![key]));
    Row::new("f_warm_upgrade", &target, supply, Box::new(|_| get("x-api-key: ")))
}

/// Cold requests, each of a user who was never there before, and warm ones: one at a time, in turn.
pub struct Cold {
    target: Rc<Target>,
    minter: Minter,
    /// Microseconds of each round: half and 99 % of the cold ones, and of the warm ones.
    rounds: Vec<[f64; 4]>,
    fault: Option<String>,
}

impl Cold {
    /// Starts the contender.
    pub async fn start(scene: &Scene) -> Self {
        let target = gateway(scene, &random_text()).await;
        Self { target, minter: Minter::new(&scene.idp_keys[1], "JWT"), rounds: vec![], fault: None }
    }

    /// Goes one round of so many cold requests.
    pub async fn run(&mut self, count: usize) {
        match self.round(count).await {
            _ if self.fault.is_some() => {}
            Ok(round) => self.rounds.push(round),
            Err(why) => self.fault = Some(format!("{why}\n{}", self.target.last_words())),
        }
    }

    async fn round(&self, count: usize) -> Result<[f64; 4], String> {
        let mut connection = Connection::open(self.target.address).await?;
        let expected = Expected::Body(ANSWER.into());
        let (head, tail) = get("Authorization: Bearer ");
        let (mut cold, mut warm) = (vec![], vec![]);
        // The first ones find code that was not run for long.
        for number in 0..count + 20 {
            let claims = json!({"iss": IDP, "aud": CLIENT, "sub": unique()});
            let request = [&head, self.minter.sign(&claims).as_bytes(), &tail].concat();
            let first = connection.ask(&request, &expected).await?;
            let second = connection.ask(&request, &expected).await?;
            if number >= 20 {
                cold.push(first);
                warm.push(second);
            }
        }
        let [half, most] = [0.5, 0.99];
        let of_cold = [half, most].map(|share| percentile(&mut cold, share));
        let of_warm = [half, most].map(|share| percentile(&mut warm, share));
        Ok([of_cold[0], of_cold[1], of_warm[0], of_warm[1]])
    }

    /// What the rounds have shown.
    pub fn figures(self) -> Result<Vec<Figure>, String> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let figure = |name, value: &dyn Fn(&[f64; 4]) -> f64| {
            Figure::new(name, "us", self.rounds.iter().map(value).collect())
        };
        Ok(vec![
            figure("i_added_p50", &|[cold, _, warm, _]| cold - warm),
            figure("i_added_p99", &|[_, cold, _, warm]| cold - warm),
            figure("i_cold_p50", &|[cold, ..]| *cold),
            figure("i_cold_p99", &|[_, cold, ..]| *cold),
        ])
    }
}

/// An Envoy with Jagway that upgrades ID tokens, and this API key.
async fn gateway(scene: &Scene, api_key: &str) -> Rc<Target> {
    let swapped = Credential::Swapped(format!("authorization: Bearer {TOKEN}"));
    let server = Server::mcp(ANSWER, swapped);
    let authorization_server = Server::start(redeem);
    let secrets = [random_text(), random_text(), random_text()];
    let names = ["IDP_SECRET", "AS_SECRET", "REFRESH_TOKEN"];
    let env: Vec<_> = names.into_iter().zip(secrets.iter().map(String::as_str)).collect();
    let client = |secret| json!({"id": CLIENT, "secret": {"env": secret}});
    let caller = json!({
        "api_key": {"header": "x-api-key", "sha256": sha256_hex(api_key)},
        "subject": {"refresh_token": {"env": "REFRESH_TOKEN"}},
    });
    let config = json!({
        "allow_insecure_http": true,
        "identity_providers": {"acme": {"issuer": IDP, "cluster": "idp", "client": client("IDP_SECRET")}},
        "resources": [{"resource": RESOURCE, "upgrade": {
            "identity_provider": "acme",
            "authorization_server":
                {"issuer": AUTHORIZATION_SERVER, "cluster": "as", "client": client("AS_SECRET")},
            "scopes": ["stock.read"],
            "callers": [{"id_token": {}}, caller],
        }}],
    });
    let clusters =
        &[("mcp", server.port), ("idp", scene.idp.port), ("as", authorization_server.port)];
    let filter = Some(wasm(&scene.jagway, &config, &env));
    gateway::start(&Setup { filter, clusters, env: &env, ..Setup::default() }).await
}

/// What the identity provider says to a token exchange (RFC 8693): an ID-JAG about whoever the subject token is about.
/// Jagway decodes it; to verify it is up to the authorization server, and that one does not.
pub fn exchange(form: &[u8]) -> Vec<u8> {
    let subject = form_urlencoded::parse(form).find(|(name, _)| name == "subject_token");
    let user = subject.and_then(|(_, token)| {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice::<Value>(&payload).ok()?.get("sub").cloned()
    });
    let (header, now) = (json!({"alg": "ES256", "typ": TYP_ID_JAG, "kid": "es"}), now());
    let claims = json!({
        "iss": IDP, "sub": user.unwrap_or("ci-bot".into()), "aud": AUTHORIZATION_SERVER, "client_id": CLIENT,
        "resource": RESOURCE, "scope": "stock.read", "iat": now, "exp": now + 300, "jti": unique(),
    });
    let part = |value: Value| base64url(value.to_string().as_bytes());
    let id_jag = format!("{}.{}.{}", part(header), part(claims), "A".repeat(86));
    let answer = json!({
        "access_token": id_jag, "issued_token_type": TOKEN_ID_JAG, "token_type": "N_A",
        "scope": "stock.read", "expires_in": 300,
    });
    response(200, answer.to_string().as_bytes())
}

/// The authorization server.
fn redeem(head: &[u8], _body: &[u8], out: &mut Vec<u8>) {
    if head.starts_with(b"POST /token ") {
        let answer = json!({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600});
        out.extend(response(200, answer.to_string().as_bytes()));
    } else {
        out.extend(response(200, metadata(AUTHORIZATION_SERVER).to_string().as_bytes()));
    }
}
