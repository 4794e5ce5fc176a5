//! One Raft group: raft-rs's state machine over the entries that are not compacted yet.

use std::collections::{BTreeMap, VecDeque};

use protobuf::Message as _;
use raft::{
    GetEntriesContext, ProgressState, RaftState, RawNode, SnapshotStatus, StateRole, Storage,
    StorageError,
    eraftpb::{ConfState, Entry, HardState, Message, MessageType, Snapshot},
};
use raft_engine::{Command, Engine, LogBatch, MessageExt, env::FileSystem};

use crate::{
    Error, Result,
    members::{self, Members, Trace},
    node::PROPOSAL_OVERHEAD,
};

/// Key of the hard state beside a group's entries.
pub(crate) const HARD_STATE: &[u8] = b"hard-state";
/// Key of the group's membership; without any members where the replica was removed.
pub(crate) const CONF_STATE: &[u8] = b"conf-state";
/// Key of the index of the entry that made it so; not there for the founders'.
const CONF_INDEX: &[u8] = b"conf-index";
/// Key of the index up to which a replica that was removed must have all entries again, before it
/// counts.
const FLOOR: &[u8] = b"floor";
/// Keys of the membership that goes with rows which are being fetched, and their index.
const OFFERED_STATE: &[u8] = b"offered-state";
const OFFERED_INDEX: &[u8] = b"offered-index";

/// How raft-engine reads our entries.
pub(crate) struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;
    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// What raft-rs reads: all entries since the last compaction are in memory, bounded by the
/// shard's checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Log {
    hard_state: HardState,
    conf_state: ConfState,
    /// Index of the entry that made the membership what it is; 0 for the founders'.
    conf_index: u64,
    /// Index and term of the last compacted entry.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    /// Bytes of the entries, roughly.
    bytes: usize,
    /// Where a replica that was removed counts again; see [`Group::may_vote`].
    floor: u64,
    /// Index of the last entry that was told: what the rows have, or will in a moment.
    told: u64,
}

/// What an entry costs in memory, roughly.
fn cost(entry: &Entry) -> usize {
    entry.data.len() + PROPOSAL_OVERHEAD
}

impl Log {
    pub(crate) fn last(&self) -> u64 {
        self.entries.back().map_or(self.before.0, |e| e.index)
    }

    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            // A new leader's entries take the place of what it never committed.
            while self.entries.back().is_some_and(|e| e.index >= first.index) {
                if let Some(entry) = self.entries.pop_back() {
                    self.bytes -= cost(&entry);
                }
            }
        }
        self.bytes += entries.iter().map(cost).sum::<usize>();
        self.entries.extend(entries);
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    /// Forgets entries up to `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        while self.entries.front().is_some_and(|e| e.index <= index) {
            if let Some(e) = self.entries.pop_front() {
                self.bytes -= cost(&e);
                self.before = (e.index, e.term);
            }
        }
    }

    /// The first index at which no more than `bytes` of entries would be left behind it.
    fn index_with(&self, bytes: usize) -> u64 {
        let (mut left, mut index) = (self.bytes, self.before.0);
        for entry in &self.entries {
            if left <= bytes {
                break;
            }
            left -= cost(entry);
            index = entry.index;
        }
        index
    }

    /// Bytes of the entries in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn set_told(&mut self, index: u64) {
        self.told = index;
    }

    /// The membership, as of the entry at `index`.
    pub(crate) fn set_members(&mut self, conf_state: ConfState, index: u64) {
        self.conf_state = conf_state;
        self.conf_index = index;
    }

    pub(crate) fn conf_index(&self) -> u64 {
        self.conf_index
    }

    /// Entries after `from`, up to `to`, that are here.
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |e| from < e.index && e.index <= to)
    }

    /// Has nothing but what a snapshot at `index` and `term` stands for.
    pub(crate) fn restore(&mut self, index: u64, term: u64, conf_state: ConfState) {
        self.set_members(conf_state, index);
        self.entries.clear();
        self.bytes = 0;
        self.before = (index, term);
        self.told = index;
        self.hard_state.commit = self.hard_state.commit.max(index);
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        let n = index.checked_sub(self.before.0 + 1)?;
        self.entries.get(usize::try_from(n).ok()?)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0u64;
        let mut found = Vec::new();
        for entry in (low..high).filter_map(|i| self.at(i)) {
            if max < u64::MAX {
                size = size.saturating_add(u64::from(entry.compute_size()));
                if !found.is_empty() && size > max {
                    break;
                }
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index < self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        self.at(index).map(|e| e.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// A ticket: the rows themselves are fetched by the replica that gets it.
    fn snapshot(&self, at_least: u64, _: u64) -> raft::Result<Snapshot> {
        // The members may have been written before the rows were.
        if self.told < at_least.max(self.conf_index).max(1) {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.told;
        meta.term = self.term(self.told)?;
        meta.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}

/// Ticks without word of a leader until a replica stands for election; each replica of a group
/// waits [`ELECTION_STEP`] longer than the one before it.
pub(crate) const ELECTION_TICKS: usize = 10;
/// Fixed and apart rather than drawn: no two founders stand at once, and a simulation replays.
const ELECTION_STEP: usize = 3;
/// Places between and after those of the founders, for members that came later. Where two of them
/// have the same, their clocks drift apart in time.
const ELECTION_PLACES: [usize; 6] = [1, 2, 4, 5, 7, 8];
/// Ticks between a leader's signs of life.
const HEARTBEAT_TICKS: usize = 3;

/// Ticks after which a replica that fetches rows, and gives no sign of it, is offered them anew.
const FETCH_TICKS: usize = 50;

/// Ticks beyond [`ELECTION_TICKS`] that a replica waits.
fn election_place(group: u64, node: u64, founders: &[u64]) -> usize {
    let place = founders.iter().position(|founder| *founder == node);
    let mixed = (group ^ node.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32;
    let later = ELECTION_PLACES[usize::try_from(mixed).unwrap_or(0) % ELECTION_PLACES.len()];
    place.map_or(later, |place| place * ELECTION_STEP)
}

/// A group of this node.
pub(crate) struct Group {
    pub(crate) raw: RawNode<Log>,
    /// The members as they are to be; the leader sees to it.
    pub(crate) wanted: Option<Members>,
    /// Why nothing of the group can be believed any more: a peer's message contradicts what is
    /// here, which raft-rs answers with a panic.
    pub(crate) broken: Option<String>,
    /// The term for which `Leader` was told last; 0 if leadership was lost since.
    pub(crate) told_term: u64,
    /// Index of the last entry that was told, or that the rows had from the start.
    pub(crate) told_index: u64,
    /// It hears and says nothing: it is about to be removed.
    pub(crate) is_silent: bool,
    /// A proposal was refused: so are all others, until `Leader` is told again.
    pub(crate) is_fenced: bool,
    /// The node that `Follows` told last; 0 for none.
    pub(crate) told_leader: u64,
    /// What the leader said that every replica has.
    pub(crate) told_shared: u64,
    /// Ticks since the group was opened, up to [`ELECTION_TICKS`].
    pub(crate) age: usize,
    /// Whether it was there before it was opened.
    pub(crate) is_old: bool,
    /// What this replica's rows are made of now, as `Behind` told.
    pub(crate) behind: Option<Snapshot>,
    /// Replicas that fetch rows: as of which index, and ticks since they gave a sign of it.
    pub(crate) fetching: BTreeMap<u64, (u64, usize)>,
    /// The log has nothing of the group yet: its membership goes along with its first write.
    pub(crate) is_new: bool,
}

impl Group {
    /// Opens a group from the log, as replica `node`. `applied` is the index that its rows have;
    /// `founders` are its voters if the log has nothing of it.
    pub(crate) fn open<F: FileSystem>(
        id: u64,
        node: u64,
        founders: &[u64],
        rows: Rows,
        engine: &Engine<F>,
        logger: &slog::Logger,
    ) -> Result<Group> {
        let open = || Self::open_unguarded(id, node, founders, rows, engine, logger);
        // raft-engine keeps the block that a thread read last, under its place in its file alone:
        // where the logs of several nodes are in one process it would give another's. A thread of
        // its own has none. Also, it slices by lengths that it reads, and raft-rs asserts what it
        // is given.
        let no_thread = |e: std::io::Error| Error::Io(format!("no thread to read the log: {e}"));
        std::thread::scope(|scope| {
            let reader =
                std::thread::Builder::new().spawn_scoped(scope, open).map_err(no_thread)?;
            Ok::<_, Error>(reader.join())
        })?
        .unwrap_or_else(|_| {
            Err(Error::Corrupt(format!("group {id}: its entries are not what was written")))
        })
        .map_err(|e| match e {
            Error::Corrupt(what) if !what.starts_with("group ") => {
                Error::Corrupt(format!("group {id}: {what}"))
            }
            other => other,
        })
    }

    fn open_unguarded<F: FileSystem>(
        id: u64,
        node: u64,
        founders: &[u64],
        rows: Rows,
        engine: &Engine<F>,
        logger: &slog::Logger,
    ) -> Result<Group> {
        let applied = rows.applied;
        let founders = ConfState { voters: founders.to_vec(), ..ConfState::default() };
        let (log, is_new) = read(id, &founders, rows, engine)?;
        let is_alone = log.conf_state.voters == [node];
        let election_tick = ELECTION_TICKS + election_place(id, node, &founders.voters);
        let config = raft::Config {
            id: node,
            election_tick: ELECTION_TICKS,
            min_election_tick: election_tick,
            max_election_tick: election_tick + 1,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            ..raft::Config::default()
        };
        let mut log = log;
        log.set_told(applied);
        let mut raw = RawNode::new(&config, log, logger)?;
        // What the rows have is told no more, but the membership may not have been written since.
        let store = raw.store();
        let unwritten: Vec<Entry> = store.between(store.conf_index, applied).cloned().collect();
        for entry in unwritten {
            members::apply(&mut raw, &entry)?;
        }
        if is_alone {
            // The only voter need not wait for an election.
            raw.campaign()?;
        }
        let (told_term, broken) = (0, None);
        Ok(Group {
            raw,
            wanted: None,
            broken,
            told_term,
            told_index: applied,
            told_leader: 0,
            told_shared: 0,
            age: 0,
            is_old: !is_new,
            behind: None,
            fetching: BTreeMap::new(),
            is_silent: false,
            is_fenced: false,
            is_new,
        })
    }

    /// How far the log may let go, of what the rows have up to `index`: what every replica is
    /// known to have; more if `bytes_max` of entries are kept for those that lag, which then fetch
    /// rows; but nothing that one that does so needs after that.
    pub(crate) fn compact_index(&self, index: u64, bytes_max: usize) -> u64 {
        let kept = self.shared_index().max(self.raw.store().index_with(bytes_max));
        let fetched = self.fetching.values().map(|(at, _)| *at).min().unwrap_or(u64::MAX);
        index.min(kept).min(fetched)
    }

    /// The last entry that every replica is known to have.
    pub(crate) fn shared_index(&self) -> u64 {
        if !self.has_peers() {
            return u64::MAX;
        }
        if self.raw.raft.state != StateRole::Leader {
            return self.told_shared;
        }
        self.raw.raft.prs().iter().map(|(_, progress)| progress.matched).min().unwrap_or(0)
    }

    /// Notes which replicas are offered rows: what comes after them is kept.
    pub(crate) fn note_fetching(&mut self, messages: &[Message]) {
        for message in messages.iter().filter(|m| m.get_msg_type() == MessageType::MsgSnapshot) {
            let index = message.get_snapshot().get_metadata().index;
            self.fetching.insert(message.to, (index, 0));
        }
    }

    /// Counts time for those that fetch rows. Who has them is forgotten; who gives no sign is
    /// offered them anew.
    pub(crate) fn expire_fetching(&mut self) {
        let leads = self.raw.raft.state == StateRole::Leader;
        let mut late = Vec::new();
        let prs = self.raw.raft.prs();
        self.fetching.retain(|node, (_, age)| {
            *age += 1;
            let fetches =
                prs.get(*node).is_some_and(|progress| progress.state == ProgressState::Snapshot);
            if leads && fetches && *age > FETCH_TICKS {
                late.push(*node);
            }
            leads && fetches && *age <= FETCH_TICKS
        });
        for node in late {
            self.raw.report_snapshot(node, SnapshotStatus::Failure);
        }
    }

    /// What this replica says to the leader once its rows are another's.
    pub(crate) fn has_restored(&self) -> Option<Message> {
        let raft = &self.raw.raft;
        let mut message = Message { from: raft.id, to: raft.leader_id, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppendResponse);
        message.term = raft.term;
        message.index = raft.raft_log.last_index();
        message.commit = raft.raft_log.committed;
        (raft.leader_id != raft::INVALID_ID).then_some(message)
    }

    /// Whether votes are asked for in vain: the replica may have acknowledged a leader right
    /// before it crashed, who counts on that for as long as an election takes at least.
    pub(crate) fn withholds_votes(&self) -> bool {
        self.is_old && self.age < ELECTION_TICKS || !self.may_vote()
    }

    /// Whether the replica has what it lost when it was removed, if it was. It begins again with
    /// the founders as members, of whom it may be one: two of them that knew nothing of what was
    /// committed since could elect each other.
    pub(crate) fn may_vote(&self) -> bool {
        self.raw.store().last() >= self.raw.store().floor
    }

    /// Whether it may lead: it must know of the members, too, as they were when it was removed.
    pub(crate) fn may_stand(&self) -> bool {
        self.told_index >= self.raw.store().floor
    }

    /// Whether this replica leads and was told so, and may take calls.
    pub(crate) fn leads(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Leader && self.told_term == raft.term
    }

    /// Whether there are other replicas, whose silence matters.
    pub(crate) fn has_peers(&self) -> bool {
        self.raw.raft.prs().iter().count() > 1
    }
}

/// Where a replica's rows stand when it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Index up to which they have what was committed.
    pub applied: u64,
    /// Index and term of the snapshot that they were last made of, if they were.
    pub restored: Option<(u64, u64)>,
}

/// Whether the rows were made of a snapshot, and the log does not know it yet: then the log begins
/// anew there.
fn lacks_restored<F: FileSystem>(id: u64, rows: Rows, engine: &Engine<F>) -> Result<bool> {
    let Some((index, term)) = rows.restored.filter(|(index, _)| *index == rows.applied) else {
        return Ok(false);
    };
    match (engine.first_index(id), engine.last_index(id)) {
        (Some(first), Some(last)) if first <= index && index <= last => {
            let mut entries: Vec<Entry> = Vec::new();
            engine.fetch_entries_to::<Entries>(id, index, index + 1, None, &mut entries)?;
            Ok(entries.first().is_none_or(|e| e.term != term))
        }
        (Some(first), Some(_)) => Ok(first <= index),
        _ => Ok(true),
    }
}

/// Writes that the log begins anew after `index`: one entry stands for all before.
pub(crate) fn begin_anew(
    batch: &mut LogBatch,
    id: u64,
    at: (u64, u64),
    hard_state: &HardState,
    conf_state: &ConfState,
) -> Result<()> {
    let entry = Entry { index: at.0, term: at.1, ..Entry::default() };
    batch.add_command(id, Command::Clean);
    batch.add_entries::<Entries>(id, &[entry])?;
    batch.put_message(id, HARD_STATE.to_vec(), hard_state)?;
    put_members(batch, id, conf_state, at.0)
}

/// Writes the membership, as of the entry at `index`.
pub(crate) fn put_members(
    batch: &mut LogBatch,
    id: u64,
    conf_state: &ConfState,
    index: u64,
) -> Result<()> {
    batch.put_message(id, CONF_STATE.to_vec(), conf_state)?;
    if index > 0 {
        batch.put(id, CONF_INDEX.to_vec(), index.to_le_bytes().to_vec())?;
    }
    Ok(())
}

/// Writes what the members are where rows come from that are about to be fetched.
pub(crate) fn put_offered(batch: &mut LogBatch, id: u64, snapshot: &Snapshot) -> Result<()> {
    let meta = snapshot.get_metadata();
    batch.put_message(id, OFFERED_STATE.to_vec(), meta.get_conf_state())?;
    batch.put(id, OFFERED_INDEX.to_vec(), meta.index.to_le_bytes().to_vec())?;
    Ok(())
}

/// Writes that the replica is gone. How it voted stays: it may come back, and must not vote
/// otherwise in the same term. So does `floor`; see [`Group::may_vote`].
pub(crate) fn put_removed(
    batch: &mut LogBatch,
    id: u64,
    hard_state: &HardState,
    floor: u64,
) -> Result<()> {
    let hard_state = HardState { commit: 0, ..hard_state.clone() };
    batch.add_command(id, Command::Clean);
    batch.put_message(id, HARD_STATE.to_vec(), &hard_state)?;
    batch.put_message(id, CONF_STATE.to_vec(), &ConfState::default())?;
    batch.put(id, FLOOR.to_vec(), floor.to_le_bytes().to_vec())?;
    Ok(())
}

/// What the log has of a group.
pub(crate) fn trace<F: FileSystem>(id: u64, engine: &Engine<F>) -> Result<Trace> {
    let conf_state: Option<ConfState> = engine.get_message(id, CONF_STATE)?;
    Ok(match conf_state {
        None => Trace::Nothing,
        Some(conf) if conf.voters.is_empty() && conf.learners.is_empty() => Trace::Removed,
        Some(_) => Trace::Replica,
    })
}

fn read_index<F: FileSystem>(id: u64, key: &[u8], engine: &Engine<F>) -> Result<Option<u64>> {
    let Some(raw) = engine.get(id, key) else { return Ok(None) };
    let raw: [u8; 8] = raw
        .try_into()
        .map_err(|_| Error::Corrupt("the index of its membership does not read".into()))?;
    Ok(Some(u64::from_le_bytes(raw)))
}

fn read<F: FileSystem>(
    id: u64,
    founders: &ConfState,
    rows: Rows,
    engine: &Engine<F>,
) -> Result<(Log, bool)> {
    let applied = rows.applied;
    if let Some((index, term)) = rows.restored.filter(|_| applied > 0)
        && lacks_restored(id, rows, engine)?
    {
        let mut hard_state: HardState = engine.get_message(id, HARD_STATE)?.unwrap_or_default();
        let offered = read_index(id, OFFERED_INDEX, engine)?.filter(|at| *at == index);
        let key = if offered.is_some() { OFFERED_STATE } else { CONF_STATE };
        let conf_state = engine.get_message(id, key)?.unwrap_or_else(|| founders.clone());
        hard_state.term = hard_state.term.max(term);
        hard_state.commit = index;
        let mut batch = LogBatch::default();
        begin_anew(&mut batch, id, (index, term), &hard_state, &conf_state)?;
        engine.write(&mut batch, true)?;
        let before = (index, term);
        let conf_index = index;
        return Ok((Log { hard_state, conf_state, conf_index, before, ..Log::default() }, false));
    }
    let corrupt = |what: String| Error::Corrupt(format!("group {id}: {what}"));
    let floor = read_index(id, FLOOR, engine)?.unwrap_or(0);
    let hard_state: Option<HardState> = engine.get_message(id, HARD_STATE)?;
    let conf_state: Option<ConfState> = engine.get_message(id, CONF_STATE)?;
    let (Some(first), Some(last)) = (engine.first_index(id), engine.last_index(id)) else {
        if applied > 0 {
            return Err(corrupt(format!(
                "it has no entries, but rows that were applied up to entry {applied}; the log \
                 directory does not belong to this database"
            )));
        }
        let Some(conf_state) = conf_state else {
            if hard_state.is_some() {
                return Err(corrupt("its membership is missing".into()));
            }
            return Ok((Log { conf_state: founders.clone(), ..Log::default() }, true));
        };
        let hard_state = hard_state.unwrap_or_default();
        if trace(id, engine)? == Trace::Removed {
            let conf_state = founders.clone();
            return Ok((Log { hard_state, conf_state, floor, ..Log::default() }, true));
        }
        // With a single voter they are written together with the first entry; one of several
        // votes before it has any.
        if conf_state.voters.len() == 1 || hard_state.commit > 0 {
            return Err(corrupt("its entries are missing".into()));
        }
        return Ok((Log { hard_state, conf_state, floor, ..Log::default() }, false));
    };
    let conf_state = conf_state.ok_or_else(|| corrupt("its membership is missing".into()))?;
    let mut hard_state = hard_state.ok_or_else(|| corrupt("its term is missing".into()))?;
    if applied > last {
        return Err(corrupt(format!(
            "its last entry is {last}, but rows were applied up to entry {applied}; the log lost \
             what the database has"
        )));
    }
    if hard_state.commit > last {
        return Err(corrupt(format!(
            "its last entry is {last}, but entries up to {} were committed",
            hard_state.commit
        )));
    }
    if first > applied + 1 {
        return Err(corrupt(format!(
            "its first entry is {first}, but rows were applied up to entry {applied} only; the \
             database lost what the log let go"
        )));
    }
    let mut entries: Vec<Entry> = Vec::new();
    engine.fetch_entries_to::<Entries>(id, first, last + 1, None, &mut entries)?;
    let mut entries: VecDeque<Entry> = entries.into();
    let is_contiguous = entries.iter().zip(first..).all(|(e, i)| e.index == i);
    if !is_contiguous || entries.back().is_none_or(|e| e.index != last) {
        return Err(corrupt("its entries have a gap".into()));
    }
    let terms = || entries.iter().map(|e| e.term);
    if terms().zip(terms().skip(1)).any(|(a, b)| a > b)
        || terms().next_back().is_none_or(|term| term > hard_state.term)
    {
        return Err(corrupt("its terms run backwards".into()));
    }
    let mut before = (0, 0);
    if first > 1 {
        // The first entry left stands for all that were compacted.
        before = entries.pop_front().map_or(before, |e| (e.index, e.term));
    }
    // What was applied was committed, even if that was not written down yet.
    hard_state.commit = hard_state.commit.max(applied).max(before.0);
    let bytes = entries.iter().map(cost).sum();
    let conf_index = read_index(id, CONF_INDEX, engine)?.unwrap_or(0);
    let told = applied;
    let log = Log { hard_state, conf_state, conf_index, floor, before, entries, bytes, told };
    Ok((log, false))
}
