//! A map that knows which of its entries changed since they were last written.

use std::collections::{BTreeMap, BTreeSet};

use everspan_types::encode;
use serde::Serialize;

use crate::state::{Row, VERSION};

/// An ordered map with a set of touched keys.
#[derive(Clone, Debug)]
pub struct Tracked<K, V> {
    entries: BTreeMap<K, V>,
    touched: BTreeSet<K>,
}

impl<K, V> Default for Tracked<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), touched: BTreeSet::new() }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Tracked<K, V> {
    /// Equal contents; what was touched does not count.
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<K: Ord + Clone, V: Serialize> Tracked<K, V> {
    /// The entry under `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.entries.get(key)
    }

    /// The entry under `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        self.touched.insert(key.clone());
        Some(entry)
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        self.touched.insert(key.clone());
        self.entries.insert(key, value);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.entries.remove(key)?;
        self.touched.insert(key.clone());
        Some(old)
    }

    /// Puts an entry as it was read from the store.
    pub fn load(&mut self, key: K, value: V) {
        self.entries.insert(key, value);
    }

    /// Entries in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.entries.values()
    }

    /// Whether `key` has an entry.
    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The greatest key.
    pub fn last_key(&self) -> Option<&K> {
        self.entries.last_key_value().map(|(k, _)| k)
    }

    /// Removes every entry.
    pub fn clear(&mut self) {
        for (key, _) in std::mem::take(&mut self.entries) {
            self.touched.insert(key);
        }
    }

    /// Appends a row for each touched entry and forgets that they were touched.
    pub fn take_changed(&mut self, kind: u8, key: impl Fn(&K) -> Vec<u8>, rows: &mut Vec<Row>) {
        for k in std::mem::take(&mut self.touched) {
            let mut row = vec![kind];
            row.extend(key(&k));
            rows.push((row, self.entries.get(&k).map(|v| encode(VERSION, v))));
        }
    }
}
