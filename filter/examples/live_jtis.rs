//! A wasm service that fills the process' memory of used ID-JAGs, as many days of grants would have.
//!
//! The benchmarks run it beside Jagway, with the same `vm_id`: what it spends is spent for Jagway. A part with every
//! tick, so that no watchdog takes the thread for dead.

// All of the host that Jagway itself uses, of which this needs little.
#[allow(dead_code)]
#[path = "../src/host.rs"]
mod host;

use host::{Buffer, Level, SharedData};
use jagway_core::json;
use jagway_core::replay::{Kind, Spend, name, partition, spend};
use proxy_wasm::traits::{Context, RootContext};

/// How many are spent with one tick.
const PART: u64 = 20_000;
/// How long they are remembered, in seconds.
const LIFETIME: u64 = 4 * 3600;

#[derive(Default)]
struct Filler {
    issuer: String,
    audience: String,
    count: u64,
    spent: u64,
    /// What there was no room for.
    refused: u64,
}

impl Context for Filler {}

impl Filler {
    fn configure(&mut self, size: usize) -> Option<()> {
        let document = host::body(Buffer::PluginConfiguration, 0, size)?;
        let document = json::object(&document)?;
        self.issuer = json::string(&document, "issuer").ok()??.to_owned();
        self.audience = json::string(&document, "audience").ok()??.to_owned();
        // Envoy may write a number as it likes, such as 1e+06.
        self.count = json::string(&document, "count").ok()??.parse().ok()?;
        Some(())
    }

    fn spend(&mut self, now: u64) {
        let name = name(&self.audience, &self.issuer, &format!("live-{}", self.spent), 0);
        let kind = Kind::Grant(partition(&self.issuer));
        let spent = spend(&SharedData, kind, &name, now + LIFETIME, now);
        self.spent += 1;
        self.refused += u64::from(spent != Ok(Spend::First));
    }
}

impl RootContext for Filler {
    fn on_configure(&mut self, size: usize) -> bool {
        host::set_tick_period(1);
        self.configure(size).is_some()
    }

    fn on_tick(&mut self) {
        let Some(now) = host::now() else {
            return;
        };
        for _ in 0..PART.min(self.count - self.spent) {
            self.spend(now);
        }
        if self.spent == self.count {
            host::set_tick_period(0);
            let (spent, refused) = (self.spent, self.refused);
            host::log(Level::Warn, &format!("live_jtis: {spent} spent, {refused} of them refused"));
        }
    }
}

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Filler::default()));
}}
