//! The log through restarts, crashes and broken disks.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Disk, data, leads, noise, own, propose, replayed};
use everspan_replication::{Error, Event};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EROFS: i32 = 30;

#[test]
fn a_new_group_leads_and_commits() {
    let disk = Disk::new();
    let (mut node, events) = disk.open_group(1, 0);
    assert!(leads(&events));
    propose(&mut node, 1, 1);
    propose(&mut node, 1, 2);
    let events = node.poll().unwrap();
    assert_eq!(own(&events), [(1, 2), (2, 3)]);
    assert!(matches!(&events[0].1, Event::Committed { data: d, .. } if *d == data(1, 1)));
    assert_eq!(node.poll().unwrap(), []);
    assert!(node.add_group(1, 0).is_err(), "it is here already");
    assert!(node.take_messages().is_empty());
    assert!(!node.has_peers());
}

#[test]
fn a_restart_tells_what_was_not_applied_and_then_leads() {
    let disk = Disk::new();
    let mut node = disk.open();
    for group in 1..=3 {
        node.add_group(group, 0).unwrap();
    }
    node.poll().unwrap();
    for seq in 1..=4 {
        for group in 1..=3 {
            propose(&mut node, group, seq);
        }
    }
    node.poll().unwrap();
    drop(node);
    let (_node, events) = disk.open_group(2, 3);
    assert_eq!(replayed(&events), ["2/3", "2/4"]);
    assert!(leads(&events));
}

#[test]
fn many_groups_share_a_write() {
    let disk = Disk::new();
    let mut node = disk.open();
    for group in 0..200 {
        node.add_group(group, 0).unwrap();
    }
    // Space is reserved once; one write and one sync found all of them.
    disk.fs.stop_after(3);
    let events = node.poll().unwrap();
    let leading = events.iter().filter(|(_, e)| matches!(e, Event::Leader { .. })).count();
    assert_eq!(leading, 200);
    disk.fs.stop_after(2);
    for group in 0..200 {
        propose(&mut node, group, 1);
    }
    assert_eq!(own(&node.poll().unwrap()).len(), 200);
}

#[test]
fn compaction_lets_go_and_a_restart_goes_on_from_there() {
    let disk = Disk::new();
    let (mut node, _) = disk.open_group(1, 0);
    for seq in 1..=10 {
        propose(&mut node, 1, seq);
    }
    node.poll().unwrap();
    assert!(matches!(node.compact(1, 12), Err(Error::Raft(_))), "that was not told yet");
    node.compact(1, 8).unwrap();
    propose(&mut node, 1, 11);
    assert_eq!(own(&node.poll().unwrap()), [(11, 12)]);
    drop(node);
    let (node, events) = disk.open_group(1, 8);
    assert_eq!(replayed(&events), ["1/8", "1/9", "1/10", "1/11"]);
    drop(node);
    let error = disk.open().add_group(1, 3).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    // All of it compacted.
    let (mut node, _) = disk.open_group(1, 13);
    propose(&mut node, 1, 12);
    assert_eq!(own(&node.poll().unwrap()), [(12, 15)]);
    node.compact(1, 15).unwrap();
    node.purge().unwrap();
    drop(node);
    let (_node, events) = disk.open_group(1, 15);
    assert!(replayed(&events).is_empty() && leads(&events));
}

#[test]
fn files_are_given_back() {
    let disk = Disk::new();
    let mut node = disk.open();
    for group in 1..=3 {
        node.add_group(group, 0).unwrap();
    }
    node.poll().unwrap();
    let mut most = 0;
    for round in 1..=200u64 {
        for group in 1..=3 {
            node.propose(group, round, noise(round)).unwrap();
        }
        let events = node.poll().unwrap();
        // The third is an idle one, that takes part no more.
        for group in 1..=2 {
            let last = events.iter().rev().find_map(|(g, e)| match e {
                Event::Committed { index, .. } if *g == group => Some(*index),
                _ => None,
            });
            node.compact(group, last.unwrap()).unwrap();
        }
        if round < 20 {
            let last = own(&events).last().unwrap().1;
            node.compact(3, last).unwrap();
        }
        if node.purge_is_due() {
            node.purge().unwrap();
        }
        most = most.max(disk.fs.files().len());
    }
    assert!(most > 3, "{most}");
    node.compact(3, 150).unwrap();
    for _ in 0..12 {
        node.purge().unwrap();
    }
    let bytes: usize = disk.fs.files().iter().map(|(_, n)| n).sum();
    assert!(bytes < 3 << 20, "{bytes} bytes in {:?}", disk.fs.files());
    drop(node);
    let (_node, events) = disk.open_group(3, 150);
    assert_eq!(events.len(), 200 + 1 - 150 + 2, "entries, the new term's, and Leader");
}

#[test]
fn rows_and_log_that_do_not_fit_are_an_error() {
    let disk = Disk::new();
    let error = disk.open().add_group(1, 5).unwrap_err().to_string();
    assert!(error.contains("group 1") && error.contains('5'), "{error}");
    let (node, _) = disk.open_group(1, 0);
    drop(node);
    let error = disk.open().add_group(1, 2).unwrap_err().to_string();
    assert!(error.contains("last entry is 1"), "{error}");
}

#[test]
fn a_crash_keeps_what_was_told_in_order() {
    for seed in 0..300u64 {
        let disk = Disk::new();
        let mut state = seed;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        // Everything proposed, and by index what was told.
        let mut told: Vec<String> = Vec::new();
        let mut applied = 0;
        for life in 0..5u64 {
            let mut node = disk.open();
            node.add_group(1, applied).unwrap();
            let mut pending = std::collections::BTreeMap::new();
            disk.fs.stop_after(random(60));
            for n in 0..12 {
                let seq = life * 100 + n;
                if node.propose(1, seq, data(1, seq)).is_ok() {
                    pending.insert(seq, format!("1/{seq}"));
                }
                if random(3) == 0 {
                    continue;
                }
                let Ok(events) = node.poll() else { break };
                for (_, event) in events {
                    let Event::Committed { index, seq, data, .. } = event else { continue };
                    let text = match seq {
                        Some(seq) => pending.remove(&seq).unwrap(),
                        None => String::from_utf8(data.to_vec()).unwrap().trim_end().to_owned(),
                    };
                    let index = index as usize;
                    if index <= told.len() {
                        assert_eq!(told[index - 1], text, "seed {seed}: entry {index} changed");
                    } else {
                        assert_eq!(told.len() + 1, index, "seed {seed}: a gap");
                        told.push(text);
                    }
                }
                if random(4) == 0 && !told.is_empty() {
                    // A checkpoint was made.
                    applied = random(told.len() as u64 + 1).max(applied);
                    node.compact(1, applied).unwrap();
                    if random(2) == 0 {
                        let _ = node.purge();
                    }
                }
            }
            disk.fs.crash(seed * 10 + life);
            drop(node);
        }
        let (_node, events) = disk.open_group(1, applied);
        assert!(leads(&events));
        let found = replayed(&events);
        let expected: Vec<&String> =
            told[applied as usize..].iter().filter(|t| !t.is_empty()).collect();
        assert!(found.len() >= expected.len(), "seed {seed}: lost {expected:?} {found:?}");
        assert!(found.iter().zip(expected).all(|(f, e)| f == e), "seed {seed}");
    }
}

#[test]
fn a_sync_that_lies_is_noticed() {
    let disk = Disk::new();
    let (mut node, _) = disk.open_group(1, 0);
    let mut lost = 0;
    for seed in 0..20 {
        disk.fs.skip_sync(true);
        propose(&mut node, 1, seed);
        assert_eq!(own(&node.poll().unwrap()).len(), 1);
        disk.fs.crash(seed);
        drop(node);
        let (again, events) = disk.open_group(1, 0);
        lost += usize::from(!replayed(&events).contains(&format!("1/{seed}")));
        node = again;
    }
    assert!(lost > 0, "the tests would see a lost entry");
}

#[test]
fn a_disk_that_refuses_is_waited_for() {
    for errno in [ENOSPC, EIO, EROFS] {
        let disk = Disk::new();
        let (mut node, _) = disk.open_group(1, 0);
        disk.fs.fail_writes(Some(errno));
        propose(&mut node, 1, 1);
        assert!(matches!(node.poll(), Err(Error::Io(_))));
        propose(&mut node, 1, 2);
        let files = disk.fs.files().len();
        for _ in 0..20 {
            assert!(matches!(node.poll(), Err(Error::Io(_))), "nothing is told meanwhile");
        }
        assert_eq!(disk.fs.files().len(), files, "no attempt leaves a file behind");
        let reason = node.stalled().unwrap().to_string();
        assert!(reason.contains("raftlog"), "{reason}");
        disk.fs.fail_writes(None);
        assert_eq!(own(&node.poll().unwrap()), [(1, 2), (2, 3)]);
        assert_eq!(node.stalled(), None);
        disk.fs.crash(7);
        drop(node);
        let (_node, events) = disk.open_group(1, 0);
        assert_eq!(replayed(&events), ["1/1", "1/2"]);
    }
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_write_is_waited_for() {
    let disk = Disk::new();
    let (mut node, _) = disk.open_group(1, 0);
    let mut told = 0;
    let mut seq = 0;
    for free in (0..3_000).step_by(171) {
        let used: usize = disk.fs.files().iter().map(|(_, n)| n).sum();
        disk.fs.set_capacity(Some((used + free) as u64));
        let mut stalled = false;
        for _ in 0..200 {
            seq += 1;
            propose(&mut node, 1, seq);
            match node.poll() {
                Ok(events) => told += own(&events).len(),
                Err(_) => {
                    stalled = true;
                    break;
                }
            }
        }
        assert!(stalled);
        disk.fs.set_capacity(None);
        told += own(&node.poll().unwrap()).len();
        assert_eq!(told as u64, seq);
    }
    disk.fs.crash(1);
    drop(node);
    let (_node, events) = disk.open_group(1, 0);
    assert_eq!(replayed(&events).len(), told);
}

#[test]
fn what_cannot_wait_is_refused_and_the_group_leads_anew() {
    let disk = Disk::new();
    let (mut node, _) = disk.open_group(1, 0);
    node.add_group(2, 0).unwrap();
    node.poll().unwrap();
    node.set_waiting_bytes_max(300);
    propose(&mut node, 1, 1);
    disk.fs.fail_writes(Some(ENOSPC));
    node.poll().unwrap_err();
    node.propose(1, 2, Bytes::from_static(b"1/2")).unwrap();
    node.propose(1, 3, Bytes::from_static(b"1/3")).unwrap();
    assert!(matches!(node.propose(1, 4, Bytes::from_static(b"1/4")), Err(Error::Refused(_))));
    disk.fs.fail_writes(None);
    // It may be decided on top of the one that was refused.
    assert!(matches!(node.propose(1, 5, Bytes::new()), Err(Error::Refused(_))));
    let events = node.poll().unwrap();
    assert_eq!(own(&events), [], "the proposer dropped what it had staged");
    assert_eq!(replayed(&events), ["1/1", "1/2", "1/3"]);
    assert!(events.contains(&(1, Event::Lost)));
    assert!(leads(&events));
    assert_eq!(node.propose_in(1, 1, 6, Bytes::new()), Err(Error::Stale(1)));
    node.propose_in(1, 2, 7, Bytes::from_static(b"1/7")).unwrap();
    node.propose_in(2, 1, 1, Bytes::from_static(b"2/1")).unwrap();
    let events = node.poll().unwrap();
    assert_eq!(own(&events), [(7, 6), (1, 2)], "the other group is not concerned");
}

#[test]
fn after_a_failed_sync_nothing_is_written_or_told() {
    let disk = Disk::new();
    let (mut node, _) = disk.open_group(1, 0);
    propose(&mut node, 1, 1);
    node.poll().unwrap();
    disk.fs.fail_syncs(Some(EIO));
    propose(&mut node, 1, 2);
    let error = node.poll().unwrap_err();
    assert!(matches!(error, Error::Unsynced(_)), "{error}");
    assert!(error.to_string().contains("restart"), "{error}");
    disk.fs.fail_syncs(None);
    let before = disk.fs.contents(&disk.last_file()).unwrap();
    assert_eq!(node.poll().unwrap_err(), error);
    assert!(node.propose(1, 3, Bytes::new()).is_err());
    assert!(node.purge().is_err());
    assert_eq!(disk.fs.contents(&disk.last_file()).unwrap(), before);
    disk.fs.crash(3);
    drop(node);
    let (_node, events) = disk.open_group(1, 0);
    assert_eq!(replayed(&events)[0], "1/1");
    assert!(leads(&events));
}

#[test]
fn damage_is_an_error_and_never_a_loss() {
    let disk = Disk::new();
    let (mut node, _) = disk.open_group(1, 0);
    for seq in 1..=30 {
        propose(&mut node, 1, seq);
        node.poll().unwrap();
    }
    disk.fs.crash(0);
    drop(node);
    let file = disk.last_file();
    let whole = disk.fs.contents(&file).unwrap();
    let used = whole.len() - whole.iter().rev().take_while(|b| **b == 0).count();
    let mut refused = 0;
    // 76: the first batch's kind of compression, which no checksum covers.
    for at in (0..used).step_by(7).chain([76]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        disk.fs.damage(&file, &damaged).unwrap();
        let opened = disk.try_open().and_then(|mut node| {
            node.add_group(1, 0)?;
            node.poll()
        });
        match opened {
            Err(error) => {
                assert!(matches!(error, Error::Corrupt(_)), "{error}");
                refused += 1;
            }
            // The last write looks like one that a crash cut short.
            Ok(events) => assert!(replayed(&events).len() >= 29, "at {at}"),
        }
    }
    assert!(refused > 100, "{refused}");
    disk.fs.damage(&file, &whole).unwrap();
    let (_node, events) = disk.open_group(1, 0);
    assert_eq!(replayed(&events).len(), 30);
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let disk = Disk::new();
    let (mut node, _) = disk.open_group(1, 0);
    for seq in 1..=40 {
        node.propose(1, seq, noise(seq)).unwrap();
        node.poll().unwrap();
    }
    drop(node);
    std::fs::remove_file(disk.config().dir.join("0000000000000002.raftlog")).unwrap();
    let error = disk.try_open().unwrap_err().to_string();
    assert!(error.contains("0000000000000002.raftlog is missing"), "{error}");
    std::fs::remove_file(disk.config().dir.join("0000000000000001.raftlog")).unwrap();
    let mut node = disk.open();
    let error = node.add_group(1, 0).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[test]
fn damage_in_an_older_file_is_an_error() {
    let disk = Disk::new();
    let (mut node, _) = disk.open_group(1, 0);
    for seq in 1..=20 {
        node.propose(1, seq, noise(seq)).unwrap();
        node.poll().unwrap();
    }
    drop(node);
    let first = disk.config().dir.join("0000000000000001.raftlog");
    let whole = disk.fs.contents(&first).unwrap();
    for at in (0..whole.len()).step_by(1_013) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        disk.fs.damage(&first, &damaged).unwrap();
        let opened = disk.try_open().and_then(|mut node| node.add_group(1, 0));
        assert!(matches!(opened, Err(Error::Corrupt(_))), "at {at}: {opened:?}");
    }
    for length in [0, 10, 69, 5_000, whole.len() - 1] {
        disk.fs.damage(&first, &whole[..length]).unwrap();
        let opened = disk.try_open().and_then(|mut node| node.add_group(1, 0));
        assert!(matches!(opened, Err(Error::Corrupt(_))), "cut at {length}: {opened:?}");
    }
}
