//! Instants and durations as filters write them. Both as strict, and as lenient, as the
//! real server.

const SECOND: i128 = 1_000_000_000;

/// RFC 3339 with capital T and Z: nanoseconds since the epoch, also before it.
pub(crate) fn datetime(text: &str) -> Option<i128> {
    let mut s = Scanner(text.as_bytes());
    let year = s.digits(4)?;
    s.byte(b'-')?;
    let month = s.digits(2)?;
    s.byte(b'-')?;
    let day = s.digits(2)?;
    s.byte(b'T')?;
    let hour = s.digits(2).or_else(|| s.digits(1))?;
    s.byte(b':')?;
    let minute = s.digits(2)?;
    s.byte(b':')?;
    let second = s.digits(2)?;
    let mut nanos = 0;
    if s.byte(b'.').or_else(|| s.byte(b',')).is_some() {
        let count = s.0.iter().take_while(|c| c.is_ascii_digit()).count();
        let (fraction, rest) = s.0.split_at(count);
        // What is finer than a nanosecond is cut off.
        let mut unit = 100_000_000;
        for digit in fraction {
            nanos += i128::from(digit - b'0') * unit;
            unit /= 10;
        }
        s.0 = rest;
        (count > 0).then_some(())?;
    }
    let offset = if s.byte(b'Z').is_some() {
        0
    } else {
        let sign = if s.byte(b'+').is_some() { 1 } else { s.byte(b'-').map(|()| -1)? };
        let hours = s.digits(2)?;
        s.byte(b':')?;
        let minutes = s.digits(2)?;
        (hours <= 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)?
    };
    let is_valid = s.0.is_empty()
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds =
        days_from_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    is_valid.then_some(seconds * SECOND + nanos)
}

/// RFC 3339 in UTC, with as many digits of the fraction as there are.
pub(crate) fn show(nanos: i128) -> String {
    let (seconds, fraction) = (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if fraction > 0 {
        let digits = format!("{fraction:09}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

fn days_in(year: i128, month: i128) -> i128 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch in the proleptic Gregorian calendar. Years begin in March, so that
/// the leap day is the last.
fn days_from_epoch(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since the epoch.
fn civil(days: i128) -> (i128, i128, i128) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * of_era + of_era / 4 - of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + of_era + i128::from(month <= 2), month, day)
}

/// A duration in nanoseconds: a number of them, a Go duration (`1h30m`, also with days) or
/// `hh:mm:ss`.
pub(crate) fn duration(text: &str) -> Option<i64> {
    if let Ok(nanos) = text.parse() {
        return Some(nanos);
    }
    units(text).or_else(|| clock(text))
}

fn units(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (name, tail) = tail.split_at(end);
        // A day may be followed by another unit at once only with digits between.
        let unit: i128 = match name {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => 86_400 * SECOND,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            sum += i128::from(digit - b'0') * scale;
        }
        rest = tail;
    }
    i64::try_from(sign * sum).ok()
}

fn clock(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut parts = [0i64; 3];
    for (i, part) in parts.iter_mut().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix(':')?;
        }
        rest = rest.trim_start_matches(' ');
        let sign = usize::from(rest.starts_with(['+', '-']));
        let digits = rest[sign..].bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(sign + digits);
        *part = number.parse().ok()?;
        rest = tail;
    }
    let [h, m, s] = parts;
    let is_valid = h >= 0 && (0..60).contains(&m) && (0..60).contains(&s);
    let seconds = h.checked_mul(3600)?.checked_add(m * 60 + s)?;
    seconds.checked_mul(1_000_000_000).filter(|_| is_valid)
}

struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn byte(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == wanted).then(|| self.0 = rest)
    }

    fn digits(&mut self, count: usize) -> Option<i128> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let text = std::str::from_utf8(digits).ok()?;
        text.bytes().all(|c| c.is_ascii_digit()).then(|| self.0 = rest)?;
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datetimes() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T02:00:00.5+02:00", Some(500_000_000)),
            ("1969-12-31T23:59:59.999999999Z", Some(-1)),
            ("2000-02-29T00:00:00Z", Some(951_782_400 * SECOND)),
            ("0001-01-01T00:00:00Z", Some(-62_135_596_800 * SECOND)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799 * SECOND)),
            ("1970-01-01T1:00:00Z", Some(3600 * SECOND)),
            ("1900-02-29T00:00:00Z", None),
            ("1970-01-01", None),
            ("1970-01-01T00:00:00", None),
            ("1970-01-01t00:00:00z", None),
            ("1970-01-01T24:00:00Z", None),
            ("1970-13-01T00:00:00Z", None),
            ("1970-01-01T00:00:60Z", None),
            ("1970-01-01T00:00:00.Z", None),
            ("1970-01-01T00:00:00Zx", None),
            ("", None),
            ("日本", None),
        ] {
            assert_eq!(datetime(text), nanos, "{text}");
        }
        for text in
            ["1970-01-01T00:00:00Z", "2024-12-31T23:59:59.000001Z", "0001-03-01T00:00:00.1Z"]
        {
            assert_eq!(datetime(text).map(show).as_deref(), Some(text));
        }
    }

    #[test]
    fn durations() {
        let hour = 3_600_000_000_000;
        for (text, nanos) in [
            ("10", Some(10)),
            ("-10", Some(-10)),
            ("10s", Some(10_000_000_000)),
            ("1.5h", Some(hour * 3 / 2)),
            ("-1h", Some(-hour)),
            ("1d2h", Some(26 * hour)),
            (".5d", Some(12 * hour)),
            ("1h1ms", Some(hour + 1_000_000)),
            ("0", Some(0)),
            ("01:02:03", Some(3_723_000_000_000)),
            ("123:00:00", Some(123 * hour)),
            ("1:60:00", None),
            ("-1:00:00", None),
            ("1:2", None),
            ("1.5", None),
            ("", None),
            ("-", None),
            ("h", None),
            (".h", None),
            ("1x", None),
            ("10000000h", None),
            ("99999999999999999999:0:0", None),
            ("日", None),
        ] {
            assert_eq!(duration(text), nanos, "{text}");
        }
    }
}
