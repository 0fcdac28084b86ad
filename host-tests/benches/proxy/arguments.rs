//! What stands behind `cargo bench --bench proxy --`.

use std::time::Duration;

use crate::load::Plan;

/// How, and what, to run.
pub struct Arguments {
    /// The letters of the rows; none are all.
    letters: Vec<String>,
    /// How often everything is measured.
    pub rounds: usize,
    /// In how many slices, one row's between another's.
    pub slices: usize,
    /// How long a slice is.
    pub plan: Plan,
    /// Whether to start everything and leave the load to others.
    pub hold: bool,
    /// How many cold requests there are in a round.
    pub cold: usize,
}

impl Arguments {
    /// Reads them. An error says why there is nothing to do.
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let all: Vec<String> = arguments.collect();
        let has = |name: &str| all.iter().any(|argument| argument == name);
        if !has("--bench") {
            return Err("proxy: runs with `cargo bench` only".into());
        }
        let letters: Vec<_> =
            all.iter().filter(|argument| !argument.starts_with('-')).cloned().collect();
        if let Some(other) = letters.iter().find(|letter| letter.len() != 1) {
            return Err(format!("proxy: rows are named by one letter, which `{other}` is not"));
        }
        let (rounds, slices, first, cold) = match has("--quick") {
            true => (2, 2, 0.5, 100),
            false => (9, 12, 2.0, 200),
        };
        let plan = Plan {
            first: Duration::from_secs_f64(first),
            warm_up: Duration::from_secs_f64(0.05),
            at_first: 0,
            window: Duration::from_secs_f64(0.1),
        };
        Ok(Self { letters, hold: has("--hold"), rounds, slices, plan, cold })
    }

    /// Whether the rows of this letter are wanted.
    pub fn want(&self, letter: &str) -> bool {
        self.letters.is_empty() || self.letters.iter().any(|wanted| wanted == letter)
    }
}
