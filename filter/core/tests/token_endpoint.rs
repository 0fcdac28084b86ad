//! The token endpoint, check by check (RFC 6749 §3.2, RFC 7523, ID-JAG §4.4).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::{base64url, sha256};
use serde_json::{Value, json};
use support::assertions::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_sound_id_jag_gets_a_token_for_its_resource_and_scope() {
    let (verdict, _) = redeem(&id_jag("1"));

    assert_eq!(status(&verdict), 200);
    let answer = body(&verdict);
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 300);
    assert_eq!(answer["scope"], "stock.read stock.write");
    assert_eq!(answer["resource"], WAREHOUSE);
    assert!(answer.get("refresh_token").is_none());
    assert_eq!(header(&verdict, "cache-control"), Some("no-store"));
    assert_eq!(header(&verdict, "pragma"), Some("no-cache"));
}

#[test]
fn a_request_that_is_not_a_token_request_is_refused_before_anything_else() {
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    let at =
        |method, path, fields: &[(&str, &str)]| request(method, "mcp.acme.example", path, fields);
    let cases = [
        (at("GET", "/token", &[form_type]), 405, "invalid_request"),
        (at("PUT", "/token", &[form_type]), 405, "invalid_request"),
        (
            at("GET", "/token", &[form_type, ("x-http-method-override", "POST")]),
            405,
            "invalid_request",
        ),
        (at("POST", "/token?assertion=x", &[form_type]), 400, "invalid_request"),
        (at("POST", "/token", &[]), 400, "invalid_request"),
        (at("POST", "/token", &[("content-type", "application/json")]), 400, "invalid_request"),
        (at("POST", "/token", &[form_type, form_type]), 400, "invalid_request"),
        (at("POST", "/token", &[form_type, ("content-encoding", "gzip")]), 415, "invalid_request"),
        (at("POST", "/token", &[form_type, ("content-length", "65537")]), 413, "invalid_request"),
    ];

    for (request, code, error) in cases {
        let mut process = Process::new(&accept_config(), 1);
        let verdict = at_token_endpoint(&mut process, request, grant(&id_jag("1")));
        assert_eq!((status(&verdict), body(&verdict)["error"].as_str()), (code, Some(error)));
        if code == 405 {
            assert_eq!(header(&verdict, "allow"), Some("POST"));
        }
    }
}

#[test]
fn parameters_are_checked_in_their_order() {
    let jwt_bearer = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let id_jag = id_jag("1");
    let assertion = ("assertion", id_jag.as_str());
    let fields = |more: &[(&str, &str)]| form(&[&[jwt_bearer, assertion], more].concat());
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("nothing", vec![], 400, "invalid_request"),
        ("no grant_type", form(&[assertion]), 400, "invalid_request"),
        ("empty grant_type", form(&[("grant_type", ""), assertion]), 400, "invalid_request"),
        ("another grant", form(&[("grant_type", "password")]), 400, "unsupported_grant_type"),
        ("no assertion", form(&[jwt_bearer]), 400, "invalid_request"),
        ("assertion twice", fields(&[assertion]), 400, "invalid_request"),
        (
            "assertion too large",
            form(&[jwt_bearer, ("assertion", &"a".repeat(16 * 1024 + 1))]),
            400,
            "invalid_request",
        ),
        ("scope twice", fields(&[("scope", "a"), ("scope", "a")]), 400, "invalid_request"),
        ("a secret beside Basic", fields(&[("client_secret", "x")]), 400, "invalid_request"),
        ("an assertion beside Basic", fields(&[("client_assertion", "x")]), 400, "invalid_request"),
        ("another client_id", fields(&[("client_id", "other")]), 401, "invalid_client"),
        ("scope with two spaces", fields(&[("scope", "a  b")]), 400, "invalid_scope"),
        ("scope with a quote", fields(&[("scope", "a\"b")]), 400, "invalid_scope"),
        ("scope unknown", fields(&[("scope", "admin")]), 400, "invalid_scope"),
        ("resource unknown", fields(&[("resource", "https://o.example")]), 400, "invalid_target"),
        ("resource relative", fields(&[("resource", "warehouse")]), 400, "invalid_target"),
        (
            "details",
            fields(&[("authorization_details", "[]")]),
            400,
            "invalid_authorization_details",
        ),
        ("bad code", b"grant_type=%zz".to_vec(), 400, "invalid_request"),
        ("too large", vec![b'a'; 65537], 413, "invalid_request"),
        ("the same client_id", fields(&[("client_id", "claude")]), 200, ""),
        ("less scope", fields(&[("scope", "stock.read")]), 200, ""),
        ("more scope", fields(&[("scope", "stock.read admin")]), 200, ""),
        ("the resource", fields(&[("resource", WAREHOUSE)]), 200, ""),
        (
            "the resource twice",
            fields(&[("resource", WAREHOUSE), ("resource", WAREHOUSE)]),
            200,
            "",
        ),
    ];

    for (what, fields, code, error) in cases {
        let mut process = Process::new(&accept_config(), 1);
        let verdict = at_token_endpoint(&mut process, token_request(), fields);
        assert_eq!(status(&verdict), code, "{what}: {:?}", process.log);
        assert_eq!(body(&verdict)["error"].as_str().unwrap_or_default(), error, "{what}");
        if code == 200 {
            let scope = &body(&verdict)["scope"];
            assert_eq!(scope == "stock.read", what.ends_with("scope"), "{what}: {scope}");
        }
    }
}

#[test]
fn with_several_resources_one_must_be_chosen() {
    let mut config = accept_config();
    let mut second = config["resources"][0].clone();
    second["resource"] = json!(format!("{AS}/billing"));
    config["resources"].as_array_mut().unwrap().push(second);
    let both = changed(json!({ "resource": [WAREHOUSE, format!("{AS}/billing")] }));
    let neither = changed(json!({ "resource": null }));
    let redeem = |assertion: &str, resources: &[&str]| {
        let mut process = Process::new(&config, 1);
        let mut fields = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion),
        ];
        fields.extend(resources.iter().map(|resource| ("resource", *resource)));
        let answer = at_token_endpoint(&mut process, token_request(), form(&fields));
        let answer = body(&answer);
        answer["error"].as_str().or(answer["resource"].as_str()).unwrap().to_owned()
    };

    assert_eq!(redeem(&both, &[]), "invalid_target");
    assert_eq!(redeem(&both, &[WAREHOUSE]), WAREHOUSE);
    assert_eq!(redeem(&both, &[WAREHOUSE, &format!("{AS}/billing")]), "invalid_target");
    assert_eq!(redeem(&neither, &[]), "invalid_target");
    assert_eq!(redeem(&neither, &[WAREHOUSE]), WAREHOUSE);
    assert_eq!(redeem(&id_jag("1"), &[&format!("{AS}/billing")]), "invalid_target");
}

#[test]
fn a_grant_without_scope_delegates_the_defaults_and_never_everything() {
    let none = changed(json!({ "scope": null }));
    let scope = |defaults: Value| {
        let mut config = accept_config();
        config["resources"][0]["accept"]["default_scopes"] = defaults;
        let mut process = Process::new(&config, 1);
        body(&at_token_endpoint(&mut process, token_request(), grant(&none)))["scope"].clone()
    };

    assert_eq!(scope(json!([])), "");
    assert_eq!(scope(json!(["stock.read"])), "stock.read");
    let (verdict, _) = redeem(&changed(json!({ "scope": "unheard.of" })));
    assert_eq!(body(&verdict)["error"], "invalid_scope");
}

#[test]
fn rate_limits_refuse_before_the_grant_is_looked_at() {
    let mut config = accept_config();
    config["authorization_server"]["rate_limits"] =
        json!({ "per_source_per_minute": 3, "per_client_per_minute": 2 });
    let mut process = Process::new(&config, 1);
    let mut redeem =
        |jti: &str| status(&at_token_endpoint(&mut process, token_request(), grant(&id_jag(jti))));

    assert_eq!([redeem("1"), redeem("2"), redeem("3"), redeem("4")], [200, 200, 429, 429]);
}

#[test]
fn the_users_name_in_the_token_is_pairwise_and_the_token_is_a_jwt_of_ours() {
    let (verdict, _) = redeem(&id_jag("1"));

    let token = body(&verdict)["access_token"].as_str().unwrap().to_owned();
    let parts: Vec<Value> = token
        .split('.')
        .take(2)
        .map(|part| {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        })
        .collect();
    assert_eq!(parts[0], json!({ "typ": "at+jwt", "alg": "ES256", "kid": "own-1" }));
    assert_eq!(parts[1]["iss"], AS);
    assert_eq!(parts[1]["aud"], WAREHOUSE);
    assert_eq!(parts[1]["client_id"], "claude");
    assert_eq!(parts[1]["exp"], NOW + 300);
    assert_ne!(parts[1]["sub"], "alice");
    assert_ne!(parts[1]["jti"].as_str().unwrap(), base64url(&sha256(b"")));
}

#[test]
fn a_user_who_authenticated_too_weakly_or_too_long_ago_is_sent_back() {
    let mut config = accept_config();
    config["identity_providers"]["acme"]["required_acr"] = json!(["mfa", "phr"]);
    config["identity_providers"]["acme"]["max_auth_age"] = json!(3600);
    let redeem = |change: Value| {
        let mut process = Process::new(&config, 1);
        at_token_endpoint(&mut process, token_request(), grant(&changed(change)))
    };

    let fresh = json!({ "acr": "mfa", "auth_time": NOW - 3660 });
    assert_eq!(status(&redeem(fresh)), 200, "just inside the skew");
    let refused = [
        json!({ "acr": "mfa", "auth_time": NOW - 3661 }),
        json!({ "acr": "pwd", "auth_time": NOW }),
        json!({ "auth_time": NOW }),
        json!({ "acr": "mfa" }),
    ];
    for change in refused {
        let verdict = redeem(change.clone());
        assert_eq!(status(&verdict), 400, "{change}");
        assert_eq!(body(&verdict)["error"], "insufficient_user_authentication");
        assert_eq!(body(&verdict)["acr_values"], "mfa phr");
        assert_eq!(body(&verdict)["max_age"], 3600);
    }
    let malformed = [
        json!({ "acr": ["mfa"] }),
        json!({ "auth_time": "now" }),
        json!({ "amr": "otp" }),
        json!({ "act": "robot" }),
    ];
    for change in malformed {
        assert_eq!(body(&redeem(change.clone()))["error"], "invalid_grant", "{change}");
    }
}

#[test]
fn how_the_user_authenticated_travels_into_the_token() {
    let authentication = json!({
        "acr": "mfa", "auth_time": NOW - 60, "amr": ["pwd", "otp"], "act": { "sub": "agent-7" },
    });
    let (verdict, _) = redeem(&changed(authentication.clone()));

    let token = body(&verdict)["access_token"].as_str().unwrap().to_owned();
    let claims: Value = {
        use base64::Engine;
        let part = token.split('.').nth(1).unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    for (name, value) in authentication.as_object().unwrap() {
        assert_eq!(&claims[name], value, "{name}");
    }
    assert!(claims.get("email").is_none());
}

#[test]
fn of_two_faults_the_earlier_check_speaks() {
    let basic = ("authorization", "Basic Y2xhdWRlOnMzY3JldA==");
    let wrong = ("authorization", "Basic Y2xhdWRlOndyb25n");
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    let jwt_bearer = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let junk = ("assertion", "junk");
    let foreign = changed(json!({ "resource": "https://o.example", "scope": "unheard.of" }));
    let two_resources = changed(json!({ "scope": "unheard.of" }));
    let id_jag = id_jag("1");
    let post =
        |path: &str, fields: &[(&str, &str)]| request("POST", "mcp.acme.example", path, fields);
    let token =
        |fields: &[(&str, &str)], body: &[(&str, &str)]| (post("/token", fields), form(body));
    let details = ("authorization_details", "{}");
    let cases = [
        (
            "method before query",
            (request("GET", "mcp.acme.example", "/token?a=b", &[]), vec![]),
            "method",
        ),
        ("query before type", (post("/token?a=b", &[]), vec![]), "query_parameters"),
        ("type before form", (post("/token", &[basic]), b"%zz".to_vec()), "content_type"),
        (
            "form before grant type",
            (post("/token", &[form_type, basic]), b"grant_type=x&a=%zz".to_vec()),
            "form_syntax",
        ),
        (
            "grant type before client",
            token(&[form_type, wrong], &[("grant_type", "x"), junk]),
            "grant_type",
        ),
        (
            "several methods before the client's secret",
            token(&[form_type, wrong], &[jwt_bearer, ("client_secret", "x")]),
            "several_client_authentications",
        ),
        (
            "secret before client_id",
            token(&[form_type, wrong], &[jwt_bearer, ("client_id", "other")]),
            "client_not_authenticated",
        ),
        (
            "client_id before assertion",
            token(&[form_type, basic], &[jwt_bearer, ("client_id", "other")]),
            "client_id_mismatch",
        ),
        (
            "assertion before scope",
            token(&[form_type, basic], &[jwt_bearer, ("scope", "a  b")]),
            "parameter_missing",
        ),
        (
            "scope before resource",
            token(&[form_type, basic], &[jwt_bearer, junk, ("resource", "x"), ("scope", "a  b")]),
            "scope_syntax",
        ),
        (
            "resource before details",
            token(&[form_type, basic], &[jwt_bearer, junk, details, ("resource", "x")]),
            "target",
        ),
        (
            "parameters before the assertion's form",
            token(&[form_type, basic], &[jwt_bearer, junk, details]),
            "authorization_details",
        ),
        (
            "the claimed resource before the requested one",
            token(
                &[form_type, basic],
                &[jwt_bearer, ("assertion", &foreign), ("resource", "https://p.example")],
            ),
            "resource",
        ),
        (
            "the requested resource before scope",
            token(
                &[form_type, basic],
                &[jwt_bearer, ("assertion", &two_resources), ("resource", "https://p.example")],
            ),
            "target",
        ),
        (
            "scope before single use",
            token(
                &[form_type, basic],
                &[jwt_bearer, ("assertion", &id_jag), ("scope", "unheard.of")],
            ),
            "no_scope_left",
        ),
    ];

    for (what, (request, body), code) in cases {
        let mut process = Process::new(&accept_config(), 1);
        if what == "scope before single use" {
            let spent = at_token_endpoint(&mut process, token_request(), grant(&id_jag));
            assert_eq!(status(&spent), 200);
        }
        process.log.clear();
        at_token_endpoint(&mut process, request, body);
        let reason = format!("refused [{code}]");
        assert!(
            process.log.iter().any(|line| line.starts_with(&reason)),
            "{what}: {:?}",
            process.log
        );
    }
}
