//! Updates that are not accepted yet. They live in memory only, like the real server's: a
//! caller whose update is lost with the node asks again under the same ID. Those that history
//! says were admitted (a reset took them over) come back with the state.

use std::collections::BTreeMap;

use everspan_proto::{
    protocol::{Message, message::SequencingId},
    update::Request,
};
use everspan_types::Time;
use prost::{Message as _, Name as _};

/// Where an update that is not accepted yet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waits for a workflow task to travel on.
    Admitted,
    /// Went to a worker, with a task that may still be lost.
    Sent,
    /// The run closed before it was accepted, for good or to go on in another run.
    Aborted {
        /// Whether another run goes on.
        is_continued: bool,
    },
}

/// An update on its way to being accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// As the caller sent it; none where history has it, from where the worker takes it.
    pub request: Option<Request>,
    /// When.
    pub admitted_time: Time,
    /// Place in the order of admission.
    order: u64,
    /// How far it came.
    pub stage: Stage,
}

/// The updates of one run that are not accepted yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    pending: BTreeMap<String, Pending>,
    next_order: u64,
    /// What travels on the workflow task that was started last.
    outgoing: Vec<String>,
}

impl Registry {
    /// The update of this ID.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Pending> {
        self.pending.get(id)
    }

    /// Whether none is on its way that only memory knows.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.alive().all(|(_, p)| p.request.is_none())
    }

    /// Updates on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.alive().count()
    }

    /// Whether nothing is kept at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes of the updates on their way.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |p: &Pending| p.request.as_ref().map_or(0, Request::encoded_len);
        self.alive().map(|(id, p)| 2 * id.len() + bytes(p)).sum()
    }

    /// Updates on their way, by ID.
    pub fn alive(&self) -> impl Iterator<Item = (&String, &Pending)> {
        self.pending.iter().filter(|(_, p)| !matches!(p.stage, Stage::Aborted { .. }))
    }

    /// Whether the next workflow task would carry an update.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        !self.is_idle()
    }

    pub(crate) fn admit(&mut self, id: String, request: Option<Request>, now: Time) {
        self.next_order += 1;
        let pending =
            Pending { request, admitted_time: now, order: self.next_order, stage: Stage::Admitted };
        self.pending.insert(id, pending);
    }

    pub(crate) fn take(&mut self, id: &str) -> Option<Pending> {
        self.pending.remove(id)
    }

    /// Puts what is due on the workflow task that is being started. `resend` includes what
    /// went out before with a task that came to nothing.
    pub(crate) fn send(&mut self, resend: bool) {
        let mut due: Vec<(u64, &String, &mut Pending)> = self
            .pending
            .iter_mut()
            .filter(|(_, p)| p.stage == Stage::Admitted || (resend && p.stage == Stage::Sent))
            .map(|(id, p)| (p.order, id, p))
            .collect();
        due.sort_unstable_by_key(|(order, ..)| *order);
        self.outgoing = due
            .into_iter()
            .map(|(_, id, pending)| {
                pending.stage = Stage::Sent;
                id.clone()
            })
            .collect();
    }

    /// The messages that travel on the workflow task started last.
    #[must_use]
    pub fn messages(&self, started_event_id: i64) -> Vec<Message> {
        self.outgoing
            .iter()
            .filter_map(|id| Some((id, self.pending.get(id)?.request.as_ref()?)))
            .map(|(id, request)| Message {
                id: request_message_id(id),
                protocol_instance_id: id.clone(),
                body: Some(prost_types::Any {
                    type_url: format!("type.googleapis.com/{}", Request::full_name()),
                    value: request.encode_to_vec(),
                }),
                sequencing_id: Some(SequencingId::EventId(started_event_id - 1)),
            })
            .collect()
    }

    /// IDs of the updates that a worker was given, in the order of admission.
    pub(crate) fn sent(&self) -> Vec<String> {
        self.in_order(|p| p.stage == Stage::Sent)
    }

    /// IDs of all updates on their way, in the order of admission.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.in_order(|p| !matches!(p.stage, Stage::Aborted { .. }))
    }

    fn in_order(&self, is_meant: impl Fn(&Pending) -> bool) -> Vec<String> {
        let mut ids: Vec<(u64, String)> = self
            .pending
            .iter()
            .filter(|(_, p)| is_meant(p))
            .map(|(id, p)| (p.order, id.clone()))
            .collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Ends all updates on their way, since the run closed.
    pub(crate) fn abort(&mut self, is_continued: bool) {
        for pending in self.pending.values_mut() {
            if !matches!(pending.stage, Stage::Aborted { .. }) {
                pending.stage = Stage::Aborted { is_continued };
            }
        }
        self.outgoing.clear();
    }

    /// Forgets updates for which `is_kept` says no.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&str, &Pending) -> bool) {
        self.pending.retain(|id, p| is_kept(id, p));
    }
}

/// ID of the message that brings an update to the worker.
pub(crate) fn request_message_id(update_id: &str) -> String {
    format!("{update_id}/request")
}
