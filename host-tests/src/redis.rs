//! redis-server, and webdis, which speaks HTTP for it: a memory that several Envoys share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::jwks::http_client;
use crate::program::{Running, find};

/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often webdis is started again on another port when somebody took the one found.
const TRIES: usize = 5;
/// All that webdis may be asked for. The configuration it is shipped with lets FLUSHALL pass.
const COMMANDS: [&str; 4] = ["SET", "GET", "PING", "DEL"];

/// A running redis-server that keeps nothing on disk; it is killed when dropped.
///
/// It listens on a socket in its directory, so there is no port that somebody else could take.
pub struct Redis {
    process: Option<Running>,
    directory: TempDir,
}

/// A running webdis; it is killed when dropped.
pub struct Webdis {
    _process: Running,
    _directory: TempDir,
    port: u16,
}

impl Redis {
    /// Starts it and waits until it takes connections. An error says that this machine has none.
    pub async fn start() -> Result<Self, String> {
        let program = find("redis-server")?;
        let directory = TempDir::with_prefix("jagway-redis-").unwrap();
        let mut command = Command::new(program);
        command.args(["--port", "0", "--unixsocket", "socket", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(directory.path());
        let mut process = spawn(&mut command, directory.path());
        let socket = directory.path().join("socket");
        let listens = async || tokio::net::UnixStream::connect(&socket).await.is_ok().then_some(());
        let started = until(&mut process, listens).await;
        assert!(started.is_some(), "redis-server did not start:\n{}", log(directory.path()));
        Ok(Self { process: Some(process), directory })
    }

    /// The Unix socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Stops it where it is: it is there, and never answers.
    pub fn freeze(&self) {
        self.process.as_ref().unwrap().freeze();
    }

    /// Lets it go on, and answer what came meanwhile.
    pub fn thaw(&self) {
        self.process.as_ref().unwrap().thaw();
    }

    /// Ends it, for good.
    pub fn stop(&mut self) {
        self.process = None;
    }
}

impl Webdis {
    /// Starts it before this redis. An error says that this machine has none.
    pub async fn start(redis: &Redis) -> Result<Self, String> {
        let program = find("webdis")?;
        let mut last = String::new();
        for _ in 0..TRIES {
            match Self::try_start(&program, redis).await {
                Ok(webdis) => return Ok(webdis),
                Err(log) => last = log,
            }
        }
        panic!("webdis did not start:\n{last}");
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The origin there.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn try_start(program: &Path, redis: &Redis) -> Result<Self, String> {
        let directory = TempDir::with_prefix("jagway-webdis-").unwrap();
        // It cannot be told to take any free port. Between our letting go and its taking hold another may come first;
        // then it ends, and is started again.
        let port = {
            let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            place.local_addr().unwrap().port()
        };
        let config = json!({
            "redis_host": redis.socket(),
            "redis_port": 0,
            "http_host": "127.0.0.1",
            "http_port": port,
            "threads": 2,
            "daemonize": false,
            "database": 0,
            "acl": [{"disabled": ["*"]}, {"enabled": COMMANDS}],
            "verbosity": 3,
            "logfile": directory.path().join("log"),
        });
        let file = directory.path().join("webdis.json");
        fs::write(&file, config.to_string()).unwrap();
        let mut process = spawn(Command::new(program).arg(file), directory.path());
        let http = http_client("webdis");
        let answers = async || {
            let asked = http.get(format!("http://127.0.0.1:{port}/PING"));
            let answer = asked.timeout(Duration::from_secs(1)).send().await.ok()?;
            (answer.text().await.ok()? == r#"{"PING":[true,"PONG"]}"#).then_some(())
        };
        match until(&mut process, answers).await {
            Some(()) => Ok(Self { _process: process, _directory: directory, port }),
            None => Err(log(directory.path())),
        }
    }
}

fn spawn(command: &mut Command, directory: &Path) -> Running {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    command.current_dir(directory).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    Running::new(command.spawn().expect("it can be run"))
}

/// Asks until there is an answer; nothing if the process ends before, or takes too long.
async fn until(process: &mut Running, ask: impl AsyncFn() -> Option<()>) -> Option<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE && process.is_alive() {
        if ask().await.is_some() {
            // Not somebody else who listens where this one could not.
            return process.is_alive().then_some(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}
