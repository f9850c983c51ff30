//! Which mechanisms really work: each is run on a key that is thrown away. What fails does so twice in a row and once more at the
//! end, on a device that does other things meanwhile.

use std::sync::Arc;

use super::found::{MechanismFound, ProbeResult};
use super::runs::{decrypts, round_trip, signs};
use super::trials::{TRIALS, Trial};
use super::workbench::{OUTPUT_MAX, Workbench, is_end};
use crate::clock::{Time, now};
use crate::describe::mechanism_name;
use crate::error::{ErrorKind, Result};
use crate::pkcs11::{Fault, Function};
use crate::token::task::Usage;

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    Right,
    /// It does not work, and why.
    Failed(Arc<str>),
    /// The same, by a code that also says that the device is not well.
    Ill(Arc<str>),
    /// Nobody knows.
    Not(Arc<str>),
}

/// Tries all of them; `step` is told which comes. With what was found whether there was time for all.
pub(super) fn try_all(
    bench: &mut Workbench,
    until: Time,
    mut step: impl FnMut(usize, usize, &'static str) -> Result<()>,
) -> Result<(Vec<MechanismFound>, bool)> {
    let mut all = vec![not("the time was up"); TRIALS.len()];
    let mut is_whole = true;
    let rows = || TRIALS.iter().enumerate().filter(|(at, _)| !is_behind_encryption(*at));
    for (at, trial) in rows() {
        step(at, TRIALS.len(), trial.operation)?;
        if now() >= until {
            is_whole = false;
            continue;
        }
        let tried = try_twice(bench, trial, &all)?;
        put(&mut all, at, tried);
    }
    for (at, trial) in rows() {
        let (before, number) = (pair(&all, at), trial.mechanism().number());
        let is_listed = [trial.usage, Usage::Decrypt].into_iter().any(|usage| bench.lists(number, usage));
        if !is_listed || !before.iter().any(|tried| matches!(tried, Tried::Failed(_))) {
            continue;
        }
        step(TRIALS.len() - 1, TRIALS.len(), trial.operation)?;
        let again = if now() < until {
            try_once(bench, trial, &all)?
        } else {
            is_whole = false;
            [not("it failed, and there was no time to try it again"), Tried::Right]
        };
        put(&mut all, at, merged(before, again));
    }
    Ok((TRIALS.iter().zip(&all).map(|(trial, tried)| found(bench, trial, tried)).collect(), is_whole))
}

fn found(bench: &Workbench, trial: &Trial, tried: &Tried) -> MechanismFound {
    let mechanism = trial.mechanism().number();
    let (result, why) = judge(bench.lists(mechanism, trial.usage), tried);
    MechanismFound {
        operation: trial.operation.to_owned(),
        mechanism: mechanism_name(mechanism),
        key: trial.key.name(),
        result,
        why,
    }
}

/// Whether it is the decryption of what the row before it encrypts, and is tried with that.
fn is_behind_encryption(at: usize) -> bool {
    at > 0 && TRIALS[at - 1].usage == Usage::Encrypt
}

/// What came of a row, and of the decryption behind an encryption.
fn pair(all: &[Tried], at: usize) -> [Tried; 2] {
    let then = if TRIALS[at].usage == Usage::Encrypt { all[at + 1].clone() } else { Tried::Right };
    [all[at].clone(), then]
}

fn put(all: &mut [Tried], at: usize, [tried, then]: [Tried; 2]) {
    all[at] = tried;
    if TRIALS[at].usage == Usage::Encrypt {
        all[at + 1] = then;
    }
}

/// What two runs say together: what was right once is, and what fails has failed in both.
fn merged(before: [Tried; 2], now: [Tried; 2]) -> [Tried; 2] {
    let [[first, then], [first_now, then_now]] = [before, now];
    [both(first, first_now), both(then, then_now)]
}

fn both(before: Tried, now: Tried) -> Tried {
    match (before, now) {
        (Tried::Right, _) | (_, Tried::Right) => Tried::Right,
        (Tried::Not(why), _) | (_, Tried::Not(why)) => Tried::Not(why),
        (_, failed) => failed,
    }
}

/// What a trial says of a mechanism that is listed, or not.
fn judge(is_listed: bool, tried: &Tried) -> (ProbeResult, Option<String>) {
    let (result, why) = match (tried, is_listed) {
        (Tried::Right, true) => (ProbeResult::Works, None),
        (Tried::Right, false) => (ProbeResult::NotListedButWorks, None),
        (Tried::Failed(why), true) => (ProbeResult::ListedButFails, Some(why)),
        (Tried::Ill(why) | Tried::Not(why), true) => (ProbeResult::NotTried, Some(why)),
        // It was not promised.
        (_, false) => (ProbeResult::NotOffered, None),
    };
    (result, why.map(|why| why.to_string()))
}

/// What a fault says of a mechanism. Nothing is concluded of what may be over in a moment, of what the key that was made does not
/// allow, of a verification that was only to show what the signature is worth, and where no session was to be had.
pub(super) fn of_fault(fault: Fault) -> Tried {
    let why = fault.answered().into();
    match fault.class().kind {
        _ if matches!(fault.function, Function::Verify | Function::OpenSession) => Tried::Not(why),
        ErrorKind::Busy
        | ErrorKind::SessionLost
        | ErrorKind::TokenLost
        | ErrorKind::KeyNotFound
        | ErrorKind::KeyMismatch
        | ErrorKind::NotPermitted => Tried::Not(why),
        // Codes of a device's own trouble are verdicts on a ciphertext in `C_Decrypt`.
        ErrorKind::Device | ErrorKind::DecryptFailed => Tried::Ill(why),
        _ => Tried::Failed(why),
    }
}

pub(super) fn failed(why: &str) -> Tried {
    Tried::Failed(why.into())
}

pub(super) fn not(why: &str) -> Tried {
    Tried::Not(why.into())
}

/// Runs a trial; once more, in another session, if it does not go well.
///
/// # Errors
/// If the token is gone.
fn try_twice(bench: &mut Workbench, trial: &Trial, all: &[Tried]) -> Result<[Tried; 2]> {
    if let Err(fault) = bench.key(trial.key) {
        return unmade(fault).map(|tried| [tried.clone(), tried]);
    }
    let first = try_once(bench, trial, all)?;
    if first == [Tried::Right, Tried::Right] {
        return Ok(first);
    }
    let second = try_once(bench, trial, all)?;
    Ok(merged(first, second))
}

/// Runs a trial with its key, and leaves a session in which no operation is active. What came of it, and of the decryption behind
/// an encryption.
fn try_once(bench: &mut Workbench, trial: &Trial, all: &[Tried]) -> Result<[Tried; 2]> {
    let made = match bench.key(trial.key) {
        Ok(made) => made,
        Err(fault) => return unmade(fault).map(|tried| [tried.clone(), tried]),
    };
    let mechanism = trial.mechanism();
    let alone = |tried| [tried, Tried::Right];
    let run = match trial.usage {
        Usage::Encrypt => round_trip(bench, &made, &mechanism),
        Usage::Sign => signs(bench, &made, &mechanism).map(alone),
        Usage::Decrypt => decrypts(bench, &made, &mechanism).map(alone),
    };
    let ended = run.as_ref().err().copied();
    let tried = match run {
        Ok(tried) => tried,
        Err(fault) if is_end(fault) => return Err(fault.into()),
        Err(fault) => [of_fault(fault), not("nothing was there to be decrypted")],
    };
    if tried == [Tried::Right, Tried::Right] {
        return Ok(tried);
    }
    match ended {
        Some(fault) => bench.renew_after(fault)?,
        None => bench.renew()?,
    }
    let is_well =
        if tried.iter().any(|tried| matches!(tried, Tried::Ill(_))) { is_well(bench, all)? } else { true };
    Ok(tried.map(|tried| tried.on_device(is_well)))
}

/// Whether the device does something else: gives random bytes, or signs as it did before.
fn is_well(bench: &mut Workbench, all: &[Tried]) -> Result<bool> {
    match bench.work().and_then(|work| work.random(&mut [0; 32])) {
        Ok(()) => return Ok(true),
        Err(fault) if is_end(fault) => return Err(fault.into()),
        Err(fault) => bench.renew_after(fault)?,
    }
    let mut signed = TRIALS.iter().zip(all).filter(|(_, tried)| **tried == Tried::Right);
    let signed = signed.find(|(trial, _)| trial.usage == Usage::Sign);
    let Some(signer) = signed.and_then(|(trial, _)| bench.signer_of(trial)) else { return Ok(false) };
    match bench.work().and_then(|work| signer.sign(work, &mut [0; OUTPUT_MAX])) {
        Ok(_) => Ok(true),
        Err(fault) if is_end(fault) => Err(fault.into()),
        Err(fault) => {
            bench.renew_after(fault)?;
            Ok(false)
        }
    }
}

/// Without a key nothing is known of what would be done with it.
fn unmade(fault: Fault) -> Result<Tried> {
    if is_end(fault) {
        return Err(fault.into());
    }
    Ok(Tried::Not(format!("no key: {}", fault.answered()).into()))
}

impl Tried {
    /// What remains of a device's own trouble: a failure, if it is well otherwise.
    fn on_device(self, is_well: bool) -> Self {
        match self {
            Self::Ill(why) if is_well => Self::Failed(why),
            Self::Ill(why) => Self::Not(format!("{why}, and nothing else works").into()),
            tried => tried,
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki_sys as sys;

    use super::*;

    fn judged(is_listed: bool, tried: Tried) -> (ProbeResult, Option<String>) {
        judge(is_listed, &tried)
    }

    #[test]
    fn what_is_listed_and_fails_is_told_from_what_was_never_promised() {
        let why = Some("no".to_owned());
        assert_eq!(judged(true, Tried::Right), (ProbeResult::Works, None));
        assert_eq!(judged(true, failed("no")), (ProbeResult::ListedButFails, why.clone()));
        assert_eq!(judged(true, not("no")), (ProbeResult::NotTried, why));
        assert_eq!(judged(false, Tried::Right), (ProbeResult::NotListedButWorks, None));
        assert_eq!(judged(false, failed("no")), (ProbeResult::NotOffered, None));
        assert_eq!(judged(false, not("no")), (ProbeResult::NotOffered, None));
    }

    #[test]
    fn of_what_may_be_over_in_a_moment_and_of_a_key_that_does_not_fit_nothing_is_concluded() {
        let of = |code| of_fault(Fault::new(Function::SignInit, code));
        let passing = [sys::CKR_DEVICE_MEMORY, sys::CKR_SESSION_COUNT, sys::CKR_SESSION_HANDLE_INVALID];
        let of_keys = [
            sys::CKR_KEY_HANDLE_INVALID,
            sys::CKR_KEY_SIZE_RANGE,
            sys::CKR_KEY_TYPE_INCONSISTENT,
            sys::CKR_KEY_FUNCTION_NOT_PERMITTED,
        ];
        for code in passing.into_iter().chain(of_keys) {
            assert!(matches!(of(code), Tried::Not(_)), "0x{code:x}");
        }
        assert_eq!(of(sys::CKR_MECHANISM_INVALID), failed("C_SignInit answered CKR_MECHANISM_INVALID"));
        let verified = of_fault(Fault::new(Function::Verify, sys::CKR_FUNCTION_NOT_SUPPORTED));
        assert!(matches!(verified, Tried::Not(_)), "{verified:?}");
    }

    #[test]
    fn a_device_in_trouble_fails_only_if_it_is_well_otherwise() {
        let ill = of_fault(Fault::new(Function::Sign, sys::CKR_FUNCTION_FAILED));
        assert_eq!(ill.clone().on_device(true), failed("C_Sign answered CKR_FUNCTION_FAILED"));
        assert!(matches!(ill.on_device(false), Tried::Not(_)));
        assert!(matches!(of_fault(Fault::new(Function::Decrypt, sys::CKR_GENERAL_ERROR)), Tried::Ill(_)));
        assert_eq!(Tried::Right.on_device(false), Tried::Right);
    }

    #[test]
    fn what_fails_has_failed_each_time() {
        assert_eq!(both(failed("a"), failed("b")), failed("b"));
        assert_eq!(both(failed("a"), not("b")), not("b"));
        assert_eq!(both(not("a"), failed("b")), not("a"));
        for other in [failed("a"), not("a")] {
            assert_eq!(both(other.clone(), Tried::Right), Tried::Right);
            assert_eq!(both(Tried::Right, other), Tried::Right);
        }
    }
}
