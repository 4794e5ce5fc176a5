//! The nodes of the cluster, and which of them have what.

use std::collections::{BTreeMap, BTreeSet};

use everspan_types::Error;
use serde::{Deserialize, Serialize};

use crate::state::Snapshot;

/// Most nodes that vote in the meta group; the others only have what it commits.
const VOTERS_MAX: usize = 5;

/// What is to become of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// It has its part of everything.
    #[default]
    Up,
    /// What it has goes to others.
    Draining,
    /// It is no part of the cluster any more, and never again.
    Removed,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `HOST:PORT` where other nodes speak to it.
    pub address: String,
    /// What is to become of it.
    pub state: MemberState,
}

/// The nodes that are to have replicas of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Which.
    pub replicas: Vec<u64>,
    /// Which were to before: they may still have them.
    pub before: Vec<u64>,
}

/// What a node is told that was removed.
pub(crate) fn removed(node: u64) -> Error {
    Error::FailedPrecondition(format!(
        "node {node} was removed from this cluster: take another number, and an empty data directory"
    ))
}

impl Snapshot {
    /// What is to become of each node, founders that were not heard of yet among them.
    #[must_use]
    pub fn states(&self, founders: &[u64]) -> BTreeMap<u64, MemberState> {
        let founders = founders.iter().map(|node| (*node, MemberState::Up));
        founders.chain(self.members.iter().map(|(node, m)| (*node, m.state))).collect()
    }

    /// The nodes that vote in the meta group, and those that only follow it. An odd number votes:
    /// an even one survives no more.
    #[must_use]
    pub fn meta_members(&self, founders: &[u64]) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let states = self.states(founders);
        let up = |state: &MemberState| *state == MemberState::Up;
        let voters: Vec<u64> = states.iter().filter(|(_, s)| up(s)).map(|(n, _)| *n).collect();
        let count = match voters.len().min(VOTERS_MAX) {
            count if count > 2 && count % 2 == 0 => count - 1,
            count => count,
        };
        let voters: BTreeSet<u64> = voters.into_iter().take(count).collect();
        let stays = |(_, state): &(&u64, &MemberState)| **state != MemberState::Removed;
        let learners = states.iter().filter(stays).map(|(node, _)| *node);
        let learners = learners.filter(|node| !voters.contains(node)).collect();
        (voters, learners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_number_votes() {
        let mut snapshot = Snapshot::default();
        let set = |nodes: &[u64]| nodes.iter().copied().collect::<BTreeSet<u64>>();
        assert_eq!(snapshot.meta_members(&[1, 2, 3]), (set(&[1, 2, 3]), set(&[])));
        for node in 1..=6 {
            snapshot.members.insert(node, Member::default());
        }
        assert_eq!(snapshot.meta_members(&[1, 2, 3]), (set(&[1, 2, 3, 4, 5]), set(&[6])));
        let mut set_state = |node, state| {
            snapshot.members.insert(node, Member { state, ..Member::default() });
            snapshot.meta_members(&[1, 2, 3])
        };
        assert_eq!(set_state(2, MemberState::Draining), (set(&[1, 3, 4, 5, 6]), set(&[2])));
        assert_eq!(set_state(2, MemberState::Removed), (set(&[1, 3, 4, 5, 6]), set(&[])));
        assert_eq!(set_state(3, MemberState::Removed), (set(&[1, 4, 5]), set(&[6])));
    }
}
