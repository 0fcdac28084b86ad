//! Other people's parts, written for Python: installed once under `target`, run to their end or as servers.
//!
//! What each script takes and gives stands at its top, in `host-tests/python`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::keys::sha256_hex;
use crate::program::find;
use crate::repository;

/// Far more than any part needs, even on a machine busy with a build.
const PATIENCE: Duration = Duration::from_secs(60);

/// The installed parts.
pub struct PythonParts(PathBuf);

/// A running server. Its stdin closes when this is dropped, and with that it ends.
pub struct PythonServer {
    /// The line it printed when it was ready.
    pub said: Value,
    log: NamedTempFile,
    child: Child,
}

impl PythonParts {
    /// Installs the parts unless that has been done. An error says why this machine cannot run them.
    pub fn install() -> Result<Self, String> {
        let python = find("python3")?;
        let tried = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))";
        if run(Command::new(&python).args(["-c", tried])).is_err() {
            return Err("python3 is older than 3.10, or cannot make virtual environments".into());
        }
        let place = repository().join("target/tools/python-parts");
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        // One process installs, the others wait here and then find it done.
        let lock = File::create(place.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        pip_install(&python, &place);
        Ok(Self(place))
    }

    /// Runs a script to its end and gives what it printed.
    pub async fn run(&self, script: &str, input: &Value) -> Value {
        let mut command = self.command(script, input);
        command.stdin(Stdio::null());
        let output = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script} failed\n{words}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts a server and waits for its line.
    pub async fn start(&self, script: &str, input: &Value) -> PythonServer {
        let log = NamedTempFile::new().unwrap();
        let mut command = self.command(script, input);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.reopen().unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await;
        let mut server = PythonServer { said: Value::Null, log, child };
        match line {
            Ok(Ok(Some(line))) => server.said = serde_json::from_str(&line).unwrap(),
            line => panic!("{script} is not ready: {line:?}\n{}", server.log()),
        }
        server
    }

    fn command(&self, script: &str, input: &Value) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.0.join("bin/python"));
        command.arg(scripts().join(script)).env("JAGWAY_PART", input.to_string());
        // Compiled modules would be left in the repository, and FastMCP asks the world for a newer FastMCP.
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("FASTMCP_CHECK_FOR_UPDATES", "off");
        command.kill_on_drop(true);
        command
    }
}

impl PythonServer {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }
}

fn scripts() -> PathBuf {
    repository().join("host-tests/python")
}

/// What is written into the stamp is what was installed, so that a broken install is begun again.
fn pip_install(python: &Path, place: &Path) {
    let requirements = scripts().join("requirements.txt");
    let wanted = sha256_hex(&fs::read_to_string(&requirements).unwrap());
    let stamp = place.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    eprintln!("Installing the Python parts into {} ...", place.display());
    let venv = run(Command::new(python).args(["-m", "venv", "--clear"]).arg(place));
    let installed = venv.and_then(|()| {
        let mut pip = Command::new(place.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
        run(pip.arg(&requirements))
    });
    if let Err(why) = installed {
        panic!("the Python parts could not be installed in {}\n{why}", place.display());
    }
    fs::write(&stamp, wanted).unwrap();
}

fn run(command: &mut Command) -> Result<(), String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
