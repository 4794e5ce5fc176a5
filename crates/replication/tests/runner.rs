//! The log's thread.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{sync::mpsc, time::Duration};

use bytes::Bytes;
use common::Disk;
use everspan_replication::{Event, Handle, Rows, Runner};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// A bound on waiting for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Group {
    handle: Handle,
    events: mpsc::Receiver<Vec<Event>>,
    told: std::collections::VecDeque<Event>,
}

impl Group {
    fn register(runner: &Runner) -> Self {
        let (tx, events) = mpsc::channel();
        let handle = runner.handle();
        handle.register(1, Rows::default(), &[1], Box::new(move |e| drop(tx.send(e)))).unwrap();
        Self { handle, events, told: Default::default() }
    }

    fn next(&mut self) -> Event {
        while self.told.is_empty() {
            self.told.extend(self.events.recv_timeout(PATIENCE).unwrap());
        }
        self.told.pop_front().unwrap()
    }

    /// The term in which it leads next, and what was told before.
    fn lead(&mut self) -> (u64, Vec<Event>) {
        let mut before = Vec::new();
        loop {
            match self.next() {
                Event::Leader { term } => return (term, before),
                other => before.push(other),
            }
        }
    }

    fn wait_for_stall(&self, is_stalled: bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while self.handle.stalled().is_some() != is_stalled {
            assert!(std::time::Instant::now() < until);
            std::thread::yield_now();
        }
    }
}

fn committed(event: &Event) -> Option<u64> {
    match event {
        Event::Committed { seq, .. } => *seq,
        _ => None,
    }
}

#[test]
fn commits_from_many_threads_and_stops() {
    let disk = Disk::new();
    let runner = Runner::start(disk.open(), Box::new(|_, _| {})).unwrap();
    let mut group = Group::register(&runner);
    let (term, _) = group.lead();
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let handle = group.handle.clone();
            std::thread::spawn(move || {
                for n in 0..500 {
                    handle.propose_in(1, term, thread * 1000 + n, Bytes::from_static(b"x"));
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    while seen.len() < 2000 {
        seen.extend(committed(&group.next()));
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 2000);
    group.handle.propose(1, 9999, Bytes::from_static(b"last"));
    let handle = runner.handle();
    runner.stop();
    assert_eq!(committed(&group.next()), Some(9999), "what was proposed is written first");
    assert!(handle.stalled().is_some(), "nobody may take it for alive");
    let (_, events) = disk.open_group(1, 0);
    assert!(common::leads(&events));
}

#[test]
fn a_full_disk_is_told_and_got_over() {
    let disk = Disk::new();
    let runner = Runner::start(disk.open(), Box::new(|_, _| {})).unwrap();
    let mut group = Group::register(&runner);
    let (term, _) = group.lead();
    disk.fs.fail_writes(Some(ENOSPC));
    group.handle.propose_in(1, term, 1, Bytes::from_static(b"a"));
    group.wait_for_stall(true);
    group.handle.propose_in(1, term, 2, Bytes::from_static(b"b"));
    disk.fs.fail_writes(None);
    assert_eq!(committed(&group.next()), Some(1));
    assert_eq!(committed(&group.next()), Some(2));
    group.wait_for_stall(false);
    runner.stop();
}

#[test]
fn what_cannot_wait_is_refused_and_leadership_comes_back() {
    let disk = Disk::new();
    let mut node = disk.open();
    node.set_waiting_bytes_max(0);
    let runner = Runner::start(node, Box::new(|_, _| {})).unwrap();
    let mut group = Group::register(&runner);
    let (term, _) = group.lead();
    disk.fs.fail_writes(Some(ENOSPC));
    group.handle.propose_in(1, term, 1, Bytes::from_static(b"a"));
    group.wait_for_stall(true);
    group.handle.propose_in(1, term, 2, Bytes::from_static(b"b"));
    let Event::Refused { seq: 2, reason } = group.next() else { panic!("not refused") };
    assert!(reason.contains("storage"), "{reason}");
    disk.fs.fail_writes(None);
    let (new_term, before) = group.lead();
    assert!(new_term > term);
    assert!(before.contains(&Event::Lost));
    assert!(
        before.iter().any(
            |e| matches!(e, Event::Committed { seq: None, data, .. } if data.as_ref() == b"a")
        )
    );
    // Decided before the refusal was heard of.
    group.handle.propose_in(1, term, 3, Bytes::from_static(b"c"));
    group.handle.propose_in(1, new_term, 4, Bytes::from_static(b"d"));
    assert_eq!(committed(&group.next()), Some(4));
    runner.stop();
}

#[test]
fn a_failed_sync_ends_it_until_a_restart() {
    let disk = Disk::new();
    let runner = Runner::start(disk.open(), Box::new(|_, _| {})).unwrap();
    let mut group = Group::register(&runner);
    let (term, _) = group.lead();
    disk.fs.fail_syncs(Some(EIO));
    group.handle.propose_in(1, term, 1, Bytes::from_static(b"a"));
    assert_eq!(group.next(), Event::Lost);
    disk.fs.fail_syncs(None);
    group.handle.propose_in(1, term, 2, Bytes::from_static(b"b"));
    assert!(matches!(group.next(), Event::Refused { seq: 2, .. }));
    let reason = group.handle.stalled().unwrap();
    assert!(reason.contains("restart"), "{reason}");
    runner.stop();
}
