//! Header and claims as texts that are not quite JSON, or that readers could read differently.

use super::*;

pub fn json_texts(issuer: &Issuer) -> Vec<Case> {
    let (header, claims) = (header().to_string(), claims().to_string());
    let spoilt = |text: &str| -> Vec<(&'static str, Vec<u8>)> {
        let inner = &text[1..text.len() - 1];
        let bytes = |text: String| text.into_bytes();
        vec![
            ("spaces around", bytes(format!(" \t\r\n{text} \n"))),
            ("a byte order mark", bytes(format!("\u{feff}{text}"))),
            ("bytes after the end", bytes(format!("{text}x"))),
            ("a second object", bytes(format!("{text}{{}}"))),
            ("a NUL at the end", bytes(format!("{text}\0"))),
            ("a comma too many", bytes(format!("{{{inner},}}"))),
            ("a comment", bytes(format!("{{/**/{inner}}}"))),
            ("single quotes", bytes(text.replace('"', "'"))),
            ("in a list", bytes(format!("[{text}]"))),
            ("in a string", bytes(json!(text).to_string())),
            ("null", bytes("null".into())),
            ("nothing", vec![]),
            ("cut short", bytes(text[..text.len() - 1].into())),
            ("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("a byte that is no UTF-8", [b"{\"x\":\"\xff\",", inner.as_bytes(), b"}"].concat()),
            ("an overlong byte pair", [b"{\"x\":\"\xc0\xaf\",", inner.as_bytes(), b"}"].concat()),
            ("a lone surrogate", bytes(format!("{{\"x\":\"\\ud800\",{inner}}}"))),
            ("a raw line feed in a string", bytes(format!("{{\"x\":\"a\nb\",{inner}}}"))),
            ("an unknown name twice", bytes(format!("{{\"x\":1,\"x\":2,{inner}}}"))),
            ("a name twice, deep down", bytes(format!("{{\"x\":{{\"a\":1,\"a\":2}},{inner}}}"))),
            (
                "nested 20 deep",
                bytes(format!("{{\"x\":{}{},{inner}}}", "[".repeat(20), "]".repeat(20))),
            ),
            (
                "escaped names",
                bytes(text.replace("\"alg\"", "\"\\u0061lg\"").replace("\"iss\"", "\"\\u0069ss\"")),
            ),
        ]
    };
    let twice = [
        ("alg first none", header.replacen('{', "{\"alg\":\"none\",", 1), claims.clone()),
        ("alg last none", header.replacen('}', ",\"alg\":\"none\"}", 1), claims.clone()),
        ("kid twice", header.replacen('{', "{\"kid\":\"x\",", 1), claims.clone()),
        ("typ twice", header.replacen('{', "{\"typ\":\"JWT\",", 1), claims.clone()),
        ("sub twice", header.clone(), claims.replacen('{', "{\"sub\":\"bob\",", 1)),
        (
            "sub twice, once escaped",
            header.clone(),
            claims.replacen('{', "{\"\\u0073ub\":\"bob\",", 1),
        ),
        (
            "aud twice",
            header.clone(),
            claims.replacen('{', "{\"aud\":\"https://other.example\",", 1),
        ),
        ("exp twice", header.clone(), claims.replacen('{', "{\"exp\":1,", 1)),
    ];
    let mut cases = vec![];
    for (what, text) in spoilt(&header) {
        cases.push(
            issuer
                .case(format!("header text: {what}"), issuer.sign_texts(&text, claims.as_bytes())),
        );
    }
    for (what, text) in spoilt(&claims) {
        cases.push(
            issuer
                .case(format!("payload text: {what}"), issuer.sign_texts(header.as_bytes(), &text)),
        );
    }
    for (what, header, claims) in twice {
        let token = issuer.sign_texts(header.as_bytes(), claims.as_bytes());
        cases.push(issuer.case(format!("member twice: {what}"), token));
    }
    cases
}
