//! All endpoints of a configuration by authority and path: to find one costs the same however many there are.

use crate::config::{Accept, AuthorizationServer, Guard, Kind, Resource, Upgrade};
use crate::http::Url;
use crate::metadata;
use crate::names;
use crate::reply::Reply;
use crate::revocation_endpoints::{self, Endpoint};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The hosts that something is configured at.
#[derive(Default)]
pub struct Index {
    /// By authority in lower case, with the scheme's default port and without.
    hosts: BTreeMap<String, Host>,
}

/// What there is at one authority.
#[derive(Default)]
pub(super) struct Host {
    /// What one path alone is for. What was put there first counts.
    fixed: BTreeMap<String, Fixed>,
    /// Whether a guard has the rest of the host: nothing else is there.
    pub(super) is_guarded: bool,
    /// By path, without a terminating slash. All that lies below belongs to the resource.
    resources: BTreeMap<String, Rc<Resource>>,
    /// Length of the longest of those paths.
    longest: usize,
    /// Header fields that callers of upgraded resources here present credentials in.
    pub(super) presented: Vec<String>,
}

/// What a path alone is for.
pub(super) enum Fixed {
    /// A public document.
    Document(Reply),
    /// A refusal that is published.
    Refusal(Reply),
    /// The token endpoint.
    TokenEndpoint,
    /// An endpoint that takes revocations.
    Revocation(Endpoint),
    /// A guarded token endpoint.
    Guard(Rc<Guard>),
    /// Another path of a guarded server.
    Unjudged,
    /// Metadata that the server behind has.
    MetadataBehind,
}

impl Index {
    /// The index of what these are configured at. Earlier ones come first where two have the same path.
    pub fn new(
        server: Option<&AuthorizationServer>,
        resources: &[Rc<Resource>],
        guards: &[Rc<Guard>],
    ) -> Self {
        let mut index = Self::default();
        let kinds = resources.iter().map(|resource| (resource, &resource.kind));
        if let Some(server) = server {
            index.add_server(server, resources);
            for (resource, kind) in kinds.clone() {
                if let Kind::Accept(accept) = kind {
                    index.add_metadata(server, resource, accept);
                }
            }
        }
        for guard in guards {
            index.add_guard(guard);
        }
        for (resource, kind) in kinds {
            if let Kind::Upgrade(upgrade) = kind {
                index.add_upgrade(upgrade);
            }
            index.at(&resource.url, |host| host.add_resource(resource));
        }
        index
    }

    /// What there is at `authority`, as a client sent it: host in any case, the default port written or not.
    pub(super) fn host(&self, authority: &str) -> Option<&Host> {
        let host = self.hosts.get(authority);
        host.or_else(|| self.hosts.get(&authority.to_ascii_lowercase()))
    }

    /// Adds to the host of `url`, under both of its names ([`Url::is_at`]).
    fn at(&mut self, url: &Url, add: impl Fn(&mut Host)) {
        let name = url.authority().to_ascii_lowercase();
        let port = if url.is_https() { 443 } else { 80 };
        for name in [format!("{name}:{port}"), name] {
            add(self.hosts.entry(name).or_default());
        }
    }

    fn add_server(&mut self, server: &AuthorizationServer, resources: &[Rc<Resource>]) {
        let well_known = server.issuer.with_well_known(names::WELL_KNOWN_AUTHORIZATION_SERVER);
        let body =
            metadata::authorization_server(server, &scopes(resources), &detail_types(resources));
        let about_us = metadata::document(&body, 3600);
        let keys = metadata::document(&server.published_keys, 300);
        self.at(&server.issuer, |host| {
            host.fix(server.endpoint.url.path(), || Fixed::TokenEndpoint);
            for (url, endpoint) in revocation_endpoints::all(server) {
                host.fix(url.path(), || Fixed::Revocation(endpoint));
            }
            host.fix(server.jwks_uri.path(), || Fixed::Document(keys.clone()));
            host.fix(well_known.path(), || Fixed::Document(about_us.clone()));
            if server.compat_authorization_endpoint {
                let body = serde_json::json!({ "error": "unsupported_response_type" });
                let path = metadata::authorization_endpoint_path(server);
                host.fix(&path, || Fixed::Refusal(Reply::json(400, &body)));
            }
        });
    }

    fn add_metadata(&mut self, server: &AuthorizationServer, resource: &Resource, accept: &Accept) {
        let root = names::WELL_KNOWN_PROTECTED_RESOURCE;
        let well_known = resource.resource.with_well_known(root);
        let body = metadata::protected_resource(server, resource, accept);
        let document = metadata::document(&body, 3600);
        self.at(&resource.resource, |host| {
            host.fix(well_known.path(), || Fixed::Document(document.clone()));
            if accept.metadata_at_root {
                host.fix(root, || Fixed::Document(document.clone()));
            }
        });
    }

    fn add_guard(&mut self, guard: &Rc<Guard>) {
        self.at(&guard.endpoint.url, |host| {
            if host.is_guarded {
                return;
            }
            host.is_guarded = true;
            host.fix(guard.endpoint.url.path(), || Fixed::Guard(guard.clone()));
            for path in &guard.paths {
                host.fix(path, || Fixed::Unjudged);
            }
        });
    }

    /// The metadata of a resource whose EMA clients pass untouched: the server behind has it, and they need it
    /// to find their way (RFC 9728 §3.1; MCP, Protected Resource Metadata: or at the root).
    fn add_upgrade(&mut self, upgrade: &Upgrade) {
        let root = names::WELL_KNOWN_PROTECTED_RESOURCE;
        let well_known = upgrade.url.with_well_known(root);
        self.at(&upgrade.url, |host| {
            for name in &upgrade.presented {
                if !host.presented.contains(name) {
                    host.presented.push(name.clone());
                }
            }
            if upgrade.passes_ema_clients && !host.is_guarded {
                host.fix(root, || Fixed::MetadataBehind);
                host.fix(well_known.path(), || Fixed::MetadataBehind);
            }
        });
    }
}

impl Host {
    /// What `path` alone is for.
    pub(super) fn fixed(&self, path: &str) -> Option<&Fixed> {
        self.fixed.get(path)
    }

    /// The resource that `path` belongs to. The longest path wins, so that one resource may lie below another.
    pub(super) fn resource(&self, path: &str) -> Option<&Rc<Resource>> {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        ends.take_while(|end| *end <= self.longest)
            .filter_map(|end| self.resources.get(path.get(..end)?))
            .last()
    }

    fn fix(&mut self, path: &str, what: impl FnOnce() -> Fixed) {
        self.fixed.entry(path.to_owned()).or_insert_with(what);
    }

    fn add_resource(&mut self, resource: &Rc<Resource>) {
        let path = resource.url.path();
        let below = path.trim_end_matches('/');
        // Two may be here where one's default port is written as the other's own.
        let there = self.resources.get(below);
        if there.is_none_or(|there| there.url.path().len() <= path.len()) {
            self.longest = self.longest.max(below.len());
            self.resources.insert(below.to_owned(), resource.clone());
        }
    }
}

fn accepted(resources: &[Rc<Resource>]) -> impl Iterator<Item = &Rc<Accept>> {
    resources.iter().filter_map(|resource| match &resource.kind {
        Kind::Accept(accept) => Some(accept),
        Kind::Upgrade(_) => None,
    })
}

fn scopes(resources: &[Rc<Resource>]) -> Vec<&str> {
    sorted(accepted(resources).flat_map(|accept| &accept.scopes).map(String::as_str).collect())
}

fn detail_types(resources: &[Rc<Resource>]) -> Vec<&str> {
    sorted(accepted(resources).flat_map(|accept| accept.authorization_details.names()).collect())
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names.dedup();
    names
}
