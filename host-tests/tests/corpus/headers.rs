//! Every header member removed, retyped, changed, and members that do not belong there.

use super::*;

pub fn header_members(issuer: &Issuer) -> Vec<Case> {
    let mut cases = vec![];
    for name in ["alg", "typ", "kid"] {
        cases.push(issuer.with_header(format!("header {name}: removed"), |header| {
            header.remove(name);
        }));
        for (what, value) in retyped() {
            cases.push(issuer.with_header(format!("header {name}: {what}"), |header| {
                header.insert(name.into(), value);
            }));
        }
    }
    let values = [
        (
            "alg",
            &[
                "none", "None", "es256", "ES256 ", "ES384", "ES512", "ES256K", "HS256", "RS256",
                "PS256", "EdDSA", "Ed25519",
            ][..],
        ),
        (
            "typ",
            &[
                "JWT",
                "jwt",
                "at+jwt",
                "OAUTH-ID-JAG+JWT",
                "application/oauth-id-jag+jwt",
                "Application/OAuth-ID-JAG+jwt",
                "application/oauth-id-jag+jwt; charset=utf-8",
                " oauth-id-jag+jwt",
                "oauth-id-jag+jwt ",
                "oauth-id-jag",
                "x/oauth-id-jag+jwt",
                "application/application/oauth-id-jag+jwt",
                "oauth\u{2010}id-jag+jwt",
                "oauth-id-jag+\u{0130}wt",
            ][..],
        ),
        ("kid", &["EC-1", "ec-1 ", "ed-1", "rsa-1", "../../dev/null", "ec-1\u{0}", "\u{fb03}"][..]),
    ];
    for (name, values) in values {
        for value in values {
            cases.push(issuer.with_header(format!("header {name}: {value:?}"), |header| {
                header.insert(name.into(), json!(value));
            }));
        }
    }
    cases
}

pub fn added_header_members(issuer: &Issuer) -> Vec<Case> {
    let own = issuer.es256_jwk();
    let added = [
        ("jwk", own.clone()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("abc")),
        ("x5t#S256", json!("abc")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!("exp")),
        ("crit", json!(null)),
        ("b64", json!(true)),
        ("b64", json!(false)),
        ("enc", json!("A256GCM")),
        ("zip", json!("DEF")),
        ("epk", own),
        ("p2c", json!(1)),
        ("p2s", json!("abc")),
        ("cty", json!("JWT")),
        ("Alg", json!("none")),
        ("iss", json!("https://evil.example")),
        ("url", json!("https://evil.example")),
        ("nonce", json!("abc")),
        ("__proto__", json!({"alg": "none"})),
        ("anything", json!({"a": 1})),
    ];
    let mut cases: Vec<_> = added
        .into_iter()
        .map(|(name, value)| {
            issuer.with_header(format!("header with {name}: {value}"), |header| {
                header.insert(name.into(), value);
            })
        })
        .collect();
    for b64 in [true, false] {
        cases.push(issuer.with_header(format!("header with crit b64 {b64}"), |header| {
            header.insert("crit".into(), json!(["b64"]));
            header.insert("b64".into(), json!(b64));
        }));
    }
    cases.push(issuer.with_header("header longer than 2 KiB", |header| {
        header.insert("anything".into(), json!("a".repeat(2100)));
    }));
    cases
}
