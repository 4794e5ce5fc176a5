//! Deleting runs: nothing of them is left in the shard's rows.

#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use everspan_proto::{
    common::{WorkflowExecution, WorkflowType},
    taskqueue::TaskQueue,
    workflowservice as api,
};
use everspan_shard::{
    CallId, Effect, Outcome, Retention, Run, Shard, ShardMap,
    call::{Call, ShardCall},
};
use everspan_storage::{MemStore, Table};
use everspan_types::{Limits, NamespaceId, Result, RunId, ShardId, Time};
use uuid::Uuid;

const NAMESPACE: NamespaceId = NamespaceId(Uuid::from_u128(1));
const RUN: RunId = RunId(Uuid::from_u128(2));
const NOW: Time = Time::from_millis(1_000);
const KEPT: Duration = Duration::from_secs(3_600);

struct Life {
    shard: Shard,
    sequence: u64,
}

impl Life {
    fn new() -> Self {
        let id = ShardId(1);
        let table = Table::open(id, Arc::new(MemStore::default())).unwrap();
        let map = ShardMap { count: 1 };
        let shard = Shard::new(id, table, Arc::new(Limits::default()), map)
            .with_retention(Retention::constant(KEPT));
        Self { shard, sequence: 0 }
    }

    fn start(&mut self) -> Run {
        let call: Call = api::StartWorkflowExecutionRequest {
            workflow_id: "w".into(),
            workflow_type: Some(WorkflowType { name: "W".into() }),
            task_queue: Some(TaskQueue { name: "q".into(), ..TaskQueue::default() }),
            ..Default::default()
        }
        .into_call();
        let (run, out) = self.shard.start(NOW, CallId(1), NAMESPACE, RUN, &call, NOW).unwrap();
        self.write(out).unwrap();
        run
    }

    fn handle(&mut self, run: &mut Run, call: Call) -> Result<()> {
        let out = run.handle(&mut self.shard, NOW, CallId(2), call, NOW);
        self.write(out)
    }

    /// Writes an outcome's rows; gives the error that it answers with, if it does.
    fn write(&mut self, out: Outcome) -> Result<()> {
        self.sequence += 1;
        self.shard.table.stage(self.sequence, out.batch);
        for effect in out.effects {
            if let Effect::Reply(_, reply) = effect {
                reply?;
            }
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.shard.table.scan(&[0], &[u8::MAX], usize::MAX, false).unwrap().len()
    }
}

fn execution() -> Option<WorkflowExecution> {
    Some(WorkflowExecution { workflow_id: "w".into(), run_id: String::new() })
}

fn delete() -> Call {
    let workflow_execution = execution();
    api::DeleteWorkflowExecutionRequest { workflow_execution, ..Default::default() }.into_call()
}

fn terminate() -> Call {
    let workflow_execution = execution();
    api::TerminateWorkflowExecutionRequest { workflow_execution, ..Default::default() }.into_call()
}

#[test]
fn an_open_run_goes_with_everything() {
    let mut life = Life::new();
    let mut run = life.start();
    assert!(life.rows() > 0);
    life.handle(&mut run, delete()).unwrap();
    assert!(run.is_deleted());
    assert_eq!(life.rows(), 0);
    assert!(life.shard.route(NAMESPACE, "w", &delete()).is_err());
}

#[test]
fn a_closed_run_goes_when_its_retention_has_passed() {
    let mut life = Life::new();
    let mut run = life.start();
    life.handle(&mut run, terminate()).unwrap();
    let early = run.wake(&mut life.shard, NOW + KEPT / 2);
    life.write(early).unwrap();
    assert!(!run.is_deleted());
    let late = NOW + KEPT;
    life.shard.load_wakes(late).unwrap();
    assert_eq!(life.shard.take_due(late, 10).unwrap(), [RUN]);
    let out = run.wake(&mut life.shard, late);
    life.write(out).unwrap();
    assert!(run.is_deleted());
    assert_eq!(life.rows(), 0);
}

#[test]
fn a_longer_retention_counts_though_it_came_after_the_close() {
    let mut life = Life::new();
    let mut run = life.start();
    life.handle(&mut run, terminate()).unwrap();
    life.shard = life.shard.with_retention(Retention::constant(KEPT * 2));
    let out = run.wake(&mut life.shard, NOW + KEPT);
    life.write(out).unwrap();
    assert!(!run.is_deleted());
    let out = run.wake(&mut life.shard, NOW + KEPT * 2);
    life.write(out).unwrap();
    assert_eq!(life.rows(), 0);
}
