//! A small MCP client over streamable HTTP: settable headers, and every answer visible to the test.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::journal::{Journal, Token};
use crate::jwks::http_client;

/// The version of the protocol that this client speaks.
const PROTOCOL: &str = "2025-06-18";

/// A client with its session.
pub struct McpClient {
    url: String,
    http: reqwest::Client,
    headers: HeaderMap,
    session: Option<HeaderValue>,
    next_id: u64,
    diary: Option<Diary>,
}

/// How the client's own requests are put in the journal.
struct Diary {
    journal: Journal,
    from: String,
    to: String,
    token: Option<Token>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as far as the answer to our request went.
    pub body: String,
}

/// Why there is no result.
#[derive(Debug)]
pub enum McpError {
    /// Refused over HTTP.
    Http(Answer),
    /// Refused in JSON-RPC.
    Rpc(Value),
}

impl McpClient {
    /// A client for this URL, called `name` in the journal.
    pub fn new(url: &str, name: &str) -> Self {
        Self {
            url: url.into(),
            http: http_client(name),
            headers: HeaderMap::new(),
            session: None,
            next_id: 0,
            diary: None,
        }
    }

    /// Sends this header with every request from now on, in place of another of that name.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
        self
    }

    /// Sends a bearer token with every request.
    pub fn with_bearer(self, token: &str) -> Self {
        self.with_header("authorization", &format!("Bearer {token}"))
    }

    /// Writes each request in the journal, as sent by `from` to `to` with this credential.
    pub fn with_journal(
        mut self,
        journal: &Journal,
        from: &str,
        to: &str,
        token: Option<Token>,
    ) -> Self {
        self.diary =
            Some(Diary { journal: journal.clone(), from: from.into(), to: to.into(), token });
        self
    }

    /// The handshake: `initialize` and `notifications/initialized`.
    pub async fn initialize(&mut self) -> Result<Value, McpError> {
        let params = json!({"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "host-tests", "version": "0"}});
        let result = self.request("initialize", params).await?;
        let answer =
            self.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        if !answer.status.is_success() {
            return Err(McpError::Http(answer));
        }
        Ok(result)
    }

    /// The names of the tools.
    pub async fn tools(&mut self) -> Result<Vec<String>, McpError> {
        let result = self.request("tools/list", json!({})).await?;
        let tools = result["tools"].as_array().unwrap();
        Ok(tools.iter().map(|tool| tool["name"].as_str().unwrap().into()).collect())
    }

    /// Calls a tool; gives its structured content if there is some, else the whole result.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value, McpError> {
        let result =
            self.request("tools/call", json!({"name": tool, "arguments": arguments})).await?;
        Ok(result.get("structuredContent").cloned().unwrap_or(result))
    }

    /// Any request.
    pub async fn request(&mut self, method: &str, params: Value) -> Result<Value, McpError> {
        self.next_id += 1;
        let answer = self
            .post(
                &json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}),
            )
            .await;
        if !answer.status.is_success() {
            return Err(McpError::Http(answer));
        }
        if method == "initialize" {
            self.session = answer.headers.get("mcp-session-id").cloned();
        }
        let mut message: Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("not JSON: {answer:?}"));
        match message.get("error") {
            Some(error) => Err(McpError::Rpc(error.clone())),
            None => Ok(message["result"].take()),
        }
    }

    /// Posts one message and gives the answer, taken out of its event stream if it came in one.
    pub async fn post(&self, message: &Value) -> Answer {
        if let Some(diary) = &self.diary {
            let method = message["method"].as_str().unwrap_or("a message");
            diary.journal.record(&diary.from, &diary.to, method, diary.token.clone());
        }
        let mut request = self.http.post(&self.url).headers(self.headers.clone()).json(message);
        request = request.header("accept", "application/json, text/event-stream");
        // Only known after the handshake.
        if let Some(session) = &self.session {
            request =
                request.header("mcp-session-id", session).header("mcp-protocol-version", PROTOCOL);
        }
        let mut response = request.send().await.unwrap();

        let (status, headers) = (response.status(), response.headers().clone());
        let kind =
            headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let body = if kind.starts_with("text/event-stream") {
            event_with_id(&mut response, &message["id"]).await
        } else {
            response.text().await.unwrap()
        };
        Answer { status, headers, body }
    }
}

/// Reads events until the one that answers: a server may send others before it and may keep the stream open after.
async fn event_with_id(response: &mut reqwest::Response, id: &Value) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
        let complete = String::from_utf8_lossy(&text);
        for line in complete.lines() {
            let data = line.strip_prefix("data:").unwrap_or_default();
            let message: Option<Value> = serde_json::from_str(data).ok();
            if message.is_some_and(|message| message["id"] == *id) {
                return data.trim().into();
            }
        }
    }
    String::from_utf8(text).unwrap()
}
