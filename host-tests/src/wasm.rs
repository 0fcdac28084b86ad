//! The filter as tests and demo load it: built once per process, by cargo itself.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::repository;

const TARGET: &str = "wasm32-wasip1";

/// Builds the filter if its sources changed and gives the path of the `.wasm`.
///
/// Cargo's own words go to stderr, so that whoever waits sees why.
pub fn filter() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&[], "jagway.wasm")).clone()
}

/// As [`filter`], for an example beside it.
pub fn example(name: &str) -> PathBuf {
    build(&["--example", name], &format!("examples/{name}.wasm"))
}

fn build(what: &[&str], file: &str) -> PathBuf {
    add_target();
    // A directory of its own: the `cargo test` or `cargo run` around us may hold the lock of the usual one.
    let directory = repository().join("target/wasm");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "-p", "jagway", "--target", TARGET, "--target-dir"])
        .arg(&directory)
        .args(what);
    cargo.current_dir(repository()).stdin(Stdio::null()).stdout(Stdio::null());
    // What the outer cargo, clippy or a coverage run sets is meant for the host's code, not for this.
    for (name, _) in std::env::vars_os().filter(|(name, _)| belongs_to_outer_build(name)) {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "the filter does not build, see above");
    directory.join(TARGET).join("release").join(file)
}

fn belongs_to_outer_build(name: &OsStr) -> bool {
    const KEPT: [&str; 5] =
        ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    let name = name.to_string_lossy();
    let cargos = name == "CARGO"
        || name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept));
    cargos
        || ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "LLVM_PROFILE_FILE"]
            .contains(&name.as_ref())
}

/// Where there is no rustup, the toolchain is trusted to bring the target along.
fn add_target() {
    let Ok(listed) = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .current_dir(repository())
        .output()
    else {
        return;
    };
    if String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == TARGET) {
        return;
    }
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(repository())
        .stdout(Stdio::null())
        .status();
    assert!(added.is_ok_and(|status| status.success()), "`rustup target add {TARGET}` failed");
}
