//! An Envoy bootstrap as far as it concerns Jagway: where the filter stands, with what around it.
//!
//! A field is found under both names that proto3 JSON allows, `vm_config` and `vmConfig`.

use std::collections::BTreeSet;

use serde_json::Value;

const CONNECTION_MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const WASM_FILTER: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING_VALUE: &str = "google.protobuf.StringValue";

/// What is in one file.
pub struct Bootstrap {
    /// Every instance of the filter, in the order of the file.
    pub filters: Vec<Filter>,
    /// The names of the static clusters.
    pub clusters: BTreeSet<String>,
    /// Whether more clusters come while Envoy runs.
    pub has_cds: bool,
    /// Whether more listeners do, which nobody sees here.
    pub has_lds: bool,
}

/// One instance of the filter.
pub struct Filter {
    /// Listener and filter, by name.
    pub place: String,
    /// The listener it stands in.
    pub listener: Value,
    /// The HTTP connection manager it stands in.
    pub connection_manager: Value,
    /// The plugin: `PluginConfig`.
    pub plugin: Value,
    /// Its configuration as the filter would get it.
    pub document: String,
}

impl Bootstrap {
    /// Reads YAML, and so JSON too. A key that stands twice is an error.
    pub fn parse(yaml: &str) -> Result<Self, String> {
        let bootstrap: Value = serde_saphyr::from_str(yaml)
            .map_err(|error| format!("is no YAML: {}", error.without_snippet()))?;
        let resources = field(&bootstrap, "static_resources");
        let dynamic = field(&bootstrap, "dynamic_resources");
        let mut filters = Vec::new();
        for (index, listener) in items(field(resources, "listeners")).iter().enumerate() {
            let listener_name = name(listener, &format!("listeners[{index}]"));
            for manager in of_type(listener, CONNECTION_MANAGER) {
                for (index, entry) in items(field(manager, "http_filters")).iter().enumerate() {
                    let filter_name = name(entry, &format!("http_filters[{index}]"));
                    let place = format!("{listener_name}/{filter_name}");
                    let plugins = of_type(entry, WASM_FILTER).into_iter();
                    filters
                        .extend(plugins.filter_map(|wasm| filter(&place, listener, manager, wasm)));
                }
            }
        }
        let clusters = items(field(resources, "clusters")).iter();
        Ok(Self {
            filters,
            clusters: clusters.map(|cluster| text(field(cluster, "name")).to_owned()).collect(),
            has_cds: !field(dynamic, "cds_config").is_null(),
            has_lds: !field(dynamic, "lds_config").is_null(),
        })
    }
}

impl Filter {
    /// The configuration's fields, or nothing if it is no object.
    pub fn fields(&self) -> Value {
        serde_json::from_str(&self.document).unwrap_or_default()
    }
}

/// The member of this name; null if there is none.
pub fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        camel += &(first.to_ascii_uppercase() + rest);
    }
    object.get(name).or_else(|| object.get(&camel)).unwrap_or(&Value::Null)
}

/// The elements of a list; none if it is no list.
pub fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// A string's text; empty if it is no string.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `wasm` as Jagway, if it looks like it. Other modules may stand beside it.
fn filter(place: &str, listener: &Value, manager: &Value, wasm: &Value) -> Option<Filter> {
    let plugin = field(wasm, "config");
    let configuration = field(plugin, "configuration");
    let value = field(configuration, "value");
    let (document, looks_like) = if is(configuration, STRING_VALUE) {
        (text(value).to_owned(), text(value).contains("\"resources\""))
    } else {
        (value.to_string(), value.get("resources").is_some())
    };
    // One that calls itself Jagway is checked even if it forgot `resources`.
    let is_ours = looks_like || text(field(plugin, "root_id")) == "jagway";
    is_ours.then(|| Filter {
        place: place.to_owned(),
        listener: listener.clone(),
        connection_manager: manager.clone(),
        plugin: plugin.clone(),
        document,
    })
}

/// Every message of this type in `value`, however deep: filters may be wrapped in other filters.
fn of_type<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(_) if is(value, name) => vec![value],
        Value::Object(members) => {
            members.values().flat_map(|member| of_type(member, name)).collect()
        }
        Value::Array(list) => list.iter().flat_map(|element| of_type(element, name)).collect(),
        _ => Vec::new(),
    }
}

fn is(message: &Value, name: &str) -> bool {
    text(field(message, "@type")).rsplit('/').next() == Some(name)
}

fn name(named: &Value, otherwise: &str) -> String {
    match text(field(named, "name")) {
        "" => otherwise.to_owned(),
        name => name.to_owned(),
    }
}
