//! The time of day: audit records, dates of keys and what writers of them promise each other depend on it.

use std::time::{Duration, SystemTime};

use hsmux::TokenClock;

use super::finding::Finding;
use super::token::Token;

/// The clock of this system.
#[derive(Clone, Copy, Debug)]
pub(super) struct System {
    now: SystemTime,
    /// When the program's file was written: no clock that is right says less.
    built: Option<SystemTime>,
}

/// 2026-01-01, before this was written: whatever a package says of when it was built.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// How much longer than its build a program is taken to be in use.
const USE_MAX: Duration = Duration::from_secs(20 * 365 * 86_400);

/// How much a clock may be behind that of the machine that built the program.
const BUILD_SLACK: Duration = Duration::from_secs(60);

/// A token tells whole seconds; with more than this apart, records of both cannot be put in order.
const APART_MAX: Duration = Duration::from_secs(2);

impl System {
    pub(super) fn here() -> Self {
        let file = std::env::current_exe().and_then(|path| path.metadata()?.modified());
        Self { now: SystemTime::now(), built: file.ok() }
    }
}

/// Whether it can be right.
pub(super) fn judge_system(system: &System) -> Finding {
    const CHECK: &str = "clock.system";
    const ADVICE: &str = "set it, and keep it right by NTP: timedatectl set-ntp true";
    let earliest = SystemTime::UNIX_EPOCH + EARLIEST;
    let built = system.built.map_or(earliest, |built| built.max(earliest));
    let what = format!("the system clock says {}", time(system.now));
    if system.now + BUILD_SLACK < built {
        let what = format!(
            "{what}, which is before this program was built ({}): dates in records are wrong",
            time(built)
        );
        return Finding::problem(CHECK, what, ADVICE);
    }
    if system.now > built + USE_MAX {
        let what =
            format!("{what}, which is more than 20 years after this program was built ({})", time(built));
        return Finding::warning(CHECK, what, ADVICE);
    }
    Finding::ok(CHECK, what)
}

/// Whether a token's clock goes with that of the system.
pub(super) fn judge_token(token: &Token) -> Finding {
    let times = token.clock.map(|TokenClock { token, host, .. }| (token, host));
    judge_times(token.said(), times)
}

/// Of a token with a clock: what it tells, and the time here then.
fn judge_times(said: &str, times: Option<(Option<SystemTime>, SystemTime)>) -> Finding {
    const CHECK: &str = "clock.token";
    let (token, host) = match times {
        None => return Finding::ok(CHECK, format!("{said} has no clock of its own")),
        Some((None, _)) => return Finding::skipped(CHECK, format!("{said} has a clock, and tells no time")),
        Some((Some(token), host)) => (token, host),
    };
    let (apart, way) = match host.duration_since(token) {
        Ok(behind) => (behind, "behind"),
        Err(ahead) => (ahead.duration(), "ahead of"),
    };
    let seconds = apart.as_secs_f64();
    let what = format!("the clock of {said} is {seconds:.1} s {way} the system's");
    if apart <= APART_MAX {
        return Finding::ok(CHECK, what);
    }
    let advice = "set the one that is wrong: timedatectl here, the vendor's tool for the token's";
    Finding::warning(CHECK, format!("{what}: logs of both cannot be put in order"), advice)
}

fn time(time: SystemTime) -> String {
    // Times before 1970 have no form there.
    humantime::format_rfc3339_seconds(time.max(SystemTime::UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_before_the_build_is_a_problem_and_one_far_after_it_a_warning() {
        const BUILT: u64 = 1_800_000_000;
        let level = |now, built| judge_system(&System { now: at(now), built }).level;
        assert_eq!(level(BUILT, Some(at(BUILT))), Level::Ok);
        assert_eq!(level(BUILT - 60, Some(at(BUILT))), Level::Ok);
        assert_eq!(level(BUILT - 61, Some(at(BUILT))), Level::Problem);
        assert_eq!(level(BUILT + USE_MAX.as_secs(), Some(at(BUILT))), Level::Ok);
        assert_eq!(level(BUILT + USE_MAX.as_secs() + 1, Some(at(BUILT))), Level::Warning);
        // Packages are dated at the beginning of time.
        for built in [None, Some(at(0))] {
            assert_eq!((level(0, built), level(BUILT, built)), (Level::Problem, Level::Ok));
        }
    }

    #[test]
    fn a_token_that_is_two_seconds_off_is_in_time_and_more_is_a_warning_with_the_difference() {
        let of = |token, host| judge_times("pay-1", Some((token, host)));
        assert_eq!(of(Some(at(100)), at(102)).level, Level::Ok);
        assert_eq!(of(Some(at(102)), at(100)).level, Level::Ok);
        let behind = of(Some(at(100)), at(103));
        assert!(behind.level == Level::Warning && behind.what.contains("3.0 s behind"), "{behind:?}");
        let ahead = of(Some(at(4000)), at(400));
        assert!(ahead.level == Level::Warning && ahead.what.contains("3600.0 s ahead of"), "{ahead:?}");
        assert_eq!(of(None, at(0)).level, Level::Skipped);
        assert_eq!(judge_times("pay-1", None).level, Level::Ok);
    }
}
