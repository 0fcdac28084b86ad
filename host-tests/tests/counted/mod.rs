//! The real module in an interpreter that counts: calls of the host by name, instructions by callback.
//!
//! It judges nothing but cost. What the filter does is tried in the real Envoy; here the host is a few maps, its clock
//! stands still, its random bytes are the same in every run, and so are all figures.
#![allow(dead_code, reason = "for more than one test")]

mod host;
mod instrument;
pub mod journey;
pub mod profile;
pub mod signatures;
mod wasi;

use std::collections::BTreeMap;

use host::{Call, State};
pub use host::{Fields, Foreign};
use jagway_core::http::{Answer, Callout};
use serde_json::Value;
use wasmi::{
    Engine, Error, ExternType, Instance, Linker, Module, Store, Val, WasmParams, WasmResults,
};

/// The root context's number.
const ROOT: u32 = 1;
/// Largest part of a body that arrives at a time.
const PART: usize = 16 * 1024;
/// `Action::Continue` of the ABI.
const CONTINUE: u32 = 0;

/// Answers the module's own requests.
pub type Servers<'a> = &'a mut dyn FnMut(&Callout) -> Answer;

/// What a request cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of the host, by name.
    pub calls: BTreeMap<String, u64>,
    /// Instructions, by callback.
    pub instructions: BTreeMap<&'static str, u64>,
    /// Bytes of memory that the module has had until now. It gives none back.
    pub memory: usize,
}

impl Counts {
    /// All instructions.
    pub fn total(&self) -> u64 {
        self.instructions.values().sum()
    }
}

/// How a request ended.
#[derive(Debug)]
pub enum End {
    /// It went on with these fields.
    Forwarded(Fields),
    /// The module answered it: status and body.
    Replied(u32, Vec<u8>),
}

/// What a worker starts with.
pub struct Setup<'a> {
    /// The module's bytes.
    pub module: &'a [u8],
    /// The plugin's configuration.
    pub config: &'a Value,
    /// The environment that the module sees.
    pub environment: Vec<(String, String)>,
    /// Seconds since the epoch.
    pub time: u64,
    /// Functions that the host has beyond the ABI.
    pub foreign: BTreeMap<String, Foreign>,
    /// Whether to count by function, too.
    pub profiled: bool,
}

/// A worker of a host, with the module in it.
pub struct Worker {
    store: Store<State>,
    instance: Instance,
    streams: u32,
    counts: Counts,
}

impl Worker {
    /// The module, started and configured.
    pub fn start(setup: Setup<'_>) -> Result<Self, Error> {
        let engine = Engine::default();
        let module = instrument::instrumented(setup.module, setup.profiled);
        let module = Module::new(&engine, &module)?;
        let config = setup.config.to_string().into_bytes();
        let size = config.len() as u32;
        let state = State {
            time: setup.time * 1_000_000_000,
            environment: setup.environment,
            foreign: setup.foreign,
            buffers: BTreeMap::from([(host::PLUGIN_CONFIGURATION, config)]),
            properties: BTreeMap::from([
                ("source.address", "192.0.2.1:40000"),
                ("xds.cluster_name", "upstream"),
                ("xds.route_name", ""),
                ("response.code_details", "via_upstream"),
                ("request.host", "mcp.acme.example"),
                ("request.path", "/mcp"),
            ]),
            ..State::default()
        };
        let mut store = Store::new(&engine, state);
        let instance = linker(&engine, &module)?.instantiate_and_start(&mut store, &module)?;
        let mut worker = Self { store, instance, streams: ROOT, counts: Counts::default() };
        worker.call::<_, ()>("_initialize", ())?;
        worker.call::<_, ()>("proxy_on_context_create", (ROOT, 0))?;
        // A host calls these if they are there, and each costs a part of every request.
        for callback in ["proxy_on_done", "proxy_on_response_body"] {
            assert!(worker.instance.get_func(&worker.store, callback).is_none(), "{callback}");
        }
        let configured = worker.call::<_, u32>("proxy_on_configure", (ROOT, size))?;
        assert_eq!(configured, 1, "{:?}", worker.log());
        Ok(worker)
    }

    /// A second goes by for the worker; the clock stands still.
    pub fn tick(&mut self, servers: Servers<'_>) -> Result<(), Error> {
        self.call::<_, ()>("proxy_on_tick", ROOT)?;
        self.settle(servers)
    }

    /// A request of these fields and body, from its context's creation to its deletion, and what it cost. If it goes
    /// on, the server behind answers 200 with JSON.
    pub fn request(
        &mut self,
        fields: &[(&str, &str)],
        body: &[u8],
        servers: Servers<'_>,
    ) -> Result<(End, Counts), Error> {
        self.begin(fields);
        let id = self.streams;
        self.call::<_, ()>("proxy_on_context_create", (id, ROOT))?;
        let head = (id, fields.len() as u32, u32::from(body.is_empty()));
        let action = self.call::<_, u32>("proxy_on_request_headers", head)?;
        self.settle(&mut *servers)?;
        let action = self.body(id, body, &mut *servers)?.unwrap_or(action);
        let end = match self.store.data_mut().reply.take() {
            Some((status, mut fields, body)) => {
                fields.insert(0, (":status".to_owned(), status.to_string().into_bytes()));
                self.response(id, fields)?;
                End::Replied(status, body)
            }
            None => {
                let goes_on = action == CONTINUE || self.store.data().resumed;
                assert!(goes_on, "still held: {:?}", self.log());
                let forwarded = self.store.data().maps[&host::REQUEST].clone();
                let fields = [(":status", "200"), ("content-type", "application/json")];
                self.response(id, owned(&fields))?;
                End::Forwarded(forwarded)
            }
        };
        self.call::<_, ()>("proxy_on_log", id)?;
        self.call::<_, ()>("proxy_on_delete", id)?;
        self.settle(servers)?;
        let mut counts = std::mem::take(&mut self.counts);
        counts.calls = std::mem::take(&mut self.store.data_mut().calls);
        let memory = self.instance.get_memory(&self.store, "memory").unwrap();
        counts.memory = memory.data_size(&self.store);
        Ok((end, counts))
    }

    /// What the functions cost that ran since this was asked last.
    pub fn take_profile(&mut self) -> BTreeMap<u32, profile::Cost> {
        std::mem::take(&mut self.store.data_mut().profile.costs)
    }

    /// The lines of the log.
    pub fn log(&self) -> &[String] {
        &self.store.data().log
    }

    fn begin(&mut self, fields: &[(&str, &str)]) {
        self.streams += 1;
        self.counts = Counts::default();
        let state = self.store.data_mut();
        state.calls.clear();
        state.log.clear();
        state.maps = BTreeMap::from([(host::REQUEST, owned(fields))]);
        state.buffers.clear();
        (state.reply, state.resumed) = (None, false);
    }

    /// The body arrives part by part; what is not let through is kept, and shown again with the next. The last action.
    fn body(&mut self, id: u32, body: &[u8], servers: Servers<'_>) -> Result<Option<u32>, Error> {
        let (mut held, mut action) = (Vec::new(), None);
        for (index, part) in body.chunks(PART).enumerate() {
            if self.store.data().reply.is_some() {
                break;
            }
            held.extend_from_slice(part);
            let size = held.len() as u32;
            let is_last = (index + 1) * PART >= body.len();
            self.store.data_mut().buffers.insert(host::REQUEST_BODY, held.clone());
            let arguments = (id, size, u32::from(is_last));
            action = Some(self.call::<_, u32>("proxy_on_request_body", arguments)?);
            if action == Some(CONTINUE) {
                held.clear();
            }
            self.settle(&mut *servers)?;
        }
        Ok(action)
    }

    fn response(&mut self, id: u32, fields: Fields) -> Result<(), Error> {
        let count = fields.len() as u32;
        self.store.data_mut().maps.insert(host::RESPONSE, fields);
        self.call::<_, u32>("proxy_on_response_headers", (id, count, 0))?;
        Ok(())
    }

    /// Tells of notes and answers requests until there are none.
    fn settle(&mut self, servers: Servers<'_>) -> Result<(), Error> {
        loop {
            if let Some(queue) = self.store.data_mut().ready.pop_front() {
                self.call::<_, ()>("proxy_on_queue_ready", (ROOT, queue))?;
            } else if let Some((token, callout)) = self.store.data_mut().callouts.pop_front() {
                let answer = servers(&callout);
                let fields: Vec<_> = answer.headers.fields().collect();
                let sizes = (ROOT, token, fields.len() as u32, answer.body.len() as u32, 0);
                let fields =
                    fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
                let state = self.store.data_mut();
                state.maps.insert(host::CALLOUT_RESPONSE, fields.collect());
                state.buffers.insert(host::CALLOUT_RESPONSE_BODY, answer.body);
                self.call::<_, ()>("proxy_on_http_call_response", sizes)?;
            } else {
                return Ok(());
            }
        }
    }

    fn counter(&self) -> u64 {
        let counter = self.instance.get_global(&self.store, instrument::COUNTER).unwrap();
        counter.get(&self.store).i64().unwrap() as u64
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        callback: &'static str,
        arguments: P,
    ) -> Result<R, Error> {
        let function = self.instance.get_typed_func::<P, R>(&self.store, callback)?;
        let before = self.counter();
        let result = function.call(&mut self.store, arguments);
        *self.counts.instructions.entry(callback).or_default() += self.counter() - before;
        if result.is_err() {
            eprintln!("{callback}: {:#?}", self.log());
        }
        result
    }
}

/// Every function the module asks for.
fn linker(engine: &Engine, module: &Module) -> Result<Linker<State>, Error> {
    let mut linker = Linker::new(engine);
    for import in module.imports() {
        let ExternType::Func(kind) = import.ty().clone() else { panic!("{import:?}") };
        let name = import.name().to_owned();
        let function =
            move |mut caller: wasmi::Caller<'_, State>, given: &[Val], results: &mut [Val]| {
                let call = Call { caller: &mut caller, arguments: host::arguments(given) };
                let status = call.run(&name)?;
                if let Some(result) = results.first_mut() {
                    *result = Val::I32(status as i32);
                }
                Ok(())
            };
        linker.func_new(import.module(), import.name(), kind, function)?;
    }
    Ok(linker)
}

fn owned(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}
