//! The servers that an upgrade talks to, made by hand: what they are asked is kept, what they answer can be
//! changed member by member. And a process before them.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jagway_core::dpop::{self, Expected};
use jagway_core::resend::Route;
use std::collections::{BTreeSet, VecDeque};

/// Where callers reach the resource.
pub const HOST: &str = "tickets.internal.example";
/// Scripted answers at which a server does not answer at all.
pub const SILENCE: u16 = 0;

/// A request of ours.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it is: `exchange`, `redemption`, `refresh`, `client_credentials` (at the provider), `own`
    /// (client credentials at the Resource AS), `idp metadata`, `as metadata`, `keys`, `resource`,
    /// `upstream` (what is sent once more).
    pub to: &'static str,
    pub method: &'static str,
    pub path: String,
    pub body: String,
    pub form: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    /// Thumbprint of the key of its proof, which is sound.
    pub key: Option<String>,
}

impl Call {
    /// The one parameter of this name; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        sole(&self.form, name)
    }

    /// The one header field of this name; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        sole(&self.headers, name)
    }

    /// Names of the parameters, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.form.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

fn sole<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    let mut values = fields.iter().filter(|(field, _)| field == name);
    let value = values.next().map_or("", |(_, value)| value);
    assert!(values.next().is_none(), "{name} is there twice");
    value
}

/// Header (0) or claims (1) of a JWT.
pub fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap_or_else(|| panic!("no JWT: {token:?}"));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// `value` with the members of `change`; `null` removes one.
pub fn merged(mut value: Value, change: &Value) -> Value {
    for (name, new) in change.as_object().into_iter().flatten() {
        match new {
            Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
            new => value[name] = new.clone(),
        }
    }
    value
}

/// What [`upgrade_config`] says but for `changes`, by JSON pointer: below `idp`, `upgrade` or `as`, or from
/// the root.
pub fn changed_config(changes: &[(&str, Value)]) -> Value {
    let mut config = upgrade_config();
    for (pointer, value) in changes {
        let (first, rest) = pointer.split_once('/').unwrap_or((pointer, ""));
        let pointer = match first {
            "idp" => format!("/identity_providers/acme/{rest}"),
            "upgrade" => format!("/resources/0/upgrade/{rest}"),
            "as" => format!("/resources/0/upgrade/authorization_server/{rest}"),
            _ => (*pointer).to_owned(),
        };
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    config
}

/// An ID Token of alice for our client, but for `change`.
pub fn id_token(change: &Value) -> String {
    let claims = json!({
        "iss": IDP, "sub": "alice", "aud": "jagway", "iat": NOW, "exp": NOW + 3600,
    });
    key(1).sign("JWT", &merged(claims, change))
}

/// A caller with an API key, bound to `subject`.
pub fn key_caller(key: &str, subject: Value) -> Value {
    let sha256 = hex(&sha256(key.as_bytes()));
    json!({ "api_key": { "header": "x-api-key", "sha256": sha256 }, "subject": subject })
}

/// The servers. What is `Null` changes nothing.
#[derive(Default)]
pub struct Servers {
    pub now: u64,
    pub calls: Vec<Call>,
    pub idp_metadata: Value,
    pub as_metadata: Value,
    pub resource_metadata: Value,
    /// Header and claims of the ID-JAGs, and the rest of the answers with them.
    pub header: Value,
    pub claims: Value,
    pub exchange: Value,
    /// Of the answers to a refresh, and the claims of their ID Tokens.
    pub refresh: Value,
    pub refreshed: Value,
    pub client_credentials: Value,
    pub redemption: Value,
    pub own: Value,
    /// Whether each use of a refresh token brings another, and the old one is refused.
    pub renews: bool,
    used: Vec<String>,
    issued: usize,
    script: VecDeque<(&'static str, u16, Headers, Value)>,
    redeemed: Vec<String>,
}

impl Servers {
    /// The next request of this kind is answered so.
    pub fn once(&mut self, to: &'static str, status: u16, fields: &[(&str, &str)], body: Value) {
        let fields =
            fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        self.script.push_back((to, status, Headers::new(fields.collect()), body));
    }

    /// Every request of this kind is answered so.
    pub fn always(&mut self, to: &'static str, status: u16, fields: &[(&str, &str)], body: &Value) {
        for _ in 0..50 {
            self.once(to, status, fields, body.clone());
        }
    }

    /// From now on nothing of the script is left.
    pub fn well(&mut self) {
        self.script.clear();
    }

    pub fn count(&self, to: &str) -> usize {
        self.calls.iter().filter(|call| call.to == to).count()
    }

    pub fn last(&self, to: &str) -> &Call {
        let mut calls = self.calls.iter().rev();
        calls.find(|call| call.to == to).unwrap_or_else(|| panic!("no {to}: {:?}", self.calls))
    }

    /// All requests to token endpoints, in order.
    pub fn token_calls(&self) -> Vec<&'static str> {
        let kinds = ["exchange", "redemption", "refresh", "client_credentials", "own"];
        self.calls.iter().map(|call| call.to).filter(|to| kinds.contains(to)).collect()
    }

    pub fn answer(&mut self, callout: &Callout) -> Result<Answer, CallFailed> {
        let call = self.call(callout);
        self.calls.push(call.clone());
        if let Some(index) = self.script.iter().position(|(to, ..)| *to == call.to) {
            let (_, status, headers, body) = self.script.remove(index).unwrap();
            if status == SILENCE {
                return Err(CallFailed::NoAnswer);
            }
            let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
            return Ok(Answer { status, headers, body: body.into_bytes() });
        }
        match call.to {
            "keys" => answer(200, &jwks(&[1])),
            "idp metadata" => json_answer(200, &metadata(IDP, &self.idp_metadata)),
            "as metadata" => json_answer(200, &metadata(AS, &self.as_metadata)),
            "resource" => {
                let document = json!({ "resource": WAREHOUSE, "authorization_servers": [AS] });
                json_answer(200, &merged(document, &self.resource_metadata))
            }
            "client_credentials" => {
                let token = json!({ "access_token": "IDP-own-token", "token_type": "Bearer" });
                json_answer(200, &merged(token, &self.client_credentials))
            }
            "upstream" => json_answer(200, &json!({ "answer": "the second" })),
            "own" => json_answer(200, &self.access_token(&call, &self.own.clone())),
            "redemption" => self.redeem(&call),
            "refresh" | "exchange" => self.at_provider(&call),
            to => panic!("{to}"),
        }
    }

    fn call(&self, callout: &Callout) -> Call {
        let body = callout.body.expose().to_owned();
        let headers: Vec<(String, String)> = callout
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.expose().to_owned()))
            .collect();
        let (method, path) = (callout.method, callout.path.clone());
        if callout.cluster == "upstream" {
            let form = Vec::new();
            return Call { to: "upstream", method, path, body, form, headers, key: None };
        }
        let pairs = form_urlencoded::parse(body.as_bytes());
        let form: Vec<(String, String)> = pairs.into_owned().collect();
        let proof = sole(&headers, "dpop");
        let uri = format!("https://{}{}", callout.authority, callout.path);
        let key =
            (!proof.is_empty()).then(|| thumbprint(proof, callout.method, &uri, None, self.now));
        let to = match (callout.cluster.as_str(), callout.path.as_str(), sole(&form, "grant_type"))
        {
            (_, _, grant) if grant.ends_with(":token-exchange") => "exchange",
            (_, _, grant) if grant.ends_with(":jwt-bearer") || grant.ends_with(":jwt-dpop") => {
                "redemption"
            }
            (_, _, "refresh_token") => "refresh",
            ("idp", _, "client_credentials") => "client_credentials",
            (_, _, "client_credentials") => "own",
            ("idp", "/keys", _) => "keys",
            ("idp", path, "") if path.contains("/.well-known/") => "idp metadata",
            ("tickets", _, "") => "resource",
            (_, path, "") if path.contains("/.well-known/") => "as metadata",
            other => panic!("nobody asked for {other:?}"),
        };
        if !form.is_empty() {
            assert_eq!(callout.method, "POST");
            assert_eq!(sole(&headers, "content-type"), "application/x-www-form-urlencoded");
            let secret = ["IDP-secret", "subject_token=", "assertion="];
            assert!(secret.iter().all(|secret| !callout.path.contains(secret)));
        }
        Call { to, method, path, body, form, headers, key }
    }

    /// A use of a refresh token or another subject token.
    fn at_provider(&mut self, call: &Call) -> Result<Answer, CallFailed> {
        let is_refresh = call.to == "refresh";
        let kind = call.get("subject_token_type");
        let token = if is_refresh { call.get("refresh_token") } else { call.get("subject_token") };
        let renews = self.renews && (is_refresh || kind.ends_with(":refresh_token"));
        if renews {
            if self.used.iter().any(|used| used == token) {
                return json_answer(400, &json!({ "error": "invalid_grant" }));
            }
            self.used.push(token.to_owned());
        }
        self.issued += 1;
        let number = self.issued;
        let mut body = match is_refresh {
            true => {
                let claims = json!({ "jti": number });
                let token = id_token(&merged(claims, &self.refreshed));
                merged(
                    json!({ "access_token": "IDP-at", "token_type": "Bearer", "id_token": token }),
                    &self.refresh,
                )
            }
            false => merged(self.id_jag(call, number), &self.exchange),
        };
        if renews && body.get("refresh_token").is_none() {
            body["refresh_token"] = json!(format!("renewed-RT-{number}"));
        }
        json_answer(200, &body)
    }

    fn id_jag(&self, call: &Call, number: usize) -> Value {
        let mut claims = json!({
            "iss": IDP, "sub": "alice", "aud": call.get("audience"), "client_id": "claude",
            "jti": format!("jag-{number}"), "iat": self.now, "exp": self.now + 300,
        });
        for name in ["resource", "scope"] {
            if !call.get(name).is_empty() {
                claims[name] = json!(call.get(name));
            }
        }
        if let Some(key) = &call.key {
            claims["cnf"] = json!({ "jkt": key });
        }
        let header = merged(
            json!({ "alg": "ES256", "typ": "oauth-id-jag+jwt", "kid": "key-1" }),
            &self.header,
        );
        let token = assertions::raw(&header.to_string(), &merged(claims, &self.claims).to_string());
        json!({
            "access_token": token, "token_type": "N_A", "expires_in": 300,
            "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag",
        })
    }

    /// Each ID-JAG is good once.
    fn redeem(&mut self, call: &Call) -> Result<Answer, CallFailed> {
        let assertion = call.get("assertion").to_owned();
        assert!(!self.redeemed.contains(&assertion), "redeemed twice");
        self.redeemed.push(assertion);
        json_answer(200, &self.access_token(call, &self.redemption.clone()))
    }

    fn access_token(&mut self, call: &Call, change: &Value) -> Value {
        self.issued += 1;
        let kind = if call.key.is_some() { "DPoP" } else { "Bearer" };
        let token = format!("AS-token-{}", self.issued);
        merged(json!({ "access_token": token, "token_type": kind, "expires_in": 300 }), change)
    }
}

fn metadata(issuer: &str, change: &Value) -> Value {
    let document = json!({
        "issuer": issuer, "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
    });
    merged(document, change)
}

/// The thumbprint of the key of `proof`, which must be sound for this request.
pub fn thumbprint(proof: &str, method: &str, uri: &str, token: Option<&str>, now: u64) -> String {
    let token = token.map(str::as_bytes);
    let expected =
        Expected { method, uri, access_token: token, now, window: 0, nonces: None, engine: None };
    match dpop::verify(proof.as_bytes(), &expected) {
        Ok(proof) => proof.thumbprint,
        Err(fault) => panic!("{method} {uri}: {fault:?} {}", part(proof, 1)),
    }
}

/// A process, and the servers it talks to.
pub struct World {
    pub process: Process,
    pub servers: Servers,
    /// The head of the request that was forwarded last.
    pub went: Headers,
    /// What must not show in the log, and how many requests of ours and lines were looked at.
    secrets: BTreeSet<String>,
    seen: (usize, usize),
}

impl World {
    pub fn new(changes: &[(&str, Value)]) -> Self {
        Self::of(&changed_config(changes), 1)
    }

    pub fn of(config: &Value, workers: usize) -> Self {
        let servers = Servers { now: NOW, ..Servers::default() };
        let names =
            ["IDP_SECRET", "AS_SECRET", "BOT_REFRESH", "OTHER_REFRESH", "BOT_ID_TOKEN", "ACTOR"];
        let mut secrets: BTreeSet<String> = names.iter().filter_map(|name| env(name)).collect();
        secrets.extend(["AS-token-", "IDP-own-token", "renewed-RT-", "IDP-at"].map(str::to_owned));
        let process = Process::new(config, workers);
        Self { process, servers, went: Headers::default(), secrets, seen: (0, 0) }
    }

    pub fn later(&mut self, seconds: u64) {
        self.process.now += seconds;
        self.servers.now += seconds;
    }

    /// A request with `fields` arrives at `worker`; nothing is answered yet.
    pub fn begin(&mut self, worker: usize, stream: StreamId, fields: &[(&str, &str)]) {
        self.secrets.extend(fields.iter().map(|(_, value)| (*value).to_owned()));
        self.process.request(worker, stream, request("POST", HOST, "/mcp", fields));
    }

    /// All servers answer, and whatever comes of it.
    pub fn settle(&mut self) {
        let (process, servers) = (&mut self.process, &mut self.servers);
        process.answer(&mut |callout| servers.answer(callout));
        self.assert_nothing_leaked();
    }

    /// What becomes of a request with `fields`, at `worker`.
    pub fn at(&mut self, worker: usize, fields: &[(&str, &str)]) -> Verdict {
        self.begin(worker, 1, fields);
        self.settle();
        self.process.verdict()
    }

    /// What becomes of a request with `fields`.
    pub fn call(&mut self, fields: &[(&str, &str)]) -> Verdict {
        self.at(0, fields)
    }

    /// A request with the API key of the first caller that has one.
    pub fn bot(&mut self) -> Verdict {
        self.call(&[("x-api-key", "bot-key")])
    }

    /// The credential with which such a request goes on.
    pub fn bot_token(&mut self) -> String {
        let verdict = self.bot();
        self.authorization(&verdict)
    }

    /// The `authorization` that a request goes on with.
    pub fn authorization(&self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::Forward(edits, _) => edits.set[0].1.expose().to_owned(),
            other => panic!("{other:?} {:?}", self.process.log),
        }
    }

    /// A request with the bot's API key and `fields` goes on; `went` is its head then.
    pub fn forward(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Rc<AfterResponse> {
        let fields = [&[("x-api-key", "bot-key")], fields].concat();
        let head = request(method, HOST, path, &fields);
        self.process.request(0, 1, request(method, HOST, path, &fields));
        self.settle();
        let Verdict::Forward(edits, after) = self.process.verdict() else {
            panic!("{:?}", self.process.log)
        };
        let gone = |name: &str| {
            let is_set = edits.set.iter().any(|(other, _)| other == name);
            is_set || edits.remove.iter().any(|other| other == name)
        };
        let rest = head.headers.without(gone);
        let rest = rest.fields().map(|(name, value)| (name.to_owned(), value.to_vec()));
        let set = edits.set.iter().map(|(name, value)| (name.clone(), value.expose().into()));
        self.went = Headers::new(rest.chain(set).collect());
        // What is kept to be sent once more is what the edits make of it.
        if let Some(went) = &after.went {
            assert!(went.fields().eq(self.went.fields()));
        }
        after
    }

    /// As [`World::response`], and all servers answer what comes of it.
    pub fn answers(
        &mut self,
        after: &AfterResponse,
        headers: &Headers,
        body: Option<&[u8]>,
    ) -> ResponseEdits {
        let edits = self.response(after, headers, body);
        self.settle();
        edits
    }

    /// The server behind answers with `headers` what went last. With a body, the request can be sent once more.
    pub fn response(
        &mut self,
        after: &AfterResponse,
        headers: &Headers,
        body: Option<&[u8]>,
    ) -> ResponseEdits {
        let moment = self.process.moment();
        let worker = &mut self.process.workers[0];
        let route = || Route { cluster: "upstream".to_owned(), ..Route::default() };
        let mut kept = body.map(|body| (route(), body.to_vec()));
        let (edits, todo) = worker.response(1, after, headers, &mut || kept.take(), moment);
        self.process.perform(0, todo);
        edits
    }

    /// Code of the last refusal, by the log.
    pub fn refused(&self) -> &str {
        let lines = self.process.log.iter().rev();
        let mut codes = lines.filter_map(|line| line.strip_prefix("refused [")?.split(']').next());
        codes.next().unwrap_or("none")
    }

    pub fn has_logged(&self, text: &str) -> bool {
        self.process.log.iter().any(|line| line.contains(text))
    }

    /// No line of the log has a secret of the configuration, of a caller, or of a request of ours.
    fn assert_nothing_leaked(&mut self) {
        let fields = ["subject_token", "assertion", "client_assertion", "actor_token"];
        for call in &self.servers.calls[self.seen.0.min(self.servers.calls.len())..] {
            self.secrets.extend(fields.map(|name| call.get(name).to_owned()));
            self.secrets.extend(["authorization", "dpop"].map(|name| call.header(name).to_owned()));
        }
        let lines = &self.process.log[self.seen.1..];
        for secret in self.secrets.iter().filter(|secret| secret.len() > 3) {
            let leak = lines.iter().find(|line| line.contains(secret.as_str()));
            assert_eq!(leak, None, "{secret}");
        }
        self.seen = (self.servers.calls.len(), self.process.log.len());
    }
}
