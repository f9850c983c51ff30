//! What the families share: an engine with keys, ways to ask, and the count of a file.

use std::collections::BTreeMap;

use hsmux::{Engine, Error, ErrorKind, Operation, Outcome, Request, Retry};
use hsmux_tests::{LONG, Ready};
use softhsm_fixtures::{CustomKey, PIN, SoftHsm};

/// How many ask at once in the second pass over a file.
pub(crate) const CALLERS: usize = 64;

/// Wrong vectors of one file that are told; all are counted.
const WRONG_SHOWN: usize = 5;

/// Keys with their labels.
pub(crate) type Keys = Vec<(String, CustomKey)>;

/// An engine on a new token that holds these keys for as long as the process lives.
pub(crate) fn engine(keys: &[(String, CustomKey)]) -> Option<Engine> {
    builder(keys).map(|builder| builder.build().unwrap())
}

/// As [`engine`], to be built.
pub(crate) fn builder(keys: &[(String, CustomKey)]) -> Option<Ready> {
    let softhsm = SoftHsm::for_tests()?;
    let token = softhsm.unique_token();
    token.import_volatile(keys.iter().map(|(label, key)| (label.as_str(), key)));
    Some(builder_on(softhsm, [token.label()]))
}

/// Begins to build an engine on tokens. Nobody here waits for a deadline: it may take long on a machine with other
/// work.
pub(crate) fn builder_on<'a>(softhsm: &SoftHsm, tokens: impl IntoIterator<Item = &'a str>) -> Ready {
    let engine = Engine::builder().module(softhsm.module()).tokens(tokens).pin(PIN);
    engine.sessions(2).deadline(Some(LONG))
}

/// Adds a key that is not there yet, and returns its label, which says its material.
pub(crate) fn add(keys: &mut Keys, family: &str, material: &[u8], key: impl FnOnce() -> CustomKey) -> String {
    let label = format!("{family} {}", to_hex(material));
    if !keys.iter().any(|(known, _)| *known == label) {
        keys.push((label.clone(), key()));
    }
    label
}

/// How an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// On the caller's own thread, if a session is idle.
    Inline,
    /// By a worker.
    Queued,
    /// By a worker, and waited for later.
    Submitted,
    /// As a future.
    Awaited,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Inline, Self::Queued, Self::Submitted, Self::Awaited];

    pub(crate) fn of<O: Operation>(self, request: Request<'_, O>) -> hsmux::Result<O::Output> {
        match self {
            Self::Inline => request.deadline(None).wait(),
            Self::Queued => request.wait(),
            Self::Submitted => {
                request.submit().map_err(|refused| refused.error).and_then(hsmux::Pending::wait)
            }
            Self::Awaited => futures::executor::block_on(request.into_future()),
        }
    }
}

/// How a vector came out, if it did not come out wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// As the vector says.
    Right,
    /// It could not be tried, and why.
    Skipped(&'static str),
}

/// A vector that came out wrong, and how; or how it came out.
pub(crate) type Found = Result<Seen, String>;

/// The vectors of one file or section, counted.
pub(crate) struct Tally {
    name: String,
    passed: usize,
    skipped: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Tally {
    /// Tries every vector twice: one after the other, inline; then all at once from [`CALLERS`] threads, in every
    /// way. A vector passes if it comes out right both times.
    pub(crate) fn of<V: Sync>(name: &str, vectors: &[V], check: impl Fn(&V, Way) -> Found + Sync) -> Self {
        let mut tally =
            Self { name: name.to_owned(), passed: 0, skipped: BTreeMap::new(), wrong: Vec::new() };
        let alone: Vec<Found> = vectors.iter().map(|vector| check(vector, Way::Inline)).collect();
        let mut together: Vec<(usize, Found)> = std::thread::scope(|scope| {
            let callers = (0..CALLERS).zip(Way::ALL.into_iter().cycle()).map(|(caller, way)| {
                let (own, check) = (vectors.iter().enumerate().skip(caller).step_by(CALLERS), &check);
                scope
                    .spawn(move || own.map(|(place, vector)| (place, check(vector, way))).collect::<Vec<_>>())
            });
            // All are started before the first is waited for.
            let callers: Vec<_> = callers.collect();
            callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
        });
        together.sort_by_key(|&(place, _)| place);
        assert_eq!(together.len(), alone.len(), "{name}: an answer is missing");
        for (alone, (place, together)) in alone.into_iter().zip(together) {
            match (alone, together) {
                (Ok(Seen::Right), Ok(Seen::Right)) => tally.passed += 1,
                (Ok(Seen::Skipped(why)), Ok(again)) if again == Seen::Skipped(why) => {
                    *tally.skipped.entry(why).or_default() += 1;
                }
                (alone, together) => {
                    tally.wrong.push(format!("{place}: alone {alone:?}, under load {together:?}"));
                }
            }
        }
        tally
    }

    /// What is wrong, if anything is: vectors, or the row of `tests/VECTORS.md`.
    fn problem(&self) -> Option<String> {
        let skipped: usize = self.skipped.values().sum();
        let reasons: Vec<_> = self.skipped.iter().map(|(why, count)| format!("{count} {why}")).collect();
        let total = self.passed + skipped + self.wrong.len();
        let row = format!("| {} | {total} | {} | {} |", self.name, self.passed, reasons.join("; "));
        eprintln!("{row}");
        if !self.wrong.is_empty() {
            let first: Vec<_> = self.wrong.iter().take(WRONG_SHOWN).map(String::as_str).collect();
            return Some(format!("{}: {} wrong\n{}", self.name, self.wrong.len(), first.join("\n")));
        }
        let listed = include_str!("../../VECTORS.md").lines().any(|line| line == row);
        (!listed).then(|| format!("tests/VECTORS.md has another row, or none, for\n{row}"))
    }
}

/// # Panics
/// If a vector came out wrong, or `tests/VECTORS.md` has no row with these counts.
pub(crate) fn finish(tallies: &[Tally]) {
    let problems: Vec<_> = tallies.iter().filter_map(Tally::problem).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Right if both are the same.
pub(crate) fn same(what: &str, got: &[u8], wanted: &[u8]) -> Found {
    let differ = || format!("{what}: {} where {} is wanted", to_hex(got), to_hex(wanted));
    if got == wanted { Ok(Seen::Right) } else { Err(differ()) }
}

/// Right if the ciphertext was refused as every bad one is.
pub(crate) fn refused_as_ciphertext<T>(result: hsmux::Result<T>) -> Found {
    match result {
        Ok(_) => Err("a bad ciphertext was accepted".into()),
        Err(error) if is_decrypt_failed(&error) => Ok(Seen::Right),
        Err(error) => Err(format!("refused, but as {error:?}")),
    }
}

/// Whether the error is the one of every bad ciphertext, without any detail.
pub(crate) fn is_decrypt_failed(error: &Error) -> bool {
    (error.kind(), error.retry(), error.outcome()) == (ErrorKind::DecryptFailed, Retry::Never, Outcome::Done)
        && error.to_string() == ErrorKind::DecryptFailed.as_str()
}

/// The text of an error, for [`Found`].
pub(crate) fn text(error: Error) -> String {
    format!("{error:?}")
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of hexadecimal digits with blanks between them.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}
