//! What came out: a table for people, and `target/bench/report.json`.

use std::fs;
use std::process::ExitCode;

use host_tests::repository;
use serde_json::{Map, Value, json};

use crate::bars::{self, Bar, Ratio};
use crate::row::Row;

/// With less than this of its core in use, the contender was not what the requests waited for.
pub const BUSY: f64 = 0.9;

/// One line of the table.
pub struct Figure {
    /// Its name.
    pub name: String,
    /// What the values are.
    pub unit: &'static str,
    /// One of each round.
    pub values: Vec<f64>,
    /// Of rows with a load: processor time for each answer in microseconds, share of the core in use, of ours, latency
    /// (median and 99 %) in microseconds. Medians.
    pub load: Option<[f64; 5]>,
}

impl Figure {
    /// A figure that is no load.
    pub fn new(name: &str, unit: &'static str, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit, values, load: None }
    }

    /// What a row has shown, if it did not fail.
    pub fn of(row: &Row) -> Option<Self> {
        let samples = &row.samples;
        if row.fault.is_some() || samples.is_empty() {
            return None;
        }
        let all = [0, 1, 2, 3, 4].map(|part| {
            let part = samples.iter().map(|sample| {
                [sample.cpu, sample.busy, sample.busy_here, sample.latency[0], sample.latency[1]]
                    [part]
            });
            median(&part.collect::<Vec<_>>())
        });
        let values = samples.iter().map(|sample| sample.rate).collect();
        Some(Self { name: row.name.clone(), unit: row.unit, values, load: Some(all) })
    }

    /// The median of the rounds.
    pub fn median(&self) -> f64 {
        median(&self.values)
    }

    /// Whether the contender was what the requests waited for.
    pub fn counts(&self) -> bool {
        self.load.is_none_or(|[_, busy, ..]| busy >= BUSY)
    }

    fn bounds(&self) -> [f64; 2] {
        bounds(&self.values)
    }

    fn to_json(&self) -> Value {
        let [min, max] = self.bounds();
        let mut row = json!({
            "median": round(self.median()), "min": round(min), "max": round(max), "unit": self.unit,
        });
        if let Some(load) = self.load {
            let names = ["cpu_us", "busy", "busy_load", "p50_us", "p99_us"];
            for (name, value) in names.into_iter().zip(load) {
                row[name] = json!(round(value));
            }
        }
        row
    }
}

/// What is known besides the rows.
pub struct About {
    /// The machine.
    pub machine: String,
    /// Which Envoy.
    pub envoy: String,
    /// How many rounds there were.
    pub rounds: usize,
    /// Whether the contenders had a core of their own.
    pub pinned: bool,
    /// The size of the filter.
    pub wasm_bytes: u64,
}

/// Says how a row went in the round that just ended.
pub fn progress(row: &Row) {
    let Row { name, unit, samples, fault, .. } = row;
    match (fault, samples.last()) {
        (Some(_), _) => eprintln!("  {name:<26} FAILED"),
        (None, Some(sample)) => {
            eprintln!("  {name:<26} {:>9.0} {unit}, busy {:.2}", sample.rate, sample.busy);
        }
        (None, None) => {}
    }
}

/// All that was found, and what could not be.
#[derive(Default)]
pub struct Outcome {
    figures: Vec<Figure>,
    /// By name of the row.
    failed: Map<String, Value>,
}

impl Outcome {
    /// That of these rows.
    pub fn of(rows: &[Row]) -> Self {
        let failed =
            rows.iter().filter_map(|row| Some((row.name.clone(), json!(row.fault.as_ref()?))));
        let mut figures: Vec<_> = rows.iter().filter_map(Figure::of).collect();
        figures.sort_by(|one, other| one.name.get(..1).cmp(&other.name.get(..1)));
        Self { figures, failed: failed.collect() }
    }

    /// And that of the rows of this letter.
    pub fn add(&mut self, letter: &str, figures: Result<Vec<Figure>, String>) {
        match figures {
            Ok(figures) => self.figures.extend(figures),
            Err(why) => {
                self.failed.insert(letter.into(), json!(why));
            }
        }
    }

    /// Prints the tables and writes the report. Fails if a row did.
    pub fn write(&self, about: &About) -> ExitCode {
        println!("\n{}, Envoy {}, {} rounds\n", about.machine, about.envoy, about.rounds);
        table(&self.figures);
        if !about.pinned {
            println!("\nWARNING: without `taskset` the load takes time from what it measures.");
        }
        let ratios = bars::ratios(&self.figures);
        let bars = bars::bars(&ratios, &self.figures, about);
        bars::table(&bars);
        for (name, why) in &self.failed {
            println!("\nFAILED: {name}: {}", why.as_str().unwrap_or_default());
        }
        let file = repository().join("target/bench/report.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let report = serde_json::to_string_pretty(&self.json(about, &ratios, &bars)).unwrap();
        fs::write(&file, report).unwrap();
        println!("\n{}", file.display());
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn json(&self, about: &About, ratios: &[Ratio], bars: &[Bar]) -> Value {
        let median = |name| Some(round(bars::find(&self.figures, name)?.median()));
        let rows = self.figures.iter().map(|figure| (figure.name.clone(), figure.to_json()));
        let ratios = ratios.iter().map(|ratio| (ratio.name.clone(), json!(round(ratio.value))));
        json!({
            "machine": about.machine,
            "envoy": about.envoy,
            "rounds": about.rounds,
            "pinned": about.pinned,
            "rows": rows.collect::<Map<_, _>>(),
            "ratios": ratios.collect::<Map<_, _>>(),
            "grants_per_s": median(bars::GRANTS),
            "wasm_bytes": about.wasm_bytes,
            "worker_mib": median(bars::WORKER),
            "bars": bars.iter().map(Bar::to_json).collect::<Vec<_>>(),
            "failed": self.failed,
        })
    }
}

fn table(figures: &[Figure]) {
    println!(
        "{:<26} {:>10} {:>21}  {:<11} {:>9} {:>5} {:>7} {:>7}",
        "row", "median", "(min .. max)", "", "CPU us", "busy", "p50 us", "p99 us"
    );
    for figure in figures {
        let [min, max] = figure.bounds().map(short);
        let spread = format!("({min} .. {max})");
        let middle = short(figure.median());
        print!("{:<26} {middle:>10} {spread:>21}  {:<11}", figure.name, figure.unit);
        if let Some([cpu, busy, _, p50, p99]) = figure.load {
            print!(" {cpu:>9.1} {busy:>5.2} {p50:>7.0} {p99:>7.0}");
        }
        let note =
            "  <- DOES NOT COUNT: it was not busy, and something else was what the load waited for";
        println!("{}", if figure.counts() { "" } else { note });
    }
}

/// The one in the middle, or between the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

/// The least and the greatest.
pub fn bounds(values: &[f64]) -> [f64; 2] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    [least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max)]
}

/// Three digits behind the point are more than there is to know.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}
