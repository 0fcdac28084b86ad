//! The whole world at once: an IdP, both kinds of MCP server, the Resource AS, and an Envoy with the filter between them.

mod config;
mod outside;
mod ports;

use serde_json::Value;

use crate::client_auth::AuthMethod;
use crate::envoy::Envoy;
use crate::idp::{Connection, Idp};
use crate::journal::Journal;
use crate::keys::{SigningKey, random_text};
use crate::mcp::tickets::Tickets;
use crate::mcp::warehouse::Warehouse;
use crate::oauth_client::{LoginTokens, OauthClient};
use crate::resource_as::ResourceAs;
use crate::server::Place;
use crate::wasm;
use ports::HeldPort;

/// The scopes that Tickets knows.
pub const TICKETS_SCOPES: [&str; 2] = ["tickets.read", "tickets.write"];
/// The scopes that Warehouse gets from Jagway.
pub const STOCK_SCOPES: [&str; 2] = ["stock.read", "stock.write"];

/// A change to a plugin configuration before Envoy reads it.
pub type Patch = Box<dyn FnOnce(&mut Value) + Send>;

/// What a test can ask for.
pub struct Options {
    /// Worker threads of Envoy.
    pub concurrency: u32,
    /// Whether Envoy is part of this world.
    pub envoy: bool,
    /// Whether Envoy has the filter; without it, it only passes things on and nothing need be built.
    pub filter: bool,
    /// How Jagway proves itself at the IdP.
    pub idp_auth: AuthMethod,
    /// How Jagway proves itself at the Tickets AS.
    pub tickets_as_auth: AuthMethod,
    /// The Tickets AS wants `client_id` in the body even beside HTTP Basic.
    pub client_id_in_body: bool,
    /// The IdP publishes an RS256 key too (slow to make).
    pub rs256: bool,
    /// Jagway signs its own tokens with Ed25519 rather than ES256.
    pub eddsa: bool,
    /// Change to the upgrade configuration.
    pub patch_egress: Option<Patch>,
    /// Change to the accept configuration.
    pub patch_ingress: Option<Patch>,
    /// More environment for Envoy; the names must be added to `host_env_keys` by `patch_bootstrap`.
    pub env: Vec<(String, String)>,
    /// Change to the bootstrap text, after everything has been filled in.
    pub patch_bootstrap: Option<Box<dyn FnOnce(String) -> String + Send>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 2,
            envoy: true,
            filter: true,
            idp_auth: AuthMethod::Basic,
            tickets_as_auth: AuthMethod::Basic,
            client_id_in_body: false,
            rs256: false,
            eddsa: false,
            patch_egress: None,
            patch_ingress: None,
            env: vec![],
            patch_bootstrap: None,
        }
    }
}

/// Everything that runs, with every secret in it. All of it stops when this is dropped.
pub struct World {
    /// What has passed between the parties.
    pub journal: Journal,
    /// The IdP.
    pub idp: Idp,
    /// The authorization server of Tickets.
    pub tickets_as: ResourceAs,
    /// The MCP server that takes EMA tokens only.
    pub tickets: Tickets,
    /// The MCP server that knows an API key only.
    pub warehouse: Warehouse,
    /// Envoy with the filter, unless left out.
    pub envoy: Option<Envoy>,
    /// The legacy application at the IdP: its ID tokens are upgraded, and it is Jagway's own registration there.
    pub app: OauthClient,
    /// Jagway at the Tickets AS.
    pub jagway_at_tickets: OauthClient,
    /// The EMA client at Jagway.
    pub claude: OauthClient,
    /// Alice's login at the legacy application.
    pub alice: LoginTokens,
    /// The login of the user to whom the API key is bound.
    pub ci_bot: LoginTokens,
    /// The API key of legacy callers of Tickets.
    pub caller_key: String,
    /// The API key that Warehouse knows.
    pub warehouse_key: String,
    /// The key with which Jagway signs its own tokens.
    pub jagway_key: SigningKey,
    egress: HeldPort,
    ingress: HeldPort,
    bootstrap: String,
}

impl World {
    /// Starts everything and logs the users in.
    pub async fn start(options: Options) -> Self {
        let mut world = Self::without_envoy(&options).await;
        if options.envoy {
            let wasm = match options.filter {
                // Building takes a while and blocks.
                true => Some(tokio::task::spawn_blocking(wasm::filter).await.unwrap()),
                false => None,
            };
            let concurrency = options.concurrency;
            let env = world.envoy_env(&options.env);
            world.bootstrap = world.bootstrap(wasm.as_deref(), options);
            let env: Vec<_> =
                env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            world.envoy = Some(Envoy::start(&world.bootstrap, &env, concurrency).await);
        }
        world
    }

    async fn without_envoy(options: &Options) -> Self {
        let journal = Journal::default();
        let (egress, ingress) = (HeldPort::find(), HeldPort::find());
        let warehouse_key = random_text();

        let idp = Idp::start(&journal, options.rs256);
        let tickets_place = Place::find();
        let resource = format!("{}/mcp", tickets_place.origin());
        let tickets_as =
            ResourceAs::start(&journal, &resource, &TICKETS_SCOPES, idp.issuer(), &idp.jwks_uri());
        tickets_as.demand_client_id_in_body(options.client_id_in_body);
        let tickets =
            Tickets::start(tickets_place, &journal, tickets_as.issuer(), &tickets_as.jwks_uri());
        let warehouse = Warehouse::start(&journal, &warehouse_key);

        let app = OauthClient::new("legacy-app", "EMA client", options.idp_auth);
        idp.register(app.registration());
        let jagway_at_tickets =
            OauthClient::new("jagway-at-tickets", "Direct client", options.tickets_as_auth);
        tickets_as.register(jagway_at_tickets.registration());
        let claude = OauthClient::new("claude", "EMA client", AuthMethod::Basic);

        let alices_password = random_text();
        let bots_password = random_text();
        idp.add_user("alice", &alices_password);
        idp.add_user("ci-bot", &bots_password);
        let alice = app.login(idp.issuer(), "alice", &alices_password).await;
        let ci_bot = app.login(idp.issuer(), "ci-bot", &bots_password).await;

        let jagway_key =
            if options.eddsa { SigningKey::eddsa("2026-01") } else { SigningKey::es256("2026-01") };
        let world = Self {
            caller_key: random_text(),
            bootstrap: String::new(),
            envoy: None,
            journal,
            idp,
            tickets_as,
            tickets,
            warehouse,
            app,
            jagway_at_tickets,
            claude,
            alice,
            ci_bot,
            warehouse_key,
            jagway_key,
            egress,
            ingress,
        };
        world.idp.connect(world.tickets_connection());
        world.idp.connect(world.warehouse_connection());
        world
    }

    /// What the IdP allows towards Tickets.
    pub fn tickets_connection(&self) -> Connection {
        self.connection(
            self.tickets_as.issuer(),
            &self.jagway_at_tickets,
            &self.tickets.resource,
            TICKETS_SCOPES,
        )
    }

    /// What the IdP allows towards Warehouse, that is, towards Jagway as its authorization server.
    pub fn warehouse_connection(&self) -> Connection {
        self.connection(&self.accept_issuer(), &self.claude, &self.accept_url(), STOCK_SCOPES)
    }

    fn connection(
        &self,
        audience: &str,
        there: &OauthClient,
        resource: &str,
        scopes: [&str; 2],
    ) -> Connection {
        Connection {
            client_id: self.app.id.clone(),
            audience: audience.into(),
            client_id_there: there.id.clone(),
            resources: vec![resource.into()],
            scopes: scopes.map(Into::into).into(),
        }
    }

    /// Where legacy clients reach Tickets through Envoy.
    pub fn upgrade_url(&self) -> String {
        format!("{}/mcp", self.egress.origin())
    }

    /// Where EMA clients reach Warehouse through Envoy; the resource identifier as well.
    pub fn accept_url(&self) -> String {
        format!("{}/mcp", self.ingress.origin())
    }

    /// Jagway's own issuer identifier.
    pub fn accept_issuer(&self) -> String {
        self.ingress.origin()
    }

    /// Jagway's token endpoint.
    pub fn accept_token_endpoint(&self) -> String {
        format!("{}/token", self.ingress.origin())
    }

    /// The bootstrap that Envoy was started with.
    pub fn bootstrap_text(&self) -> &str {
        &self.bootstrap
    }
}
