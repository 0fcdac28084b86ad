//! A second Envoy of the same world: another process, the same plugin configurations, the same secrets.

use super::World;
use super::ports::HeldPort;
use crate::envoy::Envoy;

/// An Envoy that shares nothing with the world's first one but what both are told.
pub struct Beside {
    /// The process.
    pub envoy: Envoy,
    ingress: HeldPort,
    egress: HeldPort,
}

impl Beside {
    /// Where its ingress listener is. It stands for the first one's origin: requests carry that one's `Host`, as
    /// those of [`http_client_through`](crate::through::http_client_through) do.
    pub fn origin(&self) -> String {
        self.ingress.origin()
    }

    /// Where its egress listener is. It stands for the first one's in the same way.
    pub fn egress_origin(&self) -> String {
        self.egress.origin()
    }
}

impl World {
    /// Starts another Envoy with the bootstrap of the first, patches included, on ports of its own.
    pub async fn start_beside(&self) -> Beside {
        let (egress, ingress) = (HeldPort::find(), HeldPort::find());
        let moved = |text: String, from: &HeldPort, to: &HeldPort| {
            let port = |port: &HeldPort| format!("port_value: {} }}", port.number());
            text.replace(&port(from), &port(to))
        };
        let text = moved(self.bootstrap.clone(), &self.egress, &egress);
        let text = moved(text, &self.ingress, &ingress);
        let envoy = self.another_envoy(&text).await;
        Beside { envoy, ingress, egress }
    }

    /// Ends Envoy as a crash would, and starts it again on the same ports.
    pub async fn restart_envoy(&mut self) {
        self.envoy = None;
        self.envoy = Some(self.another_envoy(&self.bootstrap).await);
    }

    async fn another_envoy(&self, text: &str) -> Envoy {
        let env: Vec<_> =
            self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Envoy::start(text, &env, self.concurrency).await
    }
}
