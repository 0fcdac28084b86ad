//! The module as it is shipped: what it asks of its host, and what it weighs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use host_tests::wasm;
use wasmparser::{Parser, Payload};

/// Every worker of every proxy holds a copy of the compiled module.
const LARGEST: usize = 1_500_000;

#[test]
fn the_module_asks_its_host_for_proxy_wasm_and_wasi_only() {
    let module = fs::read(wasm::filter()).unwrap();

    let imports = imports(&module);

    let known = |module: &str, name: &str| match module {
        "env" => name.starts_with("proxy_"),
        other => other == "wasi_snapshot_preview1",
    };
    let strange: Vec<_> = imports.iter().filter(|(module, name)| !known(module, name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(imports.contains(&("env", "proxy_http_call")), "{imports:?}");
}

#[test]
fn the_module_is_no_larger_than_its_bound() {
    let size = fs::metadata(wasm::filter()).unwrap().len() as usize;

    println!("jagway.wasm: {size} bytes");

    assert!(size <= LARGEST, "{size} bytes, and {LARGEST} are allowed");
}

fn imports(module: &[u8]) -> Vec<(&str, &str)> {
    let sections = Parser::new(0).parse_all(module).map(|payload| payload.unwrap());
    let imports = sections.filter_map(|section| match section {
        Payload::ImportSection(imports) => Some(imports),
        _ => None,
    });
    imports
        .flat_map(|imports| imports.into_imports())
        .map(|import| import.unwrap())
        .map(|import| (import.module, import.name))
        .collect()
}
