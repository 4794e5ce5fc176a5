//! What workers tell of themselves: heartbeats, kept in memory for as long as they come.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use everspan_proto::{enums::WorkerStatus, worker::WorkerHeartbeat};
use everspan_types::{Error, NamespaceId, RESERVED_QUEUE, Result, Time};
use everspan_visibility::WorkerQuery;
use serde::{Deserialize, Serialize};

/// A worker that said nothing for so long is gone; the real server's.
const TTL: Duration = Duration::from_secs(5 * 60);
/// How often those who are gone are forgotten; the real server's.
const SWEEP: Duration = Duration::from_secs(60);
/// Workers of all namespaces. Further ones are not taken in until others are gone.
const WORKERS_MAX: usize = 100_000;
/// Queues of the server's own workers begin with it.
const SYSTEM_QUEUE: &str = "temporal-sys-";

#[derive(Debug)]
struct Worker {
    heartbeat: WorkerHeartbeat,
    last_seen: Time,
}

/// The workers of a node's namespaces.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    namespaces: HashMap<NamespaceId, BTreeMap<String, Worker>>,
    count: usize,
    swept: Time,
}

/// Where a page ended.
#[derive(Debug, Serialize, Deserialize)]
struct PageToken {
    #[serde(rename = "l")]
    last: String,
}

impl Registry {
    /// Takes heartbeats in. A worker that says that it has shut down is forgotten at once.
    pub(crate) fn record(
        &mut self,
        now: Time,
        namespace: NamespaceId,
        heartbeats: Vec<WorkerHeartbeat>,
    ) {
        self.sweep(now);
        let workers = self.namespaces.entry(namespace).or_default();
        for heartbeat in heartbeats {
            let key = heartbeat.worker_instance_key.clone();
            if heartbeat.status() == WorkerStatus::Shutdown {
                self.count -= usize::from(workers.remove(&key).is_some());
            } else if self.count < WORKERS_MAX || workers.contains_key(&key) {
                let old = workers.insert(key, Worker { heartbeat, last_seen: now });
                self.count += usize::from(old.is_none());
            }
        }
    }

    fn sweep(&mut self, now: Time) {
        if now.since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        for workers in self.namespaces.values_mut() {
            workers.retain(|_, w| now.since(w.last_seen) <= TTL);
        }
        self.count = self.namespaces.values().map(BTreeMap::len).sum();
    }

    fn matching<'a>(
        &'a self,
        now: Time,
        namespace: NamespaceId,
        query: &'a WorkerQuery,
        with_system: bool,
    ) -> impl Iterator<Item = &'a WorkerHeartbeat> {
        let workers = self.namespaces.get(&namespace).into_iter().flat_map(BTreeMap::values);
        workers
            .filter(move |w| now.since(w.last_seen) <= TTL)
            .map(|w| &w.heartbeat)
            .filter(move |h| with_system || !is_system(h))
            .filter(move |h| query.matches(h))
    }

    /// A page of the workers of a namespace, by instance key, and the token of the next one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a token that is none.
    pub(crate) fn list(
        &self,
        now: Time,
        namespace: NamespaceId,
        query: &WorkerQuery,
        with_system: bool,
        page: (usize, &[u8]),
    ) -> Result<(Vec<WorkerHeartbeat>, Vec<u8>)> {
        let (size, token) = page;
        let after = if token.is_empty() {
            None
        } else {
            let bad = |_| Error::invalid("invalid next_page_token");
            Some(serde_json::from_slice::<PageToken>(token).map_err(bad)?.last)
        };
        let mut rest = self
            .matching(now, namespace, query, with_system)
            .filter(|h| after.as_ref().is_none_or(|after| h.worker_instance_key > *after));
        let limit = if size == 0 { usize::MAX } else { size };
        let all: Vec<WorkerHeartbeat> = rest.by_ref().take(limit).cloned().collect();
        let token = match (all.last(), rest.next()) {
            (Some(last), Some(_)) => {
                let token = PageToken { last: last.worker_instance_key.clone() };
                serde_json::to_vec(&token).map_err(|e| Error::internal(e.to_string()))?
            }
            _ => Vec::new(),
        };
        Ok((all, token))
    }

    /// How many workers of a namespace there are.
    pub(crate) fn count(
        &self,
        now: Time,
        namespace: NamespaceId,
        query: &WorkerQuery,
        with_system: bool,
    ) -> usize {
        self.matching(now, namespace, query, with_system).count()
    }

    /// One worker.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(crate) fn describe(
        &self,
        now: Time,
        namespace: NamespaceId,
        worker_instance_key: &str,
    ) -> Result<WorkerHeartbeat> {
        self.namespaces
            .get(&namespace)
            .and_then(|workers| workers.get(worker_instance_key))
            .filter(|w| now.since(w.last_seen) <= TTL)
            .map(|w| w.heartbeat.clone())
            .ok_or_else(|| Error::not_found(format!("Worker {worker_instance_key} not found")))
    }
}

fn is_system(worker: &WorkerHeartbeat) -> bool {
    [SYSTEM_QUEUE, RESERVED_QUEUE].iter().any(|prefix| worker.task_queue.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const T0: Time = Time::from_millis(1_700_000_000_000);
    const NAMESPACE: NamespaceId = NamespaceId(Uuid::nil());

    fn worker(key: &str, queue: &str) -> WorkerHeartbeat {
        WorkerHeartbeat {
            worker_instance_key: key.into(),
            task_queue: queue.into(),
            status: WorkerStatus::Running as i32,
            ..Default::default()
        }
    }

    #[test]
    fn workers_come_and_go() {
        let mut registry = Registry::default();
        let all = WorkerQuery::parse("").unwrap();
        let one = WorkerQuery::parse("TaskQueue = 'one'").unwrap();
        let workers = ["a", "b", "c"].map(|key| worker(key, "one")).into();
        registry.record(T0, NAMESPACE, workers);
        registry.record(T0, NAMESPACE, vec![worker("d", "two"), worker("e", "/_sys/x")]);
        assert_eq!(registry.count(T0, NAMESPACE, &all, false), 4);
        assert_eq!(registry.count(T0, NAMESPACE, &all, true), 5);
        assert_eq!(registry.count(T0, NAMESPACE, &one, false), 3);
        let (page, token) = registry.list(T0, NAMESPACE, &all, false, (3, &[])).unwrap();
        assert_eq!(page.len(), 3);
        let (page, token) = registry.list(T0, NAMESPACE, &all, false, (3, &token)).unwrap();
        assert_eq!((page.len(), token.len()), (1, 0));
        assert!(registry.list(T0, NAMESPACE, &all, false, (3, b"nonsense")).is_err());
        assert!(registry.describe(T0, NAMESPACE, "a").is_ok());
        let gone = WorkerHeartbeat { status: WorkerStatus::Shutdown as i32, ..worker("a", "one") };
        registry.record(T0, NAMESPACE, vec![gone]);
        assert!(matches!(registry.describe(T0, NAMESPACE, "a"), Err(Error::NotFound(_))));
        let late = T0 + TTL + Duration::from_secs(1);
        registry.record(late, NAMESPACE, vec![worker("f", "one")]);
        assert_eq!(registry.count(late, NAMESPACE, &all, true), 1);
        assert_eq!(registry.count, 1);
    }
}
