//! The adapter between Envoy and [`jagway_core`]: callbacks in, values to the core, its answers out.
//!
//! [`abi`] is where the host calls in. [`root`] is the worker's own context: configuration, callouts, queues, time. [`stream`] is one
//! request. [`desk`] is what they share, and does what the core asks for. [`host`] is the host,
//! [`signatures`] what it verifies and signs.

mod abi;
mod desk;
mod host;
mod root;
mod signatures;
mod stream;
