//! A log as every release wrote it: raft-engine's files, and what we put into them.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::{fs, path::Path};

use bytes::Bytes;
use everspan_replication::{Config, Event, Node};
use everspan_types::golden::{Kind, Rows};

/// The version of the whole; counted up with the data directory's format.
const VERSION: u8 = 1;
const GROUPS: [u64; 2] = [0, 3];

/// What a log tells when it is opened: data by group.
fn told(dir: &Path) -> Result<Vec<(u64, Bytes)>, everspan_replication::Error> {
    let mut node = Node::open(&Config::new(dir))?;
    for group in GROUPS {
        node.add_group(group, 0)?;
    }
    let events = node.poll()?;
    let data = |(group, event)| match event {
        Event::Committed { data, .. } if !data.is_empty() => Some((group, data)),
        _ => None,
    };
    Ok(events.into_iter().filter_map(data).collect())
}

fn files(dir: &Path) -> Rows {
    let mut files: Rows = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "raftlog" || e == "rewrite"))
        .map(|path| {
            (path.file_name().unwrap().as_encoded_bytes().to_vec(), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn golden_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut sample = Vec::new();
    {
        let mut node = Node::open(&Config::new(dir.path())).unwrap();
        for group in GROUPS {
            node.add_group(group, 0).unwrap();
        }
        node.poll().unwrap();
        for group in GROUPS {
            let data = Bytes::from(format!("batch of {group}"));
            node.propose(group, 1, data.clone()).unwrap();
            sample.push((group, data));
        }
        node.poll().unwrap();
    }
    let rows = files(dir.path());
    let kind = Kind { manifest_dir: env!("CARGO_MANIFEST_DIR"), name: "log", version: VERSION };
    kind.check(&sample, &rows, |rows| {
        let dir = tempfile::tempdir().unwrap();
        for (name, contents) in rows {
            let name = String::from_utf8(name.clone()).unwrap();
            fs::write(dir.path().join(name), contents).unwrap();
        }
        told(dir.path())
    });
}
