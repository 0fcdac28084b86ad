//! The callbacks of the host (proxy-wasm ABI 0.2.1), each handed to the context it is for.
//!
//! Here and not by the SDK, which exports every callback that there is: each costs a part of a microsecond for
//! every stream, and for every chunk of a body, also where there is nothing to do. Besides, it takes a context or a
//! callout that it does not know for a reason to panic.

#![allow(unsafe_code, reason = "the host calls these by name")]

use crate::root::Root;
use crate::stream::Stream;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The request or the answer goes on.
const CONTINUE: u32 = 0;
/// Its head does not; its body is handed to us.
const STOP: u32 = 1;
/// Nothing of it does.
const STOP_ALL: u32 = 4;

/// Whether a part of a message goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It does.
    Continue,
    /// Not now.
    Pause,
}

type Contexts<T> = RefCell<BTreeMap<u32, Rc<RefCell<T>>>>;

thread_local! {
    static ROOTS: Contexts<Root> = const { RefCell::new(BTreeMap::new()) };
    static STREAMS: Contexts<Stream> = const { RefCell::new(BTreeMap::new()) };
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Which version of the ABI the module speaks.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Called once, before all else.
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    // SAFETY: the linker's function that runs what must run before `main`, of which there is none.
    unsafe { __wasm_call_ctors() };
}

/// Memory for what the host hands over; whoever gets it frees it.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let memory: Box<[u8]> = vec![0; size].into();
    Box::into_raw(memory).cast()
}

/// A context begins: a plugin configuration's (its `root` is 0) or a stream's.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(id: u32, root: u32) {
    if root == 0 {
        let root = Rc::new(RefCell::new(Root::new(id)));
        ROOTS.with_borrow_mut(|roots| roots.insert(id, root));
        return;
    }
    let desk = on_root(root, None, |root| root.desk());
    let stream = Rc::new(RefCell::new(Stream::new(id, desk)));
    STREAMS.with_borrow_mut(|streams| streams.insert(id, stream));
}

/// A context ends.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(id: u32) {
    let stream = STREAMS.with_borrow_mut(|streams| streams.remove(&id));
    match stream {
        Some(stream) => drop(stream.try_borrow().map(|stream| stream.forget())),
        None => drop(ROOTS.with_borrow_mut(|roots| roots.remove(&id))),
    }
}

/// The plugin configuration is there.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_configure(id: u32, size: usize) -> u32 {
    u32::from(on_root(id, false, |root| root.on_configure(size)))
}

/// Time has passed.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_tick(id: u32) {
    on_root(id, (), Root::on_tick);
}

/// There is a note in a queue.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_queue_ready(id: u32, queue: u32) {
    on_root(id, (), |root| root.on_queue_ready(queue));
}

/// A callout is answered, or has failed.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_http_call_response(
    id: u32,
    token: u32,
    _headers: usize,
    body: usize,
    _trailers: usize,
) {
    on_root(id, (), |root| root.on_http_call_response(token, body));
}

/// The head of a request.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(id: u32, _count: usize, end: u32) -> u32 {
    stop(on_stream(id, |stream| stream.on_request_headers(end != 0)), STOP)
}

/// A part of its body.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_body(id: u32, size: usize, end: u32) -> u32 {
    stop(on_stream(id, |stream| stream.on_request_body(size, end != 0)), STOP)
}

/// Its trailers.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_trailers(id: u32, _count: usize) -> u32 {
    stop(on_stream(id, Stream::on_request_trailers), STOP)
}

/// The head of an answer. What follows is none of our business, but waits with it.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_headers(id: u32, _count: usize, _end: u32) -> u32 {
    stop(on_stream(id, Stream::on_response_headers), STOP_ALL)
}

/// The stream is over.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_log(id: u32) {
    on_stream(id, |stream| {
        stream.on_log();
        Action::Continue
    });
}

fn stop(action: Action, how: u32) -> u32 {
    match action {
        Action::Continue => CONTINUE,
        Action::Pause => how,
    }
}

/// What `call` says of the configuration's context `id`; `otherwise`, if that is none or busy: the host calls back
/// before we have returned only if it is ended in the middle of something.
fn on_root<T>(id: u32, otherwise: T, call: impl FnOnce(&mut Root) -> T) -> T {
    let root = ROOTS.with_borrow(|roots| roots.get(&id).cloned());
    match root.as_ref().and_then(|root| root.try_borrow_mut().ok()) {
        Some(mut root) => call(&mut root),
        None => otherwise,
    }
}

/// What `call` says of the stream `id`. One that nobody knows is held: it has passed no check.
fn on_stream(id: u32, call: impl FnOnce(&mut Stream) -> Action) -> Action {
    let stream = STREAMS.with_borrow(|streams| streams.get(&id).cloned());
    match stream.as_ref().and_then(|stream| stream.try_borrow_mut().ok()) {
        Some(mut stream) => call(&mut stream),
        None => Action::Pause,
    }
}
