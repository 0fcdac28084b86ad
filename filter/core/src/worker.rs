//! One worker: its streams that wait, the jobs it leads, and its part in the process.
//!
//! The host calls in with what happened; every call returns what the host must do next. A stream
//! never makes a request itself: jobs do, and a job belongs to the worker, so it goes on when the
//! client that caused it is gone.

use crate::config::Kind;
use crate::digest::Key;
use crate::error::Error;
use crate::flow::{self, Ask, Flow, Moment, Step, Told};
use crate::http::{Answer, CallFailed, Callout, Request};
use crate::job::{Job, JobError, Value, Want};
use crate::reply::{Reply, Surface};
use crate::resource_server::{self, Edits, Outcome};
use crate::routes::{self, Route};
use crate::site::Site;
use crate::table::{LEASE, Look, Table};
use crate::upgrade::Upgraded;
use crate::{discovery, exchange, peers, token_endpoint, upgrade};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The host's number for a stream.
pub type StreamId = u32;

/// How long a stream waits at most, in seconds.
const STREAM_DEADLINE: u64 = 10;
/// Most streams of one worker that wait at once.
const MAX_WAITING: usize = 10_000;

/// What the host must do.
#[derive(Debug)]
pub enum Todo {
    /// Let the stream go on: upstream, or with a reply.
    Conclude(StreamId, Verdict),
    /// Hold the stream and collect its body, up to so many bytes; then call [`Worker::body`].
    Collect(StreamId, usize),
    /// Call [`Worker::turn`] from a callback of the root context.
    Wake,
    /// Make a request for the job under this key; then call [`Worker::answered`]. Only ever asked
    /// for by calls that come from the root context.
    Dispatch(Key, Callout),
    /// Put the note into this queue.
    Tell(u32, Key),
    /// Write a line to the log.
    Log(String),
}

/// How a stream goes on.
#[derive(Debug)]
pub enum Verdict {
    /// Upstream.
    Forward(Edits, AfterResponse),
    /// Not upstream.
    Reply(Reply),
}

/// What is to be done with the answer of the upstream server.
#[derive(Debug, Clone)]
pub enum AfterResponse {
    /// Hide how we authenticate to the backend.
    HideBackendAuthentication,
    /// Drop the token under this key, got at this second, if the server refuses it.
    DropTokenOn401(Key, u64),
}

/// The state of one worker.
pub struct Worker {
    site: Rc<Site>,
    owner: u64,
    place: Option<(usize, u32, u64)>,
    streams: BTreeMap<StreamId, Stream>,
    jobs: BTreeMap<Key, Running>,
    backlog: Vec<Job>,
}

struct Stream {
    deadline: u64,
    surface: Surface,
    state: State,
}

enum State {
    Collecting(Request),
    Waiting(Job, Want, Flow<Result<Verdict, Error>>),
}

struct Running {
    job: Job,
    deadline: u64,
    on: Waits,
}

enum Waits {
    ForAnswer(Flow<Result<Value, JobError>>),
    ForJob(Job, Want, Flow<Result<Value, JobError>>),
}

impl Worker {
    /// A worker at `site`. `owner` is a random number that tells it from the others.
    pub fn new(site: Rc<Site>, owner: u64) -> Self {
        Self {
            site,
            owner,
            place: None,
            streams: BTreeMap::new(),
            jobs: BTreeMap::new(),
            backlog: Vec::new(),
        }
    }

    /// Joins the workers of this process. Returns the number of the queue to listen to; call
    /// [`Worker::listens`] with the host's identifier of it.
    pub fn join(&mut self, now: u64) -> Option<usize> {
        let place = peers::take_place(&*self.site.store, self.owner, now).ok().flatten()?;
        self.place = Some((place, 0, 0));
        Some(place)
    }

    /// The worker listens to `queue`.
    pub fn listens(&mut self, queue: u32, now: u64) {
        if let Some((place, own, seen)) = &mut self.place {
            (*own, *seen) = (queue, now);
            // A store that fails here fails again at the next sign of life.
            let _ = peers::alive(&*self.site.store, *place, self.owner, queue, now);
        }
    }

    /// A request's head has arrived. `has_body` says whether a body follows.
    pub fn request(
        &mut self,
        stream: StreamId,
        request: Request,
        has_body: bool,
        moment: Moment,
    ) -> Vec<Todo> {
        let mut todo = Vec::new();
        let site = self.site.clone();
        match routes::route(&site.config, &request) {
            Err(error) => self.refuse(stream, &error, &Surface::Other, &mut todo),
            Ok(Route::Document(reply)) => {
                todo.push(Todo::Conclude(stream, Verdict::Reply(reply)));
            }
            Ok(Route::TokenEndpoint) => {
                let surface = token_endpoint_surface(&site);
                match token_endpoint::check_head(&site, &request, moment.now) {
                    Err(error) => self.refuse(stream, &error, &surface, &mut todo),
                    Ok(()) if has_body => {
                        let deadline = moment.now.saturating_add(STREAM_DEADLINE);
                        let state = State::Collecting(request);
                        self.hold(stream, Stream { deadline, surface, state }, &mut todo);
                        todo.push(Todo::Collect(stream, token_endpoint::MAX_FORM));
                    }
                    Ok(()) => self.token_request(stream, request, Vec::new(), moment, &mut todo),
                }
            }
            Ok(Route::Resource(resource)) => match &resource.kind {
                Kind::Accept(accept) => {
                    let surface = resource_server::surface(&resource, accept);
                    let now = moment.now;
                    let outcome = match &site.config.authorization_server {
                        Some(server) => {
                            resource_server::check(server, &resource, accept, &request, now)
                        }
                        None => Err(Error::NotFound),
                    };
                    match outcome {
                        Ok(Outcome::Forward(edits, _)) => {
                            let after = AfterResponse::HideBackendAuthentication;
                            todo.push(Todo::Conclude(stream, Verdict::Forward(edits, after)));
                        }
                        Ok(Outcome::Preflight(reply)) => {
                            todo.push(Todo::Conclude(stream, Verdict::Reply(reply)));
                        }
                        Err(error) => self.refuse(stream, &error, &surface, &mut todo),
                    }
                }
                Kind::Upgrade(upgrade) => {
                    let upgrade = upgrade.clone();
                    let step = flow::start(
                        |ctx| async move {
                            let Upgraded { edits, key, made_at } =
                                upgrade::handle(ctx, site, upgrade, request).await?;
                            let after = AfterResponse::DropTokenOn401(key, made_at);
                            Ok(Verdict::Forward(edits, after))
                        },
                        moment,
                    );
                    let deadline = moment.now.saturating_add(STREAM_DEADLINE);
                    self.step(stream, deadline, Surface::Upgrade, step, moment, &mut todo);
                }
            },
        }
        self.finish(todo)
    }

    /// The body of a stream that collects has arrived as a whole.
    pub fn body(&mut self, stream: StreamId, body: Vec<u8>, moment: Moment) -> Vec<Todo> {
        let mut todo = Vec::new();
        match self.streams.remove(&stream) {
            Some(Stream { state: State::Collecting(request), .. }) => {
                self.token_request(stream, request, body, moment, &mut todo);
            }
            Some(other) => drop(self.streams.insert(stream, other)),
            None => {}
        }
        self.finish(todo)
    }

    /// The body of a stream that collects is larger than asked for.
    pub fn body_too_large(&mut self, stream: StreamId) -> Vec<Todo> {
        let mut todo = Vec::new();
        if let Some(Stream { surface, .. }) = self.streams.remove(&stream) {
            self.refuse(stream, &Error::BodyTooLarge, &surface, &mut todo);
        }
        self.finish(todo)
    }

    /// Part of a body has arrived: the client is alive.
    pub fn body_grows(&mut self, stream: StreamId, now: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.deadline = now.saturating_add(STREAM_DEADLINE);
        }
    }

    /// The stream is gone. What it waited for goes on for others.
    pub fn gone(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// The upstream server answered a request that was forwarded with
    /// [`AfterResponse::DropTokenOn401`] with 401: the token is not used again.
    pub fn token_refused(&mut self, key: &Key, made_at: u64, now: u64) {
        self.site.drop_token(key);
        let place = crate::job::Place::of_token(key);
        // If the store fails, the shared token ends by its own expiry.
        let _ = self.table(now).forget(key, &place, made_at);
    }

    /// A turn in the root context: starts the jobs this worker leads.
    pub fn turn(&mut self, moment: Moment) -> Vec<Todo> {
        let mut todo = Vec::new();
        for job in core::mem::take(&mut self.backlog) {
            if self.jobs.contains_key(&job.key()) {
                continue;
            }
            let site = self.site.clone();
            let step = match &job {
                Job::Metadata(party) => {
                    let party = party.clone();
                    flow::start(|ctx| discovery::fetch_metadata(ctx, site, party), moment)
                }
                Job::Keys(party) => {
                    let party = party.clone();
                    flow::start(|ctx| discovery::fetch_keys(ctx, site, party), moment)
                }
                Job::Exchange(exchange) => {
                    let exchange = exchange.clone();
                    flow::start(|ctx| exchange::run(ctx, site, exchange), moment)
                }
            };
            let deadline = moment.now.saturating_add(LEASE);
            self.job_step(job, deadline, step, moment, &mut todo);
        }
        self.finish(todo)
    }

    /// The answer to a [`Todo::Dispatch`], or that there is none.
    pub fn answered(
        &mut self,
        key: &Key,
        answer: Result<Answer, CallFailed>,
        moment: Moment,
    ) -> Vec<Todo> {
        let mut todo = Vec::new();
        match self.jobs.remove(key) {
            Some(Running { job, deadline, on: Waits::ForAnswer(flow) }) => {
                let step = flow.resume(Told::Call(answer), moment);
                self.job_step(job, deadline, step, moment, &mut todo);
            }
            Some(other) => drop(self.jobs.insert(*key, other)),
            None => {}
        }
        self.finish(todo)
    }

    /// A note from another worker: the job under `key` has a result.
    pub fn note(&mut self, key: &Key, moment: Moment) -> Vec<Todo> {
        let mut todo = Vec::new();
        self.look_again(|job| job.key() == *key, moment, &mut todo);
        self.finish(todo)
    }

    /// Once a second: deadlines, leases of workers that died, our own sign of life.
    pub fn tick(&mut self, moment: Moment) -> Vec<Todo> {
        let mut todo = Vec::new();
        let now = moment.now;
        let late: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(stream) = self.streams.remove(&id) {
                if matches!(stream.state, State::Collecting(_)) {
                    let hint = "no body came; is allow_on_headers_stop_iteration set?";
                    todo.push(Todo::Log(hint.to_owned()));
                }
                self.refuse(id, &Error::Deadline, &stream.surface, &mut todo);
            }
        }
        let late: Vec<Key> =
            self.jobs.iter().filter(|(_, job)| job.deadline <= now).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(Running { job, .. }) = self.jobs.remove(&key) {
                self.job_done(&job, Err(JobError::Unavailable), moment, &mut todo);
            }
        }
        self.look_again(|_| true, moment, &mut todo);
        if let Some((place, queue, seen)) = self.place
            && now >= seen.saturating_add(peers::SIGN_OF_LIFE)
        {
            match peers::alive(&*self.site.store, place, self.owner, queue, now) {
                Ok(true) => self.place = Some((place, queue, now)),
                Ok(false) => self.place = None,
                Err(_) => {}
            }
        }
        self.finish(todo)
    }

    /// Whether the worker has lost its place among the workers and must [`Worker::join`] again.
    pub fn is_alone(&self) -> bool {
        self.place.is_none()
    }

    fn token_request(
        &mut self,
        stream: StreamId,
        request: Request,
        body: Vec<u8>,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        let site = self.site.clone();
        let surface = token_endpoint_surface(&site);
        let step = flow::start(
            |ctx| async move {
                token_endpoint::handle(ctx, site, request, body).await.map(Verdict::Reply)
            },
            moment,
        );
        let deadline = moment.now.saturating_add(STREAM_DEADLINE);
        self.step(stream, deadline, surface, step, moment, todo);
    }

    /// Takes a stream's flow as far as it goes.
    fn step(
        &mut self,
        id: StreamId,
        deadline: u64,
        surface: Surface,
        mut step: Step<Result<Verdict, Error>>,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        loop {
            step = match step {
                Step::Done(Ok(verdict)) => return todo.push(Todo::Conclude(id, verdict)),
                Step::Done(Err(error)) => return self.refuse(id, &error, &surface, todo),
                Step::Lost => {
                    return self.refuse(id, &Error::Internal("lost"), &surface, todo);
                }
                // A stream makes no requests of its own.
                Step::Ask(Ask::Call(_), flow) => flow.resume(Told::Call(Err(CallFailed)), moment),
                Step::Ask(Ask::Job(job, want), flow) => match self.look(&job, want, moment, todo) {
                    Some(result) => flow.resume(Told::Job(result), moment),
                    None => {
                        let state = State::Waiting(job, want, flow);
                        return self.hold(id, Stream { deadline, surface, state }, todo);
                    }
                },
            }
        }
    }

    /// Takes a job's flow as far as it goes.
    fn job_step(
        &mut self,
        job: Job,
        deadline: u64,
        mut step: Step<Result<Value, JobError>>,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        loop {
            step = match step {
                Step::Done(result) => return self.job_done(&job, result, moment, todo),
                Step::Lost => {
                    return self.job_done(&job, Err(JobError::Unavailable), moment, todo);
                }
                Step::Ask(Ask::Call(callout), flow) => {
                    let key = job.key();
                    todo.push(Todo::Dispatch(key, callout));
                    let on = Waits::ForAnswer(flow);
                    self.jobs.insert(key, Running { job, deadline, on });
                    return;
                }
                Step::Ask(Ask::Job(other, want), flow) => {
                    match self.look(&other, want, moment, todo) {
                        Some(result) => flow.resume(Told::Job(result), moment),
                        None => {
                            let on = Waits::ForJob(other, want, flow);
                            self.jobs.insert(job.key(), Running { job, deadline, on });
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Publishes a result, tells the other workers, and wakes whoever waits for it here.
    fn job_done(
        &mut self,
        job: &Job,
        result: Result<Value, JobError>,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        let key = job.key();
        let random = crate::digest::of_fields(&[b"nonce", &moment.entropy, &key]);
        if self.table(moment.now).publish(job, &result, &random).is_err() {
            todo.push(Todo::Log("the shared store does not take a result".to_owned()));
        }
        let own = self.place.map(|(_, queue, _)| queue);
        let peers = peers::queues(&*self.site.store, moment.now).unwrap_or_default();
        todo.extend(
            peers.into_iter().filter(|queue| Some(*queue) != own).map(|q| Todo::Tell(q, key)),
        );
        self.wake(&key, &result, moment, todo);
    }

    /// Looks again for what streams and jobs wait for.
    fn look_again(&mut self, which: impl Fn(&Job) -> bool, moment: Moment, todo: &mut Vec<Todo>) {
        let mut awaited: BTreeMap<Key, (Job, Want)> = BTreeMap::new();
        for stream in self.streams.values() {
            if let State::Waiting(job, want, _) = &stream.state {
                awaited.insert(job.key(), (job.clone(), *want));
            }
        }
        for running in self.jobs.values() {
            if let Waits::ForJob(job, want, _) = &running.on {
                awaited.insert(job.key(), (job.clone(), *want));
            }
        }
        for (key, (job, want)) in awaited {
            // What this worker leads answers for itself.
            if !which(&job) || self.jobs.contains_key(&key) {
                continue;
            }
            if let Some(result) = self.look(&job, want, moment, todo) {
                self.wake(&key, &result, moment, todo);
            }
        }
    }

    /// Resumes every stream and job that waits for the job under `key`.
    fn wake(
        &mut self,
        key: &Key,
        result: &Result<Value, JobError>,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        let awaits = |state: &State| matches!(state, State::Waiting(job, ..) if job.key() == *key);
        let (woken, others) = core::mem::take(&mut self.streams)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, stream)| awaits(&stream.state));
        self.streams = others;
        for (id, Stream { deadline, surface, state }) in woken {
            if let State::Waiting(_, _, flow) = state {
                let step = flow.resume(Told::Job(result.clone()), moment);
                self.step(id, deadline, surface, step, moment, todo);
            }
        }
        let awaits = |on: &Waits| matches!(on, Waits::ForJob(job, ..) if job.key() == *key);
        let (woken, others) = core::mem::take(&mut self.jobs)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, running)| awaits(&running.on));
        self.jobs = others;
        for Running { job, deadline, on } in woken.into_values() {
            if let Waits::ForJob(_, _, flow) = on {
                let step = flow.resume(Told::Job(result.clone()), moment);
                self.job_step(job, deadline, step, moment, todo);
            }
        }
    }

    /// What the shared table says about `job`: its result, or `None` if there will be one. If this
    /// worker is to lead, the job goes to the backlog.
    fn look(
        &mut self,
        job: &Job,
        want: Want,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) -> Option<Result<Value, JobError>> {
        let look = self.table(moment.now).look(job, want);
        if let Ok(Look::Lead | Look::Refresh(_)) = &look {
            self.backlog.push(job.clone());
            todo.push(Todo::Wake);
        }
        match look {
            Ok(Look::Ready(value) | Look::Refresh(value)) => Some(Ok(value)),
            Ok(Look::Failed(error)) => Some(Err(error)),
            Ok(Look::Lead | Look::Wait) => None,
            Err(_) => Some(Err(JobError::Unavailable)),
        }
    }

    fn hold(&mut self, id: StreamId, stream: Stream, todo: &mut Vec<Todo>) {
        if self.streams.len() >= MAX_WAITING {
            let error = Error::Exchange(JobError::Unavailable);
            return self.refuse(id, &error, &stream.surface, todo);
        }
        self.streams.insert(id, stream);
    }

    fn refuse(&self, id: StreamId, error: &Error, surface: &Surface, todo: &mut Vec<Todo>) {
        todo.push(Todo::Log(format!("refused [{}] {error:?}", error.code())));
        todo.push(Todo::Conclude(id, Verdict::Reply(Reply::refusal(error, surface))));
    }

    fn finish(&self, mut todo: Vec<Todo>) -> Vec<Todo> {
        todo.extend(self.site.take_log().into_iter().map(Todo::Log));
        todo
    }

    fn table(&self, now: u64) -> Table<'_> {
        let seal = &self.site.config.seal;
        Table { store: &*self.site.store, seal, owner: self.owner, now }
    }
}

fn token_endpoint_surface(site: &Site) -> Surface {
    let server = site.config.authorization_server.as_ref();
    Surface::TokenEndpoint(server.map_or("", |server| server.issuer.as_str()).to_owned())
}
