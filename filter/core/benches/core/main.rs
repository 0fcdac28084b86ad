//! The core's own time, natively: `cargo bench -p jagway-core`, half a minute once it is built.
//!
//! For comparing one tree with another on one machine. What the module costs in a proxy is measured there; what it
//! costs in instructions is held by `host-tests/tests/warm_path.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod growth;
mod requests;
#[path = "../../tests/support/mod.rs"]
mod support;
mod tokens;

use criterion::Criterion;
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .configure_from_args();
    tokens::measure(&mut criterion);
    requests::measure(&mut criterion);
    growth::measure(&mut criterion);
    criterion.final_summary();
}
