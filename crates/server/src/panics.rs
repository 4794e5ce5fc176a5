//! Panics: a node that serves ends at the first one, on whatever thread.
//!
//! A shard whose actor died, or a log without its thread, would take calls and answer none.
//! What was acknowledged is in the log, so ending the process loses nothing, and whoever runs
//! it starts it again.
//!
//! While a node starts it is otherwise: the database and the log assert in places where their
//! files are damaged, which is caught there and becomes a message.

use std::{
    backtrace::Backtrace,
    panic,
    sync::atomic::{AtomicBool, Ordering},
};

use tracing::{debug, error};

static SERVING: AtomicBool = AtomicBool::new(false);

/// Takes over what a panic does.
pub(crate) fn install_hook() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        if SERVING.load(Ordering::SeqCst) {
            let backtrace = Backtrace::force_capture();
            error!(thread, place, %backtrace, "a bug or a broken disk: {message}; the process ends");
            std::process::abort();
        }
        debug!(thread, place, "while starting: {message}");
    }));
}

/// From now on a panic ends the process.
pub(crate) fn serving() {
    SERVING.store(true, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{env, os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    /// Set in the process that the test starts: itself.
    const CHILD: &str = "EVERSPAN_TEST_PANIC";

    #[test]
    fn a_panic_on_any_thread_ends_a_process_that_serves() {
        let panic_elsewhere = || std::thread::spawn(|| panic!("on purpose")).join();
        if env::var_os(CHILD).is_some() {
            install_hook();
            // Caught while starting.
            assert!(panic_elsewhere().is_err());
            serving();
            let _ = panic_elsewhere();
            unreachable!("the process went on");
        }
        let this = "panics::tests::a_panic_on_any_thread_ends_a_process_that_serves";
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", this])
            .env(CHILD, "1")
            .output()
            .unwrap();
        const SIGABRT: i32 = 6;
        assert_eq!(child.status.signal(), Some(SIGABRT), "{child:?}");
    }
}
