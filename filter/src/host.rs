//! The host's functions (proxy-wasm ABI 0.2.1), each status handled.
//!
//! The SDK's wrappers panic on any status they do not list, and a panic kills the VM for every stream of its
//! worker. So all calls go to the host from here.

#![allow(unsafe_code, reason = "the host's functions are foreign")]

use jagway_core::http::{Answer, CallFailed, Callout, Headers};
use jagway_core::reply::Reply;
use jagway_core::store::{Store, Unavailable};

/// No clock that is right says less: the middle of 2025, in seconds since the epoch.
const EARLIEST: u64 = 1_750_000_000;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const CAS_MISMATCH: u32 = 8;

/// The header maps of the ABI that are read or written here.
#[derive(Clone, Copy)]
pub enum Map {
    Request = 0,
    Response = 2,
    CalloutResponse = 6,
}

/// The buffers of the ABI that are read here.
#[derive(Clone, Copy)]
pub enum Buffer {
    RequestBody = 0,
    CalloutResponseBody = 4,
    PluginConfiguration = 7,
}

/// Severity of a log line.
#[derive(Clone, Copy)]
pub enum Level {
    Info = 2,
    Warn = 3,
    Critical = 5,
}

unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, metric: *mut u32) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, size: usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        length: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_register_shared_queue(name: *const u8, size: usize, queue: *mut u32) -> u32;
    fn proxy_enqueue_shared_queue(queue: u32, value: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(queue: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
}

/// Writes a line to the host's log.
pub fn log(level: Level, line: &str) {
    // SAFETY: pointer and length are of one live string.
    unsafe { proxy_log(level as u32, line.as_ptr(), line.len()) };
}

/// The time, in seconds since the epoch; `None` if the host has no sane one.
pub fn now() -> Option<u64> {
    let mut nanoseconds = 0u64;
    // SAFETY: the host writes one u64.
    let status = unsafe { proxy_get_current_time_nanoseconds(&mut nanoseconds) };
    let now = nanoseconds / 1_000_000_000;
    (status == OK && now > EARLIEST).then_some(now)
}

/// Random bytes; `None` if the host has none.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // Small requests only: the host refuses large ones, and does not check its own generator.
    let drawn = getrandom::getrandom(&mut bytes).is_ok() && bytes != [0; N];
    drawn.then_some(bytes)
}

/// Asks for a tick every `milliseconds`.
pub fn set_tick_period(milliseconds: u32) {
    // SAFETY: no pointers.
    unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
}

/// The counter `name` of the process.
pub fn counter(name: &str) -> Option<u32> {
    let mut metric = 0;
    // SAFETY: pointer and length are of one live string; the host writes a number. 0 is a counter.
    let status = unsafe { proxy_define_metric(0, name.as_ptr(), name.len(), &mut metric) };
    (status == OK).then_some(metric)
}

/// One more.
pub fn count(counter: u32) {
    // SAFETY: no pointers.
    unsafe { proxy_increment_metric(counter, 1) };
}

/// Sets the gauge `name` of the process.
pub fn set_gauge(name: &str, value: u64) {
    let mut metric = 0;
    // SAFETY: pointer and length are of one live string; the host writes a number. 1 is a gauge.
    let status = unsafe { proxy_define_metric(1, name.as_ptr(), name.len(), &mut metric) };
    if status == OK {
        // SAFETY: no pointers.
        unsafe { proxy_record_metric(metric, value) };
    }
}

/// All fields of `map`, as bytes. `None` if the host does not hand them over (too many, too large,
/// or none there).
pub fn headers(map: Map) -> Option<Headers> {
    // SAFETY: the host writes a pointer and a size.
    let bytes = given(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) });
    Headers::from_host(bytes.ok()?)
}

/// Removes every field `name` of `map`.
pub fn remove_header(map: Map, name: &str) -> bool {
    // SAFETY: pointer and length are of one live string.
    unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) == OK }
}

/// Sets the field `name` of `map` to `value`, alone.
pub fn set_header(map: Map, name: &str, value: &str) -> bool {
    // SAFETY: pointers and lengths are of live strings.
    let status = unsafe {
        proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    };
    status == OK
}

/// Up to `length` bytes of `buffer`, from `start` on.
pub fn body(buffer: Buffer, start: usize, length: usize) -> Option<Vec<u8>> {
    if length == 0 {
        return Some(Vec::new());
    }
    let buffer = buffer as u32;
    // SAFETY: the host writes a pointer and a size.
    given(|data, size| unsafe { proxy_get_buffer_bytes(buffer, start, length, data, size) }).ok()
}

/// A property of the stream, as text.
pub fn property(path: &[&str]) -> Option<String> {
    let path = path.join("\0");
    // SAFETY: pointer and length are of one live string; the host writes a pointer and a size.
    let bytes =
        given(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) });
    String::from_utf8(bytes.ok()?).ok()
}

/// The process' shared data.
pub struct SharedData;

impl Store for SharedData {
    fn get(&self, key: &str) -> Result<(Vec<u8>, u32), Unavailable> {
        let mut version = 0;
        // SAFETY: pointer and length are of one live string; the host writes pointer, size, number.
        let bytes = given(|data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut version)
        });
        match bytes {
            Ok(bytes) => Ok((bytes, version)),
            Err(NOT_FOUND) => Ok((Vec::new(), 0)),
            Err(_) => Err(Unavailable),
        }
    }

    fn swap(&self, key: &str, value: &[u8], version: u32) -> Result<bool, Unavailable> {
        // The host overwrites for 0. A number that is never in use inserts if the key is absent and
        // mismatches if it is present.
        let version = if version == 0 { u32::MAX } else { version };
        // SAFETY: pointers and lengths are of live memory.
        let status = unsafe {
            proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version)
        };
        match status {
            OK => Ok(true),
            CAS_MISMATCH => Ok(false),
            _ => Err(Unavailable),
        }
    }
}

/// What the host's own function `name` answers. `None` if it has none, or cannot use the arguments.
pub fn call_foreign_function(name: &str, arguments: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: pointers and lengths are of live memory; the host writes a pointer and a size.
    let answer = given(|data, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments.as_ptr(),
            arguments.len(),
            data,
            size,
        )
    });
    answer.ok()
}

/// Registers the queue `name` for the current context.
pub fn register_queue(name: &str) -> Option<u32> {
    let mut queue = 0;
    // SAFETY: pointer and length are of one live string; the host writes a number.
    let status = unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &mut queue) };
    (status == OK).then_some(queue)
}

/// Puts `note` into `queue`. A queue that is no more is no fault.
pub fn enqueue(queue: u32, note: &[u8]) {
    // SAFETY: pointer and length are of one live slice.
    unsafe { proxy_enqueue_shared_queue(queue, note.as_ptr(), note.len()) };
}

/// Takes the next note out of `queue`.
pub fn dequeue(queue: u32) -> Option<Vec<u8>> {
    // SAFETY: the host writes a pointer and a size.
    given(|data, size| unsafe { proxy_dequeue_shared_queue(queue, data, size) }).ok()
}

/// Answers the effective stream.
pub fn reply(reply: &Reply) -> bool {
    let headers: Vec<(&str, &[u8])> =
        reply.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    local_response(reply.status, &headers, reply.body.as_bytes())
}

/// Answers the effective stream with what another server answered.
pub fn relay(answer: &Answer) -> bool {
    let headers: Vec<(&str, &[u8])> = answer.headers.fields().collect();
    local_response(answer.status, &headers, &answer.body)
}

fn local_response(status: u16, headers: &[(&str, &[u8])], body: &[u8]) -> bool {
    let headers = map_bytes(headers);
    let details = "jagway";
    // SAFETY: pointers and lengths are of live memory.
    let status = unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    };
    status == OK
}

/// Lets the effective stream's request go on.
pub fn resume() {
    // SAFETY: no pointers. 0 is the request's direction.
    unsafe { proxy_continue_stream(0) };
}

/// Lets the effective stream's answer go on.
pub fn resume_answer() {
    // SAFETY: no pointers. 1 is the answer's direction.
    unsafe { proxy_continue_stream(1) };
}

/// Resets the effective stream, in the middle of its answer.
pub fn close() {
    // SAFETY: no pointers. 1 is the answer's direction.
    unsafe { proxy_close_stream(1) };
}

/// Makes `context` the one that the following calls are about. `false` if it is no more.
pub fn enter(context: u32) -> bool {
    // SAFETY: no pointers.
    unsafe { proxy_set_effective_context(context) == OK }
}

/// Makes a request. Only from callbacks of the root context: the answer goes to the context that is
/// active.
pub fn dispatch(callout: &Callout) -> Result<u32, CallFailed> {
    let mut headers: Vec<(&str, &[u8])> = vec![
        (":method", callout.method.as_bytes()),
        (":authority", callout.authority.as_bytes()),
        (":path", callout.path.as_bytes()),
    ];
    let more = callout.headers.iter().map(|(name, value)| (&**name, value.expose().as_bytes()));
    headers.extend(more);
    let (headers, trailers) = (map_bytes(&headers), map_bytes(&[]));
    let (cluster, body) = (&callout.cluster, callout.body.expose());
    let mut token = 0;
    // SAFETY: pointers and lengths are of live memory; the host writes a number.
    let status = unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            callout.timeout,
            &mut token,
        )
    };
    match status {
        OK => Ok(token),
        BAD_ARGUMENT => Err(CallFailed::NoCluster),
        _ => Err(CallFailed::NoAnswer),
    }
}

/// Calls a host function that hands over memory, and takes that memory.
fn given(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, u32> {
    let mut data: *mut u8 = std::ptr::null_mut();
    let mut size = 0;
    match call(&mut data, &mut size) {
        OK if data.is_null() || size == 0 => Ok(Vec::new()),
        // SAFETY: the host allocated `size` bytes through `proxy_on_memory_allocate`, which boxes a slice of
        // that size, and gives them away.
        OK => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(status),
    }
}

fn map_bytes(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let size = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    let mut bytes = (fields.len() as u32).to_le_bytes().to_vec();
    for (name, value) in fields {
        bytes.extend(size(name.as_bytes()));
        bytes.extend(size(value));
    }
    for part in fields.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        bytes.extend(part);
        bytes.push(0);
    }
    bytes
}
