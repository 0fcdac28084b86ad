//! The documents our Resource AS and the resources publish (RFC 8414 §2, RFC 9728 §2, RFC 7517).

use crate::client_authentication::CLIENT_ASSERTION_ALGORITHMS;
use crate::config::{Accept, AuthorizationServer, Binding, Resource};
use crate::dpop;
use crate::http::Url;
use crate::names;
use crate::reply::Reply;
use serde_json::{Map, Value, json};

/// Authorization server metadata (RFC 8414 §2, ID-JAG §7.2), with all scopes and types of detail there
/// are.
///
/// Says nothing about trusted issuers or clients (ID-JAG §9.4). There is no authorization endpoint;
/// where the compatibility switch is on, one that always refuses is published for clients whose
/// parser insists on the member.
pub fn authorization_server(
    server: &AuthorizationServer,
    scopes: &[&str],
    details: &[&str],
) -> Value {
    let algorithms: Vec<&str> =
        CLIENT_ASSERTION_ALGORITHMS.iter().map(|algorithm| algorithm.name()).collect();
    let mut grants = vec![names::GRANT_JWT_BEARER];
    grants.extend(server.dpop.jwt_dpop_grant.then_some(names::GRANT_JWT_DPOP));
    let mut methods = vec!["client_secret_basic", "client_secret_post", "private_key_jwt"];
    if server.reads_certificates {
        methods.extend(["tls_client_auth", "self_signed_tls_client_auth"]);
    }
    let mut document = json!({
        "issuer": server.issuer.as_str(),
        "token_endpoint": server.endpoint.url.as_str(),
        "jwks_uri": server.jwks_uri.as_str(),
        "revocation_endpoint": server.revocation.token.as_str(),
        "grant_types_supported": grants,
        "authorization_grant_profiles_supported": [names::GRANT_PROFILE_ID_JAG],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
    });
    if let Some(members) = document.as_object_mut() {
        if let Some(documents) = &server.endpoint.client_documents {
            members.insert("client_id_metadata_document_supported".into(), true.into());
            let methods = members.get_mut("token_endpoint_auth_methods_supported");
            if let Some(methods) = methods.and_then(Value::as_array_mut) {
                methods.extend(documents.allow_public.then(|| "none".into()));
            }
        }
        // Clients prove themselves there as they do at the token endpoint (RFC 7009 §2.1).
        for what in ["auth_methods_supported", "auth_signing_alg_values_supported"] {
            let same = members.get(&format!("token_endpoint_{what}")).cloned();
            members.extend(same.map(|same| (format!("revocation_endpoint_{what}"), same)));
        }
        insert_details(members, details);
        if !scopes.is_empty() {
            members.insert("scopes_supported".into(), json!(scopes));
        }
        if server.dpop.advertised {
            let algorithms = dpop::algorithm_names();
            members.insert("dpop_signing_alg_values_supported".into(), json!(algorithms));
        }
        if server.reads_certificates {
            // RFC 8705 §3.3
            members.insert("tls_client_certificate_bound_access_tokens".into(), true.into());
        }
        if server.compat_authorization_endpoint {
            let url = authorization_endpoint_path(server);
            let url = server.issuer.with_path(&url);
            members.insert("authorization_endpoint".into(), url.as_str().into());
            members.insert("response_types_supported".into(), json!(["none"]));
        }
    }
    document
}

/// RFC 9396 §10, RFC 9728 §2.
fn insert_details(members: &mut Map<String, Value>, types: &[&str]) {
    if !types.is_empty() {
        members.insert("authorization_details_types_supported".into(), json!(types));
    }
}

/// Path of the authorization endpoint that always refuses.
pub fn authorization_endpoint_path(server: &AuthorizationServer) -> String {
    format!("{}/authorize", server.issuer.path().trim_end_matches('/'))
}

/// Protected resource metadata (RFC 9728 §2).
pub fn protected_resource(
    server: &AuthorizationServer,
    resource: &Resource,
    accept: &Accept,
) -> Value {
    let mut servers = vec![server.issuer.as_str()];
    servers.extend(accept.other_authorization_servers.iter().map(Url::as_str));
    if accept.others_first {
        servers.rotate_left(1);
    }
    let mut document = json!({
        "resource": resource.resource.as_str(),
        "authorization_servers": servers,
        "bearer_methods_supported": ["header"],
    });
    if let Some(members) = document.as_object_mut() {
        insert_details(members, &accept.authorization_details.names().collect::<Vec<_>>());
        if !accept.scopes.is_empty() {
            members.insert("scopes_supported".into(), json!(accept.scopes));
        }
        if server.dpop.advertised || accept.binding == Some(Binding::Dpop) {
            let algorithms = dpop::algorithm_names();
            members.insert("dpop_signing_alg_values_supported".into(), json!(algorithms));
        }
        let required = match accept.binding {
            None => None,
            Some(Binding::Dpop) => Some("dpop_bound_access_tokens_required"),
            Some(Binding::Certificate) => Some("tls_client_certificate_bound_access_tokens"),
        };
        members.extend(required.map(|name| (name.to_owned(), true.into())));
        if let Some(name) = &accept.name {
            members.insert("resource_name".into(), name.as_str().into());
        }
    }
    document
}

/// A public document: cacheable for `max_age` seconds, readable by any browser page.
pub fn document(body: &Value, max_age: u32) -> Reply {
    Reply {
        status: 200,
        headers: vec![
            ("content-type", names::JSON.to_owned()),
            ("cache-control", format!("max-age={max_age}")),
            ("access-control-allow-origin", "*".to_owned()),
        ],
        body: body.to_string(),
    }
}

/// Answer to a preflight for a public document.
pub fn document_preflight() -> Reply {
    Reply {
        status: 204,
        headers: vec![
            ("access-control-allow-origin", "*".to_owned()),
            ("access-control-allow-methods", "GET, HEAD".to_owned()),
            ("access-control-allow-headers", "*".to_owned()),
            ("access-control-max-age", "3600".to_owned()),
        ],
        body: String::new(),
    }
}
