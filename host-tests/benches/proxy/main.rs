//! Jagway in the real Envoy beside what a user would otherwise take, all in one run. README.md says how to read it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod arguments;
mod bars;
mod contenders;
mod cpu;
mod gateway;
mod grants;
mod growth;
mod load;
mod memory;
mod report;
mod row;
mod scene;
mod tokens;
mod upgrade;
mod upstream;
mod wire;

use std::process::ExitCode;
use std::time::Instant;

use tokio::task::LocalSet;

use arguments::Arguments;
use cpu::Process;
use report::{About, Outcome};
use row::Row;
use scene::Scene;
use upgrade::Cold;

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            println!("{why}");
            return ExitCode::SUCCESS;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, run(&arguments))
}

async fn run(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let pinned = Process::this().pin(cpu::OTHER);
    let scene = Scene::start().await;
    let mut rows: Vec<Row> = contenders::rows(&scene, arguments).await;
    if arguments.hold {
        for row in &rows {
            println!("{} at {}", row.name, row.target.address);
            row.wrk().iter().for_each(|command| println!("    {command}"));
        }
        println!("until Ctrl-C");
        let _ = tokio::signal::ctrl_c().await;
        return ExitCode::SUCCESS;
    }
    let mut cold = match arguments.want("i") {
        true => Some(Cold::start(&scene).await),
        false => None,
    };
    for round in 0..arguments.rounds {
        eprintln!("round {} of {} ({} s)", round + 1, arguments.rounds, began.elapsed().as_secs());
        for slice in round * arguments.slices..(round + 1) * arguments.slices {
            // Forth and back: what slows the machine down for a while slows both of two rows, whichever comes first.
            match slice % 2 {
                0 => go(slice, rows.iter_mut(), arguments).await,
                _ => go(slice, rows.iter_mut().rev(), arguments).await,
            }
        }
        for row in &mut rows {
            row.end_round();
            report::progress(row);
        }
        if let Some(cold) = &mut cold {
            cold.run(arguments.cold).await;
        }
    }
    // What one more worker keeps is a difference of two processes: the others end before.
    let mut outcome = Outcome::of(&rows);
    drop(rows);
    if let Some(cold) = cold {
        outcome.add("i", cold.figures());
    }
    if arguments.want("k") {
        outcome.add("k", memory::figures(&scene).await);
    }
    eprintln!("{} s in all", began.elapsed().as_secs());
    outcome.write(&About {
        machine: cpu::machine(),
        envoy: host_tests::envoy_binary::version(),
        rounds: arguments.rounds,
        pinned,
        wasm_bytes: std::fs::metadata(&scene.jagway).unwrap().len(),
    })
}

async fn go<'a>(slice: usize, rows: impl Iterator<Item = &'a mut Row>, arguments: &Arguments) {
    for row in rows {
        row.run(slice, arguments.plan).await;
    }
}
