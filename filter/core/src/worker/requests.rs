//! Streams: from a request's head to how it goes on.

use super::{
    AfterResponse, Asker, BODY_DEADLINE, KEYS_DEADLINE, MAX_WAITING, STREAM_DEADLINE, State,
    Stream, StreamId, Todo, Verdict, Watch, Worker,
};
use crate::backend::{self, Swapped};
use crate::call::{self, Passed};
use crate::config::{Accept, AuthorizationServer, Guard, Kind, Resource, Upgrade};
use crate::dpop;
use crate::error::Error;
use crate::flow::{self, Ask, Ctx, Moment, Step, Told};
use crate::guard;
use crate::http::Request;
use crate::mcp;
use crate::reply::{Reply, Surface};
use crate::resource_server::{self, Edits, Head};
use crate::revocation_endpoints::{self, Endpoint};
use crate::routes::{self, Route};
use crate::secret::Secret;
use crate::site::Site;
use crate::token_endpoint;
use crate::upgrade::{self, Upgraded};
use crate::verdicts::Verdict as Verified;
use std::rc::Rc;

/// What a request is to have, once its head and, if need be, its body are there.
#[derive(Clone)]
pub enum Purpose {
    /// A token for a grant.
    Token,
    /// A token of another authorization server, if its grant is sound.
    Guarded(Rc<Guard>),
    /// A revocation.
    Revocation(Endpoint),
    /// An accepted resource, with this token.
    Accepted(Rc<Resource>, Rc<Accept>, Rc<Verified>, Passed),
    /// A resource that is upgraded for.
    Upgraded(Rc<Upgrade>),
}

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
        match judge(&site, &request, moment.now) {
            Err(error) => self.refuse(stream, &error, &asker(&site, &request), &mut todo),
            Ok(Judged::Now(verdict)) => todo.push(Todo::Conclude(stream, verdict)),
            Ok(Judged::Goes(purpose, Some(limit))) if has_body => {
                let deadline = moment.now.saturating_add(STREAM_DEADLINE);
                let latest = moment.now.saturating_add(BODY_DEADLINE);
                let asker = asker(&site, &request);
                let state = State::Collecting(Box::new(request), purpose, latest);
                if self.hold(stream, Stream { deadline, asker, state }, &mut todo) {
                    todo.push(Todo::Collect(stream, limit));
                }
            }
            Ok(Judged::Goes(purpose, _)) => match at_hand(&site, &purpose, &request, moment.now) {
                Some(Ok(verdict)) => todo.push(Todo::Conclude(stream, verdict)),
                Some(Err(error)) => {
                    self.refuse(stream, &error, &asker(&site, &request), &mut todo);
                }
                None => {
                    let asker = asker(&site, &request);
                    self.serve(stream, purpose, request, Vec::new(), asker, moment, &mut todo);
                }
            },
        }
        self.finish(todo)
    }

    /// The body of a stream that collects has arrived as a whole.
    pub fn body(&mut self, stream: StreamId, body: Vec<u8>, moment: Moment) -> Vec<Todo> {
        let mut todo = Vec::new();
        match self.streams.remove(&stream) {
            Some(Stream { state: State::Collecting(request, purpose, _), asker, .. }) => {
                self.serve(stream, purpose, *request, body, asker, moment, &mut todo);
            }
            Some(other) => drop(self.streams.insert(stream, other)),
            None => {}
        }
        self.finish(todo)
    }

    /// The body of a stream that collects is larger than asked for.
    pub fn body_too_large(&mut self, stream: StreamId) -> Vec<Todo> {
        let mut todo = Vec::new();
        if let Some(Stream { asker, state, .. }) = self.streams.remove(&stream) {
            let error = match state {
                State::Collecting(_, Purpose::Accepted(..), _) => {
                    Error::Mcp(mcp::Fault::BodyTooLarge)
                }
                _ => Error::BodyTooLarge,
            };
            self.refuse(stream, &error, &asker, &mut todo);
        }
        self.finish(todo)
    }

    /// Part of a body has arrived: the client is alive.
    pub fn body_grows(&mut self, stream: StreamId, now: u64) {
        if let Some(Stream { deadline, state: State::Collecting(_, _, latest), .. }) =
            self.streams.get_mut(&stream)
        {
            *deadline = now.saturating_add(STREAM_DEADLINE).min(*latest);
        }
    }

    /// The stream is gone. What it waited for goes on for others.
    pub fn gone(&mut self, stream: StreamId) {
        self.open.remove(&stream);
        self.streams.remove(&stream);
    }

    #[allow(clippy::too_many_arguments, reason = "one call, each of its own kind")]
    fn serve(
        &mut self,
        stream: StreamId,
        mut purpose: Purpose,
        request: Request,
        body: Vec<u8>,
        mut asker: Asker,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        if let Err(error) = self.check_call(&mut purpose, &request, &body, &mut asker, moment.now) {
            return self.refuse(stream, &error, &asker, todo);
        }
        // A client that asks for a token is not patient.
        let patience = match purpose {
            Purpose::Token | Purpose::Guarded(_) => KEYS_DEADLINE,
            Purpose::Revocation(_) | Purpose::Accepted(..) | Purpose::Upgraded(_) => {
                STREAM_DEADLINE
            }
        };
        let moment = self.apart(moment);
        let step = begin(self.site.clone(), purpose, request, body, moment);
        let deadline = moment.now.saturating_add(patience);
        self.step(stream, deadline, asker, step, moment, todo);
    }

    /// Looks into a call of an accepted resource, where the operator asks for it.
    fn check_call(
        &self,
        purpose: &mut Purpose,
        request: &Request,
        body: &[u8],
        asker: &mut Asker,
        now: u64,
    ) -> Result<(), Error> {
        let Purpose::Accepted(resource, accept, token, passed) = purpose else {
            return Ok(());
        };
        if let Some(mcp) = &accept.mcp {
            let server = self.site.config.authorization_server.as_ref().ok_or(Error::NotFound)?;
            let (sessions, resource) = (&server.sessions, resource.resource.as_str());
            let surface = &mut asker.surface;
            // Once more: the body may have taken its time.
            resource_server::check_revocation(&*self.site.store, token, now)?;
            if mcp.content_digest && request.method() == "POST" {
                let fault = |fault| Error::Dpop { fault, nonce: None };
                let proof = dpop::proof(&request.headers).map_err(fault)?.unwrap_or_default();
                dpop::covers(proof, body).map_err(fault)?;
            }
            *passed = call::check(mcp, sessions, resource, &token.token, request, body, surface)?;
        }
        Ok(())
    }

    /// Takes a stream's flow as far as it goes.
    pub(super) fn step(
        &mut self,
        id: StreamId,
        deadline: u64,
        asker: Asker,
        mut step: Step<Result<Verdict, Error>>,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) {
        loop {
            step = match step {
                Step::Done(Ok(verdict)) => return todo.push(Todo::Conclude(id, verdict)),
                Step::Done(Err(error)) => return self.refuse(id, &error, &asker, todo),
                Step::Lost => return self.refuse(id, &Error::Internal("lost"), &asker, todo),
                // Requests are made from the root context only.
                Step::Ask(Ask::Call(callout), flow) => {
                    self.runs = self.runs.wrapping_add(1);
                    let state = State::Calling(self.runs, flow);
                    if self.hold(id, Stream { deadline, asker, state }, todo) {
                        self.errands.push((id, self.runs, callout));
                        todo.push(Todo::Wake);
                    }
                    return;
                }
                Step::Ask(Ask::Pause, flow) => {
                    let state = State::Pausing(flow);
                    self.hold(id, Stream { deadline, asker, state }, todo);
                    return;
                }
                Step::Ask(Ask::Job(job, want), flow) => match self.look(&job, want, moment, todo) {
                    Some(result) => flow.resume(Told::Job(result), moment),
                    None => {
                        let state = State::Waiting(job, want, flow);
                        self.hold(id, Stream { deadline, asker, state }, todo);
                        return;
                    }
                },
            }
        }
    }

    /// Keeps a stream that waits; refuses it, and says so, if too many do.
    fn hold(&mut self, id: StreamId, stream: Stream, todo: &mut Vec<Todo>) -> bool {
        if self.streams.len() >= MAX_WAITING {
            self.refuse(id, &Error::Overloaded, &stream.asker, todo);
            return false;
        }
        self.streams.insert(id, stream);
        true
    }

    pub(super) fn refuse(
        &self,
        id: StreamId,
        error: &Error,
        Asker { surface, request_id }: &Asker,
        todo: &mut Vec<Todo>,
    ) {
        let code = error.code();
        todo.push(Todo::Count("refused", code));
        todo.push(Todo::Info(format!("refused [{code}] {error:?} request={request_id:?}")));
        todo.push(Todo::Conclude(id, Verdict::Reply(Reply::refusal(error, surface))));
    }
}

/// What is known of a request by its head.
enum Judged {
    /// All there is to know.
    Now(Verdict),
    /// It goes on; with its body, of up to so many bytes, if that matters.
    Goes(Purpose, Option<usize>),
}

/// Who asks, and where refusals of `request` belong. Most requests are not refused, so this is looked up once more.
fn asker(site: &Site, request: &Request) -> Asker {
    let config = &site.config;
    let server = config.authorization_server.as_ref();
    let surface = match routes::route(config, request) {
        Ok(Route::TokenEndpoint) => {
            let issuer = server.map(|server| server.issuer.as_str());
            Surface::TokenEndpoint(issuer.unwrap_or_default().to_owned())
        }
        Ok(Route::Guard(guard)) => {
            Surface::TokenEndpoint(guard.endpoint.issuer.as_str().to_owned())
        }
        Ok(Route::Revocation(endpoint)) => {
            server.map_or(Surface::Other, |server| revocation_endpoints::surface(endpoint, server))
        }
        Ok(Route::Resource(resource)) => match &resource.kind {
            Kind::Accept(accept) => resource_server::surface(server, &resource, accept, request),
            Kind::Upgrade(_) => Surface::Upgrade,
        },
        Ok(Route::Document(_) | Route::Unjudged(_)) | Err(_) => Surface::Other,
    };
    Asker { surface, request_id: request.id() }
}

/// What the head of `request` says.
fn judge(site: &Rc<Site>, request: &Request, now: u64) -> Result<Judged, Error> {
    let config = &site.config;
    let server = config.authorization_server.as_ref();
    match routes::route(config, request)? {
        Route::Document(reply) => Ok(Judged::Now(Verdict::Reply(reply))),
        Route::TokenEndpoint => {
            token_endpoint::check_head(site, request, now)?;
            Ok(Judged::Goes(Purpose::Token, Some(token_endpoint::MAX_FORM)))
        }
        Route::Guard(guard) => {
            guard::check_head(site, request, now)?;
            Ok(Judged::Goes(Purpose::Guarded(guard), Some(token_endpoint::MAX_FORM)))
        }
        Route::Unjudged(edits) => Ok(Judged::Now(Verdict::Forward(edits, Rc::default()))),
        Route::Revocation(endpoint) => {
            server.ok_or(Error::NotFound)?;
            revocation_endpoints::check_head(site, endpoint, request, now)?;
            Ok(Judged::Goes(Purpose::Revocation(endpoint), Some(token_endpoint::MAX_FORM)))
        }
        Route::Resource(resource) => match &resource.kind {
            Kind::Accept(accept) => {
                let server = server.ok_or(Error::NotFound)?;
                let at = (&*resource, &**accept);
                match resource_server::check_head(site, server, at, request, now)? {
                    Head::Preflight(reply) => Ok(Judged::Now(Verdict::Reply(reply))),
                    Head::Foreign => {
                        let edits = resource_server::foreign_edits(accept, request);
                        Ok(Judged::Now(Verdict::Forward(edits, Rc::default())))
                    }
                    Head::Passed(token) => {
                        let limit = check_use(server, accept, &token.token, request, now)?;
                        let (resource, accept) = (resource.clone(), accept.clone());
                        let purpose = Purpose::Accepted(resource, accept, token, Passed::default());
                        Ok(Judged::Goes(purpose, limit))
                    }
                }
            }
            Kind::Upgrade(upgrade) => Ok(Judged::Goes(Purpose::Upgraded(upgrade.clone()), None)),
        },
    }
}

/// The verdict on a request without a body that matters, if nothing has to be waited for: for most there is, and a
/// flow would cost them more than all that is in it.
fn at_hand(
    site: &Site,
    purpose: &Purpose,
    request: &Request,
    now: u64,
) -> Option<Result<Verdict, Error>> {
    match purpose {
        Purpose::Accepted(resource, accept, token, _) if accept.mcp.is_none() => {
            let server = site.config.authorization_server.as_ref()?;
            let swapped = match backend::at_hand(site, resource, accept, &token.token, now) {
                Ok(swapped) => swapped?,
                Err(error) => return Some(Err(error)),
            };
            let at = (&**resource, &**accept);
            Some(Ok(forwarded(server, at, request, token, Passed::default(), swapped)))
        }
        Purpose::Upgraded(upgrade) => {
            let upgraded = upgrade::at_hand(site, upgrade, request, now)?;
            Some(Ok(on_its_way(upgrade, upgraded)))
        }
        _ => None,
    }
}

/// Whether a good token will do for what the head says, and how much of the body matters.
fn check_use(
    server: &AuthorizationServer,
    accept: &Accept,
    token: &crate::access_token::AccessToken,
    request: &Request,
    now: u64,
) -> Result<Option<usize>, Error> {
    let (acr, age, skew) = (&accept.required_acr, accept.max_auth_age, server.endpoint.rules.skew);
    token.authentication.suffices(acr, age, now, skew)?;
    match &accept.mcp {
        None => Ok(None),
        Some(mcp) => call::check_head(mcp, request).map(|_| Some(mcp.max_body)),
    }
}

/// Starts the flow for `purpose`. Each is a flow of its own: the one for a call need not be as large as the one
/// for a grant.
fn begin(
    site: Rc<Site>,
    purpose: Purpose,
    request: Request,
    body: Vec<u8>,
    moment: Moment,
) -> Step<Result<Verdict, Error>> {
    match purpose {
        Purpose::Token => {
            let handle = async |ctx| token_endpoint::handle(ctx, site, request, body).await;
            flow::start(async |ctx| handle(ctx).await.map(Verdict::Reply), moment)
        }
        Purpose::Guarded(guard) => {
            flow::start(|ctx| guarded(ctx, site, guard, request, body), moment)
        }
        Purpose::Revocation(endpoint) => flow::start(
            async move |ctx| {
                let reply = revocation_endpoints::handle(ctx, site, endpoint, request, body).await;
                reply.map(Verdict::Reply)
            },
            moment,
        ),
        Purpose::Accepted(resource, accept, token, passed) => {
            flow::start(|ctx| accepted(ctx, site, resource, accept, request, token, passed), moment)
        }
        Purpose::Upgraded(upgrade) => {
            flow::start(|ctx| upgraded(ctx, site, upgrade, request), moment)
        }
    }
}

async fn guarded(
    ctx: Ctx,
    site: Rc<Site>,
    guard: Rc<Guard>,
    request: Request,
    body: Vec<u8>,
) -> Result<Verdict, Error> {
    let spent = guard::check(&ctx, &site, &guard, &request, &body).await?;
    let after = AfterResponse { spent, ..AfterResponse::default() };
    Ok(Verdict::Forward(Edits::default(), Rc::new(after)))
}

async fn upgraded(
    ctx: Ctx,
    site: Rc<Site>,
    upgrade: Rc<Upgrade>,
    request: Request,
) -> Result<Verdict, Error> {
    let upgraded = upgrade::handle(ctx, site, upgrade.clone(), request).await?;
    Ok(on_its_way(&upgrade, upgraded))
}

/// A request that goes on with what it was `upgraded` to.
fn on_its_way(upgrade: &Upgrade, upgraded: Upgraded) -> Verdict {
    let Upgraded { edits, sent, went } = upgraded;
    let hide = sent.as_ref().map(|_| upgrade.hidden.clone()).unwrap_or_default();
    let after = AfterResponse { sent, hide, went, ..AfterResponse::default() };
    Verdict::Forward(edits, Rc::new(after))
}

/// A request to a resource that is accepted for, with a token that is good for it.
async fn accepted(
    ctx: Ctx,
    site: Rc<Site>,
    resource: Rc<Resource>,
    accept: Rc<Accept>,
    request: Request,
    verified: Rc<Verified>,
    passed: Passed,
) -> Result<Verdict, Error> {
    let server = site.config.authorization_server.as_ref().ok_or(Error::NotFound)?;
    let token = &verified.token;
    let swapped = backend::swap(&ctx, &site, server, &resource, &accept, token).await?;
    if ctx.has_waited() {
        resource_server::check_revocation(&*site.store, &verified, ctx.now())?;
    }
    Ok(forwarded(server, (&resource, &accept), &request, &verified, passed, swapped))
}

/// A request that goes on with the credential that it was `swapped` for.
fn forwarded(
    server: &AuthorizationServer,
    (resource, accept): (&Resource, &Accept),
    request: &Request,
    verified: &Rc<Verified>,
    passed: Passed,
    swapped: Swapped,
) -> Verdict {
    let origin = resource_server::allowed_origin(resource, accept, request);
    let mut edits = resource_server::edits(accept, request, swapped.set);
    edits.remove.extend(passed.remove.into_iter().map(str::to_owned));
    let session = passed.session.map(|id| (call::SESSION_HEADER.to_owned(), Secret::new(id)));
    edits.set.extend(session);
    let after = AfterResponse {
        credential_is_ours: true,
        hide: accept.hidden.clone(),
        origin: origin.map(str::to_owned),
        token: swapped.token,
        watch: Some(Watch {
            until: verified.token.expires_at.saturating_add(server.endpoint.rules.skew),
            token: verified.clone(),
        }),
        session: passed.holder,
        ..AfterResponse::default()
    };
    Verdict::Forward(edits, Rc::new(after))
}
