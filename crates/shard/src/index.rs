//! A run as the list index shows it.

use bytes::Bytes;
use everspan_execution::{State, pause, problems, versioning};
use everspan_proto::enums::EventType;
use everspan_visibility::Record;
use prost::Message;

/// Whether events of this type change what lists show.
pub(crate) fn is_visible(kind: EventType) -> bool {
    matches!(
        kind,
        EventType::WorkflowExecutionStarted
            | EventType::UpsertWorkflowSearchAttributes
            | EventType::WorkflowPropertiesModified
    )
}

/// Whether what lists show of a run changed without an event of those kinds: events that
/// are held back take effect at once, a pause of an activity leaves none, nor does each failure
/// of a workflow task.
pub(crate) fn is_outdated(record: &Record, state: &State) -> bool {
    let differs = |name: &str| {
        let is_known = record.search_attributes.contains_key(name);
        is_known != state.info.search_attributes.indexed_fields.contains_key(name)
            || (is_known
                && everspan_visibility::attributes(&state.info.search_attributes).get(name)
                    != record.search_attributes.get(name))
    };
    record.status != state.info.status
        || [pause::ATTRIBUTE, problems::ATTRIBUTE, versioning::ATTRIBUTE].into_iter().any(differs)
}

/// The run's record as of now.
pub(crate) fn record(state: &State) -> Record {
    let i = &state.info;
    let memo = (!i.memo.fields.is_empty()).then(|| Bytes::from(i.memo.encode_to_vec()));
    Record {
        namespace: i.namespace,
        workflow_id: i.workflow_id.clone(),
        run_id: i.run_id,
        first_run_id: i.first_run_id,
        workflow_type: i.workflow_type.clone(),
        task_queue: i.task_queue.clone(),
        status: i.status,
        start_time: i.start_time,
        execution_time: i.execution_time,
        close_time: i.close_time,
        // Exact once the run is closed; lists of open runs do not show them.
        history_length: if i.close_time.is_some() { i.next_event_id - 1 } else { 0 },
        history_size_bytes: if i.close_time.is_some() { i.history_bytes } else { 0 },
        state_transition_count: if i.close_time.is_some() { i.transitions } else { 0 },
        parent_workflow_id: i.parent.as_ref().map(|p| p.workflow_id.clone()),
        parent_run_id: i.parent.as_ref().map(|p| p.run_id.to_string()),
        root_workflow_id: i.root.as_ref().map(|r| r.workflow_id.clone()),
        root_run_id: i.root.as_ref().map(|r| r.run_id.clone()),
        memo,
        search_attributes: everspan_visibility::attributes(&i.search_attributes),
    }
}
