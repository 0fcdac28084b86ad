//! What the server behind gets in the place of the client's token.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::http::{Answer, CallFailed, Callout, Headers};
use jagway_core::worker::{AfterResponse, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use support::assertions::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// [`accept_config`] with these settings in the place of the resource's credential.
fn with(settings: Value) -> Value {
    let mut config = accept_config();
    config["identity_providers"]["acme"]["subjects"] = json!({ "groups": true });
    let accept = config["resources"][0]["accept"].as_object_mut().unwrap();
    accept.remove("credential");
    accept.extend(settings.as_object().unwrap().clone());
    config
}

/// A process whose client has a token for a user with these claims; the token, or the refusal.
fn token(process: &mut Process, claims: Value) -> Result<String, u16> {
    let verdict = at_token_endpoint(process, token_request(), grant(&changed(claims)));
    match body(&verdict)["access_token"].as_str() {
        Some(token) => Ok(token.to_owned()),
        None => Err(status(&verdict)),
    }
}

type Sent = BTreeMap<String, String>;

/// Calls the resource; what goes upstream, or the refusal's status.
fn call(
    process: &mut Process,
    token: &str,
    host: &mut dyn FnMut(&Callout) -> Result<Answer, CallFailed>,
) -> Result<(Sent, Rc<AfterResponse>), u16> {
    let authorization = format!("Bearer {token}");
    let fields = [
        ("authorization", authorization.as_str()),
        ("x-api-key", "smuggled"),
        ("x-who", "smuggled"),
        ("x_who", "smuggled"),
    ];
    process.request(0, 9, request("POST", "mcp.acme.example", "/warehouse", &fields));
    process.answer(host);
    match process.verdict() {
        Verdict::Reply(reply) => Err(reply.status),
        Verdict::Forward(edits, after) => {
            assert!(edits.remove.contains(&"authorization".to_owned()));
            let set = edits.set.iter();
            let set = set.map(|(name, value)| (name.clone(), value.expose().to_owned()));
            Ok((set.collect(), after))
        }
        other => panic!("{other:?}"),
    }
}

fn nobody(_: &Callout) -> Result<Answer, CallFailed> {
    panic!("a static credential needs nobody")
}

fn sent(config: &Value, claims: Value) -> Result<Sent, u16> {
    let mut process = Process::new(config, 1);
    let token = token(&mut process, claims)?;
    call(&mut process, &token, &mut nobody).map(|(sent, _)| sent)
}

fn header_of(name: &str, value: &str) -> Sent {
    Sent::from([(name.to_owned(), value.to_owned())])
}

#[test]
fn a_fixed_credential_stands_where_its_kind_stands() {
    let key = json!({ "env": "WAREHOUSE_KEY" });
    let cases = [
        (json!({ "header": "X-API-Key", "value": key }), "x-api-key", "warehouse-key"),
        (json!({ "bearer": key }), "authorization", "Bearer warehouse-key"),
        // me:warehouse-key
        (
            json!({ "basic": { "user": "me", "password": key } }),
            "authorization",
            "Basic bWU6d2FyZWhvdXNlLWtleQ==",
        ),
    ];

    for (credential, name, value) in cases {
        let config = with(json!({ "credential": credential }));
        assert_eq!(sent(&config, json!({})), Ok(header_of(name, value)), "{credential}");
    }
}

#[test]
fn the_first_entry_that_fits_the_verified_token_counts() {
    let bearer = |name: &str| json!({ "env": name });
    let config = with(json!({ "credentials": [
        {
            "bearer": bearer("IDP_SECRET"),
            "for": { "identity_provider": "acme", "sub": "alice" },
        },
        {
            "bearer": bearer("AS_SECRET"),
            "for": { "identity_provider": "acme", "group": "admins" },
        },
        { "bearer": bearer("BOT_REFRESH"), "for": { "scope": "stock.write" } },
    ] }));
    let credential = |claims| sent(&config, claims).map(|sent| sent["authorization"].clone());

    assert_eq!(credential(json!({})).unwrap(), "Bearer idp-secret");
    let mut turned = config.clone();
    turned["resources"][0]["accept"]["credentials"].as_array_mut().unwrap().reverse();
    let first_of_both = sent(&turned, json!({ "groups": ["admins"] })).unwrap();
    assert_eq!(
        first_of_both["authorization"], "Bearer bot-refresh-token",
        "by scope, before alice"
    );
    turned["resources"][0]["accept"]["credentials"].as_array_mut().unwrap().remove(0);
    let first_of_both = sent(&turned, json!({ "groups": ["admins"] })).unwrap();
    assert_eq!(first_of_both["authorization"], "Bearer as-secret", "by group, before alice");
    let admin = json!({ "sub": "bob", "groups": ["staff", "admins"] });
    assert_eq!(credential(admin).unwrap(), "Bearer as-secret");
    assert_eq!(credential(json!({ "sub": "bob" })).unwrap(), "Bearer bot-refresh-token");
    // Nothing for this user: no token is issued, so nothing is ever sent on without a credential.
    let reader = json!({ "sub": "bob", "scope": "stock.read", "groups": ["Admins"] });
    assert_eq!(credential(reader).unwrap_err(), 400);
    let tenant = json!({ "tenant": "t", "scope": "stock.read" });
    assert_eq!(credential(tenant).unwrap_err(), 400, "alice of a tenant is another user");
}

#[test]
fn groups_that_decide_nothing_stay_out_of_the_token() {
    let config = with(json!({ "credentials": [{
        "bearer": { "env": "AS_SECRET" },
        "for": { "identity_provider": "acme", "group": "admins" },
    }] }));
    let mut process = Process::new(&config, 1);

    let token = token(&mut process, json!({ "groups": ["admins", "secret-project"] })).unwrap();

    assert_eq!(payload(&token)["groups"], json!(["admins"]));
}

fn payload(token: &str) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_signed_header_tells_the_server_behind_who_calls() {
    let config = with(json!({
        "credential": { "none": {} },
        "identity_header": { "name": "X-Who", "audience": "warehouse" },
    }));
    let mut process = Process::new(&config, 1);
    let token = token(&mut process, json!({})).unwrap();

    let (first, _) = call(&mut process, &token, &mut nobody).unwrap();
    let (second, _) = call(&mut process, &token, &mut nobody).unwrap();
    process.now += 31;
    let (later, _) = call(&mut process, &token, &mut nobody).unwrap();

    assert_eq!(first.keys().collect::<Vec<_>>(), ["x-who"]);
    let claims = payload(&first["x-who"]);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(AS), &json!("warehouse")));
    assert_eq!(claims["sub_id"], json!({ "format": "iss_sub", "iss": IDP, "sub": "alice" }));
    assert_eq!((&claims["client_id"], &claims["exp"]), (&json!("claude"), &json!(NOW + 60)));
    assert_eq!(first, second, "signed once for many calls");
    assert_ne!(first, later, "and never older than half its life");
    // It is no access token here, whatever else it is.
    let refused = call(&mut process, &first["x-who"], &mut nobody);
    assert_eq!(refused.unwrap_err(), 401);
}

fn backend_as(kind: &str) -> Value {
    with(json!({ "credential": { kind: {
        "issuer": "https://as.backend.example",
        "cluster": "backend_as",
        "token_endpoint": "https://as.backend.example/token",
        "client": { "id": "jagway", "secret": { "env": "AS_SECRET" } },
        "scopes": ["all"],
        "resource": "https://backend.example/",
    } } }))
}

fn granted(token: &str) -> Result<Answer, CallFailed> {
    let body = json!({ "access_token": token, "token_type": "bearer", "expires_in": 300 });
    json_answer(200, &body)
}

fn fields(callout: &Callout) -> BTreeMap<String, String> {
    form_urlencoded::parse(callout.body.expose().as_bytes()).into_owned().collect()
}

#[test]
fn a_token_of_the_backends_own_server_is_got_once_for_everybody() {
    let mut process = Process::new(&backend_as("client_credentials"), 2);
    let alice = token(&mut process, json!({})).unwrap();
    let bob = token(&mut process, json!({ "sub": "bob", "jti": "2" })).unwrap();
    let mut asked = Vec::new();

    for token in [&alice, &bob, &alice] {
        let mut host = |callout: &Callout| {
            asked.push(fields(callout));
            granted("backend-token")
        };
        let (sent, _) = call(&mut process, token, &mut host).unwrap();
        assert_eq!(sent, header_of("authorization", "Bearer backend-token"));
    }

    assert_eq!(asked.len(), 1);
    let expected = [
        ("client_id", "jagway"),
        ("grant_type", "client_credentials"),
        ("resource", "https://backend.example/"),
        ("scope", "all"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked[0], BTreeMap::from(expected));
}

#[test]
fn a_token_on_a_users_behalf_is_that_users_alone() {
    let mut process = Process::new(&backend_as("token_exchange"), 1);
    let alice = token(&mut process, json!({})).unwrap();
    let bob = token(&mut process, json!({ "sub": "bob", "jti": "2" })).unwrap();
    let mut asked = Vec::new();

    for (token, user) in [(&alice, "alice"), (&bob, "bob"), (&alice, "alice"), (&bob, "bob")] {
        let mut host = |callout: &Callout| {
            let fields = fields(callout);
            let subject = payload(&fields["subject_token"]);
            let user = subject["sub_id"]["sub"].as_str().unwrap().to_owned();
            assert_eq!(subject["aud"], "https://as.backend.example");
            assert_eq!(fields["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
            assert!(!callout.body.expose().contains(&alice), "the client's token goes nowhere");
            asked.push(fields["grant_type"].clone());
            granted(&format!("for-{user}"))
        };
        let (sent, _) = call(&mut process, token, &mut host).unwrap();
        assert_eq!(sent["authorization"], format!("Bearer for-{user}"));
    }

    assert_eq!(asked, ["urn:ietf:params:oauth:grant-type:token-exchange"; 2]);
}

#[test]
fn a_backend_that_gives_no_token_is_our_trouble_and_not_the_clients() {
    let cases: [(Result<Answer, CallFailed>, u16); 8] = [
        (Err(CallFailed::NoAnswer), 503),
        (Err(CallFailed::NoCluster), 503),
        (answer(500, b""), 503),
        (answer(429, b""), 503),
        (json_answer(401, &json!({ "error": "invalid_client" })), 502),
        (json_answer(400, &json!({ "error": "invalid_grant" })), 502),
        (json_answer(200, &json!({ "access_token": "a b", "token_type": "bearer" })), 502),
        (json_answer(200, &json!({ "access_token": "t", "token_type": "mac" })), 502),
    ];
    for (answer, expected) in cases {
        let mut process = Process::new(&backend_as("client_credentials"), 1);
        let token = token(&mut process, json!({})).unwrap();
        let refused = call(&mut process, &token, &mut |_| answer.clone());
        assert_eq!(refused.unwrap_err(), expected, "{answer:?}");
    }
}

#[test]
fn a_backend_that_refuses_its_token_gets_a_new_one_and_the_client_a_502() {
    let mut process = Process::new(&backend_as("client_credentials"), 1);
    let token = token(&mut process, json!({})).unwrap();
    let (_, after) = call(&mut process, &token, &mut |_| granted("first")).unwrap();
    let head = [(":status", "401"), ("www-authenticate", "Bearer"), ("set-cookie", "a=b")];
    let head = head.into_iter().chain([("authorization", "Bearer first"), ("date", "now")]);
    let head = head.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));

    let (edits, _) = process.responds(0, 1, &after, &Headers::new(head.collect()));
    let (sent, _) = call(&mut process, &token, &mut |_| granted("second")).unwrap();

    assert!(edits.set.contains(&(":status", "502".to_owned())));
    assert_eq!(edits.remove, ["set-cookie", "www-authenticate", "authorization"]);
    assert_eq!(sent["authorization"], "Bearer second");
}

#[test]
fn a_configuration_that_leaves_a_credential_in_doubt_is_refused() {
    let accept = "resources[0].accept";
    let key = json!({ "env": "WAREHOUSE_KEY" });
    let bearer = json!({ "bearer": key });
    let for_whom = |whom: Value| json!({ "credentials": [{ "bearer": key, "for": whom }] });
    let first = format!("{accept}.credentials[0].for");
    let cases = [
        (json!({}), accept.to_owned()),
        (json!({ "credentials": [] }), accept.to_owned()),
        (json!({ "credential": {} }), format!("{accept}.credential")),
        (json!({ "credential": { "header": "x-key" } }), format!("{accept}.credential")),
        (json!({ "credential": { "bearer": key, "none": {} } }), format!("{accept}.credential")),
        (json!({ "credential": { "none": {} } }), format!("{accept}.credential.none")),
        (json!({ "credential": bearer, "credentials": [bearer] }), format!("{accept}.credentials")),
        (json!({ "credentials": [bearer, bearer] }), format!("{accept}.credentials[1]")),
        (
            json!({ "credential": { "basic": { "user": "a:b", "password": key } } }),
            format!("{accept}.credential.basic.user"),
        ),
        (for_whom(json!({})), first.clone()),
        (for_whom(json!({ "sub": "alice" })), first.clone()),
        (for_whom(json!({ "identity_provider": "acme" })), first.clone()),
        (for_whom(json!({ "aud_sub": "a", "email": "a@b.example" })), first.clone()),
        (for_whom(json!({ "scope": "a", "tenant": "t" })), first.clone()),
        (
            for_whom(json!({ "identity_provider": "other", "sub": "alice" })),
            format!("{first}.identity_provider"),
        ),
        (for_whom(json!({ "saml": { "nameid": "alice" } })), format!("{first}.saml")),
        (for_whom(json!({ "email": "alice" })), format!("{first}.email")),
        (for_whom(json!({ "email": "alice@acme.example" })), format!("{first}.email")),
        (for_whom(json!({ "aud_sub": "U1" })), format!("{first}.aud_sub")),
        (
            json!({ "credential": bearer, "identity_header": { "name": "Authorization" } }),
            format!("{accept}.credential"),
        ),
    ];

    for (settings, path) in cases {
        let config = with(settings.clone()).to_string();
        let refused = jagway_core::config::Config::parse(config.as_bytes(), &env);
        assert_eq!(refused.map(|_| ()).unwrap_err().path, path, "{settings}");
    }
    let mut config = with(for_whom(json!({ "identity_provider": "acme", "sub": "alice" })));
    config["identity_providers"]["acme"]["tenants"] = json!(["north"]);
    let refused = jagway_core::config::Config::parse(config.to_string().as_bytes(), &env);
    assert_eq!(refused.map(|_| ()).unwrap_err().path, format!("{first}.tenant"));
    let mut config = with(for_whom(json!({ "identity_provider": "acme", "group": "admins" })));
    config["identity_providers"]["acme"]["subjects"] = json!({});
    let refused = jagway_core::config::Config::parse(config.to_string().as_bytes(), &env);
    assert_eq!(refused.map(|_| ()).unwrap_err().path, format!("{first}.group"));
}
