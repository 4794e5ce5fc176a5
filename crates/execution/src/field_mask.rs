//! Field masks as the real server reads them: paths in snake or camel case, both taken, and
//! paths that name nothing are passed over.

use std::collections::BTreeSet;

use prost_types::FieldMask;

/// The paths of a mask, each in camel case.
pub(crate) fn paths(mask: &FieldMask) -> BTreeSet<String> {
    mask.paths.iter().map(|path| camel_path(path)).collect()
}

fn camel_path(path: &str) -> String {
    path.split('.').map(camel).collect::<Vec<_>>().join(".")
}

fn camel(part: &str) -> String {
    let mut words = part.split('_');
    let mut text =
        words.next().map(|word| with_first(word, char::to_ascii_lowercase)).unwrap_or_default();
    for word in words {
        text.push_str(&with_first(&word.to_lowercase(), char::to_ascii_uppercase));
    }
    text
}

fn with_first(word: &str, change: impl Fn(&char) -> char) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| change(&first)).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        let mask = |path: &str| paths(&FieldMask { paths: vec![path.to_owned()] });
        for path in ["retry_policy.maximum_attempts", "retryPolicy.maximumAttempts"] {
            assert!(mask(path).contains("retryPolicy.maximumAttempts"), "{path}");
        }
        assert!(mask("TaskQueue.Name").contains("taskQueue.name"));
        assert!(mask("").contains(""));
    }
}
