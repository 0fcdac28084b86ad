//! The world as seen from outside: ready clients, the EMA client's two legs, and the description for others.

use serde_json::{Value, json};

use super::{STOCK_SCOPES, World};
use crate::envoy::Envoy;
use crate::journal::{Kind, Token};
use crate::mcp_client::McpClient;
use crate::names::TOKEN_ID_TOKEN;
use crate::oauth_client::{OauthClient, TokenAnswer};

impl World {
    /// A client of Tickets through Envoy that brings Alice's ID token.
    pub fn client_with_id_token(&self) -> McpClient {
        let token = Token::new(Kind::IdToken, &self.alice.id_token);
        let client =
            McpClient::new(&self.upgrade_url(), "Legacy client").with_bearer(&self.alice.id_token);
        client.with_journal(&self.journal, "Legacy client", "Jagway", Some(token))
    }

    /// A client of Tickets through Envoy that brings an API key.
    pub fn client_with_api_key(&self) -> McpClient {
        let token = Token::new(Kind::ApiKey, &self.caller_key);
        let client = McpClient::new(&self.upgrade_url(), "CI job")
            .with_header("x-api-key", &self.caller_key);
        client.with_journal(&self.journal, "CI job", "Jagway", Some(token))
    }

    /// A client of Warehouse through Envoy that brings this access token.
    pub fn client_with_access_token(&self, access_token: &str) -> McpClient {
        let token = Token::new(Kind::AccessToken, access_token);
        let client = McpClient::new(&self.accept_url(), "EMA client").with_bearer(access_token);
        client.with_journal(&self.journal, "EMA client", "Jagway", Some(token))
    }

    /// Leg 1 of the EMA client towards Warehouse, with Alice's ID token.
    pub async fn exchange_for_warehouse(&self) -> TokenAnswer {
        let subject = (TOKEN_ID_TOKEN, self.alice.id_token.as_str());
        let scope = STOCK_SCOPES.join(" ");
        self.app
            .exchange(
                &self.idp_address.issuer,
                subject,
                &self.accept_issuer(),
                &self.accept_url(),
                &scope,
            )
            .await
    }

    /// Leg 2 of the EMA client: an ID-JAG brought to Jagway's token endpoint.
    pub async fn redeem_at_jagway(&self, id_jag: &str) -> TokenAnswer {
        let what = format!("POST /token: jwt-bearer as {}", self.claude.id);
        self.journal.record("EMA client", "Jagway", what, Some(Token::new(Kind::IdJag, id_jag)));
        let answer =
            self.claude.redeem(&self.accept_issuer(), &self.accept_token_endpoint(), id_jag).await;
        let (what, token) = match answer.body["access_token"].as_str() {
            Some(token) => {
                (format!("{}: issues", answer.status), Some(Token::new(Kind::AccessToken, token)))
            }
            None => (format!("{}: refuses: {}", answer.status, answer.error()), None),
        };
        self.journal.record("Jagway", "EMA client", what, token);
        answer
    }

    /// What somebody outside needs to try the world: addresses, clients and tokens.
    pub fn json(&self) -> Value {
        let client = |client: &OauthClient| json!({"id": client.id, "secret": client.secret});
        json!({
            "envoy_admin": self.envoy.as_ref().map(Envoy::admin).unwrap_or_default(),
            "idp": {
                "issuer": self.idp_address.issuer,
                "token_endpoint": self.idp_address.token_endpoint,
                "jwks_uri": self.idp_address.jwks_uri,
                "client": client(&self.app),
                "id_token": self.alice.id_token,
                "refresh_token": self.alice.refresh_token,
            },
            "upgrade": {
                "url": self.upgrade_url(),
                "resource": self.tickets.resource,
                "id_token": self.alice.id_token,
                "api_key_header": "x-api-key",
                "api_key": self.caller_key,
            },
            "accept": {
                "url": self.accept_url(),
                "resource": self.accept_url(),
                "issuer": self.accept_issuer(),
                "token_endpoint": self.accept_token_endpoint(),
                "client": client(&self.claude),
                "scopes": STOCK_SCOPES,
            },
        })
    }
}
