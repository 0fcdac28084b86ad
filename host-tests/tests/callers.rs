//! Every way in which a legacy caller may prove itself to the real Envoy, and how Jagway proves itself at the IdP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host_tests::client_auth::AuthMethod;
use host_tests::keys::sha256_hex;
use host_tests::mtls::{
    Accepted, Authority, CLIENT_URI, Front, Tunnel, with_certificate_shown,
    with_client_certificates,
};
use host_tests::patches::with_egress_env;
use host_tests::raw::{self, RawAnswer};
use host_tests::upstream::Upstream;
use host_tests::{Options, World};
use serde_json::{Value, json};
use std::sync::Arc;
use support::*;

const REFRESH: &str = "CI_BOT_REFRESH";

fn basic_of(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A world with a caller of each kind, and a recording server that names the user it sees.
async fn world() -> (World, Upstream) {
    let upstream = Upstream::start();
    let port = upstream.port();
    let patch_egress = |config: &mut Value| {
        config["resources"][0]["upgrade"]["callers"] = json!([
            {"id_token": {}},
            {
                "basic": {"id": "ci", "secret_sha256": sha256_hex("pass:word")},
                "subject": {"refresh_token": {"env": REFRESH}},
            },
            {
                "name": "dave's script",
                "api_key": {"header": "Authorization", "sha256": sha256_hex("dave-key")},
                "subject": {"id_token": {"env": "DAVE"}},
            },
            {
                "api_key": {"header": "X-Team-Key", "sha256": sha256_hex("team-key")},
                "subject": {"refresh_token": {"env": REFRESH}},
            },
            {"refresh_token": {"header": "X-Refresh-Token"}},
        ]);
    };
    let patch_bootstrap =
        move |text: String| with_egress_env(repointed(text, "tickets", port), ["DAVE"]);
    let options = Options {
        patch_egress: Some(Box::new(patch_egress)),
        patch_bootstrap: Some(Box::new(patch_bootstrap)),
        env_of_world: Some(Box::new(|world| vec![("DAVE".into(), id_token_of(world, "dave"))])),
        ..Options::default()
    };
    (World::start(options).await, upstream)
}

#[tokio::test]
async fn each_kind_of_caller_is_known_by_what_it_presents_and_that_goes_no_further() {
    let (world, upstream) = world().await;
    let bearer = |text: &str| format!("Bearer {text}");
    let cases = [
        ("ID token", "alice", "authorization", bearer(&world.alice.id_token)),
        ("Basic", "ci-bot", "authorization", basic_of("ci", "pass:word")),
        ("API key as bearer", "dave", "authorization", bearer("dave-key")),
        ("API key in a header", "ci-bot", "x-team-key", "team-key".into()),
        ("refresh token", "alice", "x-refresh-token", world.alice.refresh_token.clone()),
    ];

    for (name, user, header, value) in &cases {
        // Cold, then warm.
        for _ in 0..2 {
            let answer = post(&world.upgrade_url(), &[(header, value)], "{}").await;

            assert_eq!((answer.status, &*answer.body), (200, *user), "{name}: {answer:?}");
            let arrived = upstream.last();
            let text = format!("{:?}", arrived.headers);
            assert!(!text.contains(value.split(' ').next_back().unwrap()), "{name}: {text}");
            for header in ["x-team-key", "x-refresh-token"] {
                assert_eq!(arrived.header(header), None, "{name}");
            }
        }
    }
    let log = world.envoy.as_ref().unwrap().log();
    assert!(log.contains(r#"caller="dave's script""#), "{log}");
    for (name, _, _, value) in &cases {
        assert!(!log.contains(value.split(' ').next_back().unwrap()), "{name} is in the log");
    }
    // One way of proving who one is, one exchange.
    assert_eq!(legs(&world), (5, 5));
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn what_is_nobodys_is_refused_and_so_are_two_at_once() {
    let (world, upstream) = world().await;
    let ok = basic_of("ci", "pass:word");
    type Row<'a> = (&'a str, u16, &'a [(&'a str, &'a str)]);
    let (wrong, nobody, nothing) =
        (basic_of("ci", "word"), basic_of("cj", "pass:word"), basic_of("", ""));
    let cases: [Row; 12] = [
        ("nothing", 401, &[]),
        ("a wrong password", 401, &[("authorization", &wrong)]),
        ("another user's password", 401, &[("authorization", &nobody)]),
        ("an empty pair", 401, &[("authorization", &nothing)]),
        ("no base64", 401, &[("authorization", "Basic %%%")]),
        ("a key of another header", 401, &[("x-team-key", "dave-key")]),
        ("a key of a header as bearer", 401, &[("authorization", "Bearer team-key")]),
        ("a refresh token that is none", 401, &[("x-refresh-token", "nonsense")]),
        ("Basic and a key", 400, &[("authorization", &ok), ("x-team-key", "team-key")]),
        ("a bearer and a key", 400, &[("authorization", "Bearer dave-key"), ("x-team-key", "x")]),
        ("a key and a refresh token", 400, &[("x-team-key", "team-key"), ("x-refresh-token", "x")]),
        ("two keys", 400, &[("x-team-key", "team-key"), ("x-team-key", "team-key")]),
    ];

    for (name, status, headers) in cases {
        let answer = post(&world.upgrade_url(), headers, "{}").await;

        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    // The one that only the IdP can judge.
    assert_eq!(legs(&world), (1, 0));
    assert_eq!(upstream.server.bytes_received(), 0);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn a_caller_is_known_by_the_spiffe_id_of_its_certificate_and_not_beside_a_key() {
    let authority = Authority::new();
    let (server, trusted) = (authority.server(), Accepted::SignedBy(authority.pem()));
    let upstream = Upstream::start();
    let port = upstream.port();
    let patch_egress = |config: &mut Value| {
        let upgrade = &mut config["resources"][0]["upgrade"];
        upgrade["mutual_tls"] = json!({"chain": "verified"});
        upgrade["callers"].as_array_mut().unwrap().push(json!({
            "name": "workload",
            "certificate": {"san_uri": CLIENT_URI},
            "subject": {"refresh_token": {"env": REFRESH}},
        }));
    };
    let patch_bootstrap = move |text: String| {
        let text = repointed(text, "tickets", port);
        with_client_certificates(text, "egress", &server, &trusted)
    };
    let world = World::start(Options {
        patch_egress: Some(Box::new(patch_egress)),
        patch_bootstrap: Some(Box::new(patch_bootstrap)),
        ..Options::default()
    })
    .await;
    let origin = world.upgrade_url().trim_end_matches("/mcp").to_owned();
    let workload = Tunnel::start(&origin, &authority, Some(&authority.client()));
    let other = Tunnel::start(&origin, &authority, Some(&authority.server()));
    let unknown = Tunnel::start(&origin, &authority, None);
    let call = async |tunnel: &Tunnel, headers: &[(&str, &str)]| -> RawAnswer {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let bytes = raw::request("POST", &origin, b"/mcp", &headers, b"{}");
        raw::send(tunnel.origin(), &bytes).await
    };
    let bearer = format!("Bearer {}", world.alice.id_token);
    let key = ("x-api-key", &*world.caller_key);
    let forged = format!("By=x;Hash=x;URI={CLIENT_URI}");

    let refused = [
        ("certificate and key", 400, call(&workload, &[key]).await),
        ("certificate and token", 400, call(&workload, &[("authorization", &bearer)]).await),
        ("another certificate", 401, call(&other, &[]).await),
        (
            "another's certificate in a header",
            401,
            call(&other, &[("x-forwarded-client-cert", &forged)]).await,
        ),
        ("no certificate", 0, call(&unknown, &[key]).await),
    ];
    let received = upstream.server.bytes_received();
    let served = [
        ("ci-bot", call(&workload, &[]).await),
        ("ci-bot", call(&other, &[key]).await),
        ("alice", call(&other, &[("authorization", &bearer)]).await),
        ("ci-bot", call(&workload, &[]).await),
    ];

    for (name, status, answer) in refused {
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    assert_eq!(received, 0);
    for (user, answer) in served {
        assert_eq!((answer.status, &*answer.body), (200, user), "{answer:?}");
    }
    assert_eq!(legs(&world), (3, 3));
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn jagway_proves_itself_by_a_secret_in_the_body() {
    let upstream = Upstream::start();
    let port = upstream.port();
    let patch_egress = |config: &mut Value| {
        let post = json!("client_secret_post");
        let server = &mut config["resources"][0]["upgrade"]["authorization_server"];
        server["client"]["token_endpoint_auth_method"] = post.clone();
        config["identity_providers"]["acme"]["client"]["token_endpoint_auth_method"] = post;
    };
    let patch_bootstrap = move |text: String| repointed(text, "tickets", port);
    let world = World::start(Options {
        patch_egress: Some(Box::new(patch_egress)),
        patch_bootstrap: Some(Box::new(patch_bootstrap)),
        ..Options::default()
    })
    .await;

    let answer = post_as(&world.upgrade_url(), &world.alice.id_token).await;

    assert_eq!((answer.status, &*answer.body), (200, "alice"), "{answer:?}");
    assert_eq!(world.idp.clients().methods_used().last(), Some(&AuthMethod::Post));
    assert_eq!(world.tickets_as.clients().methods_used(), [AuthMethod::Post]);
}

#[tokio::test]
async fn jagway_proves_itself_at_the_idp_by_the_certificate_of_its_connection() {
    for (name, trusted, status) in [("its own", true, 200), ("an unknown one", false, 503)] {
        let (authority, other) = (Authority::new(), Authority::new());
        let front = Arc::new(Front::start(&authority));
        let shown = if trusted { authority.client() } else { other.client() };
        let upstream = Upstream::start();
        let (port, front_port, before) = (upstream.port(), front.port(), front.clone());
        let patch_egress = |config: &mut Value| {
            let client = &mut config["identity_providers"]["acme"]["client"];
            client.as_object_mut().unwrap().remove("secret");
            client["tls_client_auth"] = json!({});
        };
        let patch_bootstrap = move |text: String| {
            let text = repointed(repointed(text, "tickets", port), "idp", front_port);
            with_certificate_shown(text, "idp", &shown, &authority)
        };
        let env_of_world = move |world: &World| {
            before.stand_before(world.idp.issuer(), &world.app);
            vec![]
        };
        let world = World::start(Options {
            patch_egress: Some(Box::new(patch_egress)),
            patch_bootstrap: Some(Box::new(patch_bootstrap)),
            env_of_world: Some(Box::new(env_of_world)),
            ..Options::default()
        })
        .await;

        let answer = post(&world.upgrade_url(), &[("x-api-key", &world.caller_key)], "{}").await;

        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert_eq!(legs(&world).0, usize::from(trusted), "{name}");
        assert_eq!(upstream.count(), usize::from(trusted), "{name}");
        assert_vm_never_failed(&world).await;
    }
}
