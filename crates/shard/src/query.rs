//! Queries of one run, from the call to the answer. They live in memory only: a caller
//! whose run moves or whose node stops asks again.
//!
//! A query of a run with nothing pending goes alone to a worker ([`Place::Direct`]). While
//! a workflow task is scheduled or with a worker, events may be on their way that the
//! answer must reflect, so the query waits for the next task and rides on it.

use std::collections::BTreeMap;

use everspan_proto::query::WorkflowQuery;
use everspan_types::Time;

use crate::outcome::CallId;

/// Most queries of one run at a time.
pub(crate) const QUERIES_MAX: usize = 128;

/// A query in flight.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) call: CallId,
    pub(crate) query: WorkflowQuery,
    pub(crate) place: Place,
}

/// Where a query is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// Waits for the next workflow task.
    Buffered,
    /// Rides on the workflow task that a worker has.
    Attached,
    /// Offered alone; `sticky_until` is when it leaves the sticky queue.
    Direct { sticky_until: Option<Time> },
    /// Alone with a worker.
    Taken,
}

/// The queries of a run.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    last_id: u64,
    pub(crate) open: BTreeMap<u64, Query>,
}

impl Queries {
    /// Its ID is never used again, not even once the run was loaded anew: a worker may still
    /// answer a query that was forgotten then.
    pub(crate) fn add(
        &mut self,
        now: Time,
        call: CallId,
        query: WorkflowQuery,
        place: Place,
    ) -> u64 {
        self.last_id = now.as_nanos().max(self.last_id + 1);
        self.open.insert(self.last_id, Query { call, query, place });
        self.last_id
    }

    /// IDs of the queries at `place`.
    pub(crate) fn at(&self, place: Place) -> Vec<u64> {
        self.open.iter().filter(|(_, q)| q.place == place).map(|(id, _)| *id).collect()
    }

    /// Moves all queries at `from` to `to`.
    pub(crate) fn shift(&mut self, from: Place, to: Place) {
        for query in self.open.values_mut().filter(|q| q.place == from) {
            query.place = to;
        }
    }

    /// When the next query leaves the sticky queue.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.open
            .values()
            .filter_map(|q| match q.place {
                Place::Direct { sticky_until } => sticky_until,
                _ => None,
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_not_used_again_once_the_run_was_loaded_anew() {
        let add = |queries: &mut Queries, millis| {
            let now = Time::from_millis(millis);
            queries.add(now, CallId(1), WorkflowQuery::default(), Place::Buffered)
        };
        let mut before = Queries::default();
        let ids = [add(&mut before, 10), add(&mut before, 10), add(&mut before, 11)];
        let after = add(&mut Queries::default(), 12);
        assert!(ids[0] < ids[1] && ids[1] < ids[2] && ids[2] < after);
    }
}
