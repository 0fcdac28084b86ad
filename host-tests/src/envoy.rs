//! A real Envoy as a child process, with its admin interface on a free port and its log in a file.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::envoy_binary;
use crate::jwks::http_client;

/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The admin interface is added here, so that no configuration needs to name it.
const ADMIN: &str =
    r#"{"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}"#;

/// A running Envoy; it is killed when dropped.
pub struct Envoy {
    child: Child,
    directory: TempDir,
    admin: String,
    http: reqwest::Client,
}

impl Envoy {
    /// Starts Envoy and waits until it is ready; panics with the end of its log otherwise.
    pub async fn start(config_yaml: &str, env: &[(&str, &str)], concurrency: u32) -> Self {
        match Self::try_start(config_yaml, env, concurrency).await {
            Ok(envoy) => envoy,
            Err(log) => panic!("Envoy did not start. The end of its log:\n{}", tail(&log, 30)),
        }
    }

    /// As [`Envoy::start`], but gives the log when Envoy refuses the configuration.
    pub async fn try_start(
        config_yaml: &str,
        env: &[(&str, &str)],
        concurrency: u32,
    ) -> Result<Self, String> {
        // Fetching the binary may take a while and blocks.
        let binary = tokio::task::spawn_blocking(envoy_binary::find).await.unwrap();
        let directory = TempDir::with_prefix("jagway-").unwrap();
        let file = |name: &str| directory.path().join(name);
        fs::write(file("envoy.yaml"), config_yaml).unwrap();
        // Not --log-path: Envoy writes such a file seconds late, and tests read the log at once.
        let log = fs::File::create(file("log")).unwrap();

        let mut command = Command::new(binary);
        command.arg("-c").arg(file("envoy.yaml")).args(["--config-yaml", ADMIN]);
        command.arg("--admin-address-path").arg(file("admin"));
        command.args([
            "-l",
            "info",
            "--use-dynamic-base-id",
            "--concurrency",
            &concurrency.to_string(),
        ]);
        command
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().expect("Envoy can be run");

        let mut envoy = Self { child, directory, admin: String::new(), http: http_client("admin") };
        match envoy.become_ready().await {
            true => Ok(envoy),
            false => Err(envoy.log()),
        }
    }

    /// The origin of the admin interface.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.read("log")
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }

    /// The text of an admin page.
    pub async fn admin_page(&self, path: &str) -> String {
        let answer = self.http.get(format!("{}{path}", self.admin)).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// A counter or gauge by its full name; nothing if there is no such statistic.
    pub async fn stat(&self, name: &str) -> Option<u64> {
        let page = self.admin_page("/stats").await;
        let mut values = page
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
        values.next()
    }

    /// The process id, for tests that freeze or wound it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its configuration and log lie while it lives.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    async fn become_ready(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.is_ready().await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    async fn is_ready(&mut self) -> bool {
        let address = self.read("admin");
        if address.is_empty() {
            return false;
        }
        self.admin = format!("http://{address}");
        let asked = self
            .http
            .get(format!("{}/ready", self.admin))
            .timeout(Duration::from_secs(1))
            .send()
            .await;
        asked.is_ok_and(|answer| answer.status().as_u16() == 200)
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn tail(log: &str, count: usize) -> String {
    // Leaving out the inventory that Envoy begins with: long lines, and never the reason.
    let lines: Vec<_> = log.lines().filter(|line| !line.contains("[info][main]")).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
