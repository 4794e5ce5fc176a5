//! The data directory: whose it is, who uses it now, and what stands in it.
//!
//! ```text
//! everspan.json   format version, node, number of shards; written once
//! everspan.joined there once the node has taken part in its cluster; holds the cluster's ID
//! everspan.lock   locked while a process uses the directory; holds its process ID
//! log/            the Raft log of all shards
//! store/          the database that checkpoints are written to
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::SHARDS_DEFAULT;

/// The format this release writes and reads. A change that older releases cannot read counts
/// it up.
pub const FORMAT: u32 = 1;

const IDENTITY: &str = "everspan.json";
const LOCK: &str = "everspan.lock";
const JOINED: &str = "everspan.joined";
/// What a new file system has in its root.
const LOST_AND_FOUND: &str = "lost+found";

/// Why a data directory cannot be used. Every message names the directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error(
        "the data directory {} is in use by another process{}; \
         stop that one, or name another directory",
        dir.display(),
        holder.map(|pid| format!(" (process ID {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that has it, if it could be read.
        holder: Option<u32>,
    },
    /// The file system refused.
    #[error("the data directory {} cannot be used: cannot {action}: {reason}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was tried.
        action: String,
        /// Why it failed.
        reason: String,
    },
    /// Something else's directory.
    #[error(
        "{} is neither empty nor a data directory of Everspan: it has no {IDENTITY}",
        dir.display()
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// Its identity does not read.
    #[error(
        "the data directory {} is damaged: {IDENTITY} does not read: {reason}; \
         restore the directory from a backup",
        dir.display()
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// Made by a release with another format.
    #[error(
        "the data directory {} has format {found}, and this release reads format {FORMAT}: \
         use the release that made it",
        dir.display()
    )]
    Format {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The number of shards cannot change.
    #[error(
        "the data directory {} was made with {stored} shards, not {wanted}: \
         the number of shards is decided once, when the directory is new",
        dir.display()
    )]
    Shards {
        /// The directory.
        dir: PathBuf,
        /// What it was made with.
        stored: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// It belongs to another node or cluster.
    #[error(
        "the data directory {} belongs to {stored}, and this is {wanted}: \
         name the directory that is this node's own",
        dir.display()
    )]
    Other {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        stored: String,
        /// Who asks.
        wanted: String,
    },
}

/// A node's place in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster's name.
    pub cluster: String,
    /// The node's number.
    pub node: u64,
    /// The numbers of the nodes that founded the cluster.
    pub nodes: Vec<u64>,
}

impl std::fmt::Display for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cluster, node, nodes } = self;
        write!(f, "node {node} of cluster {cluster:?} with the nodes {nodes:?}")
    }
}

/// What a data directory is, for as long as it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// How the rest of the directory is written.
    pub format: u32,
    /// The node that it belongs to.
    pub node_id: Uuid,
    /// Shards that executions are divided among.
    pub shards: u32,
    /// The release that made it.
    pub created_by: String,
    /// The cluster that the node is part of; none if it is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<Membership>,
}

/// A data directory that this process has locked.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    /// Holds the lock; the system lets go of it however the process ends.
    lock: File,
    /// Removes an ephemeral directory.
    temporary: Option<tempfile::TempDir>,
}

impl DataDir {
    /// Locks the directory, making it if it is not there. `shards` is the number asked for,
    /// if one is.
    ///
    /// # Errors
    /// See [`Error`]; nothing was changed in a directory that is another's.
    pub fn open(path: &Path, shards: Option<u32>) -> Result<Self, Error> {
        Self::open_with(path, shards, None)
    }

    /// A directory that goes when the process ends well.
    ///
    /// # Errors
    /// If there is no place for temporary files.
    pub fn ephemeral(shards: Option<u32>) -> Result<Self, Error> {
        let temporary =
            tempfile::Builder::new().prefix("everspan-").tempdir().map_err(|e| Error::Io {
                dir: std::env::temp_dir(),
                action: "make a temporary directory".into(),
                reason: e.to_string(),
            })?;
        let path = temporary.path().to_owned();
        Self::open_with(&path, shards, Some(temporary))
    }

    fn open_with(
        path: &Path,
        shards: Option<u32>,
        temporary: Option<tempfile::TempDir>,
    ) -> Result<Self, Error> {
        let failed = |action: &str| {
            let (dir, action) = (path.to_owned(), action.to_owned());
            move |e: io::Error| Error::Io { dir, action, reason: e.to_string() }
        };
        fs::create_dir_all(path).map_err(failed("make it"))?;
        // Before the lock file is made, which would make it look like one of ours.
        if !path.join(IDENTITY).exists() && !is_vacant(path).map_err(failed("read it"))? {
            return Err(Error::Foreign { dir: path.to_owned() });
        }
        let lock = lock(path)?;
        let identity = match fs::read(path.join(IDENTITY)) {
            Ok(raw) => read_identity(path, &raw, shards)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let identity = Identity {
                    format: FORMAT,
                    node_id: Uuid::new_v4(),
                    shards: shards.unwrap_or(SHARDS_DEFAULT),
                    created_by: env!("CARGO_PKG_VERSION").into(),
                    membership: None,
                };
                write_identity(path, &identity).map_err(failed("write to it"))?;
                identity
            }
            Err(e) => return Err(failed("read everspan.json in it")(e)),
        };
        Ok(Self { path: path.to_owned(), identity, lock, temporary })
    }

    /// Takes the directory for a node, for ever.
    ///
    /// # Errors
    /// [`Error::Other`] if it is another's, [`Error::Io`] if that cannot be written down.
    pub fn take(&mut self, membership: Option<&Membership>) -> Result<(), Error> {
        let stored = &self.identity.membership;
        if stored.as_ref() == membership {
            return Ok(());
        }
        let is_new = !self.log_path().exists() && !self.store_path().exists();
        if stored.is_some() || !is_new {
            let name = |m: Option<&Membership>| {
                m.map_or_else(|| "a node that is its own cluster".into(), ToString::to_string)
            };
            return Err(Error::Other {
                dir: self.path.clone(),
                stored: name(stored.as_ref()),
                wanted: name(membership),
            });
        }
        self.identity.membership = membership.cloned();
        write_identity(&self.path, &self.identity).map_err(|e| self.cannot("write to it", &e))
    }

    fn cannot(&self, action: &str, e: &io::Error) -> Error {
        Error::Io { dir: self.path.clone(), action: action.into(), reason: e.to_string() }
    }

    /// Whether the node has ever taken part in its cluster: others may count on what it said.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.path.join(JOINED).exists()
    }

    /// The ID of its cluster, once that was founded.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        let text = fs::read_to_string(self.path.join(JOINED)).unwrap_or_default();
        let id = text.trim();
        (!id.is_empty()).then(|| id.to_owned())
    }

    /// Notes that it does so from now on, in the cluster with this ID if it has one yet.
    ///
    /// # Errors
    /// If that cannot be written down.
    pub fn join(&self, cluster_id: &str) -> Result<(), Error> {
        replace(&self.path, JOINED, cluster_id.as_bytes())
            .map_err(|e| self.cannot("write to it", &e))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log is.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the database is.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store")
    }

    /// What the directory is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it goes when the process ends.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.temporary.is_some()
    }

    /// Removes an ephemeral directory of a process that ends at once.
    pub fn discard(&self) {
        if self.is_ephemeral() {
            // What cannot be removed is in the folder for such things.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing the file would not do while a process that is just being spawned has a copy.
        let _ = self.lock.unlock();
    }
}

/// Whether nothing of anybody's is in it; a first start that was killed leaves its lock and
/// an unfinished identity.
fn is_vacant(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if ![LOCK, LOST_AND_FOUND, &unfinished(IDENTITY)].iter().any(|known| name == **known) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unfinished(name: &str) -> String {
    format!("{name}.new")
}

fn lock(path: &Path) -> Result<File, Error> {
    let failed = |action: &str| {
        let (dir, action) = (path.to_owned(), action.to_owned());
        move |e: io::Error| Error::Io { dir, action, reason: e.to_string() }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK))
        .map_err(failed("write to it"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let read = file.read_to_string(&mut holder);
            let holder = read.ok().and_then(|_| holder.trim().parse().ok());
            return Err(Error::InUse { dir: path.to_owned(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(failed("lock it")(e)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(failed("write to it"))?;
    Ok(file)
}

fn read_identity(path: &Path, raw: &[u8], shards: Option<u32>) -> Result<Identity, Error> {
    /// The part that every format has.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged =
        |e: serde_json::Error| Error::Damaged { dir: path.to_owned(), reason: e.to_string() };
    let Format { format } = serde_json::from_slice(raw).map_err(damaged)?;
    if format != FORMAT {
        return Err(Error::Format { dir: path.to_owned(), found: format });
    }
    let identity: Identity = serde_json::from_slice(raw).map_err(damaged)?;
    match shards {
        Some(wanted) if wanted != identity.shards => {
            let stored = identity.shards;
            Err(Error::Shards { dir: path.to_owned(), stored, wanted })
        }
        _ => Ok(identity),
    }
}

/// All of it or none: written beside, synced, renamed, and the rename synced.
fn replace(path: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let beside = path.join(unfinished(name));
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path.join(name))?;
    File::open(path)?.sync_all()
}

fn write_identity(path: &Path, identity: &Identity) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(identity)?;
    text.push(b'\n');
    replace(path, IDENTITY, &text)?;
    // The directory's own entry, if it was made now.
    match path.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn identity_stays_and_shards_do_not_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a").join("b");
        let first = DataDir::open(&path, Some(3)).unwrap();
        let identity = first.identity().clone();
        assert_eq!((identity.format, identity.shards), (FORMAT, 3));
        drop(first);
        assert_eq!(*DataDir::open(&path, None).unwrap().identity(), identity);
        assert_eq!(*DataDir::open(&path, Some(3)).unwrap().identity(), identity);
        let refused = DataDir::open(&path, Some(4)).unwrap_err();
        assert_eq!(refused, Error::Shards { dir: path.clone(), stored: 3, wanted: 4 });
    }

    #[test]
    fn a_directory_is_one_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let mut data = DataDir::open(&path, None).unwrap();
        let one = Membership { cluster: "c".into(), node: 1, nodes: vec![1, 2, 3] };
        data.take(Some(&one)).unwrap();
        assert!(!data.has_joined());
        data.join("").unwrap();
        assert_eq!(data.cluster_id(), None);
        data.join("7").unwrap();
        drop(data);
        let mut data = DataDir::open(&path, None).unwrap();
        assert!(data.has_joined());
        assert_eq!(data.cluster_id().as_deref(), Some("7"));
        data.take(Some(&one)).unwrap();
        for other in [None, Some(&Membership { node: 2, ..one.clone() })] {
            let refused = data.take(other).unwrap_err();
            assert!(matches!(&refused, Error::Other { stored, .. } if *stored == one.to_string()));
        }
        let mut alone = DataDir::open(&dir.path().join("a"), None).unwrap();
        alone.take(None).unwrap();
        std::fs::create_dir(alone.log_path()).unwrap();
        assert!(alone.take(Some(&one)).is_err());
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DataDir::open(dir.path(), None).unwrap();
        let refused = DataDir::open(dir.path(), None).unwrap_err();
        let holder = Some(std::process::id());
        assert_eq!(refused, Error::InUse { dir: dir.path().to_owned(), holder });
        assert!(refused.to_string().contains(&dir.path().display().to_string()));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let refused = DataDir::open(dir.path(), None).unwrap_err();
        assert_eq!(refused, Error::Foreign { dir: dir.path().to_owned() });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let file = dir.path().join("thesis.tex");
        let refused = DataDir::open(&file, None).unwrap_err();
        assert!(refused.to_string().contains("thesis.tex"), "{refused}");
    }

    #[test]
    fn a_first_start_that_was_killed_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        for name in [LOCK, LOST_AND_FOUND, &unfinished(IDENTITY)] {
            fs::write(dir.path().join(name), "{").unwrap();
        }
        DataDir::open(dir.path(), None).unwrap();
    }

    #[test]
    fn damage_and_other_formats_are_told() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), None).unwrap());
        let file = dir.path().join(IDENTITY);
        fs::write(&file, "{\"format\": 99}").unwrap();
        let refused = DataDir::open(dir.path(), None).unwrap_err();
        assert_eq!(refused, Error::Format { dir: dir.path().to_owned(), found: 99 });
        for damaged in ["", "{\"format\": 1}", "\0\0\0", "[]"] {
            fs::write(&file, damaged).unwrap();
            let refused = DataDir::open(dir.path(), None).unwrap_err();
            assert!(matches!(refused, Error::Damaged { .. }), "{damaged:?}: {refused}");
        }
    }

    #[test]
    fn an_ephemeral_directory_goes() {
        let dir = DataDir::ephemeral(None).unwrap();
        let path = dir.path().to_owned();
        assert!(dir.is_ephemeral() && path.join(IDENTITY).exists());
        drop(dir);
        assert!(!path.exists());
    }
}
