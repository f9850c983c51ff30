//! What a probe finds of AES-GCM.

use serde::{Deserialize, Serialize};

/// What AES-GCM does with the parameters that it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GcmFound {
    /// What becomes of an IV of 12 bytes that the caller gives.
    pub iv: IvFound,
    /// What becomes of one of 12 zero bytes, which some modules want where they choose the IV. Tried only where the caller's is
    /// not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_iv: Option<IvFound>,
    /// How that was seen: by comparison with software, or only by decrypting on the token.
    pub seen_by: SeenBy,
    /// Lengths of IVs that were taken, in bytes, of 1, 8, 12, 16 and 32; none where the caller's is not used.
    pub iv_lengths: Vec<usize>,
    /// What becomes of associated data.
    pub associated_data: DataFound,
    /// Where the tag is.
    pub tag: TagFound,
    /// The code that was answered to the caller's IV, where it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What becomes of an IV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IvFound {
    /// It is used as it is.
    Used,
    /// The module writes another one over it.
    Replaced,
    /// It is left as it is, and another one is used.
    Ignored,
    /// The call fails.
    Refused,
}

/// What becomes of associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DataFound {
    /// They are taken, and the tag depends on them.
    Authenticated,
    /// They are taken, and the tag is the same without them: nobody notices when they are exchanged.
    LeftOut,
    /// The call fails.
    Refused,
    /// Not seen.
    Unknown,
}

/// How something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SeenBy {
    /// With a key of known value, by other software.
    Software,
    /// The token takes no key of known value: it decrypted what it had encrypted.
    Decryption,
}

/// Where a tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TagFound {
    /// Behind the ciphertext, as the standard says.
    Behind,
    /// In front of it.
    InFront,
    /// Not seen.
    Unknown,
}

impl GcmFound {
    /// Why AES-GCM of this module is not to be used, if it is not, although it decrypts what it encrypts.
    pub(in crate::probe) fn flaw(&self) -> Option<&'static str> {
        match (self.iv, self.associated_data, self.tag) {
            (IvFound::Ignored, ..) => Some("it encrypts under another IV than the one it is given"),
            (_, DataFound::LeftOut, _) => Some("associated data are not authenticated"),
            (.., TagFound::InFront) => Some("the tag is in front of the ciphertext"),
            _ => None,
        }
    }
}
