//! The virtual clock: what happens next, and when.

use std::{collections::BTreeMap, time::Duration};

use everspan_shard::call::{Reply, Request};
use everspan_types::{Error, Poller, QueueKey, Result, ShardId, StartedTask, Time};

use crate::{rng::Rng, trace::Trace};

/// The instant at which every simulation begins, true time.
pub(crate) const BEGIN: Time = Time::from_millis(1_700_000_000_000);

/// One try of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    /// Index of the call in the record.
    pub(crate) op: usize,
    /// From 1.
    pub(crate) number: u32,
}

/// One poll of one of the workers' loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PollId {
    pub(crate) poller: usize,
    pub(crate) number: u64,
}

/// What goes over the wire to the node.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Call { attempt: Attempt, request: Request },
    Poll { id: PollId, queue: QueueKey, poller: Poller, wait: Duration },
    CancelPoll { id: PollId, queue: QueueKey },
}

/// A mailbox in the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Addr {
    Shard(u32),
    /// A loaded run, by the number of its actor.
    Run(u32, u64),
    Broker,
    Log,
    Checkpoint,
}

/// What happens inside the node.
#[derive(Clone, Debug)]
pub(crate) enum NodeEvent {
    /// The mailbox's owner takes a message.
    Turn(Addr),
    /// The shard's wake-up timer, as armed the n-th time.
    ShardTimer(u32, u64),
    /// The timer of a loaded run, as armed the n-th time.
    RunTimer(u32, u64, u64),
    BrokerTimer(u64),
    /// A shard's messages to another are to be tried again.
    Pump(u32, ShardId),
    Tick(u32),
    LogRetry,
    Purge,
}

/// What happens next.
#[derive(Debug)]
pub(crate) enum Event {
    /// Within the node, in this life of it.
    Node(u64, NodeEvent),
    Arrive(Box<Packet>),
    Answer(Attempt, Result<Box<Reply>, Error>),
    PollAnswer(PollId, Option<Box<StartedTask>>),
    /// A caller waited long enough.
    GiveUp(Attempt),
    /// A call is made, or made again.
    Send(usize),
    /// A client thinks of something to do.
    Client(usize),
    /// A worker's loop polls.
    Poll(PollId),
    /// A worker's loop stops waiting for its poll's answer.
    PollGiveUp(PollId),
    /// Something breaks.
    Fault,
    /// Disks work again.
    Mend,
    /// The machine comes back, if it is down since this life.
    Restart(u64),
    /// Power goes, if this life is still going on.
    PowerOff(u64),
    /// Faults end, and later stages of the settlement.
    Settle(u32),
}

/// The agenda, the clock, chance, and the trace.
#[derive(Debug)]
pub(crate) struct Sched {
    /// True time; the node's clock may differ.
    pub(crate) now: Time,
    agenda: BTreeMap<(Time, u64), Event>,
    next: u64,
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
}

impl Sched {
    pub(crate) fn new(seed: u64, keeps_lines: bool) -> Self {
        Self {
            now: BEGIN,
            agenda: BTreeMap::new(),
            next: 0,
            rng: Rng::new(seed),
            trace: Trace::new(keeps_lines),
        }
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.next += 1;
        self.agenda.insert((self.now + wait, self.next), event);
    }

    /// Goes on to the next event, if there is one before `end`.
    pub(crate) fn pop(&mut self, end: Time) -> Option<Event> {
        let entry = self.agenda.first_entry()?;
        let at = entry.key().0;
        if at > end {
            return None;
        }
        self.now = at;
        Some(entry.remove())
    }

    pub(crate) fn log(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.since(BEGIN);
        self.trace.add(now, line);
    }
}
