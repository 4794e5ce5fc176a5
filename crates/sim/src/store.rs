//! The disk of the rows: forgets what was not flushed, and breaks in the middle of a checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use everspan_storage::{MemStore, Ops, Result, Store};

/// A [`MemStore`] whose flushes can be made to lie.
#[derive(Debug, Default)]
pub(crate) struct SimStore {
    rows: MemStore,
    skips_flushes: AtomicBool,
}

impl SimStore {
    /// Lets this many writes and flushes through, and no more.
    pub(crate) fn fail_after(&self, writes: u64) {
        self.rows.fail_after(Some(writes));
    }

    pub(crate) fn mend(&self) {
        self.rows.fail_after(None);
    }

    /// Makes flushes lie, to show that the checker notices.
    pub(crate) fn skip_flushes(&self) {
        self.skips_flushes.store(true, Ordering::Relaxed);
    }

    pub(crate) fn unflushed(&self) -> usize {
        self.rows.unflushed()
    }

    pub(crate) fn crash_keeping(&self, kept: usize) {
        self.rows.crash_keeping(kept);
    }
}

impl Store for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.rows.get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.rows.scan(start, end, limit, reverse)
    }

    fn write(&self, ops: Ops<'_>) -> Result<()> {
        self.rows.write(ops)
    }

    fn flush(&self) -> Result<()> {
        if self.skips_flushes.load(Ordering::Relaxed) { Ok(()) } else { self.rows.flush() }
    }

    fn size_on_disk(&self) -> u64 {
        self.rows.size_on_disk()
    }
}
