//! panva's oidc-provider as the IdP of a [`World`](crate::World), in the place of Acme.

use serde_json::{Map, Value, json};

use crate::idp::{Address, Connection};
use crate::node::{Part, Parts};
use crate::oauth_client::{LoginTokens, OauthClient, REDIRECT_URI};

/// How it is to be started.
pub struct Panva {
    /// Where its script lies.
    pub parts: Parts,
    /// What it signs with: `ES256` or `RS256`.
    pub alg: &'static str,
}

/// The running IdP.
pub struct PanvaIdp {
    part: Part,
    parts: Parts,
    client: Value,
}

impl Panva {
    /// Starts it with this client and what the administrator allows the client.
    pub async fn start(&self, client: &OauthClient, connections: &[Connection]) -> PanvaIdp {
        let targets: Map<String, Value> = connections
            .iter()
            .map(|target| {
                let there = json!({
                    "client_id": target.client_id_there,
                    "resources": target.resources,
                    "scopes": target.scopes,
                });
                (target.audience.clone(), there)
            })
            .collect();
        let client =
            json!({"id": client.id, "secret": client.secret, "redirect_uri": REDIRECT_URI});
        let mut registered = client.clone();
        registered["id_jag"] = targets.into();
        let users = json!({
            "alice": {"email": "alice@acme.example"},
            "ci-bot": {"email": "ci-bot@acme.example"},
        });
        let input = json!({"port": 0, "clients": [registered], "users": users, "alg": self.alg});
        let part = self.parts.start("idp.mjs", &input).await;
        PanvaIdp { part, parts: self.parts.clone(), client }
    }
}

impl PanvaIdp {
    /// Where it is found.
    pub fn address(&self) -> Address {
        Address {
            issuer: self.said("issuer"),
            token_endpoint: self.said("token_endpoint"),
            jwks_uri: self.said("jwks_uri"),
        }
    }

    /// Logs a user in through the forms.
    pub async fn login(&self, user: &str) -> LoginTokens {
        let input = json!({"issuer": self.said("issuer"), "client": self.client, "user": user});
        let tokens = self.parts.run("login.mjs", &input).await;
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        LoginTokens { id_token: text("id_token"), refresh_token: text("refresh_token") }
    }

    fn said(&self, name: &str) -> String {
        self.part.said[name].as_str().unwrap().into()
    }
}
