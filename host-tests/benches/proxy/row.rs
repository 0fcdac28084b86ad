//! One line of the table: a contender under one kind of load, in every round.

use std::rc::Rc;
use std::time::Duration;

use crate::load::{CONNECTIONS, Credentials, Expected, Plan, Requests, Sample, Target, measure};
use crate::scene::ANSWER;
use crate::tokens::Pool;

/// More than this does not have to be remembered by anybody.
const MOST_AT_FIRST: usize = 10_000;

/// A contender under load.
pub struct Row {
    /// Its name in table and report. The first letter is the kind of row.
    pub name: String,
    /// What is counted.
    pub unit: &'static str,
    /// Who is under load.
    pub target: Rc<Target>,
    /// What is sent around each credential, for one of this length.
    pub around: Box<Around>,
    /// The credentials.
    pub supply: Supply,
    /// Those that come in turn all come once before the first window; the next one then.
    pub next: usize,
    /// What must be answered.
    pub expected: Expected,
    /// What the slices of this round have shown.
    pub slices: Vec<Sample>,
    /// What the rounds have shown.
    pub samples: Vec<Sample>,
    /// Why it counts no longer.
    pub fault: Option<String>,
}

/// How often a slice is tried that tells nothing.
const ATTEMPTS: usize = 3;

/// What comes before and after a credential of so many bytes.
pub type Around = dyn Fn(usize) -> (Vec<u8>, Vec<u8>);

/// Where credentials come from.
pub enum Supply {
    /// These in turn, again and again.
    Same(Rc<Vec<String>>),
    /// None comes twice.
    New(Rc<Pool>),
}

impl Row {
    /// A row of requests that the MCP server answers.
    pub fn new(name: &str, target: &Rc<Target>, supply: Supply, around: Box<Around>) -> Self {
        Self {
            name: name.into(),
            unit: "requests/s",
            target: target.clone(),
            around,
            supply,
            next: 0,
            expected: Expected::Body(ANSWER.into()),
            slices: vec![],
            samples: vec![],
            fault: None,
        }
    }

    /// The slices so far were one round. The fastest stands for it: whoever else is on the machine makes a slice slower,
    /// and none faster.
    pub fn end_round(&mut self) {
        let fastest = self.slices.drain(..).max_by(|one, other| one.rate.total_cmp(&other.rate));
        match fastest {
            Some(fastest) => self.samples.push(fastest),
            None => drop(self.fault.get_or_insert("a whole round told nothing".into())),
        }
    }

    /// One slice of all, the first of which is 0.
    pub async fn run(&mut self, slice: usize, plan: Plan) {
        for attempt in 0..ATTEMPTS {
            if self.fault.is_some() {
                return;
            }
            match self.window(slice * ATTEMPTS + attempt, slice == 0, plan).await {
                Ok(Sample { flaw: Some(flaw), .. }) => eprintln!("  {}: {flaw}", self.name),
                Ok(sample) => return self.slices.push(sample),
                Err(why) => self.fault = Some(format!("{why}\n{}", self.target.last_words())),
            }
        }
    }

    /// One window. New tokens are those of this `batch`.
    async fn window(
        &mut self,
        batch: usize,
        is_first: bool,
        mut plan: Plan,
    ) -> Result<Sample, String> {
        let (credentials, count) = match &self.supply {
            Supply::Same(all) => (Credentials::InTurn(all.clone()), all.len()),
            Supply::New(pool) => (Credentials::Once(pool.batch(batch)), 0),
        };
        if is_first {
            // What the VM runs often is compiled anew in the background: nothing of that belongs into a window.
            plan.warm_up = plan.first;
            plan.at_first = count.min(MOST_AT_FIRST);
        }
        let (Credentials::InTurn(all) | Credentials::Once(all)) = &credentials;
        let (head, tail) = (self.around)(all.first().map_or(0, String::len));
        let requests = Requests { head, credentials, tail, first: self.next };
        let sample = measure(&self.target, requests, self.expected.clone(), plan).await?;
        match &self.supply {
            Supply::Same(_) => self.next = sample.next,
            // Were there too few, three times as many will do, or three times as many as these.
            Supply::New(pool) if sample.flaw.is_some() => pool.want(sample.next * 3),
            Supply::New(pool) => pool.used(sample.next),
        }
        Ok(sample)
    }

    /// The command that puts the same load on it with `wrk`, if the request is always the same and has no body.
    pub fn wrk(&self) -> Option<String> {
        let Supply::Same(all) = &self.supply else { return None };
        let [credential] = all.as_slice() else { return None };
        let (head, tail) = (self.around)(credential.len());
        let request = [&head, credential.as_bytes(), &tail].concat();
        let text = String::from_utf8(request).ok()?;
        let lines: Vec<_> = text.strip_suffix("\r\n\r\n")?.split("\r\n").collect();
        let path = lines.first()?.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?;
        let headers: String = lines[1..].iter().map(|line| format!(" -H '{line}'")).collect();
        let (connections, address) = (CONNECTIONS, self.target.address);
        Some(format!("taskset -c 1 wrk -t1 -c{connections} -d5{headers} http://{address}{path}"))
    }

    /// How many tokens the first slice of a row takes that answers `rate` requests each second.
    pub fn first_slice(rate: usize, plan: Plan) -> usize {
        let time: Duration = plan.first + plan.window;
        (rate as f64 * time.as_secs_f64()) as usize
    }
}
