//! Where the instructions of a request go: by callback and by function, for each journey of the test `warm_path`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/counted/mod.rs"]
mod counted;
#[path = "../../filter/core/tests/support/mod.rs"]
mod parts;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::Command;

use counted::journey::{Journey, renamed};
use counted::{Counts, profile};
use host_tests::repository;
use parts::{accept_config, upgrade_config};

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("instructions: runs with `cargo bench` only");
    }
    let build = ["build", "--release", "-p", "jagway", "--target", "wasm32-wasip1"];
    let mut cargo = Command::new("cargo");
    cargo.args(build).args(["--target-dir", "target/profile"]).current_dir(repository());
    // As it is shipped, but for the names.
    assert!(cargo.env("CARGO_PROFILE_RELEASE_STRIP", "none").status().unwrap().success());
    let path = repository().join("target/profile/wasm32-wasip1/release/jagway.wasm");
    let module = std::fs::read(path).unwrap();
    let names = profile::names(&module);
    let [mut accept, mut upgrade] =
        [accept_config(), upgrade_config()].map(|config| Journey::of(&module, &config, true));
    let (token, _) = accept.grant(0);
    (0..20).for_each(|_| drop((accept.accept(&token), upgrade.upgrade())));

    upgrade.worker.take_profile();
    let counts = upgrade.upgrade();
    show("upgrade, warm", &counts, upgrade.worker.take_profile(), &names);
    accept.worker.take_profile();
    let counts = accept.accept(&token);
    show("accept, warm", &counts, accept.worker.take_profile(), &names);
    let counts = accept.accept(&renamed(&token, 1));
    show("accept, new token", &counts, accept.worker.take_profile(), &names);
    let (_, counts) = accept.grant(1);
    show("grant", &counts, accept.worker.take_profile(), &names);
}

fn show(
    journey: &str,
    counts: &Counts,
    costs: BTreeMap<u32, profile::Cost>,
    names: &BTreeMap<u32, String>,
) {
    println!("\n== {journey}: {} instructions\n{:?}", counts.total(), counts.calls);
    for (callback, count) in &counts.instructions {
        println!("{count:>36} {callback}");
    }
    let mut costs: Vec<_> = costs.into_iter().collect();
    for by_own in [true, false] {
        costs.sort_by_key(|(_, cost)| Reverse(if by_own { cost.own } else { cost.all }));
        println!("\n-- {journey}\n{:>10} {:>12} {:>12}", "calls", "own", "all");
        for (function, profile::Cost { calls, own, all }) in costs.iter().take(60) {
            let name = names.get(function).map_or("?", String::as_str);
            println!("{calls:>10} {own:>12} {all:>12} {name}");
        }
    }
}
