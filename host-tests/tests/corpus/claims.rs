//! Every claim removed, retyped and changed, and the times around each limit.

use super::*;

pub fn claim_types(issuer: &Issuer) -> Vec<Case> {
    let mut names: Vec<String> = claims().as_object().unwrap().keys().cloned().collect();
    names.extend(["nbf", "cnf", "aud_tenant", "azp", "nonce"].map(str::to_owned));
    let mut cases = vec![];
    for name in &names {
        cases.push(issuer.with_claims(format!("claim {name}: removed"), |claims| {
            claims.remove(name);
        }));
        for (what, value) in retyped() {
            cases.push(issuer.with_claims(format!("claim {name}: {what}"), |claims| {
                claims.insert(name.clone(), value);
            }));
        }
    }
    cases
}

pub fn claim_values(issuer: &Issuer) -> Vec<Case> {
    let values = [
        ("iss", json!(format!("{ISSUER}/"))),
        ("iss", json!("HTTPS://ACME.IDP.EXAMPLE")),
        ("iss", json!(format!("{ISSUER}:443"))),
        ("iss", json!(format!(" {ISSUER}"))),
        ("iss", json!([ISSUER])),
        ("aud", json!([AUDIENCE])),
        ("aud", json!([AUDIENCE, AUDIENCE])),
        ("aud", json!([AUDIENCE, "https://other.example"])),
        ("aud", json!(["https://other.example", AUDIENCE])),
        ("aud", json!([AUDIENCE, 1])),
        ("aud", json!([[AUDIENCE]])),
        ("aud", json!(format!("{AUDIENCE}/"))),
        ("aud", json!(format!("{AUDIENCE}/token"))),
        ("aud", json!(format!("{AUDIENCE}.evil.example"))),
        ("aud", json!(AUDIENCE.to_uppercase())),
        ("sub", json!("a".repeat(257))),
        ("sub", json!("alice\u{0}")),
        ("sub", json!("alice\r\nx: y")),
        ("sub", json!("ali\u{e9}")),
        ("jti", json!("j".repeat(257))),
        ("jti", json!("jti\n1")),
        ("client_id", json!("Claude")),
        ("client_id", json!("claude\u{0}")),
        ("client_id", json!([CLIENT])),
        ("resource", json!(["https://a.example", "https://b.example"])),
        ("scope", json!("stock.read stock.write")),
        ("cnf", json!({"jkt": "abc"})),
        ("amr", json!(["pwd", 1])),
        ("act", json!({"sub": "agent", "act": {"sub": "other"}})),
    ];
    let mut cases: Vec<_> = values
        .into_iter()
        .map(|(name, value)| {
            let shown: String = value.to_string().chars().take(60).collect();
            issuer.with_claims(format!("claim {name} = {shown}"), |claims| {
                claims.insert(name.into(), value);
            })
        })
        .collect();
    cases.push(issuer.with_claims("claims longer than 16 KiB", |claims| {
        claims.insert("anything".into(), json!("a".repeat(17_000)));
    }));
    cases.push(issuer.with_claims("claims more than 256", |claims| {
        claims.extend((0..260).map(|n| (format!("c{n}"), json!(n))));
    }));
    cases
}

pub fn times(issuer: &Issuer) -> Vec<Case> {
    let at = |iat: u64, exp: u64, nbf: Option<u64>| {
        let offset = |time: u64| time as i64 - NOW as i64;
        let nbf_name = nbf.map(|nbf| format!(", nbf {:+}", offset(nbf))).unwrap_or_default();
        issuer.with_claims(
            format!("times: iat {:+}, exp {:+}{nbf_name}", offset(iat), offset(exp)),
            |claims| {
                claims.insert("iat".into(), json!(iat));
                claims.insert("exp".into(), json!(exp));
                if let Some(nbf) = nbf {
                    claims.insert("nbf".into(), json!(nbf));
                }
            },
        )
    };
    let mut cases = vec![];
    for iat in [-331i64, -330, -329, -300, -60, 0, 1, 29, 30, 31, 3600] {
        for exp in [-31i64, -30, -29, 0, 1, 60, 300, 301, 3600] {
            let time = |offset: i64| NOW.saturating_add_signed(offset);
            cases.push(at(time(iat), time(exp), None));
        }
    }
    for nbf in [-60i64, 0, 29, 30, 31, 300] {
        cases.push(at(NOW, NOW + 300, Some(NOW.saturating_add_signed(nbf))));
    }
    let huge = [
        ("u64::MAX", "18446744073709551615"),
        ("2^64", "18446744073709551616"),
        ("1e300", "1e300"),
        ("1e999", "1e999"),
        ("2^53 + 1", "9007199254740993"),
        ("1.8000001e9", "1.8000001e9"),
        ("with .0", "1800000100.0"),
        ("-0", "-0"),
        ("leading zero", "01800000100"),
        ("hex", "0x6B49D200"),
        ("plus", "+1800000100"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
    ];
    for name in ["exp", "iat", "nbf"] {
        for (what, number) in huge {
            let mut claims = claims();
            claims[name] = json!("NUMBER");
            let text = claims.to_string().replace("\"NUMBER\"", number);
            let token = issuer.sign_texts(header().to_string().as_bytes(), text.as_bytes());
            cases.push(issuer.case(format!("number {name}: {what}"), token));
        }
    }
    cases
}
