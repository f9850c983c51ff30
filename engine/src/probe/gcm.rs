//! What a module makes of the parameters of AES-GCM. Its keys are thrown away, so that an IV may come twice.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::found::{GcmFound, IvFound, MechanismFound, ProbeResult, SeenBy, TagFound};
use super::trials::TrialKey;
use super::workbench::{OUTPUT_MAX, Workbench, is_end};
use crate::error::Result;
use crate::pkcs11::{Fault, Mechanism, ObjectHandle};
use crate::token::task::GCM_TAG_LEN;

/// A value that is no secret.
const VALUE: [u8; 32] = *b"hsmux probe: a key that is known";

const IV: [u8; 12] = *b"hsmux probe1";

const TEXT: &[u8; 40] = b"hsmux probe: a text of forty bytes in it";

const DATA: &[u8] = b"hsmux probe: associated data";

/// Lengths of IVs that are tried.
const IV_LENS: [usize; 6] = [0, 1, 8, 12, 16, 32];

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
    text: Vec<u8>,
}

/// None if AES-GCM is not offered in any way.
pub(super) fn look(bench: &mut Workbench, found: &[MechanismFound]) -> Result<Option<GcmFound>> {
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
    let (iv, why) = gcm.iv(&IV)?;
    let zero_iv = if iv == IvFound::Used { None } else { Some(gcm.iv(&[0; 12])?.0) };
    let mut iv_lengths = Vec::new();
    for len in IV_LENS {
        if gcm.takes_iv(len)? {
            iv_lengths.push(len);
        }
    }
    let (associated_data, tag) = (gcm.takes_data()?, gcm.tag()?);
    Ok(Some(GcmFound { iv, zero_iv, seen_by, iv_lengths, associated_data, tag, why }))
}

impl Gcm<'_> {
    /// What becomes of an IV, and why it is refused.
    fn iv(&mut self, given: &[u8; 12]) -> Result<(IvFound, Option<String>)> {
        let sealed = match self.seal(given, &[], TEXT)? {
            Ok(sealed) => sealed,
            Err(fault) => {
                let why = format!("{} answered {}", fault.function.name(), fault.name());
                return Ok((IvFound::Refused, Some(why)));
            }
        };
        if sealed.iv != given {
            return Ok((IvFound::Replaced, None));
        }
        let is_used = match self.seen_by {
            SeenBy::Software => is_sealed(&sealed.text, given),
            SeenBy::Decryption => self.opens(given, &[], &sealed.text)?,
        };
        Ok((if is_used { IvFound::Used } else { IvFound::Ignored }, None))
    }

    fn takes_iv(&mut self, len: usize) -> Result<bool> {
        let iv = vec![7; len];
        match self.seal(&iv, &[], TEXT)? {
            Ok(sealed) if sealed.iv == iv => self.opens(&iv, &[], &sealed.text),
            _ => Ok(false),
        }
    }

    /// They are taken, and not left out of the tag.
    fn takes_data(&mut self) -> Result<bool> {
        let Ok(sealed) = self.seal(&IV, DATA, TEXT)? else { return Ok(false) };
        let (iv, text) = (sealed.iv, sealed.text);
        Ok(self.opens(&iv, DATA, &text)? && !self.opens(&iv, &[], &text)?)
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
        let mut iv = iv.to_vec();
        let mut out = [0; OUTPUT_MAX];
        match self.bench.work.encrypt_gcm(self.key, &mut iv, data, text, &mut out) {
            Ok(written) => Ok(Ok(Sealed { iv, text: out[..written].to_vec() })),
            Err(fault) if is_end(fault) => Err(fault.into()),
            Err(fault) => {
                self.bench.renew()?;
                Ok(Err(fault))
            }
        }
    }

    /// Whether the token makes the text of it.
    fn opens(&mut self, iv: &[u8], data: &[u8], sealed: &[u8]) -> Result<bool> {
        let how = Mechanism::Gcm { iv, aad: data, tag_len: GCM_TAG_LEN };
        let mut out = [0; OUTPUT_MAX];
        match self.bench.work.decrypt(self.key, &how, sealed, &mut out) {
            Ok(written) => Ok(out[..written] == TEXT[..]),
            Err(fault) if is_end(fault) => Err(fault.into()),
            Err(_) => {
                self.bench.renew()?;
                Ok(false)
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

    #[test]
    fn software_tells_the_callers_iv_from_another() {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &VALUE).unwrap());
        let mut sealed = TEXT.to_vec();
        let nonce = Nonce::assume_unique_for_key(IV);
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).unwrap();
        assert!(is_sealed(&sealed, &IV) && !is_sealed(&sealed, &[0; 12]));
    }
}
