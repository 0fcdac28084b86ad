//! How an EMA client finds its way from a resource's URL to the token endpoint (RFC 9728, RFC 8414).

use serde_json::{Value, json};

use crate::journal::Journal;
use crate::jwks::http_client;
use crate::mcp_client::McpClient;

/// What the client has found.
#[derive(Debug)]
pub struct Discovered {
    /// `WWW-Authenticate` of the 401.
    pub challenge: String,
    /// The protected resource metadata.
    pub resource_metadata: Value,
    /// The metadata of the first authorization server named there.
    pub server_metadata: Value,
}

impl Discovered {
    /// The resource identifier.
    pub fn resource(&self) -> &str {
        self.resource_metadata["resource"].as_str().unwrap()
    }

    /// The issuer, which is the audience to ask the IdP for.
    pub fn issuer(&self) -> &str {
        self.server_metadata["issuer"].as_str().unwrap()
    }

    /// Where to redeem the ID-JAG.
    pub fn token_endpoint(&self) -> &str {
        self.server_metadata["token_endpoint"].as_str().unwrap_or_default()
    }
}

/// Asks without a token and follows the challenge, checking at each step that the document speaks of what was asked for.
pub async fn discover(url: &str, who: &str, journal: &Journal) -> Result<Discovered, String> {
    let ask = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}});
    let client = McpClient::new(url, who).with_journal(journal, who, "Jagway", None);
    let answer = client.post(&ask).await;
    if answer.status.as_u16() != 401 {
        return Err(format!(
            "{url} answers {} to a request without a token, not 401",
            answer.status
        ));
    }
    let challenge = answer
        .headers
        .get("www-authenticate")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let link =
        challenge.split(r#"resource_metadata=""#).nth(1).and_then(|rest| rest.split('"').next());
    let link = link.ok_or_else(|| format!("no resource_metadata in the challenge: {challenge}"))?;

    let resource_metadata = read(link, who, journal).await?;
    same(&resource_metadata["resource"], url)?;
    let issuer = resource_metadata["authorization_servers"][0]
        .as_str()
        .ok_or("no authorization server is named")?;

    let server_metadata = read(&well_known(issuer), who, journal).await?;
    same(&server_metadata["issuer"], issuer)?;

    Ok(Discovered { challenge, resource_metadata, server_metadata })
}

/// RFC 8414 §3.1: the well-known part goes between host and path.
fn well_known(issuer: &str) -> String {
    let host_at = issuer.find("://").map_or(0, |at| at + 3);
    let path_at = issuer[host_at..].find('/').map_or(issuer.len(), |at| host_at + at);
    let (origin, path) = issuer.split_at(path_at);
    format!("{origin}/.well-known/oauth-authorization-server{}", path.trim_end_matches('/'))
}

async fn read(url: &str, who: &str, journal: &Journal) -> Result<Value, String> {
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    journal.record(who, "Jagway", format!("GET /{path}"), None);
    let answer = http_client(who).get(url).send().await.map_err(|error| error.to_string())?;
    if answer.status().as_u16() != 200 {
        return Err(format!("{url} answers {}", answer.status()));
    }
    answer.json().await.map_err(|error| format!("{url}: {error}"))
}

fn same(found: &Value, wanted: &str) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("the metadata is of {found}, not of {wanted}"))
    }
}
