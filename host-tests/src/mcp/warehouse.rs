//! Warehouse: a legacy MCP server that knows one API key and nothing of OAuth.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
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
use crate::server::{Place, Server};

/// The running server.
pub struct Warehouse {
    /// Stop it here to see it go down.
    pub server: Server,
    /// What reached it.
    pub recorder: Recorder,
    /// Its URL.
    pub url: String,
}

impl Warehouse {
    /// Starts it with the only key it knows, expected in `x-api-key`.
    pub fn start(journal: &Journal, api_key: &str) -> Self {
        let (place, recorder) = (Place::find(), Recorder::default());
        let url = format!("{}/mcp", place.origin());
        let handler = Handler { journal: journal.clone() };
        let router = Router::new().route_service("/mcp", service(handler)).layer(
            from_fn_with_state(Door { api_key: api_key.into(), journal: journal.clone() }, guard),
        );
        Self { server: Server::start(place, recorder.before(router)), recorder, url }
    }
}

#[derive(Clone)]
struct Door {
    api_key: String,
    journal: Journal,
}

async fn guard(State(door): State<Door>, request: Request, next: Next) -> Response {
    let mut keys = request.headers().get_all("x-api-key").iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if key.as_bytes() == door.api_key.as_bytes() => next.run(request).await,
        _ => {
            door.journal.record(
                "Warehouse MCP",
                &sender(request.headers()),
                "401: an API key is needed",
                None,
            );
            StatusCode::UNAUTHORIZED.into_response()
        }
    }
}

#[derive(Clone)]
struct Handler {
    journal: Journal,
}

impl Handler {
    fn record(&self, context: &RequestContext<RoleServer>, what: String) {
        let headers = &http_request(context).headers;
        let key = headers.get("x-api-key").and_then(|key| key.to_str().ok());
        let token = key.map(|key| Token::new(Kind::ApiKey, key));
        self.journal.record(&sender(headers), "Warehouse MCP", what, token);
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
        Ok(ListToolsResult::with_all_items(vec![
            tool("stock_list", "What lies in the warehouse.", json!({})),
            tool("echo", "Gives its arguments back.", json!({"text": {"type": "string"}})),
        ]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.record(&context, format!("tools/call {}", request.name));
        let result = match request.name.as_ref() {
            "stock_list" => json!({"kettles": 12, "teapots": 3}),
            "echo" => Value::Object(request.arguments.unwrap_or_default()),
            _ => return Err(ErrorData::invalid_params("no such tool", None)),
        };
        Ok(CallToolResult::structured(result).into())
    }
}
