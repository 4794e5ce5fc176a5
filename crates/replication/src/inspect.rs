//! A look at the log's files before raft-engine opens them.
//!
//! A crash leaves the last write torn, and raft-engine cuts the last file off at the first
//! batch that fails its checksum. It does so wherever that batch is: a damaged sector in the
//! middle of the last file would silently take everything after it along. And where a file is
//! missing it lets go of all that come before. Both are told apart from a crash here.
//!
//! Every write to the append files is synced before the next begins (`Node` sees to that), so
//! that nothing whole can follow a torn batch.
//!
//! The format, from raft-engine 0.4.2's `log_batch.rs` and `format.rs`: a file is a header of 69
//! bytes and batches. A batch is its length with a byte for the kind of compression below it,
//! and the offset of its footer, both 64 bits, big-endian; entries with their CRC-32; the
//! footer with its CRC-32, xored with the file's number. CRCs are little-endian.

use std::{
    fs,
    io::{ErrorKind, Read},
    path::Path,
    sync::Arc,
};

use raft_engine::env::{FileSystem, Permission};

use crate::{Error, Result};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// Version and alignment after the magic, as `Node` has them written.
const FORMAT: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
const FILE_HEADER: usize = MAGIC.len() + FORMAT.len();
const BATCH_HEADER: usize = 16;
const CRC: usize = 4;
/// lz4 is the last kind of compression.
const COMPRESSION_MAX: u64 = 1;

/// Looks for damage that no crash explains.
///
/// # Errors
/// [`Error::Corrupt`] names the file and the place; [`Error::Io`] if it cannot be read.
pub(crate) fn inspect<F: FileSystem>(dir: &Path, fs: &Arc<F>) -> Result<()> {
    let io = |e: std::io::Error| Error::Io(format!("{}: {e}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
    };
    let (mut append, mut rewrite) = (Vec::new(), Vec::new());
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        let Some((number, kind)) = name.to_str().and_then(|n| n.split_once('.')) else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match kind {
            "raftlog" => append.push(number),
            "rewrite" => rewrite.push(number),
            _ => {}
        }
    }
    for (numbers, kind) in [(&mut append, "raftlog"), (&mut rewrite, "rewrite")] {
        numbers.sort_unstable();
        if let Some(pair) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
            let missing = format!("{:016}.{kind}", pair[0] + 1);
            return Err(Error::Corrupt(format!("{}: {missing} is missing", dir.display())));
        }
    }
    let Some(last) = append.last() else { return Ok(()) };
    let path = dir.join(format!("{last:016}.raftlog"));
    let data = read(&path, fs).map_err(|e| Error::Io(format!("{}: {e}", path.display())))?;
    // raft-engine takes the low half, too.
    check(&data, *last as u32).map_err(|(broken, whole)| {
        Error::Corrupt(format!(
            "{}: what was written at byte {broken} is damaged, and what was written later, at \
             byte {whole}, is not: this is no write that a crash cut short",
            path.display()
        ))
    })
}

fn read<F: FileSystem>(path: &Path, fs: &Arc<F>) -> std::io::Result<Vec<u8>> {
    let handle = Arc::new(fs.open(path, Permission::ReadOnly)?);
    let mut data = Vec::new();
    fs.new_reader(handle)?.read_to_end(&mut data)?;
    Ok(data)
}

/// Where the first broken batch begins, and where a whole one after it, if there is such.
fn check(data: &[u8], signature: u32) -> Result<(), (usize, usize)> {
    let has_header = data.strip_prefix(MAGIC).is_some_and(|rest| rest.starts_with(&FORMAT));
    let mut at = if has_header { FILE_HEADER } else { 0 };
    while let Some(length) = batch(data, at, signature) {
        at += length;
    }
    // Space reserved ahead is zeros, in which no batch begins.
    match (at + 1..data.len()).find(|p| batch(data, *p, signature).is_some()) {
        None => Ok(()),
        Some(whole) => Err((at, whole)),
    }
}

/// The length of the whole batch at `at`, if there is one.
fn batch(data: &[u8], at: usize, signature: u32) -> Option<usize> {
    let rest = data.get(at..)?;
    let number = |n: usize| -> Option<u64> {
        Some(u64::from_be_bytes(rest.get(n..n + 8)?.try_into().ok()?))
    };
    let first = number(0)?;
    let length = usize::try_from(first >> 8).ok()?;
    if first & 0xFF > COMPRESSION_MAX || length <= BATCH_HEADER {
        return None;
    }
    let batch = rest.get(..length)?;
    let footer = usize::try_from(number(8)?).ok()?;
    if footer < BATCH_HEADER {
        return None;
    }
    let entries = batch.get(BATCH_HEADER..footer)?;
    let is_whole =
        is_sound(batch.get(footer..)?, signature) && (entries.is_empty() || is_sound(entries, 0));
    is_whole.then_some(length)
}

fn is_sound(block: &[u8], signature: u32) -> bool {
    let Some((body, crc)) = block.split_last_chunk::<CRC>() else { return false };
    !body.is_empty() && crc32fast::hash(body) == u32::from_le_bytes(*crc) ^ signature
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch_of(entries: &[u8], signature: u32) -> Vec<u8> {
        let mut raw = Vec::new();
        let block = |raw: &mut Vec<u8>, body: &[u8], signature: u32| {
            raw.extend_from_slice(body);
            raw.extend_from_slice(&(crc32fast::hash(body) ^ signature).to_le_bytes());
        };
        let footer = BATCH_HEADER + entries.len() + CRC;
        let length = footer + 3 + CRC;
        raw.extend_from_slice(&((length as u64) << 8).to_be_bytes());
        raw.extend_from_slice(&(footer as u64).to_be_bytes());
        block(&mut raw, entries, 0);
        block(&mut raw, b"foo", signature);
        raw
    }

    fn file(signature: u32) -> Vec<u8> {
        let mut raw = MAGIC.to_vec();
        raw.extend_from_slice(&FORMAT);
        for text in [b"one".as_slice(), b"two", b"three"] {
            raw.extend_from_slice(&batch_of(text, signature));
        }
        raw.extend_from_slice(&[0; 100]);
        raw
    }

    #[test]
    fn a_torn_end_is_no_damage() {
        let whole = file(7);
        assert_eq!(check(&whole, 7), Ok(()));
        let last = FILE_HEADER + batch_of(b"one", 7).len() + batch_of(b"two", 7).len();
        for cut in [0, 5, FILE_HEADER, last, last + 3, last + 20] {
            assert_eq!(check(&whole[..cut], 7), Ok(()), "cut at {cut}");
        }
        for at in last..last + 8 {
            let mut torn = whole.clone();
            torn[at] ^= 0x55;
            assert_eq!(check(&torn, 7), Ok(()), "torn at {at}");
        }
    }

    #[test]
    fn damage_before_a_whole_batch_is_found_wherever_it_is() {
        let whole = file(7);
        let last = FILE_HEADER + batch_of(b"one", 7).len() + batch_of(b"two", 7).len();
        // The kind of compression is under no checksum; entries do not decode where it is wrong.
        let kinds = [FILE_HEADER + 7, FILE_HEADER + batch_of(b"one", 7).len() + 7];
        for at in (0..last).filter(|at| !kinds.contains(at)) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(check(&damaged, 7).is_err(), "damage at {at}");
        }
    }

    #[test]
    fn batches_of_another_file_are_not_whole() {
        let mut raw = file(7);
        raw[FILE_HEADER] ^= 1;
        assert_eq!(check(&raw, 8), Ok(()));
    }
}
