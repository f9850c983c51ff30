//! What a configuration says, for those who look at it without building an engine.

use std::path::Path;

use toml::Spanned;

use super::{Config, Keep, KeyCopies};
use crate::audit::AuditMode;
use crate::keys::copies::Copies;
use crate::pin::PinKeep;
use crate::pkcs11::ModuleKind;
use crate::sessions::Sessions;

impl Config {
    /// How many sessions each token has in use, of each instance.
    #[must_use]
    pub const fn sessions(&self) -> Sessions {
        self.sessions.0
    }

    /// How many times the module is loaded.
    #[must_use]
    pub const fn instances(&self) -> usize {
        self.instances.0
    }

    /// Whose module it is said to be.
    #[must_use]
    pub fn module_kind(&self) -> ModuleKind {
        self.module_kind.into()
    }

    /// The key by which it is seen whether a token works, if there is one.
    #[must_use]
    pub fn canary_key(&self) -> Option<&str> {
        self.canary_key.as_deref()
    }

    /// Whether core files and tracing are forbidden, and the PIN's memory must be locked.
    #[must_use]
    pub const fn harden_process(&self) -> bool {
        self.harden_process
    }

    /// Whether the PIN is sent although a token warns of wrong tries.
    #[must_use]
    pub const fn pin_despite_warning(&self) -> bool {
        self.pin_despite_warning
    }

    /// The keys for which the host does modes around single blocks.
    #[must_use]
    pub fn host_modes(&self) -> &[String] {
        &self.host_modes
    }

    /// Whether keys are copied into sessions.
    #[must_use]
    pub const fn copies(&self) -> Copies {
        match self.copies {
            KeyCopies::Auto => Copies::Auto,
            KeyCopies::Off => Copies::Off,
            KeyCopies::Required => Copies::Required,
        }
    }

    /// Whether the PIN stays in memory or is read again.
    #[must_use]
    pub fn pin_keep(&self) -> PinKeep {
        match self.pin_keep.as_ref().map(Spanned::get_ref) {
            Some(Keep::Reread) => PinKeep::Reread,
            Some(Keep::Memory) | None => PinKeep::Memory,
        }
    }

    /// The directory of the audit log, and what answers wait for, if there is a log.
    #[must_use]
    pub fn audit(&self) -> Option<(&Path, AuditMode)> {
        let audit = self.audit.as_ref()?;
        Some((audit.directory(), audit.settings().mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_told_and_what_is_not_has_its_default() {
        let of = |more: &str| {
            let text = format!("module = \"m\"\npin = \"env:P\"\n{more}\n[[token]]\nname = \"t\"\n");
            text.parse::<Config>().unwrap()
        };
        let plain = of("");
        assert_eq!((plain.sessions(), plain.instances()), (Sessions::AUTO, 1));
        assert_eq!((plain.module_kind(), plain.canary_key()), (ModuleKind::Standard, None));
        assert!(plain.audit().is_none() && !plain.harden_process() && !plain.pin_despite_warning());
        assert_eq!((plain.copies(), plain.pin_keep()), (Copies::Auto, PinKeep::Memory));
        assert!(plain.host_modes().is_empty());
        let set = of("sessions = \"2-9\"\ninstances = 2\nmodule_kind = \"yubihsm\"\ncanary_key = \"c\"\n\
                      harden_process = true\naudit = { directory = \"/a\" }\npin_despite_warning = true\n\
                      host_modes = [\"k\"]\ncopies = \"required\"\npin_keep = \"reread\"");
        assert_eq!((set.sessions(), set.instances()), (Sessions::from(2..=9), 2));
        assert_eq!((set.module_kind(), set.canary_key()), (ModuleKind::YubiHsm, Some("c")));
        assert_eq!(set.audit(), Some((Path::new("/a"), AuditMode::Strict)));
        assert!(set.harden_process() && set.pin_despite_warning());
        assert_eq!((set.copies(), set.pin_keep()), (Copies::Required, PinKeep::Reread));
        assert_eq!(set.host_modes(), ["k"]);
    }
}
