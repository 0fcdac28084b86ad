//! Who runs on which core, and what it used: read from `/proc`, set with `taskset`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The core of what is measured.
pub const MEASURED: &str = "0";
/// The core of everything else.
pub const OTHER: &str = "1";

/// A process that can be asked what it used.
#[derive(Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// This one.
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// Processor time used so far, by all its threads that live.
    pub fn used(self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).expect("the process lives");
        let used = threads.filter_map(|thread| {
            // The first number is nanoseconds. `stat` has hundredths of a second, which is coarse for short windows.
            let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(used.sum())
    }

    /// Resident memory in KiB.
    pub fn resident(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap()
    }

    /// Keeps all its threads on this core, or on these. `false` if that cannot be done here.
    pub fn pin(self, cores: &str) -> bool {
        let mut taskset = Command::new("taskset");
        taskset.args(["-a", "-c", "-p", cores, &self.0.to_string()]);
        let status = taskset.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }
}

/// What a thread is given to do is done on all cores: nothing is measured meanwhile.
pub fn on_all_cores<T>(work: impl FnOnce() -> T) -> T {
    let this = Process::this();
    this.pin(&format!("{MEASURED},{OTHER}"));
    let done = work();
    this.pin(OTHER);
    done
}

/// Model, number of cores and kernel of this machine.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("{}, {cores} cores, Linux {}", model.unwrap_or("unknown CPU"), kernel.trim())
}
