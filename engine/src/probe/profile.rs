//! Profiles: what a probe has found, as a file that people read and engines load.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

use super::trials;
use super::units;
use crate::config::{located, read_text};
use crate::error::{Error, ErrorKind, Result};
use crate::token::facts::{Curve, KeyKind};

/// What a probe has found of a module and a token: what works, how sessions behave, what calls cost.
///
/// As a file it is TOML; unknown fields are refused, and errors say line and column. [`Builder::module_profile`] says what
/// an engine makes of it.
///
/// [`Builder::module_profile`]: crate::Builder::module_profile
///
/// ```
/// let text = r#"
///     format = 1
///     made = "2026-11-29T16:20:00Z"
///
///     [module]
///     description = "Cryptoki library"
///     manufacturer = "A maker"
///     version = "7.2"
///     cryptoki = "3.0"
///
///     [token]
///     model = "Box 9"
///     manufacturer = "A maker"
///     hardware = "1.0"
///     firmware = "7.1"
///
///     [[mechanism]]
///     operation = "sign-ed25519"
///     mechanism = "CKM_EDDSA"
///     key = "Ed25519"
///     result = "listed-but-fails"
///     why = "C_SignInit answered CKR_MECHANISM_INVALID"
/// "#;
/// let profile: hsmux::probe::ModuleProfile = text.parse()?;
/// assert_eq!(profile.module.description, "Cryptoki library");
/// let wrong = text.replace("sign-ed25519", "sign-rot13").parse::<hsmux::probe::ModuleProfile>();
/// assert!(wrong.unwrap_err().to_string().contains("18:17: no such operation"));
/// # Ok::<(), hsmux::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModuleProfile {
    format: u64,
    /// When the probe began.
    #[serde(with = "units::moment")]
    pub made: SystemTime,
    /// What there was no time for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_reached: Vec<ProbeStage>,
    /// The module that was probed.
    pub module: ProfiledModule,
    /// The token that was probed.
    pub token: ProfiledToken,
    /// How many sessions it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionsFound>,
    /// How the rate grows with sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingFound>,
    /// What it makes of the IV and the associated data of AES-GCM; none where that does not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcm: Option<GcmFound>,
    /// Whether keys can be copied into a session, and whether that pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<CopiesFound>,
    /// How much one call takes, and how calls fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsFound>,
    /// What works, one entry for each operation that the engine offers.
    #[serde(default, rename = "mechanism", skip_serializing_if = "Vec::is_empty")]
    pub mechanisms: Vec<MechanismFound>,
    /// What calls cost.
    #[serde(default, rename = "cost", skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<CallCost>,
}

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
    /// Lengths of IVs that were taken, in bytes, of 0, 1, 8, 12, 16 and 32. 0 is a fault of the module: that IV is always
    /// the same, and the engine never gives it.
    pub iv_lengths: Vec<usize>,
    /// Whether associated data are taken, and authenticated.
    pub associated_data: bool,
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
    /// The code by which one more was refused; none if as many were opened as were wanted.
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
    /// What it was called for.
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
    /// What was run, as [`MechanismFound::operation`] has it.
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
    /// Whether `C_SignInit` without a mechanism cancels such an operation. None where it stays for nothing to be cancelled,
    /// and where the module is older than PKCS#11 3.0, which brought this: such a module may crash.
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

/// The only format there is.
const FORMAT: u64 = 1;

/// What stands at the head of a file.
const HEADER: &str = "\
# What a PKCS#11 module and its token can do, as `hsmux probe` found by trying.
#
# An engine that is given this file (module_profile = \"FILE\" in its configuration) begins with the recommended number of
# sessions where that is \"auto\", refuses at once what is listed and fails, and does not measure again what is measured
# here. It refuses the file where module or model are others, and warns where their versions are: probe again after an
# update. Lines may be removed; what is not here is as if it had not been tried.
";

impl ModuleProfile {
    pub(super) fn new(made: SystemTime, module: ProfiledModule, token: ProfiledToken) -> Self {
        Self {
            format: FORMAT,
            made,
            not_reached: Vec::new(),
            module,
            token,
            sessions: None,
            scaling: None,
            gcm: None,
            copies: None,
            limits: None,
            mechanisms: Vec::new(),
            costs: Vec::new(),
        }
    }

    /// Reads a file of at most a mebibyte.
    ///
    /// # Errors
    /// `Configuration`, with the path, and the line and column of what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let of_file =
            |why: String| Error::operator(ErrorKind::Configuration, format!("{}:{why}", path.display()));
        let text = read_text(path).map_err(|error| of_file(format!(" {error}")))?;
        Self::parse(&text).map_err(of_file)
    }

    /// The text of a file, with a comment at its head that says what it is.
    ///
    /// # Errors
    /// `Internal`, if it cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String> {
        let mut text = HEADER.to_owned();
        let body = toml::to_string(self).map_err(|error| Error::internal(error.to_string()))?;
        // Into a text this cannot fail.
        let _written = write!(text, "\n{body}");
        Ok(text)
    }

    /// Writes a file, whole or not at all: in place of one that is there, which everybody may read.
    ///
    /// # Errors
    /// `Configuration`, with the path.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = self.to_toml()?;
        let write = || {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            // No secret is in it, and the service that loads it may be another user's; the umask has its say.
            let mut file = tempfile::Builder::new()
                .prefix(".hsmux-profile-")
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error: std::io::Error| {
            Error::operator(ErrorKind::Configuration, format!("{}: {error}", path.display()))
        })
    }

    /// What was found of an operation, such as `sign-rsa-pss`.
    #[must_use]
    pub fn mechanism(&self, operation: &str) -> Option<&MechanismFound> {
        self.mechanisms.iter().find(|found| found.operation == operation)
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            format: Spanned<u64>,
        }
        let wrong = |error: toml::de::Error| located(text, error.span(), error.message());
        let Head { format } = toml::from_str(text).map_err(wrong)?;
        if *format.get_ref() != FORMAT {
            let said = format!("format {} is not known here, only {FORMAT}: probe again", format.get_ref());
            return Err(located(text, Some(format.span()), &said));
        }
        toml::from_str(text).map_err(wrong)
    }
}

impl std::str::FromStr for ModuleProfile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|why| Error::operator(ErrorKind::Configuration, why))
    }
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

impl ProbeResult {
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

#[cfg(test)]
pub(super) mod tests;
