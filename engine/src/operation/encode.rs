//! What the host does to bytes before and after the token: digests, DigestInfo, DER signatures.

use std::fmt;

use der::Encode;
use ring::digest;

use super::ask::Scheme;
use super::asn1::IntegerPair;
use crate::error::{Error, Result};
use crate::payload::Payload;
use crate::token::facts::Curve;
pub(crate) use crate::token::software::digest_algorithm;
use crate::token::task::Hash;

/// Room for what the host makes of an input: a digest or a DigestInfo on the stack, a padded message on the heap.
pub(crate) struct Scratch {
    bytes: [u8; SCRATCH_LEN],
    padded: Payload,
}

/// The longest DigestInfo: 19 bytes in front of a SHA-512 digest.
const SCRATCH_LEN: usize = DIGEST_INFO_PREFIX_LEN + Hash::Sha512.len();

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; SCRATCH_LEN], padded: Payload::default() }
    }

    fn hold(&mut self, prefix: &[u8], digest: &[u8]) -> &[u8] {
        let len = prefix.len() + digest.len();
        self.bytes[..prefix.len()].copy_from_slice(prefix);
        self.bytes[prefix.len()..len].copy_from_slice(digest);
        &self.bytes[..len]
    }

    /// A message with so many more bytes, which are zero, and where they begin.
    pub(super) fn pad(&mut self, message: &[u8], more: usize) -> &mut [u8] {
        self.padded.clear();
        // At once: growing would leave copies of the message behind.
        self.padded.reserve_exact(message.len() + more);
        self.padded.extend_from_slice(message);
        self.padded.resize(message.len() + more, 0);
        &mut self.padded
    }

    /// The padded message as memory of its own, if there is one.
    pub(crate) fn take_padded(&mut self) -> Option<Payload> {
        (!self.padded.is_empty()).then(|| std::mem::take(&mut self.padded))
    }
}

/// Shows nothing of what it may hold.
impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// The bytes that the token signs for a message that the host hashes.
pub(super) fn message<'b>(scheme: Scheme, message: &'b [u8], scratch: &'b mut Scratch) -> &'b [u8] {
    match scheme.hash() {
        Some(hash) => of_digest(scheme, hashed(hash, message).as_ref(), scratch),
        None => message,
    }
}

/// The bytes that the token signs for a digest, whose length has been checked.
pub(super) fn digest<'b>(scheme: Scheme, digest: &'b [u8], scratch: &'b mut Scratch) -> &'b [u8] {
    debug_assert!(scheme.hash().is_none_or(|hash| hash.len() == digest.len()), "the digest of another hash");
    of_digest(scheme, digest, scratch)
}

fn of_digest<'b>(scheme: Scheme, digest: &[u8], scratch: &'b mut Scratch) -> &'b [u8] {
    match scheme {
        Scheme::RsaPkcs1(hash) => scratch.hold(digest_info_prefix(hash), digest),
        // FIPS 186-5, 6.4.1, step 2: the leftmost bits, as many as the order has. Tokens do so too, or refuse.
        Scheme::Ecdsa(ecdsa) => scratch.hold(&[], &digest[..digest.len().min(ecdsa.digest_len())]),
        _ => scratch.hold(&[], digest),
    }
}

pub(super) fn hashed(hash: Hash, message: &[u8]) -> digest::Digest {
    digest::digest(digest_algorithm(hash), message)
}

/// What stands in front of a digest in its DigestInfo.
///
/// RFC 8017, 9.2, note 1: "the DER encoding T of the DigestInfo value is equal to the following", and then a
/// line per hash: a constant, then the digest.
const fn digest_info_prefix(hash: Hash) -> &'static [u8; DIGEST_INFO_PREFIX_LEN] {
    match hash {
        // No algorithm here signs with SHA-1.
        Hash::Sha1 | Hash::Sha256 => {
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
        }
        Hash::Sha384 => b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
        Hash::Sha512 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
    }
}

/// The same for the three SHA-2 hashes used here.
pub(super) const DIGEST_INFO_PREFIX_LEN: usize = 19;

/// The DER form of a signature on P-256 as tokens give it, `r || s`.
///
/// # Errors
/// `Internal`, if it is none.
pub(crate) fn ecdsa_der(fixed: &[u8]) -> Result<Vec<u8>> {
    let mut output = fixed.to_vec();
    output.resize(ecdsa_der_len_max(Curve::P256).max(fixed.len()), 0);
    let len = ecdsa_to_der(Curve::P256, &mut output)?;
    output.truncate(len);
    Ok(output)
}

/// Longest DER form of an ECDSA signature on this curve.
///
/// Each half is a tag, a length and up to one zero byte in front of the field element, and the sequence has
/// a tag and a length. Lengths below 128 take one byte; the sequence of P-521 takes two, but then its halves have a
/// first byte of at most 1 and need no zero.
pub(super) const fn ecdsa_der_len_max(curve: Curve) -> usize {
    2 + 2 * (3 + curve.field_len())
}

/// Rewrites `r || s` at the front of `output` as DER, in place; returns the new length.
///
/// # Errors
/// Internal, if `output` has less room than [`ecdsa_der_len_max`].
pub(super) fn ecdsa_to_der(curve: Curve, output: &mut [u8]) -> Result<usize> {
    let mut halves = [0; 2 * Curve::P521.field_len()];
    let halves = &mut halves[..2 * curve.field_len()];
    let fixed = output.get(..halves.len()).ok_or_else(no_room)?;
    halves.copy_from_slice(fixed);
    let (r, s) = halves.split_at(curve.field_len());
    let pair = IntegerPair::new(r, s).map_err(|_| no_room())?;
    pair.encode_to_slice(output).map(<[u8]>::len).map_err(|_| no_room())
}

fn no_room() -> Error {
    Error::internal("no room for the DER form of a signature")
}

#[cfg(test)]
mod tests {
    use der::asn1::{ObjectIdentifier, OctetStringRef};
    use der::{Decode, Reader, SliceReader};
    use p256::ecdsa::Signature;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256, Sha384, Sha512};
    use spki::AlgorithmIdentifierRef;

    use super::super::algorithm::{Ecdsa, Hmac, RsaPkcs1, RsaPss, SignAlgorithm};
    use super::super::ask::Ask;
    use super::*;

    fn encoded(algorithm: impl Into<SignAlgorithm>, bytes: &[u8]) -> Vec<u8> {
        Ask::sign(algorithm).encode(bytes, &mut Scratch::new()).to_vec()
    }

    fn der_of(curve: Curve, fixed: &[u8]) -> Vec<u8> {
        let mut output = vec![0xEE; ecdsa_der_len_max(curve)];
        output[..fixed.len()].copy_from_slice(fixed);
        let len = ecdsa_to_der(curve, &mut output).unwrap();
        output[..len].to_vec()
    }

    /// Reads a DigestInfo with a DER parser: `SEQUENCE { AlgorithmIdentifier, OCTET STRING }`.
    fn parsed(info: &[u8]) -> (ObjectIdentifier, bool, Vec<u8>) {
        let mut reader = SliceReader::new(info).unwrap();
        let fields = reader.sequence(|fields| {
            let algorithm = AlgorithmIdentifierRef::decode(fields)?;
            let digest = <&OctetStringRef>::decode(fields)?;
            let null = algorithm.parameters.is_some_and(|parameters| parameters.is_null());
            der::Result::Ok((algorithm.oid, null, digest.as_bytes().to_vec()))
        });
        let fields = fields.unwrap();
        reader.finish().unwrap();
        fields
    }

    #[test]
    fn a_digest_info_names_its_hash_and_holds_its_digest() {
        let cases = [
            (RsaPkcs1::SHA256, "2.16.840.1.101.3.4.2.1", Sha256::digest(b"abc").to_vec()),
            (RsaPkcs1::SHA384, "2.16.840.1.101.3.4.2.2", Sha384::digest(b"abc").to_vec()),
            (RsaPkcs1::SHA512, "2.16.840.1.101.3.4.2.3", Sha512::digest(b"abc").to_vec()),
        ];
        for (algorithm, oid, digest) in cases {
            let expected = (ObjectIdentifier::new_unwrap(oid), true, digest);
            assert_eq!(parsed(&encoded(algorithm, b"abc")), expected, "{algorithm:?}");
        }
    }

    #[test]
    fn the_sha_256_digest_info_is_that_of_rfc_8017() {
        let prefix = [
            0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
            0x00, 0x04, 0x20,
        ];
        assert_eq!(encoded(RsaPkcs1::SHA256, b"abc"), [&prefix[..], &Sha256::digest(b"abc")].concat());
    }

    #[test]
    fn pss_and_ecdsa_give_the_token_the_bare_digest() {
        assert_eq!(encoded(RsaPss::SHA512, b"abc"), Sha512::digest(b"abc").as_slice());
        assert_eq!(encoded(RsaPss::SHA384, b"abc"), Sha384::digest(b"abc").as_slice());
        assert_eq!(encoded(Ecdsa::P384_SHA256, b"abc"), Sha256::digest(b"abc").as_slice());
        assert_eq!(encoded(Ecdsa::P521_SHA512, b"abc"), Sha512::digest(b"abc").as_slice());
    }

    #[test]
    fn of_a_digest_longer_than_the_field_the_leftmost_bytes_count() {
        assert_eq!(encoded(Ecdsa::P256_SHA512, b"abc"), Sha512::digest(b"abc")[..32]);
        assert_eq!(encoded(Ecdsa::P384_SHA512, b"abc"), Sha512::digest(b"abc")[..48]);
    }

    #[test]
    fn hmac_gives_the_token_the_message() {
        assert_eq!(encoded(Hmac::SHA256, b"abc"), b"abc");
    }

    #[test]
    fn a_digest_is_encoded_like_the_message_it_came_from() {
        let hash = Sha384::digest(b"abc");
        let algorithms: [SignAlgorithm; 4] = [
            RsaPkcs1::SHA384.into(),
            RsaPss::SHA384.into(),
            Ecdsa::P384_SHA384.into(),
            Ecdsa::P256_SHA384.into(),
        ];
        for algorithm in algorithms {
            let ask = Ask::sign_digest(algorithm.clone());
            let mut scratch = Scratch::new();
            assert_eq!(ask.encode(&hash, &mut scratch), encoded(algorithm, b"abc"), "{ask:?}");
        }
    }

    #[test]
    fn zero_halves_are_encoded_as_the_integer_zero() {
        assert_eq!(der_of(Curve::P256, &[0; 64]), [0x30, 6, 2, 1, 0, 2, 1, 0]);
    }

    #[test]
    fn halves_of_all_ones_take_the_longest_form() {
        for curve in [Curve::P256, Curve::P384] {
            let der = der_of(curve, &vec![0xFF; 2 * curve.field_len()]);
            assert_eq!(der.len(), ecdsa_der_len_max(curve));
        }
        // 521 bits all ones in 66 bytes.
        let half = [&[1][..], &[0xFF; 65]].concat();
        let der = der_of(Curve::P521, &[&half[..], &half].concat());
        assert_eq!((der.len(), &der[..3]), (139, &[0x30, 0x81, 136][..]));
        assert!(der.len() <= ecdsa_der_len_max(Curve::P521));
    }

    #[test]
    fn a_buffer_without_room_for_the_der_form_is_an_error() {
        assert!(ecdsa_to_der(Curve::P256, &mut [0xFF; 64]).is_err());
        assert!(ecdsa_to_der(Curve::P256, &mut [0xFF; 63]).is_err());
    }

    /// A half of a P-256 signature with so many leading zeros and this first byte after them.
    fn half() -> impl Strategy<Value = [u8; 32]> {
        (0..32_usize, prop_oneof![Just(0x01_u8), Just(0x7F), Just(0x80), Just(0xFE)], any::<[u8; 32]>())
            .prop_map(|(zeros, first, mut half)| {
                half[..zeros].fill(0);
                half[zeros] = first;
                half
            })
    }

    proptest! {
        #[test]
        fn the_der_form_is_that_of_an_independent_encoder(r in half(), s in half()) {
            let signature = Signature::from_scalars(r, s).unwrap();
            let fixed = signature.to_bytes();
            let der = der_of(Curve::P256, &fixed);
            let expected = signature.to_der();
            prop_assert_eq!(&der[..], expected.as_bytes());
        }
    }
}
