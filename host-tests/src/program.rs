//! Programs that a machine may lack, and the end of those that were started.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command};

/// Where a program lies: on the PATH, or where daemons are kept. An error says that it is not here.
pub fn find(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/bin", "/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(daemons)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("there is no {name} here"))
}

/// What was found; or nothing, said on stderr, so that the test ends there. Where everything must be tried
/// (`CI=true`), that is a failure.
pub fn or_skip<T>(found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(why) if std::env::var("CI").is_ok_and(|value| value == "true") => panic!("{why}"),
        Err(why) => {
            // Past the capture of a passing test's output: who skips must say so.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "skipped: {why}").unwrap();
            None
        }
    }
}

/// A child process that is killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Stops it where it is, as a machine that hangs would: its sockets stay open, nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {name} failed");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
