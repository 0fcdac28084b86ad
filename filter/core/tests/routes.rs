//! Which endpoint a request is for: the index tells the same as a look at everything there is.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::config::{Config, Kind, Resource, Upgrade};
use jagway_core::digest::sha256;
use jagway_core::error::Error;
use jagway_core::http::{Request, Url};
use jagway_core::reply::Reply;
use jagway_core::resource_server::{Edits, credential_headers};
use jagway_core::revocation_endpoints::all;
use jagway_core::routes::{self, Route};
use jagway_core::{metadata, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const HOSTS: [&str; 6] = [
    "https://mcp.acme.example",
    "https://b.example:8443",
    "http://c.example",
    "https://c.example:80",
    "http://[::1]:443",
    "https://[::1]",
];
const PATHS: [&str; 9] = [
    "",
    "/",
    "/x",
    "/x/",
    "/x/y",
    "/x/y/z",
    "/xy",
    "/tok",
    "/.well-known/oauth-protected-resource/x",
];

#[test]
fn the_index_tells_of_every_request_what_a_scan_tells() {
    let (mut configs, mut kinds) = (0, BTreeSet::new());

    for seed in 0..120 {
        let document = configured(&mut Dice(seed)).to_string();
        let Ok(config) = Config::parse(document.as_bytes(), &env) else {
            continue;
        };
        configs += 1;
        for request in requests() {
            let (found, scanned) =
                (told(routes::route(&config, &request)), told(scan(&config, &request)));
            let at = format!("{}{}", request.authority(), request.path());
            assert_eq!(found, scanned, "{} {at} of {document}", request.method());
            kinds.insert(found.split(' ').next().unwrap_or_default().to_owned());
        }
    }

    assert!(configs >= 50, "{configs}");
    let expected = [
        "AmbiguousPath",
        "Document",
        "Guard",
        "MethodNotAllowed(\"GET,",
        "NotFound",
        "Resource",
        "Revocation",
        "TokenEndpoint",
        "Unjudged",
        "UnjudgedBut",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        let digest = sha256(&self.0.to_be_bytes());
        self.0 = u64::from_be_bytes(*digest.first_chunk().unwrap());
        usize::from(digest[8]) % sides
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// Any configuration: resources of both kinds here and there, and perhaps a guard.
fn configured(dice: &mut Dice) -> Value {
    let (accept, upgrade) = (accept_config(), upgrade_config());
    let mut config = accept.clone();
    config["allow_insecure_http"] = json!(true);
    config["identity_providers"] = upgrade["identity_providers"].clone();
    config["identity_providers"]["acme"]["revocation"] =
        json!({ "global_token_revocation": dice.below(2) == 0, "security_events": {} });
    config["authorization_server"]["issuer"] = json!(format!("{AS}{}", dice.of(&["", "/tenant"])));
    config["authorization_server"]["compat_authorization_endpoint"] = json!(dice.below(2) == 0);
    let mut resources = Vec::new();
    for number in 0..1 + dice.below(6) {
        let url = format!("{}{}", dice.of(&HOSTS), dice.of(&PATHS));
        if number == 0 || dice.below(2) == 0 {
            let mut resource = accept["resources"][0].clone();
            resource["resource"] = json!(url);
            resource["accept"]["metadata_at_root"] = json!(dice.below(4) == 0);
            resources.push(resource);
        } else {
            let mut resource = upgrade["resources"][0].clone();
            resource["resource"] = json!(format!("https://behind.example/{number}"));
            resource["upgrade"]["url"] = json!(url);
            if dice.below(2) == 0 {
                resource["upgrade"]["pass_ema_clients"] = json!(true);
            }
            resources.push(resource);
        }
    }
    config["resources"] = json!(resources);
    if dice.below(2) == 0 {
        let url = format!("{}/tok", dice.of(&HOSTS));
        config["guards"] = json!([{
            "issuer": "https://guarded.example", "token_endpoint": url, "resources": ["https://r.example"],
            "clients": { "x": { "identity_providers": ["acme"] } }, "paths": ["/x", "/x/y"],
        }]);
    }
    config
}

/// Requests at every host in each of its spellings, for all paths that might be something.
fn requests() -> Vec<Request> {
    let root = names::WELL_KNOWN_PROTECTED_RESOURCE;
    let server = names::WELL_KNOWN_AUTHORIZATION_SERVER;
    let own = ["token", "revoke", "global-token-revocation", "security-events", "authorize"];
    let own = own.iter().flat_map(|name| [format!("/{name}"), format!("/tenant/{name}")]);
    let keys = "/.well-known/jagway/jwks.json";
    let mut paths: Vec<String> = own.collect();
    paths.extend([keys.to_owned(), format!("/tenant{keys}")]);
    paths.extend([server.to_owned(), format!("{server}/tenant")]);
    for path in PATHS {
        paths.extend([path.to_owned(), format!("{path}/w"), format!("{root}{path}")]);
        paths.extend([format!("{path}?q=/x"), path.to_uppercase()]);
    }
    let mut requests = Vec::new();
    for authority in HOSTS.iter().map(|host| host.split_once("://").unwrap().1) {
        let upper = authority.to_uppercase();
        let spellings = [authority, &upper, &format!("{authority}:443"), &format!("{upper}:80")];
        for authority in spellings {
            for path in &paths {
                let method = if path.len() % 3 == 0 { "POST" } else { "GET" };
                let fields = [("x-api-key", "k"), ("authorization", "Bearer t")];
                requests.push(request(method, authority, path, &fields));
            }
        }
    }
    requests
}

fn told(route: Result<Route, Error>) -> String {
    match route {
        Err(error) => format!("{error:?}"),
        Ok(Route::Document(reply)) => format!("Document {reply:?}"),
        Ok(Route::TokenEndpoint) => "TokenEndpoint".to_owned(),
        Ok(Route::Revocation(endpoint)) => format!("Revocation {endpoint:?}"),
        Ok(Route::Guard(guard)) => format!("Guard {:?}", guard.endpoint.url),
        Ok(Route::Unjudged(edits)) if edits.remove.is_empty() => "Unjudged".to_owned(),
        Ok(Route::Unjudged(edits)) => format!("UnjudgedBut {:?}", edits.remove),
        Ok(Route::Resource(resource)) => format!("Resource {:?}", resource.url),
    }
}

/// What [`routes::route`] must tell, by a look at everything there is.
fn scan(config: &Config, request: &Request) -> Result<Route, Error> {
    let path = request.path();
    if routes::is_ambiguous(path) {
        return Err(Error::AmbiguousPath);
    }
    if let Some(route) = own_endpoint(config, request, path)? {
        return Ok(route);
    }
    let authority = request.authority();
    if let Some(guard) = config.guards.iter().find(|guard| guard.endpoint.url.is_at(authority)) {
        return match path {
            path if path == guard.endpoint.url.path() => Ok(Route::Guard(guard.clone())),
            path if guard.paths.iter().any(|other| other == path) => {
                Ok(Route::Unjudged(Edits::default()))
            }
            _ => Err(Error::NotFound),
        };
    }
    if let Some(route) = metadata_behind(config, request, path)? {
        return Ok(route);
    }
    config
        .resources
        .iter()
        .filter(|resource| resource.url.is_at(request.authority()))
        .filter(|resource| is_below(path, resource.url.path()))
        .max_by_key(|resource| resource.url.path().len())
        .map(|resource| Route::Resource(resource.clone()))
        .ok_or(Error::NotFound)
}

fn is_below(path: &str, base: &str) -> bool {
    let base = base.trim_end_matches('/');
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn own_endpoint(config: &Config, request: &Request, path: &str) -> Result<Option<Route>, Error> {
    let Some(server) = &config.authorization_server else {
        return Ok(None);
    };
    let document = |body, max_age| public(request, &metadata::document(&body, max_age)).map(Some);
    if server.issuer.is_at(request.authority()) {
        if path == server.endpoint.url.path() {
            return Ok(Some(Route::TokenEndpoint));
        }
        if let Some((_, endpoint)) = all(server).find(|(url, _)| url.path() == path) {
            return Ok(Some(Route::Revocation(endpoint)));
        }
        if path == server.jwks_uri.path() {
            return document(server.published_keys.clone(), 300);
        }
        if path == server.issuer.with_well_known(names::WELL_KNOWN_AUTHORIZATION_SERVER).path() {
            let accepts = config.resources.iter().filter_map(|resource| match &resource.kind {
                Kind::Accept(accept) => Some(accept),
                Kind::Upgrade(_) => None,
            });
            let scopes: BTreeSet<&str> =
                accepts.flat_map(|accept| &accept.scopes).map(String::as_str).collect();
            let scopes: Vec<&str> = scopes.into_iter().collect();
            return document(metadata::authorization_server(server, &scopes, &[]), 3600);
        }
        if server.compat_authorization_endpoint
            && path == metadata::authorization_endpoint_path(server)
        {
            let body = json!({ "error": "unsupported_response_type" });
            return Ok(Some(Route::Document(Reply::json(400, &body))));
        }
    }
    for resource in &config.resources {
        let well_known = resource.resource.with_well_known(names::WELL_KNOWN_PROTECTED_RESOURCE);
        if let Kind::Accept(accept) = &resource.kind
            && resource.resource.is_at(request.authority())
            && (path == well_known.path()
                || accept.metadata_at_root && path == names::WELL_KNOWN_PROTECTED_RESOURCE)
        {
            return document(metadata::protected_resource(server, resource, accept), 3600);
        }
    }
    Ok(None)
}

fn metadata_behind(config: &Config, request: &Request, path: &str) -> Result<Option<Route>, Error> {
    let root = names::WELL_KNOWN_PROTECTED_RESOURCE;
    let at_host = |resource: &Resource| resource.url.is_at(request.authority());
    let here: Vec<&Upgrade> = config
        .resources
        .iter()
        .filter(|resource| at_host(resource))
        .filter_map(|resource| match &resource.kind {
            Kind::Upgrade(upgrade) => Some(&**upgrade),
            Kind::Accept(_) => None,
        })
        .collect();
    let is_at = |url: &Url| path == root || path == url.with_well_known(root).path();
    if !here.iter().any(|upgrade| upgrade.passes_ema_clients && is_at(&upgrade.url)) {
        return Ok(None);
    }
    let presented: Vec<String> =
        here.into_iter().flat_map(|upgrade| upgrade.presented.clone()).collect();
    let remove = credential_headers(request, &presented);
    match request.method() {
        "GET" | "HEAD" => Ok(Some(Route::Unjudged(Edits { remove, set: Vec::new() }))),
        _ => Err(Error::MethodNotAllowed("GET, HEAD")),
    }
}

fn public(request: &Request, reply: &Reply) -> Result<Route, Error> {
    match request.method() {
        "GET" | "HEAD" => Ok(Route::Document(reply.clone())),
        "OPTIONS" => Ok(Route::Document(metadata::document_preflight())),
        _ => Err(Error::MethodNotAllowed("GET, HEAD")),
    }
}
