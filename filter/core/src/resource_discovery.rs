//! From a resource to its authorization server: protected resource metadata, read as a client
//! (RFC 9728; MCP, Authorization Server Discovery).

use crate::challenge::{self, Scheme};
use crate::config::{Discovery, Party};
use crate::discovery::{self, get};
use crate::flow::Ctx;
use crate::http::{Answer, Callout, Url};
use crate::job::{JobError, Value};
use crate::json;
use crate::names;
use crate::secret::Secret;
use crate::site::Site;
use std::rc::Rc;

/// How long a resource's word counts as fresh, in seconds.
const FRESH: u64 = 300;
/// How much of a document is repeated in the log: so many names, each of so many characters.
const MOST_FOUND: (usize, usize) = (4, 200);

/// Why a document does not lead to an authorization server. What was found in it is cut short, and for
/// the log only, with `{:?}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not protected resource metadata.
    NotMetadata,
    /// It is that of another resource: this one.
    OtherResource(String),
    /// None of the authorization servers that it names is allowed: these.
    NoAllowedServer(Vec<String>),
}

impl Fault {
    /// Stable code for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotMetadata => "resource_metadata_malformed",
            Self::OtherResource(_) => "resource_metadata_of_another",
            Self::NoAllowedServer(_) => "resource_metadata_no_allowed_server",
        }
    }
}

/// Where the metadata of `resource` is if nobody says (RFC 9728 §3.1).
pub fn well_known(resource: &Url) -> Url {
    resource.with_well_known(names::WELL_KNOWN_PROTECTED_RESOURCE)
}

/// Where the metadata of `resource` is by the 401 with which it answered (RFC 9728 §5.1): the first
/// `resource_metadata` of a Bearer or DPoP challenge that is at the resource's own origin.
///
/// Another origin is not followed: the configured cluster reaches no other. `None` for any other status.
pub fn metadata_url(resource: &Url, answer: &Answer) -> Option<Url> {
    if answer.status != 401 {
        return None;
    }
    challenge::read(&answer.headers)
        .iter()
        .filter(|challenge| challenge.scheme != Scheme::Other)
        .filter_map(|challenge| challenge.resource_metadata())
        .find(|url| url.origin() == resource.origin())
}

/// Which of the `allowed` authorization servers issues tokens for `resource`, by its metadata `body`: the
/// index in `allowed` of the first in the document's `authorization_servers` that is there, compared as
/// written.
///
/// The document's `resource` must be `resource`, as written (RFC 9728 §3.3): the word of another resource
/// would let it choose where our users' grants go. For the same reason the document chooses among the
/// `allowed` only. Does *not* look at anything else in it, `signed_metadata` included.
pub fn parse(resource: &Url, body: &[u8], allowed: &[&str]) -> Result<usize, Fault> {
    let document = json::object(body).ok_or(Fault::NotMetadata)?;
    let (longest, most) = (MOST_FOUND.1, MOST_FOUND.0);
    let cut = |text: &str| text.chars().take(longest).collect::<String>();
    match document.get("resource").and_then(|found| found.as_str()) {
        Some(found) if found == resource.as_str() => {}
        Some(found) => return Err(Fault::OtherResource(cut(found))),
        None => return Err(Fault::NotMetadata),
    }
    // RFC 9728 §2: optional, but then there is nothing to choose from.
    let servers = match document.get("authorization_servers") {
        None => return Err(Fault::NoAllowedServer(Vec::new())),
        Some(servers) => servers.as_array().ok_or(Fault::NotMetadata)?,
    };
    let servers: Option<Vec<&str>> = servers.iter().map(|server| server.as_str()).collect();
    let servers = servers.ok_or(Fault::NotMetadata)?;
    let place = |server: &&str| allowed.iter().position(|allowed| allowed == server);
    servers
        .iter()
        .find_map(place)
        .ok_or_else(|| Fault::NoAllowedServer(servers.into_iter().take(most).map(cut).collect()))
}

/// Asks `resource`, through `cluster`, which of the `allowed` authorization servers issues tokens for it:
/// their index. Redirects are not followed.
///
/// First by a request without credentials, as a 401 may name the metadata; if it does not, at the two
/// well-known URLs, that with the resource's path first.
///
/// [`JobError::Unavailable`] if there is no answer now; [`JobError::Misconfigured`] if the resource has
/// servers, but none of the `allowed`; [`JobError::BadAnswer`] if nothing of what came is its metadata.
/// The log says which document, and what is wrong with it.
pub async fn fetch(ctx: &Ctx, site: &Site, discovery: &Discovery) -> Result<usize, JobError> {
    let Discovery { path, cluster, resource, allowed } = discovery;
    let host =
        Party::new(path, resource.clone(), cluster.clone(), None, None, !resource.is_https());
    let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
    let mut urls = vec![well_known(resource)];
    let root = resource.with_path(names::WELL_KNOWN_PROTECTED_RESOURCE);
    if !urls.contains(&root) {
        urls.push(root);
    }
    let named = ctx.call(probe(cluster, resource)).await.ok();
    if let Some(url) = named.and_then(|answer| metadata_url(resource, &answer)) {
        urls = vec![url];
    }
    for url in urls {
        match get(ctx, site, &host, &url).await.map(|found| parse(resource, &found.body, &allowed))
        {
            Ok(Ok(index)) => return Ok(index),
            Ok(Err(fault)) => {
                site.warn(format!("metadata at {url:?}: {}: {fault:?}", fault.code()));
                if let Fault::NoAllowedServer(_) = fault {
                    return Err(JobError::Misconfigured);
                }
            }
            // A server that is down at one URL is down at the other, and somebody waits.
            Err(JobError::Unavailable) => return Err(JobError::Unavailable),
            Err(_) => {}
        }
    }
    site.warn(format!("no metadata of resource {resource:?}"));
    Err(JobError::BadAnswer)
}

/// The issuer identifier of the authorization server that a resource names, as workers share it.
pub async fn run(ctx: Ctx, site: Rc<Site>, discovery: Rc<Discovery>) -> Result<Value, JobError> {
    let found = fetch(&ctx, &site, &discovery).await?;
    let issuer = discovery.allowed.get(found).ok_or(JobError::BadAnswer)?;
    Ok(discovery::value(ctx.now(), issuer.clone().into_bytes(), FRESH))
}

/// A GET of `resource` as an MCP client sends it, without credentials.
fn probe(cluster: &str, resource: &Url) -> Callout {
    let mut callout = Callout::get_json(cluster, resource);
    callout.headers = vec![("accept".into(), Secret::new("application/json, text/event-stream"))];
    callout
}
