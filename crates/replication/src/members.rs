//! Which nodes have a replica of a group, and how that changes.
//!
//! Everybody is told what is wanted ([`Node::set_members`]); whoever leads takes the next step
//! ([`next_step`]) with each tick: a newcomer learns first, without a vote; once it has all
//! entries, it gets its vote in the same change in which others lose theirs, by way of a joint
//! membership. A leader that is not to stay hands over before it goes. (Raft, section 4; the joint
//! form is that of Ongaro and Ousterhout's paper, section 6.)
//!
//! A change takes effect as it is committed, on each replica at the same index, and is written with
//! that index: an entry that is told again changes nothing a second time.

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::{
    ProgressState, RawNode, StateRole,
    eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        ConfState, Entry, EntryType,
    },
};
use raft_engine::{LogBatch, env::FileSystem};

use crate::{
    Error, Node, Result,
    group::{Group, Log, put_removed, trace},
};

/// Entries that a newcomer may lack and still be said to have all: more come all the time.
const CLOSE: u64 = 256;

/// The nodes that are to have a replica of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that vote.
    pub voters: BTreeSet<u64>,
    /// Those that only have what is committed.
    pub learners: BTreeSet<u64>,
    /// Whether a leader that is not to vote waits for whoever drives it to hand over
    /// ([`Node::transfer`]), and does not do so by itself.
    pub waits_to_transfer: bool,
}

/// Where a replica stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its group.
    pub group: u64,
    /// The node that leads, as far as this one knows; 0 for none.
    pub leader: u64,
    /// The term.
    pub term: u64,
    /// Index of the last entry that is known to be committed.
    pub committed: u64,
    /// Nodes that vote, and those that do until a change is through.
    pub voters: BTreeSet<u64>,
    /// Nodes that do not vote.
    pub learners: BTreeSet<u64>,
    /// Whether the members are as they are to be; only a leader knows.
    pub is_settled: bool,
    /// Nodes that answer and have all entries, but for the latest; only a leader knows.
    pub close: BTreeSet<u64>,
}

/// What a log has of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Nothing.
    Nothing,
    /// A replica.
    Replica,
    /// That a replica was here and was removed: rows of it that are left are to be deleted before
    /// it is opened anew.
    Removed,
}

/// What a leader does next about the members.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// They are as they are to be.
    Done,
    /// Something is under way.
    Wait,
    /// Proposes this.
    Change(ConfChangeV2),
    /// Has another node lead, which stays.
    Transfer(u64),
}

fn change(changes: impl IntoIterator<Item = (ConfChangeType, u64)>) -> Step {
    let single = |(kind, node)| {
        let mut single = ConfChangeSingle { node_id: node, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        single
    };
    let changes: Vec<_> = changes.into_iter().map(single).collect();
    let mut change = ConfChangeV2::default();
    change.set_transition(ConfChangeTransition::Auto);
    change.set_changes(changes.into());
    Step::Change(change)
}

/// The step from what the members are, at a leader `me`, towards what they are to be. `is_close`
/// says of a node that it answers and has all entries, but for the latest.
pub(crate) fn next_step(
    now: &ConfState,
    wanted: &Members,
    me: u64,
    is_close: impl Fn(u64) -> bool,
) -> Step {
    if !now.voters_outgoing.is_empty() {
        // Whoever proposed it leaves by itself, but for one that lost the lead since. raft-rs
        // takes no second one while the first is under way.
        return Step::Change(ConfChangeV2::default());
    }
    let set = |nodes: &[u64]| nodes.iter().copied().collect::<BTreeSet<u64>>();
    let (voters, learners) = (set(&now.voters), set(&now.learners));
    let is_here = |node: &u64| voters.contains(node) || learners.contains(node);
    let mut newcomers = wanted.voters.union(&wanted.learners).filter(|node| !is_here(node));
    if let Some(node) = newcomers.next() {
        return change([(ConfChangeType::AddLearnerNode, *node)]);
    }
    let promoted: Vec<u64> = wanted.voters.difference(&voters).copied().collect();
    if !promoted.iter().all(|node| is_close(*node)) {
        return Step::Wait;
    }
    let leaving = voters.difference(&wanted.voters).filter(|node| **node != me);
    let leaving = leaving.map(|node| match wanted.learners.contains(node) {
        true => (ConfChangeType::AddLearnerNode, *node),
        false => (ConfChangeType::RemoveNode, *node),
    });
    let promoted = promoted.into_iter().map(|node| (ConfChangeType::AddNode, node));
    let changes: Vec<_> = promoted.chain(leaving).collect();
    if !changes.is_empty() {
        return change(changes);
    }
    if !wanted.voters.contains(&me) {
        if wanted.waits_to_transfer {
            return Step::Wait;
        }
        let heir = wanted.voters.iter().find(|node| is_close(**node));
        return heir.map_or(Step::Wait, |node| Step::Transfer(*node));
    }
    match learners.difference(&wanted.learners).next() {
        Some(node) => change([(ConfChangeType::RemoveNode, *node)]),
        None => Step::Done,
    }
}

/// Takes the next step, if this replica leads. Tells whether there is something to write or say.
pub(crate) fn see_to(me: u64, group: &mut Group) -> bool {
    if group.broken.is_some() || !group.leads() || group.raw.raft.has_pending_conf() {
        return false;
    }
    let Some(wanted) = &group.wanted else { return false };
    let store = group.raw.store();
    match next_step(store.conf_state(), wanted, me, |node| is_close(group, node)) {
        Step::Done | Step::Wait => false,
        // One that is refused is tried with the next tick.
        Step::Change(change) => group.raw.propose_conf_change(Vec::new(), change).is_ok(),
        Step::Transfer(node) => {
            group.raw.transfer_leader(node);
            true
        }
    }
}

/// Whether a node answers and has all entries, but for the latest.
fn is_close(group: &Group, node: u64) -> bool {
    let raft = &group.raw.raft;
    let progress = raft.prs().get(node);
    // One that is probed may well have everything: raft-rs notices with the next entry.
    let Some(progress) = progress.filter(|p| p.state != ProgressState::Snapshot) else {
        return false;
    };
    if node == raft.id {
        return true;
    }
    // Also what made it a learner: before that it may not vote, if it was here before.
    progress.recent_active
        && progress.matched + CLOSE >= raft.raft_log.committed
        && progress.matched >= group.raw.store().conf_index()
}

/// Applies a change of the membership that is committed. A change that does not fit what is there
/// changes nothing, on any replica.
///
/// # Errors
/// If it does not read.
pub(crate) fn apply(raw: &mut RawNode<Log>, entry: &Entry) -> Result<bool> {
    let bad = |e| Error::Corrupt(format!("the change of members at {} is {e}", entry.index));
    let outcome = match entry.entry_type {
        EntryType::EntryNormal => return Ok(false),
        EntryType::EntryConfChange => {
            let change = ConfChange::parse_from_bytes(&entry.data).map_err(bad)?;
            raw.apply_conf_change(&change)
        }
        EntryType::EntryConfChangeV2 => {
            let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(bad)?;
            raw.apply_conf_change(&change)
        }
    };
    let conf_state = outcome.unwrap_or_else(|_| raw.store().conf_state().clone());
    raw.mut_store().set_members(conf_state, entry.index);
    Ok(true)
}

/// As [`apply`], unless that was done before. What does not read breaks the group.
pub(crate) fn apply_once(id: u64, group: &mut Group, entry: &Entry) -> bool {
    if entry.index <= group.raw.store().conf_index() {
        return false;
    }
    let applied = apply(&mut group.raw, entry).unwrap_or_else(|error| {
        group.broken = Some(format!("group {id}: {error}"));
        false
    });
    // An earlier leader proposed that it goes. raft-rs would look for its own progress.
    let raft = &mut group.raw.raft;
    if raft.state == StateRole::Leader && raft.prs().get(raft.id).is_none() {
        let term = raft.term;
        raft.become_follower(term, raft::INVALID_ID);
    }
    applied
}

impl<F: FileSystem> Node<F> {
    /// Says which nodes are to have a replica of a group: to be called on all of them. Whoever
    /// leads sees to it, in steps, for as long as it takes; a member that is to vote and cannot be
    /// reached is waited for.
    pub fn set_members(&mut self, group: u64, wanted: Members) {
        if let Some(found) = self.groups.get_mut(&group).filter(|_| !wanted.voters.is_empty()) {
            found.wanted = Some(wanted);
        }
    }

    /// Where the replicas on this node stand.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |(id, group): (&u64, &Group)| {
            let (raft, conf) = (&group.raw.raft, group.raw.store().conf_state());
            let does_lead = group.leads();
            let is_done = |wanted: &Members| {
                next_step(conf, wanted, self.id, |node| is_close(group, node)) == Step::Done
            };
            let all = || conf.voters.iter().chain(&conf.learners).copied();
            Standing {
                group: *id,
                leader: if raft.state == StateRole::Leader && !does_lead {
                    0
                } else {
                    raft.leader_id
                },
                term: raft.term,
                committed: raft.raft_log.committed,
                voters: conf.voters.iter().chain(&conf.voters_outgoing).copied().collect(),
                learners: conf.learners.iter().copied().collect(),
                is_settled: does_lead && group.wanted.as_ref().is_none_or(is_done),
                close: all().filter(|node| does_lead && is_close(group, *node)).collect(),
            }
        };
        self.groups.iter().map(standing).collect()
    }

    /// Has this node's replica of a group hear and say nothing, or again, since it is about to be
    /// removed, or is not.
    pub fn silence(&mut self, group: u64, is_silent: bool) {
        if let Some(found) = self.groups.get_mut(&group) {
            found.is_silent = is_silent;
        }
    }

    /// Forgets this node's replica of a group, in memory and on disk, but for how it voted. To be
    /// called once the group's members are others, as its leader says, who knew at that moment that
    /// entries up to `committed` were. Its rows are to be deleted afterwards.
    ///
    /// It must have been silent ([`Node::silence`]) for longer than any message travels: if the node
    /// becomes a member again, nobody may take what an earlier replica said for a word of the new one,
    /// which has nothing.
    ///
    /// # Errors
    /// If that cannot be written now; nothing was done then.
    pub fn remove_replica(&mut self, group: u64, committed: u64) -> Result<()> {
        if let Some(error) = &self.stalled {
            return Err(error.clone());
        }
        if !self.unwritten.is_empty() {
            return Err(Error::Refused("a write is under way".into()));
        }
        let Some(found) = self.groups.get(&group) else { return Ok(()) };
        let mut batch = LogBatch::default();
        put_removed(&mut batch, group, &found.raw.raft.hard_state(), committed)?;
        self.guarded(|engine| engine.write(&mut batch, true))?;
        self.groups.remove(&group);
        self.touched.remove(&group);
        self.fenced.remove(&group);
        self.reconfigured.remove(&group);
        self.compactions.remove(&group);
        self.confirms.remove(&group);
        self.outbox.retain(|(id, _)| *id != group);
        self.news.retain(|(id, _)| *id != group);
        self.offered.retain(|(id, _)| *id != group);
        Ok(())
    }

    /// What the log has of a group.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn trace(&self, group: u64) -> Result<Trace> {
        trace(group, &self.engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
        ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() }
    }

    fn members(voters: &[u64], learners: &[u64]) -> Members {
        let set = |nodes: &[u64]| nodes.iter().copied().collect();
        Members { voters: set(voters), learners: set(learners), ..Members::default() }
    }

    fn step(now: &ConfState, wanted: &Members, close: &[u64]) -> Step {
        next_step(now, wanted, 1, |node| node == 1 || close.contains(&node))
    }

    #[test]
    fn one_step_follows_the_other() {
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        let wanted = members(&[1, 2, 4], &[]);
        let (now, all) = (conf(&[1, 2, 3], &[]), &[2, 3, 4][..]);
        assert_eq!(step(&now, &members(&[1, 2, 3], &[]), all), Step::Done);
        assert_eq!(step(&now, &wanted, all), change([(AddLearnerNode, 4)]));
        let now = conf(&[1, 2, 3], &[4]);
        assert_eq!(step(&now, &wanted, &[2, 3]), Step::Wait, "it does not have all yet");
        assert_eq!(step(&now, &wanted, all), change([(AddNode, 4), (RemoveNode, 3)]));
        let mut joint = conf(&[1, 2, 4], &[]);
        joint.voters_outgoing = vec![1, 2, 3];
        assert_eq!(step(&joint, &wanted, all), Step::Change(ConfChangeV2::default()));
        assert_eq!(step(&conf(&[1, 2, 4], &[]), &wanted, all), Step::Done);
    }

    #[test]
    fn a_leader_that_goes_hands_over_first() {
        use ConfChangeType::{AddLearnerNode, RemoveNode};
        let wanted = members(&[2, 4], &[3]);
        let now = conf(&[1, 2, 3, 4], &[5]);
        assert_eq!(step(&now, &wanted, &[2, 4]), change([(AddLearnerNode, 3)]));
        let now = conf(&[1, 2, 4], &[3, 5]);
        assert_eq!(step(&now, &wanted, &[4]), Step::Transfer(4));
        assert_eq!(step(&now, &wanted, &[]), Step::Wait);
        let stays = next_step(&now, &wanted, 4, |_| true);
        assert_eq!(stays, change([(RemoveNode, 1)]));
        assert_eq!(
            next_step(&conf(&[2, 4], &[3, 5]), &wanted, 4, |_| true),
            change([(RemoveNode, 5)])
        );
        assert_eq!(next_step(&conf(&[2, 4], &[3]), &wanted, 4, |_| true), Step::Done);
    }
}
