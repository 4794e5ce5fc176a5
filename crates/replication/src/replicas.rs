//! The part of a [`Node`] that concerns other replicas: Raft's messages and clock, rows for a
//! replica that lags behind, and whether this one leads still.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::{
    StateRole,
    eraftpb::{Message, MessageType, Snapshot},
};
use raft_engine::env::FileSystem;

use crate::{
    Error, Event, Node, Result,
    group::{ELECTION_TICKS, Group},
    members,
    node::{PROPOSAL_OVERHEAD, Waiting},
};

impl<F: FileSystem> Node<F> {
    /// Takes a message that a peer sent. While the log cannot be written it waits; beyond the
    /// bound of what waits it is dropped, and Raft sends another.
    ///
    /// # Errors
    /// [`Error::Raft`] if it is not for this node or not a peer's to send,
    /// [`Error::Corrupt`] if what it says cannot be true of what is here: nothing more is taken
    /// from or told of the group then.
    pub fn receive(&mut self, group: u64, message: Message) -> Result<()> {
        if let Some(error @ Error::Unsynced(_)) = &self.stalled {
            return Err(error.clone());
        }
        let found = self.groups.get(&group);
        let found = found.ok_or_else(|| Error::Raft(format!("group {group} is not here")))?;
        if let Some(why) = &found.broken {
            return Err(Error::Corrupt(why.clone()));
        }
        let kind = message.get_msg_type();
        let is_vote = matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        if is_vote && found.withholds_votes() {
            return Ok(());
        }
        if found.is_silent {
            return Ok(());
        }
        if kind == MessageType::MsgTimeoutNow && !found.may_stand() {
            return Ok(());
        }
        if message.to != self.id || kind == MessageType::MsgPropose {
            let (from, to) = (message.from, message.to);
            return Err(Error::Raft(format!("{kind:?} from {from} to {to} is not for this node")));
        }
        if kind == MessageType::MsgAppend && found.behind.is_some() {
            // They do not follow from what is here, or its rows are about to be older than them.
            return Ok(());
        }
        if self.unwritten.is_empty() {
            if kind == MessageType::MsgSnapshot {
                return self.receive_snapshot(group, message);
            }
            return self.step(group, message);
        }
        let entries = message.entries.iter().map(|e| e.data.len() + PROPOSAL_OVERHEAD);
        let size = entries.sum::<usize>() + PROPOSAL_OVERHEAD;
        if self.waiting_bytes + size <= self.waiting_bytes_max {
            self.waiting_bytes += size;
            self.waiting.push_back(Waiting::Received { group, message: Box::new(message) });
        }
        Ok(())
    }

    /// Tells that rows are to be fetched, unless they have what the snapshot stands for.
    fn receive_snapshot(&mut self, group: u64, message: Message) -> Result<()> {
        // Whoever sends it leads, and knows of no later term than this replica by then.
        let mut heartbeat = Message { from: message.from, to: message.to, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        heartbeat.term = message.term;
        self.step(group, heartbeat)?;
        let Some(found) = self.groups.get_mut(&group) else { return Ok(()) };
        let meta = message.get_snapshot().get_metadata();
        let (index, term, from) = (meta.index, meta.term, message.from);
        let log = &found.raw.raft.raft_log;
        if index <= log.committed || log.match_term(index, term) {
            // It answers that it has that.
            return self.step(group, message);
        }
        if message.term == found.raw.raft.term && found.behind.is_none() {
            found.behind = Some(message.get_snapshot().clone());
            self.offered.push((group, Event::Behind { index, term, from }));
        }
        Ok(())
    }

    /// The rows are those of another replica as of `index`, as `Behind` asked for, and on disk. The
    /// group takes entries again, from there on.
    pub fn restored(&mut self, group: u64, index: u64) {
        if !self.unwritten.is_empty() {
            return self.waiting.push_back(Waiting::Restored { group, index });
        }
        let Some(found) = self.groups.get_mut(&group) else { return };
        let is_meant = |s: &mut Snapshot| s.get_metadata().index == index;
        let Some(snapshot) = found.behind.take_if(is_meant) else { return };
        if found.broken.is_none() {
            // A candidate takes none, and the leader offers it again.
            let (term, leader) = (found.raw.raft.term, found.raw.raft.leader_id);
            if found.raw.raft.state != StateRole::Follower {
                found.raw.raft.become_follower(term, leader);
            }
            found.raw.raft.restore(snapshot);
            self.touched.insert(group);
        }
    }

    /// A replica on another node gave a sign that it fetches rows.
    pub fn receive_fetching(&mut self, group: u64, node: u64) {
        if let Some((_, age)) =
            self.groups.get_mut(&group).and_then(|found| found.fetching.get_mut(&node))
        {
            *age = 0;
        }
    }

    /// Gives a group a peer's message.
    fn step(&mut self, id: u64, message: Message) -> Result<()> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let from = message.from;
        // raft-rs asserts that a leader knows what this replica has acknowledged.
        let stepped = catch_unwind(AssertUnwindSafe(|| group.raw.step(message)));
        match stepped {
            Ok(stepped) => {
                self.touched.insert(id);
                // A refusal that comes late sets it back behind what the peer is known to have,
                // where the log may be compacted.
                if let Some(progress) = group.raw.raft.mut_prs().get_mut(from) {
                    progress.next_idx = progress.next_idx.max(progress.matched + 1);
                }
                // An answer to a leader that is none any more, for one.
                stepped.map_err(Error::from)
            }
            Err(_) => {
                let why = format!(
                    "group {id}: a peer's message contradicts what is here; it lost what it had \
                     acknowledged"
                );
                group.broken = Some(why.clone());
                // If it led, the next poll tells that it does no more.
                self.touched.insert(id);
                Err(Error::Corrupt(why))
            }
        }
    }

    /// Whether this replica leads in `term`, as `Leader` told.
    #[must_use]
    pub fn leads_in(&self, group: u64, term: u64) -> bool {
        self.groups.get(&group).is_some_and(|found| found.leads() && found.told_term == term)
    }

    /// Asks whether this replica leads still: `Confirmed` with `token` says so, once a majority
    /// has answered that heard of it after this call. Without a leadership nothing comes, since
    /// `Lost` was told.
    ///
    /// What is read before the confirmation is as new as this call. (Raft, section 6.4.)
    pub fn confirm(&mut self, group: u64, token: u64) {
        if !self.unwritten.is_empty() {
            // The latest stands for all before it.
            self.confirms.insert(group, token);
            return;
        }
        if let Some(found) = self.groups.get_mut(&group)
            && found.broken.is_none()
            && found.leads()
        {
            found.raw.read_index(token.to_le_bytes().to_vec());
            self.touched.insert(group);
        }
    }

    /// Hands the leadership over to the replica on another node, as soon as that has all entries.
    /// Proposals are refused meanwhile.
    pub fn transfer(&mut self, group: u64, to: u64) {
        // raft-rs takes no input between `ready` and `advance`.
        if self.unwritten.is_empty()
            && let Some(found) = self.groups.get_mut(&group)
            && found.broken.is_none()
            && found.leads()
        {
            found.raw.transfer_leader(to);
            self.touched.insert(group);
        }
    }

    /// Takes the leader's word that every replica of a group has the entries up to `index`:
    /// [`Node::compact`] may let them go here, too.
    pub fn receive_note(&mut self, group: u64, index: u64) {
        if let Some(found) = self.groups.get_mut(&group) {
            found.told_shared = found.told_shared.max(index);
        }
    }

    /// Words for [`Node::receive_note`] on other nodes since the last call: node, group, index.
    pub fn take_notes(&mut self) -> Vec<(u64, u64, u64)> {
        std::mem::take(&mut self.notes)
    }

    /// Counts time for elections and heartbeats; needed only by groups that have peers.
    pub fn tick(&mut self) {
        // raft-rs takes no input between `ready` and `advance`.
        if self.unwritten.is_empty() {
            let me = self.id;
            for (id, group) in &mut self.groups {
                if members::see_to(me, group) {
                    self.touched.insert(*id);
                }
                group.age = (group.age + 1).min(ELECTION_TICKS);
                if !group.fetching.is_empty() {
                    group.expire_fetching();
                    self.touched.insert(*id);
                }
                let is_in = group.broken.is_none() && !group.is_silent && group.may_stand();
                if is_in && group.raw.tick() {
                    self.touched.insert(*id);
                }
            }
        }
    }

    /// Whether any group has peers, so that [`Node::tick`] matters.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.groups.values().any(Group::has_peers)
    }

    /// Messages to other nodes since the last call, by group.
    pub fn take_messages(&mut self) -> Vec<(u64, Message)> {
        std::mem::take(&mut self.outbox)
    }
}
