//! The test world: a real Envoy, an IdP, a Resource AS, MCP servers and clients, and a journal of what passed between them.
//!
//! Support for tests and the demo, so it may unwrap: a broken world should stop at once and say where.
#![warn(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod backend_as;
pub mod bootstrap;
pub mod client_auth;
pub mod discovery;
pub mod dpop;
pub mod egress;
pub mod endpoints;
pub mod envoy;
pub mod envoy_binary;
pub mod idp;
pub mod journal;
pub mod jwks;
pub mod keys;
pub mod mcp;
pub mod mcp_client;
pub mod mtls;
pub mod names;
pub mod node;
pub mod oauth;
pub mod oauth_client;
pub mod panva;
pub mod patches;
pub mod program;
pub mod python;
pub mod raw;
pub mod redis;
pub mod resource_as;
pub mod scripted;
pub mod server;
pub mod through;
pub mod upstash;
pub mod upstream;
pub mod wasm;
pub mod world;

pub use world::{Options, World};

use std::path::PathBuf;

/// The root of the repository, where `target` lies.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
