//! What a configuration says, for those who look at it without building an engine.

use std::path::Path;

use super::Config;
use crate::audit::AuditMode;
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
        assert!(plain.audit().is_none() && !plain.harden_process());
        let set = of("sessions = \"2-9\"\ninstances = 2\nmodule_kind = \"yubihsm\"\ncanary_key = \"c\"\n\
                      harden_process = true\naudit = { directory = \"/a\" }");
        assert_eq!((set.sessions(), set.instances()), (Sessions::from(2..=9), 2));
        assert_eq!((set.module_kind(), set.canary_key()), (ModuleKind::YubiHsm, Some("c")));
        assert_eq!(set.audit(), Some((Path::new("/a"), AuditMode::Strict)));
        assert!(set.harden_process());
    }
}
