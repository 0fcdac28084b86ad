//! An Envoy of one worker with one filter, on a core of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use host_tests::egress::{Listener, address, cluster, port_of};
use host_tests::envoy::Envoy;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cpu::{self, Process};
use crate::load::{Program, Target};

/// What stands in Envoy.
pub struct Setup<'a> {
    /// The HTTP filter before the router, if any.
    pub filter: Option<Value>,
    /// Clusters of one endpoint on this machine; the first is the server behind.
    pub clusters: &'a [(&'a str, u16)],
    /// What the filter's VM sees of the environment.
    pub env: &'a [(&'a str, &'a str)],
    /// The listener's transport socket, if it is not plain.
    pub tls: Option<Value>,
    /// A wasm service that runs beside.
    pub service: Option<Value>,
    /// How many workers.
    pub concurrency: u32,
}

/// Starts it and waits until it is ready.
pub async fn start(setup: &Setup<'_>) -> Rc<Target> {
    let listener = Listener::find();
    let port = port_of(&listener.url("/"));
    let bootstrap = bootstrap(port, setup).to_string();
    let address = ([127, 0, 0, 1], port).into();
    let start = || Envoy::try_start(&bootstrap, setup.env, setup.concurrency);
    let (mut envoy, started) = tokio::join!(start(), first_answer(address));
    if envoy.is_err() {
        // A machine that stood still is out of patience.
        envoy = start().await;
    }
    let envoy = envoy.unwrap_or_else(|log| panic!("Envoy did not start:\n{log}"));
    let process = Process(envoy.pid());
    process.pin(cpu::MEASURED);
    let program = Box::new(Gateway { envoy, _listener: listener });
    Rc::new(Target { address, process, started, program })
}

/// How long it takes until somebody answers there, whatever it is.
async fn first_answer(address: SocketAddr) -> Duration {
    let began = Instant::now();
    let try_once = async || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").await?;
        stream.read(&mut [0; 64]).await
    };
    while began.elapsed() < Duration::from_secs(30) && !try_once().await.is_ok_and(|size| size > 0)
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

struct Gateway {
    envoy: Envoy,
    _listener: Listener,
}

impl Program for Gateway {
    fn log(&self) -> String {
        self.envoy.log()
    }
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { filter: None, clusters: &[], env: &[], tls: None, service: None, concurrency: 1 }
    }
}

/// A wasm filter.
pub fn wasm(file: &Path, config: &Value, env: &[(&str, &str)]) -> Value {
    let config = json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": config});
    let mut plugin = plugin(file, config, env);
    plugin["allow_on_headers_stop_iteration"] = json!(true);
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": plugin,
    })
}

/// A wasm module that runs once in the process. It shares what [`wasm`] filters share.
pub fn service(file: &Path, config: &Value) -> Value {
    // As text: of a `Struct` a service gets the serialized message.
    let config = config.to_string();
    let config =
        json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": config});
    json!({
        "@type": "type.googleapis.com/envoy.extensions.wasm.v3.WasmService",
        "config": plugin(file, config, &[]),
        "singleton": true,
    })
}

fn plugin(file: &Path, config: Value, env: &[(&str, &str)]) -> Value {
    let keys: Vec<_> = env.iter().map(|(name, _)| name).collect();
    json!({
        "name": "bench",
        "root_id": "jagway",
        "failure_policy": "FAIL_RELOAD",
        "vm_config": {
            "vm_id": "jagway",
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": file}},
            "environment_variables": {"host_env_keys": keys},
        },
        "configuration": config,
    })
}

/// Envoy's own filter for JWTs: one issuer, one audience, keys at hand; `cache` is how many tokens it remembers.
pub fn jwt_authn(issuer: &str, audience: &str, keys: &Value, cache: Option<u32>) -> Value {
    let mut provider = json!({
        "issuer": issuer,
        "audiences": [audience],
        "local_jwks": {"inline_string": keys.to_string()},
    });
    if let Some(size) = cache {
        provider["jwt_cache_config"] = json!({"jwt_cache_size": size});
    }
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"jagway": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "jagway"}}],
    })
}

fn bootstrap(port: u16, setup: &Setup<'_>) -> Value {
    // No timeout: an MCP answer may be an event stream.
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": setup.clusters[0].0, "timeout": "0s"}});
    let router =
        json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let filters = setup.filter.iter().map(|filter| ("filter", filter));
    let filters = filters.chain([("router", &router)]);
    let filters = filters.map(|(name, config)| json!({"name": name, "typed_config": config}));
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "route_config": {"virtual_hosts": [{"name": "mcp", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters.collect::<Vec<_>>(),
    });
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
    if let Some(tls) = &setup.tls {
        chain["transport_socket"] = tls.clone();
    }
    let listener = json!({"name": "http", "address": address(port), "filter_chains": [chain]});
    let clusters: Vec<_> = setup.clusters.iter().map(|(name, port)| cluster(name, *port)).collect();
    let extension = |service| json!({"name": "envoy.bootstrap.wasm", "typed_config": service});
    json!({
        "static_resources": {"listeners": [listener], "clusters": clusters},
        "bootstrap_extensions": setup.service.iter().map(extension).collect::<Vec<_>>(),
    })
}
