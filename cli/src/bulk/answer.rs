//! Lines of output, as bytes.

use data_encoding::BASE64;
use hsmux::{Error, ErrorKind, Outcome, Retry};
use zeroize::Zeroizing;

use super::record::{Id, Problem};

/// Why a record has no result.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// Its line is no record.
    Record(Problem),
    /// Its line was longer than allowed, and so many bytes long.
    TooLong(u64),
    /// The engine or the token.
    Engine(Error),
}

/// Lines of output. Wiped when dropped, for they may hold plaintexts.
#[derive(Default)]
pub(super) struct Answers {
    bytes: Zeroizing<Vec<u8>>,
}

impl Answers {
    /// With room for this many bytes, so that growing is rare.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(bytes)) }
    }

    /// What a line takes at most besides its id, for this many bytes of result.
    pub(super) const fn line_len(result: usize) -> usize {
        BESIDES + result.div_ceil(3) * 4
    }

    /// A line with a result under the name of its field.
    pub(super) fn result(&mut self, line: u64, id: Option<Id<'_>>, field: &str, result: &[u8]) {
        self.begin(line, id);
        self.put(field);
        self.put("\":\"");
        let (old, len) = (self.bytes.len(), BASE64.encode_len(result.len()));
        self.reserve(len);
        self.bytes.resize(old + len, 0);
        BASE64.encode_mut(result, &mut self.bytes[old..]);
        self.put("\"}\n");
    }

    /// A line that says why there is no result.
    pub(super) fn error(&mut self, line: u64, id: Option<Id<'_>>, why: &Why) {
        self.begin(line, id);
        let message = serde_json::Value::from(why.message());
        let (kind, (retry, outcome)) = (why.kind(), why.advice());
        let error = format!(
            "error\":{{\"kind\":\"{kind}\",\"message\":{message},\"retry\":\"{retry:?}\",\"outcome\":\"{outcome:?}\"}}}}\n"
        );
        self.put(&error);
    }

    /// All of it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn begin(&mut self, line: u64, id: Option<Id<'_>>) {
        self.put("{\"line\":");
        self.put(&line.to_string());
        if let Some(id) = id {
            self.put(",\"id\":");
            self.put(id.as_json());
        }
        self.put(",\"");
    }

    fn put(&mut self, text: &str) {
        self.reserve(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Makes room without leaving a copy behind, as a vector that grows by itself would.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
    }
}

/// Length of a result whose line is as long as that of most errors; a longer one makes the output grow.
pub(super) const ERROR_LEN: usize = 128;

/// `{"line":18446744073709551615,"id":,"ciphertext":""}` and its newline, rounded up.
const BESIDES: usize = 64;

impl Why {
    /// The name by which failures are counted: that of the [`ErrorKind`], or one of two more.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Record(_) => "InvalidRecord".to_owned(),
            Self::TooLong(_) => "LineTooLong".to_owned(),
            Self::Engine(error) => format!("{:?}", error.kind()),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Record(problem) => problem.to_string(),
            Self::TooLong(len) => format!("the line has {len} bytes"),
            Self::Engine(error) => error.to_string(),
        }
    }

    fn advice(&self) -> (Retry, Outcome) {
        match self {
            Self::Record(_) | Self::TooLong(_) => (Retry::Never, Outcome::NotDone),
            Self::Engine(error) => (error.retry(), error.outcome()),
        }
    }

    /// The error, if it is about the run and not about this record: every other would meet it too.
    pub(super) fn of_the_run(&self) -> Option<&Error> {
        let Self::Engine(error) = self else { return None };
        ends_the_run(error.kind()).then_some(error)
    }
}

const fn ends_the_run(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Configuration
            | ErrorKind::Module
            | ErrorKind::TokenNotFound
            | ErrorKind::TokenLost
            | ErrorKind::PinRefused
            | ErrorKind::PinLocked
            | ErrorKind::PinUnavailable
            | ErrorKind::KeyNotFound
            | ErrorKind::KeyAmbiguous
            | ErrorKind::KeyMismatch
            | ErrorKind::NotPermitted
            | ErrorKind::KeyState
            | ErrorKind::Conflict
            | ErrorKind::MechanismUnavailable
            | ErrorKind::Draining
            | ErrorKind::Forked
            | ErrorKind::Audit
    )
}

#[cfg(test)]
mod tests {
    use super::super::record::parse_record;
    use super::*;

    fn line(write: impl FnOnce(&mut Answers, Option<Id<'_>>)) -> String {
        let record = parse_record(br#"{"id":"a\"b","text":""}"#).unwrap();
        let mut answers = Answers::default();
        write(&mut answers, record.id);
        String::from_utf8(answers.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_result_is_one_line_with_number_id_and_base64() {
        let text = line(|answers, id| answers.result(7, id, "mac", b"\xff\xfe"));
        assert_eq!(text, "{\"line\":7,\"id\":\"a\\\"b\",\"mac\":\"//4=\"}\n");
        let text = line(|answers, _| answers.result(u64::MAX, None, "ciphertext", b""));
        assert_eq!(text, "{\"line\":18446744073709551615,\"ciphertext\":\"\"}\n");
    }

    #[test]
    fn an_error_tells_kind_message_retry_and_outcome() {
        let text = line(|answers, id| answers.error(7, id, &Why::Record(Problem::NotHex)));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let error = serde_json::json!({
            "kind": "InvalidRecord",
            "message": "hex is no even number of hexadecimal digits",
            "retry": "Never",
            "outcome": "NotDone",
        });
        assert_eq!(json, serde_json::json!({ "line": 7, "id": "a\"b", "error": error }));
        assert!(line(|answers, _| answers.error(1, None, &Why::TooLong(9))).contains("LineTooLong"));
    }

    #[test]
    fn a_line_of_result_has_the_room_that_is_reckoned_for_it() {
        for len in 0..100 {
            let text = line(|answers, _| answers.result(u64::MAX, None, "ciphertext", &vec![7; len]));
            assert!(text.len() + ",\"id\":".len() <= Answers::line_len(len));
        }
    }

    #[test]
    fn a_line_of_no_record_has_the_room_that_is_reckoned_for_an_error() {
        for why in [
            Why::Record(Problem::NotBase64("data")),
            Why::Record(Problem::UnknownField),
            Why::TooLong(u64::MAX),
        ] {
            let text = line(|answers, _| answers.error(u64::MAX, None, &why));
            assert!(text.len() + ",\"id\":".len() <= Answers::line_len(ERROR_LEN), "{text}");
        }
    }

    #[test]
    fn answers_without_room_grow_and_say_the_same() {
        let write = |mut answers: Answers| {
            for len in [0, 1, 100, 5_000] {
                answers.result(7, None, "plaintext", &vec![7; len]);
                answers.error(8, None, &Why::TooLong(9));
            }
            answers.as_bytes().to_vec()
        };
        assert!(write(Answers::default()) == write(Answers::with_capacity(10_000)));
    }

    #[test]
    fn what_is_about_one_record_does_not_end_the_run() {
        use ErrorKind::*;
        let of_records = [
            InvalidInput,
            TooLarge,
            Overloaded,
            DeadlineExceeded,
            DecryptFailed,
            Hung,
            SessionLost,
            Busy,
            Device,
            Internal,
        ];
        let ended = ErrorKind::ALL.iter().filter(|kind| ends_the_run(**kind)).count();
        assert_eq!(ended + of_records.len(), ErrorKind::ALL.len());
        assert!(!of_records.into_iter().any(ends_the_run));
    }
}
