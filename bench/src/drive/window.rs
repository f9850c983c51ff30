//! One task that keeps a window of requests in flight.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use hsmux::Request;
use tokio::runtime::Builder;

use crate::ask::Ask;
use crate::cell::{Lap, Tally, Window};
use crate::clock::Instant;
use crate::failure::Failure;
use crate::inputs::Inputs;

/// Requests until the window of time closes. The messages are made before the run and lent, so that neither their
/// making nor their memory is measured; more of them than requests in flight, so that none is in flight twice.
struct Source<'a, A> {
    ask: &'a A,
    messages: std::iter::Cycle<std::slice::Chunks<'a, u8>>,
    window: Window,
    flight: &'a Flight,
}

/// What source and consumer of the stream share.
struct Flight {
    /// When the last answer came, which is when the next request was asked for: the stream reads its source then.
    now: Cell<Instant>,
    /// When the requests in flight were made, in their order, which is that of the answers.
    starts: RefCell<VecDeque<Instant>>,
    failed: Cell<bool>,
}

/// Messages for each request of a window.
const MESSAGES_PER_REQUEST: usize = 4;

/// Runs the stream.
pub(super) fn stream<A: Ask>(ask: &A, inputs: &Inputs, size: usize, window: Window) -> Vec<Tally> {
    let Some(in_flight) = NonZeroUsize::new(size) else { return Vec::new() };
    // A runtime that cannot start has counted nothing.
    let Ok(runtime) = Builder::new_current_thread().build() else { return Vec::new() };
    let messages = messages(inputs, size * MESSAGES_PER_REQUEST);
    let flight = Flight {
        now: Cell::new(Instant::now()),
        starts: RefCell::new(VecDeque::with_capacity(size)),
        failed: Cell::new(false),
    };
    let len = inputs.case().input_len();
    let source = Source { ask, messages: messages.chunks(len).cycle(), window, flight: &flight };
    let mut answers = hsmux::pipeline(source, in_flight);
    let mut tally = Tally::new(window);
    let mut lap = Lap::start();
    runtime.block_on(async {
        while let Some(answer) = poll_fn(|context| Pin::new(&mut answers).poll_next(context)).await {
            let now = Instant::now();
            flight.now.set(now);
            let start = flight.starts.borrow_mut().pop_front().unwrap_or(now);
            let failures = answer.err().map(Failure::from).into_iter();
            if !tally.count_since(start, now, &mut lap, 1, failures) {
                flight.failed.set(true);
            }
        }
    });
    vec![tally]
}

fn messages(inputs: &Inputs, count: usize) -> Vec<u8> {
    let mut message = inputs.message(0);
    let mut bytes = Vec::with_capacity(count * inputs.case().input_len());
    (0..count).for_each(|_| bytes.extend_from_slice(message.advance()));
    bytes
}

impl<'a, A: Ask> Stream for Source<'a, A> {
    type Item = Request<'a, A::Operation>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let now = this.flight.now.get();
        if this.flight.failed.get() || !this.window.is_open_at(now) {
            return Poll::Ready(None);
        }
        let Some(message) = this.messages.next() else { return Poll::Ready(None) };
        this.flight.starts.borrow_mut().push_back(now);
        Poll::Ready(Some(this.ask.one(message)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_message_of_a_window_is_in_flight_twice() {
        let inputs = Inputs::new("aes-ecb:16".parse().unwrap());
        let bytes = messages(&inputs, 256 * MESSAGES_PER_REQUEST);
        assert_eq!(bytes.chunks(16).collect::<HashSet<_>>().len(), 256 * MESSAGES_PER_REQUEST);
    }
}
