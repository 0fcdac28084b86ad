//! Keys under the wrong name, algorithm or kind, and key sets of every sort.

use super::*;

pub fn keys(issuer: &Issuer) -> Vec<Case> {
    let typ = "oauth-id-jag+jwt";
    let stranger = SigningKey::es256("ec-1");
    let mut cases = vec![];

    // A key of one kind under another's name, or an algorithm that is not the key's.
    for (key, alg, kid) in [
        (&stranger, "ES256", "ec-1"),
        (&stranger, "ES256", "unknown"),
        (&issuer.eddsa, "EdDSA", "ec-1"),
        (&issuer.eddsa, "ES256", "ed-1"),
        (&issuer.eddsa, "ES256", "ec-1"),
        (&issuer.eddsa, "Ed25519", "ed-1"),
        (&issuer.rs256, "RS256", "ec-1"),
        (&issuer.rs256, "ES256", "rsa-1"),
        (&issuer.rs256, "RS384", "rsa-1"),
        (&issuer.rs256, "PS256", "rsa-1"),
        (&issuer.rs256, "RS1", "rsa-1"),
    ] {
        let token = key.sign(&json!({"alg": alg, "typ": typ, "kid": kid}), &claims());
        cases.push(issuer.case(format!("key: {} under alg {alg} and kid {kid}", key.alg()), token));
    }
    // A public key, in any writing, as the secret of a MAC.
    let jwk = issuer.es256_jwk();
    let point = issuer.es256.verifying_key().to_encoded_point(false);
    let secrets =
        [jwk.to_string().into_bytes(), point.as_bytes().to_vec(), vec![], b"ec-1".to_vec()];
    for (number, secret) in secrets.iter().enumerate() {
        let header = json!({"alg": "HS256", "typ": typ, "kid": "ec-1"}).to_string();
        let signed = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(claims().to_string().as_bytes())
        );
        let mac = hmac_sha256(secret, signed.as_bytes());
        cases.push(issuer.case(
            format!("key: HS256 with public secret {number}"),
            format!("{signed}.{}", base64url(&mac)),
        ));
    }
    let none = json!({"alg": "none", "typ": typ}).to_string();
    let unsigned =
        format!("{}.{}.", base64url(none.as_bytes()), base64url(claims().to_string().as_bytes()));
    cases.push(issuer.case("key: alg none, unsigned", unsigned));

    // The same sound token, and another key set.
    let sets = [
        ("two keys fit, no kid", json!([stranger.jwk(), jwk]), true),
        ("two keys fit by kid, the right one second", json!([stranger.jwk(), jwk]), false),
        ("two keys fit by kid, the right one first", json!([jwk, stranger.jwk()]), false),
        ("no key", json!([]), false),
        ("another key alone", json!([stranger.jwk()]), false),
        ("a key without kid", json!([changed(&jwk, "kid", None)]), false),
        ("a key without kid, no kid", json!([changed(&jwk, "kid", None)]), true),
        ("a key without alg", json!([changed(&jwk, "alg", None)]), false),
        ("a key without use", json!([changed(&jwk, "use", None)]), false),
        ("a key for encryption", json!([changed(&jwk, "use", Some(json!("enc")))]), false),
        ("a key to sign with", json!([changed(&jwk, "key_ops", Some(json!(["sign"])))]), false),
        ("a key to verify with", json!([changed(&jwk, "key_ops", Some(json!(["verify"])))]), false),
        ("a key of another alg", json!([changed(&jwk, "alg", Some(json!("ES384")))]), false),
        ("a key of another curve", json!([changed(&jwk, "crv", Some(json!("P-384")))]), false),
        ("a key off its curve", json!([changed(&jwk, "y", Some(jwk["x"].clone()))]), false),
        (
            "a key with its private half",
            json!([changed(&jwk, "d", Some(json!(base64url(&[7; 32]))))]),
            false,
        ),
        ("a key and junk", json!([{"kty": "oct", "k": "AA"}, {"kty": "??"}, {}, jwk]), false),
    ];
    for (what, jwks, without_kid) in sets {
        let mut case = issuer.with_header(format!("key set: {what}"), |header| {
            if without_kid {
                header.remove("kid");
            }
        });
        case.jwks = jwks;
        cases.push(case);
    }
    cases
}

fn changed(jwk: &Value, name: &str, value: Option<Value>) -> Value {
    let mut jwk = jwk.clone();
    match value {
        Some(value) => jwk[name] = value,
        None => drop(jwk.as_object_mut().unwrap().remove(name)),
    }
    jwk
}

/// RFC 2104. No secret here is longer than a block but the JWK, which is hashed first.
fn hmac_sha256(secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block =
        if secret.len() > 64 { Sha256::digest(secret).to_vec() } else { secret.to_vec() };
    block.resize(64, 0);
    let pad = |with: u8| block.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([&pad(0x36)[..], text].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).to_vec()
}
