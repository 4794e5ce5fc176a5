//! What a store of rows must do.

use bytes::Bytes;

/// What can go wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk or the file system refused.
    #[error("storage: {0}")]
    Io(String),
    /// What was read is not what was written.
    #[error("storage is damaged: {0}")]
    Corrupt(String),
}

/// The outcome of a storage operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Puts and deletes, in order.
pub type Ops<'a> = &'a [(Bytes, Option<Bytes>)];

/// An ordered map on disk. Narrow on purpose, so that another engine can be put beside
/// sled; [`conformance`] says what it must do.
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// The value under `key`.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// Rows with `start <= key < end`, ascending or, with `reverse`, descending; at most
    /// `limit` of them.
    ///
    /// # Errors
    /// If they cannot be read or are damaged.
    fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>>;

    /// Applies all of `ops`. Durable only after [`Store::flush`].
    ///
    /// # Errors
    /// If the write failed; then any of them, in any order, may be there, also after a crash
    /// (measured with sled on a full disk).
    fn write(&self, ops: Ops<'_>) -> Result<()>;

    /// Makes every write so far durable.
    ///
    /// # Errors
    /// If any of them may not be.
    fn flush(&self) -> Result<()>;

    /// Bytes on disk.
    fn size_on_disk(&self) -> u64;
}

/// What any [`Store`] must do; called by the tests of each.
///
/// # Panics
/// If it does not.
pub fn conformance(store: &dyn Store) {
    let row = |k: &str, v: &str| (Bytes::from(k.to_owned()), Some(Bytes::from(v.to_owned())));
    let keys = |rows: Vec<(Bytes, Bytes)>| -> Vec<String> {
        rows.iter().map(|(k, _)| String::from_utf8_lossy(k).into_owned()).collect()
    };
    let ok = |r: Result<()>| assert_eq!(r, Ok(()));
    ok(store.write(&[row("b", "2"), row("a", "1"), row("d", "4"), row("c", "3")]));
    assert_eq!(store.get(b"a"), Ok(Some(Bytes::from_static(b"1"))));
    assert_eq!(store.get(b"missing"), Ok(None));
    let scan = |start: &[u8], end: &[u8], limit, reverse| {
        keys(store.scan(start, end, limit, reverse).unwrap_or_default())
    };
    assert_eq!(scan(b"a", b"d", 10, false), ["a", "b", "c"], "the end is not included");
    assert_eq!(scan(b"a", b"z", 2, false), ["a", "b"]);
    assert_eq!(scan(b"a", b"d", 2, true), ["c", "b"]);
    assert_eq!(scan(b"d", b"a", 10, false), [""; 0], "an empty range is no error");
    ok(store.write(&[row("a", "5"), (Bytes::from_static(b"b"), None)]));
    assert_eq!(store.get(b"a"), Ok(Some(Bytes::from_static(b"5"))));
    assert_eq!(scan(b"", b"z", 10, false), ["a", "c", "d"]);
    ok(store.write(&[row("x", "1"), (Bytes::from_static(b"x"), None)]));
    assert_eq!(store.get(b"x"), Ok(None), "later operations win");
    ok(store.write(&[row("e", "")]));
    assert_eq!(store.get(b"e"), Ok(Some(Bytes::new())), "an empty value is a value");
    ok(store.flush());
}
