//! `cargo config-check`: the examples with one thing wrong, and what it says about it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::process::Command;

use host_tests::repository;
use tempfile::TempDir;

const UPGRADE: &str = "upgrade";
const ACCEPT: &str = "accept";
const SECRETS: [(&str, &str); 4] = [
    ("IDP_CLIENT_SECRET", "one"),
    ("TICKETS_AS_SECRET", "two"),
    ("CI_BOT_KEY_SHA256", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
    ("CI_BOT_REFRESH", "three"),
];

#[test]
fn the_examples_have_nothing_to_tell() {
    let checked = check(&["--no-secrets"], &[], &[&example(UPGRADE), &example(ACCEPT)]);

    assert_eq!(checked, (0, "2 filters in 2 files: 0 errors, 0 warnings\n".to_owned()));
}

#[test]
fn what_must_not_stay_so_is_an_error_that_names_place_and_field() {
    // Example, what is replaced, by what, and the line but for the file.
    let faults = [
        (
            UPGRADE,
            "cluster: tickets_as\n",
            "cluster: ticket_as\n",
            "egress/jagway: resources[0].upgrade.authorization_server.cluster: Envoy has no cluster `ticket_as`",
        ),
        (
            UPGRADE,
            "- name: idp\n",
            "- name: idps\n",
            "egress/jagway: identity_providers.acme.cluster: Envoy has no cluster `idp`",
        ),
        (
            ACCEPT,
            "- name: idp\n",
            "- name: idps\n",
            "ingress/jagway: identity_providers.acme.cluster: Envoy has no cluster `idp`",
        ),
        (
            UPGRADE,
            "[IDP_CLIENT_SECRET, ",
            "[",
            "egress/jagway: identity_providers.acme.client.secret.env: environment variable `IDP_CLIENT_SECRET` is not passed to the VM: `vm_config.environment_variables.host_env_keys` lacks it",
        ),
        (
            ACCEPT,
            "CLAUDE_SECRET_SHA256, ",
            "",
            "ingress/jagway: authorization_server.clients.claude.secret_sha256.env: environment variable `CLAUDE_SECRET_SHA256` is not passed to the VM: `vm_config.environment_variables.host_env_keys` lacks it",
        ),
        (
            ACCEPT,
            "allow_on_headers_stop_iteration: true",
            "allow_on_headers_stop_iteration: false",
            "ingress/jagway: allow_on_headers_stop_iteration: must be true for `accept` and `guards`: else the form sent to the token endpoint never arrives",
        ),
        (
            UPGRADE,
            "failure_policy: FAIL_RELOAD",
            "failure_policy: FAIL_OPEN",
            "egress/jagway: failure_policy: must not be FAIL_OPEN: a fault would let every request through unchecked",
        ),
        (
            UPGRADE,
            "failure_policy: FAIL_RELOAD",
            "failurePolicy: FAIL_OPEN",
            "egress/jagway: failure_policy: must not be FAIL_OPEN: a fault would let every request through unchecked",
        ),
        (
            UPGRADE,
            "failure_policy: FAIL_RELOAD",
            "failure_policy: 3",
            "egress/jagway: failure_policy: must not be FAIL_OPEN: a fault would let every request through unchecked",
        ),
        (
            ACCEPT,
            "failure_policy: FAIL_RELOAD",
            "fail_open: true",
            "ingress/jagway: fail_open: must not be true: a fault would let every request through unchecked",
        ),
        (
            ACCEPT,
            "vm_id: jagway",
            "vm_id: ''",
            "ingress/jagway: vm_config.vm_id: must be set: what workers share, and who else may read it, goes by it",
        ),
        (
            UPGRADE,
            "issuer: https://auth.vendor.example",
            "issuer: http://auth.vendor.example",
            "egress/jagway: resources[0].upgrade.authorization_server.issuer: must be https (or set `allow_insecure_http` for a trial)",
        ),
        (
            UPGRADE,
            "- name: egress",
            "- stat_prefix: none",
            "listeners[0]/jagway: identity_providers.acme.cluster: Envoy has no cluster `idp`",
        ),
    ];

    for (name, old, new, line) in faults {
        let mut yaml = replaced(&example(name), old, new);
        if line.starts_with("listeners[0]") {
            yaml = replaced(&yaml, "- name: idp\n", "- name: idps\n");
        }

        let (code, output) = check(&["--no-secrets"], &[], &[&yaml]);

        assert_eq!(output, format!("0.yaml: {line}\n1 filter in 1 file: 1 error, 0 warnings\n"));
        assert_eq!(code, 1);
    }
}

#[test]
fn what_may_stay_so_is_a_warning() {
    let why = "or the server behind may read a path otherwise than the filter did";
    let doubts = [
        (
            "normalize_path: true",
            "normalize_path: false",
            format!("normalize_path: warning: should be true, {why}"),
        ),
        (
            "merge_slashes: true",
            "stat_prefix_: x",
            format!("merge_slashes: warning: should be true, {why}"),
        ),
        (
            "path_with_escaped_slashes_action: REJECT_REQUEST",
            "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
            format!("path_with_escaped_slashes_action: warning: should be REJECT_REQUEST, {why}"),
        ),
        (
            "identity_providers:\n",
            "allow_insecure_http: true\n                    identity_providers:\n",
            "allow_insecure_http: warning: tokens may travel in the clear: for trials only"
                .to_owned(),
        ),
    ];

    for (old, new, line) in doubts {
        let yaml = replaced(&example(ACCEPT), old, new);

        let (code, output) = check(&["--no-secrets"], &[], &[&yaml]);

        let summary = "1 filter in 1 file: 0 errors, 1 warning";
        assert_eq!(output, format!("0.yaml: ingress/jagway: {line}\n{summary}\n"));
        assert_eq!(code, 0);
    }
}

#[test]
fn a_listener_that_is_not_as_the_configuration_says_is_told() {
    let server = "                    authorization_server:\n";
    let verified = format!("{server}                      mutual_tls: {{ chain: verified }}\n");
    let untrusted = replaced(
        &replaced(&example(ACCEPT), server, &verified),
        "            tls_certificates:\n",
        "            validation_context: { trust_chain_verification: ACCEPT_UNTRUSTED }\n            tls_certificates:\n",
    );
    let credential = "                        credential: ";
    let mcp = format!("                        mcp: {{ max_body: 2097152 }}\n{credential}");
    let large = replaced(&example(ACCEPT), credential, &mcp);

    let (code, output) = check(&["--no-secrets"], &[], &[&untrusted]);
    assert!(output.contains("trust_chain_verification: is ACCEPT_UNTRUSTED"), "{output}");
    assert_eq!(code, 1);
    let (code, output) = check(&["--no-secrets"], &[], &[&large]);
    assert!(output.contains("per_connection_buffer_limit_bytes: warning: is less"), "{output}");
    assert_eq!(code, 0);
    let enough = replaced(
        &large,
        "  - name: ingress\n",
        "  - name: ingress\n    per_connection_buffer_limit_bytes: 2097152\n",
    );
    let (_, output) = check(&["--no-secrets"], &[], &[&enough]);
    assert!(output.contains("0 errors, 0 warnings"), "{output}");
}

#[test]
fn an_upgrade_that_relies_on_verified_certificates_has_a_listener_that_verifies_them() {
    let caller = "                        - id_token: {}\n";
    let by_name = format!(
        "{caller}                        - {{ certificate: {{ san_dns: ci.acme.example }}, subject: {{ refresh_token: {{ env: CI_BOT_REFRESH }} }} }}\n"
    );
    let scopes = "                        scopes: ";
    let verified = replaced(
        &replaced(&example(UPGRADE), caller, &by_name),
        scopes,
        &format!("                        mutual_tls: {{ chain: verified }}\n{scopes}"),
    );
    let untrusted = replaced(
        &verified,
        "            tls_certificates:\n",
        "            validation_context: { trust_chain_verification: ACCEPT_UNTRUSTED }\n            tls_certificates:\n",
    );

    let (code, output) = check(&["--no-secrets"], &[], &[&verified]);
    let (code_untrusted, output_untrusted) = check(&["--no-secrets"], &[], &[&untrusted]);

    assert_eq!((code, code_untrusted), (0, 1), "{output}");
    assert!(
        output_untrusted.contains("trust_chain_verification: is ACCEPT_UNTRUSTED"),
        "{output_untrusted}"
    );
}

#[test]
fn clients_that_pass_untouched_need_a_way_to_the_metadata() {
    let scopes = "                        scopes: ";
    let passes = format!("                        pass_ema_clients: true\n{scopes}");
    let hidden = replaced(&example(UPGRADE), scopes, &passes);
    let tickets = "{ path_separated_prefix: /mcp }";
    let ways = ["{ prefix: / }", "{ prefix: /.well-known/ }", "{ safe_regex: { regex: '/.*' } }"];

    let (code, output) = check(&["--no-secrets"], &[], &[&hidden]);
    let open = ways.map(|way| check(&["--no-secrets"], &[], &[&replaced(&hidden, tickets, way)]));

    assert!(output.contains("egress/jagway: route_config: warning: has no way to"), "{output}");
    assert_eq!(code, 0);
    for (code, output) in open {
        assert!(output.ends_with("0 errors, 0 warnings\n"), "{output}");
        assert_eq!(code, 0);
    }
}

#[test]
fn a_cluster_that_cds_may_bring_is_a_warning() {
    let dynamic = "dynamic_resources: { cds_config: { ads: {} } }\nstatic_resources:\n";
    let yaml = replaced(&example(ACCEPT), "- name: idp\n", "- name: idps\n");
    let yaml = replaced(&yaml, "static_resources:\n", dynamic);

    let (code, output) = check(&["--no-secrets"], &[], &[&yaml]);

    assert!(
        output.contains("acme.cluster: warning: Envoy has no cluster `idp`, unless CDS"),
        "{output}"
    );
    assert_eq!(code, 0);
}

#[test]
fn a_secret_that_is_not_set_is_told_as_the_filter_would_tell_it() {
    let all = check(&[], &SECRETS, &[&example(UPGRADE)]);
    let (code, output) = check(&[], &SECRETS[..2], &[&example(UPGRADE)]);

    let caller = "0.yaml: egress/jagway: resources[0].upgrade.callers[1]";
    let unset = |name: &str| format!("environment variable `{name}` is not set in the VM");
    let lines = [
        format!("{caller}.api_key.sha256.env: {}", unset("CI_BOT_KEY_SHA256")),
        format!("{caller}.subject.refresh_token.env: {}", unset("CI_BOT_REFRESH")),
        "1 filter in 1 file: 2 errors, 0 warnings\n".to_owned(),
    ];
    assert_eq!(output, lines.join("\n"));
    assert_eq!((code, all.0), (1, 0), "{}", all.1);
}

#[test]
fn a_literal_variable_counts_as_passed_and_set() {
    let old = "host_env_keys: [IDP_CLIENT_SECRET, ";
    let new = "key_values: { IDP_CLIENT_SECRET: one }, host_env_keys: [";
    let yaml = replaced(&example(UPGRADE), "environment_variables:\n", "environment_variables: {");
    let yaml = replaced(&yaml, old, new);
    let yaml = replaced(&yaml, "CI_BOT_REFRESH]", "CI_BOT_REFRESH] }");

    let (code, output) = check(&[], &SECRETS[1..], &[&yaml]);

    assert_eq!(code, 0, "{output}");
}

#[test]
fn a_value_of_the_wrong_form_is_told_without_the_value() {
    let secrets = [&SECRETS[..2], &SECRETS[3..], &[("CI_BOT_KEY_SHA256", "not-hexadecimal")]];

    let (code, output) = check(&[], &secrets.concat(), &[&example(UPGRADE)]);

    assert!(output.contains("api_key.sha256: must be 64 hexadecimal digits"), "{output}");
    assert!(!output.contains("not-hexadecimal"), "{output}");
    assert_eq!(code, 1);
}

#[test]
fn a_configuration_in_a_string_value_is_checked_too() {
    let yaml = example(ACCEPT);
    let start = yaml.find("\"@type\": type.googleapis.com/google.protobuf.Struct").unwrap();
    let end = yaml.find("          - name: router").unwrap();
    let document = r#"{"resources": [], "identity_provider": {}}"#;
    let string = format!(
        "\"@type\": type.googleapis.com/google.protobuf.StringValue\n                  value: '{document}'\n"
    );
    let yaml = format!("{}{string}{}", &yaml[..start], &yaml[end..]);

    let (code, output) = check(&["--no-secrets"], &[], &[&yaml]);

    assert!(
        output.starts_with("0.yaml: ingress/jagway: identity_provider: unknown field"),
        "{output}"
    );
    assert_eq!(code, 1);
}

#[test]
fn a_file_that_cannot_be_checked_is_an_error() {
    let twice = replaced(
        &example(ACCEPT),
        "vm_id: jagway\n",
        "vm_id: jagway\n                  vm_id: other\n",
    );
    let files = [
        ("static_resources: {}", "has no Jagway filter\n"),
        (
            "dynamic_resources: { lds_config: { ads: {} } }",
            "has no Jagway filter (listeners from LDS are not seen here)\n",
        ),
        ("static_resources: [", "is no YAML: "),
        (&twice, "is no YAML: "),
    ];

    for (yaml, problem) in files {
        let (code, output) = check(&["--no-secrets"], &[], &[yaml]);

        assert!(output.starts_with(&format!("0.yaml: (file): {problem}")), "{output}");
        assert!(output.ends_with("in 1 file: 1 error, 0 warnings\n"), "{output}");
        assert_eq!(code, 1);
    }
    let (code, output) = run(Command::new(BINARY).arg("no-such-file.yaml"));
    assert!(output.starts_with("no-such-file.yaml: (file): cannot be read"), "{output}");
    assert_eq!(code, 1);
    assert_eq!(run(Command::new(BINARY).arg("--nonsense")).0, 2);
}

const BINARY: &str = env!("CARGO_BIN_EXE_config-check");

/// Exit code and output, with the files named `0.yaml`, `1.yaml` and so on.
fn check(flags: &[&str], env: &[(&str, &str)], yamls: &[&str]) -> (i32, String) {
    let directory = TempDir::with_prefix("jagway-").unwrap();
    let mut command = Command::new(BINARY);
    command.args(flags).current_dir(&directory).env_clear().envs(env.iter().copied());
    for (index, yaml) in yamls.iter().enumerate() {
        let name = format!("{index}.yaml");
        fs::write(directory.path().join(&name), yaml).unwrap();
        command.arg(name);
    }
    run(&mut command)
}

fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn example(name: &str) -> String {
    fs::read_to_string(repository().join(format!("examples/{name}/envoy.yaml"))).unwrap()
}

fn replaced(yaml: &str, old: &str, new: &str) -> String {
    assert!(yaml.contains(old), "the example has no {old:?}");
    yaml.replace(old, new)
}
