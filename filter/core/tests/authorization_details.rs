//! Authorization details (RFC 9396): from an ID-JAG, through the token, to the server behind.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jagway_core::config::Config;
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Warehouse understands `shelf`, with some `actions` and any `locations`.
fn config() -> Value {
    let mut config = accept_config();
    config["resources"][0]["accept"]["authorization_details"] =
        json!({ "shelf": { "actions": ["count", "move"], "locations": "any" } });
    config
}

fn strict(mut config: Value) -> Value {
    config["authorization_server"]["strict_authorization_details"] = json!(true);
    config
}

fn shelf(actions: &[&str]) -> Value {
    json!({ "type": "shelf", "actions": actions, "locations": ["north"] })
}

/// Redeems an ID-JAG with `claim` for `request`; null is absent.
fn redeem(config: &Value, claim: &Value, request: &Value) -> (Verdict, Vec<String>) {
    let text = match request {
        Value::String(text) => text.clone(),
        details => details.to_string(),
    };
    let id_jag = with_details("1", claim);
    let mut fields = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", id_jag.as_str()),
    ];
    if !request.is_null() {
        fields.push(("authorization_details", &text));
    }
    let mut process = Process::new(config, 1);
    let verdict = at_token_endpoint(&mut process, token_request(), form(&fields));
    (verdict, process.log)
}

fn with_details(jti: &str, claim: &Value) -> String {
    let mut claims = id_jag_claims(jti);
    if !claim.is_null() {
        claims["authorization_details"] = claim.clone();
    }
    key(1).sign("oauth-id-jag+jwt", &claims)
}

fn claims_of(jwt: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// What was granted, which the answer and the token must agree on; null if neither has the member.
fn granted(verdict: &Verdict) -> Value {
    let body = body(verdict);
    let claims = claims_of(body["access_token"].as_str().unwrap());
    assert_eq!(body.get("authorization_details"), claims.get("authorization_details"));
    body.get("authorization_details").cloned().unwrap_or_default()
}

fn assert_refused((verdict, log): &(Verdict, Vec<String>), error: &str, reason: &str) {
    assert_eq!(status(verdict), 400, "{log:?}");
    assert_eq!(body(verdict)["error"], error, "{log:?}");
    assert_eq!(body(verdict).get("access_token"), None);
    let reason = format!("refused [{reason}]");
    assert!(log.iter().any(|line| line.starts_with(&reason)), "{reason} not in {log:?}");
}

#[test]
fn what_is_granted_is_in_the_token_and_in_the_answer() {
    let all = shelf(&["count", "move"]);
    let bare = json!({ "type": "shelf" });
    let cases = [
        ("the claim", json!([all]), json!(null), json!([all])),
        (
            "as much of it as is allowed",
            json!([shelf(&["burn", "move"])]),
            json!(null),
            json!([shelf(&["move"])]),
        ),
        (
            "what is asked for of it",
            json!([all]),
            json!([{ "type": "shelf", "actions": ["move"] }]),
            json!([shelf(&["move"])]),
        ),
        (
            "a claim that does not limit a member covers it",
            json!([bare]),
            json!([shelf(&["move"])]),
            json!([shelf(&["move"])]),
        ),
        ("a claim without a limited member, as it is", json!([bare]), json!(null), json!([bare])),
        ("an empty claim", json!([]), json!(null), json!(null)),
        ("no claim", json!(null), json!(null), json!(null)),
    ];

    for (what, claim, request, expected) in cases {
        for config in [config(), strict(config())] {
            let (verdict, log) = redeem(&config, &claim, &request);

            assert_eq!(status(&verdict), 200, "{what}: {log:?}");
            assert_eq!(granted(&verdict), expected, "{what}");
            assert!(!log.iter().any(|line| line.contains("authorization_details of")), "{what}");
        }
    }
}

#[test]
fn a_request_that_is_no_list_of_details_is_refused_before_the_grant_is_read() {
    for text in [
        "x",
        "{}",
        "null",
        "[1]",
        "[{}]",
        r#"[{"type":1}]"#,
        r#"[{"type":"shelf","type":"shelf"}]"#,
    ] {
        for config in [accept_config(), config()] {
            let mut process = Process::new(&config, 1);
            let fields = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", "junk"),
                ("authorization_details", text),
            ];

            let verdict = at_token_endpoint(&mut process, token_request(), form(&fields));

            let error = "invalid_authorization_details";
            assert_refused(&(verdict, process.log), error, "authorization_details");
        }
    }
}

#[test]
fn a_request_for_what_is_not_granted_or_not_understood_is_refused() {
    let claim = json!([shelf(&["count", "burn"]), { "type": "payment" }]);
    let cases = [
        (config(), claim.clone(), json!([])),
        (config(), claim.clone(), json!([{ "type": "payment" }])),
        (config(), claim.clone(), json!([shelf(&["move"])])),
        (config(), claim.clone(), json!([shelf(&["burn"])])),
        (config(), claim.clone(), json!([{ "type": "shelf", "colour": "red" }])),
        (config(), claim.clone(), json!([shelf(&["count"]), { "type": "payment" }])),
        (config(), json!(null), json!([shelf(&["count"])])),
        (strict(config()), json!(null), json!([shelf(&["count"])])),
        (accept_config(), claim, json!([shelf(&["count"])])),
        (accept_config(), json!(null), json!([])),
    ];

    for (config, claim, request) in cases {
        let refused = redeem(&config, &claim, &request);

        let error = "invalid_authorization_details";
        assert_refused(&refused, error, "authorization_details_request");
    }
}

#[test]
fn a_claimed_detail_that_is_not_understood_is_left_out_and_the_log_says_so() {
    let claim = json!([{ "type": "payment", "to": "nobody" }, shelf(&["count"]), shelf(&["burn"])]);
    let cases = [
        (config(), json!(null), json!([shelf(&["count"])]), "2 of 3"),
        (config(), json!([{ "type": "shelf" }]), json!([shelf(&["count"])]), "2 of 3"),
        (accept_config(), json!(null), json!(null), "3 of 3"),
    ];

    for (config, request, expected, count) in cases {
        let (verdict, log) = redeem(&config, &claim, &request);

        assert_eq!(status(&verdict), 200, "{log:?}");
        assert_eq!(granted(&verdict), expected);
        let line = format!(
            "{count} authorization_details of an ID-JAG of {IDP:?} are nothing to {WAREHOUSE:?}"
        );
        assert!(log.contains(&line), "{log:?}");
        assert!(!log.iter().any(|line| line.contains("payment") || line.contains("nobody")));
    }
}

#[test]
fn a_strict_server_refuses_a_grant_with_a_detail_it_does_not_understand() {
    let claim = json!([shelf(&["count"]), { "type": "payment" }]);

    for config in [strict(config()), strict(accept_config())] {
        let refused = redeem(&config, &claim, &json!(null));

        assert_refused(&refused, "invalid_grant", "authorization_details_claim");
    }
}

#[test]
fn a_claim_that_is_no_list_of_details_makes_the_grant_unsound() {
    let many = vec![json!({ "type": "shelf" }); 33];

    for claim in [
        json!("[]"),
        json!({}),
        json!(1),
        json!([1]),
        json!([{}]),
        json!([{ "type": ["shelf"] }]),
        json!([shelf(&["count"]), {}]),
        json!(many),
    ] {
        for config in [accept_config(), config()] {
            assert_refused(&redeem(&config, &claim, &json!(null)), "invalid_grant", "claim_type");
        }
    }
}

#[test]
fn a_refused_request_does_not_spend_the_grant() {
    let claim = json!([shelf(&["count"])]);
    let mut process = Process::new(&config(), 1);
    let id_jag = with_details("1", &claim);
    let mut send = |details: Value| {
        let details = details.to_string();
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", id_jag.as_str()),
            ("authorization_details", details.as_str()),
        ];
        status(&at_token_endpoint(&mut process, token_request(), form(&fields)))
    };

    assert_eq!(send(json!([shelf(&["move"])])), 400);
    assert_eq!(send(json!([shelf(&["count"])])), 200);
}

#[test]
fn the_metadata_names_the_types_where_there_are_any() {
    let document = |config: &Value, path: &str| {
        let mut process = Process::new(config, 1);
        process.request(0, 1, request("GET", "mcp.acme.example", path, &[]));
        body(&process.verdict())
    };
    let mut two = config();
    let mut second = two["resources"][0].clone();
    second["resource"] = json!("https://mcp.acme.example/second");
    second["accept"]["authorization_details"] = json!({ "crate": {}, "shelf": {} });
    two["resources"].as_array_mut().unwrap().push(second);
    let name = "authorization_details_types_supported";
    let server = "/.well-known/oauth-authorization-server";
    let resource = "/.well-known/oauth-protected-resource/";

    assert_eq!(document(&accept_config(), server).get(name), None);
    assert_eq!(document(&accept_config(), &format!("{resource}warehouse")).get(name), None);
    assert_eq!(document(&two, server)[name], json!(["crate", "shelf"]));
    assert_eq!(document(&two, &format!("{resource}warehouse"))[name], json!(["shelf"]));
    assert_eq!(document(&two, &format!("{resource}second"))[name], json!(["crate", "shelf"]));
}

#[test]
fn the_server_behind_learns_what_was_granted() {
    let mut config = config();
    config["resources"][0]["accept"]["identity_header"] = json!({ "name": "x-who" });

    for (claim, expected) in
        [(json!([shelf(&["count"])]), json!([shelf(&["count"])])), (json!(null), json!(null))]
    {
        let mut process = Process::new(&config, 1);
        let redeemed =
            at_token_endpoint(&mut process, token_request(), grant(&with_details("1", &claim)));
        let bearer = format!("Bearer {}", body(&redeemed)["access_token"].as_str().unwrap());
        let call = [("authorization", bearer.as_str())];
        process.request(0, 1, request("GET", "mcp.acme.example", "/warehouse", &call));
        let Verdict::Forward(edits, _) = process.verdict() else { panic!("{:?}", process.log) };

        let (_, jwt) = edits.set.iter().find(|(name, _)| name == "x-who").unwrap();
        let claims = claims_of(jwt.expose());
        assert_eq!(claims.get("authorization_details").cloned().unwrap_or_default(), expected);
    }
}

#[test]
fn a_token_of_the_backend_is_not_shared_between_what_was_granted() {
    let mut config = config();
    let backend = json!({
        "issuer": "https://backend.example",
        "cluster": "backend",
        "token_endpoint": "https://backend.example/token",
        "client": { "id": "jagway", "secret": { "env": "AS_SECRET" } },
    });
    config["resources"][0]["accept"]["credential"] = json!({ "token_exchange": backend });
    let mut process = Process::new(&config, 1);
    let mut exchanges = 0;

    for (jti, actions) in [("1", ["count"]), ("2", ["move"]), ("3", ["move"])] {
        let id_jag = with_details(jti, &json!([shelf(&actions)]));
        let redeemed = at_token_endpoint(&mut process, token_request(), grant(&id_jag));
        let bearer = format!("Bearer {}", body(&redeemed)["access_token"].as_str().unwrap());
        let call = [("authorization", bearer.as_str())];
        process.request(0, 1, request("GET", "mcp.acme.example", "/warehouse", &call));
        process.answer(&mut |callout| {
            assert_eq!(callout.cluster, "backend");
            exchanges += 1;
            let token_type = "urn:ietf:params:oauth:token-type:access_token";
            json_answer(
                200,
                &json!({
                    "access_token": "t", "token_type": "Bearer", "expires_in": 300,
                    "issued_token_type": token_type,
                }),
            )
        });
        assert_eq!(status(&process.verdict()), 0, "{:?}", process.log);
    }

    assert_eq!(exchanges, 2);
}

#[test]
fn types_that_say_nothing_or_too_much_are_refused() {
    let field = "resources[0].accept.authorization_details";
    let cases = [
        (json!([]), String::new()),
        (json!({ "": {} }), ".".to_owned()),
        (json!({ "shelf": [] }), ".shelf".to_owned()),
        (json!({ "shelf": "any" }), ".shelf".to_owned()),
        (json!({ "shelf": { "type": "any" } }), ".shelf.type".to_owned()),
        (json!({ "shelf": { "": "any" } }), ".shelf.".to_owned()),
        (json!({ "shelf": { "actions": "all" } }), ".shelf.actions".to_owned()),
        (json!({ "shelf": { "actions": [] } }), ".shelf.actions".to_owned()),
        (json!({ "shelf": { "actions": {} } }), ".shelf.actions".to_owned()),
        (json!({ "shelf": { "actions": null } }), ".shelf.actions".to_owned()),
        (json!({ "shelf": { "actions": [1] } }), ".shelf.actions[0]".to_owned()),
        (json!({ "shelf": { "actions": ["a", ""] } }), ".shelf.actions[1]".to_owned()),
        (json!({ "shelf": { "actions": ["a", "a"] } }), ".shelf.actions[1]".to_owned()),
    ];

    for (types, path) in cases {
        let mut config = accept_config();
        config["resources"][0]["accept"]["authorization_details"] = types.clone();
        let refused = Config::parse(config.to_string().as_bytes(), &env).err();

        let refused = refused.map(|error| error.path);
        assert_eq!(refused, Some(format!("{field}{path}")), "{types}");
    }
}
