//! The token endpoint, check by check (RFC 6749 §3.2, RFC 7523, ID-JAG §4.4).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::{base64url, sha256};
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn redeem(assertion: &str) -> (Verdict, Vec<String>) {
    let mut process = Process::new(&accept_config(), 1);
    let verdict = at_token_endpoint(&mut process, token_request(), grant(assertion));
    (verdict, process.log)
}

/// An ID-JAG whose claims are changed: `null` removes one.
fn changed(change: Value) -> String {
    let mut claims = id_jag_claims("1");
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    key(1).sign("oauth-id-jag+jwt", &claims)
}

/// The header and claims given, signed with key 1, whatever they say.
fn raw(header: &str, claims: &str) -> String {
    use p256::ecdsa::signature::Signer;
    let input = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let key = p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
    let signature: p256::ecdsa::Signature = key.sign(input.as_bytes());
    format!("{input}.{}", base64url(&signature.to_bytes()))
}

fn with_header(header: &str) -> String {
    raw(header, &id_jag_claims("1").to_string())
}

fn assert_refused(verdict: &Verdict, log: &[String], code: &str, what: &str) {
    assert_eq!(status(verdict), 400, "{what}: {log:?}");
    assert_eq!(body(verdict)["error"], "invalid_grant", "{what}");
    assert_eq!(header(verdict, "cache-control"), Some("no-store"), "{what}");
    let reason = format!("refused [{code}]");
    assert!(log.iter().any(|line| line.starts_with(&reason)), "{what}: {code} not in {log:?}");
}

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
fn spellings_that_mean_the_same_are_accepted() {
    let header = |typ: &str| format!(r#"{{"typ":"{typ}","alg":"ES256","kid":"key-1"}}"#);
    let accepted = [
        ("typ in another case", with_header(&header("OAuth-ID-JAG+JWT"))),
        ("typ with its prefix", with_header(&header("application/oauth-id-jag+jwt"))),
        ("no kid", with_header(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256"}"#)),
        (
            "a case variant of alg beside it",
            with_header(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256","Alg":"none","kid":"key-1"}"#),
        ),
        ("aud as an array of one", changed(json!({ "aud": [AS] }))),
        ("resource as an array of one", changed(json!({ "resource": [WAREHOUSE] }))),
        ("one configured resource and none named", changed(json!({ "resource": null }))),
        ("exp just inside the skew", changed(json!({ "iat": NOW - 300, "exp": NOW - 59 }))),
        ("nbf just inside the skew", changed(json!({ "nbf": NOW + 60 }))),
        ("lifetime at the cap", changed(json!({ "exp": NOW + 600 }))),
        ("unknown claims", changed(json!({ "email": "a@b.example", "x": { "y": [1] } }))),
    ];

    for (what, assertion) in accepted {
        let (verdict, log) = redeem(&assertion);
        assert_eq!(status(&verdict), 200, "{what}: {log:?}");
    }
}

#[test]
fn an_id_jag_of_unsound_form_is_an_invalid_grant() {
    let good = id_jag("1");
    let [head, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let unused_bits = {
        // A 64-byte signature leaves four unused bits in its last letter.
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = letters.find(signature.chars().last().unwrap()).unwrap();
        let twin = letters.chars().nth(last ^ 1).unwrap();
        format!("{head}.{payload}.{}{twin}", &signature[..signature.len() - 1])
    };
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(20), "]".repeat(20));
    let cases = [
        ("two parts", format!("{head}.{payload}"), "jwt_format"),
        ("no signature", format!("{head}.{payload}."), "jwt_format"),
        ("four parts", format!("{good}.x"), "jwt_format"),
        ("five parts", format!("{head}.a.b.c.d"), "jwe_not_supported"),
        ("JSON form", r#"{"payload":"x"}"#.to_owned(), "jwt_charset"),
        ("leading space", format!(" {good}"), "jwt_charset"),
        ("trailing newline", format!("{good}\n"), "jwt_charset"),
        ("padding", format!("{good}=="), "jwt_charset"),
        ("Bearer before it", format!("Bearer {good}"), "jwt_charset"),
        ("impossible length", format!("{head}.{payload}.{signature}AAA"), "b64_noncanonical"),
        ("unused bits set", unused_bits, "b64_noncanonical"),
        ("signature of 63 bytes", format!("{head}.{payload}.{}", &signature[..84]), "signature"),
        ("header with a twin", raw(r#"{"typ":"a","typ":"b"}"#, "{}"), "header_json"),
        ("header an array", raw("[]", "{}"), "header_json"),
        (
            "header too large",
            with_header(&format!("{{\"x\":\"{}\"}}", "a".repeat(2048))),
            "header_too_large",
        ),
        (
            "payload no JSON",
            raw(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256"}"#, "x"),
            "payload_json",
        ),
        (
            "payload too deep",
            raw(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256"}"#, &deep),
            "payload_json",
        ),
        (
            "payload with a twin",
            raw(r#"{"typ":"oauth-id-jag+jwt","alg":"ES256"}"#, r#"{"iss":"a","iss":"b"}"#),
            "payload_json",
        ),
    ];

    for (what, assertion, code) in cases {
        let (verdict, log) = redeem(&assertion);
        assert_refused(&verdict, &log, code, what);
    }
}

#[test]
fn an_id_jag_with_an_unsound_header_is_an_invalid_grant() {
    let header = |members: &str| with_header(&format!(r#"{{"typ":"oauth-id-jag+jwt",{members}}}"#));
    let typ = |typ: &str| with_header(&format!(r#"{{"typ":{typ},"alg":"ES256","kid":"key-1"}}"#));
    let cases = [
        ("no typ", with_header(r#"{"alg":"ES256"}"#), "typ"),
        ("typ JWT", typ(r#""JWT""#), "typ"),
        ("typ of an access token", typ(r#""at+jwt""#), "typ"),
        ("typ of a client assertion", typ(r#""client-authentication+jwt""#), "typ"),
        ("typ with a suffix", typ(r#""oauth-id-jag+jwt;x""#), "typ"),
        ("typ with a space", typ(r#""oauth-id-jag+jwt ""#), "typ"),
        ("typ an array", typ(r#"["oauth-id-jag+jwt"]"#), "header_type"),
        ("alg none", header(r#""alg":"none""#), "alg_not_allowed"),
        ("alg None", header(r#""alg":"None""#), "alg_not_allowed"),
        ("alg HS256", header(r#""alg":"HS256""#), "alg_not_allowed"),
        ("alg in lower case", header(r#""alg":"es256""#), "alg_not_allowed"),
        ("alg missing", header(r#""kid":"key-1""#), "alg_not_allowed"),
        ("alg a number", header(r#""alg":1"#), "header_type"),
        ("alg not in the issuer's list", header(r#""alg":"EdDSA""#), "alg_not_allowed"),
        ("crit", header(r#""alg":"ES256","crit":["exp"],"kid":"key-1""#), "crit"),
        ("b64", header(r#""alg":"ES256","b64":false,"kid":"key-1""#), "crit"),
        ("jwk", header(r#""alg":"ES256","kid":"key-1","jwk":{}"#), "header_forbidden_param"),
        ("jku", header(r#""alg":"ES256","jku":"https://x.example""#), "header_forbidden_param"),
        ("x5c", header(r#""alg":"ES256","x5c":[]"#), "header_forbidden_param"),
        ("zip", header(r#""alg":"ES256","zip":"DEF""#), "jwe_not_supported"),
        ("kid a number", header(r#""alg":"ES256","kid":7"#), "header_type"),
        ("kid empty", header(r#""alg":"ES256","kid":"""#), "header_type"),
        ("kid unknown", header(r#""alg":"ES256","kid":"../../etc""#), "kid_unknown"),
        ("kid in another case", header(r#""alg":"ES256","kid":"KEY-1""#), "kid_unknown"),
    ];

    for (what, assertion, code) in cases {
        let (verdict, log) = redeem(&assertion);
        assert_refused(&verdict, &log, code, what);
    }
}

#[test]
fn an_id_jag_with_unsound_claims_is_an_invalid_grant() {
    let cases = [
        ("no iss", json!({ "iss": null }), "claim_missing"),
        ("iss an array", json!({ "iss": [IDP] }), "claim_type"),
        ("iss with a slash", json!({ "iss": format!("{IDP}/") }), "iss"),
        ("iss in upper case", json!({ "iss": "https://ACME.idp.example" }), "iss"),
        ("iss with its port", json!({ "iss": format!("{IDP}:443") }), "iss"),
        ("iss our own", json!({ "iss": AS }), "iss"),
        ("aud with a slash", json!({ "aud": format!("{AS}/") }), "aud"),
        ("aud a prefix", json!({ "aud": format!("{AS}.evil") }), "aud"),
        ("aud the token endpoint", json!({ "aud": format!("{AS}/token") }), "aud"),
        ("aud the resource", json!({ "aud": WAREHOUSE }), "aud"),
        ("aud the client", json!({ "aud": "claude" }), "aud"),
        ("aud with another", json!({ "aud": [AS, "https://other.example"] }), "aud"),
        ("aud twice the same", json!({ "aud": [AS, AS] }), "aud"),
        ("aud an empty array", json!({ "aud": [] }), "aud"),
        ("no aud", json!({ "aud": null }), "claim_missing"),
        ("aud an object", json!({ "aud": {} }), "claim_type"),
        ("expired", json!({ "iat": NOW - 300, "exp": NOW - 60 }), "expired"),
        ("exp a string", json!({ "exp": "1800000300" }), "claim_type"),
        ("exp a fraction", json!({ "exp": 1_800_000_200.5 }), "claim_type"),
        ("exp negative", json!({ "exp": -1 }), "claim_type"),
        ("no exp", json!({ "exp": null }), "claim_missing"),
        ("no iat", json!({ "iat": null }), "claim_missing"),
        ("iat in the future", json!({ "iat": NOW + 61 }), "iat"),
        ("exp before iat", json!({ "iat": NOW + 30, "exp": NOW + 20 }), "lifetime"),
        ("lifetime over the cap", json!({ "exp": NOW + 601 }), "lifetime"),
        ("exp far ahead", json!({ "exp": u64::MAX }), "lifetime"),
        ("nbf in the future", json!({ "nbf": NOW + 61 }), "nbf"),
        ("nbf a string", json!({ "nbf": "0" }), "claim_type"),
        ("no sub", json!({ "sub": null }), "claim_missing"),
        ("sub empty", json!({ "sub": "" }), "claim_missing"),
        ("sub a number", json!({ "sub": 7 }), "claim_type"),
        ("no jti", json!({ "jti": null }), "claim_missing"),
        ("jti too long", json!({ "jti": "j".repeat(257) }), "claim_type"),
        ("jti with a NUL", json!({ "jti": "a\0b" }), "claim_type"),
        ("no client_id", json!({ "client_id": null }), "claim_missing"),
        ("another client", json!({ "client_id": "other" }), "client_mismatch"),
        ("client in another case", json!({ "client_id": "Claude" }), "client_mismatch"),
        ("client with a space", json!({ "client_id": "claude " }), "client_mismatch"),
        ("bound to a key", json!({ "cnf": { "jkt": "x" } }), "cnf"),
        ("for a tenant of ours", json!({ "aud_tenant": "t1" }), "tenant"),
        ("a foreign resource", json!({ "resource": "https://other.example/mcp" }), "resource"),
        ("own and foreign", json!({ "resource": [WAREHOUSE, "https://o.example"] }), "resource"),
        ("resource with a slash", json!({ "resource": format!("{WAREHOUSE}/") }), "resource"),
        ("resource a number", json!({ "resource": 1 }), "claim_type"),
        ("resource an empty array", json!({ "resource": [] }), "claim_type"),
        ("scope an array", json!({ "scope": ["stock.read"] }), "claim_type"),
    ];

    for (what, change, code) in cases {
        let (verdict, log) = redeem(&changed(change));
        assert_refused(&verdict, &log, code, what);
    }
}

#[test]
fn an_id_jag_signed_by_anyone_else_is_an_invalid_grant() {
    let claims = id_jag_claims("1");
    let forged = |kid: &str| {
        let key = jagway_core::signing::SigningKey::from_pem(&pem(2), Some(kid)).unwrap();
        key.sign("oauth-id-jag+jwt", &claims)
    };
    let mut tampered = id_jag("1");
    let at = tampered.find('.').unwrap() + 5;
    let other = if tampered.as_bytes()[at] == b'A' { "B" } else { "A" };
    tampered.replace_range(at..at + 1, other);

    let (verdict, log) = redeem(&forged("key-1"));
    assert_refused(&verdict, &log, "signature", "another key under the same name");
    let (verdict, log) = redeem(&forged("key-2"));
    assert_refused(&verdict, &log, "kid_unknown", "another key");
    let (verdict, _) = redeem(&tampered);
    assert_eq!(body(&verdict)["error"], "invalid_grant", "changed after signing");
}

#[test]
fn all_invalid_grants_read_alike() {
    let cases = [changed(json!({ "iss": "https://x.example" })), changed(json!({ "aud": "x" }))];
    let texts: Vec<Value> = cases.iter().map(|assertion| body(&redeem(assertion).0)).collect();

    assert_eq!(texts[0], texts[1]);
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
fn clients_prove_who_they_are_in_one_of_two_ways() {
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    let jwt_bearer = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let id_jag = id_jag("1");
    let assertion = ("assertion", id_jag.as_str());
    let basic = |value: &'static str| vec![form_type, ("authorization", value)];
    let post =
        |more: &[(&'static str, &'static str)]| [[jwt_bearer, assertion].as_slice(), more].concat();
    let none: Vec<(&str, &str)> = vec![];
    let cases = [
        ("Basic", basic("Basic Y2xhdWRlOnMzY3JldA=="), none.clone(), 200),
        ("basic in lower case", basic("basic Y2xhdWRlOnMzY3JldA=="), none.clone(), 200),
        // claude:%73%33cret
        ("Basic, form-encoded", basic("Basic Y2xhdWRlOiU3MyUzM2NyZXQ="), none.clone(), 200),
        ("wrong secret", basic("Basic Y2xhdWRlOndyb25n"), none.clone(), 401),
        ("unknown client", basic("Basic bm9ib2R5OnMzY3JldA=="), none.clone(), 401),
        ("empty secret", basic("Basic Y2xhdWRlOg=="), none.clone(), 401),
        ("no colon", basic("Basic Y2xhdWRl"), none.clone(), 401),
        ("no base64", basic("Basic ***"), none.clone(), 401),
        ("Bearer", basic("Bearer x"), none.clone(), 401),
        ("two joined", basic("Basic Y2xhdWRlOnMzY3JldA==,Basic eDp5"), none.clone(), 400),
        ("nothing at all", vec![form_type], none.clone(), 401),
        ("a public client", vec![form_type], vec![("client_id", "claude")], 401),
        (
            "post",
            vec![form_type],
            vec![("client_id", "claude"), ("client_secret", CLIENT_SECRET)],
            200,
        ),
        (
            "post, wrong secret",
            vec![form_type],
            vec![("client_id", "claude"), ("client_secret", "x")],
            401,
        ),
        ("post without client_id", vec![form_type], vec![("client_secret", CLIENT_SECRET)], 401),
        ("an assertion", vec![form_type], vec![("client_assertion", "x")], 401),
        (
            "two headers",
            [
                basic("Basic Y2xhdWRlOnMzY3JldA=="),
                basic("Basic Y2xhdWRlOnMzY3JldA==")[1..].to_vec(),
            ]
            .concat(),
            none,
            400,
        ),
    ];

    for (what, headers, fields, code) in cases {
        let mut process = Process::new(&accept_config(), 1);
        let request = request("POST", "mcp.acme.example", "/token", &headers);
        let verdict = at_token_endpoint(&mut process, request, form(&post(&fields)));
        assert_eq!(status(&verdict), code, "{what}: {:?}", process.log);
        if code == 401 {
            assert_eq!(body(&verdict)["error"], "invalid_client", "{what}");
            let challenge = format!("Basic realm=\"{AS}\"");
            assert_eq!(header(&verdict, "www-authenticate"), Some(challenge.as_str()), "{what}");
        }
    }
}

#[test]
fn unknown_clients_and_wrong_secrets_read_alike() {
    let answer = |basic: &str| {
        let mut process = Process::new(&accept_config(), 1);
        let fields =
            [("content-type", "application/x-www-form-urlencoded"), ("authorization", basic)];
        let request = request("POST", "mcp.acme.example", "/token", &fields);
        match at_token_endpoint(&mut process, request, grant("x")) {
            Verdict::Reply(reply) => (reply, process.log),
            Verdict::Forward(..) => panic!("forwarded"),
        }
    };

    assert_eq!(answer("Basic Y2xhdWRlOndyb25n"), answer("Basic bm9ib2R5OnMzY3JldA=="));
}

#[test]
fn an_issuer_that_may_not_speak_for_the_client_is_refused() {
    let mut config = accept_config();
    config["identity_providers"]["beta"] = json!({ "issuer": "https://beta.example", "cluster": "beta", "jwks_uri": "https://beta.example/k" });
    config["authorization_server"]["clients"]["other"]["identity_providers"] = json!(["beta"]);
    let mut process = Process::new(&config, 1);

    let assertion = changed(json!({ "iss": "https://beta.example" }));
    let verdict = at_token_endpoint(&mut process, token_request(), grant(&assertion));

    assert_refused(&verdict, &process.log, "issuer_not_for_client", "another client's issuer");
}

#[test]
fn one_issuers_key_is_no_other_issuers() {
    let mut config = accept_config();
    config["identity_providers"]["beta"] = json!({ "issuer": "https://beta.example", "cluster": "beta", "jwks_uri": "https://beta.example/k" });
    config["authorization_server"]["clients"]["claude"]["identity_providers"] =
        json!(["acme", "beta"]);
    let mut process = Process::new(&config, 1);
    let assertion = changed(json!({ "iss": "https://beta.example" }));

    process.request_with_body(0, 1, token_request(), grant(&assertion));
    process.answer(&mut |callout| match callout.cluster.as_str() {
        "beta" => answer(200, &jwks(&[3])),
        _ => answer(200, &jwks(&[1])),
    });

    let verdict = process.verdict();
    assert_refused(&verdict, &process.log, "kid_unknown", "signed by the other issuer");
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
fn a_grant_is_redeemed_once_by_whichever_worker() {
    let mut process = Process::new(&accept_config(), 3);
    let mut redeem = |worker: usize, assertion: &str| {
        process.request_with_body(worker, 1, token_request(), grant(assertion));
        process.answer(&mut |_| answer(200, &jwks(&[1])));
        status(&process.verdict())
    };

    let first = id_jag("1");
    assert_eq!(redeem(0, &first), 200);
    assert_eq!(redeem(0, &first), 400);
    assert_eq!(redeem(1, &first), 400);
    assert_eq!(redeem(2, &id_jag("2")), 200);
}

#[test]
fn a_refused_request_burns_nobodys_grant() {
    let mut process = Process::new(&accept_config(), 1);
    let assertion = id_jag("1");
    let other = request(
        "POST",
        "mcp.acme.example",
        "/token",
        &[
            ("content-type", "application/x-www-form-urlencoded"),
            // other:other-secret
            ("authorization", "Basic b3RoZXI6b3RoZXItc2VjcmV0"),
        ],
    );

    let refused = at_token_endpoint(&mut process, other, grant(&assertion));
    let wrong_scope = [grant(&assertion), b"&scope=admin".to_vec()].concat();
    let wrong_scope = at_token_endpoint(&mut process, token_request(), wrong_scope);
    let redeemed = at_token_endpoint(&mut process, token_request(), grant(&assertion));

    assert_refused(&refused, &process.log, "client_mismatch", "another client");
    assert_eq!(status(&wrong_scope), 400);
    assert_eq!(status(&redeemed), 200);
}

#[test]
fn the_high_s_twin_of_a_signature_is_the_same_grant() {
    let good = id_jag("1");
    let (input, signature) = good.rsplit_once('.').unwrap();
    let bytes = {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap()
    };
    let signature = p256::ecdsa::Signature::from_slice(&bytes).unwrap();
    let (r, s) = (signature.r(), signature.s());
    let twin = p256::ecdsa::Signature::from_scalars(*r, -*s).unwrap();
    let twin = format!("{input}.{}", base64url(&twin.to_bytes()));
    let mut process = Process::new(&accept_config(), 1);

    let first = at_token_endpoint(&mut process, token_request(), grant(&twin));
    let second = at_token_endpoint(&mut process, token_request(), grant(&good));

    assert_eq!(status(&first), 200);
    assert_refused(&second, &process.log, "jti_replayed", "the twin");
}

#[test]
fn an_unknown_kid_is_fetched_for_once_in_thirty_seconds() {
    let mut process = Process::new(&accept_config(), 2);
    let rotated = |jti: &str| {
        let key = jagway_core::signing::SigningKey::from_pem(&pem(2), Some("key-2")).unwrap();
        key.sign("oauth-id-jag+jwt", &id_jag_claims(jti))
    };
    let mut fetches = 0;
    let mut published = vec![1];
    let mut redeem = |process: &mut Process, published: &[u8], assertion: &str, worker| {
        process.request_with_body(worker, 1, token_request(), grant(assertion));
        process.answer(&mut |_| {
            fetches += 1;
            answer(200, &jwks(published))
        });
        (status(&process.verdict()), fetches)
    };

    assert_eq!(redeem(&mut process, &published, &id_jag("1"), 0), (200, 1));
    assert_eq!(redeem(&mut process, &published, &rotated("2"), 0), (400, 1), "within 30 s");
    process.now += 31;
    published.push(2);
    assert_eq!(redeem(&mut process, &published, &rotated("3"), 0), (200, 2), "after 30 s");
    assert_eq!(redeem(&mut process, &published, &rotated("4"), 1), (200, 2), "the other worker");
}

#[test]
fn a_key_set_without_one_usable_key_does_not_replace_a_good_one() {
    let mut process = Process::new(&accept_config(), 1);
    assert_eq!(status(&at_token_endpoint(&mut process, token_request(), grant(&id_jag("1")))), 200);
    process.now += 31;
    let unknown = jagway_core::signing::SigningKey::from_pem(&pem(2), Some("key-2")).unwrap();
    let unknown = unknown.sign("oauth-id-jag+jwt", &id_jag_claims("2"));

    process.request_with_body(0, 1, token_request(), grant(&unknown));
    process.answer(&mut |_| answer(200, br#"{"keys":[{"kty":"junk"}]}"#));
    assert_eq!(status(&process.verdict()), 503);

    process.request_with_body(0, 1, token_request(), grant(&id_jag("3")));
    assert_eq!(status(&process.verdict()), 200);
}

#[test]
fn keys_that_cannot_be_had_are_our_outage_and_not_the_grants() {
    let mut process = Process::new(&accept_config(), 1);
    process.request_with_body(0, 1, token_request(), grant(&id_jag("1")));
    process.answer(&mut |_| answer(500, b""));
    let down = process.verdict();
    process.now += 5;
    let up = at_token_endpoint(&mut process, token_request(), grant(&id_jag("1")));
    process.now += 400;
    process.request_with_body(0, 1, token_request(), {
        let mut claims = id_jag_claims("2");
        claims["iat"] = json!(process.now);
        claims["exp"] = json!(process.now + 300);
        grant(&key(1).sign("oauth-id-jag+jwt", &claims))
    });
    process.answer(&mut |_| answer(500, b""));
    let stale = process.verdict();

    assert_eq!((status(&down), header(&down, "retry-after")), (503, Some("5")));
    assert_eq!(body(&down)["error"], "temporarily_unavailable");
    assert_eq!(status(&up), 200);
    assert_eq!(status(&stale), 200, "the last good keys serve on");
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
    let details = ("authorization_details", "[]");
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

#[test]
fn of_two_faults_in_an_assertion_the_earlier_check_speaks() {
    let header =
        |members: &str, claims: &Value| raw(&format!("{{{members}}}"), &claims.to_string());
    let claims = |change: Value| {
        let mut claims = id_jag_claims("1");
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let sound = r#""typ":"oauth-id-jag+jwt","alg":"ES256","kid":"key-1""#;
    let strange = r#""typ":"oauth-id-jag+jwt","alg":"ES256","kid":"strange""#;
    let forged = |change: Value| {
        let key = jagway_core::signing::SigningKey::from_pem(&pem(2), Some("key-1")).unwrap();
        key.sign("oauth-id-jag+jwt", &claims(change))
    };
    let expired = json!({ "iat": NOW - 300, "exp": NOW - 60, "client_id": "other" });
    let cases = [
        ("typ before alg", header(r#""alg":"none""#, &claims(json!({}))), "typ"),
        (
            "alg before payload",
            raw(r#"{"typ":"oauth-id-jag+jwt","alg":"none"}"#, "x"),
            "alg_not_allowed",
        ),
        ("issuer before key", header(strange, &claims(json!({ "iss": "x" }))), "iss"),
        ("key before audience", header(strange, &claims(json!({ "aud": "x" }))), "kid_unknown"),
        ("signature before audience", forged(json!({ "aud": "x" })), "signature"),
        (
            "audience before times",
            header(sound, &claims(json!({ "aud": "x", "exp": NOW - 99 }))),
            "aud",
        ),
        ("times before client", header(sound, &claims(expired)), "expired"),
        (
            "presence before client",
            header(sound, &claims(json!({ "jti": "", "client_id": "other" }))),
            "claim_missing",
        ),
        (
            "client before resource",
            header(
                sound,
                &claims(json!({ "client_id": "other", "resource": "https://o.example" })),
            ),
            "client_mismatch",
        ),
    ];

    for (what, assertion, code) in cases {
        let (verdict, log) = redeem(&assertion);
        assert_refused(&verdict, &log, code, what);
    }
}

#[test]
fn a_grant_is_remembered_as_long_as_it_could_be_redeemed() {
    let mut process = Process::new(&accept_config(), 1);
    let assertion = id_jag("1");
    let redeem = |process: &mut Process| {
        status(&at_token_endpoint(process, token_request(), grant(&assertion)))
    };

    assert_eq!(redeem(&mut process), 200);
    process.now = NOW + 300 + 59;
    assert_eq!(redeem(&mut process), 400, "in the last second of the skew");
    assert!(process.log.iter().any(|line| line.contains("jti_replayed")), "{:?}", process.log);
}
