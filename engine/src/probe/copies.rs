//! Whether session copies of keys can be made, and whether they are faster than their token keys.

use std::collections::HashSet;
use std::time::Duration;

use cryptoki::object::Attribute;

use super::found::{CopiesFound, CopyGain};
use super::workbench::{OUTPUT_MAX, Signer, Workbench, is_end};
use crate::clock::{Time, now};
use crate::describe::kind_name;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::store::is_sealer;
use crate::keys::copies::{measure, pays};
use crate::keys::listing::Listing;
use crate::pkcs11::{Fault, ObjectHandle, Session};
use crate::token::copies::{Copies, SESSION_LABEL};
use crate::token::facts::KeyKind;

/// Copies the key of the signer; with `token_keys` measures one token key of each kind too.
pub(super) fn look(
    bench: &mut Workbench,
    signer: &Signer,
    token_keys: bool,
    until: Time,
) -> Result<CopiesFound> {
    let copied = copy(&mut bench.holder, signer.key).and_then(|copy| {
        let of_copy =
            Signer { key: copy, mechanism: signer.mechanism.clone(), input: signer.input.clone(), ..*signer };
        let signed = of_copy.sign(&mut bench.work, &mut [0; OUTPUT_MAX]);
        // It goes with its session in any case.
        let _destroyed = bench.holder.destroy(copy);
        signed
    });
    match copied {
        Ok(_) => {}
        Err(fault) if is_end(fault) => return Err(fault.into()),
        Err(fault) => {
            bench.renew()?;
            let why = Some(fault.answered());
            return Ok(CopiesFound { work: false, why, gains: Vec::new() });
        }
    }
    let gains = if token_keys { gains(bench, until)? } else { Vec::new() };
    Ok(CopiesFound { work: true, why: None, gains })
}

fn copy(session: &mut Session, key: ObjectHandle) -> Result<ObjectHandle, Fault> {
    session.copy(key, &[Attribute::Token(false), Attribute::Label(SESSION_LABEL.to_vec())])
}

/// As an engine does when the first key of a kind is asked for.
fn gains(bench: &mut Workbench, until: Time) -> Result<Vec<CopyGain>> {
    let listing = Listing::list(String::new(), &mut bench.work, 0)?;
    let mut keys: Vec<_> = listing.keys().collect();
    // Those of the catalogue's MACs are nobody's to use.
    keys.retain(|(label, listed)| listed.flags.token && !is_sealer(label));
    // In an order that is the same each time.
    keys.sort_by_key(|(label, listed)| (*label, listed.object));
    let (mut seen, mut gains) = (HashSet::new(), Vec::new());
    for (_, listed) in keys {
        let kind = listed.facts.kind;
        if kind == KeyKind::Other || seen.contains(&kind) || now() >= until {
            continue;
        }
        let offers = |number| bench.mechanisms.iter().any(|info| info.mechanism == number);
        let measured = Copies::make(&mut bench.work, listed.object).and_then(|made| {
            let Some(made) = made else { return Ok(None) };
            let times = measure(&mut bench.work, offers, listed, made.copy);
            // It goes with its session in any case.
            let _destroyed = bench.work.destroy(made.copy);
            times
        });
        match measured {
            Ok(Some(times)) => {
                seen.insert(kind);
                gains.push(gain(kind, times));
            }
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::TokenLost => return Err(error),
            Err(_) => bench.renew().map_err(Error::from)?,
        }
    }
    Ok(gains)
}

fn gain(kind: KeyKind, [original, copy]: [u64; 2]) -> CopyGain {
    CopyGain {
        key: kind_name(kind),
        original: Duration::from_nanos(original),
        copy: Duration::from_nanos(copy),
        faster: pays([original, copy]),
    }
}
