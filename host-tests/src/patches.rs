//! Changes to the bootstrap, for [`Options::patch_bootstrap`](crate::Options): they compose, text in, text out.

/// The bootstrap with one more cluster, to this port of the machine.
pub fn with_cluster(text: String, name: &str, port: u16) -> String {
    let cluster = format!(
        "
  - name: {name}
    connect_timeout: 1s
    load_assignment:
      cluster_name: {name}
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]"
    );
    let begin =
        text.find("\n  clusters:").expect("the bootstrap has clusters") + "\n  clusters:".len();
    format!("{}{cluster}{}", &text[..begin], &text[begin..])
}
