//! Seals a message while it is written.

use std::fmt;
use std::io::{self, Write};

use super::Begun;
use super::chunks::TAG_LEN;
use super::header::ChunkSize;
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Payload;

/// Seals what is written to it, and writes the message to what is behind it, by the chunk.
///
/// [`EnvelopeWriter::finish`] makes the message whole; a writer that is dropped without leaves one that does not open.
/// It holds one chunk of plaintext in memory, which is wiped.
///
/// # Blocking
/// While what is behind it does. It takes no part of what it is given back: what is behind it must take all bytes or fail
/// for good. After such an error nothing more is written, and every call fails.
#[must_use = "a message that is not finished does not open"]
pub struct EnvelopeWriter<W> {
    out: W,
    begun: Begun,
    /// What the header is made of stays until it is written, with the first chunk.
    header: Vec<u8>,
    /// The chunk that is filling. It has room for a tag: it never grows, which would leave a copy of plaintext behind.
    chunk: Payload,
    chunk_len: usize,
    /// A write has failed in its middle.
    is_broken: bool,
}

impl<W: Write> EnvelopeWriter<W> {
    pub(super) fn new(out: W, begun: Begun, chunk: ChunkSize) -> Result<Self> {
        let mut header = Vec::new();
        begun.write_header(&mut header)?;
        let chunk_len = chunk.bytes();
        let chunk = Payload::new(Vec::with_capacity(chunk_len + TAG_LEN));
        Ok(Self { out, begun, header, chunk, chunk_len, is_broken: false })
    }

    /// Writes the last chunk, flushes what is behind the writer, and returns it.
    ///
    /// # Errors
    /// What is behind it answers; then the message does not open. `InvalidInput`, inside an [`io::Error`], if the message
    /// has more than 2^32 chunks.
    pub fn finish(mut self) -> io::Result<W> {
        self.put_chunk(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// What is behind the writer.
    pub const fn get_ref(&self) -> &W {
        &self.out
    }

    /// Seals the chunk that is there and writes it.
    fn put_chunk(&mut self, last: bool) -> io::Result<()> {
        if std::mem::replace(&mut self.is_broken, true) {
            return Err(io::Error::other("a message that could not be written before"));
        }
        let len = self.chunk.len();
        let tag = self.begun.key.seal(&mut self.chunk, last).map_err(as_io)?;
        self.chunk.extend_from_slice(tag.as_ref());
        debug_assert!(self.chunk.capacity() >= len + TAG_LEN, "there is room for a tag");
        self.begun.held.charge(len as u64);
        self.out.write_all(&std::mem::take(&mut self.header))?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        self.is_broken = false;
        Ok(())
    }
}

impl<W: Write> Write for EnvelopeWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until more comes: only then it is known not to be the last.
        if self.chunk.len() == self.chunk_len && !bytes.is_empty() {
            self.put_chunk(false)?;
        }
        if self.is_broken {
            return Err(io::Error::other("a message that could not be written before"));
        }
        let len = bytes.len().min(self.chunk_len - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    /// Flushes what is behind the writer. A chunk that is not full stays: a message has no other chunks than full ones and
    /// the last.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// An error of the engine's for who reads or writes a stream.
pub(super) fn as_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::DecryptFailed | ErrorKind::InvalidInput => io::ErrorKind::InvalidData,
        ErrorKind::DeadlineExceeded => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl<W> fmt::Debug for EnvelopeWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeWriter({} bytes waiting)", self.chunk.len())
    }
}
