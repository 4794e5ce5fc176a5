//! A shard's rows, from those that are only proposed to those on disk.

use std::{
    collections::{BTreeMap, VecDeque},
    iter::Peekable,
    ops::Bound,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use everspan_types::ShardId;

use crate::{Batch, Error, Result, Store};

type Rows = BTreeMap<Bytes, Option<Bytes>>;
type Head<'a> = (&'a Bytes, &'a Option<Bytes>);

/// Key, after the shard's prefix, of the applied index; no row of a shard begins with 0.
const APPLIED: &[u8] = &[0];
/// Key of the snapshot that the rows were last made of.
const RESTORED: &[u8] = &[0, 1];
/// Rows read from the store at a time.
const CHUNK: usize = 64;
/// What a row in memory costs beside its bytes, roughly.
const ROW_OVERHEAD: usize = 64;
/// Bytes of one write of a checkpoint, roughly: rows can be large.
const WRITE_BYTES_MAX: usize = 8 << 20;

/// One shard's view of its rows. Keys given to it have no shard in them.
#[derive(Debug)]
pub struct Table {
    shard: ShardId,
    store: Arc<dyn Store>,
    /// Proposed batches, oldest first.
    staged: VecDeque<(u64, Batch)>,
    /// The newest staged value of each key, and by which proposal.
    overlay: BTreeMap<Bytes, (u64, Option<Bytes>)>,
    committed: Rows,
    committed_bytes: usize,
    frozen: Option<Frozen>,
    applied: u64,
    durable: u64,
}

#[derive(Debug)]
struct Frozen {
    rows: Arc<Rows>,
    applied: u64,
    bytes: usize,
}

/// Committed rows on their way to the store.
#[derive(Debug)]
pub struct Checkpoint {
    shard: ShardId,
    rows: Arc<Rows>,
    applied: u64,
}

impl Checkpoint {
    /// Writes the rows in order, at most `ops_max` and about 8 MiB at a time, and flushes; only
    /// then the applied index, and flushes that. A part of it does no harm, since the log is
    /// applied again from the old index; but the index must not be there before the rows, and
    /// any part of a write that failed may be.
    ///
    /// # Errors
    /// The store's; the checkpoint may be tried again.
    pub fn write(&self, store: &dyn Store, ops_max: usize) -> Result<()> {
        let mut ops = Vec::with_capacity(ops_max.min(self.rows.len() + 1));
        let mut bytes = 0;
        for (key, value) in self.rows.iter() {
            let size = cost(key, value);
            if ops.len() >= ops_max.max(1) || (bytes > 0 && bytes + size > WRITE_BYTES_MAX) {
                store.write(&ops)?;
                ops.clear();
                bytes = 0;
            }
            ops.push((prefixed(self.shard, key), value.clone()));
            bytes += size;
        }
        if !ops.is_empty() {
            store.write(&ops)?;
            store.flush()?;
        }
        let applied = Bytes::copy_from_slice(&self.applied.to_be_bytes());
        store.write(&[(prefixed(self.shard, APPLIED), Some(applied))])?;
        store.flush()
    }
}

fn prefixed(shard: ShardId, key: &[u8]) -> Bytes {
    let mut full = BytesMut::with_capacity(4 + key.len());
    full.extend_from_slice(&shard.0.to_be_bytes());
    full.extend_from_slice(key);
    full.freeze()
}

fn cost(key: &Bytes, value: &Option<Bytes>) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD
}

/// Rows that are deleted in one go.
const REMOVE_BATCH: usize = 1_000;

/// Deletes all rows of a shard, those that say where they stand last.
///
/// # Errors
/// If they cannot be read or written; some may be gone then, and it can be done again.
pub fn remove_rows(store: &dyn Store, shard: ShardId) -> Result<()> {
    let (start, end) = (prefixed(shard, &[]), prefixed(ShardId(shard.0.saturating_add(1)), &[]));
    // Descending: the applied index is the first.
    loop {
        let rows = store.scan(&start, &end, REMOVE_BATCH, true)?;
        if rows.is_empty() {
            return store.flush();
        }
        let ops: Vec<_> = rows.into_iter().map(|(key, _)| (key, None)).collect();
        store.write(&ops)?;
    }
}

impl Table {
    /// Opens the rows of `shard`.
    ///
    /// # Errors
    /// If the applied index cannot be read.
    pub fn open(shard: ShardId, store: Arc<dyn Store>) -> Result<Table> {
        let raw = store.get(&prefixed(shard, APPLIED))?;
        let applied = match raw {
            None => 0,
            Some(raw) => u64::from_be_bytes(raw.as_ref().try_into().map_err(|_| {
                Error::Corrupt(format!("applied index of shard {shard} is not a number"))
            })?),
        };
        Ok(Table {
            shard,
            store,
            staged: VecDeque::new(),
            overlay: BTreeMap::new(),
            committed: Rows::new(),
            committed_bytes: 0,
            frozen: None,
            applied,
            durable: applied,
        })
    }

    /// Index and term of the snapshot that the rows were last made of, if they were.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn restored(&self) -> Result<Option<(u64, u64)>> {
        let Some(raw) = self.get(RESTORED)? else { return Ok(None) };
        let pair = raw.split_at_checked(8).and_then(|(index, term)| {
            let number = |raw: &[u8]| raw.try_into().ok().map(u64::from_be_bytes);
            Some((number(index)?, number(term)?))
        });
        let shard = self.shard;
        let bad = || Error::Corrupt(format!("the snapshot's index of shard {shard} is none"));
        pair.ok_or_else(bad).map(Some)
    }

    /// The rows are those of a snapshot at `index` and `term` of the log, or of a later time.
    pub(crate) fn restore(&mut self, index: u64, term: u64) {
        let value = [index.to_be_bytes(), term.to_be_bytes()].concat();
        self.put(Bytes::from_static(RESTORED), Some(value.into()));
        self.applied = self.applied.max(index);
    }

    /// Log index up to which rows are committed.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Log index up to which rows are in the store.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Bytes of rows in memory, roughly.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.committed_bytes + self.frozen.as_ref().map_or(0, |f| f.bytes)
    }

    /// The newest value under `key`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some((_, value)) = self.overlay.get(key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.committed.get(key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.frozen.as_ref().and_then(|f| f.rows.get(key)) {
            return Ok(value.clone());
        }
        self.store.get(&prefixed(self.shard, key))
    }

    /// The newest rows with `start <= key < end`, in order or in reverse, at most `limit`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.scan_layers(start, end, limit, reverse, true)
    }

    /// As [`Table::scan`], ascending, of what is committed.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn scan_committed(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.scan_layers(start, end, limit, false, false)
    }

    fn scan_layers(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
        with_staged: bool,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let mut found = Vec::new();
        if start >= end || limit == 0 {
            return Ok(found);
        }
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let mut layers: Vec<Peekable<Box<dyn Iterator<Item = Head<'_>> + '_>>> = Vec::new();
        if with_staged {
            let staged = self.overlay.range::<[u8], _>(bounds).map(|(k, (_, v))| (k, v));
            layers.push(directed(staged, reverse));
        }
        layers.push(directed(self.committed.range::<[u8], _>(bounds), reverse));
        if let Some(frozen) = &self.frozen {
            layers.push(directed(frozen.rows.range::<[u8], _>(bounds), reverse));
        }
        let mut stored = StoreRows::new(self, start, end, reverse);
        let before = |a: &[u8], b: &[u8]| if reverse { a > b } else { a < b };
        while found.len() < limit {
            let mut next: Option<&Bytes> = None;
            for layer in &mut layers {
                if let Some((key, _)) = layer.peek()
                    && next.is_none_or(|n| before(key, n))
                {
                    next = Some(key);
                }
            }
            let from_store = stored.peek()?;
            let key = match (next, from_store) {
                (None, None) => break,
                (Some(key), None) => key.clone(),
                (Some(key), Some((s, _))) if !before(s, key) => key.clone(),
                (_, Some((s, _))) => s.clone(),
            };
            // The newest layer that has the key decides; all of them go past it.
            let mut value: Option<Option<Bytes>> = None;
            for layer in &mut layers {
                if let Some((_, v)) = layer.next_if(|(k, _)| **k == key) {
                    value.get_or_insert_with(|| v.clone());
                }
            }
            if let Some((k, _)) = stored.peek()?
                && *k == key
            {
                let row = stored.next();
                value.get_or_insert_with(|| row.map(|(_, v)| v));
            }
            if let Some(Some(value)) = value {
                found.push((key, value));
            }
        }
        Ok(found)
    }

    /// Puts a proposed batch on top. `seq` ascends.
    pub fn stage(&mut self, seq: u64, batch: Batch) {
        for (key, value) in &batch.ops {
            self.overlay.insert(key.clone(), (seq, value.clone()));
        }
        self.staged.push_back((seq, batch));
    }

    /// Proposal `seq`, and what was proposed before it, is committed at log index `index`.
    pub fn commit(&mut self, seq: u64, index: u64) {
        while self.staged.front().is_some_and(|(s, _)| *s <= seq) {
            let Some((s, batch)) = self.staged.pop_front() else { break };
            for (key, value) in batch.ops {
                // A newer proposal's value stays on top.
                if self.overlay.get(&key).is_some_and(|(by, _)| *by <= s) {
                    self.overlay.remove(&key);
                }
                self.put(key, value);
            }
        }
        self.applied = self.applied.max(index);
    }

    /// Applies a committed batch from the log.
    pub fn apply(&mut self, index: u64, batch: Batch) {
        for (key, value) in batch.ops {
            self.put(key, value);
        }
        self.applied = self.applied.max(index);
    }

    /// An entry without rows is committed.
    pub fn skip(&mut self, index: u64) {
        self.applied = self.applied.max(index);
    }

    /// Forgets what was proposed and not committed.
    pub fn discard_staged(&mut self) {
        self.staged.clear();
        self.overlay.clear();
    }

    /// Rows of a replayed batch share the memory of their log entry, which the log keeps until
    /// the checkpoint that also drops them here: nothing is kept for longer than it would be.
    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        self.committed_bytes += cost(&key, &value);
        let size = cost(&key, &None);
        if let Some(old) = self.committed.insert(key, value) {
            self.committed_bytes -= size + old.map_or(0, |v| v.len());
        }
    }

    /// Freezes what is committed so that it can be written to the store; none if there is
    /// nothing new or a checkpoint is under way.
    pub fn begin_checkpoint(&mut self) -> Option<Checkpoint> {
        let is_new = self.applied > self.durable || !self.committed.is_empty();
        if self.frozen.is_some() || !is_new {
            return None;
        }
        let rows = Arc::new(std::mem::take(&mut self.committed));
        let bytes = std::mem::take(&mut self.committed_bytes);
        self.frozen = Some(Frozen { rows: rows.clone(), applied: self.applied, bytes });
        Some(Checkpoint { shard: self.shard, rows, applied: self.applied })
    }

    /// The checkpoint under way was written, or not; then its rows wait for the next.
    pub fn end_checkpoint(&mut self, is_written: bool) {
        let Some(frozen) = self.frozen.take() else { return };
        if is_written {
            self.durable = frozen.applied;
            return;
        }
        let newer = std::mem::take(&mut self.committed);
        self.committed = Arc::unwrap_or_clone(frozen.rows);
        self.committed_bytes = frozen.bytes;
        for (key, value) in newer {
            self.put(key, value);
        }
    }
}

fn directed<'a>(
    rows: impl DoubleEndedIterator<Item = Head<'a>> + 'a,
    reverse: bool,
) -> Peekable<Box<dyn Iterator<Item = Head<'a>> + 'a>> {
    let rows: Box<dyn Iterator<Item = Head<'a>> + 'a> =
        if reverse { Box::new(rows.rev()) } else { Box::new(rows) };
    rows.peekable()
}

/// The store's part of a scan, read chunk by chunk.
struct StoreRows<'a> {
    table: &'a Table,
    start: Bytes,
    end: Bytes,
    reverse: bool,
    chunk: VecDeque<(Bytes, Bytes)>,
    is_done: bool,
}

impl<'a> StoreRows<'a> {
    fn new(table: &'a Table, start: &[u8], end: &[u8], reverse: bool) -> Self {
        let (start, end) = (prefixed(table.shard, start), prefixed(table.shard, end));
        Self { table, start, end, reverse, chunk: VecDeque::new(), is_done: false }
    }

    fn peek(&mut self) -> Result<Option<&(Bytes, Bytes)>> {
        if self.chunk.is_empty() && !self.is_done {
            let rows = self.table.store.scan(&self.start, &self.end, CHUNK, self.reverse)?;
            self.is_done = rows.len() < CHUNK;
            if let Some((last, _)) = rows.last() {
                if self.reverse {
                    self.end = last.clone();
                } else {
                    let mut after = BytesMut::from(last.as_ref());
                    after.extend_from_slice(&[0]);
                    self.start = after.freeze();
                }
            }
            self.chunk = rows.into_iter().map(|(k, v)| (k.slice(4..), v)).collect();
        }
        Ok(self.chunk.front())
    }

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        self.chunk.pop_front()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::MemStore;

    #[derive(Clone, Debug)]
    enum Step {
        Stage(Vec<(u8, Option<u8>)>),
        Commit,
        BeginCheckpoint,
        EndCheckpoint(bool),
        /// A checkpoint that fails after some of its writes and flushes.
        FailCheckpoint(u64),
        /// How many of the unflushed writes reached the disk.
        Crash(usize),
        LoseLeadership,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop::collection::vec((0u8..12, any::<Option<u8>>()), 1..5).prop_map(Step::Stage),
            5 => Just(Step::Commit),
            2 => Just(Step::BeginCheckpoint),
            2 => any::<bool>().prop_map(Step::EndCheckpoint),
            1 => (0u64..7).prop_map(Step::FailCheckpoint),
            1 => (0usize..4).prop_map(Step::Crash),
            1 => Just(Step::LoseLeadership),
        ]
    }

    /// Keys of two bytes, so that prefixes and neighbours occur.
    fn batch(ops: &[(u8, Option<u8>)]) -> Batch {
        let ops = ops
            .iter()
            .map(|(k, v)| (Bytes::from(vec![1 + k / 4, k % 4]), v.map(|v| Bytes::from(vec![v]))));
        Batch { ops: ops.collect() }
    }

    fn apply(model: &mut BTreeMap<Bytes, Bytes>, batch: &Batch) {
        for (k, v) in &batch.ops {
            match v {
                Some(v) => drop(model.insert(k.clone(), v.clone())),
                None => drop(model.remove(k)),
            }
        }
    }

    proptest! {
        #[test]
        fn sees_what_a_plain_map_would(steps in prop::collection::vec(step(), 1..60)) {
            let store = Arc::new(MemStore::default());
            let open = |store: &Arc<MemStore>| Table::open(ShardId(7), store.clone()).unwrap();
            let mut table = open(&store);
            // The log: every committed batch by its index.
            let mut log: Vec<Batch> = Vec::new();
            let mut staged: VecDeque<(u64, Batch)> = VecDeque::new();
            let mut under_way: Option<Checkpoint> = None;
            let mut seq = 0;
            for step in steps {
                match step {
                    Step::Stage(ops) => {
                        seq += 1;
                        let b = batch(&ops);
                        staged.push_back((seq, b.clone()));
                        table.stage(seq, b);
                    }
                    Step::Commit => if let Some((seq, b)) = staged.pop_front() {
                        log.push(b);
                        table.commit(seq, log.len() as u64);
                    },
                    Step::BeginCheckpoint => if under_way.is_none() {
                        under_way = table.begin_checkpoint();
                    },
                    Step::EndCheckpoint(ok) => if let Some(c) = under_way.take() {
                        if ok {
                            c.write(&*store, 3).unwrap();
                        }
                        table.end_checkpoint(ok);
                    },
                    Step::LoseLeadership => {
                        staged.clear();
                        table.discard_staged();
                    }
                    Step::FailCheckpoint(writes) => if let Some(c) = under_way.take() {
                        store.fail_after(Some(writes));
                        let written = c.write(&*store, 3);
                        store.fail_after(None);
                        table.end_checkpoint(written.is_ok());
                    },
                    Step::Crash(kept) => {
                        // Half a checkpoint may be on the disk, flushed or not.
                        if let Some(c) = under_way.take() {
                            store.fail_after(Some(1));
                            let _ = c.write(&*store, 3);
                        }
                        store.crash_keeping(kept);
                        staged.clear();
                        table = open(&store);
                        let from = table.applied() as usize;
                        for (n, b) in log.iter().enumerate().skip(from) {
                            table.apply(n as u64 + 1, b.clone());
                        }
                    }
                }
                let mut model = BTreeMap::new();
                for b in log.iter().chain(staged.iter().map(|(_, b)| b)) {
                    apply(&mut model, b);
                }
                for k in 0..12u8 {
                    let key = [1 + k / 4, k % 4];
                    prop_assert_eq!(table.get(&key).unwrap(), model.get(&key[..]).cloned());
                }
                let bytes: usize = table.committed.iter().map(|(k, v)| cost(k, v)).sum();
                prop_assert_eq!(table.committed_bytes, bytes);
                let all: Vec<_> = model.into_iter().collect();
                prop_assert_eq!(&table.scan(&[1], &[9], 99, false).unwrap(), &all);
                let mut back = all.clone();
                back.reverse();
                back.truncate(3);
                prop_assert_eq!(table.scan(&[1], &[9], 3, true).unwrap(), back);
            }
        }
    }
}
