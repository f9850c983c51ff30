//! A thin layer on the C interface: one function list per instance, sessions, calls, return codes.
//!
//! The only room that calls C. Its outputs are sized by the caller: an operation is Init and one call, never a
//! query for the length. `cryptoki` supplies the vocabulary (attributes, mechanism types), not the calls.

#![expect(unsafe_code, reason = "calls through the module's function list")]

pub(crate) mod attributes;
mod barrier;
#[cfg(feature = "baseline")]
pub(crate) mod baseline;
mod codes;
mod copy;
mod function;
mod kind;
mod library;
mod map;
mod mechanism;
mod message;
mod parts;
mod session;
mod told;
mod trial;

pub(crate) use codes::{Fault, SessionFate};
pub(crate) use copy::refused as refused_copy;
pub(crate) use function::{CallCounts, Function};
pub use kind::ModuleKind;
pub(crate) use library::{Library, MechanismInfo, Slot, TokenInfo, forked};
pub(crate) use mechanism::Mechanism;
pub(crate) use message::{MESSAGE_IV_LEN, Message};
pub(crate) use parts::Direction;
pub(crate) use session::{ObjectHandle, Session};
pub use told::{SessionCounts, TokenClock, TokenFlags};
pub(crate) use trial::{AfterTooSmall, IV_ROOM, TwoCalls};
