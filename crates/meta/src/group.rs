//! Raft group 0, written one change at a time: changes here are rare.

use std::sync::Arc;

use bytes::Bytes;
use everspan_replication::{Event, Handle};
use everspan_storage::{Batch, Store, Table};
use everspan_types::{Error, Result, ShardId};
use tokio::sync::mpsc;

/// The meta group's ID, in the log and in the store.
const GROUP: u64 = 0;
/// Operations in one write of a checkpoint.
const CHECKPOINT_BATCH: usize = 1_000;

/// The rows of group 0 and the way to its log.
#[derive(Debug)]
pub struct GroupLog {
    table: Table,
    store: Arc<dyn Store>,
    log: Handle,
    events: mpsc::UnboundedReceiver<Vec<Event>>,
    seq: u64,
}

impl GroupLog {
    /// Opens the group and replays what its rows do not have yet.
    ///
    /// # Errors
    /// If rows or log cannot be read.
    pub async fn open(log: Handle, store: Arc<dyn Store>) -> Result<Self> {
        let internal = |e: String| Error::internal(format!("meta group: {e}"));
        let table = Table::open(ShardId(0), store.clone()).map_err(|e| internal(e.to_string()))?;
        let (tx, events) = mpsc::unbounded_channel();
        let sink = Box::new(move |events| {
            // The receiver lives as long as the server.
            let _ = tx.send(events);
        });
        log.register(GROUP, table.applied(), sink).map_err(|e| internal(e.to_string()))?;
        let mut this = Self { table, store, log, events, seq: 0 };
        loop {
            let events = this.events.recv().await.ok_or_else(|| internal("log is gone".into()))?;
            for event in events {
                match event {
                    Event::Committed { index, data, .. } => this.replay(index, &data)?,
                    Event::Leader { .. } => return Ok(this),
                    _ => {}
                }
            }
        }
    }

    fn replay(&mut self, index: u64, data: &Bytes) -> Result<()> {
        if data.is_empty() {
            self.table.skip(index);
            return Ok(());
        }
        let batch = Batch::decode(data)
            .map_err(|e| Error::internal(format!("meta group: entry {index}: {e}")))?;
        self.table.apply(index, batch);
        Ok(())
    }

    /// Applies what was committed since the last write, as what a lost term left may be. Says
    /// whether there was any.
    ///
    /// # Errors
    /// If an entry does not read.
    pub fn catch_up(&mut self) -> Result<bool> {
        let before = self.table.applied();
        while let Ok(events) = self.events.try_recv() {
            for event in events {
                if let Event::Committed { index, data, .. } = event {
                    self.replay(index, &data)?;
                }
            }
        }
        Ok(self.table.applied() != before)
    }

    /// All rows.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn rows(&self, range: (&[u8], &[u8])) -> Result<Vec<(Bytes, Bytes)>> {
        self.table
            .scan(range.0, range.1, usize::MAX, false)
            .map_err(|e| Error::internal(e.to_string()))
    }

    /// Commits a change and writes it to the store. Not to be given up half way.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the log cannot be written now, or lost the change: then nothing is known
    /// of it, and [`GroupLog::catch_up`] tells.
    pub async fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(reason) = self.log.stalled() {
            return Err(Error::unavailable(format!("the log cannot be written: {reason}")));
        }
        self.seq += 1;
        let seq = self.seq;
        let data = batch.encode();
        self.table.stage(seq, batch);
        self.log.propose(GROUP, seq, data);
        loop {
            let gone = || Error::unavailable("the log is gone");
            let mut outcome = None;
            for event in self.events.recv().await.ok_or_else(gone)? {
                match event {
                    Event::Committed { index, seq: Some(s), .. } => {
                        self.table.commit(s, index);
                        if s == seq {
                            outcome = Some(Ok(()));
                        }
                    }
                    Event::Committed { index, seq: None, data, .. } => self.replay(index, &data)?,
                    Event::Refused { seq: s, reason } if s == seq => {
                        outcome = Some(Err(Error::unavailable(reason)));
                    }
                    Event::Lost => {
                        let reason = self.log.stalled().unwrap_or("its term ended".into());
                        let what = format!("the meta group cannot be written: {reason}");
                        outcome = Some(Err(Error::unavailable(what)));
                    }
                    Event::Refused { .. } | Event::Leader { .. } => {}
                }
            }
            match outcome {
                Some(Ok(())) => {
                    self.checkpoint();
                    return Ok(());
                }
                Some(Err(error)) => {
                    self.table.discard_staged();
                    return Err(error);
                }
                None => {}
            }
        }
    }

    fn checkpoint(&mut self) {
        let Some(checkpoint) = self.table.begin_checkpoint() else { return };
        // What cannot be written now stays in the log.
        let is_written = checkpoint.write(&*self.store, CHECKPOINT_BATCH).is_ok();
        self.table.end_checkpoint(is_written);
        if is_written {
            self.log.compact(GROUP, self.table.durable());
        }
    }
}
