//! The envelope around every record of ours that is stored or handed out as an opaque
//! token: format version, checksum, bincode body.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes that are not a record of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Shorter than the header.
    #[error("record is truncated")]
    Truncated,
    /// The body does not match its checksum.
    #[error("record is corrupt: checksum mismatch")]
    Checksum,
    /// Written by a newer release.
    #[error("record has version {found}, this release reads up to {known}")]
    Version {
        /// The version found in the record.
        found: u8,
        /// The newest version this release reads.
        known: u8,
    },
    /// The body does not decode.
    #[error("record does not decode: {0}")]
    Body(String),
}

const HEADER: usize = 5;

fn config() -> impl bincode::config::Config {
    // A record is bounded by the largest gRPC message; the limit keeps a corrupt length
    // from asking for more memory than that.
    bincode::config::standard().with_limit::<{ 256 << 20 }>()
}

/// Encodes `value` under format version `version`.
///
/// # Panics
/// Never for the types of this project: their serialisation is infallible.
#[must_use]
pub fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut out = vec![0u8; HEADER];
    out[0] = version;
    if bincode::serde::encode_into_std_write(value, &mut out, config()).is_err() {
        unreachable!("plain structs always serialise into memory");
    }
    let crc = crc32fast::hash(&out[HEADER..]);
    out[1..HEADER].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Decodes a record of format version `version`.
///
/// # Errors
/// See [`EnvelopeError`]; never panics, whatever the bytes.
pub fn decode<T: DeserializeOwned>(version: u8, raw: &[u8]) -> Result<T, EnvelopeError> {
    let (header, body) = raw.split_at_checked(HEADER).ok_or(EnvelopeError::Truncated)?;
    if header[0] != version {
        return Err(EnvelopeError::Version { found: header[0], known: version });
    }
    if crc32fast::hash(body).to_le_bytes() != header[1..HEADER] {
        return Err(EnvelopeError::Checksum);
    }
    let (value, read) = bincode::serde::decode_from_slice(body, config())
        .map_err(|e| EnvelopeError::Body(e.to_string()))?;
    if read != body.len() {
        return Err(EnvelopeError::Body("trailing bytes".into()));
    }
    Ok(value)
}
