//! What can be changed, as it goes from the node that was asked to the one that decides.

use everspan_proto::workflowservice as api;
use everspan_storage::Batch;
use everspan_types::{NamespaceId, Result, ShardId, Time, wire};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    members::MemberState,
    queue_config::QueueName,
    state::{AttributeTypes, Meta},
};

/// A change. IDs and times are those of the node that was asked: decisions know none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// See [`Meta::found`].
    Found(Uuid),
    /// See [`Meta::join`].
    Join(u64, Uuid, String),
    /// See [`Meta::set_member`].
    SetMember(u64, MemberState, Vec<u64>),
    /// See [`Meta::place`].
    Place(ShardId, Vec<u64>, Vec<u64>),
    /// See [`Meta::register`].
    Register(NamespaceId, #[serde(with = "wire::message")] Box<api::RegisterNamespaceRequest>),
    /// See [`Meta::ensure`].
    Ensure(NamespaceId, String),
    /// See [`Meta::update`].
    Update(#[serde(with = "wire::message")] Box<api::UpdateNamespaceRequest>),
    /// See [`Meta::deprecate`].
    Deprecate(String),
    /// See [`Meta::configure_queue`].
    ConfigureQueue {
        now: Time,
        queue: QueueName,
        #[serde(with = "wire::message")]
        request: Box<api::UpdateTaskQueueConfigRequest>,
        id_length_max: u64,
    },
    /// See [`Meta::add_attributes`].
    AddAttributes(AttributeTypes),
    /// See [`Meta::remove_attributes`].
    RemoveAttributes(Vec<String>),
}

impl Change {
    /// Decides on it: the state after it, and its rows.
    pub(crate) fn decide(self, meta: &mut Meta, is_system: fn(&str) -> bool) -> Result<Batch> {
        match self {
            Change::Found(id) => Ok(meta.found(id)),
            Change::Join(node, dir, address) => meta.join(node, dir, &address),
            Change::SetMember(node, state, founding) => meta.set_member(node, state, &founding),
            Change::Place(shard, before, replicas) => meta.place(shard, &before, &replicas),
            Change::Register(id, request) => meta.register(id, &request),
            Change::Ensure(id, name) => meta.ensure(id, &name),
            Change::Update(request) => meta.update(&request),
            Change::Deprecate(name) => meta.deprecate(&name),
            Change::ConfigureQueue { now, queue, request, id_length_max } => {
                let max = usize::try_from(id_length_max).unwrap_or(usize::MAX);
                meta.configure_queue(now, queue, &request, max)
            }
            Change::AddAttributes(new) => meta.add_attributes(&new, &is_system),
            Change::RemoveAttributes(names) => meta.remove_attributes(&names),
        }
    }
}
