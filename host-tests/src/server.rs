//! An HTTP server on a free loopback port, in a runtime of its own, that counts the bytes it receives.
//!
//! Its own runtime, so that stopping it closes every open connection too: that is what "the IdP is down" means.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A running server; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    router: Router,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    received: AtomicU64,
    /// How much of an answer is sent before the connection is closed.
    cut: AtomicUsize,
}

/// A free port, held by an open listener until the server takes it over.
pub struct Place(std::net::TcpListener);

impl Place {
    /// Finds a free port.
    pub fn find() -> Self {
        Self(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// The origin that will be served there, without a slash.
    pub fn origin(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }
}

impl Server {
    /// Serves the router at the place found before.
    pub fn start(place: Place, router: Router) -> Self {
        let address = place.0.local_addr().unwrap();
        let shared = Shared { received: AtomicU64::new(0), cut: AtomicUsize::new(usize::MAX) };
        let mut server = Self { address, router, shared: Arc::new(shared), runtime: None };
        server.serve(place.0);
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes have ever arrived, over all connections.
    pub fn bytes_received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// From now on it closes each connection after so many bytes of an answer; `None`: it is well again.
    pub fn cut_answers(&self, after: Option<usize>) {
        self.shared.cut.store(after.unwrap_or(usize::MAX), Ordering::SeqCst);
    }

    /// Stops listening and drops every connection.
    pub fn stop(&mut self) {
        // Not a plain drop: that blocks, which an async caller must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Listens again at the same address.
    pub fn restart(&mut self) {
        self.stop();
        // The old runtime lets go of the port a moment after it is told to.
        for _ in 0..100 {
            match std::net::TcpListener::bind(self.address) {
                Ok(listener) => return self.serve(listener),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        }
        panic!("{} is still taken", self.address);
    }

    fn serve(&mut self, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (router, shared) = (self.router.clone(), self.shared.clone());
        runtime.spawn(async move {
            let listener = Counting { listener: TcpListener::from_std(listener).unwrap(), shared };
            axum::serve(listener, router).await
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Counting {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl axum::serve::Listener for Counting {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        (Counted { stream, shared: self.shared.clone(), is_cut: false }, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Counted {
    stream: TcpStream,
    shared: Arc<Shared>,
    is_cut: bool,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = (buffer.filled().len() - before) as u64;
        self.shared.received.fetch_add(count, Ordering::SeqCst);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.is_cut {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let cut = self.shared.cut.load(Ordering::SeqCst);
        self.is_cut = cut < bytes.len();
        Pin::new(&mut self.stream).poll_write(cx, &bytes[..bytes.len().min(cut)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
