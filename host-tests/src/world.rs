//! The whole world at once: an IdP, both kinds of MCP server, the Resource AS, and an Envoy with the filter between them.

mod beside;
mod config;
mod outside;
mod ports;

use serde_json::Value;

use crate::client_auth::AuthMethod;
use crate::envoy::{Envoy, tail};
use crate::idp::{Address, Connection, Idp};
use crate::journal::Journal;
use crate::keys::{SigningKey, random_text};
use crate::mcp::tickets::Tickets;
use crate::mcp::warehouse::Warehouse;
use crate::oauth_client::{LoginTokens, OauthClient};
use crate::panva::{Panva, PanvaIdp};
use crate::resource_as::ResourceAs;
use crate::server::Place;
use crate::wasm;
pub use beside::Beside;
use ports::HeldPort;

/// The scopes that Tickets knows.
pub const TICKETS_SCOPES: [&str; 2] = ["tickets.read", "tickets.write"];
/// The scopes that Warehouse gets from Jagway.
pub const STOCK_SCOPES: [&str; 2] = ["stock.read", "stock.write"];

/// Environment for Envoy that is made of the world around it.
pub type Environment = Box<dyn FnOnce(&World) -> Vec<(String, String)> + Send>;

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
    /// oidc-provider is the IdP in the place of Acme.
    pub panva: Option<Panva>,
    /// How Jagway proves itself at the IdP.
    pub idp_auth: AuthMethod,
    /// How Jagway proves itself at the Tickets AS.
    pub tickets_as_auth: AuthMethod,
    /// The Tickets AS wants `client_id` in the body even beside HTTP Basic.
    pub client_id_in_body: bool,
    /// Tickets is known by the URL of Envoy's listener, as a server behind a gateway is, and not by its own.
    pub tickets_behind_envoy: bool,
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
    /// As `env`, for what is not known before the world is there.
    pub env_of_world: Option<Environment>,
    /// Change to the bootstrap text, after everything has been filled in.
    pub patch_bootstrap: Option<Box<dyn FnOnce(String) -> String + Send>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 2,
            envoy: true,
            filter: true,
            panva: None,
            idp_auth: AuthMethod::Basic,
            tickets_as_auth: AuthMethod::Basic,
            client_id_in_body: false,
            tickets_behind_envoy: false,
            rs256: false,
            eddsa: false,
            patch_egress: None,
            patch_ingress: None,
            env: vec![],
            env_of_world: None,
            patch_bootstrap: None,
        }
    }
}

/// Everything that runs, with every secret in it. All of it stops when this is dropped.
pub struct World {
    /// What has passed between the parties.
    pub journal: Journal,
    /// Acme. Nobody has heard of it in a world whose IdP is oidc-provider.
    pub idp: Idp,
    /// Where the IdP is found that everybody trusts.
    pub idp_address: Address,
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
    tickets_connection: Connection,
    warehouse_connection: Connection,
    egress: HeldPort,
    ingress: HeldPort,
    bootstrap: String,
    env: Vec<(String, String)>,
    concurrency: u32,
    _panva: Option<PanvaIdp>,
}

impl World {
    /// Starts everything and logs the users in.
    pub async fn start(options: Options) -> Self {
        match Self::try_start(options).await {
            Ok(world) => world,
            Err(log) => panic!("Envoy did not start. The end of its log:\n{}", tail(&log, 30)),
        }
    }

    /// As [`World::start`], but gives the log when Envoy refuses the configuration.
    pub async fn try_start(mut options: Options) -> Result<Self, String> {
        let mut world = Self::without_envoy(&options).await;
        if options.envoy {
            let wasm = match options.filter {
                // Building takes a while and blocks.
                true => Some(tokio::task::spawn_blocking(wasm::filter).await.unwrap()),
                false => None,
            };
            world.env = world.envoy_env(&options.env);
            world.env.extend(options.env_of_world.take().map_or(vec![], |make| make(&world)));
            world.bootstrap = world.bootstrap(wasm.as_deref(), options);
            let env: Vec<_> =
                world.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let started = Envoy::try_start(&world.bootstrap, &env, world.concurrency).await;
            world.envoy = Some(started?);
        }
        Ok(world)
    }

    async fn without_envoy(options: &Options) -> Self {
        let journal = Journal::default();
        let (egress, ingress) = (HeldPort::find(), HeldPort::find());
        let warehouse_key = random_text();

        let app = OauthClient::new("legacy-app", "EMA client", options.idp_auth);
        let jagway_at_tickets =
            OauthClient::new("jagway-at-tickets", "Direct client", options.tickets_as_auth);
        let claude = OauthClient::new("claude", "EMA client", AuthMethod::Basic);

        let (tickets_place, tickets_as_place) = (Place::find(), Place::find());
        let tickets_origin = match options.tickets_behind_envoy {
            true => egress.origin(),
            false => tickets_place.origin(),
        };
        let resource = format!("{tickets_origin}/mcp");
        let to = |audience: String, there: &OauthClient, resource: String, scopes: [&str; 2]| {
            let (client_id, client_id_there) = (app.id.clone(), there.id.clone());
            let (resources, scopes) = (vec![resource], scopes.map(Into::into).into());
            Connection { client_id, audience, client_id_there, resources, scopes }
        };
        let tickets_connection =
            to(tickets_as_place.origin(), &jagway_at_tickets, resource.clone(), TICKETS_SCOPES);
        let warehouse_connection =
            to(ingress.origin(), &claude, format!("{}/mcp", ingress.origin()), STOCK_SCOPES);
        let connections = [&tickets_connection, &warehouse_connection].map(Clone::clone);

        let idp = Idp::start(&journal, options.rs256);
        idp.register(app.registration());
        let (idp_address, panva, alice, ci_bot) = match &options.panva {
            Some(panva) => {
                let panva = panva.start(&app, &connections).await;
                let (alice, ci_bot) = (panva.login("alice").await, panva.login("ci-bot").await);
                (panva.address(), Some(panva), alice, ci_bot)
            }
            None => {
                connections.into_iter().for_each(|connection| idp.connect(connection));
                let (alice, ci_bot) =
                    (log_in(&idp, &app, "alice").await, log_in(&idp, &app, "ci-bot").await);
                (idp.address(), None, alice, ci_bot)
            }
        };

        let tickets_as =
            ResourceAs::start(tickets_as_place, &journal, &resource, &TICKETS_SCOPES, &idp_address);
        tickets_as.demand_client_id_in_body(options.client_id_in_body);
        tickets_as.register(jagway_at_tickets.registration());
        let (issuer, keys) = (tickets_as.issuer(), tickets_as.jwks_uri());
        let tickets = Tickets::start(tickets_place, &tickets_origin, &journal, issuer, &keys);
        let warehouse = Warehouse::start(&journal, &warehouse_key);

        let jagway_key =
            if options.eddsa { SigningKey::eddsa("2026-01") } else { SigningKey::es256("2026-01") };
        Self {
            caller_key: random_text(),
            bootstrap: String::new(),
            env: vec![],
            concurrency: options.concurrency,
            envoy: None,
            journal,
            idp,
            idp_address,
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
            tickets_connection,
            warehouse_connection,
            egress,
            ingress,
            _panva: panva,
        }
    }

    /// What the IdP allows towards Tickets.
    pub fn tickets_connection(&self) -> Connection {
        self.tickets_connection.clone()
    }

    /// What the IdP allows towards Warehouse, that is, towards Jagway as its authorization server.
    pub fn warehouse_connection(&self) -> Connection {
        self.warehouse_connection.clone()
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

async fn log_in(idp: &Idp, app: &OauthClient, user: &str) -> LoginTokens {
    let password = random_text();
    idp.add_user(user, &password);
    app.login(idp.issuer(), user, &password).await
}
