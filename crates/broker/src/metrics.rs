//! What the brokers report.

use std::sync::LazyLock;

use everspan_types::TaskKind;
use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, register_int_counter_vec, register_int_gauge,
    register_int_gauge_vec,
};

/// Tasks handed to workers.
pub(crate) static TASKS_STARTED: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Tasks handed to workers";
    register_int_counter_vec!("everspan_tasks_started_total", help, &["kind"]).ok()
});

/// Tasks handed to workers that met a waiting poll when they were offered.
pub(crate) static TASKS_SYNC_MATCHED: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Tasks handed to workers that met a waiting poll when they were offered";
    register_int_counter_vec!("everspan_tasks_sync_matched_total", help, &["kind"]).ok()
});

/// Polls answered without a task.
pub(crate) static POLLS_EMPTY: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Polls answered without a task";
    register_int_counter_vec!("everspan_polls_empty_total", help, &["kind"]).ok()
});

/// Tasks that wait, by queue; sticky queues are left out.
pub(crate) static BACKLOG: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    let help = "Tasks waiting for a worker, by queue";
    register_int_gauge_vec!("everspan_task_backlog", help, &["namespace_id", "queue", "kind"]).ok()
});

/// Queues in memory.
pub(crate) static QUEUES: LazyLock<Option<IntGauge>> =
    LazyLock::new(|| register_int_gauge!("everspan_broker_queues", "Task queues in memory").ok());

/// Counts tasks that reach a worker without a poll: with the start or the completion that asked
/// for them.
pub fn count_eager(kind: TaskKind, tasks: usize) {
    if let Some(counter) = TASKS_STARTED.as_ref() {
        counter.with_label_values(&[kind_label(kind)]).inc_by(tasks as u64);
    }
}

/// A kind as metrics name it.
pub(crate) fn kind_label(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Workflow => "workflow",
        TaskKind::Activity => "activity",
    }
}
