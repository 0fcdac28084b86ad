//! The load: a closed loop of keep-alive connections, which looks at every answer.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cpu::Process;
use crate::wire;

/// How many connections there are.
pub const CONNECTIONS: usize = 16;
/// A shorter window tells nothing.
const SHORTEST: Duration = Duration::from_millis(80);
/// Without an answer for so many seconds, there will be none. Each counts for itself: a virtual machine that stood still
/// finds that minutes have passed, and the answer waiting.
const PATIENCE: usize = 20;
/// So many answers are enough. A window of fewer lasts longer, up to [`LONGEST`].
const ENOUGH: usize = 500;
const LONGEST: Duration = Duration::from_millis(300);
/// The machine stood still if a window took so much longer than it should.
const LATE: Duration = Duration::from_millis(500);

/// Who is under load. It runs until this is dropped.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process whose one thread serves.
    pub process: Process,
    /// How long it took from its start to its first answer, where that is known.
    pub started: Duration,
    /// What it runs by, and can tell the end of its log.
    pub program: Box<dyn Program>,
}

/// A program that was started.
pub trait Program {
    /// Its log so far.
    fn log(&self) -> String;
}

impl Target {
    /// The end of its log, for whoever wants to know why it failed.
    pub fn last_words(&self) -> String {
        let log = self.program.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// What is sent: `head`, then a credential, then `tail`. All that differs is the credential.
pub struct Requests {
    /// What comes before the credential.
    pub head: Vec<u8>,
    /// In turn, each connection the next.
    pub credentials: Credentials,
    /// What comes after it.
    pub tail: Vec<u8>,
    /// Which credential is the first.
    pub first: usize,
}

/// Which credential comes next.
pub enum Credentials {
    /// These, again and again.
    InTurn(Rc<Vec<String>>),
    /// These, each once. Then the load ends.
    Once(Rc<Vec<String>>),
}

impl Requests {
    fn write(&self, number: usize, out: &mut Vec<u8>) -> bool {
        let credential = match &self.credentials {
            Credentials::InTurn(all) => all.get(number % all.len()),
            Credentials::Once(all) => all.get(number),
        };
        let Some(credential) = credential else { return false };
        out.clear();
        out.extend_from_slice(&self.head);
        out.extend_from_slice(credential.as_bytes());
        out.extend_from_slice(&self.tail);
        true
    }
}

/// What counts as an answer. Anything else ends the load as failed.
#[derive(Clone)]
pub enum Expected {
    /// 200 with this body: only the server behind can say it.
    Body(Rc<[u8]>),
    /// 200 with an access token.
    Token,
}

impl Expected {
    fn is_met(&self, head: &[u8], body: &[u8]) -> bool {
        head.get(9..12) == Some(b"200")
            && match self {
                Self::Body(expected) => **expected == *body,
                Self::Token => body.windows(16).any(|part| part == b"\"access_token\":\""),
            }
    }
}

/// How long.
#[derive(Clone, Copy)]
pub struct Plan {
    /// The warm-up before the first window of all.
    pub first: Duration,
    /// Not measured.
    pub warm_up: Duration,
    /// Nor are so many answers.
    pub at_first: usize,
    /// Measured; less if there are no more credentials, more if there are few answers.
    pub window: Duration,
}

/// What one window showed.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Answers each second.
    pub rate: f64,
    /// How much of one core the target used.
    pub busy: f64,
    /// Processor time of the target for each answer, in microseconds.
    pub cpu: f64,
    /// How much of one core everything on this side used.
    pub busy_here: f64,
    /// Latency in microseconds: the median, and what 99 % stay below.
    pub latency: [f64; 2],
    /// Which credential would be the next.
    pub next: usize,
    /// Why it tells nothing.
    pub flaw: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    WarmUp,
    Window,
    Over,
}

struct Run {
    requests: Requests,
    expected: Expected,
    sent: Cell<usize>,
    phase: Cell<Phase>,
    latencies: RefCell<Vec<u32>>,
    ended: Notify,
}

/// Puts `target` under load. An error says which answer was not the expected one.
pub async fn measure(
    target: &Target,
    requests: Requests,
    expected: Expected,
    plan: Plan,
) -> Result<Sample, String> {
    let first = requests.first;
    let run = Rc::new(Run {
        requests,
        expected,
        sent: Cell::new(first),
        phase: Cell::new(Phase::WarmUp),
        latencies: RefCell::default(),
        ended: Notify::new(),
    });
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        connections.spawn_local(connection(run.clone(), target.address));
    }
    run.lasts(plan.warm_up).await;
    while run.sent.get() - first < plan.at_first && run.phase.get() != Phase::Over {
        run.lasts(Duration::from_millis(10)).await;
    }
    run.go_to(Phase::Window);
    let (began, used, here) = (Instant::now(), target.process.used(), Process::this().used());
    run.lasts(plan.window).await;
    while run.latencies.borrow().len() < ENOUGH
        && began.elapsed() < LONGEST
        && run.phase.get() != Phase::Over
    {
        run.lasts(Duration::from_millis(10)).await;
    }
    let elapsed = began.elapsed();
    run.go_to(Phase::Over);
    let (used, here) =
        (target.process.used().saturating_sub(used), Process::this().used().saturating_sub(here));
    while let Some(ended) = connections.join_next().await {
        let ended = ended.unwrap_or_else(|panic| Err(panic.to_string()));
        ended.map_err(|why| format!("{why} (after {} requests)", run.sent.get() - first))?;
    }
    let mut latencies = run.latencies.take();
    let (count, seconds) = (latencies.len() as f64, elapsed.as_secs_f64());
    Ok(Sample {
        rate: count / seconds,
        busy: used.as_secs_f64() / seconds,
        cpu: used.as_secs_f64() * 1e6 / count,
        busy_here: here.as_secs_f64() / seconds,
        latency: [0.5, 0.99].map(|share| percentile(&mut latencies, share)),
        next: run.sent.get(),
        flaw: if elapsed > plan.window + LATE {
            Some("the machine stood still")
        } else if elapsed < SHORTEST.min(plan.window) {
            Some("there were too few credentials")
        } else {
            latencies.is_empty().then_some("there was no answer")
        },
    })
}

impl Run {
    /// Waits, until there are no more credentials or an answer is wrong at the latest.
    async fn lasts(&self, time: Duration) {
        if self.phase.get() != Phase::Over {
            let _ = timeout(time, self.ended.notified()).await;
        }
    }

    fn go_to(&self, phase: Phase) {
        if self.phase.get() != Phase::Over {
            self.phase.set(phase);
        }
    }

    fn end(&self) {
        self.phase.set(Phase::Over);
        self.ended.notify_one();
    }
}

async fn connection(run: Rc<Run>, address: SocketAddr) -> Result<(), String> {
    let ended = exchange(&run, address).await;
    run.end();
    ended
}

async fn exchange(run: &Run, address: SocketAddr) -> Result<(), String> {
    let mut connection = Connection::open(address).await?;
    let mut request = Vec::new();
    while run.phase.get() != Phase::Over {
        let number = run.sent.get();
        run.sent.set(number + 1);
        if !run.requests.write(number, &mut request) {
            return Ok(());
        }
        let took = connection.ask(&request, &run.expected).await?;
        if run.phase.get() == Phase::Window {
            run.latencies.borrow_mut().push(took);
        }
    }
    Ok(())
}

/// One connection that is kept alive.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    head: usize,
}

impl Connection {
    /// Opens it.
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        Ok(Self { stream, answer: Vec::new(), head: 0 })
    }

    /// Sends a request and waits for the answer: how many microseconds that took. An error has the answer that was not
    /// the expected one.
    pub async fn ask(&mut self, request: &[u8], expected: &Expected) -> Result<u32, String> {
        let began = Instant::now();
        self.stream.write_all(request).await.map_err(text)?;
        let read = patiently(wire::read(&mut self.stream, &mut self.answer)).await;
        let read = read.ok_or("no answer")?.map_err(text)?;
        let took = began.elapsed().as_micros().try_into().unwrap_or(u32::MAX);
        self.head = read.ok_or("the connection was closed")?.head;
        if !expected.is_met(&self.answer[..self.head], self.body()) {
            return Err(String::from_utf8_lossy(&self.answer).chars().take(600).collect());
        }
        Ok(took)
    }

    /// The body of the last answer.
    pub fn body(&self) -> &[u8] {
        &self.answer[self.head..]
    }
}

async fn patiently<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..PATIENCE {
        if let Ok(done) = timeout(Duration::from_secs(1), &mut future).await {
            return Some(done);
        }
    }
    None
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// What this share of `all` stays at or below.
pub fn percentile(all: &mut [u32], share: f64) -> f64 {
    all.sort_unstable();
    let at = (all.len() as f64 * share) as usize;
    all.get(at.min(all.len().saturating_sub(1))).copied().unwrap_or_default().into()
}
