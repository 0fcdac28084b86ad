//! The demo: both directions and four refusals, told hop by hop, against a real Envoy with the filter.
//!
//! `cargo demo` runs it once; `cargo demo -- --hold` keeps the world up afterwards for you to try.

mod hold;
mod show;
mod steps;

use std::process::ExitCode;
use std::time::Instant;

use host_tests::{Options, World, wasm};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    // The alias ends in `--`, and so does what people are used to write.
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--");
    let held = match arguments.collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--hold" => true,
        _ => {
            eprintln!("usage: cargo demo [-- --hold]");
            return ExitCode::from(2);
        }
    };
    let mut ended = signal(SignalKind::terminate()).unwrap();
    // Whoever wins, the world is dropped and takes its processes along.
    tokio::select! {
        code = run(held) => code,
        _ = tokio::signal::ctrl_c() => stopped(130),
        _ = ended.recv() => stopped(143),
    }
}

async fn run(held: bool) -> ExitCode {
    println!("Building the filter ...");
    if tokio::task::spawn_blocking(wasm::filter).await.is_err() {
        return ExitCode::FAILURE;
    }

    println!(
        "Starting an IdP, an authorization server, two MCP servers, and Envoy with the filter ..."
    );
    let began = Instant::now();
    let world = World::start(Options::default()).await;

    if let Err(why) = steps::all(&world).await {
        show::failure(&why, &world);
        return ExitCode::FAILURE;
    }
    show::success(began.elapsed());
    if held {
        hold::hold(&world).await;
    }
    ExitCode::SUCCESS
}

/// Stopped while it held the world, the demo has done its work; stopped before, it has shown nothing.
fn stopped(signalled: u8) -> ExitCode {
    println!("\nStopped, and everything with it.");
    if hold::clean_up() { ExitCode::SUCCESS } else { ExitCode::from(signalled) }
}
