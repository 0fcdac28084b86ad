//! The adapter between Envoy and [`jagway_core`]: callbacks in, values to the core, its answers out.
//!
//! [`root`] is the worker's own context: configuration, callouts, queues, time. [`stream`] is one
//! request. [`desk`] is what they share, and does what the core asks for. [`host`] is the host,
//! [`signatures`] what it verifies and signs.

mod desk;
mod host;
mod root;
mod signatures;
mod stream;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
