//! What a probe finds of one thing or another.

mod gcm;

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::trials;
use super::units;
use crate::token::facts::{Curve, KeyKind};

pub use gcm::{DataFound, GcmFound, IvFound, SeenBy, TagFound};

/// What `C_GetInfo` said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProfiledModule {
    /// What it is.
    pub description: String,
    /// Who made it.
    pub manufacturer: String,
    /// Its own version, major and minor.
    #[serde(with = "units::version")]
    pub version: (u8, u8),
    /// The version of PKCS#11 that it follows.
    #[serde(with = "units::version")]
    pub cryptoki: (u8, u8),
}

/// What `C_GetTokenInfo` said, but for label and serial number: a profile is that of all tokens of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProfiledToken {
    /// Model.
    pub model: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Version of the hardware, major and minor.
    #[serde(with = "units::version")]
    pub hardware: (u8, u8),
    /// Version of the firmware.
    #[serde(with = "units::version")]
    pub firmware: (u8, u8),
}

/// A part of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProbeStage {
    /// Which mechanisms work.
    Mechanisms,
    /// AES-GCM: IVs, associated data, the tag.
    Gcm,
    /// How many sessions there are.
    Sessions,
    /// What each call costs.
    Costs,
    /// Signatures by several sessions at once.
    Scaling,
    /// Session copies of keys.
    Copies,
    /// Longest inputs, most random bytes, cancelling.
    Limits,
}

/// What was found of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MechanismFound {
    /// The operation, such as `sign-rsa-pss`.
    #[serde(deserialize_with = "known_operation")]
    pub operation: String,
    /// The mechanism, by its name in the standard.
    pub mechanism: String,
    /// The key that was used, as `RSA-2048`.
    pub key: String,
    /// What was found.
    pub result: ProbeResult,
    /// The code that was answered, or what was wrong with the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether an operation works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProbeResult {
    /// Its output was right.
    Works,
    /// The token lists the mechanism for it, and fails or answers wrongly.
    ListedButFails,
    /// The token does not list it, and its output was right.
    NotListedButWorks,
    /// The token does not list it, and it does not work.
    NotOffered,
    /// The token lists it, and nobody knows: no such key could be made, or there was no time.
    NotTried,
}

/// How many sessions there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionsFound {
    /// Most read/write sessions, as the token tells; none if unlimited or not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<u64>,
    /// How many were open at once, those of the probe itself included.
    pub opened: usize,
    /// The code by which one more was refused; none if as many were opened as were wanted. That there are no more is said by
    /// `CKR_SESSION_COUNT` only, which came twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What a call costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CallCost {
    /// The function.
    pub call: String,
    /// What it was called for. Keys are session keys: those of the token may be slower.
    pub of: String,
    /// Half of the calls took no longer.
    #[serde(with = "units::duration")]
    pub p50: Duration,
    /// 99 of 100 took no longer.
    #[serde(with = "units::duration")]
    pub p99: Duration,
    /// How many calls were timed.
    pub samples: u64,
}

/// How the rate grows with sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ScalingFound {
    /// What was run, as [`MechanismFound::operation`] has it, with a session key.
    pub operation: String,
    /// The fewest sessions whose rate is within a twentieth of the best.
    pub recommended: usize,
    /// Rates by number of sessions.
    #[serde(rename = "point")]
    pub points: Vec<ScalingPoint>,
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ScalingPoint {
    /// Sessions, each with a thread of its own.
    pub sessions: usize,
    /// Operations a second of all of them.
    pub per_second: u64,
}

/// Session copies of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CopiesFound {
    /// Whether `C_CopyObject` makes a session object that works.
    pub work: bool,
    /// The code that was answered where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Copies of token keys that were measured, one of each kind.
    #[serde(default, rename = "measured", skip_serializing_if = "Vec::is_empty")]
    pub gains: Vec<CopyGain>,
}

/// How fast a copy is beside its token key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CopyGain {
    /// Type and size of the key, as `AES-256`.
    #[serde(deserialize_with = "known_kind")]
    pub key: String,
    /// The fastest of a few operations on the token key.
    #[serde(with = "units::duration")]
    pub original: Duration,
    /// The same on the copy.
    #[serde(with = "units::duration")]
    pub copy: Duration,
    /// Whether an engine with copies `auto` makes them of such keys.
    pub faster: bool,
}

/// How much one call takes, and how calls fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitsFound {
    /// Longest input that one `C_Sign` took, in bytes, of 1 MiB that was tried at most; none where nothing signs messages.
    #[serde(default, with = "units::size", skip_serializing_if = "Option::is_none")]
    pub sign_input_max: Option<usize>,
    /// Most random bytes that one `C_GenerateRandom` gave, of 1 MiB that was tried at most.
    #[serde(default, with = "units::size", skip_serializing_if = "Option::is_none")]
    pub random_max: Option<usize>,
    /// What becomes of an operation that has answered `CKR_BUFFER_TOO_SMALL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_small: Option<TooSmallFound>,
    /// Whether `C_SignInit` without a mechanism cancels such an operation. None where the operation has ended by then, and where
    /// the module is older than PKCS#11 3.0, which brought this: such a module may crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancels: Option<bool>,
}

/// What becomes of an operation whose output had too little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TooSmallFound {
    /// It goes on with more room, as the standard says.
    GoesOn,
    /// It has ended.
    Ends,
    /// The call answers something else than `CKR_BUFFER_TOO_SMALL`.
    AnswersOtherwise,
}

impl ProbeStage {
    /// Every one, in the order in which they come.
    pub const ALL: [Self; 7] =
        [Self::Mechanisms, Self::Gcm, Self::Sessions, Self::Costs, Self::Scaling, Self::Copies, Self::Limits];

    /// What is looked at, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mechanisms => "mechanisms",
            Self::Gcm => "AES-GCM",
            Self::Sessions => "sessions",
            Self::Costs => "cost of calls",
            Self::Scaling => "scaling",
            Self::Copies => "copies",
            Self::Limits => "limits",
        }
    }
}

/// Whether an operation was found to work.
pub(super) fn works(found: &[MechanismFound], operation: &str) -> bool {
    found.iter().any(|found| found.operation == operation && found.result.works())
}

impl ProbeResult {
    pub(super) const fn works(self) -> bool {
        matches!(self, Self::Works | Self::NotListedButWorks)
    }

    /// The words for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::ListedButFails => "listed but fails",
            Self::NotListedButWorks => "not listed but works",
            Self::NotOffered => "not offered",
            Self::NotTried => "not tried",
        }
    }
}

fn known_operation<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    match trials::named(&name) {
        Some(_) => Ok(name),
        None => Err(serde::de::Error::custom("no such operation")),
    }
}

fn known_kind<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    match kind_named(&name) {
        Some(_) => Ok(name),
        None => Err(serde::de::Error::custom("a kind of key such as \"AES-256\" or \"EC P-256\"")),
    }
}

/// The kind that [`kind_name`](crate::describe::kind_name) calls so.
pub(super) fn kind_named(name: &str) -> Option<KeyKind> {
    if name == "Ed25519" {
        return Some(KeyKind::Ed25519);
    }
    if let Some(bits) = name.strip_prefix("EC P-") {
        let curve = Curve::ALL.into_iter().find(|curve| curve.bits().to_string() == bits);
        return curve.map(KeyKind::Ec);
    }
    let (family, bits) = name.split_once('-')?;
    let bits: u32 = bits.parse().ok()?;
    Some(match family {
        "RSA" => KeyKind::Rsa { bits },
        "3DES" => KeyKind::TripleDes { len: bits / 56 * 8 },
        "AES" => KeyKind::Aes { len: bits / 8 },
        "HMAC" => KeyKind::Generic { len: bits / 8 },
        _ => return None,
    })
}
