//! PKCS#11 URIs: no text panics; what parses prints, and the print parses to the same; no PIN is ever shown.

#![no_main]

use hsmux::{PinSource, Pkcs11Uri};
use libfuzzer_sys::fuzz_target;

/// A PIN that no message, name of an attribute or number contains by chance.
const PIN: &str = "qZ9~7x_Jk";

fuzz_target!(|text: &str| {
    let parsed = text.parse::<Pkcs11Uri>();
    if let Ok(uri) = &parsed {
        let printed = uri.to_string();
        let again: Pkcs11Uri = printed.parse().expect("what a URI prints is a URI");
        assert_eq!(&again, uri, "{printed}");
        assert_eq!(again.to_string(), printed);
        assert!(uri.pin_value().is_none());
        let _ = PinSource::try_from(uri);
    }
    if text.contains(PIN) {
        return;
    }
    // The same with a PIN at the end of the query, and in the middle.
    let separator = if text.contains('?') { '&' } else { '?' };
    for with_pin in [
        format!("{text}{separator}pin-value={PIN}"),
        text.replacen('&', &format!("&pin-value={PIN}&"), 1),
        text.replacen('=', &format!("={PIN}"), 1),
    ] {
        for result in [with_pin.parse(), Pkcs11Uri::parse_with_pin_value(&with_pin)] {
            match result {
                Ok(uri) => assert!(!format!("{uri:?}").contains(PIN)),
                Err(error) => assert!(!format!("{error} {error:?}").contains(PIN)),
            }
        }
    }
    if let Ok(uri) = Pkcs11Uri::parse_with_pin_value(&format!("{text}{separator}pin-value={PIN}")) {
        assert!(uri.pin_value().is_some());
        assert!(!uri.to_string().contains(PIN), "a PIN is printed");
    }
});
