//! What the two token endpoints are asked, to the parameter, for each setting (RFC 8693 §2.1, ID-JAG §4.3, §4.4).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::type_complexity)]

mod support;

use jagway_core::http::Headers;
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::servers::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const EXCHANGE: [(&str, &str); 8] = [
    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
    ("requested_token_type", "urn:ietf:params:oauth:token-type:id-jag"),
    ("audience", AS),
    ("subject_token", "bot-refresh-token"),
    ("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token"),
    ("resource", WAREHOUSE),
    ("scope", "stock.read"),
    ("client_id", "jagway"),
];

fn form(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut form: Vec<(String, String)> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    form.sort_unstable();
    form
}

/// The form of a request, sorted, with what differs each time left out.
fn sent(call: &Call) -> Vec<(String, String)> {
    let mut form = call.form.clone();
    form.retain(|(name, _)| !["assertion", "client_assertion"].contains(&name.as_str()));
    form.sort_unstable();
    form
}

fn basic(id: &str, secret: &str) -> String {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
    format!("Basic {pair}")
}

/// The form of a redemption, but for the assertion.
const REDEMPTION: [(&str, &str); 3] = [
    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
    ("resource", WAREHOUSE),
    ("client_id", "claude"),
];

#[test]
fn a_resource_as_that_refuses_to_be_told_the_resource_is_not_told() {
    let mut world = World::new(&[("as/send_resource", json!(false))]);

    world.bot_token();

    assert_eq!(world.servers.last("redemption").get("resource"), "");
}

#[test]
fn scope_of_the_second_leg_in_words_of_its_own_is_what_the_answer_is_held_against() {
    let mut world = World::new(&[("upgrade/redemption_scopes", json!(["own:read"]))]);
    world.servers.redemption = json!({ "scope": "own:read" });
    assert_eq!(status(&world.bot()), 0, "{:?}", world.process.log);

    let mut world = World::new(&[("upgrade/redemption_scopes", json!(["own:read"]))]);
    world.servers.redemption = json!({ "scope": "own:read own:write" });
    assert_eq!(status(&world.bot()), 502);
}

#[test]
fn as_it_comes_each_leg_has_what_its_standard_says_and_nothing_else() {
    let mut world = World::new(&[]);

    world.bot_token();

    let exchange = world.servers.last("exchange");
    assert_eq!(sent(exchange), form(&EXCHANGE));
    assert_eq!(exchange.path, "/token");
    assert_eq!(exchange.header("authorization"), basic("jagway", "idp-secret"));
    assert_eq!(exchange.header("dpop"), "");
    let redemption = world.servers.last("redemption");
    assert_eq!(sent(redemption), form(&REDEMPTION));
    assert_eq!(part(redemption.get("assertion"), 0)["typ"], "oauth-id-jag+jwt");
    assert_eq!(redemption.header("authorization"), basic("claude", "as-secret"));
    assert_eq!(redemption.header("dpop"), "");
}

#[test]
fn each_setting_changes_the_parameter_that_it_is_for() {
    let details = json!([{ "type": "payment", "limit": 5 }]);
    let text = details.to_string();
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    let more = |more: &[(&str, &str)]| form(&[&EXCHANGE, more].concat());
    let but = |name: &str, value: &str| {
        let mut fields = EXCHANGE.to_vec();
        fields.retain(|(other, _)| *other != name);
        fields.extend([(name, value)].into_iter().filter(|_| !value.is_empty()));
        form(&fields)
    };
    #[allow(clippy::type_complexity, reason = "a table")]
    let cases: Vec<(&str, Value, Vec<(String, String)>)> = vec![
        ("upgrade/scopes", json!([]), but("scope", "")),
        ("upgrade/scopes", json!(["a", "b"]), but("scope", "a b")),
        ("upgrade/authorization_details", details, more(&[("authorization_details", &text)])),
        ("as/audience", json!("urn:the:as"), but("audience", "urn:the:as")),
        ("idp/token_exchange", json!({ "send_resource": false }), but("resource", "")),
        (
            "idp/token_exchange",
            json!({ "parameters": { "connection": "a b&c" } }),
            more(&[("connection", "a b&c")]),
        ),
        (
            "upgrade/actor",
            json!({ "token": { "env": "ACTOR" } }),
            more(&[("actor_token", "actor-token"), ("actor_token_type", jwt)]),
        ),
        (
            "upgrade/actor",
            json!({ "token": { "env": "ACTOR" }, "type": "id_token" }),
            more(&[("actor_token", "actor-token"), ("actor_token_type", id_token)]),
        ),
        // These are for the other leg.
        ("upgrade/redemption_scopes", json!(["c"]), form(&EXCHANGE)),
        ("upgrade/step_up_scopes", json!(["c"]), form(&EXCHANGE)),
        ("upgrade/max_token_age", json!(60), form(&EXCHANGE)),
    ];

    for (pointer, value, expected) in cases {
        let mut world = World::new(&[(pointer, value.clone())]);
        // An ID-JAG is for the server by its issuer, whatever that is called.
        world.servers.claims = json!({ "aud": AS });
        let verdict = world.bot();
        assert_eq!(status(&verdict), 0, "{pointer} {value}: {:?}", world.process.log);
        assert_eq!(sent(world.servers.last("exchange")), expected, "{pointer} {value}");
        let redemption = world.servers.last("redemption");
        let scope = if pointer == "upgrade/redemption_scopes" { "c" } else { "" };
        assert_eq!(redemption.get("scope"), scope, "{pointer}");
        assert_eq!(redemption.form.len(), if scope.is_empty() { 4 } else { 5 }, "{pointer}");
    }
}

#[test]
fn each_way_to_prove_who_we_are_is_used_alone_on_every_request() {
    let key = |audience: &str| {
        json!({ "id": "we", "private_key_jwt": {
            "key": { "env": "SIGNING_KEY" }, "kid": "k-1", "audience": audience,
        } })
    };
    let secret = json!({ "env": "WITH_COLON" });
    let post =
        json!({ "id": "we", "secret": secret, "token_endpoint_auth_method": "client_secret_post" });
    let clients = [
        json!({ "id": "we", "secret": secret }),
        json!({ "id": "we", "secret": secret, "token_endpoint_auth_method": "client_secret_basic" }),
        post,
        json!({ "id": "we", "tls_client_auth": {} }),
        key("issuer"),
        key("token_endpoint"),
    ];
    let own = json!([key_caller("bot-key", json!({ "client_credentials": {} }))]);
    let refresh = json!({ "refresh_token_as": "id_token" });
    let rest = [
        ("upgrade/max_token_age", json!(300)),
        ("upgrade/callers", own),
        ("idp/token_exchange", refresh),
        ("upgrade/ema", json!("never")),
    ];

    for client in &clients {
        for other in &rest {
            let mut world = World::new(&[
                ("idp/client", client.clone()),
                ("as/client", client.clone()),
                ("/sealing_secret", json!({ "env": "AS_SECRET" })),
                other.clone(),
            ]);
            world.servers.claims = json!({ "client_id": "we" });
            assert_eq!(status(&world.bot()), 0, "{client} {other:?}: {:?}", world.process.log);
            let calls = world.servers.calls.iter().filter(|call| !call.form.is_empty());
            for call in calls {
                proves(call, client);
            }
            if other.1 == "never" {
                assert_eq!(world.servers.token_calls(), ["own"]);
            }
        }
    }
}

fn proves(call: &Call, client: &Value) {
    let what = format!("{client}: {}", call.to);
    assert_eq!(call.get("client_id"), "we", "{what}");
    let (header, secret) = (call.header("authorization"), call.get("client_secret"));
    let assertion = call.get("client_assertion");
    let jwt = &client["private_key_jwt"];
    let in_body = client["token_endpoint_auth_method"] == "client_secret_post";
    let in_header = !client["secret"].is_null() && !in_body;
    // RFC 6749 §2.3.1: encoded as in a form, and then for Basic.
    assert_eq!(header, if in_header { basic("we", "a%3Ab+c%25") } else { String::new() }, "{what}");
    assert_eq!(secret, if in_body { "a:b c%" } else { "" }, "{what}");
    assert_eq!(assertion.is_empty(), jwt.is_null(), "{what}");
    assert_eq!(call.get("client_assertion_type").is_empty(), jwt.is_null(), "{what}");
    if jwt.is_null() {
        return;
    }
    let issuer = if call.to == "redemption" || call.to == "own" { AS } else { IDP };
    let audience =
        if jwt["audience"] == "issuer" { issuer.to_owned() } else { format!("{issuer}/token") };
    let (header, claims) = (part(assertion, 0), part(assertion, 1));
    assert_eq!(
        (&header["typ"], &header["kid"]),
        (&json!("client-authentication+jwt"), &json!("k-1"))
    );
    assert_eq!(claims["aud"], audience, "{what}");
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("we"), &json!("we")), "{what}");
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + 60)), "{what}");
}

#[test]
fn an_assertion_counts_once_so_each_request_has_another_and_the_actor_too() {
    let client = json!({ "id": "jagway", "private_key_jwt": { "key": { "env": "SIGNING_KEY" } } });
    let actor = ("upgrade/actor", json!({ "client_assertion": true }));
    let mut world = World::new(&[("idp/client", client), actor]);
    world.servers.once("redemption", 400, &[], json!({ "error": "invalid_grant" }));

    world.bot_token();

    let exchanges = world.servers.calls.iter().filter(|call| call.to == "exchange");
    let mut names = Vec::new();
    for call in exchanges {
        assert_eq!(call.get("actor_token_type"), "urn:ietf:params:oauth:token-type:jwt");
        for field in ["client_assertion", "actor_token"] {
            let claims = part(call.get(field), 1);
            assert_eq!((&claims["sub"], &claims["aud"]), (&json!("jagway"), &json!(IDP)));
            names.push(claims["jti"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(names.len(), 4);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4, "{names:?}");
}

fn bound() -> Vec<(&'static str, Value)> {
    vec![("upgrade/dpop", json!("required"))]
}

/// Thumbprint of the key with which a request to `path` goes upstream as `uri`; its proof is sound.
fn upstream(world: &World, verdict: &Verdict, method: &str, uri: &str) -> String {
    let Verdict::Forward(edits, _) = verdict else { panic!("{:?}", world.process.log) };
    let of = |name: &str| edits.set.iter().find(|(field, _)| field == name).unwrap().1.expose();
    let token = of("authorization").strip_prefix("DPoP ").unwrap();
    thumbprint(of("dpop"), method, uri, Some(token), world.process.now)
}

#[test]
fn one_key_is_proven_on_both_legs_and_upstream() {
    let mut world = World::new(&bound());

    let verdict = world.bot();

    let key = upstream(&world, &verdict, "POST", WAREHOUSE);
    for leg in ["exchange", "redemption"] {
        assert_eq!(world.servers.last(leg).key.as_deref(), Some(&*key), "{leg}");
    }
    assert_eq!(part(world.servers.last("redemption").get("assertion"), 1)["cnf"]["jkt"], key);
}

#[test]
fn a_host_signs_assertions_and_proofs() {
    let asked = with_host();
    let client = json!({ "id": "jagway", "private_key_jwt": { "key": { "env": "SIGNING_KEY" } } });
    let mut world = World::new(&[&bound()[..], &[("idp/client", client)]].concat());

    let verdict = world.bot();

    upstream(&world, &verdict, "POST", WAREHOUSE);
    assert!(!world.servers.last("exchange").get("client_assertion").is_empty());
    // One assertion, a proof for each leg, and one for the request.
    assert_eq!(asked.sign.get(), 4);
}

#[test]
fn a_key_is_one_callers_at_one_resource() {
    let key = |changes: &[(&'static str, Value)], caller: &str| {
        let mut world = World::new(&[&bound(), changes].concat());
        let verdict = world.call(&[("x-api-key", caller)]);
        let uri = world.servers.last("exchange").get("resource").to_owned();
        upstream(&world, &verdict, "POST", &uri)
    };
    let other = [("/resources/0/resource", json!("https://mcp.acme.example/other"))];

    assert_eq!(key(&[], "bot-key"), key(&[], "bot-key"));
    assert_ne!(key(&[], "bot-key"), key(&[], "other-key"));
    assert_ne!(key(&[], "bot-key"), key(&other, "bot-key"));
}

#[test]
fn a_proof_upstream_is_for_the_resource_and_what_is_below_it() {
    let below = format!("{WAREHOUSE}/a/b");
    for (method, path, uri) in [
        ("GET", "/mcp", WAREHOUSE),
        ("DELETE", "/mcp?x=y", WAREHOUSE),
        ("POST", "/mcp/a/b?x=y", below.as_str()),
    ] {
        let mut world = World::new(&bound());
        world.process.request(0, 1, request(method, HOST, path, &[("x-api-key", "bot-key")]));
        world.settle();
        let verdict = world.process.verdict();
        upstream(&world, &verdict, method, uri);
    }
}

#[test]
fn a_proof_for_the_url_itself_is_for_the_resource_though_the_url_is_a_root() {
    for (url, path, uri) in [
        (format!("https://{HOST}"), "/", WAREHOUSE.to_owned()),
        (format!("https://{HOST}/"), "/?x=y", WAREHOUSE.to_owned()),
        (format!("https://{HOST}"), "/a", format!("{WAREHOUSE}/a")),
        (format!("https://{HOST}/mcp/"), "/mcp/", WAREHOUSE.to_owned()),
        (format!("https://{HOST}/mcp"), "/mcp/", format!("{WAREHOUSE}/")),
    ] {
        let mut world = World::new(&[&bound()[..], &[("upgrade/url", json!(url))]].concat());
        world.process.request(0, 1, request("POST", HOST, path, &[("x-api-key", "bot-key")]));
        world.settle();
        let verdict = world.process.verdict();
        upstream(&world, &verdict, "POST", &uri);
    }
}

#[test]
fn the_proof_of_a_caller_is_never_passed_on() {
    let mut world = World::new(&[]);

    let verdict = world.call(&[("x-api-key", "bot-key"), ("dpop", "theirs")]);

    let Verdict::Forward(edits, _) = verdict else { panic!("{:?}", world.process.log) };
    assert!(edits.remove.contains(&"dpop".to_owned()));
    assert!(edits.set.iter().all(|(name, _)| name != "dpop"));
}

#[test]
fn a_proof_that_is_refused_is_made_once_more_and_with_the_nonce_if_there_is_one() {
    for leg in ["exchange", "redemption"] {
        for (error, fields, nonce) in [
            ("use_dpop_nonce", &[("dpop-nonce", "n-1")][..], Some("n-1")),
            ("invalid_dpop_proof", &[("dpop-nonce", "n-1")], Some("n-1")),
            ("invalid_dpop_proof", &[], None),
        ] {
            for code in [400, 401] {
                let what = format!("{leg} {error} {code}");
                let mut world = World::new(&bound());
                world.servers.once(leg, code, fields, json!({ "error": error }));
                assert_eq!(status(&world.bot()), 0, "{what}: {:?}", world.process.log);
                let calls: Vec<&Call> =
                    world.servers.calls.iter().filter(|call| call.to == leg).collect();
                assert_eq!(calls.len(), 2, "{what}");
                let proofs: Vec<Value> =
                    calls.iter().map(|call| part(call.header("dpop"), 1)).collect();
                assert_ne!(proofs[0]["jti"], proofs[1]["jti"], "{what}");
                assert_eq!(proofs[1]["nonce"].as_str(), nonce, "{what}");
                assert_eq!(calls[0].get("assertion"), calls[1].get("assertion"), "{what}");
            }
        }
    }
}

#[test]
fn a_proof_is_made_once_more_and_no_more_than_that() {
    for leg in ["exchange", "redemption"] {
        for (dpop, tries) in [("required", 2), ("preferred", 2), ("off", 1)] {
            let mut world = World::new(&[("upgrade/dpop", json!(dpop))]);
            let fields = [("dpop-nonce", "n")];
            world.servers.always(leg, 400, &fields, &json!({ "error": "use_dpop_nonce" }));
            assert_eq!(status(&world.bot()), 502, "{leg} {dpop}");
            assert_eq!(world.servers.count(leg), tries, "{leg} {dpop}");
        }
    }
}

#[test]
fn a_nonce_goes_to_the_server_that_gave_it_and_to_no_other() {
    let mut world = World::new(&bound());
    let fields = [("dpop-nonce", "of-the-provider")];
    world.servers.once("exchange", 400, &fields, json!({ "error": "use_dpop_nonce" }));
    let verdict = world.bot();

    let nonce = |call: &Call| part(call.header("dpop"), 1)["nonce"].clone();
    assert_eq!(nonce(world.servers.last("exchange")), "of-the-provider");
    assert_eq!(nonce(world.servers.last("redemption")), Value::Null);
    let Verdict::Forward(edits, _) = verdict else { panic!() };
    assert_eq!(part(edits.set[1].1.expose(), 1)["nonce"], Value::Null);
    // The next proof has it at once.
    world.later(301);
    world.bot();
    assert_eq!(nonce(world.servers.last("exchange")), "of-the-provider");
    assert_eq!(world.servers.count("exchange"), 3);
}

#[test]
fn a_nonce_of_the_resource_is_in_the_next_proof_for_it() {
    let mut world = World::new(&bound());
    let Verdict::Forward(_, after) = world.bot() else { panic!("{:?}", world.process.log) };
    let fields = [(":status", "200"), ("dpop-nonce", "of-the-resource")];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));

    world.process.responds(0, 1, &after, &Headers::new(fields.to_vec()));
    let verdict = world.bot();

    let Verdict::Forward(edits, _) = verdict else { panic!() };
    assert_eq!(part(edits.set[1].1.expose(), 1)["nonce"], "of-the-resource");
}

#[test]
fn the_grant_for_bound_jwts_is_used_where_it_is_listed_and_there_is_a_key() {
    let grant = |name: &str| format!("urn:ietf:params:oauth:grant-type:{name}");
    let both = json!([grant("jwt-bearer"), grant("jwt-dpop")]);
    let (bearer, dpop) = (json!([grant("jwt-bearer")]), json!([grant("jwt-dpop")]));
    let profile = json!(["urn:ietf:params:oauth:grant-profile:id-jag"]);
    let cases = [
        ("off", json!({ "grant_types_supported": both }), "jwt-bearer"),
        ("required", json!({ "grant_types_supported": both }), "jwt-dpop"),
        ("preferred", json!({ "grant_types_supported": both }), "jwt-dpop"),
        ("required", json!({ "grant_types_supported": bearer }), "jwt-bearer"),
        ("required", json!({}), "jwt-bearer"),
        (
            "required",
            json!({
                "grant_types_supported": dpop, "authorization_grant_profiles_supported": profile,
            }),
            "jwt-dpop",
        ),
    ];

    for (mode, metadata, expected) in cases {
        let mut world = World::new(&[("upgrade/dpop", json!(mode))]);
        world.servers.as_metadata = metadata.clone();
        assert_eq!(status(&world.bot()), 0, "{mode} {metadata}: {:?}", world.process.log);
        let sent = world.servers.last("redemption").get("grant_type");
        assert_eq!(sent, grant(expected), "{mode} {metadata}");
    }
}
