//! One ciphertext, and in front of it what it takes to find its key.

use std::fmt;
use std::num::NonZeroU32;

use super::context::EncryptionContext;
use super::fields::{Fields, malformed};
use crate::error::{Error, ErrorKind, Result};

/// A self-describing ciphertext: format version, algorithm, key id, key version, IV, ciphertext and tag.
///
/// It owns its bytes, which have been found well-formed; whether they are authentic only its key can tell.
/// [`BlobRef`] is the same on borrowed bytes. The format is specified in [`crate::message_format`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Blob {
    bytes: Vec<u8>,
    algorithm: BlobAlgorithm,
    key_id: Box<str>,
    key_version: NonZeroU32,
    header_len: usize,
}

/// A well-formed blob that lies elsewhere. Parsing copies nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlobRef<'a> {
    bytes: &'a [u8],
    algorithm: BlobAlgorithm,
    key_id: &'a str,
    key_version: NonZeroU32,
    header_len: usize,
}

/// The front of a blob that is yet to be sealed: all that is authenticated besides the ciphertext.
#[derive(Clone)]
pub struct BlobHeader {
    encoded: Vec<u8>,
    algorithm: BlobAlgorithm,
    plaintext_len: usize,
}

/// How the ciphertext of a blob is made. Only what authenticates the header has a place here, so AES-CBC and AES-CTR have
/// none; numbers that are not listed are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlobAlgorithm {
    /// AES-GCM with an IV of 12 bytes and a tag of 16 (NIST SP 800-38D); the size of the key is the key's. Number 1.
    AesGcm,
}

const MAGIC: [u8; 4] = *b"HSXB";

const FORMAT_VERSION: u8 = 1;

/// Longest key id, in bytes; those of AWS external key stores are no longer.
const KEY_ID_MAX: usize = 128;

/// In front of what is authenticated, so that no ciphertext of another use of the key is ever a blob's.
const LABEL: [u8; 16] = *b"hsmux.message.v1";

impl Blob {
    /// Takes bytes over if they are a blob and nothing else.
    ///
    /// # Errors
    /// As [`BlobRef::parse`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let BlobRef { algorithm, key_id, key_version, header_len, .. } = BlobRef::parse(&bytes)?;
        let key_id = key_id.into();
        Ok(Self { bytes, algorithm, key_id, key_version, header_len })
    }

    /// The blob's parts.
    #[must_use]
    pub fn parts(&self) -> BlobRef<'_> {
        BlobRef {
            bytes: &self.bytes,
            algorithm: self.algorithm,
            key_id: &self.key_id,
            key_version: self.key_version,
            header_len: self.header_len,
        }
    }

    /// The bytes to store or send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes to store or send, without a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

impl<'a> BlobRef<'a> {
    /// Reads a blob: all of `bytes`, from the first to the last.
    ///
    /// Every message has one encoding: what parses is made up of exactly the parts that are told. No key is needed, and
    /// nothing is sent to a token.
    ///
    /// # Errors
    /// `InvalidInput` (`NotDone`), with the reason: another format or version, an unknown algorithm, a key id that is
    /// none, version 0 of a key, bytes missing or left over. These say nothing that the bytes themselves do not; what a
    /// key finds wrong with a blob is always `DecryptFailed` without more.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        if *fields.array()? != MAGIC {
            return Err(malformed("it does not begin as a blob does"));
        }
        if fields.byte()? != FORMAT_VERSION {
            return Err(malformed("its format version is not known"));
        }
        let algorithm = BlobAlgorithm::numbered(fields.byte()?)?;
        let key_id_len = fields.byte()?.into();
        let key_id = read_key_id(fields.take(key_id_len)?)?;
        let key_version = NonZeroU32::new(u32::from_be_bytes(*fields.array()?))
            .ok_or_else(|| malformed("its key version is 0"))?;
        let ciphertext_len = u32::from_be_bytes(*fields.array()?);
        let header_len = bytes.len() - fields.left();
        let rest = (algorithm.iv_len() + algorithm.tag_len()) as u64 + u64::from(ciphertext_len);
        match (fields.left() as u64).cmp(&rest) {
            std::cmp::Ordering::Less => Err(malformed("it is cut off")),
            std::cmp::Ordering::Greater => Err(malformed("bytes follow its end")),
            std::cmp::Ordering::Equal => Ok(Self { bytes, algorithm, key_id, key_version, header_len }),
        }
    }

    /// How the ciphertext was made.
    #[must_use]
    pub const fn algorithm(&self) -> BlobAlgorithm {
        self.algorithm
    }

    /// The id of the key: 1 to 128 of `A-Z a-z 0-9 . _ -`.
    #[must_use]
    pub const fn key_id(&self) -> &'a str {
        self.key_id
    }

    /// The version of the key, from 1 on.
    #[must_use]
    pub const fn key_version(&self) -> NonZeroU32 {
        self.key_version
    }

    /// The IV, 12 bytes for AES-GCM.
    #[must_use]
    pub fn iv(&self) -> &'a [u8] {
        &self.sealed()[..self.algorithm.iv_len()]
    }

    /// The ciphertext without IV and tag: as long as the message.
    #[must_use]
    pub fn ciphertext(&self) -> &'a [u8] {
        let sealed = self.sealed();
        &sealed[self.algorithm.iv_len()..sealed.len() - self.algorithm.tag_len()]
    }

    /// The authentication tag, 16 bytes for AES-GCM.
    #[must_use]
    pub fn tag(&self) -> &'a [u8] {
        let sealed = self.sealed();
        &sealed[sealed.len() - self.algorithm.tag_len()..]
    }

    /// IV, ciphertext and tag in one piece, as [`Decrypt`](crate::Decrypt) takes them.
    #[must_use]
    pub fn sealed(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// All bytes of the blob.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The additional data that its key authenticates.
    #[must_use]
    pub fn additional_data(&self, context: &EncryptionContext) -> Vec<u8> {
        additional_data(&self.bytes[..self.header_len], context)
    }
}

impl BlobHeader {
    /// The header of a message of `plaintext_len` bytes.
    ///
    /// # Errors
    /// `InvalidInput` if the key id is not 1 to 128 of `A-Z a-z 0-9 . _ -`, or the message is 4 GiB or longer.
    pub fn new(
        key_id: &str,
        key_version: NonZeroU32,
        algorithm: BlobAlgorithm,
        plaintext_len: usize,
    ) -> Result<Self> {
        read_key_id(key_id.as_bytes())?;
        let too_long = |_| Error::refused(ErrorKind::InvalidInput, "a message of 4 GiB or more");
        let ciphertext_len = u32::try_from(plaintext_len).map_err(too_long)?;
        let key_id_len = u8::try_from(key_id.len()).map_err(|_| malformed("its key id is too long"))?;
        let mut encoded = Vec::with_capacity(MAGIC.len() + 3 + key_id.len() + 8);
        encoded.extend_from_slice(&MAGIC);
        encoded.extend([FORMAT_VERSION, algorithm.number(), key_id_len]);
        encoded.extend_from_slice(key_id.as_bytes());
        encoded.extend(key_version.get().to_be_bytes());
        encoded.extend(ciphertext_len.to_be_bytes());
        Ok(Self { encoded, algorithm, plaintext_len })
    }

    /// The additional data that the key is to authenticate with the message.
    #[must_use]
    pub fn additional_data(&self, context: &EncryptionContext) -> Vec<u8> {
        additional_data(&self.encoded, context)
    }

    /// The blob, of IV, ciphertext and tag in one piece, as a [`Ciphertext`](crate::Ciphertext) holds them.
    ///
    /// # Errors
    /// `InvalidInput` if there are more or fewer bytes than the header says.
    pub fn blob(self, sealed: &[u8]) -> Result<Blob> {
        if sealed.len() != self.algorithm.iv_len() + self.plaintext_len + self.algorithm.tag_len() {
            return Err(Error::refused(
                ErrorKind::InvalidInput,
                "a ciphertext of another length than was said",
            ));
        }
        let mut bytes = self.encoded;
        bytes.reserve_exact(sealed.len());
        bytes.extend_from_slice(sealed);
        Blob::parse(bytes)
    }
}

impl Blob {
    /// Of what its key was given to authenticate, and what came out.
    ///
    /// # Errors
    /// `InvalidInput`, if the two do not belong together.
    pub(crate) fn of_sealed(additional_data: &[u8], sealed: &[u8]) -> Result<Self> {
        let rest = additional_data.strip_prefix(&LABEL[..]);
        let rest = rest.ok_or_else(|| malformed("it was sealed as no blob is"))?;
        let mut fields = Fields::new(rest);
        fields.take(MAGIC.len() + 2)?;
        let key_id_len = usize::from(fields.byte()?);
        fields.take(key_id_len + 8)?;
        let header_len = rest.len() - fields.left();
        Self::parse([&rest[..header_len], sealed].concat())
    }
}

impl BlobAlgorithm {
    const fn number(self) -> u8 {
        match self {
            Self::AesGcm => 1,
        }
    }

    fn numbered(number: u8) -> Result<Self> {
        match number {
            1 => Ok(Self::AesGcm),
            _ => Err(malformed("its algorithm is not known")),
        }
    }

    const fn iv_len(self) -> usize {
        match self {
            Self::AesGcm => 12,
        }
    }

    const fn tag_len(self) -> usize {
        match self {
            Self::AesGcm => 16,
        }
    }
}

fn read_key_id(bytes: &[u8]) -> Result<&str> {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(key_id) if (1..=KEY_ID_MAX).contains(&bytes.len()) && bytes.iter().all(known) => Ok(key_id),
        _ => Err(malformed("its key id is not 1 to 128 of A-Z a-z 0-9 . _ -")),
    }
}

/// Label, header and context. The label has one length, header and context say theirs: no two sets of them give the same.
fn additional_data(header: &[u8], context: &EncryptionContext) -> Vec<u8> {
    [&LABEL, header, context.as_encoded()].concat()
}

impl TryFrom<Vec<u8>> for Blob {
    type Error = Error;

    fn try_from(bytes: Vec<u8>) -> Result<Self> {
        Self::parse(bytes)
    }
}

impl From<Blob> for Vec<u8> {
    fn from(blob: Blob) -> Self {
        blob.into_vec()
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.bytes.len())
    }
}

impl fmt::Debug for BlobRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobRef({} bytes)", self.bytes.len())
    }
}

impl fmt::Debug for BlobHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobHeader({:?}, {} bytes)", self.algorithm, self.plaintext_len)
    }
}

#[cfg(test)]
mod tests;
