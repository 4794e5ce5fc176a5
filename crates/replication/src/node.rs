//! The Raft groups of one node over one log.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use raft::{
    Ready, StateRole,
    eraftpb::{Entry, EntryType, HardState, Message, MessageType, Snapshot},
};
use raft_engine::{
    Command, Config as EngineConfig, Engine, LogBatch, ReadableSize, RecoveryMode,
    env::{DefaultFileSystem, FileSystem},
};
use slog::o;

use crate::{
    Error, Event, Result,
    group::{CONF_STATE, ELECTION_TICKS, Entries, Group, HARD_STATE, Rows, begin_anew},
    guard::{Doubt, Guarded},
    inspect::inspect,
    metrics,
};

/// Bytes of proposals that wait, by default, while the log cannot be written.
pub const WAITING_BYTES_MAX: usize = 64 << 20;
/// What a proposal costs in memory beside its data, roughly.
pub(crate) const PROPOSAL_OVERHEAD: usize = 128;

/// Bytes of entries kept in memory, by default, for replicas that lag behind.
const LAG_BYTES_MAX: usize = 256 << 20;
/// Fewest bytes of them for one group.
const LAG_BYTES_MIN: usize = 64 << 10;

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory.
    pub dir: PathBuf,
    /// This node's number, by which its peers know it; not 0, and never another node's.
    pub node_id: u64,
    /// Size at which a new file is begun, in bytes.
    pub file_bytes: u64,
    /// Size of all files from which old ones are given back, in bytes; at least `file_bytes`.
    pub purge_bytes: u64,
    /// Bytes of entries, of all groups together, that are kept in memory for replicas that lag
    /// behind; what those lack beyond that they fetch as rows.
    pub lag_bytes_max: usize,
}

impl Config {
    /// Defaults for a directory: node 1, files of 64 MiB, purged from 256 MiB, 256 MiB for replicas
    /// that lag.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            node_id: 1,
            file_bytes: 64 << 20,
            purge_bytes: 256 << 20,
            lag_bytes_max: LAG_BYTES_MAX,
        }
    }
}

/// What waits for the write under way: raft-rs takes nothing between `ready` and `advance`.
enum Waiting {
    Proposal(Proposal),
    Received { group: u64, message: Box<Message> },
    Confirm { group: u64, token: u64 },
    Restored { group: u64, index: u64 },
}

struct Proposal {
    group: u64,
    seq: u64,
    data: Bytes,
}

/// The groups of one node. Writes in [`Node::poll`] and [`Node::purge`] only; reads its files
/// as it opens and as groups are added.
pub struct Node<F: FileSystem = DefaultFileSystem> {
    engine: Engine<Guarded<F>>,
    doubt: Arc<Doubt>,
    id: u64,
    file_bytes: u64,
    lag_bytes_max: usize,
    groups: BTreeMap<u64, Group>,
    /// Groups that may have something to write or tell.
    touched: BTreeSet<u64>,
    /// Groups of which a proposal was refused.
    fenced: BTreeSet<u64>,
    /// What a failed write was to write.
    unwritten: Vec<(u64, Ready)>,
    /// What came since, in order.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    waiting_bytes_max: usize,
    /// Entries up to these indices go with the next write.
    compactions: BTreeMap<u64, u64>,
    /// Why the last write failed; what it was to write is kept. `Unsynced` stays.
    stalled: Option<Error>,
    /// Bytes written since files were last given back.
    written_bytes: u64,
    /// Messages to peers, by group.
    outbox: Vec<(u64, Message)>,
    /// What all replicas of a group have, for those that follow: node, group, index.
    notes: Vec<(u64, u64, u64)>,
    /// What is to be told with the next poll.
    news: Vec<(u64, Event)>,
    logger: slog::Logger,
}

impl<F: FileSystem> std::fmt::Debug for Node<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

impl Node<DefaultFileSystem> {
    /// Opens the log on the real file system.
    ///
    /// # Errors
    /// See [`Node::open_with`].
    pub fn open(config: &Config) -> Result<Self> {
        Self::open_with(config, Arc::new(DefaultFileSystem))
    }
}

impl<F: FileSystem> Node<F> {
    /// Opens the log in `config.dir`, creating it if it is not there. A torn tail, left by a
    /// crash, is cut off: nothing in it was acknowledged.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Corrupt`] if it is damaged otherwise.
    pub fn open_with(config: &Config, fs: Arc<F>) -> Result<Self> {
        let dir = config.dir.display();
        inspect(&config.dir, &fs)?;
        let engine_config = EngineConfig {
            dir: config.dir.to_string_lossy().into_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            recovery_threads: 1,
            target_file_size: ReadableSize(config.file_bytes),
            purge_threshold: ReadableSize(config.purge_bytes),
            // A recycled file would hold old records past the end of the new ones.
            enable_log_recycle: false,
            ..EngineConfig::default()
        };
        let (fs, doubt) = Guarded::new(fs);
        // raft-engine asserts in places where its files are not what it wrote.
        let engine = catch_unwind(AssertUnwindSafe(|| {
            Engine::open_with_file_system(engine_config, Arc::new(fs))
        }))
        .map_err(|_| Error::Corrupt(format!("{dir}: its files are not what was written")))?
        .map_err(|e| match Error::from(e) {
            Error::Corrupt(what) => Error::Corrupt(format!("{dir}: {what}")),
            Error::Io(what) => Error::Io(format!("{dir}: {what}")),
            other => other,
        })?;
        if let Some(reason) = doubt.reason() {
            return Err(Error::Unsynced(reason));
        }
        Ok(Self {
            engine,
            doubt,
            id: config.node_id,
            file_bytes: config.file_bytes,
            lag_bytes_max: config.lag_bytes_max,
            groups: BTreeMap::new(),
            touched: BTreeSet::new(),
            fenced: BTreeSet::new(),
            unwritten: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_bytes_max: WAITING_BYTES_MAX,
            compactions: BTreeMap::new(),
            stalled: None,
            written_bytes: 0,
            outbox: Vec::new(),
            notes: Vec::new(),
            news: Vec::new(),
            logger: slog::Logger::root(slog::Discard, o!()),
        })
    }

    /// This node's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Sets how many bytes of proposals wait while the log cannot be written
    /// ([`WAITING_BYTES_MAX`] unless set); more are refused. With 0 every one is refused.
    pub fn set_waiting_bytes_max(&mut self, bytes: usize) {
        self.waiting_bytes_max = bytes;
    }

    /// Opens a group, or founds it with this node as its only voter. The next polls tell
    /// every committed entry after `applied`, and then `Leader`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the log does not fit `applied`.
    pub fn add_group(&mut self, group: u64, applied: u64) -> Result<()> {
        self.add_replica(group, Rows { applied, restored: None }, &[self.id])
    }

    /// Opens this node's replica of a group, or founds it with the voters `founders`, which must
    /// be the same, in the same order, on all of them. The next polls tell every committed entry
    /// after `rows.applied`. Writes only if the rows were made of a snapshot that the log does not
    /// know of: a crash came between.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the log does not fit the rows, [`Error::Raft`] if this node is not
    /// one of the group's voters.
    pub fn add_replica(&mut self, group: u64, rows: Rows, founders: &[u64]) -> Result<()> {
        if self.groups.contains_key(&group) {
            return Err(Error::Raft(format!("group {group} is here already")));
        }
        let opened = Group::open(group, self.id, founders, rows, &self.engine, &self.logger);
        if let Some(reason) = self.doubt.reason() {
            return Err(Error::Unsynced(reason));
        }
        let opened = opened?;
        self.groups.insert(group, opened);
        self.touched.insert(group);
        Ok(())
    }

    /// Takes a proposal. `seq` comes back with its commit. While the log cannot be written it
    /// waits, up to a bound.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unsynced`]: it is not taken, nor is any other of the
    /// group until `Leader` is told again. [`Error::Raft`] if the group is not here.
    pub fn propose(&mut self, group: u64, seq: u64, data: Bytes) -> Result<()> {
        if let Some(error @ Error::Unsynced(_)) = &self.stalled {
            return Err(error.clone());
        }
        let found = self.groups.get(&group);
        let found = found.ok_or_else(|| Error::Raft(format!("group {group} is not here")))?;
        if let Some(why) = &found.broken {
            return Err(Error::Refused(why.clone()));
        }
        if found.is_fenced {
            return Err(Error::Refused("a proposal that was made earlier was refused".into()));
        }
        if self.unwritten.is_empty() {
            return self.append(Proposal { group, seq, data });
        }
        let size = data.len() + PROPOSAL_OVERHEAD;
        if self.waiting_bytes + size > self.waiting_bytes_max {
            self.fence(group);
            let reason = self.stalled.as_ref().map_or_else(String::new, ToString::to_string);
            return Err(Error::Refused(format!("the log cannot be written: {reason}")));
        }
        self.waiting_bytes += size;
        self.waiting.push_back(Waiting::Proposal(Proposal { group, seq, data }));
        Ok(())
    }

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
            self.news.push((group, Event::Behind { index, term, from }));
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

    /// As [`Node::propose`], for a proposer that may not have heard yet that it lost
    /// leadership: the proposal is taken only if `term` is the one that `Leader` told last.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is not; otherwise see [`Node::propose`].
    pub fn propose_in(&mut self, group: u64, term: u64, seq: u64, data: Bytes) -> Result<()> {
        match self.groups.get(&group) {
            Some(found) if found.told_term != term => Err(Error::Stale(term)),
            _ => self.propose(group, seq, data),
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
            return self.waiting.push_back(Waiting::Confirm { group, token });
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

    /// Appends a proposal to its group's log, in memory.
    fn append(&mut self, proposal: Proposal) -> Result<()> {
        let Proposal { group, seq, data } = proposal;
        let Some(opened) = self.groups.get_mut(&group) else { return Ok(()) };
        if opened.raw.raft.state != StateRole::Leader {
            // raft-rs would send it on to the leader, who knows nothing of its number.
            self.fence(group);
            return Err(Error::Refused("this replica does not lead".into()));
        }
        let entry =
            Entry { data, context: Bytes::copy_from_slice(&seq.to_le_bytes()), ..Entry::default() };
        let mut message = Message { from: self.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(vec![entry].into());
        // `RawNode::propose` would copy the data.
        if let Err(error) = opened.raw.step(message) {
            self.fence(group);
            return Err(Error::Refused(error.to_string()));
        }
        self.touched.insert(group);
        if let Some(counter) = metrics::PROPOSALS.as_ref() {
            counter.inc();
        }
        Ok(())
    }

    /// Refuses the group's proposals until it leads anew. To be called when a proposal was
    /// dropped on its way here, since later ones may build on it.
    pub fn fence(&mut self, group: u64) {
        if let Some(opened) = self.groups.get_mut(&group) {
            opened.is_fenced = true;
            self.fenced.insert(group);
        }
    }

    /// Lets entries up to `index`, whose rows are in the store, go: from memory now, from disk
    /// with the next write. Where there are peers, what all of them have (the leader knows, and
    /// tells them), and more only if much is kept.
    ///
    /// # Errors
    /// [`Error::Raft`] if they were not told yet.
    pub fn compact(&mut self, group: u64, index: u64) -> Result<()> {
        let group_count = self.groups.len();
        let Some(opened) = self.groups.get_mut(&group) else { return Ok(()) };
        if index > opened.told_index && opened.has_peers() {
            // Its rows were restored, and the log is yet to hear of it.
            return Ok(());
        }
        if index > opened.told_index {
            let told = opened.told_index;
            return Err(Error::Raft(format!(
                "group {group} is at entry {told}, and cannot be compacted up to {index}"
            )));
        }
        let shared = opened.shared_index();
        let share =
            (self.lag_bytes_max / group_count.max(1)).max(LAG_BYTES_MIN.min(self.lag_bytes_max));
        let index = opened.compact_index(index, share);
        if opened.has_peers() && opened.raw.raft.state == StateRole::Leader {
            let others = opened.raw.raft.prs().iter().map(|(node, _)| *node);
            let others = others.filter(|node| *node != self.id);
            self.notes.extend(others.map(|node| (node, group, shared)));
        }
        if index > 0 {
            opened.raw.mut_store().compact(index);
            self.compactions.insert(group, index);
        }
        Ok(())
    }

    /// Whether enough was written for [`Node::purge`] to be worth its while.
    #[must_use]
    pub fn purge_is_due(&self) -> bool {
        self.written_bytes >= self.file_bytes
    }

    /// Writes what compactions are due, and gives files back that no group needs. Costs little
    /// when there is nothing to do. Returns groups that keep files from going and should be
    /// checkpointed.
    ///
    /// # Errors
    /// The log's.
    pub fn purge(&mut self) -> Result<Vec<u64>> {
        if let Some(error @ Error::Unsynced(_)) = &self.stalled {
            return Err(error.clone());
        }
        if !self.unwritten.is_empty() {
            return Ok(Vec::new());
        }
        self.write()?;
        self.written_bytes = 0;
        self.guarded(Engine::purge_expired_files)
    }

    /// Counts time for elections and heartbeats; needed only by groups that have peers.
    pub fn tick(&mut self) {
        // raft-rs takes no input between `ready` and `advance`.
        if self.unwritten.is_empty() {
            for (id, group) in &mut self.groups {
                group.age = (group.age + 1).min(ELECTION_TICKS);
                if !group.fetching.is_empty() {
                    group.expire_fetching();
                    self.touched.insert(*id);
                }
                if group.broken.is_none() && group.raw.tick() {
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

    /// Why the last write failed, until one succeeds. [`Error::Unsynced`] stays for good.
    #[must_use]
    pub fn stalled(&self) -> Option<&Error> {
        self.stalled.as_ref()
    }

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
            if self.unwritten.is_empty() && self.fenced.is_empty() {
                return Ok(told);
            }
            send(&mut self.outbox);
            let written = self.write();
            self.stalled = written.as_ref().err().cloned();
            if let Err(error) = written {
                // What was committed before is true whether this write succeeds or not.
                return if told.is_empty() { Err(error) } else { Ok(told) };
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
            tell(id, group, ready.take_committed_entries(), told);
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
    fn write(&mut self) -> Result<()> {
        let mut batch = LogBatch::default();
        let mut count = 0;
        for (id, ready) in &self.unwritten {
            count += ready.entries().len();
            if let Some(group) = self.groups.get(id).filter(|_| !ready.snapshot().is_empty()) {
                let (meta, store) = (ready.snapshot().get_metadata(), group.raw.store());
                let hard_state = ready.hs().unwrap_or(store.hard_state());
                let at = (meta.index, meta.term);
                begin_anew(&mut batch, *id, at, hard_state, store.conf_state())?;
                self.compactions.remove(id);
            }
            batch.add_entries::<Entries>(*id, ready.entries())?;
            if let Some(hard_state) = ready.hs() {
                batch.put_message::<HardState>(*id, HARD_STATE.to_vec(), hard_state)?;
            }
            if let Some(group) = self.groups.get(id).filter(|g| g.is_new) {
                batch.put_message(*id, CONF_STATE.to_vec(), &group.founders)?;
            }
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
        if let Some(histogram) = metrics::WRITE_SECONDS.as_ref() {
            histogram.observe(began.elapsed().as_secs_f64());
        }
        if let Some(histogram) = metrics::BATCH_ENTRIES.as_ref().filter(|_| count > 0) {
            histogram.observe(count as f64);
        }
        Ok(())
    }

    /// Does something that writes; a failed sync is remembered.
    fn guarded<T>(
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
                store.restore(meta.index, meta.term);
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
            tell(id, group, light.take_committed_entries(), told);
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
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Proposal(proposal) => {
                    let (group, seq) = (proposal.group, proposal.seq);
                    if let Err(error) = self.append(proposal) {
                        told.push((group, Event::Refused { seq, reason: error.to_string() }));
                    }
                }
                Waiting::Confirm { group, token } => self.confirm(group, token),
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

/// Turns committed entries into events.
fn tell(id: u64, group: &mut Group, entries: Vec<Entry>, told: &mut Vec<(u64, Event)>) {
    let term = group.raw.raft.term;
    let leads = group.raw.raft.state == StateRole::Leader;
    if group.told_term != 0 && (!leads || group.told_term != term) {
        group.told_term = 0;
        told.push((id, Event::Lost));
    }
    for entry in entries {
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
    let leader = group.raw.raft.leader_id;
    if !leads && leader != group.told_leader && group.has_peers() {
        group.told_leader = leader;
        told.push((id, Event::Follows { leader }));
    }
}
