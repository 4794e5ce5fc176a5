//! The store that ships: one sled tree for a node.
//!
//! sled 0.34 is held by the hand in three places:
//! - its `flush` waits for `sync_file_range`, which neither makes a file's new length durable
//!   nor empties the disk's cache, and it never syncs the files of large values at all.
//!   [`Store::flush`] here syncs them, since the log is cut on its word;
//! - after one failed write it refuses all others until it is opened again. That is done here,
//!   once the disk takes writes, so that a full disk is got over without a restart. Some failed
//!   writes leave it waiting for ever for a buffer that nobody writes, also as it closes: it is
//!   never closed before a flush has come back, and if none does, a restart is asked for;
//! - it asserts in places where its files are damaged. What panics while it opens becomes an
//!   error; each value carries a checksum of ours.

use std::{
    fs::{self, File},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::{Error, Ops, Result, Store};

/// How sled is opened.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// Bytes of cache.
    pub cache_bytes: u64,
}

/// What sled favours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Smaller files, more rewriting. sled's own default.
    #[default]
    LowSpace,
    /// Faster writes, larger files.
    HighThroughput,
}

/// Bytes of checksum before a value.
const CRC: usize = 4;
/// Bytes that must be writable before a database is opened again after a failed write: two of
/// sled's segments.
const PROBE_BYTES: usize = 1 << 20;
/// How long a flush after a failed write may take until the database is given up.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// An ordered map in sled, a CRC-32 before each value.
#[derive(Debug)]
pub struct SledStore {
    /// None while it could not be opened again after a failed write.
    db: RwLock<Option<sled::Db>>,
    /// A write failed: sled takes no more until it is opened again.
    is_broken: AtomicBool,
    /// It does not even close any more: only a restart helps.
    is_stuck: AtomicBool,
    config: sled::Config,
    path: PathBuf,
    /// Name of the newest file of a large value that was synced; sled counts them up.
    synced_blob: Mutex<i64>,
}

impl SledStore {
    /// Opens the database in directory `path`, creating it if it is not there.
    ///
    /// # Errors
    /// If it does not open; the message names the directory and the way out.
    pub fn open(path: &Path, options: &SledOptions) -> Result<Self> {
        Self::open_in_mode(path, options, Mode::default())
    }

    /// As [`SledStore::open`], in a mode of choice.
    ///
    /// # Errors
    /// See [`SledStore::open`].
    pub fn open_in_mode(path: &Path, options: &SledOptions, mode: Mode) -> Result<Self> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(options.cache_bytes)
            .mode(match mode {
                Mode::LowSpace => sled::Mode::LowSpace,
                Mode::HighThroughput => sled::Mode::HighThroughput,
            })
            // The log makes changes durable; sled is flushed by checkpoints alone.
            .flush_every_ms(None);
        let db = open(&config, path)?;
        Ok(Self {
            db: RwLock::new(Some(db)),
            is_broken: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            config,
            path: path.to_owned(),
            synced_blob: Mutex::new(i64::MIN),
        })
    }

    fn error(&self, e: &sled::Error) -> Error {
        match e {
            sled::Error::Corruption { .. } => {
                Error::Corrupt(format!("{}: {e}", self.path.display()))
            }
            _ => Error::Io(format!("{}: {e}", self.path.display())),
        }
    }

    fn io(&self, e: &std::io::Error) -> Error {
        Error::Io(format!("{}: {e}", self.path.display()))
    }

    fn with<T>(&self, f: impl FnOnce(&sled::Db) -> Result<T>) -> Result<T> {
        match &*self.db.read() {
            Some(db) => f(db),
            None => Err(Error::Io(format!(
                "{}: closed after a failed write, and not opened again yet",
                self.path.display()
            ))),
        }
    }

    /// Notes that a write failed.
    fn broke(&self, e: Error) -> Error {
        self.is_broken.store(true, Ordering::SeqCst);
        e
    }

    /// Opens the database again after a failed write. What was not flushed may be gone, which
    /// is what a failed write says anyway.
    fn mend(&self) -> Result<()> {
        if !self.is_broken.load(Ordering::SeqCst) {
            return Ok(());
        }
        if self.is_stuck.load(Ordering::SeqCst) {
            return Err(self.stuck());
        }
        // Until the disk takes writes again the old one serves reads at least.
        let probe = self.path.join("probe");
        let probed = File::create(&probe)
            .and_then(|mut f| f.write_all(&vec![0xA5; PROBE_BYTES]).and_then(|()| f.sync_all()));
        let removed = fs::remove_file(&probe);
        probed.and(removed).map_err(|e| self.io(&e))?;
        if !self.is_closable()? {
            self.is_stuck.store(true, Ordering::SeqCst);
            return Err(self.stuck());
        }
        let mut db = self.db.write();
        // Its lock on the files goes with it.
        *db = None;
        *db = Some(open(&self.config, &self.path)?);
        self.is_broken.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn stuck(&self) -> Error {
        Error::Io(format!(
            "{}: it cannot be opened again after a failed write: restart the server; what was \
             acknowledged is in the log",
            self.path.display()
        ))
    }

    /// Whether closing the database would come to an end: it flushes first. Readers go on.
    fn is_closable(&self) -> Result<bool> {
        let Some(db) = self.db.read().clone() else { return Ok(true) };
        let (done, flushed) = mpsc::channel();
        std::thread::Builder::new()
            .name("sled-flush".into())
            .spawn(move || {
                // A refusal is an answer, too; and this is not the last handle.
                let _ = db.flush();
                drop(db);
                let _ = done.send(());
            })
            .map_err(|e| self.io(&e))?;
        Ok(flushed.recv_timeout(FLUSH_MAX).is_ok())
    }

    /// Makes what sled has handed to the operating system durable.
    fn sync_files(&self) -> std::io::Result<()> {
        let mut newest = self.synced_blob.lock();
        let blobs = self.path.join("blobs");
        let mut seen = *newest;
        for entry in fs::read_dir(&blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|n| n.parse::<i64>().ok()) else { continue };
            if id <= *newest {
                continue;
            }
            match File::open(entry.path()).and_then(|f| f.sync_all()) {
                // The value was overwritten meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                synced => synced?,
            }
            seen = seen.max(id);
        }
        if seen > *newest {
            File::open(&blobs)?.sync_all()?;
        }
        File::open(self.path.join("db"))?.sync_all()?;
        *newest = seen;
        Ok(())
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if self.is_broken.load(Ordering::SeqCst) {
            // Closing it might never end, and what it holds is relied on by nobody.
            std::mem::forget(self.db.get_mut().take());
        }
    }
}

fn open(config: &sled::Config, path: &Path) -> Result<sled::Db> {
    let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
    let reason = match opened {
        Ok(Ok(db)) => {
            // A new database must not vanish with its directory's entries.
            let synced = File::open(path).and_then(|dir| dir.sync_all());
            return match synced {
                Ok(()) => Ok(db),
                Err(e) => Err(Error::Io(format!("{}: {e}", path.display()))),
            };
        }
        Ok(Err(sled::Error::Io(e))) => {
            return Err(Error::Io(format!("{}: {e}", path.display())));
        }
        Ok(Err(e)) => e.to_string(),
        Err(_) => "its files are not what was written".to_owned(),
    };
    Err(Error::Corrupt(format!(
        "the database in {} does not open ({reason}); restore the data directory from a \
         backup, or remove it to start empty",
        path.display()
    )))
}

fn check(path: &Path, key: &[u8], raw: &sled::IVec) -> Result<Bytes> {
    let damaged = || {
        Error::Corrupt(format!(
            "{}: the row with key {} fails its checksum",
            path.display(),
            key.iter().map(|b| format!("{b:02x}")).collect::<String>()
        ))
    };
    let (crc, value) = raw.split_at_checked(CRC).ok_or_else(damaged)?;
    if crc32fast::hash(value).to_le_bytes() != crc {
        return Err(damaged());
    }
    Ok(Bytes::copy_from_slice(value))
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.with(|db| {
            let raw = db.get(key).map_err(|e| self.error(&e))?;
            raw.map(|raw| check(&self.path, key, &raw)).transpose()
        })
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
        self.with(|db| {
            let range = db.range(start..end);
            let read = |row: sled::Result<(sled::IVec, sled::IVec)>| {
                let (key, raw) = row.map_err(|e| self.error(&e))?;
                let value = check(&self.path, &key, &raw)?;
                Ok((Bytes::copy_from_slice(&key), value))
            };
            if reverse {
                range.rev().take(limit).map(read).collect()
            } else {
                range.take(limit).map(read).collect()
            }
        })
    }

    fn write(&self, ops: Ops<'_>) -> Result<()> {
        self.mend()?;
        let mut batch = sled::Batch::default();
        for (key, value) in ops {
            match value {
                Some(value) => {
                    let mut raw = Vec::with_capacity(CRC + value.len());
                    raw.extend(crc32fast::hash(value).to_le_bytes());
                    raw.extend_from_slice(value);
                    batch.insert(key.as_ref(), raw);
                }
                None => batch.remove(key.as_ref()),
            }
        }
        self.with(|db| db.apply_batch(batch).map_err(|e| self.broke(self.error(&e))))
    }

    fn flush(&self) -> Result<()> {
        if self.is_broken.load(Ordering::SeqCst) {
            let path = self.path.display();
            return Err(Error::Io(format!("{path}: a write before this flush failed")));
        }
        self.with(|db| db.flush().map(drop).map_err(|e| self.broke(self.error(&e))))?;
        self.sync_files().map_err(|e| self.broke(self.io(&e)))
    }

    fn size_on_disk(&self) -> u64 {
        self.with(|db| Ok(db.size_on_disk().unwrap_or(0))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OPTIONS: SledOptions = SledOptions { cache_bytes: 16 << 20 };

    fn put(key: &'static [u8], value: &[u8]) -> (Bytes, Option<Bytes>) {
        (Bytes::from_static(key), Some(Bytes::copy_from_slice(value)))
    }

    #[test]
    fn conforms_and_reads_back_after_reopening() {
        for mode in [Mode::LowSpace, Mode::HighThroughput] {
            let dir = tempfile::tempdir().unwrap();
            let store = SledStore::open_in_mode(dir.path(), &OPTIONS, mode).unwrap();
            crate::conformance(&store);
            drop(store);
            let store = SledStore::open(dir.path(), &OPTIONS).unwrap();
            assert_eq!(store.get(b"a"), Ok(Some(Bytes::from_static(b"5"))));
        }
    }

    #[test]
    fn a_large_value_is_read_back_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let value = vec![7u8; 3 << 20];
        let store = SledStore::open(dir.path(), &OPTIONS).unwrap();
        store.write(&[put(b"k", &value)]).unwrap();
        store.flush().unwrap();
        assert!(*store.synced_blob.lock() > i64::MIN, "sled keeps such a value in a file");
        drop(store);
        let store = SledStore::open(dir.path(), &OPTIONS).unwrap();
        assert_eq!(store.get(b"k").unwrap().unwrap(), value);
    }

    #[test]
    fn a_damaged_row_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path(), &OPTIONS).unwrap();
        store.db.read().as_ref().unwrap().insert(b"k", vec![0, 0, 0, 0, 1]).unwrap();
        for error in [store.get(b"k").unwrap_err(), store.scan(b"a", b"z", 9, false).unwrap_err()] {
            assert!(matches!(error, Error::Corrupt(_)));
            assert!(error.to_string().contains("6b"), "{error}");
        }
    }

    #[test]
    fn a_file_in_its_place_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        fs::write(&path, b"not a directory").unwrap();
        let error = SledStore::open(&path, &OPTIONS).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn what_is_not_a_database_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::open(dir.path(), &OPTIONS).unwrap());
        fs::write(dir.path().join("conf"), b"segment_size: none").unwrap();
        let error = SledStore::open(dir.path(), &OPTIONS).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }

    #[test]
    fn after_a_failed_write_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path(), &OPTIONS).unwrap();
        store.write(&[put(b"kept", b"1")]).unwrap();
        store.flush().unwrap();
        store.is_broken.store(true, Ordering::SeqCst);
        assert!(store.flush().is_err(), "nobody may rely on what was written before");
        assert_eq!(store.get(b"kept").unwrap().unwrap(), "1", "reads go on");
        store.write(&[put(b"new", b"2")]).unwrap();
        store.flush().unwrap();
        drop(store);
        let store = SledStore::open(dir.path(), &OPTIONS).unwrap();
        assert_eq!(store.get(b"kept").unwrap().unwrap(), "1");
        assert_eq!(store.get(b"new").unwrap().unwrap(), "2");
    }
}
