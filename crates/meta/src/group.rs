//! This node's replica of Raft group 0: the task that applies what is committed and, on the
//! leader, decides on changes, one at a time, since they are rare.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use everspan_peers::{Peers, Topic};
use everspan_replication::{Event, Handle, Members, Rows};
use everspan_storage::{Batch, Copying, Error as StoreError, Page, Store, Table};
use everspan_types::{Error, Result, ShardId, wire};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    change::Change,
    handle::Question,
    members::MemberState,
    state::{Meta, Snapshot},
};

/// The meta group's ID, in the log and in the store.
pub const GROUP: u64 = 0;
/// Bytes of a page of rows, for a replica that lacks them.
const PAGE_BYTES: usize = 512 << 10;
/// How long another node may take for a page.
const PAGE_MAX: Duration = Duration::from_secs(10);
/// Wait before a page that could not be had is asked for again.
const AGAIN: Duration = Duration::from_millis(200);
/// Operations in one write of a checkpoint.
const CHECKPOINT_BATCH: usize = 1_000;

/// Takes the index at which a change is committed.
pub(crate) type Done = oneshot::Sender<Result<u64>>;

pub(crate) enum Input {
    Events(Vec<Event>),
    Change(Change, Done),
    /// A page of rows is wanted, as of this index or later, from this key on.
    Rows(u64, Bytes, oneshot::Sender<Result<Page>>),
    /// A page of rows that was asked for.
    Page(Result<Page>),
    /// Rows that were copied could not be written before.
    EndCopy,
    /// Rows could not be read before.
    Reread,
}

/// Where a replica stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The node that leads; 0 if none is known to.
    pub(crate) leader: u64,
    /// Index up to which the snapshot has what is committed.
    pub(crate) applied: u64,
    /// Whether the cluster has its ID.
    pub(crate) is_founded: bool,
}

pub(crate) struct Group {
    me: u64,
    /// The nodes that founded the cluster.
    founders: Vec<u64>,
    table: Table,
    store: Arc<dyn Store>,
    log: Handle,
    meta: Meta,
    is_system: fn(&str) -> bool,
    snapshot: Arc<ArcSwap<Snapshot>>,
    standing: watch::Sender<Standing>,
    /// The term in which this replica leads, if it does.
    term: Option<u64>,
    /// The term in which it is to lead once its rows can be read.
    term_to_be: Option<u64>,
    /// Whether rows are newer than `meta`, since they could not be read.
    is_stale: bool,
    seq: u64,
    /// The change that is on its way to the log, and the state after it.
    proposed: Option<(Meta, Option<Done>)>,
    waiting: VecDeque<(Change, Option<Done>)>,
    peers: Peers,
    inputs: mpsc::UnboundedSender<Input>,
    /// Another replica's rows on their way here, and whom they are asked of.
    copy: Option<(Copying, u64)>,
    /// Entries up to this index are in the rows, whatever is told of them.
    restored_at: u64,
}

impl Group {
    /// Opens the replica and its rows; from then on the task is driven by what it is sent.
    pub(crate) fn open(
        peers: Peers,
        replicas: &[u64],
        log: Handle,
        store: Arc<dyn Store>,
        inputs: mpsc::UnboundedSender<Input>,
        is_system: fn(&str) -> bool,
    ) -> Result<Self> {
        let internal = |e: String| Error::internal(format!("meta group: {e}"));
        let table = Table::open(ShardId(0), store.clone()).map_err(|e| internal(e.to_string()))?;
        let meta = read(&table)?.map_err(internal)?;
        let events = inputs.clone();
        let sink = Box::new(move |told| {
            // The receiver lives as long as the server.
            let _ = events.send(Input::Events(told));
        });
        let restored = table.restored().map_err(|e| internal(e.to_string()))?;
        let rows = Rows { applied: table.applied(), restored };
        log.register(GROUP, rows, replicas, sink).map_err(|e| internal(e.to_string()))?;
        let snapshot = Arc::new(ArcSwap::from_pointee(meta.snapshot().clone()));
        let (standing, _) = watch::channel(Standing::default());
        let this = Self {
            me: peers.me(),
            founders: replicas.to_vec(),
            table,
            store,
            log,
            meta,
            is_system,
            snapshot,
            standing,
            term: None,
            term_to_be: None,
            is_stale: false,
            seq: 0,
            proposed: None,
            waiting: VecDeque::new(),
            peers,
            inputs,
            copy: None,
            restored_at: 0,
        };
        this.publish();
        Ok(this)
    }

    pub(crate) fn snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        self.snapshot.clone()
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Runs until nobody can send any more.
    pub(crate) async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        while let Some(input) = inputs.recv().await {
            match input {
                Input::Events(events) => orderly(self.events(events)),
                Input::Change(change, done) => self.waiting.push_back((change, Some(done))),
                Input::Rows(index, from, done) => {
                    let _ = done.send(self.page(index, &from));
                }
                Input::Page(page) => orderly(self.take_page(page)),
                Input::EndCopy => orderly(self.end_copy()),
                Input::Reread => orderly(self.reread_if_stale()),
            }
            self.next();
        }
    }

    fn events(&mut self, events: Vec<Event>) -> Result<()> {
        let mut is_changed = false;
        for event in events {
            match event {
                Event::Committed { index, seq: Some(seq), .. } => {
                    self.table.commit(seq, index);
                    if let Some((meta, done)) = self.proposed.take() {
                        self.meta = meta;
                        self.publish();
                        answer(done, Ok(index));
                    }
                    self.checkpoint();
                }
                Event::Committed { index, .. } if index <= self.restored_at => {}
                Event::Committed { index, seq: None, data, .. } => {
                    if let Some((copying, _)) = &mut self.copy {
                        copying.restart();
                    }
                    is_changed = true;
                    self.replay(index, &data)?;
                }
                Event::Leader { term } => {
                    self.term_to_be = Some(term);
                    is_changed = false;
                    self.reread()?;
                }
                Event::Follows { leader } => self.set_leader(leader),
                Event::Behind { index, term, from } => {
                    info!(index, from, "the meta group's rows are copied from there");
                    self.copy = Some((Copying::new(index, term), from));
                    self.fetch(Duration::ZERO);
                }
                Event::Confirmed { .. } => {}
                Event::Refused { reason, .. } => self.lose(&reason),
                Event::Lost => {
                    let reason = self.log.stalled().unwrap_or("its term ended".into());
                    self.lose(&format!("the meta group cannot be written: {reason}"));
                }
            }
        }
        if is_changed {
            self.reread()?;
            self.checkpoint();
        }
        Ok(())
    }

    /// Reads what the rows say, and leads if that is due. Where they cannot be read now, as after a
    /// write that failed, they are read later.
    fn reread(&mut self) -> Result<()> {
        let is_due_later = std::mem::replace(&mut self.is_stale, true);
        match read(&self.table)? {
            Ok(meta) => self.meta = meta,
            Err(reason) => {
                if !is_due_later {
                    warn!(reason, "the meta group's rows cannot be read; it is tried again");
                    self.later(Input::Reread);
                }
                return Ok(());
            }
        }
        self.is_stale = false;
        self.publish();
        if let Some(term) = self.term_to_be.take() {
            info!(term, "meta group leads");
            self.term = Some(term);
            self.set_leader(self.me);
            if self.meta.snapshot().cluster_id.is_nil() {
                self.waiting.push_front((Change::Found(Uuid::new_v4()), None));
            }
        }
        Ok(())
    }

    fn reread_if_stale(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_stale) { self.reread() } else { Ok(()) }
    }

    fn later(&self, input: Input) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep(AGAIN).await;
            let _ = inputs.send(input);
        });
    }

    /// Gives another replica a page.
    fn page(&self, index: u64, from: &Bytes) -> Result<Page> {
        if self.copy.is_some() || self.table.applied() < index {
            return Err(Error::unavailable(format!("the meta group is not at entry {index} here")));
        }
        self.table.page(from, PAGE_BYTES).map_err(|e| Error::internal(e.to_string()))
    }

    /// Asks for the next page of another replica's rows.
    fn fetch(&self, pause: Duration) {
        let Some((copying, from)) = &self.copy else { return };
        self.log.fetching(GROUP, *from);
        let question = wire::to_bytes(&Question::Rows(copying.index(), copying.next().clone()));
        let (peers, inputs, from) = (self.peers.clone(), self.inputs.clone(), *from);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let page = match peers.ask(from, Topic::Meta, question, PAGE_MAX).await {
                Ok(answer) => wire::from_bytes::<Result<Page>>(&answer)
                    .unwrap_or_else(|e| Err(Error::internal(e.to_string()))),
                Err(error) => Err(Error::unavailable(error.to_string())),
            };
            let _ = inputs.send(Input::Page(page));
        });
    }

    /// Takes a page; the last one ends the copy.
    fn take_page(&mut self, page: Result<Page>) -> Result<()> {
        let Some((copying, from)) = &mut self.copy else { return Ok(()) };
        match page {
            Ok(page) => match copying.take(&mut self.table, page) {
                Ok(()) => {}
                Err(StoreError::Io(reason)) => {
                    warn!(reason, "the meta group's rows cannot be read; it is tried again");
                    self.fetch(AGAIN);
                    return Ok(());
                }
                Err(error) => return Err(Error::internal(format!("meta group: {error}"))),
            },
            Err(error) => {
                warn!(from, %error, "the meta group's rows cannot be had");
                // Any other replica that has come so far will do.
                let view = self.peers.view();
                let others: Vec<u64> = view.nodes().filter(|node| *node != self.me).collect();
                let place = others.iter().position(|node| node == from).map_or(0, |n| n + 1);
                if let Some(other) = others.get(place % others.len().max(1)) {
                    *from = *other;
                }
                self.fetch(AGAIN);
                return Ok(());
            }
        }
        if !copying.is_done() {
            self.fetch(Duration::ZERO);
            return Ok(());
        }
        self.end_copy()
    }

    /// Everything is copied: once it is on disk, the log goes on from there.
    fn end_copy(&mut self) -> Result<()> {
        let Some((copying, from)) = self.copy.as_ref().filter(|(c, _)| c.is_done()) else {
            return Ok(());
        };
        self.log.fetching(GROUP, *from);
        self.restored_at = copying.index();
        self.checkpoint();
        if self.table.durable() < self.restored_at {
            warn!("the meta group's rows cannot be written; it is tried again");
            self.later(Input::EndCopy);
            return Ok(());
        }
        self.copy = None;
        self.reread()?;
        self.log.restored(GROUP, self.restored_at);
        info!(index = self.restored_at, "the meta group's rows are copied");
        Ok(())
    }

    /// Nothing is known of the change under way.
    fn lose(&mut self, reason: &str) {
        (self.term, self.term_to_be) = (None, None);
        self.table.discard_staged();
        self.set_leader(0);
        if let Some((_, done)) = self.proposed.take() {
            answer(done, Err(Error::unavailable(reason)));
        }
    }

    fn set_leader(&self, leader: u64) {
        self.standing.send_modify(|standing| standing.leader = leader);
    }

    /// Speaks to the nodes that there are, and has those be members that are to be.
    fn follow_members(&self) {
        if self.peers.is_alone() {
            return;
        }
        let snapshot = self.meta.snapshot();
        for (node, member) in &snapshot.members {
            if member.state == MemberState::Removed {
                self.peers.forget(*node);
            } else if let Err(error) = self.peers.know(*node, &member.address) {
                warn!(node, error, "a node has an address that is none");
            }
        }
        let (voters, learners) = snapshot.meta_members(&self.founders);
        self.log.set_members(GROUP, Members { voters, learners, ..Members::default() });
    }

    fn publish(&self) {
        self.follow_members();
        self.snapshot.store(Arc::new(self.meta.snapshot().clone()));
        let (applied, id) = (self.table.applied(), self.meta.snapshot().cluster_id);
        self.standing.send_modify(|standing| {
            standing.applied = applied;
            standing.is_founded = !id.is_nil();
        });
    }

    /// Takes up changes, until one is on its way to the log.
    fn next(&mut self) {
        while self.proposed.is_none() {
            let Some((change, done)) = self.waiting.pop_front() else { return };
            let Some(term) = self.term else {
                let leader = match self.standing.borrow().leader {
                    leader if leader == self.me => 0,
                    leader => leader,
                };
                answer(done, Err(Error::Moved { shard: ShardId(0), leader }));
                continue;
            };
            if let Some(reason) = self.log.stalled() {
                let what = format!("the log cannot be written: {reason}");
                answer(done, Err(Error::unavailable(what)));
                continue;
            }
            let mut meta = self.meta.clone();
            match change.decide(&mut meta, self.is_system) {
                Ok(batch) if batch.is_empty() => answer(done, Ok(self.table.applied())),
                Ok(batch) => {
                    self.seq += 1;
                    let data = batch.encode();
                    self.table.stage(self.seq, batch);
                    self.log.propose_in(GROUP, term, self.seq, data);
                    self.proposed = Some((meta, done));
                }
                Err(error) => answer(done, Err(error)),
            }
        }
    }

    fn replay(&mut self, index: u64, data: &Bytes) -> Result<()> {
        if data.is_empty() {
            self.table.skip(index);
            return Ok(());
        }
        let batch = Batch::decode(data)
            .map_err(|e| Error::internal(format!("meta group: entry {index}: {e}")))?;
        self.table.apply(index, batch);
        Ok(())
    }

    fn checkpoint(&mut self) {
        let Some(checkpoint) = self.table.begin_checkpoint() else { return };
        // What cannot be written now stays in the log.
        let is_written = checkpoint.write(&*self.store, CHECKPOINT_BATCH).is_ok();
        self.table.end_checkpoint(is_written);
        if is_written {
            self.log.compact(GROUP, self.table.durable());
        }
    }
}

/// Ends the process where rows cannot be read: going on would show a state with a hole in it.
fn orderly(done: Result<()>) {
    if let Err(error) = done {
        error!(%error, "the meta group ends");
        panic!("{error}");
    }
}

/// Reads the rows. An inner error says why they cannot be read now.
fn read(table: &Table) -> Result<std::result::Result<Meta, String>> {
    let (start, end) = Meta::ROWS;
    let rows = match table.scan(start, end, usize::MAX, false) {
        Ok(rows) => rows,
        Err(StoreError::Io(reason)) => return Ok(Err(reason)),
        Err(error) => return Err(Error::internal(format!("meta group: {error}"))),
    };
    Meta::load(&rows).map(Ok).map_err(|e| Error::internal(format!("meta group: {e}")))
}

fn answer(done: Option<Done>, outcome: Result<u64>) {
    // Whoever asked may have gone away.
    let _ = done.map(|done| done.send(outcome));
}
