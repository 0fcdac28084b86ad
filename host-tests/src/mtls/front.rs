//! An authorization server that knows its client by the certificate of the connection (RFC 8705 §2).

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Authority;
use crate::jwks::http_client;
use crate::oauth_client::OauthClient;

/// A TLS front of an authorization server that lets nobody in without a certificate of the authority, and knows the
/// one client there is by it (RFC 8705 §2): what that client asks goes on with its secret, which it need not know.
pub struct Front {
    port: u16,
    behind: Arc<OnceLock<Behind>>,
    runtime: Option<Runtime>,
}

struct Behind {
    origin: String,
    client: OauthClient,
    http: reqwest::Client,
}

impl Front {
    /// Starts it; nothing is behind it yet.
    pub fn start(authority: &Authority) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(authority)));
        let behind = Arc::<OnceLock<Behind>>::default();
        let router = Router::new().fallback(pass_on).with_state(behind.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener =
                TlsListener { listener: TcpListener::from_std(listener).unwrap(), acceptor };
            axum::serve(listener, router).await
        });
        Self { port, behind, runtime: Some(runtime) }
    }

    /// Puts it before the server at this origin, for this client. Once only.
    pub fn stand_before(&self, origin: &str, client: &OauthClient) {
        let (origin, client) = (origin.to_owned(), client.clone());
        let behind = Behind { origin, client, http: http_client("Jagway") };
        assert!(self.behind.set(behind).is_ok(), "it stands before another");
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn pass_on(State(behind): State<Arc<OnceLock<Behind>>>, request: Request) -> Response {
    let behind = behind.get().expect("something is behind it before Envoy starts");
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut asked =
        behind.http.request(parts.method.clone(), format!("{}{}", behind.origin, parts.uri));
    if parts.method == "POST" {
        let form: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
        let has = |name: &str| form.iter().any(|(other, _)| other == name);
        let is_client = form.contains(&("client_id".into(), behind.client.id.clone()));
        if !is_client || has("client_secret") || parts.headers.contains_key("authorization") {
            return (StatusCode::UNAUTHORIZED, r#"{"error":"invalid_client"}"#).into_response();
        }
        asked = asked.basic_auth(&behind.client.id, Some(&behind.client.secret));
        asked = asked.header("content-type", "application/x-www-form-urlencoded").body(body);
    }
    let answer = asked.send().await.unwrap();
    (answer.status(), answer.bytes().await.unwrap()).into_response()
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn server_config(authority: &Authority) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let identity = authority.server();
    let certificate = CertificateDer::from(identity.certificate);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key));
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_client_cert_verifier(clients.build().unwrap());
    builder.with_single_cert(vec![certificate], key).unwrap()
}
