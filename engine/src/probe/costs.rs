//! What each call costs, seen from this process: the module, and the way to its device.

use std::time::Duration;

use cryptoki::object::Attribute;

use super::found::{CallCost, MechanismFound, works};
use super::runs::with_fixed_iv;
use super::trials;
use super::workbench::{OUTPUT_MAX, Signer, Workbench, is_end};
use crate::clock::{Time, now};
use crate::error::{Error, Result};
use crate::pkcs11::{Fault, TwoCalls};
use crate::token::session::without_iv;

/// Most times that a call is made: of a hundred the slowest is the 99th percentile, of a thousand the tenth slowest.
const TIMES_MAX: usize = 1_000;

/// Parts of the time that the stage has, one for each kind of call below.
const KINDS: u32 = 6;

/// What is enciphered, in bytes.
const TEXT_LEN: usize = 64;

/// Random bytes of a call.
const RANDOM_LEN: usize = 32;

/// Ciphers of which one is timed: the first that works.
const CIPHERS: [&str; 3] = ["encrypt-aes-gcm", "encrypt-aes-ecb", "encrypt-3des-ecb"];

/// Times them all.
pub(super) fn measure(
    bench: &mut Workbench,
    signer: Option<&Signer>,
    found: &[MechanismFound],
    until: Time,
    mut step: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<CallCost>> {
    let mut costs = Vec::new();
    let share = now().until(until) / KINDS;
    let kinds: [Kind; KINDS as usize] = [signing, enciphering, opening, finding, reading, drawing];
    for (at, kind) in kinds.into_iter().enumerate() {
        step(at, kinds.len())?;
        match kind(bench, &Rest { signer, found }, share) {
            Ok(of_kind) => costs.extend(of_kind),
            Err(fault) if is_end(fault) => return Err(fault.into()),
            // What the module does not have costs nothing.
            Err(fault) => bench.renew_after(fault).map_err(Error::from)?,
        }
    }
    Ok(costs)
}

/// Times calls of one kind, for so long at most.
type Kind = fn(&mut Workbench, &Rest<'_>, Duration) -> Result<Vec<CallCost>, Fault>;

/// What the kinds of calls need of what was found before.
struct Rest<'a> {
    signer: Option<&'a Signer>,
    found: &'a [MechanismFound],
}

fn signing(bench: &mut Workbench, rest: &Rest<'_>, share: Duration) -> Result<Vec<CallCost>, Fault> {
    let Some(signer) = rest.signer else { return Ok(Vec::new()) };
    let how = without_iv(&signer.mechanism);
    let (names, of) = (["C_SignInit", "C_Sign"], format!("{}, session key", signer.operation));
    two_calls(names, &of, share, |between| {
        let mut out = [0; OUTPUT_MAX];
        bench
            .work()?
            .in_two_calls(TwoCalls::Sign, signer.key, &how, &signer.input, &mut out, between)
            .map(drop)
    })
}

fn enciphering(bench: &mut Workbench, rest: &Rest<'_>, share: Duration) -> Result<Vec<CallCost>, Fault> {
    let Some(trial) = CIPHERS.into_iter().find(|name| works(rest.found, name)).and_then(trials::named) else {
        return Ok(Vec::new());
    };
    let (key, mechanism) = (bench.key(trial.key)?.key, trial.mechanism());
    let names = ["C_EncryptInit", "C_Encrypt"];
    two_calls(names, &format!("{}, {TEXT_LEN} bytes, session key", trial.operation), share, |between| {
        let mut out = [0; TEXT_LEN + 32];
        let how = with_fixed_iv(&mechanism);
        bench.work()?.in_two_calls(TwoCalls::Encrypt, key, &how, &[7; TEXT_LEN], &mut out, between).map(drop)
    })
}

fn opening(bench: &mut Workbench, _: &Rest<'_>, share: Duration) -> Result<Vec<CallCost>, Fault> {
    one_call("C_OpenSession and C_CloseSession", "a session", share, || {
        bench.library.open(bench.slot).map(drop)
    })
}

fn finding(bench: &mut Workbench, _: &Rest<'_>, share: Duration) -> Result<Vec<CallCost>, Fault> {
    let template = [Attribute::Label(b"hsmux probe: nothing is called so".to_vec())];
    one_call("C_FindObjectsInit to C_FindObjectsFinal", "a label that is not there", share, || {
        bench.work()?.find(&template).map(drop)
    })
}

fn reading(bench: &mut Workbench, rest: &Rest<'_>, share: Duration) -> Result<Vec<CallCost>, Fault> {
    let Some(signer) = rest.signer else { return Ok(Vec::new()) };
    one_call("C_GetAttributeValue", "the class of a session key", share, || {
        bench.work()?.read_class(signer.key)
    })
}

fn drawing(bench: &mut Workbench, _: &Rest<'_>, share: Duration) -> Result<Vec<CallCost>, Fault> {
    one_call("C_GenerateRandom", &format!("{RANDOM_LEN} bytes"), share, || {
        bench.work()?.random(&mut [0; RANDOM_LEN])
    })
}

/// Makes a call again and again, until the time is up or it was made often enough.
fn one_call(
    call: &str,
    of: &str,
    share: Duration,
    mut make: impl FnMut() -> Result<(), Fault>,
) -> Result<Vec<CallCost>, Fault> {
    let (mut times, end) = (Vec::new(), now().after(share));
    for _ in 0..TIMES_MAX {
        let begun = now();
        make()?;
        let done = now();
        times.push(done.ns_since(begun));
        if done >= end {
            break;
        }
    }
    Ok(vec![cost(call, of, times)])
}

/// The same of two calls that belong together.
fn two_calls(
    calls: [&str; 2],
    of: &str,
    share: Duration,
    mut make: impl FnMut(&mut dyn FnMut()) -> Result<(), Fault>,
) -> Result<Vec<CallCost>, Fault> {
    let (mut both, end) = ([Vec::new(), Vec::new()], now().after(share));
    for _ in 0..TIMES_MAX {
        let (mut moments, mut at) = ([now(); 3], 0);
        make(&mut || {
            moments[at.min(2)] = now();
            at += 1;
        })?;
        for (times, pair) in both.iter_mut().zip(moments.windows(2)) {
            times.push(pair[1].ns_since(pair[0]));
        }
        if moments[2] >= end {
            break;
        }
    }
    Ok(calls.iter().zip(both).map(|(call, times)| cost(call, of, times)).collect())
}

/// Of nanoseconds.
fn cost(call: &str, of: &str, mut times: Vec<u64>) -> CallCost {
    times.sort_unstable();
    let at = |percent| Duration::from_nanos(rounded(percentile(&times, percent)));
    let (call, of) = (call.to_owned(), of.to_owned());
    CallCost { call, of, p50: at(50), p99: at(99), samples: times.len() as u64 }
}

/// The least of sorted times that so many percent do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// To three digits: more say nothing.
fn rounded(ns: u64) -> u64 {
    let mut unit = 1;
    while ns / unit >= 1_000 {
        unit *= 10;
    }
    ns / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_three_digits() {
        assert_eq!([0, 7, 999, 1_234, 98_765, 1_000_000].map(rounded), [0, 7, 999, 1_230, 98_700, 1_000_000]);
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=200).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 99)), (100, 198));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 50)), (7, 7, 0));
    }

    #[test]
    fn a_call_that_fails_ends_its_kind_and_one_that_works_is_made_often_enough() {
        let fault = Fault::new(crate::pkcs11::Function::GenerateRandom, 0x121);
        assert!(one_call("C_GenerateRandom", "", Duration::MAX, || Err(fault)).is_err());
        let costs = one_call("C_GenerateRandom", "", Duration::MAX, || Ok(())).unwrap();
        assert_eq!(costs[0].samples, TIMES_MAX as u64);
        let once = one_call("C_GenerateRandom", "", Duration::ZERO, || Ok(())).unwrap();
        assert_eq!(once[0].samples, 1);
    }
}
