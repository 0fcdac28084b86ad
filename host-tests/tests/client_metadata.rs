//! A client that nobody registered, through the real Envoy: its metadata, its keys, its grant with
//! authorization details, and the server behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use host_tests::journal::{Kind, Token};
use host_tests::keys::{SigningKey, random_text};
use host_tests::names::GRANT_JWT_BEARER;
use host_tests::oauth_client::form;
use host_tests::server::{Place, Server};
use host_tests::upstream::Upstream;
use host_tests::{Options, World, now};
use serde_json::{Value, json};
use support::*;

/// The host of a client's metadata. Every page of it is what the test says, under any path.
struct ClientHost {
    server: Server,
    pages: Arc<Mutex<Pages>>,
}

#[derive(Default)]
struct Pages {
    status: u16,
    body: Value,
    asked: Vec<String>,
}

async fn page(State(pages): State<Arc<Mutex<Pages>>>, request: Request) -> Response {
    let mut pages = pages.lock().unwrap();
    pages.asked.push(format!("{} {}", request.method(), request.uri()));
    let status = axum::http::StatusCode::from_u16(pages.status).unwrap();
    (status, [("location", "/elsewhere")], axum::Json(pages.body.clone())).into_response()
}

impl ClientHost {
    fn start() -> Self {
        let pages: Arc<Mutex<Pages>> = Arc::default();
        let router = Router::new().fallback(page).with_state(pages.clone());
        Self { server: Server::start(Place::find(), router), pages }
    }

    fn id(&self, name: &str) -> String {
        format!("http://{}/{name}", self.server.address())
    }

    fn says(&self, status: u16, body: Value) {
        let mut pages = self.pages.lock().unwrap();
        (pages.status, pages.body) = (status, body);
    }

    fn asked(&self) -> Vec<String> {
        self.pages.lock().unwrap().asked.clone()
    }
}

fn document(id: &str, key: &SigningKey) -> Value {
    json!({
        "client_id": id,
        "client_name": "App",
        "redirect_uris": [],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": {"keys": [key.jwk()]},
    })
}

/// A world whose only clients are those at `host`, with a recording backend that is told who calls.
async fn world_of_clients_at(host: &ClientHost) -> (World, Upstream) {
    let authority = host.server.address().to_string();
    let port = host.server.address().port();
    let backend = Upstream::start();
    let backend_port = backend.port();
    let cluster = format!(
        "  - name: client_host\n    connect_timeout: 1s\n    load_assignment:\n      cluster_name: client_host\n      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]\n"
    );
    let options = Options {
        patch_ingress: Some(Box::new(move |config| {
            let server = &mut config["authorization_server"];
            server["clients"] = json!({});
            server["client_id_metadata_documents"] = json!({
                "hosts": {authority: {"cluster": "client_host", "identity_providers": ["acme"]}},
            });
            let accept = &mut config["resources"][0]["accept"];
            accept["authorization_details"] = json!({"shelf": {"actions": ["count", "move"]}});
            accept["identity_header"] = json!({"name": "x-who"});
        })),
        patch_bootstrap: Some(Box::new(move |text| {
            format!("{}{cluster}", repointed(text, "warehouse", backend_port))
        })),
        ..Options::default()
    };
    (World::start(options).await, backend)
}

/// The client `id` redeems an ID-JAG, with an assertion signed by `key` and `more` parameters.
async fn redeem(world: &World, id: &str, key: &SigningKey, more: &[(&str, &str)]) -> Answer {
    let id_jag = id_jag(world, |_, claims| {
        claims["client_id"] = json!(id);
        claims["authorization_details"] =
            json!([{"type": "shelf", "actions": ["count", "move", "burn"]}]);
    });
    let claims = json!({
        "iss": id, "sub": id, "aud": world.accept_issuer(), "exp": now() + 60, "jti": random_text(),
    });
    let assertion = key.sign(&key.header("client-authentication+jwt"), &claims);
    let fields = [
        ("grant_type", GRANT_JWT_BEARER),
        ("assertion", &id_jag),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &assertion),
    ];
    let body = form(&[fields.as_slice(), more].concat());
    let form_type = [("content-type", "application/x-www-form-urlencoded")];
    post(&world.accept_token_endpoint(), &form_type, body).await
}

fn claims(jwt: &str) -> Value {
    Token::new(Kind::AccessToken, jwt).claims.unwrap()
}

#[tokio::test]
async fn a_client_with_metadata_opens_the_server_with_what_it_was_granted() {
    let (host, key) = (ClientHost::start(), SigningKey::es256("1"));
    let id = host.id("app.json");
    host.says(200, document(&id, &key));
    let (world, backend) = world_of_clients_at(&host).await;

    let whole = redeem(&world, &id, &key, &[]).await;
    let asked = r#"[{"type":"shelf","actions":["move"]}]"#;
    let part = redeem(&world, &id, &key, &[("authorization_details", asked)]).await;

    for (answer, actions) in [(&whole, json!(["count", "move"])), (&part, json!(["move"]))] {
        assert_eq!(answer.status, 200, "{answer:?}");
        let granted = json!([{"type": "shelf", "actions": actions}]);
        assert_eq!(answer.json()["authorization_details"], granted);
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(claims(&token)["client_id"], id.as_str());
        assert_eq!(post_as(&world.accept_url(), &token).await.status, 200);
        let who = claims(backend.last().header("x-who").unwrap());
        assert_eq!(who["client_id"], id.as_str());
        assert_eq!(who["authorization_details"], granted);
    }
    assert_eq!(host.asked(), ["GET /app.json"], "fetched once");
    assert_eq!(backend.count(), 2);
    assert_vm_never_failed(&world).await;
}

#[tokio::test]
async fn who_is_not_what_its_metadata_says_gets_no_further_than_the_token_endpoint() {
    let (mut host, key) = (ClientHost::start(), SigningKey::es256("1"));
    let (world, backend) = world_of_clients_at(&host).await;
    let other = SigningKey::es256("1");
    let sound = |name: &str| (200, document(&host.id(name), &key));
    let cases = [
        ("a", sound("a"), &other, 401, "invalid_client", "[signature]"),
        ("b", sound("another"), &key, 401, "invalid_client", "client_metadata_client_id"),
        ("c", (302, sound("c").1), &key, 401, "invalid_client", "client_metadata_status"),
        ("d", (404, json!({})), &key, 401, "invalid_client", "client_metadata_status"),
        (
            "e",
            (500, json!({})),
            &key,
            503,
            "temporarily_unavailable",
            "client_metadata_unavailable",
        ),
    ];

    for (name, (status, body), key, code, error, reason) in cases {
        host.says(status, body);
        let refused = redeem(&world, &host.id(name), key, &[]).await;

        assert_eq!(refused.status, code, "{name}: {refused:?}");
        assert_eq!(refused.json()["error"], error, "{name}");
        let envoy = world.envoy.as_ref().unwrap();
        until(5, reason, || envoy.log().contains(reason)).await;
    }
    assert!(host.asked().iter().all(|line| line != "GET /elsewhere"), "{:?}", host.asked());
    let before = host.asked().len();
    let elsewhere = format!("http://127.0.0.1:{}/app", backend.port());
    let unlisted = redeem(&world, &elsewhere, &key, &[]).await;
    assert_eq!((unlisted.status, host.asked().len()), (401, before));

    host.server.stop();
    let down = redeem(&world, &host.id("f"), &key, &[]).await;
    assert_eq!(down.status, 503, "{down:?}");
    assert_eq!(backend.server.bytes_received(), 0);
    assert_vm_never_failed(&world).await;
}
