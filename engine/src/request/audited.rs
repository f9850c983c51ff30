//! What of a request goes into the audit log, and how its answer waits for that.
//!
//! The answer of an operation is kept back here, on its caller's side, until its record is durable: the session is long free
//! by then. Whoever gives a request up after a session had begun it leaves a record too, for which nobody waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::audit::journal::{Journal, Kept};
use crate::audit::record::{End, On, Record, Use, Uses, What};
use crate::clock::time_of_day;
use crate::engine::audit::Book;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::pending::block_on;
use crate::sync::Mutex;

/// The record of a request that has started, but for how it ends. Dropped before it is settled, it was given up.
pub(crate) struct Audited {
    book: Arc<Book>,
    /// None once it has been written, or is not to be.
    what: Option<(On, Ones)>,
    /// Where it ran: the index of the token.
    token: Option<usize>,
}

/// The request that is recorded, or those that were put together.
#[derive(Clone)]
pub(crate) enum Ones {
    One(Use),
    All(Uses),
}

/// An answer that waits for its record.
#[must_use = "the answer comes when it is awaited"]
pub(crate) struct Settling<T> {
    answer: Option<Result<T>>,
    kept: Arc<Mutex<Waiting>>,
}

/// What became of the record, and who waits for that.
#[derive(Default)]
struct Waiting {
    kept: Option<Result<Kept>>,
    waker: Option<Waker>,
}

impl Audited {
    pub(crate) fn new(book: Arc<Book>, on: On, ones: Ones) -> Self {
        book.journal.under_way().enter();
        Self { book, what: Some((on, ones)), token: None }
    }

    /// It ran on this token.
    pub(crate) fn ran_on(&mut self, token: Option<usize>) {
        self.token = token;
    }

    /// Nothing of it is to be recorded: it did not run.
    pub(crate) fn forget(audited: &mut Option<Box<Self>>) {
        if let Some(mut audited) = audited.take() {
            audited.what = None;
        }
    }

    /// Has the intent recorded. Of requests that were put together it is the call's, whose record says the rest.
    pub(crate) fn intend(&self) -> Settling<()> {
        let intent = self.what.clone().map(|(on, ones)| match ones {
            Ones::One(one) => What::Intent(on, one),
            Ones::All(_) => What::Intent(on, Use::unnamed()),
        });
        self.append(intent, Ok(()))
    }

    /// Keeps an answer back until its record is durable. What did not run has none.
    pub(crate) fn settle<T>(mut self, answer: Result<T>) -> Settling<T> {
        let (outcome, error) = match &answer {
            Ok(_) => (Outcome::Done, None),
            Err(error) => (error.outcome(), Some(error.kind())),
        };
        let what = self.take(outcome, error);
        self.append(what, answer)
    }

    fn take(&mut self, outcome: Outcome, error: Option<ErrorKind>) -> Option<What> {
        let (on, ones) = self.what.take()?;
        let end = End { token: self.book.token(self.token), outcome, error };
        Some(match ones {
            Ones::One(one) => What::Use(on, one, end),
            Ones::All(all) => What::Uses(on, all, end),
        })
    }

    fn append<T>(&self, what: Option<What>, answer: Result<T>) -> Settling<T> {
        match what {
            Some(what) => Settling::of(&self.book.journal, Record { time: time_of_day(), what }, answer),
            None => Settling::now(answer),
        }
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        // Given up while a session had it: nobody waits for the record.
        if let Some(what) = self.take(Outcome::Unknown, None) {
            self.book.journal.append(Record { time: time_of_day(), what }, |_| ());
        }
        self.book.journal.under_way().leave();
    }
}

impl<T> Settling<T> {
    /// Has a record written, for which the answer waits.
    pub(crate) fn of(journal: &Journal, record: Record, answer: Result<T>) -> Self {
        let kept = Arc::new(Mutex::new(Waiting::default()));
        let told = Arc::clone(&kept);
        journal.append(record, move |kept| {
            let waker = {
                let mut waiting = told.lock();
                waiting.kept = Some(kept);
                waiting.waker.take()
            };
            // On the log's thread: a waker that panics is caught there.
            waker.into_iter().for_each(Waker::wake);
        });
        Self { answer: Some(answer), kept }
    }

    /// An answer without a record.
    pub(crate) fn now(answer: Result<T>) -> Self {
        let kept = Arc::new(Mutex::new(Waiting { kept: Some(Ok(Kept::Shed)), waker: None }));
        Self { answer: Some(answer), kept }
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
        let mut waiting = this.kept.lock();
        match waiting.kept.take() {
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(kept) => {
                drop(waiting);
                let answer = this.answer.take().unwrap_or_else(|| Err(crate::pending::polled_again()));
                Poll::Ready(match kept {
                    Ok(_) => answer,
                    Err(error) => Err(unrecorded(&error, &answer)),
                })
            }
        }
    }
}

/// The error of an operation whose record could not be written: nobody gets what it has made.
fn unrecorded<T>(error: &Error, answer: &Result<T>) -> Error {
    let outcome = answer.as_ref().err().map_or(Outcome::Done, Error::outcome);
    Error::new(error.kind(), error.retry(), outcome).because(error.why())
}
