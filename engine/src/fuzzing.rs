//! Doors for fuzz targets into what modules answer. They are there under `--cfg fuzzing` only, which `cargo fuzz` sets.

use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::keys::listing::Listing;
use crate::pkcs11::attributes::Answer;
use crate::pkcs11::{Fault, Function, SessionFate};

/// What a module answers for one attribute of an object: a length, then another, and bytes.
pub type AttributeAnswer<'a> = (u64, u64, &'a [u8]);

/// Lists the keys among objects whose attributes are answered so; says what came of them.
#[must_use]
pub fn list_keys(objects: &[Vec<AttributeAnswer<'_>>]) -> String {
    let answer = |&(first_len, second_len, bytes): &_| Answer { first_len, second_len, bytes };
    let objects: Vec<Vec<_>> = objects.iter().map(|object| object.iter().map(answer).collect()).collect();
    format!("{:?}", Listing::of_answers(&objects))
}

/// What the engine makes of a code that a function answered.
#[derive(Debug)]
pub struct Verdict {
    /// The error that the caller gets.
    pub error: Error,
    /// Whether the function only prepares an operation.
    pub is_init: bool,
    /// Whether the function decides on a ciphertext or a wrapped key.
    pub is_decryption: bool,
    /// Whether the session goes on.
    pub keeps_session: bool,
    /// Whether the token is lost, or the login to it.
    pub loses_token: bool,
}

/// Reads a code as the answer of a function, by its number.
#[must_use]
pub fn read_code(function: usize, code: u64) -> Verdict {
    let function = Function::ALL[function % Function::ALL.len()];
    let fault = Fault::new(function, code);
    let session = fault.class().session;
    Verdict {
        error: fault.into(),
        is_init: function.is_init(),
        is_decryption: ["C_Decrypt", "C_DecryptUpdate", "C_DecryptMessage", "C_UnwrapKey"]
            .contains(&function.name()),
        keeps_session: session == SessionFate::Keep,
        loses_token: matches!(session, SessionFate::TokenDown | SessionFate::LoggedOut),
    }
}

impl Verdict {
    /// Kind, retry and outcome.
    #[must_use]
    pub const fn says(&self) -> (ErrorKind, Retry, Outcome) {
        (self.error.kind(), self.error.retry(), self.error.outcome())
    }
}
