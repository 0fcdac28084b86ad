//! The examples as a user finds them: Envoy takes them, and the files beside them fit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use host_tests::bootstrap::{Bootstrap, field, items, text};
use host_tests::keys::{SigningKey, sha256_hex};
use host_tests::{envoy_binary, repository, wasm};
use serde_json::Value;
use tempfile::TempDir;

const EXAMPLES: [&str; 3] = ["upgrade", "accept", "guard"];
const SELF_SIGNED: &str = include_str!("examples/self-signed.pem");

#[test]
fn envoy_takes_every_example_and_the_filter_its_configuration() {
    for name in EXAMPLES {
        let (valid, log) = validate(name, &variables(name));

        assert!(valid, "{name}: {log}");
    }
}

#[test]
fn envoy_refuses_every_example_that_lacks_one_secret() {
    for name in EXAMPLES {
        let variables = variables(name);
        for missing in &variables {
            let rest: Vec<_> = variables.iter().filter(|one| *one != missing).cloned().collect();

            let (valid, log) = validate(name, &rest);

            let why = format!(".env: environment variable `{missing}` is not set in the VM");
            assert!(!valid && log.contains(&why), "{name} without {missing}: {log}");
        }
    }
}

#[test]
fn compose_files_name_the_variables_and_mount_the_files_that_the_bootstrap_needs() {
    for name in EXAMPLES {
        let bootstrap = read(name, "envoy.yaml");
        let compose: Value = serde_saphyr::from_str(&read(name, "compose.yaml")).unwrap();
        let envoy = &compose["services"]["envoy"];

        let given: BTreeSet<_> = items(&envoy["environment"]).iter().map(text).collect();
        let mounted: Vec<_> = items(&envoy["volumes"]).iter().map(text).collect();

        let wanted = variables(name);
        assert_eq!(given, wanted.iter().map(String::as_str).collect(), "{name}");
        for (file, mount) in [
            ("/etc/envoy/jagway.wasm", ":/etc/envoy/jagway.wasm:ro"),
            ("/etc/envoy/tls/tls.crt", ":/etc/envoy/tls:ro"),
            ("/etc/envoy/tls/tls.key", ":/etc/envoy/tls:ro"),
        ] {
            assert!(bootstrap.contains(file), "{name}: {file}");
            assert!(mounted.iter().any(|one| one.ends_with(mount)), "{name}: {mount}");
        }
        assert!(read(name, "README.md").contains("docker compose up"));
    }
}

/// Whether Envoy takes the example, with files of ours in place of those under `/etc`; and its log.
fn validate(name: &str, variables: &[String]) -> (bool, String) {
    let directory = TempDir::with_prefix("jagway-").unwrap();
    let pem = directory.path().join("self-signed.pem").display().to_string();
    fs::write(&pem, SELF_SIGNED).unwrap();
    let mut bootstrap = read(name, "envoy.yaml");
    let wasm = wasm::filter().display().to_string();
    for (old, new) in [
        ("/etc/envoy/jagway.wasm", &wasm),
        ("/etc/envoy/tls/tls.crt", &pem),
        ("/etc/envoy/tls/tls.key", &pem),
        ("/etc/ssl/certs/ca-certificates.crt", &pem),
    ] {
        assert!(bootstrap.contains(old), "{name} has no {old}");
        bootstrap = bootstrap.replace(old, new);
    }
    assert!(!bootstrap.contains("/etc/"), "{name} needs another file");
    let file = directory.path().join("envoy.yaml");
    fs::write(&file, bootstrap).unwrap();

    let mut envoy = Command::new(envoy_binary::find());
    envoy.args(["--mode", "validate", "-l", "warn", "-c"]).arg(file).env_clear();
    let output = envoy.envs(variables.iter().map(|name| (name, secret(name)))).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn secret(variable: &str) -> String {
    match variable {
        "SIGNING_KEY" => SigningKey::eddsa("2026-01").pem(),
        digest if digest.ends_with("_SHA256") => sha256_hex(digest),
        other => other.to_lowercase(),
    }
}

fn variables(name: &str) -> Vec<String> {
    let bootstrap = Bootstrap::parse(&read(name, "envoy.yaml")).unwrap();
    let vm = field(&bootstrap.filters[0].plugin, "vm_config");
    let keys = field(field(vm, "environment_variables"), "host_env_keys");
    items(keys).iter().map(|key| text(key).to_owned()).collect()
}

fn read(name: &str, file: &str) -> String {
    fs::read_to_string(repository().join("examples").join(name).join(file)).unwrap()
}
