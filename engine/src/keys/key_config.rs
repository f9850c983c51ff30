//! What a managed key is to be: settled when it is made, and never changed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cryptoki::mechanism::MechanismType;
use cryptoki::object::Attribute;
use cryptoki::types::Date;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::record::Terms;
use crate::keys::generate::KeySpec;
use crate::operation::{AesEcb, Ask, Cipher, SignAlgorithm, TripleDesEcb};

/// The configuration of a managed key, for [`ManagedKeys::create`](crate::ManagedKeys::create).
///
/// What is settled here is settled for good: a key's purpose does not widen, as with Android's key authorisations. Where PKCS#11
/// has an attribute for it the token enforces it too (usage flags, `CKA_ALLOWED_MECHANISMS`); the rest is kept in the
/// catalogue and enforced by the engine.
///
/// ```
/// use std::time::Duration;
///
/// use hsmux::{Curve, Ecdsa, KeyConfig, KeySpec};
///
/// let config = KeyConfig::new(KeySpec::Ec(Curve::P256))
///     .signs_by(Ecdsa::P256_SHA256)
///     .rotate_every(Duration::from_secs(90 * 86_400));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct KeyConfig {
    pub(crate) spec: KeySpec,
    signs_by: Vec<SignAlgorithm>,
    encrypts_by: Vec<Cipher>,
    host_modes: bool,
    tenant: u64,
    active_from: Option<SystemTime>,
    active_until: Option<SystemTime>,
    rotate_every: Option<Duration>,
}

/// Longest name of a key or an alias, in bytes: `CKA_LABEL` of a Luna takes as much, and others more.
const NAME_LEN_MAX: usize = 128;

impl KeyConfig {
    /// A key of this kind and purpose, for every algorithm that fits it, active at once and without an end.
    #[must_use]
    pub const fn new(spec: KeySpec) -> Self {
        Self {
            spec,
            signs_by: Vec::new(),
            encrypts_by: Vec::new(),
            host_modes: false,
            tenant: 0,
            active_from: None,
            active_until: None,
            rotate_every: None,
        }
    }

    /// Permits an algorithm for signatures or MACs. Without any, all that fit the key are permitted; with one, those only that
    /// were named. May be called again.
    ///
    /// The token enforces the mechanism (`CKA_ALLOWED_MECHANISMS`, where it has that), the engine the algorithm with its hash, for
    /// the host hashes.
    #[must_use]
    pub fn signs_by(mut self, algorithm: impl Into<SignAlgorithm>) -> Self {
        self.signs_by.push(algorithm.into());
        self
    }

    /// Permits a cipher, as [`KeyConfig::signs_by`] an algorithm. What the cipher carries besides (an IV, additional data) is of no
    /// account.
    #[must_use]
    pub fn encrypts_by(mut self, cipher: impl Into<Cipher>) -> Self {
        self.encrypts_by.push(cipher.into());
        self
    }

    /// Lets the host do CTR and CBC around single blocks that the token enciphers ([`Key::with_host_modes`](crate::Key::with_host_modes)
    /// says what that gains and what it costs). Default: off.
    #[must_use]
    pub const fn host_modes(mut self) -> Self {
        self.host_modes = true;
        self
    }

    /// Whose key it is: requests of other tenants ([`Request::tenant`](crate::Request::tenant)) do not find it. Default: 0,
    /// nobody's, which every request may use.
    #[must_use]
    pub const fn tenant(mut self, tenant: u64) -> Self {
        self.tenant = tenant;
        self
    }

    /// When the key becomes active by itself; until then its state is pre-activation. Default: at once. Whole seconds.
    #[must_use]
    pub const fn active_from(mut self, time: SystemTime) -> Self {
        self.active_from = Some(time);
        self
    }

    /// When the key is deactivated by itself: from then on it only verifies and decrypts. Default: never. Whole seconds.
    #[must_use]
    pub const fn active_until(mut self, time: SystemTime) -> Self {
        self.active_until = Some(time);
        self
    }

    /// How old a version of the key may get before an engine that knows it makes the next one. Default: rotation on demand only.
    /// Whole seconds, at least one.
    #[must_use]
    pub const fn rotate_every(mut self, period: Duration) -> Self {
        self.rotate_every = Some(period);
        self
    }

    /// What the catalogue keeps of it.
    ///
    /// # Errors
    /// `InvalidInput`, for a spec that nobody should use, a period or dates that cannot be, or host modes of
    /// what is no block cipher.
    pub(crate) fn terms(&self, name: &str, group: &str, now: u64) -> Result<Terms> {
        let (from, until) = (self.active_from.map(seconds), self.active_until.map(seconds));
        let refuse = |wrong: bool, why: &'static str| match wrong {
            true => Err(Error::refused(ErrorKind::InvalidInput, why)),
            false => Ok(()),
        };
        refuse(!self.spec.is_offered(), "no managed key is made of this kind and size")?;
        refuse(
            until.is_some_and(|until| until <= from.unwrap_or(now)),
            "the key would end before it begins",
        )?;
        refuse(
            self.rotate_every.is_some_and(|every| every.as_secs() == 0),
            "a period of less than a second",
        )?;
        let is_cipher = matches!(self.spec, KeySpec::Aes(_) | KeySpec::TripleDes);
        refuse(self.host_modes && !is_cipher, "host modes are for keys of block ciphers")?;
        let algorithms = self.signs_by.iter().map(SignAlgorithm::name);
        let algorithms = algorithms.chain(self.encrypts_by.iter().map(Cipher::name));
        Ok(Terms {
            name: name.to_owned(),
            group: group.to_owned(),
            tenant: self.tenant,
            spec: self.spec.to_string(),
            algorithms: algorithms.map(str::to_owned).collect(),
            host_modes: self.host_modes,
            created: now,
            active_from: from,
            active_until: until,
            rotate_every: self.rotate_every.map(|every| every.as_secs()),
        })
    }
}

impl Terms {
    /// Numbers of the mechanisms that the key may be used by: what may run the algorithms that are permitted. Empty: all.
    ///
    /// # Errors
    /// `Configuration`, for an algorithm that this version of the engine does not know.
    pub(crate) fn mechanisms(&self) -> Result<Vec<u64>> {
        let mut asks = Vec::new();
        for name in &self.algorithms {
            match name.parse::<SignAlgorithm>() {
                Ok(how) => asks.push(Ask::sign(how)),
                Err(_) => {
                    let cipher: Cipher = name.parse()?;
                    asks.extend([Ask::encrypt(cipher.clone()), Ask::decrypt(cipher)]);
                }
            }
        }
        if self.host_modes && !asks.is_empty() {
            // What modes on the host are made of.
            let is_aes = self.spec.starts_with("aes");
            asks.push(Ask::encrypt(if is_aes { Cipher::from(AesEcb) } else { Cipher::from(TripleDesEcb) }));
        }
        let mut numbers: Vec<u64> = asks.iter().flat_map(Ask::mechanism_numbers).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// Attributes by which the token enforces what was settled, or shows it.
    ///
    /// # Errors
    /// As [`Terms::mechanisms`].
    pub(crate) fn limits(&self) -> Result<Vec<Attribute>> {
        let mechanisms: Vec<_> = self
            .mechanisms()?
            .into_iter()
            .filter_map(|number| MechanismType::try_from(number).ok())
            .collect();
        let mut limits = Vec::new();
        if !mechanisms.is_empty() {
            limits.push(Attribute::AllowedMechanisms(mechanisms));
        }
        // For other tools to see: to PKCS#11 they are "for reference only" (2.40, 4.7).
        limits.extend(self.active_from.and_then(date).map(Attribute::StartDate));
        limits.extend(self.active_until.and_then(date).map(Attribute::EndDate));
        Ok(limits)
    }
}

/// The day of a second of Unix time, in UTC.
fn date(seconds: u64) -> Option<Date> {
    let text = rfc3339(seconds)?;
    // As in RFC 3339, 5.6: year, month and day are what it begins with.
    let mut parts = text.get(..10)?.split('-');
    Date::new_from_str_slice(parts.next()?, parts.next()?, parts.next()?).ok()
}

/// A second of Unix time as RFC 3339 has it: UTC. None after the year 9999, for which it has no form.
pub(crate) fn rfc3339(seconds: u64) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| seconds < YEAR_10_000)?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

/// When the year 10000 begins, in seconds of Unix time.
const YEAR_10_000: u64 = 253_402_300_800;

/// # Errors
/// `InvalidInput`: names have 1 to 128 bytes without control characters, and the engine keeps those for itself that begin with its
/// own.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && !name.chars().any(char::is_control)
        && !name.starts_with("hsmux.");
    match fits {
        true => Ok(()),
        false => {
            let text = "a name has 1 to 128 bytes, no control characters, and does not begin with \"hsmux.\"";
            Err(Error::refused(ErrorKind::InvalidInput, text))
        }
    }
}

/// Seconds of Unix time; what lies before is 0.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{AesGcm, Ecdsa, Hmac};
    use crate::token::facts::Curve;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_made() {
        let good = KeyConfig::new(KeySpec::Ec(Curve::P256));
        let dated = good.clone().active_from(at(5)).active_until(at(6));
        assert!(good.terms("a", "g", 9).is_ok() && dated.terms("a", "g", 9).is_ok());
        let wrong = [
            good.clone().active_until(at(9)),
            good.clone().active_from(at(7)).active_until(at(7)),
            good.clone().rotate_every(Duration::from_millis(999)),
            good.clone().host_modes(),
            KeyConfig::new(KeySpec::Rsa(1024)),
        ];
        for config in wrong {
            let refused = config.terms("a", "g", 9).map_err(|error| error.kind());
            assert_eq!(refused.map(drop), Err(ErrorKind::InvalidInput), "{config:?}");
        }
        for name in ["", "a\nb", "hsmux.catalogue", &"x".repeat(129)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn algorithms_that_are_permitted_are_kept_by_name_and_by_every_mechanism_that_may_run_them() {
        let config = KeyConfig::new(KeySpec::Ec(Curve::P256)).signs_by(Ecdsa::P256_SHA256);
        assert_eq!(config.terms("a", "g", 0).unwrap().algorithms, ["ecdsa-p256-sha256"]);
        // CKM_ECDSA and CKM_ECDSA_SHA256.
        let mechanisms = |config: &KeyConfig| config.terms("a", "g", 0).unwrap().mechanisms().unwrap();
        assert_eq!(mechanisms(&config), [0x1041, 0x1044]);
        let config = KeyConfig::new(KeySpec::Hmac(32)).signs_by(Hmac::SHA256).signs_by(Hmac::SHA512);
        assert_eq!(mechanisms(&config), [0x251, 0x271]);
        let config = KeyConfig::new(KeySpec::Aes(32)).encrypts_by(AesGcm::new());
        assert_eq!(mechanisms(&config), [0x1087]);
        assert_eq!(
            mechanisms(&config.host_modes()),
            [0x1081, 0x1087],
            "and ECB, which host modes are made of"
        );
        assert_eq!(mechanisms(&KeyConfig::new(KeySpec::Aes(32))), [0; 0]);
    }

    #[test]
    fn a_time_that_has_no_form_is_none() {
        assert_eq!(rfc3339(YEAR_10_000 - 1).as_deref(), Some("9999-12-31T23:59:59Z"));
        assert_eq!((rfc3339(YEAR_10_000), rfc3339(u64::MAX)), (None, None));
        assert!(date(YEAR_10_000).is_none());
    }

    #[test]
    fn a_day_is_the_one_in_utc() {
        let shown = |seconds| date(seconds).map(|date| format!("{date:?}"));
        let day = |year, month, day| Some(format!("{:?}", Date::new(year, month, day)));
        assert_eq!(shown(0), day(*b"1970", *b"01", *b"01"));
        assert_eq!(shown(1_795_910_399), day(*b"2026", *b"11", *b"28"));
        assert_eq!(shown(1_795_910_400), day(*b"2026", *b"11", *b"29"));
    }
}
