//! A store that forgets what was not flushed.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Error, Ops, Result, Store};

/// A store in memory that forgets what was not flushed when it crashes: the simulator's.
#[derive(Debug, Default)]
pub struct MemStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    live: BTreeMap<Bytes, Bytes>,
    /// What each write since the last flush replaced, in the order of writing.
    unflushed: Vec<Vec<(Bytes, Option<Bytes>)>>,
    /// Writes and flushes that still work; none: all do.
    works_for: Option<u64>,
}

impl Inner {
    fn set(&mut self, key: &Bytes, value: &Option<Bytes>) -> Option<Bytes> {
        match value {
            Some(value) => self.live.insert(key.clone(), value.clone()),
            None => self.live.remove(key),
        }
    }

    fn apply(&mut self, ops: Ops<'_>) {
        let mut replaced = Vec::with_capacity(ops.len());
        for (key, value) in ops {
            let old = self.set(key, value);
            replaced.push((key.clone(), old));
        }
        self.unflushed.push(replaced);
    }

    /// One write or flush less.
    fn step(&mut self) -> Result<()> {
        match &mut self.works_for {
            None => Ok(()),
            Some(0) => Err(Error::Io("the store was told to fail".into())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl MemStore {
    /// Loses what was not flushed. Failures set before are over.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// Crashes, but the first `kept` of the writes since the last flush had reached the disk
    /// all the same, as they may in a real store. Each is kept or lost as a whole.
    pub fn crash_keeping(&self, kept: usize) {
        let mut inner = self.inner.lock();
        while inner.unflushed.len() > kept {
            let Some(replaced) = inner.unflushed.pop() else { break };
            for (key, old) in replaced.iter().rev() {
                inner.set(key, old);
            }
        }
        inner.unflushed.clear();
        inner.works_for = None;
    }

    /// Writes since the last flush.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.inner.lock().unflushed.len()
    }

    /// Lets this many writes and flushes through and no more; none: all. A write that fails
    /// leaves a part behind, as [`Store::write`] says that it may.
    pub fn fail_after(&self, steps: Option<u64>) {
        self.inner.lock().works_for = steps;
    }

    /// All rows, for comparisons.
    #[must_use]
    pub fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.inner.lock().live.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

impl Store for MemStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.inner.lock().live.get(key).cloned())
    }

    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let inner = self.inner.lock();
        let range = inner.live.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)));
        let own = |(k, v): (&Bytes, &Bytes)| (k.clone(), v.clone());
        Ok(if reverse {
            range.rev().take(limit).map(own).collect()
        } else {
            range.take(limit).map(own).collect()
        })
    }

    fn write(&self, ops: Ops<'_>) -> Result<()> {
        let mut inner = self.inner.lock();
        let works = inner.step();
        // The end of it, since what is told last is what must not be there without the rest.
        inner.apply(if works.is_ok() { ops } else { &ops[ops.len() / 2..] });
        works
    }

    fn flush(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        inner.unflushed.clear();
        Ok(())
    }

    fn size_on_disk(&self) -> u64 {
        let inner = self.inner.lock();
        inner.live.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &'static str) -> (Bytes, Option<Bytes>) {
        (Bytes::from_static(key.as_bytes()), Some(Bytes::new()))
    }

    #[test]
    fn conforms() {
        crate::conformance(&MemStore::default());
    }

    #[test]
    fn forgets_what_was_not_flushed() {
        let store = MemStore::default();
        assert_eq!(store.write(&[row("kept")]), Ok(()));
        assert_eq!(store.flush(), Ok(()));
        assert_eq!(store.write(&[row("lucky"), (Bytes::from_static(b"kept"), None)]), Ok(()));
        assert_eq!(store.write(&[row("lost"), row("kept")]), Ok(()));
        store.crash_keeping(1);
        assert_eq!(store.rows(), [(Bytes::from_static(b"lucky"), Bytes::new())]);
        assert_eq!(store.write(&[row("lost")]), Ok(()));
        store.crash();
        assert_eq!(store.rows().len(), 1);
    }

    #[test]
    fn fails_on_demand() {
        let store = MemStore::default();
        store.fail_after(Some(1));
        assert_eq!(store.write(&[row("a")]), Ok(()));
        assert!(store.flush().is_err());
        assert!(store.write(&[row("b"), row("c")]).is_err());
        store.fail_after(None);
        assert_eq!(store.flush(), Ok(()));
        let keys: Vec<_> = store.rows().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "c"], "a part of what failed");
    }
}
