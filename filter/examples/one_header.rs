//! A wasm filter that reads one request header and lets everything pass: what any wasm filter costs in Envoy, at least.
//!
//! The benchmarks hold Jagway against it. It is built with the SDK, as most filters are, and in the same profile.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

struct OneHeader;

impl Context for OneHeader {}

impl HttpContext for OneHeader {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        core::hint::black_box(self.get_http_request_header("authorization"));
        Action::Continue
    }
}

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| Box::new(OneHeader));
}}
