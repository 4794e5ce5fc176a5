//! The number of open runs, which a restart must not forget.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use everspan_proto::{common::WorkflowType, taskqueue::TaskQueue, workflowservice as api};
use everspan_shard::{
    CallId, Outcome, Shard, ShardMap,
    call::{Call, ShardCall},
};
use everspan_storage::{Batch, MemStore, Table};
use everspan_types::{Limits, NamespaceId, RunId, ShardId, Time};
use uuid::Uuid;

const NAMESPACE: NamespaceId = NamespaceId(Uuid::from_u128(1));
const NOW: Time = Time::from_millis(1_000);

fn shard() -> Shard {
    let id = ShardId(1);
    let table = Table::open(id, Arc::new(MemStore::default())).unwrap();
    Shard::new(id, table, Arc::new(Limits::default()), ShardMap { count: 1 })
}

fn start(shard: &mut Shard, run: u128) -> Outcome {
    let call: Call = api::StartWorkflowExecutionRequest {
        workflow_id: run.to_string(),
        workflow_type: Some(WorkflowType { name: "W".into() }),
        task_queue: Some(TaskQueue { name: "q".into(), ..TaskQueue::default() }),
        ..Default::default()
    }
    .into_call();
    shard.start(NOW, CallId(1), NAMESPACE, RunId(Uuid::from_u128(run)), &call, NOW).unwrap().1
}

#[test]
fn the_number_is_in_the_rows_of_each_change() {
    let mut shard = shard();
    for run in 1..=2i64 {
        let mut batch = start(&mut shard, run as u128).batch;
        shard.count_open_runs(&mut batch);
        assert_eq!(shard.open_runs(), run);
        shard.table.stage(run.cast_unsigned(), batch);
    }
    shard.load_open_runs().unwrap();
    assert_eq!(shard.open_runs(), 2);
    shard.table.commit(1, 1);
    shard.table.discard_staged();
    shard.load_open_runs().unwrap();
    assert_eq!(shard.open_runs(), 1, "what was not committed does not count");
}

#[test]
fn what_was_decided_and_refused_after_all_does_not_count() {
    let mut shard = shard();
    drop(start(&mut shard, 1));
    shard.count_open_runs(&mut Batch::default());
    let mut other = Batch::default();
    other.put(&b"x"[..], &b""[..]);
    shard.count_open_runs(&mut other);
    assert_eq!((shard.open_runs(), other.ops.len()), (0, 1));
}
