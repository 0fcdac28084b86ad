//! What the identity provider and the Resource AS answer, and what becomes of it (RFC 8693 §2.2, ID-JAG §4.3,
//! §4.4; RFC 6749 §5).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::servers::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const LEGS: [&str; 2] = ["exchange", "redemption"];

/// What a caller is told.
struct Told {
    status: u16,
    error: &'static str,
    code: &'static str,
    /// For how long others are told the same without another try, in seconds.
    remembered: u64,
}

const fn told(status: u16, error: &'static str, code: &'static str, remembered: u64) -> Told {
    Told { status, error, code, remembered }
}

const REJECTED: Told = told(401, "invalid_token", "subject_rejected", 5);
const FORBIDDEN: Told = told(403, "access_denied", "exchange_forbidden", 10);
const OURS: Told = told(502, "bad_gateway", "exchange_misconfigured", 5);
const JUNK: Told = told(502, "bad_gateway", "exchange_bad_answer", 2);
const DOWN: Told = told(503, "temporarily_unavailable", "exchange_unavailable", 2);
const STEP_UP: Told = told(401, "insufficient_user_authentication", "step_up", 10);

/// Status and body of an answer; what it means in the exchange; what in the redemption.
fn answers() -> Vec<(u16, Value, Told, Told)> {
    let error = |code: &str| json!({ "error": code, "error_description": "of theirs" });
    vec![
        (400, error("invalid_request"), REJECTED, JUNK),
        (400, error("invalid_grant"), REJECTED, JUNK),
        (401, error("invalid_grant"), REJECTED, JUNK),
        (403, error("invalid_grant"), REJECTED, JUNK),
        (401, error("invalid_client"), OURS, OURS),
        (400, error("invalid_client"), OURS, OURS),
        (400, error("unauthorized_client"), FORBIDDEN, FORBIDDEN),
        (400, error("unsupported_grant_type"), OURS, OURS),
        (400, error("invalid_target"), FORBIDDEN, FORBIDDEN),
        (400, error("invalid_scope"), FORBIDDEN, FORBIDDEN),
        (400, error("invalid_authorization_details"), FORBIDDEN, FORBIDDEN),
        (400, error("access_denied"), FORBIDDEN, FORBIDDEN),
        (403, error("access_denied"), FORBIDDEN, FORBIDDEN),
        (400, error("insufficient_user_authentication"), STEP_UP, STEP_UP),
        (400, error("invalid_dpop_proof"), JUNK, JUNK),
        (400, error("use_dpop_nonce"), JUNK, JUNK),
        (400, error("temporarily_unavailable"), DOWN, DOWN),
        (400, error("server_error"), DOWN, DOWN),
        (400, error("something_new"), JUNK, JUNK),
        (400, json!({ "error": ["invalid_grant"] }), JUNK, JUNK),
        (400, json!({}), JUNK, JUNK),
        (400, json!("<html>"), JUNK, JUNK),
        (404, json!("not found"), JUNK, JUNK),
        (302, json!({}), JUNK, JUNK),
        (201, json!({ "access_token": "AS-token-0", "token_type": "Bearer" }), JUNK, JUNK),
        (204, json!(""), JUNK, JUNK),
        (200, json!([]), JUNK, JUNK),
        (200, json!(""), JUNK, JUNK),
        (200, error("invalid_grant"), JUNK, JUNK),
        (429, error("slow_down"), DOWN, DOWN),
        (500, error("invalid_grant"), DOWN, DOWN),
        (502, json!("bad gateway"), DOWN, DOWN),
        (503, json!(""), DOWN, DOWN),
        (SILENCE, json!(""), DOWN, DOWN),
    ]
}

#[test]
fn what_a_server_says_becomes_what_the_caller_may_know_for_a_while() {
    for (code, body_of, at_exchange, at_redemption) in answers() {
        for (leg, told) in LEGS.into_iter().zip([at_exchange, at_redemption]) {
            let what = format!("{leg}: {code} {body_of}");
            let mut world = World::new(&[]);
            world.servers.always(leg, code, &[], &body_of);

            let verdict = world.bot();

            assert_eq!(status(&verdict), told.status, "{what}: {:?}", world.process.log);
            assert_eq!(body(&verdict)["error"], told.error, "{what}");
            assert!(!format!("{verdict:?}").contains("of theirs"), "{what}");
            assert_eq!(world.refused(), told.code, "{what}");
            let retry = header(&verdict, "retry-after");
            assert_eq!(retry, (told.status == 503).then_some("5"), "{what}");
            let challenge = format!("Bearer realm=\"mcp\", error=\"{}\"", told.error);
            let challenge = (told.status == 401).then_some(challenge.as_str());
            assert_eq!(header(&verdict, "www-authenticate"), challenge, "{what}");
            // The grant may have been what was wrong: one new one, once.
            let is_grant =
                matches!(body_of["error"].as_str(), Some("invalid_grant" | "invalid_request"));
            let again = leg == "redemption" && is_grant && (400..500).contains(&code);
            let tries = (
                1 + usize::from(again),
                if leg == "exchange" { 0 } else { 1 + usize::from(again) },
            );
            let tried = |world: &World| {
                (world.servers.count("exchange"), world.servers.count("redemption"))
            };
            assert_eq!(tried(&world), tries, "{what}");
            // Nobody is asked again until it is forgotten.
            world.later(told.remembered - 1);
            assert_eq!(status(&world.bot()), told.status, "{what}");
            assert_eq!(tried(&world), tries, "{what}: remembered");
            world.servers.well();
            world.later(1);
            assert_eq!(status(&world.bot()), 0, "{what}: forgotten");
        }
    }
}

#[test]
fn how_the_user_has_to_authenticate_is_told_in_the_challenge() {
    let cases = [
        (json!({}), ""),
        (json!({ "acr_values": "mfa phr" }), ", acr_values=\"mfa phr\""),
        (json!({ "max_age": 60 }), ", max_age=\"60\""),
        (json!({ "acr_values": "mfa", "max_age": 0 }), ", acr_values=\"mfa\", max_age=\"0\""),
        (json!({ "acr_values": "a\"\r\nx: y\\", "max_age": -1 }), ", acr_values=\"a\\\"x: y\\\\\""),
        (json!({ "acr_values": ["mfa"], "max_age": "60" }), ""),
    ];

    for leg in LEGS {
        for (members, expected) in &cases {
            let mut world = World::new(&[]);
            let error = json!({ "error": "insufficient_user_authentication" });
            world.servers.once(leg, 400, &[], merged(error, members));
            let verdict = world.bot();
            let start = "Bearer realm=\"mcp\", error=\"insufficient_user_authentication\"";
            let expected = format!("{start}{expected}");
            assert_eq!(header(&verdict, "www-authenticate"), Some(&*expected), "{leg} {members}");
        }
    }
}

#[test]
fn a_grant_that_is_refused_is_replaced_by_a_new_one_once() {
    for error in ["invalid_grant", "invalid_request"] {
        let mut world = World::new(&[]);
        world.servers.once("redemption", 400, &[], json!({ "error": error }));

        let token = world.bot_token();

        assert_eq!(token, "Bearer AS-token-3");
        assert_eq!(
            world.servers.token_calls(),
            ["exchange", "redemption", "exchange", "redemption"]
        );
        let assertions: Vec<&str> =
            world.servers.calls.iter().map(|call| call.get("assertion")).collect();
        let mut distinct: Vec<&str> =
            assertions.into_iter().filter(|text| !text.is_empty()).collect();
        distinct.dedup();
        assert_eq!(distinct.len(), 2, "never the same one twice");
        assert_eq!(world.process.counts["done.exchanged"], 1);
    }
}

/// A change to what a server answers, and whether the token is taken.
type Changes = Vec<(&'static str, Value, bool)>;

fn check(changes: &[(&str, Value)], leg: &str, of: fn(&mut Servers) -> &mut Value, cases: Changes) {
    for (what, change, is_taken) in cases {
        let mut world = World::new(changes);
        *of(&mut world.servers) = change.clone();
        let verdict = world.bot();
        let expected = if is_taken { 0 } else { 502 };
        assert_eq!(status(&verdict), expected, "{what} {change}: {:?}", world.process.log);
        // An ID-JAG that is not sound goes nowhere.
        let redeemed = world.servers.count("redemption") > 0;
        assert_eq!(redeemed, is_taken || leg == "redemption", "{what}");
    }
}

#[test]
fn only_an_id_jag_that_says_so_is_taken_from_the_provider() {
    let urn = |name: &str| format!("urn:ietf:params:oauth:token-type:{name}");
    check(
        &[],
        "exchange",
        |servers| &mut servers.exchange,
        vec![
            ("no type", json!({ "issued_token_type": null }), false),
            ("an access token", json!({ "issued_token_type": urn("access_token") }), false),
            ("a JWT", json!({ "issued_token_type": urn("jwt") }), false),
            ("a type in capitals", json!({ "issued_token_type": urn("ID-JAG") }), false),
            ("several types", json!({ "issued_token_type": [urn("id-jag")] }), false),
            ("no token type", json!({ "token_type": null }), false),
            ("a bearer token", json!({ "token_type": "Bearer" }), false),
            ("a token type of ours", json!({ "token_type": "DPoP" }), false),
            ("a token type in lower case", json!({ "token_type": "n_a" }), true),
            ("no token", json!({ "access_token": null }), false),
            ("an empty token", json!({ "access_token": "" }), false),
            ("a token that is no text", json!({ "access_token": 1 }), false),
            ("an opaque token", json!({ "access_token": "opaque" }), false),
            (
                "a token in another member",
                json!({ "access_token": null, "id_token": id_jag("1") }),
                false,
            ),
            ("no life", json!({ "expires_in": null }), true),
            ("members nobody knows", json!({ "x": [], "act": {} }), true),
        ],
    );
}

#[test]
fn an_id_jag_must_be_what_was_asked_for() {
    check(
        &[],
        "exchange",
        |servers| &mut servers.header,
        vec![
            ("no typ", json!({ "typ": null }), false),
            ("an access token", json!({ "typ": "at+jwt" }), false),
            ("an ID Token", json!({ "typ": "JWT" }), false),
            ("in full", json!({ "typ": "application/oauth-id-jag+jwt" }), true),
            ("in capitals", json!({ "typ": "OAuth-ID-JAG+JWT" }), true),
            ("a typ that is no text", json!({ "typ": ["oauth-id-jag+jwt"] }), false),
        ],
    );
    check(
        &[],
        "exchange",
        |servers| &mut servers.claims,
        vec![
            ("expired", json!({ "exp": NOW }), false),
            ("no end", json!({ "exp": null }), false),
            ("an end of text", json!({ "exp": "4000000000" }), false),
            ("about to end", json!({ "exp": NOW + 1 }), true),
            ("for nobody", json!({ "aud": null }), false),
            ("for another server", json!({ "aud": "https://x.example" }), false),
            ("a slash more", json!({ "aud": format!("{AS}/") }), false),
            ("for its token endpoint", json!({ "aud": format!("{AS}/token") }), false),
            ("for another server too", json!({ "aud": [AS, "https://x.example"] }), false),
            ("for the server, in a list", json!({ "aud": [AS] }), true),
            ("for another client", json!({ "client_id": "jagway" }), false),
            ("for no client", json!({ "client_id": null }), false),
            ("for another resource", json!({ "resource": format!("{WAREHOUSE}2") }), false),
            ("for another resource too", json!({ "resource": [WAREHOUSE, AS] }), false),
            ("for the resource twice", json!({ "resource": [WAREHOUSE, WAREHOUSE] }), false),
            ("for no resource of a list", json!({ "resource": [] }), false),
            ("for a resource that is none", json!({ "resource": 7 }), false),
            ("for the resource, in a list", json!({ "resource": [WAREHOUSE] }), true),
            ("for whatever resource", json!({ "resource": null }), true),
            ("about nobody", json!({ "sub": null }), false),
            ("about several", json!({ "sub": ["alice"] }), false),
            ("about anybody, as the user is not known", json!({ "sub": "x" }), true),
            ("bound, though nobody asked", json!({ "cnf": { "jkt": "x" } }), true),
        ],
    );
}

#[test]
fn the_resource_that_the_provider_names_is_ours_alone() {
    check(
        &[],
        "exchange",
        |servers| &mut servers.exchange,
        vec![
            ("ours", json!({ "resource": WAREHOUSE }), true),
            ("ours in a list", json!({ "resource": [WAREHOUSE] }), true),
            ("another", json!({ "resource": AS }), false),
            ("a slash more", json!({ "resource": format!("{WAREHOUSE}/") }), false),
            ("another too", json!({ "resource": [WAREHOUSE, AS] }), false),
            ("ours twice", json!({ "resource": [WAREHOUSE, WAREHOUSE] }), false),
            ("none", json!({ "resource": [] }), false),
            ("null", json!({ "resource": 0 }), false),
            ("a list of what is no text", json!({ "resource": [WAREHOUSE, 1] }), false),
        ],
    );
}

#[test]
fn an_access_token_must_be_one_that_we_can_use() {
    let long = "a".repeat(8 * 1024);
    check(
        &[],
        "redemption",
        |servers| &mut servers.redemption,
        vec![
            ("no token", json!({ "access_token": null }), false),
            ("an empty token", json!({ "access_token": "" }), false),
            ("a list", json!({ "access_token": ["a"] }), false),
            ("a header's end", json!({ "access_token": "a\r\nx: y" }), false),
            ("a space", json!({ "access_token": "a b" }), false),
            ("a comma", json!({ "access_token": "a,b" }), false),
            ("no ASCII", json!({ "access_token": "ä" }), false),
            ("as long as may be", json!({ "access_token": long }), true),
            ("too long", json!({ "access_token": format!("{long}a") }), false),
            ("no type", json!({ "token_type": null }), false),
            ("a type nobody knows", json!({ "token_type": "mac" }), false),
            ("no access token", json!({ "token_type": "N_A" }), false),
            ("a type in capitals", json!({ "token_type": "BEARER" }), true),
            ("bound, though nobody asked", json!({ "token_type": "DPoP" }), false),
            ("a life that is over", json!({ "expires_in": 0 }), false),
            ("a negative life", json!({ "expires_in": -1 }), false),
            ("a life of text", json!({ "expires_in": "300" }), false),
            ("a part of a second", json!({ "expires_in": 1.5 }), false),
            ("the shortest life", json!({ "expires_in": 1 }), true),
            ("the longest life", json!({ "expires_in": u64::MAX }), true),
            ("no life", json!({ "expires_in": null }), true),
            ("ours", json!({ "resource": WAREHOUSE }), true),
            ("ours in a list", json!({ "resource": [WAREHOUSE] }), true),
            ("another resource", json!({ "resource": AS }), false),
            ("another resource too", json!({ "resource": [WAREHOUSE, AS] }), false),
            ("ours twice", json!({ "resource": [WAREHOUSE, WAREHOUSE] }), false),
            ("no resource of a list", json!({ "resource": [] }), false),
            ("a resource that is none", json!({ "resource": {} }), false),
            ("the scope", json!({ "scope": "stock.read" }), true),
            ("no scope", json!({ "scope": "" }), true),
            ("more scope", json!({ "scope": "stock.read stock.write" }), false),
            ("another scope", json!({ "scope": "stock.write" }), false),
            ("a scope in a list", json!({ "scope": ["stock.read"] }), false),
            ("a refresh token nobody asked for", json!({ "refresh_token": "AS-RT" }), true),
        ],
    );
    check(
        &[("upgrade/require_resource", json!(true))],
        "redemption",
        |servers| &mut servers.redemption,
        vec![
            ("nothing said", json!({}), false),
            ("ours", json!({ "resource": WAREHOUSE }), true),
            ("another", json!({ "resource": AS }), false),
        ],
    );
}

#[test]
fn a_life_that_nobody_believes_is_cut_to_what_is_configured() {
    // Seconds said, and seconds used.
    let cases = [
        (json!(u64::MAX), 300),
        (json!(86_400), 300),
        (json!(100), 95),
        (json!(8), 4),
        (json!(1), 1),
        (json!(null), 2),
    ];

    for (said, used) in cases {
        let mut world = World::new(&[]);
        world.servers.redemption = json!({ "expires_in": said });
        let first = world.bot_token();
        world.later(used - 1);
        assert_eq!(world.bot_token(), first, "{said}");
        // What is refreshed behind that may not come.
        world.process.callouts.clear();
        let mut world = World::new(&[]);
        world.servers.redemption = json!({ "expires_in": said });
        let first = world.bot_token();
        world.later(used);
        assert_ne!(world.bot_token(), first, "{said}");
    }
}

#[test]
fn less_scope_is_normal_and_more_is_not_taken() {
    let two = [("upgrade/scopes", json!(["stock.read", "stock.write"]))];
    check(
        &two,
        "redemption",
        |servers| &mut servers.redemption,
        vec![
            ("less", json!({ "scope": "stock.write" }), true),
            ("all, turned round", json!({ "scope": "stock.write stock.read" }), true),
            ("more", json!({ "scope": "stock.read stock.write admin" }), false),
            ("nearly the same", json!({ "scope": "stock.rea" }), false),
        ],
    );
    let any = [("upgrade/scopes", json!([]))];
    check(
        &any,
        "redemption",
        |servers| &mut servers.redemption,
        vec![("any", json!({ "scope": "x y" }), true)],
    );
    let wider = [("upgrade/accept_wider_scope", json!(true))];
    check(
        &wider,
        "redemption",
        |servers| &mut servers.redemption,
        vec![("wider, where that is welcome", json!({ "scope": "stock.read admin" }), true)],
    );
}

#[test]
fn scope_in_words_of_the_resource_as_is_held_against_those_words() {
    let own = [("upgrade/redemption_scopes", json!(["tickets:read", "tickets:list"]))];
    check(
        &own,
        "redemption",
        |servers| &mut servers.redemption,
        vec![
            ("all of it", json!({ "scope": "tickets:list tickets:read" }), true),
            ("less", json!({ "scope": "tickets:read" }), true),
            ("what the provider was asked for", json!({ "scope": "stock.read" }), false),
            ("more", json!({ "scope": "tickets:read admin" }), false),
        ],
    );
}

#[test]
fn of_an_id_jag_for_more_scope_no_more_is_redeemed_than_was_asked_for() {
    // What the provider says, what its ID-JAG says, what is asked of the Resource AS.
    let cases = [
        (json!("stock.read admin"), json!("stock.read"), "stock.read"),
        (json!(null), json!("stock.read admin"), "stock.read"),
        (json!(null), json!("stock.read"), ""),
        (json!("stock.read"), json!(null), ""),
        (json!(null), json!(null), ""),
    ];

    for (said, granted, asked) in cases {
        let mut world = World::new(&[]);
        world.servers.exchange = json!({ "scope": said });
        world.servers.claims = json!({ "scope": granted });
        assert_eq!(status(&world.bot()), 0, "{:?}", world.process.log);
        assert_eq!(world.servers.last("redemption").get("scope"), asked, "{said} {granted}");
        assert_eq!(world.has_logged("more scope was granted"), !asked.is_empty());
    }
}

#[test]
fn a_narrower_grant_bounds_what_the_resource_as_may_give() {
    let two = [("upgrade/scopes", json!(["stock.read", "stock.write"]))];
    for (given, expected) in [("stock.read", 0), ("stock.read stock.write", 502)] {
        let mut world = World::new(&two);
        world.servers.exchange = json!({ "scope": "stock.read" });
        world.servers.redemption = json!({ "scope": given });
        assert_eq!(status(&world.bot()), expected, "{given}");
    }
}

#[test]
fn a_grant_about_somebody_else_is_nobodys_unless_names_are_pairwise() {
    let bearer = format!("Bearer {}", id_token(&json!({})));
    let bound = json!([key_caller("bot-key", json!({ "id_token": { "env": "BOT_ID_TOKEN" } }))]);
    let key = ("x-api-key", "bot-key");
    let refreshed = ("idp/token_exchange", json!({ "refresh_token_as": "id_token" }));
    #[allow(clippy::type_complexity, reason = "a table")]
    let cases: Vec<(Vec<(&str, Value)>, (&str, &str))> = vec![
        (vec![], ("authorization", &bearer)),
        (vec![("upgrade/callers", bound)], key),
        (vec![refreshed], key),
    ];

    for (changes, credential) in cases {
        for (pairwise, subject, expected) in [
            (false, "alice", 0),
            (false, "Alice", 502),
            (false, "bob", 502),
            (true, "bob", 0),
            (true, "alice", 0),
        ] {
            let mut config = changed_config(&changes);
            config["identity_providers"]["acme"]["token_exchange"]["pairwise_subjects"] =
                json!(pairwise);
            let mut world = World::of(&config, 1);
            world.servers.claims = json!({ "sub": subject });
            let verdict = world.call(&[credential]);
            let what = format!("{changes:?} {pairwise} {subject}");
            assert_eq!(status(&verdict), expected, "{what}: {:?}", world.process.log);
            assert_eq!(world.has_logged("about another user"), expected == 502, "{what}");
            assert_eq!(world.servers.count("redemption"), usize::from(expected == 0), "{what}");
        }
    }
}

#[test]
fn binding_is_checked_in_both_answers() {
    // Change of the ID-JAG's claims and of the last answer, and what `required` and `preferred` say.
    let bearer = json!({ "token_type": "Bearer" });
    let cases = [
        (json!({}), json!({}), 0, 0),
        (json!({ "cnf": null }), json!({}), 502, 0),
        (json!({ "cnf": null }), bearer.clone(), 502, 0),
        (json!({}), bearer, 502, 0),
        (json!({ "cnf": { "jkt": "x" } }), json!({}), 502, 502),
        (json!({ "cnf": {} }), json!({}), 502, 502),
        (json!({ "cnf": "x" }), json!({}), 502, 502),
        (json!({ "cnf": { "x5t#S256": "x" } }), json!({}), 502, 502),
        (json!({ "cnf": { "jkt": ["x"] } }), json!({}), 502, 502),
        (json!({}), json!({ "token_type": "dpop" }), 0, 0),
        (json!({}), json!({ "token_type": "mac" }), 502, 502),
    ];

    for (claims, redemption, required, preferred) in cases {
        for (mode, expected) in [("required", required), ("preferred", preferred)] {
            let mut world = World::new(&[("upgrade/dpop", json!(mode))]);
            world.servers.claims = claims.clone();
            world.servers.redemption = redemption.clone();
            let verdict = world.bot();
            let what = format!("{mode} {claims} {redemption}: {:?}", world.process.log);
            assert_eq!(status(&verdict), expected, "{what}");
            if expected == 0 {
                let Verdict::Forward(edits, _) = verdict else { panic!("{what}") };
                let is_bearer = redemption["token_type"] == "Bearer";
                assert_eq!(edits.set.len(), if is_bearer { 1 } else { 2 }, "{what}");
            }
        }
    }
}

/// What is asked of whom until a request ends, with `fault`s.
fn until_refused(faults: &[&str]) -> (u16, String, Vec<&'static str>) {
    let mut world = World::new(&[]);
    let mut credential = ("x-api-key", "bot-key");
    for fault in faults {
        let servers = &mut world.servers;
        match *fault {
            "nothing recognised" => credential = ("x-other", "x"),
            "unknown key" => credential = ("x-api-key", "guess"),
            "idp metadata" => servers.idp_metadata = json!({ "issuer": "https://x.example" }),
            "exchange" => {
                servers.always("exchange", 400, &[], &json!({ "error": "invalid_target" }))
            }
            "id-jag" => servers.claims = json!({ "aud": "https://x.example" }),
            "as metadata" => servers.as_metadata = json!({ "issuer": "https://x.example" }),
            "redemption" => {
                servers.always("redemption", 400, &[], &json!({ "error": "invalid_scope" }))
            }
            "answer" => servers.redemption = json!({ "token_type": "mac" }),
            fault => panic!("{fault}"),
        }
    }
    let verdict = world.call(&[credential]);
    (status(&verdict), world.refused().to_owned(), world.servers.token_calls())
}

#[test]
fn of_two_faults_the_one_that_is_checked_first_is_told() {
    let in_order = [
        ("nothing recognised", 401, "no_credential", 0),
        ("unknown key", 401, "api_key_unknown", 0),
        ("idp metadata", 502, "exchange_bad_answer", 0),
        ("as metadata", 502, "exchange_bad_answer", 0),
        ("exchange", 403, "exchange_forbidden", 1),
        ("id-jag", 502, "exchange_misconfigured", 1),
        ("redemption", 403, "exchange_forbidden", 2),
        ("answer", 502, "exchange_bad_answer", 2),
    ];

    for (index, (first, expected, code, calls)) in in_order.iter().enumerate() {
        for (second, ..) in in_order.iter().skip(index) {
            if (*first, *second) == ("nothing recognised", "unknown key") {
                continue;
            }
            let (status, reason, asked) = until_refused(&[second, first]);
            let what = format!("{first}, {second}");
            assert_eq!((status, reason.as_str()), (*expected, *code), "{what}");
            assert_eq!(asked.len(), *calls, "{what}: {asked:?}");
        }
    }
}

#[test]
fn nothing_is_spent_at_the_provider_while_the_resource_as_is_left_alone() {
    let mut world = World::new(&[]);
    world.servers.once("redemption", 503, &[("retry-after", "120")], json!(""));
    assert_eq!(status(&world.bot()), 503);
    let asked = world.servers.token_calls();

    let other = world.call(&[("x-api-key", "other-key")]);

    assert_eq!((status(&other), world.refused()), (503, "exchange_throttled"));
    assert_eq!(world.servers.token_calls(), asked);
    world.later(121);
    assert_eq!(status(&world.call(&[("x-api-key", "other-key")])), 0);
}
