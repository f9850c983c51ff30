//! hsmux: many callers, few HSM sessions.
//!
//! [`Engine`] logs in to tokens and shares their sessions; [`Key::sign`] and its like make a [`Request`] that is
//! waited for, awaited or submitted.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

#[doc = include_str!("../docs/embedding.md")]
pub mod embedding {}

#[doc = include_str!("../docs/message-format.md")]
pub mod message_format {}

#[doc = include_str!("../docs/recipes.md")]
pub mod recipes {}

#[doc = include_str!("../docs/audit.md")]
pub mod audit_format {}

#[doc = include_str!("../docs/module-profiles.md")]
pub mod module_profiles {}

#[cfg(not(hsmux_loom))]
mod audit;
#[cfg(not(hsmux_loom))]
mod builder;
#[cfg(not(hsmux_loom))]
mod clock;
#[cfg(not(hsmux_loom))]
mod coalesce;
#[cfg(not(hsmux_loom))]
mod config;
#[cfg(not(hsmux_loom))]
mod describe;
#[cfg(not(hsmux_loom))]
mod engine;
#[cfg(not(hsmux_loom))]
mod envelope;
#[cfg(not(hsmux_loom))]
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(not(hsmux_loom))]
mod harden;
#[cfg(not(hsmux_loom))]
mod key;
#[cfg(not(hsmux_loom))]
mod keys;
#[cfg(not(hsmux_loom))]
mod message;
#[cfg(not(hsmux_loom))]
mod metrics;
#[cfg(all(test, not(hsmux_loom)))]
mod mutation;
#[cfg(not(hsmux_loom))]
mod offload;
#[cfg(not(hsmux_loom))]
mod operate;
#[cfg(not(hsmux_loom))]
mod operation;
#[cfg(all(feature = "otel", not(hsmux_loom)))]
pub mod otel;
#[cfg(not(hsmux_loom))]
mod payload;
#[cfg(not(hsmux_loom))]
mod pending;
#[cfg(not(hsmux_loom))]
mod pin;
#[cfg(not(hsmux_loom))]
mod pkcs11;
#[cfg(not(hsmux_loom))]
mod place;
mod presence;
#[cfg(not(hsmux_loom))]
pub mod probe;
#[cfg(not(hsmux_loom))]
mod random_pool;
#[cfg(not(hsmux_loom))]
mod request;
mod schedule;
#[cfg(not(hsmux_loom))]
mod sessions;
mod sync;
#[cfg(not(hsmux_loom))]
mod threads;
#[cfg(not(hsmux_loom))]
mod token;
#[cfg(hsmux_loom)]
mod token {
    mod current;
    mod epoch;
    #[cfg(test)]
    mod loom;
}
#[cfg(not(hsmux_loom))]
mod uri;

#[cfg(all(feature = "baseline", not(hsmux_loom)))]
pub use audit::trial::{AuditTrial, AuditTrialFigures};
#[cfg(not(hsmux_loom))]
pub use audit::{
    Audit, AuditCheckpoint, AuditConsistency, AuditFault, AuditInclusion, AuditKey, AuditLog, AuditLoss,
    AuditMode, AuditReport, AuditTail,
};
#[cfg(not(hsmux_loom))]
pub use builder::{Builder, Missing};
#[cfg(not(hsmux_loom))]
pub use config::Config;
#[cfg(not(hsmux_loom))]
pub use describe::{KeyDescription, MechanismDescription, ModuleDescription, TokenDescription, inspect};
#[cfg(not(hsmux_loom))]
pub use engine::Engine;
#[cfg(not(hsmux_loom))]
pub use engine::keys::{KeyInfo, KeyVersionInfo, ManagedKeys, RecordPlace, RefusedRecord};
#[cfg(not(hsmux_loom))]
pub use engine::rotation::{PinRotation, RotatedToken};
#[cfg(not(hsmux_loom))]
pub use envelope::Envelope;
#[cfg(not(hsmux_loom))]
pub use envelope::data_key::{DataKey, DataKeyProvider, GeneratedDataKey};
#[cfg(not(hsmux_loom))]
pub use envelope::header::{ChunkSize, EnvelopeHeader};
#[cfg(not(hsmux_loom))]
pub use envelope::reader::EnvelopeReader;
#[cfg(not(hsmux_loom))]
pub use envelope::settings::EnvelopeSettings;
#[cfg(not(hsmux_loom))]
pub use envelope::writer::EnvelopeWriter;
#[cfg(not(hsmux_loom))]
pub use error::{Error, ErrorKind, Outcome, Result, Retry};
#[cfg(not(hsmux_loom))]
pub use harden::process as harden_process;
#[cfg(not(hsmux_loom))]
pub use key::{DataKeys, Key, SignStream, WrappedKey};
#[cfg(not(hsmux_loom))]
pub use keys::catalogue::record::KeyOrigin;
#[cfg(not(hsmux_loom))]
pub use keys::copies::Copies;
#[cfg(not(hsmux_loom))]
pub use keys::derive::AgreementKdf;
#[cfg(not(hsmux_loom))]
pub use keys::generate::KeySpec;
#[cfg(not(hsmux_loom))]
pub use keys::key_config::KeyConfig;
#[cfg(not(hsmux_loom))]
pub use keys::key_id::KeyId;
#[cfg(not(hsmux_loom))]
pub use keys::name::KeyName;
#[cfg(not(hsmux_loom))]
pub use keys::state::KeyState;
#[cfg(not(hsmux_loom))]
pub use keys::wrap::KeyWrap;
#[cfg(not(hsmux_loom))]
pub use message::blob::{Blob, BlobAlgorithm, BlobHeader, BlobRef};
#[cfg(not(hsmux_loom))]
pub use message::context::{EncryptionContext, EncryptionContextBuilder};
#[cfg(not(hsmux_loom))]
pub use metrics::{
    AuditSnapshot, CheckSnapshot, Health, IntervalLog, MergeSnapshot, OperationSnapshot, RandomPoolSnapshot,
    ScopeSnapshot, Snapshot, Stage, TokenSnapshot,
};
#[cfg(not(hsmux_loom))]
pub use operate::Tier;
#[cfg(not(hsmux_loom))]
pub use operation::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cipher, Ciphertext, Cmac, Decrypt, Ecdsa, Ed25519, Encrypt, Hmac,
    MacPadding, Operation, OperationKind, Plaintext, Random, RandomBytes, RawMechanism, RetailMac, RsaOaep,
    RsaPkcs1, RsaPkcs1Encryption, RsaPss, Seal, Sign, SignAlgorithm, Signature, TripleDesCbc, TripleDesEcb,
    Verdict, Verify,
};
#[cfg(not(hsmux_loom))]
pub use pending::Pending;
#[cfg(not(hsmux_loom))]
pub use pin::{PinExamination, PinFault, PinKeep, PinRecord, PinSource, PinState};
#[cfg(all(feature = "baseline", not(hsmux_loom)))]
pub use pkcs11::baseline::{BaselineCall, BaselineKey, BaselineSession, BaselineToken};
#[cfg(not(hsmux_loom))]
pub use pkcs11::{ModuleKind, SessionCounts, TokenClock, TokenFlags};
#[cfg(not(hsmux_loom))]
pub use place::{check_private_directory, check_private_way};
#[cfg(not(hsmux_loom))]
pub use request::{Many, Pipeline, Refused, Request, RequestFuture, RequestId, pipeline};
#[cfg(not(hsmux_loom))]
pub use schedule::controller::Adjustment;
pub use schedule::fairness::Priority;
#[cfg(not(hsmux_loom))]
pub use sessions::Sessions;
#[cfg(not(hsmux_loom))]
pub use token::facts::{Curve, KeyFlags};
#[cfg(not(hsmux_loom))]
pub use token::mechanism::Hash;
#[cfg(not(hsmux_loom))]
pub use token::verify::VerifyOutputs;
#[cfg(not(hsmux_loom))]
pub use uri::{ObjectType, Pkcs11Uri, UriError, UriErrorKind};
