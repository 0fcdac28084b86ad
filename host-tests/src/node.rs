//! Other people's parts, written for Node: installed once under `target`, run as children, spoken to in lines of JSON.
//!
//! What each script takes and gives stands at its top, in `host-tests/node`.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::keys::sha256_hex;
use crate::repository;

/// What the conformance suite wants, and it wants most.
const OLDEST: u32 = 22;
/// Far more than any part needs, even on a machine busy with a build.
const PATIENCE: Duration = Duration::from_secs(60);

/// The installed parts.
#[derive(Clone)]
pub struct Parts {
    place: PathBuf,
    node: PathBuf,
}

/// A running part. Its stdin closes when this is dropped, and with that it ends.
pub struct Part {
    /// The first line it printed.
    pub said: Value,
    script: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stderr: File,
}

impl Parts {
    /// Installs the parts unless that has been done. An error says why this machine cannot run them.
    pub fn install() -> Result<Self, String> {
        version("npm")?;
        let node = newer_node()?;

        let (source, place) =
            (repository().join("host-tests/node"), repository().join("target/node-parts"));
        fs::create_dir_all(&place).unwrap();
        // One process installs, the others wait here and then find it done.
        let lock = File::create(place.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        for file in fs::read_dir(&source).unwrap().map(|entry| entry.unwrap()) {
            copy_if_changed(&file.path(), &place.join(file.file_name()));
        }
        npm_ci(&place);
        Ok(Self { place, node })
    }

    /// Runs a client to its end and gives what it printed.
    pub async fn run(&self, script: &str, input: &Value) -> Value {
        let mut part = self.start(script, input).await;
        part.end().await;
        part.said
    }

    /// Starts a part and waits for its first line.
    pub async fn start(&self, script: &str, input: &Value) -> Part {
        let stderr = tempfile::tempfile().unwrap();
        let mut child = tokio::process::Command::new(&self.node)
            .arg(script)
            .current_dir(&self.place)
            .env("JAGWAY_PART", input.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut part = Part { said: Value::Null, script: script.into(), child, lines, stderr };
        match part.line().await {
            Some(said) => part.said = said,
            None => part.fail("ended without a word"),
        }
        part
    }
}

impl Part {
    /// Closes its stdin, waits for its end, and gives the last line it printed after the first.
    pub async fn end(&mut self) -> Option<Value> {
        drop(self.child.stdin.take());
        let mut last = None;
        while let Some(said) = self.line().await {
            last = Some(said);
        }
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => last,
            Ok(status) => self.fail(&format!("failed: {status:?}")),
            Err(_) => self.fail("does not end"),
        }
    }

    async fn line(&mut self) -> Option<Value> {
        match timeout(PATIENCE, self.lines.next_line()).await {
            Ok(line) => line.unwrap().map(|line| serde_json::from_str(&line).unwrap()),
            Err(_) => self.fail("says nothing"),
        }
    }

    fn fail(&mut self, what: &str) -> ! {
        let mut log = String::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_string(&mut log).unwrap();
        panic!("{} {what}\n{log}", self.script)
    }
}

/// The machine's Node, or one that npm has, if that is too old.
fn newer_node() -> Result<PathBuf, String> {
    let version = version("node")?;
    let major =
        version.trim_start_matches('v').split('.').next().and_then(|text| text.parse().ok());
    if major.is_some_and(|major: u32| major >= OLDEST) {
        return Ok("node".into());
    }
    let place = repository().join("target/tools/node");
    let node = place.join("node_modules/.bin/node");
    fs::create_dir_all(&place).unwrap();
    let lock = File::create(place.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !node.exists() {
        eprintln!("Installing Node {OLDEST} into {} (here it is {version}) ...", place.display());
        let npm = Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(&place)
            .arg(format!("node@{OLDEST}"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if !npm.status.success() || !node.exists() {
            return Err(format!("node is {version}, and npm installs no newer one"));
        }
    }
    Ok(node)
}

fn version(program: &str) -> Result<String, String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().into())
        }
        _ => Err(format!("there is no {program} here")),
    }
}

/// Left alone when it is the same: a part of another test may be reading it.
fn copy_if_changed(from: &Path, to: &Path) {
    let new = fs::read(from).unwrap();
    if fs::read(to).ok().as_ref() != Some(&new) {
        fs::write(to, new).unwrap();
    }
}

/// What is written into the stamp is what was installed, so that a broken install is begun again.
fn npm_ci(place: &Path) {
    let read = |name| fs::read_to_string(place.join(name)).unwrap();
    let wanted = sha256_hex(&(read("package.json") + &read("package-lock.json") + &read(".npmrc")));
    let stamp = place.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }

    eprintln!("Installing the Node parts into {} ...", place.display());
    let _ = fs::remove_file(&stamp);
    let npm = Command::new("npm")
        .args(["ci", "--fetch-retries=5"])
        .current_dir(place)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&npm.stderr);
    assert!(npm.status.success(), "`npm ci` failed in {}\n{words}", place.display());
    fs::write(&stamp, wanted).unwrap();
}
