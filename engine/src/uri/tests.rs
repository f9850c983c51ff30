use proptest::prelude::*;

use super::parse::LEN_MAX;
use super::*;

fn uri(text: &str) -> Pkcs11Uri {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn fault(text: &str) -> (UriErrorKind, Option<&'static str>, usize) {
    let error = text.parse::<Pkcs11Uri>().map(drop).unwrap_err();
    (error.kind(), error.attribute(), error.offset())
}

#[test]
fn every_attribute_is_read_and_decoded() {
    let text = "pkcs11:token=pay%201;manufacturer=m;serial=s;model=mo;library-manufacturer=lm;\
                library-description=ld;library-version=2.40;slot-manufacturer=sm;slot-description=sd;slot-id=07;\
                object=gr%C3%BC%C3%9Fe&more;type=private;id=%69%95%00x;x-shelf=3\
                ?pin-source=file:/run/pin&module-name=softhsm2&module-path=/usr/lib/a.so&x-why=a&x-why=b";
    let uri = uri(text);
    assert_eq!(
        [uri.token(), uri.manufacturer(), uri.serial(), uri.model()].map(Option::unwrap),
        ["pay 1", "m", "s", "mo"]
    );
    assert_eq!((uri.library_manufacturer(), uri.library_description()), (Some("lm"), Some("ld")));
    assert_eq!((uri.library_version(), uri.slot_id()), (Some((2, 40)), Some(7)));
    assert_eq!((uri.slot_manufacturer(), uri.slot_description()), (Some("sm"), Some("sd")));
    assert_eq!((uri.object(), uri.object_type()), (Some("grüße&more"), Some(ObjectType::Private)));
    assert_eq!(uri.id(), Some(&b"\x69\x95\x00x"[..]));
    assert_eq!((uri.pin_source(), uri.module_name()), (Some("file:/run/pin"), Some("softhsm2")));
    assert_eq!(uri.module_path(), Some("/usr/lib/a.so"));
    assert_eq!(uri.vendor_path_attributes().collect::<Vec<_>>(), [("x-shelf", &b"3"[..])]);
    let vendors: Vec<_> = uri.vendor_query_attributes().collect();
    assert_eq!(vendors, [("x-why", &b"a"[..]), ("x-why", &b"b"[..])]);
}

#[test]
fn path_and_query_may_be_empty_and_an_empty_value_is_a_value() {
    assert_eq!(uri("pkcs11:"), Pkcs11Uri::default());
    assert_eq!(uri("pkcs11:?"), Pkcs11Uri::default());
    assert_eq!(uri("pkcs11:?module-name=x").module_name(), Some("x"));
    let empty = uri("pkcs11:object=;id=");
    assert_eq!((empty.object(), empty.id(), empty.token()), (Some(""), Some(&b""[..]), None));
}

#[test]
fn scheme_names_and_types_are_read_in_either_case_and_other_values_are_not() {
    let shouted = uri("PKCS11:TOKEN=Pay;Type=Secret-Key");
    assert_eq!((shouted.token(), shouted.object_type()), (Some("Pay"), Some(ObjectType::SecretKey)));
    assert_eq!(shouted.to_string(), "pkcs11:token=Pay;type=secret-key");
    assert_ne!(uri("pkcs11:token=Pay"), uri("pkcs11:token=pay"));
    assert_eq!(fault("pkcs11:?PIN-Value=1234"), (UriErrorKind::PinValue, Some("pin-value"), 8));
}

#[test]
fn what_is_not_in_the_grammar_is_refused_with_its_place() {
    use UriErrorKind as K;
    for (text, kind, attribute, offset) in [
        ("", K::Scheme, None, 0),
        ("pkcs11", K::Scheme, None, 0),
        ("pkcs12:token=a", K::Scheme, None, 0),
        ("pkcs1\u{fc}:token=a", K::Scheme, None, 0),
        ("pkcs11:token", K::NoValue, None, 7),
        ("pkcs11:;token=a", K::NoValue, None, 7),
        ("pkcs11:token=a;", K::NoValue, None, 15),
        ("pkcs11:?a=b&&c=d", K::NoValue, None, 12),
        ("pkcs11:=a", K::Name, None, 7),
        ("pkcs11:to%6ben=a", K::Name, None, 7),
        ("pkcs11:token=a b", K::Character, Some("token"), 14),
        ("pkcs11:token=a/b", K::Character, Some("token"), 14),
        ("pkcs11:token=a#b", K::Character, Some("token"), 14),
        ("pkcs11:token=\u{fc}", K::Character, Some("token"), 13),
        ("pkcs11:x-a=\n", K::Character, None, 11),
        ("pkcs11:?module-name=a;b", K::Character, Some("module-name"), 21),
        ("pkcs11:token=%", K::Escape, Some("token"), 13),
        ("pkcs11:token=ab%4", K::Escape, Some("token"), 15),
        ("pkcs11:token=%+1", K::Escape, Some("token"), 13),
        ("pkcs11:id=%zz", K::Escape, Some("id"), 10),
        ("pkcs11:object=%ff", K::NotUtf8, Some("object"), 14),
        ("pkcs11:type=privat", K::Value, Some("type"), 12),
        ("pkcs11:type=p%72ivate", K::Value, Some("type"), 12),
        ("pkcs11:slot-id=", K::Value, Some("slot-id"), 15),
        ("pkcs11:slot-id=+1", K::Value, Some("slot-id"), 15),
        ("pkcs11:slot-id=18446744073709551616", K::Value, Some("slot-id"), 15),
        ("pkcs11:library-version=2.", K::Value, Some("library-version"), 23),
        ("pkcs11:library-version=256", K::Value, Some("library-version"), 23),
        ("pkcs11:library-version=1.2.3", K::Value, Some("library-version"), 23),
        ("pkcs11:?module-path=a.so", K::Value, Some("module-path"), 20),
        ("pkcs11:token=a;token=a", K::Duplicate, Some("token"), 15),
        ("pkcs11:x-a=1;x-a=2", K::Duplicate, None, 13),
        ("pkcs11:?pin-source=a&pin-source=b", K::Duplicate, Some("pin-source"), 21),
        ("pkcs11:pin-source=a", K::Misplaced, Some("pin-source"), 7),
        ("pkcs11:pin-value=a", K::Misplaced, Some("pin-value"), 7),
        ("pkcs11:?object=a", K::Misplaced, Some("object"), 8),
    ] {
        assert_eq!(fault(text), (kind, attribute, offset), "{text}");
    }
}

#[test]
fn a_uri_is_bounded_as_it_is_read_and_as_it_is_printed() {
    let longest = format!("pkcs11:object={}", "a".repeat(LEN_MAX - 14));
    assert_eq!(uri(&longest).to_string(), longest);
    assert_eq!(fault(&format!("{longest}a")).0, UriErrorKind::TooLong);
    assert_eq!(fault(&format!("pkcs11:id={}", "a".repeat(LEN_MAX / 2))).0, UriErrorKind::TooLong);
}

#[test]
fn a_pin_value_is_refused_and_never_shown() {
    let text = "pkcs11:token=a?pin-value=918273";
    let error = text.parse::<Pkcs11Uri>().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("918273"));
    assert_eq!(error.to_string(), "a PIN, which no URI may hold, in pin-value at byte 15");
    let kept = Pkcs11Uri::parse_with_pin_value(text).unwrap();
    assert_eq!(kept.pin_value().map(ExposeSecret::expose_secret), Some("918273"));
    assert!(!format!("{kept} {kept:?}").contains("918273"));
    assert_eq!(kept, Pkcs11Uri::parse_with_pin_value(text).unwrap());
    assert_ne!(kept, uri("pkcs11:token=a"));
    let two = Pkcs11Uri::parse_with_pin_value("pkcs11:?pin-source=a&pin-value=1").unwrap_err();
    assert_eq!(two.kind(), UriErrorKind::TwoPins);
}

#[test]
fn debug_tells_the_attributes_and_not_their_values() {
    let uri = uri("pkcs11:token=pay;object=card;x-shelf=3");
    assert_eq!(format!("{uri:?}"), r#"Pkcs11Uri(["token", "object", "vendor's in the path"])"#);
}

#[test]
fn each_place_has_its_own_characters_that_are_printed_as_they_are() {
    let uri = uri("pkcs11:token=%26%2F%3B%25%20%41;id=ab%01?module-name=%26/%3F%7C%3B");
    assert_eq!(uri.to_string(), "pkcs11:token=&%2F%3B%25%20A;id=%61%62%01?module-name=%26/?|%3B");
}

#[test]
fn an_attribute_that_is_not_there_matches_every_token_and_one_that_is_there_its_own_value() {
    let fits = |text: &str| uri(text).matches_token("pay-1", "maker", "box", "0042");
    for text in [
        "pkcs11:",
        "pkcs11:token=pay-1",
        "pkcs11:token=pay-1%20%20",
        "pkcs11:manufacturer=maker;serial=0042;model=box",
        "pkcs11:object=other;id=%01",
        "pkcs11:?x-why=1",
    ] {
        assert!(fits(text), "{text}");
    }
    for text in [
        "pkcs11:token=Pay-1",
        "pkcs11:token=",
        "pkcs11:manufacturer=x",
        "pkcs11:model=x",
        "pkcs11:serial=42",
        "pkcs11:token=pay-1;x-shelf=3",
    ] {
        assert!(!fits(text), "{text}");
    }
}

#[test]
fn an_attribute_that_is_not_there_matches_every_key_and_one_that_is_there_its_own_value() {
    let fits = |text: &str| uri(text).matches_key(b"card", b"\x01\xff", ObjectType::Private);
    for text in ["pkcs11:", "pkcs11:object=card", "pkcs11:id=%01%ff;type=private", "pkcs11:token=any"] {
        assert!(fits(text), "{text}");
    }
    for text in [
        "pkcs11:object=card%20",
        "pkcs11:id=%01",
        "pkcs11:id=",
        "pkcs11:type=secret-key",
        "pkcs11:object=card;type=cert",
        "pkcs11:x-shelf=3",
    ] {
        assert!(!fits(text), "{text}");
    }
}

#[test]
fn slots_and_modules_are_compared_by_the_attributes_that_are_there() {
    let slot = |text: &str| uri(text).matches_slot(7, "left", "maker");
    assert!(slot("pkcs11:") && slot("pkcs11:slot-id=7;slot-description=left;slot-manufacturer=maker"));
    assert!(!slot("pkcs11:slot-id=8") && !slot("pkcs11:slot-description=x"));
    let path = std::path::Path::new("/usr/lib/softhsm/libsofthsm2.so");
    let library = |text: &str| uri(text).differs_from_library(path, Some(path));
    assert_eq!(library("pkcs11:?module-name=softhsm2"), None);
    assert_eq!(library("pkcs11:?module-name=libsofthsm2&module-path=/a"), None);
    assert_eq!(library("pkcs11:?module-name=softhsm"), Some("module-name"));
    assert_eq!(uri("pkcs11:?module-path=/a").differs_from_library(path, None), Some("module-path"));
    let info = |text: &str| uri(text).differs_from_info("maker", "soft", (2, 6));
    assert_eq!(info("pkcs11:library-manufacturer=maker;library-description=soft;library-version=2.6"), None);
    assert_eq!(info("pkcs11:library-version=2"), Some("library-version"));
    assert_eq!(info("pkcs11:library-manufacturer=x"), Some("library-manufacturer"));
}

/// Every byte as an escape, in either case.
fn escaped(bytes: &[u8], upper: bool) -> String {
    let escape = |byte: &u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
    bytes.iter().map(escape).collect()
}

proptest! {
    #[test]
    fn any_values_come_back_from_what_is_printed(
        token in any::<Option<String>>(),
        object in any::<Option<String>>(),
        id in any::<Option<Vec<u8>>>(),
        slot_id in any::<Option<u64>>(),
        library_version in any::<Option<(u8, u8)>>(),
        source in any::<Option<String>>(),
        vendor in proptest::collection::vec(any::<Vec<u8>>(), 0..3),
        upper in any::<bool>(),
    ) {
        let mut path = Vec::new();
        path.extend(token.as_deref().map(|token| format!("token={}", escaped(token.as_bytes(), upper))));
        path.extend(object.as_deref().map(|object| format!("object={}", escaped(object.as_bytes(), upper))));
        path.extend(id.as_deref().map(|id| format!("id={}", escaped(id, upper))));
        path.extend(slot_id.map(|id| format!("slot-id={id}")));
        path.extend(library_version.map(|(major, minor)| format!("library-version={major}.{minor}")));
        let mut query = Vec::new();
        query.extend(source.as_deref().map(|source| format!("pin-source={}", escaped(source.as_bytes(), upper))));
        query.extend(vendor.iter().map(|value| format!("x-v={}", escaped(value, upper))));
        let read = uri(&format!("pkcs11:{}?{}", path.join(";"), query.join("&")));
        prop_assert_eq!((read.token(), read.object()), (token.as_deref(), object.as_deref()));
        prop_assert_eq!((read.id(), read.slot_id()), (id.as_deref(), slot_id));
        prop_assert_eq!((read.library_version(), read.pin_source()), (library_version, source.as_deref()));
        prop_assert!(read.vendor_query_attributes().map(|(_, value)| value).eq(vendor.iter().map(Vec::as_slice)));
        prop_assert_eq!(uri(&read.to_string()), read);
    }

    #[test]
    fn no_text_panics_and_whatever_parses_comes_back_from_what_it_prints(
        text in "(pkcs11:)?([a-z-]{0,4}(token|id|type|object|slot-id|pin-value|pin-source)?=?[%a-f0-9;&?/ ü.]{0,6}[;&?]?){0,5}"
    ) {
        if let Ok(read) = text.parse::<Pkcs11Uri>() {
            prop_assert_eq!(uri(&read.to_string()), read);
        }
    }

    #[test]
    fn an_error_shows_nothing_of_a_pin(pin in "[G-Z]{6,12}", before in "[a-z;=%?&]{0,12}") {
        let text = format!("pkcs11:{before}pin-value={pin}");
        if let Err(error) = text.parse::<Pkcs11Uri>() {
            let said = format!("{error} {error:?}");
            prop_assert!(!said.contains(&pin));
        }
        if let Ok(read) = Pkcs11Uri::parse_with_pin_value(&format!("pkcs11:?pin-value={pin}")) {
            let said = format!("{read} {read:?}");
            prop_assert!(!said.contains(&pin));
        }
    }
}
