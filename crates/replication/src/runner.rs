//! The thread that drives a [`Node`].

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use raft_engine::env::FileSystem;
use tracing::{debug, error, info, warn};

use crate::{
    Error, Event, Members, Node, Result, Rows, Standing, Trace, metrics,
    node::PROPOSAL_OVERHEAD,
    wire::{self, Said},
};

/// Takes a group's events, in order. Called on the log's thread: it must not block, and must
/// not wait for the log.
pub type Sink = Box<dyn FnMut(Vec<Event>) + Send>;

/// Takes what goes to another node's [`Handle::receive`]. Called on the log's thread: it must not
/// block. What gets lost is sent again.
pub type Outgoing = Box<dyn FnMut(u64, Bytes) + Send>;

/// How long a failed write waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often files are looked at that may be given back, when little is written.
const PURGE_EVERY: Duration = Duration::from_secs(10);
/// Raft's clock, where there are peers.
const TICK: Duration = Duration::from_millis(100);
/// Messages and bytes taken before the next write, so that a flood cannot starve the disk.
const DRAIN_MAX: usize = 8_192;
const DRAIN_BYTES_MAX: usize = 32 << 20;
/// Bytes of proposals on their way to the log's thread; more are refused. As many of what other
/// nodes sent.
pub const QUEUED_BYTES_MAX: usize = 256 << 20;

enum Message {
    Trace {
        group: u64,
        done: mpsc::Sender<Result<Trace>>,
    },
    Register {
        group: u64,
        rows: Rows,
        founders: Vec<u64>,
        sink: Sink,
        done: mpsc::Sender<Result<()>>,
    },
    Received(Bytes),
    Fetching {
        group: u64,
        from: u64,
    },
    Restored {
        group: u64,
        index: u64,
    },
    Confirm {
        group: u64,
        term: u64,
        token: u64,
    },
    Transfer {
        group: u64,
        to: u64,
    },
    SetMembers {
        group: u64,
        wanted: Members,
    },
    Standings(Box<dyn FnOnce(Vec<Standing>) + Send>),
    Silence {
        group: u64,
        is_silent: bool,
    },
    Remove {
        group: u64,
        committed: u64,
        done: Box<dyn FnOnce(Result<()>) + Send>,
    },
    Propose {
        group: u64,
        term: Option<u64>,
        seq: u64,
        data: Bytes,
    },
    Dropped {
        group: u64,
        seq: u64,
        reason: &'static str,
    },
    Compact {
        group: u64,
        index: u64,
    },
    Stop,
}

/// What callers see of the log's thread.
#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    /// Bytes that other nodes sent and that are yet to be looked at.
    received_bytes: AtomicUsize,
    is_stalled: AtomicBool,
    stalled: Mutex<Option<String>>,
}

impl Shared {
    fn stall(&self, reason: Option<String>) -> Option<String> {
        self.is_stalled.store(reason.is_some(), Ordering::SeqCst);
        std::mem::replace(&mut *self.stalled.lock(), reason)
    }
}

/// A way to the log, for any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    tx: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl Handle {
    /// Opens this node's replica of a group, or founds it with the voters `founders`; its events
    /// go to `sink`, on the log's thread.
    ///
    /// # Errors
    /// See [`Node::add_replica`].
    pub fn register(&self, group: u64, rows: Rows, founders: &[u64], sink: Sink) -> Result<()> {
        let (done, opened) = mpsc::channel();
        let gone = || Error::Io("the log's thread is gone".into());
        let founders = founders.to_vec();
        let message = Message::Register { group, rows, founders, sink, done };
        self.tx.send(message).map_err(|_| gone())?;
        opened.recv().map_err(|_| gone())?
    }

    /// See [`Node::trace`].
    ///
    /// # Errors
    /// As there.
    pub fn trace(&self, group: u64) -> Result<Trace> {
        let (done, answer) = mpsc::channel();
        let gone = || Error::Io("the log's thread is gone".into());
        self.tx.send(Message::Trace { group, done }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Proposes; `Committed` or `Refused` comes to the group's sink with `seq`, or `Lost`
    /// without. To be used by proposers that cannot have missed the end of a term; all others
    /// use [`Handle::propose_in`].
    pub fn propose(&self, group: u64, seq: u64, data: Bytes) {
        self.send(group, None, seq, data);
    }

    /// Proposes what was decided while leading in `term`, as `Leader` told it. What arrives
    /// after that term is over is dropped, since `Lost` told its fate.
    pub fn propose_in(&self, group: u64, term: u64, seq: u64, data: Bytes) {
        self.send(group, Some(term), seq, data);
    }

    fn send(&self, group: u64, term: Option<u64>, seq: u64, data: Bytes) {
        let size = data.len() + PROPOSAL_OVERHEAD;
        let queued = self.shared.queued_bytes.fetch_add(size, Ordering::SeqCst);
        let message = if queued + size <= QUEUED_BYTES_MAX {
            Message::Propose { group, term, seq, data }
        } else {
            self.shared.queued_bytes.fetch_sub(size, Ordering::SeqCst);
            Message::Dropped { group, seq, reason: "too much waits for the log" }
        };
        // The thread ends only with the process or after everyone was told to stop.
        let _ = self.tx.send(message);
    }

    /// Lets entries go whose rows are in the store.
    pub fn compact(&self, group: u64, index: u64) {
        let _ = self.tx.send(Message::Compact { group, index });
    }

    /// Takes what another node's log sent.
    /// What is more than fits beside what waits already is dropped, and sent again.
    pub fn receive(&self, batch: Bytes) {
        let size = batch.len() + PROPOSAL_OVERHEAD;
        let queued = self.shared.received_bytes.fetch_add(size, Ordering::SeqCst);
        if queued + size > QUEUED_BYTES_MAX || self.tx.send(Message::Received(batch)).is_err() {
            self.shared.received_bytes.fetch_sub(size, Ordering::SeqCst);
        }
    }

    /// Has the group refuse what is under way, and begin a new term once the log can be written:
    /// its sink gets `Refused`. For a proposer that waits no longer for a log that cannot be.
    pub fn give_up(&self, group: u64) {
        let _ = self.tx.send(Message::Dropped { group, seq: 0, reason: "given up" });
    }

    /// See [`Node::confirm`]; nothing comes of it if `term` is over.
    pub fn confirm(&self, group: u64, term: u64, token: u64) {
        let _ = self.tx.send(Message::Confirm { group, term, token });
    }

    /// See [`Node::transfer`].
    pub fn transfer(&self, group: u64, to: u64) {
        let _ = self.tx.send(Message::Transfer { group, to });
    }

    /// See [`Node::set_members`].
    pub fn set_members(&self, group: u64, wanted: Members) {
        let _ = self.tx.send(Message::SetMembers { group, wanted });
    }

    /// See [`Node::standings`]. `tell` is called on the log's thread: it must not block.
    pub fn standings(&self, tell: impl FnOnce(Vec<Standing>) + Send + 'static) {
        let _ = self.tx.send(Message::Standings(Box::new(tell)));
    }

    /// See [`Node::silence`].
    pub fn silence(&self, group: u64, is_silent: bool) {
        let _ = self.tx.send(Message::Silence { group, is_silent });
    }

    /// See [`Node::remove_replica`]; the group's sink is told nothing more. `done` is called on the
    /// log's thread: it must not block.
    pub fn remove(
        &self,
        group: u64,
        committed: u64,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let _ = self.tx.send(Message::Remove { group, committed, done: Box::new(done) });
    }

    /// Says to `from`, which offered them, that this replica fetches rows. To be called once a
    /// second or more while it does.
    pub fn fetching(&self, group: u64, from: u64) {
        let _ = self.tx.send(Message::Fetching { group, from });
    }

    /// See [`Node::restored`].
    pub fn restored(&self, group: u64, index: u64) {
        let _ = self.tx.send(Message::Restored { group, index });
    }

    /// Why the log cannot be written now, if it cannot. What is proposed meanwhile waits, up to
    /// [`crate::WAITING_BYTES_MAX`]; more is refused. Costs nothing while all is well.
    #[must_use]
    pub fn stalled(&self) -> Option<String> {
        if !self.shared.is_stalled.load(Ordering::SeqCst) {
            return None;
        }
        self.shared.stalled.lock().clone()
    }
}

/// The log's thread.
#[derive(Debug)]
pub struct Runner {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts driving `node`; what it has for others goes to `outgoing`.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn start<F: FileSystem + 'static>(node: Node<F>, outgoing: Outgoing) -> Result<Self> {
        metrics::register();
        let (tx, rx) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let handle = Handle { tx, shared: shared.clone() };
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || {
                let mut driver = Driver {
                    node,
                    outgoing,
                    rx,
                    shared,
                    sinks: HashMap::new(),
                    retry_at: None,
                    is_failed: false,
                };
                driver.run();
                driver.shared.stall(Some("the log was closed".into()));
            })
            .map_err(|e| Error::Io(format!("no thread for the log: {e}")))?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// A way to it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes what was proposed, tells what came of it, and ends the thread.
    pub fn stop(mut self) {
        let _ = self.handle.tx.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Driver<F: FileSystem> {
    node: Node<F>,
    outgoing: Outgoing,
    rx: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    sinks: HashMap<u64, Sink>,
    /// When a failed write is tried again.
    retry_at: Option<Instant>,
    /// Nothing can be written until the log is opened anew.
    is_failed: bool,
}

impl<F: FileSystem> Driver<F> {
    fn run(&mut self) {
        let mut purged_at = Instant::now();
        let mut ticked_at = Instant::now();
        loop {
            let mut wait = PURGE_EVERY;
            if let Some(at) = self.retry_at {
                wait = wait.min(at.saturating_duration_since(Instant::now()));
            }
            let has_peers = self.node.has_peers();
            if has_peers {
                wait = wait.min(TICK.saturating_sub(ticked_at.elapsed()));
            }
            let is_open = match self.rx.recv_timeout(wait) {
                Ok(message) => self.drain(message),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            if has_peers && ticked_at.elapsed() >= TICK {
                ticked_at = Instant::now();
                metrics::set_memory_bytes(self.node.memory_bytes());
                self.node.tick();
            }
            if !is_open || self.retry_at.is_none_or(|at| at <= Instant::now()) {
                self.poll();
            }
            if !is_open || self.node.purge_is_due() || purged_at.elapsed() >= PURGE_EVERY {
                purged_at = Instant::now();
                metrics::set_memory_bytes(self.node.memory_bytes());
                self.purge();
            }
            if !is_open {
                return;
            }
        }
    }

    /// Handles what has arrived; false when it is time to stop.
    fn drain(&mut self, first: Message) -> bool {
        let mut message = first;
        let mut bytes = 0;
        let mut count = 0;
        loop {
            match message {
                Message::Register { group, rows, founders, sink, done } => {
                    let opened = self.node.add_replica(group, rows, &founders);
                    if opened.is_ok() {
                        self.sinks.insert(group, sink);
                    }
                    let _ = done.send(opened);
                }
                Message::Trace { group, done } => {
                    let _ = done.send(self.node.trace(group));
                }
                Message::Propose { group, term, seq, data } => {
                    bytes += data.len();
                    self.propose(group, term, seq, data);
                }
                Message::Received(batch) => {
                    bytes += batch.len();
                    self.receive(batch);
                }
                Message::Confirm { group, term, token } => {
                    if self.node.leads_in(group, term) {
                        self.node.confirm(group, token);
                    }
                }
                Message::Transfer { group, to } => self.node.transfer(group, to),
                Message::SetMembers { group, wanted } => self.node.set_members(group, wanted),
                Message::Standings(tell) => tell(self.node.standings()),
                Message::Silence { group, is_silent } => self.node.silence(group, is_silent),
                Message::Remove { group, committed, done } => {
                    let removed = self.node.remove_replica(group, committed);
                    if removed.is_ok() {
                        self.sinks.remove(&group);
                    }
                    done(removed);
                }
                Message::Fetching { group, from } => {
                    let mut sign = BytesMut::new();
                    wire::put_fetching(&mut sign, group, self.node.id());
                    (self.outgoing)(from, sign.freeze());
                }
                Message::Restored { group, index } => self.node.restored(group, index),
                Message::Dropped { group, seq, reason } => {
                    self.node.fence(group);
                    self.refuse(group, seq, reason.into());
                }
                Message::Compact { group, index } => {
                    if let Err(error) = self.node.compact(group, index) {
                        warn!(group, index, %error, "the log cannot be compacted");
                    }
                }
                Message::Stop => return false,
            }
            count += 1;
            if count >= DRAIN_MAX || bytes >= DRAIN_BYTES_MAX {
                return true;
            }
            match self.rx.try_recv() {
                Ok(next) => message = next,
                // A disconnection is found by whoever waits next.
                Err(_) => return true,
            }
        }
    }

    fn propose(&mut self, group: u64, term: Option<u64>, seq: u64, data: Bytes) {
        let size = data.len() + PROPOSAL_OVERHEAD;
        self.shared.queued_bytes.fetch_sub(size, Ordering::SeqCst);
        let taken = match term {
            Some(term) => self.node.propose_in(group, term, seq, data),
            None => self.node.propose(group, seq, data),
        };
        match taken {
            Ok(()) => {}
            Err(error @ Error::Stale(_)) => debug!(group, seq, %error, "dropped"),
            Err(error) => self.refuse(group, seq, error.to_string()),
        }
    }

    fn receive(&mut self, batch: Bytes) {
        let size = batch.len() + PROPOSAL_OVERHEAD;
        self.shared.received_bytes.fetch_sub(size, Ordering::SeqCst);
        let said = match wire::read(batch) {
            Ok(said) => said,
            Err(error) => return warn!(%error, "a peer's messages are dropped"),
        };
        for said in said {
            match said {
                Said::Note(group, index) => self.node.receive_note(group, index),
                Said::Fetching(group, node) => self.node.receive_fetching(group, node),
                Said::Message(group, message) => match self.node.receive(group, message) {
                    Ok(()) => {}
                    Err(error @ Error::Corrupt(_)) => error!(group, %error, "a replica is broken"),
                    // Of a group that is not open yet, or an answer that came late.
                    Err(error) => debug!(group, %error, "a peer's message is dropped"),
                },
            }
        }
    }

    fn refuse(&mut self, group: u64, seq: u64, reason: String) {
        debug!(group, seq, reason, "a proposal was refused");
        if let Some(sink) = self.sinks.get_mut(&group) {
            sink(vec![Event::Refused { seq, reason }]);
        }
    }

    fn poll(&mut self) {
        let Self { node, outgoing, .. } = self;
        let polled = node.poll_sending(&mut |messages| send(outgoing, std::mem::take(messages)));
        send(outgoing, node.take_messages());
        send_notes(outgoing, node.take_notes());
        if let Ok(told) = polled {
            self.deliver(told);
        }
        let error = self.node.stalled().cloned();
        let reason = error.as_ref().map(ToString::to_string);
        let before = self.shared.stall(reason.clone());
        self.retry_at = error.as_ref().map(|_| Instant::now() + RETRY);
        match (&before, &reason) {
            (Some(_), None) => info!("the log can be written again"),
            (before, Some(reason)) if before.as_ref() != Some(reason) => {
                error!(reason, "the log cannot be written; calls are refused until it can");
            }
            _ => {}
        }
        metrics::set_stalled(reason.is_some());
        if matches!(error, Some(Error::Unsynced(_))) && !self.is_failed {
            self.is_failed = true;
            for sink in self.sinks.values_mut() {
                sink(vec![Event::Lost]);
            }
        }
    }

    fn purge(&mut self) {
        match self.node.purge() {
            Ok(groups) if groups.is_empty() => {}
            Ok(groups) => debug!(?groups, "old log files wait for checkpoints of these groups"),
            Err(error) => warn!(%error, "old log files cannot be given back"),
        }
    }

    fn deliver(&mut self, told: Vec<(u64, Event)>) {
        let mut by_group: HashMap<u64, Vec<Event>> = HashMap::new();
        for (group, event) in told {
            by_group.entry(group).or_default().push(event);
        }
        for (group, events) in by_group {
            if let Some(sink) = self.sinks.get_mut(&group) {
                sink(events);
            }
        }
    }
}

/// Sends messages, in one batch to each node.
fn send(outgoing: &mut Outgoing, messages: Vec<(u64, raft::eraftpb::Message)>) {
    let mut batches: HashMap<u64, BytesMut> = HashMap::new();
    for (group, message) in messages {
        let batch = batches.entry(message.to).or_default();
        if let Err(error) = wire::put_message(batch, group, &message) {
            error!(group, %error, "a message to a peer is dropped");
        }
    }
    for (to, batch) in batches {
        outgoing(to, batch.freeze());
    }
}

fn send_notes(outgoing: &mut Outgoing, notes: Vec<(u64, u64, u64)>) {
    for (to, group, index) in notes {
        let mut note = BytesMut::new();
        wire::put_note(&mut note, group, index);
        outgoing(to, note.freeze());
    }
}
