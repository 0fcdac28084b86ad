//! Callers that bring a token of their own: an access token of the identity provider, a workload's JWT, a SAML
//! response. What is checked before anything is spent, and what is sent on.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jagway_core::config::Config;
use jagway_core::digest::short_digest;
use jagway_core::http::{Answer, CallFailed, Callout, Request};
use jagway_core::store::Store;
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const FORGE: &str = "https://forge.example";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:";
const TYPE: &str = "urn:ietf:params:oauth:token-type:";

/// The upgrade configuration with these callers, and a forge that issues tokens to workloads.
fn config(callers: Value) -> Value {
    let mut config = upgrade_config();
    config["resources"][0]["upgrade"]["callers"] = callers;
    config["identity_providers"]["acme"]["token_endpoint"] = json!(format!("{IDP}/token"));
    config["identity_providers"]["acme"]["jwks_uri"] = json!(format!("{IDP}/keys"));
    let server = &mut config["resources"][0]["upgrade"]["authorization_server"];
    server["token_endpoint"] = json!(format!("{AS}/token"));
    config
}

fn with_forge(callers: Value) -> Value {
    let mut config = config(callers);
    config["identity_providers"]["forge"] =
        json!({ "issuer": FORGE, "cluster": "forge", "jwks_uri": format!("{FORGE}/keys") });
    config
}

/// Everybody else: a provider whose key is 1, a forge whose key is 2, and a Resource AS that gives out one token.
#[derive(Default)]
struct Others {
    /// Forms that the provider got.
    exchanges: Vec<BTreeMap<String, String>>,
    redemptions: usize,
}

impl Others {
    fn answer(&mut self, callout: &Callout) -> Result<Answer, CallFailed> {
        match (callout.cluster.as_str(), callout.path.as_str()) {
            ("idp", "/keys") => answer(200, &jwks(&[1])),
            ("forge", "/keys") => answer(200, &jwks(&[2])),
            ("idp", "/token") => {
                let form = form_urlencoded::parse(callout.body.expose().as_bytes());
                let form: BTreeMap<_, _> = form.into_owned().collect();
                self.exchanges.push(form.clone());
                self.issued(&form)
            }
            ("as", "/token") => {
                self.redemptions += 1;
                let token = format!("access-{}", self.redemptions);
                let body =
                    json!({ "access_token": token, "token_type": "Bearer", "expires_in": 300 });
                json_answer(200, &body)
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn issued(&self, form: &BTreeMap<String, String>) -> Result<Answer, CallFailed> {
        let wanted = form.get("requested_token_type").map(String::as_str).unwrap_or_default();
        let number = self.exchanges.len();
        match wanted.strip_prefix(TYPE) {
            Some("id-jag") => json_answer(
                200,
                &json!({
                    "access_token": id_jag(&format!("grant-{number}")), "token_type": "N_A",
                    "issued_token_type": wanted, "scope": "stock.read",
                }),
            ),
            Some("refresh_token") => json_answer(
                200,
                &json!({
                    "access_token": format!("refresh-{number}"), "token_type": "N_A",
                    "issued_token_type": wanted,
                }),
            ),
            _ => json_answer(
                200,
                &json!({ "access_token": format!("own-{number}"), "token_type": "Bearer" }),
            ),
        }
    }
}

fn call(header: &str, value: &str) -> Request {
    request("POST", "tickets.internal.example", "/mcp", &[(header, value)])
}

/// How a request with this credential ends: the access token it went on with, or the status and the reason.
fn outcome(process: &mut Process, others: &mut Others, request: Request) -> Result<String, String> {
    process.request(0, 1, request);
    process.answer(&mut |callout| others.answer(callout));
    match process.verdict() {
        Verdict::Forward(edits, _) => Ok(edits.set[0].1.expose().to_owned()),
        verdict => {
            let line = process.log.iter().rfind(|line| line.starts_with("refused")).unwrap();
            let code = line.split(['[', ']']).nth(1).unwrap();
            Err(format!("{} {code}", status(&verdict)))
        }
    }
}

fn fresh(config: &Value, request: Request) -> (Result<String, String>, Others) {
    let mut others = Others::default();
    let outcome = outcome(&mut Process::new(config, 1), &mut others, request);
    (outcome, others)
}

fn signed(seed: u8, typ: &str, claims: Value, change: Value) -> String {
    let mut claims = claims;
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    format!("Bearer {}", key(seed).sign(typ, &claims))
}

fn access_token(typ: &str, change: Value) -> String {
    let claims = json!({
        "iss": IDP, "sub": "alice", "aud": "api://gateway", "client_id": "agent", "jti": "1",
        "iat": NOW, "exp": NOW + 3600,
    });
    signed(1, typ, claims, change)
}

#[test]
fn an_access_token_of_the_provider_is_taken_where_the_operator_says_so() {
    let callers = json!([{ "access_token": { "audience": "api://gateway" } }]);

    let good = access_token("at+jwt", json!({}));
    let (taken, others) = fresh(&config(callers.clone()), call("authorization", &good));
    let (not_said, spent) =
        fresh(&config(json!([{ "id_token": {} }])), call("authorization", &good));

    assert_eq!(taken, Ok("Bearer access-1".to_owned()));
    let form = &others.exchanges[0];
    assert_eq!(form["subject_token"], good.trim_start_matches("Bearer "));
    assert_eq!(form["subject_token_type"], format!("{TYPE}access_token"));
    assert_eq!(not_said, Err("401 typ".to_owned()));
    assert!(spent.exchanges.is_empty());
    for (typ, change, why) in [
        ("JWT", json!({}), "typ"),
        ("oauth-id-jag+jwt", json!({}), "typ"),
        ("at+jwt", json!({ "aud": "jagway" }), "aud"),
        ("at+jwt", json!({ "iss": FORGE }), "iss"),
        ("at+jwt", json!({ "exp": NOW - 61 }), "expired"),
        ("at+jwt", json!({ "sub": null }), "claim_missing"),
    ] {
        let token = access_token(typ, change.clone());
        let (refused, spent) = fresh(&config(callers.clone()), call("authorization", &token));
        assert_eq!(refused, Err(format!("401 {why}")), "{typ} {change}");
        assert!(spent.exchanges.is_empty());
    }
}

#[test]
fn a_token_is_judged_as_the_kind_that_it_says_it_is() {
    let callers = json!([
        { "id_token": {} },
        { "access_token": { "audience": "api://gateway" } },
        {
            "workload_token": { "issuer": "forge", "audience": "jagway", "claims": { "repository": "acme/x" } },
            "subject": { "refresh_token": { "env": "BOT_REFRESH" } },
        },
    ]);
    let config = with_forge(callers);
    let id_token =
        json!({ "iss": IDP, "sub": "alice", "aud": "jagway", "iat": NOW, "exp": NOW + 60 });

    for (token, kind) in [
        (signed(1, "JWT", id_token.clone(), json!({})), "id_token"),
        (access_token("at+jwt", json!({})), "access_token"),
        (workload(json!({ "repository": "acme/x" })), "refresh_token"),
    ] {
        let (outcome, others) = fresh(&config, call("authorization", &token));
        assert_eq!(outcome, Ok("Bearer access-1".to_owned()), "{kind}");
        assert_eq!(others.exchanges[0]["subject_token_type"], format!("{TYPE}{kind}"));
    }
    // One that says it is an access token must be one, and one of nobody's is nobody's.
    let disguised = signed(1, "at+jwt", id_token, json!({}));
    assert_eq!(fresh(&config, call("authorization", &disguised)).0, Err("401 aud".to_owned()));
    let nobodys = access_token("at+jwt", json!({ "iss": "https://elsewhere.example" }));
    assert_eq!(
        fresh(&config, call("authorization", &nobodys)).0,
        Err("401 api_key_unknown".to_owned())
    );
}

fn workload(change: Value) -> String {
    let claims = json!({
        "iss": FORGE, "aud": "jagway", "sub": "repo:acme/x:ref:refs/heads/main",
        "repository": "acme/x", "ref": "refs/heads/main", "iat": NOW, "exp": NOW + 300,
    });
    signed(2, "JWT", claims, change)
}

#[test]
fn a_workload_is_the_first_entry_that_its_verified_claims_fit() {
    let entry = |name: &str, claims: Value, env: &str| {
        json!({
            "name": name,
            "workload_token": { "issuer": "forge", "audience": "jagway", "claims": claims },
            "subject": { "refresh_token": { "env": env } },
        })
    };
    let main = json!({ "repository": "acme/x", "ref": "refs/heads/main" });
    let config = with_forge(json!([
        entry("releases", main, "BOT_REFRESH"),
        entry("builds", json!({ "repository": "acme/*" }), "OTHER_REFRESH"),
    ]));

    for (change, caller) in [
        (json!({}), "releases bot-refresh-token"),
        (json!({ "ref": "refs/heads/evil" }), "builds other-refresh-token"),
        (json!({ "repository": "acme/y" }), "builds other-refresh-token"),
        (json!({ "repository": "acme-evil/x" }), "401 workload_unknown"),
        (json!({ "repository": ["acme/x"] }), "401 workload_unknown"),
        (json!({ "repository": null }), "401 workload_unknown"),
        (json!({ "aud": "other" }), "401 workload_unknown"),
        (json!({ "exp": NOW + 7200 }), "401 workload_unknown"),
        (json!({ "exp": NOW - 61, "iat": NOW - 200 }), "401 expired"),
        (json!({ "iss": "https://elsewhere.example" }), "401 api_key_unknown"),
    ] {
        let mut process = Process::new(&config, 1);
        let mut others = Others::default();
        let outcome =
            outcome(&mut process, &mut others, call("authorization", &workload(change.clone())));
        match (outcome, others.exchanges.first()) {
            (Err(refused), None) => assert_eq!(refused, caller, "{change}"),
            (Ok(_), Some(form)) => {
                let name = caller.split(' ').next().unwrap();
                assert_eq!(format!("{name} {}", form["subject_token"]), caller, "{change}");
                let record = format!("exchanged caller={name:?}");
                assert!(process.log.iter().any(|line| line.starts_with(&record)), "{change}");
            }
            other => panic!("{change} {other:?}"),
        }
    }
}

#[test]
fn where_the_provider_takes_a_workloads_jwt_it_becomes_an_access_token_first() {
    let config = with_forge(json!([{
        "workload_token": { "issuer": "forge", "audience": "jagway", "claims": { "repository": "acme/x" } },
        "subject": { "jwt_bearer": { "scopes": ["openid"] } },
    }]));
    let token = workload(json!({}));

    let (outcome, others) = fresh(&config, call("authorization", &token));

    assert_eq!(outcome, Ok("Bearer access-1".to_owned()));
    let [grant, exchange] = &others.exchanges[..] else { panic!("{:?}", others.exchanges) };
    assert_eq!(grant["grant_type"], format!("{GRANT}jwt-bearer"));
    assert_eq!(grant["assertion"], token.trim_start_matches("Bearer "));
    assert_eq!(grant["scope"], "openid");
    assert_eq!(exchange["subject_token"], "own-1");
    assert_eq!(exchange["subject_token_type"], format!("{TYPE}access_token"));
}

/// A SAML assertion with this `ID`, as some identity provider of today would write it.
fn assertion(id: &str, until: &str) -> String {
    format!(
        "<saml:Assertion xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"{id}\" Version=\"2.0\" \
         IssueInstant=\"2027-01-15T08:00:00Z\"><saml:Issuer>https://saml.example</saml:Issuer>\
         <ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"><ds:SignedInfo>\
         <ds:Reference URI=\"#{id}\"/></ds:SignedInfo></ds:Signature>\
         <saml:Subject><saml:NameID>alice</saml:NameID>\
         <saml:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:bearer\">\
         <saml:SubjectConfirmationData NotOnOrAfter=\"{until}\"/></saml:SubjectConfirmation></saml:Subject>\
         <saml:Conditions NotBefore=\"2027-01-15T07:59:00Z\" NotOnOrAfter=\"{until}\">\
         <saml:AudienceRestriction><saml:Audience>urn:sp</saml:Audience></saml:AudienceRestriction>\
         </saml:Conditions></saml:Assertion>"
    )
}

/// [`NOW`] is 2027-01-15T08:00:00Z.
const LATER: &str = "2027-01-15T08:10:00Z";

fn saml_config(exchange: Value) -> Value {
    let caller = json!({
        "saml": { "header": "x-saml", "issuer": "https://saml.example", "audience": "urn:sp" },
    });
    let mut config = config(json!([caller]));
    config["identity_providers"]["acme"]["token_exchange"] = json!({ "saml": exchange });
    config
}

#[test]
fn a_saml_assertion_is_exchanged_as_it_came() {
    let xml = assertion("_1", LATER);
    let config = saml_config(json!({}));

    let (outcome, others) = fresh(&config, call("x-saml", &STANDARD.encode(&xml)));

    assert_eq!(outcome, Ok("Bearer access-1".to_owned()));
    let form = &others.exchanges[0];
    assert_eq!(form["subject_token_type"], format!("{TYPE}saml2"));
    assert_eq!(form["subject_token"], URL_SAFE_NO_PAD.encode(&xml));
    for (xml, why) in [
        (assertion("_1", "2027-01-15T07:58:00Z"), "401 saml_expired"),
        (xml.replace("urn:sp", "urn:other"), "401 saml_audience"),
        (xml.replace("https://saml.example", "https://evil.example"), "401 saml_issuer"),
        (xml.replace("ds:Signature", "ds:Nothing"), "401 saml_unsigned"),
    ] {
        let (refused, spent) = fresh(&config, call("x-saml", &STANDARD.encode(&xml)));
        assert_eq!(refused, Err(why.to_owned()));
        assert!(spent.exchanges.is_empty());
    }
}

#[test]
fn a_saml_assertion_may_be_exchanged_for_a_refresh_token_which_serves_from_then_on() {
    let config = saml_config(json!({ "as": "refresh_token", "encoding": "base64" }));
    let (mut process, mut others) = (Process::new(&config, 1), Others::default());
    let xml = assertion("_1", LATER);
    let request = || call("x-saml", &STANDARD.encode(&xml));

    let first = outcome(&mut process, &mut others, request());
    process.now += 296;
    let second = outcome(&mut process, &mut others, request());

    assert_eq!([first, second], ["1", "2"].map(|n| Ok(format!("Bearer access-{n}"))));
    let [hop, exchange, again] = &others.exchanges[..] else { panic!("{:?}", others.exchanges) };
    assert_eq!(hop["requested_token_type"], format!("{TYPE}refresh_token"));
    assert_eq!(hop["subject_token_type"], format!("{TYPE}saml2"));
    assert_eq!(hop["subject_token"], STANDARD.encode(&xml));
    assert_eq!(hop["scope"], "openid offline_access");
    assert!(!hop.contains_key("audience") && !hop.contains_key("resource"));
    for form in [exchange, again] {
        assert_eq!(form["subject_token"], "refresh-1");
        assert_eq!(form["subject_token_type"], format!("{TYPE}refresh_token"));
    }
}

#[test]
fn another_assertion_with_an_identifier_that_was_used_is_refused_and_the_same_is_not() {
    let config = saml_config(json!({}));
    let (mut process, mut others) = (Process::new(&config, 1), Others::default());
    let xml = assertion("_1", LATER);
    let other = xml.replace("alice", "mallory");
    let mut present = |process: &mut Process, xml: &str| {
        outcome(process, &mut others, call("x-saml", &STANDARD.encode(xml)))
    };

    let first = present(&mut process, &xml);
    let forged = present(&mut process, &other);
    process.now += 296;
    let again = present(&mut process, &xml);

    assert!(first.is_ok() && again.is_ok(), "{first:?} {again:?}");
    assert_eq!(forged, Err("401 subject_rejected".to_owned()));
}

#[test]
fn another_assertion_stays_another_one_however_often_it_comes() {
    let config = saml_config(json!({}));
    let (mut process, mut others) = (Process::new(&config, 1), Others::default());
    let other = assertion("_1", LATER).replace("alice", "mallory");
    let mut present = |process: &mut Process, xml: &str| {
        outcome(process, &mut others, call("x-saml", &STANDARD.encode(xml)))
    };
    present(&mut process, &assertion("_1", LATER)).unwrap();

    for _ in 0..3 {
        assert_eq!(present(&mut process, &other), Err("401 subject_rejected".to_owned()));
        process.now += 6;
    }
}

#[test]
fn what_only_the_provider_can_prove_is_nobodys_where_it_is_not_asked() {
    let unproven = [
        json!({ "refresh_token": { "header": "x-refresh" } }),
        json!({ "saml": { "issuer": "https://saml.example", "audience": "urn:sp" } }),
    ];

    for (caller, ema) in
        unproven.iter().flat_map(|one| ["never", "preferred"].map(|ema| (one, ema)))
    {
        let mut config = config(json!([caller]));
        config["resources"][0]["upgrade"]["ema"] = json!(ema);
        assert_eq!(refused_at(&config), "resources[0].upgrade.ema", "{caller}");
    }
}

#[test]
fn where_clients_who_speak_ema_pass_no_caller_brings_a_token_of_a_server_there() {
    let workload = json!({
        "workload_token": { "issuer": "forge", "audience": "jagway", "claims": { "repository": "acme/x" } },
        "subject": { "refresh_token": { "env": "BOT_REFRESH" } },
    });
    let access = json!({ "access_token": { "audience": "api://gateway" } });

    for (caller, issuer, ema) in [
        (workload, FORGE, "required"),
        (json!({ "id_token": {} }), IDP, "never"),
        (access, IDP, "never"),
    ] {
        let is_workload = issuer == FORGE;
        let callers = json!([caller]);
        let mut config = if is_workload { with_forge(callers) } else { config(callers) };
        let upgrade = &mut config["resources"][0]["upgrade"];
        upgrade["authorization_server"]["issuer"] = json!(issuer);
        upgrade["ema"] = json!(ema);
        assert_eq!(refused_at(&config), "", "{issuer}");

        config["resources"][0]["upgrade"]["pass_ema_clients"] = json!(true);

        assert_eq!(refused_at(&config), "resources[0].upgrade.pass_ema_clients", "{issuer}");
    }
}

fn refused_at(config: &Value) -> String {
    Config::parse(config.to_string().as_bytes(), &env)
        .err()
        .map(|error| error.path)
        .unwrap_or_default()
}

#[test]
fn a_workload_that_is_bound_to_an_id_token_goes_by_that_user_until_either_ends() {
    let bound = |env: &str| {
        with_forge(json!([{
            "workload_token": { "issuer": "forge", "audience": "jagway", "claims": { "repository": "acme/x" } },
            "subject": { "id_token": { "env": env } },
        }]))
    };
    let mut ended = (Process::new(&bound("OLD_ID_TOKEN"), 1), Others::default());
    let mut good = (Process::new(&bound("BOT_ID_TOKEN"), 1), Others::default());
    let present = |(process, others): &mut (Process, Others)| {
        outcome(process, others, call("authorization", &workload(json!({}))))
    };

    let (refused, first) = (present(&mut ended), present(&mut good));
    good.0.now += 115;
    let last = present(&mut good);
    good.0.now += 6;
    let late = present(&mut good);

    assert_eq!(refused, Err("502 exchange_misconfigured".to_owned()));
    assert!(ended.1.exchanges.is_empty());
    assert!(first.is_ok() && last.is_ok(), "{first:?} {last:?}");
    assert_eq!(late, Err("502 exchange_misconfigured".to_owned()));
    assert!(good.0.log.iter().any(|line| line.contains(&short_digest("alice"))));
}

#[test]
fn what_nobody_here_can_prove_takes_no_room_from_what_is_proven() {
    let kept = |process: &Process, kind: &str| {
        let buckets = (0..256).map(|n| process.store.get(&format!("jagway/{kind}/{n:x}")).unwrap());
        buckets.filter(|(bytes, _)| bytes.len() > 2).count()
    };
    let unproven = json!([{ "refresh_token": { "header": "x-refresh" } }]);

    for (callers, request, places) in [
        (unproven, call("x-refresh", "RT-of-somebody"), (0, 1)),
        (
            saml_config(json!({}))["resources"][0]["upgrade"]["callers"].clone(),
            call("x-saml", &STANDARD.encode(assertion("_1", LATER))),
            (0, 1),
        ),
        (
            upgrade_config()["resources"][0]["upgrade"]["callers"].clone(),
            call("x-api-key", "bot-key"),
            (1, 0),
        ),
    ] {
        let (mut process, mut others) = (Process::new(&config(callers), 1), Others::default());
        outcome(&mut process, &mut others, request).unwrap();
        assert_eq!((kept(&process, "token"), kept(&process, "unproven")), places);
    }
}
