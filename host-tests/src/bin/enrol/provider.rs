//! The identity provider: its metadata, its keys, and requests to it in the name of our client (OpenID Connect
//! Discovery §4, RFC 6749 §2.3). The client proves itself by the filter's own code, so that what works here works there.

use jagway_core::client_credential::token_request;
use jagway_core::config::{Client, Party};
use jagway_core::http::{Answer, Callout, Url};
use jagway_core::json;
use jagway_core::jwk::KeySet;
use jagway_core::names::WELL_KNOWN_OPENID;
use jagway_core::secret::Secret;
use jagway_core::token_response::error_code;
use serde_json::{Map, Value};

use crate::arguments::Arguments;
use crate::http::Http;
use crate::{Result, random_bytes};

/// Our client, and how it proves itself.
pub enum Proof {
    /// By nothing but its identifier.
    Public(String),
    /// By a secret or a key.
    Confidential(Client),
}

/// Where the provider's endpoints are. Each is https, or http on this machine if the issuer is.
pub struct Metadata {
    /// `token_endpoint`.
    pub token_endpoint: Url,
    /// `jwks_uri`.
    pub jwks_uri: Url,
    /// `authorization_endpoint`.
    pub authorization_endpoint: Option<Url>,
    /// `device_authorization_endpoint` (RFC 8628 §4).
    pub device_authorization_endpoint: Option<Url>,
    /// `revocation_endpoint` (RFC 8414 §2).
    pub revocation_endpoint: Option<Url>,
    /// `authorization_response_iss_parameter_supported` (RFC 9207 §3).
    pub names_itself: bool,
}

/// The provider, as our client sees it.
pub struct Provider<'a> {
    /// Where its endpoints are.
    pub metadata: Metadata,
    /// Its issuer identifier.
    pub issuer: &'a Url,
    party: Party,
    client: &'a Proof,
    http: Http,
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `error` (RFC 6749 §5.2), or `none`, and the status.
    Code(String, u16),
    /// Nothing came back, or that the provider has no time.
    NoAnswer(String),
}

impl<'a> Provider<'a> {
    /// Reads the metadata of the issuer. It must call itself exactly that (OpenID Connect Discovery §4.3).
    pub async fn discover(http: Http, arguments: &'a Arguments) -> Result<Self> {
        let issuer = &arguments.issuer;
        let text = format!("{}{WELL_KNOWN_OPENID}", issuer.as_str().trim_end_matches('/'));
        let url = Url::parse(&text).ok_or("--issuer must have no query")?;
        let document = get(&http, &url).await?;
        let party = Party::new("", issuer.clone(), String::new(), None, None, !issuer.is_https());
        let metadata = Metadata::read(issuer, &document)?;
        Ok(Self { metadata, issuer, party, client: &arguments.client, http })
    }

    /// The identifier of our client.
    pub fn client_id(&self) -> &str {
        match self.client {
            Proof::Public(id) => id,
            Proof::Confidential(client) => &client.id,
        }
    }

    /// The keys it publishes.
    pub async fn keys(&self) -> Result<KeySet> {
        let document = get(&self.http, &self.metadata.jwks_uri).await?;
        let keys = KeySet::parse(Value::Object(document).to_string().as_bytes());
        let keys = keys.filter(|keys| !keys.is_empty());
        keys.ok_or_else(|| format!("no usable keys at {:?}", self.metadata.jwks_uri))
    }

    /// Sends a form to one of its endpoints and gives the object that comes back.
    pub async fn post(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
    ) -> std::result::Result<Map<String, Value>, Refusal> {
        let callout = match self.client {
            Proof::Public(id) => {
                let mut fields = fields.to_vec();
                fields.push(("client_id", id));
                Callout::post_form("", url, &fields)
            }
            Proof::Confidential(client) => {
                let endpoint = &self.metadata.token_endpoint;
                let (now, random) = (host_tests::now(), random_bytes());
                token_request(&self.party, endpoint, client, fields, now, &random)
            }
        };
        let answer = self.http.send(url, &callout).await.map_err(Refusal::NoAnswer)?;
        match (answer.status, json::object(&answer.body)) {
            (200, Some(body)) => Ok(body),
            (status, _) if status >= 500 || status == 429 => {
                Err(Refusal::NoAnswer(format!("status {status}")))
            }
            _ => Err(Refusal::Code(error_code(&answer), answer.status)),
        }
    }

    /// Asks it to forget a refresh token that nobody will have (RFC 7009). What it answers changes nothing here.
    pub async fn revoke(&self, token: &Secret) {
        if let Some(url) = &self.metadata.revocation_endpoint {
            let hint = ("token_type_hint", "refresh_token");
            let _ = self.post(url, &[("token", token.expose()), hint]).await;
        }
    }
}

impl Metadata {
    fn read(issuer: &Url, document: &Map<String, Value>) -> Result<Self> {
        let text = |name| json::string(document, name).ok().flatten();
        let named = text("issuer").unwrap_or_default();
        if named != issuer.as_str() {
            let asked = issuer.as_str();
            return Err(format!(
                "issuer mismatch: {asked:?} was asked, and calls itself {named:?}"
            ));
        }
        let optional = |name: &'static str| match text(name) {
            None => Ok(None),
            Some(text) => {
                let url = safe_url(&format!("the provider's {name}"), text)?;
                // A provider elsewhere has no business on this machine.
                if issuer.is_https() && !url.is_https() {
                    return Err(format!("the provider's {name} must be https"));
                }
                Ok(Some(url))
            }
        };
        let needed = |name| {
            let url = optional(name)?;
            url.ok_or_else(|| format!("the provider's metadata has no {name}"))
        };
        Ok(Self {
            token_endpoint: needed("token_endpoint")?,
            jwks_uri: needed("jwks_uri")?,
            authorization_endpoint: optional("authorization_endpoint")?,
            device_authorization_endpoint: optional("device_authorization_endpoint")?,
            revocation_endpoint: optional("revocation_endpoint")?,
            names_itself: document.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
        })
    }
}

impl Refusal {
    /// What it means for the operator. `what` was asked for.
    pub fn told(self, what: &str) -> String {
        let (code, status) = match self {
            Self::NoAnswer(why) => return format!("{what}: {why}"),
            Self::Code(code, status) => (code, status),
        };
        let meaning = match code.as_str() {
            "access_denied" => "the login was denied",
            "expired_token" => "nobody logged in in time",
            "invalid_client" => {
                "the provider does not take the client's proof: see --client-id, --client-secret-env, --private-key-env"
            }
            "unauthorized_client" | "unsupported_grant_type" => {
                "the provider does not allow this client to ask for that"
            }
            "invalid_scope" => "the provider does not allow this client these scopes: see --scope",
            _ => "the provider refused",
        };
        format!("{what}: {meaning} ({status} {code})")
    }
}

async fn get(http: &Http, url: &Url) -> Result<Map<String, Value>> {
    let Answer { status, body, .. } = http.send(url, &Callout::get_json("", url)).await?;
    match json::object(&body) {
        Some(object) if status == 200 => Ok(object),
        _ => Err(format!("{url:?} gives no JSON object (status {status})")),
    }
}

/// `text` as a URL to which secrets may go. An error calls it `what` and does not tell it back.
pub fn safe_url(what: &str, text: &str) -> Result<Url> {
    let url = Url::parse(text);
    let url = url.ok_or_else(|| format!("{what} must be an absolute URL in normal form"))?;
    let host = url.authority().rsplit_once(':').map_or(url.authority(), |(host, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { url.authority() }
    });
    if !url.is_https() && !["127.0.0.1", "[::1]", "localhost"].contains(&host) {
        return Err(format!("{what} must be https (http is for this machine only)"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_go_to_https_or_stay_on_this_machine() {
        for good in
            ["https://a.example", "http://127.0.0.1:8080/x", "http://[::1]:1", "http://localhost"]
        {
            assert!(safe_url("it", good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example",
            "http://127.0.0.1.a.example",
            "http://[::2]:1",
            "http://0.0.0.0",
            "ftp://a",
        ] {
            assert!(safe_url("it", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_of_another_issuer_or_with_unsafe_endpoints_is_refused() {
        let issuer = Url::parse("https://idp.example").unwrap();
        let good = json!({
            "issuer": "https://idp.example",
            "token_endpoint": "https://idp.example/token",
            "jwks_uri": "https://keys.example/jwks",
        });
        let cases = [
            ("issuer", json!("https://idp.example/"), "issuer mismatch"),
            ("issuer", json!(null), "issuer mismatch"),
            ("token_endpoint", json!("http://idp.example/token"), "token_endpoint must be https"),
            ("token_endpoint", json!("http://127.0.0.1/token"), "token_endpoint must be https"),
            ("jwks_uri", json!(1), "has no jwks_uri"),
            ("device_authorization_endpoint", json!("/device"), "must be an absolute URL"),
        ];

        assert!(Metadata::read(&issuer, good.as_object().unwrap()).is_ok());
        for (name, value, expected) in cases {
            let mut document = good.clone();
            document[name] = value;
            let why = Metadata::read(&issuer, document.as_object().unwrap()).err().unwrap();
            assert!(why.contains(expected), "{name}: {why}");
        }
    }
}
