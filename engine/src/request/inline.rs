//! The inline way: a blocking caller without a deadline runs its request itself, on a session it leases.

use std::cell::Cell;
use std::sync::Arc;

use super::queue::plan;
use super::{Audited, Ran, Request};
use crate::clock::now;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{Operation, Scratch};
use crate::payload::Payload;
use crate::schedule::core::LaneRef;
use crate::schedule::cost::merged;
use crate::schedule::node::may_repeat;
use crate::schedule::seat::{Seat, Work};
use crate::sync::Ordering;
use crate::sync::plain::AtomicUsize;
use crate::token::hold::When;
use crate::token::session::{Failed, Fate};

thread_local! {
    /// The seat that this thread had last: it is asked for again first, because its lines are in this core's
    /// cache and no other caller's.
    static LAST: Cell<(usize, usize)> = Cell::new(begin());
}

/// Where a thread looks first for a seat: each at another token, so that the callers of two tokens, or of two
/// instances of a module, do not all meet at the first while the others idle.
fn begin() -> (usize, usize) {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    (THREADS.fetch_add(1, Ordering::Relaxed), 0)
}

/// The token that this thread's last request of its own ran on.
pub(super) fn last_token() -> usize {
    LAST.get().0
}

impl<O: Operation> Request<'_, O> {
    /// Runs the request on this thread; `None` if no session of the eligible set is idle or something is
    /// queued for it.
    pub(super) fn run_inline(&mut self, mask: u64) -> Option<Result<O::Output>> {
        let seat = self.lease(mask)?;
        let mut output = Payload::zeroed(self.ask.output_len(self.key_kind(), self.input.len()));
        Some(self.run_on(seat, &mut output).and_then(|len| {
            output.truncate(len);
            (self.build)(&self.ask, std::mem::take(&mut *output))
        }))
    }

    /// As [`Request::run_inline`], into the caller's memory if that has room for what the module may want.
    #[inline]
    pub(super) fn run_inline_into(&mut self, mask: u64, out: &mut [u8]) -> Option<Result<usize>> {
        let output_len = self.ask.output_len(self.key_kind(), self.input.len());
        let seat = self.lease(mask)?;
        match out.get_mut(..output_len) {
            Some(out) => Some(self.run_on(seat, out)),
            None => {
                let mut output = Payload::zeroed(output_len);
                Some(
                    self.run_on(seat, &mut output).inspect(|&len| out[..len].copy_from_slice(&output[..len])),
                )
            }
        }
    }

    #[inline]
    fn lease(&self, mask: u64) -> Option<Box<Seat>> {
        let seat = self.shared.core.lease_inline(mask, LAST.get())?;
        LAST.set((seat.place.token, seat.place.index));
        Some(seat)
    }

    /// Runs the request on a leased seat and gives that back. `output` has the length that the ask wants.
    #[inline]
    fn run_on(&mut self, mut seat: Box<Seat>, output: &mut [u8]) -> Result<usize> {
        self.ask.bind(&self.input);
        let core = &self.shared.core;
        let Some(call) = self.ask.call() else {
            core.release(seat);
            return Err(Error::internal("an operation without a call"));
        };
        let mut scratch = Scratch::new();
        let input = self.ask.encode(&self.input, &mut scratch);
        let handles = self.key.map(|version| &*version.handles);
        Audited::begin(&mut self.audited);
        if let Some(audited) = &mut self.audited {
            audited.ran_on(Some(seat.place.token));
        }
        let start = now();
        seat.watch.enter_inline(start);
        // Nothing waits, or there would have been no lease.
        let when = When { at: start, may_hold: true };
        let result = seat.session.run_all((call, self.ask.parts()), handles, input, output, when);
        let end = now();
        seat.watch.leave_inline();
        if let Some(trace) = &mut self.trace {
            trace.ran(Some(Ran { queued_ns: 0, token_ns: end.ns_since(start) }));
        }
        match result {
            Ok(written) => {
                self.count(&seat, end.ns_since(start));
                core.release(seat);
                self.ask.finish(self.key_kind(), output, written)
            }
            Err(failed) => {
                let token = seat.place.token;
                core.note_failure(&seat, &failed, || Arc::as_ptr(&self.own_lane()).addr());
                let Failed { error, fate } = failed;
                self.count_failure(&seat, error.kind(), fate);
                // A token that is taken out gets nothing more to do by a retry.
                let may_try = fate == Fate::Eject
                    || !may_repeat(&error, self.repeats())
                    || core.tokens[token].retries(&error);
                let error = if may_try { error } else { error.for_good() };
                match fate {
                    Fate::Keep => core.release(seat),
                    fate => core.retire(seat, fate, Work::default()),
                }
                if self.requests > 1 {
                    self.demote(token, error.kind(), end.as_ns());
                }
                Err(error)
            }
        }
    }

    /// It was carried out.
    #[inline]
    fn count(&self, seat: &Seat, token_ns: u64) {
        let requests = u64::from(self.requests);
        seat.recorder.served_inline(self.ask.kind(), requests, token_ns);
        let plan = plan(self.ask.kind().index(), self.key_kind());
        if requests == 1 {
            return seat.meter.served(plan, 1, token_ns);
        }
        seat.meter.served(merged(plan), requests, token_ns);
        seat.recorder.merged(requests);
        self.own_lane().demotion.succeeded();
    }

    /// It has failed.
    #[cold]
    fn count_failure(&self, seat: &Seat, error: ErrorKind, fate: Fate) {
        // Of those that were put together each runs by itself now, and has its own error if it has one.
        if self.requests == 1 || fate != Fate::Keep {
            seat.recorder.failed(self.ask.kind(), error);
        }
        if self.requests > 1 {
            seat.recorder.merge_failed();
        }
        seat.meter.failed(error);
    }

    /// A call for several requests has failed. Not while a session is leased: log subscribers are user code.
    #[cold]
    fn demote(&self, token: usize, error: ErrorKind, now_ns: u64) {
        let demoted = self.own_lane().demotion.failed(now_ns);
        tracing::warn!(token, ?error, demoted, "a merged call failed");
    }

    /// Where it would wait.
    fn own_lane(&self) -> LaneRef {
        self.shared.core.lane(self.lane(self.mask(), self.ask.kind()))
    }
}
