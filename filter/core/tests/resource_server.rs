//! MCP requests to a resource that is accepted for (RFC 6750, RFC 9068, RFC 9728).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::http::{Headers, Request};
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const METADATA: &str = "https://mcp.acme.example/.well-known/oauth-protected-resource/warehouse";

fn access_token(process: &mut Process, jti: &str) -> String {
    let verdict = at_token_endpoint(process, token_request(), grant(&id_jag(jti)));
    body(&verdict)["access_token"].as_str().unwrap().to_owned()
}

fn own(change: Value) -> String {
    let mut claims = json!({
        "iss": AS, "aud": WAREHOUSE, "sub": "s", "client_id": "claude", "iat": NOW,
        "exp": NOW + 300, "jti": "t",
        "sub_id": { "format": "iss_sub", "iss": IDP, "sub": "alice" },
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let key = jagway_core::signing::SigningKey::from_pem(&pem(9), Some("own-1")).unwrap();
    key.sign("at+jwt", &claims)
}

fn call(fields: &[(&str, &str)]) -> Request {
    request("POST", "mcp.acme.example", "/warehouse", fields)
}

fn judge(request: Request) -> Verdict {
    let mut process = Process::new(&accept_config(), 1);
    process.request(0, 1, request);
    process.verdict()
}

#[test]
fn a_good_token_lets_the_request_through_with_the_backends_credential() {
    let mut process = Process::new(&accept_config(), 1);
    let bearer = format!("Bearer {}", access_token(&mut process, "1"));
    let fields = [
        ("authorization", bearer.as_str()),
        ("cookie", "a=b"),
        ("dpop", "x"),
        ("x-api-key", "mine"),
        ("x-jagway-subject", "root"),
        ("x_api_key", "mine"),
        ("x_jagway-subject", "root"),
        ("x-other", "stays"),
    ];

    process.request(0, 2, call(&fields));

    let Verdict::Forward(edits, after) = process.verdict() else { panic!("refused") };
    let expected = [
        "authorization",
        "cookie",
        "dpop",
        "x-api-key",
        "x-jagway-subject",
        "x_api_key",
        "x_jagway-subject",
    ];
    assert_eq!(edits.remove, expected);
    let set: Vec<_> =
        edits.set.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(set, [("x-api-key", "warehouse-key")]);
    assert!(after.credential_is_ours && after.origin.is_none());
}

#[test]
fn a_token_of_any_worker_is_good_at_every_worker() {
    let mut process = Process::new(&accept_config(), 2);
    let bearer = format!("bearer {}", access_token(&mut process, "1"));

    process.request(1, 2, call(&[("authorization", &bearer)]));

    assert_eq!(status(&process.verdict()), 0);
}

#[test]
fn without_a_token_the_challenge_says_where_to_get_one() {
    let verdict = judge(call(&[]));

    assert_eq!(status(&verdict), 401);
    let challenge = format!(
        "Bearer realm=\"mcp\", resource_metadata=\"{METADATA}\", scope=\"stock.read stock.write\""
    );
    assert_eq!(header(&verdict, "www-authenticate"), Some(challenge.as_str()));
    assert_eq!(header(&verdict, "cache-control"), Some("no-store"));
}

#[test]
fn tokens_that_are_not_for_this_resource_now_are_invalid() {
    let key =
        |seed, kid| jagway_core::signing::SigningKey::from_pem(&pem(seed), Some(kid)).unwrap();
    let claims = json!({
        "iss": AS, "aud": WAREHOUSE, "sub": "s", "client_id": "c", "iat": NOW, "exp": NOW + 300,
        "jti": "t", "sub_id": { "format": "iss_sub", "iss": IDP, "sub": "alice" },
    });
    let sound = own(json!({}));
    let cases = [
        ("sound", sound.clone(), 0),
        ("expired", own(json!({ "exp": NOW - 60, "iat": NOW - 300 })), 401),
        ("not yet", own(json!({ "nbf": NOW + 61 })), 401),
        ("another issuer", own(json!({ "iss": IDP })), 401),
        ("another resource", own(json!({ "aud": format!("{AS}/billing") })), 401),
        ("two audiences", own(json!({ "aud": [WAREHOUSE, AS] })), 401),
        ("another key", key(2, "own-1").sign("at+jwt", &claims), 401),
        ("another kid", key(9, "own-2").sign("at+jwt", &claims), 401),
        ("typ JWT", key(9, "own-1").sign("JWT", &claims), 401),
        ("an ID-JAG", id_jag("1"), 401),
        ("an ID-JAG's typ, our key", key(9, "own-1").sign("oauth-id-jag+jwt", &claims), 401),
        ("opaque", "abc".to_owned(), 401),
        ("cut", sound[..sound.len() - 1].to_owned(), 401),
    ];

    for (what, token, code) in cases {
        let verdict = judge(call(&[("authorization", &format!("Bearer {token}"))]));
        assert_eq!(status(&verdict), code, "{what}");
        if code == 401 {
            let challenge = header(&verdict, "www-authenticate").unwrap();
            assert!(
                challenge.starts_with("Bearer realm=\"mcp\", error=\"invalid_token\""),
                "{what}"
            );
            assert!(challenge.contains(METADATA), "{what}");
        }
    }
}

#[test]
fn malformed_credentials_are_a_bad_request_and_other_schemes_are_none() {
    let token = own(json!({}));
    let bearer = format!("Bearer {token}");
    let (token, bearer) = (token.as_str(), bearer.as_str());
    let cases = [
        ("twice", vec![("authorization", bearer), ("authorization", bearer)], 400),
        ("joined by a comma", vec![("authorization", "Bearer a, Bearer b")], 400),
        ("no token", vec![("authorization", "Bearer")], 400),
        ("empty token", vec![("authorization", "Bearer ")], 400),
        ("two tokens", vec![("authorization", "Bearer a b")], 400),
        ("empty", vec![("authorization", "")], 400),
        ("no scheme", vec![("authorization", token)], 400),
        ("Basic", vec![("authorization", "Basic YTpi")], 401),
        ("DPoP", vec![("authorization", "DPoP abc")], 401),
    ];

    for (what, fields, code) in cases {
        let verdict = judge(call(&fields));
        assert_eq!(status(&verdict), code, "{what}");
        let challenge = header(&verdict, "www-authenticate").unwrap();
        let error = match (what, code) {
            ("Basic", _) => None,
            (_, 400) => Some("invalid_request"),
            _ => Some("invalid_token"),
        };
        match error {
            Some(error) => assert!(challenge.contains(&format!("error=\"{error}\"")), "{what}"),
            None => assert!(!challenge.contains("error="), "{what}"),
        }
    }
}

#[test]
fn header_bytes_beyond_ascii_are_survived() {
    for byte in 0x80..=0xff {
        for name in ["authorization", "cookie", "origin", ":path", ":authority", ":method"] {
            let mut fields = vec![
                (":method".to_owned(), b"POST".to_vec()),
                (":authority".to_owned(), b"mcp.acme.example".to_vec()),
                (":path".to_owned(), b"/warehouse".to_vec()),
            ];
            fields.retain(|(field, _)| field != name);
            fields.push((name.to_owned(), vec![b'B', byte]));

            let verdict = judge(Request { headers: Headers::new(fields), ..Request::default() });

            assert!((400..500).contains(&status(&verdict)), "{name} {byte:x}");
        }
    }
    assert_eq!(status(&judge(Request::default())), 400, "no header at all");
}

#[test]
fn tokens_in_the_query_are_refused_however_they_are_spelled() {
    let bearer = format!("Bearer {}", own(json!({})));
    let cases = [
        ("/warehouse?access_token=x", 400),
        ("/warehouse?a=b&access_token=x", 400),
        ("/warehouse?%61ccess_token=x", 400),
        ("/warehouse?ACCESS_TOKEN=x", 400),
        ("/warehouse?a=access_token", 0),
    ];

    for (path, code) in cases {
        let fields = [("authorization", bearer.as_str())];
        let verdict = judge(request("POST", "mcp.acme.example", path, &fields));
        assert_eq!(status(&verdict), code, "{path}");
    }
}

#[test]
fn pages_of_other_origins_are_refused_and_preflights_never_go_upstream() {
    let mut config = accept_config();
    config["resources"][0]["accept"]["allowed_origins"] = json!(["https://app.example"]);
    let judge = |method: &str, origin: &str, preflight: bool| {
        let mut fields = vec![("origin", origin)];
        if preflight {
            fields.push(("access-control-request-method", "POST"));
        }
        let mut process = Process::new(&config, 1);
        process.request(0, 1, request(method, "mcp.acme.example", "/warehouse", &fields));
        process.verdict()
    };

    assert_eq!(status(&judge("POST", "https://evil.example", false)), 403);
    assert_eq!(status(&judge("POST", "null", false)), 403);
    assert_eq!(status(&judge("OPTIONS", "https://evil.example", true)), 403);
    let unauthorized = judge("POST", "https://app.example", false);
    assert_eq!(status(&unauthorized), 401);
    assert_eq!(header(&unauthorized, "access-control-allow-origin"), Some("https://app.example"));
    let refused = judge("POST", "https://evil.example", false);
    assert_eq!(header(&refused, "access-control-allow-origin"), None);
    assert_eq!(status(&judge("POST", AS, false)), 401);
    let preflight = judge("OPTIONS", "https://app.example", true);
    assert_eq!(status(&preflight), 204);
    assert_eq!(header(&preflight, "access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(status(&judge("OPTIONS", "https://app.example", false)), 401);
}

#[test]
fn every_path_at_or_below_the_resource_needs_a_token_and_no_other_exists() {
    let cases = [
        ("/warehouse", 401),
        ("/warehouse/", 401),
        ("/warehouse/messages", 401),
        ("/warehouse?x=/public", 401),
        ("/warehouses", 404),
        ("/WAREHOUSE", 404),
        ("/%77arehouse", 400),
        ("//warehouse", 400),
        ("/", 404),
        ("", 400),
        ("*", 400),
        ("https://mcp.acme.example/warehouse", 400),
        ("/warehouse/..;/admin", 400),
        ("/warehouse;x=1", 400),
        ("/warehouse/../admin", 400),
        ("/warehouse/%2e%2e/admin", 400),
        ("/warehouse%2f..%2fadmin", 400),
        ("/warehouse%5c..", 400),
        ("/warehouse%00", 400),
        ("/warehouse\\x", 400),
        ("/warehouse//admin", 400),
        ("/warehouse/%61dmin", 400),
        ("/warehouse/%", 400),
        ("/warehouse/%20x", 401),
        ("/.well-known/oauth-protected-resource/../../warehouse", 400),
        ("/.well-known/oauth-protected-resource", 404),
        ("/.well-known/oauth-protected-resource/", 404),
        ("/.well-known/openid-configuration", 404),
        ("/authorize", 404),
    ];

    for (path, code) in cases {
        let verdict = judge(request("GET", "mcp.acme.example", path, &[]));
        assert_eq!(status(&verdict), code, "{path}");
    }
    let elsewhere = judge(request("GET", "other.example", "/warehouse", &[]));
    assert_eq!(status(&elsewhere), 404);
    for authority in ["mcp.acme.example:443", "MCP.acme.example"] {
        assert_eq!(status(&judge(request("GET", authority, "/warehouse", &[]))), 401);
    }
}

#[test]
fn headers_that_speak_of_other_paths_change_nothing() {
    let names = ["x-envoy-original-path", "x-original-url", "x-rewrite-url", "x-forwarded-prefix"];

    for name in names {
        let verdict = judge(call(&[(name, "/.well-known/oauth-protected-resource/warehouse")]));
        assert_eq!(status(&verdict), 401, "{name}");
    }
}

#[test]
fn the_published_documents_say_what_is_offered_and_no_more() {
    let get = |path: &str| judge(request("GET", "mcp.acme.example", path, &[]));

    let resource = get("/.well-known/oauth-protected-resource/warehouse");
    assert_eq!(
        body(&resource),
        json!({
            "resource": WAREHOUSE,
            "authorization_servers": [AS],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["stock.read", "stock.write"],
            "resource_name": "Warehouse",
        })
    );
    let server = get("/.well-known/oauth-authorization-server");
    assert_eq!(
        body(&server),
        json!({
            "issuer": AS,
            "token_endpoint": format!("{AS}/token"),
            "jwks_uri": format!("{AS}/.well-known/jagway/jwks.json"),
            "grant_types_supported": ["urn:ietf:params:oauth:grant-type:jwt-bearer"],
            "authorization_grant_profiles_supported":
                ["urn:ietf:params:oauth:grant-profile:id-jag"],
            "token_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported":
                ["ES256", "RS256", "PS256", "EdDSA"],
            "revocation_endpoint": format!("{AS}/revoke"),
            "revocation_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt"],
            "revocation_endpoint_auth_signing_alg_values_supported":
                ["ES256", "RS256", "PS256", "EdDSA"],
            "scopes_supported": ["stock.read", "stock.write"],
        })
    );
    let keys = body(&get("/.well-known/jagway/jwks.json"));
    let members: Vec<&String> = keys["keys"][0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert!(header(&server, "cache-control").unwrap().starts_with("max-age="));
    assert_eq!(header(&server, "access-control-allow-origin"), Some("*"));
}

#[test]
fn documents_are_read_and_nothing_else() {
    let path = "/.well-known/oauth-authorization-server";
    let with = |method: &str| judge(request(method, "mcp.acme.example", path, &[]));

    assert_eq!(status(&with("HEAD")), 200);
    assert_eq!(status(&with("OPTIONS")), 204);
    let posted = with("POST");
    assert_eq!((status(&posted), header(&posted, "allow")), (405, Some("GET, HEAD")));
}

#[test]
fn the_compatibility_endpoint_is_published_only_on_request_and_always_refuses() {
    let mut config = accept_config();
    config["authorization_server"]["compat_authorization_endpoint"] = json!(true);
    let get = |path: &str| {
        let mut process = Process::new(&config, 1);
        process.request(0, 1, request("GET", "mcp.acme.example", path, &[]));
        process.verdict()
    };

    let metadata = body(&get("/.well-known/oauth-authorization-server"));
    assert_eq!(metadata["authorization_endpoint"], format!("{AS}/authorize"));
    assert_eq!(metadata["response_types_supported"], json!(["none"]));
    let refused = get("/authorize?response_type=code");
    assert_eq!(status(&refused), 400);
    assert_eq!(body(&refused)["error"], "unsupported_response_type");
}

#[test]
fn an_event_stream_is_cut_when_its_user_is_revoked() {
    let mut process = Process::new(&accept_config(), 1);
    for (stream, user) in [(7, "alice"), (8, "bob")] {
        let id = json!({ "format": "iss_sub", "iss": IDP, "sub": user });
        let authorization = format!("Bearer {}", own(json!({ "sub_id": id })));
        let fields = [("authorization", authorization.as_str())];
        process.request(0, stream, request("GET", "mcp.acme.example", "/warehouse", &fields));
        let Verdict::Forward(_, after) = process.verdict() else { panic!("{:?}", process.log) };
        let events = ("content-type".to_owned(), b"text/event-stream".to_vec());
        process.workers[0].opened(stream, &after, &Headers::new(vec![events]));
    }

    process.tick();
    assert!(process.closed.is_empty());
    let alice = jagway_core::revocation::origin(IDP, None, "alice");
    let done = jagway_core::revocation::revoke_origin(&*process.store, &alice, NOW, NOW + 900, NOW);
    process.now += 1;
    process.tick();

    assert!(done.is_ok());
    assert_eq!(process.closed, [(0, 7)]);
}

#[test]
fn an_event_stream_is_cut_when_its_token_has_expired() {
    let open = |content_type: &str, closed_by_client: bool| {
        let mut process = Process::new(&accept_config(), 1);
        let authorization = format!("Bearer {}", own(json!({})));
        let fields = [("authorization", authorization.as_str())];
        process.request(0, 7, request("GET", "mcp.acme.example", "/warehouse", &fields));
        let Verdict::Forward(_, after) = process.verdict() else { panic!("{:?}", process.log) };
        let head = [(":status", "200"), ("content-type", content_type)];
        let head = head.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        process.workers[0].opened(7, &after, &Headers::new(head.to_vec()));
        if closed_by_client {
            process.workers[0].gone(7);
        }
        process.now += 359;
        process.tick();
        assert!(process.closed.is_empty(), "the token, and the skew, are not over yet");
        process.now += 1;
        process.tick();
        process.tick();
        process.closed.len()
    };

    assert_eq!(open("text/event-stream", false), 1);
    assert_eq!(open("Text/Event-Stream; charset=utf-8", false), 1);
    assert_eq!(open("application/json", false), 0, "an answer is let finish");
    assert_eq!(open("text/event-stream", true), 0);
}
