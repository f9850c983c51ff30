//! The audit log: a tamper-evident record of every use of keys and every change to them. `docs/audit.md` specifies it.
//!
//! A record is sealed on its line by a chain (`line.rs`), and is a leaf of a Merkle tree (`merkle.rs`) whose root is signed
//! from time to time (`checkpoint.rs`). One thread writes (`writer.rs`), a second has checkpoints signed
//! (`checkpointer.rs`), with a window a third synchronises (`syncer.rs`); when is decided in `pace.rs`, which is pure.
//! `open.rs` checks what a crash has left; `verify.rs` and `prove.rs` are for others, later, without an HSM.

pub(crate) mod checkpoint;
mod checkpointer;
mod disk;
mod files;
mod hex;
pub(crate) mod journal;
mod key;
mod line;
mod log;
mod merkle;
mod open;
mod pace;
mod prove;
pub(crate) mod record;
mod resume;
mod room;
mod settings;
mod syncer;
#[cfg(feature = "baseline")]
pub(crate) mod trial;
mod verify;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use self::checkpoint::AuditCheckpoint;
pub use self::key::AuditKey;
pub use self::log::{AuditLog, AuditTail};
pub use self::prove::{AuditConsistency, AuditInclusion};
pub use self::settings::{Audit, AuditLoss, AuditMode};
pub use self::verify::{AuditFault, AuditReport};
