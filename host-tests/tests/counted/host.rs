//! The host's side of proxy-wasm 0.2.1: state in maps, each call counted.
//!
//! What Envoy does is done as Envoy does it, as far as the filter can tell. A function that is not here fails the test.

use std::collections::{BTreeMap, VecDeque};

use super::instrument;
use super::profile::Profile;
use jagway_core::http::Callout;
use jagway_core::secret::Secret;
use wasmi::{Caller, Extern, Memory, Val};

pub const OK: u32 = 0;
pub const NOT_FOUND: u32 = 1;
const EMPTY: u32 = 7;
const CAS_MISMATCH: u32 = 8;

pub const REQUEST: u32 = 0;
pub const RESPONSE: u32 = 2;
pub const CALLOUT_RESPONSE: u32 = 6;

pub const REQUEST_BODY: u32 = 0;
pub const CALLOUT_RESPONSE_BODY: u32 = 4;
pub const PLUGIN_CONFIGURATION: u32 = 7;

/// Header fields in order.
pub type Fields = Vec<(String, Vec<u8>)>;
/// A function of the host beyond the ABI: its argument in, its result or status out.
pub type Foreign = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>, u32>>;

/// What the module was given and what it did. There is one stream at a time, so each map and each buffer is there once.
#[derive(Default)]
pub struct State {
    /// Calls since the counts were taken last, by name.
    pub calls: BTreeMap<String, u64>,
    /// Nanoseconds since the epoch. It stands still.
    pub time: u64,
    pub environment: Vec<(String, String)>,
    pub maps: BTreeMap<u32, Fields>,
    pub buffers: BTreeMap<u32, Vec<u8>>,
    /// By path, its parts joined with dots.
    pub properties: BTreeMap<&'static str, &'static str>,
    pub shared: BTreeMap<String, (Vec<u8>, u32)>,
    pub metrics: Vec<(String, i64)>,
    /// Requests that wait for an answer.
    pub callouts: VecDeque<(u32, Callout)>,
    /// One queue for each note that nobody has been told of.
    pub ready: VecDeque<u32>,
    /// Status and fields of the module's own answer to the stream.
    pub reply: Option<(u32, Fields, Vec<u8>)>,
    /// Whether the request was let go on from another callback than its own.
    pub resumed: bool,
    pub log: Vec<String>,
    /// By name; there are none unless the test brings them.
    pub foreign: BTreeMap<String, Foreign>,
    /// Of a module that tells of its functions.
    pub profile: Profile,
    pub queues: Vec<(String, VecDeque<Vec<u8>>)>,
    pub drawn: u64,
    pub tokens: u32,
}

/// A call of the module: where its arguments and its results lie.
pub struct Call<'a, 'b> {
    pub caller: &'a mut Caller<'b, State>,
    pub arguments: Vec<u64>,
}

impl Call<'_, '_> {
    /// Does what the function `name` does, and gives its status.
    pub fn run(mut self, name: &str) -> Result<u32, wasmi::Error> {
        if name == instrument::HOOK {
            let counter = self.caller.get_export(instrument::COUNTER).and_then(Extern::into_global);
            let used = counter.unwrap().get(&*self.caller).i64().unwrap() as u64;
            let word = self.word(0);
            self.state().profile.told(word, used);
            return Ok(OK);
        }
        *self.state().calls.entry(name.to_owned()).or_default() += 1;
        match name {
            "proxy_log" => self.log(),
            "proxy_get_current_time_nanoseconds" => {
                let time = self.state().time;
                self.write(self.word(0), &time.to_le_bytes());
            }
            "proxy_set_tick_period_milliseconds" | "proxy_set_effective_context" => {}
            "proxy_done" => {}
            "proxy_continue_stream" => self.state().resumed = true,
            "proxy_define_metric" => self.define_metric(),
            "proxy_increment_metric" => {
                let (metric, by) = (self.word(0) as usize, self.arguments[1] as i64);
                self.state().metrics[metric].1 += by;
            }
            "proxy_record_metric" => {
                let (metric, value) = (self.word(0) as usize, self.arguments[1] as i64);
                self.state().metrics[metric].1 = value;
            }
            "proxy_get_header_map_pairs" => {
                let map = self.word(0);
                let bytes = encode(self.state().maps.get(&map).map_or(&[], Vec::as_slice));
                return self.give(&bytes, 1);
            }
            "proxy_set_header_map_pairs" => {
                let (map, fields) = (self.word(0), decode(&self.bytes(1)));
                self.state().maps.insert(map, fields);
            }
            "proxy_get_header_map_value" => {
                let (map, name) = (self.word(0), self.text(1));
                let mut fields = self.state().maps.get(&map).into_iter().flatten();
                let Some((_, value)) = fields.find(|(field, _)| *field == name) else {
                    return Ok(NOT_FOUND);
                };
                let value = value.clone();
                return self.give(&value, 3);
            }
            "proxy_add_header_map_value" => {
                let (map, name, value) = (self.word(0), self.text(1), self.bytes(3));
                self.state().maps.entry(map).or_default().push((name, value));
            }
            "proxy_remove_header_map_value" => {
                let (map, name) = (self.word(0), self.text(1));
                self.state().maps.entry(map).or_default().retain(|(field, _)| *field != name);
            }
            "proxy_replace_header_map_value" => {
                let (map, name, value) = (self.word(0), self.text(1), self.bytes(3));
                let fields = self.state().maps.entry(map).or_default();
                fields.retain(|(field, _)| *field != name);
                fields.push((name, value));
            }
            "proxy_get_buffer_bytes" => return self.buffer(),
            "proxy_get_property" => {
                let path = self.text(0).replace('\0', ".");
                let Some(value) = self.state().properties.get(path.as_str()).copied() else {
                    return Ok(NOT_FOUND);
                };
                return self.give(value.as_bytes(), 2);
            }
            "proxy_get_shared_data" => {
                let key = self.text(0);
                let Some((value, version)) = self.state().shared.get(&key).cloned() else {
                    return Ok(NOT_FOUND);
                };
                self.write(self.word(4), &version.to_le_bytes());
                return self.give(&value, 2);
            }
            "proxy_set_shared_data" => return Ok(self.set_shared_data()),
            "proxy_register_shared_queue" => self.register_queue(),
            "proxy_enqueue_shared_queue" => {
                let (queue, note) = (self.word(0), self.bytes(1));
                self.state().queues[queue as usize].1.push_back(note);
                self.state().ready.push_back(queue);
            }
            "proxy_dequeue_shared_queue" => {
                let queue = self.word(0) as usize;
                let Some(note) = self.state().queues[queue].1.pop_front() else {
                    return Ok(EMPTY);
                };
                return self.give(&note, 1);
            }
            "proxy_http_call" => return Ok(self.http_call()),
            "proxy_send_local_response" => {
                let (status, body) = (self.word(0), self.bytes(3));
                let fields = decode(&self.bytes(5));
                self.state().reply = Some((status, fields, body));
            }
            "proxy_call_foreign_function" => {
                let (name, argument) = (self.text(0), self.bytes(2));
                let foreign = self.state().foreign.get_mut(&name);
                return match foreign.map_or(Err(NOT_FOUND), |foreign| foreign(&argument)) {
                    Ok(result) => self.give(&result, 4),
                    Err(status) => Ok(status),
                };
            }
            "random_get" => self.random(),
            "environ_sizes_get" => {
                let (count, size) = (self.state().environment.len(), self.environment().len());
                self.write(self.word(0), &(count as u32).to_le_bytes());
                self.write(self.word(1), &(size as u32).to_le_bytes());
            }
            "environ_get" => self.environ_get(),
            "fd_write" => self.fd_write(),
            other => return Err(wasmi::Error::new(format!("the counting host has no {other}"))),
        }
        Ok(OK)
    }

    pub(super) fn state(&mut self) -> &mut State {
        self.caller.data_mut()
    }

    pub(super) fn word(&self, index: usize) -> u32 {
        self.arguments[index] as u32
    }

    pub(super) fn memory(&self) -> Memory {
        self.caller.get_export("memory").and_then(Extern::into_memory).unwrap()
    }

    /// The bytes whose pointer is argument `index` and whose size is the next.
    fn bytes(&self, index: usize) -> Vec<u8> {
        let (start, size) = (self.word(index) as usize, self.word(index + 1) as usize);
        self.memory().data(&*self.caller)[start..start + size].to_vec()
    }

    fn text(&self, index: usize) -> String {
        String::from_utf8(self.bytes(index)).unwrap()
    }

    pub(super) fn write(&mut self, at: u32, bytes: &[u8]) {
        self.memory().write(&mut *self.caller, at as usize, bytes).unwrap();
    }

    /// Gives `bytes` away: memory of the module's, its pointer and size to where arguments `index` and the next point.
    fn give(mut self, bytes: &[u8], index: usize) -> Result<u32, wasmi::Error> {
        let mut at = 0;
        if !bytes.is_empty() {
            let allocate = self.caller.get_export("proxy_on_memory_allocate").unwrap();
            let allocate = allocate.into_func().unwrap().typed::<u32, u32>(&*self.caller)?;
            at = allocate.call(&mut *self.caller, bytes.len() as u32)?;
            self.write(at, bytes);
        }
        self.write(self.word(index), &at.to_le_bytes());
        self.write(self.word(index + 1), &(bytes.len() as u32).to_le_bytes());
        Ok(OK)
    }

    fn log(&mut self) {
        let line = self.text(1);
        self.state().log.push(line);
    }

    fn define_metric(&mut self) {
        let name = self.text(1);
        let metrics = &mut self.state().metrics;
        let known = metrics.iter().position(|(other, _)| *other == name);
        let metric = known.unwrap_or_else(|| {
            metrics.push((name, 0));
            metrics.len() - 1
        });
        self.write(self.word(3), &(metric as u32).to_le_bytes());
    }

    fn buffer(mut self) -> Result<u32, wasmi::Error> {
        let (buffer, start, length) = (self.word(0), self.word(1) as usize, self.word(2) as usize);
        let Some(bytes) = self.state().buffers.get(&buffer) else {
            return Ok(NOT_FOUND);
        };
        let end = start.saturating_add(length).min(bytes.len());
        let bytes = bytes[start.min(end)..end].to_vec();
        self.give(&bytes, 3)
    }

    /// As Envoy does it: version 0 overwrites, and a key that is not there takes any version.
    fn set_shared_data(&mut self) -> u32 {
        let (key, value, version) = (self.text(0), self.bytes(2), self.word(4));
        let shared = &mut self.state().shared;
        let current = shared.get(&key).map(|(_, version)| *version);
        if current.is_some_and(|current| version != 0 && version != current) {
            return CAS_MISMATCH;
        }
        shared.insert(key, (value, current.unwrap_or_default() + 1));
        OK
    }

    fn register_queue(&mut self) {
        let name = self.text(0);
        let queues = &mut self.state().queues;
        let known = queues.iter().position(|(other, _)| *other == name);
        let queue = known.unwrap_or_else(|| {
            queues.push((name, VecDeque::new()));
            queues.len() - 1
        });
        self.write(self.word(2), &(queue as u32).to_le_bytes());
    }

    fn http_call(&mut self) -> u32 {
        let (cluster, fields, body) = (self.text(0), decode(&self.bytes(2)), self.text(4));
        let field = |name: &str| {
            let value = fields.iter().find(|(field, _)| field == name);
            value.map(|(_, value)| String::from_utf8(value.clone()).unwrap()).unwrap_or_default()
        };
        let rest = fields.iter().filter(|(name, _)| !name.starts_with(':'));
        let callout = Callout {
            cluster,
            method: if field(":method") == "POST" { "POST" } else { "GET" },
            authority: field(":authority"),
            path: field(":path"),
            headers: rest
                .map(|(name, _)| (name.clone().into(), Secret::new(field(name))))
                .collect(),
            body: Secret::new(&body),
            timeout: self.word(8),
        };
        self.state().tokens += 1;
        let token = self.state().tokens;
        self.state().callouts.push_back((token, callout));
        self.write(self.word(9), &token.to_le_bytes());
        OK
    }
}

/// The arguments of a call as they are passed: all that the ABI has are integers.
pub fn arguments(values: &[Val]) -> Vec<u64> {
    let number = |value: &Val| match value {
        Val::I32(number) => u64::from(*number as u32),
        Val::I64(number) => *number as u64,
        other => panic!("the ABI has no {other:?}"),
    };
    values.iter().map(number).collect()
}

/// A header map as the ABI writes it: a count, the sizes of each name and value, then each followed by a NUL.
fn encode(fields: &[(String, Vec<u8>)]) -> Vec<u8> {
    let number = |number: usize| (number as u32).to_le_bytes();
    let mut bytes = number(fields.len()).to_vec();
    for (name, value) in fields {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for part in fields.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        bytes.extend(part);
        bytes.push(0);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Fields {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    if bytes.is_empty() {
        return Vec::new();
    }
    let count = number(0);
    let mut at = 4 + 8 * count;
    let mut take = |size: usize| {
        let part = bytes[at..at + size].to_vec();
        at += size + 1;
        part
    };
    let mut field = |index: usize| {
        let name = String::from_utf8(take(number(4 + 8 * index))).unwrap();
        (name, take(number(8 + 8 * index)))
    };
    (0..count).map(&mut field).collect()
}
