//! Golden files: stored bytes of every version ever released, kept in the checkout.
//!
//! What lives here: how such a file looks, and what its test must find; called by the tests of
//! each crate that stores something. A file holds the rows of one kind of record, a line each:
//! the key in hexadecimal digits (`-` if there is none), a blank, the value.
//!
//! ```text
//! crates/CRATE/tests/golden/KIND.vVERSION.hex
//! ```
//!
//! Three things are checked: the file of the version that is written now is there, it is what
//! the sample encodes to, and every file of the kind, of older versions too, still reads.

use std::{
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
};

/// Keys and values as they are stored. What has no key has an empty one.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Set to `write`, this variable has the files of current versions written anew.
pub const VARIABLE: &str = "EVERSPAN_GOLDEN";

/// One kind of record.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// The crate's directory: `env!("CARGO_MANIFEST_DIR")`.
    pub manifest_dir: &'a str,
    /// Its name, as in the file's name.
    pub name: &'a str,
    /// The version that is written now.
    pub version: u8,
}

impl Kind<'_> {
    /// Checks the files of this kind. `rows` are those of a sample, which `read` must give
    /// back; of older versions it is enough that `read` takes them.
    ///
    /// # Panics
    /// If they are not as they should be; the message says what to do.
    pub fn check<T: PartialEq + fmt::Debug, E: fmt::Display>(
        &self,
        sample: &T,
        rows: &Rows,
        read: impl Fn(&Rows) -> Result<T, E>,
    ) {
        let dir = Path::new(self.manifest_dir).join("tests/golden");
        let current = dir.join(format!("{}.v{}.hex", self.name, self.version));
        let text = to_text(rows);
        if std::env::var(VARIABLE).is_ok_and(|v| v == "write") {
            let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&current, &text));
            assert!(written.is_ok(), "{}: {written:?}", current.display());
        }
        let Ok(found) = fs::read_to_string(&current) else {
            panic!(
                "{} is missing: `cargo xtask golden` writes it. Commit it: it is what later \
                 releases must read.",
                current.display()
            );
        };
        assert!(
            found == text,
            "{}: what is stored of `{}` is not what it was.\n\
             - If version {} of it was never released, `cargo xtask golden` writes the file anew.\n\
             - If it was, data directories hold it: leave the file as it is, give the record \
             version {}, and have it read both. See CONTRIBUTING.md, Stored bytes.\n\
             was: {}\n\
             now: {}",
            current.display(),
            self.name,
            self.version,
            self.version + 1,
            found.trim_end(),
            text.trim_end(),
        );
        let again = match read(rows) {
            Ok(again) => again,
            Err(error) => panic!("{}: does not read: {error}", current.display()),
        };
        assert_eq!(&again, sample, "{}: reads as something else", current.display());
        for (version, path) in self.files(&dir) {
            let rows = fs::read_to_string(&path).ok().and_then(|text| from_text(&text));
            let Some(rows) = rows else { panic!("{}: is no golden file", path.display()) };
            if let Err(error) = read(&rows) {
                panic!(
                    "{}: version {version} was released, and data directories hold it, but it \
                     does not read any more: {error}",
                    path.display()
                );
            }
        }
    }

    /// All files of this kind, with their versions.
    fn files(&self, dir: &Path) -> Vec<(u8, PathBuf)> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let rest = name.strip_prefix(self.name)?.strip_prefix(".v")?;
                Some((rest.strip_suffix(".hex")?.parse().ok()?, entry.path()))
            })
            .collect();
        files.sort();
        files
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    if text.is_empty() { "-".into() } else { text }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

fn to_text(rows: &Rows) -> String {
    rows.iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value))).collect()
}

fn from_text(text: &str) -> Option<Rows> {
    let line = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((unhex(key)?, unhex(value)?))
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_as_text() {
        let rows = vec![(vec![], vec![0, 255]), (vec![1], vec![])];
        assert_eq!(to_text(&rows), "- 00ff\n01 -\n");
        assert_eq!(from_text(&to_text(&rows)).unwrap(), rows);
        for bad in ["0", "- 0", "0 00", "- zz", "- 00 00"] {
            assert_eq!(from_text(bad), None, "{bad}");
        }
    }

    fn message(dir: &Path, version: u8, value: u8, read: impl Fn(&Rows) -> Option<u8>) -> String {
        let manifest_dir = dir.to_str().unwrap().to_owned();
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Kind { manifest_dir: &manifest_dir, name: "thing", version }.check(
                &value,
                &vec![(vec![], vec![version, value])],
                |rows| read(rows).ok_or("unread"),
            );
        }));
        failed.err().map_or_else(String::new, |e| e.downcast_ref::<String>().unwrap().clone())
    }

    #[test]
    fn failures_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let golden = dir.path().join("tests/golden");
        let value = |rows: &Rows| rows[0].1.get(1).copied();
        assert!(message(dir.path(), 1, 7, value).contains("is missing"));
        fs::create_dir_all(&golden).unwrap();
        fs::write(golden.join("thing.v1.hex"), "- 0107\n").unwrap();
        assert_eq!(message(dir.path(), 1, 7, value), "");
        let changed = message(dir.path(), 1, 8, value);
        assert!(changed.contains("cargo xtask golden") && changed.contains("version 2"));
        // A new version must read the old one.
        fs::write(golden.join("thing.v2.hex"), "- 0207\n").unwrap();
        assert_eq!(message(dir.path(), 2, 7, value), "");
        let new_only = |rows: &Rows| (rows[0].1[0] == 2).then(|| rows[0].1[1]);
        let lost = message(dir.path(), 2, 7, new_only);
        assert!(lost.contains("version 1 was released"), "{lost}");
    }
}
