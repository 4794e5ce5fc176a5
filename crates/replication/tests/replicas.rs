//! Groups of three replicas, whose members change among five nodes, under a network that loses,
//! doubles, delays and reorders messages, with crashes that lose what was not synced, partitions and
//! full disks.
//!
//! Held to: an index holds the same entry on every replica that tells it, before and after
//! restarts; a term has one leader; what a proposer was told is there once, at the end; and once
//! the faults stop, a leader emerges and all replicas get everything.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use common::Disk;
use everspan_replication::{Config, Error, Event, Members, Node, Rows, Trace, faulty::FaultyFs};
use raft::eraftpb::Message;

const GROUP: u64 = 7;
const REPLICAS: [u64; 3] = [1, 2, 3];
/// All nodes, where members change.
const NODES: [u64; 5] = [1, 2, 3, 4, 5];
const ENOSPC: i32 = 28;
/// Ticks in which a healed group must have a leader, and all replicas everything.
const PATIENCE: u64 = 400;

/// Ticks that a message travels at most.
const DELAY_MAX: u64 = 12;

/// Numbers for one seed (Steele, Lea and Flood's SplitMix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Replica {
    id: u64,
    disk: Disk,
    node: Option<Node<FaultyFs>>,
    /// Index up to which its rows are in its store, which survives.
    applied: u64,
    /// The snapshot that they were last made of.
    restored: Option<(u64, u64)>,
    /// What its rows are to be made of, and whether they are, in the store.
    behind: Option<(u64, u64, bool)>,
    /// Index of the entry told last.
    told: u64,
    leads: Option<u64>,
    /// The question under way whether it leads, and the highest term that anyone led in then.
    asked: Option<(u64, u64)>,
    /// Proposed while leading, not yet told.
    pending: BTreeMap<u64, Bytes>,
    /// Tick at which a crashed one comes back.
    returns_at: u64,
    /// Since when it is about to be removed.
    silent_since: Option<u64>,
}

struct World {
    rng: Rng,
    /// Nodes that are to have a replica; others may, for a while.
    members: Members,
    changes: u64,
    removals: u64,
    now: u64,
    replicas: Vec<Replica>,
    /// Messages on their way, and the tick at which each arrives.
    network: Vec<(u64, u64, Message)>,
    /// Links, from one to another, that carry nothing until a tick.
    cut: BTreeMap<(u64, u64), u64>,
    /// What was told of each index, by anyone.
    log: BTreeMap<u64, (u64, Bytes)>,
    leaders: BTreeMap<u64, u64>,
    /// Proposals that their proposer was told of.
    acknowledged: BTreeSet<Bytes>,
    proposed: u64,
    are_faults_on: bool,
    crashes: u64,
    elections: u64,
    copies: u64,
    /// Questions whether a replica leads.
    confirmed: u64,
}

type Found = Result<(), String>;

impl World {
    fn new(seed: u64) -> Self {
        Self::of(seed, &REPLICAS)
    }

    fn of(seed: u64, nodes: &[u64]) -> Self {
        let replica = |id| Replica {
            id,
            disk: Disk::new(),
            node: None,
            applied: 0,
            told: 0,
            leads: None,
            asked: None,
            restored: None,
            behind: None,
            pending: BTreeMap::new(),
            returns_at: 0,
            silent_since: None,
        };
        Self {
            rng: Rng(seed),
            now: 0,
            members: Members { voters: REPLICAS.into(), ..Members::default() },
            changes: 0,
            removals: 0,
            replicas: nodes.iter().copied().map(replica).collect(),
            network: Vec::new(),
            cut: BTreeMap::new(),
            log: BTreeMap::new(),
            leaders: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            proposed: 0,
            are_faults_on: true,
            crashes: 0,
            elections: 0,
            copies: 0,
            confirmed: 0,
        }
    }

    fn run(&mut self, ticks: u64) -> Found {
        for _ in 0..ticks {
            self.tick()?;
        }
        self.are_faults_on = false;
        self.cut.clear();
        for replica in &self.replicas {
            replica.disk.fs.fail_writes(None);
        }
        let last = self.proposed;
        let until = self.now + PATIENCE;
        loop {
            self.tick()?;
            let newest = self.log.keys().next_back().copied().unwrap_or(0);
            let is_all = self.replicas.iter().all(|r| {
                !self.members.voters.contains(&r.id) || r.node.is_some() && r.told == newest
            });
            if is_all && self.proposed > last && self.pending() == 0 && self.is_settled() {
                break;
            }
            if self.now > until {
                let told: Vec<u64> = self.replicas.iter().map(|r| r.told).collect();
                return Err(format!("after the faults: told {told:?} of {newest}"));
            }
        }
        let mut seen = BTreeMap::new();
        for (_, data) in self.log.values().filter(|(_, data)| !data.is_empty()) {
            *seen.entry(data.clone()).or_insert(0) += 1;
        }
        if let Some((data, times)) = seen.iter().find(|(_, times)| **times > 1) {
            return Err(format!("{data:?} is there {times} times"));
        }
        match self.acknowledged.iter().find(|data| !seen.contains_key(*data)) {
            Some(lost) => Err(format!("{lost:?} was acknowledged and is not there")),
            None => Ok(()),
        }
    }

    /// Whether the members are as they are to be, as their leader sees it.
    fn is_settled(&self) -> bool {
        self.settled_at().is_some()
    }

    /// What is committed, as a leader sees it whose members are as they are to be.
    fn settled_at(&self) -> Option<u64> {
        let nodes = self.replicas.iter().filter_map(|r| r.node.as_ref());
        let standings = nodes.flat_map(Node::standings).filter(|s| s.group == GROUP);
        let settled = standings.filter(|s| s.is_settled && s.voters == self.members.voters);
        settled.map(|s| s.committed).max()
    }

    /// Wants other members, now and then, and removes what was left behind by earlier ones.
    fn change_members(&mut self) {
        if self.replicas.len() == 3 {
            return;
        }
        if self.are_faults_on && self.is_settled() && self.rng.one_in(20) {
            let mut all = NODES.to_vec();
            while all.len() > 3 {
                all.swap_remove(self.rng.below(all.len() as u64) as usize);
            }
            let learner = NODES.into_iter().find(|node| !all.contains(node));
            self.members.voters = all.into_iter().collect();
            self.members.learners = learner.filter(|_| self.rng.one_in(2)).into_iter().collect();
            self.changes += 1;
        }
        let settled = self.settled_at();
        for replica in &mut self.replicas {
            let Some(node) = &mut replica.node else { continue };
            // Each hears of it in its own time.
            if self.rng.one_in(3) {
                node.set_members(GROUP, self.members.clone());
            }
            let is_member = self.members.voters.contains(&replica.id)
                || self.members.learners.contains(&replica.id);
            let is_here = node.standings().iter().any(|s| s.group == GROUP);
            if !is_here && is_member {
                assert_eq!(node.trace(GROUP).unwrap(), Trace::Removed);
                node.add_replica(GROUP, Rows::default(), &REPLICAS).unwrap();
            }
            let Some(committed) = settled.filter(|_| !is_member && replica.leads.is_none()) else {
                node.silence(GROUP, false);
                replica.silent_since = None;
                continue;
            };
            node.silence(GROUP, true);
            let since = *replica.silent_since.get_or_insert(self.now);
            let is_quiet = self.now > since + DELAY_MAX;
            if is_here && is_quiet && node.remove_replica(GROUP, committed).is_ok() {
                (replica.applied, replica.told) = (0, 0);
                (replica.restored, replica.behind) = (None, None);
                self.removals += 1;
            }
        }
    }

    fn pending(&self) -> usize {
        self.replicas.iter().map(|r| r.pending.len()).sum()
    }

    fn tick(&mut self) -> Found {
        self.now += 1;
        for place in 0..self.replicas.len() {
            if self.replicas[place].node.is_none() && self.replicas[place].returns_at <= self.now {
                self.open(place)?;
            }
        }
        if self.are_faults_on {
            self.break_something();
        }
        self.change_members();
        self.deliver()?;
        for place in 0..self.replicas.len() {
            let is_slow = self.are_faults_on && self.rng.one_in(20);
            let replica = &mut self.replicas[place];
            if let Some(node) = replica.node.as_mut().filter(|_| !is_slow) {
                node.tick();
            }
            self.work(place)?;
        }
        Ok(())
    }

    fn break_something(&mut self) {
        let (now, place) = (self.now, self.rng.below(self.replicas.len() as u64) as usize);
        match self.rng.below(60) {
            0 => {
                let seed = self.rng.next();
                let replica = &mut self.replicas[place];
                if replica.node.take().is_some() {
                    replica.disk.fs.crash(seed);
                    replica.leads = None;
                    replica.asked = None;
                    replica.behind = None;
                    replica.silent_since = None;
                    replica.pending.clear();
                    replica.returns_at = now + 1 + self.rng.below(40);
                    self.crashes += 1;
                }
            }
            // Cut off from both others, or in one direction from one of them.
            1 => {
                let (id, until) = (NODES[place], now + 5 + self.rng.below(60));
                for other in NODES.into_iter().filter(|o| *o != id) {
                    self.cut.insert((id, other), until);
                    self.cut.insert((other, id), until);
                }
            }
            2 => {
                let count = self.replicas.len();
                let to = NODES[(place + 1 + self.rng.below(count as u64 - 1) as usize) % count];
                self.cut.insert((NODES[place], to), now + 5 + self.rng.below(60));
            }
            3 => self.replicas[place].disk.fs.fail_writes(Some(ENOSPC)),
            4..=6 => self.replicas[place].disk.fs.fail_writes(None),
            _ => {}
        }
    }

    /// Opens a replica from its disk and its store.
    fn open(&mut self, place: usize) -> Found {
        let replica = &mut self.replicas[place];
        replica.disk.fs.fail_writes(None);
        let lag_bytes_max = 3_000;
        let config = Config { node_id: replica.id, lag_bytes_max, ..replica.disk.config() };
        let rows = Rows { applied: replica.applied, restored: replica.restored };
        let opened = Node::open_with(&config, replica.disk.fs.clone()).and_then(|mut node| {
            let is_removed = node.trace(GROUP)? == Trace::Removed;
            assert!(!is_removed || rows.applied == 0);
            node.add_replica(GROUP, rows, &REPLICAS)?;
            Ok(node)
        });
        replica.told = replica.applied;
        let node = opened.map_err(|e| format!("{} does not open: {e}", replica.id))?;
        replica.node = Some(node);
        Ok(())
    }

    fn deliver(&mut self) -> Found {
        let now = self.now;
        self.cut.retain(|_, until| *until > now);
        let mut due = Vec::new();
        self.network.retain(|(at, _, message)| {
            let is_due = *at <= now;
            if is_due {
                due.push(message.clone());
            }
            !is_due
        });
        while !due.is_empty() {
            let next = self.rng.below(due.len() as u64) as usize;
            let message = due.swap_remove(next);
            let place = NODES.iter().position(|id| *id == message.to).unwrap();
            let Some(node) = &mut self.replicas[place].node else { continue };
            // Other errors are of what Raft has no use for any more.
            if let Err(error @ Error::Corrupt(_)) = node.receive(GROUP, message) {
                return Err(error.to_string());
            }
            if self.rng.one_in(3) {
                self.work(place)?;
            }
        }
        Ok(())
    }

    /// Proposes at a leader, writes, and takes what comes of it.
    fn work(&mut self, place: usize) -> Found {
        let wants = self.rng.one_in(4) && (self.are_faults_on || self.rng.one_in(10));
        let count = self.replicas.len() as u64;
        let replica = &mut self.replicas[place];
        let Some(node) = &mut replica.node else { return Ok(()) };
        if let Some(term) = replica.leads.filter(|_| wants) {
            self.proposed += 1;
            let (seq, data) = (self.proposed, Bytes::from(format!("proposal {}", self.proposed)));
            if node.propose_in(GROUP, term, seq, data.clone()).is_ok() {
                replica.pending.insert(seq, data);
            } else {
                replica.pending.clear();
            }
        }
        if let Some(term) = replica.leads.filter(|_| self.rng.one_in(30)) {
            self.confirmed += u64::from(replica.asked.is_none());
            let latest = self.leaders.keys().copied().max().unwrap_or(0);
            assert!(latest >= term);
            replica.asked.get_or_insert((self.now, latest));
            node.confirm(GROUP, self.now);
        }
        if self.are_faults_on && self.rng.one_in(300) {
            let to = self.rng.below(count);
            node.transfer(GROUP, NODES[to as usize]);
        }
        // A failed write is tried again with the next turn.
        let told = node.poll().unwrap_or_default();
        let messages = node.take_messages();
        for (to, group, index) in node.take_notes() {
            let is_lost = self.rng.one_in(4);
            let other = self.replicas.iter_mut().find(|r| r.id == to).unwrap();
            if let Some(node) = other.node.as_mut().filter(|_| !is_lost) {
                node.receive_note(group, index);
            }
        }
        for (group, event) in told {
            assert_eq!(group, GROUP);
            self.hear(place, event)?;
        }
        for (_, message) in messages {
            self.send(message);
        }
        let writes = self.rng.one_in(15);
        let (fetches, signs) = (self.rng.one_in(8), self.rng.one_in(4));
        let replica = &mut self.replicas[place];
        let id = replica.id;
        if let (Some((index, term, are_written)), Some(node)) =
            (replica.behind, replica.node.as_mut())
        {
            if fetches && !are_written {
                // A crash may come before the log hears of it.
                (replica.applied, replica.restored) = (index, Some((index, term)));
                replica.told = index;
                replica.behind = Some((index, term, true));
                self.copies += 1;
            } else if fetches {
                replica.behind = None;
                node.restored(GROUP, index);
            } else if signs {
                for other in &mut self.replicas {
                    if let Some(node) = &mut other.node {
                        node.receive_fetching(GROUP, id);
                    }
                }
            }
            return Ok(());
        }
        if let Some(node) = replica.node.as_mut().filter(|_| writes) {
            replica.applied = replica.told;
            let compacted = node.compact(GROUP, replica.applied);
            compacted.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn send(&mut self, message: Message) {
        let is_cut = self.cut.contains_key(&(message.from, message.to));
        if is_cut || (self.are_faults_on && self.rng.one_in(12)) {
            return;
        }
        let copies = if self.are_faults_on && self.rng.one_in(15) { 2 } else { 1 };
        for _ in 0..copies {
            let delay =
                if self.rng.one_in(10) { self.rng.below(DELAY_MAX) } else { self.rng.below(2) };
            self.network.push((self.now + delay, message.from, message.clone()));
        }
    }

    fn hear(&mut self, place: usize, event: Event) -> Found {
        let replica = &mut self.replicas[place];
        let id = replica.id;
        match event {
            Event::Leader { term } => {
                replica.leads = Some(term);
                self.elections += 1;
                match self.leaders.insert(term, id) {
                    Some(other) if other != id => {
                        return Err(format!("term {term} has leaders {other} and {id}"));
                    }
                    _ => {}
                }
            }
            Event::Lost => {
                replica.leads = None;
                replica.asked = None;
                replica.pending.clear();
            }
            Event::Refused { .. } => replica.pending.clear(),
            Event::Follows { leader } => {
                if replica.leads.is_some() {
                    return Err(format!("{id} leads and follows {leader}"));
                }
            }
            Event::Behind { index, term, from } => {
                if index <= replica.told || replica.leads.is_some() || from == id {
                    return Err(format!("{id}, at {}, is behind {from}: {index}", replica.told));
                }
                replica.behind = Some((index, term, false));
            }
            Event::Confirmed { token } => {
                if let Some((_, latest)) = replica.asked.take_if(|(asked, _)| token >= *asked)
                    && replica.leads.is_none_or(|term| term < latest)
                {
                    return Err(format!("{id} is told that it leads after term {latest} began"));
                }
            }
            Event::Committed { index, .. }
                if replica.behind.is_some_and(|(at, _, is_written)| is_written && index <= at) => {}
            Event::Committed { index, term, seq, data } => {
                if index != replica.told + 1 {
                    return Err(format!("{id} was told {index} after {}", replica.told));
                }
                replica.told = index;
                let known = self.log.entry(index).or_insert_with(|| (term, data.clone()));
                if *known != (term, data.clone()) {
                    return Err(format!("{id} has {term} {data:?} at {index}, another {known:?}"));
                }
                if let Some(seq) = seq {
                    match replica.pending.remove(&seq) {
                        Some(own) if own == data => {}
                        other => {
                            return Err(format!("{id} was told its {seq} is {data:?}: {other:?}"));
                        }
                    }
                    self.acknowledged.insert(data);
                }
            }
        }
        Ok(())
    }
}

#[test]
fn three_replicas_agree_whatever_happens() {
    let (mut acknowledged, mut crashes, mut elections, mut copies, mut asked) = (0, 0, 0, 0, 0);
    // More of them: EVERSPAN_SEEDS=20000 cargo test --release --test replicas
    let seeds = std::env::var("EVERSPAN_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(150);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        if let Err(found) = world.run(600) {
            panic!("seed {seed}, tick {}: {found}", world.now);
        }
        acknowledged += world.acknowledged.len();
        crashes += world.crashes;
        elections += world.elections;
        copies += world.copies;
        asked += world.confirmed;
    }
    // A run in which nothing happens shows nothing.
    assert!(acknowledged > 3_000, "{acknowledged} acknowledged");
    assert!(crashes > 300, "{crashes} crashes");
    assert!(elections > 450, "{elections} elections");
    assert!(copies > 50, "{copies} copies of rows");
    assert!(asked > 1_000, "{asked} questions");
}

#[test]
fn members_change_whatever_happens() {
    let (mut acknowledged, mut changes, mut removals, mut copies) = (0, 0, 0, 0);
    let seeds = std::env::var("EVERSPAN_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(150);
    for seed in 0..seeds {
        let mut world = World::of(seed, &NODES);
        if let Err(found) = world.run(600) {
            panic!("seed {seed}, tick {}: {found}", world.now);
        }
        acknowledged += world.acknowledged.len();
        changes += world.changes;
        removals += world.removals;
        copies += world.copies;
    }
    assert!(acknowledged > 3_000, "{acknowledged} acknowledged");
    assert!(changes > 300, "{changes} changes of members");
    assert!(removals > 300, "{removals} replicas removed");
    assert!(copies > 50, "{copies} copies of rows");
}

#[test]
fn a_replica_that_does_not_sync_is_found_out() {
    let found = (0..150).find(|seed| {
        let mut world = World::new(*seed);
        for replica in &world.replicas {
            replica.disk.fs.skip_sync(true);
        }
        world.run(600).is_err()
    });
    assert!(found.is_some(), "lost entries were noticed by nobody");
}

#[test]
fn a_majority_goes_on_and_a_minority_does_not() {
    let mut world = World::new(1);
    world.are_faults_on = false;
    while world.acknowledged.len() < 5 {
        world.tick().unwrap();
        assert!(world.now < PATIENCE, "no leader");
    }
    // Both others are gone: nothing is committed, and the leader steps down.
    let leader = world.replicas.iter().position(|r| r.leads.is_some()).unwrap();
    for place in (0..3).filter(|p| *p != leader) {
        let replica = &mut world.replicas[place];
        (replica.node, replica.returns_at) = (None, u64::MAX);
        replica.disk.fs.crash(7);
    }
    world.network.clear();
    let before = world.log.len();
    for _ in 0..PATIENCE {
        world.tick().unwrap();
    }
    assert_eq!(world.log.len(), before);
    assert!(world.replicas[leader].leads.is_none(), "it still believes that it leads");
    // One is back, and that is enough.
    world.replicas[(leader + 1) % 3].returns_at = 0;
    let until = world.now + PATIENCE;
    let acknowledged = world.acknowledged.len();
    while world.acknowledged.len() < acknowledged + 5 {
        world.tick().unwrap();
        assert!(world.now < until, "no majority");
    }
}

#[test]
fn what_is_not_for_this_node_is_refused() {
    let disk = Disk::new();
    let mut node = disk.open();
    node.add_replica(8, Rows::default(), &[2, 3, 4]).unwrap();
    assert_eq!(node.poll().unwrap(), [], "who is no member waits to become one");
    node.add_replica(GROUP, Rows::default(), &REPLICAS).unwrap();
    let told = node.poll().unwrap();
    assert_eq!(told, [], "one of three does not lead by itself");
    assert!(node.has_peers());
    let error = node.propose(GROUP, 1, Bytes::from_static(b"x")).unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    let message = Message { from: 2, to: 3, ..Message::default() };
    assert!(matches!(node.receive(GROUP, message), Err(Error::Raft(_))));
    let message = Message { from: 2, to: 1, ..Message::default() };
    assert!(matches!(node.receive(9, message), Err(Error::Raft(_))));
}
