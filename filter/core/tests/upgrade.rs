//! Our upgrade against our own Resource AS: two cores and a clock.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::http::Headers;
use jagway_core::http::{Answer, CallFailed, Callout};
use jagway_core::worker::{Todo, Verdict};
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const HOST: &str = "tickets.internal.example";

/// The other side: the identity provider by hand, the Resource AS by our own core.
struct OtherSide {
    resource_as: Process,
    exchanges: usize,
    redemptions: usize,
    /// Form of the last token exchange.
    exchanged: Vec<(String, String)>,
}

impl OtherSide {
    fn new() -> Self {
        let mut config = accept_config();
        let secret = jagway_core::digest::sha256(b"as-secret");
        let secret = jagway_core::digest::hex(&secret);
        config["authorization_server"]["clients"]["claude"]["secret_sha256"] = json!(secret);
        Self {
            resource_as: Process::new(&config, 1),
            exchanges: 0,
            redemptions: 0,
            exchanged: Vec::new(),
        }
    }

    fn answer(&mut self, callout: &Callout) -> Result<Answer, CallFailed> {
        match (callout.cluster.as_str(), callout.path.as_str()) {
            ("idp", "/.well-known/oauth-authorization-server") => json_answer(404, &json!({})),
            ("idp", "/.well-known/openid-configuration") => json_answer(
                200,
                &json!({
                    "issuer": IDP,
                    "token_endpoint": format!("{IDP}/token"),
                    "jwks_uri": format!("{IDP}/keys"),
                }),
            ),
            ("idp", "/keys") => answer(200, &jwks(&[1])),
            ("idp", "/token") => {
                self.exchanges += 1;
                self.exchanged =
                    form_urlencoded::parse(callout.body.expose().as_bytes()).into_owned().collect();
                json_answer(
                    200,
                    &json!({
                        "access_token": id_jag(&format!("grant-{}", self.exchanges)),
                        "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag",
                        "token_type": "N_A",
                        "expires_in": 300,
                    }),
                )
            }
            ("as", path) => self.at_resource_as(callout, path),
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn at_resource_as(&mut self, callout: &Callout, path: &str) -> Result<Answer, CallFailed> {
        self.redemptions += usize::from(path == "/token");
        let fields: Vec<(&str, &str)> =
            callout.headers.iter().map(|(name, value)| (&**name, value.expose())).collect();
        let request = request(callout.method, &callout.authority, path, &fields);
        let body = callout.body.expose().as_bytes().to_vec();
        let process = &mut self.resource_as;
        process.request_with_body(0, 1, request, body);
        process.answer(&mut |_| answer(200, &jwks(&[1])));
        let Verdict::Reply(reply) = process.verdict() else { panic!("forwarded") };
        answer(reply.status, reply.body.as_bytes())
    }
}

fn id_token(change: Value) -> String {
    let mut claims = json!({
        "iss": IDP, "sub": "alice", "aud": "jagway", "iat": NOW, "exp": NOW + 3600,
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    key(1).sign("JWT", &claims)
}

fn call(fields: &[(&str, &str)]) -> jagway_core::http::Request {
    request("POST", HOST, "/mcp", fields)
}

fn bearer(process: &mut Process) -> String {
    match process.verdict() {
        Verdict::Forward(edits, _) => edits.set[0].1.expose().to_owned(),
        other => panic!("{other:?} {:?}", process.log),
    }
}

#[test]
fn an_id_token_becomes_an_access_token_of_the_resource_as() {
    let mut process = Process::new(&upgrade_config(), 1);
    let mut other = OtherSide::new();
    let token = id_token(json!({}));

    process.request(0, 1, call(&[("authorization", &format!("Bearer {token}")), ("cookie", "x")]));
    process.answer(&mut |callout| other.answer(callout));

    let Verdict::Forward(edits, after) = process.verdict() else { panic!("{:?}", process.log) };
    assert!(edits.remove.contains(&"authorization".to_owned()));
    assert!(edits.remove.contains(&"cookie".to_owned()));
    assert!(after.sent.is_some() && !after.credential_is_ours);
    // The other core takes what this one got.
    other.resource_as.request(
        0,
        2,
        request(
            "POST",
            "mcp.acme.example",
            "/warehouse",
            &[("authorization", edits.set[0].1.expose())],
        ),
    );
    assert_eq!(status(&other.resource_as.verdict()), 0);
    let sent = |name: &str| {
        let field = other.exchanged.iter().find(|(field, _)| field == name);
        field.map(|(_, value)| value.as_str()).unwrap_or_default().to_owned()
    };
    assert_eq!(sent("grant_type"), "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!(sent("requested_token_type"), "urn:ietf:params:oauth:token-type:id-jag");
    assert_eq!(sent("audience"), AS);
    assert_eq!(sent("resource"), WAREHOUSE);
    assert_eq!(sent("scope"), "stock.read");
    assert_eq!(sent("subject_token"), token);
    assert_eq!(sent("subject_token_type"), "urn:ietf:params:oauth:token-type:id_token");
    assert_eq!(sent("client_id"), "jagway");
}

#[test]
fn an_api_key_stands_for_the_user_it_is_bound_to_and_never_leaves() {
    let mut process = Process::new(&upgrade_config(), 1);
    let mut other = OtherSide::new();

    process.request(0, 1, call(&[("x-api-key", "bot-key")]));
    process.answer(&mut |callout| {
        assert!(!callout.body.expose().contains("bot-key"));
        other.answer(callout)
    });

    assert!(bearer(&mut process).starts_with("Bearer "));
    let sent = |name: &str| other.exchanged.iter().find(|(field, _)| field == name).unwrap();
    assert_eq!(sent("subject_token").1, "bot-refresh-token");
    assert_eq!(sent("subject_token_type").1, "urn:ietf:params:oauth:token-type:refresh_token");
}

#[test]
fn the_token_is_kept_for_its_subject_and_for_nobody_else() {
    let mut process = Process::new(&upgrade_config(), 2);
    let mut other = OtherSide::new();
    let mut get = |worker: usize, field: (&str, &str)| {
        process.request(worker, 1, call(&[field]));
        process.answer(&mut |callout| other.answer(callout));
        (bearer(&mut process), other.exchanges)
    };

    let (bot, exchanges) = get(0, ("x-api-key", "bot-key"));
    assert_eq!(exchanges, 1);
    assert_eq!(get(0, ("x-api-key", "bot-key")), (bot.clone(), 1), "this worker has it");
    assert_eq!(get(1, ("x-api-key", "bot-key")), (bot.clone(), 1), "the other one finds it");
    let (another, exchanges) = get(0, ("x-api-key", "other-key"));
    assert_ne!(another, bot);
    assert_eq!(exchanges, 2);
    let alice = format!("Bearer {}", id_token(json!({})));
    assert_ne!(get(0, ("authorization", &alice)).0, bot);
}

#[test]
fn ways_that_differ_in_anything_never_share_a_token() {
    use jagway_core::caller::identify;
    use jagway_core::config::Kind;
    use jagway_core::exchange::key;
    let upgrade = "/resources/0/upgrade";
    let changes = [
        ("", json!(null)),
        ("/identity_providers/acme/cluster", json!("idp2")),
        ("/identity_providers/acme/token_endpoint", json!(format!("{IDP}/t"))),
        ("/identity_providers/acme/client/id", json!("jagway2")),
        ("/resources/0/resource", json!(format!("{AS}/other"))),
        (&format!("{upgrade}/scopes"), json!(["stock.write"])),
        (&format!("{upgrade}/max_token_age"), json!(10)),
        (&format!("{upgrade}/authorization_server/issuer"), json!("https://other.example")),
        (&format!("{upgrade}/authorization_server/cluster"), json!("as2")),
        (&format!("{upgrade}/authorization_server/client/id"), json!("claude2")),
        (&format!("{upgrade}/authorization_server/token_endpoint"), json!(format!("{AS}/t"))),
    ];
    let callers = [
        ("authorization", "Bearer a"),
        ("authorization", "Bearer b"),
        ("x-api-key", "bot-key"),
        ("x-api-key", "other-key"),
    ];

    let mut keys = std::collections::BTreeSet::new();
    for (pointer, value) in &changes {
        let mut config = upgrade_config();
        if let Some((parent, name)) = pointer.rsplit_once('/') {
            config.pointer_mut(parent).unwrap()[name] = value.clone();
        }
        let config = parse(&config);
        let Kind::Upgrade(upgrade) = &config.resources[0].kind else { panic!() };
        for caller in callers {
            let known = identify(upgrade, &call(&[caller])).unwrap();
            assert!(keys.insert(key(upgrade, &known, "")), "{pointer} {caller:?}");
            assert!(keys.insert(key(upgrade, &known, "x")), "{pointer} {caller:?}: another scope");
        }
    }
}

#[test]
fn tokens_in_the_query_of_an_upgraded_request_are_refused() {
    let mut process = Process::new(&upgrade_config(), 1);

    process.request(
        0,
        1,
        request("POST", HOST, "/mcp?access_token=x", &[("x-api-key", "bot-key")]),
    );

    assert_eq!(status(&process.verdict()), 400);
}

#[test]
fn no_answer_is_an_outage_and_is_logged_with_the_field_to_look_at() {
    for failed in [CallFailed::NoCluster, CallFailed::NoAnswer] {
        let mut process = Process::new(&upgrade_config(), 1);

        process.request(0, 1, call(&[("x-api-key", "bot-key")]));
        process.answer(&mut |_| Err(failed));

        assert_eq!(status(&process.verdict()), 503);
        let path = "identity_providers.acme";
        assert!(process.log.iter().any(|line| line.starts_with(path)), "{:?}", process.log);
    }
}

#[test]
fn metadata_of_another_issuer_is_not_followed() {
    let mut process = Process::new(&upgrade_config(), 1);

    process.request(0, 1, call(&[("x-api-key", "bot-key")]));
    process.answer(&mut |callout| {
        assert_ne!(callout.path, "/token");
        json_answer(
            200,
            &json!({ "issuer": "https://x.example", "token_endpoint": "https://x.example/token" }),
        )
    });

    assert_eq!(status(&process.verdict()), 502);
}

#[test]
fn an_endpoint_on_another_host_than_its_issuer_is_not_called() {
    let mut process = Process::new(&upgrade_config(), 1);

    process.request(0, 1, call(&[("x-api-key", "bot-key")]));
    process.answer(&mut |callout| {
        assert_ne!(callout.path, "/token");
        json_answer(200, &json!({ "issuer": IDP, "token_endpoint": "https://x.example/token" }))
    });

    assert_eq!(status(&process.verdict()), 502);
}

#[test]
fn a_token_is_refreshed_ahead_while_it_still_serves() {
    let mut process = Process::new(&upgrade_config(), 1);
    let mut other = OtherSide::new();
    process.request(0, 1, call(&[("x-api-key", "bot-key")]));
    process.answer(&mut |callout| other.answer(callout));
    let first = bearer(&mut process);

    process.now += 200;
    process.request(0, 2, call(&[("x-api-key", "bot-key")]));
    assert_eq!(bearer(&mut process), first, "fresh");
    assert!(process.callouts.is_empty());

    process.now += 60;
    process.request(0, 3, call(&[("x-api-key", "bot-key")]));
    assert_eq!(bearer(&mut process), first, "served at once");
    assert_eq!(process.callouts.len(), 1, "and refreshed behind it");
    process.callouts.clear();

    process.now += 100;
    process.request(0, 4, call(&[("x-api-key", "bot-key")]));
    assert!(process.concluded.is_empty(), "never served after its end");
}

#[test]
fn a_refusal_at_the_refresh_ends_the_old_token_and_an_outage_does_not() {
    for (code, error, expected) in [(503, "down", 0), (400, "invalid_grant", 401)] {
        let mut process = Process::new(&upgrade_config(), 2);
        let mut other = OtherSide::new();
        process.request(0, 1, call(&[("x-api-key", "bot-key")]));
        process.answer(&mut |callout| other.answer(callout));
        bearer(&mut process);

        process.now += 260;
        process.request(0, 2, call(&[("x-api-key", "bot-key")]));
        process.answer(&mut |_| json_answer(code, &json!({ "error": error })));
        bearer(&mut process);
        process.request(0, 3, call(&[("x-api-key", "bot-key")]));

        assert_eq!(status(&process.verdict()), expected, "{error}");
    }
}

#[test]
fn no_token_outlives_the_id_token_it_was_got_with() {
    let mut process = Process::new(&upgrade_config(), 1);
    let mut other = OtherSide::new();
    let token = format!("Bearer {}", id_token(json!({ "exp": NOW + 20 })));
    process.request(0, 1, call(&[("authorization", &token)]));
    process.answer(&mut |callout| other.answer(callout));
    bearer(&mut process);

    process.now += 90;
    process.request(0, 2, call(&[("authorization", &token)]));
    process.answer(&mut |callout| other.answer(callout));

    assert_eq!(status(&process.verdict()), 401);
    assert_eq!(other.exchanges, 1);
}

/// The head of the answer of a server that does not take a token.
fn refused() -> Headers {
    Headers::new(vec![(":status".to_owned(), b"401".to_vec())])
}

#[test]
fn a_token_that_the_server_refuses_is_dropped_everywhere() {
    let mut process = Process::new(&upgrade_config(), 2);
    let mut other = OtherSide::new();
    process.request(0, 1, call(&[("x-api-key", "bot-key")]));
    process.answer(&mut |callout| other.answer(callout));
    let Verdict::Forward(_, after) = process.verdict() else { panic!("refused") };

    let (_, notes) = process.responds(0, 1, &after, &refused());
    let told = notes.iter().filter(|todo| matches!(todo, Todo::Tell(..))).count();
    assert_eq!(told, 1, "the other worker is told");
    let (moment, sent) = (process.moment(), after.sent.clone().unwrap());
    process.workers[1].note(&sent.key, moment);

    for worker in [0, 1] {
        process.request(worker, 2, call(&[("x-api-key", "bot-key")]));
        process.answer(&mut |callout| other.answer(callout));
        bearer(&mut process);
    }
    assert_eq!(other.exchanges, 2, "once anew, for both workers");
}

#[test]
fn a_server_that_refuses_every_token_does_not_cause_an_exchange_a_request() {
    let mut process = Process::new(&upgrade_config(), 1);
    let mut other = OtherSide::new();

    for _ in 0..20 {
        process.now += 1;
        process.request(0, 1, call(&[("x-api-key", "bot-key")]));
        process.answer(&mut |callout| other.answer(callout));
        match process.verdict() {
            Verdict::Forward(_, after) => {
                process.responds(0, 1, &after, &refused());
            }
            verdict => panic!("{verdict:?}"),
        }
    }

    assert_eq!(other.exchanges, 2, "one, and one after the first refusal");
}

#[test]
fn with_private_key_jwt_the_assertion_goes_to_its_own_audience() {
    let mut config = upgrade_config();
    config["identity_providers"]["acme"]["client"] = json!({
        "id": "jagway",
        "private_key_jwt": { "key": { "env": "SIGNING_KEY" }, "audience": "token_endpoint" },
    });
    let mut process = Process::new(&config, 1);
    let mut other = OtherSide::new();

    process.request(0, 1, call(&[("x-api-key", "bot-key")]));
    process.answer(&mut |callout| {
        if callout.path == "/token" && callout.cluster == "idp" {
            assert!(callout.headers.iter().all(|(name, _)| *name != "authorization"));
        }
        other.answer(callout)
    });

    bearer(&mut process);
    let sent = |name: &str| &other.exchanged.iter().find(|(field, _)| field == name).unwrap().1;
    let type_ = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    assert_eq!(sent("client_assertion_type"), type_);
    let claims: Value = {
        use base64::Engine;
        let part = sent("client_assertion").split('.').nth(1).unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    assert_eq!(claims["aud"], format!("{IDP}/token"));
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("jagway"), &json!("jagway")));
    assert_eq!(claims["exp"], NOW + 60);
}

#[test]
fn metadata_of_the_server_behind_is_for_clients_who_pass_untouched_only() {
    const ROOT: &str = "/.well-known/oauth-protected-resource";
    let (ours, below) = (format!("{ROOT}/mcp"), format!("{ROOT}/mcp/x"));
    let fields = [
        ("authorization", "Bearer token"),
        ("x-api-key", "bot-key"),
        ("dpop", "proof"),
        ("x-jagway-subject", "forged"),
        ("accept", "application/json"),
    ];
    let asked = |passes: bool, method: &str, host: &str, path: &str| {
        let mut config = upgrade_config();
        config["resources"][0]["upgrade"]["pass_ema_clients"] = json!(passes);
        let mut process = Process::new(&config, 1);
        process.request(0, 1, request(method, host, path, &fields));
        process.verdict()
    };

    for (method, path) in [("GET", &*ours), ("HEAD", &*ours), ("GET", ROOT)] {
        let Verdict::Forward(edits, after) = asked(true, method, HOST, path) else {
            panic!("{method} {path}");
        };
        assert_eq!(edits.remove, ["authorization", "dpop", "x-api-key", "x-jagway-subject"]);
        assert!(edits.set.is_empty() && after.hide.is_empty() && after.sent.is_none());
        assert_eq!(status(&asked(false, method, HOST, path)), 404);
    }
    for (code, method, host, path) in [
        (405, "POST", HOST, &*ours),
        (405, "OPTIONS", HOST, &*ours),
        (404, "GET", HOST, &*below),
        (404, "GET", HOST, "/.well-known/oauth-authorization-server/mcp"),
        (404, "GET", "other.example", &*ours),
    ] {
        assert_eq!(status(&asked(true, method, host, path)), code, "{method} {host} {path}");
    }
}
