//! Random bytes out of the engine's pool: at once if there are enough, else with the fetch that is on its way.

use std::sync::Arc;
use std::task::Waker;

use zeroize::Zeroize;

use super::queue::NODE_BYTES;
use super::{Refused, Request, copy};
use crate::error::Result;
use crate::operation::{Ask, Operation};
use crate::payload::Payload;
use crate::pending::Pending;
use crate::random_pool::{PIECE_MAX, RandomPool};
use crate::schedule::fairness::Priority;
use crate::schedule::node::{Asked, Node};

impl<'a, O: Operation> Request<'a, O> {
    /// The pool that can serve it, if there is one.
    #[inline]
    pub(super) fn pool(&self) -> Option<&'a Arc<RandomPool>> {
        let len = self.ask.random_len()?;
        self.shared.random_pool.as_ref().filter(|_| len <= PIECE_MAX)
    }

    /// Its bytes, if the pool has them now.
    pub(super) fn draw(&self, pool: &Arc<RandomPool>) -> Option<Result<O::Output>> {
        let mut bytes = Payload::zeroed(self.ask.random_len().unwrap_or_default());
        pool.take(&mut bytes).then(|| (self.build)(&self.ask, std::mem::take(&mut *bytes)))
    }

    /// Puts it in flight as one that waits for the pool's fetch. Not if it had better ask the token by
    /// itself: its priority is not that of the fetch, there is no room for it, or the fetch takes too long.
    pub(super) fn join_pool(&mut self, pool: &Arc<RandomPool>, waker: Option<&Waker>) -> Option<Pending<O>> {
        let len = self.ask.random_len().filter(|_| self.priority == Priority::Normal)?;
        let core = &self.shared.core;
        let permit = core.admission.admit(len + NODE_BYTES, self.tenant).ok()?;
        let (started, deadline) = self.times();
        let asked = Asked { ask: Ask::random(len), key: None, requests: 1, repeats: true, tried: None };
        let node = Arc::new(Node::served_elsewhere(asked, started, deadline, waker, permit));
        if !pool.join(&node, len, started) {
            return None;
        }
        Some(Pending::new(Arc::clone(core), node, self.trace.take(), self.build))
    }

    /// As [`Request::submit`], of a request that was started.
    pub(super) fn submit_to_pool(
        mut self,
        pool: &Arc<RandomPool>,
        mask: u64,
    ) -> std::result::Result<Pending<O>, Box<Refused<'a, O>>> {
        if let Some(answer) = self.draw(pool) {
            let answer = self.end(answer);
            return Ok(self.answered(answer));
        }
        match self.join_pool(pool, None) {
            Some(pending) => Ok(pending),
            None => self.queue_for_room(mask),
        }
    }

    /// Blocks until it has its bytes, from the pool if that can serve it.
    pub(super) fn wait_on_pool(&mut self, pool: &Arc<RandomPool>, mask: u64) -> Result<O::Output> {
        if let Some(answer) = self.draw(pool) {
            return self.end(answer);
        }
        match self.join_pool(pool, None) {
            Some(pending) => pending.wait(),
            None => self.wait_on_token(mask),
        }
    }

    /// As [`Request::wait_on_pool`], into the caller's memory, which has room.
    pub(super) fn wait_on_pool_into(
        &mut self,
        pool: &Arc<RandomPool>,
        mask: u64,
        out: &mut [u8],
    ) -> Result<usize>
    where
        O::Output: AsRef<[u8]>,
    {
        let len = self.ask.random_len().unwrap_or_default();
        if pool.take(&mut out[..len]) {
            return self.end(Ok(len)).inspect_err(|_| out.zeroize());
        }
        match self.join_pool(pool, None) {
            Some(pending) => copy(pending.wait()?.as_ref(), out),
            None => self.wait_on_token_into(mask, out),
        }
    }
}
