//! What nodes ask each other about shards. The answer to each question is a `Result` of what is
//! written beside it.

use bytes::Bytes;
use everspan_broker::BacklogAsk;
use everspan_execution::message::Message;
use everspan_types::{Error, NamespaceId, Offer, Poller, QueueKey, Result, ShardId, Time};
use everspan_visibility as visibility;
use serde::{Deserialize, Serialize};

use crate::{
    call::{Call, Request},
    outbox::Delivery,
};

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// The bytes of a `Reply`.
    Call(SentCall),
    /// A `StartedTask`, or a `StartError` inside.
    Start { offer: Offer, poller: Poller },
    /// Nothing.
    StickyUnavailable { offer: Offer },
    /// A `BacklogPage`.
    Backlog { shard: ShardId, ask: BacklogAsk },
    /// `BacklogCounts`.
    CountBacklog { shard: ShardId, queue: QueueKey },
    /// The sequence of the last message taken.
    Deliver { shard: ShardId, delivery: SentDelivery },
    /// A page of the replica's rows, as of `index` of the log or later.
    Rows { shard: ShardId, index: u64, from: Bytes },
    /// A `ListPage`.
    List {
        shard: ShardId,
        namespace: NamespaceId,
        query: visibility::Query,
        after: Option<visibility::Cursor>,
        limit: u64,
    },
    /// Where the replicas of the node stand: `ReplicaStanding`s.
    Standings,
    /// To have another node lead a shard: nothing.
    HandOver { shard: ShardId, to: u64 },
    /// `Counts`.
    Count { shard: ShardId, namespace: NamespaceId, query: visibility::Query },
}

/// A [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SentCall {
    pub(crate) shard: ShardId,
    namespace: NamespaceId,
    workflow_id: String,
    /// The RPC.
    name: String,
    body: Bytes,
    /// Nanoseconds until the caller stops waiting: clocks of nodes differ.
    wait: u64,
}

impl SentCall {
    pub(crate) fn new(shard: ShardId, request: &Request, now: Time) -> Self {
        let wait = request.deadline.since(now).as_nanos();
        Self {
            shard,
            namespace: request.namespace,
            workflow_id: request.workflow_id.clone(),
            name: request.call.name().into(),
            body: request.call.to_bytes(),
            wait: u64::try_from(wait).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn request(self, now: Time) -> Result<Request> {
        let Self { namespace, workflow_id, name, body, wait, .. } = self;
        let call = Call::from_bytes(&name, body)?;
        let deadline = Time::from_nanos(now.as_nanos().saturating_add(wait));
        Ok(Request { namespace, workflow_id, call, deadline })
    }
}

/// A [`Delivery`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SentDelivery {
    from: ShardId,
    messages: Vec<(u64, Bytes)>,
}

impl SentDelivery {
    pub(crate) fn new(delivery: &Delivery) -> Self {
        let messages = delivery.messages.iter();
        let messages = messages.map(|(n, message)| (*n, Bytes::from(message.to_bytes()))).collect();
        Self { from: delivery.from, messages }
    }

    pub(crate) fn delivery(self) -> Result<Delivery> {
        let bad = |e| Error::internal(format!("a message does not read: {e}"));
        let message = |(n, raw): (u64, Bytes)| Ok((n, Message::from_bytes(&raw).map_err(bad)?));
        let messages = self.messages.into_iter().map(message).collect::<Result<_>>()?;
        Ok(Delivery { from: self.from, messages })
    }
}
