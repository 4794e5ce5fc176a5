//! Completion callbacks. A Temporal server calls the addresses that its settings allow, which are
//! none unless somebody names them; here none can be named yet, and each is refused in its words.

use everspan_proto::common::{Callback, callback::Variant};
use everspan_types::{Error, Result};

/// The real server's default.
const URL_MAX: usize = 1_000;
/// Where Nexus operations of the cluster itself are completed; it needs no permission.
const SYSTEM: &str = "temporal://system";

/// Refuses callbacks.
///
/// # Errors
/// `INVALID_ARGUMENT`; `UNIMPLEMENTED` for those to the cluster itself, since there is no Nexus.
pub(crate) fn check(callbacks: &[Callback]) -> Result<()> {
    let Some(first) = callbacks.first() else { return Ok(()) };
    let url = match &first.variant {
        Some(Variant::Nexus(nexus)) => nexus.url.as_str(),
        Some(Variant::Internal(_)) => return unsupported("*common.Callback_Internal_"),
        Some(Variant::NexusHandler(_)) => {
            return unsupported("*common.Callback_NexusHandler_");
        }
        None => return unsupported("<nil>"),
    };
    if url.len() > URL_MAX {
        return Err(Error::invalid(format!(
            "invalid url: url length longer than max length allowed of {URL_MAX}"
        )));
    }
    if url == SYSTEM {
        let what = "completion_callbacks to temporal://system are not implemented by Everspan yet";
        return Err(Error::Unimplemented(what.into()));
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(Error::invalid(format!("invalid url: unknown scheme: {url}")));
    }
    if rest.split(['/', '?', '#']).next().is_none_or(str::is_empty) {
        return Err(Error::invalid("invalid url: missing host"));
    }
    Err(Error::invalid(format!(
        "invalid url: url does not match any configured callback address: {url}"
    )))
}

fn unsupported(variant: &str) -> Result<()> {
    Err(Error::invalid(format!("unsupported callback variant: {variant}")))
}
