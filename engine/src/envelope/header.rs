//! What stands in front of the chunks of an envelope message.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::message::fields::{Fields, malformed};

/// How many bytes of plaintext a chunk holds: a power of two from 1 KiB to 1 MiB.
///
/// A chunk is sealed and opened whole: readers and writers hold one in memory, and release plaintext by the chunk. Each
/// costs 16 bytes for its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkSize {
    exponent: u8,
}

/// The front of an envelope message: how long its chunks are, and its wrapped data key.
///
/// Nothing of it is authentic before the message has opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeHeader<'a> {
    bytes: &'a [u8],
    fixed: &'a Fixed,
    chunk: ChunkSize,
    wrapped: &'a [u8],
    commitment: &'a [u8; COMMITMENT_LEN],
}

/// The front of a header, which is as long in every message.
pub(super) type Fixed = [u8; FIXED_LEN];

/// Magic, format version, algorithm, chunk size, message id.
pub(super) const FIXED_LEN: usize = MAGIC.len() + 3 + MESSAGE_ID_LEN;

/// Twice the 128 bits of security that are wanted: ids that are drawn at random never meet. The AWS Encryption SDK's format
/// 2 has as many.
pub(super) const MESSAGE_ID_LEN: usize = 32;

/// As of the AWS Encryption SDK's suites with key commitment.
pub(super) const COMMITMENT_LEN: usize = 32;

const MAGIC: [u8; 4] = *b"HSXE";

const FORMAT_VERSION: u8 = 1;

/// HKDF-SHA-256, chunks of AES-256-GCM, commitment to the key.
const ALGORITHM: u8 = 1;

/// Longest wrapped data key, in bytes. A [`Blob`](crate::Blob) of one takes at most 215; AWS KMS returns up to 6 144.
pub(super) const WRAPPED_MAX: usize = 8_192;

impl ChunkSize {
    /// See [`ChunkSize::default`].
    const DEFAULT: Self = Self { exponent: 16 };

    const EXPONENTS: std::ops::RangeInclusive<u8> = 10..=20;

    /// Chunks of so many bytes.
    ///
    /// # Errors
    /// `InvalidInput` if that is no power of two from 1 024 to 1 048 576.
    pub fn new(bytes: usize) -> Result<Self> {
        let exponent = u8::try_from(bytes.trailing_zeros()).unwrap_or(u8::MAX);
        if !bytes.is_power_of_two() || !Self::EXPONENTS.contains(&exponent) {
            let text = "a chunk is a power of two from 1024 to 1048576 bytes";
            return Err(Error::refused(ErrorKind::InvalidInput, text));
        }
        Ok(Self { exponent })
    }

    /// The bytes of plaintext in a chunk; the last one may have fewer.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.exponent
    }
}

/// 64 KiB, as those of age: larger ones gain less than a twentieth (bench `envelope`), and a reader holds less in memory.
impl Default for ChunkSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<'a> EnvelopeHeader<'a> {
    /// Reads the header off the front of a message; what follows it is not looked at.
    ///
    /// # Errors
    /// `InvalidInput` (`NotDone`), with the reason: another format or version, an unknown algorithm, a chunk size or a
    /// length of the wrapped key that is none, bytes missing.
    pub fn parse(message: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new(message);
        let fixed: &Fixed = fields.array()?;
        let chunk = read_fixed(fixed)?;
        let wrapped_len = read_wrapped_len(*fields.array()?)?;
        let wrapped = fields.take(wrapped_len)?;
        let commitment = fields.array()?;
        let bytes = &message[..message.len() - fields.left()];
        Ok(Self { bytes, fixed, chunk, wrapped, commitment })
    }

    /// How many bytes a header has that begins so.
    ///
    /// # Errors
    /// As [`EnvelopeHeader::parse`].
    pub(super) fn len_of(front: &[u8; FIXED_LEN + 2]) -> Result<usize> {
        let mut fields = Fields::new(front);
        read_fixed(fields.array()?)?;
        let wrapped_len = read_wrapped_len(*fields.array()?)?;
        Ok(front.len() + wrapped_len + COMMITMENT_LEN)
    }

    /// The chunk size of the message.
    #[must_use]
    pub const fn chunk_size(&self) -> ChunkSize {
        self.chunk
    }

    /// The wrapped data key, as its provider made it.
    #[must_use]
    pub const fn wrapped_key(&self) -> &'a [u8] {
        self.wrapped
    }

    /// The bytes of the header; the chunks follow.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same header with its data key wrapped anew. The chunks after it stay as they are, so that the key which wraps
    /// can be changed without encrypting the data again. A key that is not the same one makes a message that does not open.
    ///
    /// # Errors
    /// `InvalidInput` if `wrapped` is empty or longer than 8 192 bytes.
    pub fn with_wrapped_key(&self, wrapped: &[u8]) -> Result<Vec<u8>> {
        let mut header = Vec::new();
        write(self.fixed, wrapped, self.commitment, &mut header)?;
        Ok(header)
    }

    pub(super) const fn fixed(&self) -> &'a Fixed {
        self.fixed
    }

    pub(super) const fn commitment(&self) -> &'a [u8; COMMITMENT_LEN] {
        self.commitment
    }
}

/// The front of the header of a new message.
pub(super) fn fixed(chunk: ChunkSize, message_id: &[u8; MESSAGE_ID_LEN]) -> Fixed {
    let mut fixed = [0; FIXED_LEN];
    fixed[..4].copy_from_slice(&MAGIC);
    fixed[4..7].copy_from_slice(&[FORMAT_VERSION, ALGORITHM, chunk.exponent]);
    fixed[7..].copy_from_slice(message_id);
    fixed
}

/// The random id in the front of a header.
pub(super) fn message_id(fixed: &Fixed) -> &[u8] {
    &fixed[FIXED_LEN - MESSAGE_ID_LEN..]
}

/// Writes a header behind what is in `out`.
///
/// # Errors
/// `InvalidInput` if `wrapped` is empty or too long.
pub(super) fn write(
    fixed: &Fixed,
    wrapped: &[u8],
    commitment: &[u8; COMMITMENT_LEN],
    out: &mut Vec<u8>,
) -> Result<()> {
    let wrapped_len = u16::try_from(wrapped.len()).unwrap_or(u16::MAX).to_be_bytes();
    read_wrapped_len(wrapped_len)?;
    for field in [fixed, &wrapped_len[..], wrapped, commitment] {
        out.extend_from_slice(field);
    }
    Ok(())
}

/// The length of a header with such a wrapped key.
pub(super) const fn len_with(wrapped: &[u8]) -> usize {
    FIXED_LEN + 2 + wrapped.len() + COMMITMENT_LEN
}

fn read_fixed(fixed: &Fixed) -> Result<ChunkSize> {
    let mut fields = Fields::new(fixed);
    if *fields.array()? != MAGIC {
        return Err(malformed("it does not begin as an envelope does"));
    }
    if fields.byte()? != FORMAT_VERSION {
        return Err(malformed("its format version is not known"));
    }
    if fields.byte()? != ALGORITHM {
        return Err(malformed("its algorithm is not known"));
    }
    let exponent = fields.byte()?;
    if !ChunkSize::EXPONENTS.contains(&exponent) {
        return Err(malformed("its chunks have a size that none has"));
    }
    Ok(ChunkSize { exponent })
}

fn read_wrapped_len(bytes: [u8; 2]) -> Result<usize> {
    let len = u16::from_be_bytes(bytes).into();
    if (1..=WRAPPED_MAX).contains(&len) {
        Ok(len)
    } else {
        Err(malformed("its wrapped data key is empty or too long"))
    }
}

impl fmt::Debug for EnvelopeHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeHeader({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(wrapped: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&fixed(ChunkSize::default(), &[7; 32]), wrapped, &[9; 32], &mut out).unwrap();
        out
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let bytes = header(b"wrapped");
        let message = [&bytes[..], b"chunks"].concat();
        let read = EnvelopeHeader::parse(&message).unwrap();
        assert_eq!(read.as_bytes(), bytes);
        assert_eq!((read.wrapped_key(), read.chunk_size().bytes()), (&b"wrapped"[..], 65_536));
        assert_eq!((message_id(read.fixed()), read.commitment()), (&[7; 32][..], &[9; 32]));
        assert_eq!(read.with_wrapped_key(b"wrapped").unwrap(), bytes);
        assert_eq!(len_with(b"wrapped"), bytes.len());
        let front = message.first_chunk().unwrap();
        assert_eq!(EnvelopeHeader::len_of(front).unwrap(), bytes.len());
    }

    #[test]
    fn a_header_that_is_cut_off_is_refused_at_every_length() {
        let bytes = header(b"wrapped");
        for len in 0..bytes.len() {
            assert_eq!(EnvelopeHeader::parse(&bytes[..len]).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn every_fault_of_a_header_is_named() {
        let refused = |at: usize, byte: u8| {
            let mut bytes = header(b"wrapped");
            bytes[at] = byte;
            EnvelopeHeader::parse(&bytes).unwrap_err().to_string()
        };
        let of = |what: &str| format!("input not valid for the algorithm: not a message: {what}");
        assert_eq!(refused(3, b'B'), of("it does not begin as an envelope does"));
        assert_eq!(refused(4, 2), of("its format version is not known"));
        assert_eq!(refused(5, 0), of("its algorithm is not known"));
        assert_eq!(refused(6, 9), of("its chunks have a size that none has"));
        assert_eq!(refused(6, 21), of("its chunks have a size that none has"));
        assert_eq!(refused(40, 0), of("its wrapped data key is empty or too long"));
        assert_eq!(refused(39, 0x21), of("its wrapped data key is empty or too long"));
    }

    #[test]
    fn wrapped_keys_of_1_to_8192_bytes_are_taken() {
        let parsed =
            |len: usize| EnvelopeHeader::parse(&header(&vec![1; len])).map(|read| read.wrapped.len());
        assert_eq!((parsed(1).unwrap(), parsed(8_192).unwrap()), (1, 8_192));
        for wrapped in [vec![], vec![1; 8_193], vec![1; 65_537]] {
            let refused = write(&[0; FIXED_LEN], &wrapped, &[0; 32], &mut Vec::new()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn chunks_are_powers_of_two_from_1_kib_to_1_mib() {
        for size in (10..=20).map(|exponent| 1 << exponent) {
            assert_eq!(ChunkSize::new(size).unwrap().bytes(), size);
        }
        for size in [0, 1, 512, 1_000, 1_023, 1_025, 3_072, 1 << 21, usize::MAX] {
            assert_eq!(ChunkSize::new(size).unwrap_err().kind(), ErrorKind::InvalidInput, "{size}");
        }
    }
}
