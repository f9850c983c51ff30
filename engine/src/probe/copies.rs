//! Whether session copies of keys can be made, and whether they are faster than their token keys.

use std::collections::HashMap;
use std::time::Duration;

use cryptoki::object::Attribute;

use super::found::{CopiesFound, CopyGain};
use super::workbench::{OUTPUT_MAX, Signer, Workbench, is_end};
use crate::clock::{Time, now};
use crate::describe::kind_name;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::store::is_sealer;
use crate::keys::copies::{measure, pays};
use crate::keys::listing::{Listed, Listing};
use crate::pkcs11::{Fault, Function, ObjectHandle, Session};
use crate::token::copies::{Copies, SESSION_LABEL};
use crate::token::facts::KeyKind;

/// Keys of a kind of which copies are tried: what one does not allow another may.
const KEYS_PER_KIND: usize = 3;

/// Copies the key of the signer; with `token_keys` measures one token key of each kind too. None if there was no session to see
/// whether a copy works.
pub(super) fn look(
    bench: &mut Workbench,
    signer: &Signer,
    token_keys: bool,
    until: Time,
) -> Result<Option<CopiesFound>> {
    let signed = match copy(&mut bench.holder, signer.key) {
        Ok(copy) => {
            let (mechanism, input) = (signer.mechanism.clone(), signer.input.clone());
            let of_copy = Signer { key: copy, mechanism, input, ..*signer };
            let signed = bench.work().and_then(|work| of_copy.sign(work, &mut [0; OUTPUT_MAX]));
            // It goes with its session in any case.
            let _destroyed = bench.holder.destroy(copy);
            if let Err(fault) = signed {
                bench.renew_after(fault)?;
            }
            signed.map(drop)
        }
        Err(fault) => Err(fault),
    };
    match signed {
        Ok(()) => {
            let gains = if token_keys { gains(bench, until)? } else { Vec::new() };
            Ok(Some(CopiesFound { work: true, why: None, gains }))
        }
        Err(fault) if is_end(fault) => Err(fault.into()),
        Err(fault) if fault.function == Function::OpenSession => Ok(None),
        Err(fault) => Ok(Some(CopiesFound { work: false, why: Some(fault.answered()), gains: Vec::new() })),
    }
}

fn copy(session: &mut Session, key: ObjectHandle) -> Result<ObjectHandle, Fault> {
    session.copy(key, &[Attribute::Token(false), Attribute::Label(SESSION_LABEL.to_vec())])
}

/// As an engine does when the first key of a kind is asked for.
fn gains(bench: &mut Workbench, until: Time) -> Result<Vec<CopyGain>> {
    let mechanisms: Vec<_> = bench.mechanisms.iter().map(|info| info.mechanism).collect();
    let Some(listing) = list(bench, until)? else { return Ok(Vec::new()) };
    let mut keys: Vec<_> = listing.keys().collect();
    // Those of the catalogue's MACs are nobody's to use.
    keys.retain(|(label, listed)| listed.flags.token && !is_sealer(label));
    // In an order that is the same each time.
    keys.sort_by_key(|(label, listed)| (*label, listed.object));
    let (mut tried, mut gains) = (HashMap::new(), Vec::new());
    for (_, listed) in keys {
        let kind = listed.facts.kind;
        let tries: &mut usize = tried.entry(kind).or_default();
        if kind == KeyKind::Other || *tries >= KEYS_PER_KIND {
            continue;
        }
        if now() >= until {
            bench.is_cut = true;
            break;
        }
        *tries += 1;
        let measured = bench.work().map_err(Error::from).and_then(|work| times(work, &mechanisms, listed));
        match measured {
            Ok(Some(times)) => {
                *tries = KEYS_PER_KIND;
                gains.push(gain(kind, times));
            }
            Ok(None) => {}
            Err(error) if is_end_of_all(&error) => return Err(error),
            Err(error) => bench.renew_after_error(&error)?,
        }
    }
    Ok(gains)
}

/// The keys that there is time to look at; none if they cannot be listed.
fn list(bench: &mut Workbench, until: Time) -> Result<Option<Listing>> {
    let listed = bench.work().map_err(Error::from);
    match listed.and_then(|work| Listing::list_until(String::new(), work, 0, until)) {
        Ok(listing) => {
            bench.is_cut |= now() >= until;
            Ok(Some(listing))
        }
        Err(error) if is_end_of_all(&error) => Err(error),
        Err(error) => {
            bench.renew_after_error(&error)?;
            Ok(None)
        }
    }
}

/// Of the key and of a copy; none if it is not copied, or if nothing can be tried with it.
fn times(work: &mut Session, mechanisms: &[u64], listed: &Listed) -> Result<Option<[u64; 2]>> {
    let Some(made) = Copies::make(work, listed.object)? else { return Ok(None) };
    let times = measure(work, |number| mechanisms.contains(&number), listed, made.copy);
    // It goes with its session in any case; in one that is gone it is gone.
    if times.is_ok() {
        let _destroyed = work.destroy(made.copy);
    }
    times
}

fn is_end_of_all(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TokenLost | ErrorKind::Forked)
}

fn gain(kind: KeyKind, [original, copy]: [u64; 2]) -> CopyGain {
    CopyGain {
        key: kind_name(kind),
        original: Duration::from_nanos(original),
        copy: Duration::from_nanos(copy),
        faster: pays([original, copy]),
    }
}
