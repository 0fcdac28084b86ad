//! An Envoy of one listener, with the filter in it and one MCP server behind it: what an operator of upgrade sets up.
//!
//! For parties that no [`World`](crate::World) has: where the world's own are enough, use that.

use std::path::Path;

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::envoy::Envoy;

/// Where Envoy will listen: known before it starts, for the configuration names it.
///
/// Bound but never listening, and shared (SO_REUSEPORT) with Envoy, so that nobody else is given the port.
pub struct Listener(TcpSocket);

/// What stands around the filter.
pub struct Setup<'a> {
    /// The filter.
    pub wasm: &'a Path,
    /// Its configuration.
    pub config: Value,
    /// Clusters of one endpoint on this machine, by name; the first is the MCP server.
    pub clusters: &'a [(&'a str, u16)],
    /// What the filter's VM sees of the environment.
    pub env: &'a [(&'a str, &'a str)],
}

impl Listener {
    /// Finds a free port.
    pub fn find() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    /// The URL of this path there.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// Starts Envoy here. Keep the listener as long as Envoy.
    pub async fn serve(&self, setup: Setup<'_>) -> Envoy {
        let env = setup.env.to_vec();
        Envoy::start(&self.bootstrap(setup).to_string(), &env, 2).await
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn bootstrap(&self, Setup { wasm, config, clusters, env }: Setup<'_>) -> Value {
        let filter = json!({
            "name": "jagway-egress",
            "root_id": "jagway",
            "failure_policy": "FAIL_RELOAD",
            "vm_config": {
                "vm_id": "jagway",
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": wasm}},
                "environment_variables": {"host_env_keys": env.iter().map(|(name, _)| name).collect::<Vec<_>>()},
            },
            "configuration": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": config},
        });
        // No timeout: an MCP answer may be an event stream.
        let route =
            json!({"match": {"prefix": "/"}, "route": {"cluster": clusters[0].0, "timeout": "0s"}});
        let filters = [
            ("jagway", "wasm.v3.Wasm", json!({"config": filter})),
            ("router", "router.v3.Router", json!({})),
        ];
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "egress",
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            "route_config": {"virtual_hosts": [{"name": "mcp", "domains": ["*"], "routes": [route]}]},
            "http_filters": filters.map(|(name, kind, mut config)| {
                config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
                json!({"name": name, "typed_config": config})
            }),
        });
        let clusters: Vec<_> = clusters.iter().map(|(name, port)| cluster(name, *port)).collect();
        json!({"static_resources": {
            "listeners": [{
                "name": "egress",
                "address": address(self.port()),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }],
            "clusters": clusters,
        }})
    }
}

/// An Envoy cluster of one server on this machine.
pub fn cluster(name: &str, port: u16) -> Value {
    let endpoint = json!({"endpoint": {"address": address(port)}});
    json!({
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

/// A port of this machine.
pub fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// The port in the origin of a URL, which must name one.
pub fn port_of(url: &str) -> u16 {
    reqwest::Url::parse(url).unwrap().port().unwrap()
}
