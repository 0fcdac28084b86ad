//! Which authorization server an upgrade goes to, where its endpoints are, and what becomes of servers and of
//! clients that speak EMA, or do not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::client_certificate::ClientCertificate;
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::servers::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const OTHER_AS: &str = "https://other-as.example";
const PROFILE: &str = "urn:ietf:params:oauth:grant-profile:id-jag";

/// The resource says which of two servers is its own.
fn discovering() -> World {
    let server = |issuer: &str, client: &str| {
        json!({
            "issuer": issuer, "cluster": "as", "token_endpoint": format!("{issuer}/token"),
            "client": { "id": client, "secret": { "env": "AS_SECRET" } },
        })
    };
    World::new(&[
        ("upgrade/authorization_server", Value::Null),
        (
            "upgrade/authorization_servers",
            json!([server(AS, "claude"), server(OTHER_AS, "claude2")]),
        ),
        ("upgrade/discovery", json!({ "cluster": "tickets" })),
    ])
}

/// The server that the last exchange was for.
fn audience(world: &World) -> &str {
    world.servers.last("exchange").get("audience")
}

#[test]
fn the_resource_says_which_server_is_its_own() {
    for (servers, expected, client) in [
        (json!([AS]), AS, "claude"),
        (json!([OTHER_AS]), OTHER_AS, "claude2"),
        (json!(["https://x.example", OTHER_AS, AS]), OTHER_AS, "claude2"),
    ] {
        let mut world = discovering();
        world.servers.resource_metadata = json!({ "authorization_servers": servers });
        world.servers.claims = json!({ "client_id": client });
        assert_eq!(status(&world.bot()), 0, "{servers}: {:?}", world.process.log);
        assert_eq!(audience(&world), expected);
        assert_eq!(world.servers.last("redemption").get("client_id"), client);
        assert!(world.has_logged(&format!("authorization_server={expected}")));
    }
}

#[test]
fn a_resource_is_asked_without_credentials_first_and_then_at_its_well_known_url() {
    let mut world = discovering();
    let named = "https://mcp.acme.example/metadata";
    let challenge = format!("Bearer resource_metadata=\"{named}\"");
    world.servers.once("resource", 401, &[("www-authenticate", &challenge)], json!({}));

    world.bot_token();

    let asked = world.servers.calls.iter().filter(|call| call.to == "resource");
    let paths: Vec<&str> = asked
        .inspect(|call| assert_eq!(call.header("authorization"), "", "no credential"))
        .map(|call| call.path.as_str())
        .collect();
    assert_eq!(paths, ["/warehouse", "/metadata"]);
    let mut world = discovering();
    world.bot_token();
    let paths: Vec<&str> = world.servers.calls.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(paths[..2], ["/warehouse", "/.well-known/oauth-protected-resource/warehouse"]);
}

#[test]
fn a_resource_that_names_no_server_of_ours_gets_no_grant() {
    let cases = [
        json!({ "authorization_servers": ["https://x.example"] }),
        json!({ "authorization_servers": [format!("{AS}/")] }),
        json!({ "authorization_servers": [] }),
        json!({ "authorization_servers": null }),
        json!({ "authorization_servers": AS }),
        json!({ "resource": "https://x.example/warehouse" }),
        json!({ "resource": format!("{WAREHOUSE}/") }),
        json!({ "resource": null }),
    ];

    for change in cases {
        let mut world = discovering();
        world.servers.resource_metadata = change.clone();
        assert_eq!(status(&world.bot()), 502, "{change}: {:?}", world.process.log);
        assert!(world.servers.token_calls().is_empty(), "{change}");
    }
}

#[test]
fn a_resource_that_does_not_answer_is_an_outage() {
    for code in [SILENCE, 500, 503, 429] {
        let mut world = discovering();
        world.servers.always("resource", code, &[], &json!({}));
        assert_eq!(status(&world.bot()), 503, "{code}: {:?}", world.process.log);
        assert!(world.servers.token_calls().is_empty());
    }
}

#[test]
fn a_resource_that_moves_to_another_server_is_followed() {
    let mut world = discovering();
    world.bot_token();
    world.servers.resource_metadata = json!({ "authorization_servers": [OTHER_AS] });
    let other = [("x-api-key", "other-key")];

    world.later(299);
    world.call(&other);
    assert_eq!(audience(&world), AS, "what it said is fresh for 300 s");
    world.later(2);
    world.servers.claims = json!({ "client_id": "claude2" });
    // This one is still served by what was known, and asks behind it.
    world.bot();
    world.later(10);
    world.bot_token();

    assert_eq!(audience(&world), OTHER_AS);
}

#[test]
fn a_token_endpoint_that_has_moved_is_looked_up_anew_once() {
    for code in [404, 405, 410, 301, 308] {
        for leg in ["exchange", "redemption"] {
            let mut world = World::new(&[]);
            world.bot_token();
            world.later(301);
            world.servers.calls.clear();
            world.servers.once(leg, code, &[], json!({}));
            let moved = json!({ "token_endpoint": format!("{}/new", if leg == "exchange" { IDP } else { AS }) });
            match leg {
                "exchange" => world.servers.idp_metadata = moved,
                _ => world.servers.as_metadata = moved,
            }

            assert_eq!(status(&world.bot()), 0, "{leg} {code}: {:?}", world.process.log);

            let calls = world.servers.calls.iter().filter(|call| call.to == leg);
            let paths: Vec<&str> = calls.map(|call| call.path.as_str()).collect();
            assert_eq!(paths, ["/token", "/new"], "{leg} {code}");
        }
    }
}

#[test]
fn a_token_endpoint_that_is_gone_for_good_is_not_asked_twice() {
    for (changes, lookups) in
        [(vec![], 2), (vec![("idp/token_endpoint", json!(format!("{IDP}/token")))], 0)]
    {
        let mut world = World::new(&changes);
        world.servers.always("exchange", 404, &[], &json!({}));

        assert_eq!(status(&world.bot()), 502, "{:?}", world.process.log);

        assert_eq!(world.servers.count("exchange"), 1, "{changes:?}");
        // What was fetched this very second is as new as can be.
        assert!(world.servers.count("idp metadata") <= lookups);
    }
}

#[test]
fn metadata_of_either_server_is_that_of_its_issuer() {
    for change in [
        json!({ "issuer": "https://x.example" }),
        json!({ "issuer": null }),
        json!({ "token_endpoint": "https://x.example/token" }),
        json!({ "token_endpoint": "http://acme.idp.example/token" }),
        json!({ "token_endpoint": null }),
    ] {
        let mut world = World::new(&[]);
        world.servers.idp_metadata = change.clone();
        assert_eq!(status(&world.bot()), 502, "{change}");
        assert!(world.servers.token_calls().is_empty(), "{change}");
        let mut world = World::new(&[]);
        world.servers.as_metadata = change.clone();
        assert_eq!(status(&world.bot()), 502, "{change}");
        assert!(world.servers.token_calls().is_empty(), "{change}");
    }
}

#[test]
fn a_server_that_says_it_has_no_grant_for_id_jags_gets_none() {
    let grant = |name: &str| format!("urn:ietf:params:oauth:grant-type:{name}");
    for (metadata, expected) in [
        (json!({}), 0),
        (json!({ "grant_types_supported": ["authorization_code"] }), 502),
        (json!({ "grant_types_supported": [] }), 502),
        (json!({ "grant_types_supported": [grant("jwt-bearer")] }), 0),
        (json!({ "grant_types_supported": [grant("token-exchange")] }), 502),
        (
            json!({
                "grant_types_supported": ["authorization_code"],
                "authorization_grant_profiles_supported": [PROFILE],
            }),
            0,
        ),
    ] {
        let mut world = World::new(&[]);
        world.servers.as_metadata = metadata.clone();
        assert_eq!(status(&world.bot()), expected, "{metadata}: {:?}", world.process.log);
        let spent = world.servers.token_calls().len();
        assert_eq!(spent, if expected == 0 { 2 } else { 0 }, "{metadata}: nothing in vain");
        assert_eq!(world.has_logged("has no grant for ID-JAGs"), expected == 502, "{metadata}");
    }
}

#[test]
fn a_server_that_does_not_speak_ema_is_reached_with_a_token_of_our_own() {
    let speaks = json!({ "authorization_grant_profiles_supported": [PROFILE] });
    for (mode, metadata, calls) in [
        ("required", json!({}), &["exchange", "redemption"][..]),
        ("required", speaks.clone(), &["exchange", "redemption"]),
        ("preferred", json!({}), &["own"]),
        ("preferred", speaks.clone(), &["exchange", "redemption"]),
        ("never", json!({}), &["own"]),
        ("never", speaks, &["own"]),
    ] {
        let mut world = World::new(&[("upgrade/ema", json!(mode))]);
        world.servers.as_metadata = metadata.clone();
        let token = world.bot_token();
        assert!(token.starts_with("Bearer AS-token-"));
        assert_eq!(world.servers.token_calls(), calls, "{mode} {metadata}");
        let kind = if calls == ["own"] { "client_credentials" } else { "exchanged" };
        assert_eq!(world.process.counts[&format!("done.{kind}")], 1);
        assert!(world.has_logged(&format!("{kind} caller=\"callers[1]\"")));
        if kind == "client_credentials" {
            let own = world.servers.last("own");
            assert_eq!(own.names(), ["client_id", "grant_type", "resource", "scope"]);
            assert_eq!((own.get("resource"), own.get("scope")), (WAREHOUSE, "stock.read"));
        }
    }
}

#[test]
fn a_token_of_our_own_is_got_with_the_same_care() {
    let never = [("upgrade/ema", json!("never"))];
    for (answer, expected) in [
        (json!({ "token_type": "mac" }), 502),
        (json!({ "resource": AS }), 502),
        (json!({ "scope": "stock.read admin" }), 502),
        (json!({ "expires_in": -1 }), 502),
        (json!({ "scope": "" }), 0),
    ] {
        let mut world = World::new(&never);
        world.servers.own = answer.clone();
        assert_eq!(status(&world.bot()), expected, "{answer}");
    }
    // It is not the caller who is refused.
    for (error, expected) in [
        ("invalid_grant", 502),
        ("invalid_request", 502),
        ("insufficient_user_authentication", 502),
        ("invalid_client", 502),
        ("invalid_scope", 403),
    ] {
        let mut world = World::new(&never);
        world.servers.once("own", 400, &[], json!({ "error": error }));
        assert_eq!(status(&world.bot()), expected, "{error}");
        assert_eq!(world.servers.count("own"), 1, "{error}");
    }
    // A token of its own is bound as any other.
    let bearer = json!({ "token_type": "Bearer" });
    let bound = json!({ "token_type": "DPoP" });
    for (mode, answer, expected) in [
        ("off", Value::Null, 0),
        ("off", bound, 502),
        ("preferred", Value::Null, 0),
        ("preferred", bearer.clone(), 0),
        ("required", Value::Null, 0),
        ("required", bearer, 502),
    ] {
        let mut world = World::new(&[never[0].clone(), ("upgrade/dpop", json!(mode))]);
        world.servers.own = answer.clone();
        assert_eq!(status(&world.bot()), expected, "{mode} {answer}");
        assert_eq!(world.servers.last("own").key.is_some(), mode != "off", "{mode}");
    }
    let mut world = World::new(&never);
    assert_eq!(status(&world.call(&[("x-api-key", "guess")])), 401);
    assert!(world.servers.calls.is_empty(), "a caller must be known all the same");
}

/// A token that says it is of `issuer`.
fn token_of(issuer: &str) -> String {
    key(2).sign("at+jwt", &json!({ "iss": issuer, "sub": "x" }))
}

#[test]
fn clients_that_speak_ema_pass_where_that_is_allowed() {
    let own = format!("Bearer {}", token_of(AS));
    let bound = format!("DPoP {}", token_of(AS));
    let provider = format!("Bearer {}", id_token(&json!({})));
    let other = format!("Bearer {}", token_of("https://x.example"));
    // Fields of the request, and its fate: 1 passes, 0 is upgraded.
    #[allow(clippy::type_complexity, reason = "a table")]
    let cases: Vec<(&str, Vec<(&str, &str)>, u16)> = vec![
        ("no credential", vec![], 1),
        ("a token of the server", vec![("authorization", &own)], 1),
        ("a bound token of the server", vec![("authorization", &bound), ("dpop", "p")], 1),
        ("a token of another server", vec![("authorization", &other)], 401),
        ("an ID Token", vec![("authorization", &provider)], 0),
        ("an opaque token", vec![("authorization", "Bearer opaque")], 401),
        ("a token of the server as a password", vec![("authorization", "Basic eDp5")], 401),
        ("an API key", vec![("x-api-key", "bot-key")], 0),
        ("an unknown API key", vec![("x-api-key", "guess")], 401),
        ("two credentials", vec![("authorization", &own), ("x-api-key", "bot-key")], 400),
        ("the same twice", vec![("authorization", &own), ("authorization", &own)], 400),
    ];

    for (what, fields, fate) in &cases {
        let mut world = World::new(&[("upgrade/pass_ema_clients", json!(true))]);
        let fields: Vec<(&str, &str)> = [&fields[..], &[("cookie", "theirs")]].concat();
        let verdict = world.call(&fields);
        assert_eq!(status(&verdict), if *fate < 2 { 0 } else { *fate }, "{what}");
        assert_eq!(world.servers.count("exchange"), usize::from(*fate == 0), "{what}");
        let Verdict::Forward(edits, after) = verdict else {
            continue;
        };
        assert_eq!(edits.set.is_empty(), *fate == 1, "{what}");
        assert_eq!(after.sent.is_none(), *fate == 1, "{what}: its answer is the client's");
        assert_eq!(after.hide.is_empty(), *fate == 1, "{what}: the challenge is for it");
        for name in ["authorization", "dpop", "cookie"] {
            let has = fields.iter().any(|(field, _)| *field == name);
            let is_removed = edits.remove.iter().any(|removed| removed == name);
            assert_eq!(is_removed, has && *fate == 0, "{what}: {name}");
        }
    }
}

#[test]
fn where_it_is_not_allowed_a_token_of_the_server_is_no_credential() {
    let own = format!("Bearer {}", token_of(AS));

    for fields in [vec![], vec![("authorization", own.as_str())]] {
        let mut world = World::new(&[]);
        assert_eq!(status(&world.call(&fields)), 401);
        assert!(world.servers.token_calls().is_empty());
    }
}

#[test]
fn what_only_our_callers_present_does_not_pass_with_a_client_that_speaks_ema() {
    let mut world = World::new(&[("upgrade/pass_ema_clients", json!(true))]);
    let own = format!("Bearer {}", token_of(AS));
    let fields = [
        ("authorization", own.as_str()),
        ("x_api_key", "bot-key"),
        ("proxy-authorization", "p"),
        ("x-jagway-user", "root"),
    ];

    let Verdict::Forward(edits, _) = world.call(&fields) else { panic!("{:?}", world.process.log) };

    assert_eq!(edits.remove, ["proxy-authorization", "x-jagway-user", "x_api_key"]);
}

#[test]
fn the_certificate_of_a_caller_is_a_credential_beside_which_nothing_passes() {
    let callers = json!([{
        "certificate": { "san_dns": "agent.acme.example" },
        "subject": { "refresh_token": { "env": "BOT_REFRESH" } },
    }]);
    let own = format!("Bearer {}", token_of(AS));
    for (dns, fields, expected, passes) in [
        ("agent.acme.example", vec![], 0, false),
        ("agent.acme.example", vec![("authorization", own.as_str())], 400, false),
        ("other.acme.example", vec![("authorization", own.as_str())], 0, true),
        ("other.acme.example", vec![], 0, true),
    ] {
        let mut world = World::new(&[
            ("upgrade/pass_ema_clients", json!(true)),
            ("upgrade/mutual_tls", json!({ "chain": "verified" })),
            ("upgrade/callers", callers.clone()),
        ]);
        let mut request = request("POST", HOST, "/mcp", &fields);
        request.certificate = ClientCertificate::from_attributes(&"0f".repeat(32), "", "", dns);
        world.process.request(0, 1, request);
        world.settle();
        let verdict = world.process.verdict();
        assert_eq!(status(&verdict), expected, "{dns} {fields:?}");
        if let Verdict::Forward(_, after) = verdict {
            assert_eq!(after.sent.is_none(), passes, "{dns} {fields:?}");
        }
    }
}
