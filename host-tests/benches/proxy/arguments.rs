//! What stands behind `cargo bench --bench proxy --`.

use std::time::Duration;

use crate::load::Plan;

/// How, and what, to run.
pub struct Arguments {
    /// The letters of the rows; none are all.
    letters: Vec<String>,
    /// How often everything is measured.
    pub rounds: usize,
    /// How long each time.
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
        let seconds = |warm_up, window| Plan {
            warm_up: Duration::from_secs_f64(warm_up),
            at_first: 0,
            window: Duration::from_secs_f64(window),
        };
        let hold = has("--hold");
        Ok(match has("--quick") {
            true => Self { letters, hold, rounds: 2, plan: seconds(0.3, 0.7), cold: 100 },
            false => Self { letters, hold, rounds: 9, plan: seconds(0.4, 1.2), cold: 200 },
        })
    }

    /// Whether the rows of this letter are wanted.
    pub fn want(&self, letter: &str) -> bool {
        self.letters.is_empty() || self.letters.iter().any(|wanted| wanted == letter)
    }
}
