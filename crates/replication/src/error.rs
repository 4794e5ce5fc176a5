//! What can go wrong with the log.

/// What can go wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk or the file system refused. What was to be written is kept and tried again.
    #[error("log: {0}")]
    Io(String),
    /// A sync failed. Nobody can say what is on the disk, so that nothing more is written until
    /// the log is opened anew, by a restart.
    #[error("log: {0}; what is on the disk is in doubt: check it and restart the server")]
    Unsynced(String),
    /// The log is not what was written, or does not fit the rows beside it.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
    /// A proposal is not taken. See [`crate::Event::Refused`].
    #[error("{0}")]
    Refused(String),
    /// A proposal was made in a term that is over. `Lost` told its fate already.
    #[error("term {0} is over")]
    Stale(u64),
    /// An input that makes no sense for the group.
    #[error("raft: {0}")]
    Raft(String),
}

/// The outcome of a log operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<raft::Error> for Error {
    fn from(e: raft::Error) -> Self {
        Error::Raft(e.to_string())
    }
}

impl From<raft_engine::Error> for Error {
    fn from(e: raft_engine::Error) -> Self {
        use raft_engine::Error as E;
        match e {
            E::Io(e) => Error::Io(e.to_string()),
            // Bytes with a good checksum that do not decode, and entries it should have.
            E::Corruption(what) => Error::Corrupt(what),
            E::Codec(e) => Error::Corrupt(e.to_string()),
            E::Protobuf(e) => Error::Corrupt(e.to_string()),
            E::EntryCompacted | E::EntryNotFound => Error::Corrupt("an entry is missing".into()),
            E::InvalidArgument(what) | E::TryAgain(what) => Error::Io(what),
            E::Full => Error::Io("more to write at once than fits one batch".into()),
            E::Other(e) => Error::Io(e.to_string()),
        }
    }
}
