//! What a module makes of the parameters of AES-GCM. Its keys are thrown away, so that an IV may come twice.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::found::{DataFound, GcmFound, IvFound, MechanismFound, ProbeResult, SeenBy, TagFound};
use super::trials::TrialKey;
use super::workbench::{OUTPUT_MAX, Workbench, is_end};
use crate::error::{ErrorKind, Result};
use crate::pkcs11::{Fault, IV_ROOM, Mechanism, ObjectHandle};
use crate::token::task::GCM_TAG_LEN;

/// A value that is no secret.
const VALUE: [u8; 32] = *b"hsmux probe: a key that is known";

const IV: [u8; 12] = *b"hsmux probe1";

const TEXT: &[u8; 40] = b"hsmux probe: a text of forty bytes in it";

const DATA: &[u8] = b"hsmux probe: associated data";

/// Lengths of IVs that are tried.
const IV_LENS: [usize; 5] = [1, 8, 12, 16, 32];

/// A key by which AES-GCM is looked at.
struct Gcm<'a> {
    bench: &'a mut Workbench,
    key: ObjectHandle,
    seen_by: SeenBy,
}

/// What came of one encryption.
struct Sealed {
    /// As the module left it.
    iv: Vec<u8>,
    /// Whether the module has written to it, or behind it.
    is_replaced: bool,
    text: Vec<u8>,
}

/// None if AES-GCM is not offered in any way, or if nothing can be said of it. What is wrong with it is what was seen twice.
pub(super) fn look(bench: &mut Workbench, found: &[MechanismFound]) -> Result<Option<GcmFound>> {
    let first = look_once(bench, found)?;
    if first.as_ref().is_none_or(|found| found.flaw().is_none()) {
        return Ok(first);
    }
    bench.renew()?;
    look_once(bench, found)
}

/// Marks AES-GCM as failing if it has a flaw that its trials, which go one way and back, do not show.
pub(super) fn condemn(gcm: &GcmFound, mechanisms: &mut [MechanismFound]) {
    let Some(flaw) = gcm.flaw() else { return };
    let of_gcm = mechanisms.iter_mut().filter(|found| is_of_gcm(&found.operation));
    for found in of_gcm {
        let result = match found.result {
            ProbeResult::Works => ProbeResult::ListedButFails,
            ProbeResult::NotListedButWorks => ProbeResult::NotOffered,
            _ => continue,
        };
        (found.result, found.why) = (result, Some(flaw.to_owned()));
    }
}

fn is_of_gcm(operation: &str) -> bool {
    matches!(operation, "encrypt-aes-gcm" | "decrypt-aes-gcm")
}

fn look_once(bench: &mut Workbench, found: &[MechanismFound]) -> Result<Option<GcmFound>> {
    let of_gcm = found.iter().find(|found| found.operation == "encrypt-aes-gcm");
    if of_gcm.is_none_or(|found| found.result == ProbeResult::NotOffered) {
        return Ok(None);
    }
    let (key, seen_by) = match bench.known(TrialKey::Aes, &VALUE) {
        Ok(key) => (key, SeenBy::Software),
        Err(fault) if is_end(fault) => return Err(fault.into()),
        Err(_) => match bench.key(TrialKey::Aes) {
            Ok(made) => (made.key, SeenBy::Decryption),
            Err(_) => return Ok(None),
        },
    };
    let mut gcm = Gcm { bench, key, seen_by };
    let Some((iv, why)) = gcm.iv(&IV)? else { return Ok(None) };
    let zero_iv = if iv == IvFound::Used { None } else { gcm.iv(&[0; 12])?.map(|(iv, _)| iv) };
    let mut iv_lengths = Vec::new();
    // Where it is not the caller's that is used, modules write what they choose, as long as that is.
    for len in IV_LENS {
        if iv == IvFound::Used && gcm.takes_iv(len)? {
            iv_lengths.push(len);
        }
    }
    let (associated_data, tag) = (gcm.data()?, gcm.tag()?);
    Ok(Some(GcmFound { iv, zero_iv, seen_by, iv_lengths, associated_data, tag, why }))
}

impl Gcm<'_> {
    /// What becomes of an IV, and why it is refused. None if nothing can be said of it.
    fn iv(&mut self, given: &[u8; 12]) -> Result<Option<(IvFound, Option<String>)>> {
        let sealed = match self.seal(given, &[], TEXT)? {
            Ok(sealed) => sealed,
            Err(fault) => {
                return Ok(Some((IvFound::Refused, Some(fault.answered()))));
            }
        };
        if sealed.is_replaced {
            return Ok(Some((IvFound::Replaced, None)));
        }
        let is_used = match self.seen_by {
            SeenBy::Software => is_sealed(&sealed.text, given),
            // Under the IV that was given, and under no other: a module that ignores it may do so both ways.
            SeenBy::Decryption => {
                let with = self.opens(given, &[], &sealed.text)?;
                let without = self.opens(&[0x5c; 12], &[], &sealed.text)?;
                let (Some(with), Some(without)) = (with, without) else { return Ok(None) };
                with && !without
            }
        };
        Ok(Some((if is_used { IvFound::Used } else { IvFound::Ignored }, None)))
    }

    fn takes_iv(&mut self, len: usize) -> Result<bool> {
        let iv = vec![7; len];
        match self.seal(&iv, &[], TEXT)? {
            Ok(sealed) if !sealed.is_replaced => Ok(self.opens(&iv, &[], &sealed.text)? == Some(true)),
            _ => Ok(false),
        }
    }

    /// Whether they are taken, and not left out of the tag.
    fn data(&mut self) -> Result<DataFound> {
        let Ok(sealed) = self.seal(&IV, DATA, TEXT)? else { return Ok(DataFound::Refused) };
        let (iv, text) = (sealed.iv, sealed.text);
        Ok(match (self.opens(&iv, DATA, &text)?, self.opens(&iv, &[], &text)?) {
            (_, Some(true)) => DataFound::LeftOut,
            (Some(true), Some(false)) => DataFound::Authenticated,
            _ => DataFound::Unknown,
        })
    }

    /// Under one IV a text and its beginning have the same ciphertext as far as both go; their tags differ.
    fn tag(&mut self) -> Result<TagFound> {
        let (long, short) = (self.seal(&IV, &[], TEXT)?, self.seal(&IV, &[], &TEXT[..24])?);
        Ok(match (long, short) {
            (Ok(long), Ok(short)) if long.iv == short.iv => tag_of(&long.text, &short.text),
            _ => TagFound::Unknown,
        })
    }

    /// # Errors
    /// If the token is gone.
    fn seal(&mut self, iv: &[u8], data: &[u8], text: &[u8]) -> Result<Result<Sealed, Fault>> {
        let mut room = [0; IV_ROOM];
        room[..iv.len()].copy_from_slice(iv);
        let (before, mut out) = (room, [0; OUTPUT_MAX]);
        let sealed = self
            .bench
            .work()
            .and_then(|work| work.encrypt_gcm(self.key, (&mut room, iv.len()), data, text, &mut out));
        match sealed {
            Ok(written) => {
                let (iv, is_replaced) = (room[..iv.len()].to_vec(), room != before);
                Ok(Ok(Sealed { iv, is_replaced, text: out[..written].to_vec() }))
            }
            Err(fault) if is_end(fault) => Err(fault.into()),
            Err(fault) => {
                self.bench.renew_after(fault)?;
                Ok(Err(fault))
            }
        }
    }

    /// Whether the token makes the text of it. None if it gives no verdict.
    fn opens(&mut self, iv: &[u8], data: &[u8], sealed: &[u8]) -> Result<Option<bool>> {
        let how = Mechanism::Gcm { iv, aad: data, tag_len: GCM_TAG_LEN };
        let mut out = [0; OUTPUT_MAX];
        let opened = self.bench.work().and_then(|work| work.decrypt(self.key, &how, sealed, &mut out));
        match opened {
            Ok(written) => Ok(Some(out[..written] == TEXT[..])),
            Err(fault) if is_end(fault) => Err(fault.into()),
            Err(fault) => {
                self.bench.renew_after(fault)?;
                Ok((fault.class().kind == ErrorKind::DecryptFailed).then_some(false))
            }
        }
    }
}

/// Whether this is what other software makes of the text, wherever the tag is.
fn is_sealed(sealed: &[u8], iv: &[u8; 12]) -> bool {
    let Ok(key) = UnboundKey::new(&AES_256_GCM, &VALUE) else { return false };
    let mut text = TEXT.to_vec();
    let nonce = Nonce::assume_unique_for_key(*iv);
    let sealing = LessSafeKey::new(key);
    let Ok(tag) = sealing.seal_in_place_separate_tag(nonce, Aad::empty(), &mut text) else { return false };
    sealed == [&text, tag.as_ref()].concat() || sealed == [tag.as_ref(), &text].concat()
}

/// Where the tag is, from the ciphertexts of a text and of its beginning.
fn tag_of(long: &[u8], short: &[u8]) -> TagFound {
    let Some(len) = short.len().checked_sub(GCM_TAG_LEN) else { return TagFound::Unknown };
    if long.get(..len) == short.get(..len) {
        TagFound::Behind
    } else if long.get(GCM_TAG_LEN..GCM_TAG_LEN + len) == short.get(GCM_TAG_LEN..) {
        TagFound::InFront
    } else {
        TagFound::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::tests::profile;
    use super::*;

    #[test]
    fn a_tag_is_found_on_either_side() {
        let (long, short) = ([1_u8; 40], [1_u8; 24]);
        let behind = [tag_of(&[&long[..], &[8; 16]].concat(), &[&short[..], &[9; 16]].concat())];
        let front = [tag_of(&[&[8; 16], &long[..]].concat(), &[&[9; 16], &short[..]].concat())];
        assert_eq!((behind, front), ([TagFound::Behind], [TagFound::InFront]));
        assert_eq!(tag_of(&[1; 40], &[]), TagFound::Unknown);
        assert_eq!(tag_of(&[1; 56], &[2; 40]), TagFound::Unknown);
    }

    fn found(iv: IvFound, associated_data: DataFound, tag: TagFound) -> GcmFound {
        let (seen_by, iv_lengths) = (SeenBy::Software, vec![12]);
        GcmFound { iv, zero_iv: None, seen_by, iv_lengths, associated_data, tag, why: None }
    }

    #[test]
    fn a_flaw_that_goes_both_ways_condemns_what_was_found_to_work_and_nothing_else() {
        use DataFound::{Authenticated, LeftOut, Refused};
        use IvFound::{Ignored, Used};
        use TagFound::{Behind, InFront, Unknown};
        let of = |gcm: GcmFound, result, operation: &str| {
            let found = profile().mechanism("encrypt-aes-gcm").unwrap().clone();
            let mut found = [MechanismFound { operation: operation.into(), result, ..found }];
            condemn(&gcm, &mut found);
            let [found] = found;
            (found.result, found.why.is_some())
        };
        let works = (ProbeResult::Works, false);
        let fails = (ProbeResult::ListedButFails, true);
        for (gcm, expected) in [
            (found(Used, Authenticated, Behind), works),
            (found(Used, Refused, Unknown), works),
            (found(Ignored, Authenticated, Behind), fails),
            (found(Used, LeftOut, Behind), fails),
            (found(Used, Authenticated, InFront), fails),
        ] {
            assert_eq!(of(gcm.clone(), ProbeResult::Works, "encrypt-aes-gcm"), expected, "{gcm:?}");
            assert_eq!(of(gcm.clone(), ProbeResult::Works, "decrypt-aes-gcm"), expected, "{gcm:?}");
            assert_eq!(of(gcm, ProbeResult::Works, "encrypt-aes-cbc"), works);
        }
        let flawed = found(Ignored, Authenticated, Behind);
        let unlisted = of(flawed.clone(), ProbeResult::NotListedButWorks, "encrypt-aes-gcm");
        assert_eq!(unlisted, (ProbeResult::NotOffered, true));
        assert_eq!(of(flawed, ProbeResult::NotTried, "encrypt-aes-gcm"), (ProbeResult::NotTried, false));
    }

    #[test]
    fn software_tells_the_callers_iv_from_another() {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &VALUE).unwrap());
        let mut sealed = TEXT.to_vec();
        let nonce = Nonce::assume_unique_for_key(IV);
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).unwrap();
        assert!(is_sealed(&sealed, &IV) && !is_sealed(&sealed, &[0; 12]));
    }
}
