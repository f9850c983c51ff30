//! What is asked: the algorithms, the checks that need no token, and what the host does before and after.
//!
//! A request goes through here twice. On the way in it is checked against the cached facts of its key and
//! turned into what the token is given (a digest, a DigestInfo, the input itself). On the way out the bytes
//! that the module wrote become the output of the operation. Nothing here knows a thread, a clock or a
//! session: an [`Ask`] is plain data and its methods are functions of their arguments.

mod algorithm;
mod alternatives;
mod ask;
mod asn1;
mod check;
mod encode;
mod host;
mod kind;
mod lengths;
mod name;
mod output;
mod padding;
mod public;

pub(crate) use algorithm::FirstKey;
pub use algorithm::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cipher, Cmac, Ecdsa, Ed25519, Hmac, MacPadding, RawMechanism, RetailMac,
    RsaOaep, RsaPkcs1, RsaPkcs1Encryption, RsaPss, SignAlgorithm, TripleDesCbc, TripleDesEcb,
};
pub(crate) use ask::Ask;
pub(crate) use check::{allows, without_key};
pub(crate) use encode::{Scratch, digest_algorithm, ecdsa_der};
pub use kind::OperationKind;
pub use output::{Ciphertext, Plaintext, RandomBytes, Signature, Verdict};
pub(crate) use output::{ciphertext, plaintext, random, signature, verdict};
pub(crate) use public::spki_der;

/// What a request does, as a type that fixes what it yields.
///
/// The trait is sealed: the operations are [`Sign`], [`Verify`], [`Encrypt`], [`Seal`], [`Decrypt`] and [`Random`].
pub trait Operation: sealed::Sealed + 'static {
    /// What the request yields when it succeeds.
    type Output: Send + 'static;
}

/// Signs a message or makes its MAC.
#[derive(Debug)]
pub enum Sign {}

/// Verifies the signature or the MAC of a message.
#[derive(Debug)]
pub enum Verify {}

/// Encrypts.
#[derive(Debug)]
pub enum Encrypt {}

/// Encrypts into a self-describing [`Blob`](crate::Blob).
#[derive(Debug)]
pub enum Seal {}

/// Decrypts.
#[derive(Debug)]
pub enum Decrypt {}

/// Draws random bytes from the token.
#[derive(Debug)]
pub enum Random {}

/// Enciphers or deciphers the blocks of several requests; what comes out is for who put them together.
pub(crate) enum Joint {}

impl Operation for Sign {
    type Output = Signature;
}

impl Operation for Verify {
    type Output = Verdict;
}

impl Operation for Encrypt {
    type Output = Ciphertext;
}

impl Operation for Seal {
    type Output = crate::message::blob::Blob;
}

impl Operation for Decrypt {
    type Output = Plaintext;
}

impl Operation for Random {
    type Output = RandomBytes;
}

impl Operation for Joint {
    type Output = crate::payload::Payload;
}

mod sealed {
    /// Keeps [`Operation`](super::Operation) closed.
    #[expect(unnameable_types, reason = "out of reach, so that nobody else can implement `Operation`")]
    pub trait Sealed {}

    impl Sealed for super::Sign {}
    impl Sealed for super::Verify {}
    impl Sealed for super::Encrypt {}
    impl Sealed for super::Decrypt {}
    impl Sealed for super::Seal {}
    impl Sealed for super::Random {}
    impl Sealed for super::Joint {}
}

#[cfg(test)]
mod oracle;
