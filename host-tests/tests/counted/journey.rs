//! Requests that the counted worker is sent.

use host_tests::wasm;
use jagway_core::signing::SigningKey;
use serde_json::{Value, json};

use super::{Counts, End, Setup, Worker, signatures};
use crate::parts::servers::{HOST, Servers, part};
use crate::parts::{NOW, env, grant, id_jag};

/// What clients and Envoy say about themselves.
const CLIENT: [(&str, &str); 7] = [
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2025-11-25"),
    ("user-agent", "claude-code/2.0 (cli)"),
    ("content-length", "1024"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
];

/// A worker and the servers it talks to.
pub struct Journey {
    /// The worker.
    pub worker: Worker,
    servers: Servers,
    /// Bytes of the body of a call.
    pub body: usize,
}

impl Journey {
    /// A worker of the module as it is shipped, warmed up.
    pub fn start(config: &Value) -> Self {
        Self::of(&std::fs::read(wasm::filter()).unwrap(), config, false)
    }

    /// A worker of this module; `profiled`, if each function's cost is to be known.
    pub fn of(module: &[u8], config: &Value, profiled: bool) -> Self {
        let names = ["SIGNING_KEY", "WAREHOUSE_KEY", "IDP_SECRET", "AS_SECRET", "BOT_REFRESH"];
        let names = names.into_iter().chain(["OTHER_REFRESH"]);
        let environment = names.map(|name| (name.to_owned(), env(name).unwrap())).collect();
        let foreign = signatures::es256();
        let setup = Setup { module, config, environment, time: NOW, foreign, profiled };
        let mut worker = Worker::start(setup).unwrap();
        let mut servers = Servers::default();
        servers.now = NOW;
        worker.tick(&mut |callout| servers.answer(callout).unwrap()).unwrap();
        Self { worker, servers, body: 1024 }
    }

    fn request(&mut self, fields: &[(&str, &str)], body: &[u8]) -> (End, Counts) {
        let servers = &mut self.servers;
        self.worker.request(fields, body, &mut |callout| servers.answer(callout).unwrap()).unwrap()
    }

    /// A call of an MCP server that goes on: what it goes on with in the field `name`, and what it cost.
    fn call(&mut self, url: (&str, &str), shown: (&str, &str), name: &str) -> (String, Counts) {
        let head = [(":method", "POST"), (":authority", url.0), (":path", url.1)];
        let fields = [&head, &CLIENT[..], &[shown]].concat();
        let (end, counts) = self.request(&fields, &vec![b' '; self.body]);
        let End::Forwarded(fields) = end else { panic!("{end:?} {:?}", self.worker.log()) };
        let value = fields.into_iter().find(|(field, _)| field == name).unwrap().1;
        (String::from_utf8(value).unwrap(), counts)
    }

    /// A call of the resource that is accepted for.
    pub fn accept(&mut self, token: &str) -> Counts {
        let bearer = format!("Bearer {token}");
        let url = ("mcp.acme.example", "/warehouse");
        let (credential, counts) = self.call(url, ("authorization", &bearer), "x-api-key");
        assert_eq!(credential, "warehouse-key");
        counts
    }

    /// A call of the resource that is upgraded for.
    pub fn upgrade(&mut self) -> Counts {
        let caller = ("x-api-key", "bot-key");
        let (credential, counts) = self.call((HOST, "/mcp"), caller, "authorization");
        assert!(credential.starts_with("Bearer AS-token-"));
        counts
    }

    /// A form of the client's that is answered with 200: by what, and what it cost.
    fn post(&mut self, path: &str, form: &[u8]) -> (Vec<u8>, Counts) {
        let head = [
            (":method", "POST"),
            (":authority", "mcp.acme.example"),
            (":path", path),
            ("content-type", "application/x-www-form-urlencoded"),
            ("authorization", "Basic Y2xhdWRlOnMzY3JldA=="),
        ];
        let (end, counts) = self.request(&[&head, &CLIENT[1..]].concat(), form);
        let End::Replied(200, body) = end else { panic!("{end:?} {:?}", self.worker.log()) };
        (body, counts)
    }

    /// A grant: the access token, and what it cost.
    pub fn grant(&mut self, jti: usize) -> (String, Counts) {
        let assertion = id_jag(&format!("grant-{jti:04}"));
        let (body, counts) = self.post("/token", &grant(&assertion));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        (answer["access_token"].as_str().unwrap().to_owned(), counts)
    }

    /// A token is revoked by its client.
    pub fn revoke(&mut self, token: &str) {
        self.post("/revoke", format!("token={token}").as_bytes());
    }
}

/// A token like `token`, of another name.
pub fn renamed(token: &str, jti: usize) -> String {
    let mut claims = part(token, 1);
    claims["jti"] = json!(format!("token-{jti:04}"));
    let key = SigningKey::from_pem(&env("SIGNING_KEY").unwrap(), Some("own-1")).unwrap();
    key.sign("at+jwt", &claims)
}
