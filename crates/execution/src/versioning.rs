//! Overrides of a run's versioning behaviour. Workers' versions are not kept yet, and so no queue
//! has one that a run could be pinned to; a run may be told to go with the current version, which
//! is what all do.

use everspan_proto::{
    enums::VersioningBehavior,
    workflow::{VersioningOverride, versioning_override::Override},
};
use everspan_types::{Error, Result};

use crate::{convert::keyword, state::Info};

/// The override of a run that is to go with the current version, as the API gives it.
#[must_use]
pub fn auto_upgrade() -> VersioningOverride {
    VersioningOverride { r#override: Some(Override::AutoUpgrade(true)), ..Default::default() }
}

/// The same, with the field that older clients read.
#[allow(deprecated)]
pub(crate) fn described() -> VersioningOverride {
    VersioningOverride { behavior: VersioningBehavior::AutoUpgrade as i32, ..auto_upgrade() }
}

/// The search attribute that says how a run goes on with newer versions.
pub const ATTRIBUTE: &str = "TemporalWorkflowVersioningBehavior";

/// Notes in a run's state whether it has the override.
pub(crate) fn set(info: &mut Info, is_auto_upgrade: bool) {
    info.is_auto_upgrade = is_auto_upgrade;
    let attributes = &mut info.search_attributes.indexed_fields;
    if is_auto_upgrade {
        attributes.insert(ATTRIBUTE.to_owned(), keyword("AutoUpgrade"));
    } else {
        attributes.remove(ATTRIBUTE);
    }
}

/// Checks what a caller gives for a run on a task queue; what is taken is [`auto_upgrade`].
///
/// # Errors
/// `INVALID_ARGUMENT` for what makes no sense, `FAILED_PRECONDITION` for a version that the queue
/// does not have, in the real server's words; `UNIMPLEMENTED` for its oldest form, which that one
/// takes without a look at the queue.
#[allow(deprecated)]
pub fn check(given: &VersioningOverride, queue: &str) -> Result<()> {
    let missing = |version: &str| {
        Err(Error::FailedPrecondition(format!(
            "Pinned version '{version}' is not present in task queue '{queue}' of type 'Workflow'"
        )))
    };
    let named = |version: &everspan_proto::deployment::WorkerDeploymentVersion| {
        missing(&format!("{}:{}", version.deployment_name, version.build_id))
    };
    match &given.r#override {
        Some(Override::AutoUpgrade(true)) => return Ok(()),
        Some(Override::AutoUpgrade(false)) => {
            return Err(Error::invalid("auto-upgrade override must be true"));
        }
        Some(Override::Pinned(pinned)) => {
            let Some(version) = &pinned.version else {
                return Err(Error::invalid("must provide version if override is pinned."));
            };
            if pinned.behavior == 0 {
                let what = "must specify pinned override behavior if override is pinned.";
                return Err(Error::invalid(what));
            }
            return named(version);
        }
        Some(Override::OneTime(once)) => {
            let Some(version) = &once.target_deployment_version else {
                let what = "must provide target deployment version if override is one-time.";
                return Err(Error::invalid(what));
            };
            return named(version);
        }
        None => {}
    }
    match given.behavior() {
        VersioningBehavior::Pinned if given.deployment.is_some() => Err(Error::Unimplemented(
            "a versioning_override with a deployment is not implemented by Everspan yet".into(),
        )),
        VersioningBehavior::Pinned => match given.pinned_version.split_once('.') {
            Some((deployment, build)) if !deployment.is_empty() && !build.is_empty() => {
                missing(&format!("{deployment}:{build}"))
            }
            _ if given.pinned_version.is_empty() => Err(Error::invalid(
                "must provide deployment (deprecated) or pinned version if behavior is 'PINNED'",
            )),
            _ => Err(Error::invalid(format!(
                "invalid version string '{}', expected format is '<deployment_name>.<build_id>'",
                given.pinned_version
            ))),
        },
        VersioningBehavior::AutoUpgrade if given.deployment.is_some() => {
            Err(Error::invalid("only provide deployment if behavior is 'PINNED'"))
        }
        VersioningBehavior::AutoUpgrade if !given.pinned_version.is_empty() => {
            Err(Error::invalid("only provide pinned version if behavior is 'PINNED'"))
        }
        VersioningBehavior::AutoUpgrade => Ok(()),
        VersioningBehavior::Unspecified => Err(Error::invalid("override behavior is required")),
    }
}
