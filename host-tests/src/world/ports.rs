//! A port that Envoy will listen on, kept from everybody else until it does and after.

use tokio::net::TcpSocket;

/// A socket bound but never listening.
///
/// Envoy's listeners set SO_REUSEPORT, and so does this one: Envoy can bind beside it, while nobody who asks for
/// any free port is given this one. Bind-and-release would let two Envoys share a port without either noticing.
pub struct HeldPort(TcpSocket);

impl HeldPort {
    /// Finds a free port.
    pub fn find() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// The origin that will be served there.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.number())
    }
}
