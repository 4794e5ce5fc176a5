//! The builds of workers that completed a run's workflow tasks: where it can be reset to, and
//! what it can be found by.

use bytes::Bytes;
use everspan_proto::common::Payload;
use everspan_types::Time;

use crate::state::{ResetPoint, State};

/// Most reset points of a run; the real server's.
const RESET_POINTS_MAX: usize = 50;
/// From this size on, in bytes, no more builds are added to the attribute: what the real server
/// lets a value of a search attribute have.
const BUILD_IDS_BYTES_MAX: usize = 2 * 1024;

impl State {
    /// Notes that a build of the worker completed a task: in the search attribute `BuildIds`,
    /// and as a reset point, if it is the first task of the chain that it completed.
    pub(crate) fn note_build(&mut self, id: i64, build_id: String, checksum: &str, time: Time) {
        self.note_build_attribute(&build_id);
        let info = &mut self.info;
        let is_known = info
            .reset_points
            .iter()
            .any(|p| p.build_id == build_id && p.binary_checksum == checksum);
        if is_known || info.reset_points.len() >= RESET_POINTS_MAX {
            return;
        }
        info.reset_points.push(ResetPoint {
            run_id: info.run_id.to_string(),
            build_id,
            binary_checksum: checksum.to_owned(),
            completed_event_id: id,
            time,
            expire_time: None,
        });
    }

    /// Adds a build to `BuildIds`, a list in JSON. The attribute is the run's own: it is not
    /// handed on to the next run of a chain, as the reset points are.
    fn note_build_attribute(&mut self, build_id: &str) {
        let fields = &mut self.info.search_attributes.indexed_fields;
        let known = fields.get("BuildIds").map_or(&b"[]"[..], |p| &p.data);
        let mut list = String::from_utf8_lossy(known).into_owned();
        let own = (!build_id.is_empty()).then(|| format!("unversioned:{build_id}"));
        let mut is_new = false;
        for name in [Some("unversioned".to_owned()), own].into_iter().flatten() {
            let quoted = format!("{name:?}");
            if list.len() > BUILD_IDS_BYTES_MAX || list.contains(&quoted) {
                continue;
            }
            is_new = true;
            let separator = if list.len() > 2 { "," } else { "" };
            list.truncate(list.len().saturating_sub(1));
            list = format!("{list}{separator}{quoted}]");
        }
        if !is_new {
            return;
        }
        let payload = Payload {
            metadata: [
                ("encoding".to_owned(), Bytes::from_static(b"json/plain")),
                ("type".to_owned(), Bytes::from_static(b"KeywordList")),
            ]
            .into(),
            data: list.into(),
            ..Payload::default()
        };
        fields.insert("BuildIds".into(), payload);
    }
}
