//! One turn of a [`Node`]: what its groups have ready is written, synced, and told.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use bytes::Bytes;
use raft::{
    StateRole,
    eraftpb::{Entry, EntryType, HardState, Message},
};
use raft_engine::{Command, Engine, LogBatch, env::FileSystem};

use crate::{
    Error, Event, Node, Result,
    group::{Entries, Group, HARD_STATE, begin_anew, put_members, put_offered},
    guard::Guarded,
    members, metrics,
    node::Waiting,
};

impl<F: FileSystem> Node<F> {
    /// Writes what all groups have to write, syncs once, and tells what came of it.
    ///
    /// # Errors
    /// If the write failed: nothing was told, and the next poll tries the same again (unless a
    /// sync failed, see [`Error::Unsynced`]). What was committed before and is told in the same
    /// call hides the error from this call only; [`Node::stalled`] has it.
    pub fn poll(&mut self) -> Result<Vec<(u64, Event)>> {
        self.poll_sending(&mut |_| {})
    }

    /// As [`Node::poll`], and gives messages to other nodes away as soon as they may go: those
    /// with a leader's entries need not wait for its own disk. What is left to send when it is
    /// done is in [`Node::take_messages`].
    ///
    /// # Errors
    /// See [`Node::poll`].
    pub fn poll_sending(
        &mut self,
        send: &mut dyn FnMut(&mut Vec<(u64, Message)>),
    ) -> Result<Vec<(u64, Event)>> {
        if let Some(error @ Error::Unsynced(_)) = &self.stalled {
            return Err(error.clone());
        }
        let mut told = std::mem::take(&mut self.news);
        loop {
            if self.unwritten.is_empty() {
                self.collect(&mut told);
                told.append(&mut self.news);
            }
            if self.unwritten.is_empty() && self.fenced.is_empty() && self.offered.is_empty() {
                return Ok(told);
            }
            send(&mut self.outbox);
            let written = self.write();
            self.stalled = written.as_ref().err().cloned();
            if let Err(error) = written {
                // What was committed before is true whether this write succeeds or not.
                return if told.is_empty() { Err(error) } else { Ok(told) };
            }
            for (id, event) in std::mem::take(&mut self.offered) {
                told.push((id, event));
            }
            self.advance(&mut told);
            self.append_waiting(&mut told);
            self.lead_anew()?;
        }
    }

    /// Takes what the touched groups have ready.
    fn collect(&mut self, told: &mut Vec<(u64, Event)>) {
        for id in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.broken.is_some() {
                if std::mem::take(&mut group.told_term) != 0 {
                    told.push((id, Event::Lost));
                }
                continue;
            }
            if !group.raw.has_ready() {
                continue;
            }
            let mut ready = group.raw.ready();
            let confirmed = ready.take_read_states();
            group.note_fetching(ready.messages());
            self.outbox.extend(ready.take_messages().into_iter().map(|m| (id, m)));
            if tell(id, group, ready.take_committed_entries(), told) {
                self.reconfigured.insert(id);
            }
            if group.leads() {
                let tokens = confirmed.iter().filter_map(|state| {
                    let raw: [u8; 8] = state.request_ctx.as_slice().try_into().ok()?;
                    Some(u64::from_le_bytes(raw))
                });
                told.extend(tokens.max().map(|token| (id, Event::Confirmed { token })));
            }
            self.unwritten.push((id, ready));
        }
    }

    /// Writes, in one batch and with one sync. Every write is synced before the next begins:
    /// `inspect` relies on it.
    pub(crate) fn write(&mut self) -> Result<()> {
        let mut batch = LogBatch::default();
        let mut count = 0;
        for (id, ready) in &self.unwritten {
            count += ready.entries().len();
            if let Some(group) = self.groups.get(id).filter(|_| !ready.snapshot().is_empty()) {
                let meta = ready.snapshot().get_metadata();
                let hard_state = ready.hs().unwrap_or(group.raw.store().hard_state());
                let at = (meta.index, meta.term);
                begin_anew(&mut batch, *id, at, hard_state, meta.get_conf_state())?;
                self.compactions.remove(id);
                self.reconfigured.remove(id);
            }
            batch.add_entries::<Entries>(*id, ready.entries())?;
            if let Some(hard_state) = ready.hs() {
                batch.put_message::<HardState>(*id, HARD_STATE.to_vec(), hard_state)?;
            }
            if let Some(group) = self.groups.get(id).filter(|g| g.is_new) {
                put_members(&mut batch, *id, group.raw.store().conf_state(), 0)?;
            }
        }
        for id in &self.reconfigured {
            let Some(group) = self.groups.get(id) else { continue };
            let store = group.raw.store();
            put_members(&mut batch, *id, store.conf_state(), store.conf_index())?;
        }
        for (id, _) in &self.offered {
            let behind = self.groups.get(id).and_then(|group| group.behind.as_ref());
            behind.map_or(Ok(()), |snapshot| put_offered(&mut batch, *id, snapshot))?;
        }
        for (id, index) in &self.compactions {
            // Keeps the entry at `index` itself, for its term.
            batch.add_command(*id, Command::Compact { index: *index });
        }
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let size = self.guarded(|engine| engine.write(&mut batch, true))?;
        self.written_bytes += size as u64;
        self.compactions.clear();
        self.reconfigured.clear();
        if let Some(histogram) = metrics::WRITE_SECONDS.as_ref() {
            histogram.observe(began.elapsed().as_secs_f64());
        }
        if let Some(histogram) = metrics::BATCH_ENTRIES.as_ref().filter(|_| count > 0) {
            histogram.observe(count as f64);
        }
        Ok(())
    }

    /// Does something that writes; a failed sync is remembered.
    pub(crate) fn guarded<T>(
        &mut self,
        f: impl FnOnce(&Engine<Guarded<F>>) -> raft_engine::Result<T>,
    ) -> Result<T> {
        // raft-engine panics when it cannot sync its directory.
        let done = catch_unwind(AssertUnwindSafe(|| f(&self.engine)));
        let outcome = match (self.doubt.reason(), done) {
            (Some(reason), _) => Err(Error::Unsynced(reason)),
            (None, Err(_)) => Err(Error::Unsynced("its directory cannot be synced".into())),
            (None, Ok(Err(error))) => Err(error.into()),
            (None, Ok(Ok(value))) => Ok(value),
        };
        if let Err(error @ Error::Unsynced(_)) = &outcome {
            self.stalled = Some(error.clone());
        }
        outcome
    }

    fn advance(&mut self, told: &mut Vec<(u64, Event)>) {
        for (id, mut ready) in std::mem::take(&mut self.unwritten) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.is_new = false;
            let store = group.raw.mut_store();
            if !ready.snapshot().is_empty() {
                let meta = ready.snapshot().get_metadata();
                store.restore(meta.index, meta.term, meta.get_conf_state().clone());
                group.told_index = meta.index;
            }
            let store = group.raw.mut_store();
            store.append(ready.take_entries());
            if let Some(hard_state) = ready.hs() {
                store.set_hard_state(hard_state.clone());
            }
            self.outbox.extend(ready.take_persisted_messages().into_iter().map(|m| (id, m)));
            let restored = ready.snapshot().get_metadata().clone();
            let mut light = group.raw.advance(ready);
            group.note_fetching(light.messages());
            if let Some(commit) = light.commit_index() {
                group.raw.mut_store().set_commit(commit);
            }
            self.outbox.extend(light.take_messages().into_iter().map(|m| (id, m)));
            if tell(id, group, light.take_committed_entries(), told) {
                self.reconfigured.insert(id);
            }
            if restored.index > 0 {
                self.outbox.extend(group.has_restored().map(|m| (id, m)));
            }
            group.raw.advance_apply();
            if group.raw.has_ready() {
                self.touched.insert(id);
            }
        }
    }

    fn append_waiting(&mut self, told: &mut Vec<(u64, Event)>) {
        self.waiting_bytes = 0;
        for (group, token) in std::mem::take(&mut self.confirms) {
            self.confirm(group, token);
        }
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Proposal(proposal) => {
                    let (group, seq) = (proposal.group, proposal.seq);
                    if let Err(error) = self.append(proposal) {
                        told.push((group, Event::Refused { seq, reason: error.to_string() }));
                    }
                }
                Waiting::Restored { group, index } => self.restored(group, index),
                Waiting::Received { group, message } => {
                    // Its sender is not waiting for a word of it; a broken group stays so.
                    let _ = self.receive(group, *message);
                }
            }
        }
    }

    /// Has groups of which a proposal was refused begin a new term, so that their shards begin
    /// anew from what is committed.
    fn lead_anew(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.fenced) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let term = group.raw.raft.term;
            let leads = group.raw.raft.state == StateRole::Leader && group.told_term == term;
            self.touched.insert(id);
            if !group.is_fenced || !leads {
                continue;
            }
            let log = &group.raw.raft.raft_log;
            if log.persisted < log.last_index() {
                // raft-rs campaigns with a log that is written only.
                self.fenced.insert(id);
                continue;
            }
            group.raw.raft.become_follower(term, raft::INVALID_ID);
            group.raw.campaign()?;
        }
        Ok(())
    }
}

/// Turns committed entries into events, and applies changes of the membership. Tells whether there
/// was one.
fn tell(id: u64, group: &mut Group, entries: Vec<Entry>, told: &mut Vec<(u64, Event)>) -> bool {
    let mut is_reconfigured = false;
    let term = group.raw.raft.term;
    let leads = group.raw.raft.state == StateRole::Leader;
    if group.told_term != 0 && (!leads || group.told_term != term) {
        group.told_term = 0;
        told.push((id, Event::Lost));
    }
    for entry in entries {
        is_reconfigured |= members::apply_once(id, group, &entry);
        let leads = leads && group.raw.raft.state == StateRole::Leader;
        let is_own = leads && entry.term == term;
        let is_proposal = entry.entry_type == EntryType::EntryNormal;
        let seq: Option<[u8; 8]> = entry.context.as_ref().try_into().ok();
        told.push((
            id,
            Event::Committed {
                index: entry.index,
                term: entry.term,
                seq: seq
                    .map(u64::from_le_bytes)
                    .filter(|_| is_own && is_proposal && !group.is_fenced),
                data: if is_proposal { entry.data } else { Bytes::new() },
            },
        ));
        group.told_index = entry.index;
        group.raw.mut_store().set_told(entry.index);
        // The entry that opens a term commits everything before it.
        if is_own && group.told_term != term {
            group.told_term = term;
            group.is_fenced = false;
            group.told_leader = 0;
            told.push((id, Event::Leader { term }));
        }
    }
    let leads = leads && group.raw.raft.state == StateRole::Leader;
    if !leads && std::mem::take(&mut group.told_term) != 0 {
        told.push((id, Event::Lost));
    }
    let leader = group.raw.raft.leader_id;
    if !leads && leader != group.told_leader && group.has_peers() {
        group.told_leader = leader;
        told.push((id, Event::Follows { leader }));
    }
    is_reconfigured
}
