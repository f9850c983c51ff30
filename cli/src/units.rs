//! Durations and sizes as they are written on the command line: a number with its unit.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// A deadline, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(pub(crate) Option<Duration>);

/// A duration above zero with its units, as `10s`, `250ms` or `1m 30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("a whole number above 0 with its unit, as 500us, 250ms, 10s, 5m or 2h".to_owned()),
    }
}

/// A duration with its units, or a bare number of seconds, which may be a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(seconds) if !seconds.is_zero() => Ok(seconds),
        Some(_) => Err("a time above 0".to_owned()),
        None => duration(text).map_err(|_| "seconds, or a number with its unit, as 250ms or 10s".to_owned()),
    }
}

/// A size above zero: bytes, or a number with its unit.
pub(crate) fn size(text: &str) -> Result<NonZeroUsize, String> {
    let size = text.parse::<ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.and_then(NonZeroUsize::new)
        .ok_or_else(|| "bytes above 0, or a number with its unit, as 64KiB, 16MiB or 1MB".to_owned())
}

impl FromStr for Deadline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => duration(text).map(|limit| Self(Some(limit))).map_err(|why| format!("none, or {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_none_or_a_number_with_its_unit() {
        assert_eq!("none".parse(), Ok(Deadline(None)));
        assert_eq!("500us".parse(), Ok(Deadline(Some(Duration::from_micros(500)))));
        for text in ["", "5", "0s", "None"] {
            assert!(text.parse::<Deadline>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        let known = [
            ("500us", Duration::from_micros(500)),
            ("50ms", Duration::from_millis(50)),
            ("2s", Duration::from_secs(2)),
            ("1m", Duration::from_secs(60)),
            ("1m 30s", Duration::from_secs(90)),
            ("2h", Duration::from_secs(7200)),
        ];
        for (text, length) in known {
            assert_eq!(duration(text), Ok(length), "{text}");
            assert_eq!(seconds(text), Ok(length), "{text}");
        }
        for text in ["", "ms", "0s", "-1s", "None", "99999999999999999999s", "5 parsecs"] {
            assert!(duration(text).is_err() && seconds(text).is_err(), "{text}");
        }
        assert!(duration("5").is_err(), "a bare number could be anything");
    }

    #[test]
    fn bare_seconds_may_be_a_fraction() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("3"), Ok(Duration::from_secs(3)));
        for text in ["0", "-1", "NaN", "inf", "1e30"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_units() {
        let known = [("1", 1), ("64KiB", 65_536), ("16MiB", 16 << 20), ("1 MB", 1_000_000), ("1.5KiB", 1536)];
        for (text, bytes) in known {
            assert_eq!(size(text).map(NonZeroUsize::get), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "KiB", "5 stones", "NaN"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
