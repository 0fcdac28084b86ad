//! Who there is: an identity provider, an MCP server, Jagway's configuration between them, and tokens of each.
//!
//! Names end in `.example` and lead nowhere: requests say them in `Host`, and Envoy's clusters lead to this machine. So
//! all contenders have one issuer and one resource, and one token is good for all of them.

use std::path::PathBuf;
use std::rc::Rc;

use host_tests::dpop::DpopKey;
use host_tests::keys::{SigningKey, random_text, sha256_hex};
use host_tests::names::TYP_ID_JAG;
use serde_json::{Map, Value, json};

use crate::gateway::{self, Setup, wasm};
use crate::grants;
use crate::load::{Connection, Expected, Target};
use crate::tokens::{ID_JAG_LIFETIME, LIFETIME, Minter, Pool};
use crate::upgrade;
use crate::upstream::{Credential, Server, response};

/// The issuer of access tokens: Jagway.
pub const ISSUER: &str = "http://mcp.bench.example";
/// What they are for.
pub const RESOURCE: &str = "http://mcp.bench.example/mcp";
/// The host of both.
pub const HOST: &str = "mcp.bench.example";
/// The identity provider.
pub const IDP: &str = "http://idp.bench.example";
/// The client that redeems ID-JAGs.
pub const CLIENT: &str = "claude";
/// A client that nobody registered, and that proves nothing: where its metadata is, which is its name.
pub const PUBLIC_CLIENT: &str = "https://agent.bench.example/client.json";
/// What the MCP server answers.
pub const ANSWER: &[u8] =
    br#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"12 in stock"}]}}"#;

/// Everybody but the contenders.
pub struct Scene {
    /// The filter.
    pub jagway: PathBuf,
    /// Signs access tokens.
    pub jagway_key: SigningKey,
    /// Sign ID-JAGs, and in the place of Jagway the tokens that no Jagway could: it has no RS256.
    pub idp_keys: [SigningKey; 2],
    /// The identity provider.
    pub idp: Server,
    /// The secret of [`CLIENT`].
    pub secret: String,
    /// What the MCP server knows.
    pub server_key: String,
    /// The claims of an access token as Jagway issued it, without `jti` and times.
    claims: Value,
}

/// What a configuration of `accept` has.
pub struct Accept {
    /// How many identity providers, clients and resources. The last one of each is used.
    pub counts: [usize; 3],
    /// How the client proves itself.
    pub client: Value,
    /// Whether [`PUBLIC_CLIENT`] is admitted.
    pub public: bool,
    /// The listener's transport socket, if it proves itself by the certificate of its connection.
    pub mutual_tls: Option<Value>,
    /// How many tokens a worker remembers, if not as many as it does by itself.
    pub verdict_cache: Option<usize>,
    /// A wasm service that runs beside.
    pub service: Option<Value>,
    /// How many workers.
    pub concurrency: u32,
}

impl Scene {
    /// Starts everybody, and has Jagway issue the token that all others are made after.
    pub async fn start() -> Self {
        let idp_keys = [SigningKey::rs256("rs"), SigningKey::es256("es")];
        let keys = json!({"keys": idp_keys.each_ref().map(SigningKey::jwk)});
        let mut scene = Self {
            jagway: tokio::task::spawn_blocking(host_tests::wasm::filter).await.unwrap(),
            jagway_key: SigningKey::es256("2026-01"),
            idp_keys,
            idp: Server::start(move |head, body, out| out.extend(answer(head, body, &keys))),
            secret: random_text(),
            server_key: random_text(),
            claims: Value::Null,
        };
        let issuing = scene.accept_gateway(&scene.plain_accept()).await;
        let id_jag = Minter::new(&scene.idp_keys[1], TYP_ID_JAG);
        let id_jag = id_jag.sign_for(ID_JAG_LIFETIME, &claims());
        let (head, tail) = scene.basic_grant()(id_jag.len());
        let request = [&head, id_jag.as_bytes(), &tail].concat();
        let mut connection = Connection::open(issuing.address).await.unwrap();
        let granted = connection.ask(&request, &Expected::Token).await;
        granted.unwrap_or_else(|why| panic!("{why}\n{}", issuing.last_words()));
        scene.claims = template(connection.body());
        scene
    }

    /// One identity provider, one client with a secret, one resource.
    pub fn plain_accept(&self) -> Accept {
        let client = json!({"secret_sha256": sha256_hex(&self.secret)});
        Accept {
            counts: [1, 1, 1],
            client,
            public: false,
            mutual_tls: None,
            verdict_cache: None,
            service: None,
            concurrency: 1,
        }
    }

    /// An Envoy with Jagway in front of an MCP server that knows its own key only.
    pub async fn accept_gateway(&self, accept: &Accept) -> Rc<Target> {
        let key = format!("x-api-key: {}", self.server_key);
        let server = Server::mcp(ANSWER, Credential::Swapped(key));
        let env = self.accept_env();
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        let setup = Setup {
            filter: Some(wasm(&self.jagway, &self.accept(accept), &env)),
            clusters: &[("mcp", server.port), ("idp", self.idp.port)],
            env: &env,
            tls: accept.mutual_tls.clone(),
            service: accept.service.clone(),
            concurrency: accept.concurrency,
        };
        gateway::start(&setup).await
    }

    /// Has Jagway at `target` revoke `token` of its own (RFC 7009).
    pub async fn revoke(&self, target: &Target, token: &str) {
        let request = grants::revocation(HOST, &self.secret, token);
        let mut connection = Connection::open(target.address).await.unwrap();
        let revoked = connection.ask(&request, &Expected::Body([].into())).await;
        revoked.unwrap_or_else(|why| panic!("{why}\n{}", target.last_words()));
    }

    /// What the filter's VM sees of the environment.
    fn accept_env(&self) -> [(&'static str, String); 2] {
        [("SIGNING_KEY", self.jagway_key.pem()), ("SERVER_KEY", self.server_key.clone())]
    }

    /// The filter's configuration.
    fn accept(&self, accept: &Accept) -> Value {
        let [providers, clients, resources] = accept.counts;
        // The ones that are used are last, however they are looked for.
        let named = |count: usize, last: &str, other: &str| -> Vec<String> {
            (1..count).map(|n| format!("{other}{n}")).chain([last.to_owned()]).collect()
        };
        let names = named(providers, "idp", "a");
        let provider = |name: &String| {
            let issuer = match name.as_str() {
                "idp" => IDP.to_owned(),
                other => format!("{IDP}/{other}"),
            };
            let value = json!({"issuer": issuer, "cluster": "idp"});
            (name.clone(), value)
        };
        let registered = |id: String| {
            let mut client = accept.client.clone();
            client["identity_providers"] = json!(names);
            (id, client)
        };
        let resource = |path: String| {
            let credential = json!({"header": "x-api-key", "value": {"env": "SERVER_KEY"}});
            let accept =
                json!({"name": "Stock", "scopes": ["stock.read"], "credential": credential});
            json!({"resource": format!("{ISSUER}/{path}"), "accept": accept})
        };
        let mut server = json!({
            "issuer": ISSUER,
            "signing_keys": [{"key": {"env": "SIGNING_KEY"}, "kid": self.jagway_key.kid()}],
            "access_token_lifetime": LIFETIME,
            "clients": named(clients, CLIENT, "b").into_iter().map(registered).collect::<Map<_, _>>(),
        });
        if accept.mutual_tls.is_some() {
            server["mutual_tls"] = json!({"chain": "verified"});
        }
        if accept.public {
            let hosts =
                json!({"agent.bench.example": {"cluster": "idp", "identity_providers": names}});
            server["client_id_metadata_documents"] = json!({"hosts": hosts, "allow_public": true});
        }
        if let Some(tokens) = accept.verdict_cache {
            server["verdict_cache"] = json!(tokens);
        }
        json!({
            "allow_insecure_http": true,
            "identity_providers": names.iter().map(provider).collect::<Map<_, _>>(),
            "authorization_server": server,
            "resources": named(resources, "mcp", "r").into_iter().map(resource).collect::<Vec<_>>(),
        })
    }

    /// Makes access tokens like Jagway's, each another one, with the key of Jagway or, for RS256, another.
    pub fn access_tokens(&self, key: &SigningKey) -> impl Fn() -> String + Sync + 'static {
        let (minter, claims) = (Minter::new(key, "at+jwt"), self.claims.clone());
        move || minter.sign(&claims)
    }

    /// ID-JAGs for Jagway's token endpoint, signed by the first (RS256) or second (ES256) key of the identity provider.
    pub fn id_jags(&self, key: usize, count: usize) -> Rc<Pool> {
        let minter = Minter::new(&self.idp_keys[key], TYP_ID_JAG);
        Pool::new(count, move || minter.sign_for(ID_JAG_LIFETIME, &claims()))
    }

    /// ID-JAGs (ES256) for [`PUBLIC_CLIENT`], bound to `key`, each behind a proof of that key for the token endpoint and
    /// `between`. Besides, how long the ID-JAG is.
    pub fn bound_id_jags(&self, key: DpopKey, between: String, count: usize) -> (Rc<Pool>, usize) {
        let minter = Minter::new(&self.idp_keys[1], TYP_ID_JAG);
        let mut claims = claims();
        claims["client_id"] = json!(PUBLIC_CLIENT);
        claims["cnf"] = json!({"jkt": key.thumbprint()});
        let length = minter.sign_for(ID_JAG_LIFETIME, &claims).len();
        let make = move || {
            let proof = key.proof("POST", &format!("{ISSUER}/token"), None, None);
            format!("{proof}{between}{}", minter.sign_for(ID_JAG_LIFETIME, &claims))
        };
        (Pool::new(count, make), length)
    }

    /// What stands around an ID-JAG in a token request with HTTP Basic.
    pub fn basic_grant(&self) -> impl Fn(usize) -> (Vec<u8>, Vec<u8>) + 'static {
        grants::around_basic(HOST.into(), &self.secret)
    }
}

/// The claims of an ID-JAG for [`CLIENT`] at Jagway, without `jti` and times.
fn claims() -> Value {
    json!({
        "iss": IDP, "sub": "00u1a2b3", "aud": ISSUER, "client_id": CLIENT,
        "resource": RESOURCE, "scope": "stock.read",
    })
}

/// What the identity provider says. Its issuer may have a path, so that it can stand for many.
fn answer(head: &[u8], body: &[u8], keys: &Value) -> Vec<u8> {
    let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let path = first.split(' ').nth(1).unwrap_or_default();
    if path == "/token" {
        return upgrade::exchange(body);
    }
    if path == "/client.json" {
        let document = json!({"client_id": PUBLIC_CLIENT, "token_endpoint_auth_method": "none"});
        return response(200, document.to_string().as_bytes());
    }
    if path.ends_with("/keys") {
        return response(200, keys.to_string().as_bytes());
    }
    match path.strip_prefix("/.well-known/oauth-authorization-server") {
        Some(rest) => response(200, metadata(&format!("{IDP}{rest}")).to_string().as_bytes()),
        None => response(404, b"{}"),
    }
}

/// The metadata of this issuer.
pub fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
    })
}

/// The claims in a token answer's access token that do not differ from token to token.
fn template(answer: &[u8]) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let answer: Value = serde_json::from_slice(answer).unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let mut claims: Map<String, Value> = serde_json::from_slice(&payload).unwrap();
    claims.retain(|name, _| !["jti", "iat", "exp"].contains(&name.as_str()));
    Value::Object(claims)
}
