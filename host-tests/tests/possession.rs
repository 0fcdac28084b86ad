//! Tokens bound to a key (DPoP, RFC 9449) or to a certificate (RFC 8705) through the real Envoy: what a worker does
//! not know another does, and what a connection showed only Envoy can say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::dpop::DpopKey;
use host_tests::journal::{Kind, Token};
use host_tests::mtls::{
    Accepted, Authority, CLIENT_DNS, CLIENT_SUBJECT, CLIENT_URI, Identity, Tunnel,
    with_client_certificates,
};
use host_tests::names::GRANT_JWT_BEARER;
use host_tests::oauth_client::form;
use host_tests::raw::{self, RawAnswer};
use host_tests::upstream::Upstream;
use host_tests::{Options, World};
use serde_json::{Value, json};
use support::*;
use tokio::task::JoinSet;

const FORM: (&str, &[u8]) = ("content-type", b"application/x-www-form-urlencoded");
type Header<'a> = (&'a str, &'a [u8]);

fn json_of(answer: &RawAnswer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_default()
}

fn confirmation(token: &str) -> Value {
    Token::new(Kind::AccessToken, token).claims.unwrap()["cnf"].clone()
}

/// A world with DPoP in which a recording server stands behind the ingress listener.
async fn world_with_dpop(dpop: Value) -> (World, Upstream) {
    let patch = move |config: &mut Value| config["authorization_server"]["dpop"] = dpop;
    let patch_ingress = Some(Box::new(patch) as Box<_>);
    world_with_backend(Options { concurrency: 4, patch_ingress, ..Options::default() }).await
}

/// Redeems a grant with this proof, over a connection of its own.
async fn redeem(world: &World, id_jag: &str, proof: &str) -> RawAnswer {
    let (origin, basic) = (world.accept_issuer(), basic(&world.claude));
    let body = form(&[("grant_type", GRANT_JWT_BEARER), ("assertion", id_jag)]);
    let headers = [FORM, ("authorization", basic.as_bytes()), ("dpop", proof.as_bytes())];
    raw::send(&origin, &raw::request("POST", &origin, b"/token", &headers, body.as_bytes())).await
}

/// Calls the server, over a connection of its own.
async fn call(world: &World, scheme: &str, token: &str, proof: Option<&str>) -> RawAnswer {
    let (origin, authorization) = (world.accept_issuer(), format!("{scheme} {token}"));
    let mut headers = vec![("authorization", authorization.as_bytes())];
    headers.extend(proof.map(|proof| ("dpop", proof.as_bytes())));
    raw::send(&origin, &raw::request("POST", &origin, b"/mcp", &headers, b"{}")).await
}

#[tokio::test]
async fn a_token_of_a_key_opens_the_server_with_proofs_of_that_key_only() {
    let (world, backend) = world_with_dpop(json!({})).await;
    let (key, other) = (DpopKey::new(), DpopKey::new());
    let url = world.accept_url();

    let proof = key.proof("POST", &world.accept_token_endpoint(), None, None);
    let answer = redeem(&world, &id_jag(&world, |_, _| {}), &proof).await;
    let again = redeem(&world, &id_jag(&world, |_, _| {}), &proof).await;
    let token = json_of(&answer)["access_token"].as_str().unwrap().to_owned();
    let sound = |key: &DpopKey| key.proof("POST", &url, Some(&token), None);
    let refused = [
        ("as bearer", call(&world, "Bearer", &token, None).await),
        ("as bearer, with proof", call(&world, "Bearer", &token, Some(&sound(&key))).await),
        ("no proof", call(&world, "DPoP", &token, None).await),
        ("another key", call(&world, "DPoP", &token, Some(&sound(&other))).await),
        ("the first proof", call(&world, "DPoP", &token, Some(&proof)).await),
    ];

    assert_eq!((answer.status, &json_of(&answer)["token_type"]), (200, &json!("DPoP")));
    assert_eq!(confirmation(&token), json!({ "jkt": key.thumbprint() }));
    assert_eq!((again.status, &json_of(&again)["error"]), (400, &json!("invalid_dpop_proof")));
    for (what, answer) in refused {
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        let challenges = answer.header("www-authenticate").join(", ");
        assert!(challenges.contains("DPoP "), "{what}: {challenges}");
    }
    assert_eq!(backend.server.bytes_received(), 0);
    assert_eq!(call(&world, "DPoP", &token, Some(&sound(&key))).await.status, 200);
    let arrived = backend.last();
    for name in ["authorization", "dpop"] {
        assert!(!arrived.headers.contains_key(name), "{arrived:?}");
    }
    assert_eq!(arrived.header("x-api-key"), Some(world.warehouse_key.as_str()));
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_proof_counts_once_whichever_worker_gets_it() {
    let (world, backend) = world_with_dpop(json!({})).await;
    let (key, url) = (DpopKey::new(), world.accept_url());
    let proof = key.proof("POST", &world.accept_token_endpoint(), None, None);
    let answer = redeem(&world, &id_jag(&world, |_, _| {}), &proof).await;
    let token = json_of(&answer)["access_token"].as_str().unwrap().to_owned();
    let origin = world.accept_issuer();

    for round in 1..=10 {
        let proof = key.proof("POST", &url, Some(&token), None);
        let authorization = format!("DPoP {token}");
        let headers = [("authorization", authorization.as_bytes()), ("dpop", proof.as_bytes())];
        let bytes = raw::request("POST", &origin, b"/mcp", &headers, b"{}");
        let mut requests = JoinSet::new();
        for _ in 0..50 {
            let (origin, bytes) = (origin.clone(), bytes.clone());
            requests.spawn(async move {
                let answer = raw::send(&origin, &bytes).await;
                (answer.status, json_of(&answer)["error"].as_str().unwrap_or_default().to_owned())
            });
        }
        let mut answers = requests.join_all().await;
        answers.sort();

        assert_eq!(answers[0].0, 200, "round {round}: {answers:?}");
        let refused = (401, "invalid_dpop_proof".to_owned());
        assert!(answers[1..].iter().all(|answer| *answer == refused), "round {round}: {answers:?}");
        assert_eq!(backend.count(), round);
    }
}

#[tokio::test]
async fn a_nonce_that_one_worker_hands_out_every_worker_takes() {
    let (world, backend) = world_with_dpop(json!({ "nonces": true })).await;
    let (key, url, endpoint) = (DpopKey::new(), world.accept_url(), world.accept_token_endpoint());
    let assertion = id_jag(&world, |_, _| {});

    let proof = key.proof("POST", &endpoint, None, None);
    let without = redeem(&world, &assertion, &proof).await;
    let nonce = without.header("dpop-nonce").join(",");
    let proof = key.proof("POST", &endpoint, None, Some(&nonce));
    let with = redeem(&world, &assertion, &proof).await;
    let token = json_of(&with)["access_token"].as_str().unwrap_or_default().to_owned();
    let proof = key.proof("POST", &url, Some(&token), None);
    let challenged = call(&world, "DPoP", &token, Some(&proof)).await;
    let proof = key.proof("POST", &url, Some(&token), Some("AAAA"));
    let made_up = call(&world, "DPoP", &token, Some(&proof)).await;

    assert_eq!((without.status, &json_of(&without)["error"]), (400, &json!("use_dpop_nonce")));
    assert_eq!(with.status, 200, "{with:?}");
    for answer in [&challenged, &made_up] {
        assert_eq!((answer.status, &json_of(answer)["error"]), (401, &json!("use_dpop_nonce")));
        let challenges = answer.header("www-authenticate").join(", ");
        assert!(challenges.contains("error=\"use_dpop_nonce\""), "{challenges}");
    }
    assert_eq!(backend.server.bytes_received(), 0);
    let nonce = challenged.header("dpop-nonce").join(",");
    for _ in 0..16 {
        let proof = key.proof("POST", &url, Some(&token), Some(&nonce));
        assert_eq!(call(&world, "DPoP", &token, Some(&proof)).await.status, 200);
    }
}

/// A world whose ingress listener asks for certificates, whose EMA client is registered with `client`, and which
/// passes on what clients say of certificates themselves. A recording server stands behind it.
async fn world_with_mtls(
    authority: &Authority,
    accepted: Accepted,
    chain: &'static str,
    client: Value,
) -> (World, Upstream) {
    let (server, backend) = (authority.server(), Upstream::start());
    let port = backend.port();
    let patch_ingress = Box::new(move |config: &mut Value| {
        let server = &mut config["authorization_server"];
        server["mutual_tls"] = json!({ "chain": chain });
        let mut client = client;
        client["identity_providers"] = json!(["acme"]);
        server["clients"]["claude"] = client;
        if chain == "untrusted" {
            config["resources"][0]["accept"]["bound_tokens"] = json!("certificate");
        }
    });
    let patch_bootstrap = Box::new(move |text: String| {
        let text = repointed(text, "warehouse", port);
        let forward = "stat_prefix: ingress
          forward_client_cert_details: ALWAYS_FORWARD_ONLY";
        let text = text.replace("stat_prefix: ingress", forward);
        with_client_certificates(text, "ingress", &server, &accepted)
    });
    let options = Options {
        concurrency: 2,
        patch_ingress: Some(patch_ingress),
        patch_bootstrap: Some(patch_bootstrap),
        ..Options::default()
    };
    (World::start(options).await, backend)
}

/// A token request without a secret, on a new connection of this way.
async fn redeem_on(way: &Tunnel, world: &World, more: &[Header<'_>]) -> RawAnswer {
    let assertion = id_jag(world, |_, _| {});
    let fields = [
        ("grant_type", GRANT_JWT_BEARER),
        ("assertion", assertion.as_str()),
        ("client_id", &world.claude.id),
    ];
    let headers: Vec<_> = [FORM].iter().chain(more).copied().collect();
    let (issuer, body) = (world.accept_issuer(), form(&fields));
    let bytes = raw::request("POST", &issuer, b"/token", &headers, body.as_bytes());
    raw::send(way.origin(), &bytes).await
}

/// A call with this token, on a new connection of this way.
async fn call_on(way: &Tunnel, world: &World, token: &str, more: &[Header<'_>]) -> RawAnswer {
    let bearer = format!("Bearer {token}");
    let own = [("authorization", bearer.as_bytes())];
    let headers: Vec<_> = own.iter().chain(more).copied().collect();
    let bytes = raw::request("POST", &world.accept_issuer(), b"/mcp", &headers, b"{}");
    raw::send(way.origin(), &bytes).await
}

/// What a client could say of the certificate of somebody else.
fn spoofed(identity: &Identity) -> String {
    let digest = identity.sha256_hex();
    format!("Hash={digest};Subject=\"{CLIENT_SUBJECT}\";URI={CLIENT_URI};DNS={CLIENT_DNS}")
}

#[tokio::test]
async fn a_client_is_known_by_a_name_in_the_certificate_of_its_connection() {
    let authority = Authority::new();
    // Of the same authority, and no client's.
    let (claude, stranger) = (authority.client(), authority.server());
    let names = [
        json!({ "san_uri": CLIENT_URI }),
        json!({ "san_dns": CLIENT_DNS }),
        json!({ "subject_dn": CLIENT_SUBJECT }),
    ];
    for name in names {
        let accepted = Accepted::SignedBy(authority.pem());
        let client = json!({ "tls_client_auth": name });
        let (world, backend) = world_with_mtls(&authority, accepted, "verified", client).await;
        let way = Tunnel::start(&world.accept_issuer(), &authority, Some(&claude));
        let other = Tunnel::start(&world.accept_issuer(), &authority, Some(&stranger));
        let lie = spoofed(&claude);
        let lie = [("x-forwarded-client-cert", lie.as_bytes())];

        let known = redeem_on(&way, &world, &[]).await;
        let unknown = redeem_on(&other, &world, &[]).await;
        let lied = redeem_on(&other, &world, &lie).await;

        assert_eq!(known.status, 200, "{name}: {known:?}");
        for refused in [unknown, lied] {
            assert_eq!(refused.status, 401, "{name}: {refused:?}");
            assert_eq!(json_of(&refused)["error"], "invalid_client", "{name}");
        }
        assert_eq!(backend.server.bytes_received(), 0);
        let token = json_of(&known)["access_token"].as_str().unwrap().to_owned();
        assert_eq!(call_on(&way, &world, &token, &[]).await.status, 200, "{name}");
        assert_vm_never_failed(&world).await;
    }
}

#[tokio::test]
async fn a_token_of_a_certificate_is_no_use_on_a_connection_without_it() {
    let authority = Authority::new();
    let (claude, thief) = (Identity::self_signed_client(), Identity::self_signed_client());
    let registered = json!({ "certificate_sha256": [claude.sha256_hex()] });
    let client = json!({ "self_signed_tls_client_auth": registered });
    let (world, backend) = world_with_mtls(&authority, Accepted::Any, "untrusted", client).await;
    let way_of = |identity| Tunnel::start(&world.accept_issuer(), &authority, identity);
    let (way, another, bare) = (way_of(Some(&claude)), way_of(Some(&thief)), way_of(None));
    let lie = spoofed(&claude);
    let lie = [("x-forwarded-client-cert", lie.as_bytes())];

    let answer = redeem_on(&way, &world, &[]).await;
    let mut refused = vec![];
    for way in [&another, &bare] {
        refused.push(redeem_on(way, &world, &[]).await);
        refused.push(redeem_on(way, &world, &lie).await);
    }
    let token = json_of(&answer)["access_token"].as_str().unwrap().to_owned();
    for way in [&another, &bare] {
        refused.push(call_on(way, &world, &token, &[]).await);
        refused.push(call_on(way, &world, &token, &lie).await);
    }

    assert_eq!((answer.status, &json_of(&answer)["token_type"]), (200, &json!("Bearer")));
    assert_eq!(confirmation(&token), json!({ "x5t#S256": claude.thumbprint() }));
    for (n, answer) in refused.iter().enumerate() {
        let error = if n < 4 { "invalid_client" } else { "invalid_token" };
        assert_eq!((answer.status, &json_of(answer)["error"]), (401, &json!(error)), "{n}");
    }
    assert_eq!(backend.server.bytes_received(), 0);
    // New connections, on which TLS may resume the session of the first.
    let other_lie = spoofed(&thief);
    for _ in 0..8 {
        assert_eq!(call_on(&way, &world, &token, &[]).await.status, 200);
        let lie = [("x-forwarded-client-cert", other_lie.as_bytes())];
        assert_eq!(call_on(&way, &world, &token, &lie).await.status, 200);
        // It was there to be read.
        assert_eq!(backend.last().header(lie[0].0), Some(other_lie.as_str()));
    }
    assert_vm_never_failed(&world).await;
}
