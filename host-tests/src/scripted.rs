//! An upstream server that answers byte for byte as a test says, each request on its own: for what no framework sends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::upstream::Received;

/// What a server says to one request.
pub enum Say {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, and then the end of the connection.
    Close(Vec<u8>),
    /// These bytes, and then nothing more.
    Hang(Vec<u8>),
    /// These bytes, and then a chunk with them again, for ever.
    Drip(Vec<u8>, &'static str),
}

impl Say {
    /// An answer of this status, with these header lines and a body of known length.
    pub fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        Self::Bytes(answer(status, headers, body.as_ref()))
    }
}

/// An answer as bytes.
pub fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

type Script = dyn Fn(usize, &Received) -> Say + Send + Sync;

/// The running server; it stops when dropped.
pub struct Scripted {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<Mutex<Arc<Script>>>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Starts it in the runtime of the test; it answers 200.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let script = Arc::new(Mutex::new(ok()));
        let (into, by) = (Arc::clone(&received), Arc::clone(&script));
        let task = tokio::spawn(async move {
            // All connections end with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, into.clone(), by.clone()));
            }
        });
        Self { port, received, script, task }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How it answers from now on. The script is given how many requests were there before since now.
    pub fn says(&self, script: impl Fn(usize, &Received) -> Say + Send + Sync + 'static) {
        let before = self.count();
        let script = move |number: usize, received: &Received| script(number - before, received);
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// The last two requests.
    pub fn last_two(&self) -> [Received; 2] {
        let mut all = self.received();
        let last = all.pop().expect("a request has arrived");
        [all.pop().expect("two requests have arrived"), last]
    }

    /// Listens no longer, and drops every connection.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop();
    }
}

fn ok() -> Arc<Script> {
    Arc::new(|_, _| Say::answer(200, "", "ok"))
}

async fn serve(
    mut stream: TcpStream,
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<Mutex<Arc<Script>>>,
) {
    let mut bytes = Vec::new();
    while let Some(request) = read(&mut stream, &mut bytes).await {
        let say = {
            let script = script.lock().unwrap().clone();
            let mut received = received.lock().unwrap();
            received.push(request.clone());
            script(received.len() - 1, &request)
        };
        let (Say::Bytes(first) | Say::Close(first) | Say::Hang(first) | Say::Drip(first, _)) = &say;
        if stream.write_all(first).await.is_err() {
            return;
        }
        match say {
            Say::Bytes(_) => {}
            Say::Close(_) => return,
            Say::Hang(_) => {
                while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {}
                return;
            }
            Say::Drip(_, more) => {
                let chunk = format!("{:x}\r\n{more}\r\n", more.len());
                while stream.write_all(chunk.as_bytes()).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return;
            }
        }
    }
}

/// The next request, which Envoy has made: its form can be relied on.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Received> {
    let end = take_until(stream, bytes, b"\r\n\r\n").await?;
    let head = String::from_utf8_lossy(&end).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = HeaderValue::from_str(value.trim()).unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some() {
        loop {
            let size = take_until(stream, bytes, b"\r\n").await?;
            let size = std::str::from_utf8(&size).ok()?.trim();
            let size = usize::from_str_radix(size, 16).ok()?;
            if size == 0 {
                while take_until(stream, bytes, b"\r\n").await? != b"\r\n" {}
                break;
            }
            body.extend(take(stream, bytes, size).await?);
            take(stream, bytes, 2).await?;
        }
    } else if let Some(length) = headers.get("content-length") {
        body = take(stream, bytes, length.to_str().ok()?.parse().ok()?).await?;
    }
    Some(Received { method, target, headers, body: body.into() })
}

async fn take(stream: &mut TcpStream, bytes: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while bytes.len() < count {
        stream.read_buf(bytes).await.ok().filter(|count| *count > 0)?;
    }
    Some(bytes.drain(..count).collect())
}

async fn take_until(stream: &mut TcpStream, bytes: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = bytes.windows(end.len()).position(|part| part == end) {
            return take(stream, bytes, at + end.len()).await;
        }
        stream.read_buf(bytes).await.ok().filter(|count| *count > 0)?;
    }
}
