//! What the tests of the log share.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use everspan_replication::{Config, Error, Event, Node, faulty::FaultyFs};

/// A log over a file system that can fail.
pub(crate) struct Disk {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) fs: Arc<FaultyFs>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), fs: Arc::default() }
    }

    pub(crate) fn config(&self) -> Config {
        let dir = self.dir.path().join("log");
        Config { file_bytes: 64 << 10, purge_bytes: 256 << 10, ..Config::new(dir) }
    }

    pub(crate) fn try_open(&self) -> Result<Node<FaultyFs>, Error> {
        Node::open_with(&self.config(), self.fs.clone())
    }

    pub(crate) fn open(&self) -> Node<FaultyFs> {
        self.try_open().unwrap()
    }

    /// Opens with one group, and what is told first.
    pub(crate) fn open_group(
        &self,
        group: u64,
        applied: u64,
    ) -> (Node<FaultyFs>, Vec<(u64, Event)>) {
        let mut node = self.open();
        node.add_group(group, applied).unwrap();
        let events = node.poll().unwrap();
        (node, events)
    }

    /// The append file written last.
    pub(crate) fn last_file(&self) -> PathBuf {
        let files = self.fs.files().into_iter().map(|(path, _)| path);
        files.filter(|p| p.extension().is_some_and(|e| e == "raftlog")).max().unwrap()
    }
}

pub(crate) fn propose(node: &mut Node<FaultyFs>, group: u64, seq: u64) {
    node.propose(group, seq, data(group, seq)).unwrap();
}

pub(crate) fn data(group: u64, seq: u64) -> Bytes {
    // Long enough to span sectors.
    Bytes::from(format!("{group}/{seq}{}", " ".repeat(seq as usize * 97 % 1500)))
}

/// 9,000 bytes that do not compress, so that they fill files.
pub(crate) fn noise(seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x2545_F491_4F6C_DD1D) | 1;
    let noise = (0..9_000).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    noise.collect::<Vec<_>>().into()
}

/// Sequence numbers and indexes of own proposals told.
pub(crate) fn own(events: &[(u64, Event)]) -> Vec<(u64, u64)> {
    let own = |e: &(u64, Event)| match &e.1 {
        Event::Committed { seq: Some(seq), index, .. } => Some((*seq, *index)),
        _ => None,
    };
    events.iter().filter_map(own).collect()
}

/// What was proposed in earlier terms, as it is told to be applied.
pub(crate) fn replayed(events: &[(u64, Event)]) -> Vec<String> {
    let text = |e: &(u64, Event)| match &e.1 {
        Event::Committed { seq: None, data, .. } if !data.is_empty() => {
            Some(String::from_utf8(data.to_vec()).unwrap().trim_end().to_owned())
        }
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

pub(crate) fn leads(events: &[(u64, Event)]) -> bool {
    matches!(events.last(), Some((_, Event::Leader { .. })))
}
