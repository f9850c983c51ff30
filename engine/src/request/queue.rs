//! The queued way: from here on everything is owned, because the caller may give up waiting.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::Waker;

use zeroize::Zeroizing;

use super::{Build, Refused, Request};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::offload::POLL_BYTES_MAX;
use crate::operation::{Ask, Operation, Scratch};
use crate::pending::Pending;
use crate::schedule::admission::Waiting;
use crate::schedule::core::{Core, LaneId};
use crate::schedule::cost::PLANS;
use crate::schedule::node::{Node, Payload, expired};
use crate::schedule::waiters::Wants;
use crate::token::facts::KeyKind;
use crate::token::task::Task;

/// What remains to be done with the answer.
pub(crate) struct Finish<O: Operation> {
    ask: Ask,
    key: Option<KeyKind>,
    build: Build<O>,
    /// Room that the finished form may need; the answer's buffer was made with it.
    output_len: usize,
}

/// A request that has room but is in no lane yet.
pub(super) struct Ready<O: Operation> {
    pub(super) lane: LaneId,
    pub(super) node: Arc<Node>,
    pub(super) pending: Pending<O>,
}

/// What a request in flight takes besides its input and output: node, lane entry, registration.
pub(super) const NODE_BYTES: usize = 512;

impl<'a, O: Operation> Request<'a, O> {
    /// Queues the request; waits for room first if that was asked for.
    pub(super) fn queue_for_room(self, mask: u64) -> std::result::Result<Pending<O>, Box<Refused<'a, O>>> {
        let (started, deadline) = self.times();
        let core = &self.shared.core;
        let mut request = self;
        let mut heard = None;
        loop {
            let mut refused = match request.ready(mask, None, started, deadline, None) {
                Ok(ready) => return Ok(ready.launch()),
                Err(refused) => refused,
            };
            if !refused.waits() {
                return Err(refused.ended());
            }
            let may_try = match &mut heard {
                // Before another try: what is given back from now on is heard of.
                None => {
                    heard = Some(core.admission.listen(Wants::Room(refused.request.bytes())));
                    Ok(())
                }
                Some(heard) => await_room(core, heard, deadline),
            };
            // After it listens, so that a stop is either seen here or wakes it.
            if let Err(error) = may_try.and_then(|()| core.check_open()) {
                refused.error = error;
                return Err(refused.ended());
            }
            request = refused.request;
        }
    }

    /// Takes room for the request and makes it ready for its lane. `encoded` is what the token is given, if
    /// that has been prepared elsewhere; `waker` is that of the future that waits for it, if it is known.
    pub(super) fn ready(
        mut self,
        mask: u64,
        encoded: Option<Payload>,
        started: Time,
        deadline: Option<Time>,
        waker: Option<&Waker>,
    ) -> std::result::Result<Ready<O>, Box<Refused<'a, O>>> {
        self.ask.bind(&self.input);
        let parts = self.task(mask).and_then(|task| {
            let permit = self.shared.core.admission.admit(self.bytes())?;
            Ok((task, permit))
        });
        let (task, permit) = match parts {
            Ok(parts) => parts,
            Err(error) => {
                if error.kind() == ErrorKind::Overloaded && !self.waits_for_room {
                    self.shared.core.counters.refused();
                }
                return Err(Box::new(Refused { request: self, error }));
            }
        };
        let key = self.key_kind();
        let input = encoded.unwrap_or_else(|| encode(&self.ask, self.input));
        let (kind, output_len) = (self.ask.kind(), task.output_len);
        let node = Node::make(task, kind, input, started, deadline, waker, Some(permit));
        let number = self.key.map_or(0, |version| version.number);
        let lane = LaneId { key: number, kind, mask, priority: self.priority, tenant: self.tenant };
        let finish = Finish::new(self.ask, key, self.build, output_len);
        let core = Arc::clone(&self.shared.core);
        let pending = Pending::new(core, Arc::clone(&node), deadline, self.trace, finish);
        Ok(Ready { lane, node, pending })
    }

    /// A request that the host has answered, as if it had been in flight.
    pub(super) fn answered(self, answer: Result<O::Output>) -> Pending<O> {
        let (core, key) = (Arc::clone(&self.shared.core), self.key_kind());
        let finish = Finish::new(self.ask, key, self.build, 0);
        Pending::answered(core, answer, finish)
    }

    /// Whether the host's part takes too long for a thread that polls.
    pub(super) fn is_long(&self) -> bool {
        self.ask.hashes() && self.input.len() > POLL_BYTES_MAX
    }

    /// Room that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.input.len() + self.output_len() + NODE_BYTES
    }

    fn output_len(&self) -> usize {
        self.ask.output_len(self.key_kind(), self.input.len())
    }

    fn task(&self, mask: u64) -> Result<Task> {
        let call = self.ask.call().ok_or_else(|| Error::internal("an operation without a call"))?;
        let output_len = self.output_len();
        let handles = self.key.map(|version| Arc::clone(&version.handles));
        let plan = plan(self.ask.kind().index(), self.key_kind());
        let merge = self.key.and_then(|version| version.merge(call, mask));
        Ok(Task { call: call.clone(), handles, output_len, plan, merge })
    }
}

/// Waits on this thread until there is room to try for, or the deadline has passed.
fn await_room(core: &Core, heard: &mut Waiting, deadline: Option<Time>) -> Result<()> {
    match deadline.map(|deadline| now().until(deadline)) {
        Some(left) if left.is_zero() => {
            core.counters.expired();
            return Err(expired(Outcome::NotDone));
        }
        // If the time is up first, one more try is made.
        Some(left) => drop(heard.wait_timeout(left)),
        None => heard.wait(),
    }
    Ok(())
}

impl<O: Operation> Refused<'_, O> {
    /// Whether the request waits for the room that it was refused.
    pub(super) fn waits(&self) -> bool {
        self.request.waits_for_room && self.error.kind() == ErrorKind::Overloaded
    }
}

impl<O: Operation> Ready<O> {
    /// Puts a request whose waker is kept into its lane. Its deadline is kept before, so that the future need
    /// not look again before it is woken.
    pub(super) fn launch_polled(mut self) -> Pending<O> {
        self.pending.register();
        self.launch()
    }

    /// Puts the request into its lane.
    pub(super) fn launch(self) -> Pending<O> {
        let Self { lane, node, pending } = self;
        let lane = pending.core().lane(lane);
        pending.core().submit(&lane, [node]);
        pending
    }
}

impl<O: Operation> Finish<O> {
    pub(super) const fn new(ask: Ask, key: Option<KeyKind>, build: Build<O>, output_len: usize) -> Self {
        Self { ask, key, build, output_len }
    }

    pub(crate) fn finish(&self, mut output: Payload) -> Result<O::Output> {
        let written = output.len();
        output.resize(self.output_len.max(written), 0);
        let len = self.ask.finish(self.key, &mut output, written)?;
        output.truncate(len);
        (self.build)(&self.ask, std::mem::take(&mut *output))
    }
}

/// Bytes that are copied rather than moved: more than any digest with its frame.
const SHORT: usize = 128;

/// What the token is given, as memory of the engine's own. An owned input that goes to the token as it is, and a
/// message that was copied to be padded, move instead of being copied.
fn encode(ask: &Ask, input: Cow<'_, [u8]>) -> Payload {
    let mut scratch = Scratch::new();
    let encoded = ask.encode(&input, &mut scratch);
    if std::ptr::eq(encoded, &*input) {
        return Zeroizing::new(input.into_owned());
    }
    // A part of the input, or a digest.
    if input.as_ptr_range().contains(&encoded.as_ptr()) || encoded.len() <= SHORT {
        return Zeroizing::new(encoded.to_vec());
    }
    scratch.take_padded().unwrap_or_default()
}

/// Kind of plan: operation and size of the key in four steps.
pub(crate) fn plan(operation: usize, key: Option<KeyKind>) -> usize {
    let size = match key {
        Some(KeyKind::Rsa { bits }) if bits > 3_072 => 3,
        Some(KeyKind::Rsa { bits }) if bits > 2_048 => 2,
        Some(KeyKind::Ec(curve)) if curve.field_len() > 32 => 1,
        _ => 0,
    };
    (operation * 4 + size) % (PLANS / 2)
}
