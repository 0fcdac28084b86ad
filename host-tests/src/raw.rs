//! HTTP/1.1 byte by byte, for what no well-behaved client would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer as it came.
#[derive(Debug)]
pub struct RawAnswer {
    /// The status; 0 if the connection was closed without an answer.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// Everything after the head, chunks not undone.
    pub body: String,
}

impl RawAnswer {
    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        // Envoy may say "go on" before it refuses.
        let text = text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Self { status: status.unwrap_or(0), head: head.into(), body: body.into() }
    }
}

/// A request for `target` at `origin`, as bytes, which closes the connection after the answer. Header values may
/// be any bytes. A body gets its `Content-Length`.
pub fn request(
    method: &str,
    origin: &str,
    target: &[u8],
    headers: &[(&str, &[u8])],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = head(method, origin, target, headers);
    if !body.is_empty() || method == "POST" {
        bytes.extend(format!("content-length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// A request with its body in chunks of `size` bytes and then these trailers.
pub fn chunked(
    origin: &str,
    target: &[u8],
    headers: &[(&str, &[u8])],
    body: &[u8],
    size: usize,
    trailers: &str,
) -> Vec<u8> {
    let mut bytes = head("POST", origin, target, headers);
    bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(format!("0\r\n{trailers}\r\n").bytes());
    bytes
}

/// Opens a connection of its own, sends the bytes and reads the answer to its end.
pub async fn send(origin: &str, bytes: &[u8]) -> RawAnswer {
    let mut stream = connect(origin).await;
    // The other side may answer and close before it has read everything.
    let _ = timeout(PATIENCE, stream.write_all(bytes)).await.expect("the request is taken");
    read(&mut stream).await
}

/// Opens a connection.
pub async fn connect(origin: &str) -> TcpStream {
    TcpStream::connect(origin.trim_start_matches("http://")).await.unwrap()
}

/// Reads an answer until it is complete or the connection is closed.
pub async fn read(stream: &mut TcpStream) -> RawAnswer {
    let mut answer = Vec::new();
    let whole = async {
        // A reset after the answer is as good as an end.
        while !is_complete(&answer) && stream.read_buf(&mut answer).await.is_ok_and(|n| n > 0) {}
    };
    timeout(PATIENCE, whole).await.expect("an answer in time");
    RawAnswer::parse(&answer)
}

/// Waiting for the end of the connection alone would be slow: after an error Envoy lingers for a second.
fn is_complete(bytes: &[u8]) -> bool {
    let answer = RawAnswer::parse(bytes);
    let ended = bytes.windows(4).any(|four| four == b"\r\n\r\n") && answer.status >= 200;
    let length = answer.header("content-length").first().and_then(|length| length.parse().ok());
    ended
        && (answer.status == 204 || length.is_some_and(|length: usize| answer.body.len() >= length))
}

fn head(method: &str, origin: &str, target: &[u8], headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\n"].concat();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        bytes.extend(format!("host: {}\r\n", origin.trim_start_matches("http://")).bytes());
    }
    bytes.extend(b"connection: close\r\n");
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes
}
