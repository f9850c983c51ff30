//! Messages that are written and read piece by piece.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, BufRead};

use super::*;

/// Yields pieces of the lengths told, in turn, and between them an interruption or, if asked, an error.
struct Pieces<'a> {
    left: &'a [u8],
    lengths: VecDeque<usize>,
    between: &'a Cell<Option<io::ErrorKind>>,
    is_between: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.is_between = !self.is_between;
        if let (Some(kind), true) = (self.between.get(), self.is_between) {
            return Err(kind.into());
        }
        self.lengths.rotate_left(1);
        let len = self.lengths[0].min(bytes.len()).min(self.left.len());
        let (piece, left) = self.left.split_at(len);
        bytes[..len].copy_from_slice(piece);
        self.left = left;
        Ok(len)
    }
}

/// Takes so many bytes, then fails.
struct Full {
    taken: Vec<u8>,
    room: usize,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.room - self.taken.len());
        self.taken.extend_from_slice(&bytes[..len]);
        if len == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(len) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn written(envelope: &Envelope<Vault>, text: &[u8], pieces: &[usize]) -> Vec<u8> {
    let mut writer = envelope.writer(Vec::new(), &context()).unwrap();
    let (mut left, mut lengths) = (text, pieces.iter().cycle());
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.len().min(*lengths.next().unwrap()));
        writer.write_all(piece).unwrap();
        left = rest;
    }
    writer.finish().unwrap()
}

fn read(envelope: &Envelope<Vault>, message: &[u8], pieces: &[usize]) -> io::Result<Vec<u8>> {
    let lengths = pieces.iter().copied().collect();
    let input = Pieces { left: message, lengths, between: &Cell::new(None), is_between: false };
    let mut text = Vec::new();
    envelope.reader(input, &context())?.read_to_end(&mut text)?;
    Ok(text)
}

#[test]
fn streams_of_every_length_around_chunks_are_messages_like_others() {
    let envelope = envelope();
    for len in lengths() {
        let text = plaintext(len);
        let (streamed, sealed) =
            (written(&envelope, &text, &[700]), envelope.seal(&text, &context()).unwrap());
        assert_eq!(streamed.len(), sealed.len());
        assert_eq!(envelope.open(&streamed, &context()).unwrap().as_bytes(), text, "{len}");
        assert_eq!(read(&envelope, &sealed, &[700]).unwrap(), text, "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn pieces_of_any_length_carry_the_same_text(
        len in 0..4_000_usize,
        put in proptest::collection::vec(1..2_500_usize, 1..8),
        taken in proptest::collection::vec(1..2_500_usize, 1..8),
    ) {
        let envelope = envelope();
        let message = written(&envelope, &plaintext(len), &put);
        let opened = envelope.open(&message, &context()).unwrap();
        prop_assert_eq!(opened.as_bytes(), plaintext(len));
        prop_assert_eq!(read(&envelope, &message, &taken).unwrap(), plaintext(len));
    }
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing_that_opens() {
    let envelope = envelope();
    for len in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let mut out = Vec::new();
        let mut writer = envelope.writer(&mut out, &context()).unwrap();
        writer.write_all(&plaintext(len)).unwrap();
        writer.flush().unwrap();
        drop(writer);
        assert!(envelope.open(&out, &context()).is_err(), "{len}");
        assert!(read(&envelope, &out, &[700]).is_err(), "{len}");
    }
}

#[test]
fn a_chunk_is_written_when_more_than_it_has_come() {
    let envelope = envelope();
    let mut writer = envelope.writer(Vec::new(), &context()).unwrap();
    writer.write_all(&plaintext(CHUNK)).unwrap();
    assert_eq!(writer.get_ref().len(), 0, "it may be the last");
    writer.write_all(&[0]).unwrap();
    assert!(writer.get_ref().len() > CHUNK + TAG_LEN);
}

#[test]
fn after_a_write_that_failed_nothing_more_is_written() {
    let envelope = envelope();
    for room in [0, 10, 300, 1_500] {
        let mut full = Full { taken: Vec::new(), room };
        let mut writer = envelope.writer(&mut full, &context()).unwrap();
        let error = writer.write_all(&plaintext(4 * CHUNK)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(writer.write(&[]).is_err() && writer.write(&[0; 9]).is_err() && writer.finish().is_err());
        assert_eq!(full.taken.len(), room, "what was taken, and nothing else");
        full.room = usize::MAX;
        assert!(envelope.open(&full.taken, &context()).is_err());
    }
}

#[test]
fn a_reader_goes_on_after_an_interruption_and_after_an_error_of_its_input() {
    let envelope = envelope();
    let message = envelope.seal(&plaintext(3_000), &context()).unwrap();
    for kind in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
        // The header is read whole, or not at all.
        let between = Cell::new(None);
        let input = Pieces { left: &message, lengths: [500].into(), between: &between, is_between: false };
        let mut reader = envelope.reader(input, &context()).unwrap();
        between.set(Some(kind));
        let (mut text, mut failed, mut piece) = (Vec::new(), 0, [0; 100]);
        loop {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => text.extend_from_slice(&piece[..len]),
                Err(error) => {
                    assert_eq!(error.kind(), kind);
                    failed += 1;
                }
            }
        }
        assert_eq!(text, plaintext(3_000));
        assert_eq!(failed > 0, kind == io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_reader_that_has_failed_goes_on_failing_and_holds_no_plaintext() {
    let envelope = envelope();
    let mut message = envelope.seal(&plaintext(3 * CHUNK), &context()).unwrap();
    let second_chunk = message.len() - 2 * (CHUNK + TAG_LEN);
    message[second_chunk] ^= 1;
    let mut reader = envelope.reader(&message[..], &context()).unwrap();
    let mut text = vec![0; CHUNK];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(text, plaintext(CHUNK));
    for _ in 0..3 {
        assert_eq!(reader.read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(reader.fill_buf().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    assert!(reader.buffered().is_empty());
}

#[test]
fn a_reader_yields_no_byte_of_a_chunk_that_is_not_authentic() {
    let envelope = envelope();
    let message = envelope.seal(&plaintext(CHUNK), &context()).unwrap();
    for bit in 0..8 {
        let mut altered = message.clone();
        *altered.last_mut().unwrap() ^= 1 << bit;
        let mut piece = [0xEE; 64];
        assert!(envelope.reader(&altered[..], &context()).unwrap().read(&mut piece).is_err());
        assert_eq!(piece, [0xEE; 64]);
    }
}

#[test]
fn a_stream_that_is_no_envelope_is_refused_by_its_first_bytes() {
    let envelope = envelope();
    let mut input = &[0x41; 5_000][..];
    let error = envelope.reader(&mut input, &context()).unwrap_err();
    assert_eq!((error.kind(), input.len()), (io::ErrorKind::InvalidData, 5_000 - 41));
}
