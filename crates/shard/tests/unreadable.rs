//! Rows that cannot be read for a while, as on a full disk: nothing that was to happen is
//! forgotten.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use everspan_proto::{
    common::{RetryPolicy, WorkflowType},
    taskqueue::TaskQueue,
    workflowservice as api,
};
use everspan_shard::{
    CallId, Shard, ShardMap,
    call::{Call, ShardCall},
};
use everspan_storage::{Batch, Error, MemStore, Ops, Result, Store, Table};
use everspan_types::{Limits, NamespaceId, RunId, ShardId, Time};
use uuid::Uuid;

const NAMESPACE: NamespaceId = NamespaceId(Uuid::from_u128(1));
const RUN: RunId = RunId(Uuid::from_u128(2));
const NOW: Time = Time::from_millis(1_000);

/// A store that cannot be read while it is told so.
#[derive(Debug, Default)]
struct Unreadable {
    store: MemStore,
    is_broken: AtomicBool,
}

impl Unreadable {
    fn check(&self) -> Result<()> {
        match self.is_broken.load(Ordering::Relaxed) {
            true => Err(Error::Io("closed after a failed write".into())),
            false => Ok(()),
        }
    }
}

impl Store for Unreadable {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.check().and_then(|()| self.store.get(key))
    }

    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.check().and_then(|()| self.store.scan(start, end, limit, reverse))
    }

    fn write(&self, ops: Ops<'_>) -> Result<()> {
        self.store.write(ops)
    }

    fn flush(&self) -> Result<()> {
        self.store.flush()
    }

    fn size_on_disk(&self) -> u64 {
        self.store.size_on_disk()
    }
}

/// A shard that leads, with one committed run of ten seconds at most that would be retried.
fn shard() -> (Arc<Unreadable>, Shard) {
    let store = Arc::<Unreadable>::default();
    let id = ShardId(1);
    let table = Table::open(id, store.clone()).unwrap();
    let mut shard = Shard::new(id, table, Arc::new(Limits::default()), ShardMap { count: 1 });
    shard.load_wakes(NOW).unwrap();
    let call: Call = api::StartWorkflowExecutionRequest {
        workflow_id: "w".into(),
        workflow_type: Some(WorkflowType { name: "W".into() }),
        task_queue: Some(TaskQueue { name: "q".into(), ..TaskQueue::default() }),
        workflow_run_timeout: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
        retry_policy: Some(RetryPolicy { maximum_attempts: 3, ..RetryPolicy::default() }),
        ..Default::default()
    }
    .into_call();
    let (_, out) = shard.start(NOW, CallId(1), NAMESPACE, RUN, &call, NOW).unwrap();
    shard.table.stage(1, out.batch);
    shard.table.commit(1, 1);
    (store, shard)
}

#[test]
fn what_is_known_is_woken_and_the_rest_is_looked_for_later() {
    let (store, mut shard) = shard();
    store.is_broken.store(true, Ordering::Relaxed);
    let now = NOW + Duration::from_secs(100);
    assert_eq!(shard.take_due(now, 9), Ok(vec![RUN]), "it was known before");
    assert!(shard.next_wake() > now, "no spinning");
    // The run itself could not be read: it comes again.
    shard.wake_later(RUN, now);
    assert_eq!(shard.take_due(now, 9), Ok(vec![]));
    let later = shard.next_wake();
    store.is_broken.store(false, Ordering::Relaxed);
    assert!(shard.take_due(later, 9).unwrap().contains(&RUN));
}

#[test]
fn a_wake_up_that_fails_keeps_its_row() {
    let (store, mut shard) = shard();
    let mut run = shard.load(NAMESPACE, "w", RUN).unwrap();
    let now = NOW + Duration::from_secs(11);
    assert_eq!(shard.take_due(now, 9), Ok(vec![RUN]));
    store.is_broken.store(true, Ordering::Relaxed);
    let out = run.wake(&mut shard, now);
    assert!(out.batch.is_empty(), "its retry needs the first event");
    let later = shard.next_wake();
    store.is_broken.store(false, Ordering::Relaxed);
    assert_eq!(shard.take_due(later, 9), Ok(vec![RUN]));
    let out = run.wake(&mut shard, later);
    assert_eq!(out.runs.len(), 1, "it timed out, and runs again");
}

#[test]
fn a_message_counts_as_taken_from_its_change_on() {
    let (_, mut shard) = shard();
    let from = ShardId(7);
    assert_eq!(shard.is_taken(from, 1), Ok(false));
    let mut batch = Batch::default();
    Shard::take(from, 3, &mut batch);
    shard.table.stage(2, batch);
    assert_eq!((shard.is_taken(from, 3), shard.is_taken(from, 4)), (Ok(true), Ok(false)));
    shard.table.discard_staged();
    assert_eq!(shard.is_taken(from, 3), Ok(false), "its change came to nothing");
}
