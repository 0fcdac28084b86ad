//! ID-JAGs that are not what they should be, and how they fare at a token endpoint.

use super::*;
use jagway_core::digest::base64url;

/// Sends `assertion` to a fresh Resource AS; its answer and its log.
pub fn redeem(assertion: &str) -> (Verdict, Vec<String>) {
    let mut process = Process::new(&accept_config(), 1);
    let verdict = at_token_endpoint(&mut process, token_request(), grant(assertion));
    (verdict, process.log)
}

/// An ID-JAG whose claims are changed: `null` removes one.
pub fn changed(change: Value) -> String {
    let mut claims = id_jag_claims("1");
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    key(1).sign("oauth-id-jag+jwt", &claims)
}

/// The header and claims given, signed with key 1, whatever they say.
pub fn raw(header: &str, claims: &str) -> String {
    use p256::ecdsa::signature::Signer;
    let input = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let key = p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
    let signature: p256::ecdsa::Signature = key.sign(input.as_bytes());
    format!("{input}.{}", base64url(&signature.to_bytes()))
}

/// A sound grant under the header given.
pub fn with_header(header: &str) -> String {
    raw(header, &id_jag_claims("1").to_string())
}

/// The one answer to every bad grant, with this reason in the log.
pub fn assert_refused(verdict: &Verdict, log: &[String], code: &str, what: &str) {
    assert_eq!(status(verdict), 400, "{what}: {log:?}");
    assert_eq!(body(verdict)["error"], "invalid_grant", "{what}");
    assert_eq!(header(verdict, "cache-control"), Some("no-store"), "{what}");
    let reason = format!("refused [{code}]");
    assert!(log.iter().any(|line| line.starts_with(&reason)), "{what}: {code} not in {log:?}");
}
