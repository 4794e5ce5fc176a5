//! Attributes that filters may name: the server's own and the custom ones.

use everspan_proto::enums::WorkflowExecutionStatus as Status;
use serde::{Deserialize, Serialize};

/// Type of a search attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttributeType {
    /// Compared as a whole.
    Keyword,
    /// Words.
    Text,
    /// A set of keywords.
    KeywordList,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// True or false.
    Bool,
    /// An instant.
    Datetime,
}

impl AttributeType {
    /// The API's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AttributeType::Keyword => "Keyword",
            AttributeType::Text => "Text",
            AttributeType::KeywordList => "KeywordList",
            AttributeType::Int => "Int",
            AttributeType::Double => "Double",
            AttributeType::Bool => "Bool",
            AttributeType::Datetime => "Datetime",
        }
    }

    /// From the API's name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        use AttributeType as T;
        [T::Keyword, T::Text, T::KeywordList, T::Int, T::Double, T::Bool, T::Datetime]
            .into_iter()
            .find(|t| t.name() == name)
    }
}

/// What a comparison is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Field {
    WorkflowId,
    RunId,
    WorkflowType,
    TaskQueue,
    Status,
    StartTime,
    ExecutionTime,
    CloseTime,
    ExecutionDuration,
    HistoryLength,
    HistorySize,
    Transitions,
    ParentWorkflowId,
    ParentRunId,
    RootWorkflowId,
    RootRunId,
    /// One of the record's search attributes.
    Attribute(String, AttributeType),
}

/// Fields that every record has, under the API's names.
const FIELDS: &[(&str, Field)] = &[
    ("WorkflowId", Field::WorkflowId),
    ("RunId", Field::RunId),
    ("WorkflowType", Field::WorkflowType),
    ("TaskQueue", Field::TaskQueue),
    ("ExecutionStatus", Field::Status),
    ("StartTime", Field::StartTime),
    ("ExecutionTime", Field::ExecutionTime),
    ("CloseTime", Field::CloseTime),
    ("ExecutionDuration", Field::ExecutionDuration),
    ("HistoryLength", Field::HistoryLength),
    ("HistorySizeBytes", Field::HistorySize),
    ("StateTransitionCount", Field::Transitions),
    ("ParentWorkflowId", Field::ParentWorkflowId),
    ("ParentRunId", Field::ParentRunId),
    ("RootWorkflowId", Field::RootWorkflowId),
    ("RootRunId", Field::RootRunId),
];

/// Marks runs of the server's own, which lists hide unless they name it.
pub(crate) const DIVISION: &str = "TemporalNamespaceDivision";

/// The server's attributes that are kept with the custom ones, and whether starts and
/// workflows may set them.
const PREDEFINED: &[(&str, AttributeType, bool)] = &[
    ("TemporalChangeVersion", AttributeType::KeywordList, true),
    ("BinaryChecksums", AttributeType::KeywordList, true),
    ("BuildIds", AttributeType::KeywordList, true),
    ("BatcherNamespace", AttributeType::Keyword, true),
    ("BatcherUser", AttributeType::Keyword, true),
    ("TemporalScheduledStartTime", AttributeType::Datetime, true),
    ("TemporalScheduledById", AttributeType::Keyword, true),
    ("TemporalSchedulePaused", AttributeType::Bool, true),
    (DIVISION, AttributeType::Keyword, true),
    ("TemporalPauseInfo", AttributeType::KeywordList, true),
    ("TemporalReportedProblems", AttributeType::KeywordList, true),
    ("TemporalWorkerDeploymentVersion", AttributeType::Keyword, false),
    ("TemporalWorkflowVersioningBehavior", AttributeType::Keyword, false),
    ("TemporalWorkerDeployment", AttributeType::Keyword, false),
    ("TemporalUsedWorkerDeploymentVersions", AttributeType::KeywordList, false),
    ("TemporalExternalPayloadCount", AttributeType::Int, false),
    ("TemporalExternalPayloadSizeBytes", AttributeType::Int, false),
];

const PREFIX: &str = "Temporal";

/// The type of one of the server's attributes that are kept with the custom ones.
pub(crate) fn predefined(name: &str) -> Option<AttributeType> {
    PREDEFINED.iter().find(|(n, ..)| *n == name).map(|(_, kind, _)| *kind)
}

impl Field {
    fn system(name: &str) -> Option<Field> {
        if let Some((_, field)) = FIELDS.iter().find(|(n, _)| *n == name) {
            return Some(field.clone());
        }
        predefined(name).map(|kind| Field::Attribute(name.to_owned(), kind))
    }

    /// What a name in a filter stands for: the server's attributes come before custom ones,
    /// and may be written with or without their `Temporal`; `ScheduleId` is the workflow ID
    /// unless there is a custom attribute of that name.
    pub(crate) fn resolve(
        name: &str,
        custom: &dyn Fn(&str) -> Option<AttributeType>,
    ) -> Option<Field> {
        if let Some(field) = Field::system(name) {
            return Some(field);
        }
        if let Some(kind) = custom(name) {
            return Some(Field::Attribute(name.to_owned(), kind));
        }
        let bare = name.strip_prefix(PREFIX);
        if bare.unwrap_or(name) == "ScheduleId" {
            return Some(Field::WorkflowId);
        }
        match bare {
            Some(bare) => Field::system(bare),
            None => Field::system(&format!("{PREFIX}{name}")),
        }
    }

    pub(crate) fn kind(&self) -> AttributeType {
        match self {
            Field::WorkflowId
            | Field::RunId
            | Field::WorkflowType
            | Field::TaskQueue
            | Field::Status
            | Field::ParentWorkflowId
            | Field::ParentRunId
            | Field::RootWorkflowId
            | Field::RootRunId => AttributeType::Keyword,
            Field::StartTime | Field::ExecutionTime | Field::CloseTime => AttributeType::Datetime,
            Field::ExecutionDuration
            | Field::HistoryLength
            | Field::HistorySize
            | Field::Transitions => AttributeType::Int,
            Field::Attribute(_, kind) => *kind,
        }
    }
}

/// The type of a system attribute that starts and workflows may set.
#[must_use]
pub fn settable_system_attribute(name: &str) -> Option<&'static str> {
    PREDEFINED.iter().find(|(n, _, settable)| *n == name && *settable).map(|(_, k, _)| k.name())
}

/// Whether a name is one of the server's own.
#[must_use]
pub fn is_system_attribute(name: &str) -> bool {
    Field::system(name).is_some()
}

/// The server's own attributes and their types.
pub fn system_attributes() -> impl Iterator<Item = (&'static str, AttributeType)> {
    let fields = FIELDS.iter().map(|(name, field)| (*name, field.kind()));
    fields.chain(PREDEFINED.iter().map(|(name, kind, _)| (*name, *kind)))
}

/// The API's short name of a status: `ContinuedAsNew`.
#[must_use]
pub fn status_name(status: i32) -> &'static str {
    match Status::try_from(status).unwrap_or(Status::Unspecified) {
        Status::Unspecified => "Unspecified",
        Status::Running => "Running",
        Status::Completed => "Completed",
        Status::Failed => "Failed",
        Status::Canceled => "Canceled",
        Status::Terminated => "Terminated",
        Status::ContinuedAsNew => "ContinuedAsNew",
        Status::TimedOut => "TimedOut",
        Status::Paused => "Paused",
    }
}

/// Every status there is, 0 (unspecified) included.
pub(crate) const STATUSES: std::ops::RangeInclusive<i32> = 0..=8;

/// A status by its short or its protobuf name.
pub(crate) fn status(text: &str) -> Option<i32> {
    STATUSES.into_iter().find(|n| {
        status_name(*n) == text || Status::try_from(*n).is_ok_and(|s| s.as_str_name() == text)
    })
}
