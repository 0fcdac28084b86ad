//! Changes to the bootstrap, for [`Options::patch_bootstrap`](crate::Options): they compose, text in, text out.

/// The bootstrap in which the filter of the egress listener sees these in its environment, too.
pub fn with_egress_env<'a>(text: String, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: String = names.into_iter().flat_map(|name| [", ", name]).collect();
    text.replace("CI_BOT_REFRESH]", &format!("CI_BOT_REFRESH{names}]"))
}

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
