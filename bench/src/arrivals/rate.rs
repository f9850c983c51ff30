//! Rates and paces, as they are written.

use std::fmt;
use std::str::FromStr;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At even distances.
    Constant,
    /// As many callers that know nothing of each other would ask: a Poisson process.
    Poisson,
}

/// Requests per second: from one an hour to 10^7 a second.
///
/// ```
/// use hsmux_bench::arrivals::Rate;
/// let rates = ["2000", "2k", "2k/s", "0.002M/s", "120k/min"].map(|text| text.parse::<Rate>());
/// assert!(rates.iter().all(|rate| rate.as_ref().is_ok_and(|rate| rate.per_s() == 2000.0)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

/// A rate with or without its pace, as `2k`, `constant:500/s` or `poisson:500`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AskedRate {
    /// How requests follow each other, if that is said.
    pub pace: Option<Pace>,
    /// How many come.
    pub rate: Rate,
}

/// Below one an hour nothing would happen in most runs: it is a mistake.
const PER_S_MIN: f64 = 1.0 / 3600.0;

/// A request every 100 ns: no driver begins them faster, even on a module that does nothing.
const PER_S_MAX: f64 = 1e7;

impl Pace {
    /// Every pace.
    pub const ALL: [Self; 2] = [Self::Constant, Self::Poisson];

    /// The name on the command line, in profiles and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

impl Rate {
    /// How a rate is written.
    pub const EXPECTED: &str =
        "a rate such as \"500/s\", \"2k\", \"1.5M/s\" or \"120/min\", from 1/h to 10M/s";

    /// The highest.
    pub const MAX: Self = Self(PER_S_MAX);

    /// So many requests per second.
    ///
    /// # Errors
    /// A text: it is no number, or not from 1/h to 10M/s.
    pub fn per_second(per_s: f64) -> Result<Self, String> {
        if per_s.is_nan() {
            Err("this rate is no number".to_owned())
        } else if per_s < PER_S_MIN {
            Err("this rate is too low: rates go from 1/h to 10M/s".to_owned())
        } else if per_s > PER_S_MAX {
            Err("this rate is too high: rates go from 1/h to 10M/s".to_owned())
        } else {
            Ok(Self(per_s))
        }
    }

    /// Requests per second.
    #[must_use]
    pub const fn per_s(self) -> f64 {
        self.0
    }
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|pace| pace.as_str() == text)
            .ok_or_else(|| "no such pace; there are constant and poisson".to_owned())
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("expected {}", Self::EXPECTED);
        let (number, seconds) = match text.split_once('/').map(|(number, unit)| (number, unit.trim())) {
            None => (text, 1.0),
            Some((number, "s")) => (number, 1.0),
            Some((number, "min")) => (number, 60.0),
            Some((number, "h")) => (number, 3600.0),
            Some(_) => return Err(unknown()),
        };
        let number = number.trim();
        let (number, times) = match (number.strip_suffix('k'), number.strip_suffix('M')) {
            (Some(number), _) => (number, 1e3),
            (_, Some(number)) => (number, 1e6),
            _ => (number, 1.0),
        };
        let number: f64 = number.trim().parse().map_err(|_| unknown())?;
        Self::per_second(number * times / seconds)
    }
}

impl FromStr for AskedRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.split_once(':') {
            Some((pace, rate)) => Self { pace: Some(pace.trim().parse()?), rate: rate.parse()? },
            None => Self { pace: None, rate: text.parse()? },
        })
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// As it is read back, to the last bit.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_have_factors_and_units() {
        let known = [
            ("2000", 2000.0),
            ("2k", 2000.0),
            ("1.5M", 1.5e6),
            ("2000/s", 2000.0),
            ("120/min", 2.0),
            ("1/h", 1.0 / 3600.0),
            (" 2 k / s ", 2000.0),
            ("10M/s", 1e7),
            ("0.5", 0.5),
        ];
        for (text, per_s) in known {
            assert_eq!(text.parse::<Rate>().map(Rate::per_s), Ok(per_s), "{text}");
        }
    }

    #[test]
    fn impossible_rates_are_refused_with_a_sentence() {
        let refused = [
            ("0", "too low"),
            ("-5/s", "too low"),
            ("0.9/h", "too low"),
            ("-inf", "too low"),
            ("NaN", "no number"),
            ("inf", "too high"),
            ("10.1M/s", "too high"),
            ("1e300k", "too high"),
            ("", "a rate such as"),
            ("k", "a rate such as"),
            ("/s", "a rate such as"),
            ("fast", "a rate such as"),
            ("5/fortnight", "a rate such as"),
            ("5/", "a rate such as"),
            ("5kk", "a rate such as"),
        ];
        for (text, why) in refused {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_rate_may_say_its_pace() {
        let asked = |pace, per_s| Ok(AskedRate { pace, rate: Rate(per_s) });
        assert_eq!("500".parse(), asked(None, 500.0));
        assert_eq!("poisson:500".parse(), asked(Some(Pace::Poisson), 500.0));
        assert_eq!("constant:2k/s".parse(), asked(Some(Pace::Constant), 2000.0));
        let refused =
            [("gauss:5", "constant and poisson"), ("poisson:", "a rate such"), ("poisson:0", "low")];
        for (text, why) in refused {
            let error = text.parse::<AskedRate>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_rate_is_read_back_as_it_is_shown(per_s in 0.001..1e7_f64) {
            let rate = Rate::per_second(per_s).unwrap();
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
