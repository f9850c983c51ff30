//! How much one call takes, and what becomes of an operation whose output had too little room.

use cryptoki_sys as sys;

use super::found::{LimitsFound, TooSmallFound};
use super::workbench::{Signer, Workbench, is_end};
use crate::clock::{Time, now};
use crate::error::Result;
use crate::pkcs11::{AfterTooSmall, Fault, Function};
use crate::token::session::without_iv;

/// Most that is tried, in bytes: as much as one request may have of random bytes.
const LEN_MAX: usize = 1 << 20;

/// What is tried first; from there it doubles.
const LEN_MIN: usize = 1 << 10;

/// `messages` signs texts of any length, if anything does; `signer` is whatever signs.
pub(super) fn look(
    bench: &mut Workbench,
    messages: Option<&Signer>,
    signer: Option<&Signer>,
    until: Time,
) -> Result<LimitsFound> {
    let data = vec![0x5a; LEN_MAX];
    let mut out = vec![0; LEN_MAX];
    let mut found = LimitsFound::default();
    if let Some(messages) = messages {
        let how = without_iv(&messages.mechanism);
        found.sign_input_max = longest(LEN_MAX, |len| {
            attempt(bench, until, |bench| {
                bench.work()?.sign(messages.key, &how, &data[..len], &mut out).map(drop)
            })
        })?;
    }
    found.random_max =
        longest(LEN_MAX, |len| attempt(bench, until, |bench| bench.work()?.random(&mut out[..len])))?;
    if let Some(signer) = signer {
        (found.too_small, found.cancels) = too_small(bench, signer)?;
    }
    Ok(found)
}

/// Whether a call goes well; none once the time is up.
fn attempt(
    bench: &mut Workbench,
    until: Time,
    call: impl FnOnce(&mut Workbench) -> Result<(), Fault>,
) -> Result<Option<bool>> {
    if now() >= until {
        bench.is_cut = true;
        return Ok(None);
    }
    match call(bench) {
        Ok(()) => Ok(Some(true)),
        Err(fault) if is_end(fault) => Err(fault.into()),
        Err(fault) => {
            bench.renew_after(fault)?;
            // Without a session nothing was tried.
            Ok((fault.function != Function::OpenSession).then_some(false))
        }
    }
}

/// The longest that is taken, to the byte, of what is taken up to some length and not beyond. None if not even the shortest
/// is, or if that could not be found out.
fn longest(most: usize, mut takes: impl FnMut(usize) -> Result<Option<bool>>) -> Result<Option<usize>> {
    let (mut taken, mut refused) = (None, most + 1);
    let mut len = LEN_MIN;
    while taken.is_none_or(|taken| taken + 1 < refused) {
        match takes(len)? {
            Some(true) => taken = Some(len),
            Some(false) => refused = len,
            None => return Ok(None),
        }
        len = match taken {
            None if len == 1 => return Ok(None),
            // Down to the first that is taken.
            None => len / 2,
            Some(taken) if refused > most => (taken * 2).min(most),
            Some(taken) => taken.midpoint(refused),
        };
    }
    Ok(taken)
}

/// What becomes of an operation that had too little room, and whether it can be cancelled.
fn too_small(bench: &mut Workbench, signer: &Signer) -> Result<(Option<TooSmallFound>, Option<bool>)> {
    let Some(answers) = sign_into_too_little(bench, signer, false)? else { return Ok((None, None)) };
    let found = match (answers.first, answers.second) {
        (Err(fault), Ok(())) if fault.is(sys::CKR_BUFFER_TOO_SMALL) => TooSmallFound::GoesOn,
        (Err(fault), Err(_)) if fault.is(sys::CKR_BUFFER_TOO_SMALL) => TooSmallFound::Ends,
        _ => TooSmallFound::AnswersOtherwise,
    };
    // Some have the interface of 3.0 and say that they follow an older version.
    let may_cancel = bench.library.has_interface_3() && bench.library.info()?.cryptoki >= (3, 0);
    if found != TooSmallFound::GoesOn || !may_cancel {
        return Ok((Some(found), None));
    }
    let answers = sign_into_too_little(bench, signer, true)?;
    let cancels = answers.map(|answers| answers.second.is_ok() && answers.third.is_ok());
    Ok((Some(found), cancels))
}

/// None if the operation could not begin.
fn sign_into_too_little(
    bench: &mut Workbench,
    signer: &Signer,
    cancel: bool,
) -> Result<Option<AfterTooSmall>> {
    let how = without_iv(&signer.mechanism);
    let answers =
        bench.work().and_then(|work| work.sign_into_too_little(signer.key, &how, &signer.input, cancel));
    // An operation may be active still.
    match answers {
        Ok(answers) => {
            bench.renew()?;
            Ok(Some(answers))
        }
        Err(fault) if is_end(fault) => Err(fault.into()),
        Err(fault) => {
            bench.renew_after(fault)?;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(limit: usize) -> (Option<usize>, usize) {
        let mut calls = 0;
        let longest = longest(LEN_MAX, |len| {
            calls += 1;
            Ok(Some(len <= limit))
        });
        (longest.unwrap(), calls)
    }

    #[test]
    fn the_longest_input_is_found_to_the_byte_in_few_calls() {
        for limit in [1, 2, 1_000, 1_024, 1_025, 4_096, 65_535, LEN_MAX - 1, LEN_MAX] {
            let (longest, calls) = found(limit);
            assert_eq!(longest, Some(limit));
            assert!(calls <= 32, "{calls} for {limit}");
        }
        assert_eq!(found(usize::MAX), (Some(LEN_MAX), 11), "no more than that is tried");
        assert_eq!(found(0).0, None);
    }

    #[test]
    fn when_the_time_is_up_nothing_is_concluded() {
        assert_eq!(longest(LEN_MAX, |len| Ok((len < 4_096).then_some(true))).unwrap(), None);
    }
}
