//! Jobs: led by one worker, waited for by all.

use super::{Run, Running, State, Stream, StreamId, Todo, Waits, Worker};
use crate::digest::{Key, of_fields};
use crate::error::Error;
use crate::flow::{self, Ask, Moment, Step, Told};
use crate::http::{Answer, CallFailed};
use crate::job::{Job, JobError, Value, Want};
use crate::table::{LEASE, Look};
use crate::{backend, client_discovery, discovery, exchange, peers, resource_discovery};
use std::collections::BTreeMap;

impl Worker {
    /// A turn in the root context: starts the jobs this worker leads.
    pub fn turn(&mut self, moment: Moment) -> Vec<Todo> {
        let mut todo = Vec::new();
        for (stream, number, callout) in core::mem::take(&mut self.errands) {
            let waits = matches!(
                self.streams.get(&stream),
                Some(Stream { state: State::Calling(other, _), .. }) if *other == number
            );
            if waits {
                todo.push(Todo::Dispatch(Run { key: None, number }, callout));
            }
        }
        for job in core::mem::take(&mut self.backlog) {
            if self.jobs.contains_key(&job.key()) {
                continue;
            }
            let site = self.site.clone();
            let moment = self.apart(moment);
            let step = match &job {
                Job::Metadata(party) => {
                    let party = party.clone();
                    flow::start(|ctx| discovery::fetch_metadata(ctx, site, party), moment)
                }
                Job::Keys(party) => {
                    let party = party.clone();
                    flow::start(|ctx| discovery::fetch_keys(ctx, site, party), moment)
                }
                Job::Resource(discovery) => {
                    let discovery = discovery.clone();
                    flow::start(|ctx| resource_discovery::run(ctx, site, discovery), moment)
                }
                Job::Exchange(exchange) => {
                    let exchange = exchange.clone();
                    flow::start(|ctx| exchange::run(ctx, site, exchange), moment)
                }
                Job::Backend(fetch) => {
                    let fetch = fetch.clone();
                    flow::start(|ctx| backend::run(ctx, site, fetch), moment)
                }
                Job::ClientMetadata(fetch) => {
                    let fetch = fetch.clone();
                    flow::start(|ctx| client_discovery::run(ctx, site, fetch), moment)
                }
            };
            self.runs = self.runs.wrapping_add(1);
            let run = (self.runs, moment.now.saturating_add(LEASE));
            self.job_step(job, run, step, moment, &mut todo);
        }
        self.finish(todo)
    }

    /// The answer to a [`Todo::Dispatch`], or that there is none.
    pub fn answered(
        &mut self,
        run: &Run,
        answer: Result<Answer, CallFailed>,
        moment: Moment,
    ) -> Vec<Todo> {
        let mut todo = Vec::new();
        let Some(key) = run.key else {
            self.errand_done(run.number, answer, moment, &mut todo);
            return self.finish(todo);
        };
        match self.jobs.remove(&key) {
            Some(Running { job, number, deadline, on: Waits::ForAnswer(flow) })
                if number == run.number =>
            {
                let moment = self.apart(moment);
                let step = flow.resume(Told::Call(answer), moment);
                self.job_step(job, (number, deadline), step, moment, &mut todo);
            }
            Some(other) => drop(self.jobs.insert(key, other)),
            None => {}
        }
        self.finish(todo)
    }

    /// A stream's own request was answered: it goes on, if it still waits for that.
    fn errand_done(
        &mut self,
        number: u64,
        answer: Result<Answer, CallFailed>,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        let calls =
            |stream: &Stream| matches!(stream.state, State::Calling(other, _) if other == number);
        let Some(id) = self.streams.iter().find(|(_, stream)| calls(stream)).map(|(id, _)| *id)
        else {
            return;
        };
        if let Some(Stream { deadline, asker, state: State::Calling(_, flow) }) =
            self.streams.remove(&id)
        {
            let moment = self.apart(moment);
            let step = flow.resume(Told::Call(answer), moment);
            self.step(id, deadline, asker, step, moment, todo);
        }
    }

    /// A note from another worker: there is something new under `key`, a result or the end of one.
    pub fn note(&mut self, key: &Key, moment: Moment) -> Vec<Todo> {
        let mut todo = Vec::new();
        self.site.drop_older(key);
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
                if matches!(stream.state, State::Collecting(..)) {
                    let hint = "no body came; is allow_on_headers_stop_iteration set?";
                    todo.push(Todo::Warn(hint.to_owned()));
                }
                self.refuse(id, &Error::Deadline, &stream.asker, &mut todo);
            }
        }
        let late: Vec<Key> =
            self.jobs.iter().filter(|(_, job)| job.deadline <= now).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(Running { job, .. }) = self.jobs.remove(&key) {
                self.job_done(&job, Err(JobError::Unavailable), moment, &mut todo);
            }
        }
        self.resume_paused(moment, &mut todo);
        self.look_again(|_| true, moment, &mut todo);
        // The first look is the warm-up's.
        if self.looked_at > 0 {
            self.look_at_documents(moment, &mut todo);
        }
        if let Some(place) = &mut self.place
            && now >= place.seen.saturating_add(peers::SIGN_OF_LIFE)
        {
            let (number, queue) = (place.number, place.queue);
            match peers::alive(&*self.site.store, number, self.owner, queue, now) {
                Ok(true) => place.seen = now,
                Ok(false) => self.place = None,
                Err(_) => {}
            }
        }
        self.finish(todo)
    }

    /// Resumes every stream and job that pauses, each once: it may pause again, until the next tick.
    fn resume_paused(&mut self, moment: Moment, todo: &mut Vec<Todo>) {
        let pauses = |stream: &Stream| matches!(stream.state, State::Pausing(_));
        let streams = self.streams.iter().filter(|(_, stream)| pauses(stream));
        for id in streams.map(|(id, _)| *id).collect::<Vec<_>>() {
            match self.streams.remove(&id) {
                Some(Stream { deadline, asker, state: State::Pausing(flow) }) => {
                    let moment = self.apart(moment);
                    let step = flow.resume(Told::Paused, moment);
                    self.step(id, deadline, asker, step, moment, todo);
                }
                Some(other) => drop(self.streams.insert(id, other)),
                None => {}
            }
        }
        let jobs = self.jobs.iter().filter(|(_, job)| matches!(job.on, Waits::Pausing(_)));
        for key in jobs.map(|(key, _)| *key).collect::<Vec<_>>() {
            match self.jobs.remove(&key) {
                Some(Running { job, number, deadline, on: Waits::Pausing(flow) }) => {
                    let moment = self.apart(moment);
                    let step = flow.resume(Told::Paused, moment);
                    self.job_step(job, (number, deadline), step, moment, todo);
                }
                Some(other) => drop(self.jobs.insert(key, other)),
                None => {}
            }
        }
    }

    /// Takes a job's flow as far as it goes.
    fn job_step(
        &mut self,
        job: Job,
        (number, deadline): (u64, u64),
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
                    todo.push(Todo::Dispatch(Run { key: Some(key), number }, callout));
                    let on = Waits::ForAnswer(flow);
                    self.jobs.insert(key, Running { job, number, deadline, on });
                    return;
                }
                Step::Ask(Ask::Pause, flow) => {
                    let on = Waits::Pausing(flow);
                    self.jobs.insert(job.key(), Running { job, number, deadline, on });
                    return;
                }
                Step::Ask(Ask::Job(other, want), flow) => {
                    match self.look(&other, want, moment, todo) {
                        Some(result) => flow.resume(Told::Job(result), moment),
                        None => {
                            let on = Waits::ForJob(other, want, flow);
                            self.jobs.insert(job.key(), Running { job, number, deadline, on });
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
        let random = of_fields(&[b"nonce", &moment.entropy, &key]);
        if self.table(moment.now).publish(job, &result, &random).is_err() {
            todo.push(Todo::Warn("the shared store does not take a result".to_owned()));
        }
        todo.extend(self.tell_peers(&key, moment.now));
        self.wake(&key, &result, moment, todo);
    }

    /// Notes to the other workers: there is something new under `key`.
    pub(super) fn tell_peers(&self, key: &Key, now: u64) -> Vec<Todo> {
        let own = self.place.as_ref().map(|place| place.queue);
        let peers = peers::queues(&*self.site.store, now).unwrap_or_default();
        let others = peers.into_iter().filter(|queue| Some(*queue) != own);
        others.map(|queue| Todo::Tell(queue, *key)).collect()
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
        for (id, Stream { deadline, asker, state }) in woken {
            if let State::Waiting(_, _, flow) = state {
                let moment = self.apart(moment);
                let step = flow.resume(Told::Job(result.clone()), moment);
                self.step(id, deadline, asker, step, moment, todo);
            }
        }
        let awaits = |on: &Waits| matches!(on, Waits::ForJob(job, ..) if job.key() == *key);
        let (woken, others) = core::mem::take(&mut self.jobs)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, running)| awaits(&running.on));
        self.jobs = others;
        for Running { job, number, deadline, on } in woken.into_values() {
            if let Waits::ForJob(_, _, flow) = on {
                let moment = self.apart(moment);
                let step = flow.resume(Told::Job(result.clone()), moment);
                self.job_step(job, (number, deadline), step, moment, todo);
            }
        }
    }

    /// What the shared table says about `job`: its result, or `None` if there will be one. If this
    /// worker is to lead, the job goes to the backlog.
    pub(super) fn look(
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
            Err(_) => {
                let line = "the shared table has no room or does not answer";
                todo.push(Todo::Warn(line.to_owned()));
                Some(Err(JobError::Unavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::flow::Ctx;
    use crate::http::{Callout, Url};
    use crate::site::Site;
    use crate::store::Memory;
    use crate::worker::{Asker, Verdict};
    use std::rc::Rc;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const CONFIG: &str = r#"{
        "identity_providers": { "acme": {
            "issuer": "https://idp.example", "cluster": "cluster",
            "client": { "id": "a", "secret": { "env": "A" } }
        } },
        "resources": [{ "resource": "https://mcp.example/a", "upgrade": {
            "url": "https://in.example/a", "identity_provider": "acme", "scopes": ["a"],
            "authorization_server": {
                "issuer": "https://as.example", "cluster": "cluster",
                "client": { "id": "a", "secret": { "env": "A" } }
            },
            "callers": [{ "id_token": {} }]
        } }]
    }"#;
    const AT: Moment = Moment { now: 1_000, entropy: [7; 32] };

    /// Waits for two ticks, then makes a request.
    async fn waits(ctx: Ctx, url: Url) {
        ctx.pause().await;
        ctx.pause().await;
        let _ = ctx.call(Callout::get_json("cluster", &url)).await;
    }

    fn dispatches(todo: &[Todo]) -> usize {
        todo.iter().filter(|todo| matches!(todo, Todo::Dispatch(..))).count()
    }

    #[test]
    fn what_pauses_goes_on_at_the_next_tick_and_may_pause_again() {
        let config = Config::parse(CONFIG.as_bytes(), &|_| Some("secret".to_owned())).unwrap();
        let own = config.documents().remove(0);
        let mut worker = Worker::new(Rc::new(Site::new(config, Rc::new(Memory::default()))), 1);
        let url = Url::parse("https://idp.example/").unwrap();
        let (of_job, of_stream) = (url.clone(), url);
        let job = flow::start(
            |ctx| async move {
                waits(ctx, of_job).await;
                Err(JobError::Unavailable)
            },
            AT,
        );
        let stream = flow::start(
            |ctx| async move {
                waits(ctx, of_stream).await;
                Err::<Verdict, _>(Error::NotFound)
            },
            AT,
        );
        let asker = Asker { surface: crate::reply::Surface::Other, request_id: Default::default() };
        let mut todo = Vec::new();

        worker.job_step(own, (1, 1_020), job, AT, &mut todo);
        worker.step(5, 1_010, asker, stream, AT, &mut todo);
        let first = worker.tick(Moment { now: 1_001, ..AT });
        let second = worker.tick(Moment { now: 1_002, ..AT });
        let turn = worker.turn(Moment { now: 1_002, ..AT });
        let third = worker.tick(Moment { now: 1_003, ..AT });

        assert!(todo.is_empty() && first.is_empty() && third.is_empty());
        assert_eq!((dispatches(&second), dispatches(&turn)), (1, 1));
    }
}
