//! Rows of a run's state, as every release wrote them.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use everspan_execution::{
    State,
    retry::RetryPolicy,
    state::{
        Activity, ActivityStarted, Buffered, Child, External, Info, Parent, ResetPoint, Root,
        Sticky, UserTimer, VERSION, WorkflowTask,
    },
    update::UpdateRecord,
};
use everspan_proto::{
    common::{Memo, Payload, Payloads, Priority, SearchAttributes, WorkerVersionStamp},
    failure::Failure,
    history::HistoryEvent,
    sdk::UserMetadata,
};
use everspan_types::{
    NamespaceId, RunId, Time,
    golden::{Kind, Rows},
};
use uuid::Uuid;

fn at(second: u64) -> Time {
    Time::from_millis(second * 1_000)
}

fn payload() -> Payload {
    Payload {
        metadata: [("encoding".to_owned(), "json/plain".into())].into(),
        data: "1".into(),
        ..Payload::default()
    }
}

fn stamp() -> WorkerVersionStamp {
    WorkerVersionStamp { build_id: "build".into(), use_versioning: true }
}

fn retry() -> RetryPolicy {
    RetryPolicy {
        initial_interval: Duration::from_secs(1),
        backoff_coefficient: 1.5,
        maximum_interval: Duration::from_secs(10),
        maximum_attempts: 4,
        non_retryable_error_types: vec!["Fatal".into()],
    }
}

fn workflow_task() -> WorkflowTask {
    WorkflowTask {
        scheduled_event_id: 20,
        started_event_id: 21,
        attempt: 2,
        stamp: 8,
        scheduled_time: at(20),
        original_scheduled_time: at(19),
        started_time: Some(at(21)),
        timeout: Duration::from_secs(10),
        schedule_to_start: Some(Duration::from_secs(5)),
        queue: "sticky".into(),
        is_sticky: true,
        request_id: "poll".into(),
        identity: "worker".into(),
        worker_version: Some(stamp()),
        history_bytes: 4_321,
        suggest_continue_as_new: vec![1],
        is_speculative: false,
        is_for_update: true,
    }
}

/// A run with something in every field. What is added to it later may be left to its default:
/// its bytes are in the row all the same.
fn info() -> Info {
    Info {
        namespace: NamespaceId(Uuid::from_u128(1)),
        workflow_id: "order".into(),
        run_id: RunId(Uuid::from_u128(2)),
        namespace_name: "default".into(),
        first_run_id: RunId(Uuid::from_u128(3)),
        continued_run_id: "before".into(),
        new_run_id: "after".into(),
        parent: Some(Parent {
            namespace: NamespaceId(Uuid::from_u128(1)),
            namespace_name: "default".into(),
            workflow_id: "parent".into(),
            run_id: RunId(Uuid::from_u128(4)),
            initiated_event_id: 5,
        }),
        root: Some(Root { workflow_id: "root".into(), run_id: "first".into() }),
        cron_schedule: "@daily".into(),
        run_timeout_given: true,
        workflow_type: "Order".into(),
        task_queue: "orders".into(),
        execution_timeout: Duration::from_secs(100),
        run_timeout: Duration::from_secs(90),
        task_timeout: Duration::from_secs(10),
        start_time: at(1),
        execution_time: at(2),
        execution_expiration: Some(at(101)),
        run_expiration: Some(at(91)),
        first_task_at: Some(at(2)),
        attempt: 2,
        retry_policy: Some(retry()),
        start_request_id: "start".into(),
        memo: Memo { fields: [("note".to_owned(), payload())].into() },
        search_attributes: SearchAttributes {
            indexed_fields: [("CustomerId".to_owned(), payload())].into(),
        },
        user_metadata: Some(UserMetadata { summary: Some(payload()), details: None }),
        priority: Some(Priority { priority_key: 2, ..Priority::default() }),
        is_auto_upgrade: true,
        next_event_id: 22,
        history_bytes: 4_000,
        previous_started_event_id: 18,
        workflow_task: Some(workflow_task()),
        workflow_task_attempt: 2,
        workflow_task_stamp: 8,
        sticky: Some(Sticky { queue: "sticky".into(), schedule_to_start: Duration::from_secs(5) }),
        cancel_requested: true,
        cancel_request_id: "cancel".into(),
        signal_count: 3,
        transitions: 17,
        buffered_bytes: 99,
        worker_version: Some(stamp()),
        reset_points: vec![ResetPoint {
            run_id: "run".into(),
            build_id: "build".into(),
            binary_checksum: "checksum".into(),
            completed_event_id: 4,
            time: at(4),
            expire_time: Some(at(90)),
        }],
        close_attempted: true,
        wake_at: Some(at(31)),
        ..Info::default()
    }
}

fn activity() -> Activity {
    Activity {
        scheduled_event_id: 7,
        activity_id: "charge".into(),
        activity_type: "Charge".into(),
        task_queue: "money".into(),
        schedule_to_close: Duration::from_secs(60),
        schedule_to_start: Duration::from_secs(50),
        start_to_close: Duration::from_secs(40),
        heartbeat: Duration::from_secs(30),
        retry: retry(),
        scheduled_time: at(7),
        attempt_scheduled_time: at(8),
        attempt: 2,
        stamp: 3,
        backoff_until: Some(at(9)),
        started: Some(ActivityStarted {
            time: at(10),
            identity: "worker".into(),
            request_id: "poll".into(),
            stamp: 3,
            worker_version: Some(stamp()),
        }),
        last_heartbeat_time: Some(at(11)),
        heartbeat_details: Some(Payloads { payloads: vec![payload()] }),
        cancel_requested: true,
        cancel_requested_event_id: 12,
        last_failure: Some(Failure { message: "declined".into(), ..Failure::default() }),
        last_worker_identity: "worker".into(),
        last_attempt_complete_time: Some(at(8)),
        last_attempt_reported: true,
        priority: Some(Priority { priority_key: 1, ..Priority::default() }),
        ..Activity::default()
    }
}

#[test]
fn golden_state_rows() {
    let mut sample = State { info: info(), ..State::default() };
    sample.activities.insert(7, activity());
    sample.timers.insert("t".into(), UserTimer { started_event_id: 13, fires_at: at(31) });
    sample.signal_requests.insert("signal".into(), ());
    let event = HistoryEvent { event_id: 14, ..HistoryEvent::default() };
    sample.buffered.insert(1, Buffered(event));
    let child = Child {
        initiated_event_id: 15,
        workflow_id: "child".into(),
        workflow_type: "Child".into(),
        parent_close_policy: 1,
        control: "mine".into(),
        started_event_id: 16,
        run_id: "child run".into(),
    };
    sample.children.insert(15, child);
    let external = External {
        initiated_event_id: 17,
        workflow_id: "other".into(),
        run_id: "other run".into(),
        control: "mine".into(),
    };
    sample.external_signals.insert(17, external.clone());
    sample.external_cancels.insert(18, External { initiated_event_id: 18, ..external });
    let update =
        UpdateRecord { accepted_event_id: 19, completed_event_id: 20, request_id: "r".into() };
    sample.updates.insert("update".into(), update);
    let rows: Rows = sample.take_changed_rows().into_iter().map(|(k, v)| (k, v.unwrap())).collect();
    let kind =
        Kind { manifest_dir: env!("CARGO_MANIFEST_DIR"), name: "state-rows", version: VERSION };
    kind.check(&sample, &rows, |rows| {
        State::from_rows(rows.iter().map(|(k, v)| (k.as_slice(), v.as_slice())))
    });
}
