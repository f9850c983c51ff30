//! What a URI selects. RFC 7512, 2.5: "An attribute not present in the URI path component but known to a consumer
//! matches everything."

use std::path::Path;

use super::{ObjectType, Pkcs11Uri};

impl Pkcs11Uri {
    /// Whether the URI selects a token, by what `C_GetTokenInfo` says of it.
    pub(crate) fn matches_token(&self, label: &str, manufacturer: &str, model: &str, serial: &str) -> bool {
        self.vendor_path.is_empty()
            && is_field(self.token(), label)
            && is_field(self.manufacturer(), manufacturer)
            && is_field(self.model(), model)
            && is_field(self.serial(), serial)
    }

    /// Whether the URI selects a slot, by its number and by what `C_GetSlotInfo` says of it.
    pub(crate) fn matches_slot(&self, id: u64, description: &str, manufacturer: &str) -> bool {
        self.slot_id.is_none_or(|wanted| wanted == id)
            && is_field(self.slot_description(), description)
            && is_field(self.slot_manufacturer(), manufacturer)
    }

    /// Whether the URI selects an object.
    pub(crate) fn matches_key(&self, label: &[u8], id: &[u8], class: ObjectType) -> bool {
        self.vendor_path.is_empty()
            && self.object().is_none_or(|wanted| wanted.as_bytes() == label)
            && self.id().is_none_or(|wanted| wanted == id)
            && self.object_type.is_none_or(|wanted| wanted == class)
    }

    /// The attribute by which the URI asks for another library than the one at this path; none if it fits.
    ///
    /// `path` is canonical, and so is `module_path`: the URI's own, if there is such a file.
    pub(crate) fn differs_from_library(
        &self,
        path: &Path,
        module_path: Option<&Path>,
    ) -> Option<&'static str> {
        let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = stem.split_once('.').map_or(stem, |(stem, _)| stem);
        let is_name = |name: &str| stem == name || stem.strip_prefix("lib") == Some(name);
        if self.module_path().is_some() && module_path != Some(path) {
            return Some("module-path");
        }
        self.module_name().is_some_and(|name| !is_name(name)).then_some("module-name")
    }

    /// Whether the URI says anything of what `C_GetInfo` tells.
    pub(crate) fn names_module_info(&self) -> bool {
        self.library_manufacturer.is_some()
            || self.library_description.is_some()
            || self.library_version.is_some()
    }

    /// The attribute in which a module differs from what the URI asks for; none if it fits.
    pub(crate) fn differs_from_info(
        &self,
        manufacturer: &str,
        description: &str,
        version: (u8, u8),
    ) -> Option<&'static str> {
        let fits = [
            ("library-manufacturer", is_field(self.library_manufacturer(), manufacturer)),
            ("library-description", is_field(self.library_description(), description)),
            ("library-version", self.library_version.is_none_or(|wanted| wanted == version)),
        ];
        fits.into_iter().find_map(|(name, fits)| (!fits).then_some(name))
    }
}

/// Fields of the structures of PKCS#11 are padded with blanks, so blanks at the end mean nothing.
fn is_field(wanted: Option<&str>, field: &str) -> bool {
    wanted.is_none_or(|wanted| wanted.trim_end_matches(' ') == field.trim_end_matches(' '))
}
