//! What the log reports, in the default registry.

use std::sync::LazyLock;

use prometheus::{
    Histogram, IntCounter, IntGauge, exponential_buckets, histogram_opts, register_histogram,
    register_int_counter, register_int_gauge,
};

/// Proposals taken.
pub(crate) static PROPOSALS: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    register_int_counter!("everspan_proposals_total", "Proposals to Raft groups").ok()
});

/// Time of one write and its fsync.
pub(crate) static WRITE_SECONDS: LazyLock<Option<Histogram>> = LazyLock::new(|| {
    let buckets = exponential_buckets(0.000_05, 2.0, 16).ok()?;
    register_histogram!(histogram_opts!(
        "everspan_log_write_seconds",
        "Time to write and fsync the log, for all groups that had something to write",
        buckets
    ))
    .ok()
});

/// Entries that shared one fsync.
pub(crate) static BATCH_ENTRIES: LazyLock<Option<Histogram>> = LazyLock::new(|| {
    let buckets = exponential_buckets(1.0, 2.0, 14).ok()?;
    register_histogram!(histogram_opts!(
        "everspan_log_batch_entries",
        "Entries in one write of the log",
        buckets
    ))
    .ok()
});

/// Entries in memory.
static MEMORY_BYTES: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    let help = "Bytes of log entries in memory: not yet in a checkpoint, or for replicas that lag";
    register_int_gauge!("everspan_log_memory_bytes", help).ok()
});

pub(crate) fn set_memory_bytes(bytes: usize) {
    if let Some(gauge) = MEMORY_BYTES.as_ref() {
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Whether the log refuses writes.
static STALLED: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    register_int_gauge!("everspan_log_stalled", "1 while the log cannot be written").ok()
});

/// Registers all of them, so that they are seen before anything happens.
pub(crate) fn register() {
    LazyLock::force(&PROPOSALS);
    LazyLock::force(&WRITE_SECONDS);
    LazyLock::force(&BATCH_ENTRIES);
    set_stalled(false);
    set_memory_bytes(0);
}

pub(crate) fn set_stalled(is_stalled: bool) {
    if let Some(gauge) = STALLED.as_ref() {
        gauge.set(i64::from(is_stalled));
    }
}
