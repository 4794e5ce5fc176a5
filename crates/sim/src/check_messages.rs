//! What executions told each other, as their histories say: each thing asked for is answered
//! once, each answer has its question, and what is said to have happened did.

use std::collections::BTreeMap;

use everspan_proto::{
    enums::ParentClosePolicy,
    history::{HistoryEvent, history_event::Attributes},
};

use crate::{
    ending::SETTLED,
    histories::{Histories, Run, answer, closing},
    payload,
    record::{Issuer, Record},
};

/// All that is wrong.
pub(crate) fn check(record: &Record, histories: &Histories, wrong: &mut Vec<String>) {
    for run in histories.runs.values() {
        let mut complain = |what: String| wrong.push(format!("run {}: {what}", run.id));
        answers(run, histories, &mut complain);
        parent(run, record, histories, &mut complain);
        updates(run, &mut complain);
        if let Some(next) = new_run(run)
            && !histories.deleted.contains(&run.workflow_id)
            && histories.runs.get(next).is_none_or(|n| n.follows != run.id)
        {
            complain(format!("run {next}, which is to follow it, does not"));
        }
    }
    signals_once(histories, wrong);
}

/// The run that a close names as the next of the chain.
fn new_run(run: &Run) -> Option<&str> {
    let id = match run.events.last()?.attributes.as_ref()? {
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(a) => &a.new_execution_run_id,
        Attributes::WorkflowExecutionCompletedEventAttributes(a) => &a.new_execution_run_id,
        Attributes::WorkflowExecutionFailedEventAttributes(a) => &a.new_execution_run_id,
        Attributes::WorkflowExecutionTimedOutEventAttributes(a) => &a.new_execution_run_id,
        _ => return None,
    };
    (!id.is_empty()).then_some(id)
}

/// Something a run asked of another execution, and how far it came.
#[derive(Default)]
struct Asked<'a> {
    signal: Option<String>,
    workflow_id: &'a str,
    /// The child's first run, once it started, and the event that says so.
    child: Option<(&'a str, i64)>,
    is_over: bool,
}

fn answers(run: &Run, histories: &Histories, complain: &mut dyn FnMut(String)) {
    let mut open: BTreeMap<i64, Asked<'_>> = BTreeMap::new();
    for event in &run.events {
        match &event.attributes {
            Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(a)) => {
                let asked = Asked { workflow_id: &a.workflow_id, ..Asked::default() };
                open.insert(event.event_id, asked);
            }
            Some(Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(a)) => {
                let workflow_id =
                    a.workflow_execution.as_ref().map_or("", |e| e.workflow_id.as_str());
                let signal = Some(payload::read(a.input.as_ref()));
                let asked = Asked { workflow_id, signal, ..Asked::default() };
                open.insert(event.event_id, asked);
            }
            Some(Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(a)) => {
                let workflow_id =
                    a.workflow_execution.as_ref().map_or("", |e| e.workflow_id.as_str());
                open.insert(event.event_id, Asked { workflow_id, ..Asked::default() });
            }
            _ => {}
        }
        let Some(answer) = answer(event) else { continue };
        let (id, initiated) = (event.event_id, answer.initiated_event_id);
        let Some(asked) = open.get_mut(&initiated).filter(|asked| !asked.is_over) else {
            complain(format!("event {id} answers event {initiated}, which waits for nothing"));
            continue;
        };
        if answer.started_event_id != asked.child.map_or(0, |(_, event)| event) {
            complain(format!("event {id} names another start of the child than there was"));
        }
        asked.is_over = answer.is_last;
        let is_promised = !histories.deleted.contains(asked.workflow_id);
        match &event.attributes {
            Some(Attributes::ChildWorkflowExecutionStartedEventAttributes(a)) => {
                if asked.child.is_some() {
                    complain(format!("event {id} starts a child for the second time"));
                }
                let child = a.workflow_execution.as_ref().map_or("", |e| e.run_id.as_str());
                asked.child = Some((child, id));
                let is_there = histories.runs.get(child).is_some_and(|c| {
                    c.workflow_id == asked.workflow_id
                        && c.parent.as_ref().is_some_and(|(parent, event)| {
                            *event == initiated
                                && (*parent == run.id || initiated <= run.copied_up_to)
                        })
                });
                if is_promised && !is_there {
                    complain(format!("its child {child} is nobody's, or another's"));
                }
            }
            Some(Attributes::ExternalWorkflowExecutionSignaledEventAttributes(_)) => {
                let name = asked.signal.clone().unwrap_or_default();
                let has_it =
                    histories.of(asked.workflow_id).any(|target| target.signals.contains(&name));
                if is_promised && !has_it {
                    complain(format!("{} never got signal {name}", asked.workflow_id));
                }
            }
            Some(Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(_)) => {
                let was_asked = histories
                    .of(asked.workflow_id)
                    .any(|target| target.cancel_requested.is_some() || target.closed_at.is_some());
                if is_promised && !was_asked {
                    complain(format!("{} was never asked to cancel", asked.workflow_id));
                }
            }
            _ => child_close(event, asked, is_promised, histories, complain),
        }
    }
}

/// A child's close is that of the last run of its chain.
fn child_close(
    event: &HistoryEvent,
    asked: &Asked<'_>,
    is_promised: bool,
    histories: &Histories,
    complain: &mut dyn FnMut(String),
) {
    let told = match &event.attributes {
        Some(Attributes::ChildWorkflowExecutionCompletedEventAttributes(a)) => {
            &a.workflow_execution
        }
        Some(Attributes::ChildWorkflowExecutionFailedEventAttributes(a)) => &a.workflow_execution,
        Some(Attributes::ChildWorkflowExecutionCanceledEventAttributes(a)) => &a.workflow_execution,
        Some(Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a)) => &a.workflow_execution,
        Some(Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a)) => {
            &a.workflow_execution
        }
        _ => return,
    };
    if !is_promised {
        return;
    }
    let (id, told) = (event.event_id, told.as_ref().map_or("", |e| e.run_id.as_str()));
    let Some(child) = histories.runs.get(told) else {
        return complain(format!("event {id} tells of run {told}, which does not exist"));
    };
    // Seen from the child: closed, in the way that is told, with no run to follow.
    let way = |name: &str| name.rsplit('_').next().unwrap_or_default().to_owned();
    let closes = child.events.last().filter(|e| closing(e.event_type()).is_some());
    let how = closes.map(|e| way(e.event_type().as_str_name()));
    if how.as_deref() != Some(way(event.event_type().as_str_name()).as_str()) {
        complain(format!("event {id} tells of run {told}, which ended otherwise: {how:?}"));
    }
    if new_run(child).is_some() {
        complain(format!("event {id} tells that the child closed, but it goes on"));
    }
    let mut first = child;
    while let Some(before) = histories.runs.get(&first.follows) {
        first = before;
    }
    if asked.child.is_none_or(|(run, _)| run != first.id) && first.copied_up_to == 0 {
        complain(format!("event {id} tells of run {told}, which is of another chain"));
    }
}

/// A child has a parent that asked for it, once; one that is to end with it does.
fn parent(run: &Run, record: &Record, histories: &Histories, complain: &mut dyn FnMut(String)) {
    let Some((parent_run, initiated)) = &run.parent else { return };
    let Some(parent) = histories.runs.get(parent_run) else {
        if histories.deleted.is_empty() {
            complain(format!("its parent {parent_run} does not exist"));
        }
        return;
    };
    let asked = parent.events.iter().find(|e| e.event_id == *initiated);
    let Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(asked)) =
        asked.and_then(|e| e.attributes.as_ref())
    else {
        return complain(format!("event {initiated} of its parent {parent_run} asks for no child"));
    };
    if asked.workflow_id != run.workflow_id {
        complain(format!("its parent {parent_run} asked for {}", asked.workflow_id));
    }
    if run.follows.is_empty() && run.copied_up_to == 0 {
        let twin = histories.of(&run.workflow_id).find(|other| {
            other.id != run.id
                && other.parent == run.parent
                && other.follows.is_empty()
                && other.copied_up_to == 0
        });
        if let Some(twin) = twin {
            complain(format!("runs {} and this one are the same child", twin.id));
        }
    }
    // Whoever ends what does not end by itself waits a minute: the parent's close is long past.
    let ended_by = record.ops.iter().find(|op| op.name == run.terminated_for);
    let is_orphan = ended_by.is_some_and(|op| op.issuer == Issuer::Closer)
        && asked.parent_close_policy() == ParentClosePolicy::Terminate
        && parent
            .closed_at
            .is_some_and(|closed| run.closed_at.is_some_and(|ended| closed + SETTLED < ended))
        && !histories.of(&parent.workflow_id).any(|r| r.copied_up_to > 0);
    if is_orphan {
        complain(format!("it outlived its parent {parent_run}, which was to end it"));
    }
}

/// Each update is accepted once, and completed once after that.
fn updates(run: &Run, complain: &mut dyn FnMut(String)) {
    let mut open: BTreeMap<&str, bool> = BTreeMap::new();
    for event in &run.events {
        match &event.attributes {
            Some(Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(a))
                if open.insert(&a.protocol_instance_id, true).is_some() =>
            {
                complain(format!("update {} is accepted twice", a.protocol_instance_id));
            }
            Some(Attributes::WorkflowExecutionUpdateCompletedEventAttributes(a)) => {
                let id = a.meta.as_ref().map_or("", |m| m.update_id.as_str());
                if open.insert(id, false) != Some(true) {
                    complain(format!("update {id} is completed out of turn"));
                }
            }
            _ => {}
        }
    }
}

/// A signal that a workflow sent is taken by one run only. A reset takes signals over.
fn signals_once(histories: &Histories, wrong: &mut Vec<String>) {
    let mut taken: BTreeMap<&str, &Run> = BTreeMap::new();
    for run in histories.runs.values() {
        if histories.of(&run.workflow_id).any(|r| r.copied_up_to > 0) {
            continue;
        }
        for event in &run.events {
            let Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) = &event.attributes
            else {
                continue;
            };
            if a.external_workflow_execution.is_none() {
                continue;
            }
            let name = run.signals.iter().find(|s| **s == payload::read(a.input.as_ref()));
            let Some(name) = name else { continue };
            if let Some(other) = taken.insert(name, run)
                && other.id != run.id
            {
                wrong.push(format!("runs {} and {} both have signal {name}", other.id, run.id));
            }
        }
    }
}
