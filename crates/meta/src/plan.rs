//! The placement driver: which shard is to move next, and who is to lead it. Pure.
//!
//! Replicas spread by their number. What is on a node that is drained, was removed, or is given up
//! for lost goes to others first; then each node gets its part. Few shards move at a time: each
//! move copies a shard. A shard is led by a node that has all of its entries, and each node leads
//! its part.

use std::collections::{BTreeMap, BTreeSet};

use everspan_types::ShardId;

use crate::members::MemberState;

/// Replicas of a shard, where there are enough nodes.
const REPLICAS: usize = 3;
/// Shards that move at a time.
const MOVES_MAX: usize = 2;

/// What is known of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// What is to become of it.
    pub state: MemberState,
    /// Whether it answers.
    pub is_there: bool,
    /// Whether it says that it can take more: its disk can be written.
    pub can_take: bool,
    /// Whether it has not answered for so long that what it has is to be elsewhere, too.
    pub is_lost: bool,
}

impl NodeFacts {
    fn may_have_more(self) -> bool {
        self.state == MemberState::Up && self.is_there && self.can_take
    }

    fn is_to_be_left(self) -> bool {
        self.state != MemberState::Up || self.is_lost
    }
}

/// What is known of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardFacts {
    /// Nodes that are to have replicas.
    pub wanted: Vec<u64>,
    /// The node that leads; 0 if none is known to.
    pub leader: u64,
    /// Whether those have replicas that are to, and no others, as the leader says.
    pub is_settled: bool,
    /// Nodes that have all entries, but for the latest, as the leader says.
    pub close: BTreeSet<u64>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Other nodes are to have replicas of a shard.
    Place {
        /// Which shard.
        shard: ShardId,
        /// The nodes that are to now.
        before: Vec<u64>,
        /// The nodes that are to then.
        replicas: Vec<u64>,
    },
    /// Another node is to lead a shard.
    Lead {
        /// Which shard.
        shard: ShardId,
        /// Who leads it now.
        leader: u64,
        /// Who is to.
        to: u64,
    },
}

/// What is to be done next; nothing if all is as it should be, or under way. `tried` are nodes that
/// were to lead a shard a moment ago: where that came to nothing, it cost the shard a moment, and is
/// not to be done again at once.
#[must_use]
pub fn plan(
    nodes: &BTreeMap<u64, NodeFacts>,
    shards: &BTreeMap<ShardId, ShardFacts>,
    tried: &BTreeSet<(ShardId, u64)>,
) -> Vec<Action> {
    let moving = shards.values().filter(|shard| !shard.is_settled).count();
    let mut left = MOVES_MAX.saturating_sub(moving);
    let mut counts: BTreeMap<u64, usize> =
        nodes.iter().filter(|(_, n)| n.may_have_more()).map(|(id, _)| (*id, 0)).collect();
    for node in shards.values().flat_map(|shard| &shard.wanted) {
        if let Some(count) = counts.get_mut(node) {
            *count += 1;
        }
    }
    let mut actions = Vec::new();
    for (id, shard) in shards {
        // One that cannot settle because a node is gone must not wait for it.
        let must_go: Vec<u64> =
            shard.wanted.iter().copied().filter(|n| is_left(nodes, *n)).collect();
        if left == 0 && (shard.is_settled || must_go.is_empty()) {
            continue;
        }
        if let Some(replicas) = replaced(shard, &must_go, &mut counts) {
            left = left.saturating_sub(1);
            actions.push(place(*id, shard, replicas));
        }
    }
    if !actions.is_empty() || left == 0 {
        return actions;
    }
    if let Some(action) = spread(shards, &counts) {
        return vec![action];
    }
    lead(nodes, shards, tried).into_iter().collect()
}

fn is_left(nodes: &BTreeMap<u64, NodeFacts>, node: u64) -> bool {
    nodes.get(&node).is_none_or(|facts| facts.is_to_be_left())
}

fn place(id: ShardId, shard: &ShardFacts, replicas: Vec<u64>) -> Action {
    Action::Place { shard: id, before: shard.wanted.clone(), replicas }
}

/// The shard's nodes without those that must go and with as many others as there are.
fn replaced(
    shard: &ShardFacts,
    must_go: &[u64],
    counts: &mut BTreeMap<u64, usize>,
) -> Option<Vec<u64>> {
    let mut replicas: Vec<u64> =
        shard.wanted.iter().copied().filter(|node| !must_go.contains(node)).collect();
    let mut others: Vec<(usize, u64)> = counts
        .iter()
        .filter(|(node, _)| !shard.wanted.contains(node))
        .map(|(node, count)| (*count, *node))
        .collect();
    others.sort_unstable();
    for (_, node) in others {
        if replicas.len() >= REPLICAS {
            break;
        }
        replicas.push(node);
    }
    // A replica on a node that is to be left is better than none at all; and an even number of them
    // survives no more than one fewer.
    let is_worse = replicas.len() != shard.wanted.len() && replicas.len().is_multiple_of(2);
    if replicas == shard.wanted || is_worse {
        return None;
    }
    for node in replicas.iter().filter(|node| !shard.wanted.contains(node)) {
        *counts.entry(*node).or_insert(0) += 1;
    }
    Some(replicas)
}

/// A shard goes from the node with the most replicas to the one with the fewest.
fn spread(shards: &BTreeMap<ShardId, ShardFacts>, counts: &BTreeMap<u64, usize>) -> Option<Action> {
    let (most, many) = counts.iter().max_by_key(|(_, count)| **count)?;
    let (least, few) = counts.iter().min_by_key(|(_, count)| **count)?;
    if *many < *few + 2 {
        return None;
    }
    let movable = |shard: &&ShardFacts| {
        shard.is_settled && shard.wanted.contains(most) && !shard.wanted.contains(least)
    };
    // Rather one that the node does not lead.
    let candidates = || shards.iter().filter(|(_, shard)| movable(shard));
    let (id, shard) =
        candidates().find(|(_, s)| s.leader != *most).or_else(|| candidates().next())?;
    let swap = |node: &u64| if node == most { *least } else { *node };
    Some(place(*id, shard, shard.wanted.iter().map(swap).collect()))
}

/// A shard is led by a node that stays, and each leads its part.
fn lead(
    nodes: &BTreeMap<u64, NodeFacts>,
    shards: &BTreeMap<ShardId, ShardFacts>,
    tried: &BTreeSet<(ShardId, u64)>,
) -> Option<Action> {
    let may = |node: &u64| nodes.get(node).is_some_and(|facts| facts.may_have_more());
    let mut counts: BTreeMap<u64, usize> =
        nodes.keys().filter(|node| may(node)).map(|node| (*node, 0)).collect();
    for shard in shards.values() {
        if let Some(count) = counts.get_mut(&shard.leader) {
            *count += 1;
        }
    }
    let mut best: Option<(usize, Action)> = None;
    for (id, shard) in shards.iter().filter(|(_, s)| s.is_settled && s.leader != 0) {
        // Whoever is to be left has as many as can be.
        let many = counts.get(&shard.leader).copied().unwrap_or(usize::MAX);
        let is_new = |node: &u64| !tried.contains(&(*id, *node));
        let heirs = shard.wanted.iter().filter(|n| shard.close.contains(n) && may(n) && is_new(n));
        let heir = heirs.filter(|n| **n != shard.leader).min_by_key(|n| (counts[n], **n));
        let Some(heir) = heir else { continue };
        let gain = many.saturating_sub(counts[heir]);
        if gain >= 2 && best.as_ref().is_none_or(|(most, _)| gain > *most) {
            let action = Action::Lead { shard: *id, leader: shard.leader, to: *heir };
            best = Some((gain, action));
        }
    }
    best.map(|(_, action)| action)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        nodes: BTreeMap<u64, NodeFacts>,
        shards: BTreeMap<ShardId, ShardFacts>,
    }

    impl World {
        fn new(nodes: u64, shards: u32) -> Self {
            let there = NodeFacts { is_there: true, can_take: true, ..NodeFacts::default() };
            let shard = |n: u32| {
                let node = |k: u32| u64::from((n + k - 1) % 3 + 1);
                let wanted: Vec<u64> = (0..3).map(node).collect();
                let (leader, close) = (wanted[0], wanted.iter().copied().collect());
                (ShardId(n), ShardFacts { wanted, leader, is_settled: true, close })
            };
            Self {
                nodes: (1..=nodes).map(|node| (node, there)).collect(),
                shards: (1..=shards).map(shard).collect(),
            }
        }

        /// Does what is planned until nothing is, and counts it.
        fn settle(&mut self) -> usize {
            for steps in 0..1_000 {
                let actions = plan(&self.nodes, &self.shards, &BTreeSet::new());
                if actions.is_empty() {
                    return steps;
                }
                assert!(actions.len() <= MOVES_MAX);
                for action in actions {
                    match action {
                        Action::Place { shard, before, replicas } => {
                            let facts = self.shards.get_mut(&shard).expect("a known shard");
                            assert_eq!(facts.wanted, before);
                            if !replicas.contains(&facts.leader) {
                                facts.leader = replicas[0];
                            }
                            facts.close = replicas.iter().copied().collect();
                            facts.wanted = replicas;
                        }
                        Action::Lead { shard, leader, to } => {
                            let facts = self.shards.get_mut(&shard).expect("a known shard");
                            assert_eq!(facts.leader, leader);
                            facts.leader = to;
                        }
                    }
                }
            }
            panic!("it never ends");
        }

        fn replicas(&self, node: u64) -> usize {
            self.shards.values().filter(|s| s.wanted.contains(&node)).count()
        }

        fn leads(&self, node: u64) -> usize {
            self.shards.values().filter(|s| s.leader == node).count()
        }
    }

    #[test]
    fn nothing_is_done_where_all_is_well() {
        assert_eq!(World::new(3, 12).settle(), 0);
        let mut alone = World::new(1, 4);
        for shard in alone.shards.values_mut() {
            (shard.wanted, shard.leader) = (vec![1], 1);
        }
        assert_eq!(alone.settle(), 0);
    }

    #[test]
    fn a_new_node_gets_its_part() {
        let mut world = World::new(5, 20);
        assert!(world.settle() > 20);
        for node in 1..=5 {
            assert!((11..=13).contains(&world.replicas(node)), "{}", world.replicas(node));
            assert!((3..=5).contains(&world.leads(node)), "{}", world.leads(node));
        }
        assert!(world.shards.values().all(|s| s.wanted.len() == 3));
    }

    #[test]
    fn a_drained_node_has_nothing_in_the_end() {
        let mut world = World::new(4, 8);
        world.settle();
        world.nodes.entry(2).or_default().state = MemberState::Draining;
        world.settle();
        assert_eq!((world.replicas(2), world.leads(2)), (0, 0));
        assert!(world.shards.values().all(|s| s.wanted.len() == 3));
    }

    #[test]
    fn with_too_few_nodes_a_drained_one_keeps_its_replicas_and_leads_nothing() {
        let mut world = World::new(3, 6);
        world.nodes.entry(3).or_default().state = MemberState::Draining;
        world.settle();
        assert_eq!((world.replicas(3), world.leads(3)), (6, 0));
    }

    #[test]
    fn what_a_lost_node_had_is_elsewhere_and_a_silent_one_is_waited_for() {
        let mut world = World::new(4, 8);
        world.settle();
        let had = world.replicas(1);
        assert!(had > 0);
        let one = world.nodes.entry(1).or_default();
        one.is_there = false;
        for shard in world.shards.values_mut() {
            shard.close.remove(&1);
            if shard.leader == 1 {
                shard.leader = *shard.wanted.iter().find(|n| **n != 1).expect("another");
            }
        }
        world.settle();
        assert_eq!(world.replicas(1), had);
        world.nodes.entry(1).or_default().is_lost = true;
        world.settle();
        assert_eq!(world.replicas(1), 0);
    }

    #[test]
    fn who_cannot_write_is_given_nothing() {
        let mut world = World::new(4, 8);
        world.nodes.entry(4).or_default().can_take = false;
        world.nodes.entry(1).or_default().can_take = false;
        for shard in world.shards.values_mut().filter(|s| s.leader == 1) {
            shard.leader = 2;
        }
        world.settle();
        assert_eq!((world.replicas(4), world.leads(4), world.leads(1)), (0, 0, 0));
        assert_eq!(world.replicas(1), 8, "what it has is not taken from it");
    }

    #[test]
    fn what_came_to_nothing_is_not_in_the_way_of_others() {
        let mut world = World::new(3, 3);
        for shard in world.shards.values_mut() {
            shard.leader = 1;
        }
        let planned = |tried: &[(ShardId, u64)]| {
            plan(&world.nodes, &world.shards, &tried.iter().copied().collect())
        };
        let lead = |n, to| vec![Action::Lead { shard: ShardId(n), leader: 1, to }];
        assert_eq!(planned(&[]), lead(1, 2));
        assert_eq!(planned(&[(ShardId(1), 2)]), lead(1, 3));
        assert_eq!(planned(&[(ShardId(1), 2), (ShardId(1), 3)]), lead(2, 2));
    }

    #[test]
    fn few_move_at_a_time() {
        let mut world = World::new(4, 8);
        for shard in world.shards.values_mut().take(MOVES_MAX) {
            shard.is_settled = false;
        }
        assert_eq!(plan(&world.nodes, &world.shards, &BTreeSet::new()), []);
    }
}
