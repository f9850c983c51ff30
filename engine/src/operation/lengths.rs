//! How long outputs are: buffers are sized up front, so that no call asks for a length.

use std::ops::RangeInclusive;

use super::ask::{Ask, Form, Mac, Mode, Scheme, What, host_pads};
use super::encode::ecdsa_der_len_max;
use crate::token::facts::KeyKind;
use crate::token::task::{AES_BLOCK_LEN, DES_BLOCK_LEN, GCM_TAG_LEN, Mechanism};

impl Ask {
    /// The length of the output buffer: room for what the module writes and for what [`Ask::finish`] makes
    /// of it.
    #[inline]
    pub(crate) fn output_len(&self, key: Option<KeyKind>, input_len: usize) -> usize {
        match &self.what {
            What::Sign { scheme: Scheme::Ecdsa(ecdsa), .. } if ecdsa.der => ecdsa_der_len_max(ecdsa.curve),
            What::Sign { scheme: Scheme::Raw { output_max }, .. } => raw_len(*output_max, input_len),
            What::Sign { scheme, .. } => signature_len(*scheme, key),
            What::Verify { .. } | What::Encrypt(Mode::Oaep { .. } | Mode::RsaPkcs1)
                if self.call.is_none() =>
            {
                0
            }
            What::Verify { scheme, .. } => signature_len(*scheme, key),
            What::Encrypt(Mode::Gcm { front }) => front + input_len + GCM_TAG_LEN,
            What::Encrypt(Mode::Cbc { block, front, padded: true }) => {
                front + (input_len / block + 1) * block
            }
            What::Encrypt(Mode::Cbc { front, .. } | Mode::Ctr { front }) => front + input_len,
            // Of GCM the body alone would be shorter by the tag, but some modules want room for all they are given.
            What::Decrypt(Mode::Gcm { front } | Mode::Cbc { front, .. } | Mode::Ctr { front }) => {
                input_len.saturating_sub(*front)
            }
            What::Encrypt(Mode::Ecb { .. }) | What::Decrypt(Mode::Ecb { .. }) => input_len,
            What::Encrypt(Mode::Oaep { .. } | Mode::RsaPkcs1)
            | What::Decrypt(Mode::Oaep { .. } | Mode::RsaPkcs1) => modulus_len_of(key),
            What::Encrypt(Mode::Raw { output_max }) | What::Decrypt(Mode::Raw { output_max }) => {
                raw_len(*output_max, input_len)
            }
            What::Random { len } => *len,
            What::Joint { output_len, .. } => *output_len,
        }
    }

    /// The longest that the final form can be.
    #[inline]
    pub(crate) fn final_len_max(&self, key: Option<KeyKind>, input_len: usize) -> usize {
        let output_len = self.output_len(key, input_len);
        match &self.what {
            What::Decrypt(Mode::Gcm { .. }) => output_len.saturating_sub(GCM_TAG_LEN),
            What::Decrypt(Mode::Cbc { padded: true, .. }) => output_len.saturating_sub(1),
            What::Decrypt(Mode::Oaep { hash, .. }) => output_len.saturating_sub(2 * hash.len() + 2),
            What::Decrypt(Mode::RsaPkcs1) => output_len.saturating_sub(RSA_PKCS1_OVERHEAD),
            What::Encrypt(Mode::Oaep { .. } | Mode::RsaPkcs1) => modulus_len_of(key),
            _ => output_len,
        }
    }

    /// The lengths that the module may have written into a buffer of so many bytes.
    #[inline]
    pub(super) fn written_len(&self, key: Option<KeyKind>, buffer_len: usize) -> RangeInclusive<usize> {
        let exactly = |len| len..=len;
        match &self.what {
            What::Sign { scheme: Scheme::Raw { .. }, .. } => 0..=buffer_len,
            // PKCS#11 2.40, 2.3.1: "For signatures created by a token, the resulting signature is always of
            // length 2nLen", so a shorter one is no signature with its zeros cut off, but a fault.
            What::Sign { scheme, .. } | What::Verify { scheme, .. } => exactly(signature_len(*scheme, key)),
            What::Decrypt(Mode::Gcm { .. }) => exactly(buffer_len.saturating_sub(GCM_TAG_LEN)),
            What::Decrypt(Mode::Cbc { block, padded: true, .. })
                if !self.mechanism().is_some_and(host_pads) =>
            {
                buffer_len.saturating_sub(*block)..=buffer_len.saturating_sub(1)
            }
            What::Decrypt(Mode::Oaep { .. } | Mode::RsaPkcs1)
                if !matches!(self.mechanism(), Some(Mechanism::RsaRaw)) =>
            {
                0..=self.final_len_max(key, buffer_len)
            }
            What::Encrypt(Mode::Raw { .. }) | What::Decrypt(Mode::Raw { .. }) => 0..=buffer_len,
            What::Encrypt(_) | What::Decrypt(_) | What::Random { .. } | What::Joint { .. } => {
                exactly(buffer_len)
            }
        }
    }
}

/// RFC 8017, 7.2.1: "a message to be encrypted, an octet string of length mLen, where mLen <= k - 11".
pub(super) const RSA_PKCS1_OVERHEAD: usize = 11;

/// Room for what a mechanism that nobody here knows may add: more than any tag, padding or signature of RSA with
/// 8 192 bits.
const RAW_EXTRA: usize = 1024;

fn raw_len(output_max: Option<u32>, input_len: usize) -> usize {
    output_max.map_or(input_len + RAW_EXTRA, |len| usize::try_from(len).unwrap_or(usize::MAX))
}

/// Length of the signature that the token writes.
#[inline]
fn signature_len(scheme: Scheme, key: Option<KeyKind>) -> usize {
    match scheme {
        Scheme::Ecdsa(ecdsa) => 2 * ecdsa.curve.field_len(),
        // RFC 8032, 5.1.6: an encoded point and a scalar.
        Scheme::Ed25519 => 64,
        Scheme::Mac(Mac::Hmac(hash)) => hash.len(),
        Scheme::Mac(Mac::AesCmac) => AES_BLOCK_LEN,
        Scheme::Mac(Mac::TripleDesCmac | Mac::Retail(_)) => DES_BLOCK_LEN,
        Scheme::RsaPkcs1(_) | Scheme::RsaPss { .. } => modulus_len_of(key),
        Scheme::Raw { .. } => 0,
    }
}

fn modulus_len_of(key: Option<KeyKind>) -> usize {
    match key {
        Some(KeyKind::Rsa { bits }) => modulus_len(bits),
        _ => 0,
    }
}

/// Length in bytes of a modulus of so many bits.
pub(super) const fn modulus_len(bits: u32) -> usize {
    bits.div_ceil(8) as usize
}

/// Whether a digest has the length of the scheme's hash; a message may have any.
pub(super) fn fits_form(scheme: Scheme, form: Form, len: usize) -> bool {
    form == Form::Message || scheme.hash().is_some_and(|hash| hash.len() == len)
}
