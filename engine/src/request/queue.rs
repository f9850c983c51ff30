//! The queued way: from here on everything is owned, because the caller may give up waiting.

use std::sync::Arc;
use std::task::Waker;

use super::{Audited, Build, Refused, Request};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::offload::POLL_BYTES_MAX;
use crate::operation::{Ask, Operation, OperationKind, Scratch};
use crate::payload::{Input, Payload};
use crate::pending::Pending;
use crate::schedule::admission::{NoRoom, Waiting};
use crate::schedule::core::{Core, LaneId};
use crate::schedule::cost::PLANS;
use crate::schedule::node::{Asked, Node, expired};
use crate::schedule::waiters::Wants;
use crate::token::facts::KeyKind;
use crate::token::merge::Merge;
use crate::token::task::Task;

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
    pub(super) fn queue_for_room(
        mut self,
        mask: u64,
    ) -> std::result::Result<Pending<O>, Box<Refused<'a, O>>> {
        self.queue(mask).map_err(|error| Box::new(Refused { request: self, error }))
    }

    /// As [`Self::queue_for_room`]; the request is left behind, and on an error as it was.
    pub(super) fn queue(&mut self, mask: u64) -> Result<Pending<O>> {
        let (started, deadline) = self.times();
        let core = &self.shared.core;
        let mut heard = None;
        loop {
            let error = match self.ready(mask, None, started, deadline, None) {
                Ok(ready) => return Ok(ready.launch()),
                Err(error) => error,
            };
            if !self.waits(&error) {
                return Err(self.fail(error));
            }
            let may_try = match &mut heard {
                // Before another try: what is given back from now on is heard of.
                None => {
                    heard = Some(core.admission.listen(Wants::Room(self.bytes()), self.tenant));
                    Ok(())
                }
                Some(heard) => await_room(core, heard, deadline),
            };
            // After it listens, so that a stop is either seen here or wakes it.
            may_try.and_then(|()| core.check_open()).map_err(|error| self.fail(error))?;
        }
    }

    /// Takes room for the request and makes it ready for its lane. `encoded` is what the token is given, if
    /// that has been prepared elsewhere; `waker` is that of the future that waits for it, if it is known.
    ///
    /// What was asked and the input move out of the request; on an error it is as it was.
    pub(super) fn ready(
        &mut self,
        mask: u64,
        encoded: Option<Payload>,
        started: Time,
        deadline: Option<Time>,
        waker: Option<&Waker>,
    ) -> Result<Ready<O>> {
        self.ask.bind(&self.input);
        let task = self.task(mask)?;
        let core = &self.shared.core;
        let bytes = self.bytes_with(task.output_len);
        let permit = core.admission.admit(bytes, self.tenant).inspect_err(|why| {
            // Those that were put together try again each by itself.
            if !matches!(why, NoRoom::TooLarge(_)) && !self.waits_for_room && self.requests == 1 {
                core.counters.refused(why);
            }
        })?;
        let repeats = self.repeats();
        let ask = std::mem::replace(&mut self.ask, Ask::random(0));
        let (requests, tried) = (self.requests.into(), self.tried);
        let asked = Asked { ask, key: self.key_kind(), requests, repeats, tried };
        let input = &mut self.input;
        let fill = |ask: &Ask, memory: &mut Payload| match encoded {
            Some(encoded) => *memory = encoded,
            None => encode(ask, input, memory),
        };
        let node = Node::make(asked, task, fill, started, deadline, waker, Some(permit));
        let lane = self.lane(mask, node.kind);
        let pending = Pending::new(Arc::clone(core), Arc::clone(&node), self.trace.take(), self.build);
        Audited::begin(&mut self.audited);
        let pending = pending.audited(self.audited.take());
        Ok(Ready { lane, node, pending })
    }

    /// A request that the host has answered, as if it had been in flight.
    pub(super) fn answered(self, answer: Result<O::Output>) -> Pending<O> {
        Pending::answered(Arc::clone(&self.shared.core), answer, self.build)
    }

    /// Whether the host's part takes too long for a thread that polls.
    pub(super) fn is_long(&self) -> bool {
        self.ask.hashes() && self.input.len() > POLL_BYTES_MAX
    }

    /// Room that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes_with(self.output_len())
    }

    fn bytes_with(&self, output_len: usize) -> usize {
        self.input.len() + output_len + NODE_BYTES
    }

    fn output_len(&self) -> usize {
        self.ask.output_len(self.key_kind(), self.input.len())
    }

    fn task(&self, mask: u64) -> Result<Task> {
        let call = self.ask.call().ok_or_else(|| Error::internal("an operation without a call"))?;
        let output_len = self.output_len();
        let handles = self.key.map(|version| Arc::clone(&version.handles));
        let plan = plan(self.ask.kind().index(), self.key_kind());
        // One that shares a call is run again by itself if that fails.
        let merge = if self.at_most_once { None } else { self.key.and_then(|it| it.merge(call, mask)) };
        Ok(Task { handles, output_len, plan, merge })
    }

    /// How it may share calls with its like now, on every token that may run it.
    pub(super) fn merges(&self) -> Option<Merge> {
        if self.at_most_once {
            return None;
        }
        let mask = self.mask();
        let merge = self.key?.merge(self.ask.call()?, mask)?;
        let lane = self.shared.core.lane(self.lane(mask, self.ask.kind()));
        lane.demotion.may_merge(now().as_ns()).then_some(merge)
    }

    pub(super) fn lane(&self, mask: u64, kind: OperationKind) -> LaneId {
        let key = self.key.map_or(0, |version| version.number);
        LaneId { key, kind, mask, priority: self.priority, tenant: self.tenant }
    }

    /// Whether the request waits for the room that it was refused.
    pub(super) fn waits(&self, error: &Error) -> bool {
        self.waits_for_room && error.kind() == ErrorKind::Overloaded
    }
}

/// Waits on this thread until there is room to try for, or the deadline has passed.
fn await_room(core: &Core, heard: &mut Waiting, deadline: Option<Time>) -> Result<()> {
    match deadline.map(|deadline| now().until(deadline)) {
        Some(left) if left.is_zero() => {
            core.counters.expired(1);
            return Err(expired(Outcome::NotDone));
        }
        // If the time is up first, one more try is made.
        Some(left) => drop(heard.wait_timeout(left)),
        None => heard.wait(),
    }
    Ok(())
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

/// Makes the output of what a token wrote for a request.
pub(crate) fn finish<O: Operation>(node: &Node, build: Build<O>, mut output: Payload) -> Result<O::Output> {
    let Some(Asked { ask, key, .. }) = &node.asked else {
        return Err(Error::internal("an answer to nothing that was asked"));
    };
    let written = output.len();
    // Room that the finished form may need; the buffer was made with it.
    let room = node.task.as_ref().map_or(0, |task| task.output_len);
    if written < room {
        output.resize(room, 0);
    }
    let len = ask.finish(*key, &mut output, written)?;
    output.truncate(len);
    build(ask, std::mem::take(&mut *output))
}

/// Bytes that are copied rather than moved: more than any digest with its frame.
const SHORT: usize = 128;

/// Puts what the token is given into the engine's own memory. An owned input that goes to the token as it is, and a
/// message that was copied to be padded, move instead of being copied.
fn encode(ask: &Ask, input: &mut Input<'_>, memory: &mut Payload) {
    let mut scratch = Scratch::new();
    let encoded = ask.encode(input, &mut scratch);
    let whole = std::ptr::eq(encoded, &**input);
    if whole && let Input::Owned(input) = input {
        *memory = std::mem::take(input);
    } else if whole || input.as_ptr_range().contains(&encoded.as_ptr()) || encoded.len() <= SHORT {
        // A part of the input, or a digest.
        memory.extend_from_slice(encoded);
    } else {
        *memory = scratch.take_padded().unwrap_or_default();
    }
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
