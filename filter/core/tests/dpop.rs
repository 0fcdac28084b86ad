//! Proofs of possession, each rule of RFC 9449 §4.3 with somebody who does not keep it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use ed25519_dalek::Signer as _;
use jagway_core::digest::{base64url, sha256};
use jagway_core::dpop::{ALGORITHMS, Expected, Fault, Nonces, covers, proof, verify};
use jagway_core::http::Headers;
use jagway_core::jws;
use p256::ecdsa::Signature;
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NOW: u64 = 1_800_000_000;
const URI: &str = "https://mcp.acme.example/token";

/// Of RFC 9449: the proof of §4.1, for the token endpoint; that of §7.1, for a resource, with the
/// access token it is for; and the thumbprint of their key (§6.1).
const FOR_TOKEN: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Im\
w4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqS\
G10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCI\
sImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-F\
dWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
const FOR_RESOURCE: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI\
6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSm\
FqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VU\
IiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCw\
iYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOpt\
xRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const ACCESS_TOKEN: &[u8] = b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

fn p256() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap()
}

fn jwk() -> Value {
    let point = p256().verifying_key().to_encoded_point(false);
    let (x, y) = (base64url(point.x().unwrap()), base64url(point.y().unwrap()));
    json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
}

fn header() -> Value {
    json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk() })
}

fn claims() -> Value {
    json!({ "jti": "proof-1", "htm": "POST", "htu": URI, "iat": NOW })
}

/// `value` with members replaced; `null` removes one.
fn changed(mut value: Value, change: &Value) -> Value {
    for (name, new) in change.as_object().unwrap() {
        match new {
            Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
            new => value[name] = new.clone(),
        }
    }
    value
}

/// `header` and `claims` signed with the key of [`jwk`], whatever they say.
fn signed(header: &str, claims: &str) -> String {
    let input = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let signature: Signature = p256().sign(input.as_bytes());
    format!("{input}.{}", base64url(&signature.to_bytes()))
}

fn with_header(change: Value) -> String {
    signed(&changed(header(), &change).to_string(), &claims().to_string())
}

fn with_claims(change: Value) -> String {
    signed(&header().to_string(), &changed(claims(), &change).to_string())
}

/// A request to the token endpoint.
fn expected() -> Expected<'static> {
    Expected {
        method: "POST",
        uri: URI,
        access_token: None,
        now: NOW,
        window: 60,
        nonces: None,
        engine: None,
    }
}

fn fault(proof: &str, expected: &Expected<'_>) -> Option<Fault> {
    verify(proof.as_bytes(), expected).err()
}

#[test]
fn the_proofs_of_the_standard_pass() {
    let at_token =
        Expected { uri: "https://server.example.com/token", now: 1_562_262_616, ..expected() };
    let at_resource = Expected {
        method: "GET",
        uri: "https://resource.example.org/protectedresource",
        access_token: Some(ACCESS_TOKEN),
        now: 1_562_262_618,
        ..expected()
    };

    let for_token = verify(FOR_TOKEN.as_bytes(), &at_token).unwrap();
    let for_resource = verify(FOR_RESOURCE.as_bytes(), &at_resource).unwrap();

    assert_eq!(
        (for_token.thumbprint.as_str(), for_token.jti.as_str()),
        (THUMBPRINT, "-BwC3ESc6acc2lTc")
    );
    assert_eq!(
        (for_resource.thumbprint.as_str(), for_resource.jti.as_str()),
        (THUMBPRINT, "e1j3V_bKic8-LAEB")
    );
}

#[test]
fn an_ed25519_key_proves_itself() {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let x = base64url(key.verifying_key().as_bytes());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
    let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk }).to_string();
    let input =
        format!("{}.{}", base64url(header.as_bytes()), base64url(claims().to_string().as_bytes()));
    let proof = format!("{input}.{}", base64url(&key.sign(input.as_bytes()).to_bytes()));

    let proof = verify(proof.as_bytes(), &expected()).unwrap();

    assert_eq!(Some(proof.thumbprint), jagway_core::jwk::thumbprint(jwk.as_object().unwrap()));
}

#[test]
fn every_algorithm_offered_is_asymmetric() {
    let names: Vec<_> = ALGORITHMS.iter().map(|algorithm| algorithm.name()).collect();

    assert_eq!(names, ["ES256", "RS256", "PS256", "EdDSA"]);
}

#[test]
fn a_request_has_one_proof_or_none() {
    let headers = |values: &[&str]| {
        let field = |value: &&str| ("dpop".to_owned(), value.as_bytes().to_vec());
        Headers::new(values.iter().map(field).collect())
    };

    assert_eq!(proof(&headers(&[])), Ok(None));
    assert_eq!(proof(&headers(&["a.b.c"])), Ok(Some(b"a.b.c".as_slice())));
    for several in [["a.b.c", "a.b.c"].as_slice(), &["a.b.c", ""], &["a.b.c, d.e.f"], &[","]] {
        assert_eq!(proof(&headers(several)), Err(Fault::Several), "{several:?}");
    }
}

#[test]
fn what_a_header_may_say_besides_changes_nothing() {
    let key = |name: &str, value: Value| json!({ "jwk": changed(jwk(), &json!({ name: value })) });
    let same = verify(with_header(json!({})).as_bytes(), &expected()).unwrap();

    for change in [
        json!({ "typ": "application/DPoP+JWT" }),
        json!({ "kid": "of-nothing" }),
        key("kid", "1".into()),
        key("use", "sig".into()),
        key("alg", "ES256".into()),
        key("key_ops", json!(["verify"])),
        key("ext", true.into()),
    ] {
        let proof = verify(with_header(change.clone()).as_bytes(), &expected());
        assert_eq!(proof, Ok(same.clone()), "{change}");
    }
}

#[test]
fn a_header_that_is_not_a_proofs_is_refused() {
    use jws::Fault::*;
    let d = changed(jwk(), &json!({ "d": "x" }));
    let symmetric = json!({ "kty": "oct", "k": "AAAA" });
    let no_point = changed(jwk(), &json!({ "y": base64url(&[1; 32]) }));
    let rsa_weak = json!({ "kty": "RSA", "n": base64url(&[255; 128]), "e": "AQAB" });
    let no_key = HeaderType("jwk");
    for (change, reason) in [
        (json!({ "typ": null }), Typ),
        (json!({ "typ": "JWT" }), Typ),
        (json!({ "typ": "at+jwt" }), Typ),
        (json!({ "alg": null }), AlgorithmNotAllowed),
        (json!({ "alg": "none" }), AlgorithmNotAllowed),
        (json!({ "alg": "HS256" }), AlgorithmNotAllowed),
        (json!({ "alg": "ES384" }), AlgorithmNotAllowed),
        (json!({ "alg": "es256" }), AlgorithmNotAllowed),
        (json!({ "crit": ["x"] }), Crit),
        (json!({ "b64": false }), Crit),
        (json!({ "jwk": null }), no_key),
        (json!({ "jwk": "x" }), no_key),
        (json!({ "jwk": [jwk()] }), no_key),
        (json!({ "jwk": d }), no_key),
        (json!({ "jwk": symmetric }), no_key),
        (json!({ "jwk": no_point }), no_key),
        (json!({ "jwk": rsa_weak }), no_key),
        (json!({ "jku": "https://evil.example/keys" }), no_key),
        (json!({ "x5u": "https://evil.example/chain" }), no_key),
        (json!({ "x5c": ["x"] }), no_key),
        (json!({ "x5t": "x" }), no_key),
        (json!({ "x5t#S256": "x" }), no_key),
    ] {
        let proof = with_header(change.clone());
        assert_eq!(fault(&proof, &expected()), Some(Fault::Malformed(reason)), "{change}");
    }
}

#[test]
fn what_is_no_jws_is_no_proof() {
    let good = with_claims(json!({}));
    let twice = claims().to_string().replacen('{', r#"{"htm":"POST","#, 1);
    for proof in [
        String::new(),
        "a.b".to_owned(),
        format!("{good}.x"),
        format!(" {good}"),
        format!("{good}="),
        good.rsplit_once('.').unwrap().0.to_owned() + ".",
        signed(&header().to_string(), &twice),
        signed(&header().to_string(), "[]"),
        with_claims(json!({ "x": "x".repeat(20_000) })),
    ] {
        let fault = fault(&proof, &expected());
        assert!(matches!(fault, Some(Fault::Malformed(_))), "{proof}: {fault:?}");
    }
}

#[test]
fn a_proof_by_another_key_than_it_brings_is_refused() {
    let other = p256::ecdsa::SigningKey::from_slice(&[2; 32]).unwrap();
    let good = with_claims(json!({}));
    let (input, _) = good.rsplit_once('.').unwrap();
    let by_other: Signature = other.sign(input.as_bytes());
    let sign = |signature: &[u8]| format!("{input}.{}", base64url(signature));

    for (what, proof) in [
        ("another key", sign(&by_other.to_bytes())),
        ("zeros", sign(&[0; 64])),
        ("too short", sign(&[1; 63])),
        ("the digest", sign(&sha256(input.as_bytes()))),
        ("another kind of key", with_header(json!({ "alg": "EdDSA" }))),
        ("another kind of key", with_header(json!({ "alg": "RS256" }))),
    ] {
        assert_eq!(fault(&proof, &expected()), Some(Fault::Signature), "{what}");
    }
}

#[test]
fn a_proof_for_another_method_is_refused() {
    for htm in
        [json!("GET"), json!("post"), json!("POST "), json!(""), json!(["POST"]), json!(null)]
    {
        let proof = with_claims(json!({ "htm": htm }));
        assert_eq!(fault(&proof, &expected()), Some(Fault::Method), "{htm}");
    }
}

#[test]
fn an_address_written_in_another_way_is_the_same_address() {
    let at_root = Expected { uri: "https://mcp.acme.example", ..expected() };
    let at_port = Expected { uri: "http://[::1]:8080/t?x=y", ..expected() };
    for (htu, expected) in [
        ("HTTPS://MCP.Acme.example/token", expected()),
        ("https://mcp.acme.example:443/token", expected()),
        ("https://mcp.acme.example/token?a=b", expected()),
        ("https://mcp.acme.example/token?a=/b#c", expected()),
        ("https://mcp.acme.example/token#", expected()),
        ("https://mcp.acme.example", Expected { ..at_root }),
        ("https://mcp.acme.example/", Expected { ..at_root }),
        ("https://mcp.acme.example?x", Expected { ..at_root }),
        ("http://[::1]:8080/t", at_port),
    ] {
        let proof = with_claims(json!({ "htu": htu }));
        assert_eq!(fault(&proof, &expected), None, "{htu}");
    }
}

#[test]
fn a_proof_for_another_address_is_refused() {
    for htu in [
        json!(null),
        json!(1),
        json!([URI]),
        json!(""),
        json!("/token"),
        json!("mcp.acme.example/token"),
        json!("//mcp.acme.example/token"),
        json!("http://mcp.acme.example/token"),
        json!("https://mcp.acme.example"),
        json!("https://mcp.acme.example/"),
        json!("https://mcp.acme.example/token/"),
        json!("https://mcp.acme.example/Token"),
        json!("https://mcp.acme.example/x/../token"),
        json!("https://mcp.acme.example/%74oken"),
        json!("https://mcp.acme.example//token"),
        json!("https://mcp.acme.example\\token"),
        json!("https://mcp.acme.example/token "),
        json!(" https://mcp.acme.example/token"),
        json!("https:///mcp.acme.example/token"),
        json!("https://mcp.acme.example:8443/token"),
        json!("https://mcp.acme.example:80/token"),
        json!("https://mcp.acme.example.evil.example/token"),
        json!("https://mcp.acme.example@evil.example/token"),
        json!("https://evil@mcp.acme.example/token"),
        json!("https://evil.example/token?https://mcp.acme.example/token"),
        json!("https://evil.example#://mcp.acme.example/token"),
    ] {
        let proof = with_claims(json!({ "htu": htu }));
        assert_eq!(fault(&proof, &expected()), Some(Fault::Uri), "{htu}");
    }
}

#[test]
fn without_an_address_of_our_own_no_proof_passes() {
    let nowhere = Expected { uri: "", ..expected() };

    assert_eq!(fault(&with_claims(json!({ "htu": "" })), &nowhere), Some(Fault::Uri));
}

#[test]
fn a_proof_is_good_as_long_as_its_identifier_is_to_be_remembered() {
    let proof = with_claims(json!({}));
    let at = |now| verify(proof.as_bytes(), &Expected { now, ..expected() });

    let until = at(NOW).unwrap().until;

    assert!(at(NOW - 60).is_ok() && at(until - 1).is_ok());
    assert_eq!(at(NOW - 61), Err(Fault::IssuedAt));
    assert_eq!(at(until), Err(Fault::IssuedAt));
}

#[test]
fn a_time_that_is_no_whole_number_near_now_is_refused() {
    let far = u64::MAX;
    for iat in [
        json!(null),
        json!(NOW as f64 + 0.5),
        json!(NOW.to_string()),
        json!(0),
        json!(-1),
        json!(far),
    ] {
        let proof = with_claims(json!({ "iat": iat }));
        assert_eq!(fault(&proof, &expected()), Some(Fault::IssuedAt), "{iat}");
    }
    let end_of_time = Expected { now: far, window: far, ..expected() };
    assert_eq!(verify(with_claims(json!({})).as_bytes(), &end_of_time).unwrap().until, far);
}

#[test]
fn a_proof_without_an_identifier_is_refused() {
    for jti in [json!(null), json!(""), json!(1), json!("x".repeat(257)), json!("a\nb")] {
        let proof = with_claims(json!({ "jti": jti }));
        let fault = fault(&proof, &expected());
        assert!(matches!(fault, Some(Fault::Malformed(_))), "{jti}: {fault:?}");
    }
}

#[test]
fn a_proof_is_for_one_access_token() {
    let at_resource = Expected { access_token: Some(ACCESS_TOKEN), ..expected() };
    let ath = base64url(&sha256(ACCESS_TOKEN));
    let of_other = base64url(&sha256(b"other"));

    assert_eq!(fault(&with_claims(json!({ "ath": ath })), &at_resource), None);
    for bad in [json!(null), json!(of_other), json!(format!("{ath}=")), json!([ath]), json!("")] {
        let proof = with_claims(json!({ "ath": bad }));
        assert_eq!(fault(&proof, &at_resource), Some(Fault::AccessToken), "{bad}");
    }
    for bad in [json!(ath), json!(1)] {
        let proof = with_claims(json!({ "ath": bad }));
        assert_eq!(fault(&proof, &expected()), Some(Fault::AccessToken), "{bad}");
    }
}

#[test]
fn a_nonce_is_demanded_only_where_it_is_wanted() {
    let nonces = Nonces::new(vec![[1; 32]]);
    let demanded = Expected { nonces: Some(&nonces), ..expected() };
    let nonce = nonces.fresh(NOW - 300);

    assert_eq!(fault(&with_claims(json!({ "nonce": nonce })), &demanded), None);
    assert_eq!(fault(&with_claims(json!({ "nonce": "of another server" })), &expected()), None);
    for bad in [json!(null), json!(""), json!(1), json!([nonce]), json!(nonces.fresh(NOW - 301))] {
        let proof = with_claims(json!({ "nonce": bad }));
        assert_eq!(fault(&proof, &demanded), Some(Fault::Nonce), "{bad}");
    }
}

#[test]
fn the_nonce_comes_after_the_address_and_before_the_time() {
    let nonces = Nonces::new(vec![[1; 32]]);
    let demanded = Expected { nonces: Some(&nonces), ..expected() };
    let good = with_claims(json!({}));
    let (input, _) = good.rsplit_once('.').unwrap();

    for (proof, reason) in [
        (format!("{input}.{}", base64url(&[1; 64])), Fault::Signature),
        (with_claims(json!({ "htm": "GET" })), Fault::Method),
        (with_claims(json!({ "htu": "https://evil.example/" })), Fault::Uri),
        (with_claims(json!({ "iat": 0, "jti": null, "ath": "x" })), Fault::Nonce),
    ] {
        assert_eq!(fault(&proof, &demanded), Some(reason));
    }
}

#[test]
fn a_body_other_than_the_signed_one_is_refused() {
    // RFC 9530 appendix B.1.
    let digest = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    let body = b"{\"hello\": \"world\"}\n";
    let proof = with_claims(json!({ "content_digest": digest }));

    assert_eq!(fault(&proof, &expected()), None);
    assert_eq!(covers(proof.as_bytes(), body), Ok(()));
    for other in [&b"{}"[..], b"", b"{\"hello\": \"world\"}"] {
        assert_eq!(covers(proof.as_bytes(), other), Err(Fault::ContentDigest));
    }
    for bad in [
        json!(null),
        json!(""),
        json!([digest]),
        json!(format!("{digest}, {digest}")),
        json!(digest.replace("sha-256", "SHA-256")),
        json!(digest.replace('/', "_")),
        json!(digest.replace('=', "")),
    ] {
        let proof = with_claims(json!({ "content_digest": bad }));
        assert_eq!(covers(proof.as_bytes(), body), Err(Fault::ContentDigest), "{bad}");
    }
}
