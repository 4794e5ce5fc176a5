//! The order between a shard's changes and what may be known of them: rows are staged and
//! proposed, and effects wait until their rows, and those of every change before them, are
//! committed. Pure: the actors' shell and the simulator's drive the same.

use std::collections::VecDeque;

use bytes::Bytes;
use everspan_storage::Table;

use crate::outcome::{Effect, Outcome};

/// Changes of one shard on their way to the log. `R` is what a shell keeps of a read that has
/// seen a change which is not committed yet.
#[derive(Debug)]
pub struct Pipeline<R> {
    next_seq: u64,
    gates: VecDeque<Gate<R>>,
}

/// Effects that wait until proposal `seq` is committed.
#[derive(Debug)]
struct Gate<R> {
    seq: u64,
    effects: Vec<Effect>,
    reads: Vec<R>,
}

/// What the shell is to do with an outcome.
#[derive(Debug)]
pub enum Submitted {
    /// These effects now: they speak of nothing that is not committed.
    Perform(Vec<Effect>),
    /// Nothing: its effects wait for changes made before.
    Waits,
    /// Propose these bytes under this number.
    Propose {
        /// Comes back in [`Pipeline::committed`]; ascends.
        seq: u64,
        /// The encoded batch.
        data: Bytes,
    },
}

/// What a commit lets out, in order: effects, then reads.
#[derive(Debug)]
pub struct Released<R> {
    /// To be performed.
    pub effects: Vec<Effect>,
    /// To be answered.
    pub reads: Vec<R>,
}

impl<R> Default for Pipeline<R> {
    fn default() -> Self {
        Self { next_seq: 0, gates: VecDeque::new() }
    }
}

impl<R> Pipeline<R> {
    /// Takes an outcome: its rows are staged in `table`, its effects follow their commit.
    pub fn submit(&mut self, table: &mut Table, outcome: Outcome) -> Submitted {
        let Outcome { batch, effects, runs } = outcome;
        debug_assert!(runs.is_empty(), "runs that began are loaded by the shell");
        if batch.ops.is_empty() {
            return match self.gates.back_mut() {
                // What it speaks of may be on its way only.
                Some(gate) => {
                    gate.effects.extend(effects);
                    Submitted::Waits
                }
                None => Submitted::Perform(effects),
            };
        }
        self.next_seq += 1;
        let seq = self.next_seq;
        let data = batch.encode();
        table.stage(seq, batch);
        self.gates.push_back(Gate { seq, effects, reads: Vec::new() });
        Submitted::Propose { seq, data }
    }

    /// Keeps a read until everything proposed so far is committed; gives it back if that is so
    /// already.
    pub fn after_pending(&mut self, read: R) -> Option<R> {
        match self.gates.back_mut() {
            Some(gate) => {
                gate.reads.push(read);
                None
            }
            None => Some(read),
        }
    }

    /// Proposal `seq` is committed at `index` of the log.
    pub fn committed(&mut self, table: &mut Table, seq: u64, index: u64) -> Vec<Released<R>> {
        table.commit(seq, index);
        let mut released = Vec::new();
        while self.gates.front().is_some_and(|g| g.seq <= seq) {
            let Some(Gate { effects, reads, .. }) = self.gates.pop_front() else { break };
            released.push(Released { effects, reads });
        }
        released
    }

    /// Whether everything proposed so far is committed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.gates.is_empty()
    }

    /// Forgets what waits: its fate is not known. Gives back the reads, whose callers are to be
    /// told so.
    #[must_use]
    pub fn clear(&mut self) -> Vec<R> {
        self.gates.drain(..).flat_map(|gate| gate.reads).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use everspan_storage::MemStore;
    use everspan_types::ShardId;

    use super::*;

    /// Who delivered messages that were taken by a change that is lost is to be told, or it would
    /// wait for ever.
    #[test]
    fn reads_of_what_is_lost_are_given_back() {
        let mut table = Table::open(ShardId(1), Arc::<MemStore>::default()).unwrap();
        let mut pipeline = Pipeline::default();
        assert_eq!(pipeline.after_pending("early"), Some("early"));
        let mut outcome = Outcome::default();
        outcome.batch.put(b"k".to_vec(), Bytes::from_static(b"v"));
        assert!(matches!(pipeline.submit(&mut table, outcome), Submitted::Propose { .. }));
        assert_eq!(pipeline.after_pending("late"), None);
        assert_eq!(pipeline.clear(), ["late"]);
        assert!(pipeline.is_idle());
    }
}
