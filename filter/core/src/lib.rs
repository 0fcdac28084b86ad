//! Every rule of Jagway, without a host.
//!
//! Nothing here has a clock, a random source, an environment or a network: they come in as values
//! ([`flow::Moment`], [`config::Config::parse`]'s look-up, [`http::Answer`]), and what to do next goes
//! out as a value ([`worker::Todo`]). The same inputs give the same outputs, natively and in a proxy.
//!
//! # Layout, in reading order
//!
//! * What a request goes through: [`worker`] asks [`routes`] what it is for, then [`token_endpoint`],
//!   [`resource_server`], [`upgrade`] or [`guard`] judge it, and [`reply`] words a refusal ([`error`]).
//! * A grant: [`grant`] checks an ID-JAG from form to single use ([`replay`], or [`replay_store`] for
//!   a fleet), [`subject`] tells whose it is, [`possession`] what it is bound to ([`confirmation`],
//!   shown by [`dpop`] or a certificate), [`authorization_details`] what else it grants.
//! * A call: [`verdicts`] tells which tokens were verified before ([`remembered`]), [`call`] judges it, [`mcp`] reads
//!   the message, [`session`] ties sessions to their holders, [`backend`] puts the server's own credential in,
//!   [`revocation`] takes tokens back before their time ([`revocation_endpoints`], with [`security_event`] and
//!   [`global_token_revocation`]).
//! * An upgrade: [`upgrade`] asks [`caller`] whose the one credential of a request is ([`caller_token`] verifies
//!   what stands for itself), gets the token, and [`recovery`] does what can be done if the server refuses it
//!   ([`resend`]).
//! * Its legs: [`exchange`] goes [`first_leg`] (by [`token_exchange`], RFC 8693), then [`jwt_bearer`] (RFC 7523),
//!   each request by [`token_call`]; [`client_credential`] authenticates us, [`dpop_proof`] shows our key,
//!   [`token_response`] reads the answer, [`discovery`] finds endpoints and keys, [`resource_discovery`] a
//!   resource's authorization server, by its [`challenge`]; [`pauses`] spares a server that is down.
//! * Refresh tokens that their provider renews: [`rotation`] gives each exchange its turn,
//!   [`refresh_record`] is what the process remembers, [`redis`] what a fleet does.
//! * The tokens: [`id_jag`], [`id_token`], [`access_token`], on [`jws`], [`jwk`], [`claims`],
//!   [`signing`], with [`engine`] for whose arithmetic that is.
//! * What else a caller may have: [`saml`], [`provider_access_token`], [`workload_token`] with
//!   [`claim_rule`].
//! * Waiting: [`flow`] is how a journey waits, [`job`] what runs once per process, [`table`],
//!   [`peers`] what workers share through a [`store`].
//! * Clients: [`client_authentication`] with [`client_assertion`], [`client_certificate`] and
//!   [`client_metadata`], which [`client_discovery`] fetches.
//! * The rest: [`config`], [`metadata`], [`form`], [`json`], [`http`], [`names`], [`secret`],
//!   [`protobuf`], [`seal`], [`digest`], [`limits`], [`site`], [`subject_id`].
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod access_token;
pub mod authorization_details;
pub mod backend;
pub mod call;
pub mod caller;
pub mod caller_token;
pub mod challenge;
pub mod claim_rule;
pub mod claims;
pub mod client_assertion;
pub mod client_authentication;
pub mod client_certificate;
pub mod client_credential;
pub mod client_discovery;
pub mod client_metadata;
pub mod config;
pub mod confirmation;
mod der;
pub mod digest;
pub mod discovery;
pub mod dpop;
pub mod dpop_proof;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod first_leg;
pub mod flow;
pub mod form;
pub mod global_token_revocation;
pub mod grant;
pub mod guard;
pub mod http;
pub mod id_jag;
pub mod id_token;
pub mod job;
pub mod json;
pub mod jwk;
pub mod jws;
pub mod jwt_bearer;
pub mod limits;
pub mod mcp;
pub mod metadata;
pub mod names;
pub mod pauses;
pub mod peers;
pub mod possession;
pub mod protobuf;
pub mod provider_access_token;
mod public_key;
pub mod recovery;
pub mod redis;
pub mod refresh_record;
pub mod remembered;
pub mod replay;
pub mod replay_store;
pub mod reply;
pub mod resend;
pub mod resource_discovery;
pub mod resource_server;
pub mod revocation;
pub mod revocation_endpoints;
pub mod rotation;
pub mod routes;
pub mod saml;
pub mod seal;
pub mod secret;
pub mod security_event;
pub mod session;
pub mod signing;
pub mod site;
pub mod store;
pub mod subject;
pub mod subject_id;
pub mod table;
pub mod token_call;
pub mod token_endpoint;
pub mod token_exchange;
pub mod token_response;
pub mod upgrade;
pub mod verdicts;
pub mod worker;
pub mod workload_token;
