//! The official conformance scenario for EMA clients, with this as the client: a legacy client that has an API key and
//! knows nothing of EMA, and an Envoy with the filter that does the rest.
//!
//! `cargo conformance` runs it and prints each check. The suite calls this program back as `conformance client URL`.

mod client;
mod suite;

use std::process::ExitCode;

use suite::Outcome;

#[tokio::main]
async fn main() -> ExitCode {
    // The alias ends in `--`, and so does what people are used to write.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => report(suite::run().await),
        ["client", url] => client::run(url).await,
        _ => {
            eprintln!("usage: cargo conformance");
            ExitCode::from(2)
        }
    }
}

fn report(outcome: Result<Outcome, String>) -> ExitCode {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(why) => {
            println!("conformance: cannot run: {why}");
            return ExitCode::from(2);
        }
    };
    for check in &outcome.checks {
        println!("{:<8} {}: {}", check.status, check.id, check.description);
    }
    if !outcome.passed {
        println!("\n{}", outcome.words);
    }
    println!("conformance: {} passed, {} failed", outcome.passes(), outcome.failures());
    if outcome.passed && outcome.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
