//! SIGINT and SIGTERM: the first stops the node, the second ends the process at once.
//! SIGXFSZ, which comes with a write past `ulimit -f`, is taken and forgotten: the write fails,
//! as on a full disk, and the node goes on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// Its number on Linux (but for MIPS) and macOS.
const SIGXFSZ: i32 = 25;

/// The signals that stop a node, caught since [`Signals::catch`].
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(crate) fn catch() -> io::Result<Self> {
        // What was registered once does not end the process any more.
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one; gives its name and the exit code of a process that it ended.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", 130),
            _ = self.terminate.recv() => ("SIGTERM", 143),
        }
    }

    /// Waits for the first.
    pub(crate) async fn first(&mut self) {
        let (name, _) = self.next().await;
        info!(signal = name, "stopping; a second signal ends the process at once");
    }

    /// Waits for the second; gives the exit code. Nothing acknowledged is lost: the log has it.
    pub(crate) async fn second(&mut self) -> i32 {
        let (name, code) = self.next().await;
        warn!(signal = name, "ended before everything was written out");
        code
    }
}
