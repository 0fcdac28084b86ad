//! A protocol journey as a straight line: an `async fn` that waits for callouts and jobs.
//!
//! There is no executor. [`start`] and [`Flow::resume`] run a journey up to its next wait and return
//! what it waits for. Time and entropy come in with each step.

use crate::digest::{Key, of_fields};
use crate::http::{Answer, CallFailed, Callout};
use crate::job::{Job, JobError, Value, Want};
use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::rc::Rc;

/// When a step happens, and the chance it may use.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Seconds since the epoch.
    pub now: u64,
    /// Fresh random bytes of the host, used for nothing else.
    pub entropy: [u8; 32],
}

/// What a flow waits for.
#[derive(Debug)]
pub enum Ask {
    /// A request to be made.
    Call(Callout),
    /// The result of a job that runs once for the whole process.
    Job(Job, Want),
    /// The worker's next tick.
    Pause,
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Told {
    /// To [`Ask::Call`].
    Call(Result<Answer, CallFailed>),
    /// To [`Ask::Job`].
    Job(Result<Value, JobError>),
    /// To [`Ask::Pause`].
    Paused,
}

/// A journey that waits. Resuming consumes it, so a finished one cannot be resumed.
pub struct Flow<T> {
    journey: Pin<Box<dyn Future<Output = T>>>,
    desk: Rc<Desk>,
}

/// Where a flow stands.
pub enum Step<T> {
    /// It waits.
    Ask(Ask, Flow<T>),
    /// It is over.
    Done(T),
    /// It waits for nothing that exists: a fault of ours, never of the input.
    Lost,
}

/// The flow's side: how a journey asks.
#[derive(Clone)]
pub struct Ctx {
    desk: Rc<Desk>,
}

struct Desk {
    ask: Cell<Option<Ask>>,
    told: Cell<Option<Told>>,
    moment: Cell<Moment>,
    drawn: Cell<u64>,
    has_waited: Cell<bool>,
}

/// Runs `journey` up to its first wait.
pub fn start<T, F>(journey: impl FnOnce(Ctx) -> F, moment: Moment) -> Step<T>
where
    F: Future<Output = T> + 'static,
{
    let desk = Rc::new(Desk {
        ask: Cell::new(None),
        told: Cell::new(None),
        moment: Cell::new(moment),
        drawn: Cell::new(0),
        has_waited: Cell::new(false),
    });
    let journey = Box::pin(journey(Ctx { desk: desk.clone() }));
    Flow { journey, desk }.run()
}

impl<T> Flow<T> {
    /// Runs the journey from where it waits to its next wait.
    pub fn resume(self, told: Told, moment: Moment) -> Step<T> {
        self.desk.told.set(Some(told));
        self.desk.moment.set(moment);
        self.desk.has_waited.set(true);
        self.run()
    }

    fn run(mut self) -> Step<T> {
        match self.journey.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Step::Done(outcome),
            Poll::Pending => match self.desk.ask.take() {
                Some(ask) => Step::Ask(ask, self),
                None => Step::Lost,
            },
        }
    }
}

impl Ctx {
    /// Now, in seconds since the epoch.
    pub fn now(&self) -> u64 {
        self.desk.moment.get().now
    }

    /// Whether anything was waited for: what was true at the start may not be now.
    pub fn has_waited(&self) -> bool {
        self.desk.has_waited.get()
    }

    /// 256 bits that differ with every call.
    pub fn random(&self) -> Key {
        let drawn = self.desk.drawn.get();
        self.desk.drawn.set(drawn.wrapping_add(1));
        of_fields(&[b"random", &self.desk.moment.get().entropy, &drawn.to_be_bytes()])
    }

    /// Makes a request and waits for its answer.
    pub async fn call(&self, callout: Callout) -> Result<Answer, CallFailed> {
        match self.ask(Ask::Call(callout)).await {
            Told::Call(answer) => answer,
            Told::Job(_) | Told::Paused => Err(CallFailed::NoAnswer),
        }
    }

    /// Waits for the result of `job`, which runs once for the whole process.
    pub async fn job(&self, job: Job, want: Want) -> Result<Value, JobError> {
        match self.ask(Ask::Job(job, want)).await {
            Told::Job(result) => result,
            Told::Call(_) | Told::Paused => Err(JobError::Unavailable),
        }
    }

    /// Waits for the worker's next tick, about a second. Whoever loops over this counts.
    pub async fn pause(&self) {
        let _ = self.ask(Ask::Pause).await;
    }

    async fn ask(&self, ask: Ask) -> Told {
        self.desk.ask.set(Some(ask));
        poll_fn(|_| match self.desk.told.take() {
            Some(told) => Poll::Ready(told),
            None => Poll::Pending,
        })
        .await
    }
}
