//! What an engine takes from a profile.

use super::found::{CopyGain, ProbeResult, kind_named};
use super::profile::ModuleProfile;
use super::trials::{self, Trial};
use super::units::Version;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::copies::Copies;
use crate::pkcs11::{Library, Slot};
use crate::token::measured::{Found, Measured};
use crate::token::mechanism::Mechanism;

impl Measured {
    pub(crate) fn of(profile: &ModuleProfile) -> Self {
        let tried = profile.mechanisms.iter().filter_map(|found| {
            let trial = trials::named(&found.operation)?;
            Some((trial, found.result))
        });
        let is_failing = |result| result == ProbeResult::ListedButFails;
        let mut failing: Vec<_> =
            tried.clone().filter_map(|(trial, result)| is_failing(result).then_some(trial)).collect();
        // The engine looks at no counter's length before it uses CTR, so all lengths that are tried have to fail.
        let every_counter = |usage| {
            let mut rows = trials::TRIALS.iter().filter(|trial| is_ctr(trial) && trial.usage == usage);
            rows.all(|row| profile.mechanism(row.operation).is_some_and(|found| is_failing(found.result)))
        };
        failing.retain(|trial| !is_ctr(trial) || every_counter(trial.usage));
        let number_of = |trial: &Trial| (trial.mechanism().number(), trial.usage);
        let mut failing_numbers: Vec<_> = failing.iter().map(|trial| number_of(trial)).collect();
        // One that works with another key, or another hash, is there.
        failing_numbers.retain(|number| {
            !tried.clone().any(|(trial, result)| result.works() && number_of(trial) == *number)
        });
        let gain = |gain: &CopyGain| Some((kind_named(&gain.key)?, gain.faster));
        let copies = profile.copies.as_ref();
        let gains = copies.map(|copies| copies.gains.iter().filter_map(gain).collect()).unwrap_or_default();
        let limit =
            profile.sessions.as_ref().filter(|found| found.refused.as_deref() == Some("CKR_SESSION_COUNT"));
        let sessions = Found {
            recommended: profile.scaling.as_ref().map(|scaling| scaling.recommended),
            limit: limit.map(|found| found.opened),
        };
        let failing = failing.into_iter().filter_map(Trial::as_failing).collect();
        Self { failing, failing_numbers, gains, copies_work: copies.map(|copies| copies.work), sessions }
    }

    /// The policy of copies, which is none where they are known not to work.
    pub(crate) const fn copies(&self, policy: Copies) -> Copies {
        match (policy, self.copies_work) {
            (Copies::Auto, Some(false)) => Copies::Off,
            (policy, _) => policy,
        }
    }
}

fn is_ctr(trial: &Trial) -> bool {
    matches!(trial.mechanism(), Mechanism::AesCtr { .. })
}

impl ModuleProfile {
    /// Whether the profile is that of the module and these tokens. Another version is only warned of.
    ///
    /// # Errors
    /// `Configuration`, if it is another's.
    pub(crate) fn check_is_of(&self, library: &Library, slots: &[Slot]) -> Result<()> {
        let info = library.info()?;
        self.check_module([&info.description, &info.manufacturer])?;
        for &slot in slots {
            let token = library.token_info(slot)?;
            self.check_token([&token.model, &token.manufacturer])?;
        }
        warn_of(("the module", self.module.version), info.version);
        for &slot in slots {
            let [_, firmware] = library.token_versions(slot)?;
            warn_of(("the token's firmware", self.token.firmware), firmware);
        }
        Ok(())
    }

    fn check_module(&self, is: [&str; 2]) -> Result<()> {
        check_named("module", [&self.module.description, &self.module.manufacturer], is)
    }

    fn check_token(&self, is: [&str; 2]) -> Result<()> {
        check_named("token model", [&self.token.model, &self.token.manufacturer], is)?;
        if is[0].is_empty() {
            tracing::warn!(
                "the token names no model: whether the module profile is that of its model nobody knows"
            );
        }
        Ok(())
    }
}

/// Compares names one by one: what is written together may be the same of others.
fn check_named(what: &str, of: [&str; 2], is: [&str; 2]) -> Result<()> {
    let named = |[name, manufacturer]: [&str; 2]| format!("{name} of {manufacturer}");
    if of == is { Ok(()) } else { Err(another(what, &named(of), &named(is))) }
}

fn another(what: &str, of: &str, is: &str) -> Error {
    let text = format!("the module profile is that of the {what} \"{of}\", and here is \"{is}\"");
    Error::operator(ErrorKind::Configuration, text)
}

fn warn_of((what, probed): (&'static str, (u8, u8)), is: (u8, u8)) {
    if probed != is {
        let (probed, is) = (Version(probed), Version(is));
        tracing::warn!(what, %probed, %is, "the module profile is that of another version: probe again");
    }
}

#[cfg(test)]
mod tests {
    use cryptoki_sys as sys;

    use super::super::profile::tests::profile;
    use super::*;
    use crate::pkcs11::MechanismInfo;
    use crate::token::facts::{Curve, KeyKind};
    use crate::token::mechanism::{Iv, Usage};

    fn of(results: &[(&str, ProbeResult)]) -> Measured {
        let mut profile = profile();
        profile.mechanisms.retain(|found| results.iter().any(|(name, _)| found.operation == *name));
        for found in &mut profile.mechanisms {
            found.result = results.iter().find(|(name, _)| found.operation == *name).unwrap().1;
        }
        Measured::of(&profile)
    }

    fn info(mechanism: u64, flags: u64) -> MechanismInfo {
        MechanismInfo { mechanism, key_min: 0, key_max: 0, flags }
    }

    fn flags(measured: &Measured, mechanism: u64, flags: u64) -> Option<u64> {
        measured.left_of(vec![info(mechanism, flags)]).first().map(|info| info.flags)
    }

    use ProbeResult::{ListedButFails, NotTried, Works};

    #[test]
    fn what_is_listed_and_fails_counts_as_not_offered_and_nothing_else_does() {
        let measured = of(&[("sign-ed25519", ListedButFails), ("sign-hmac-sha256", NotTried)]);
        assert_eq!(flags(&measured, sys::CKM_EDDSA, sys::CKF_SIGN | sys::CKF_VERIFY), None);
        assert_eq!(flags(&measured, sys::CKM_SHA256_HMAC, sys::CKF_SIGN), Some(sys::CKF_SIGN));
        let eddsa = Mechanism::Ed25519.index().unwrap();
        assert!(measured.fails(eddsa, Usage::Sign, KeyKind::Ed25519));
        assert!(!measured.fails(eddsa, Usage::Decrypt, KeyKind::Ed25519));
    }

    #[test]
    fn one_use_of_a_mechanism_may_fail_and_the_other_stays() {
        let both = sys::CKF_ENCRYPT | sys::CKF_DECRYPT;
        let measured = of(&[("encrypt-aes-gcm", Works), ("decrypt-aes-gcm", ListedButFails)]);
        assert_eq!(
            flags(&measured, sys::CKM_AES_GCM, both | sys::CKF_HW),
            Some(sys::CKF_ENCRYPT | sys::CKF_HW)
        );
        let unflagged = flags(&measured, sys::CKM_AES_GCM, 0);
        assert_eq!(unflagged, Some(sys::CKF_SIGN | sys::CKF_ENCRYPT), "without flags it counted for all");
    }

    #[test]
    fn a_curve_that_fails_leaves_the_others_and_a_hash_of_oaep_the_other() {
        let measured = of(&[
            ("sign-ecdsa-p256", Works),
            ("sign-ecdsa-p521", ListedButFails),
            ("decrypt-rsa-oaep-sha1", Works),
            ("decrypt-rsa-oaep-sha256", ListedButFails),
        ]);
        let ecdsa = Mechanism::Ecdsa.index().unwrap();
        assert!(measured.fails(ecdsa, Usage::Sign, KeyKind::Ec(Curve::P521)));
        assert!(!measured.fails(ecdsa, Usage::Sign, KeyKind::Ec(Curve::P256)));
        assert_eq!(flags(&measured, sys::CKM_ECDSA, sys::CKF_SIGN), Some(sys::CKF_SIGN));
        assert!(measured.fails(Mechanism::OAEP_MORE, Usage::Decrypt, KeyKind::Rsa { bits: 4096 }));
        assert!(!measured.fails(Mechanism::OAEP_MORE - 1, Usage::Decrypt, KeyKind::Rsa { bits: 4096 }));
        let oaep = flags(&measured, sys::CKM_RSA_PKCS_OAEP, sys::CKF_DECRYPT);
        assert_eq!(oaep, Some(sys::CKF_DECRYPT));
    }

    #[test]
    fn a_counter_of_one_length_that_fails_leaves_ctr_to_the_other() {
        let both = sys::CKF_ENCRYPT | sys::CKF_DECRYPT;
        let ctr = Mechanism::AesCtr { iv: Iv::Drawn, counter_bits: 128 }.index().unwrap();
        let aes = KeyKind::Aes { len: 32 };
        for other in [Works, NotTried] {
            let measured = of(&[("encrypt-aes-ctr", ListedButFails), ("encrypt-aes-ctr-128", other)]);
            assert!(!measured.fails(ctr, Usage::Encrypt, aes), "{other:?}");
            assert_eq!(flags(&measured, sys::CKM_AES_CTR, both), Some(both));
        }
        let measured = of(&[("encrypt-aes-ctr", ListedButFails), ("encrypt-aes-ctr-128", ListedButFails)]);
        assert!(measured.fails(ctr, Usage::Encrypt, aes) && !measured.fails(ctr, Usage::Decrypt, aes));
    }

    #[test]
    fn oaep_with_labels_goes_with_other_hashes_and_not_with_sha1() {
        let measured = of(&[("decrypt-rsa-oaep-sha1", Works), ("decrypt-rsa-oaep-label", ListedButFails)]);
        let rsa = KeyKind::Rsa { bits: 2048 };
        assert!(measured.fails(Mechanism::OAEP_MORE, Usage::Decrypt, rsa));
        assert!(!measured.fails(Mechanism::OAEP_MORE - 1, Usage::Decrypt, rsa));
    }

    #[test]
    fn what_is_measured_of_copies_and_sessions_is_taken_over() {
        let mut profile = profile();
        let measured = Measured::of(&profile);
        assert_eq!(measured.gains, [(KeyKind::Aes { len: 32 }, true)]);
        assert_eq!(measured.sessions, Found { recommended: Some(8), limit: Some(20) });
        assert_eq!(measured.copies(Copies::Auto), Copies::Auto);
        for refused in [None, Some("CKR_GENERAL_ERROR".to_owned())] {
            profile.sessions.as_mut().unwrap().refused = refused;
            assert_eq!(Measured::of(&profile).sessions.limit, None, "nobody says that there are no more");
        }
        profile.copies.as_mut().unwrap().work = false;
        let measured = Measured::of(&profile);
        assert_eq!(measured.copies(Copies::Auto), Copies::Off);
        assert_eq!(measured.copies(Copies::Required), Copies::Required, "it fails by itself, and says why");
    }

    #[test]
    fn a_profile_of_another_module_or_model_is_refused_by_both_their_names() {
        let profile = profile();
        assert!(profile.check_module(["Cryptoki library", "A maker"]).is_ok());
        assert!(profile.check_token(["Box 9", "A maker"]).is_ok());
        for (description, manufacturer) in [("Cryptoki library", "Another"), ("Other library", "A maker")] {
            let error = profile.check_module([description, manufacturer]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let said = error.to_string();
            let other = format!("{description} of {manufacturer}");
            assert!(said.contains("Cryptoki library of A maker") && said.contains(&other), "{said}");
        }
        let said = profile.check_token(["Box 10", "A maker"]).unwrap_err().to_string();
        assert!(said.contains("Box 9") && said.contains("Box 10"), "{said}");
        let said = profile.check_token(["Box 9", "Another"]).unwrap_err().to_string();
        assert!(said.contains("Box 9 of A maker") && said.contains("Box 9 of Another"), "{said}");
        // Written together these would be the same.
        let mut profile = profile;
        (profile.token.model, profile.token.manufacturer) = ("Box".into(), "North of South".into());
        assert!(profile.check_token(["Box of North", "South"]).is_err());
    }
}
