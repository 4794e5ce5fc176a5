//! Durations as Go writes them: `1h30m`, `1.5s`, `-2us`.

/// More than a duration can hold: they are signed 64-bit nanoseconds.
const LIMIT: u64 = 1 << 63;

/// Why a text is no duration or number: Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    #[error("time: missing unit in duration {0:?}")]
    NoUnit(String),
    #[error("time: unknown unit {0:?} in duration {1:?}")]
    Unit(String, String),
}

/// Nanoseconds.
pub(crate) fn parse(text: &str) -> Result<i64, Error> {
    let invalid = || Error::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first().ok_or_else(invalid)? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    // Zero alone needs no unit.
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let whole = match whole {
            "" => 0,
            whole => whole.parse().ok().filter(|n| *n <= LIMIT).ok_or_else(invalid)?,
        };
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        rest = after;
        if name.is_empty() {
            return Err(Error::NoUnit(text.to_owned()));
        }
        let unit = unit(name).ok_or_else(|| Error::Unit(name.to_owned(), text.to_owned()))?;
        sum = whole
            .checked_mul(unit)
            .and_then(|n| n.checked_add(below_one(fraction, unit)))
            .and_then(|n| n.checked_add(sum))
            .filter(|n| *n <= LIMIT)
            .ok_or_else(invalid)?;
    }
    match i64::try_from(sum) {
        Ok(sum) if negative => Ok(-sum),
        Ok(sum) => Ok(sum),
        Err(_) if negative => Ok(i64::MIN),
        Err(_) => Err(invalid()),
    }
}

/// Nanoseconds; a number followed by `d` is so many days, of 24 hours.
pub(crate) fn parse_with_days(text: &str) -> Result<i64, Error> {
    let is_number = |b: u8| b == b'.' || b.is_ascii_digit();
    let mut hours = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('d') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let length = before.bytes().rev().take_while(|b| is_number(*b)).count();
        let (before, number) = before.split_at(at - length);
        // What is more than one number, such as 1.2.3, is left for the error.
        match number.parse::<f64>() {
            Ok(days) => hours.push_str(&format!("{before}{:.6}h", 24.0 * days)),
            Err(_) => hours.push_str(&format!("{before}{number}d")),
        }
        rest = after;
    }
    hours.push_str(rest);
    parse(&hours)
}

/// A whole number, in decimal digits with a sign if need be; else Go's words.
pub(crate) fn integer(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse().map_err(|e: std::num::ParseIntError| {
        let why = match e.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {text:?}: {why}")
    })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        // Both characters that stand for micro.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// That fraction of a unit, in nanoseconds, rounded down. Digits that no longer fit into a
/// 63-bit number count for nothing.
fn below_one(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1_f64);
    for digit in digits.bytes() {
        let Some(next) = value.checked_mul(10).and_then(|v| v.checked_add((digit - b'0').into()))
        else {
            break;
        };
        if next > LIMIT {
            break;
        }
        (value, scale) = (next, scale * 10.0);
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let nanos = (value as f64 * (unit as f64 / scale)) as u64;
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_them() {
        let good = [
            ("0", 0),
            ("-0", 0),
            ("5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("+1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("5.s", 5_000_000_000),
            ("-1ms1us1ns", -1_001_001),
            ("3\u{b5}s4\u{3bc}s", 7_000),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.3333333333333333333h", 1_200_000_000_000),
        ];
        for (text, nanos) in good {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
        let bad = [
            "",
            "-",
            "+",
            "5",
            "1d",
            "s",
            ".s",
            "1 s",
            " 1s",
            "1s ",
            "1h-5m",
            "1e3s",
            "1H",
            "9223372036854775808ns",
            "3000000h",
            "1.2.3s",
            "99999999999999999999s",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }
    #[test]
    fn days_and_words() {
        assert_eq!(parse_with_days("1d"), parse("24h"));
        assert_eq!(parse_with_days("1.5d2h"), parse("38h"));
        assert_eq!(parse_with_days(".5d"), parse("12h"));
        let said = |text| parse_with_days(text).unwrap_err().to_string();
        assert_eq!(said("5"), r#"time: missing unit in duration "5""#);
        assert_eq!(said("5x"), r#"time: unknown unit "x" in duration "5x""#);
        assert_eq!(said("x"), r#"time: invalid duration "x""#);
        assert_eq!(integer("x").unwrap_err(), r#"strconv.Atoi: parsing "x": invalid syntax"#);
    }
}
