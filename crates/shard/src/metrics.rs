//! What the shards of a node report.

use std::sync::LazyLock;

use prometheus::{
    Histogram, IntCounterVec, IntGauge, register_histogram, register_int_counter_vec,
    register_int_gauge,
};

macro_rules! gauge {
    ($name:ident, $metric:literal, $help:literal) => {
        pub(crate) static $name: LazyLock<Option<IntGauge>> =
            LazyLock::new(|| register_int_gauge!($metric, $help).ok());
    };
}

gauge!(OPEN_EXECUTIONS, "everspan_open_executions", "Open runs on this node's shards");
gauge!(EXECUTION_ACTORS, "everspan_execution_actors", "Loaded runs");
gauge!(SHARD_ACTORS, "everspan_shard_actors", "Shards led by this node");

/// How long checkpoints take.
pub(crate) static CHECKPOINT_SECONDS: LazyLock<Option<Histogram>> = LazyLock::new(|| {
    register_histogram!("everspan_checkpoint_seconds", "Time to write a checkpoint").ok()
});

static SIZE_WARNINGS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Runs, events and memos that passed the size from which a warning is logged";
    register_int_counter_vec!("everspan_size_warnings_total", help, &["kind"]).ok()
});

/// Counts a warning about a size.
pub(crate) fn warned(kind: &str) {
    if let Some(counter) = SIZE_WARNINGS.as_ref() {
        counter.with_label_values(&[kind]).inc();
    }
}

/// Adds to a gauge that may have failed to register (a name taken twice).
pub(crate) fn add(gauge: &LazyLock<Option<IntGauge>>, n: i64) {
    if let Some(gauge) = gauge.as_ref() {
        gauge.add(n);
    }
}
