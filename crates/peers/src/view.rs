//! Which nodes are there, as one of them sees it, and who owns what for that reason. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use everspan_types::Time;

use crate::Standing;

/// A node that said nothing for so long is not there.
pub(crate) const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// Signs of life that fail one after the other until a node is not there.
const FAILURES_MAX: u32 = 2;

/// The nodes that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    alive: BTreeSet<u64>,
}

impl View {
    /// Of these nodes.
    #[must_use]
    pub fn of(alive: impl IntoIterator<Item = u64>) -> Self {
        Self { alive: alive.into_iter().collect() }
    }

    /// Whether a node is there.
    #[must_use]
    pub fn has(&self, node: u64) -> bool {
        self.alive.contains(&node)
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = u64> {
        self.alive.iter().copied()
    }

    /// Who owns what has this hash: highest random weight (Thaler and Ravishankar), so that a
    /// node that comes or goes moves only what is or was its own. Nodes that see the same others
    /// agree. None if no node is there, as when all of them are about to stop.
    #[must_use]
    pub fn owner(&self, hash: u32) -> Option<u64> {
        let weight = |node: &u64| {
            // The mixing function of SplitMix64.
            let mut x = (u64::from(hash) << 32) ^ node.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        self.alive.iter().copied().max_by_key(weight)
    }
}

/// What is known of another node.
#[derive(Debug, Default)]
struct Peer {
    heard: Option<Time>,
    failures: u32,
    is_leaving: bool,
    standing: Standing,
}

impl Peer {
    fn is_reachable(&self, now: Time) -> bool {
        self.failures < FAILURES_MAX
            && self.heard.is_some_and(|heard| now.since(heard) < SILENCE_MAX)
    }
}

/// What is known of the others.
#[derive(Debug)]
pub(crate) struct Watch {
    me: u64,
    am_leaving: bool,
    peers: BTreeMap<u64, Peer>,
}

impl Watch {
    pub(crate) fn new(me: u64, peers: impl IntoIterator<Item = u64>) -> Self {
        let peers = peers.into_iter().map(|node| (node, Peer::default())).collect();
        Self { me, am_leaving: false, peers }
    }

    /// There is such a node.
    pub(crate) fn know(&mut self, node: u64) {
        self.peers.entry(node).or_default();
    }

    /// There is no such node any more.
    pub(crate) fn forget(&mut self, node: u64) {
        self.peers.remove(&node);
    }

    pub(crate) fn leave(&mut self) {
        self.am_leaving = true;
    }

    /// A peer answered.
    pub(crate) fn heard(&mut self, now: Time, node: u64, is_leaving: bool, standing: Standing) {
        if let Some(peer) = self.peers.get_mut(&node) {
            *peer = Peer { heard: Some(now), failures: 0, is_leaving, standing };
        }
    }

    /// What the peers that answer say of themselves.
    pub(crate) fn standings(&self, now: Time) -> BTreeMap<u64, Standing> {
        let there = self.peers.iter().filter(|(_, peer)| peer.is_reachable(now));
        there.map(|(node, peer)| (*node, peer.standing.clone())).collect()
    }

    /// A peer did not answer.
    pub(crate) fn missed(&mut self, node: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.failures += 1;
        }
    }

    /// Whether a node answers, though it may be about to stop.
    pub(crate) fn is_reachable(&self, now: Time, node: u64) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.is_reachable(now))
    }

    pub(crate) fn view(&self, now: Time) -> View {
        let is_alive = |peer: &Peer| !peer.is_leaving && peer.is_reachable(now);
        let others = self.peers.iter().filter(|(_, peer)| is_alive(peer)).map(|(node, _)| *node);
        let me = (!self.am_leaving).then_some(self.me);
        View { alive: others.chain(me).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_millis(1_000);

    #[test]
    fn who_is_silent_or_leaves_is_not_there() {
        let mut watch = Watch::new(1, [2, 3]);
        assert_eq!(watch.view(T0), View::of([1]));
        watch.heard(T0, 2, false, Standing::default());
        watch.heard(T0, 3, false, Standing::default());
        assert_eq!(watch.view(T0), View::of([1, 2, 3]));
        watch.missed(2);
        assert_eq!(watch.view(T0), View::of([1, 2, 3]), "once is no proof");
        watch.missed(2);
        assert_eq!(watch.view(T0), View::of([1, 3]));
        watch.heard(T0 + SILENCE_MAX, 2, false, Standing::default());
        assert_eq!(watch.view(T0 + SILENCE_MAX), View::of([1, 2]));
        watch.heard(T0 + SILENCE_MAX, 2, true, Standing::default());
        watch.leave();
        assert_eq!(watch.view(T0 + SILENCE_MAX), View::default());
    }

    #[test]
    fn only_what_a_node_owned_moves_when_it_goes() {
        let (all, fewer) = (View::of([1, 2, 3]), View::of([1, 3]));
        let mut owned = [0; 4];
        for hash in 0..3_000_u32 {
            let hash = hash.wrapping_mul(0x9e37_79b9);
            let owner = all.owner(hash).unwrap_or(0);
            owned[usize::try_from(owner).unwrap_or(0)] += 1;
            let next = fewer.owner(hash).unwrap_or(0);
            assert!(owner == 2 || next == owner);
            assert_ne!(next, 2);
        }
        assert!(owned[1..].iter().all(|n| (850..1_150).contains(n)), "{owned:?}");
        assert_eq!(View::default().owner(7), None);
    }
}
