//! The certificate a client shows in the TLS handshake, as Envoy tells it, and what a client may be
//! registered with (RFC 8705).

use crate::digest::{Key, base64url, from_hex};
use crate::secret::same_digest;

/// The peer certificate of the connection that a request came on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of its DER encoding.
    pub sha256: Key,
    /// Its subject DN as Envoy writes it; empty if there is none.
    pub subject: String,
    /// Its first URI subject alternative name; empty if there is none.
    pub uri_san: String,
    /// Its first DNS subject alternative name; empty if there is none.
    pub dns_san: String,
}

impl ClientCertificate {
    /// The certificate that these attributes of a connection describe. They must come from Envoy
    /// itself, never from a header.
    ///
    /// `None` unless `sha256_hex` is 64 hexadecimal digits: there is no certificate. Does *not* check
    /// that the certificate is valid or chains to anything: that is Envoy's part, if it is told to.
    pub fn from_attributes(
        sha256_hex: &str,
        subject: &str,
        uri_san: &str,
        dns_san: &str,
    ) -> Option<Self> {
        Some(Self {
            sha256: from_hex(sha256_hex)?,
            subject: subject.to_owned(),
            uri_san: uri_san.to_owned(),
            dns_san: dns_san.to_owned(),
        })
    }

    /// The confirmation value `x5t#S256` of it: base64url without padding (RFC 8705 §3.1).
    pub fn x5t_s256(&self) -> String {
        base64url(&self.sha256)
    }
}

/// What a client that authenticates by certificate is registered with (RFC 8705 §2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisteredCertificate {
    /// `tls_client_auth` by `tls_client_auth_subject_dn` (§2.1.2), written as Envoy writes it.
    SubjectDn(String),
    /// `tls_client_auth` by `tls_client_auth_san_uri` (§2.1.2).
    SanUri(String),
    /// `tls_client_auth` by `tls_client_auth_san_dns` (§2.1.2).
    SanDns(String),
    /// `self_signed_tls_client_auth` (§2.2): SHA-256 of the DER encoding of each certificate.
    Sha256(Vec<Key>),
}

impl RegisteredCertificate {
    /// Whether `certificate` is this client's. Names are compared exactly, without wildcards, and an
    /// empty one never matches.
    ///
    /// Does *not* check that anybody vouches for a name: all but [`Self::Sha256`] say something only
    /// where Envoy has verified the chain (§2.1).
    pub fn matches(&self, certificate: &ClientCertificate) -> bool {
        let same = |expected: &str, shown: &str| !expected.is_empty() && expected == shown;
        match self {
            Self::SubjectDn(subject) => same(subject, &certificate.subject),
            Self::SanUri(uri) => same(uri, &certificate.uri_san),
            Self::SanDns(name) => same(name, &certificate.dns_san),
            Self::Sha256(keys) => keys.iter().any(|key| same_digest(key, &certificate.sha256)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RegisteredCertificate::{SanDns, SanUri, Sha256, SubjectDn};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SUBJECT: &str = "CN=agent,O=Acme";
    const URI: &str = "spiffe://acme.example/agent";
    const DNS: &str = "agent.acme.example";

    fn certificate() -> ClientCertificate {
        ClientCertificate::from_attributes(&"0f".repeat(32), SUBJECT, URI, DNS).unwrap()
    }

    #[test]
    fn a_digest_that_is_not_64_hexadecimal_digits_is_no_certificate() {
        let long = "0f".repeat(33);
        let colons = ["0f"; 32].join(":");
        let base64 = base64url(&[15; 32]);

        for digest in ["", "0f", &long, &long[..63], &long[..62], &colons, &base64, &"ä".repeat(32)]
        {
            let certificate = ClientCertificate::from_attributes(digest, SUBJECT, URI, DNS);

            assert_eq!(certificate, None, "{digest}");
        }
    }

    #[test]
    fn the_confirmation_value_is_the_digest_in_base64url_without_padding() {
        let lower = ClientCertificate::from_attributes(&"fb".repeat(32), "", "", "").unwrap();
        let upper = ClientCertificate::from_attributes(&"FB".repeat(32), "", "", "").unwrap();

        assert_eq!(lower.x5t_s256(), "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s");
        assert_eq!(lower, upper);
    }

    #[test]
    fn a_certificate_matches_what_is_registered_of_it() {
        for registered in [
            SubjectDn(SUBJECT.into()),
            SanUri(URI.into()),
            SanDns(DNS.into()),
            Sha256(vec![[15; 32]]),
            Sha256(vec![[1; 32], [15; 32]]),
        ] {
            assert!(registered.matches(&certificate()), "{registered:?}");
        }
    }

    #[test]
    fn a_certificate_that_differs_in_anything_does_not_match() {
        for registered in [
            SubjectDn("CN=agent".into()),
            SubjectDn("O=Acme,CN=agent".into()),
            SubjectDn("CN=agent,O=Acme ".into()),
            SubjectDn("cn=agent,o=acme".into()),
            SubjectDn(URI.into()),
            SanUri("spiffe://acme.example/agent/".into()),
            SanUri("spiffe://acme.example/".into()),
            SanUri(DNS.into()),
            SanDns("AGENT.acme.example".into()),
            SanDns("*.acme.example".into()),
            SanDns("agent.acme.example.".into()),
            SanDns(URI.into()),
            Sha256(vec![]),
            Sha256(vec![[0; 32], [14; 32]]),
        ] {
            assert!(!registered.matches(&certificate()), "{registered:?}");
        }
    }

    #[test]
    fn an_empty_name_never_matches_an_absent_one() {
        let nameless = ClientCertificate::from_attributes(&"0f".repeat(32), "", "", "").unwrap();

        for registered in [SubjectDn("".into()), SanUri("".into()), SanDns("".into())] {
            assert!(!registered.matches(&nameless), "{registered:?}");
            assert!(!registered.matches(&certificate()), "{registered:?}");
        }
    }
}
