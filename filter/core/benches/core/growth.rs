//! What grows with the configuration, with what is remembered, and with the message.

use crate::support::{NOW, accept_config, env, parse, request};
use criterion::Criterion;
use jagway_core::config::Config;
use jagway_core::mcp;
use jagway_core::replay::{self, Kind, Spend};
use jagway_core::routes::route;
use jagway_core::store::{Store, Unavailable};
use serde_json::{Value, json};
use std::hint::black_box;

pub fn measure(criterion: &mut Criterion) {
    for resources in [1, 1_000] {
        let document = config_of(resources);
        let text = document.to_string();
        criterion.bench_function(&format!("config/parse/{resources}"), |bencher| {
            bencher.iter(|| Config::parse(black_box(text.as_bytes()), &env).unwrap());
        });
        let config = parse(&document);
        let path = format!("/warehouse/{}", resources - 1);
        let request = request("POST", "mcp.acme.example", &path, &[]);
        assert!(route(&config, &request).is_ok());
        criterion.bench_function(&format!("route/{resources}"), |bencher| {
            bencher.iter(|| route(&config, black_box(&request)));
        });
    }
    for entries in [0, 127] {
        let store = Still(vec![0xff; entries * 24]);
        let name = replay::name("as", "idp", "1", 0);
        let spend = || replay::spend(&store, Kind::Grant(1), black_box(&name), NOW + 300, NOW);
        assert_eq!(spend(), Ok(Spend::First));
        criterion.bench_function(&format!("replay/spend/{entries} in its bucket"), |bencher| {
            bencher.iter(spend);
        });
    }
    for kibibytes in [1, 64] {
        let message = message_of(kibibytes * 1024);
        criterion.bench_function(&format!("mcp/read/{kibibytes} KiB"), |bencher| {
            bencher.iter(|| mcp::read(black_box(&message)).unwrap());
        });
    }
}

/// A configuration of so many resources that are accepted for, with a backend each.
fn config_of(resources: usize) -> Value {
    let mut config = accept_config();
    let resource = config["resources"][0].clone();
    let resources = (0..resources).map(|number| {
        let mut resource = resource.clone();
        resource["resource"] = json!(format!("https://mcp.acme.example/warehouse/{number}"));
        resource
    });
    config["resources"] = resources.collect();
    config
}

/// A call of a tool, of about so many bytes: an object of many short members.
fn message_of(size: usize) -> Vec<u8> {
    let members = (0..size / 32).map(|number| (format!("name-{number:05}"), json!("value of it")));
    let arguments = Value::Object(members.collect());
    let params = json!({ "name": "search", "arguments": arguments });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    message.to_string().into_bytes()
}

/// A store that has these bytes under every key, whatever is written.
struct Still(Vec<u8>);

impl Store for Still {
    fn get(&self, _: &str) -> Result<(Vec<u8>, u32), Unavailable> {
        Ok((self.0.clone(), 1))
    }

    fn swap(&self, _: &str, value: &[u8], _: u32) -> Result<bool, Unavailable> {
        black_box(value);
        Ok(true)
    }
}
