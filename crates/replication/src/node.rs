//! The Raft groups of one node over one log.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use raft::{
    Ready, StateRole,
    eraftpb::{Entry, Message, MessageType},
};
use raft_engine::{
    Config as EngineConfig, Engine, ReadableSize, RecoveryMode,
    env::{DefaultFileSystem, FileSystem},
};
use slog::o;

use crate::{
    Error, Event, Result,
    group::{Group, Rows},
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
pub(crate) enum Waiting {
    Proposal(Proposal),
    Received { group: u64, message: Box<Message> },
    Restored { group: u64, index: u64 },
}

pub(crate) struct Proposal {
    pub(crate) group: u64,
    pub(crate) seq: u64,
    pub(crate) data: Bytes,
}

/// The groups of one node. Writes in [`Node::poll`] and [`Node::purge`] only; reads its files
/// as it opens and as groups are added.
pub struct Node<F: FileSystem = DefaultFileSystem> {
    pub(crate) engine: Engine<Guarded<F>>,
    pub(crate) doubt: Arc<Doubt>,
    pub(crate) id: u64,
    pub(crate) file_bytes: u64,
    pub(crate) lag_bytes_max: usize,
    pub(crate) groups: BTreeMap<u64, Group>,
    /// Groups that may have something to write or tell.
    pub(crate) touched: BTreeSet<u64>,
    /// Groups of which a proposal was refused.
    pub(crate) fenced: BTreeSet<u64>,
    /// What a failed write was to write.
    pub(crate) unwritten: Vec<(u64, Ready)>,
    /// What came since, in order.
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) waiting_bytes: usize,
    pub(crate) waiting_bytes_max: usize,
    /// Questions whether groups lead still, that wait for a write.
    pub(crate) confirms: BTreeMap<u64, u64>,
    /// Groups whose membership goes with the next write.
    pub(crate) reconfigured: BTreeSet<u64>,
    /// `Behind`, to be told once it is written what the members are where the rows come from.
    pub(crate) offered: Vec<(u64, Event)>,
    /// Entries up to these indices go with the next write.
    pub(crate) compactions: BTreeMap<u64, u64>,
    /// Why the last write failed; what it was to write is kept. `Unsynced` stays.
    pub(crate) stalled: Option<Error>,
    /// Bytes written since files were last given back.
    pub(crate) written_bytes: u64,
    /// Messages to peers, by group.
    pub(crate) outbox: Vec<(u64, Message)>,
    /// What all replicas of a group have, for those that follow: node, group, index.
    pub(crate) notes: Vec<(u64, u64, u64)>,
    /// What is to be told with the next poll.
    pub(crate) news: Vec<(u64, Event)>,
    pub(crate) logger: slog::Logger,
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
            reconfigured: BTreeSet::new(),
            offered: Vec::new(),
            compactions: BTreeMap::new(),
            confirms: BTreeMap::new(),
            stalled: None,
            written_bytes: 0,
            outbox: Vec::new(),
            notes: Vec::new(),
            news: Vec::new(),
            logger: slog::Logger::root(slog::Discard, o!()),
        })
    }

    /// Whether the log has entries of a group, open or not.
    #[must_use]
    pub fn has_entries(&self, group: u64) -> bool {
        self.engine.last_index(group).is_some()
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
    /// be the same, in the same order, on all of them, for ever. A node that is none of them waits
    /// until the leader makes it a member. The next polls tell every committed entry after
    /// `rows.applied`. Writes only if the rows were made of a snapshot that the log does not
    /// know of: a crash came between.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the log does not fit the rows.
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

    /// Appends a proposal to its group's log, in memory.
    pub(crate) fn append(&mut self, proposal: Proposal) -> Result<()> {
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

    /// Bytes of the entries in memory, of all groups, roughly.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.groups.values().map(|group| group.raw.store().bytes()).sum()
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

    /// Why the last write failed, until one succeeds. [`Error::Unsynced`] stays for good.
    #[must_use]
    pub fn stalled(&self) -> Option<&Error> {
        self.stalled.as_ref()
    }
}
