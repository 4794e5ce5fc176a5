//! Pages and counts, read off the index in order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fmt,
};

use bytes::Bytes;
use everspan_proto::{
    common::Payload,
    workflowservice::{
        CountWorkflowExecutionsResponse, count_workflow_executions_response::AggregationGroup,
    },
};
use everspan_types::{Error, NamespaceId, Result, decode, encode};
use serde::{Deserialize, Serialize};

use crate::{
    Query, Record, Value,
    attribute::{DIVISION, status_name},
    parse::Grouping,
    plan::{Plan, Span, Way, Window},
    rows::{self, SORT, Sort},
};

/// Rows read at a time, over all the ways that are merged.
const CHUNK: usize = 256;
/// Fewest rows read at a time of each way that is merged.
const CHUNK_MIN: usize = 8;
/// Most index rows that are brought into the order of lists in memory; if values with a
/// prefix have more, records are read instead.
const PREFIX_ROWS_MAX: usize = 4096;

/// Ordered rows, as a shard has them.
pub trait Rows {
    /// Rows with `start <= key < end` in order, at most `limit`. Fewer only if there are no
    /// more.
    ///
    /// # Errors
    /// If they cannot be read.
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>>;
    /// The value under `key`.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;
}

/// The place of a run in the order of lists; means the same on every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor(Sort);

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListPage {
    /// In the order of lists.
    pub records: Vec<Record>,
    /// The place that the page reaches to, if there may be more after it.
    pub next: Option<Cursor>,
}

/// What the runs of one count have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Group {
    /// A `WorkflowExecutionStatus`.
    Status(i32),
    /// A namespace division; none for ordinary runs.
    Division(Option<String>),
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Group::Status(status) => f.write_str(status_name(*status)),
            Group::Division(name) => f.write_str(name.as_deref().unwrap_or_default()),
        }
    }
}

impl Group {
    /// The API's form.
    #[must_use]
    pub fn to_payload(&self) -> Payload {
        match self {
            Group::Division(None) => {
                Payload { data: "null".into(), ..Value::Keyword(String::new()).to_payload() }
            }
            group => Value::Keyword(group.to_string()).to_payload(),
        }
    }
}

/// Counts by group; without grouping, one group without a name.
pub type Counts = BTreeMap<Option<Group>, i64>;

/// A count in the API's form.
#[must_use]
pub fn count_response(counts: Counts) -> CountWorkflowExecutionsResponse {
    let count = counts.values().sum();
    let groups = counts.into_iter().filter_map(|(group, count)| {
        Some(AggregationGroup { group_values: vec![group?.to_payload()], count })
    });
    CountWorkflowExecutionsResponse { count, groups: groups.collect() }
}

/// A client's way to the next page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageToken {
    /// Checksum of the query that it belongs to.
    pub query: u32,
    /// Where to go on.
    pub cursor: Cursor,
}

impl PageToken {
    /// The opaque bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        encode(1, self).into()
    }

    /// From the opaque bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for anything but a token of ours.
    pub fn from_bytes(raw: &[u8]) -> Result<Self> {
        decode(1, raw).map_err(|_| Error::invalid("unable to deserialize page token"))
    }
}

/// One sequence of rows in the order of lists.
struct Stream<'a> {
    rows: &'a dyn Rows,
    /// Key before SORT.
    base: Vec<u8>,
    /// Parts of the keys that are yet to be read: first and one past the last.
    ranges: VecDeque<(Vec<u8>, Vec<u8>)>,
    read: VecDeque<(Sort, Bytes)>,
    chunk: usize,
}

impl<'a> Stream<'a> {
    fn new(
        rows: &'a dyn Rows,
        base: Vec<u8>,
        window: Window,
        after: Option<&Cursor>,
        chunk: usize,
    ) -> Self {
        let within = |part: [u8; 16], more: &[u8]| [&base, &part[..], more].concat();
        // Every key is shorter than a part and this.
        let last = [0xFF; SORT];
        let mut ranges = VecDeque::new();
        if let Some((from, to)) = inverted(window.open) {
            let open = |time: u64| (u128::from(time)).to_be_bytes();
            ranges.push_back((within(open(from), &[]), within(open(to), &last)));
        }
        if let Some((from, to)) = inverted(window.closed) {
            let closed =
                |time: u64, rest: u64| (u128::from(time) << 64 | u128::from(rest)).to_be_bytes();
            // Zero is for open runs.
            let from = closed(from.max(1), 0);
            ranges.push_back((within(from, &[]), within(closed(to, u64::MAX), &last)));
        }
        if let Some(Cursor(sort)) = after {
            let next = [&base, &sort[..], &[0]].concat();
            ranges.retain_mut(|(from, to)| {
                if *from < next {
                    from.clone_from(&next);
                }
                from < to
            });
        }
        Self { rows, base, ranges, read: VecDeque::new(), chunk }
    }

    /// Of index rows already read.
    fn of(rows: &'a dyn Rows, sorts: Vec<Sort>) -> Self {
        let read = sorts.into_iter().map(|sort| (sort, Bytes::new())).collect();
        Self { rows, base: Vec::new(), ranges: VecDeque::new(), read, chunk: 0 }
    }

    fn next(&mut self) -> Result<Option<(Sort, Bytes)>> {
        while self.read.is_empty() {
            let Some((from, to)) = self.ranges.front_mut() else { return Ok(None) };
            let found = self.rows.scan(from, to, self.chunk)?;
            match found.last() {
                Some((last, _)) if found.len() >= self.chunk => {
                    *from = [last.as_ref(), &[0]].concat();
                    // The first rows are often all that is wanted; then it is many.
                    self.chunk = (self.chunk * 4).min(CHUNK.max(self.chunk));
                }
                _ => {
                    self.ranges.pop_front();
                }
            }
            for (key, value) in found {
                self.read.push_back((sort_in(&key, self.base.len())?, value));
            }
        }
        Ok(self.read.pop_front())
    }
}

fn sort_in(key: &[u8], from: usize) -> Result<Sort> {
    let sort = key.get(from..).and_then(|sort| sort.try_into().ok());
    sort.ok_or_else(|| Error::internal("list row: key has another length"))
}

/// A span in the order of lists, latest first.
fn inverted(span: Span) -> Option<(u64, u64)> {
    if span.is_empty() {
        return None;
    }
    let invert = |micros: i64| !u64::try_from(micros).unwrap_or(0);
    Some((invert(span.1), invert(span.0)))
}

/// Index rows of all values with a prefix, brought into the order of lists. Nothing if
/// there are too many.
fn prefixed<'a>(
    rows: &'a dyn Rows,
    base: &[u8],
    after: Option<&Cursor>,
) -> Result<Option<Stream<'a>>> {
    let end = [base, &[0xFF]].concat();
    let found = rows.scan(base, &end, PREFIX_ROWS_MAX + 1)?;
    if found.len() > PREFIX_ROWS_MAX {
        return Ok(None);
    }
    let mut sorts = Vec::with_capacity(found.len());
    for (key, _) in found {
        sorts.push(sort_in(&key, key.len().saturating_sub(SORT))?);
    }
    sorts.retain(|sort| after.is_none_or(|Cursor(after)| sort > after));
    sorts.sort_unstable();
    Ok(Some(Stream::of(rows, sorts)))
}

/// Walks the records that match, in order, until `visit` says stop.
fn walk(
    rows: &dyn Rows,
    prefix: &[u8],
    namespace: NamespaceId,
    query: &Query,
    after: Option<&Cursor>,
    wanted: usize,
    mut visit: impl FnMut(Record) -> bool,
) -> Result<()> {
    let Plan { way, window } = query.plan();
    let primary = rows::primary(prefix, namespace);
    let mut streams = match &way {
        Way::Values(values) => {
            let chunk = (wanted.min(CHUNK) / values.len().max(1)).max(CHUNK_MIN);
            let base = |(tag, value): &(u8, Vec<u8>)| rows::index(prefix, namespace, *tag, value);
            values.iter().map(|v| Stream::new(rows, base(v), window, after, chunk)).collect()
        }
        Way::Prefix(tag, value) => {
            let base = rows::index_from(prefix, namespace, *tag, value);
            prefixed(rows, &base, after)?.into_iter().collect()
        }
        Way::Records => Vec::new(),
    };
    if streams.is_empty() && !matches!(way, Way::Values(_)) {
        let chunk = wanted.clamp(CHUNK_MIN, CHUNK);
        streams.push(Stream::new(rows, primary.clone(), window, after, chunk));
    }
    let mut heads = BinaryHeap::new();
    for (i, stream) in streams.iter_mut().enumerate() {
        heads.extend(stream.next()?.map(|(sort, raw)| Reverse((sort, i, raw))));
    }
    let mut done = None;
    while let Some(Reverse((sort, i, raw))) = heads.pop() {
        // A list of keywords has a row for each.
        if done.replace(sort) != Some(sort) {
            let raw = if streams[i].base == primary {
                raw
            } else {
                let record = rows.get(&[&primary, &sort[..]].concat())?;
                record.ok_or_else(|| Error::internal("list row: index without record"))?
            };
            let record = Record::from_bytes(&raw)?;
            if query.matches(&record) && !visit(record) {
                break;
            }
        }
        heads.extend(streams[i].next()?.map(|(sort, raw)| Reverse((sort, i, raw))));
    }
    Ok(())
}

/// A page of at most `limit` records after `after`.
///
/// # Errors
/// If rows cannot be read.
pub fn list(
    rows: &dyn Rows,
    prefix: &[u8],
    namespace: NamespaceId,
    query: &Query,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<ListPage> {
    let mut records = Vec::new();
    walk(rows, prefix, namespace, query, after, limit.saturating_add(1), |record| {
        records.push(record);
        records.len() <= limit
    })?;
    Ok(cut(records, limit, None))
}

/// Keeps `limit` records; one more says that there is a next page, as does `next`.
fn cut(mut records: Vec<Record>, limit: usize, next: Option<Cursor>) -> ListPage {
    let has_more = records.len() > limit;
    records.truncate(limit);
    let last = records.last().filter(|_| has_more).map(|r| Cursor(rows::sort(r)));
    ListPage { records, next: last.or(next) }
}

/// Counts matching records, by group if the query groups them.
///
/// # Errors
/// If rows cannot be read.
pub fn count(
    rows: &dyn Rows,
    prefix: &[u8],
    namespace: NamespaceId,
    query: &Query,
) -> Result<Counts> {
    let mut counts = Counts::new();
    let group = |status: i32, division: Option<&Value>| match query.grouping {
        Grouping::None => None,
        Grouping::Status => Some(Group::Status(status)),
        Grouping::Division => Some(Group::Division(division.and_then(|v| match v {
            Value::Keyword(name) => Some(name.clone()),
            _ => None,
        }))),
    };
    if let Some(statuses) = query.statuses() {
        for status in statuses {
            let base = rows::index(prefix, namespace, rows::STATUS, &status.to_be_bytes());
            let mut stream = Stream::new(rows, base, query.plan().window, None, CHUNK);
            while let Some((_, hidden)) = stream.next()? {
                if hidden.is_empty() {
                    *counts.entry(group(status, None)).or_default() += 1;
                }
            }
        }
        return Ok(counts);
    }
    walk(rows, prefix, namespace, query, None, CHUNK, |record| {
        let group = group(record.status, record.search_attributes.get(DIVISION));
        *counts.entry(group).or_default() += 1;
        true
    })?;
    Ok(counts)
}

/// One page out of the pages of several shards, all for one query, cursor and limit.
#[must_use]
pub fn merge_pages(pages: Vec<ListPage>, limit: usize) -> ListPage {
    // What lies after the end of any page is not known yet.
    let known = pages.iter().filter_map(|p| p.next).min();
    let mut records: Vec<Record> = pages.into_iter().flat_map(|p| p.records).collect();
    if let Some(Cursor(known)) = known {
        records.retain(|r| rows::sort(r) <= known);
    }
    records.sort_by_cached_key(rows::sort);
    cut(records, limit, known)
}

/// One count out of the counts of several shards.
#[must_use]
pub fn merge_counts(all: Vec<Counts>) -> Counts {
    let mut sum = Counts::new();
    for (group, n) in all.into_iter().flatten() {
        *sum.entry(group).or_default() += n;
    }
    sum
}
