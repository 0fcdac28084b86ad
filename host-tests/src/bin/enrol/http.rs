//! HTTP to the identity provider: no redirects, no proxies, bounded in size and time.
//!
//! The HTTP client here speaks no TLS. To an `https` URL it therefore speaks through a Unix socket that only this
//! user can open, at whose other end is the TLS connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jagway_core::http::{Answer, Callout, Headers, MAX_ANSWER, Url};
use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Result;

/// Longest time one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where systems keep the certificate authorities they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client for the provider.
pub struct Http {
    /// Why there is none matters only to who needs it.
    tls: Result<TlsConnector>,
}

impl Http {
    /// A client that trusts the certificate authorities in `ca_file`, or those of the system.
    pub fn new(ca_file: Option<&Path>) -> Result<Self> {
        let tls = connector(ca_file);
        match ca_file {
            Some(_) => Ok(Self { tls: Ok(tls?) }),
            None => Ok(Self { tls }),
        }
    }

    /// Sends `callout`, made by the filter's own code, to `url`, which need not be where the filter would send it.
    ///
    /// An error if there is no whole answer of at most [`MAX_ANSWER`] bytes, in time. Does *not* look at the status.
    pub async fn send(&self, url: &Url, callout: &Callout) -> Result<Answer> {
        let answer = timeout(PATIENCE, async {
            if !url.is_https() {
                return exchange(builder(), url, callout).await;
            }
            let mut tls = connect(self.tls.as_ref().map_err(String::clone)?, url).await?;
            let (_directory, path, listener) = private_socket()?;
            // Ends with the HTTP client's connection.
            tokio::spawn(async move {
                if let Ok((mut plain, _)) = listener.accept().await {
                    let _ = copy_bidirectional(&mut plain, &mut tls).await;
                }
            });
            exchange(builder().unix_socket(path), url, callout).await
        });
        let answer = answer.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        answer.map_err(|why| format!("{}: {why}", url.origin()))
    }
}

fn builder() -> ClientBuilder {
    reqwest::Client::builder().user_agent("jagway-enrol").no_proxy().redirect(Policy::none())
}

async fn exchange(client: ClientBuilder, url: &Url, callout: &Callout) -> Result<Answer> {
    let plain = |error: reqwest::Error| innermost(&error);
    let client = client.build().map_err(plain)?;
    let target = format!("http://{}{}", url.authority(), url.path_and_query());
    let mut request = match callout.method {
        "GET" => client.get(target),
        _ => client.post(target).body(callout.body.expose().to_owned()),
    };
    for (name, value) in &callout.headers {
        request = request.header(&**name, value.expose());
    }
    let mut response = request.send().await.map_err(plain)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(plain)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err("the answer is too large".to_owned());
        }
    }
    Ok(Answer { status, headers: Headers::default(), body })
}

/// What lies beneath; the outer errors only say that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

fn private_socket() -> Result<(tempfile::TempDir, PathBuf, UnixListener)> {
    let make = || -> std::io::Result<_> {
        // Mode 0700.
        let directory = tempfile::TempDir::with_prefix("jagway-")?;
        let path = directory.path().join("tls");
        let listener = UnixListener::bind(&path)?;
        Ok((directory, path, listener))
    };
    make().map_err(|error| format!("no socket can be made here: {error}"))
}

async fn connect(connector: &TlsConnector, url: &Url) -> Result<TlsStream<TcpStream>> {
    let authority = url.authority();
    let port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = port.unwrap_or((authority, 443));
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let told = |error: std::io::Error| error.to_string();
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(told)?;
    let name = ServerName::try_from(host).map_err(|_| "not the name of a host".to_owned())?;
    connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = || BUNDLES.iter().map(PathBuf::from).find(|file| file.is_file());
    let file = ca_file.map(Path::to_owned).or(named).or_else(usual);
    let file = file.ok_or("no certificate authorities are found here: name some with --ca-file")?;
    let unread = |why: String| format!("{}: {why}", file.display());
    let certificates = CertificateDer::pem_file_iter(&file).map_err(|e| unread(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.filter_map(|certificate| certificate.ok()));
    if roots.is_empty() {
        return Err(unread("has no certificate in PEM".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| error.to_string())?.with_root_certificates(roots);
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}
