//! How many sessions a token is to have.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::token::measured::Found;

/// How many sessions each token has in use: always as many, or as many as pay, found by a controller that tries.
///
/// As a text, on the command line and in TOML: `8`, `4-64`, `auto`.
///
/// ```
/// use hsmux::Sessions;
///
/// assert_eq!("4-64".parse::<Sessions>()?, Sessions::from(4..=64));
/// assert_eq!("8".parse::<Sessions>()?, Sessions::from(8));
/// assert_eq!(Sessions::default().to_string(), "auto");
/// # Ok::<(), hsmux::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sessions(Setting);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Setting {
    #[default]
    Auto,
    Between(usize, usize),
}

/// What comes of the setting for one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) floor: usize,
    pub(crate) ceiling: usize,
    /// How many are opened at first.
    pub(crate) start: usize,
}

/// Most sessions of one token: each costs a thread.
const SESSIONS_MAX: usize = 4_096;

/// Most that `auto` puts in use. Each costs a thread, and 124 KiB of histograms for every kind of operation that it
/// serves. 64 keep a device with a latency of 1 ms at 64 000 operations a second; who needs more can say so.
const AUTO_MAX: usize = 64;

/// Sessions of the engine itself: one keeps the login, one finds keys and writes objects.
const OWN: usize = 2;

impl Sessions {
    /// As many as pay, from 1 to 64. On a token that says how many sessions it has, at most three quarters of
    /// those, the engine's own two included: the rest is left for other applications.
    pub const AUTO: Self = Self(Setting::Auto);

    /// Most sessions of a token, unless it is `auto`.
    #[must_use]
    pub const fn most(self) -> Option<usize> {
        match self.0 {
            Setting::Auto => None,
            Setting::Between(_, most) => Some(most),
        }
    }

    /// How many sessions an engine has open on one token, fewest to most: of all instances of the module, and with the
    /// two of each that are the engine's own. `sessions_max`: most read/write sessions that the token says it has.
    /// A [module profile](crate::Builder::module_profile) may have found fewer.
    ///
    /// ```
    /// use hsmux::Sessions;
    ///
    /// assert_eq!(Sessions::from(4..=64).span(None, 1), 6..=66);
    /// assert_eq!(Sessions::AUTO.span(Some(16), 1), 3..=12);
    /// assert_eq!(Sessions::from(8).span(None, 2), 20..=20);
    /// ```
    #[must_use]
    pub fn span(self, sessions_max: Option<u64>, instances: usize) -> RangeInclusive<usize> {
        let instances = instances.max(1);
        let Bounds { floor, ceiling, .. } = self.bounds(sessions_max, instances, Found::default());
        (floor + OWN) * instances..=(ceiling + OWN) * instances
    }

    /// For a token that has so many sessions in all, if it says so, and is led to by so many instances of its module. What was
    /// found by trying bears on `auto` only.
    pub(crate) fn bounds(self, sessions_max: Option<u64>, instances: usize, found: Found) -> Bounds {
        let (floor, ceiling, first) = match self.0 {
            Setting::Between(floor, ceiling) => {
                let floor = floor.clamp(1, SESSIONS_MAX);
                (floor, ceiling.clamp(floor, SESSIONS_MAX), first())
            }
            Setting::Auto => {
                let limit = found.limit.map(|limit| limit as u64);
                let most = sessions_max.into_iter().chain(limit).min();
                (1, auto_max(most), found.recommended.unwrap_or_else(first))
            }
        };
        Bounds { floor, ceiling, start: first.div_ceil(instances).clamp(floor, ceiling) }
    }
}

impl Bounds {
    /// The token gave so many at first. A fixed number is then fixed to those.
    pub(crate) fn with(self, opened: usize) -> Self {
        let floor = self.floor.min(opened);
        let ceiling = if self.floor == self.ceiling { opened } else { self.ceiling };
        Self { floor, ceiling, start: opened }
    }
}

fn auto_max(sessions_max: Option<u64>) -> usize {
    let most = sessions_max.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    (most - most.div_ceil(4)).saturating_sub(OWN).clamp(1, AUTO_MAX)
}

/// Sessions to begin with: one per core, at least 2 so that one slow call does not stop a token, at most 8 because
/// software tokens gain nothing beyond.
fn first() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8)
}

/// Always as many. 0 counts as 1.
impl From<usize> for Sessions {
    fn from(sessions: usize) -> Self {
        Self(Setting::Between(sessions, sessions))
    }
}

/// From the fewest to the most. A range that ends before it begins counts as its beginning.
impl From<RangeInclusive<usize>> for Sessions {
    fn from(range: RangeInclusive<usize>) -> Self {
        Self(Setting::Between(*range.start(), *range.end().max(range.start())))
    }
}

impl FromStr for Sessions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "auto" {
            return Ok(Self::AUTO);
        }
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        match (least.parse(), most.parse()) {
            (Ok(least), Ok(most)) if 0 < least && least <= most && most <= SESSIONS_MAX => {
                Ok(Self(Setting::Between(least, most)))
            }
            _ => Err(Error::operator(ErrorKind::Configuration, EXPECTED)),
        }
    }
}

/// What is said where something else stands.
pub(crate) const EXPECTED: &str = "between 1 and 4096 sessions, as 8 or \"4-64\", or \"auto\"";

impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Setting::Auto => f.write_str("auto"),
            Setting::Between(least, most) if least == most => write!(f, "{least}"),
            Setting::Between(least, most) => write!(f, "{least}-{most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_a_number_a_range_or_auto_and_nothing_else() {
        for text in ["1", "8", "4096", "1-2", "4-64", "auto"] {
            assert_eq!(text.parse::<Sessions>().unwrap().to_string(), text);
        }
        assert_eq!("3-3".parse::<Sessions>().unwrap(), Sessions::from(3));
        for text in ["", "0", "0-4", "5-4", "4097", "1-4097", "-4", "4-", "1-2-3", "Auto", "many"] {
            assert!(text.parse::<Sessions>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_small_device_keeps_sessions_for_other_applications() {
        let ceiling = |sessions_max| Sessions::AUTO.bounds(sessions_max, 1, Found::default()).ceiling;
        assert_eq!([Some(1), Some(4), Some(5), Some(16), Some(32)].map(ceiling), [1, 1, 1, 10, 22]);
        assert_eq!([Some(1_024), Some(u64::MAX), None].map(ceiling), [AUTO_MAX; 3]);
        let start = Sessions::AUTO.bounds(Some(5), 1, Found::default()).start;
        assert_eq!(start, 1);
    }

    #[test]
    fn instances_share_the_sessions_to_begin_with_and_each_has_one_at_least() {
        let start = |instances| Sessions::AUTO.bounds(None, instances, Found::default()).start;
        assert_eq!((start(2), start(64)), (start(1).div_ceil(2), 1));
    }

    #[test]
    fn what_was_found_by_trying_says_where_auto_begins_and_ends_and_nothing_to_the_operator() {
        let found = |recommended, limit| Found { recommended: Some(recommended), limit };
        let auto = |told, found| Sessions::AUTO.bounds(told, 1, found);
        assert_eq!(auto(None, found(12, None)), Bounds { floor: 1, ceiling: AUTO_MAX, start: 12 });
        assert_eq!(auto(None, found(16, Some(16))), Bounds { floor: 1, ceiling: 10, start: 10 });
        assert_eq!(auto(Some(5), found(1, Some(16))).ceiling, 1, "what the token tells holds, too");
        assert_eq!(Sessions::AUTO.bounds(None, 2, found(12, None)).start, 6);
        let fixed = Sessions::from(4).bounds(None, 1, found(12, Some(2)));
        assert_eq!((fixed.floor, fixed.ceiling), (4, 4));
    }

    #[test]
    fn what_the_operator_says_is_taken_at_its_word() {
        let none = Found::default();
        assert_eq!(
            Sessions::from(40).bounds(Some(16), 1, none),
            Bounds { floor: 40, ceiling: 40, start: 40 }
        );
        assert_eq!(Sessions::from(0).bounds(None, 1, none), Bounds { floor: 1, ceiling: 1, start: 1 });
        let wide = Sessions::from(16..=100).bounds(None, 1, none);
        assert_eq!((wide.floor, wide.ceiling, wide.start), (16, 100, 16));
        assert_eq!(Sessions::from(RangeInclusive::new(9, 3)), Sessions::from(9));
    }
}
