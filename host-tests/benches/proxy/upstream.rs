//! What is behind the contenders: an MCP server that looks at the credential of every request, and says one thing.

use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::wire;

/// A server in this thread.
pub struct Server {
    /// Its port on this machine.
    pub port: u16,
}

/// Writes the answer to a request of this head and body.
type Answer = dyn Fn(&[u8], &[u8], &mut Vec<u8>);

impl Server {
    /// Starts it.
    pub fn start(answer: impl Fn(&[u8], &[u8], &mut Vec<u8>) + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        let answer: Rc<Answer> = Rc::new(answer);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(serve(stream, answer.clone()));
            }
        });
        Self { port }
    }

    /// An MCP server that says `answer` to a request with the right credential, and to no other.
    pub fn mcp(answer: &[u8], right: Credential) -> Self {
        let (good, bad) = (response(200, answer), response(418, b"\"not this credential\""));
        Self::start(move |head, _, out| {
            out.extend_from_slice(if right.is_in(head) { &good } else { &bad });
        })
    }
}

/// What must have become of the credential when a request arrives.
pub enum Credential {
    /// It is there as the client sent it.
    Untouched,
    /// It is gone.
    Removed,
    /// This header line stands in its place. No other `Authorization` or `x-api-key` is there.
    Swapped(String),
}

impl Credential {
    fn is_in(&self, head: &[u8]) -> bool {
        let is_credential = |line: &&[u8]| {
            ["authorization:", "x-api-key:"].iter().any(|name| wire::value(line, name).is_some())
        };
        let mut found = wire::lines(head).filter(is_credential);
        let (first, second) = (found.next(), found.next());
        match self {
            Self::Untouched => first.is_some(),
            Self::Removed => first.is_none(),
            Self::Swapped(line) => first == Some(line.as_bytes()) && second.is_none(),
        }
    }
}

/// An answer with a JSON body.
pub fn response(status: u16, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\ncache-control: max-age=86400\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

async fn serve(mut stream: TcpStream, answer: Rc<Answer>) {
    let _ = stream.set_nodelay(true);
    let (mut request, mut out) = (Vec::new(), Vec::new());
    loop {
        out.clear();
        match wire::read(&mut stream, &mut request).await {
            Ok(None) => return,
            Ok(Some(part)) => {
                answer(&request[..part.head], &request[part.head..part.end], &mut out);
            }
            Err(error) => {
                out = response(400, format!("\"upstream: {error}\"").as_bytes());
            }
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
    }
}
