//! hsmux: many callers, few HSM sessions.
//!
//! [`Engine`] logs in to tokens and shares their sessions; [`Key::sign`] and its like make a [`Request`] that is
//! waited for, awaited or submitted.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

#[cfg(not(hsmux_loom))]
mod builder;
#[cfg(not(hsmux_loom))]
mod clock;
#[cfg(not(hsmux_loom))]
mod describe;
#[cfg(not(hsmux_loom))]
mod engine;
#[cfg(not(hsmux_loom))]
mod error;
#[cfg(not(hsmux_loom))]
mod key;
#[cfg(not(hsmux_loom))]
mod keys;
#[cfg(not(hsmux_loom))]
mod metrics;
#[cfg(not(hsmux_loom))]
mod offload;
#[cfg(not(hsmux_loom))]
mod operation;
#[cfg(not(hsmux_loom))]
mod pending;
#[cfg(not(hsmux_loom))]
mod pkcs11;
#[cfg(not(hsmux_loom))]
mod request;
mod schedule;
mod sync;
#[cfg(not(hsmux_loom))]
mod token;

#[cfg(not(hsmux_loom))]
pub use builder::{Builder, Missing};
#[cfg(not(hsmux_loom))]
pub use describe::{MechanismDescription, TokenDescription};
#[cfg(not(hsmux_loom))]
pub use engine::Engine;
#[cfg(not(hsmux_loom))]
pub use error::{Error, ErrorKind, Outcome, Result, Retry};
#[cfg(not(hsmux_loom))]
pub use key::Key;
#[cfg(not(hsmux_loom))]
pub use keys::generate::KeySpec;
#[cfg(not(hsmux_loom))]
pub use metrics::{OperationSnapshot, Snapshot, Stage, TokenSnapshot};
#[cfg(not(hsmux_loom))]
pub use operation::{
    AesEcb, AesGcm, Cipher, Ciphertext, Decrypt, Ecdsa, Encrypt, Hmac, Operation, OperationKind, Plaintext,
    Random, RandomBytes, RsaPkcs1, RsaPss, Sign, SignAlgorithm, Signature, Verdict, Verify,
};
#[cfg(not(hsmux_loom))]
pub use pending::Pending;
#[cfg(not(hsmux_loom))]
pub use request::{Many, Pipeline, Refused, Request, RequestFuture, pipeline};
pub use schedule::fairness::Priority;
#[cfg(not(hsmux_loom))]
pub use token::facts::Curve;
#[cfg(not(hsmux_loom))]
pub use token::task::Hash;
