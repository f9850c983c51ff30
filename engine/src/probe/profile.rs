//! Profiles: what a probe has found, as a file that people read and engines load.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{self, ErrorKind as IoKind, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use toml::Spanned;

use super::found::{
    CallCost, CopiesFound, GcmFound, LimitsFound, MechanismFound, ProbeStage, ProfiledModule, ProfiledToken,
    ScalingFound, SessionsFound,
};
use super::units;
use crate::config::{located, read_text};
use crate::error::{Error, ErrorKind, Result};

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
    /// What there was no time for, or not enough: what was found until then is here.
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
            let mut file = draft(path)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| not_written(path, &error))
    }

    /// Whether a file can be written there, for those who want to know before they probe. What is there stays as it is.
    ///
    /// # Errors
    /// `Configuration`, with the path.
    pub fn check_path(path: &Path) -> Result<()> {
        let draft = if path.is_dir() { Err(IoKind::IsADirectory.into()) } else { draft(path) };
        draft.map(drop).map_err(|error| not_written(path, &error))
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

/// A file beside the one that it is to become.
fn draft(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // No secret is in it, and the service that loads it may be another user's; the umask has its say.
    tempfile::Builder::new()
        .prefix(".hsmux-profile-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
}

fn not_written(path: &Path, error: &io::Error) -> Error {
    Error::operator(ErrorKind::Configuration, format!("{}: {error}", path.display()))
}

impl std::str::FromStr for ModuleProfile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|why| Error::operator(ErrorKind::Configuration, why))
    }
}

#[cfg(test)]
pub(super) mod tests;
