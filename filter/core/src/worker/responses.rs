//! Answers of the servers behind, on their way to the client.

use super::{Asker, RESEND_DEADLINE, StreamId, Todo, Worker};
use crate::call::SESSION_HEADER;
use crate::digest::Key;
use crate::dpop_proof;
use crate::flow::{self, Moment};
use crate::grant::Spent;
use crate::http::Headers;
use crate::recovery::{self, Refusal};
use crate::replay;
use crate::reply::{Surface, cors};
use crate::resend::{self, Resend, Route};
use crate::session::OwnedHolder;
use crate::upgrade::Sent;
use crate::verdicts::Verdict as Verified;
use std::rc::Rc;

/// What is to be done with the answer of the upstream server.
#[derive(Debug, Clone, Default)]
pub struct AfterResponse {
    /// Whether the credential the server refuses is ours and not the client's: a 401 is a 502 then.
    pub credential_is_ours: bool,
    /// Header fields that the client must not see. A challenge would send it to an authorization server
    /// that is none of its business.
    pub hide: Rc<[String]>,
    /// The page that asks, and may read the answer.
    pub origin: Option<String>,
    /// The token that the request went with: its key, and the second at which it was got. It is
    /// dropped if the server refuses it.
    pub token: Option<(Key, u64)>,
    /// What an event stream that the server opens goes by: it ends with the token.
    pub watch: Option<Watch>,
    /// A grant that is to be released if the server issued nothing for it: the client did not prove
    /// itself there (401), or is to come again with a nonce of the server's (RFC 9449 §8).
    pub spent: Option<Spent>,
    /// What a request to a resource that is upgraded for went with.
    pub sent: Option<Rc<Sent>>,
    /// The head of such a request as it left us, if it may be sent once more.
    pub went: Option<Headers>,
    /// To whom an MCP session of the answer is bound.
    pub session: Option<OwnedHolder>,
}

/// The token behind an event stream.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The second, since the epoch, at which it ends.
    pub until: u64,
    /// The token.
    pub token: Rc<Verified>,
}

/// What becomes of the head of an answer.
#[derive(Debug, Default)]
pub struct ResponseEdits {
    /// Header fields to remove.
    pub remove: Vec<String>,
    /// Header fields to set, after the removal.
    pub set: Vec<(&'static str, String)>,
    /// Whether the answer is held until the stream is concluded.
    pub hold: bool,
}

impl AfterResponse {
    /// Whether the server refused the request: what is done then takes the time.
    pub fn is_refused(headers: &Headers) -> bool {
        matches!(headers.sole(":status"), Some(b"400" | b"401" | b"403"))
    }

    /// Whether an answer with this head has something to it that concerns us. Most answers have not, and are not
    /// looked into further.
    pub fn concerns(&self, headers: &Headers) -> bool {
        let is_hidden = |name: &[u8]| self.hide.iter().any(|other| other.as_bytes() == name);
        Self::is_refused(headers)
            || self.origin.is_some()
            || self.watch.is_some() && opens_events(headers)
            || headers.parts().any(|(name, _)| is_hidden(name))
    }
}

/// Whether an answer with this head is an event stream, or of a kind that begins with the name of that.
fn opens_events(headers: &Headers) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = headers.sole("content-type").unwrap_or_default().trim_ascii_start();
    kind.get(..EVENTS.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENTS))
}

impl Worker {
    /// The head of the answer on `stream` is on its way to the client. An event stream may outlive the
    /// token it was opened with; then it is cut.
    pub fn opened(&mut self, stream: StreamId, after: &AfterResponse, headers: &Headers) {
        if let Some(watch) = after.watch.as_ref().filter(|_| opens_events(headers)) {
            self.open.insert(stream, watch.clone());
        }
    }

    /// Cuts event streams whose token has ended or was revoked. To be called each second, after all else: the host may
    /// call back for a stream before it has returned.
    pub fn cut(&mut self, now: u64) -> Vec<Todo> {
        let mut todo = Vec::new();
        let store = &*self.site.store;
        let over =
            |watch: &Watch| watch.until <= now || watch.token.is_revoked(store, now) != Ok(false);
        let over = self.open.iter().filter(|(_, watch)| over(watch)).map(|(id, _)| *id);
        let over: Vec<StreamId> = over.collect();
        for id in over {
            self.open.remove(&id);
            todo.push(Todo::Count("done", "cut"));
            todo.push(Todo::Info("cut an event stream: its token has ended".to_owned()));
            todo.push(Todo::Close(id));
        }
        todo
    }

    /// The upstream server answered with `headers` a request on `stream` that was forwarded with `after`.
    ///
    /// A token that was refused is not used again, by any worker. `kept` gives the way that the request took,
    /// and its body, if all of it was kept.
    pub fn response(
        &mut self,
        stream: StreamId,
        after: &AfterResponse,
        headers: &Headers,
        kept: &mut dyn FnMut() -> Option<(Route, Vec<u8>)>,
        moment: Moment,
    ) -> (ResponseEdits, Vec<Todo>) {
        let now = moment.now;
        let refused = headers.sole(":status") == Some(b"401");
        let mut edits = ResponseEdits::default();
        let hidden = after.hide.iter().filter(|name| headers.has(name));
        edits.remove.extend(hidden.cloned());
        edits.set.extend(after.origin.iter().flat_map(|origin| cors(origin)));
        if refused && after.credential_is_ours {
            // A new token of the client's would not help: it is no fault of the client's.
            edits.set.push((":status", "502".to_owned()));
        }
        let mut todo = match after.token {
            Some((key, made_at)) if refused => self.token_refused(&key, false, made_at, now),
            _ => Vec::new(),
        };
        let wants_nonce = headers.sole(":status") == Some(b"400") && headers.has("dpop-nonce");
        if let Some((kind, name)) = after.spent.filter(|_| refused || wants_nonce) {
            // If the store fails, the grant stays spent.
            let _ = replay::release(&*self.site.store, kind, &name);
        }
        self.bind_session(after, headers, &mut edits, &mut todo);
        if let Some(sent) = &after.sent {
            let store = self.site.store.clone();
            let mut resend = || {
                let (went, (route, body)) = (after.went.as_ref()?, kept()?);
                Resend::new(&*store, &sent.upgrade, route, went, body)
            };
            edits.hold = self.recover(stream, sent, headers, &mut resend, moment, &mut todo);
        }
        let todo = self.finish(todo);
        (edits, todo)
    }

    /// Whether nobody has told this worker yet where requests like the one that was forwarded with `after` arrive:
    /// [`Worker::arrived`] is to be called when it is over.
    pub fn wonders(&self, after: &AfterResponse) -> bool {
        let (Some(sent), Some(went)) = (&after.sent, &after.went) else {
            return false;
        };
        !self.site.has_seen(resend::likeness(self.site.tagger.clone(), sent, went))
    }

    /// A request that was forwarded with `after` is over: it arrived by `route` as one for this authority and path.
    pub fn arrived(&self, after: &AfterResponse, route: &Route, at: (&str, &str)) {
        if let (Some(sent), Some(went)) = (&after.sent, &after.went) {
            self.site.keep_seen(resend::likeness(self.site.tagger.clone(), sent, went));
            resend::arrived(&*self.site.store, &sent.upgrade, went, route, at);
        }
    }

    /// Sets about a request whose token was refused. `false` if nothing can be done: the answer goes on.
    fn recover(
        &mut self,
        stream: StreamId,
        sent: &Rc<Sent>,
        headers: &Headers,
        resend: &mut dyn FnMut() -> Option<Resend>,
        moment: Moment,
        todo: &mut Vec<Todo>,
    ) -> bool {
        if let Some(nonce) = dpop_proof::nonce(headers).filter(|_| sent.token.bound) {
            self.site.keep_nonce(sent.upgrade.way, nonce);
        }
        let Some(refusal) = recovery::refusal(sent, headers) else {
            return false;
        };
        todo.push(Todo::Count("upstream_refused", refusal.code()));
        if refusal == Refusal::Token {
            todo.extend(self.token_refused(
                &sent.key,
                sent.caller.known.is_unproven,
                sent.token.made_at,
                moment.now,
            ));
        }
        // What cannot be had anew goes on as it is, but for the user who must authenticate.
        let request = match (&refusal, resend()) {
            (Refusal::Authentication(_), _) => Resend::default(),
            (_, Some(request)) => request,
            (_, None) => return false,
        };
        let asker = Asker { surface: Surface::Upgrade, request_id: sent.request_id.clone() };
        let (site, sent) = (self.site.clone(), sent.clone());
        let again = |ctx| recovery::again(ctx, site, sent, refusal, request);
        let moment = self.apart(moment);
        let step = flow::start(again, moment);
        let deadline = moment.now.saturating_add(RESEND_DEADLINE);
        self.step(stream, deadline, asker, step, moment, todo);
        true
    }

    /// The client gets the server's session as one that only it can use. One that cannot be bound would
    /// be anybody's: it stays here.
    fn bind_session(
        &self,
        after: &AfterResponse,
        headers: &Headers,
        edits: &mut ResponseEdits,
        todo: &mut Vec<Todo>,
    ) {
        let (Some(holder), Some(server), true) =
            (&after.session, &self.site.config.authorization_server, headers.has(SESSION_HEADER))
        else {
            return;
        };
        let id = headers.sole(SESSION_HEADER);
        match id.and_then(|id| server.sessions.bind(id, &holder.as_holder())) {
            Some(bound) => edits.set.push((SESSION_HEADER, bound)),
            None => {
                edits.set.push((":status", "502".to_owned()));
                let line = "the server behind sent an Mcp-Session-Id that cannot be bound";
                todo.push(Todo::Warn(line.to_owned()));
            }
        }
    }

    /// The token under `key`, got at `made_at`, is not used again. If the store fails, the shared token
    /// ends by its own expiry.
    fn token_refused(&mut self, key: &Key, is_unproven: bool, made_at: u64, now: u64) -> Vec<Todo> {
        self.site.drop_token(key);
        let _ = self.table(now).forget_token(key, is_unproven, made_at);
        self.tell_peers(key, now)
    }
}
