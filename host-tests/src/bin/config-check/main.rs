//! Checks Envoy bootstraps for what the filter itself cannot see when it loads.
//!
//! `cargo config-check [--no-secrets] FILE.yaml ...`. Envoy gives the filter the same answer for a
//! cluster whose name is not resolved yet and for one that does not exist, so the filter must not
//! refuse the latter when it loads; and of its own surroundings it sees nothing at all.

mod checks;
mod environment;

use std::process::ExitCode;

use checks::Finding;
use host_tests::bootstrap::Bootstrap;

const USAGE: &str = "usage: cargo config-check [--no-secrets] FILE.yaml ...";

/// What was looked at, and what was found.
#[derive(Default)]
struct Count {
    files: usize,
    filters: usize,
    errors: usize,
    warnings: usize,
}

fn main() -> ExitCode {
    let (flags, files): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--")
        .partition(|argument| argument.starts_with('-'));
    if files.is_empty() || flags.iter().any(|flag| flag != "--no-secrets") {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }

    let mut count = Count::default();
    for file in &files {
        check(file, !flags.is_empty(), &mut count);
    }

    println!(
        "{} in {}: {}, {}",
        counted(count.filters, "filter"),
        counted(count.files, "file"),
        counted(count.errors, "error"),
        counted(count.warnings, "warning"),
    );
    if count.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(file: &str, no_secrets: bool, count: &mut Count) {
    count.files += 1;
    let bootstrap = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|yaml| Bootstrap::parse(&yaml));
    let bootstrap = match bootstrap {
        Ok(bootstrap) => bootstrap,
        Err(problem) => return report(file, &Finding::error("(file)", problem), count),
    };
    if bootstrap.filters.is_empty() {
        // Else a check that looks at the wrong file would pass for ever.
        let unseen = if bootstrap.has_lds { " (listeners from LDS are not seen here)" } else { "" };
        let problem = format!("has no Jagway filter{unseen}");
        report(file, &Finding::error("(file)", problem), count);
    }
    for filter in &bootstrap.filters {
        count.filters += 1;
        for finding in checks::findings(&bootstrap, filter, no_secrets) {
            report(&format!("{file}: {}", filter.place), &finding, count);
        }
    }
}

fn report(place: &str, finding: &Finding, count: &mut Count) {
    let Finding { is_warning, path, problem } = finding;
    let mark = if *is_warning { "warning: " } else { "" };
    *(if *is_warning { &mut count.warnings } else { &mut count.errors }) += 1;
    println!("{place}: {path}: {mark}{problem}");
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
