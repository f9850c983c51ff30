//! Random bytes out of the engine's pool: at once if there are enough, else with the fetch that is on its way.

use std::sync::Arc;
use std::task::Waker;

use zeroize::Zeroize;

use super::queue::{Finish, NODE_BYTES};
use super::{Refused, Request, copy};
use crate::error::Result;
use crate::operation::Operation;
use crate::pending::Pending;
use crate::random_pool::{PIECE_MAX, RandomPool};
use crate::schedule::fairness::Priority;
use crate::schedule::node::{Node, zeroed};

impl<'a, O: Operation> Request<'a, O> {
    /// The pool that can serve it, if there is one.
    #[inline]
    pub(super) fn pool(&self) -> Option<&'a Arc<RandomPool>> {
        let len = self.ask.random_len()?;
        self.shared.random_pool.as_ref().filter(|_| len <= PIECE_MAX)
    }

    /// Its bytes, if the pool has them now.
    pub(super) fn draw(&self, pool: &Arc<RandomPool>) -> Option<Result<O::Output>> {
        let mut bytes = zeroed(self.ask.random_len().unwrap_or_default());
        pool.take(&mut bytes).then(|| (self.build)(&self.ask, std::mem::take(&mut *bytes)))
    }

    /// Puts it in flight as one that waits for the pool's fetch. It comes back if it had better ask the token by
    /// itself: its priority is not that of the fetch, there is no room for it, or the fetch takes too long.
    #[expect(clippy::result_large_err, reason = "the request goes on by value; no failure is passed up")]
    pub(super) fn join_pool(
        self,
        pool: &Arc<RandomPool>,
        waker: Option<&Waker>,
    ) -> std::result::Result<Pending<O>, Self> {
        let len = self.ask.random_len().unwrap_or_default();
        if self.priority != Priority::Normal {
            return Err(self);
        }
        let core = &self.shared.core;
        let Ok(permit) = core.admission.admit(len + NODE_BYTES) else { return Err(self) };
        let (started, deadline) = self.times();
        let node = Node::served_elsewhere(self.ask.kind(), started, deadline, waker, permit);
        let node = Arc::new(node);
        if !pool.join(&node, len, started) {
            return Err(self);
        }
        let finish = Finish::new(self.ask, None, self.build, len);
        Ok(Pending::new(Arc::clone(core), node, deadline, self.trace, finish))
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
        self.join_pool(pool, None).or_else(|request| request.queue_for_room(mask))
    }

    /// Blocks until it has its bytes, from the pool if that can serve it.
    pub(super) fn wait_on_pool(mut self, pool: &Arc<RandomPool>, mask: u64) -> Result<O::Output> {
        if let Some(answer) = self.draw(pool) {
            return self.end(answer);
        }
        match self.join_pool(pool, None) {
            Ok(pending) => pending.wait(),
            Err(request) => request.wait_on_token(mask),
        }
    }

    /// As [`Request::wait_on_pool`], into the caller's memory, which has room.
    pub(super) fn wait_on_pool_into(
        mut self,
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
            Ok(pending) => copy(pending.wait()?.as_ref(), out),
            Err(request) => request.wait_on_token_into(mask, out),
        }
    }
}
