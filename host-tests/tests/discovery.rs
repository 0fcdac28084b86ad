//! The resource itself says which authorization server its tokens come from (RFC 9728), through the real Envoy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use host_tests::client_auth::AuthMethod;
use host_tests::endpoints::Fault;
use host_tests::idp::Connection;
use host_tests::keys::random_text;
use host_tests::names::{GRANT_JWT_BEARER, PROFILE_ID_JAG};
use host_tests::node::Parts;
use host_tests::oauth_client::OauthClient;
use host_tests::patches::with_cluster;
use host_tests::program::or_skip;
use host_tests::resource_as::ResourceAs;
use host_tests::server::Place;
use host_tests::upstream::Upstream;
use host_tests::world::TICKETS_SCOPES;
use host_tests::{Options, World};
use serde_json::{Value, json};
use support::*;

const ROOT: &str = "/.well-known/oauth-protected-resource";
const SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";

/// A world whose resource, a recording server, is asked for its authorization server: the Tickets AS or the second.
struct Signposted {
    world: World,
    upstream: Upstream,
    second: ResourceAs,
}

impl Signposted {
    async fn start() -> Self {
        let (upstream, place) = (Upstream::start(), Place::find());
        let (port, issuer) = (upstream.port(), place.origin());
        let second_port = host_tests::egress::port_of(&issuer);
        let patch_egress = move |config: &mut Value| {
            let upgrade = &mut config["resources"][0]["upgrade"];
            let first = upgrade.as_object_mut().unwrap().remove("authorization_server").unwrap();
            let mut second = first.clone();
            (second["issuer"], second["cluster"]) = (json!(issuer), json!("second_as"));
            upgrade["authorization_servers"] = json!([first, second]);
            upgrade["discovery"] = json!({"cluster": "tickets"});
        };
        let patch_bootstrap = move |text: String| {
            with_cluster(repointed(text, "tickets", port), "second_as", second_port)
        };
        let world = World::start(Options {
            patch_egress: Some(Box::new(patch_egress)),
            patch_bootstrap: Some(Box::new(patch_bootstrap)),
            ..Options::default()
        })
        .await;
        let (journal, resource) = (&world.journal, &world.tickets.resource);
        let second =
            ResourceAs::start(place, journal, resource, &TICKETS_SCOPES, &world.idp_address);
        second.register(world.jagway_at_tickets.registration());
        let audience = second.issuer().to_owned();
        world.idp.connect(Connection { audience, ..world.tickets_connection() });
        Self { world, upstream, second }
    }

    /// The resource's metadata, naming these servers.
    fn metadata(&self, servers: &[&str]) -> Value {
        json!({"resource": self.world.tickets.resource, "authorization_servers": servers})
    }

    fn origin(&self) -> &str {
        self.world.tickets.resource.trim_end_matches("/mcp")
    }

    async fn post(&self) -> Answer {
        post_as(&self.world.upgrade_url(), &id_token_of(&self.world, "alice")).await
    }

    /// How many grants were redeemed at the two servers.
    fn redeemed(&self) -> (usize, usize) {
        let count = |server: &ResourceAs| {
            let endpoints = server.endpoints();
            endpoints.count("/token") + endpoints.count("/moved/token")
        };
        (count(&self.world.tickets_as), count(&self.second))
    }

    /// Targets of what arrived at the resource without a credential, in order.
    fn asked(&self) -> Vec<String> {
        let received = self.upstream.received().into_iter();
        let asked = received.filter(|request| request.header("authorization").is_none());
        asked.map(|request| format!("{} {}", request.method, request.target)).collect()
    }

    fn log(&self) -> String {
        self.world.envoy.as_ref().unwrap().log()
    }
}

#[tokio::test]
async fn the_server_is_found_through_the_challenge_and_through_either_well_known_url() {
    let below = format!("{ROOT}/mcp");
    for (name, challenged, path, asked) in [
        ("challenge", true, "/elsewhere", vec!["GET /mcp", "GET /elsewhere"]),
        ("path", false, &*below, vec!["GET /mcp", &*format!("GET {below}")]),
        ("root", false, ROOT, vec!["GET /mcp", &*format!("GET {below}"), &*format!("GET {ROOT}")]),
    ] {
        let posts = Signposted::start().await;
        posts.upstream.publish(path, &posts.metadata(&[posts.second.issuer()]));
        if challenged {
            let url = format!("{}{path}", posts.origin());
            posts.upstream.challenge(&format!(r#"Bearer resource_metadata="{url}""#));
        } else if path == ROOT {
            // Some answer 200 to anything.
            posts.upstream.publish(&below, &json!({"error": "not here"}));
        }

        let answer = posts.post().await;
        let again = posts.post().await;

        assert_eq!((answer.status, again.status), (200, 200), "{name}: {answer:?}");
        assert_eq!(posts.redeemed(), (0, 2), "{name}");
        assert_eq!(posts.upstream.last().claim("iss"), posts.second.issuer(), "{name}");
        // Asked once for all callers.
        assert_eq!(posts.asked(), asked, "{name}");
    }
}

#[tokio::test]
async fn a_document_that_does_not_hold_sends_nobodys_grant_anywhere() {
    let trap = Upstream::start();
    let trap_url = format!("http://127.0.0.1:{}", trap.port());
    for (name, fault) in [
        ("another resource", "resource_metadata_of_another"),
        ("a server that is not in the list", "resource_metadata_no_allowed_server"),
        ("no server", "resource_metadata_no_allowed_server"),
        ("no metadata", "resource_metadata_malformed"),
        ("metadata elsewhere", "no metadata of resource"),
    ] {
        let posts = Signposted::start().await;
        let mut document = posts.metadata(&[posts.world.tickets_as.issuer()]);
        match name {
            "another resource" => document["resource"] = json!(format!("{trap_url}/mcp")),
            "a server that is not in the list" => {
                document["authorization_servers"] = json!([trap_url]);
            }
            "no server" => document["authorization_servers"] = json!([]),
            "no metadata" => document = json!(["no metadata"]),
            _ => {
                let elsewhere = format!(r#"Bearer resource_metadata="{trap_url}/metadata""#);
                posts.upstream.challenge(&elsewhere);
                trap.publish("/metadata", &document);
                document = json!({});
            }
        }
        posts.upstream.publish(&format!("{ROOT}/mcp"), &document);
        posts.upstream.publish(ROOT, &document);

        let answer = posts.post().await;

        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        assert_eq!((legs(&posts.world), posts.redeemed()), ((0, 0), (0, 0)), "{name}");
        assert_eq!(trap.server.bytes_received(), 0, "{name}");
        let received = posts.upstream.received();
        assert!(received.iter().all(|request| request.method == "GET"), "{name}");
        assert!(posts.log().contains(fault), "{name}: {}", posts.log());
    }
}

#[tokio::test]
async fn a_server_whose_metadata_is_of_another_issuer_gets_no_grant() {
    let trap = Upstream::start();
    let trap_url = format!("http://127.0.0.1:{}", trap.port());
    let posts = Signposted::start().await;
    let metadata = json!({
        "issuer": trap_url,
        "token_endpoint": format!("{trap_url}/token"),
        "authorization_grant_profiles_supported": [PROFILE_ID_JAG],
    });
    let endpoints = posts.second.endpoints();
    endpoints.fail(SERVER_METADATA, Fault::Body(metadata.to_string()));
    endpoints.fail("/.well-known/openid-configuration", Fault::Body(metadata.to_string()));
    let document = posts.metadata(&[posts.second.issuer()]);
    posts.upstream.publish(&format!("{ROOT}/mcp"), &document);

    let answer = posts.post().await;
    endpoints.heal(SERVER_METADATA);
    let began = std::time::Instant::now();
    let mut healed = posts.post().await;
    while healed.status != 200 && began.elapsed().as_secs() < 20 {
        healed = posts.post().await;
    }

    assert_eq!((answer.status, healed.status), (502, 200), "{answer:?} {healed:?}");
    assert_eq!(trap.server.bytes_received(), 0);
    assert_eq!(posts.redeemed(), (0, 1));
    let line = format!("is not the metadata of {}", posts.second.issuer());
    assert!(posts.log().contains(&line), "{}", posts.log());
}

#[tokio::test]
async fn a_server_that_moves_its_token_endpoint_is_followed() {
    let posts = Signposted::start().await;
    let document = posts.metadata(&[posts.world.tickets_as.issuer()]);
    posts.upstream.publish(&format!("{ROOT}/mcp"), &document);
    let server = posts.world.tickets_as.endpoints();
    let before = posts.post().await;

    posts.world.tickets_as.move_token_endpoint();
    // Metadata that is of this very second is as new as can be.
    let began = std::time::Instant::now();
    let mut after = posts.post().await;
    while after.status != 200 && began.elapsed().as_secs() < 20 {
        after = posts.post().await;
    }

    assert_eq!((before.status, after.status), (200, 200), "{after:?}");
    assert_eq!(server.count("/moved/token"), 1);
    assert_eq!(posts.upstream.last().claim("iss"), posts.world.tickets_as.issuer());
}

#[tokio::test]
async fn a_resource_that_changes_to_another_server_of_the_list_is_followed() {
    let posts = Signposted::start().await;
    let (first, second) = (posts.world.tickets_as.issuer(), posts.second.issuer());
    posts.upstream.publish(&format!("{ROOT}/mcp"), &posts.metadata(&[first]));
    let before = posts.post().await;
    let from_first = posts.upstream.last().claim("iss");

    // RFC 9728 §5.2: a 401 may mean that the metadata has changed.
    posts.upstream.publish(&format!("{ROOT}/mcp"), &posts.metadata(&[second]));
    posts.upstream.answer(401, &[]);
    // What is of this very second is as new as can be.
    let began = std::time::Instant::now();
    while posts.redeemed().1 == 0 && began.elapsed().as_secs() < 20 {
        assert_eq!(posts.post().await.status, 401);
    }
    posts.upstream.answer(200, &[]);
    let after = posts.post().await;

    assert_eq!((before.status, after.status), (200, 200), "{after:?}");
    assert_eq!(from_first, first);
    assert_eq!(posts.upstream.last().claim("iss"), second);
    // The document was asked for once more, however many were refused.
    assert_eq!(posts.asked().len(), 4, "{:?}", posts.asked());
}

#[tokio::test]
async fn a_client_that_speaks_ema_passes_untouched_where_a_legacy_client_is_upgraded() {
    let Some(parts) = or_skip(Parts::install()) else { return };
    let patch = |config: &mut Value| {
        config["resources"][0]["upgrade"]["pass_ema_clients"] = json!(true);
    };
    let patch_egress = Some(Box::new(patch) as Box<_>);
    let options = Options { tickets_behind_envoy: true, patch_egress, ..Options::default() };
    let world = World::start(options).await;
    // The SDK's reader of metadata insists on an authorization endpoint.
    let issuer = world.tickets_as.issuer();
    let metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": world.tickets_as.token_endpoint(),
        "response_types_supported": ["code"],
        "grant_types_supported": [GRANT_JWT_BEARER],
        "authorization_grant_profiles_supported": [PROFILE_ID_JAG],
    });
    world.tickets_as.endpoints().fail(SERVER_METADATA, Fault::Body(metadata.to_string()));
    let (app, there) = (
        OauthClient::new("ema-app", "EMA client", AuthMethod::Basic),
        OauthClient::new("ema-at-tickets", "EMA client", AuthMethod::Basic),
    );
    world.idp.register(app.registration());
    world.tickets_as.register(there.registration());
    world.idp.connect(Connection {
        client_id: app.id.clone(),
        client_id_there: there.id.clone(),
        ..world.tickets_connection()
    });
    let password = random_text();
    world.idp.add_user("carol", &password);
    let carol = app.login(world.idp.issuer(), "carol", &password).await;

    let input = json!({
        "idp": {
            "token_endpoint": world.idp.token_endpoint(),
            "id_token": carol.id_token,
            "client": {"id": app.id, "secret": app.secret},
        },
        "accept": {
            "url": world.upgrade_url(),
            "issuer": issuer,
            "client": {"id": there.id, "secret": there.secret},
        },
        "tool": "list_tickets",
    });
    let seen = parts.run("xaa-client.mjs", &input).await;
    let legs_of_ema_client = legs(&world);
    let mut alice = world.client_with_id_token();
    alice.initialize().await.unwrap();
    let alices = alice.call("list_tickets", json!({})).await.unwrap();

    let tickets = &seen["result"]["structuredContent"];
    assert_eq!((&tickets["caller"], &tickets["client"]), (&json!("carol"), &json!(there.id)));
    assert_eq!(legs_of_ema_client, (0, 0));
    assert_eq!(
        (&alices["caller"], &alices["client"]),
        (&json!("alice"), &json!("jagway-at-tickets"))
    );
    assert_eq!(legs(&world), (1, 1));
}

#[tokio::test]
async fn a_server_that_does_not_speak_ema_is_reached_by_client_credentials() {
    let server = Upstream::start();
    let port = server.port();
    let upstream = Upstream::start();
    let behind = upstream.port();
    let patch_egress = |config: &mut Value| {
        config["resources"][0]["upgrade"]["ema"] = json!("preferred");
    };
    let patch_bootstrap =
        move |text: String| repointed(repointed(text, "tickets_as", port), "tickets", behind);
    let world = World::start(Options {
        patch_egress: Some(Box::new(patch_egress)),
        patch_bootstrap: Some(Box::new(patch_bootstrap)),
        ..Options::default()
    })
    .await;
    let issuer = world.tickets_as.issuer();
    let metadata = json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token")});
    server.publish(SERVER_METADATA, &metadata);
    let granted = json!({"access_token": "ours", "token_type": "Bearer", "expires_in": 60});
    server.publish("/token", &granted);

    let began = std::time::Instant::now();
    let mut answer = post_as(&world.upgrade_url(), &world.alice.id_token).await;
    // The metadata may have been asked for before there was any.
    while answer.status != 200 && began.elapsed().as_secs() < 20 {
        answer = post_as(&world.upgrade_url(), &world.alice.id_token).await;
    }

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(upstream.last().bearer(), "ours");
    let received = server.received();
    let asked: Vec<_> = received.iter().filter(|request| request.method == "POST").collect();
    let form = String::from_utf8(asked[0].body.to_vec()).unwrap();
    assert!(form.contains("grant_type=client_credentials"), "{form}");
    assert_eq!((asked.len(), legs(&world).0), (1, 0));
    let stats = world.envoy.as_ref().unwrap().admin_page("/stats").await;
    assert!(stats.contains("jagway.done.client_credentials: 1"), "{stats}");
}
