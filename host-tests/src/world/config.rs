//! The two plugin configurations, and the bootstrap that they are put into.

use std::path::Path;

use serde_json::{Value, json};

use super::{Options, STOCK_SCOPES, TICKETS_SCOPES, World};
use crate::client_auth::AuthMethod;
use crate::keys::sha256_hex;
use crate::oauth_client::OauthClient;

const BOOTSTRAP: &str = include_str!("../../../envoy/demo.yaml");

impl World {
    pub(super) fn bootstrap(&self, wasm: Option<&Path>, options: Options) -> String {
        let (mut egress, mut ingress) = (self.egress_config(), self.ingress_config());
        if let Some(patch) = options.patch_egress {
            patch(&mut egress);
        }
        if let Some(patch) = options.patch_ingress {
            patch(&mut ingress);
        }
        let port = |origin: &str| origin.rsplit(':').next().unwrap().to_owned();
        let values = [
            ("EGRESS_PORT", self.egress.number().to_string()),
            ("INGRESS_PORT", self.ingress.number().to_string()),
            ("IDP_PORT", port(&self.idp_address.issuer)),
            ("TICKETS_AS_PORT", port(self.tickets_as.issuer())),
            ("TICKETS_PORT", self.tickets.server.address().port().to_string()),
            ("WAREHOUSE_PORT", self.warehouse.server.address().port().to_string()),
            ("WASM", wasm.unwrap_or(Path::new("")).display().to_string()),
            ("EGRESS_CONFIG", indented(&egress)),
            ("INGRESS_CONFIG", indented(&ingress)),
        ];
        let fill = |text: String, (name, value): &(&str, String)| {
            text.replace(&format!("${{{name}}}"), value)
        };
        let template =
            if wasm.is_some() { BOOTSTRAP.to_owned() } else { without_filter(BOOTSTRAP) };
        let text = values.iter().fold(template, fill);
        match options.patch_bootstrap {
            Some(patch) => patch(text),
            None => text,
        }
    }

    /// The secrets reach the filter's VM through Envoy's environment, never through the configuration.
    pub(super) fn envoy_env(&self, more: &[(String, String)]) -> Vec<(String, String)> {
        let pem = |client: &OauthClient| client.key.as_ref().map(|key| key.pem());
        let all = [
            ("IDP_CLIENT_SECRET", Some(self.app.secret.clone())),
            ("IDP_CLIENT_KEY", pem(&self.app)),
            ("TICKETS_AS_SECRET", Some(self.jagway_at_tickets.secret.clone())),
            ("TICKETS_AS_KEY", pem(&self.jagway_at_tickets)),
            ("CI_BOT_REFRESH", Some(self.ci_bot.refresh_token.clone())),
            ("SIGNING_KEY", Some(self.jagway_key.pem())),
            ("WAREHOUSE_KEY", Some(self.warehouse_key.clone())),
        ];
        let set = all.into_iter().filter_map(|(name, value)| Some((name.into(), value?)));
        set.filter(|(_, value)| !value.is_empty()).chain(more.iter().cloned()).collect()
    }

    fn egress_config(&self) -> Value {
        let at_idp = client_config(&self.app, "IDP_CLIENT_SECRET", "IDP_CLIENT_KEY");
        let at_tickets =
            client_config(&self.jagway_at_tickets, "TICKETS_AS_SECRET", "TICKETS_AS_KEY");
        json!({
            "allow_insecure_http": true,
            "identity_providers": {"acme": {"issuer": self.idp_address.issuer, "cluster": "idp", "client": at_idp}},
            "resources": [{
                "resource": self.tickets.resource,
                "upgrade": {
                    "url": self.upgrade_url(),
                    "identity_provider": "acme",
                    "authorization_server": {"issuer": self.tickets_as.issuer(), "cluster": "tickets_as", "client": at_tickets},
                    "scopes": TICKETS_SCOPES,
                    "callers": [
                        {"id_token": {}},
                        {
                            "api_key": {"header": "x-api-key", "sha256": sha256_hex(&self.caller_key)},
                            "subject": {"refresh_token": {"env": "CI_BOT_REFRESH"}},
                        },
                    ],
                },
            }],
        })
    }

    fn ingress_config(&self) -> Value {
        json!({
            "allow_insecure_http": true,
            "identity_providers": {"acme": {"issuer": self.idp_address.issuer, "cluster": "idp"}},
            "authorization_server": {
                "issuer": self.accept_issuer(),
                "signing_keys": [{"key": {"env": "SIGNING_KEY"}, "kid": self.jagway_key.kid()}],
                "access_token_lifetime": 300,
                "compat_authorization_endpoint": true,
                "clients": {
                    self.claude.id.as_str(): {"secret_sha256": sha256_hex(&self.claude.secret), "identity_providers": ["acme"]},
                },
            },
            "resources": [{
                "resource": self.accept_url(),
                "accept": {
                    "name": "Warehouse",
                    "scopes": STOCK_SCOPES,
                    "credential": {"header": "x-api-key", "value": {"env": "WAREHOUSE_KEY"}},
                },
            }],
        })
    }
}

fn client_config(client: &OauthClient, secret: &str, key: &str) -> Value {
    match (client.method, &client.key) {
        (AuthMethod::PrivateKeyJwt, Some(signing_key)) => {
            let proof =
                json!({"key": {"env": key}, "kid": signing_key.kid(), "audience": "issuer"});
            json!({"id": client.id, "private_key_jwt": proof})
        }
        _ => json!({"id": client.id, "secret": {"env": secret}}),
    }
}

/// Readable where Envoy shows it, and deep enough for YAML to take it as one value.
fn indented(config: &Value) -> String {
    serde_json::to_string_pretty(config).unwrap().replace('\n', &format!("\n{}", " ".repeat(20)))
}

/// Drops every HTTP filter but the router.
fn without_filter(template: &str) -> String {
    let mut dropping = false;
    let kept = template.lines().filter(|line| {
        match line.trim() {
            "- name: jagway" => dropping = true,
            "- name: router" => dropping = false,
            _ => {}
        }
        !dropping
    });
    kept.collect::<Vec<_>>().join("\n")
}
