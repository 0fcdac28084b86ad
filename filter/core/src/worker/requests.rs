//! Streams: from a request's head to how it goes on.

use super::{
    AfterResponse, BODY_DEADLINE, KEYS_DEADLINE, MAX_WAITING, STREAM_DEADLINE, State, Stream,
    StreamId, Todo, Verdict, Worker,
};
use crate::config::{Accept, Kind, Resource, Upgrade};
use crate::digest::Key;
use crate::error::Error;
use crate::flow::{self, Ask, Ctx, Moment, Step, Told};
use crate::http::{CallFailed, Request};
use crate::reply::{Reply, Surface};
use crate::resource_server::{self, Outcome};
use crate::routes::{self, Route};
use crate::site::Site;
use crate::token_endpoint;
use crate::upgrade::{self, Upgraded};
use std::rc::Rc;

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
                self.token_request_head(stream, request, has_body, moment, &mut todo);
            }
            Ok(Route::Resource(resource)) => match &resource.kind {
                Kind::Accept(accept) => {
                    let verdict = accepted(&site, &resource, accept, &request, moment.now);
                    match verdict {
                        Ok(verdict) => todo.push(Todo::Conclude(stream, verdict)),
                        Err(error) => {
                            let surface = resource_server::surface(&resource, accept, &request);
                            self.refuse(stream, &error, &surface, &mut todo);
                        }
                    }
                }
                Kind::Upgrade(upgrade) => {
                    let upgrade = upgrade.clone();
                    let step = flow::start(|ctx| upgraded(ctx, site, upgrade, request), moment);
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

    fn token_request_head(
        &mut self,
        stream: StreamId,
        request: Request,
        has_body: bool,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        let surface = token_endpoint_surface(&self.site);
        match token_endpoint::check_head(&self.site, &request, moment.now) {
            Err(error) => self.refuse(stream, &error, &surface, todo),
            Ok(()) if has_body => {
                let deadline = moment.now.saturating_add(STREAM_DEADLINE);
                let latest = moment.now.saturating_add(BODY_DEADLINE);
                let state = State::Collecting(request, latest);
                if self.hold(stream, Stream { deadline, surface, state }, todo) {
                    todo.push(Todo::Collect(stream, token_endpoint::MAX_FORM));
                }
            }
            Ok(()) => self.token_request(stream, request, Vec::new(), moment, todo),
        }
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
                        self.hold(id, Stream { deadline, surface, state }, todo);
                        return;
                    }
                },
            }
        }
    }

    /// Keeps a stream that waits; refuses it, and says so, if too many do.
    fn hold(&mut self, id: StreamId, stream: Stream, todo: &mut Vec<Todo>) -> bool {
        if self.streams.len() >= MAX_WAITING {
            self.refuse(id, &Error::Overloaded, &stream.surface, todo);
            return false;
        }
        self.streams.insert(id, stream);
        true
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

/// A request to a resource that is accepted for: nothing in it ever waits.
fn accepted(
    site: &Site,
    resource: &Resource,
    accept: &Accept,
    request: &Request,
    now: u64,
) -> Result<Verdict, Error> {
    let server = site.config.authorization_server.as_ref().ok_or(Error::NotFound)?;
    match resource_server::check(server, resource, accept, request, now)? {
        Outcome::Preflight(reply) => Ok(Verdict::Reply(reply)),
        Outcome::Forward(edits, _) => {
            let origin = resource_server::allowed_origin(resource, accept, request);
            let after = AfterResponse::HideBackendAuthentication {
                origin: origin.map(str::to_owned),
                credential_header: accept.credential_header.clone(),
            };
            Ok(Verdict::Forward(edits, after))
        }
    }
}

/// A request to a resource that is upgraded for.
async fn upgraded(
    ctx: Ctx,
    site: Rc<Site>,
    upgrade: Rc<Upgrade>,
    request: Request,
) -> Result<Verdict, Error> {
    let Upgraded { edits, key, made_at } = upgrade::handle(ctx, site, upgrade, request).await?;
    Ok(Verdict::Forward(edits, AfterResponse::DropTokenOn401(key, made_at)))
}

fn token_endpoint_surface(site: &Site) -> Surface {
    let server = site.config.authorization_server.as_ref();
    Surface::TokenEndpoint(server.map_or("", |server| server.issuer.as_str()).to_owned())
}
