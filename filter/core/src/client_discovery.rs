//! Fetching what clients say about themselves, and their keys, at the hosts that the operator lists
//! (draft-ietf-oauth-client-id-metadata-document §4, §8).

use crate::client_metadata::{Credential, Document, client_url};
use crate::config::{DocumentHost, RegisteredClient, RegisteredCredential, TokenEndpoint};
use crate::digest::{Key, of_fields, short_digest};
use crate::discovery::{get, max_age};
use crate::engine::Engine;
use crate::error::{ClientFault, Error};
use crate::flow::Ctx;
use crate::http::{Answer, Url};
use crate::job::{Job, JobError, Value, Want};
use crate::json;
use crate::jwk::KeySet;
use crate::names;
use crate::site::Site;
use serde_json::json;
use std::rc::Rc;

/// Largest key set read at a `jwks_uri`, in bytes: what is kept of clients must stay small.
const MAX_JWKS: usize = 16 * 1024;
/// How long a document counts as fresh if its host does not say, in seconds.
const FRESH: u64 = 300;
/// Shortest and longest time that a host may ask for, in seconds.
const FRESH_BOUNDS: (u64, u64) = (60, 3600);
/// How long a document that cannot be fetched anew keeps serving, in seconds. Not for a day, as an
/// identity provider's keys: taking the document away is all that a client can do about a stolen key.
const MAX_STALE: u64 = 3600;

/// The metadata document of one client.
#[derive(Debug)]
pub struct Fetch {
    /// Digest of everything that makes the document what it is.
    pub key: Key,
    /// Its URL, the `client_id`.
    url: Url,
    /// Where it is.
    host: Rc<DocumentHost>,
}

impl Fetch {
    /// The listed host it is on.
    pub fn host(&self) -> &str {
        self.url.authority()
    }
}

/// What a client's document says, with its keys.
pub struct Described {
    /// Its registration.
    pub registration: Rc<RegisteredClient>,
    /// Whether it may use the JWT bearer grant.
    pub may_use_jwt_bearer: bool,
}

/// Where the document of `client_id` is: `None` unless that is a [`client_url`] at a listed host.
///
/// Nothing is fetched by this.
pub fn find(endpoint: &TokenEndpoint, client_id: &str) -> Option<Rc<Fetch>> {
    let documents = endpoint.client_documents.as_ref()?;
    let url = client_url(client_id, documents.allow_http)?;
    let host = documents.hosts.get(url.authority())?.clone();
    let key = of_fields(&[
        b"client metadata",
        url.as_str().as_bytes(),
        host.party.cluster.as_bytes(),
        &[u8::from(documents.allow_http)],
    ]);
    Some(Rc::new(Fetch { key, url, host }))
}

/// The client of `fetch`, by what is at hand, or fetched once for the process. If `knows` does not
/// know its key set, a newer one is fetched, at most once in 30 s.
///
/// [`ClientFault::Metadata`] if its document is refused, [`Error::ClientMetadataUnavailable`] if there
/// is none to be had now.
pub async fn described(
    ctx: &Ctx,
    site: &Site,
    fetch: &Rc<Fetch>,
    knows: &dyn Fn(&KeySet) -> bool,
) -> Result<Described, Error> {
    let (described, made_at) = asked(ctx, site, fetch, Want::Usable).await?;
    match &described.registration.credential {
        RegisteredCredential::Keys(keys) if !knows(keys) => {
            asked(ctx, site, fetch, Want::NewerThan(made_at)).await.map(|(described, _)| described)
        }
        _ => Ok(described),
    }
}

async fn asked(
    ctx: &Ctx,
    site: &Site,
    fetch: &Rc<Fetch>,
    want: Want,
) -> Result<(Described, u64), Error> {
    let value = ctx.job(Job::ClientMetadata(fetch.clone()), want).await.map_err(|error| {
        if error.is_refusal() {
            return Error::Client(ClientFault::Metadata);
        }
        Error::ClientMetadataUnavailable
    })?;
    let described = read(&fetch.host, &value.data, &site.config.engine);
    let described = described.ok_or(Error::ClientMetadataUnavailable)?;
    Ok((described, value.made_at))
}

/// What [`run`] wrote.
fn read(host: &DocumentHost, data: &[u8], engine: &Engine) -> Option<Described> {
    let written = json::object(data)?;
    let flag = |name| written.get(name).and_then(serde_json::Value::as_bool);
    let credential = match written.get("jwks")? {
        serde_json::Value::Null => RegisteredCredential::Public,
        jwks => {
            let keys = KeySet::parse(jwks.to_string().as_bytes())?;
            RegisteredCredential::Keys(keys.with_engine(engine))
        }
    };
    let registration = RegisteredClient {
        credential,
        identity_providers: host.identity_providers.clone(),
        resources: host.resources.clone(),
        dpop_bound: flag("dpop_bound")?,
    };
    let may_use_jwt_bearer = flag("jwt_bearer")?;
    Some(Described { registration: Rc::new(registration), may_use_jwt_bearer })
}

/// Fetches the document and, if it names a `jwks_uri`, the keys there.
///
/// What the host says and we refuse is a "no" of the client's ([`JobError::Forbidden`]): an older
/// document does not outlive it. It is forgotten in seconds ("MUST NOT cache error responses").
pub async fn run(ctx: Ctx, site: Rc<Site>, fetch: Rc<Fetch>) -> Result<Value, JobError> {
    let Fetch { url, host, .. } = &*fetch;
    let refused = |code: &str| {
        let (path, client) = (&host.party.path, short_digest(url.as_str()));
        site.warn(format!("{path}: the metadata of client={client} is refused: {code}"));
        JobError::Forbidden
    };
    let answered = |answer| match answer {
        Err(JobError::BadAnswer) => Err(refused("client_metadata_status")),
        answer => answer,
    };
    let answer = answered(get(&ctx, &site, &host.party, url).await)?;
    if !is_json(&answer) {
        return Err(refused("client_metadata_media_type"));
    }
    let document = Document::parse(url, &answer.body, host.party.allow_http)
        .map_err(|fault| refused(fault.code()))?;
    let mut fresh = freshness(&answer);
    let jwks = match document.credential {
        Credential::Public => None,
        Credential::Jwks(jwks) => Some(jwks),
        Credential::JwksUri(uri) => {
            let answer = answered(get(&ctx, &site, &host.party, &uri).await)?;
            fresh = fresh.min(freshness(&answer));
            Some(answer.body)
        }
    };
    let jwks = match jwks {
        None => serde_json::Value::Null,
        Some(jwks) => key_set(&jwks).ok_or_else(|| refused("client_metadata_key_set"))?,
    };
    let data = json!({
        "jwks": jwks,
        "dpop_bound": document.dpop_bound_access_tokens,
        "jwt_bearer": document.may_use_jwt_bearer,
    });
    let now = ctx.now();
    let refresh_at = now.saturating_add(fresh);
    let usable_until = refresh_at.saturating_add(MAX_STALE);
    Ok(Value { data: data.to_string().into_bytes(), made_at: now, refresh_at, usable_until })
}

/// The key set in `bytes`, which is small and has at least one key that can be used.
fn key_set(bytes: &[u8]) -> Option<serde_json::Value> {
    let usable = bytes.len() <= MAX_JWKS && !KeySet::parse(bytes)?.is_empty();
    json::object(bytes).filter(|_| usable).map(serde_json::Value::Object)
}

/// `application/json`, or another media type that says it is JSON (RFC 6839 §3.1).
fn is_json(answer: &Answer) -> bool {
    let media_type = answer.headers.text("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let special =
        media_type.strip_prefix("application/").is_some_and(|rest| rest.ends_with("+json"));
    media_type == names::JSON || special
}

/// How long the answer may serve, in seconds: as its host says, within our bounds.
fn freshness(answer: &Answer) -> u64 {
    let control = answer.headers.text("cache-control").unwrap_or_default();
    let (shortest, longest) = FRESH_BOUNDS;
    if control.contains("no-store") || control.contains("no-cache") {
        return shortest;
    }
    max_age(answer).unwrap_or(FRESH).clamp(shortest, longest)
}
