//! Reading other servers' metadata and key sets (RFC 8414 §3, OpenID Connect Discovery §4, RFC 7517).

use crate::config::Party;
use crate::flow::Ctx;
use crate::http::{Answer, CallFailed, Callout, MAX_ANSWER, Url};
use crate::job::{JobError, Value};
use crate::json;
use crate::jwk::KeySet;
use crate::names;
use crate::site::Site;
use std::rc::Rc;

/// How long a document that can no longer be fetched anew keeps serving, in seconds.
const MAX_STALE: u64 = 24 * 3600;
/// How long metadata counts as fresh, in seconds.
const METADATA_FRESH: u64 = 3600;
/// How long a key set counts as fresh if its issuer does not say, in seconds.
const KEYS_FRESH: u64 = 300;
/// Where an authorization server says which profiles of grants it takes (ID-JAG §7.2).
const GRANT_PROFILES: &str = "authorization_grant_profiles_supported";

/// Where an authorization server's endpoints are, and which grants it says it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// `token_endpoint`.
    pub token_endpoint: Option<Url>,
    /// `jwks_uri`.
    pub jwks_uri: Option<Url>,
    /// Whether `authorization_grant_profiles_supported` has the ID-JAG (ID-JAG §7.2).
    pub speaks_id_jag: bool,
    /// Whether `grant_types_supported` has the JWT bearer grant (RFC 7523 §2.1). `None` if it is not
    /// there: that should mean `authorization_code` and `implicit` (RFC 8414 §2), but many leave it out.
    pub takes_jwt_bearer: Option<bool>,
    /// Whether it has the grant for JWTs that are bound to a key.
    pub takes_jwt_dpop: bool,
}

impl Metadata {
    /// Reads a metadata document of `party`.
    ///
    /// Its `issuer` must be the configured one (RFC 8414 §3.3). An endpoint on another host than
    /// the issuer's is left out: the configured cluster reaches that host and no other, so such an
    /// endpoint has to be configured.
    pub fn parse(party: &Party, body: &[u8]) -> Option<Self> {
        let document = json::object(body)?;
        let text = |name| json::string(&document, name).ok().flatten();
        if text("issuer") != Some(party.issuer.as_str()) {
            return None;
        }
        let endpoint = |name| {
            let url = Url::parse(text(name)?)?;
            let same_host = url.origin() == party.issuer.origin();
            (same_host && (url.is_https() || party.allow_http)).then_some(url)
        };
        let lists = |name, value| Some(json::strings(&document, name).ok()??.contains(&value));
        Some(Self {
            token_endpoint: endpoint("token_endpoint"),
            jwks_uri: endpoint("jwks_uri"),
            speaks_id_jag: lists(GRANT_PROFILES, names::GRANT_PROFILE_ID_JAG) == Some(true),
            takes_jwt_bearer: lists("grant_types_supported", names::GRANT_JWT_BEARER),
            takes_jwt_dpop: lists("grant_types_supported", names::GRANT_JWT_DPOP) == Some(true),
        })
    }
}

/// Fetches the metadata of `party`: the RFC 8414 form, then the OpenID Connect form.
pub async fn fetch_metadata(ctx: Ctx, site: Rc<Site>, party: Rc<Party>) -> Result<Value, JobError> {
    let issuer = party.issuer.as_str().trim_end_matches('/');
    let urls = [
        Some(party.issuer.with_well_known(names::WELL_KNOWN_AUTHORIZATION_SERVER)),
        Url::parse(&format!("{issuer}{}", names::WELL_KNOWN_OPENID)),
    ];
    let mut error = JobError::Unavailable;
    for url in urls.into_iter().flatten() {
        match get(&ctx, &site, &party, &url).await {
            Ok(answer) if Metadata::parse(&party, &answer.body).is_some() => {
                return Ok(value(ctx.now(), answer.body, METADATA_FRESH));
            }
            Ok(_) => {
                let issuer = party.issuer.as_str();
                site.warn(format!("metadata at {url:?} is not the metadata of {issuer}"));
                error = JobError::BadAnswer;
            }
            Err(failed) => error = failed,
        }
    }
    site.warn(format!("no metadata of {:?}: {error:?}", party.issuer));
    Err(error)
}

/// Fetches the key set of `party`.
pub async fn fetch_keys(ctx: Ctx, site: Rc<Site>, party: Rc<Party>) -> Result<Value, JobError> {
    let url = match &party.jwks_uri {
        Some(url) => url.clone(),
        None => match site.metadata(&ctx, &party).await?.jwks_uri.clone() {
            Some(url) => url,
            None => {
                site.warn(format!("{:?} names no jwks_uri on its own host", party.issuer));
                return Err(JobError::BadAnswer);
            }
        },
    };
    let answer = get(&ctx, &site, &party, &url).await?;
    // A set without one usable key is an accident, not a rotation: the last good one serves on.
    if KeySet::parse(&answer.body).is_none_or(|keys| keys.is_empty()) {
        site.warn(format!("no usable key set at {url:?}"));
        return Err(JobError::BadAnswer);
    }
    let fresh = max_age(&answer).unwrap_or(KEYS_FRESH).clamp(60, MAX_STALE);
    Ok(value(ctx.now(), answer.body, fresh))
}

/// The token endpoint of `party`: configured, or discovered.
pub async fn token_endpoint(ctx: &Ctx, site: &Site, party: &Rc<Party>) -> Result<Url, JobError> {
    if let Some(url) = &party.token_endpoint {
        return Ok(url.clone());
    }
    site.metadata(ctx, party).await?.token_endpoint.clone().ok_or_else(|| {
        site.warn(format!("{:?} names no token_endpoint on its own host", party.issuer));
        JobError::BadAnswer
    })
}

/// A GET that is tried once more if nothing came back. Redirects are not followed.
///
/// [`JobError::BadAnswer`] for every status but 200, 429 and 5xx. Does *not* look at the media type.
pub async fn get(ctx: &Ctx, site: &Site, party: &Party, url: &Url) -> Result<Answer, JobError> {
    let callout = Callout::get_json(&party.cluster, url);
    let answer = match ctx.call(callout.clone()).await {
        Err(CallFailed::NoAnswer) => ctx.call(callout).await,
        answer => answer,
    };
    let answer = answer.map_err(|failed| no_answer(site, party, failed))?;
    match answer.status {
        200 if answer.body.len() <= MAX_ANSWER => Ok(answer),
        status if status >= 500 || status == 429 => Err(JobError::Unavailable),
        _ => Err(JobError::BadAnswer),
    }
}

/// Logs that `party` gave no answer, and where in the configuration to look.
pub fn no_answer(site: &Site, party: &Party, failed: CallFailed) -> JobError {
    let Party { path, cluster, issuer, .. } = party;
    site.warn(match failed {
        CallFailed::NoCluster => format!("{path}.cluster: Envoy has no cluster `{cluster}` (yet)"),
        CallFailed::NoAnswer => format!("{path}: {issuer:?} does not answer"),
    });
    JobError::Unavailable
}

/// A document got at `now`, as workers share it: fresh for so many seconds, usable for a day.
pub fn value(now: u64, data: Vec<u8>, fresh: u64) -> Value {
    Value {
        data,
        made_at: now,
        refresh_at: now.saturating_add(fresh),
        usable_until: now.saturating_add(MAX_STALE.max(fresh)),
    }
}

/// `max-age` of the answer's `cache-control`, in seconds (RFC 9111 §5.2.2.1).
pub fn max_age(answer: &Answer) -> Option<u64> {
    let header = answer.headers.text("cache-control")?;
    header.split(',').find_map(|directive| directive.trim().strip_prefix("max-age=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn grants(member: &str, value: serde_json::Value) -> (bool, Option<bool>) {
        let issuer = "https://as.example";
        let url = Url::parse(issuer).unwrap();
        let party = Party::new("as", url, "as".into(), None, None, false);
        let document = json!({ "issuer": issuer, member: value }).to_string();
        let metadata = Metadata::parse(&party, document.as_bytes()).unwrap();
        (metadata.speaks_id_jag, metadata.takes_jwt_bearer)
    }

    #[test]
    fn a_server_says_which_grants_it_takes() {
        let profile = names::GRANT_PROFILE_ID_JAG;
        let bearer = names::GRANT_JWT_BEARER;
        let types = "grant_types_supported";

        assert_eq!(grants("x", json!(1)), (false, None));
        assert_eq!(grants(GRANT_PROFILES, json!(["x", profile])), (true, None));
        assert_eq!(grants(types, json!(["authorization_code", bearer])), (false, Some(true)));
        assert_eq!(grants(types, json!(["authorization_code"])), (false, Some(false)));
        assert_eq!(grants(types, json!([])), (false, Some(false)));
    }

    #[test]
    fn a_list_of_grants_that_is_none_says_nothing() {
        for value in
            [json!(null), json!(true), json!([1]), json!({}), json!([names::GRANT_JWT_BEARER, 1])]
        {
            assert_eq!(grants("grant_types_supported", value.clone()), (false, None), "{value}");
            assert_eq!(grants(GRANT_PROFILES, value.clone()), (false, None), "{value}");
        }
    }
}
