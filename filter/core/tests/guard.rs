//! The token endpoint of another authorization server, which sees sound ID-JAGs only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::{hex, sha256};
use jagway_core::http::{Headers, Request};
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::assertions::changed;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Guards the authorization server that [`id_jag`] is for.
fn guard_config() -> Value {
    json!({
        "identity_providers": {
            "acme": { "issuer": IDP, "cluster": "idp", "jwks_uri": format!("{IDP}/keys") },
        },
        "guards": [{
            "issuer": AS,
            "token_endpoint": format!("{AS}/token"),
            "clients": {
                "claude": {
                    "secret_sha256": hex(&sha256(CLIENT_SECRET.as_bytes())),
                    "identity_providers": ["acme"],
                },
                "there": { "identity_providers": ["acme"] },
            },
            "resources": [WAREHOUSE, format!("{AS}/other")],
            "paths": ["/authorize"],
        }],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut config = guard_config();
    config["guards"][0][name] = value;
    config
}

/// A token request as another client, whose secret only the server behind knows.
fn as_there() -> Request {
    let form = ("content-type", "application/x-www-form-urlencoded");
    // there:whatever
    let basic = ("authorization", "Basic dGhlcmU6d2hhdGV2ZXI=");
    request("POST", "mcp.acme.example", "/token", &[form, basic])
}

/// What becomes of a token request: nothing if it goes on as it came, or the refusal.
fn judged(process: &mut Process, request: Request, body_sent: Vec<u8>) -> Option<(u16, String)> {
    let verdict = at_token_endpoint(process, request, body_sent);
    if let Verdict::Forward(edits, after) = &verdict {
        assert!(edits.remove.is_empty() && edits.set.is_empty(), "byte for byte");
        let answer = Headers::new(vec![(":status".to_owned(), b"200".to_vec())]);
        let (edits, _) = process.responds(0, 1, after, &answer);
        assert!(edits.remove.is_empty() && edits.set.is_empty(), "the answer too");
        return None;
    }
    assert_eq!(header(&verdict, "cache-control"), Some("no-store"));
    Some((status(&verdict), body(&verdict)["error"].as_str().unwrap().to_owned()))
}

fn refused(code: u16, error: &str) -> Option<(u16, String)> {
    Some((code, error.to_owned()))
}

#[test]
fn a_sound_grant_goes_on_once_and_byte_for_byte() {
    let mut process = Process::new(&guard_config(), 2);

    assert_eq!(judged(&mut process, token_request(), grant(&id_jag("1"))), None);
    let again = judged(&mut process, token_request(), grant(&id_jag("1")));
    assert_eq!(again, refused(400, "invalid_grant"));
    assert_eq!(process.counts["done.guarded"], 1);
}

#[test]
fn what_our_own_endpoint_refuses_the_guard_refuses() {
    let other_client = changed(json!({ "client_id": "there" }));
    let access_token = key(1).sign("at+jwt", &id_jag_claims("1"));
    let cases = [
        (
            "another audience",
            grant(&changed(json!({ "aud": format!("{AS}/token") }))),
            "invalid_grant",
        ),
        ("two audiences", grant(&changed(json!({ "aud": [AS, IDP] }))), "invalid_grant"),
        ("expired", grant(&changed(json!({ "exp": NOW - 61, "iat": NOW - 90 }))), "invalid_grant"),
        ("too long a life", grant(&changed(json!({ "exp": NOW + 601 }))), "invalid_grant"),
        (
            "another issuer",
            grant(&changed(json!({ "iss": "https://evil.example" }))),
            "invalid_grant",
        ),
        ("another client", grant(&other_client), "invalid_grant"),
        ("another resource", grant(&changed(json!({ "resource": IDP }))), "invalid_grant"),
        ("no subject", grant(&changed(json!({ "sub": null }))), "invalid_grant"),
        ("a tenant of somebody's", grant(&changed(json!({ "aud_tenant": "t" }))), "invalid_grant"),
        (
            "bound, without proof",
            grant(&changed(json!({ "cnf": { "kid": "k" } }))),
            "invalid_grant",
        ),
        ("an access token", grant(&access_token), "invalid_grant"),
        ("no JWT", grant("x"), "invalid_grant"),
        (
            "no assertion",
            form(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")]),
            "invalid_request",
        ),
        ("no grant type", form(&[("assertion", "x")]), "invalid_request"),
        ("a parameter twice", b"grant_type=a&grant_type=b".to_vec(), "invalid_request"),
        ("another grant", form(&[("grant_type", "password")]), "unsupported_grant_type"),
    ];

    for (what, sent, error) in cases {
        let mut process = Process::new(&guard_config(), 1);
        let judged = judged(&mut process, token_request(), sent);
        assert_eq!(judged, refused(400, error), "{what}: {:?}", process.log);
    }
}

#[test]
fn nothing_is_asked_for_that_the_grant_does_not_hold() {
    let ask = |name: &str, value: &str| {
        let mut process = Process::new(&guard_config(), 1);
        let id_jag = id_jag("1");
        let sent = form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &id_jag),
            (name, value),
        ]);
        judged(&mut process, token_request(), sent)
    };

    assert_eq!(ask("scope", "stock.read"), None);
    assert_eq!(ask("scope", "stock.read admin"), refused(400, "invalid_scope"));
    assert_eq!(ask("scope", "a  b"), refused(400, "invalid_scope"));
    assert_eq!(ask("resource", WAREHOUSE), None);
    let other = format!("{AS}/other");
    assert_eq!(ask("resource", &other), refused(400, "invalid_target"));
    assert_eq!(ask("resource", "https://evil.example"), refused(400, "invalid_target"));
    let none = changed(json!({ "scope": null }));
    let more = [grant(&none), b"&scope=admin".to_vec()].concat();
    let none = judged(&mut Process::new(&guard_config(), 1), token_request(), more);
    assert_eq!(none, refused(400, "invalid_scope"), "a grant without scope delegates none");
    let details = ask("authorization_details", r#"[{"type":"a"}]"#);
    assert_eq!(details, refused(400, "invalid_authorization_details"));
    assert_eq!(ask("unknown", "x"), None);
    let claimed =
        changed(json!({ "authorization_details": [{ "type": "a", "actions": ["read"] }] }));
    let asked = |details: &str| {
        let details = form_urlencoded::byte_serialize(details.as_bytes()).collect::<String>();
        let more = format!("&authorization_details={details}").into_bytes();
        let sent = [grant(&claimed), more].concat();
        judged(&mut Process::new(&guard_config(), 1), token_request(), sent)
    };
    assert_eq!(asked(r#"[{"type":"a","actions":["read"]}]"#), None);
    let other = asked(r#"[{"type":"b","actions":["write"]}]"#);
    assert_eq!(other, refused(400, "invalid_authorization_details"));
}

#[test]
fn a_client_that_only_the_server_behind_knows_cannot_be_burnt_by_a_stranger() {
    let mut process = Process::new(&guard_config(), 1);
    let assertion = changed(json!({ "client_id": "there" }));
    let mut redeem = |answer: &str| {
        let verdict = at_token_endpoint(&mut process, as_there(), grant(&assertion));
        let Verdict::Forward(_, after) = verdict else { return status(&verdict) };
        let (answer, nonce) = answer.split_once(' ').unwrap_or((answer, ""));
        let mut head = vec![(":status".to_owned(), answer.as_bytes().to_vec())];
        if !nonce.is_empty() {
            head.push(("dpop-nonce".to_owned(), nonce.as_bytes().to_vec()));
        }
        let head = Headers::new(head);
        process.responds(0, 1, &after, &head);
        0
    };

    assert_eq!(redeem("401"), 0, "with another secret: the server behind says no");
    assert_eq!(redeem("400 nonce"), 0, "the server behind wants a nonce of its own first");
    assert_eq!(redeem("200"), 0, "the right client still can");
    assert_eq!(redeem("200"), 400, "once");
}

#[test]
fn a_client_whose_secret_is_known_here_is_held_to_it() {
    let mut process = Process::new(&guard_config(), 1);
    // claude:wrong
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    let wrong = [form_type, ("authorization", "Basic Y2xhdWRlOndyb25n")];
    let wrong = request("POST", "mcp.acme.example", "/token", &wrong);
    let nobody = request("POST", "mcp.acme.example", "/token", &[form_type]);

    let stranger = judged(&mut process, wrong, grant(&id_jag("1")));
    let public = judged(&mut process, nobody, grant(&id_jag("1")));
    let client = judged(&mut process, token_request(), grant(&id_jag("1")));

    assert_eq!(stranger, refused(401, "invalid_client"));
    assert_eq!(public, refused(401, "invalid_client"));
    assert_eq!(client, None);
}

#[test]
fn other_grants_pass_only_where_the_operator_says_so() {
    let config = with("other_grants", json!("pass"));
    let code = || form(&[("grant_type", "authorization_code"), ("code", "x")]);

    assert_eq!(judged(&mut Process::new(&config, 1), token_request(), code()), None);
    let forged = grant(&changed(json!({ "aud": IDP })));
    let forged = judged(&mut Process::new(&config, 1), token_request(), forged);
    assert_eq!(forged, refused(400, "invalid_grant"));
    for (name, grant_type) in [
        ("assertion", "urn:ietf:params:oauth:grant-type:saml2-bearer"),
        ("subject_token", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("anything", "password"),
        ("assertion", " urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", "urn:ietf:params:oauth:grant-type:JWT-bearer\n"),
    ] {
        let id_jag = changed(json!({ "aud": IDP }));
        let smuggled = form(&[("grant_type", grant_type), (name, &id_jag)]);
        let smuggled = judged(&mut Process::new(&config, 1), token_request(), smuggled);
        assert_eq!(smuggled, refused(400, "unsupported_grant_type"), "{grant_type}");
    }
    let forged = changed(json!({ "aud": IDP }));
    let bound = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-dpop");
    let bound = form(&[bound, ("assertion", &forged)]);
    let bound = judged(&mut Process::new(&config, 1), token_request(), bound);
    assert_eq!(bound, refused(400, "invalid_grant"), "judged under its other name too");
    let refusal = judged(&mut Process::new(&guard_config(), 1), token_request(), code());
    assert_eq!(refusal, refused(400, "unsupported_grant_type"));
}

#[test]
fn a_client_is_held_to_its_resources_and_to_its_binding() {
    let with_client = |name: &str, value: Value| {
        let mut config = guard_config();
        config["guards"][0]["clients"]["claude"][name] = value;
        config
    };
    let elsewhere = with_client("resources", json!([format!("{AS}/other")]));
    let bound = with_client("dpop_bound_access_tokens", json!(true));
    let go =
        |config: &Value| judged(&mut Process::new(config, 1), token_request(), grant(&id_jag("1")));

    assert_eq!(go(&elsewhere), refused(400, "invalid_grant"));
    assert_eq!(go(&bound), refused(400, "invalid_dpop_proof"));
    let unknown = with_client("resources", json!(["https://x.example/"])).to_string();
    let unknown = jagway_core::config::Config::parse(unknown.as_bytes(), &env);
    assert_eq!(unknown.map(|_| ()).unwrap_err().path, "guards[0].clients.claude.resources[0]");
}

#[test]
fn a_users_authentication_name_and_revocation_count_at_the_guard_too() {
    let with_provider = |name: &str, value: Value| {
        let mut config = guard_config();
        config["identity_providers"]["acme"][name] = value;
        config
    };
    let acr = with_provider("required_acr", json!(["phr"]));
    let saml = json!({ "saml": { "issuers": ["https://saml.acme.example"] } });
    let saml = with_provider("subjects", saml);
    let go = |process: &mut Process| judged(process, token_request(), grant(&id_jag("1")));
    let mut revoked = Process::new(&guard_config(), 1);
    let alice = jagway_core::revocation::origin(IDP, None, "alice");
    let done = jagway_core::revocation::revoke_origin(&*revoked.store, &alice, NOW, NOW + 900, NOW);

    let weak = go(&mut Process::new(&acr, 1));
    assert_eq!(weak, refused(400, "insufficient_user_authentication"));
    assert_eq!(go(&mut Process::new(&saml, 1)), refused(400, "invalid_grant"));
    assert!(done.is_ok());
    assert_eq!(go(&mut revoked), refused(400, "invalid_grant"));
}

#[test]
fn no_parameter_is_sent_on_that_another_server_could_read_as_one_we_judged() {
    let other = changed(json!({ "jti": "2", "aud": IDP }));
    let sound = grant(&id_jag("1"));
    let beside = |name: &str| {
        let more = format!("&{name}={other}").into_bytes();
        judged(
            &mut Process::new(&guard_config(), 1),
            token_request(),
            [sound.clone(), more].concat(),
        )
    };

    for name in [
        "%20assertion",
        "+assertion",
        "Assertion",
        "ASSERTION",
        "assertion%5B%5D",
        "assertion.",
        "client-assertion",
        "client.id",
        "client%5Bid",
        "Grant_Type",
        "Scope",
        "x;assertion",
    ] {
        assert_eq!(beside(name), refused(400, "invalid_request"), "{name}");
    }
    assert_eq!(beside("x-client-SKU"), None, "other names are the server's own");
    let form_type = ("content-type", "application/x-www-form-urlencoded; charset=utf-7");
    let basic = ("authorization", "Basic Y2xhdWRlOnMzY3JldA==");
    let request = request("POST", "mcp.acme.example", "/token", &[form_type, basic]);
    let encoded = judged(&mut Process::new(&guard_config(), 1), request, sound.clone());
    assert_eq!(encoded, refused(400, "invalid_request"));
}

#[test]
fn no_other_way_leads_to_the_guarded_endpoint() {
    let go = |method: &str, path: &str| {
        let mut process = Process::new(&guard_config(), 1);
        process.request(0, 1, request(method, "mcp.acme.example", path, &[]));
        status(&process.verdict())
    };

    assert_eq!(go("GET", "/authorize"), 0);
    assert_eq!(go("GET", "/authorize?client_id=x"), 0);
    for path in
        ["/", "/token/", "/Token", "//token", "/authorize/token", "/x/../token", "/token%2f"]
    {
        assert!(matches!(go("POST", path), 400 | 404), "{path}");
    }
    assert_eq!(go("GET", "/token"), 405);
    assert_eq!(go("POST", "/token?grant_type=password"), 400);
}

#[test]
fn a_guard_that_could_be_walked_around_is_refused() {
    let guard = "guards[0]";
    let cases = [
        ("issuer", json!(IDP), format!("{guard}.issuer")),
        ("token_endpoint", json!("token"), format!("{guard}.token_endpoint")),
        ("token_endpoint", json!(format!("{AS}/token?x")), format!("{guard}.token_endpoint")),
        ("clients", json!({}), format!("{guard}.clients")),
        ("resources", json!([]), format!("{guard}.resources")),
        ("resources", json!(["x"]), format!("{guard}.resources[0]")),
        ("paths", json!(["/token"]), format!("{guard}.paths[0]")),
        ("paths", json!(["/TOKEN/"]), format!("{guard}.paths[0]")),
        ("paths", json!(["//token"]), format!("{guard}.paths[0]")),
        ("paths", json!(["/a/../token"]), format!("{guard}.paths[0]")),
        ("other_grants", json!("maybe"), format!("{guard}.other_grants")),
        ("surprise", json!(1), format!("{guard}.surprise")),
    ];
    for (name, value, path) in cases {
        let config = with(name, value.clone()).to_string();
        let refused = jagway_core::config::Config::parse(config.as_bytes(), &env);
        assert_eq!(refused.map(|_| ()).unwrap_err().path, path, "{name}: {value}");
    }
    let mut both = accept_config();
    both["guards"] = guard_config()["guards"].clone();
    let refused = jagway_core::config::Config::parse(both.to_string().as_bytes(), &env);
    assert_eq!(refused.map(|_| ()).unwrap_err().path, format!("{guard}.token_endpoint"));
}
