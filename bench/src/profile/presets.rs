//! Profiles that come with the package.

use super::Profile;

/// A profile that comes with the package.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its file, with comments: a start for one's own.
    pub text: &'static str,
}

pub(super) const ALL: [Preset; 5] = [
    Preset { name: "payment-auth", text: include_str!("../../profiles/payment-auth.toml") },
    Preset { name: "card-tokenisation", text: include_str!("../../profiles/card-tokenisation.toml") },
    Preset { name: "document-signing", text: include_str!("../../profiles/document-signing.toml") },
    Preset { name: "tls-handshakes", text: include_str!("../../profiles/tls-handshakes.toml") },
    Preset { name: "dnssec", text: include_str!("../../profiles/dnssec.toml") },
];

pub(super) fn find(name: &str) -> Result<Profile, String> {
    let Some(preset) = ALL.iter().find(|preset| preset.name == name) else {
        return Err(format!("no such preset; there are {}", ALL.map(|preset| preset.name).join(", ")));
    };
    Profile::parse(preset.text).map_err(|error| format!("{name}.toml:{error}"))
}
