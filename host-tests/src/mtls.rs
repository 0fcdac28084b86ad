//! Certificates made at random, a listener that asks for them, and a way to it (RFC 8705).

mod front;

pub use front::Front;

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::keys::base64url;

/// The subject of the clients, as RFC 2253 writes it.
pub const CLIENT_SUBJECT: &str = "CN=claude,O=Acme";
/// The clients' name as a URI.
pub const CLIENT_URI: &str = "spiffe://acme.example/claude";
/// The clients' name as a host.
pub const CLIENT_DNS: &str = "claude.acme.example";

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its private key.
#[derive(Clone)]
pub struct Identity {
    certificate: Vec<u8>,
    certificate_pem: String,
    key: Vec<u8>,
    key_pem: String,
}

/// Which client certificates a listener takes.
pub enum Accepted {
    /// Those of this authority, in PEM. There is no connection without one.
    SignedBy(String),
    /// Any, self-signed ones too, and none at all: Envoy asks, and whoever is behind must look at what was shown.
    Any,
}

impl Authority {
    /// An authority that nobody else trusts.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a server at 127.0.0.1.
    pub fn server(&self) -> Identity {
        self.issue(CertificateParams::new(["127.0.0.1".into()]).unwrap())
    }

    /// A new certificate for the client of [`CLIENT_SUBJECT`]; each has a key of its own.
    pub fn client(&self) -> Identity {
        self.issue(client_params())
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity::new(&params.signed_by(&key, &self.0).unwrap(), &key)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// A new certificate of the same client that no authority has signed.
    pub fn self_signed_client() -> Self {
        let key = KeyPair::generate().unwrap();
        Self::new(&client_params().self_signed(&key).unwrap(), &key)
    }

    /// The certificate, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate's SHA-256 in hex, as Envoy gives it.
    pub fn sha256_hex(&self) -> String {
        Sha256::digest(&self.certificate).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The certificate's SHA-256 as the member `x5t#S256` of `cnf` has it (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> String {
        base64url(&Sha256::digest(&self.certificate))
    }

    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.der().to_vec(),
            certificate_pem: certificate.pem(),
            key: key.serialize_der(),
            key_pem: key.serialize_pem(),
        }
    }
}

fn client_params() -> CertificateParams {
    let mut params = CertificateParams::new([CLIENT_DNS.into()]).unwrap();
    params.subject_alt_names.push(SanType::URI(CLIENT_URI.try_into().unwrap()));
    params.distinguished_name = Default::default();
    // RFC 2253 writes the last first.
    params.distinguished_name.push(DnType::OrganizationName, "Acme");
    params.distinguished_name.push(DnType::CommonName, "claude");
    params
}

/// The bootstrap with this listener speaking TLS and asking for client certificates.
pub fn with_client_certificates(
    text: String,
    listener: &str,
    server: &Identity,
    accepted: &Accepted,
) -> String {
    let socket = listener_socket(server, accepted);
    const CHAIN: &str = "    filter_chains:\n    - ";
    let begin = text.find(&format!("- name: {listener}\n")).expect("the listener is there");
    let chain = begin + text[begin..].find(CHAIN).expect("it has a filter chain") + CHAIN.len();
    format!("{}transport_socket: {socket}\n      {}", &text[..chain], &text[chain..])
}

/// The transport socket of a listener that speaks TLS and asks for client certificates.
pub fn listener_socket(server: &Identity, accepted: &Accepted) -> Value {
    let pem = |text: &str| json!({ "inline_string": text });
    let validation = match accepted {
        Accepted::SignedBy(authority) => json!({"trusted_ca": pem(authority)}),
        Accepted::Any => json!({"trust_chain_verification": "ACCEPT_UNTRUSTED"}),
    };
    let certificate = json!({
        "certificate_chain": pem(&server.certificate_pem),
        "private_key": pem(&server.key_pem),
    });
    json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {"tls_certificates": [certificate], "validation_context": validation},
        },
    })
}

/// The bootstrap with this cluster speaking TLS, and showing a client's certificate.
pub fn with_certificate_shown(
    text: String,
    cluster: &str,
    client: &Identity,
    authority: &Authority,
) -> String {
    let pem = |text: &str| json!({ "inline_string": text });
    let certificate = json!({
        "certificate_chain": pem(&client.certificate_pem),
        "private_key": pem(&client.key_pem),
    });
    let socket: Value = json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [certificate],
                "validation_context": {"trusted_ca": pem(&authority.pem())},
            },
        },
    });
    let head = format!("  - name: {cluster}\n    connect_timeout");
    let begin = text.find(&head).expect("the cluster is there");
    let rest = begin + format!("  - name: {cluster}\n").len();
    format!("{}    transport_socket: {socket}\n{}", &text[..rest], &text[rest..])
}

/// A way from plain HTTP on this machine into a TLS listener, in the name of a client.
///
/// Every client of the world can go it, through
/// [`http_client_through`](crate::through::http_client_through) or as an origin. It closes when this is dropped.
pub struct Tunnel {
    origin: String,
    runtime: Option<Runtime>,
}

impl Tunnel {
    /// A way to the listener at this origin, whose scheme does not matter. Without an identity no certificate is shown.
    pub fn start(to: &str, authority: &Authority, identity: Option<&Identity>) -> Self {
        let port = to.rsplit(':').next().unwrap().parse().expect("an origin ends in its port");
        let connector = TlsConnector::from(Arc::new(client_config(authority, identity)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((plain, _)) = listener.accept().await {
                tokio::spawn(carry(plain, port, connector.clone()));
            }
        });
        Self { origin, runtime: Some(runtime) }
    }

    /// Where it begins.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Not a plain drop: that blocks, which an async caller must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A refused handshake closes the plain side too, which is all that its caller learns.
async fn carry(mut plain: TcpStream, port: u16, connector: TlsConnector) {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let Ok(mut tls) = connector.connect(name, stream).await else { return };
    let _ = copy_bidirectional(&mut plain, &mut tls).await;
}

fn client_config(authority: &Authority, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let certificate = CertificateDer::from(identity.certificate.clone());
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.clone()));
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    }
}
