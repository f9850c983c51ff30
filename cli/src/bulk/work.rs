//! A chunk of lines becomes lines of output: taken apart, run by the engine, written down.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::StreamExt;
use futures::executor::block_on;
use futures::stream;
use hsmux::{
    Cipher, Decrypt, Encrypt, Error, ErrorKind, Key, Many, Operation, Outcome, Request, Result, Retry, Sign,
    SignAlgorithm, pipeline,
};

use super::answer::{Answers, ERROR_LEN, Why};
use super::input::Job;
use super::lines::{Chunk, Line};
use super::record::{Id, Problem, Record, RecordError, parse_record};
use super::room::Held;
use super::tally::Tally;

/// What is done with every record.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Sign(SignAlgorithm),
    Mac(SignAlgorithm),
    Encrypt(Cipher),
    Decrypt(Cipher),
}

/// Runs chunks.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) key: Key,
    pub(super) task: Task,
}

/// A chunk that was run.
pub(super) struct Done {
    pub(super) answers: Answers,
    pub(super) tally: Tally,
    /// Why the run cannot go on. The answers are those of the lines before.
    pub(super) end: Option<Error>,
    /// Given back when this is dropped, after the answers were written.
    pub(super) _room: Held,
}

/// How requests are made of records.
trait Ask {
    type Operation: Operation<Output: AsRef<[u8]>>;

    /// The field of the result.
    const FIELD: &'static str;

    fn one<'a>(&'a self, record: &'a Record<'_>) -> Request<'a, Self::Operation>;

    /// All in one batch, if they may differ in their input only.
    fn many<'a>(&'a self, records: &'a [Record<'_>]) -> Option<Many<'a, Self::Operation>>;

    /// Whether records may have additional data.
    fn takes_aad(&self) -> bool;
}

/// How often a record is tried again here that did not run and may be. The engine has tried it twice by then, so a
/// few times more tell a token in trouble from a moment's trouble; the rest is for the error's reader to decide.
const TRIES: usize = 3;

impl Worker {
    /// Runs a chunk; nothing comes out if that panics, so that whoever waits for this chunk hears of it.
    pub(super) fn run(&self, job: Job) -> Option<Done> {
        catch_unwind(AssertUnwindSafe(|| self.answer(job))).ok()
    }

    fn answer(&self, job: Job) -> Done {
        let key = &self.key;
        match &self.task {
            Task::Sign(how) => run(&Signing::<false> { key, how: how.clone() }, job),
            Task::Mac(how) => run(&Signing::<true> { key, how: how.clone() }, job),
            Task::Encrypt(how) => run(&Encrypting { key, how }, job),
            Task::Decrypt(how) => run(&Decrypting { key, how }, job),
        }
    }
}

fn run<A: Ask>(ask: &A, job: Job) -> Done {
    let Job { chunk, room, .. } = job;
    let first = chunk.first;
    let (parsed, records) = parse(&chunk, ask.takes_aad());
    let results = run_all(ask, &records);
    let lens = results.iter().map(|result| result.as_ref().map_or(ERROR_LEN, |output| output.as_ref().len()));
    let mut answers = Answers::with_capacity(answers_len(&chunk, lens));
    let mut tally = Tally::default();
    let mut results = records.iter().zip(results);
    for (line, parsed) in (first..).zip(parsed) {
        let (id, why) = match parsed {
            Err((id, why)) => (id, why),
            // As many results as records: every record has one.
            Ok(()) => match results.next() {
                Some((record, Ok(output))) => {
                    answers.result(line, record.id, A::FIELD, output.as_ref());
                    tally.succeeded();
                    continue;
                }
                Some((record, Err(error))) => (record.id, Why::Engine(error)),
                None => break,
            },
        };
        if let Some(error) = why.of_the_run() {
            return Done { answers, tally, end: Some(error.clone()), _room: room };
        }
        answers.error(line, id, &why);
        tally.failed(why.kind());
    }
    Done { answers, tally, end: None, _room: room }
}

/// Bytes that the answers of a chunk take at most, unless an error is unusually long, by the lengths of what its
/// records came to. All other lines have errors.
fn answers_len(chunk: &Chunk, results: impl ExactSizeIterator<Item = usize>) -> usize {
    let bad = chunk.len() - results.len();
    let lens = results.chain(std::iter::repeat_n(ERROR_LEN, bad));
    // What the lines take covers their ids.
    chunk.bytes() + lens.map(Answers::line_len).sum::<usize>()
}

/// A line that is a record, or why it is none.
type Parsed<'a> = std::result::Result<(), (Option<Id<'a>>, Why)>;

/// What each line is, and the records of those that are.
fn parse(chunk: &Chunk, takes_aad: bool) -> (Vec<Parsed<'_>>, Vec<Record<'_>>) {
    let mut records = Vec::with_capacity(chunk.len());
    let parsed = chunk.lines().map(|line| {
        let bytes = match line {
            Line::Here(bytes) => bytes,
            Line::TooLong(len) => return Err((None, Why::TooLong(len))),
        };
        let record = parse_record(bytes).and_then(|record| match record {
            Record { aad: Some(_), id, .. } if !takes_aad => {
                Err(RecordError { id, problem: Problem::AadNotTaken })
            }
            record => Ok(record),
        });
        record.map(|record| records.push(record)).map_err(|error| (error.id, Why::Record(error.problem)))
    });
    (parsed.collect(), records)
}

/// A result for each record, in order.
fn run_all<A: Ask>(ask: &A, records: &[Record<'_>]) -> Vec<Result<<A::Operation as Operation>::Output>> {
    let Some(window) = std::num::NonZeroUsize::new(records.len()) else { return Vec::new() };
    let results: Vec<_> = match ask.many(records) {
        // As with the others, time counts from when a record is put in flight, however many there are.
        Some(many) => many.deadline_from_flight().wait_for_room().wait(),
        None => {
            let requests = records.iter().map(|record| ask.one(record));
            block_on(pipeline(stream::iter(requests), window).collect())
        }
    };
    let again = |(record, result): (&Record<'_>, _)| try_again(ask, record, result);
    records.iter().zip(results).map(again).collect()
}

/// Tries a record again that did not run, while that may help.
fn try_again<A: Ask>(
    ask: &A,
    record: &Record<'_>,
    mut result: Result<<A::Operation as Operation>::Output>,
) -> Result<<A::Operation as Operation>::Output> {
    for _ in 0..TRIES {
        match &result {
            Err(error) if is_passing(error) => {}
            _ => break,
        }
        // In the queue, never on this thread: a call that hangs would keep it for ever.
        let request = ask.one(record).wait_for_room();
        result = request.submit().map_err(|refused| refused.error).and_then(hsmux::Pending::wait);
    }
    result
}

fn is_passing(error: &Error) -> bool {
    error.outcome() == Outcome::NotDone
        && matches!(error.retry(), Retry::Now | Retry::Later)
        && error.kind() != ErrorKind::DeadlineExceeded
}

struct Signing<'k, const MAC: bool> {
    key: &'k Key,
    how: SignAlgorithm,
}

struct Encrypting<'k> {
    key: &'k Key,
    how: &'k Cipher,
}

struct Decrypting<'k> {
    key: &'k Key,
    how: &'k Cipher,
}

impl<const MAC: bool> Ask for Signing<'_, MAC> {
    type Operation = Sign;
    const FIELD: &'static str = if MAC { "mac" } else { "signature" };

    fn one<'a>(&'a self, record: &'a Record<'_>) -> Request<'a, Sign> {
        self.key.sign(self.how.clone(), record.input.as_slice())
    }

    fn many<'a>(&'a self, records: &'a [Record<'_>]) -> Option<Many<'a, Sign>> {
        Some(self.key.sign_many(self.how.clone(), records.iter().map(|record| record.input.as_slice())))
    }

    fn takes_aad(&self) -> bool {
        false
    }
}

impl Ask for Encrypting<'_> {
    type Operation = Encrypt;
    const FIELD: &'static str = "ciphertext";

    fn one<'a>(&'a self, record: &'a Record<'_>) -> Request<'a, Encrypt> {
        self.key.encrypt(with_aad(self.how, record), record.input.as_slice())
    }

    fn many<'a>(&'a self, records: &'a [Record<'_>]) -> Option<Many<'a, Encrypt>> {
        let inputs = records.iter().map(|record| record.input.as_slice());
        are_bare(records).then(|| self.key.encrypt_many(self.how.clone(), inputs))
    }

    fn takes_aad(&self) -> bool {
        matches!(self.how, Cipher::AesGcm(_))
    }
}

impl Ask for Decrypting<'_> {
    type Operation = Decrypt;
    const FIELD: &'static str = "plaintext";

    fn one<'a>(&'a self, record: &'a Record<'_>) -> Request<'a, Decrypt> {
        self.key.decrypt(with_aad(self.how, record), record.input.as_slice())
    }

    fn many<'a>(&'a self, records: &'a [Record<'_>]) -> Option<Many<'a, Decrypt>> {
        let inputs = records.iter().map(|record| record.input.as_slice());
        are_bare(records).then(|| self.key.decrypt_many(self.how.clone(), inputs))
    }

    fn takes_aad(&self) -> bool {
        matches!(self.how, Cipher::AesGcm(_))
    }
}

fn are_bare(records: &[Record<'_>]) -> bool {
    records.iter().all(|record| record.aad.is_none())
}

fn with_aad(how: &Cipher, record: &Record<'_>) -> Cipher {
    match (how, &record.aad) {
        (Cipher::AesGcm(gcm), Some(aad)) => gcm.clone().aad(Arc::<[u8]>::from(aad.as_slice())).into(),
        _ => how.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::{Limits, Lines};
    use super::*;

    #[test]
    fn bad_lines_between_records_have_the_room_that_is_reckoned() {
        let limits = Limits { line_max: 50, chunk_lines: 4, chunk_bytes: 1_000 };
        let bad = "{\"id\":123456789,\"data\":\"!\"}";
        let input = format!("\n{bad}\n{}\n{{\"id\":7,\"text\":\"a\"}}\n", "x".repeat(60));
        let chunk = Lines::new(limits, 0).push(&mut input.as_bytes()).unwrap();
        let (parsed, records) = parse(&chunk, false);
        let mut answers = Answers::default();
        for line in parsed {
            match line {
                Ok(()) => answers.result(u64::MAX, records[0].id, "plaintext", &[7; 100]),
                Err((id, why)) => answers.error(u64::MAX, id, &why),
            }
        }
        let room = answers_len(&chunk, [100].into_iter());
        assert!(answers.as_bytes().len() <= room, "{} in {room}", answers.as_bytes().len());
    }
}
