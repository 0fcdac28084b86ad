//! A server that refuses tokens, behind the egress listener.

use std::time::Duration;

use host_tests::scripted::{Say, Scripted};
use host_tests::upstream::Received;
use host_tests::world::Patch;
use host_tests::{Options, World, raw};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{Answer, id_token_of, post_as, repointed};

/// The challenge of a server that refuses a token.
pub const INVALID: &str = "www-authenticate: Bearer error=\"invalid_token\"\r\n";

/// A world with a scripted server behind the egress listener.
pub struct Place {
    /// Everything else.
    pub world: World,
    /// The server.
    pub upstream: Scripted,
}

impl Place {
    /// One worker, and nothing changed.
    pub async fn start() -> Self {
        Self::with(Options { concurrency: 1, ..Options::default() }, |text| text).await
    }

    /// One request has gone through: what the route makes of requests is known.
    pub async fn with(
        options: Options,
        patch: impl FnOnce(String) -> String + Send + 'static,
    ) -> Self {
        let place = Self::cold(options, patch).await;
        assert_eq!(place.post_as("warm-up").await.status, 200);
        place.until_idle().await;
        place
    }

    /// As [`Place::with`], before any request.
    pub async fn cold(
        options: Options,
        patch: impl FnOnce(String) -> String + Send + 'static,
    ) -> Self {
        let upstream = Scripted::start().await;
        let port = upstream.port();
        let patch = Box::new(move |text: String| repointed(patch(text), "tickets", port));
        let world = World::start(Options { patch_bootstrap: Some(patch), ..options }).await;
        Self { world, upstream }
    }

    /// Refuses the next request, and answers `second` to those after it.
    pub fn refuses_first(&self, second: impl Fn() -> Say + Send + Sync + 'static) {
        let refused = move |number, _: &Received| match number {
            0 => Say::answer(401, INVALID, "refused"),
            _ => second(),
        };
        self.upstream.says(refused);
    }

    /// A POST as this user, with an ID token that nobody has seen.
    pub async fn post_as(&self, user: &str) -> Answer {
        post_as(&self.world.upgrade_url(), &id_token_of(&self.world, user)).await
    }

    /// Where the egress listener is.
    pub fn origin(&self) -> String {
        self.world.upgrade_url().trim_end_matches("/mcp").to_owned()
    }

    /// The credential of this user: an ID token that nobody has seen.
    pub fn bearer(&self, user: &str) -> String {
        format!("Bearer {}", id_token_of(&self.world, user))
    }

    /// A counter or gauge of Envoy; 0 if there is none.
    pub async fn stat(&self, name: &str) -> u64 {
        self.world.envoy.as_ref().unwrap().stat(name).await.unwrap_or_default()
    }

    /// Until no request is left, neither here nor on its way to the server.
    pub async fn until_idle(&self) {
        for name in ["http.egress.downstream_rq_active", "cluster.tickets.upstream_rq_active"] {
            self.until_stat(name, |value| value == 0).await;
        }
    }

    /// Until this statistic is so.
    pub async fn until_stat(&self, name: &str, is_so: impl Fn(u64) -> bool) {
        let began = std::time::Instant::now();
        loop {
            let value = self.stat(name).await;
            if is_so(value) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{name} is {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends the parts one by one, each when the one before has arrived, and reads the answer. After part number
    /// `held` it waits until the head has gone on.
    pub async fn send_in_parts(&self, parts: &[&[u8]], held: Option<usize>) -> raw::RawAnswer {
        let (read, gone) =
            ("http.egress.downstream_cx_rx_bytes_total", "cluster.tickets.upstream_rq_total");
        let (mut arrived, before) = (self.stat(read).await, self.stat(gone).await);
        let mut stream = raw::connect(&self.origin()).await;
        for (number, part) in parts.iter().enumerate() {
            stream.write_all(part).await.unwrap();
            arrived += part.len() as u64;
            self.until_stat(read, |value| value >= arrived).await;
            if Some(number) == held {
                assert_eq!(self.stat(gone).await, before, "it was not held back");
                self.until_stat(gone, |value| value > before).await;
            }
        }
        raw::read(&mut stream).await
    }
}

/// What a request is made of, but for its credential, how its length is told, and what Envoy tells its own kind.
pub fn likeness(request: &Received) -> impl PartialEq + std::fmt::Debug + use<> {
    let apart = ["authorization", "content-length", "transfer-encoding"];
    let ours = |name: &str| apart.contains(&name) || name.starts_with("x-envoy-");
    let mut headers: Vec<_> = request
        .headers
        .iter()
        .filter(|(name, _)| !ours(name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (request.method.clone(), request.target.clone(), headers, request.body.to_vec())
}

/// A change to the way of the only upgraded resource.
pub fn upgrade_patch(change: impl FnOnce(&mut Value) + Send + 'static) -> Option<Patch> {
    Some(Box::new(move |config: &mut Value| change(&mut config["resources"][0]["upgrade"])))
}

/// The egress listener's filter sees bodies while it holds the head back.
pub fn stopping_at_headers(text: String) -> String {
    let policy = "failure_policy: FAIL_RELOAD\n";
    let more = format!("{policy}                allow_on_headers_stop_iteration: true\n");
    text.replacen(policy, &more, 1)
}
