//! Bulk data, encrypted on the host under data keys that an HSM wraps. `docs/message-format.md` specifies the messages
//! byte by byte.
//!
//! The path of a message: `keyring.rs` finds its data key or has it made once (`shelf.rs` decides, pure), `chunks.rs`
//! derives the message's own key from it and seals chunk by chunk, `header.rs` is what stands in front.

mod chunks;
pub(crate) mod data_key;
pub(crate) mod header;
mod keyring;
pub(crate) mod reader;
pub(crate) mod settings;
mod shelf;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{Read, Write};

use ring::digest::{Context, SHA256};
use zeroize::Zeroize;

use self::chunks::{Commitment, MessageKey, TAG_LEN};
use self::data_key::{DataKeyProvider, no_random};
use self::header::{EnvelopeHeader, Fixed, MESSAGE_ID_LEN};
use self::keyring::Keyring;
use self::reader::EnvelopeReader;
use self::settings::EnvelopeSettings;
use self::shelf::{Held, Id};
use self::writer::EnvelopeWriter;
use crate::clock::now;
use crate::error::{Error, ErrorKind, Result};
use crate::message::context::EncryptionContext;
use crate::operation::Plaintext;
use crate::payload::Payload;
use crate::sync::Arc;

/// Seals and opens bulk data locally: AES-256-GCM under data keys that a [`DataKeyProvider`] makes, wraps and unwraps.
///
/// A message carries its wrapped data key; to open it takes the message, its [`EncryptionContext`] and the provider. A data
/// key serves many messages ([`EnvelopeSettings`] says how many), each under a key of its own that is derived from it, so
/// that the provider is asked once for many. Order and number of the chunks are authenticated, as are the header and the
/// context. The format is specified in [`crate::message_format`].
///
/// One value serves all threads. Plain data keys are kept in memory within the bounds of the settings, and are wiped when
/// they go.
///
/// # Blocking
/// Sealing and opening compute on the calling thread. When no data key is kept they call the provider there, too, or wait
/// for another thread that does so for the same key: as long as the provider's own deadlines say, at most 30 s for who waits.
///
/// ```
/// use std::io::{self, Read, Write};
///
/// use hsmux::{DataKeyProvider, EncryptionContext, Envelope};
///
/// fn archive(envelope: &Envelope<impl DataKeyProvider>, page: &[u8]) -> hsmux::Result<Vec<u8>> {
///     let context = EncryptionContext::try_from([("purpose", "archive"), ("tenant", "7")])?;
///     let sealed = envelope.seal(page, &context)?;
///     assert_eq!(envelope.open(&sealed, &context)?.as_bytes(), page);
///     Ok(sealed)
/// }
///
/// /// The same for what does not fit into memory.
/// fn back_up(
///     envelope: &Envelope<impl DataKeyProvider>,
///     mut from: impl Read,
///     to: impl Write,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let mut sealing = envelope.writer(to, &EncryptionContext::empty())?;
///     io::copy(&mut from, &mut sealing)?;
///     sealing.finish()?; // Without it the message does not open.
///     Ok(())
/// }
/// ```
pub struct Envelope<P> {
    provider: P,
    settings: EnvelopeSettings,
    /// Data keys that seal, by context.
    sealing: Keyring,
    /// Data keys that open, by wrapped key and context.
    opening: Keyring,
}

/// What a new message begins with, and its key.
struct Begun {
    held: Arc<Held>,
    fixed: Fixed,
    commitment: Commitment,
    key: MessageKey,
}

impl<P: DataKeyProvider> Envelope<P> {
    /// An envelope cipher with the settings' defaults.
    pub fn new(provider: P) -> Self {
        Self::with(provider, EnvelopeSettings::default())
    }

    /// An envelope cipher.
    pub fn with(provider: P, settings: EnvelopeSettings) -> Self {
        let (sealing, opening) = (Keyring::new(settings.sealing()), Keyring::new(settings.opening()));
        Self { provider, settings, sealing, opening }
    }

    /// Seals a message.
    ///
    /// # Errors
    /// What the provider answers; `InvalidInput` if the message has more than 2^32 chunks.
    ///
    /// # Blocking
    /// See [`Envelope`].
    pub fn seal(&self, plaintext: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.seal_into(plaintext, context, &mut out)?;
        Ok(out)
    }

    /// As [`Envelope::seal`], behind what is in `out`, which grows at most once. Memory that is used again spares the system
    /// the making of new pages, which for large messages takes a good part of the time of the encryption.
    ///
    /// # Errors
    /// As [`Envelope::seal`]; `out` is then as it was.
    ///
    /// # Blocking
    /// See [`Envelope`].
    pub fn seal_into(&self, plaintext: &[u8], context: &EncryptionContext, out: &mut Vec<u8>) -> Result<()> {
        let chunk_len = self.settings.chunk().bytes();
        let chunks = chunks::count(plaintext.len(), chunk_len)?;
        let begun = self.begin(plaintext.len() as u64, context)?;
        let before = out.len();
        out.reserve(header::len_with(&begun.held.wrapped) + plaintext.len() + chunks * TAG_LEN);
        let sealed = begun.seal_behind(plaintext, chunk_len, out);
        if sealed.is_err() {
            // A chunk may lie there that is not sealed.
            out[before..].zeroize();
            out.truncate(before);
        }
        sealed
    }

    /// Makes the message of the plaintext that is in `buffer`, in the same memory. This spares reading a second buffer, which is
    /// most of what [`Envelope::seal_into`] takes longer than AES-GCM alone.
    ///
    /// A message is longer than its plaintext: by 73 bytes, the wrapped data key, and 16 bytes for each chunk. If `buffer` has
    /// no room for that, it gets other memory, and the old is wiped.
    ///
    /// # Errors
    /// As [`Envelope::seal`]; `buffer` is then as it was, but empty after `Internal`.
    ///
    /// # Blocking
    /// See [`Envelope`].
    pub fn seal_in_place(&self, buffer: &mut Vec<u8>, context: &EncryptionContext) -> Result<()> {
        let (text_len, chunk_len) = (buffer.len(), self.settings.chunk().bytes());
        let chunks = chunks::count(text_len, chunk_len)?;
        let begun = self.begin(text_len as u64, context)?;
        let mut header = Vec::new();
        begun.write_header(&mut header)?;
        let message_len = header.len() + text_len + chunks * TAG_LEN;
        if buffer.capacity() < message_len {
            let mut larger = Vec::with_capacity(message_len);
            larger.extend_from_slice(buffer);
            buffer.zeroize();
            *buffer = larger;
        }
        buffer.resize(message_len, 0);
        // Each chunk moves towards the end, by the header and the tags before it: the last one first, onto nothing that is
        // still needed. In the end every byte is written over.
        let sealed = begun.key.seal_backwards(chunks, buffer, |number, buffer| {
            let from = number * chunk_len;
            let (to, len) = (header.len() + from + number * TAG_LEN, (text_len - from).min(chunk_len));
            buffer.copy_within(from..from + len, to);
            to..to + len
        });
        match &sealed {
            Ok(()) => buffer[..header.len()].copy_from_slice(&header),
            Err(_) => buffer.zeroize(),
        }
        sealed
    }

    /// Opens a message: all of it, or nothing.
    ///
    /// # Errors
    /// `InvalidInput` (`NotDone`) if the header is malformed: nothing was asked of the provider then. `DecryptFailed` if
    /// anything else is wrong, whatever it is: the wrapped key, the context, a chunk, their order, the end. Else what the
    /// provider answers.
    ///
    /// # Blocking
    /// See [`Envelope`].
    pub fn open(&self, message: &[u8], context: &EncryptionContext) -> Result<Plaintext> {
        let mut out = Payload::default();
        self.open_into(message, context, &mut out)?;
        Ok(Plaintext::of(std::mem::take(&mut *out)))
    }

    /// As [`Envelope::open`], behind what is in `out`, which grows at most once. The plaintext is the caller's to wipe; one that
    /// need not be wiped, in memory that is used again, is opened in half the time (1 MiB: 183 us for 393).
    ///
    /// # Errors
    /// As [`Envelope::open`]; `out` is then as it was, and what had been opened is wiped.
    ///
    /// # Blocking
    /// See [`Envelope`].
    pub fn open_into(&self, message: &[u8], context: &EncryptionContext, out: &mut Vec<u8>) -> Result<()> {
        let header = EnvelopeHeader::parse(message)?;
        let chunks = &message[header.as_bytes().len()..];
        if chunks.len() < TAG_LEN {
            return Err(Error::decrypt_failed());
        }
        let mut key = self.message_key(&header, context)?;
        let before = out.len();
        // Now, and never between two chunks: memory that is left would keep plaintext.
        out.reserve(chunks.len());
        let mut left = chunks.chunks(header.chunk_size().bytes() + TAG_LEN).peekable();
        while let Some(sealed) = left.next() {
            let from = out.len();
            out.extend_from_slice(sealed);
            match key.open(&mut out[from..], left.peek().is_none()) {
                Ok(len) => out.truncate(from + len),
                Err(error) => {
                    out[before..].zeroize();
                    out.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Seals what is written to it, chunk by chunk, and writes the message to `out`.
    ///
    /// # Errors
    /// What the provider answers. Nothing is written to `out` yet.
    ///
    /// # Blocking
    /// See [`Envelope`].
    pub fn writer<W: Write>(&self, out: W, context: &EncryptionContext) -> Result<EnvelopeWriter<W>> {
        let begun = self.begin(0, context)?;
        EnvelopeWriter::new(out, begun, self.settings.chunk())
    }

    /// Opens the message that `input` begins with, chunk by chunk, while it is read. The header is read at once.
    ///
    /// # Errors
    /// As [`Envelope::open`], inside an [`io::Error`](std::io::Error) of the kind `InvalidData`; and what `input` answers.
    ///
    /// # Blocking
    /// While `input` does; and see [`Envelope`].
    pub fn reader<R: Read>(
        &self,
        mut input: R,
        context: &EncryptionContext,
    ) -> std::io::Result<EnvelopeReader<R>> {
        let header = reader::read_header(&mut input)?;
        let header = EnvelopeHeader::parse(&header).map_err(writer::as_io)?;
        let key = self.message_key(&header, context).map_err(writer::as_io)?;
        Ok(EnvelopeReader::new(input, key, header.chunk_size()))
    }

    /// Forgets every data key that is kept, and wipes it, or has it wiped by the message that is being sealed or opened
    /// under it.
    pub fn forget(&self) {
        self.sealing.forget();
        self.opening.forget();
    }

    /// Forgets the data keys that have become too old. This happens by itself whenever a message is sealed or opened; a
    /// cipher that may idle for long has no thread of its own that would do it.
    pub fn forget_old(&self) {
        let now = now();
        self.sealing.expire(now);
        self.opening.expire(now);
    }

    /// How many data keys are kept, those for sealing and those for opening.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.sealing.len() + self.opening.len()
    }

    /// The provider.
    #[must_use]
    pub const fn provider(&self) -> &P {
        &self.provider
    }

    fn begin(&self, len: u64, context: &EncryptionContext) -> Result<Begun> {
        let epoch = self.provider.epoch();
        let held = self.sealing.get(id_of(&[context.as_encoded()]), epoch, len, || {
            let made = self.provider.generate(context)?;
            if made.wrapped.is_empty() || made.wrapped.len() > header::WRAPPED_MAX {
                let text = "a provider's wrapped data key is empty or longer than 8192 bytes";
                return Err(Error::refused(ErrorKind::InvalidInput, text));
            }
            Ok(Held::new(made.key, made.wrapped))
        })?;
        let mut message_id = [0; MESSAGE_ID_LEN];
        getrandom::fill(&mut message_id).map_err(no_random)?;
        let fixed = header::fixed(self.settings.chunk(), &message_id);
        let (key, commitment) = MessageKey::derive(&held.key, &fixed, context)?;
        Ok(Begun { held, fixed, commitment, key })
    }

    fn message_key(&self, header: &EnvelopeHeader<'_>, context: &EncryptionContext) -> Result<MessageKey> {
        let wrapped = header.wrapped_key();
        let epoch = self.provider.epoch();
        let held = self.opening.get(id_of(&[wrapped, context.as_encoded()]), epoch, 0, || {
            self.provider.unwrap(wrapped, context).map(|key| Held::new(key, Vec::new()))
        })?;
        MessageKey::of(header, &held.key, context)
    }
}

impl Begun {
    /// Writes header and chunks. Each chunk is copied to its place and sealed there while it is in the cache.
    fn seal_behind(mut self, plaintext: &[u8], chunk_len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.write_header(out)?;
        let mut left = plaintext;
        loop {
            let (chunk, rest) = left.split_at(left.len().min(chunk_len));
            let from = out.len();
            out.extend_from_slice(chunk);
            let tag = self.key.seal(&mut out[from..], rest.is_empty())?;
            out.extend_from_slice(tag.as_ref());
            if rest.is_empty() {
                return Ok(());
            }
            left = rest;
        }
    }

    fn write_header(&self, out: &mut Vec<u8>) -> Result<()> {
        header::write(&self.fixed, &self.held.wrapped, &self.commitment, out)
    }
}

/// Names what a key is kept for. The parts say how long they are.
fn id_of(parts: &[&[u8]]) -> Id {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    id
}

/// Shows how many data keys are kept.
impl<P> fmt::Debug for Envelope<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.sealing.len() + self.opening.len();
        f.debug_struct("Envelope").field("kept", &kept).finish_non_exhaustive()
    }
}
