//! Messages that come in pieces, or are too large to hold: hashed on the way, signed at the end.

use std::io;

use ring::digest::Context;

use super::Key;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{Ask, Sign, SignAlgorithm, Verify, digest_algorithm};
use crate::request::Request;

/// A message that is hashed piece by piece, to be signed or verified: made by [`Key::sign_stream`].
///
/// It takes no session and no room until the end, and no more memory than a hash.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
/// let key = engine.key("firmware")?;
/// let mut stream = key.sign_stream(hsmux::RsaPss::SHA256)?;
/// std::io::copy(&mut std::fs::File::open("image.bin")?, &mut stream)?;
/// let signature = stream.sign().wait()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing until its end is signed or verified"]
pub struct SignStream<'a> {
    key: &'a Key,
    how: SignAlgorithm,
    context: Context,
}

impl Key {
    /// Begins a message that comes in pieces, which the host hashes.
    ///
    /// # Errors
    /// `InvalidInput` for algorithms that the token must see the whole message for: HMAC, CMAC, Ed25519, the retail
    /// MAC and raw mechanisms.
    pub fn sign_stream(&self, how: impl Into<SignAlgorithm>) -> Result<SignStream<'_>> {
        let how = how.into();
        let Some(hash) = Ask::sign(how.clone()).hash() else {
            let text = "the token must see the whole message for this algorithm";
            return Err(Error::refused(ErrorKind::InvalidInput, text));
        };
        Ok(SignStream { key: self, how, context: Context::new(digest_algorithm(hash)) })
    }
}

impl<'a> SignStream<'a> {
    /// Adds a piece of the message.
    ///
    /// # Blocking
    /// As long as hashing takes, about 1 ms a megabyte.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// Ends the message: the request signs it.
    pub fn sign(self) -> Request<'a, Sign> {
        self.key.sign_digest(self.how, self.context.finish().as_ref().to_vec())
    }

    /// Ends the message: the request verifies its signature.
    pub fn verify(self, signature: &[u8]) -> Request<'a, Verify> {
        self.key.verify_digest(self.how, self.context.finish().as_ref().to_vec(), signature)
    }
}

impl io::Write for SignStream<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for SignStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignStream").field("how", &self.how).finish_non_exhaustive()
    }
}
