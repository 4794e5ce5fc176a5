//! The rows of a record, and their keys.

use bytes::Bytes;
use everspan_types::{NamespaceId, RunId, Time};

use crate::{Record, Value, attribute::DIVISION, eval::micros_of};

/// Bytes of the order of lists: inverted close time (zero if open), inverted start time,
/// both in microseconds, and the run.
pub(crate) const SORT: usize = 32;

/// A place in the order of lists.
pub(crate) type Sort = [u8; SORT];

/// Indexed attributes by their tag.
pub(crate) const WORKFLOW_ID: u8 = 1;
pub(crate) const WORKFLOW_TYPE: u8 = 2;
pub(crate) const STATUS: u8 = 3;
pub(crate) const RUN_ID: u8 = 4;
/// Keyword attributes share a tag; their name is part of the value.
pub(crate) const KEYWORD: u8 = 5;

/// Value of index rows of runs in a namespace division, so that a count knows which to
/// leave out without reading the record. Other index rows are empty.
const HIDDEN: &[u8] = &[1];

/// Where a record stands in lists.
pub(crate) fn sort(record: &Record) -> Sort {
    sort_of(record.close_time, record.start_time, record.run_id)
}

fn sort_of(close: Option<Time>, start: Time, run: RunId) -> Sort {
    let mut key = [0; SORT];
    // A run never closes before it starts, whatever the clocks say: what a filter says
    // about the start bounds the close as well.
    let close = close.map(|t| t.max(start));
    key[..8].copy_from_slice(&close.map_or(0, inverted).to_be_bytes());
    key[8..16].copy_from_slice(&inverted(start).to_be_bytes());
    key[16..].copy_from_slice(run.0.as_bytes());
    key
}

fn inverted(time: Time) -> u64 {
    !micros_of(time).cast_unsigned()
}

/// Key of a record before SORT.
pub(crate) fn primary(prefix: &[u8], namespace: NamespaceId) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend(namespace.0.as_bytes());
    key.push(b'p');
    key
}

/// Key of an index row before SORT.
pub(crate) fn index(prefix: &[u8], namespace: NamespaceId, tag: u8, value: &[u8]) -> Vec<u8> {
    let mut key = index_from(prefix, namespace, tag, value);
    key.extend([0, 1]);
    key
}

/// What the keys begin with of all index rows whose value begins with `value`.
pub(crate) fn index_from(prefix: &[u8], namespace: NamespaceId, tag: u8, value: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend(namespace.0.as_bytes());
    key.push(b'i');
    key.push(tag);
    for byte in value {
        key.push(*byte);
        if *byte == 0 {
            // Keeps a value apart from the end of another.
            key.push(0xFF);
        }
    }
    key
}

/// A keyword attribute's name and value as one indexed value.
pub(crate) fn keyword(name: &str, value: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.push(0);
    key.extend(value.as_bytes());
    key
}

/// All rows of a record, under keys that begin with `prefix`. A new index is one more `add`
/// here, and a way to it in the planner.
#[must_use]
pub fn rows(prefix: &[u8], record: &Record) -> Vec<(Bytes, Bytes)> {
    let sort = sort(record);
    let mut main = primary(prefix, record.namespace);
    main.extend(sort);
    let mut rows = vec![(Bytes::from(main), Bytes::from(record.to_bytes()))];
    let is_hidden = record.search_attributes.contains_key(DIVISION);
    let mut add = |tag: u8, value: &[u8]| {
        let mut key = index(prefix, record.namespace, tag, value);
        key.extend(sort);
        rows.push((Bytes::from(key), Bytes::from_static(if is_hidden { HIDDEN } else { &[] })));
    };
    add(WORKFLOW_ID, record.workflow_id.as_bytes());
    add(WORKFLOW_TYPE, record.workflow_type.as_bytes());
    add(STATUS, &record.status.to_be_bytes());
    add(RUN_ID, record.run_id.0.as_bytes());
    for (name, value) in &record.search_attributes {
        match value {
            Value::Keyword(v) => add(KEYWORD, &keyword(name, v)),
            Value::KeywordList(all) => {
                let mut all: Vec<_> = all.iter().collect();
                all.sort_unstable();
                all.dedup();
                for v in all {
                    add(KEYWORD, &keyword(name, v));
                }
            }
            _ => {}
        }
    }
    rows
}

/// The puts and deletes that bring the index from `old` to `new`: nothing for rows that
/// stay as they are.
#[must_use]
pub fn change(
    prefix: &[u8],
    old: Option<&Record>,
    new: Option<&Record>,
) -> Vec<(Bytes, Option<Bytes>)> {
    let old = old.map(|r| rows(prefix, r)).unwrap_or_default();
    let new = new.map(|r| rows(prefix, r)).unwrap_or_default();
    let gone = old.iter().filter(|(key, _)| !new.iter().any(|(k, _)| k == key));
    let mut ops: Vec<_> = gone.map(|(key, _)| (key.clone(), None)).collect();
    ops.extend(new.into_iter().filter(|row| !old.contains(row)).map(|(k, v)| (k, Some(v))));
    ops
}
