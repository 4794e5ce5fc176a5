//! Rows of a shard and page tokens of histories, as every release wrote them.

use everspan_execution::PendingTask;
use everspan_types::{
    EnvelopeError, NamespaceId, Priority, QueueKey, RunId, TaskKind, TaskRef, Time,
    golden::{Kind, Rows},
};
use uuid::Uuid;

use crate::{
    history::Token,
    keys::{self, Backlog, Current},
};

const NAMESPACE: NamespaceId = NamespaceId(Uuid::from_u128(1));
const RUN: RunId = RunId(Uuid::from_u128(2));

fn kind(name: &str, version: u8) -> Kind<'_> {
    Kind { manifest_dir: env!("CARGO_MANIFEST_DIR"), name, version }
}

#[test]
fn golden_current() {
    let sample = Current {
        run_id: RUN,
        first_run_id: RunId(Uuid::from_u128(3)),
        start_request_id: "start".into(),
        attached_request_ids: vec!["attached".into()],
        status: 2,
    };
    let rows = vec![(keys::current(NAMESPACE, "order"), sample.to_bytes())];
    kind("current", rows[0].1[0]).check(&sample, &rows, |rows| Current::from_bytes(&rows[0].1));
}

#[test]
fn golden_backlog() {
    let task = TaskRef::Activity { scheduled_event_id: 5, stamp: 3 };
    let queue = QueueKey { namespace: NAMESPACE, kind: TaskKind::Activity, name: "money".into() };
    let priority = Priority { key: 2, fairness_key: "tenant".into(), fairness_weight: 1_500 };
    let pending = PendingTask {
        kind: queue.kind,
        queue: queue.name.clone(),
        sequence: 77,
        task: task.clone(),
        priority: priority.clone(),
        sticky: true,
    };
    let backlog = Backlog { workflow_id: "order".into(), priority, sticky: true, task };
    let sample = (Some(keys::place(RUN, &pending)), backlog);
    let rows = vec![(keys::backlog(NAMESPACE, RUN, &pending), sample.1.to_bytes())];
    kind("backlog", rows[0].1[0]).check(&sample, &rows, |rows| {
        let (key, value) = &rows[0];
        let place = keys::parse_backlog(&keys::queue(&queue), key);
        Ok::<_, EnvelopeError>((place, Backlog::from_bytes(value)?))
    });
}

/// Keys have no version of their own: a change is one of the data directory's format.
#[test]
fn golden_keys() {
    let sample = Some((Time::from_millis(9), RUN));
    let rows: Rows = [
        keys::timer(Time::from_millis(9), RUN),
        keys::history(RUN, 12),
        keys::run_row(RUN, &[1, 2]),
        keys::current(NAMESPACE, "order"),
    ]
    .into_iter()
    .map(|key| (key, Vec::new()))
    .collect();
    kind("keys", 1)
        .check(&sample, &rows, |rows| Ok::<_, EnvelopeError>(keys::parse_timer(&rows[0].0)));
}

#[test]
fn golden_history_tokens() {
    let sample = Token { run_id: RUN, from: 5, to: 300, is_running: true };
    let rows = vec![(Vec::new(), sample.to_bytes().to_vec())];
    kind("history-token", rows[0].1[0]).check(&sample, &rows, |rows| Token::from_bytes(&rows[0].1));
}
