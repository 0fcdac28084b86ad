//! ID-JAGs spoilt in hundreds of ways, judged by the core and by panva's `jose`: what jose refuses the core refuses, and
//! where the core alone refuses, the table says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod corpus;

use std::io::Write;

use corpus::{Case, Issuer};
use host_tests::node::Parts;
use host_tests::program::or_skip;
use jagway_core::confirmation::Confirmation;
use jagway_core::id_jag::{Expected, Received};
use jagway_core::jwk::KeySet;
use jagway_core::jws::{Algorithm, Fault};
use jagway_core::subject::{self, SubjectRules};
use serde_json::json;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256];
const REQUIRED: [&str; 7] = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"];
const SKEW: u64 = 30;

/// Where the core refuses what jose accepts: the core's reason, the cases it covers, and why it is right to.
const STRICTER: &[(&str, &[&str], &str)] = &[
    (
        "client_mismatch",
        &["claim client_id"],
        "ID-JAG §4.4.1: jose is not told which client authenticated",
    ),
    (
        "claim_missing",
        &["claim sub", "claim client_id", "claim jti", "claim tenant", "claim aud_tenant"],
        "an empty string names nobody",
    ),
    (
        "claim_type",
        &["claim sub", "claim client_id", "claim jti", "claim tenant", "claim aud_tenant"],
        "a StringOrURI (RFC 7519 §2) that becomes a key and a log field: no control characters, 256 bytes at most",
    ),
    (
        "claim_type",
        &["claim resource"],
        "RFC 8707 §2: an identifier or a list of them, and not an empty list",
    ),
    (
        "claim_type",
        &["claim scope", "claim acr", "claim amr", "claim act", "claim auth_time"],
        "copied into the access token, so it is what its definition says it is",
    ),
    (
        "claim_type",
        &["claim exp", "claim nbf", "number exp", "number nbf"],
        "whole seconds, not negative, as every known issuer writes them: nothing is rounded",
    ),
    (
        "cnf",
        &["claim cnf"],
        "RFC 7800 §3.1: what it is bound to must be shown, and what cannot be checked not be ignored",
    ),
    ("tenant", &["claim aud_tenant"], "made for somebody's tenant, and there are none here"),
    (
        "aud",
        &["claim aud ="],
        "ID-JAG §4.4.1: this authorization server alone; jose wants it among others",
    ),
    ("claim_type", &["claim aud ="], "RFC 7519 §4.1.3: every element is a string"),
    (
        "lifetime",
        &["times: ", "number exp"],
        "exp comes after iat, and soon: jose bounds now - iat alone",
    ),
    ("token_too_large", &["claims longer"], "16 KiB bound the work"),
    ("header_too_large", &["header longer"], "2 KiB bound the work"),
    (
        "payload_json",
        &["claims more than 256", "payload text: nested"],
        "bounds of the parser, whose stack is small",
    ),
    ("header_json", &["header text: nested"], "the same"),
    (
        "header_json",
        &["header text: a byte order mark", "header text: a lone surrogate"],
        "RFC 8259 §8.1, §8.2: no text that readers could read differently",
    ),
    (
        "payload_json",
        &["payload text: a byte order mark", "payload text: a lone surrogate"],
        "the same",
    ),
    (
        "payload_json",
        &[
            "payload text: an unknown name twice",
            "payload text: a name twice",
            "member twice",
            "number exp",
        ],
        "RFC 7519 §4 lets us refuse a name used twice, where the next reader may take the other; and no number is infinite",
    ),
    (
        "header_json",
        &["header text: an unknown name twice", "header text: a name twice", "member twice"],
        "the same",
    ),
    (
        "header_forbidden_param",
        &["header with jwk", "header with jku", "header with x5"],
        "an honest issuer has no use for it: jose ignores it, the next library may not",
    ),
    (
        "crit",
        &["header with b64", "header with crit b64"],
        "RFC 7797 §7: no JWT has it, whatever it says",
    ),
    (
        "jwe_not_supported",
        &["header with enc", "header with zip", "header with epk", "header with p2"],
        "words of an encrypted token in one that is not",
    ),
    (
        "jwt_charset",
        &["encoding: ", "shape: "],
        "RFC 7515 §2: no padding, no space, no line break in base64url",
    ),
    (
        "b64_noncanonical",
        &["encoding: "],
        "RFC 4648 §3.5: one token, one writing, or single use by text fails",
    ),
];

/// What the core says: its reason, if it refuses.
fn our_verdict(case: &Case) -> Result<(), Fault> {
    let keys = KeySet::parse(json!({ "keys": case.jwks }).to_string().as_bytes()).unwrap();
    let expected = Expected {
        issuer: corpus::ISSUER,
        audiences: &[corpus::AUDIENCE.to_owned()],
        client_id: corpus::CLIENT,
        max_lifetime: 300,
        now: corpus::NOW,
        skew: SKEW,
    };
    let id_jag = Received::parse(case.token.as_bytes(), &ALGORITHMS)?.verify(&keys, &expected)?;
    // What the token endpoint asks next of a grant that comes without a proof.
    subject::tenant(&id_jag.claims, &SubjectRules::default())?;
    match Confirmation::parse(&id_jag.claims)? {
        Some(_) => Err(Fault::Confirmation),
        None => Ok(()),
    }
}

/// What jose says of each: nothing if it accepts.
async fn verdicts_of_jose(parts: &Parts, cases: &[Case]) -> Vec<Option<String>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for case in cases {
        let line = json!({
            "token": case.token,
            "jwks": case.jwks,
            "issuer": corpus::ISSUER,
            "audience": corpus::AUDIENCE,
            "algorithms": ALGORITHMS.map(Algorithm::name),
            "required": REQUIRED,
            "now": corpus::NOW,
            "skew": SKEW,
        });
        writeln!(file, "{line}").unwrap();
    }
    let said = parts.run("jose-verdicts.mjs", &json!({ "cases": file.path() })).await;
    serde_json::from_value(said["verdicts"].clone()).unwrap()
}

#[tokio::test]
async fn the_core_accepts_nothing_that_jose_refuses_and_every_refusal_of_its_own_has_a_reason() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let cases = corpus::cases(&Issuer::new());

    let theirs = verdicts_of_jose(&parts, &cases).await;

    assert_eq!(theirs.len(), cases.len());
    let mut unused: Vec<_> = STRICTER
        .iter()
        .flat_map(|(code, names, _)| names.iter().map(move |name| (*code, *name)))
        .collect();
    let mut wrong = vec![];
    let mut agreed = (0, 0);
    for (case, theirs) in cases.iter().zip(&theirs) {
        let name = case.name.as_str();
        match (our_verdict(case), theirs) {
            (Ok(()), None) => agreed.0 += 1,
            (Err(_), Some(_)) => agreed.1 += 1,
            (Ok(()), Some(why)) => wrong.push(format!("laxer than jose: {name}: {why}")),
            (Err(fault), None) => match reason(fault.code(), name) {
                Some(row) => unused.retain(|known| *known != row),
                None => {
                    wrong.push(format!("stricter, and not in the table: {name}: {}", fault.code()))
                }
            },
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(unused, [], "rows of the table that no case needs");
    assert!(agreed.0 >= 10 && agreed.1 >= 200, "{agreed:?}");
}

/// The row of the table that covers a case.
fn reason(code: &str, name: &str) -> Option<(&'static str, &'static str)> {
    STRICTER.iter().filter(|(known, ..)| *known == code).find_map(|(code, names, _)| {
        names.iter().find(|known| name.starts_with(**known)).map(|known| (*code, *known))
    })
}
