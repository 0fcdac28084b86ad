//! A redis that is asked in JSON over HTTP, as Upstash and its like are: a front of our own before a real redis-server.
//!
//! `POST /` takes one command, `["SET", key, "1", "NX", "PX", "300000"]`, with a bearer token, and gives
//! `{"result": "OK"}`, `{"result": null}` or `{"error": ".."}`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::endpoints::Endpoints;
use crate::journal::Journal;
use crate::keys::random_text;
use crate::redis::Redis;
use crate::server::{Place, Server};

/// All that it may be asked for.
const COMMANDS: [&str; 4] = ["SET", "GET", "PING", "DEL"];

/// The running front.
pub struct Upstash {
    /// Stop it here to see it go down.
    pub server: Server,
    /// The only bearer token it takes.
    pub token: String,
    /// Counters and faults; its path is `/`.
    pub endpoints: Endpoints,
}

struct Front {
    authorization: String,
    redis: PathBuf,
}

impl Upstash {
    /// Starts it before this redis.
    pub fn start(redis: &Redis) -> Self {
        let token = random_text();
        let front = Front { authorization: format!("Bearer {token}"), redis: redis.socket() };
        let router = Router::new().route("/", post(command)).with_state(Arc::new(front));
        let endpoints = Endpoints::new("Upstash", &Journal::default());
        let server = Server::start(Place::find(), endpoints.before(router));
        Self { server, token, endpoints }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }
}

async fn command(State(front): State<Arc<Front>>, headers: HeaderMap, body: Bytes) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if authorization != Some(front.authorization.as_bytes()) {
        return answer(StatusCode::UNAUTHORIZED, json!({"error": "Unauthorized"}));
    }
    let words = match words(&body) {
        Ok(words) => words,
        Err(why) => return answer(StatusCode::BAD_REQUEST, json!({ "error": why })),
    };
    match ask(&front.redis, &words).await {
        Ok(Ok(result)) => answer(StatusCode::OK, json!({ "result": result })),
        Ok(Err(why)) => answer(StatusCode::BAD_REQUEST, json!({ "error": why })),
        Err(down) => answer(StatusCode::BAD_GATEWAY, json!({ "error": down.to_string() })),
    }
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

/// The command's words. Numbers count as their digits, as they do there.
fn words(body: &[u8]) -> Result<Vec<String>, String> {
    let Ok(Value::Array(items)) = serde_json::from_slice(body) else {
        return Err("ERR failed to parse command".into());
    };
    let word = |item: &Value| match item {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let words: Option<Vec<String>> = items.iter().map(word).collect();
    let words = words.ok_or("ERR invalid command")?;
    match words.first() {
        Some(name) if COMMANDS.contains(&name.to_uppercase().as_str()) => Ok(words),
        _ => Err("NOPERM this command is not allowed here".into()),
    }
}

/// One command and its reply in RESP, redis' own protocol; the outer error is that there was none.
async fn ask(socket: &Path, words: &[String]) -> io::Result<Result<Value, String>> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(command.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;

    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(match kind {
        "+" => Ok(json!(rest)),
        "-" => Err(rest.into()),
        ":" => Ok(json!(rest.parse::<i64>().unwrap())),
        "$" if rest == "-1" => Ok(Value::Null),
        "$" => {
            let mut text = vec![0; rest.parse().unwrap()];
            stream.read_exact(&mut text).await?;
            Ok(json!(String::from_utf8_lossy(&text)))
        }
        _ => panic!("redis said {line:?}"),
    })
}
