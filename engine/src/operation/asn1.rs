//! The one ASN.1 shape that signatures and RSA public keys share.

use der::asn1::UintRef;
use der::{Encode, EncodeValue, FixedTag, Length, Tag, Writer};

/// `SEQUENCE { INTEGER, INTEGER }`: `Ecdsa-Sig-Value` (RFC 3279, 2.2.3) with `r` and `s`, and `RSAPublicKey`
/// (RFC 8017, A.1.1) with modulus and exponent.
pub(super) struct IntegerPair<'a> {
    first: UintRef<'a>,
    second: UintRef<'a>,
}

impl<'a> IntegerPair<'a> {
    /// Both numbers are big-endian; leading zeros do not matter.
    pub(super) fn new(first: &'a [u8], second: &'a [u8]) -> der::Result<Self> {
        Ok(Self { first: UintRef::new(first)?, second: UintRef::new(second)? })
    }
}

impl EncodeValue for IntegerPair<'_> {
    fn value_len(&self) -> der::Result<Length> {
        self.first.encoded_len()? + self.second.encoded_len()?
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        self.first.encode(writer)?;
        self.second.encode(writer)
    }
}

impl FixedTag for IntegerPair<'_> {
    const TAG: Tag = Tag::Sequence;
}
