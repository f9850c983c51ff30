//! What operations yield, and how finished bytes become it.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::ask::{Ask, Mode, Scheme, What};
use crate::error::{Error, Result};
use crate::token::task::{GCM_TAG_LEN, Iv};

/// A signature or a MAC.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    bytes: Vec<u8>,
}

/// Whether a signature or a MAC is that of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a signature that was verified and found invalid is no error"]
pub enum Verdict {
    /// It is.
    Valid,
    /// It is not, or it is malformed.
    Invalid,
}

/// The result of an encryption.
///
/// [`Ciphertext::as_bytes`] is what decryption takes: an IV or counter block that the engine drew, then the body,
/// then the tag of AES-GCM.
#[derive(Clone, PartialEq, Eq)]
pub struct Ciphertext {
    bytes: Vec<u8>,
    given_iv: SmallVec<[u8; 16]>,
    front_len: usize,
    tag_len: usize,
}

/// The result of a decryption. Its memory is wiped when it is dropped.
pub struct Plaintext {
    bytes: Zeroizing<Vec<u8>>,
}

/// Random bytes from the token. Their memory is wiped when they are dropped.
pub struct RandomBytes {
    bytes: Zeroizing<Vec<u8>>,
}

impl Signature {
    /// The bytes: for ECDSA `r || s`, or DER where that was asked for.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

impl Verdict {
    /// True for [`Verdict::Valid`].
    #[must_use]
    pub const fn is_valid(self) -> bool {
        matches!(self, Self::Valid)
    }

    pub(super) const fn from_valid(valid: bool) -> Self {
        if valid { Self::Valid } else { Self::Invalid }
    }
}

impl Ciphertext {
    /// All bytes, in the form that decryption takes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The IV or counter block, whoever chose it; empty where there is none.
    #[must_use]
    pub fn iv(&self) -> &[u8] {
        if self.front_len == 0 { &self.given_iv } else { &self.bytes[..self.front_len] }
    }

    /// The encrypted message: as long as the message itself, but for padding.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.front_len..self.bytes.len() - self.tag_len]
    }

    /// The authentication tag; empty but for AES-GCM.
    #[must_use]
    pub fn tag(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - self.tag_len..]
    }

    /// All bytes, without a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

impl Plaintext {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes) }
    }

    /// The message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The message, without a copy. Nothing wipes it any more: that is the caller's task from here on.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes)
    }
}

impl RandomBytes {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, without a copy. Nothing wipes them any more: that is the caller's task from here on.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes)
    }
}

// From finished bytes to outputs. All have the same signature, so that a request can hold the one it needs.

pub(crate) fn signature(_ask: &Ask, bytes: Vec<u8>) -> Result<Signature> {
    Ok(Signature { bytes })
}

/// Compares the MAC that the token made with the one to verify.
///
/// # Errors
/// Internal, if the request is no verification of a MAC.
pub(crate) fn verdict(ask: &Ask, bytes: Vec<u8>) -> Result<Verdict> {
    let made = Zeroizing::new(bytes);
    match &ask.what {
        What::Verify { scheme: Scheme::Mac(_), signature, .. } => {
            Ok(Verdict::from_valid(same(&made, signature)))
        }
        // The host has verified a signature: one byte says how it came out.
        What::Verify { .. } if matches!(made[..], [0 | 1]) => Ok(Verdict::from_valid(made[0] == 1)),
        _ => Err(Error::internal("a verdict was asked of a request that verifies no MAC")),
    }
}

/// Compares in a time that depends on the lengths only: how far a forged MAC agrees must not show.
#[expect(
    deprecated,
    reason = "the comparison behind ring's own HMAC verification; nothing else in ring offers it"
)]
fn same(made: &[u8], given: &[u8]) -> bool {
    ring::constant_time::verify_slices_are_equal(made, given).is_ok()
}

/// Notes where IV, body and tag of a ciphertext lie.
///
/// # Errors
/// Internal, if the request is no encryption or the bytes are too few.
pub(crate) fn ciphertext(ask: &Ask, bytes: Vec<u8>) -> Result<Ciphertext> {
    let (front_len, tag_len) = match &ask.what {
        What::Encrypt(mode @ Mode::Gcm { .. }) => (mode.front(), GCM_TAG_LEN),
        What::Encrypt(mode) => (mode.front(), 0),
        _ => return Err(Error::internal("a ciphertext was asked of a request that does not encrypt")),
    };
    if bytes.len() < front_len + tag_len {
        return Err(Error::internal("a ciphertext shorter than its IV and tag"));
    }
    let given_iv = match ask.mechanism().and_then(|mechanism| mechanism.iv()) {
        Some(Iv::Given(iv)) => iv.clone(),
        _ => SmallVec::new(),
    };
    Ok(Ciphertext { bytes, given_iv, front_len, tag_len })
}

pub(crate) fn plaintext(_ask: &Ask, bytes: Vec<u8>) -> Result<Plaintext> {
    Ok(Plaintext::of(bytes))
}

pub(crate) fn random(_ask: &Ask, bytes: Vec<u8>) -> Result<RandomBytes> {
    Ok(RandomBytes { bytes: Zeroizing::new(bytes) })
}

/// Gives an output its bytes by reference and a `Debug` form that shows only how many they are.
macro_rules! bytes_of {
    ($($output:ident),+) => {$(
        impl AsRef<[u8]> for $output {
            fn as_ref(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl Deref for $output {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl fmt::Debug for $output {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($output), "({} bytes)"), self.as_bytes().len())
            }
        }
    )+};
}

bytes_of!(Signature, Ciphertext, Plaintext, RandomBytes);

impl From<Signature> for Vec<u8> {
    fn from(signature: Signature) -> Self {
        signature.into_vec()
    }
}

impl From<Ciphertext> for Vec<u8> {
    fn from(ciphertext: Ciphertext) -> Self {
        ciphertext.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::{AesEcb, AesGcm, Ecdsa, Hmac};
    use super::*;
    use crate::error::ErrorKind;

    fn framed() -> Vec<u8> {
        [[1; 12].as_slice(), &[2; 5], &[3; 16]].concat()
    }

    #[test]
    fn a_ciphertext_with_a_drawn_iv_has_three_parts() {
        let ciphertext = ciphertext(&Ask::encrypt(AesGcm::new()), framed()).unwrap();
        assert_eq!(ciphertext.iv(), [1; 12]);
        assert_eq!(ciphertext.body(), [2; 5]);
        assert_eq!(ciphertext.tag(), [3; 16]);
        assert_eq!(ciphertext.as_bytes(), framed());
    }

    #[test]
    fn a_ciphertext_with_a_given_iv_tells_it_without_holding_it() {
        let ask = Ask::encrypt(AesGcm::new().with_iv([9; 20]));
        let ciphertext = ciphertext(&ask, framed().split_off(12)).unwrap();
        assert_eq!(ciphertext.iv(), [9; 20]);
        assert_eq!(ciphertext.body(), [2; 5]);
        assert_eq!(ciphertext.tag(), [3; 16]);
        assert_eq!(ciphertext.into_vec(), framed().split_off(12));
    }

    #[test]
    fn a_ciphertext_of_blocks_is_all_body() {
        let ciphertext = ciphertext(&Ask::encrypt(AesEcb), vec![7; 32]).unwrap();
        assert_eq!((ciphertext.iv(), ciphertext.body(), ciphertext.tag()), (&[][..], &[7; 32][..], &[][..]));
    }

    #[test]
    fn a_ciphertext_shorter_than_its_frame_is_an_internal_error() {
        let refused = ciphertext(&Ask::encrypt(AesGcm::new()), vec![0; 27]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_mac_is_valid_only_if_every_byte_agrees() {
        let made: Vec<u8> = (0..32).collect();
        let judged = |given: &[u8]| verdict(&Ask::verify(Hmac::SHA256, given), made.clone()).unwrap();
        assert!(judged(&made).is_valid());
        for i in 0..32 {
            let mut given = made.clone();
            given[i] ^= 0x10;
            assert!(!judged(&given).is_valid(), "byte {i}");
        }
        assert!(!judged(&made[..31]).is_valid());
        assert!(!judged(&[]).is_valid());
        assert!(!judged(&[&made[..], &[0]].concat()).is_valid());
    }

    #[test]
    fn a_verdict_without_a_mac_is_an_internal_error() {
        let ask = Ask::verify(Ecdsa::P256_SHA256, &[0; 64]);
        assert_eq!(verdict(&ask, vec![0; 64]).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn debug_forms_show_lengths_only() {
        let ask = Ask::random(3);
        assert_eq!(format!("{:?}", plaintext(&ask, vec![0xA7; 3]).unwrap()), "Plaintext(3 bytes)");
        assert_eq!(format!("{:?}", random(&ask, vec![0xA7; 3]).unwrap()), "RandomBytes(3 bytes)");
        assert_eq!(format!("{:?}", signature(&ask, vec![0xA7; 3]).unwrap()), "Signature(3 bytes)");
        assert_eq!(
            format!("{:?}", ciphertext(&Ask::encrypt(AesEcb), vec![0; 16]).unwrap()),
            "Ciphertext(16 bytes)"
        );
        assert_eq!(format!("{:?}", Ask::encrypt(AesEcb)), "Ask { kind: EncryptAesEcb, .. }");
    }

    #[test]
    fn an_output_gives_up_its_bytes_whole() {
        let ask = Ask::random(3);
        assert_eq!(plaintext(&ask, vec![1, 2, 3]).unwrap().into_vec(), [1, 2, 3]);
        assert_eq!(random(&ask, vec![1, 2, 3]).unwrap().into_vec(), [1, 2, 3]);
        assert_eq!(Vec::from(signature(&ask, vec![1, 2, 3]).unwrap()), [1, 2, 3]);
    }
}
