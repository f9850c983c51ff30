//! Checkpoints: what a log held at a size, as a signed note (C2SP, `tlog-checkpoint` and `signed-note`).

use data_encoding::BASE64;

use super::key::AuditKey;
use super::merkle::{Hash, sha256};
use crate::error::{Error, ErrorKind, Result};

/// What a log held when it had so many records: its Merkle root.
///
/// As text it is a signed note. Keep one, away from the log, and [`AuditLog::verify`](crate::AuditLog::verify) tells whether
/// the log still holds all that it held then.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditCheckpoint {
    pub(super) origin: String,
    pub(super) size: u64,
    pub(super) root: Hash,
    /// The note: text and signatures.
    pub(super) note: String,
}

/// Who signs checkpoints: a key on a token. It is asked on a thread of its own, which no reply waits for.
pub(crate) trait Signer: Send + 'static {
    /// The public key.
    fn key(&self) -> AuditKey;

    /// Signs these bytes: 64 bytes for Ed25519, for ECDSA the two numbers in DER, of the bytes' SHA-256.
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>>;
}

/// Longest note that is read, in bytes: the specification asks for room for 16 signatures, of up to 5 kB each.
const NOTE_LEN_MAX: usize = 100_000;

/// Begins a line with a signature: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";

impl AuditCheckpoint {
    /// Reads a checkpoint. That says nothing about its signatures.
    ///
    /// # Errors
    /// `InvalidInput`, if it is no checkpoint in the form of a signed note.
    pub fn parse(note: &[u8]) -> Result<Self> {
        let malformed = || Error::refused(ErrorKind::InvalidInput, "this is no checkpoint");
        let note = std::str::from_utf8(note).map_err(|_| malformed())?;
        parsed(note).ok_or_else(malformed)
    }

    /// The log that it is of.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many records the log had.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The Merkle root (RFC 6962, 2.1) over all of them.
    #[must_use]
    pub const fn root(&self) -> [u8; 32] {
        self.root
    }

    /// The signed note, whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.note
    }

    /// Whether the key has signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &AuditKey) -> bool {
        let Some((text, signatures)) = split(&self.note) else { return false };
        let name = key.name().unwrap_or(&self.origin);
        let id = key.id(name);
        // "If a signature from a known key fails to verify, clients SHOULD reject the whole note."
        let mut own = signatures
            .lines()
            .filter_map(signature)
            .filter(|(by, of, _)| *by == name && *of == id)
            .peekable();
        own.peek().is_some() && own.all(|(_, _, signature)| key.has_signed(text.as_bytes(), &signature))
    }

    /// Signs what a log holds.
    pub(super) fn sign(origin: &str, size: u64, root: Hash, signer: &dyn Signer) -> Result<Self> {
        let text = text(origin, size, &root);
        let signature = signer.sign(text.as_bytes())?;
        let key = signer.key();
        let name = key.name().unwrap_or(origin);
        let signed = BASE64.encode(&[&key.id(name)[..], &signature].concat());
        let note = format!("{text}\n{SIGNATURE}{name} {signed}\n");
        let checkpoint = Self { origin: origin.to_owned(), size, root, note };
        // Tokens err, and what would be found by the verifier years later is found now.
        if checkpoint.is_signed_by(&key) {
            Ok(checkpoint)
        } else {
            Err(Error::operator(
                ErrorKind::Audit,
                "the signature of a checkpoint does not verify with its public key",
            ))
        }
    }

    /// The SHA-256 of the note.
    pub(super) fn digest(&self) -> Hash {
        sha256(self.note.as_bytes())
    }
}

impl std::fmt::Debug for AuditCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("AuditCheckpoint");
        shown.field("origin", &self.origin).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Whether a text may name a log or a key: "non-empty and MUST NOT contain any Unicode spaces or plus (U+002B) characters".
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

fn text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{}\n", BASE64.encode(root))
}

fn parsed(note: &str) -> Option<AuditCheckpoint> {
    let (body, signatures) = split(note)?;
    if !signatures.lines().all(|line| signature(line).is_some()) {
        return None;
    }
    let mut lines = body.lines();
    let (origin, size, root) = (lines.next()?, lines.next()?.parse().ok()?, lines.next()?);
    let root = Hash::try_from(BASE64.decode(root.as_bytes()).ok()?).ok()?;
    // Written anew it must be the same: no leading zeros, no plus sign, and none of the extension lines, which "are not
    // auditable by log monitors".
    let is_same = is_name(origin) && text(origin, size, &root) == body;
    is_same.then(|| AuditCheckpoint { origin: origin.to_owned(), size, root, note: note.to_owned() })
}

/// The signed text of a note with its last line feed, and its lines of signatures.
fn split(note: &str) -> Option<(&str, &str)> {
    // "Signed notes [..] MUST NOT contain any ASCII control characters (those below U+0020) other than newline."
    let is_plain = note.len() <= NOTE_LEN_MAX && !note.chars().any(|c| c < ' ' && c != '\n');
    // "the text is separated from the signatures by the last empty line in the note."
    let at = note.rfind("\n\n")?;
    let (text, signatures) = (note.get(..=at)?, note.get(at + 2..)?);
    (is_plain && !signatures.is_empty() && signatures.ends_with('\n')).then_some((text, signatures))
}

/// The name, the key's id and the signature of a line.
fn signature(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, signed) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
    let signed = BASE64.decode(signed.as_bytes()).ok()?;
    let (id, signature) = signed.split_first_chunk::<4>()?;
    is_name(name).then(|| (name, *id, signature.to_vec()))
}

#[cfg(test)]
pub(super) mod tests {
    use ed25519_dalek::Signer as _;

    use super::*;

    /// Signs with a key of this seed.
    pub(in crate::audit) struct Ed(pub(in crate::audit) u8);

    impl Signer for Ed {
        fn key(&self) -> AuditKey {
            AuditKey::ed25519(None, self.secret().verifying_key().as_bytes())
        }

        fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
            Ok(self.secret().sign(text).to_bytes().to_vec())
        }
    }

    impl Ed {
        fn secret(&self) -> ed25519_dalek::SigningKey {
            ed25519_dalek::SigningKey::from_bytes(&[self.0; 32])
        }
    }

    fn signed() -> AuditCheckpoint {
        AuditCheckpoint::sign("example.com/log", 17, sha256(b"root"), &Ed(1)).unwrap()
    }

    #[test]
    fn a_checkpoint_is_a_note_of_three_lines_with_a_signature() {
        let checkpoint = signed();
        let lines: Vec<_> = checkpoint.as_str().split('\n').collect();
        assert_eq!(lines[..2], ["example.com/log", "17"]);
        assert_eq!((lines[2].len(), lines[3], lines[5], lines.len()), (44, "", "", 6));
        assert!(lines[4].starts_with("\u{2014} example.com/log "));
        let back = AuditCheckpoint::parse(checkpoint.as_str().as_bytes()).unwrap();
        assert_eq!(back, checkpoint);
        assert_eq!((back.origin(), back.size(), back.root()), ("example.com/log", 17, sha256(b"root")));
        assert!(back.is_signed_by(&Ed(1).key()));
        assert!(!back.is_signed_by(&Ed(2).key()));
    }

    #[test]
    fn a_checkpoint_with_any_bit_flipped_is_malformed_or_not_signed() {
        let note = signed().note.into_bytes();
        for at in 0..note.len() * 8 {
            let mut other = note.clone();
            other[at / 8] ^= 1 << (at % 8);
            let is_signed = AuditCheckpoint::parse(&other).is_ok_and(|note| note.is_signed_by(&Ed(1).key()));
            assert!(!is_signed, "bit {at}");
        }
    }

    #[test]
    fn signatures_of_others_stand_beside_it_and_a_wrong_one_of_its_own_spoils_it() {
        let checkpoint = signed();
        let line = |of: &AuditCheckpoint| of.note.lines().last().unwrap().to_owned();
        let others = AuditCheckpoint::sign("example.com/log", 17, sha256(b"root"), &Ed(2)).unwrap();
        let both = format!("{}{}\n", checkpoint.note, line(&others));
        let both = AuditCheckpoint::parse(both.as_bytes()).unwrap();
        assert!(both.is_signed_by(&Ed(1).key()) && both.is_signed_by(&Ed(2).key()));
        let of_18 = AuditCheckpoint::sign("example.com/log", 18, sha256(b"root"), &Ed(1)).unwrap();
        let spoilt = format!("{}{}\n", checkpoint.note, line(&of_18));
        assert!(!AuditCheckpoint::parse(spoilt.as_bytes()).unwrap().is_signed_by(&Ed(1).key()));
    }

    #[test]
    fn what_is_not_written_as_specified_is_refused() {
        let note = signed().note;
        for (from, to) in [
            ("17\n", "017\n"),
            ("17\n", "+17\n"),
            ("17\n", "17\nextension\n"),
            ("example.com/log\n17", "example.com log\n17"),
            ("example.com/log\n17", "\n17"),
            ("\n\n", "\n"),
            ("\u{2014} ", "- "),
            ("17\n", "17\r\n"),
        ] {
            let other = note.replacen(from, to, 1);
            assert!(other != note && AuditCheckpoint::parse(other.as_bytes()).is_err(), "{from:?} {to:?}");
        }
        assert!(AuditCheckpoint::parse(note.trim_end().as_bytes()).is_err());
        assert!(AuditCheckpoint::parse(b"").is_err() && AuditCheckpoint::parse(b"\n\n\xff").is_err());
    }

    #[test]
    fn a_signature_that_does_not_verify_makes_no_checkpoint() {
        struct Broken;
        impl Signer for Broken {
            fn key(&self) -> AuditKey {
                Ed(1).key()
            }
            fn sign(&self, _text: &[u8]) -> Result<Vec<u8>> {
                Ok(vec![0; 64])
            }
        }
        let error = AuditCheckpoint::sign("example.com/log", 17, sha256(b"root"), &Broken).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Audit);
    }
}
