//! The rows of one replica, page by page, into the table of another.
//!
//! The pages are read at different times while the replica that gives them goes on: what they make
//! is no state that ever was. That is no matter, since a batch holds the values of rows and not
//! changes to them. Rows of any times from log index `i` on, and then every batch after `i` applied
//! in order, are the state at the end: a row that some batch writes has the last value written,
//! and one that none writes never changed. Nobody reads the rows before that, because a replica
//! leads only once it has applied all that is committed.
//!
//! For the same reason a copy that breaks off does no harm.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Batch, Result, Table};

/// No row begins with a byte below, and none with the last.
const ROWS: (&[u8], &[u8]) = (&[1], &[0xff]);
/// Rows looked at between two checks of a page's size.
const CHUNK: usize = 64;

/// Part of a replica's rows: all those with `from <= key`, and `key < to` if there is more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    from: Bytes,
    to: Option<Bytes>,
    rows: Vec<(Bytes, Bytes)>,
}

impl Page {
    /// Bytes of its rows, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|(k, v)| k.len() + v.len()).sum()
    }
}

impl Table {
    /// Committed rows from `from` on, of about `bytes_max` bytes or a few more.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn page(&self, from: &[u8], bytes_max: usize) -> Result<Page> {
        let from = Bytes::copy_from_slice(if from.is_empty() { ROWS.0 } else { from });
        let (mut rows, mut bytes, mut start) = (Vec::new(), 0, from.clone());
        loop {
            let found = self.scan_committed(&start, ROWS.1, CHUNK)?;
            let is_last = found.len() < CHUNK;
            bytes += found.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
            if let Some((last, _)) = found.last() {
                start = [last, &[0][..]].concat().into();
            }
            rows.extend(found);
            if is_last || bytes >= bytes_max {
                let to = (!is_last).then_some(start);
                return Ok(Page { from, to, rows });
            }
        }
    }
}

/// A copy under way into a table.
#[derive(Clone, Debug)]
pub struct Copying {
    index: u64,
    term: u64,
    next: Bytes,
    is_done: bool,
}

impl Copying {
    /// Of a replica's rows, as of `index` and `term` of the log or later.
    #[must_use]
    pub fn new(index: u64, term: u64) -> Self {
        Self { index, term, next: Bytes::new(), is_done: false }
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// From where on the next page is wanted.
    #[must_use]
    pub fn next(&self) -> &Bytes {
        &self.next
    }

    /// Whether all pages are in the table; they are on disk with its next checkpoint.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// An entry of the log is committed meanwhile, which the table was given, and which may be
    /// older than the rows that it wrote over: all of them are copied anew.
    pub fn restart(&mut self) {
        self.next = Bytes::new();
    }

    /// Takes a page. One that is not the next is ignored.
    ///
    /// # Errors
    /// If the table cannot be read; the page may be given again.
    pub fn take(&mut self, table: &mut Table, page: Page) -> Result<()> {
        let expected = if self.next.is_empty() { ROWS.0 } else { &self.next[..] };
        if self.is_done || page.from != expected {
            return Ok(());
        }
        let end = page.to.clone().unwrap_or_else(|| Bytes::from_static(ROWS.1));
        let mut batch = Batch::default();
        // Rows that are here only.
        let mut start = page.from;
        loop {
            let own = table.scan_committed(&start, &end, CHUNK)?;
            for (key, _) in &own {
                if page.rows.binary_search_by(|(k, _)| k.cmp(key)).is_err() {
                    batch.set(key.clone(), None);
                }
            }
            match own.last() {
                Some((last, _)) if own.len() == CHUNK => start = [last, &[0][..]].concat().into(),
                _ => break,
            }
        }
        for (key, value) in page.rows {
            batch.put(key, value);
        }
        table.apply(0, batch);
        match page.to {
            Some(next) => self.next = next,
            None => {
                table.restore(self.index, self.term);
                self.is_done = true;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{collections::BTreeMap, sync::Arc};

    use everspan_types::ShardId;
    use proptest::prelude::*;

    use super::*;
    use crate::MemStore;

    type Ops = Vec<(u8, Option<u8>)>;

    fn batch(ops: &Ops) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in ops {
            batch.set(vec![b'a' + key % 20, *key], value.map(|v| Bytes::from(vec![v; 30])));
        }
        batch
    }

    fn rows(table: &Table) -> BTreeMap<Bytes, Bytes> {
        table.scan_committed(ROWS.0, ROWS.1, usize::MAX).unwrap().into_iter().collect()
    }

    fn checkpoint(table: &mut Table, store: &MemStore) {
        if let Some(checkpoint) = table.begin_checkpoint() {
            checkpoint.write(store, 7).unwrap();
            table.end_checkpoint(true);
        }
    }

    proptest! {
        /// One replica goes on while another copies its rows, crashing or not; once the second
        /// has applied what came since, both have the same.
        #[test]
        fn a_copy_and_what_came_since_is_the_state(
            log in prop::collection::vec(
                prop::collection::vec((any::<u8>(), any::<Option<u8>>()), 1..6), 1..60),
            behind in 0usize..60,
            at in 0usize..60,
            a_page_each in 1usize..4,
            crash in 0usize..8,
        ) {
            let open = |store: &Arc<MemStore>| Table::open(ShardId(3), store.clone()).unwrap();
            let (ahead_store, store) = (Arc::<MemStore>::default(), Arc::<MemStore>::default());
            let (mut ahead, mut table) = (open(&ahead_store), open(&store));
            let (at, behind) = (at.min(log.len()), behind.min(at).min(log.len()));
            for (n, ops) in log.iter().enumerate() {
                if n < behind {
                    table.apply(n as u64 + 1, batch(ops));
                }
                if n < at {
                    ahead.apply(n as u64 + 1, batch(ops));
                }
            }
            checkpoint(&mut table, &store);
            let mut copying = Copying::new(at as u64, 1);
            let (mut applied, mut pages) = (at, 0);
            while !copying.is_done() {
                let page = ahead.page(copying.next(), 200).unwrap();
                copying.take(&mut table, page).unwrap();
                pages += 1;
                for ops in log.iter().skip(applied).take(a_page_each) {
                    applied += 1;
                    ahead.apply(applied as u64, batch(ops));
                }
                if pages % 3 == 0 {
                    checkpoint(&mut ahead, &ahead_store);
                    checkpoint(&mut table, &store);
                }
                if pages == crash {
                    store.crash_keeping(1);
                    table = open(&store);
                    let from = table.applied() as usize;
                    for (n, ops) in log.iter().enumerate().take(behind).skip(from) {
                        table.apply(n as u64 + 1, batch(ops));
                    }
                    copying = Copying::new(at as u64, 1);
                }
            }
            checkpoint(&mut table, &store);
            store.crash_keeping(0);
            table = open(&store);
            if at > 0 {
                prop_assert_eq!(table.restored().unwrap(), Some((at as u64, 1)));
                prop_assert_eq!(table.applied(), (at.max(behind)) as u64);
            }
            for (n, ops) in log.iter().enumerate().skip(at) {
                table.apply(n as u64 + 1, batch(ops));
                if n >= applied {
                    ahead.apply(n as u64 + 1, batch(ops));
                }
            }
            prop_assert_eq!(rows(&table), rows(&ahead));
        }
    }
}
