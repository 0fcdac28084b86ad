//! The MCP servers of the world, on the official Rust SDK, and the record of every request that reached them.

pub mod tickets;
pub mod warehouse;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use rmcp::ServerHandler;
use rmcp::model::{JsonObject, Tool};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Every header, in order of arrival, with its bytes made readable.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// Whether this text stands anywhere in the request's target or headers: for proving that a secret did not travel.
    pub fn mentions(&self, text: &str) -> bool {
        self.target.contains(text) || self.headers.iter().any(|(_, value)| value.contains(text))
    }

    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

/// Every request that reached a server, refused ones included.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Recorder {
    /// All requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The router with this recorder before it.
    fn before(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), record))
    }
}

async fn record(State(recorder): State<Recorder>, request: Request, next: Next) -> Response {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
        .collect();
    let seen =
        Seen { method: request.method().to_string(), target: request.uri().to_string(), headers };
    recorder.0.lock().unwrap().push(seen);
    next.run(request).await
}

/// A handler of the SDK as a service at `/mcp`.
fn service<H: ServerHandler + Clone>(handler: H) -> StreamableHttpService<H, LocalSessionManager> {
    let config = StreamableHttpServerConfig::default();
    StreamableHttpService::new(
        move || Ok(handler.clone()),
        Arc::new(LocalSessionManager::default()),
        config,
    )
}

/// The HTTP request behind an MCP request.
fn http_request(context: &RequestContext<RoleServer>) -> &Parts {
    context.extensions.get::<Parts>().unwrap()
}

fn tool(name: &'static str, description: &'static str, properties: Value) -> Tool {
    let schema = json!({"type": "object", "properties": properties});
    let schema: JsonObject = serde_json::from_value(schema).unwrap();
    Tool::new(name, description, Arc::new(schema))
}
