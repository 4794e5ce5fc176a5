//! Messages between executions, of this shard's side: rows on their way out, and what comes in.
//!
//! Each message has a sequence within its sending shard, and a receiving shard takes those of
//! one sender in their order. It keeps the sequence of the last one it took in the same change
//! in which the message takes effect, so that one that is delivered again does nothing: a
//! message takes effect once, whatever crashes.

use std::collections::BTreeMap;

use bytes::Bytes;
use everspan_execution::message::Message;
use everspan_storage::Batch;
use everspan_types::{Error, NamespaceId, Result, SLOTS, ShardId, slot};

use crate::{keys, outcome::Effect, outcome::Outcome, shard::Shard};

/// Most messages in one delivery.
const DELIVERY_MAX: usize = 256;

/// How slots are dealt out: evenly, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMap {
    /// Number of shards.
    pub count: u32,
}

impl ShardMap {
    /// The shard that owns a workflow ID.
    #[must_use]
    pub fn of(self, namespace: NamespaceId, workflow_id: &str) -> ShardId {
        let n = u64::from(slot(namespace, workflow_id)) * u64::from(self.count) / u64::from(SLOTS);
        ShardId(u32::try_from(n).unwrap_or(0) + 1)
    }
}

/// Messages to another shard, as they travel.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The shard they come from.
    pub from: ShardId,
    /// Sequences and messages, in order.
    pub messages: Vec<(u64, Message)>,
}

/// What is known of the messages to one shard.
#[derive(Debug, Default)]
struct Lane {
    /// Those up to this sequence are committed.
    committed: u64,
    /// Whether some are under way.
    is_busy: bool,
}

/// The messages on their way out, by receiving shard. The messages themselves are rows.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: BTreeMap<ShardId, Lane>,
}

impl Outbox {
    /// Finds what an earlier leader left.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn load(shard: &Shard) -> Result<Self> {
        let mut outbox = Self::default();
        let mut start = vec![b'o'];
        let end = keys::past(b"o");
        loop {
            // One row of each lane, and its last: lanes are few, messages may be many.
            let Some((key, _)) = shard.scan(&start, &end, 1)?.pop() else { return Ok(outbox) };
            let Some((to, _)) = keys::parse_outbox(&key) else {
                return Err(Error::internal("a message's key is damaged"));
            };
            let lane = keys::outbox(to);
            start = keys::past(&lane);
            let last = shard.last(&lane, &start)?;
            let last = last.as_deref().and_then(keys::parse_outbox);
            let committed = last.map_or(0, |(_, n)| n);
            outbox.lanes.insert(to, Lane { committed, is_busy: false });
        }
    }

    /// The lanes with something to deliver.
    #[must_use]
    pub fn lanes(&self) -> Vec<ShardId> {
        self.lanes.keys().copied().collect()
    }

    /// Messages to `to` up to `sequence` are committed.
    pub fn committed(&mut self, to: ShardId, sequence: u64) {
        let lane = self.lanes.entry(to).or_default();
        lane.committed = lane.committed.max(sequence);
    }

    /// The next messages to deliver to a shard, unless some are under way already.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn next(&mut self, shard: &Shard, to: ShardId) -> Result<Option<Delivery>> {
        let Some(lane) = self.lanes.get_mut(&to).filter(|lane| !lane.is_busy) else {
            return Ok(None);
        };
        let start = keys::outbox(to);
        let end = keys::outbox_message(to, lane.committed + 1);
        let rows = shard.scan(&start, &end, DELIVERY_MAX)?;
        if rows.is_empty() {
            self.lanes.remove(&to);
            return Ok(None);
        }
        let mut messages = Vec::with_capacity(rows.len());
        for (key, value) in &rows {
            let (_, sequence) = keys::parse_outbox(key)
                .ok_or_else(|| Error::internal("a message's key is damaged"))?;
            let message = Message::from_bytes(value)
                .map_err(|e| Error::internal(format!("message {sequence}: {e}")))?;
            messages.push((sequence, message));
        }
        lane.is_busy = true;
        Ok(Some(Delivery { from: shard.id, messages }))
    }

    /// A delivery ended: with `taken`, the messages up to that sequence took effect and are
    /// forgotten.
    pub fn delivered(&mut self, shard: &Shard, to: ShardId, taken: Option<u64>) -> Result<Outcome> {
        let mut out = Outcome::default();
        if let Some(lane) = self.lanes.get_mut(&to) {
            lane.is_busy = false;
        }
        if let Some(taken) = taken {
            let start = keys::outbox(to);
            let end = keys::outbox_message(to, taken + 1);
            for (key, _) in shard.scan(&start, &end, usize::MAX)? {
                out.batch.set(key.to_vec(), None);
            }
        }
        Ok(out)
    }
}

impl Shard {
    /// Sends a message: it is a row of this very change, and goes out once that is committed.
    pub(crate) fn post(&mut self, message: &Message, out: &mut Outcome) {
        let to = self.map.of(message.namespace, &message.workflow_id);
        self.sent += 1;
        out.batch.put(keys::outbox_message(to, self.sent), Bytes::from(message.to_bytes()));
        out.batch.put(keys::SENT.to_vec(), Bytes::from(self.sent.to_be_bytes().to_vec()));
        out.effects.push(Effect::Deliver(to, self.sent));
    }

    /// Reads where the sequence of messages stands.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load_sent(&mut self) -> Result<()> {
        self.sent = self.counter(keys::SENT)?;
        Ok(())
    }

    /// The last message taken from a shard.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn taken(&self, from: ShardId) -> Result<u64> {
        self.counter(&keys::taken(from))
    }

    /// Whether a message has taken effect, if only in a change that is on its way to the log.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_taken(&self, from: ShardId, sequence: u64) -> Result<bool> {
        Ok(sequence <= self.taken(from)?)
    }

    /// Notes, in the change in which it takes effect, that a message was taken.
    pub fn take(from: ShardId, sequence: u64, batch: &mut Batch) {
        batch.put(keys::taken(from), Bytes::from(sequence.to_be_bytes().to_vec()));
    }

    fn counter(&self, key: &[u8]) -> Result<u64> {
        match self.get(key)? {
            None => Ok(0),
            Some(raw) => raw
                .as_ref()
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|_| Error::internal("a counter is damaged")),
        }
    }
}
