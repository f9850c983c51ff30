//! What a token tells of itself in `CK_TOKEN_INFO`, by name.

use std::time::{Duration, SystemTime};

use cryptoki_sys as sys;

/// Flags of a token (PKCS#11 2.40, `CK_TOKEN_INFO`). Those of the PIN "may always be false", says the standard, on
/// tokens that do not count wrong tries or do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the standard")]
#[non_exhaustive]
pub struct TokenFlags {
    /// `CKF_TOKEN_INITIALIZED`: it has a label and can hold objects.
    pub initialised: bool,
    /// `CKF_LOGIN_REQUIRED`: some of what it does needs a login.
    pub login_required: bool,
    /// `CKF_USER_PIN_INITIALIZED`: the user's PIN has been set, so that the user can log in.
    pub user_pin_initialised: bool,
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong PIN was tried since the last login that went well.
    pub user_pin_count_low: bool,
    /// `CKF_USER_PIN_FINAL_TRY`: one more wrong PIN locks it.
    pub user_pin_final_try: bool,
    /// `CKF_USER_PIN_LOCKED`: it is locked, and no login of the user goes well.
    pub user_pin_locked: bool,
    /// `CKF_USER_PIN_TO_BE_CHANGED`: it is the one that it was made with, or has expired.
    pub user_pin_to_be_changed: bool,
    /// `CKF_PROTECTED_AUTHENTICATION_PATH`: the token can ask for the PIN itself, as with a keypad.
    pub protected_authentication_path: bool,
    /// `CKF_WRITE_PROTECTED`: nothing can be written to it, so no keys can be made.
    pub write_protected: bool,
    /// `CKF_CLOCK_ON_TOKEN`: it has a clock of its own.
    pub clock_on_token: bool,
    /// `CKF_ERROR_STATE`: it failed a self-test and does nothing more.
    pub error_state: bool,
}

/// Sessions of a token as it counts them (PKCS#11 2.40, `CK_TOKEN_INFO`); `None` where it has no limit or tells nothing.
///
/// The standard counts the sessions of one application. Some modules count those of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionCounts {
    /// Most sessions.
    pub max: Option<u64>,
    /// Those that are open.
    pub open: Option<u64>,
    /// Most read/write sessions: the engine has no others.
    pub rw_max: Option<u64>,
    /// Read/write sessions that are open.
    pub rw_open: Option<u64>,
}

/// The clock of a token, and that of this host when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenClock {
    /// What the token tells, in whole seconds. `None` if that is no time.
    pub token: Option<SystemTime>,
    /// The time of day of this host.
    pub host: SystemTime,
}

impl TokenFlags {
    pub(crate) fn of(flags: u64) -> Self {
        let has = |flag: sys::CK_FLAGS| flags & flag != 0;
        Self {
            initialised: has(sys::CKF_TOKEN_INITIALIZED),
            login_required: has(sys::CKF_LOGIN_REQUIRED),
            user_pin_initialised: has(sys::CKF_USER_PIN_INITIALIZED),
            user_pin_count_low: has(sys::CKF_USER_PIN_COUNT_LOW),
            user_pin_final_try: has(sys::CKF_USER_PIN_FINAL_TRY),
            user_pin_locked: has(sys::CKF_USER_PIN_LOCKED),
            user_pin_to_be_changed: has(sys::CKF_USER_PIN_TO_BE_CHANGED),
            protected_authentication_path: has(sys::CKF_PROTECTED_AUTHENTICATION_PATH),
            write_protected: has(sys::CKF_WRITE_PROTECTED),
            clock_on_token: has(sys::CKF_CLOCK_ON_TOKEN),
            error_state: has(sys::CKF_ERROR_STATE),
        }
    }
}

impl SessionCounts {
    pub(crate) const fn of(info: &sys::CK_TOKEN_INFO) -> Self {
        Self {
            max: most(info.ulMaxSessionCount),
            open: told(info.ulSessionCount),
            rw_max: most(info.ulMaxRwSessionCount),
            rw_open: told(info.ulRwSessionCount),
        }
    }
}

impl TokenClock {
    /// `host`: the time of day when the token was asked.
    pub(crate) fn of(info: &sys::CK_TOKEN_INFO, host: SystemTime) -> Option<Self> {
        let has_clock = info.flags & sys::CKF_CLOCK_ON_TOKEN != 0;
        has_clock.then(|| Self { token: utc_time(&info.utcTime), host })
    }
}

/// CK_EFFECTIVELY_INFINITE is 0, CK_UNAVAILABLE_INFORMATION all ones (PKCS#11 2.40, 3.2).
const fn most(count: sys::CK_ULONG) -> Option<u64> {
    if count == sys::CK_EFFECTIVELY_INFINITE { None } else { told(count) }
}

const fn told(count: sys::CK_ULONG) -> Option<u64> {
    if count == sys::CK_UNAVAILABLE_INFORMATION { None } else { Some(count) }
}

/// The time of a token's clock: `YYYYMMDDhhmmss00` in UTC (PKCS#11 2.40, `CK_TOKEN_INFO`). openCryptoki 3.8.1 says that it
/// has a clock and tells no digits.
fn utc_time(text: &[u8; 16]) -> Option<SystemTime> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
        Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    let is_time = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
    // A leap second is one of the next minute.
    if year < 1970 || !is_time || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// By the Gregorian calendar, with years that begin in March, so that the day that leap years have more is the last.
const fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    // Five months of 31, 30, 31, 30 and 31 days have 153, and come again.
    before + (month * 153 + 2) / 5 + day - 1 - DAYS_BEFORE_1970
}

/// From the first of March of the year 0 to the first of January 1970.
const DAYS_BEFORE_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_its_name() {
        assert_eq!(TokenFlags::of(0), TokenFlags::default());
        let names = |flags: u64| format!("{:?}", TokenFlags::of(flags));
        let known = [
            (sys::CKF_WRITE_PROTECTED, "write_protected"),
            (sys::CKF_LOGIN_REQUIRED, "login_required"),
            (sys::CKF_USER_PIN_INITIALIZED, "user_pin_initialised"),
            (sys::CKF_CLOCK_ON_TOKEN, "clock_on_token"),
            (sys::CKF_PROTECTED_AUTHENTICATION_PATH, "protected_authentication_path"),
            (sys::CKF_TOKEN_INITIALIZED, " initialised"),
            (sys::CKF_USER_PIN_COUNT_LOW, "user_pin_count_low"),
            (sys::CKF_USER_PIN_FINAL_TRY, "user_pin_final_try"),
            (sys::CKF_USER_PIN_LOCKED, "user_pin_locked"),
            (sys::CKF_USER_PIN_TO_BE_CHANGED, "user_pin_to_be_changed"),
            (sys::CKF_ERROR_STATE, "error_state"),
        ];
        for (flag, name) in known {
            let shown = names(flag);
            assert!(shown.contains(&format!("{name}: true")), "{flag:#x}: {shown}");
            assert_eq!(shown.matches("true").count(), 1, "{flag:#x}");
        }
    }

    #[test]
    fn counts_without_a_limit_or_untold_are_none() {
        let mut info = sys::CK_TOKEN_INFO::default();
        let none = SessionCounts { max: None, open: Some(0), rw_max: None, rw_open: Some(0) };
        assert_eq!(SessionCounts::of(&info), none);
        info.ulMaxSessionCount = 16;
        info.ulMaxRwSessionCount = sys::CK_UNAVAILABLE_INFORMATION;
        (info.ulSessionCount, info.ulRwSessionCount) = (3, sys::CK_UNAVAILABLE_INFORMATION);
        let some = SessionCounts { max: Some(16), open: Some(3), rw_max: None, rw_open: None };
        assert_eq!(SessionCounts::of(&info), some);
    }

    #[test]
    fn the_time_of_a_token_is_read_and_what_is_none_is_not() {
        let at = |text: &[u8; 16]| {
            let time = utc_time(text)?;
            Some(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(at(b"1970010100000000"), Some(0));
        assert_eq!(at(b"2000022923595900"), Some(951_868_799));
        assert_eq!(at(b"2000030100000000"), Some(951_868_800));
        assert_eq!(at(b"2001090901464000"), Some(1_000_000_000));
        assert_eq!(at(b"2100030100000000"), Some(4_107_542_400));
        let none: [&[u8; 16]; 7] = [
            b"                ",
            &[0; 16],
            b"1969123123595900",
            b"2026133100000000",
            b"2026010024000000",
            b"2026010112600000",
            b"2026-01-01 12:00",
        ];
        for text in none {
            assert_eq!(at(text), None, "{text:?}");
        }
    }
}
