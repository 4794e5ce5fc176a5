//! What stands between raft-engine and the file system.
//!
//! raft-engine 0.4.2 panics when a sync fails, and answers a full disk by beginning a new file
//! with each attempt. Here a failed sync is noted instead, and nothing is written after it; a
//! full disk is an error like any other. Error texts get the file's name and the reason, which
//! raft-engine's own file system drops.

use std::{
    io::{Error, Read, Result, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

/// Why nobody can say what is on the disk, once a sync has failed.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    reason: Mutex<Option<String>>,
}

impl Doubt {
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }

    fn set(&self, reason: String) {
        self.reason.lock().get_or_insert(reason);
    }

    fn check(&self) -> Result<()> {
        match &*self.reason.lock() {
            None => Ok(()),
            Some(reason) => Err(Error::other(reason.clone())),
        }
    }
}

/// A file system whose failed syncs are remembered.
pub(crate) struct Guarded<F> {
    inner: Arc<F>,
    doubt: Arc<Doubt>,
}

impl<F> Guarded<F> {
    pub(crate) fn new(inner: Arc<F>) -> (Self, Arc<Doubt>) {
        let doubt = Arc::new(Doubt::default());
        (Self { inner, doubt: doubt.clone() }, doubt)
    }
}

pub(crate) struct GuardedHandle<H> {
    inner: Arc<H>,
    path: PathBuf,
    doubt: Arc<Doubt>,
}

pub(crate) struct GuardedWriter<W> {
    inner: W,
    path: PathBuf,
    doubt: Arc<Doubt>,
}

fn explain(path: &Path, what: &str, e: &Error) -> Error {
    // The marker by which raft-engine knows a full disk must not come through.
    let told = e.to_string().replace("nospace", "write");
    Error::new(e.kind(), format!("{}: {what}: {} ({told})", path.display(), e.kind()))
}

impl<H: Handle> Handle for GuardedHandle<H> {
    fn truncate(&self, offset: usize) -> Result<()> {
        self.inner.truncate(offset).map_err(|e| explain(&self.path, "truncate", &e))
    }

    fn file_size(&self) -> Result<usize> {
        self.inner.file_size().map_err(|e| explain(&self.path, "size", &e))
    }

    fn sync(&self) -> Result<()> {
        if let Err(e) = self.inner.sync() {
            self.doubt.set(explain(&self.path, "sync", &e).to_string());
        }
        Ok(())
    }
}

impl<W: Seek> Seek for GuardedWriter<W> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.inner.seek(to)
    }
}

impl<W: Write> Write for GuardedWriter<W> {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        self.doubt.check()?;
        self.inner.write(buf).map_err(|e| explain(&self.path, "write", &e))
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}

impl<W: WriteExt> WriteExt for GuardedWriter<W> {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        self.inner.truncate(offset).map_err(|e| explain(&self.path, "truncate", &e))
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        self.inner.allocate(offset, size)
    }
}

impl<F: FileSystem> FileSystem for Guarded<F>
where
    F::Reader: Read,
{
    type Handle = GuardedHandle<F::Handle>;
    type Reader = F::Reader;
    type Writer = GuardedWriter<F::Writer>;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<Self::Handle> {
        let path = path.as_ref();
        self.doubt.check()?;
        let inner = self.inner.create(path).map_err(|e| explain(path, "create", &e))?;
        let doubt = self.doubt.clone();
        Ok(GuardedHandle { inner: Arc::new(inner), path: path.to_owned(), doubt })
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> Result<Self::Handle> {
        let path = path.as_ref();
        let inner = self.inner.open(path, permission).map_err(|e| explain(path, "open", &e))?;
        let doubt = self.doubt.clone();
        Ok(GuardedHandle { inner: Arc::new(inner), path: path.to_owned(), doubt })
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        let path = path.as_ref();
        // What a file held may be in doubt where it was written to instead.
        self.doubt.check()?;
        self.inner.delete(path).map_err(|e| explain(path, "delete", &e))
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        self.inner.rename(from, to)
    }

    fn reuse<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        self.inner.reuse(from, to)
    }

    fn delete_metadata<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        self.inner.delete_metadata(path)
    }

    fn exists_metadata<P: AsRef<Path>>(&self, path: P) -> bool {
        self.inner.exists_metadata(path)
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> Result<Self::Reader> {
        self.inner.new_reader(handle.inner.clone())
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> Result<Self::Writer> {
        let inner = self.inner.new_writer(handle.inner.clone())?;
        Ok(GuardedWriter { inner, path: handle.path.clone(), doubt: handle.doubt.clone() })
    }
}
