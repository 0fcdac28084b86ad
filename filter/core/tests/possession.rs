//! Tokens that are bound to a key (DPoP, RFC 9449) or to a certificate (RFC 8705), from the grant to
//! the resource.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::client_certificate::ClientCertificate;
use jagway_core::digest::{base64url, sha256};
use jagway_core::http::Request;
use jagway_core::jwk;
use jagway_core::store::Store;
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use support::assertions::changed;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ENDPOINT: &str = "https://mcp.acme.example/token";

/// The client's key, with this seed, as proofs bring it.
fn public(seed: u8) -> Value {
    let jwk = key(seed).public_jwk();
    json!({ "kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"] })
}

fn jkt(seed: u8) -> String {
    jwk::thumbprint(public(seed).as_object().unwrap()).unwrap()
}

/// A proof by the key of `seed`, with claims changed.
fn proof(seed: u8, change: Value) -> String {
    use p256::ecdsa::signature::Signer;
    let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": public(seed) });
    let mut claims = json!({ "jti": "p", "htm": "POST", "htu": ENDPOINT, "iat": NOW });
    claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    let input = format!("{}.{}", part(&header), part(&claims));
    let key = p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap();
    let signature: p256::ecdsa::Signature = key.sign(input.as_bytes());
    format!("{input}.{}", base64url(&signature.to_bytes()))
}

fn certificate(byte: u8) -> Option<ClientCertificate> {
    let digest = jagway_core::digest::hex(&[byte; 32]);
    ClientCertificate::from_attributes(&digest, "CN=claude,O=Acme", "spiffe://acme/claude", "")
}

fn with_header(mut request: Request, name: &str, value: &str) -> Request {
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    for name in request.headers.names() {
        fields.push((name.to_owned(), request.headers.sole(name).unwrap().to_vec()));
    }
    fields.push((name.to_owned(), value.as_bytes().to_vec()));
    request.headers = jagway_core::http::Headers::new(fields);
    request
}

fn dpop_config() -> Value {
    let mut config = accept_config();
    config["authorization_server"]["dpop"] = json!({ "jwt_dpop_grant": true });
    config
}

/// Redeems a grant with these claims changed, with `proof` if there is one.
fn redeem(process: &mut Process, jti: &str, cnf: Value, proof: Option<&str>) -> Verdict {
    let grant_token = changed(json!({ "jti": jti, "cnf": cnf }));
    let request = match proof {
        None => token_request(),
        Some(proof) => with_header(token_request(), "dpop", proof),
    };
    at_token_endpoint(process, request, grant(&grant_token))
}

/// A call of the resource with `token` under `scheme`.
fn call(process: &mut Process, scheme: &str, token: &str, proof: Option<&str>) -> Verdict {
    let authorization = format!("{scheme} {token}");
    let mut fields = vec![("authorization", authorization.as_str())];
    fields.extend(proof.map(|proof| ("dpop", proof)));
    process.request(0, 9, request("POST", "mcp.acme.example", "/warehouse", &fields));
    process.verdict()
}

#[test]
fn the_decision_table_of_the_profile_is_followed() {
    let own = json!({ "jkt": jkt(3) });
    let by_jwk = json!({ "jwk": public(3) });
    let disagreeing = json!({ "jkt": jkt(4), "jwk": public(3) });
    let other_htu = json!({ "htu": "https://mcp.acme.example/other" });
    let cases = [
        ("bound, same key", own.clone(), Some(proof(3, json!({}))), Ok("DPoP")),
        ("bound by jwk, same key", by_jwk, Some(proof(3, json!({}))), Ok("DPoP")),
        ("bound, another key", own.clone(), Some(proof(4, json!({}))), Err("invalid_grant")),
        ("bound, no proof", own.clone(), None, Err("invalid_grant")),
        (
            "bound, bad proof",
            own.clone(),
            Some(proof(3, other_htu.clone())),
            Err("invalid_dpop_proof"),
        ),
        ("not bound, bad proof", Value::Null, Some(proof(3, other_htu)), Err("invalid_dpop_proof")),
        ("not bound, proof", Value::Null, Some(proof(3, json!({}))), Ok("DPoP")),
        ("neither", Value::Null, None, Ok("Bearer")),
        ("two keys", disagreeing, Some(proof(3, json!({}))), Err("invalid_grant")),
        (
            "a cnf nobody knows",
            json!({ "kid": "x" }),
            Some(proof(3, json!({}))),
            Err("invalid_grant"),
        ),
        ("an empty cnf", json!({}), None, Err("invalid_grant")),
        (
            "a certificate that was not shown",
            json!({ "x5t#S256": base64url(&[1; 32]) }),
            None,
            Err("invalid_grant"),
        ),
    ];

    for (what, cnf, proof, outcome) in cases {
        let mut process = Process::new(&dpop_config(), 1);
        let verdict = redeem(&mut process, "1", cnf, proof.as_deref());
        let answer = body(&verdict);
        let found = match status(&verdict) {
            200 => Ok(answer["token_type"].as_str().unwrap()),
            _ => Err(answer["error"].as_str().unwrap()),
        };
        assert_eq!(found, outcome, "{what}: {:?}", process.log);
    }
}

#[test]
fn a_host_verifies_grants_tokens_and_proofs_and_signs_tokens() {
    let asked = with_host();
    let mut process = Process::new(&dpop_config(), 1);

    let verdict = redeem(&mut process, "1", Value::Null, Some(&proof(3, json!({}))));
    let for_grant = asked.both();
    let token = body(&verdict)["access_token"].as_str().unwrap().to_owned();
    let ath = base64url(&sha256(token.as_bytes()));
    let proof = proof(3, json!({ "htu": WAREHOUSE, "ath": ath }));
    let passed = call(&mut process, "DPoP", &token, Some(&proof));

    assert_eq!((status(&verdict), status(&passed)), (200, 0), "{:?}", process.log);
    assert_eq!((for_grant, asked.both()), ((2, 1), (4, 1)));
}

#[test]
fn a_proof_counts_once_and_a_bad_one_burns_no_grant() {
    let mut process = Process::new(&dpop_config(), 2);
    let good = proof(3, json!({}));

    let stale = proof(3, json!({ "iat": NOW - 61 }));
    assert_eq!(
        body(&redeem(&mut process, "1", Value::Null, Some(&stale)))["error"],
        "invalid_dpop_proof"
    );
    assert_eq!(status(&redeem(&mut process, "1", Value::Null, Some(&good))), 200);
    let again = redeem(&mut process, "2", Value::Null, Some(&good));
    let other_key = redeem(&mut process, "2", Value::Null, Some(&proof(4, json!({}))));

    assert_eq!(body(&again)["error"], "invalid_dpop_proof");
    assert!(process.log.iter().any(|line| line.starts_with("refused [dpop_jti_replayed]")));
    assert_eq!(status(&other_key), 200, "the same jti of another key is another proof");
}

#[test]
fn where_nonces_are_demanded_one_is_handed_out_and_then_taken() {
    let mut config = dpop_config();
    config["authorization_server"]["dpop"]["nonces"] = json!(true);
    let mut process = Process::new(&config, 1);

    let without = redeem(&mut process, "1", Value::Null, Some(&proof(3, json!({}))));
    let nonce = header(&without, "dpop-nonce").unwrap().to_owned();
    let with = proof(3, json!({ "jti": "q", "nonce": nonce }));
    let with = redeem(&mut process, "1", Value::Null, Some(&with));

    assert_eq!((status(&without), &body(&without)["error"]), (400, &json!("use_dpop_nonce")));
    assert_eq!(header(&without, "cache-control"), Some("no-store"));
    assert_eq!(status(&with), 200);
    let token = body(&with)["access_token"].as_str().unwrap().to_owned();
    let at_resource = |extra: Value| {
        let mut claims = json!({ "htu": WAREHOUSE, "ath": base64url(&sha256(token.as_bytes())) });
        claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        proof(3, claims)
    };
    let refused = call(&mut process, "DPoP", &token, Some(&at_resource(json!({}))));
    assert_eq!((status(&refused), &body(&refused)["error"]), (401, &json!("use_dpop_nonce")));
    let nonce = header(&refused, "dpop-nonce").unwrap().to_owned();
    let challenge = header(&refused, "www-authenticate").unwrap();
    assert!(challenge.starts_with("DPoP algs=\"ES256 "), "{challenge}");
    assert!(challenge.contains("error=\"use_dpop_nonce\""), "{challenge}");
    let passed = call(&mut process, "DPoP", &token, Some(&at_resource(json!({ "nonce": nonce }))));
    assert_eq!(status(&passed), 0);
}

#[test]
fn a_bound_token_passes_with_its_scheme_and_a_proof_of_its_key_only() {
    let mut process = Process::new(&dpop_config(), 1);
    let answer = body(&redeem(&mut process, "1", Value::Null, Some(&proof(3, json!({})))));
    let bound = answer["access_token"].as_str().unwrap().to_owned();
    let answer = body(&redeem(&mut process, "2", Value::Null, None));
    let plain = answer["access_token"].as_str().unwrap().to_owned();
    let at = |seed, token: &str, change: Value| {
        let ath = base64url(&sha256(token.as_bytes()));
        let mut claims = json!({ "htu": WAREHOUSE, "ath": ath, "jti": change.to_string() });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        Some(proof(seed, claims))
    };
    let cases = [
        ("sound", "DPoP", &bound, at(3, &bound, json!({ "htu": WAREHOUSE })), 0, ""),
        ("scheme in another case", "dpop", &bound, at(3, &bound, json!({})), 0, ""),
        ("as bearer", "Bearer", &bound, None, 401, "invalid_token"),
        (
            "as bearer, with proof",
            "Bearer",
            &bound,
            at(3, &bound, json!({ "iat": NOW + 1 })),
            401,
            "invalid_token",
        ),
        ("no proof", "DPoP", &bound, None, 401, "invalid_token"),
        ("another key's proof", "DPoP", &bound, at(4, &bound, json!({})), 401, "invalid_token"),
        (
            "another token's proof",
            "DPoP",
            &bound,
            at(3, &plain, json!({ "a": 1 })),
            401,
            "invalid_dpop_proof",
        ),
        (
            "no ath",
            "DPoP",
            &bound,
            Some(proof(3, json!({ "htu": WAREHOUSE }))),
            401,
            "invalid_dpop_proof",
        ),
        (
            "another method",
            "DPoP",
            &bound,
            at(3, &bound, json!({ "htm": "GET" })),
            401,
            "invalid_dpop_proof",
        ),
        (
            "another path",
            "DPoP",
            &bound,
            at(3, &bound, json!({ "htu": AS })),
            401,
            "invalid_dpop_proof",
        ),
        (
            "stale",
            "DPoP",
            &bound,
            at(3, &bound, json!({ "iat": NOW - 61 })),
            401,
            "invalid_dpop_proof",
        ),
        (
            "used before",
            "DPoP",
            &bound,
            at(3, &bound, json!({ "htu": WAREHOUSE })),
            401,
            "invalid_dpop_proof",
        ),
        (
            "a plain token as bound",
            "DPoP",
            &plain,
            at(3, &plain, json!({ "b": 1 })),
            401,
            "invalid_token",
        ),
        ("a plain token", "Bearer", &plain, None, 0, ""),
    ];

    for (what, scheme, token, proof, code, error) in cases {
        let verdict = call(&mut process, scheme, token, proof.as_deref());
        assert_eq!(status(&verdict), code, "{what}: {:?}", process.log.last());
        assert_eq!(body(&verdict)["error"].as_str().unwrap_or_default(), error, "{what}");
        if let Verdict::Forward(edits, _) = &verdict {
            assert!(edits.remove.contains(&"authorization".to_owned()), "{what}");
            assert_eq!(proof.is_some(), edits.remove.contains(&"dpop".to_owned()), "{what}");
        }
    }
}

#[test]
fn a_client_registered_for_bound_tokens_never_gets_another() {
    let mut config = dpop_config();
    config["authorization_server"]["clients"]["claude"]["dpop_bound_access_tokens"] = json!(true);
    let mut process = Process::new(&config, 1);

    let without = redeem(&mut process, "1", Value::Null, None);
    let with = redeem(&mut process, "1", Value::Null, Some(&proof(3, json!({}))));

    assert_eq!((status(&without), &body(&without)["error"]), (400, &json!("invalid_dpop_proof")));
    assert_eq!(body(&with)["token_type"], "DPoP");
}

#[test]
fn two_proofs_are_none() {
    let mut process = Process::new(&dpop_config(), 1);
    let pair = format!("{}, {}", proof(3, json!({})), proof(3, json!({ "jti": "q" })));

    let joined = redeem(&mut process, "1", Value::Null, Some(&pair));

    assert_eq!((status(&joined), &body(&joined)["error"]), (400, &json!("invalid_dpop_proof")));
}

#[test]
fn the_grant_type_for_bound_grants_takes_no_other() {
    let mut fields = vec![("grant_type", "urn:ietf:params:oauth:grant-type:jwt-dpop")];
    let bound = changed(json!({ "cnf": { "jkt": jkt(3) } }));
    let plain = id_jag("1");
    let send = |config: &Value, assertion: &str, proof: Option<String>| {
        fields.truncate(1);
        let body_fields = [fields.as_slice(), &[("assertion", assertion)]].concat();
        let request = match &proof {
            None => token_request(),
            Some(proof) => with_header(token_request(), "dpop", proof),
        };
        let mut process = Process::new(config, 1);
        let verdict = at_token_endpoint(&mut process, request, form(&body_fields));
        (status(&verdict), body(&verdict)["error"].as_str().unwrap_or_default().to_owned())
    };
    let mut send = send;

    let own = Some(proof(3, json!({})));
    assert_eq!(send(&dpop_config(), &bound, own.clone()).0, 200);
    assert_eq!(send(&dpop_config(), &plain, own.clone()), (400, "invalid_grant".to_owned()));
    assert_eq!(send(&dpop_config(), &bound, None), (400, "invalid_grant".to_owned()));
    assert_eq!(send(&accept_config(), &bound, own), (400, "unsupported_grant_type".to_owned()));
}

#[test]
fn a_resource_that_takes_bound_tokens_only_gets_no_other() {
    let mut config = dpop_config();
    config["resources"][0]["accept"]["bound_tokens"] = json!("dpop");
    let mut process = Process::new(&config, 1);

    let plain = redeem(&mut process, "1", Value::Null, None);
    let bound = redeem(&mut process, "2", Value::Null, Some(&proof(3, json!({}))));
    process.request(0, 9, request("GET", "mcp.acme.example", "/warehouse", &[]));
    let challenge = process.verdict();

    assert_eq!((status(&plain), &body(&plain)["error"]), (400, &json!("invalid_grant")));
    assert_eq!(status(&bound), 200);
    assert!(header(&challenge, "www-authenticate").unwrap().starts_with("DPoP "));
}

fn mtls_config(client: Value) -> Value {
    let mut config = accept_config();
    config["authorization_server"]["mutual_tls"] = json!({ "chain": "verified" });
    let mut client = client;
    client["identity_providers"] = json!(["acme"]);
    config["authorization_server"]["clients"]["claude"] = client;
    config
}

/// A token request without a secret, on a connection with this certificate.
fn by_certificate(
    process: &mut Process,
    shown: Option<ClientCertificate>,
    client_id: Option<&str>,
) -> Verdict {
    let assertion = id_jag("1");
    let mut fields = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", assertion.as_str()),
    ];
    fields.extend(client_id.map(|id| ("client_id", id)));
    let mut request = request(
        "POST",
        "mcp.acme.example",
        "/token",
        &[
            ("content-type", "application/x-www-form-urlencoded"),
            // What a client may claim in a header counts for nothing.
            ("x-forwarded-client-cert", "Hash=0101;Subject=\"CN=claude,O=Acme\""),
        ],
    );
    request.certificate = shown;
    at_token_endpoint(process, request, form(&fields))
}

#[test]
fn a_client_is_known_by_the_certificate_of_its_connection() {
    let digest = jagway_core::digest::hex(&[1; 32]);
    let kinds = [
        json!({ "tls_client_auth": { "subject_dn": "CN=claude,O=Acme" } }),
        json!({ "tls_client_auth": { "san_uri": "spiffe://acme/claude" } }),
        json!({ "self_signed_tls_client_auth": { "certificate_sha256": [digest] } }),
    ];
    for kind in kinds {
        let config = mtls_config(kind.clone());
        let send = |shown, id| status(&by_certificate(&mut Process::new(&config, 1), shown, id));

        assert_eq!(send(certificate(1), Some("claude")), 200, "{kind}");
        assert_eq!(send(None, Some("claude")), 401, "{kind}: no certificate");
        assert_eq!(send(certificate(1), None), 401, "{kind}: nobody named");
        assert_eq!(send(certificate(1), Some("other")), 401, "{kind}: another's method");
        assert_eq!(send(certificate(1), Some("nobody")), 401, "{kind}: unknown");
        let stranger = ClientCertificate::from_attributes(
            &jagway_core::digest::hex(&[2; 32]),
            "CN=claude,O=Evil",
            "spiffe://evil/claude",
            "",
        );
        assert_eq!(send(stranger, Some("claude")), 401, "{kind}: another certificate");
        // A secret is not what this client is registered for.
        let secret =
            at_token_endpoint(&mut Process::new(&config, 1), token_request(), grant(&id_jag("1")));
        assert_eq!(status(&secret), 401, "{kind}");
    }
}

#[test]
fn a_name_in_a_certificate_counts_only_where_the_chain_is_verified() {
    let name = json!({ "tls_client_auth": { "san_dns": "claude.acme.example" } });
    let digest = json!({ "self_signed_tls_client_auth": { "certificate_sha256": ["00"] } });
    let path = |mut config: Value, tls: Value| {
        config["authorization_server"]["mutual_tls"] = tls;
        let refused = jagway_core::config::Config::parse(config.to_string().as_bytes(), &env);
        refused.map(|_| ()).unwrap_err().path
    };
    let client = "authorization_server.clients.claude";

    assert_eq!(
        path(mtls_config(name.clone()), json!({ "chain": "untrusted" })),
        format!("{client}.tls_client_auth")
    );
    assert_eq!(path(mtls_config(name), Value::Null), format!("{client}.tls_client_auth"));
    assert_eq!(
        path(mtls_config(digest), json!({ "chain": "untrusted" })),
        format!("{client}.self_signed_tls_client_auth.certificate_sha256")
    );
    let mut config = accept_config();
    config["resources"][0]["accept"]["bound_tokens"] = json!("certificate");
    assert_eq!(path(config, Value::Null), "resources[0].accept.bound_tokens");
}

#[test]
fn a_token_bound_to_a_certificate_needs_its_connection() {
    let mut config = accept_config();
    config["authorization_server"]["mutual_tls"] = json!({ "chain": "untrusted" });
    config["resources"][0]["accept"]["bound_tokens"] = json!("certificate");
    let mut process = Process::new(&config, 1);
    let shown = certificate(1).unwrap();
    let cnf = json!({ "x5t#S256": shown.x5t_s256() });
    let mut redeem = |jti: &str, cnf: &Value, certificate: Option<ClientCertificate>| {
        let mut request = token_request();
        request.certificate = certificate;
        let assertion = changed(json!({ "jti": jti, "cnf": cnf }));
        body(&at_token_endpoint(&mut process, request, grant(&assertion)))
    };

    assert_eq!(redeem("1", &cnf, None)["error"], "invalid_grant");
    assert_eq!(redeem("1", &cnf, certificate(2))["error"], "invalid_grant");
    assert_eq!(
        redeem("1", &Value::Null, None)["error"],
        "invalid_grant",
        "the resource asks for it"
    );
    let answer = redeem("1", &cnf, certificate(1));
    assert_eq!(answer["token_type"], "Bearer", "RFC 8705: no type of its own");
    let by_resource = redeem("2", &Value::Null, certificate(1));
    assert_eq!(by_resource["token_type"], "Bearer");

    for token in [&answer["access_token"], &by_resource["access_token"]] {
        let authorization = format!("Bearer {}", token.as_str().unwrap());
        for (certificate, code) in [(certificate(1), 0), (certificate(2), 401), (None, 401)] {
            let mut request = request(
                "POST",
                "mcp.acme.example",
                "/warehouse",
                &[("authorization", &authorization)],
            );
            request.certificate = certificate;
            process.request(0, 9, request);
            assert_eq!(status(&process.verdict()), code);
        }
    }
}

#[test]
fn where_the_body_counts_a_proof_is_for_one_body() {
    let mut config = dpop_config();
    let accept = config["resources"][0]["accept"].as_object_mut().unwrap();
    accept.insert("mcp".into(), json!({ "content_digest": true }));
    let alone = jagway_core::config::Config::parse(config.to_string().as_bytes(), &env);
    assert_eq!(alone.map(|_| ()).unwrap_err().path, "resources[0].accept.mcp.content_digest");
    config["resources"][0]["accept"]["bound_tokens"] = json!("dpop");
    let mut process = Process::new(&config, 1);
    let answer = body(&redeem(&mut process, "1", Value::Null, Some(&proof(3, json!({})))));
    let token = answer["access_token"].as_str().unwrap().to_owned();
    let message = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let digest = {
        use base64::Engine;
        let digest = base64::engine::general_purpose::STANDARD.encode(sha256(message));
        format!("sha-256=:{digest}:")
    };
    let mut call = |jti: &str, claims: Value, sent: &[u8]| {
        let ath = base64url(&sha256(token.as_bytes()));
        let mut all = json!({ "htu": WAREHOUSE, "ath": ath, "jti": jti });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let (authorization, proof) = (format!("DPoP {token}"), proof(3, all));
        let fields = [
            ("authorization", authorization.as_str()),
            ("dpop", proof.as_str()),
            ("content-type", "application/json"),
        ];
        let request = request("POST", "mcp.acme.example", "/warehouse", &fields);
        process.request_with_body(0, 9, request, sent.to_vec());
        status(&process.verdict())
    };

    assert_eq!(call("a", json!({ "content_digest": digest }), message), 0);
    let other = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#;
    assert_eq!(call("b", json!({ "content_digest": digest }), other), 401);
    assert_eq!(call("c", json!({}), message), 401);
    // The extension's window is wider.
    assert_eq!(call("d", json!({ "content_digest": digest, "iat": NOW - 300 }), message), 0);
    assert_eq!(call("e", json!({ "content_digest": digest, "iat": NOW - 301 }), message), 401);
}

#[test]
fn where_a_proof_cannot_be_remembered_it_does_not_count() {
    let mut process = Process::new(&dpop_config(), 1);
    let full: Vec<u8> = [0xff; 24].repeat(160);
    for bucket in 0..16384 {
        for kind in ["dpop-jti", "client-jti"] {
            assert!(process.store.swap(&format!("jagway/{kind}/{bucket:x}"), &full, 0).unwrap());
        }
    }

    let verdict = redeem(&mut process, "1", Value::Null, Some(&proof(3, json!({}))));

    assert_eq!(
        (status(&verdict), &body(&verdict)["error"]),
        (503, &json!("temporarily_unavailable"))
    );
    let again = redeem(&mut process, "1", Value::Null, None);
    assert_eq!(status(&again), 200, "and the grant is not spent by it");
}

#[test]
fn when_a_resource_begins_to_ask_for_certificates_older_tokens_end() {
    let mut process = Process::new(&accept_config(), 1);
    let answer = body(&redeem(&mut process, "1", Value::Null, None));
    let token = answer["access_token"].as_str().unwrap().to_owned();
    let mut config = accept_config();
    config["authorization_server"]["mutual_tls"] = json!({ "chain": "untrusted" });
    config["resources"][0]["accept"]["bound_tokens"] = json!("certificate");
    let mut now = Process::beside(&process, &config);

    assert_eq!(status(&call(&mut process, "Bearer", &token, None)), 0);
    assert_eq!(status(&call(&mut now, "Bearer", &token, None)), 401);
}
