//! Tokens that workers hold may be older than the server: they survive its update.

#![allow(clippy::unwrap_used)]

use everspan_types::{
    Error, NamespaceId, QueryToken, RunId, TaskRef, TaskToken,
    golden::{Kind, Rows},
};
use uuid::Uuid;

fn kind<'a>(name: &'a str, rows: &Rows) -> Kind<'a> {
    Kind { manifest_dir: env!("CARGO_MANIFEST_DIR"), name, version: rows[0].1[0] }
}

#[test]
fn golden_task_tokens() {
    let token = |task| TaskToken {
        namespace: NamespaceId(Uuid::from_u128(1)),
        workflow_id: "order-ü".into(),
        run_id: RunId(Uuid::from_u128(2)),
        task,
        attempt: 3,
        started_event_id: 70_000,
    };
    let sample = vec![
        token(TaskRef::Workflow { scheduled_event_id: 5, stamp: 300 }),
        token(TaskRef::Activity { scheduled_event_id: 6, stamp: 1 }),
        token(TaskRef::Query { query_id: 7 }),
    ];
    let rows: Rows = sample.iter().map(|t| (Vec::new(), t.to_bytes().to_vec())).collect();
    kind("task-token", &rows).check(&sample, &rows, |rows| {
        rows.iter().map(|(_, raw)| TaskToken::from_bytes(raw)).collect::<Result<Vec<_>, Error>>()
    });
}

#[test]
fn golden_query_tokens() {
    let sample = QueryToken {
        namespace: NamespaceId(Uuid::from_u128(1)),
        workflow_id: "order".into(),
        run_id: RunId(Uuid::from_u128(2)),
        query_id: 9,
    };
    let rows = vec![(Vec::new(), sample.to_bytes().to_vec())];
    kind("query-token", &rows).check(&sample, &rows, |rows| QueryToken::from_bytes(&rows[0].1));
}
