//! The pure rules.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use everspan_proto::{enums::IndexedValueType, workflowservice as api};
use everspan_storage::Batch;
use everspan_types::{EnvelopeError, Error, NamespaceId, Result, ShardId, Time, decode, encode};
use uuid::Uuid;

use crate::{
    members::{Member, MemberState, Placement, removed},
    namespace::{Namespace, RETENTION_DEFAULT, State},
    queue_config::{self, QueueConfig, QueueName},
};

const VERSION: u8 = 1;
/// Most namespaces.
const NAMESPACES_MAX: usize = 10_000;
/// Most custom search attributes of one type.
const ATTRIBUTES_MAX: usize = 100;
/// Most task queues with a configuration of their own.
const QUEUE_CONFIGS_MAX: usize = 10_000;

/// Custom search attributes and their types.
pub type AttributeTypes = BTreeMap<String, i32>;

/// What everybody reads.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Names this cluster for ever.
    pub cluster_id: Uuid,
    /// Namespaces by name.
    pub by_name: BTreeMap<String, Arc<Namespace>>,
    /// The same by ID.
    pub by_id: BTreeMap<NamespaceId, Arc<Namespace>>,
    /// Custom search attributes, the same for all namespaces.
    pub attributes: AttributeTypes,
    /// The data directory of each node that ever took part in the cluster, by its number.
    pub nodes: BTreeMap<u64, Uuid>,
    /// The nodes as they are to be spoken to, and what is to become of them, by their numbers.
    pub members: BTreeMap<u64, Member>,
    /// Nodes that are to have replicas of a shard, where that is not as the cluster was founded.
    pub placements: BTreeMap<ShardId, Placement>,
    /// What was set for single task queues.
    pub queue_configs: BTreeMap<QueueName, Arc<QueueConfig>>,
}

impl Snapshot {
    /// A namespace by its name.
    ///
    /// # Errors
    /// `NOT_FOUND` with the namespace's details; `INVALID_ARGUMENT` without a name.
    pub fn namespace(&self, name: &str) -> Result<Arc<Namespace>> {
        if name.is_empty() {
            return Err(Error::invalid("Namespace is empty."));
        }
        self.by_name.get(name).cloned().ok_or_else(|| Error::NamespaceNotFound(name.to_owned()))
    }

    /// How long a namespace's closed runs are kept; none where nothing is to be deleted,
    /// because the namespace is not known or about to be left.
    #[must_use]
    pub fn kept_for(&self, id: NamespaceId) -> Option<Duration> {
        let namespace = self.by_id.get(&id)?;
        (namespace.state == State::Registered).then_some(namespace.retention)
    }
}

/// Namespaces and search attributes with the rules for changing them.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    snapshot: Snapshot,
}

fn namespace_row(id: NamespaceId) -> Vec<u8> {
    let mut key = vec![b'n'];
    key.extend(id.0.as_bytes());
    key
}

fn attribute_row(name: &str) -> Vec<u8> {
    let mut key = vec![b's'];
    key.extend(name.as_bytes());
    key
}

fn queue_row(queue: &QueueName) -> Vec<u8> {
    let mut key = vec![b'q'];
    key.extend(queue.namespace.0.as_bytes());
    key.extend(queue.kind.to_be_bytes());
    key.extend(queue.name.as_bytes());
    key
}

impl Meta {
    /// First and last key of the rows that [`Meta::load`] wants.
    pub const ROWS: (&'static [u8], &'static [u8]) = (b"a", b"z");

    /// Reads the state back from its rows.
    ///
    /// # Errors
    /// If a row is damaged or of a newer version.
    pub fn load(rows: &[(Bytes, Bytes)]) -> Result<Meta, EnvelopeError> {
        let bad = || EnvelopeError::Body("unexpected key".into());
        let mut meta = Meta::default();
        for (key, value) in rows {
            match key.split_first() {
                Some((b'c', _)) => meta.snapshot.cluster_id = decode(VERSION, value)?,
                Some((b'd', node)) => {
                    let node: [u8; 8] = node.try_into().map_err(|_| bad())?;
                    meta.snapshot.nodes.insert(u64::from_be_bytes(node), decode(VERSION, value)?);
                }
                Some((b'm', node)) => {
                    let node: [u8; 8] = node.try_into().map_err(|_| bad())?;
                    meta.snapshot.members.insert(u64::from_be_bytes(node), decode(VERSION, value)?);
                }
                Some((b'p', shard)) => {
                    let shard: [u8; 4] = shard.try_into().map_err(|_| bad())?;
                    let shard = ShardId(u32::from_be_bytes(shard));
                    meta.snapshot.placements.insert(shard, decode(VERSION, value)?);
                }
                Some((b'n', _)) => meta.put(decode(VERSION, value)?),
                Some((b'q', _)) => {
                    let (queue, config) = decode(VERSION, value)?;
                    meta.snapshot.queue_configs.insert(queue, Arc::new(config));
                }
                Some((b's', name)) => {
                    let name = String::from_utf8(name.to_vec()).map_err(|_| bad())?;
                    meta.snapshot.attributes.insert(name, decode(VERSION, value)?);
                }
                _ => return Err(bad()),
            }
        }
        Ok(meta)
    }

    /// What everybody reads.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn put(&mut self, namespace: Namespace) {
        let namespace = Arc::new(namespace);
        self.snapshot.by_id.insert(namespace.id, namespace.clone());
        self.snapshot.by_name.insert(namespace.name.clone(), namespace);
    }

    fn store(&mut self, namespace: Namespace, batch: &mut Batch) {
        batch.put(namespace_row(namespace.id), encode(VERSION, &namespace));
        self.put(namespace);
    }

    /// Gives the cluster its ID, once.
    pub fn found(&mut self, id: Uuid) -> Batch {
        let mut batch = Batch::default();
        if self.snapshot.cluster_id.is_nil() {
            self.snapshot.cluster_id = id;
            batch.put(&b"c"[..], encode(VERSION, &id));
        }
        batch
    }

    /// A node takes part in the cluster, with a data directory of this ID, and is spoken to at an
    /// address.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if it did so with another: it has lost what it acknowledged, and the
    /// others count on that; or if it was removed.
    pub fn join(&mut self, node: u64, dir: Uuid, address: &str) -> Result<Batch> {
        let mut batch = Batch::default();
        match self.snapshot.nodes.get(&node) {
            Some(known) if *known == dir => {}
            Some(_) => {
                return Err(Error::FailedPrecondition(format!(
                    "node {node} took part in this cluster with another data directory, and may \
                     not come back without what it acknowledged there: bring that very directory \
                     back (an older copy of it will not do), or remove the node and take another \
                     number"
                )));
            }
            None => {
                self.snapshot.nodes.insert(node, dir);
                let key = [&b"d"[..], &node.to_be_bytes()].concat();
                batch.put(key, encode(VERSION, &dir));
            }
        }
        let mut member = self.snapshot.members.get(&node).cloned().unwrap_or_default();
        if member.state == MemberState::Removed {
            return Err(removed(node));
        }
        if member.address != address {
            address.clone_into(&mut member.address);
            self.put_member(node, member, &mut batch);
        }
        Ok(batch)
    }

    fn put_member(&mut self, node: u64, member: Member, batch: &mut Batch) {
        let key = [&b"m"[..], &node.to_be_bytes()].concat();
        batch.put(key, encode(VERSION, &member));
        self.snapshot.members.insert(node, member);
    }

    /// Says what is to become of a node. `founding` are the nodes with replicas of shards that are
    /// still where they were founded.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such node; `FAILED_PRECONDITION` if it was removed, if it is to be
    /// removed and still has replicas, or if no other node is left.
    pub fn set_member(&mut self, node: u64, state: MemberState, founding: &[u64]) -> Result<Batch> {
        let refuse = |what: String| Err(Error::FailedPrecondition(what));
        let known = self.snapshot.members.get(&node).cloned();
        let Some(mut member) = known else {
            return Err(Error::not_found(format!("there is no node {node}")));
        };
        let mut batch = Batch::default();
        if member.state == state {
            return Ok(batch);
        }
        if member.state == MemberState::Removed {
            return refuse(format!("node {node} was removed, and cannot come back"));
        }
        let is_other = |(id, m): (&u64, &Member)| *id != node && m.state == MemberState::Up;
        if state != MemberState::Up && !self.snapshot.members.iter().any(is_other) {
            return refuse(format!("node {node} is the last one"));
        }
        let has_replicas = |placement: &Placement| placement.replicas.contains(&node);
        let is_needed =
            self.snapshot.placements.values().any(has_replicas) || founding.contains(&node);
        if state == MemberState::Removed && is_needed {
            return refuse(format!(
                "node {node} has replicas of shards: drain it first, and wait until it has none"
            ));
        }
        member.state = state;
        self.put_member(node, member, &mut batch);
        Ok(batch)
    }

    /// Says which nodes are to have replicas of a shard, which were `before`.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if other nodes are by now, or if one of the new ones may not have any.
    pub fn place(&mut self, shard: ShardId, before: &[u64], replicas: &[u64]) -> Result<Batch> {
        let known = self.snapshot.placements.get(&shard);
        if known.is_some_and(|placement| placement.replicas != before) {
            return Err(Error::FailedPrecondition(format!("shard {shard} was placed since")));
        }
        let may = |node: &u64| {
            self.snapshot.members.get(node).is_none_or(|m| m.state != MemberState::Removed)
        };
        if replicas.is_empty() || !replicas.iter().all(may) {
            return Err(Error::FailedPrecondition(format!(
                "shard {shard} cannot be placed on {replicas:?}"
            )));
        }
        let placement = Placement { replicas: replicas.to_vec(), before: before.to_vec() };
        let mut batch = Batch::default();
        let key = [&b"p"[..], &shard.0.to_be_bytes()].concat();
        batch.put(key, encode(VERSION, &placement));
        self.snapshot.placements.insert(shard, placement);
        Ok(batch)
    }

    /// Registers a namespace.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `ALREADY_EXISTS`, or `RESOURCE_EXHAUSTED` over the limit.
    pub fn register(
        &mut self,
        id: NamespaceId,
        r: &api::RegisterNamespaceRequest,
    ) -> Result<Batch> {
        let namespace = Namespace::register(id, r)?;
        if self.snapshot.by_name.contains_key(&namespace.name) {
            return Err(Error::NamespaceAlreadyExists(format!(
                "Namespace \"{}\" already exists",
                namespace.name
            )));
        }
        if self.snapshot.by_name.len() >= NAMESPACES_MAX {
            return Err(Error::FailedPrecondition(format!(
                "the limit of {NAMESPACES_MAX} namespaces is reached"
            )));
        }
        let mut batch = Batch::default();
        self.store(namespace, &mut batch);
        Ok(batch)
    }

    /// Registers a namespace with defaults unless it is there.
    ///
    /// # Errors
    /// As [`Meta::register`].
    pub fn ensure(&mut self, id: NamespaceId, name: &str) -> Result<Batch> {
        if self.snapshot.by_name.contains_key(name) {
            return Ok(Batch::default());
        }
        let seconds = i64::try_from(RETENTION_DEFAULT.as_secs()).unwrap_or(i64::MAX);
        let request = api::RegisterNamespaceRequest {
            namespace: name.to_owned(),
            workflow_execution_retention_period: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        self.register(id, &request)
    }

    /// Changes a namespace.
    ///
    /// # Errors
    /// `NOT_FOUND`, `INVALID_ARGUMENT`.
    pub fn update(&mut self, r: &api::UpdateNamespaceRequest) -> Result<Batch> {
        let new = self.snapshot.namespace(&r.namespace)?.updated(r)?;
        let mut batch = Batch::default();
        self.store(new, &mut batch);
        Ok(batch)
    }

    /// Marks a namespace as one to be left.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn deprecate(&mut self, name: &str) -> Result<Batch> {
        let mut new = (*self.snapshot.namespace(name)?).clone();
        new.state = State::Deprecated;
        let mut batch = Batch::default();
        self.store(new, &mut batch);
        Ok(batch)
    }

    /// Adds custom search attributes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for reserved names or bad types, `ALREADY_EXISTS` for names in use.
    pub fn add_attributes(
        &mut self,
        new: &AttributeTypes,
        is_system: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Batch> {
        if new.is_empty() {
            return Err(Error::invalid("SearchAttributes are not set on request."));
        }
        for (name, kind) in new {
            if is_system(name) {
                return Err(Error::invalid(format!(
                    "Search attribute {name} is reserved by system."
                )));
            }
            let is_type =
                IndexedValueType::try_from(*kind).is_ok_and(|k| k != IndexedValueType::Unspecified);
            if name.is_empty() || !is_type {
                return Err(Error::invalid(format!("Unknown search attribute type: {kind}.")));
            }
            if self.snapshot.attributes.get(name).is_some_and(|k| k != kind) {
                return Err(Error::AlreadyExists(format!(
                    "Search attribute {name} already exists."
                )));
            }
            let of_type = self.snapshot.attributes.values().filter(|k| *k == kind).count();
            if of_type >= ATTRIBUTES_MAX {
                return Err(Error::invalid(format!(
                    "cannot have more than {ATTRIBUTES_MAX} search attributes of one type"
                )));
            }
        }
        let mut batch = Batch::default();
        for (name, kind) in new {
            batch.put(attribute_row(name), encode(VERSION, kind));
            self.snapshot.attributes.insert(name.clone(), *kind);
        }
        Ok(batch)
    }

    /// Removes custom search attributes.
    ///
    /// # Errors
    /// `NOT_FOUND` for one that is not there.
    pub fn remove_attributes(&mut self, names: &[String]) -> Result<Batch> {
        for name in names {
            if !self.snapshot.attributes.contains_key(name) {
                return Err(Error::not_found(format!("Search attribute {name} doesn't exist.")));
            }
        }
        let mut batch = Batch::default();
        for name in names {
            self.snapshot.attributes.remove(name);
            batch.delete(attribute_row(name));
        }
        Ok(batch)
    }

    /// Changes the configuration of a task queue.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, or `FAILED_PRECONDITION` over the limit on their number.
    pub fn configure_queue(
        &mut self,
        now: Time,
        queue: QueueName,
        r: &api::UpdateTaskQueueConfigRequest,
        id_length_max: usize,
    ) -> Result<Batch> {
        queue_config::check(r, id_length_max)?;
        let configs = &mut self.snapshot.queue_configs;
        if configs.len() >= QUEUE_CONFIGS_MAX && !configs.contains_key(&queue) {
            return Err(Error::FailedPrecondition(format!(
                "the limit of {QUEUE_CONFIGS_MAX} configured task queues is reached"
            )));
        }
        let new = configs.get(&queue).map(|c| (**c).clone()).unwrap_or_default().updated(now, r)?;
        let mut batch = Batch::default();
        batch.put(queue_row(&queue), encode(VERSION, &(&queue, &new)));
        configs.insert(queue, Arc::new(new));
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use everspan_proto::{
        enums::TaskQueueType, taskqueue,
        workflowservice::update_task_queue_config_request::RateLimitUpdate,
    };

    use super::*;

    fn queue() -> QueueName {
        let (namespace, kind) = (NamespaceId(Uuid::nil()), TaskQueueType::Activity as i32);
        QueueName { namespace, kind, name: "queue".into() }
    }

    fn update() -> api::UpdateTaskQueueConfigRequest {
        api::UpdateTaskQueueConfigRequest {
            identity: "me".into(),
            task_queue_type: TaskQueueType::Activity as i32,
            ..Default::default()
        }
    }

    fn limit(per_second: Option<f32>) -> Option<RateLimitUpdate> {
        Some(RateLimitUpdate {
            rate_limit: per_second
                .map(|requests_per_second| taskqueue::RateLimit { requests_per_second }),
            reason: "why".into(),
        })
    }

    #[test]
    fn a_queue_keeps_what_an_update_does_not_name() {
        let mut meta = Meta::default();
        let mut change = |r: &api::UpdateTaskQueueConfigRequest, at| {
            let batch = meta.configure_queue(Time::from_millis(at), queue(), r, 1_000).unwrap();
            // What is read back is what everybody sees.
            let rows: Vec<(Bytes, Bytes)> =
                batch.ops.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
            let read = Meta::load(&rows).unwrap();
            assert_eq!(read.snapshot.queue_configs, meta.snapshot.queue_configs);
            (*meta.snapshot.queue_configs[&queue()]).clone()
        };
        let mut r = update();
        r.update_queue_rate_limit = limit(Some(5.0));
        r.set_fairness_weight_overrides = [("a".to_owned(), 2.0), ("b".to_owned(), 3.0)].into();
        let first = change(&r, 1);
        assert_eq!(first.rate_limit.as_ref().and_then(|l| l.per_second), Some(5.0));
        let mut r = update();
        r.update_fairness_key_rate_limit_default = limit(Some(1.0));
        r.unset_fairness_weight_overrides = vec!["a".into()];
        let second = change(&r, 2);
        assert_eq!(second.rate_limit, first.rate_limit);
        assert_eq!(second.weights, BTreeMap::from([("b".to_owned(), 3.0)]));
        let mut r = update();
        r.update_queue_rate_limit = limit(None);
        let third = change(&r, 3);
        let shown = third.to_proto().queue_rate_limit.unwrap();
        assert_eq!(shown.rate_limit, None);
        assert_eq!(shown.metadata.unwrap().update_identity, "me");
    }

    #[test]
    fn bad_updates_change_nothing() {
        let mut workflow = update();
        workflow.task_queue_type = TaskQueueType::Workflow as i32;
        workflow.update_queue_rate_limit = limit(Some(5.0));
        let mut negative = update();
        negative.update_queue_rate_limit = limit(Some(-1.0));
        let mut both = update();
        both.set_fairness_weight_overrides = [("a".to_owned(), 2.0)].into();
        both.unset_fairness_weight_overrides = vec!["a".into()];
        let mut zero = update();
        zero.set_fairness_weight_overrides = [("a".to_owned(), 0.0)].into();
        for r in [workflow, negative, both, zero] {
            let mut meta = Meta::default();
            let refused = meta.configure_queue(Time::ZERO, queue(), &r, 1_000);
            assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{r:?}");
            assert!(meta.snapshot.queue_configs.is_empty());
        }
    }
}
