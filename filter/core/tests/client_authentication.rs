//! Clients that authenticate with a secret (RFC 6749 §2.3.1).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::worker::Verdict;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(answer("Basic Y2xhdWRlOndyb25n"), answer("Basic bm9ib2R5OnMzY3JldA=="));
}
