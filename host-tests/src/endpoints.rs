//! The switchboard before a server's endpoints: who asked for what, and which endpoint is out of order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use tokio::sync::watch;

use crate::journal::{Journal, sender};

/// What holds answers back until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed one.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets all go on, those who wait and those who come.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn wait(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// What is wrong with an endpoint.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It answers with this status and no body.
    Status(u16),
    /// It answers rightly, but after this long.
    Delay(Duration),
    /// It answers rightly, but not before this is opened.
    Held(Gate),
    /// It answers 200 with something that is not JSON.
    Junk,
    /// It answers 200 with nothing.
    Empty,
    /// It answers 200 with this JSON text.
    Body(String),
    /// It answers with this status, these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, String),
}

/// Counters and fault switches of one server, by path.
#[derive(Clone)]
pub struct Endpoints {
    owner: &'static str,
    journal: Journal,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    requests: Vec<(String, String)>,
    faults: HashMap<String, (Fault, u32)>,
}

impl Endpoints {
    /// The switchboard of the server called `owner` in the journal.
    pub fn new(owner: &'static str, journal: &Journal) -> Self {
        Self { owner, journal: journal.clone(), inner: Arc::default() }
    }

    /// How many requests for this path have arrived, faulty answers included.
    pub fn count(&self, path: &str) -> usize {
        self.inner.lock().unwrap().requests.iter().filter(|(_, asked)| asked == path).count()
    }

    /// How many of them came from this party, named as in the journal.
    pub fn count_from(&self, who: &str, path: &str) -> usize {
        let inner = self.inner.lock().unwrap();
        inner.requests.iter().filter(|(from, asked)| from == who && asked == path).count()
    }

    /// Puts an endpoint out of order until [`Endpoints::heal`].
    pub fn fail(&self, path: &str, fault: Fault) {
        self.fail_times(path, u32::MAX, fault);
    }

    /// Puts an endpoint out of order for the next `times` requests.
    pub fn fail_times(&self, path: &str, times: u32, fault: Fault) {
        self.inner.lock().unwrap().faults.insert(path.into(), (fault, times));
    }

    /// Puts an endpoint in order again.
    pub fn heal(&self, path: &str) {
        self.inner.lock().unwrap().faults.remove(path);
    }

    /// The router with this switchboard before it.
    pub fn before(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), switch))
    }

    fn note(&self, request: &Request) -> Option<Fault> {
        let (path, from) = (request.uri().path().to_owned(), sender(request.headers()));
        if request.method() == Method::GET {
            self.journal.record(&from, self.owner, format!("GET {path}"), None);
        }
        let mut inner = self.inner.lock().unwrap();
        inner.requests.push((from, path.clone()));
        let (fault, left) = inner.faults.get_mut(&path)?;
        let fault = fault.clone();
        *left -= 1;
        if *left == 0 {
            inner.faults.remove(&path);
        }
        Some(fault)
    }
}

async fn switch(State(endpoints): State<Endpoints>, request: Request, next: Next) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    match endpoints.note(&request) {
        None => next.run(request).await,
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            next.run(request).await
        }
        Some(Fault::Held(gate)) => {
            gate.wait().await;
            next.run(request).await
        }
        Some(Fault::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Fault::Junk) => (json, "<html>gateway of the day</html>").into_response(),
        Some(Fault::Empty) => (json, Body::empty()).into_response(),
        Some(Fault::Body(text)) => (json, text).into_response(),
        Some(Fault::Answer(status, headers, body)) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
    }
}
