//! What happened, as lines for people and as a number that two runs of a seed must share.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// The trace of one seed.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    lines: Option<Vec<String>>,
    /// A directory whose name is chance of another kind.
    hidden: String,
}

impl Trace {
    pub(crate) fn new(keeps_lines: bool) -> Self {
        // With its fixed keys: the same in every process.
        Self {
            hasher: DefaultHasher::new(),
            lines: keeps_lines.then(Vec::new),
            hidden: String::new(),
        }
    }

    pub(crate) fn add(&mut self, at: Duration, line: impl FnOnce() -> String) {
        at.hash(&mut self.hasher);
        let line = self.clean(&line());
        line.hash(&mut self.hasher);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} {line}", at.as_secs_f64()));
        }
    }

    /// Leaves a directory's name out of what is told.
    pub(crate) fn hide(&mut self, directory: String) {
        self.hidden = directory;
    }

    pub(crate) fn clean(&self, text: &str) -> String {
        if self.hidden.is_empty() { text.to_owned() } else { text.replace(&self.hidden, "DISK") }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
