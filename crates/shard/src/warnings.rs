//! Warnings about runs that grow large, long before the limits end them.

use everspan_execution::{Transition, state::Info};
use everspan_proto::enums::EventType;
use prost::Message;
use tracing::warn;

use crate::{metrics, shard::Shard};

/// Warns where a change takes a run past a bound: each once, since a run that grows would
/// repeat them with each step.
pub(crate) fn check(shard: &Shard, info: &Info, t: &Transition) {
    let limits = &shard.limits;
    let grew = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
    let events = info.next_event_id - 1;
    let passes = |now: i64, by: usize, bound: i64| now > bound && now - grew(by) <= bound;
    let (namespace_id, run_id) = (info.namespace, info.run_id);
    let workflow_id = info.workflow_id.as_str();
    if passes(events, t.events.len(), limits.history_events_warn) {
        metrics::warned("history_events");
        warn!(%namespace_id, workflow_id, %run_id, shard = %shard.id, events,
            "a run's history has many events; it should continue as new");
    }
    if passes(info.history_bytes, t.history.len(), limits.history_bytes_warn) {
        metrics::warned("history_bytes");
        warn!(%namespace_id, workflow_id, %run_id, shard = %shard.id, bytes = info.history_bytes,
            "a run's history is large; it should continue as new");
    }
    if t.history.len() > limits.blob_size_warn {
        for event in &t.events {
            let bytes = event.encoded_len();
            if bytes > limits.blob_size_warn {
                metrics::warned("blob");
                warn!(%namespace_id, workflow_id, %run_id, shard = %shard.id, bytes,
                    event_id = event.event_id, event_type = event.event_type().as_str_name(),
                    "an event carries a large payload");
            }
        }
    }
    let sets_memo = t.events.iter().any(|event| {
        let kind = event.event_type();
        kind == EventType::WorkflowExecutionStarted || kind == EventType::WorkflowPropertiesModified
    });
    if sets_memo && info.memo.encoded_len() > limits.memo_size_warn {
        metrics::warned("memo");
        warn!(%namespace_id, workflow_id, %run_id, shard = %shard.id,
            bytes = info.memo.encoded_len(), "a run's memo is large");
    }
}
