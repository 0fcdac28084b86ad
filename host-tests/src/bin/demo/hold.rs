//! `--hold`: the world stays up, and a file tells how to reach it.

use std::fs;
use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use host_tests::{World, repository};

/// Whether this process holds a world.
static HOLDING: AtomicBool = AtomicBool::new(false);

/// Writes the file, tells how to use it, and waits for ever.
pub async fn hold(world: &World) {
    let (file, directory) = (file(), directory());
    fs::create_dir_all(&directory).unwrap();
    HOLDING.store(true, Ordering::Relaxed);
    fs::write(&file, serde_json::to_string_pretty(&world.json()).unwrap()).unwrap();
    // It holds live secrets, if only of this machine's loopback.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(directory.join("envoy.yaml"), world.bootstrap_text()).unwrap();

    println!(
        r#"
The world stays up until Ctrl-C. Addresses, clients and tokens are in {file}, Envoy's bootstrap beside it.

A legacy client, with its user's ID token (or with the API key: -H "x-api-key: $(jq -r .upgrade.api_key $W)"):

  W={file}
  curl -s $(jq -r .upgrade.url $W) -H "authorization: Bearer $(jq -r .upgrade.id_token $W)" \
    -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' \
    -d '{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-06-18","capabilities":{{}},"clientInfo":{{"name":"curl","version":"0"}}}}}}'

An EMA client: first an ID-JAG from the IdP, then a token from Jagway:

  JAG=$(curl -s $(jq -r .idp.token_endpoint $W) -u $(jq -r '.idp.client|.id+":"+.secret' $W) \
    --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
    --data-urlencode requested_token_type=urn:ietf:params:oauth:token-type:id-jag \
    --data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:id_token \
    --data-urlencode subject_token=$(jq -r .idp.id_token $W) \
    --data-urlencode audience=$(jq -r .accept.issuer $W) --data-urlencode resource=$(jq -r .accept.resource $W) | jq -r .access_token)
  curl -s $(jq -r .accept.token_endpoint $W) -u $(jq -r '.accept.client|.id+":"+.secret' $W) \
    --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer --data-urlencode assertion=$JAG"#,
        file = file.display()
    );
    pending().await
}

/// Removes what [`hold`] wrote in this process: none of it is true any more. `false` if it wrote
/// nothing.
pub fn clean_up() -> bool {
    let held = HOLDING.load(Ordering::Relaxed);
    if held {
        let _ = fs::remove_file(file());
        let _ = fs::remove_file(directory().join("envoy.yaml"));
    }
    held
}

fn directory() -> PathBuf {
    repository().join("target/demo")
}

fn file() -> PathBuf {
    directory().join("world.json")
}
