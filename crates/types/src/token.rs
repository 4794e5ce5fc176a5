use serde::{Deserialize, Serialize};

use crate::{EnvelopeError, Error, NamespaceId, Result, RunId, TaskRef, decode, encode};

const VERSION: u8 = 1;

/// What a worker hands back with the outcome of a task. Opaque to clients.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskToken {
    /// The execution's namespace.
    pub namespace: NamespaceId,
    /// The execution's workflow ID.
    pub workflow_id: String,
    /// The execution's run.
    pub run_id: RunId,
    /// The task that was started.
    pub task: TaskRef,
    /// The attempt, from 1.
    pub attempt: i32,
    /// `started_event_id` of a workflow task (0 for activities, whose started event is
    /// written at their close).
    pub started_event_id: i64,
}

/// Identifies a query that travels alone, for `RespondQueryTaskCompleted`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueryToken {
    /// The execution's namespace.
    pub namespace: NamespaceId,
    /// The execution's workflow ID.
    pub workflow_id: String,
    /// The execution's run.
    pub run_id: RunId,
    /// The query within the run.
    pub query_id: u64,
}

macro_rules! token {
    ($t:ty, $tag:literal) => {
        impl $t {
            /// The bytes that go to the client.
            #[must_use]
            pub fn to_bytes(&self) -> bytes::Bytes {
                encode(VERSION, &($tag, self)).into()
            }

            /// Reads a token back.
            ///
            /// # Errors
            /// `INVALID_ARGUMENT` for anything that is not a token of this kind.
            pub fn from_bytes(raw: &[u8]) -> Result<Self> {
                let bad = || Error::invalid("Error deserializing task token.");
                let (tag, token): (u8, Self) =
                    decode(VERSION, raw).map_err(|_: EnvelopeError| bad())?;
                if tag == $tag { Ok(token) } else { Err(bad()) }
            }
        }
    };
}
token!(TaskToken, 1u8);
token!(QueryToken, 2u8);
