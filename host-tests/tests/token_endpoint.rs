//! The token endpoint through the real Envoy: every row of the order of checks, and single use over all workers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host_tests::keys::SigningKey;
use host_tests::names::GRANT_JWT_BEARER;
use host_tests::oauth_client::{OauthClient, form};
use host_tests::raw::{self, RawAnswer};
use host_tests::{Options, World, now};
use serde_json::{Value, json};
use std::time::Duration;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const FORM: (&str, &[u8]) = ("content-type", b"application/x-www-form-urlencoded");
/// Stands in every hostile value; no answer may repeat it.
const MARK: &str = "XMARKX";

fn grant(id_jag: &str) -> String {
    form(&[("grant_type", GRANT_JWT_BEARER), ("assertion", id_jag)])
}

async fn redeem(world: &World, id_jag: &str, more: &str) -> RawAnswer {
    let basic = basic(&world.claude);
    let headers = [FORM, ("authorization", basic.as_bytes())];
    send(world, &headers, &format!("{}{more}", grant(id_jag))).await
}

async fn send(world: &World, headers: &[(&str, &[u8])], body: &str) -> RawAnswer {
    let origin = world.accept_issuer();
    raw::send(&origin, &raw::request("POST", &origin, b"/token", headers, body.as_bytes())).await
}

fn error(answer: &RawAnswer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["error"].as_str().unwrap_or_default().to_owned()
}

/// What is true of every answer of the endpoint.
fn assert_proper(name: &str, answer: &RawAnswer) {
    assert_eq!(answer.header("cache-control"), ["no-store"], "{name}: {answer:?}");
    assert_eq!(answer.header("content-type"), ["application/json"], "{name}");
    assert!(!answer.head.contains(MARK) && !answer.body.contains(MARK), "{name}: {answer:?}");
    assert!(answer.header("set-cookie").is_empty());
    let challenged = !answer.header("www-authenticate").is_empty();
    assert_eq!(challenged, answer.status == 401, "{name}: {answer:?}");
}

#[tokio::test]
async fn an_id_jag_gives_an_access_token_that_opens_the_server() {
    let (world, backend) = world_with_backend(Options::default()).await;

    let first = redeem(&world, &id_jag(&world, |_, _| {}), "").await;
    let secret = form(&[("client_id", &world.claude.id), ("client_secret", &world.claude.secret)]);
    let body = format!("{}&{secret}", grant(&id_jag(&world, |_, _| {})));
    let second = send(&world, &[FORM], &body).await;

    for answer in [first, second] {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_proper("200", &answer);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["token_type"], "Bearer");
        assert_eq!(body["expires_in"], 300);
        assert_eq!(body["scope"], "stock.read stock.write");
        assert_eq!(body["resource"], world.accept_url().as_str());
        assert_eq!(body.get("refresh_token"), None);
        let token = body["access_token"].as_str().unwrap();
        assert_eq!(post_as(&world.accept_url(), token).await.status, 200);
        let token = host_tests::journal::Token::new(host_tests::journal::Kind::AccessToken, token);
        let (header, claims) = (token.header.unwrap(), token.claims.unwrap());
        assert_eq!(header["typ"], "at+jwt");
        assert_eq!(claims["aud"], world.accept_url().as_str());
        assert_eq!(claims["iss"], world.accept_issuer().as_str());
        assert_eq!(claims["client_id"], "claude");
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    }
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn eddsa_tokens_of_our_own_open_the_server_too() {
    let options = Options { eddsa: true, ..Options::default() };
    let (world, _backend) = world_with_backend(options).await;

    let answer = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await;

    assert_eq!(post_as(&world.accept_url(), answer.token()).await.status, 200);
}

#[tokio::test]
async fn the_head_of_a_request_is_judged_before_its_body() {
    let world = World::start(Options::default()).await;
    let (origin, basic) = (world.accept_issuer(), basic(&world.claude));
    let auth = ("authorization", basic.as_bytes());
    let json = ("content-type", b"application/json".as_slice());
    let body = grant(&id_jag(&world, |_, _| {}));
    let with_query = format!("/token?x={MARK}");
    type Row<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a [u8])], u16);
    let cases: [Row; 16] = [
        ("GET", "GET", "/token", &[FORM, auth], 405),
        ("HEAD", "HEAD", "/token", &[FORM, auth], 405),
        ("PUT", "PUT", "/token", &[FORM, auth], 405),
        ("DELETE", "DELETE", "/token", &[FORM, auth], 405),
        ("OPTIONS", "OPTIONS", "/token", &[FORM, auth], 405),
        ("override", "GET", "/token", &[FORM, auth, ("x-http-method-override", b"POST")], 405),
        ("query", "POST", &with_query, &[FORM, auth], 400),
        ("query grant", "POST", "/token?grant_type=x", &[FORM, auth], 400),
        ("JSON", "POST", "/token", &[json, auth], 400),
        ("no content type", "POST", "/token", &[auth], 400),
        ("two content types", "POST", "/token", &[FORM, json, auth], 400),
        (
            "multipart",
            "POST",
            "/token",
            &[("content-type", b"multipart/form-data; boundary=x"), auth],
            400,
        ),
        (
            "form in a list",
            "POST",
            "/token",
            &[("content-type", b"application/x-www-form-urlencoded, text/plain"), auth],
            400,
        ),
        ("gzip", "POST", "/token", &[FORM, auth, ("content-encoding", b"gzip")], 415),
        (
            "two encodings",
            "POST",
            "/token",
            &[FORM, auth, ("content-encoding", b"identity, gzip")],
            415,
        ),
        ("br", "POST", "/token", &[FORM, auth, ("content-encoding", b"br")], 415),
    ];

    for (name, method, target, headers, status) in cases {
        let bytes = raw::request(method, &origin, target.as_bytes(), headers, body.as_bytes());
        let answer = raw::send(&origin, &bytes).await;

        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert_proper(name, &answer);
        if status == 405 {
            assert_eq!(answer.header("allow"), ["POST"], "{name}");
        }
        if method != "HEAD" {
            assert_eq!(error(&answer), "invalid_request", "{name}");
        }
    }
    let kind = ("content-type", b"Application/X-WWW-Form-Urlencoded; charset=UTF-8".as_slice());
    assert_eq!(send(&world, &[kind, auth], &body).await.status, 200);
}

#[tokio::test]
async fn a_form_that_can_be_read_in_two_ways_or_lacks_something_is_refused() {
    let world = World::start(Options::default()).await;
    let basic = basic(&world.claude);
    let headers = [FORM, ("authorization", basic.as_bytes())];
    let sound = grant(&id_jag(&world, |_, _| {}));
    let many: String = (0..70).map(|n| format!("&p{n}=1")).collect();
    let assertion = sound.split('&').find(|pair| pair.starts_with("assertion=")).unwrap();
    let grant_type = sound.split('&').find(|pair| pair.starts_with("grant_type=")).unwrap();
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("empty", String::new(), 400, "invalid_request"),
        ("no grant_type", assertion.into(), 400, "invalid_request"),
        ("empty grant_type", format!("grant_type=&{assertion}"), 400, "invalid_request"),
        ("no assertion", grant_type.into(), 400, "invalid_request"),
        ("empty assertion", format!("{grant_type}&assertion="), 400, "invalid_request"),
        ("two assertions", format!("{sound}&{assertion}"), 400, "invalid_request"),
        ("two grant types", format!("{sound}&{grant_type}"), 400, "invalid_request"),
        ("two of an escaped name", format!("{sound}&%61ssertion={MARK}"), 400, "invalid_request"),
        ("two unknown parameters", format!("{sound}&x=1&x=2"), 400, "invalid_request"),
        (
            "two scopes",
            format!("{sound}&scope=stock.read&scope=stock.read"),
            400,
            "invalid_request",
        ),
        ("bad percent code", format!("{sound}&x=%zz"), 400, "invalid_request"),
        ("cut percent code", format!("{sound}&x=%4"), 400, "invalid_request"),
        ("bad UTF-8", format!("{sound}&x=%ff"), 400, "invalid_request"),
        ("NUL", format!("{sound}&x=%00"), 400, "invalid_request"),
        ("raw UTF-8", format!("{sound}&x=\u{e9}"), 400, "invalid_request"),
        ("many parameters", format!("{sound}{many}"), 413, "invalid_request"),
        ("unknown grant", format!("grant_type={MARK}&{assertion}"), 400, "unsupported_grant_type"),
        (
            "authorization_code",
            format!("grant_type=authorization_code&code={MARK}"),
            400,
            "unsupported_grant_type",
        ),
        (
            "client_credentials",
            "grant_type=client_credentials".into(),
            400,
            "unsupported_grant_type",
        ),
        (
            "refresh_token",
            format!("grant_type=refresh_token&refresh_token={MARK}"),
            400,
            "unsupported_grant_type",
        ),
        (
            "token exchange",
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange".into(),
            400,
            "unsupported_grant_type",
        ),
        (
            "grant_type in capitals",
            format!(
                "{}&{assertion}",
                grant_type.to_uppercase().replace("GRANT_TYPE", "grant_type")
            ),
            400,
            "unsupported_grant_type",
        ),
        ("bad scope", format!("{sound}&scope=a%22b"), 400, "invalid_scope"),
        (
            "scope with two spaces",
            format!("{sound}&scope=stock.read++stock.write"),
            400,
            "invalid_scope",
        ),
        ("unknown scope", format!("{sound}&scope={MARK}"), 400, "invalid_scope"),
        ("relative resource", format!("{sound}&resource={MARK}"), 400, "invalid_target"),
        (
            "resource with fragment",
            format!("{sound}&resource=http%3A%2F%2Fx%2F%23y"),
            400,
            "invalid_target",
        ),
        (
            "foreign resource",
            format!("{sound}&resource=http%3A%2F%2F{MARK}.example%2Fmcp"),
            400,
            "invalid_target",
        ),
        (
            "authorization_details",
            format!("{sound}&authorization_details=%5B%5D"),
            400,
            "invalid_authorization_details",
        ),
    ];

    for (name, body, status, code) in &cases {
        let answer = send(&world, &headers, body).await;

        assert_eq!(
            (answer.status, error(&answer).as_str()),
            (*status, *code),
            "{name}: {answer:?}"
        );
        assert_proper(name, &answer);
    }
    // None of them has spent the grant.
    let resource: String =
        form(&[("resource", &world.accept_url()), ("resource", &world.accept_url())]);
    let last =
        send(&world, &headers, &format!("{sound}&scope=stock.read+other&x=&{resource}")).await;
    assert_eq!(last.status, 200, "{last:?}");
    let body: Value = serde_json::from_str(&last.body).unwrap();
    assert_eq!(body["scope"], "stock.read");
}

#[tokio::test]
async fn a_client_proves_itself_in_one_way_or_not_at_all() {
    let world = World::start(Options::default()).await;
    let sound = grant(&id_jag(&world, |_, _| {}));
    let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let (id, secret) = (&world.claude.id, &world.claude.secret);
    let right = encoded(&format!("{id}:{secret}"));
    let in_body = format!("{sound}&client_id={id}&client_secret={secret}");
    let assertion = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=a.b.c";
    let cases: Vec<(&str, Vec<String>, String, u16, &str)> = vec![
        ("nothing", vec![], sound.clone(), 401, "invalid_client"),
        ("a public client", vec![], format!("{sound}&client_id={id}"), 401, "invalid_client"),
        ("header and body", vec![right.clone()], in_body.clone(), 400, "invalid_request"),
        (
            "header and assertion",
            vec![right.clone()],
            format!("{sound}&{assertion}"),
            400,
            "invalid_request",
        ),
        ("body and assertion", vec![], format!("{in_body}&{assertion}"), 400, "invalid_request"),
        ("assertion", vec![], format!("{sound}&{assertion}"), 401, "invalid_client"),
        ("two headers", vec![right.clone(), right.clone()], sound.clone(), 400, "invalid_request"),
        (
            "wrong secret",
            vec![encoded(&format!("{id}:{MARK}"))],
            sound.clone(),
            401,
            "invalid_client",
        ),
        (
            "wrong secret in the body",
            vec![],
            format!("{sound}&client_id={id}&client_secret={MARK}"),
            401,
            "invalid_client",
        ),
        (
            "unknown client",
            vec![encoded(&format!("{MARK}:{secret}"))],
            sound.clone(),
            401,
            "invalid_client",
        ),
        ("empty secret", vec![encoded(&format!("{id}:"))], sound.clone(), 401, "invalid_client"),
        (
            "empty client",
            vec![encoded(&format!(":{secret}"))],
            sound.clone(),
            401,
            "invalid_client",
        ),
        (
            "client in capitals",
            vec![encoded(&format!("{}:{secret}", id.to_uppercase()))],
            sound.clone(),
            401,
            "invalid_client",
        ),
        ("no colon", vec![encoded(id)], sound.clone(), 401, "invalid_client"),
        ("no base64", vec![format!("Basic {MARK}!")], sound.clone(), 401, "invalid_client"),
        ("base64url", vec!["Basic -_-_".into()], sound.clone(), 401, "invalid_client"),
        ("no credentials", vec!["Basic".into()], sound.clone(), 401, "invalid_client"),
        (
            "bad UTF-8",
            vec![format!("Basic {}", STANDARD.encode(b"claude:\xff"))],
            sound.clone(),
            401,
            "invalid_client",
        ),
        ("NUL", vec![encoded(&format!("{id}\0:{secret}"))], sound.clone(), 401, "invalid_client"),
        (
            "bad percent code",
            vec![encoded(&format!("{id}:%zz"))],
            sound.clone(),
            401,
            "invalid_client",
        ),
        ("Bearer", vec![format!("Bearer {secret}")], sound.clone(), 401, "invalid_client"),
        (
            "another client_id",
            vec![right.clone()],
            format!("{sound}&client_id={MARK}"),
            401,
            "invalid_client",
        ),
        (
            "secret without id",
            vec![],
            format!("{sound}&client_secret={secret}"),
            401,
            "invalid_client",
        ),
    ];

    let mut wrong = vec![];
    for (name, authorization, body, status, code) in &cases {
        let mut headers = vec![FORM];
        headers.extend(authorization.iter().map(|value| ("authorization", value.as_bytes())));
        let answer = send(&world, &headers, body).await;

        if (answer.status, error(&answer).as_str()) != (*status, *code) {
            wrong.push(format!("{name}: {answer:?}"));
        }
        assert_proper(name, &answer);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let scheme = right.replace("Basic", "bAsIc");
    let headers = [FORM, ("authorization", scheme.as_bytes())];
    let last = send(&world, &headers, &format!("{sound}&client_id={id}")).await;
    assert_eq!(last.status, 200, "{last:?}");
    // No key was ever asked for in the name of a client that had not proved itself.
    assert_eq!(world.idp.endpoints().count_from("Jagway", "/jwks"), 1);
}

#[tokio::test]
async fn client_identifiers_and_secrets_are_form_encoded_inside_basic() {
    let secret = "p@ss:w+rd%20 \u{e9}";
    let digest = host_tests::keys::sha256_hex(secret);
    let patch = Box::new(move |config: &mut Value| {
        config["authorization_server"]["clients"]["http://app.example/a b"] =
            json!({"secret_sha256": digest, "identity_providers": ["acme"]});
    });
    let world = World::start(Options { patch_ingress: Some(patch), ..Options::default() }).await;
    let id_jag = id_jag(&world, |_, claims| claims["client_id"] = json!("http://app.example/a b"));
    let encoded = |text: &str| form(&[(text, "")]).trim_end_matches('=').to_owned();
    let basic =
        STANDARD.encode(format!("{}:{}", encoded("http://app.example/a b"), encoded(secret)));
    let basic = format!("Basic {basic}");

    let headers = [FORM, ("authorization", basic.as_bytes())];
    let answer = send(&world, &headers, &grant(&id_jag)).await;

    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn an_id_jag_that_does_not_pass_every_check_is_an_invalid_grant() {
    let world = World::start(Options::default()).await;
    let issuer = world.accept_issuer();
    let claim = |name: &'static str, value: Value| id_jag(&world, |_, claims| claims[name] = value);
    let member =
        |name: &'static str, value: Value| id_jag(&world, |header, _| header[name] = value);
    let without = |name: &'static str| {
        id_jag(&world, |_, claims| drop(claims.as_object_mut().unwrap().remove(name)))
    };
    let good = id_jag(&world, |_, _| {});
    let parts: Vec<&str> = good.split('.').collect();
    let forged = {
        let (header, claims) = world.idp.id_jag_parts(&world.warehouse_connection(), "alice");
        SigningKey::es256(world.idp.key().kid()).sign(&header, &claims)
    };
    let own = {
        let (_, mut claims) = world.idp.id_jag_parts(&world.warehouse_connection(), "alice");
        claims["iss"] = json!(issuer);
        world.jagway_key.sign(&world.jagway_key.header("oauth-id-jag+jwt"), &claims)
    };
    let access_token = world.redeem_at_jagway(&id_jag(&world, |_, _| {})).await.token().to_owned();
    let cases: Vec<(&str, String)> = vec![
        ("forged", forged),
        ("of our own", own),
        ("an access token of ours", access_token),
        ("an ID token", world.alice.id_token.clone()),
        ("expired", claim("exp", json!(now() - 61))),
        ("living too long", claim("exp", json!(now() + 100_000))),
        ("from the future", claim("iat", json!(now() + 3600))),
        ("not yet valid", claim("nbf", json!(now() + 3600))),
        ("exp as text", claim("exp", json!((now() + 60).to_string()))),
        ("nbf as text", claim("nbf", json!("0"))),
        ("exp as a fraction beyond", claim("exp", json!(1e300))),
        ("another audience", claim("aud", json!("http://other.example"))),
        ("audience with a slash", claim("aud", json!(format!("{issuer}/")))),
        ("the token endpoint as audience", claim("aud", json!(world.accept_token_endpoint()))),
        ("two audiences", claim("aud", json!([issuer, "http://other.example"]))),
        ("no audience", without("aud")),
        ("an empty list as audience", claim("aud", json!([]))),
        ("another client", claim("client_id", json!("other"))),
        ("no client", without("client_id")),
        ("client in a list", claim("client_id", json!(["claude"]))),
        ("no subject", without("sub")),
        ("empty subject", claim("sub", json!(""))),
        ("no jti", without("jti")),
        ("jti as number", claim("jti", json!(7))),
        ("no exp", without("exp")),
        ("no iat", without("iat")),
        ("another issuer", claim("iss", json!("http://other.example"))),
        ("issuer with a slash", claim("iss", json!(format!("{}/", world.idp.issuer())))),
        ("no issuer", without("iss")),
        ("foreign resource", claim("resource", json!("http://other.example/mcp"))),
        (
            "a foreign one among its resources",
            claim("resource", json!([world.accept_url(), "http://other.example/mcp"])),
        ),
        ("resource as number", claim("resource", json!(7))),
        ("scope as list", claim("scope", json!(["stock.read"]))),
        ("bound to a key", claim("cnf", json!({"jkt": "abc"}))),
        ("typ JWT", member("typ", json!("JWT"))),
        ("typ at+jwt", member("typ", json!("at+jwt"))),
        ("no typ", id_jag(&world, |header, _| drop(header.as_object_mut().unwrap().remove("typ")))),
        ("alg none", member("alg", json!("none"))),
        ("alg HS256", member("alg", json!("HS256"))),
        ("alg in small letters", member("alg", json!("es256"))),
        ("crit", member("crit", json!(["exp"]))),
        ("b64", member("b64", json!(false))),
        ("jwk", member("jwk", world.idp.key().jwk())),
        ("jku", member("jku", json!(world.idp.jwks_uri()))),
        ("x5c", member("x5c", json!(["MARK"]))),
        ("kid of nobody", member("kid", json!("../../etc/passwd"))),
        ("kid as number", member("kid", json!(1))),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{good}.x")),
        ("padding", format!("{good}=")),
        ("a space", format!(" {good}")),
        ("JSON", json!({"payload": parts[1]}).to_string()),
        ("opaque", MARK.into()),
        ("dots", "..".into()),
    ];

    for (name, token) in &cases {
        let answer = redeem(&world, token, "").await;

        assert_eq!(
            (answer.status, error(&answer).as_str()),
            (400, "invalid_grant"),
            "{name}: {answer:?}"
        );
        assert_proper(name, &answer);
    }
    // And what is good passes, however it is spelled.
    for typ in ["oauth-id-jag+jwt", "OAuth-ID-JAG+JWT", "application/oauth-id-jag+jwt"] {
        assert_eq!(redeem(&world, &member("typ", json!(typ)), "").await.status, 200, "{typ}");
    }
    let listed = claim("aud", json!([issuer]));
    assert_eq!(redeem(&world, &listed, "").await.status, 200);
    assert_eq!(redeem(&world, &good, "").await.status, 200);
    assert_eq!(error(&redeem(&world, &good, "").await), "invalid_grant");
}

#[tokio::test]
async fn nobody_can_burn_a_grant_that_is_not_theirs() {
    let other = OauthClient::new("other", "Other", host_tests::client_auth::AuthMethod::Basic);
    let digest = host_tests::keys::sha256_hex(&other.secret);
    let patch = Box::new(move |config: &mut Value| {
        config["authorization_server"]["clients"]["other"] =
            json!({"secret_sha256": digest, "identity_providers": ["acme"]});
    });
    let world = World::start(Options { patch_ingress: Some(patch), ..Options::default() }).await;
    let good = id_jag(&world, |_, _| {});

    let stolen = other.redeem(&world.accept_issuer(), &world.accept_token_endpoint(), &good).await;
    let rightful = world.redeem_at_jagway(&good).await;

    assert_eq!((stolen.status, stolen.error()), (400, "invalid_grant"));
    assert_eq!(rightful.status, 200);
}

#[tokio::test]
async fn a_body_may_come_in_any_pieces_but_not_be_too_large() {
    let patch = Box::new(|text: String| {
        let trailers =
            "stat_prefix: ingress\n          http_protocol_options: { enable_trailers: true }";
        text.replace("stat_prefix: ingress", trailers)
    });
    let world = World::start(Options { patch_bootstrap: Some(patch), ..Options::default() }).await;
    let (origin, basic) = (world.accept_issuer(), basic(&world.claude));
    let headers = [FORM, ("authorization", basic.as_bytes())];
    let body = || grant(&id_jag(&world, |_, _| {}));
    let chunked = |body: &str, size, trailers| {
        raw::chunked(&origin, b"/token", &headers, body.as_bytes(), size, trailers)
    };
    let padded = |size: usize| {
        let body = body();
        format!("{body}&x={}", "y".repeat(size - body.len() - 3))
    };
    let limit = 64 * 1024;
    let cases = [
        ("bytes", chunked(&body(), 1, ""), 200),
        ("trailers", chunked(&body(), 100, "x-trailer: 1\r\nauthorization: Basic abc\r\n"), 200),
        ("bytes and trailers", chunked(&body(), 1, "x-trailer: 1\r\n"), 200),
        ("trailers alone", chunked("", 1, "x-trailer: 1\r\n"), 400),
        ("nothing in chunks", chunked("", 1, ""), 400),
        (
            "at the limit",
            raw::request("POST", &origin, b"/token", &headers, padded(limit).as_bytes()),
            200,
        ),
        (
            "over it",
            raw::request("POST", &origin, b"/token", &headers, padded(limit + 1).as_bytes()),
            413,
        ),
        ("at the limit in chunks", chunked(&padded(limit), 1000, ""), 200),
        ("over it in chunks", chunked(&padded(limit + 1), 1000, ""), 413),
        (
            "over it in chunks with trailers",
            chunked(&padded(limit + 1), limit + 1, "x: y\r\n"),
            413,
        ),
        ("far over it in chunks", chunked(&padded(4 << 20), 16_000, ""), 413),
    ];

    for (name, bytes, status) in &cases {
        let answer = raw::send(&origin, bytes).await;
        assert_eq!(answer.status, *status, "{name}: {answer:?}");
        assert_proper(name, &answer);
    }
    // One byte at a time, each in a segment of its own.
    let mut stream = raw::connect(&origin).await;
    stream.set_nodelay(true).unwrap();
    for byte in raw::request("POST", &origin, b"/token", &headers, body().as_bytes()) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(raw::read(&mut stream).await.status, 200);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on_or_refused() {
    let world = World::start(Options::default()).await;
    let (origin, basic) = (world.accept_issuer(), basic(&world.claude));
    let body = grant(&id_jag(&world, |_, _| {}));
    let expect = ("expect", b"100-continue".as_slice());
    let auth = ("authorization", basic.as_bytes());
    let head = |headers: &[(&str, &[u8])]| {
        let whole = raw::request("POST", &origin, b"/token", headers, body.as_bytes());
        whole[..whole.len() - body.len()].to_vec()
    };

    let mut stream = raw::connect(&origin).await;
    stream.write_all(&head(&[FORM, auth, expect])).await.unwrap();
    let mut interim = vec![0; 1024];
    let count = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut interim)).await;
    let interim = String::from_utf8_lossy(&interim[..count.unwrap().unwrap()]).into_owned();
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = raw::read(&mut stream).await;
    let json = ("content-type", b"application/json".as_slice());
    let mut refused = raw::connect(&origin).await;
    refused.write_all(&head(&[json, auth, expect])).await.unwrap();
    let refused = raw::read(&mut refused).await;

    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[tokio::test]
async fn an_id_jag_is_good_for_one_redemption_over_all_workers() {
    let world = World::start(Options { concurrency: 4, ..Options::default() }).await;
    let (origin, basic) = (world.accept_issuer(), basic(&world.claude));

    for round in 0..20 {
        let body = grant(&id_jag(&world, |_, _| {}));
        let headers = [FORM, ("authorization", basic.as_bytes())];
        let bytes = raw::request("POST", &origin, b"/token", &headers, body.as_bytes());
        let mut requests = JoinSet::new();
        for _ in 0..30 {
            let (origin, bytes) = (origin.clone(), bytes.clone());
            requests.spawn(async move {
                let answer = raw::send(&origin, &bytes).await;
                (answer.status, error(&answer))
            });
        }
        let mut answers = requests.join_all().await;
        answers.sort();

        assert_eq!(answers[0].0, 200, "round {round}: {answers:?}");
        let refused = (400, "invalid_grant".to_owned());
        assert!(answers[1..].iter().all(|answer| *answer == refused), "round {round}: {answers:?}");
    }
}

#[tokio::test]
async fn too_many_requests_of_a_source_or_a_client_are_put_off() {
    for limit in ["per_source_per_minute", "per_client_per_minute"] {
        let patch = Box::new(move |config: &mut Value| {
            config["authorization_server"]["rate_limits"] = json!({limit: 3});
        });
        let options = Options { concurrency: 1, patch_ingress: Some(patch), ..Options::default() };
        let world = World::start(options).await;

        // At most three in each of the one or two minutes that this takes.
        let mut statuses = vec![];
        for _ in 0..8 {
            let answer = redeem(&world, &id_jag(&world, |_, _| {}), "").await;
            assert_eq!(answer.header("retry-after").len(), usize::from(answer.status == 429));
            assert_proper(limit, &answer);
            statuses.push(answer.status);
        }

        assert_eq!(statuses[..3], [200; 3], "{limit}: {statuses:?}");
        assert!(statuses.contains(&429), "{limit}: {statuses:?}");
    }
}

#[tokio::test]
async fn a_client_that_signs_for_itself_is_authenticated_once_an_assertion() {
    let key = SigningKey::es256("claude-1");
    let jwks = json!({ "jwks": { "keys": [key.jwk()] } });
    let patch = Box::new(move |config: &mut Value| {
        let client = &mut config["authorization_server"]["clients"]["claude"];
        client.as_object_mut().unwrap().remove("secret_sha256");
        client["private_key_jwt"] = jwks;
    });
    let options = Options { patch_ingress: Some(patch), concurrency: 4, ..Options::default() };
    let world = World::start(options).await;
    let claims = json!({
        "iss": "claude", "sub": "claude", "aud": world.accept_issuer(), "jti": "1",
        "iat": now(), "exp": now() + 60,
    });
    let assertion = key.sign(&key.header("client-authentication+jwt"), &claims);

    let mut answers = JoinSet::new();
    for _ in 0..20 {
        let id_jag = id_jag(&world, |_, _| {});
        let fields = [
            ("grant_type", GRANT_JWT_BEARER),
            ("assertion", id_jag.as_str()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        let (origin, body) = (world.accept_issuer(), form(&fields));
        answers.spawn(async move {
            let request = raw::request("POST", &origin, b"/token", &[FORM], body.as_bytes());
            raw::send(&origin, &request).await
        });
    }
    let answers = answers.join_all().await;

    let good = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| error(answer) == "invalid_client").count();
    assert_eq!((good, refused), (1, 19));
}
