//! Signatures with bits flipped, base64url in other writings, and tokens of another shape.

use super::*;

pub fn signatures(issuer: &Issuer) -> Vec<Case> {
    let sound = issuer.sound();
    let (signed, signature) = sound.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with =
        |name: String, bytes: &[u8]| issuer.case(name, format!("{signed}.{}", base64url(bytes)));
    let mut cases = vec![];
    for bit in (0..512).step_by(5) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        cases.push(with(format!("signature: bit {bit} flipped"), &flipped));
    }
    let parsed = p256::ecdsa::Signature::from_slice(&bytes).unwrap();
    let (r, s) = parsed.split_scalars();
    let other_s = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-s).to_bytes()).unwrap();
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> =
        (0..32).map(|n| u8::from_str_radix(&order[2 * n..2 * n + 2], 16).unwrap()).collect();
    let (first, second) = bytes.split_at(32);
    let all = [
        ("s negated", other_s.to_bytes().to_vec()),
        ("in DER", parsed.to_der().as_bytes().to_vec()),
        ("zero", vec![0; 64]),
        ("r zero", [&[0; 32], second].concat()),
        ("s zero", [first, &[0; 32]].concat()),
        ("r and s the order", [order.clone(), order].concat()),
        ("all ones", vec![0xff; 64]),
        ("cut short", bytes[..63].to_vec()),
        ("a byte more", [&bytes[..], &[0]].concat()),
        ("a byte before", [&[0], &bytes[..]].concat()),
        ("halves swapped", [second, first].concat()),
        ("of 96 bytes", [&[0; 16], first, &[0; 16], second].concat()),
        ("one byte", vec![1]),
    ];
    cases.extend(all.iter().map(|(what, bytes)| with(format!("signature: {what}"), bytes)));
    for key in [&issuer.eddsa, &issuer.rs256] {
        let token = key.sign(&key.header("oauth-id-jag+jwt"), &claims());
        for at in (5..token.len()).step_by(token.len() / 20) {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            cases.push(issuer.case(
                format!("signature: {} with byte {at} changed", key.alg()),
                String::from_utf8(bytes).unwrap(),
            ));
        }
    }
    cases
}

pub fn encodings(issuer: &Issuer) -> Vec<Case> {
    // Both alphabets differ here, and each part has a rest of bits that must be zero.
    let header = json!({"alg": "ES256", "typ": "oauth-id-jag+jwt", "kid": "ec-1", "x": "\u{7e}\u{7f}???>>>"}).to_string();
    let mut claims = claims();
    claims["x"] = json!("???>>>~~~");
    let texts = |spaces: usize| {
        [format!("{header}{}", " ".repeat(spaces)), format!("{claims}{}", " ".repeat(spaces))]
    };
    let mut cases = vec![];
    for spaces in 0..3 {
        let [header, claims] = texts(spaces);
        let plain = [base64url(header.as_bytes()), base64url(claims.as_bytes())];
        let others = |text: &str| {
            let bytes = text.as_bytes();
            [
                ("padded", URL_SAFE.encode(bytes)),
                ("of the other alphabet", STANDARD_NO_PAD.encode(bytes)),
                ("of the other alphabet, padded", STANDARD.encode(bytes)),
                ("with bits left over", with_rest_bits(&base64url(bytes))),
                ("with a line feed inside", folded(&base64url(bytes), "\n")),
                ("with CRLF inside", folded(&base64url(bytes), "\r\n")),
                ("with a space inside", folded(&base64url(bytes), " ")),
                ("with a tab at the end", base64url(bytes) + "\t"),
                ("with a no-break space inside", folded(&base64url(bytes), "\u{a0}")),
                ("with a NUL at the end", base64url(bytes) + "\0"),
                ("with a strange letter inside", folded(&base64url(bytes), "*")),
                ("with %3D at the end", base64url(bytes) + "%3D"),
                ("with one letter more", base64url(bytes) + "A"),
            ]
        };
        for (what, header) in others(&header) {
            cases.push(issuer.case(
                format!("encoding: header {what}, {spaces}"),
                issuer.sign(&header, &plain[1]),
            ));
        }
        for (what, payload) in others(&claims) {
            cases.push(issuer.case(
                format!("encoding: payload {what}, {spaces}"),
                issuer.sign(&plain[0], &payload),
            ));
        }
    }
    let sound = issuer.sound();
    let (signed, signature) = sound.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let others = [
        ("padded", URL_SAFE.encode(&bytes)),
        ("of the other alphabet", STANDARD_NO_PAD.encode(&bytes)),
        ("of the other alphabet, padded", STANDARD.encode(&bytes)),
        ("with bits left over", with_rest_bits(signature)),
        ("with a line feed inside", folded(signature, "\n")),
        ("with a space inside", folded(signature, " ")),
        ("with a line feed at the end", format!("{signature}\n")),
        ("with a strange letter inside", folded(signature, "*")),
        ("in hex", bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    ];
    for (what, signature) in others {
        cases.push(
            issuer.case(format!("encoding: signature {what}"), format!("{signed}.{signature}")),
        );
    }
    cases
}

/// The same bytes to a lenient reader: the last letter has bits that mean nothing. Unchanged if it has none.
fn with_rest_bits(text: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if text.len().is_multiple_of(4) {
        return text.into();
    }
    let last =
        ALPHABET.iter().position(|letter| *letter == text.as_bytes()[text.len() - 1]).unwrap();
    format!("{}{}", &text[..text.len() - 1], ALPHABET[last + 1] as char)
}

fn folded(text: &str, with: &str) -> String {
    let (first, second) = text.split_at(text.len() / 2);
    format!("{first}{with}{second}")
}

pub fn shapes(issuer: &Issuer) -> Vec<Case> {
    let sound = issuer.sound();
    let parts: Vec<&str> = sound.split('.').collect();
    let [header, payload, signature] = [parts[0], parts[1], parts[2]];
    let all = [
        ("nothing", String::new()),
        ("dots alone", "..".into()),
        ("no signature", format!("{header}.{payload}")),
        ("an empty signature", format!("{header}.{payload}.")),
        ("an empty payload", issuer.sign(header, "")),
        ("an empty header", issuer.sign("", payload)),
        ("a fourth part", format!("{sound}.")),
        ("four parts", format!("{sound}.{signature}")),
        ("five parts", format!("{sound}.{signature}.{signature}")),
        ("a dot first", format!(".{sound}")),
        ("a space first", format!(" {sound}")),
        ("a space last", format!("{sound} ")),
        ("a line feed last", format!("{sound}\n")),
        ("CRLF last", format!("{sound}\r\n")),
        ("a byte order mark first", format!("\u{feff}{sound}")),
        ("Bearer before it", format!("Bearer {sound}")),
        ("quotes around it", format!("\"{sound}\"")),
        ("upper case", sound.to_uppercase()),
        ("an SD-JWT's tilde last", format!("{sound}~")),
        (
            "JWS JSON serialization",
            json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
        ),
        ("header and payload swapped", issuer.sign(payload, header)),
        ("another token's signature", {
            let other = issuer.sign_texts(b"{}", b"{}");
            format!("{header}.{payload}.{}", other.rsplit_once('.').unwrap().1)
        }),
    ];
    all.into_iter().map(|(what, token)| issuer.case(format!("shape: {what}"), token)).collect()
}
