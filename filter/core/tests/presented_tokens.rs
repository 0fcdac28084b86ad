//! JWTs of others that callers present: access tokens of the identity provider, tokens of workloads.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::claim_rule::{ClaimRule, Pattern};
use jagway_core::digest::base64url;
use jagway_core::jwk::KeySet;
use jagway_core::jws::{Algorithm, Fault};
use jagway_core::provider_access_token::{self, ProviderAccessToken};
use jagway_core::workload_token::{self, Workload, WorkloadToken};
use serde_json::{Value, json};
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const GATEWAY: &str = "https://gateway.acme.example";
const GITHUB: &str = "https://token.actions.githubusercontent.com";

fn keys() -> KeySet {
    KeySet::parse(&jwks(&[1])).unwrap()
}

fn merged(mut claims: Value, change: Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// Signed by key 1 under a header that `SigningKey` would not write.
fn under(header: Value, claims: &Value) -> String {
    use p256::ecdsa::signature::Signer;
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    let input = format!("{}.{}", part(&header), part(claims));
    let key = p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
    let signature: p256::ecdsa::Signature = key.sign(input.as_bytes());
    format!("{input}.{}", base64url(&signature.to_bytes()))
}

fn access(change: Value) -> Value {
    let claims = json!({
        "iss": IDP, "aud": GATEWAY, "sub": "service-7", "client_id": "service-7", "iat": NOW,
        "exp": NOW + 300, "jti": "1", "scope": "tools",
    });
    merged(claims, change)
}

fn read_access(token: &str, untyped: bool) -> Result<ProviderAccessToken, Fault> {
    let algorithms = [Algorithm::ES256];
    let received = provider_access_token::Received::parse(token.as_bytes(), &algorithms, untyped)?;
    assert!(received.is_known_to(&keys()));
    let (issuer, audience, now, skew) = (IDP, GATEWAY, NOW, 60);
    let expected = provider_access_token::Expected { issuer, audience, now, skew };
    received.verify(&keys(), &expected)
}

#[test]
fn an_access_token_of_the_provider_tells_its_subject_and_client() {
    let named = |client: Option<&str>| ProviderAccessToken {
        subject: "service-7".into(),
        client_id: client.map(str::to_owned),
        expires_at: NOW + 300,
    };
    let cases = [
        (json!({}), Some("service-7")),
        (json!({ "azp": "service-7" }), Some("service-7")),
        (json!({ "client_id": null, "azp": "other" }), Some("other")),
        (json!({ "client_id": null }), None),
        (json!({ "aud": ["x", GATEWAY] }), Some("service-7")),
    ];

    for (change, client) in cases {
        for typ in ["at+jwt", "application/at+jwt", "AT+JWT"] {
            let token = key(1).sign(typ, &access(change.clone()));
            assert_eq!(read_access(&token, false), Ok(named(client)), "{typ} {change}");
        }
    }
}

#[test]
fn an_access_token_says_that_it_is_one_unless_that_is_waived() {
    let header = json!({ "alg": "ES256", "kid": "key-1" });
    let untyped = under(header, &access(json!({})));
    let jwt = key(1).sign("JWT", &access(json!({})));

    for token in [&untyped, &jwt] {
        assert_eq!(read_access(token, false), Err(Fault::Typ));
        assert!(read_access(token, true).is_ok());
    }
    assert!(read_access(&key(1).sign("at+jwt", &access(json!({}))), true).is_ok());
    let kinds = ["oauth-id-jag+jwt", "dpop+jwt", "client-authentication+jwt", "secevent+jwt", ""];
    for typ in kinds.iter().chain(&["logout+jwt", "at+jwt;x", "at", "refresh+jwt"]) {
        let token = key(1).sign(typ, &access(json!({})));
        assert_eq!(read_access(&token, true), Err(Fault::Typ), "{typ}");
    }
}

#[test]
fn an_unsound_access_token_is_refused() {
    let cases = [
        (json!({ "iss": "https://evil.example" }), Fault::Issuer),
        (json!({ "iss": format!("{IDP}/") }), Fault::Issuer),
        (json!({ "iss": null }), Fault::Missing("iss")),
        (json!({ "aud": format!("{GATEWAY}/") }), Fault::Audience),
        (json!({ "aud": [] }), Fault::Audience),
        (json!({ "aud": [GATEWAY, 1] }), Fault::ClaimType("aud")),
        (json!({ "aud": null }), Fault::Missing("aud")),
        (json!({ "exp": NOW - 60, "iat": NOW - 360 }), Fault::Expired),
        (json!({ "exp": null }), Fault::Missing("exp")),
        (json!({ "iat": NOW + 61 }), Fault::IssuedInFuture),
        (json!({ "iat": null }), Fault::Missing("iat")),
        (json!({ "nbf": NOW + 61 }), Fault::NotYetValid),
        (json!({ "sub": null }), Fault::Missing("sub")),
        (json!({ "sub": ["service-7"] }), Fault::ClaimType("sub")),
        (json!({ "client_id": 7 }), Fault::ClaimType("client_id")),
        (json!({ "client_id": "" }), Fault::Missing("client_id")),
        (json!({ "azp": "other" }), Fault::ClientMismatch),
        (json!({ "cnf": { "jkt": "x" } }), Fault::Confirmation),
        (json!({ "at_hash": "x" }), Fault::Typ),
        (json!({ "events": {} }), Fault::Typ),
    ];

    for (change, fault) in cases {
        let token = key(1).sign("at+jwt", &access(change.clone()));
        assert_eq!(read_access(&token, true), Err(fault), "{change}");
    }
    let mut forged = key(1).sign("at+jwt", &access(json!({})));
    forged.replace_range(forged.len() - 10..forged.len() - 9, "-");
    assert_eq!(read_access(&forged, false), Err(Fault::Signature));
}

/// As GitHub writes them, shortened.
fn github(change: Value) -> Value {
    let claims = json!({
        "jti": "1", "sub": "repo:acme/deploy:ref:refs/heads/main", "aud": GATEWAY,
        "ref": "refs/heads/main", "sha": "9f2c", "repository": "acme/deploy",
        "repository_owner": "acme", "repository_owner_id": "65", "run_id": "3",
        "repository_visibility": "private", "repository_id": "74", "actor": "octocat",
        "workflow": "deploy", "head_ref": "", "base_ref": "", "event_name": "push",
        "ref_protected": "true", "ref_type": "branch", "runner_environment": "github-hosted",
        "job_workflow_ref": "acme/deploy/.github/workflows/deploy.yml@refs/heads/main",
        "iss": GITHUB, "nbf": NOW - 600, "exp": NOW + 300, "iat": NOW,
    });
    merged(claims, change)
}

/// As GitLab writes them, shortened.
fn gitlab(change: Value) -> Value {
    let claims = json!({
        "iss": GITHUB, "sub": "project_path:acme/ops/deploy:ref_type:branch:ref:main",
        "aud": [GATEWAY], "namespace_path": "acme/ops", "project_id": "20",
        "project_path": "acme/ops/deploy", "pipeline_source": "push", "ref_type": "branch",
        "ref": "main", "ref_protected": "true", "runner_id": 12, "environment_protected": "false",
        "jti": "2", "iat": NOW, "nbf": NOW - 5, "exp": NOW + 3600,
    });
    merged(claims, change)
}

/// As the API server of Kubernetes writes them into a projected volume.
fn kubernetes(change: Value) -> Value {
    let claims = json!({
        "aud": [GATEWAY], "exp": NOW + 3607, "iat": NOW, "iss": GITHUB, "jti": "3",
        "kubernetes.io": {
            "namespace": "prod", "node": { "name": "n1", "uid": "4" },
            "pod": { "name": "bot-5f", "uid": "5" },
            "serviceaccount": { "name": "bot", "uid": "6" }, "warnafter": NOW + 3607,
        },
        "nbf": NOW, "sub": "system:serviceaccount:prod:bot",
    });
    merged(claims, change)
}

fn read_workload(token: &str) -> Result<WorkloadToken, Fault> {
    let received = workload_token::Received::parse(token.as_bytes(), &[Algorithm::ES256])?;
    assert!(received.is_known_to(&keys()));
    let (issuer, audience, max_lifetime, now, skew) = (GITHUB, GATEWAY, 7200, NOW, 60);
    let expected = workload_token::Expected { issuer, audience, max_lifetime, now, skew };
    received.verify(&keys(), &expected)
}

fn workload(claims: &Value, rules: &[ClaimRule]) -> Option<Workload> {
    read_workload(&key(1).sign("JWT", claims)).unwrap().workload(rules)
}

fn rule(path: &[&str], pattern: &str) -> ClaimRule {
    let path = path.iter().map(|name| (*name).to_owned()).collect();
    ClaimRule { path, pattern: Pattern::parse(pattern).unwrap() }
}

#[test]
fn a_workload_of_github_is_known_by_repository_and_branch() {
    let rules = [
        rule(&["sub"], "repo:acme/*:ref:refs/heads/main"),
        rule(&["repository_owner_id"], "65"),
        rule(&["event_name"], "push"),
    ];
    let repository = |name: &str| json!({ "sub": format!("repo:{name}:ref:refs/heads/main") });
    let others = [
        repository("acme-evil/deploy"),
        repository("evil/acme/deploy"),
        repository("Acme/deploy"),
        repository("acme/"),
        json!({ "sub": "repo:acme/x:ref:refs/heads/main:ref:refs/heads/main" }),
        json!({ "sub": "repo:acme/x:ref:refs/heads/main:environment:prod" }),
        json!({ "sub": "repo:acme/deploy:ref:refs/heads/main-2" }),
        json!({ "sub": "repo:acme/deploy:ref:refs/heads/x/main" }),
        json!({ "sub": "repo:acme/deploy:ref:refs/tags/main" }),
        json!({ "sub": "repo:acme/deploy:environment:ref:refs/heads/main" }),
        json!({ "sub": "repo:acme/deploy:pull_request", "event_name": "pull_request" }),
        json!({ "event_name": "pull_request_target" }),
        json!({ "event_name": ["push"] }),
        json!({ "event_name": null }),
        json!({ "repository_owner_id": "66" }),
    ];

    let deploy = workload(&github(json!({})), &rules).unwrap();

    assert_eq!(deploy.subject, "repo:acme/deploy:ref:refs/heads/main");
    assert_eq!(deploy.expires_at, NOW + 300);
    assert!(workload(&github(repository("acme/other")), &rules).is_some());
    assert_eq!(workload(&github(json!({})), &[]), None);
    for change in others {
        assert_eq!(workload(&github(change.clone()), &rules), None, "{change}");
    }
}

#[test]
fn a_workload_of_gitlab_is_known_by_project_and_protected_branch() {
    let rules = [
        rule(&["project_path"], "acme/ops/*"),
        rule(&["ref_protected"], "true"),
        rule(&["ref_type"], "branch"),
        rule(&["runner_id"], "12"),
    ];
    let others = [
        json!({ "project_path": "acme/ops-evil/deploy" }),
        json!({ "project_path": "acme/ops/sub/deploy" }),
        json!({ "ref_protected": "false" }),
        json!({ "ref_protected": false }),
        json!({ "ref_type": "tag" }),
        json!({ "runner_id": 123 }),
        json!({ "runner_id": 12.0 }),
    ];

    assert!(workload(&gitlab(json!({})), &rules).is_some());
    assert!(workload(&gitlab(json!({ "ref_protected": true })), &rules).is_some());
    for change in others {
        assert_eq!(workload(&gitlab(change.clone()), &rules), None, "{change}");
    }
}

#[test]
fn a_workload_of_kubernetes_is_known_by_namespace_and_service_account() {
    let rules = [
        rule(&["kubernetes.io", "namespace"], "prod"),
        rule(&["kubernetes.io", "serviceaccount", "name"], "bot"),
        rule(&["sub"], "system:serviceaccount:prod:*"),
    ];
    let of = |namespace: Value| json!({ "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": "bot" } } });
    let others = [
        of(json!("prod2")),
        of(json!(["prod"])),
        of(json!({ "prod": "prod" })),
        json!({ "kubernetes.io": "prod" }),
        json!({ "kubernetes.io": null, "kubernetes": { "io": { "namespace": "prod" } } }),
        json!({ "kubernetes.io": null, "kubernetes.io.namespace": "prod" }),
        json!({ "sub": "system:serviceaccount:prod-evil:bot" }),
        json!({ "sub": "system:serviceaccount:prod:bot:x" }),
    ];
    let untyped = under(json!({ "alg": "ES256", "kid": "key-1" }), &kubernetes(json!({})));

    assert!(read_workload(&untyped).unwrap().workload(&rules).is_some());
    for change in others {
        assert_eq!(workload(&kubernetes(change.clone()), &rules), None, "{change}");
    }
}

#[test]
fn an_unsound_token_of_a_workload_is_refused() {
    let cases = [
        (json!({ "iss": format!("{GITHUB}/evil") }), Fault::Issuer),
        (json!({ "aud": "https://github.com/acme" }), Fault::Audience),
        (json!({ "aud": [GATEWAY, "https://other.example"] }), Fault::Audience),
        (json!({ "aud": [GATEWAY, GATEWAY] }), Fault::Audience),
        (json!({ "aud": [] }), Fault::Audience),
        (json!({ "aud": null }), Fault::Missing("aud")),
        (json!({ "sub": ["repo:acme/deploy:ref:refs/heads/main"] }), Fault::ClaimType("sub")),
        (json!({ "sub": "" }), Fault::Missing("sub")),
        (json!({ "sub": "repo:acme\n/deploy" }), Fault::ClaimType("sub")),
        (json!({ "exp": null }), Fault::Missing("exp")),
        (json!({ "iat": null }), Fault::Missing("iat")),
        (json!({ "exp": NOW - 60, "iat": NOW - 360 }), Fault::Expired),
        (json!({ "nbf": NOW + 61 }), Fault::NotYetValid),
        (json!({ "iat": NOW + 61 }), Fault::IssuedInFuture),
        (json!({ "exp": NOW }), Fault::Lifetime),
        (json!({ "exp": NOW + 7201 }), Fault::Lifetime),
        (json!({ "exp": u64::MAX, "iat": 0 }), Fault::Lifetime),
        (json!({ "cnf": { "x5t#S256": "x" } }), Fault::Confirmation),
    ];

    for (change, fault) in cases {
        let token = key(1).sign("JWT", &github(change.clone()));
        assert_eq!(read_workload(&token).err(), Some(fault), "{change}");
    }
    for typ in ["at+jwt", "oauth-id-jag+jwt", "dpop+jwt", "secevent+jwt", ""] {
        let token = key(1).sign(typ, &github(json!({})));
        assert_eq!(read_workload(&token).err(), Some(Fault::Typ), "{typ}");
    }
}
