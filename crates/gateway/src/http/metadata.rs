//! Headers of a request that go with the call, as gRPC metadata.

/// How headers begin that a caller wants to be metadata.
const PREFIX: &str = "grpc-metadata-";
/// Headers that are metadata under their own names.
const FORWARDED: [&str; 5] =
    ["authorization", "authorization-extras", "client-name", "client-version", "x-forwarded-for"];
/// How long the call may take.
pub(crate) const TIMEOUT: &str = "grpc-timeout";
/// Names with a meaning to gRPC itself, which `PREFIX` does not lead to.
const RESERVED: [&str; 5] = ["te", "content-type", "content-length", "host", "connection"];

/// The metadata of a call, with lower-case names.
pub(crate) fn of_request<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let name = match name.strip_prefix(PREFIX) {
            Some(rest) if is_name(rest) => rest.to_owned(),
            None if name == TIMEOUT || FORWARDED.contains(&name.as_str()) => name,
            _ => continue,
        };
        // Other values are no metadata, and are left out as the real server does.
        let text = std::str::from_utf8(value).ok().filter(|v| v.bytes().all(is_printable));
        all.extend(text.map(|text| (name, text.to_owned())));
    }
    all
}

fn is_name(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty()
        && name.bytes().all(is_part)
        && !name.starts_with("grpc-")
        && !RESERVED.contains(&name)
}

fn is_printable(b: u8) -> bool {
    (0x20..=0x7e).contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        of_request(headers.iter().map(|(n, v)| (*n, v.as_bytes())))
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_is_forwarded() {
        let headers = [
            ("Authorization", "Bearer x"),
            ("Grpc-Metadata-Tenant", "a"),
            ("Client-Name", "mine"),
            ("Grpc-Timeout", "5S"),
        ];
        let wanted = [
            ("authorization", "Bearer x"),
            ("tenant", "a"),
            ("client-name", "mine"),
            ("grpc-timeout", "5S"),
        ];
        assert_eq!(of(&headers), pairs(&wanted));
    }

    #[test]
    fn what_is_not() {
        for header in [
            ("Cookie", "a=b"),
            ("Tenant", "a"),
            ("Grpc-Metadata-", "a"),
            ("Grpc-Metadata-Grpc-Encoding", "gzip"),
            ("Grpc-Metadata-Te", "a"),
            ("Grpc-Metadata-a!b", "a"),
            ("Authorization", "ä"),
        ] {
            assert_eq!(of(&[header]), [], "{header:?}");
        }
    }
}
