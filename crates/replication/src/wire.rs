//! What one node's log says to another's, as bytes: Raft messages of many groups, and notes.
//!
//! ```text
//! 1  group (8 bytes)  length (4 bytes)  the message, as protobuf
//! 2  group (8 bytes)  index (8 bytes)   every replica has the entries up to it
//! 3  group (8 bytes)  node (8 bytes)    its replica there fetches rows
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use protobuf::Message as _;
use raft::eraftpb::Message;

use crate::{Error, Result};

const MESSAGE: u8 = 1;
const NOTE: u8 = 2;
const FETCHING: u8 = 3;

/// One thing that was said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// A message of a group.
    Message(u64, Message),
    /// See [`crate::Node::receive_note`].
    Note(u64, u64),
    /// See [`crate::Node::receive_fetching`].
    Fetching(u64, u64),
}

/// Appends a message.
pub(crate) fn put_message(out: &mut BytesMut, group: u64, message: &Message) -> Result<()> {
    let length = message.compute_size();
    out.put_u8(MESSAGE);
    out.put_u64_le(group);
    out.put_u32_le(length);
    out.reserve(length as usize);
    let written = message.write_to_writer(&mut out.writer());
    written.map_err(|e| Error::Raft(format!("a message does not encode: {e}")))
}

/// Appends a note.
pub(crate) fn put_note(out: &mut BytesMut, group: u64, index: u64) {
    out.put_u8(NOTE);
    out.put_u64_le(group);
    out.put_u64_le(index);
}

/// Appends a sign that `node` fetches rows.
pub(crate) fn put_fetching(out: &mut BytesMut, group: u64, node: u64) {
    out.put_u8(FETCHING);
    out.put_u64_le(group);
    out.put_u64_le(node);
}

/// Reads what came.
///
/// # Errors
/// [`Error::Raft`] if it is nothing of ours.
pub(crate) fn read(mut raw: Bytes) -> Result<Vec<Said>> {
    let bad = || Error::Raft("what a peer sent does not read".into());
    let mut all = Vec::new();
    while raw.has_remaining() {
        let kind = raw.try_get_u8().map_err(|_| bad())?;
        let group = raw.try_get_u64_le().map_err(|_| bad())?;
        all.push(match kind {
            MESSAGE => {
                let length = raw.try_get_u32_le().map_err(|_| bad())? as usize;
                if length > raw.remaining() {
                    return Err(bad());
                }
                let message = raw.split_to(length);
                let message = Message::parse_from_carllerche_bytes(&message);
                Said::Message(group, message.map_err(|_| bad())?)
            }
            NOTE => Said::Note(group, raw.try_get_u64_le().map_err(|_| bad())?),
            FETCHING => Said::Fetching(group, raw.try_get_u64_le().map_err(|_| bad())?),
            _ => return Err(bad()),
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use raft::eraftpb::Entry;

    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let mut message = Message { from: 1, to: 2, term: 3, ..Message::default() };
        let entry = Entry { data: Bytes::from_static(b"data"), ..Entry::default() };
        message.set_entries(vec![entry].into());
        let mut out = BytesMut::new();
        put_message(&mut out, 7, &message).unwrap();
        put_note(&mut out, 8, 9);
        put_message(&mut out, 0, &message).unwrap();
        put_fetching(&mut out, 5, 6);
        let raw = out.freeze();
        let said = read(raw.clone()).unwrap();
        let message = |group| Said::Message(group, message.clone());
        assert_eq!(said, [message(7), Said::Note(8, 9), message(0), Said::Fetching(5, 6)]);
        for length in 1..raw.len() {
            // A part of it is whole where one of the four ends, and else refused.
            let part = read(raw.slice(..length));
            assert!(part.is_err() || part.unwrap().len() < 4);
        }
        assert!(read(Bytes::from_static(b"\x04--------")).is_err());
    }
}
