//! What may become of a call that a rule is about.

use std::time::Duration;

use cryptoki_sys as sys;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It does not go on for so long, or until it is released; then it runs.
    Hang(Option<Duration>),
    /// It runs, and then does not return for so long, or until it is released. Its output is written last of all.
    HangAfter(Option<Duration>),
    /// It answers an error, and its output is written so much later.
    Late(Duration),
    /// It answers this code and does nothing.
    Refuse(sys::CK_RV),
    /// It does all that it should and then answers this code: the reply is lost.
    Lose(sys::CK_RV),
    /// It takes so much longer.
    Slow(Delay),
    /// It takes so many times as long.
    Times(u32),
    /// A bit of its output is another.
    Flip,
    /// It says that its output is a byte shorter than it should be.
    Short,
    /// It says that its output is a byte longer than it is.
    Long,
    /// Its output is that of the last call of its thread.
    Repeat,
    /// The device has forgotten the session before the call.
    SessionLost,
    /// The device has logged the user out before the call.
    LoginLost,
    /// The token is removed during the call, for so long, or until it is put back.
    Removed(Option<Duration>),
    /// The module is as if somebody had finalised it.
    Dead,
    /// The process aborts.
    Abort,
    /// The process touches memory that is not its own.
    Segfault,
}

/// How much longer a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delay {
    Constant(Duration),
    /// Anything between the two, each as likely as the other.
    Uniform(Duration, Duration),
    /// Exponential, with this mean.
    Exponential(Duration),
    /// Pareto of shape 1, cut off at [`TAIL_CUT`]: never less than this; one in ten takes ten times as long or more,
    /// one in a hundred a hundred times.
    Tail(Duration),
}

/// Where the long tail ends, in multiples of its least delay: one delay in so many would be longer.
const TAIL_CUT: f64 = 1_000.0;

/// The longest time that a rule may name: an hour. A longer one is a typing error.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Most times as long as usual.
const TIMES_MAX: u32 = 1_000_000;

impl What {
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "hang" => Self::Hang(None),
            "hang!" => Self::HangAfter(None),
            "flip" => Self::Flip,
            "short" => Self::Short,
            "long" => Self::Long,
            "repeat" => Self::Repeat,
            "session-lost" => Self::SessionLost,
            "login-lost" => Self::LoginLost,
            "removed" => Self::Removed(None),
            "dead" => Self::Dead,
            "abort" => Self::Abort,
            "segfault" => Self::Segfault,
            _ => return Self::with_number(name),
        })
    }

    fn with_number(name: &str) -> Option<Self> {
        if let Some(ms) = name.strip_prefix("removed-") {
            return Some(Self::Removed(Some(millis(ms)?)));
        }
        if let Some(ms) = name.strip_prefix("hang-") {
            return Some(match ms.strip_suffix('!') {
                Some(ms) => Self::HangAfter(Some(millis(ms)?)),
                None => Self::Hang(Some(millis(ms)?)),
            });
        }
        if let Some(ms) = name.strip_prefix("late-") {
            return Some(Self::Late(millis(ms)?));
        }
        if let Some(delay) = name.strip_prefix("slow-") {
            return Some(Self::Slow(Delay::by_name(delay)?));
        }
        if let Some(times) = name.strip_prefix('x') {
            let times = times.parse().ok().filter(|times| (1..=TIMES_MAX).contains(times))?;
            return Some(Self::Times(times));
        }
        Some(match name.strip_suffix('!') {
            Some(code) => Self::Lose(number(code)?),
            None => Self::Refuse(number(name)?),
        })
    }
}

impl Delay {
    fn by_name(name: &str) -> Option<Self> {
        if let Some(mean) = name.strip_prefix("exp-") {
            return Some(Self::Exponential(micros(mean)?));
        }
        if let Some(least) = name.strip_prefix("tail-") {
            return Some(Self::Tail(micros(least)?));
        }
        match name.split_once("..") {
            Some((low, high)) => {
                let (low, high) = (micros(low)?, micros(high)?);
                (low <= high).then_some(Self::Uniform(low, high))
            }
            None => Some(Self::Constant(micros(name)?)),
        }
    }

    /// One delay, by a number that the seed and the call make.
    pub(crate) fn drawn(self, dice: u64) -> Duration {
        let share = unit(dice);
        match self {
            Self::Constant(delay) => delay,
            Self::Uniform(low, high) => low + (high - low).mul_f64(share),
            Self::Exponential(mean) => mean.mul_f64(-share.ln()),
            Self::Tail(least) => least.mul_f64((1.0 / share).min(TAIL_CUT)),
        }
    }
}

/// A number above 0 and up to 1, all as likely: the upper 53 bits, as many as the significand holds.
fn unit(dice: u64) -> f64 {
    const STEPS: f64 = (1_u64 << 53) as f64;
    ((dice >> 11) + 1) as f64 / STEPS
}

fn millis(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis).filter(|&time| time <= LONGEST)
}

fn micros(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_micros).filter(|&time| time <= LONGEST)
}

/// A return code, in hexadecimal or decimal; `CKR_OK` is none.
fn number(text: &str) -> Option<sys::CK_RV> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => sys::CK_RV::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.ok().filter(|&number| number != sys::CKR_OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::mix;

    const US: fn(u64) -> Duration = Duration::from_micros;

    /// Delays by dice as calls make them, in microseconds and in order.
    fn drawn(name: &str) -> Vec<f64> {
        let delay = Delay::by_name(name).unwrap();
        let micros = |dice| delay.drawn(mix(dice)).as_secs_f64() * 1e6;
        let mut drawn: Vec<_> = (1..=10_000).map(micros).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    #[test]
    fn delays_and_hangs_are_read_with_their_numbers() {
        let ms = Duration::from_millis;
        let cases = [
            ("hang", What::Hang(None)),
            ("hang!", What::HangAfter(None)),
            ("hang-50", What::Hang(Some(ms(50)))),
            ("hang-50!", What::HangAfter(Some(ms(50)))),
            ("late-5", What::Late(ms(5))),
            ("slow-7", What::Slow(Delay::Constant(US(7)))),
            ("slow-7..90", What::Slow(Delay::Uniform(US(7), US(90)))),
            ("slow-exp-80", What::Slow(Delay::Exponential(US(80)))),
            ("slow-tail-80", What::Slow(Delay::Tail(US(80)))),
            ("x100", What::Times(100)),
            ("removed-50", What::Removed(Some(ms(50)))),
            ("0x5!", What::Lose(5)),
            ("48", What::Refuse(48)),
        ];
        for (name, expected) in cases {
            assert_eq!(What::by_name(name), Some(expected), "{name}");
        }
        let wrong =
            ["hang-", "hang-x", "late", "slow-", "slow-9..7", "slow-exp", "x0", "x", "slow-3600000001", "0"];
        for name in wrong {
            assert_eq!(What::by_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_uniform_delay_fills_its_range() {
        let drawn = drawn("100..300");
        assert!(drawn[0] >= 100.0 && drawn[9_999] <= 300.0);
        assert!((190.0..210.0).contains(&drawn[5_000]), "half are below {}", drawn[5_000]);
    }

    #[test]
    fn an_exponential_delay_has_its_mean() {
        let drawn = drawn("exp-100");
        let mean = drawn.iter().sum::<f64>() / 10_000.0;
        assert!((95.0..105.0).contains(&mean), "{mean}");
        // ln 2 of the mean.
        assert!((66.0..73.0).contains(&drawn[5_000]), "half are below {}", drawn[5_000]);
    }

    #[test]
    fn one_delay_in_ten_of_a_long_tail_is_ten_times_as_long() {
        let drawn = drawn("tail-100");
        assert!(drawn[0] >= 100.0 && drawn[9_999] <= 100_000.0);
        let longer = |than: f64| drawn.iter().filter(|&&delay| delay >= than).count();
        assert!((900..1_100).contains(&longer(1_000.0)), "{}", longer(1_000.0));
        assert!((70..130).contains(&longer(10_000.0)), "{}", longer(10_000.0));
    }
}
