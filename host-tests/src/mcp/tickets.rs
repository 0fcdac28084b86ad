//! Tickets: an MCP server that opens to access tokens of its own AS only (RFC 9728, RFC 9068).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rmcp::ErrorData;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};

use super::{Recorder, http_request, service, tool};
use crate::journal::{Journal, Kind, Token, sender};
use crate::jwks::KeySource;
use crate::names::TYP_ACCESS_TOKEN;
use crate::server::{Place, Server};

/// The running server.
pub struct Tickets {
    /// Stop it here to see it go down.
    pub server: Server,
    /// What reached it.
    pub recorder: Recorder,
    /// Its resource identifier.
    pub resource: String,
}

struct Door {
    resource: String,
    metadata_url: String,
    as_issuer: String,
    keys: KeySource,
    journal: Journal,
}

/// What the door found in the token, handed to the tools.
#[derive(Clone)]
struct Caller(Value, Token);

impl Tickets {
    /// Starts it at `place`, known to the world at `origin`, opening to tokens of this AS.
    pub fn start(
        place: Place,
        origin: &str,
        journal: &Journal,
        as_issuer: &str,
        as_jwks_uri: &str,
    ) -> Self {
        let (resource, recorder) = (format!("{origin}/mcp"), Recorder::default());
        let door = Arc::new(Door {
            metadata_url: format!("{origin}/.well-known/oauth-protected-resource/mcp"),
            resource: resource.clone(),
            as_issuer: as_issuer.into(),
            keys: KeySource::new(as_jwks_uri, "Tickets MCP"),
            journal: journal.clone(),
        });
        let mcp =
            Router::new().route_service("/mcp", service(Handler { journal: journal.clone() }));
        let router = mcp
            .layer(from_fn_with_state(door.clone(), guard))
            .route("/.well-known/oauth-protected-resource/mcp", get(metadata))
            .with_state(door);
        Self { server: Server::start(place, recorder.before(router)), recorder, resource }
    }
}

async fn metadata(State(door): State<Arc<Door>>, headers: HeaderMap) -> Json<Value> {
    door.journal.record(&sender(&headers), "Tickets MCP", "GET protected resource metadata", None);
    Json(json!({
        "resource": door.resource,
        "authorization_servers": [door.as_issuer],
        "scopes_supported": ["tickets.read", "tickets.write"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Tickets",
    }))
}

async fn guard(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")),
        _ => None,
    };
    let Some(token) = token else { return door.refuse(request.headers(), "") };

    match door.keys.verify(token, TYP_ACCESS_TOKEN, &door.as_issuer, &door.resource).await {
        Ok(claims) => {
            let caller = Caller(claims, Token::new(Kind::AccessToken, token));
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(_) => door.refuse(request.headers(), r#"error="invalid_token", "#),
    }
}

impl Door {
    /// RFC 6750 §3.1: no `error` when no credential was sent.
    fn refuse(&self, headers: &HeaderMap, error: &str) -> Response {
        self.journal.record(
            "Tickets MCP",
            &sender(headers),
            "401: an access token of the Tickets AS is needed",
            None,
        );
        let challenge = format!(
            r#"Bearer {error}resource_metadata="{}", scope="tickets.read""#,
            self.metadata_url
        );
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }
}

#[derive(Clone)]
struct Handler {
    journal: Journal,
}

impl Handler {
    fn record(&self, context: &RequestContext<RoleServer>, what: String) -> Caller {
        let parts = http_request(context);
        let caller = parts.extensions.get::<Caller>().unwrap().clone();
        self.journal.record(&sender(&parts.headers), "Tickets MCP", what, Some(caller.1.clone()));
        caller
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.record(&context, "tools/list".into());
        Ok(ListToolsResult::with_all_items(vec![tool(
            "list_tickets",
            "The open tickets of the caller.",
            json!({}),
        )]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Caller(claims, _) = self.record(&context, format!("tools/call {}", request.name));
        if request.name != "list_tickets" {
            return Err(ErrorData::invalid_params("no such tool", None));
        }
        let tickets = json!({
            "caller": claims["sub"],
            "client": claims["client_id"],
            "scope": claims["scope"],
            "tickets": [{"id": 7, "title": "The kettle is cold"}],
        });
        Ok(CallToolResult::structured(tickets).into())
    }
}
