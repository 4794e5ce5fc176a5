//! A file system that loses and tears what was not synced, for tests and the simulator.
//!
//! Contents are in memory. raft-engine lists its directory by itself, so that each file also
//! has an empty one of its name in the real directory.

use std::{
    collections::BTreeMap,
    fs,
    io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;
/// "No space left on device".
const ENOSPC: i32 = 28;

/// Files in memory, with what of them is on the disk.
#[derive(Debug, Default)]
pub struct FaultyFs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Contents>,
    /// Counts crashes: handles of earlier lives are dead.
    life: u64,
    /// Writes and syncs until everything stops.
    left: Option<u64>,
    capacity: Option<u64>,
    fail_writes: Option<i32>,
    fail_syncs: Option<i32>,
    skip_sync: bool,
}

#[derive(Debug, Default)]
struct Contents {
    /// As reads see it.
    live: Vec<u8>,
    /// As a crash leaves it, apart from what luck adds.
    synced: Vec<u8>,
    /// What may differ between the two.
    dirty: Vec<Range<usize>>,
}

/// The simulator's kind of luck: splitmix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Contents {
    fn sync(&mut self) {
        self.synced.resize(self.live.len(), 0);
        for range in self.dirty.drain(..) {
            let range = range.start.min(self.live.len())..range.end.min(self.live.len());
            self.synced[range.clone()].copy_from_slice(&self.live[range]);
        }
    }

    fn crash(&mut self, seed: &mut u64) {
        let (old, new) = (self.synced.len(), self.live.len());
        // Its length is metadata, which goes its own way.
        let length = match random(seed) % 3 {
            0 => old,
            1 => new,
            _ => old.min(new) + (random(seed) as usize) % (old.abs_diff(new) + 1),
        };
        let luck = random(seed) % 4;
        self.synced.resize(length, 0);
        for range in std::mem::take(&mut self.dirty) {
            let end = range.end.min(length).min(new);
            let mut at = range.start;
            while at < end {
                let next = ((at / SECTOR + 1) * SECTOR).min(end);
                let reached_disk = match luck {
                    0 => false,
                    1 => true,
                    _ => random(seed) & 1 == 0,
                };
                if reached_disk {
                    self.synced[at..next].copy_from_slice(&self.live[at..next]);
                }
                at = next;
            }
        }
        self.live.clone_from(&self.synced);
    }
}

impl State {
    /// One write or sync.
    fn step(&mut self, life: u64) -> Result<()> {
        if life != self.life {
            return Err(Error::other("the machine has crashed since"));
        }
        match &mut self.left {
            Some(0) => Err(Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.files.values().map(|f| f.live.len() as u64).sum()
    }

    fn contents(&mut self, path: &Path) -> Result<&mut Contents> {
        self.files.get_mut(path).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

/// As raft-engine's own file system words it.
fn failure(errno: i32) -> Error {
    match errno {
        ENOSPC => Error::new(ErrorKind::StorageFull, "nospace"),
        other => Error::from_raw_os_error(other),
    }
}

impl FaultyFs {
    /// The machine loses power and comes back. Of what was not synced, each sector was written
    /// or not, as `seed` decides. Failures set before are over; handles from before are dead.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state.lock();
        let mut seed = seed;
        for contents in state.files.values_mut() {
            contents.crash(&mut seed);
        }
        state.life += 1;
        (state.left, state.capacity) = (None, None);
        (state.fail_writes, state.fail_syncs, state.skip_sync) = (None, None, false);
    }

    /// After this many writes and syncs all others fail, until the machine crashes.
    pub fn stop_after(&self, operations: u64) {
        self.state.lock().left = Some(operations);
    }

    /// Makes writes fail with an error number (28 is "no space left", 5 an I/O error, 30 "read-only
    /// file system"), or work again.
    pub fn fail_writes(&self, errno: Option<i32>) {
        self.state.lock().fail_writes = errno;
    }

    /// Makes syncs fail with an error number, or work again.
    pub fn fail_syncs(&self, errno: Option<i32>) {
        self.state.lock().fail_syncs = errno;
    }

    /// Bounds the bytes of all files: a write that goes past it is cut short there.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Makes syncs lie, to show that tests notice.
    pub fn skip_sync(&self, skip: bool) {
        self.state.lock().skip_sync = skip;
    }

    /// Names and sizes of all files.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        self.state.lock().files.iter().map(|(p, c)| (p.clone(), c.live.len())).collect()
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// If there is none.
    pub fn contents(&self, path: &Path) -> Result<Vec<u8>> {
        Ok(self.state.lock().contents(path)?.live.clone())
    }

    /// Replaces a file's bytes, as a broken disk might.
    ///
    /// # Errors
    /// If there is none.
    pub fn damage(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        let contents = state.contents(path)?;
        contents.live = bytes.to_vec();
        contents.synced = bytes.to_vec();
        contents.dirty.clear();
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
pub struct FaultyHandle {
    path: PathBuf,
    life: u64,
    state: Arc<Mutex<State>>,
}

impl Handle for FaultyHandle {
    fn truncate(&self, offset: usize) -> Result<()> {
        let mut state = self.state.lock();
        state.step(self.life)?;
        let contents = state.contents(&self.path)?;
        let length = contents.live.len();
        contents.live.resize(offset, 0);
        contents.dirty.push(offset.min(length)..offset.max(length));
        Ok(())
    }

    fn file_size(&self) -> Result<usize> {
        Ok(self.state.lock().contents(&self.path)?.live.len())
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.step(self.life)?;
        if let Some(errno) = state.fail_syncs {
            return Err(failure(errno));
        }
        if !state.skip_sync {
            state.contents(&self.path)?.sync();
        }
        Ok(())
    }
}

/// A place in a file.
#[derive(Debug)]
pub struct Cursor {
    handle: Arc<FaultyHandle>,
    offset: usize,
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(n) => (n, 0),
            SeekFrom::End(n) => (self.handle.file_size()? as u64, n),
            SeekFrom::Current(n) => (self.offset as u64, n),
        };
        let offset = base.checked_add_signed(by);
        let offset = offset.ok_or_else(|| Error::other("seek before the file's start"))?;
        self.offset = usize::try_from(offset).map_err(Error::other)?;
        Ok(offset)
    }
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut state = self.handle.state.lock();
        let live = &state.contents(&self.handle.path)?.live;
        let from = self.offset.min(live.len());
        let n = buf.len().min(live.len() - from);
        buf[..n].copy_from_slice(&live[from..from + n]);
        self.offset += n;
        Ok(n)
    }
}

impl Write for Cursor {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        let mut state = self.handle.state.lock();
        let stopped = state.step(self.handle.life);
        if state.life != self.handle.life {
            return stopped.map(|()| 0);
        }
        if let Some(errno) = state.fail_writes {
            return Err(failure(errno));
        }
        let length = state.contents(&self.handle.path)?.live.len();
        let grows = (self.offset + buf.len()).saturating_sub(length);
        let free = state.capacity.map_or(u64::MAX, |c| c.saturating_sub(state.used()));
        let cut = grows.saturating_sub(usize::try_from(free).unwrap_or(usize::MAX));
        let n = buf.len() - cut;
        if n == 0 && !buf.is_empty() {
            return Err(failure(ENOSPC));
        }
        // A write under way when the power goes may be there in part.
        let contents = state.contents(&self.handle.path)?;
        let end = self.offset + n;
        if contents.live.len() < end {
            contents.live.resize(end, 0);
        }
        contents.live[self.offset..end].copy_from_slice(&buf[..n]);
        contents.dirty.push(self.offset..end);
        stopped?;
        self.offset = end;
        Ok(n)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        self.handle.truncate(offset)?;
        self.offset = offset;
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        let mut state = self.handle.state.lock();
        state.step(self.handle.life)?;
        let free = state.capacity.map_or(u64::MAX, |c| c.saturating_sub(state.used()));
        let contents = state.contents(&self.handle.path)?;
        let length = contents.live.len();
        let end = (offset + size).max(length);
        if (end - length) as u64 > free {
            return Err(failure(ENOSPC));
        }
        contents.live.resize(end, 0);
        contents.dirty.push(length..end);
        Ok(())
    }
}

impl FileSystem for FaultyFs {
    type Handle = FaultyHandle;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<FaultyHandle> {
        let path = path.as_ref().to_owned();
        let mut state = self.state.lock();
        let life = state.life;
        state.step(life)?;
        if let Some(errno) = state.fail_writes {
            return Err(failure(errno));
        }
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        state.files.entry(path.clone()).or_default();
        Ok(FaultyHandle { path, life, state: self.state.clone() })
    }

    fn open<P: AsRef<Path>>(&self, path: P, _: Permission) -> Result<FaultyHandle> {
        let path = path.as_ref().to_owned();
        let mut state = self.state.lock();
        state.contents(&path)?;
        let life = state.life;
        drop(state);
        Ok(FaultyHandle { path, life, state: self.state.clone() })
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        let mut state = self.state.lock();
        let life = state.life;
        state.step(life)?;
        state.files.remove(path.as_ref());
        fs::remove_file(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        let mut state = self.state.lock();
        let life = state.life;
        state.step(life)?;
        if let Some(contents) = state.files.remove(from.as_ref()) {
            state.files.insert(to.as_ref().to_owned(), contents);
        }
        fs::rename(from, to)
    }

    fn new_reader(&self, handle: Arc<FaultyHandle>) -> Result<Cursor> {
        Ok(Cursor { handle, offset: 0 })
    }

    fn new_writer(&self, handle: Arc<FaultyHandle>) -> Result<Cursor> {
        Ok(Cursor { handle, offset: 0 })
    }
}
