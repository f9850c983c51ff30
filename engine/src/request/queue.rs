//! The queued way: from here on everything is owned, because the caller may give up waiting.

use std::sync::Arc;

use event_listener::Listener;
use zeroize::Zeroizing;

use super::{Build, Refused, Request};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::keys::KeyVersion;
use crate::offload::POLL_BYTES_MAX;
use crate::operation::{Ask, Operation, Scratch};
use crate::pending::Pending;
use crate::schedule::core::LaneId;
use crate::schedule::cost::PLANS;
use crate::schedule::node::{Node, Payload, expired};
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::task::Task;

/// What remains to be done with the answer.
pub(crate) struct Finish<O: Operation> {
    ask: Ask,
    version: Option<Arc<KeyVersion>>,
    build: Build<O>,
    /// Room that the finished form may need; the answer's buffer was made with it.
    output_len: usize,
}

/// A request that has room but is in no lane yet.
pub(super) struct Ready<O: Operation> {
    pub(super) lane: LaneId,
    pub(super) mask: u64,
    pub(super) node: Arc<Node>,
    pub(super) pending: Pending<O>,
}

/// What a request in flight takes besides its input and output: node, lane entry, registration.
const NODE_BYTES: usize = 512;

impl<'a, O: Operation> Request<'a, O> {
    /// Queues the request; waits for room first if that was asked for.
    pub(super) fn queue_for_room(self, mask: u64) -> std::result::Result<Pending<O>, Box<Refused<'a, O>>> {
        let (started, deadline) = self.times();
        let (core, waits) = (&self.shared.core, self.waits_for_room);
        let mut request = self;
        loop {
            let heard = waits.then(|| core.admission.listen());
            let mut refused = match request.ready(mask, None, started, deadline) {
                Ok(ready) => return Ok(ready.launch()),
                Err(refused) => refused,
            };
            let Some(heard) = heard.filter(|_| refused.error.kind() == ErrorKind::Overloaded) else {
                return Err(refused);
            };
            match deadline.map(|deadline| now().until(deadline)) {
                Some(left) if left.is_zero() => {
                    refused.error = expired(Outcome::NotDone);
                    return Err(refused);
                }
                Some(left) => drop(heard.wait_timeout(left)),
                None => heard.wait(),
            }
            if let Err(error) = core.check_open() {
                refused.error = error;
                return Err(refused);
            }
            request = refused.request;
        }
    }

    /// Takes room for the request and makes it ready for its lane. `encoded` is what the token is given, if
    /// that has been prepared elsewhere.
    pub(super) fn ready(
        mut self,
        mask: u64,
        encoded: Option<Payload>,
        started: Time,
        deadline: Option<Time>,
    ) -> std::result::Result<Ready<O>, Box<Refused<'a, O>>> {
        self.ask.bind(&self.input);
        let parts = self.task().and_then(|task| {
            let bytes = self.input.len() + task.output_len + NODE_BYTES;
            Ok((task, self.shared.core.admission.admit(bytes)?))
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
        let input = encoded.unwrap_or_else(|| self.encode());
        let (kind, output_len) = (self.ask.kind(), task.output_len);
        let node = Arc::new(Node::new(task, kind, input, started, deadline, permit));
        let key = self.key.map_or(0, |version| version.number);
        let lane = LaneId { key, kind, priority: self.priority, tenant: self.tenant };
        let finish =
            Finish { ask: self.ask, version: self.key.map(Arc::clone), build: self.build, output_len };
        let pending = Pending::new(Arc::clone(&self.shared.core), Arc::clone(&node), deadline, finish);
        Ok(Ready { lane, mask, node, pending })
    }

    /// What the token is given.
    pub(super) fn encode(&self) -> Payload {
        Zeroizing::new(self.ask.encode(&self.input, &mut Scratch::new()).to_vec())
    }

    /// Whether the host's part takes too long for a thread that polls.
    pub(super) fn is_long(&self) -> bool {
        self.ask.hashes() && self.input.len() > POLL_BYTES_MAX
    }

    fn task(&self) -> Result<Task> {
        let call = self.ask.call().ok_or_else(|| Error::internal("an operation without a call"))?;
        let output_len = self.ask.output_len(self.facts(), self.input.len());
        let handles = self.key.map(|version| Arc::clone(&version.handles));
        let plan = plan(self.ask.kind().index(), self.facts());
        Ok(Task { call: call.clone(), handles, output_len, plan })
    }
}

impl<O: Operation> Ready<O> {
    /// Puts the request into its lane.
    pub(super) fn launch(self) -> Pending<O> {
        let core = Arc::clone(self.pending.core());
        let lane = core.lane(self.lane, self.mask);
        core.submit(&lane, [self.node]);
        self.pending
    }
}

impl<O: Operation> Finish<O> {
    pub(crate) fn finish(&self, mut output: Payload) -> Result<O::Output> {
        let written = output.len();
        let facts = self.version.as_ref().map(|version| &version.facts);
        output.resize(self.output_len.max(written), 0);
        let len = self.ask.finish(facts, &mut output, written)?;
        output.truncate(len);
        (self.build)(&self.ask, std::mem::take(&mut *output))
    }
}

/// Kind of plan: operation and size of the key in four steps.
fn plan(operation: usize, facts: Option<&KeyFacts>) -> usize {
    let size = match facts.map(|facts| facts.kind) {
        Some(KeyKind::Rsa { bits }) if bits > 3_072 => 3,
        Some(KeyKind::Rsa { bits }) if bits > 2_048 => 2,
        Some(KeyKind::Ec(curve)) if curve.field_len() > 32 => 1,
        _ => 0,
    };
    (operation * 4 + size) % PLANS
}
