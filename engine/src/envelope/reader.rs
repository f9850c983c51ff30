//! Opens a message while it is read.

use std::fmt;
use std::io::{self, BufRead, Read};

use super::chunks::{MessageKey, TAG_LEN};
use super::header::{ChunkSize, EnvelopeHeader, FIXED_LEN};
use super::writer::as_io;
use crate::error::Error;
use crate::message::fields::malformed;
use crate::payload::Payload;

/// Opens a message while it is read: yields plaintext of chunks that are authentic, in their order.
///
/// **Only the end of the stream says that the message is whole.** One that was cut yields what was before the cut, and then
/// an error; whoever acts on plaintext before the end acts on a part. Everything that follows the message in the same stream
/// is taken for a part of it.
///
/// After `DecryptFailed` every further call fails. An error of what is read does no harm: reading may go on after it. It
/// holds one chunk in memory, which is wiped when the reader is dropped.
///
/// # Blocking
/// While what is read does.
pub struct EnvelopeReader<R> {
    input: R,
    key: MessageKey,
    /// Room for a chunk, its tag, and one byte by which is known that another chunk follows.
    buffer: Payload,
    /// How much of a chunk that is not open yet has been read.
    filled: usize,
    /// Plaintext that is open and not yet yielded.
    open: std::ops::Range<usize>,
    /// The first byte of the next chunk.
    next: Option<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// The last chunk is open.
    Whole,
    Failed,
}

impl<R: Read> EnvelopeReader<R> {
    pub(super) fn new(input: R, key: MessageKey, chunk: ChunkSize) -> Self {
        let buffer = Payload::zeroed(chunk.bytes() + TAG_LEN + 1);
        Self { input, key, buffer, filled: 0, open: 0..0, next: None, state: State::Reading }
    }

    /// All that is in memory, open or not.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// What is read. It stands behind the message once its end was reached.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Reads and opens the next chunk. If reading fails, it goes on from there the next time.
    fn next_chunk(&mut self) -> io::Result<()> {
        if let Some(byte) = self.next.take() {
            (self.buffer[0], self.filled) = (byte, 1);
        }
        while self.filled < self.buffer.len() {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => break,
                Ok(len) => self.filled += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let is_last = self.filled < self.buffer.len();
        let sealed_len = self.filled.min(self.buffer.len() - 1);
        self.next = (!is_last).then(|| self.buffer[sealed_len]);
        self.filled = 0;
        match self.key.open(&mut self.buffer[..sealed_len], is_last) {
            Ok(len) => {
                self.open = 0..len;
                self.state = if is_last { State::Whole } else { State::Reading };
                Ok(())
            }
            Err(error) => {
                self.state = State::Failed;
                self.buffer.wipe();
                Err(as_io(error))
            }
        }
    }
}

impl<R: Read> BufRead for EnvelopeReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.state == State::Failed {
            return Err(as_io(Error::decrypt_failed()));
        }
        if self.open.is_empty() && self.state == State::Reading {
            self.next_chunk()?;
        }
        Ok(&self.buffer[self.open.clone()])
    }

    fn consume(&mut self, len: usize) {
        self.open.start = self.open.end.min(self.open.start + len);
    }
}

impl<R: Read> Read for EnvelopeReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let len = self.fill_buf()?.read(bytes)?;
        self.consume(len);
        Ok(len)
    }
}

/// Reads a header and nothing more. A front that is none is refused before the rest is read.
pub(super) fn read_header(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => as_io(malformed("it is cut off")),
        _ => error,
    };
    let mut front = [0; FIXED_LEN + 2];
    input.read_exact(&mut front).map_err(cut)?;
    let mut header = vec![0; EnvelopeHeader::len_of(&front).map_err(as_io)?];
    let (begin, rest) = header.split_at_mut(front.len());
    begin.copy_from_slice(&front);
    input.read_exact(rest).map_err(cut)?;
    Ok(header)
}

impl<R> fmt::Debug for EnvelopeReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeReader({} bytes open)", self.open.len())
    }
}
