use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds on what executions may hold and calls may carry. Defaults are the real
/// server's (1.32).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest workflow ID, activity ID, timer ID, queue name … in bytes.
    pub id_length_max: usize,
    /// Largest payload set of a call or command, in bytes.
    pub blob_size_max: usize,
    /// Payload size from which a warning is logged, in bytes.
    pub blob_size_warn: usize,
    /// Largest memo, in bytes.
    pub memo_size_max: usize,
    /// Memo size from which a warning is logged, in bytes.
    pub memo_size_warn: usize,
    /// Event count of a run from which a warning is logged.
    pub history_events_warn: i64,
    /// Size of a run's history from which a warning is logged, in bytes.
    pub history_bytes_warn: i64,
    /// Most events of a run; at this count the server terminates it.
    pub history_events_max: i64,
    /// Most bytes of a run's history; at this size the server terminates it.
    pub history_bytes_max: i64,
    /// Event count from which workers are told to continue as new.
    pub suggest_continue_as_new_events: i64,
    /// History size, in bytes, from which workers are told to continue as new.
    pub suggest_continue_as_new_bytes: i64,
    /// Most pending activities of a run.
    pub pending_activities_max: usize,
    /// Most pending child workflows of a run.
    pub pending_children_max: usize,
    /// Most signals of a run to other workflows that were not answered yet.
    pub pending_external_signals_max: usize,
    /// Most cancel requests of a run to other workflows that were not answered yet.
    pub pending_external_cancels_max: usize,
    /// Most signals a run takes.
    pub signals_max: i64,
    /// Most updates of a run that are not completed at a time.
    pub updates_in_flight_max: usize,
    /// Largest sum of updates of a run that are not accepted yet, in bytes.
    pub updates_in_flight_bytes_max: usize,
    /// Most updates that a run accepts.
    pub updates_max: usize,
    /// Update count from which workers are told to continue as new.
    pub suggest_continue_as_new_updates: usize,
    /// Most events held back while a workflow task is with a worker.
    pub buffered_events_max: usize,
    /// Largest sum of held-back events, in bytes.
    pub buffered_bytes_max: usize,
    /// An activity failure kept for the next attempt is cut to this size, in bytes.
    pub activity_failure_bytes_max: usize,
    /// Workflow task start-to-close timeout when the start names none.
    pub workflow_task_timeout_default: Duration,
    /// Longest workflow task timeout accepted.
    pub workflow_task_timeout_max: Duration,
    /// How long a workflow task may be kept alive by heartbeats.
    pub workflow_task_heartbeat_max: Duration,
    /// Largest user metadata summary, in bytes.
    pub user_metadata_summary_max: usize,
    /// Largest user metadata details, in bytes.
    pub user_metadata_details_max: usize,
    /// Events in a page of history when the caller names no size.
    pub history_page_default: usize,
    /// Largest page of a list.
    pub visibility_page_max: usize,
    /// Requests a second of a namespace on a node, those of visibility aside; twice as many
    /// in a burst. 0: any number.
    pub requests_per_second_max: usize,
    /// Requests a second of visibility of a namespace on a node. 0: any number.
    pub visibility_requests_per_second_max: usize,
    /// Calls of one method that wait at once, of a namespace on a node. 0: any number.
    pub long_polls_max: usize,
    /// Tasks a second of one task queue.
    pub queue_tasks_per_second_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            id_length_max: 1_000,
            blob_size_max: 2 << 20,
            blob_size_warn: 512 << 10,
            memo_size_max: 2 << 20,
            memo_size_warn: 2 << 10,
            history_events_warn: 10_240,
            history_bytes_warn: 10 << 20,
            history_events_max: 51_200,
            history_bytes_max: 50 << 20,
            suggest_continue_as_new_events: 4_096,
            suggest_continue_as_new_bytes: 4 << 20,
            pending_activities_max: 2_000,
            pending_children_max: 2_000,
            pending_external_signals_max: 2_000,
            pending_external_cancels_max: 2_000,
            signals_max: 10_000,
            updates_in_flight_max: 10,
            updates_in_flight_bytes_max: 20 << 20,
            updates_max: 2_000,
            suggest_continue_as_new_updates: 1_800,
            buffered_events_max: 100,
            buffered_bytes_max: 2 << 20,
            activity_failure_bytes_max: 4 << 10,
            workflow_task_timeout_default: Duration::from_secs(10),
            workflow_task_timeout_max: Duration::from_secs(120),
            workflow_task_heartbeat_max: Duration::from_secs(30 * 60),
            user_metadata_summary_max: 400,
            user_metadata_details_max: 20_000,
            history_page_default: 256,
            visibility_page_max: 1_000,
            // The real server's 2,400 would stop clients at a tenth of what a node carries.
            requests_per_second_max: 24_000,
            visibility_requests_per_second_max: 10,
            long_polls_max: 1_200,
            // The real server's is 1,000 for each of a queue's partitions.
            queue_tasks_per_second_max: 100_000,
        }
    }
}
