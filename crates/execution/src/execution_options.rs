//! Changes to a run's options after its start, by callers who name it and by starts that
//! found it open.

use std::collections::BTreeSet;

use everspan_proto::{
    common::{Link, Priority},
    enums::EventType,
    history::{
        HistoryEvent, WorkflowExecutionOptionsUpdatedEventAttributes, history_event::Attributes,
    },
    workflow::{VersioningOverride, WorkflowExecutionOptions},
    workflowservice::{StartWorkflowExecutionRequest, UpdateWorkflowExecutionOptionsRequest},
};
use everspan_types::{Error, Result};
use prost_types::FieldMask;
use serde::{Deserialize, Serialize};

use crate::{field_mask, signal::closed, state::State, turn::Turn, versioning};

/// A request that was attached to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedRequest {
    /// Type of the event that tells of it.
    pub event_type: i32,
    /// The event; 0 while it is held back.
    pub event_id: i64,
}

/// A change to a run's options that can be made.
#[derive(Clone, Debug)]
pub struct OptionsUpdate {
    given: WorkflowExecutionOptions,
    mask: BTreeSet<String>,
    identity: String,
}

impl OptionsUpdate {
    /// The change that a mask and the values for what it names make.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a part of a versioning override, `UNIMPLEMENTED` for time skipping,
    /// which this release does not have.
    pub fn new(
        given: Option<&WorkflowExecutionOptions>,
        mask: Option<&FieldMask>,
        identity: &str,
    ) -> Result<Self> {
        let mask = mask.map(field_mask::paths).unwrap_or_default();
        if mask.iter().any(|path| path.split('.').next() == Some("timeSkippingConfig")) {
            let what = "time_skipping_config is not implemented by Everspan yet";
            return Err(Error::Unimplemented(what.into()));
        }
        // Two of the deprecated fields together stand for all of it.
        let parts = ["versioningOverride.behavior", "versioningOverride.deployment"];
        let of_override = |path: &&String| path.starts_with("versioningOverride.");
        let refused = match mask.iter().filter(|path| parts.contains(&path.as_str())).count() {
            1 => Some("versioning_override fields must be updated together"),
            n if mask.iter().filter(of_override).count() > n => {
                Some("versioning_override doesn't support partial updates")
            }
            _ => None,
        };
        if let Some(why) = refused {
            return Err(Error::invalid(format!("error applying update_options: {why}")));
        }
        Ok(Self { given: given.cloned().unwrap_or_default(), mask, identity: identity.into() })
    }
}

impl OptionsUpdate {
    /// What the versioning override becomes, if the mask names it.
    fn versioning_override(&self) -> Option<Option<&VersioningOverride>> {
        let is_named = self.mask.iter().any(|p| p.split('.').next() == Some("versioningOverride"));
        is_named.then_some(self.given.versioning_override.as_ref())
    }

    /// Checks it for a run on a task queue.
    ///
    /// # Errors
    /// Those of [`versioning::check`].
    pub fn check(&self, queue: &str) -> Result<()> {
        self.versioning_override().flatten().map_or(Ok(()), |given| versioning::check(given, queue))
    }
}

impl Turn<'_> {
    /// Changes the options that the mask names; answers with all of them.
    ///
    /// # Errors
    /// `NOT_FOUND` on a closed run; those of [`OptionsUpdate::new`].
    pub fn update_options(
        &mut self,
        request: &UpdateWorkflowExecutionOptionsRequest,
    ) -> Result<WorkflowExecutionOptions> {
        if !self.state.is_running() {
            return Err(closed());
        }
        let update = OptionsUpdate::new(
            request.workflow_execution_options.as_ref(),
            request.update_mask.as_ref(),
            &request.identity,
        )?;
        update.check(&self.state.info.task_queue)?;
        Ok(self.apply_options(&update))
    }

    pub(crate) fn apply_options(&mut self, update: &OptionsUpdate) -> WorkflowExecutionOptions {
        let current = self.state.info.priority.clone();
        let merged = merge_priority(current.clone(), update.given.priority.as_ref(), &update.mask);
        let was_auto_upgrade = self.state.info.is_auto_upgrade;
        let is_auto_upgrade = match update.versioning_override() {
            Some(given) => given.is_some(),
            None => was_auto_upgrade,
        };
        let versioning_override = is_auto_upgrade.then(versioning::auto_upgrade);
        let options = WorkflowExecutionOptions {
            priority: merged.clone(),
            versioning_override: versioning_override.clone(),
            ..Default::default()
        };
        if merged == current && is_auto_upgrade == was_auto_upgrade {
            return options;
        }
        let attributes = WorkflowExecutionOptionsUpdatedEventAttributes {
            unset_versioning_override: !is_auto_upgrade,
            versioning_override,
            identity: update.identity.clone(),
            priority: merged,
            ..Default::default()
        };
        self.hold_options(attributes, Vec::new());
        options
    }

    /// Attaches what a start that found this run open asks for.
    ///
    /// # Errors
    /// `NOT_FOUND` on a closed run.
    pub fn attach_start(&mut self, request: &StartWorkflowExecutionRequest) -> Result<()> {
        if !self.state.is_running() {
            return Err(closed());
        }
        let Some(options) = &request.on_conflict_options else { return Ok(()) };
        let attributes = WorkflowExecutionOptionsUpdatedEventAttributes {
            attached_request_id: if options.attach_request_id {
                request.request_id.clone()
            } else {
                String::new()
            },
            ..Default::default()
        };
        let links = if options.attach_links { request.links.clone() } else { Vec::new() };
        self.hold_options(attributes, links);
        Ok(())
    }

    fn hold_options(
        &mut self,
        attributes: WorkflowExecutionOptionsUpdatedEventAttributes,
        links: Vec<Link>,
    ) {
        // The event makes a speculative task one like others.
        self.settle_speculative_workflow_task();
        // Waiting tasks are offered anew with the priority as it then is: a task's row stands
        // where its priority says, and activities may have theirs from the run.
        let is_changed =
            attributes.priority.is_some() && attributes.priority != self.state.info.priority;
        let is_waiting = self.state.info.workflow_task.as_ref().is_some_and(|t| !t.is_started());
        let is_reoffered = is_waiting && is_changed;
        if is_reoffered {
            self.withdraw_workflow_task();
        }
        let activities: Vec<i64> = self
            .state
            .activities
            .iter()
            .filter(|(_, activity)| is_changed && activity.is_offered())
            .map(|(id, _)| *id)
            .collect();
        for id in &activities {
            self.withdraw_activity(*id);
        }
        self.hold_event(HistoryEvent {
            event_time: Some(self.ctx.now.to_proto()),
            event_type: EventType::WorkflowExecutionOptionsUpdated as i32,
            links,
            worker_may_ignore: true,
            attributes: Some(Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(
                attributes,
            )),
            ..HistoryEvent::default()
        });
        if is_reoffered {
            let info = &mut self.state.info;
            info.workflow_task_stamp += 1;
            if let Some(task) = &mut info.workflow_task {
                task.stamp = info.workflow_task_stamp;
            }
            self.offer_workflow_task();
        }
        for id in activities {
            if let Some(activity) = self.state.activities.get_mut(&id) {
                activity.stamp += 1;
            }
            self.offer_activity(id);
        }
    }
}

/// The priority with what the mask names replaced.
pub(crate) fn merge_priority(
    current: Option<Priority>,
    given: Option<&Priority>,
    mask: &BTreeSet<String>,
) -> Option<Priority> {
    let mut merged = current;
    if mask.contains("priority") {
        merged = given.cloned();
    }
    let from = given.cloned().unwrap_or_default();
    if mask.contains("priority.priorityKey") {
        merged.get_or_insert_default().priority_key = from.priority_key;
    }
    if mask.contains("priority.fairnessKey") {
        merged.get_or_insert_default().fairness_key.clone_from(&from.fairness_key);
    }
    if mask.contains("priority.fairnessWeight") {
        merged.get_or_insert_default().fairness_weight = from.fairness_weight;
    }
    merged
}

/// The state follows an options-updated event.
pub(crate) fn updated(
    state: &mut State,
    event: &HistoryEvent,
    a: &WorkflowExecutionOptionsUpdatedEventAttributes,
) {
    if !a.attached_request_id.is_empty() {
        let request = AttachedRequest { event_type: event.event_type, event_id: event.event_id };
        state.info.attached_requests.insert(a.attached_request_id.clone(), request);
    }
    if a.priority.is_some() {
        state.info.priority.clone_from(&a.priority);
    }
    if a.unset_versioning_override || a.versioning_override.is_some() {
        versioning::set(&mut state.info, a.versioning_override.is_some());
    }
}

/// Notes the ID that a held-back event got.
pub(crate) fn numbered(state: &mut State, event: &HistoryEvent) {
    if let Some(Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(a)) = &event.attributes
        && let Some(request) = state.info.attached_requests.get_mut(&a.attached_request_id)
    {
        request.event_id = event.event_id;
    }
}
