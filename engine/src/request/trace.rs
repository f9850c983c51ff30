//! Spans of requests. They belong to the caller: made when the request starts, closed when its answer is collected,
//! on the threads that do so, and never while a session is leased.

use std::fmt;

use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span, debug_span};

use crate::clock::{Time, now};
use crate::error::{Error, Outcome, Result};
use crate::operation::OperationKind;

/// A caller's own name for a request, which the request's span carries: a number, or a short text.
///
/// It is for finding a request again in logs and traces and means nothing else to the engine: two requests may share
/// one. Put nothing into it that logs may not hold.
///
/// ```
/// use hsmux::RequestId;
/// assert_eq!(RequestId::from(17).to_string(), "17");
/// assert_eq!(RequestId::from("6f1c0a52-0f4e-4d5e-9d3c-51f8f7f0c1aa").to_string().len(), RequestId::TEXT_MAX);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(Id);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    Number(u64),
    Text { len: u8, bytes: [u8; RequestId::TEXT_MAX] },
}

impl RequestId {
    /// Longest text in bytes: a UUID with its hyphens. It lies in the id itself.
    pub const TEXT_MAX: usize = 36;

    fn record(&self, span: &Span) {
        match &self.0 {
            Id::Number(number) => span.record("request_id", number),
            Id::Text { .. } => span.record("request_id", self.text()),
        };
    }

    fn text(&self) -> &str {
        match &self.0 {
            // It was cut between characters.
            Id::Text { len, bytes } => std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default(),
            Id::Number(_) => "",
        }
    }
}

impl From<u64> for RequestId {
    fn from(number: u64) -> Self {
        Self(Id::Number(number))
    }
}

impl From<&str> for RequestId {
    /// A text longer than [`RequestId::TEXT_MAX`] is cut, between two characters.
    fn from(text: &str) -> Self {
        let mut len = text.len().min(Self::TEXT_MAX);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        let mut bytes = [0; Self::TEXT_MAX];
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        #[expect(clippy::cast_possible_truncation, reason = "at most TEXT_MAX")]
        let len = len as u8;
        Self(Id::Text { len, bytes })
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Number(number) => number.fmt(f),
            Id::Text { .. } => f.write_str(self.text()),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// The span of a request that somebody listens to, and its id. Where nobody listens there is none: a request holds a
/// null pointer for it.
pub(crate) struct Trace {
    id: Option<RequestId>,
    /// None before the request starts and after it has ended.
    span: Span,
    started: Time,
    ran: Option<Ran>,
}

/// How long a request queued and ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) queued_ns: u64,
    pub(crate) token_ns: u64,
}

impl Trace {
    /// Keeps a request's id for its span, if anybody may want that.
    pub(crate) fn name(trace: &mut Option<Box<Self>>, id: RequestId) {
        if may_be_wanted() {
            trace.get_or_insert_with(Self::unopened).id = Some(id);
        }
    }

    /// Opens the span of a request that starts now, if anybody wants it and it is not open yet.
    #[inline]
    pub(crate) fn start(trace: &mut Option<Box<Self>>, kind: OperationKind, size: usize) {
        if may_be_wanted() {
            Self::open(trace, kind, size);
        }
    }

    #[cold]
    fn open(trace: &mut Option<Box<Self>>, kind: OperationKind, size: usize) {
        if trace.as_ref().is_some_and(|trace| !trace.span.is_none()) {
            return;
        }
        let span = debug_span!(
            target: "hsmux::request",
            "request",
            request_id = Empty,
            operation = kind.as_str(),
            size,
            queued_us = Empty,
            token_us = Empty,
            total_us = Empty,
            outcome = Empty,
            error = Empty,
        );
        if span.is_disabled() {
            return;
        }
        let this = trace.get_or_insert_with(Self::unopened);
        this.id.iter().for_each(|id| id.record(&span));
        (this.span, this.started, this.ran) = (span, now(), None);
    }

    fn unopened() -> Box<Self> {
        Box::new(Self { id: None, span: Span::none(), started: Time::from_ns(0), ran: None })
    }

    /// Notes how the request ran. Calls no subscriber.
    pub(crate) fn ran(&mut self, ran: Option<Ran>) {
        self.ran = ran;
    }

    /// Closes the span of a request, if it has one, with what its caller gets.
    #[inline]
    pub(crate) fn end<T>(trace: &mut Option<Box<Self>>, answer: Result<T>) -> Result<T> {
        if let Some(trace) = trace {
            trace.answered(answer.as_ref().err());
        }
        answer
    }

    #[cold]
    fn answered(&mut self, error: Option<&Error>) {
        self.close(error.map_or(Outcome::Done, Error::outcome), error.map(|error| error.kind().name()));
    }

    /// Closes the span of a request that was given up after a session began it.
    pub(crate) fn abandon(&mut self) {
        self.close(Outcome::Unknown, Some(WITHDRAWN));
    }

    fn close(&mut self, outcome: Outcome, error: Option<&str>) {
        let span = std::mem::replace(&mut self.span, Span::none());
        if span.is_none() {
            return;
        }
        let total_ns = match self.ran {
            Some(Ran { queued_ns, token_ns }) => {
                span.record("queued_us", us(queued_ns)).record("token_us", us(token_ns));
                queued_ns + token_ns
            }
            None => now().ns_since(self.started),
        };
        span.record("total_us", us(total_ns)).record("outcome", outcome.name());
        if let Some(error) = error {
            span.record("error", error);
        }
    }
}

/// What a span has for an error when its request was given up.
const WITHDRAWN: &str = "withdrawn";

impl Drop for Trace {
    fn drop(&mut self) {
        // Given up before a session began it, if it is open still.
        self.close(Outcome::NotDone, Some(WITHDRAWN));
    }
}

/// Whether any subscriber of the process takes spans of this level: a load and a branch, all that most processes pay.
pub(super) fn may_be_wanted() -> bool {
    Level::DEBUG <= LevelFilter::current()
}

/// As a float: exact up to 104 days.
fn us(ns: u64) -> f64 {
    ns as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(RequestId::from("abc").to_string(), "abc");
        assert_eq!(RequestId::from(&*"é".repeat(20)).to_string(), "é".repeat(18));
        assert_eq!(RequestId::from(&*format!("a{}", "é".repeat(20))).to_string().len(), 35);
        assert_eq!(RequestId::from("").to_string(), "");
    }
}
