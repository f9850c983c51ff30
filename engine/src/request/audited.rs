//! What of a request, or of what is none, goes into the audit log, and how its answer waits for that.
//!
//! The answer of an operation is kept back here, on its caller's side, until its record is durable: the session is long free
//! by then. Whoever gives a request up after a session had begun it leaves a record too, for which nobody waits; so does what had
//! an intent and never began.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::RequestId;
use crate::audit::journal::{Journal, Kept};
use crate::audit::record::{Change, End, Intent, On, Record, Text, Use, Uses, What};
use crate::clock::time_of_day;
use crate::engine::audit::Book;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::pending::block_on;
use crate::sync::Mutex;

/// The record of what has started, but for how it ends. Dropped before it is settled, it was given up.
pub(crate) struct Audited {
    book: Arc<Book>,
    /// None once it has been written, or is not to be.
    what: Option<(On, Ones)>,
    /// Where it ran: the index of the token.
    token: Option<usize>,
    /// What became of its intent, if that was to be recorded.
    intent: Option<Arc<Mutex<Waiting>>>,
    /// A lane, a session or the host has it: it may have run.
    has_begun: bool,
    /// Something of it has happened and stays, whatever fails after it.
    has_changed: bool,
}

/// What is recorded: a request, those that were put together, or a change of a key.
#[derive(Clone)]
pub(crate) enum Ones {
    One(Use),
    All(Uses),
    Change(Change),
}

/// What a caller calls a request, and itself, for the audit log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Label {
    pub(crate) id: Option<RequestId>,
    pub(crate) caller: Option<Text>,
}

/// An answer that waits for its record.
#[must_use = "the answer comes when it is awaited"]
pub(crate) struct Settling<T> {
    answer: Option<Result<T>>,
    /// Whether what a good answer is of has run.
    ran: Outcome,
    /// None: there is nothing to wait for.
    kept: Option<Arc<Mutex<Waiting>>>,
}

/// What became of the record, and who waits for that.
#[derive(Default)]
struct Waiting {
    kept: Option<Result<Kept>>,
    /// Whether that is known.
    is_told: bool,
    /// Its number, once it has one.
    number: Option<u64>,
    waker: Option<Waker>,
    /// What is to follow once that is known, with its number.
    then: Option<Then>,
}

type Then = Box<dyn FnOnce(Option<u64>) + Send>;

impl Audited {
    pub(crate) fn new(book: Arc<Book>, on: On, ones: Ones) -> Self {
        book.enter();
        let (token, intent) = (None, None);
        Self { book, what: Some((on, ones)), token, intent, has_begun: false, has_changed: false }
    }

    /// From now on it may run.
    pub(crate) fn begin(audited: &mut Option<Box<Self>>) {
        if let Some(audited) = audited {
            audited.has_begun = true;
        }
    }

    /// Whether something has happened that stays: then it is not said that nothing was done.
    pub(crate) fn changes(&mut self, has_changed: bool) {
        self.has_changed = has_changed;
    }

    /// It ran on this token.
    pub(crate) fn ran_on(&mut self, token: Option<usize>) {
        self.token = token;
    }

    /// What is known of it by now, if it is a change.
    pub(crate) fn change(&mut self) -> Option<(&mut On, &mut Change)> {
        match &mut self.what {
            Some((on, Ones::Change(change))) => Some((on, change)),
            _ => None,
        }
    }

    /// Nothing of it is to be recorded, for it did not run. But if its intent was, that it did not run is, too, for which nobody
    /// waits.
    pub(crate) fn forget(audited: &mut Option<Box<Self>>) {
        Self::refuse(audited, None);
    }

    /// As [`Audited::forget`], for this reason.
    pub(crate) fn refuse(audited: &mut Option<Box<Self>>, why: Option<ErrorKind>) {
        if let Some(mut audited) = audited.take() {
            audited.did_not_run(why);
        }
    }

    /// Has the intent recorded. Of requests that were put together it is the call's, whose record says the rest.
    pub(crate) fn intend(&mut self) -> Settling<()> {
        let intent = self.what.clone().map(|(on, ones)| {
            let of = match ones {
                Ones::One(one) => Intent::Use(one),
                Ones::All(_) => Intent::Use(Use::named(None)),
                Ones::Change(change) => Intent::Change(change),
            };
            What::Intent(on, of)
        });
        let mut settling = self.append(intent, Ok(()));
        settling.ran = Outcome::NotDone;
        self.intent.clone_from(&settling.kept);
        settling
    }

    /// Keeps an answer back until its record is durable. That of what did not run waits for none: its record comes all the same,
    /// but a disk that hangs holds no one up of whom nothing was done.
    pub(crate) fn settle<T>(mut self, answer: Result<T>) -> Settling<T> {
        let (outcome, error) = match &answer {
            Ok(_) => (Outcome::Done, None),
            Err(error) => (error.outcome(), Some(error.kind())),
        };
        let outcome = match outcome {
            Outcome::NotDone if self.has_changed => Outcome::Done,
            outcome => outcome,
        };
        let what = self.take(outcome, error);
        if outcome == Outcome::NotDone {
            self.append_unwaited(what);
            return Settling::now(answer);
        }
        self.append(what, answer)
    }

    fn take(&mut self, outcome: Outcome, error: Option<ErrorKind>) -> Option<What> {
        let (on, ones) = self.what.take()?;
        let intent = self.intent.as_ref().and_then(|intent| intent.lock().number);
        Some(ones.ended(on, End { intent, token: self.book.token(self.token), outcome, error }))
    }

    /// It did not run, and will not. If its intent is in the log, or on its way there, a record that names it says so, for which
    /// nobody waits.
    fn did_not_run(&mut self, why: Option<ErrorKind>) {
        let (Some((on, ones)), Some(intent)) = (self.what.take(), &self.intent) else { return };
        let (book, token) = (Arc::clone(&self.book), self.book.token(self.token));
        // Its record is still to come.
        book.enter();
        let then = move |intent| {
            let end = End { intent, token, outcome: Outcome::NotDone, error: why };
            let what = ones.ended(on, end);
            book.journal.append(Record { time: time_of_day(), what }, |_| ());
            book.leave();
        };
        let mut waiting = intent.lock();
        if waiting.is_told {
            let number = waiting.number;
            drop(waiting);
            then(number);
        } else {
            waiting.then = Some(Box::new(then));
        }
    }

    fn append<T>(&self, what: Option<What>, answer: Result<T>) -> Settling<T> {
        match what {
            Some(what) => Settling::of(&self.book.journal, Record { time: time_of_day(), what }, answer),
            None => Settling::now(answer),
        }
    }

    fn append_unwaited(&self, what: Option<What>) {
        if let Some(what) = what {
            self.book.journal.append(Record { time: time_of_day(), what }, |_| ());
        }
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        if self.has_begun {
            // Given up while a session had it: nobody waits for the record.
            let what = self.take(Outcome::Unknown, None);
            self.append_unwaited(what);
        } else {
            self.did_not_run(None);
        }
        self.book.leave();
    }
}

impl Ones {
    /// The record of them, which ended so.
    fn ended(self, on: On, end: End) -> What {
        match self {
            Self::One(one) => What::Use(on, one, end),
            Self::All(all) => What::Uses(on, all, end),
            Self::Change(change) => What::Change(on, change, end),
        }
    }
}

impl Label {
    pub(crate) fn caller(&self) -> Option<Text> {
        self.caller.clone()
    }

    pub(crate) fn request(&self) -> Option<Box<str>> {
        self.id.map(|id| id.to_string().into())
    }
}

impl<T> Settling<T> {
    /// Has a record written, for which the answer waits unless the window of the log has room for it.
    fn of(journal: &Journal, record: Record, answer: Result<T>) -> Self {
        let Some(record) = journal.append_ahead(record) else { return Self::now(answer) };
        let kept = Arc::new(Mutex::new(Waiting::default()));
        let told = Arc::clone(&kept);
        journal.append(record, move |kept| {
            let (waker, then, number) = {
                let mut waiting = told.lock();
                if let Ok(Kept::At(number)) = kept {
                    waiting.number = Some(number);
                }
                (waiting.kept, waiting.is_told) = (Some(kept), true);
                (waiting.waker.take(), waiting.then.take(), waiting.number)
            };
            then.into_iter().for_each(|then| then(number));
            // On the log's thread: a waker that panics is caught there.
            waker.into_iter().for_each(Waker::wake);
        });
        Self { answer: Some(answer), ran: Outcome::Done, kept: Some(kept) }
    }

    /// An answer that waits for no record.
    pub(crate) const fn now(answer: Result<T>) -> Self {
        Self { answer: Some(answer), ran: Outcome::Done, kept: None }
    }

    /// Waits on this thread.
    pub(crate) fn wait(mut self) -> Result<T> {
        block_on(Pin::new(&mut self))
    }
}

impl<T> Unpin for Settling<T> {}

impl<T> Future for Settling<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        let failed = match &this.kept {
            None => None,
            Some(kept) => {
                let mut waiting = kept.lock();
                let Some(kept) = waiting.kept.take() else {
                    waiting.waker = Some(context.waker().clone());
                    return Poll::Pending;
                };
                kept.err()
            }
        };
        let answer = this.answer.take().unwrap_or_else(|| Err(crate::pending::polled_again()));
        Poll::Ready(match failed {
            None => answer,
            Some(error) => {
                let outcome = answer.as_ref().err().map_or(this.ran, Error::outcome);
                Err(unrecorded(&error, outcome))
            }
        })
    }
}

/// The error of an operation whose record could not be written: nobody gets what it has made.
fn unrecorded(error: &Error, outcome: Outcome) -> Error {
    Error::new(error.kind(), error.retry(), outcome).because(error.why())
}
