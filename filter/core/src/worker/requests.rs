//! Streams: from a request's head to how it goes on.

use super::{
    AfterResponse, BODY_DEADLINE, KEYS_DEADLINE, MAX_WAITING, STREAM_DEADLINE, State, Stream,
    StreamId, Todo, Verdict, Worker,
};
use crate::config::Kind;
use crate::digest::Key;
use crate::error::Error;
use crate::flow::{self, Ask, Moment, Step, Told};
use crate::http::{CallFailed, Request};
use crate::job::JobError;
use crate::reply::{Reply, Surface};
use crate::resource_server::{self, Outcome};
use crate::routes::{self, Route};
use crate::site::Site;
use crate::token_endpoint;
use crate::upgrade::{self, Upgraded};

impl Worker {
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
                        let latest = moment.now.saturating_add(BODY_DEADLINE);
                        let state = State::Collecting(request, latest);
                        self.hold(stream, Stream { deadline, surface, state }, &mut todo);
                        todo.push(Todo::Collect(stream, token_endpoint::MAX_FORM));
                    }
                    Ok(()) => self.token_request(stream, request, Vec::new(), moment, &mut todo),
                }
            }
            Ok(Route::Resource(resource)) => match &resource.kind {
                Kind::Accept(accept) => {
                    let surface = resource_server::surface(&resource, accept, &request);
                    let now = moment.now;
                    let outcome = match &site.config.authorization_server {
                        Some(server) => {
                            resource_server::check(server, &resource, accept, &request, now)
                        }
                        None => Err(Error::NotFound),
                    };
                    match outcome {
                        Ok(Outcome::Forward(edits, _)) => {
                            let origin =
                                resource_server::allowed_origin(&resource, accept, &request);
                            let after = AfterResponse::HideBackendAuthentication {
                                origin: origin.map(str::to_owned),
                            };
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
            Some(Stream { state: State::Collecting(request, _), .. }) => {
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
        if let Some(Stream { deadline, state: State::Collecting(_, latest), .. }) =
            self.streams.get_mut(&stream)
        {
            *deadline = now.saturating_add(STREAM_DEADLINE).min(*latest);
        }
    }

    /// The stream is gone. What it waited for goes on for others.
    pub fn gone(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// The upstream server answered a request that was forwarded with
    /// [`AfterResponse::DropTokenOn401`] with 401: the token is not used again, by any worker.
    pub fn token_refused(&mut self, key: &Key, made_at: u64, now: u64) -> Vec<Todo> {
        self.site.drop_token(key);
        // If the store fails, the shared token ends by its own expiry.
        let _ = self.table(now).forget_token(key, made_at);
        self.tell_peers(key, now)
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
        let deadline = moment.now.saturating_add(KEYS_DEADLINE);
        self.step(stream, deadline, surface, step, moment, todo);
    }

    /// Takes a stream's flow as far as it goes.
    pub(super) fn step(
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
                Step::Ask(Ask::Call(_), flow) => {
                    flow.resume(Told::Call(Err(CallFailed::NoAnswer)), moment)
                }
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

    fn hold(&mut self, id: StreamId, stream: Stream, todo: &mut Vec<Todo>) {
        if self.streams.len() >= MAX_WAITING {
            let error = Error::Exchange(JobError::Unavailable);
            return self.refuse(id, &error, &stream.surface, todo);
        }
        self.streams.insert(id, stream);
    }

    pub(super) fn refuse(
        &self,
        id: StreamId,
        error: &Error,
        surface: &Surface,
        todo: &mut Vec<Todo>,
    ) {
        todo.push(Todo::Info(format!("refused [{}] {error:?}", error.code())));
        todo.push(Todo::Conclude(id, Verdict::Reply(Reply::refusal(error, surface))));
    }
}

fn token_endpoint_surface(site: &Site) -> Surface {
    let server = site.config.authorization_server.as_ref();
    Surface::TokenEndpoint(server.map_or("", |server| server.issuer.as_str()).to_owned())
}
