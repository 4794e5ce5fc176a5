//! What differs from seed to seed before anything happens.

use std::{sync::Arc, time::Duration};

use everspan_types::Limits;

use crate::rng::Rng;

/// A deliberate bug, to show that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Effects happen as soon as they are decided.
    EffectsBeforeCommit,
    /// Reads and refusals are answered without waiting for what they saw.
    ReadsBeforeCommit,
    /// A signal's request ID is not looked at.
    ForgetDedupe,
    /// The log's fsync does nothing.
    SkipFsync,
    /// The store's flush does nothing, and the log is cut all the same.
    SkipFlush,
    /// Runs are woken a little before their time.
    EarlyTimers,
    /// What was proposed and refused stays in the shard's table.
    KeepStaged,
    /// Wake-ups are forgotten every now and then.
    ForgetWakes,
    /// Wake-ups moved by what was proposed and refused stay moved.
    KeepWakes,
    /// Brokers are not told of a shard that leads anew.
    ForgetOffers,
    /// Loaded runs outlive the term in which they were loaded.
    KeepRuns,
    /// Proposals are taken in whatever term they arrive.
    AnyTerm,
    /// An activity's start is not recorded before the worker gets it.
    ForgetStarts,
    /// What an earlier life left to deliver to other shards is forgotten.
    ForgetMessages,
    /// Who sent messages is not told that they may be lost.
    ForgetReceipts,
}

/// All of them.
pub const MUTATIONS: [Mutation; 15] = [
    Mutation::EffectsBeforeCommit,
    Mutation::ReadsBeforeCommit,
    Mutation::ForgetDedupe,
    Mutation::SkipFsync,
    Mutation::SkipFlush,
    Mutation::EarlyTimers,
    Mutation::KeepStaged,
    Mutation::ForgetWakes,
    Mutation::KeepWakes,
    Mutation::ForgetOffers,
    Mutation::KeepRuns,
    Mutation::AnyTerm,
    Mutation::ForgetStarts,
    Mutation::ForgetMessages,
    Mutation::ForgetReceipts,
];

/// The parameters of one seed.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) mutation: Option<Mutation>,
    pub(crate) shards: u32,
    pub(crate) limits: Arc<Limits>,
    /// Longest time that a message waits in a mailbox, in microseconds.
    pub(crate) turn_delay_us: u64,
    /// One message of so many waits for seconds; none if 0.
    pub(crate) hiccup_every: usize,
    /// Longest time that the log gathers proposals, in microseconds.
    pub(crate) log_delay_us: u64,
    pub(crate) checkpoint_every: Duration,
    pub(crate) checkpoint_bytes: usize,
    /// Rows in one write of a checkpoint.
    pub(crate) checkpoint_ops: usize,
    /// Ticks after which an unused run leaves memory.
    pub(crate) idle_ticks: u64,
    pub(crate) table_bytes_max: usize,
    pub(crate) waiting_bytes_max: usize,
    pub(crate) file_bytes: u64,
    /// How long things break before the settlement begins.
    pub(crate) turmoil: Duration,
    /// Most time from one fault to the next.
    pub(crate) fault_every_ms: u64,
    /// Packets lost, of a hundred.
    pub(crate) loss: u32,
    /// Packets that come twice, of a hundred.
    pub(crate) duplication: u32,
    pub(crate) clients: usize,
    /// Most time that a client thinks.
    pub(crate) think_ms: u64,
    pub(crate) workflow_ids: usize,
    pub(crate) workers: usize,
    /// Tasks that workers never answer, of a hundred.
    pub(crate) laziness: u32,
    /// Whether clients make the calls of `MEDDLING`, too.
    pub(crate) meddles: bool,
}

impl Setup {
    pub(crate) fn draw(rng: &mut Rng, mutation: Option<Mutation>) -> Self {
        let defaults = Limits::default();
        let limits = Limits {
            history_page_default: [3, 20, defaults.history_page_default][rng.below(3)],
            buffered_events_max: [2, 10, defaults.buffered_events_max][rng.below(3)],
            history_events_max: [60, 1_000, defaults.history_events_max][rng.below(3)],
            ..defaults
        };
        Self {
            mutation,
            shards: 1 + rng.below(3) as u32,
            limits: Arc::new(limits),
            turn_delay_us: [20, 200, 5_000][rng.below(3)],
            hiccup_every: [0, 500, 50][rng.below(3)],
            log_delay_us: [200, 2_000, 50_000][rng.below(3)],
            checkpoint_every: rng.millis(300, 5_000),
            checkpoint_bytes: [4 << 10, 32 << 10, 1 << 20][rng.below(3)],
            checkpoint_ops: 1 + rng.below(40),
            idle_ticks: 1 + rng.below(6) as u64,
            table_bytes_max: if rng.chance(10) { 32 << 10 } else { 64 << 20 },
            waiting_bytes_max: [0, 2 << 10, 64 << 20][rng.below(3)],
            file_bytes: [16 << 10, 64 << 10][rng.below(2)],
            turmoil: rng.millis(10_000, 60_000),
            fault_every_ms: rng.between(500, 20_000),
            loss: [0, 2, 15][rng.below(3)],
            duplication: [0, 2, 15][rng.below(3)],
            clients: 1 + rng.below(4),
            think_ms: rng.between(50, 4_000),
            workflow_ids: 1 + rng.below(5),
            workers: 1 + rng.below(3),
            laziness: [0, 5, 20][rng.below(3)],
            meddles: rng.chance(30),
        }
    }
}
