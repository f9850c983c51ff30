//! How tokens are named: by label, by serial number, or by a PKCS#11 URI. Never by the place of their slot.

use crate::error::{Error, ErrorKind, Result};
use crate::pkcs11::{Library, Slot, TokenInfo};
use crate::uri::Pkcs11Uri;

/// What one entry of a list of tokens says.
pub(crate) enum TokenName<'a> {
    /// A label or a serial number.
    Text(&'a str),
    Uri(Box<Pkcs11Uri>),
}

/// Most tokens of an engine: sets of them are kept in the bits of a word.
const TOKENS_MAX: usize = 64;

impl<'a> TokenName<'a> {
    /// A text that begins with `pkcs11:` is a URI, any other a label or a serial number.
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let is_uri = text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("pkcs11:"));
        Ok(if is_uri { Self::Uri(Box::new(text.parse()?)) } else { Self::Text(text) })
    }

    pub(crate) fn fits(&self, info: &TokenInfo) -> bool {
        match self {
            Self::Text(name) => info.label == *name || info.serial == *name,
            Self::Uri(uri) => info.is_named_by(uri),
        }
    }

    /// For messages. A URI is not repeated: it may name a key too.
    pub(crate) fn said(&self) -> &str {
        match self {
            Self::Text(name) => name,
            Self::Uri(_) => "the URI",
        }
    }
}

impl TokenInfo {
    /// Whether a URI selects the token, by itself and by its slot. What it says of an object does not matter here, so
    /// that one URI can name a key and its token.
    pub(crate) fn is_named_by(&self, uri: &Pkcs11Uri) -> bool {
        uri.matches_token(&self.label, &self.manufacturer, &self.model, &self.serial)
            && uri.matches_slot(self.slot.number(), &self.slot_description, &self.slot_manufacturer)
    }
}

/// The slots of the named tokens.
pub(crate) fn find_tokens(library: &Library, names: &[impl AsRef<str>]) -> Result<Vec<Slot>> {
    if names.is_empty() || names.len() > TOKENS_MAX {
        return Err(Error::operator(ErrorKind::Configuration, "an engine needs between 1 and 64 tokens"));
    }
    let names = names.iter().map(|name| TokenName::parse(name.as_ref())).collect::<Result<Vec<_>>>()?;
    for name in &names {
        if let TokenName::Uri(uri) = name {
            check_module(library, uri)?;
        }
    }
    // A slot whose token cannot be read is not one of those asked for, as far as anyone can tell.
    let present: Vec<_> =
        library.slots()?.into_iter().filter_map(|slot| library.token_info(slot).ok()).collect();
    let slots = names.iter().map(|name| find_token(&present, name)).collect::<Result<Vec<_>>>()?;
    if slots.iter().enumerate().any(|(index, slot)| slots[..index].contains(slot)) {
        return Err(Error::operator(ErrorKind::Configuration, "a token is named twice"));
    }
    Ok(slots)
}

/// Refuses a URI that asks for another module, or has attributes that nobody here understands.
pub(crate) fn check_module(library: &Library, uri: &Pkcs11Uri) -> Result<()> {
    if uri.vendor_path_attributes().next().is_some() {
        let text = "the URI has attributes in its path that RFC 7512 does not define, so it matches nothing";
        return Err(Error::operator(ErrorKind::Configuration, text));
    }
    let module_path = uri.module_path().and_then(|path| std::fs::canonicalize(path).ok());
    let differs = match uri.differs_from_library(library.path(), module_path.as_deref()) {
        None if uri.names_module_info() => {
            let info = library.info()?;
            uri.differs_from_info(&info.manufacturer, &info.description, info.version)
        }
        differs => differs,
    };
    match differs {
        Some(attribute) => {
            let text = format!("the URI asks for another module than the engine's, by its {attribute}");
            Err(Error::operator(ErrorKind::Configuration, text))
        }
        None => Ok(()),
    }
}

fn find_token(present: &[TokenInfo], name: &TokenName<'_>) -> Result<Slot> {
    let mut matching = present.iter().filter(|info| name.fits(info));
    match (matching.next(), matching.next()) {
        (Some(info), None) => Ok(info.slot),
        (None, _) => {
            let labels: Vec<_> =
                present.iter().map(|info| info.label.as_str()).filter(|label| !label.is_empty()).collect();
            let text = format!("{}; present are: {}", name.said(), labels.join(", "));
            Err(Error::operator(ErrorKind::TokenNotFound, text))
        }
        (Some(_), Some(_)) => {
            let text = format!("{} names several tokens: use a serial number", name.said());
            Err(Error::operator(ErrorKind::TokenNotFound, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64, label: &str, serial: &str) -> TokenInfo {
        TokenInfo {
            slot: Slot::numbered(number),
            slot_description: "left".to_owned(),
            slot_manufacturer: "maker".to_owned(),
            label: label.to_owned(),
            serial: serial.to_owned(),
            model: "box".to_owned(),
            manufacturer: "maker".to_owned(),
            flags: 0,
            sessions_max: None,
            sessions: crate::pkcs11::SessionCounts::default(),
            clock: None,
        }
    }

    fn find(name: &str) -> Result<u64> {
        let present =
            [token(3, "pay", "01"), token(4, "pay", "02"), token(5, "", "03"), token(6, "hr", "04")];
        find_token(&present, &TokenName::parse(name)?).map(Slot::number)
    }

    #[test]
    fn a_token_is_found_by_label_by_serial_number_and_by_uri() {
        assert_eq!(find("hr").unwrap(), 6);
        assert_eq!(find("02").unwrap(), 4);
        assert_eq!(find("pkcs11:token=pay;serial=01").unwrap(), 3);
        assert_eq!(find("PKCS11:slot-id=5;object=card;type=private").unwrap(), 5);
    }

    #[test]
    fn a_name_of_no_token_or_of_several_is_refused() {
        for (name, said) in [
            ("west", "west; present are: pay, pay, hr"),
            ("pkcs11:token=west;object=card", "the URI; present are: pay, pay, hr"),
            ("pay", "pay names several tokens"),
            ("pkcs11:token=pay", "the URI names several tokens"),
            ("pkcs11:", "the URI names several tokens"),
        ] {
            let error = find(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TokenNotFound);
            assert!(error.to_string().contains(said), "{error}");
        }
        let error = find("pkcs11:token=pay?pin-value=918273").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!error.to_string().contains("918273"), "{error}");
    }
}
