use proptest::prelude::*;

use super::*;

fn problem(line: &str) -> Problem {
    parse_record(line.as_bytes()).unwrap_err().problem
}

fn id(line: &str) -> Option<&str> {
    match parse_record(line.as_bytes()) {
        Ok(record) => record.id.map(Id::as_json),
        Err(error) => error.id.map(Id::as_json),
    }
}

#[test]
fn input_is_base64_text_or_hexadecimal() {
    let lines = [
        r#"{"data":"cGF5"}"#,
        r#"{"text":"pay"}"#,
        r#"{"hex":"706179"}"#,
        r#" { "text" : "\u0070ay" } "#,
        "{\"d\\u0061ta\":\"cGF5\"}\r",
    ];
    for line in lines {
        assert_eq!(parse_record(line.as_bytes()).unwrap().input.as_slice(), b"pay", "{line}");
    }
    let escaped = parse_record(br#"{"data":"\/\/8=","aad":""}"#).unwrap();
    assert_eq!((escaped.input.as_slice(), escaped.aad.unwrap().len()), (&[0xff, 0xff][..], 0));
    assert!(parse_record(br#"{"data":""}"#).unwrap().input.is_empty());
}

#[test]
fn an_id_is_any_scalar_and_comes_back_as_it_was_written() {
    for scalar in ["7", "-0.10e+5", "123456789012345678901234567890", "null", "true", r#""a\"\u00e9""#] {
        assert_eq!(id(&format!(r#"{{"id": {scalar} ,"text":""}}"#)), Some(scalar));
    }
    assert_eq!(id(r#"{"text":""}"#), None);
}

#[test]
fn what_is_no_record_is_refused_with_the_reason() {
    let refused = [
        ("", Problem::Empty),
        (" \r", Problem::Empty),
        ("[]", Problem::NotAnObject),
        ("7", Problem::NotAnObject),
        (r#"{"text":"a"} x"#, Problem::NotJson(14)),
        (r#"{"text":"a""#, Problem::NotJson(11)),
        ("{\"text\":\"a\tb\"}", Problem::NotJson(10)),
        (r#"{"text":"a","to":"b"}"#, Problem::UnknownField),
        (r#"{"text":"a","text":"b"}"#, Problem::Twice("text")),
        (r#"{"id":1,"id":1,"text":"a"}"#, Problem::Twice("id")),
        (r#"{"text":"a","aad":"","aad":""}"#, Problem::Twice("aad")),
        (r#"{"text":"a","hex":""}"#, Problem::SeveralInputs),
        (r#"{"id":1}"#, Problem::NoInput),
        (r#"{"id":[1],"text":"a"}"#, Problem::IdNotScalar),
        (r#"{"id":"\ud800","text":"a"}"#, Problem::NotText("id")),
        (r#"{"text":"\ud800"}"#, Problem::NotText("text")),
        (r#"{"text":7}"#, Problem::NotAString("text")),
        (r#"{"data":null}"#, Problem::NotAString("data")),
        (r#"{"data":"cGF"}"#, Problem::NotBase64("data")),
        (r#"{"data":"cGE=cGE="}"#, Problem::NotBase64("data")),
        (r#"{"data":"cGF5","aad":"-_=="}"#, Problem::NotBase64("aad")),
        (r#"{"hex":"7"}"#, Problem::NotHex),
    ];
    for (line, why) in refused {
        assert_eq!(problem(line), why, "{line}");
    }
    let broken = parse_record(b"{\"text\":\"\xff\"}").unwrap_err();
    assert!(matches!(broken.problem, Problem::NotJson(_)));
    assert!(matches!(problem(&"[".repeat(100_000)), Problem::NotAnObject));
    assert!(matches!(problem(&format!("{{\"id\":{}", "[".repeat(100_000))), Problem::NotJson(_)));
}

#[test]
fn the_id_of_a_bad_record_is_told_if_it_can_be_read() {
    assert_eq!(id(r#"{"id":7,"data":"!"}"#), Some("7"));
    assert_eq!(id(r#"{"to":{"a":[1]},"id":7}"#), Some("7"));
    assert_eq!(id(r#"{"id":7,"data":"#), Some("7"));
    assert_eq!(id(r#"{"id":7,"id":8}"#), None);
}

#[test]
fn no_message_and_no_debug_form_shows_what_the_line_holds() {
    let lines = [
        r#"{"4929":"4929"}"#,
        r#"{"text":4929}"#,
        r#"{"data":"4929!"}"#,
        r#"{"text":"4929" 4929"#,
        r#"{"id":{"a":4929}}"#,
    ];
    for line in lines {
        let error = parse_record(line.as_bytes()).unwrap_err();
        assert!(!format!("{} {error:?}", error.problem).contains("4929"), "{line}");
    }
    let record = parse_record(br#"{"id":4929,"text":"4929","aad":"4929"}"#).unwrap();
    assert!(!format!("{record:?} {:?}", record.id).contains("4929"));
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_record(&line);
    }

    #[test]
    fn no_line_of_json_parts_makes_it_panic(parts in proptest::collection::vec(
        prop_oneof!["[{}\\[\\]:,]", "\"(id|data|text|hex|aad)\"", "\"[A-Za-z0-9+/=\\\\u]{0,6}\"", "[0-9.eE+-]{1,5}"],
        0..20,
    )) {
        let _ = parse_record(parts.concat().as_bytes());
    }

    #[test]
    fn escapes_mean_what_they_mean_to_any_other_reader_of_json(parts in proptest::collection::vec(
        prop_oneof![
            "\\\\[\"\\\\/bfnrt]",
            "\\\\u[0-9a-fA-F]{4}",
            "\\\\u[dD][89abAB][0-9a-f]{2}\\\\u[dD][c-fC-F][0-9a-f]{2}",
            "\\\\u[dD][89a-f][0-9a-f]{2}",
            "[a-zé€]{0,3}",
        ],
        0..8,
    )) {
        let raw = format!("\"{}\"", parts.concat());
        let record = format!("{{\"text\":{raw}}}");
        let read = parse_record(record.as_bytes()).map(|record| record.input.to_vec()).map_err(|error| error.problem);
        let inner = &raw[1..raw.len() - 1];
        prop_assert!(unescaped(inner).is_none_or(|text| text.capacity() == inner.len()), "it grew");
        let other = serde_json::from_str::<String>(&raw).map(String::into_bytes);
        prop_assert_eq!(read, other.map_err(|_| Problem::NotText("text")));
    }

    #[test]
    fn every_input_and_id_comes_back(input in proptest::collection::vec(any::<u8>(), 0..200), id in any::<String>()) {
        let id = serde_json::to_string(&id).unwrap();
        let line = format!(r#"{{"id":{id},"data":"{}"}}"#, BASE64.encode(&input));
        let record = parse_record(line.as_bytes()).unwrap();
        prop_assert_eq!(record.input.as_slice(), input.as_slice());
        prop_assert_eq!(record.id.map(Id::as_json), Some(id.as_str()));
    }
}
