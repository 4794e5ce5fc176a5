//! What a run's workflow tasks keep failing of, where lists show it: the search attribute
//! `TemporalReportedProblems`.

use everspan_proto::enums::{TimeoutType, WorkflowTaskFailedCause};

use crate::{
    convert::{camel, keyword_list},
    turn::Turn,
};

/// The search attribute.
pub const ATTRIBUTE: &str = "TemporalReportedProblems";
/// After so many failures in a row it is set; the real server's default. That one goes on
/// counting where new events make the next task a first attempt again.
const FAILURES: i32 = 5;

/// Why a workflow task came to nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Problem {
    /// It failed.
    Failed(WorkflowTaskFailedCause),
    /// It timed out.
    TimedOut(TimeoutType),
}

impl Problem {
    /// In the search attribute's words.
    fn words(self) -> [String; 2] {
        let (category, cause) = match self {
            Self::Failed(cause) => {
                ("WorkflowTaskFailed", camel(cause.as_str_name(), "WORKFLOW_TASK_FAILED_CAUSE_"))
            }
            Self::TimedOut(kind) => {
                ("WorkflowTaskTimedOut", camel(kind.as_str_name(), "TIMEOUT_TYPE_"))
            }
        };
        [format!("category={category}"), format!("cause={category}Cause{cause}")]
    }
}

impl Turn<'_> {
    /// Reports a problem that is not the first of its kind; the attempt is the next one's.
    pub(crate) fn report_problem(&mut self, problem: Problem) {
        let info = &mut self.state.info;
        if info.workflow_task_attempt > FAILURES {
            let payload = keyword_list(&problem.words());
            info.search_attributes.indexed_fields.insert(ATTRIBUTE.to_owned(), payload);
        }
    }

    /// A workflow task was completed.
    pub(crate) fn forget_problems(&mut self) {
        self.state.info.search_attributes.indexed_fields.remove(ATTRIBUTE);
    }
}
