//! The builds of workers that completed a run's workflow tasks: where it can be reset to, and
//! what it can be found by.

use bytes::Bytes;
use everspan_proto::common::Payload;
use everspan_types::Time;

use crate::state::{ResetPoint, State};

/// Most reset points of a run; the real server's.
const RESET_POINTS_MAX: usize = 50;
/// Most bytes of the attribute's builds, beyond which none is added: what the real server lets a
/// value of a search attribute have.
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
        // A caller may have put anything there: what is no list is replaced.
        let known = fields.get("BuildIds").and_then(|p| std::str::from_utf8(&p.data).ok());
        let known = known.and_then(|text| text.strip_prefix('[')?.strip_suffix(']'));
        let mut names = known.unwrap_or_default().to_owned();
        let own = (!build_id.is_empty()).then(|| format!("unversioned:{build_id}"));
        let mut is_new = false;
        for name in [Some("unversioned".to_owned()), own].into_iter().flatten() {
            let quoted = format!("{name:?}");
            if names.contains(&quoted) || names.len() + quoted.len() > BUILD_IDS_BYTES_MAX {
                continue;
            }
            is_new = true;
            if !names.is_empty() {
                names.push(',');
            }
            names.push_str(&quoted);
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
            data: format!("[{names}]").into(),
            ..Payload::default()
        };
        fields.insert("BuildIds".into(), payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(before: Option<&'static [u8]>, builds: &[&str]) -> String {
        let mut state = State::default();
        if let Some(data) = before {
            let payload = Payload { data: Bytes::from_static(data), ..Payload::default() };
            state.info.search_attributes.indexed_fields.insert("BuildIds".into(), payload);
        }
        for build in builds {
            state.note_build(4, (*build).to_owned(), "", Time::ZERO);
        }
        let fields = &state.info.search_attributes.indexed_fields;
        String::from_utf8_lossy(&fields["BuildIds"].data).into_owned()
    }

    #[test]
    fn builds_are_added_once() {
        assert_eq!(noted(None, &["", ""]), r#"["unversioned"]"#);
        let two = r#"["unversioned","unversioned:a","unversioned:b"]"#;
        assert_eq!(noted(None, &["a", "b", "a"]), two);
        assert_eq!(noted(None, &["", &"long".repeat(1_000)]), r#"["unversioned"]"#);
    }

    #[test]
    fn whatever_stands_there_is_no_trouble() {
        for odd in [&b""[..], b"[", b"]", "é".as_bytes(), b"\xff\xfe", b"null", b"[]"] {
            assert_eq!(noted(Some(odd), &[""]), r#"["unversioned"]"#, "{odd:?}");
        }
    }
}
