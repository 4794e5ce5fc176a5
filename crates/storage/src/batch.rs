//! One atomic change, and its bytes in the log.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Error, Result};

/// Format version of an encoded batch.
const VERSION: u8 = 1;
/// Version and checksum.
const HEADER: usize = 5;
/// Length that stands for "delete".
const DELETED: u32 = u32::MAX;

/// Puts and deletes that happen together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Key, and new value or none if the row goes. Later entries win.
    pub ops: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    /// Writes a row.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push((key.into(), Some(value.into())));
    }

    /// Removes a row.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push((key.into(), None));
    }

    /// Writes or removes a row.
    pub fn set(&mut self, key: impl Into<Bytes>, value: Option<Bytes>) {
        self.ops.push((key.into(), value));
    }

    /// Appends another batch's operations.
    pub fn merge(&mut self, later: Batch) {
        if self.ops.is_empty() {
            self.ops = later.ops;
        } else {
            self.ops.extend(later.ops);
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The bytes that go into the log: version, CRC-32 of the rest, then for each operation
    /// key length, value length, key, value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let size: usize =
            self.ops.iter().map(|(k, v)| 8 + k.len() + v.as_ref().map_or(0, Bytes::len)).sum();
        let mut out = BytesMut::with_capacity(HEADER + size);
        out.put_u8(VERSION);
        out.put_u32_le(0);
        for (key, value) in &self.ops {
            // Keys and values are bounded by the largest message, far below 4 GiB.
            out.put_u32_le(u32::try_from(key.len()).unwrap_or(DELETED - 1));
            match value {
                Some(value) => {
                    out.put_u32_le(u32::try_from(value.len()).unwrap_or(DELETED - 1));
                    out.put_slice(key);
                    out.put_slice(value);
                }
                None => {
                    out.put_u32_le(DELETED);
                    out.put_slice(key);
                }
            }
        }
        let crc = crc32fast::hash(&out[HEADER..]);
        out[1..HEADER].copy_from_slice(&crc.to_le_bytes());
        out.freeze()
    }

    /// Reads a batch back; keys and values share the memory of `raw`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for anything but an encoded batch; never panics.
    pub fn decode(raw: &Bytes) -> Result<Batch> {
        let corrupt = |what: &str| Error::Corrupt(format!("batch: {what}"));
        if raw.len() < HEADER {
            return Err(corrupt("truncated header"));
        }
        if raw[0] != VERSION {
            return Err(corrupt(&format!("version {} is not known", raw[0])));
        }
        if crc32fast::hash(&raw[HEADER..]).to_le_bytes() != raw[1..HEADER] {
            return Err(corrupt("checksum mismatch"));
        }
        let mut rest = raw.slice(HEADER..);
        let mut ops = Vec::new();
        let take = |rest: &mut Bytes, n: usize| {
            if n > rest.len() { Err(corrupt("truncated")) } else { Ok(rest.split_to(n)) }
        };
        let number = |rest: &mut Bytes| {
            let raw = take(rest, 4)?;
            let raw: [u8; 4] = raw.as_ref().try_into().map_err(|_| corrupt("truncated"))?;
            Ok::<u32, Error>(u32::from_le_bytes(raw))
        };
        while !rest.is_empty() {
            let key_len = number(&mut rest)? as usize;
            let value_len = number(&mut rest)?;
            let key = take(&mut rest, key_len)?;
            let value = match value_len {
                DELETED => None,
                n => Some(take(&mut rest, n as usize)?),
            };
            ops.push((key, value));
        }
        Ok(Batch { ops })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_back_what_was_written(
            ops in prop::collection::vec(
                (any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..20)
        ) {
            let batch = Batch {
                ops: ops.into_iter().map(|(k, v)| (k.into(), v.map(Bytes::from))).collect(),
            };
            prop_assert_eq!(Batch::decode(&batch.encode()).unwrap(), batch);
        }

        #[test]
        fn refuses_what_was_damaged(
            key in any::<Vec<u8>>(), value in any::<Vec<u8>>(), at in any::<usize>(), bit in 0u8..8
        ) {
            let mut batch = Batch::default();
            batch.put(key, value);
            let mut raw = batch.encode().to_vec();
            let at = at % raw.len();
            raw[at] ^= 1 << bit;
            prop_assert!(Batch::decode(&raw.into()).is_err());
        }

        #[test]
        fn never_panics(raw in any::<Vec<u8>>()) {
            let _ = Batch::decode(&raw.into());
        }
    }
}
