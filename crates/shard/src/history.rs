//! Reading a run's history out of its rows.

use std::ops::Range;

use bytes::Bytes;
use everspan_proto::history::{History, HistoryEvent};
use everspan_storage::Table;
use everspan_types::{Error, Result, RunId, decode, encode};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::{keys, shard::unreadable};

/// Batches read from the store at a time.
const BATCHES: usize = 128;
/// A page ends with the batch that brings it over this size, so that it fits a message.
pub(crate) const PAGE_BYTES: usize = 3 << 20;

/// Where a reader of history continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) run_id: RunId,
    /// The next event to read.
    pub(crate) from: i64,
    /// End of what was there when reading began; events past it are new.
    pub(crate) to: i64,
    /// Whether the run was open then.
    pub(crate) is_running: bool,
}

impl Token {
    pub(crate) fn to_bytes(&self) -> Bytes {
        encode(1, self).into()
    }

    /// # Errors
    /// `INVALID_ARGUMENT` for anything but a token of ours.
    pub(crate) fn from_bytes(raw: &[u8]) -> Result<Self> {
        decode(1, raw).map_err(|_| Error::invalid("Invalid NextPageToken."))
    }
}

/// Events with IDs in `ids`, in order, up to `limit` of them and about [`PAGE_BYTES`].
///
/// # Errors
/// If rows cannot be read or decoded.
pub(crate) fn read(
    table: &Table,
    run: RunId,
    ids: Range<i64>,
    limit: usize,
) -> Result<Vec<HistoryEvent>> {
    let mut events = Vec::new();
    let mut size = 0;
    let mut at = ids.start;
    while at < ids.end && events.len() < limit && size < PAGE_BYTES {
        let Some(start) = batch_of(table, run, at)? else { break };
        let end = keys::history(run, ids.end);
        let wanted = BATCHES.min(limit);
        let batches = table.scan(&start, &end, wanted, false).map_err(unreadable)?;
        let read_before = events.len();
        for (_, raw) in &batches {
            size += raw.len();
            for event in decode_batch(raw)? {
                if event.event_id >= at && event.event_id < ids.end && events.len() < limit {
                    at = event.event_id + 1;
                    events.push(event);
                }
            }
            if events.len() >= limit || size >= PAGE_BYTES {
                break;
            }
        }
        // The end of the range may lie past what is stored.
        if batches.len() < wanted || events.len() == read_before {
            break;
        }
    }
    Ok(events)
}

/// One event.
///
/// # Errors
/// If it is missing or cannot be read.
pub(crate) fn event(table: &Table, run: RunId, id: i64) -> Result<HistoryEvent> {
    read(table, run, id..id + 1, 1)?
        .pop()
        .ok_or_else(|| Error::internal(format!("event {id} of run {run} is missing")))
}

/// Key of the batch that holds event `id`.
fn batch_of(table: &Table, run: RunId, id: i64) -> Result<Option<Bytes>> {
    let rows = table
        .scan(&keys::history(run, 0), &keys::history(run, id + 1), 1, true)
        .map_err(unreadable)?;
    Ok(rows.into_iter().next().map(|(key, _)| key))
}

pub(crate) fn decode_batch(raw: &Bytes) -> Result<Vec<HistoryEvent>> {
    History::decode(raw.clone())
        .map(|h| h.events)
        .map_err(|e| Error::internal(format!("history does not decode: {e}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use everspan_storage::{Batch, MemStore, Ops, Store};
    use everspan_types::ShardId;

    use super::*;

    /// Counts the scans of a store.
    #[derive(Debug, Default)]
    struct Counting {
        store: MemStore,
        scans: AtomicUsize,
    }

    impl Store for Counting {
        fn get(&self, key: &[u8]) -> everspan_storage::Result<Option<Bytes>> {
            self.store.get(key)
        }

        fn scan(
            &self,
            start: &[u8],
            end: &[u8],
            limit: usize,
            reverse: bool,
        ) -> everspan_storage::Result<Vec<(Bytes, Bytes)>> {
            self.scans.fetch_add(1, Ordering::Relaxed);
            self.store.scan(start, end, limit, reverse)
        }

        fn write(&self, ops: Ops<'_>) -> everspan_storage::Result<()> {
            self.store.write(ops)
        }

        fn flush(&self) -> everspan_storage::Result<()> {
            self.store.flush()
        }

        fn size_on_disk(&self) -> u64 {
            self.store.size_on_disk()
        }
    }

    const RUN: RunId = RunId(uuid::Uuid::nil());

    /// A table with batches of two events each, from event 1 to 2 * `batches`.
    fn table(store: Arc<Counting>, batches: i64) -> Table {
        let mut table = Table::open(ShardId(1), store).unwrap();
        let mut batch = Batch::default();
        for n in 0..batches {
            let event = |event_id| HistoryEvent { event_id, ..HistoryEvent::default() };
            let events = vec![event(2 * n + 1), event(2 * n + 2)];
            let key = Bytes::from(keys::history(RUN, 2 * n + 1));
            batch.ops.push((key, Some(History { events }.encode_to_vec().into())));
        }
        table.apply(1, batch);
        table
    }

    fn ids(events: &[HistoryEvent]) -> Vec<i64> {
        events.iter().map(|e| e.event_id).collect()
    }

    #[test]
    fn any_range_of_events() {
        let table = table(Arc::default(), 300);
        for range in [1..2, 2..3, 1..601, 2..600, 599..601, 255..259] {
            let all = read(&table, RUN, range.clone(), 1000).unwrap();
            assert_eq!(ids(&all), range.clone().collect::<Vec<_>>());
            let some = read(&table, RUN, range.clone(), 3).unwrap();
            assert_eq!(ids(&some), range.take(3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_range_that_ends_past_what_is_stored_is_read_once() {
        let store = Arc::new(Counting::default());
        let table = table(store.clone(), 3);
        for (range, limit, wanted) in [
            (1..9, 256, vec![1, 2, 3, 4, 5, 6]),
            (5..9, 256, vec![5, 6]),
            (6..9, 1, vec![6]),
            (7..9, 256, vec![]),
            (7..9, 1, vec![]),
        ] {
            let before = store.scans.load(Ordering::Relaxed);
            assert_eq!(ids(&read(&table, RUN, range.clone(), limit).unwrap()), wanted);
            let scans = store.scans.load(Ordering::Relaxed) - before;
            assert!(scans <= 4, "{range:?}, limit {limit}: {scans} scans");
        }
    }
}
