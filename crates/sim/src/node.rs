//! The machine that the server runs on: its disk, its clock, its lives.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use everspan_replication::{
    Config, Error as LogError, Event as LogEvent, Node as Log, faulty::FaultyFs,
};
use everspan_shard::{Retention, Shard, ShardMap, call::Reply};
use everspan_storage::{Checkpoint, Table};
use everspan_types::{
    NamespaceId, Offer, Poller, QueueKey, Result, SLOTS, ShardId, TaskRef, Time, slot,
};

use crate::{
    broker::{Broker, BrokerMessage},
    record::Record,
    run::RunMessage,
    sched::{Addr, Event, NodeEvent, Packet, Sched},
    setup::{Mutation, Setup},
    shard::{ShardMessage, ShardShell},
    store::SimStore,
};

/// How long a failed write waits before it is tried again, as in the log's thread.
const LOG_RETRY: Duration = Duration::from_millis(500);
/// How often log files are looked at that may be given back.
const PURGE_EVERY: Duration = Duration::from_secs(2);
/// A shard's housekeeping.
const TICK: Duration = Duration::from_secs(1);

/// Longer than any world lasts: the checks read what closed.
const RETENTION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a part of the node may use of the world.
pub(crate) struct Cx<'a> {
    pub(crate) sched: &'a mut Sched,
    pub(crate) record: &'a mut Record,
    pub(crate) setup: &'a Setup,
    pub(crate) life: u64,
    /// The node's clock is ahead of true time by this.
    pub(crate) clock_ahead: Duration,
}

impl Cx<'_> {
    /// The node's wall clock.
    pub(crate) fn now(&self) -> Time {
        self.sched.now + self.clock_ahead
    }

    pub(crate) fn after(&mut self, wait: Duration, event: NodeEvent) {
        let life = self.life;
        self.sched.after(wait, Event::Node(life, event));
    }

    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.setup.mutation == Some(mutation)
    }
}

/// A message to a part of the node.
#[derive(Debug)]
pub(crate) enum Message {
    Shard(ShardMessage),
    Run(RunMessage),
    Broker(BrokerMessage),
    Log(LogMessage),
    Checkpoint(u32, Checkpoint),
}

#[derive(Debug)]
pub(crate) enum LogMessage {
    Propose {
        shard: u32,
        term: Option<u64>,
        seq: u64,
        data: bytes::Bytes,
    },
    Compact {
        shard: u32,
        index: u64,
    },
    /// Nothing but a reason to write.
    Poll,
}

/// The mailboxes of a node: first in, first out, each owner at its own pace.
#[derive(Debug, Default)]
pub(crate) struct Post {
    boxes: BTreeMap<Addr, VecDeque<Message>>,
    /// Why the log cannot be written, as any part of the node sees it.
    pub(crate) stalled: Option<String>,
}

impl Post {
    pub(crate) fn send(&mut self, cx: &mut Cx<'_>, to: Addr, message: Message) {
        let mailbox = self.boxes.entry(to).or_default();
        mailbox.push_back(message);
        if mailbox.len() == 1 {
            Self::arm(cx, to);
        }
    }

    fn arm(cx: &mut Cx<'_>, to: Addr) {
        let wait = match to {
            Addr::Log => cx.sched.rng.micros(50, cx.setup.log_delay_us),
            Addr::Checkpoint => cx.sched.rng.millis(1, 200),
            _ => cx.sched.rng.micros(1, cx.setup.turn_delay_us),
        };
        // Now and then something takes long: a slow disk, a busy core.
        let hiccup = match cx.setup.hiccup_every {
            0 => Duration::ZERO,
            n if cx.sched.rng.below(n) > 0 => Duration::ZERO,
            _ => cx.sched.rng.millis(50, 3_000),
        };
        cx.after(wait + hiccup, NodeEvent::Turn(to));
    }

    fn take(&mut self, cx: &mut Cx<'_>, from: Addr) -> Option<Message> {
        let mailbox = self.boxes.get_mut(&from)?;
        let message = mailbox.pop_front();
        if mailbox.is_empty() {
            self.boxes.remove(&from);
        } else {
            Self::arm(cx, from);
        }
        message
    }

    fn take_all(&mut self, from: Addr, most: usize, cx: &mut Cx<'_>) -> Vec<Message> {
        let Some(mailbox) = self.boxes.get_mut(&from) else { return Vec::new() };
        let count = mailbox.len().min(most);
        let taken = mailbox.drain(..count).collect();
        if mailbox.is_empty() {
            self.boxes.remove(&from);
        } else {
            Self::arm(cx, from);
        }
        taken
    }

    /// Messages to a run that it has not handled.
    pub(crate) fn pending(&self, to: Addr) -> usize {
        let counts = |m: &&Message| !matches!(m, Message::Run(RunMessage::Passivate));
        self.boxes.get(&to).map_or(0, |b| b.iter().filter(counts).count())
    }
}

/// One life of the server's process.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) shards: BTreeMap<u32, ShardShell>,
    broker: Broker,
    log: Log<FaultyFs>,
    post: Post,
    log_retries: bool,
    log_failed: bool,
    /// The next proposal finds no room on its way to the log.
    pub(crate) drops_proposal: bool,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    pub(crate) fs: Arc<FaultyFs>,
    pub(crate) store: Arc<SimStore>,
    pub(crate) clock_ahead: Duration,
    /// Counts its lives.
    pub(crate) life: u64,
    pub(crate) up: Option<Life>,
    /// Power goes as soon as the disk refuses something.
    pub(crate) dies_on_error: bool,
    /// A disk may refuse things now; power off and on again, and it works.
    pub(crate) is_broken: bool,
}

/// Where simulated machines have their (empty) files.
fn base() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

impl Machine {
    pub(crate) fn new() -> Result<Self, String> {
        let made = tempfile::Builder::new().prefix("everspan-sim-").tempdir_in(base());
        let made = made.or_else(|_| tempfile::tempdir());
        Ok(Self {
            dir: made.map_err(|e| format!("no directory for a simulated log: {e}"))?,
            fs: Arc::default(),
            store: Arc::default(),
            clock_ahead: Duration::ZERO,
            life: 0,
            up: None,
            dies_on_error: false,
            is_broken: false,
        })
    }

    /// Where it has its files.
    pub(crate) fn directory(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// Starts the server on what the disk has.
    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), String> {
        let setup = cx.setup;
        if cx.mutated(Mutation::SkipFsync) {
            self.fs.skip_sync(true);
        }
        if cx.mutated(Mutation::SkipFlush) {
            self.store.skip_flushes();
        }
        let config = Config {
            file_bytes: setup.file_bytes,
            purge_bytes: setup.file_bytes * 2,
            ..Config::new(self.dir.path().join("log"))
        };
        let log = Log::open_with(&config, self.fs.clone());
        let mut log = log.map_err(|e| format!("the log does not open after a crash: {e}"))?;
        log.set_waiting_bytes_max(setup.waiting_bytes_max);
        let mut post = Post::default();
        let mut shards = BTreeMap::new();
        for id in 1..=setup.shards {
            let table = Table::open(ShardId(id), self.store.clone());
            let table = table.map_err(|e| format!("shard {id}'s rows do not open: {e}"))?;
            log.add_group(u64::from(id), table.applied())
                .map_err(|e| format!("shard {id}'s log does not open: {e}"))?;
            let shard = Shard::new(
                ShardId(id),
                table,
                setup.limits.clone(),
                ShardMap { count: setup.shards },
            )
            .with_retention(Retention::constant(RETENTION));
            shards.insert(id, ShardShell::new(id, shard, cx.sched.now));
            cx.after(TICK, NodeEvent::Tick(id));
        }
        post.send(cx, Addr::Log, Message::Log(LogMessage::Poll));
        cx.after(PURGE_EVERY, NodeEvent::Purge);
        let broker = Broker::default();
        self.up = Some(Life {
            shards,
            broker,
            log,
            post,
            log_retries: false,
            log_failed: false,
            drops_proposal: false,
        });
        Ok(())
    }

    /// Power goes: what was not synced is lost or torn.
    pub(crate) fn power_off(&mut self, sched: &mut Sched) {
        self.up = None;
        (self.dies_on_error, self.is_broken) = (false, false);
        self.life += 1;
        self.fs.crash(sched.rng.next());
        let kept = sched.rng.below(self.store.unflushed() + 1);
        self.store.crash_keeping(kept);
        let life = self.life;
        sched.log(|| format!("the node is down; life {life} is to come"));
    }
}

/// The shard that owns a workflow ID, as the real node deals them out.
pub(crate) fn shard_of(shards: u32, namespace: NamespaceId, workflow_id: &str) -> u32 {
    u32::from(slot(namespace, workflow_id)) * shards / SLOTS + 1
}

impl Life {
    /// A packet reaches the node.
    pub(crate) fn arrive(&mut self, cx: &mut Cx<'_>, packet: Packet) {
        match packet {
            Packet::Call { attempt, request } => {
                let shard = shard_of(cx.setup.shards, request.namespace, &request.workflow_id);
                let message = ShardMessage::Call { attempt, request };
                self.post.send(cx, Addr::Shard(shard), Message::Shard(message));
            }
            Packet::Poll { id, queue, poller, wait } => {
                let message = BrokerMessage::Poll { id, queue, poller, wait };
                self.post.send(cx, Addr::Broker, Message::Broker(message));
            }
            Packet::CancelPoll { id, queue } => {
                let message = BrokerMessage::Cancel { id, queue };
                self.post.send(cx, Addr::Broker, Message::Broker(message));
            }
        }
    }

    /// Something in the node is due. `Err` if a thread of the real server would panic;
    /// `Ok(false)` if the disk refused something.
    pub(crate) fn handle(
        &mut self,
        cx: &mut Cx<'_>,
        store: &SimStore,
        event: NodeEvent,
    ) -> Result<bool, String> {
        match event {
            NodeEvent::Turn(Addr::Log) => return Ok(self.log_turn(cx)),
            NodeEvent::Turn(Addr::Checkpoint) => {
                if let Some(Message::Checkpoint(id, checkpoint)) =
                    self.post.take(cx, Addr::Checkpoint)
                {
                    return Ok(self.checkpoint(cx, store, id, &checkpoint));
                }
            }
            NodeEvent::Turn(Addr::Broker) => {
                if let Some(Message::Broker(message)) = self.post.take(cx, Addr::Broker) {
                    self.broker.handle(&mut self.post, cx, message);
                }
            }
            NodeEvent::Turn(addr @ Addr::Shard(id)) => {
                if let Some(Message::Shard(message)) = self.post.take(cx, addr)
                    && let Some(shard) = self.shards.get_mut(&id)
                {
                    shard.handle(&mut self.post, cx, message)?;
                }
            }
            NodeEvent::Turn(addr @ Addr::Run(id, actor)) => {
                if let Some(Message::Run(message)) = self.post.take(cx, addr)
                    && let Some(shard) = self.shards.get_mut(&id)
                {
                    shard.run_turn(&mut self.post, cx, actor, message);
                }
            }
            NodeEvent::ShardTimer(id, armed) => {
                if let Some(shard) = self.shards.get_mut(&id) {
                    shard.timer(&mut self.post, cx, armed);
                }
            }
            NodeEvent::RunTimer(id, actor, armed) => {
                if let Some(shard) = self.shards.get_mut(&id) {
                    shard.run_timer(&mut self.post, cx, actor, armed);
                }
            }
            NodeEvent::BrokerTimer(armed) => self.broker.timer(&mut self.post, cx, armed),
            NodeEvent::Pump(id, to) => {
                if let Some(shard) = self.shards.get_mut(&id) {
                    shard.pump(&mut self.post, cx, to);
                }
            }
            NodeEvent::Tick(id) => {
                if let Some(shard) = self.shards.get_mut(&id) {
                    shard.tick(&mut self.post, cx);
                }
                cx.after(TICK, NodeEvent::Tick(id));
            }
            NodeEvent::LogRetry => {
                self.log_retries = false;
                return Ok(self.write_log(cx));
            }
            NodeEvent::Purge => {
                cx.after(PURGE_EVERY, NodeEvent::Purge);
                return Ok(self.log.purge().is_ok());
            }
        }
        Ok(true)
    }

    fn log_turn(&mut self, cx: &mut Cx<'_>) -> bool {
        let most = 1 + cx.sched.rng.below(64);
        for message in self.post.take_all(Addr::Log, most, cx) {
            match message {
                Message::Log(LogMessage::Propose { shard, term, seq, data }) => {
                    let group = u64::from(shard);
                    let taken = match term {
                        _ if std::mem::take(&mut self.drops_proposal) => {
                            self.log.fence(group);
                            Err(LogError::Refused("too much waits for the log".into()))
                        }
                        Some(term) => self.log.propose_in(group, term, seq, data),
                        None => self.log.propose(group, seq, data),
                    };
                    match taken {
                        Ok(()) | Err(LogError::Stale(_)) => {}
                        Err(error) => {
                            let reason = error.to_string();
                            let news = ShardMessage::News(vec![LogEvent::Refused { seq, reason }]);
                            self.post.send(cx, Addr::Shard(shard), Message::Shard(news));
                        }
                    }
                }
                Message::Log(LogMessage::Compact { shard, index }) => {
                    // A refusal is a warning in the real server, too.
                    let _ = self.log.compact(u64::from(shard), index);
                }
                _ => {}
            }
        }
        self.log_retries || self.write_log(cx)
    }

    fn write_log(&mut self, cx: &mut Cx<'_>) -> bool {
        let told = self.log.poll().unwrap_or_default();
        let mut by_shard: BTreeMap<u32, Vec<LogEvent>> = BTreeMap::new();
        for (group, event) in told {
            by_shard.entry(group as u32).or_default().push(event);
        }
        for (shard, events) in by_shard {
            let news = ShardMessage::News(events);
            self.post.send(cx, Addr::Shard(shard), Message::Shard(news));
        }
        let error = self.log.stalled().cloned();
        self.post.stalled = error.as_ref().map(ToString::to_string);
        if error.is_some() && !self.log_retries {
            self.log_retries = true;
            cx.after(LOG_RETRY, NodeEvent::LogRetry);
        }
        if matches!(error, Some(LogError::Unsynced(_))) && !self.log_failed {
            self.log_failed = true;
            // Somebody sees it and restarts the node.
            let (life, wait) = (cx.life, cx.sched.rng.millis(100, 5_000));
            cx.sched.after(wait, Event::PowerOff(life));
            for id in 1..=cx.setup.shards {
                let news = ShardMessage::News(vec![LogEvent::Lost]);
                self.post.send(cx, Addr::Shard(id), Message::Shard(news));
            }
        }
        error.is_none()
    }

    fn checkpoint(
        &mut self,
        cx: &mut Cx<'_>,
        store: &SimStore,
        id: u32,
        checkpoint: &Checkpoint,
    ) -> bool {
        let outcome = checkpoint.write(store, cx.setup.checkpoint_ops);
        let is_written = outcome.is_ok();
        let done = ShardMessage::CheckpointDone(is_written);
        self.post.send(cx, Addr::Shard(id), Message::Shard(done));
        is_written
    }
}

/// What brokers ask of shards, with whom to tell.
#[derive(Debug)]
pub(crate) struct StartTask {
    pub(crate) offer: Offer,
    pub(crate) poller: Poller,
    pub(crate) queue: QueueKey,
    pub(crate) match_id: u64,
}

/// A task in a run's mailbox.
#[derive(Debug)]
pub(crate) struct TaskStart {
    pub(crate) task: TaskRef,
    pub(crate) poller: Poller,
}

/// An answer on its way out.
pub(crate) type Answer = Result<Reply>;
