//! One token exchange on trial: whether the provider gives an ID-JAG for the refresh token (ID-JAG §4.3, RFC 8693).

use jagway_core::claims;
use jagway_core::http::Url;
use jagway_core::json;
use jagway_core::jws::{self, HeaderRules, is_media_type};
use jagway_core::names::{
    GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ID_JAG, TOKEN_TYPE_N_A, TOKEN_TYPE_REFRESH_TOKEN, TYP_ID_JAG,
};
use jagway_core::secret::Secret;
use serde_json::{Map, Value};

use crate::Result;
use crate::login::{ALGORITHMS, SKEW, refresh_token};
use crate::provider::{Provider, Refusal};

/// What the ID-JAG shall be good for.
pub struct Wanted {
    /// The authorization server.
    pub audience: Url,
    /// The MCP server.
    pub resource: Url,
}

/// What came of it.
pub struct Tried {
    /// What the provider does, or does not, in a sentence.
    pub outcome: Result<String>,
    /// A refresh token that takes the place of the old one.
    pub rotated: Option<Secret>,
}

/// Tries it. The ID-JAG is looked at and thrown away.
pub async fn try_one(provider: &Provider<'_>, token: &Secret, wanted: &Wanted) -> Tried {
    let fields = [
        ("grant_type", GRANT_TOKEN_EXCHANGE),
        ("requested_token_type", TOKEN_TYPE_ID_JAG),
        ("audience", wanted.audience.as_str()),
        ("resource", wanted.resource.as_str()),
        ("subject_token", token.expose()),
        ("subject_token_type", TOKEN_TYPE_REFRESH_TOKEN),
    ];
    match provider.post(&provider.metadata.token_endpoint, &fields).await {
        Ok(body) => {
            Tried { rotated: refresh_token(&body), outcome: look_at(provider, &body, wanted).await }
        }
        Err(refusal) => Tried { rotated: None, outcome: Err(told(refusal)) },
    }
}

fn told(refusal: Refusal) -> String {
    let (code, status) = match refusal {
        Refusal::Code(code, status) => (code, status),
        Refusal::NoAnswer(why) => return format!("the provider gives no ID-JAG: {why}"),
    };
    let meaning = match code.as_str() {
        // Providers use either for a client that may not, and for a token that will not do.
        "invalid_grant" | "invalid_request" => {
            "it does not exchange refresh tokens for this client, or not this one"
        }
        "invalid_target" => "this client may not go to that audience or resource",
        "unsupported_grant_type" | "unauthorized_client" => "this client may not exchange tokens",
        _ => "it refused",
    };
    format!("the provider gives no ID-JAG: {meaning} ({status} {code})")
}

/// What the Resource AS would look at, as far as it can be known here.
async fn look_at(
    provider: &Provider<'_>,
    body: &Map<String, Value>,
    wanted: &Wanted,
) -> Result<String> {
    let text = |name| json::string(body, name).ok().flatten();
    let is_n_a = text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case(TOKEN_TYPE_N_A));
    if text("issued_token_type") != Some(TOKEN_TYPE_ID_JAG) || !is_n_a {
        return Err("the provider answers, but with another kind of token".to_owned());
    }
    let token = text("access_token").unwrap_or_default();
    let rules = HeaderRules {
        typ: |typ| typ.is_some_and(|typ| is_media_type(typ, TYP_ID_JAG)),
        algorithms: ALGORITHMS,
        forbid_keys: false,
    };
    let bad = |fault: jws::Fault| format!("the ID-JAG is not good: {}", fault.code());
    let jws = jws::parse(token.as_bytes(), &rules).map_err(bad)?;
    provider.keys().await?.verify(&jws).map_err(bad)?;
    let expected =
        [("iss", provider.issuer), ("aud", &wanted.audience), ("resource", &wanted.resource)];
    for (name, url) in expected {
        let found = json::strings(&jws.claims, name).ok().flatten();
        if name == "resource" && !jws.claims.contains_key(name) {
            continue;
        }
        if found.as_deref() != Some(&[url.as_str()]) {
            return Err(format!("the ID-JAG's {name} is {found:?}, expected {:?}", url.as_str()));
        }
    }
    claims::times(&jws.claims, host_tests::now(), SKEW).map_err(bad)?;
    let client = json::string(&jws.claims, "client_id").ok().flatten().unwrap_or_default();
    Ok(format!("the provider gives an ID-JAG for it, to be redeemed by client {client:?}"))
}
