//! Tenants, and the names by which users are known here (ID-JAG §3.1, §3.2, §6.3, §9.5).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::assertions::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// [`accept_config`] with more in the identity provider's entry.
fn believing(more: Value) -> Value {
    let mut config = accept_config();
    let provider = config["identity_providers"]["acme"].as_object_mut().unwrap();
    provider.extend(more.as_object().unwrap().clone());
    config
}

/// Redeems a grant with these claims; the token's `sub`, or the refusal's reason.
fn redeem(config: &Value, claims: Value) -> Result<String, String> {
    let mut process = Process::new(config, 1);
    let verdict = at_token_endpoint(&mut process, token_request(), grant(&changed(claims)));
    if status(&verdict) == 200 {
        return Ok(claims_of(&body(&verdict))["sub"].as_str().unwrap().to_owned());
    }
    assert_eq!((status(&verdict), &body(&verdict)["error"]), (400, &json!("invalid_grant")));
    let reason = process.log.iter().find_map(|line| line.strip_prefix("refused [")).unwrap();
    Err(reason.split(']').next().unwrap().to_owned())
}

fn claims_of(answer: &Value) -> Value {
    use base64::Engine;
    let token = answer["access_token"].as_str().unwrap();
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_multi_tenant_issuer_names_one_of_its_tenants() {
    let config = believing(json!({ "tenants": ["north", "south"] }));

    let north = redeem(&config, json!({ "tenant": "north" })).unwrap();
    let south = redeem(&config, json!({ "tenant": "south" })).unwrap();

    assert_ne!(north, south, "the same sub in two tenants is two users");
    for tenant in [json!(null), json!("east"), json!("North"), json!("north ")] {
        let refused = redeem(&config, json!({ "tenant": tenant }));
        assert_eq!(refused.unwrap_err(), "tenant", "{tenant}");
    }
    for tenant in [json!(""), json!(["north"]), json!(7), json!("a\nb")] {
        assert!(redeem(&config, json!({ "tenant": tenant })).is_err(), "{tenant}");
    }
}

#[test]
fn trust_is_issuer_tenant_and_client_together() {
    let mut config = believing(json!({ "tenants": ["north", "south"] }));
    config["authorization_server"]["clients"]["claude"]["identity_providers"] =
        json!([{ "name": "acme", "tenants": ["north"] }]);

    assert!(redeem(&config, json!({ "tenant": "north" })).is_ok());
    let other = redeem(&config, json!({ "tenant": "south" }));
    assert_eq!(other.unwrap_err(), "issuer_not_for_client");
    let none = redeem(&config, json!({ "tenant": null }));
    assert_eq!(none.unwrap_err(), "issuer_not_for_client");
}

#[test]
fn our_own_tenants_are_another_thing_than_the_issuers() {
    let config = believing(json!({ "subjects": { "aud_sub": true, "aud_tenants": ["eu"] } }));

    let plain = redeem(&config, json!({})).unwrap();
    let anywhere = believing(json!({ "subjects": { "aud_sub": true } }));
    let own = redeem(&anywhere, json!({ "aud_sub": "U1" })).unwrap();
    let outside = redeem(&config, json!({ "aud_sub": "U1" }));
    assert_eq!(outside.unwrap_err(), "tenant", "held to a tenant, and names none");
    let in_tenant = redeem(&config, json!({ "aud_sub": "U1", "aud_tenant": "eu" })).unwrap();
    let other_name = json!({ "aud_sub": "U1", "sub": "another", "aud_tenant": "eu" });

    assert_ne!(plain, own);
    assert_ne!(own, in_tenant);
    assert_eq!(redeem(&config, other_name).unwrap(), in_tenant, "it is our name that counts");
    assert_eq!(redeem(&config, json!({ "aud_tenant": "us" })).unwrap_err(), "tenant");
    // `tenant` does not stand for `aud_tenant`, nor the other way round.
    let swapped = redeem(&believing(json!({ "tenants": ["eu"] })), json!({ "aud_tenant": "eu" }));
    assert_eq!(swapped.unwrap_err(), "tenant");
    // An issuer that may not name our users names its own only.
    let untrusted = redeem(&accept_config(), json!({ "aud_sub": "U1" })).unwrap();
    assert_eq!(untrusted, redeem(&accept_config(), json!({})).unwrap());
    assert_eq!(redeem(&accept_config(), json!({ "aud_tenant": "eu" })).unwrap_err(), "tenant");
}

#[test]
fn a_saml_name_is_taken_whole_and_from_its_issuer_only() {
    let saml = json!({ "subjects": { "saml": { "issuers": ["https://saml.acme.example"] } } });
    let config = believing(saml);
    let id = |change: Value| {
        let mut id = json!({
            "format": "saml-nameid", "issuer": "https://saml.acme.example", "nameid": "alice",
        });
        id.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({ "sub_id": id })
    };

    let alice = redeem(&config, id(json!({}))).unwrap();
    let scoped = redeem(&config, id(json!({ "sp_name_qualifier": "sp1" }))).unwrap();
    let otherwise = redeem(&config, id(json!({ "sp_name_qualifier": "sp2" }))).unwrap();

    assert!(alice != scoped && scoped != otherwise);
    for (what, claims) in [
        ("missing", json!({})),
        ("not an object", json!({ "sub_id": "alice" })),
        ("another format", id(json!({ "format": "saml_nameid" }))),
        ("another issuer", id(json!({ "issuer": "https://saml.evil.example" }))),
        ("no name", id(json!({ "nameid": "" }))),
        ("a name of another type", id(json!({ "nameid": 7 }))),
        ("a qualifier of another type", id(json!({ "name_qualifier": ["x"] }))),
    ] {
        assert_eq!(redeem(&config, claims).unwrap_err(), "subject_unresolved", "{what}");
    }
    // Where qualifiers are not part of a name they change nothing.
    let loose = believing(json!({
        "subjects": { "saml": { "issuers": ["https://saml.acme.example"], "identified_by": [] } },
    }));
    assert_eq!(redeem(&loose, id(json!({ "sp_name_qualifier": "sp1" }))).unwrap(), alice);
}

/// [`believing`], with a credential for one user only, found by e-mail address.
fn for_one_address() -> Value {
    let mut config = believing(json!({ "subjects": { "email_domains": ["acme.example"] } }));
    let accept = config["resources"][0]["accept"].as_object_mut().unwrap();
    accept.remove("credential");
    accept.insert(
        "credentials".into(),
        json!([{ "bearer": { "env": "WAREHOUSE_KEY" }, "for": { "email": "Alice@acme.example" } }]),
    );
    config
}

#[test]
fn an_address_links_a_user_where_issuer_and_domain_may() {
    let config = for_one_address();
    let linked = |claims: Value| redeem(&config, claims).map(|_| ());
    let reason = "not_entitled".to_owned();

    assert_eq!(linked(json!({ "email": "Alice@acme.example" })), Ok(()));
    assert_eq!(linked(json!({ "email": "Alice@ACME.example", "email_verified": true })), Ok(()));
    for (what, claims) in [
        ("none", json!({})),
        ("unverified", json!({ "email": "Alice@acme.example", "email_verified": false })),
        ("another domain", json!({ "email": "Alice@acme.example.evil" })),
        ("a domain inside", json!({ "email": "Alice@acme.example@evil.example" })),
        ("another name", json!({ "email": "alice@acme.example" })),
        ("no name", json!({ "email": "@acme.example" })),
        ("no address", json!({ "email": "Alice" })),
    ] {
        assert_eq!(linked(claims), Err(reason.clone()), "{what}");
    }
    let mut before_others = for_one_address();
    let others = json!({ "bearer": { "env": "AS_SECRET" } });
    let entries = &mut before_others["resources"][0]["accept"]["credentials"];
    entries.as_array_mut().unwrap().push(others);
    let alice = redeem(&before_others, json!({ "email": "Alice@acme.example" })).unwrap();
    let anybody = redeem(&before_others, json!({})).unwrap();
    assert_ne!(alice, anybody, "the first entry that fits, by whichever name");
    let entries = &mut before_others["resources"][0]["accept"]["credentials"];
    entries.as_array_mut().unwrap().remove(0);
    let alice = redeem(&before_others, json!({ "email": "Alice@acme.example" })).unwrap();
    assert_eq!(alice, anybody, "by its own name, where that fits as well");
    assert_eq!(linked(json!({ "email": ["Alice@acme.example"] })), Err("claim_type".to_owned()));
    assert_eq!(
        linked(json!({ "email": "Alice@acme.example", "email_verified": "true" })),
        Err("claim_type".to_owned())
    );
    // The opt-in of one issuer is none of another's.
    let mut config = for_one_address();
    config["identity_providers"]["acme"]["subjects"] = json!({});
    config["identity_providers"]["beta"] = json!({
        "issuer": "https://beta.example",
        "cluster": "beta",
        "subjects": { "email_domains": ["acme.example"] },
    });
    config["authorization_server"]["clients"]["claude"]["identity_providers"] =
        json!(["acme", "beta"]);
    let refused = redeem(&config, json!({ "email": "Alice@acme.example" }));
    assert_eq!(refused, Err(reason));
}

#[test]
fn what_policy_refuses_is_invalid_grant_or_by_switch_access_denied() {
    let mut config = for_one_address();
    let refuse = |config: &Value| {
        let mut process = Process::new(config, 1);
        let verdict = at_token_endpoint(&mut process, token_request(), grant(&id_jag("1")));
        (status(&verdict), body(&verdict)["error"].as_str().unwrap().to_owned())
    };

    assert_eq!(refuse(&config), (400, "invalid_grant".to_owned()));
    config["authorization_server"]["access_denied_status"] = json!(403);
    assert_eq!(refuse(&config), (403, "access_denied".to_owned()));
    let mut config = accept_config();
    config["authorization_server"]["clients"]["claude"]["resources"] = json!([]);
    assert!(redeem(&config, json!({})).is_ok(), "no list is all");
    let mut second = config["resources"][0].clone();
    second["resource"] = json!(format!("{AS}/billing"));
    config["resources"].as_array_mut().unwrap().push(second);
    config["authorization_server"]["clients"]["claude"]["resources"] =
        json!([format!("{AS}/billing")]);
    assert_eq!(refuse(&config), (400, "invalid_grant".to_owned()), "another resource's client");
}

#[test]
fn other_spellings_of_our_issuer_count_only_where_listed() {
    let slash = format!("{AS}/");
    let mut config = accept_config();

    assert_eq!(redeem(&config, json!({ "aud": slash })).unwrap_err(), "aud");
    config["authorization_server"]["accepted_audiences"] = json!([slash]);
    assert!(redeem(&config, json!({ "aud": slash })).is_ok());
    assert!(redeem(&config, json!({ "aud": AS })).is_ok());
    assert_eq!(redeem(&config, json!({ "aud": [AS, slash] })).unwrap_err(), "aud");
    let endpoint = format!("{AS}/token");
    assert_eq!(redeem(&config, json!({ "aud": endpoint })).unwrap_err(), "aud");
}

#[test]
fn a_configuration_of_subjects_that_says_nothing_is_refused_at_its_field() {
    let acme = "identity_providers.acme";
    let cases = [
        (json!({ "tenants": [""] }), format!("{acme}.tenants[0]")),
        (
            json!({ "subjects": { "aud_tenants": ["a\n"] } }),
            format!("{acme}.subjects.aud_tenants[0]"),
        ),
        (
            json!({ "subjects": { "saml": { "issuers": [] } } }),
            format!("{acme}.subjects.saml.issuers"),
        ),
        (
            json!({ "subjects": { "saml": { "issuers": ["i"], "identified_by": ["nameid"] } } }),
            format!("{acme}.subjects.saml.identified_by"),
        ),
        (
            json!({ "subjects": { "email_domains": ["ACME.example"] } }),
            format!("{acme}.subjects.email_domains[0]"),
        ),
        (json!({ "replay": { "bounded": 0 } }), format!("{acme}.replay.bounded")),
        (json!({ "replay": "never" }), format!("{acme}.replay")),
    ];
    for (more, path) in cases {
        let config = believing(more);
        let refused = jagway_core::config::Config::parse(config.to_string().as_bytes(), &env);
        assert_eq!(refused.map(|_| ()).unwrap_err().path, path);
    }
    let mut config = accept_config();
    config["authorization_server"]["clients"]["claude"]["identity_providers"] =
        json!([{ "name": "acme", "tenants": ["north"] }]);
    let refused = jagway_core::config::Config::parse(config.to_string().as_bytes(), &env);
    let path = "authorization_server.clients.claude.identity_providers[0].tenants";
    assert_eq!(refused.map(|_| ()).unwrap_err().path, path);
}
