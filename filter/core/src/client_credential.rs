//! Our own authentication at other servers' token endpoints (RFC 6749 §2.3, RFC 7523 §2.2, RFC 8705 §2).

use crate::config::{AssertionAudience, Client, ClientCredential, Party};
use crate::digest::base64url;
use crate::http::{Callout, Url};
use crate::names;
use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Life of a client assertion, in seconds.
const ASSERTION_LIFETIME: u64 = 60;

/// A POST of `fields` to the token endpoint of `party`, authenticated as `client`.
///
/// `client_id` goes into the body with each method: several servers demand it there even beside
/// Basic. `now` in seconds since the epoch; `random` names the assertion and must never repeat.
pub fn token_request(
    party: &Party,
    token_endpoint: &Url,
    client: &Client,
    fields: &[(&str, &str)],
    now: u64,
    random: &[u8; 32],
) -> Callout {
    let mut fields = fields.to_vec();
    fields.push(("client_id", &client.id));
    let assertion = assertion(party, token_endpoint, client, now, random);
    let mut basic = None;
    match &client.credential {
        ClientCredential::Secret(secret) => {
            let encode =
                |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encode(&client.id), encode(secret.expose()));
            basic = Some(Secret::new(format!("Basic {}", STANDARD.encode(pair))));
        }
        ClientCredential::SecretInBody(secret) => fields.push(("client_secret", secret.expose())),
        // The connection's certificate is the proof; `client_id` says whose it is (RFC 8705 §2).
        ClientCredential::Certificate => {}
        ClientCredential::PrivateKey { .. } => {
            fields.push(("client_assertion_type", names::CLIENT_ASSERTION_TYPE));
            fields.push(("client_assertion", assertion.as_ref().map_or("", Secret::expose)));
        }
    }
    let mut callout = Callout::post_form(&party.cluster, token_endpoint, &fields);
    callout.headers.extend(basic.map(|basic| ("authorization".into(), basic)));
    callout
}

/// A fresh assertion of `client` for `party`; `None` if it has no key for that.
pub fn assertion(
    party: &Party,
    token_endpoint: &Url,
    client: &Client,
    now: u64,
    random: &[u8; 32],
) -> Option<Secret> {
    let ClientCredential::PrivateKey { key, audience } = &client.credential else {
        return None;
    };
    let audience = match audience {
        AssertionAudience::Issuer => party.issuer.as_str(),
        AssertionAudience::TokenEndpoint => token_endpoint.as_str(),
    };
    let claims = json!({
        "iss": client.id,
        "sub": client.id,
        "aud": audience,
        "iat": now,
        "exp": now.saturating_add(ASSERTION_LIFETIME),
        "jti": base64url(random),
    });
    Some(Secret::new(key.sign(names::TYP_CLIENT_ASSERTION, &claims)))
}
