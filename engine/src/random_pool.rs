//! Random bytes for callers, fetched from the token in bulk and handed out in pieces.
//!
//! A fetch is a request like any other: it waits in a lane, a session runs it, and whatever ends requests (a token that
//! fails, a call that hangs, a stop) ends it. Whoever finds too little in the pool waits for the fetch that is on its
//! way, with its own deadline, as for a session. Each byte is given to one caller and wiped where it was; a forked child
//! gets none. IVs are not drawn from here.

mod store;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::clock::{Time, now};
use crate::error::Result;
use crate::operation::{Ask, OperationKind};
use crate::payload::Payload;
use crate::pkcs11::forked;
use crate::schedule::core::{Core, LaneId};
use crate::schedule::fairness::Priority;
use crate::schedule::node::{Asked, Buffers, Node};
use crate::schedule::wake::wake;
use crate::sync::{Mutex, MutexGuard};
use crate::token::task::Task;
use store::{FETCH_MAX, Portion, Store};

pub(crate) use store::PIECE_MAX;

/// The pool of an engine.
pub(crate) struct RandomPool {
    core: Arc<Core>,
    /// The tokens that may be asked: all of the engine.
    mask: u64,
    /// Index of the kind of plan of a fetch.
    plan: usize,
    state: Mutex<State>,
}

struct State {
    store: Store,
    portion: Portion,
    /// Less than the last fetch brought is little: the next one is on its way while the rest is used. Only use begins
    /// one, so that who asks once does not fill the pool.
    low: usize,
    /// Callers that found too little, in the order in which they came.
    waiting: VecDeque<Waiting>,
    /// The one fetch that is on its way.
    fetch: Option<Fetch>,
    counts: Counts,
}

/// A caller that waits for a fetch.
struct Waiting {
    node: Arc<Node>,
    len: usize,
}

struct Fetch {
    node: Arc<Node>,
    since: Time,
}

/// What the pool has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Requests that it served.
    pub(crate) requests: u64,
    /// Bytes that they were given.
    pub(crate) given: u64,
    /// Fetches that succeeded.
    pub(crate) fetches: u64,
    /// Bytes that they brought.
    pub(crate) fetched: u64,
    /// Bytes that lie there now.
    pub(crate) held: usize,
}

/// Callers that got their bytes, or an error, and are to hear of it once the pool is unlocked.
type Served = Vec<(Arc<Node>, Result<Payload>)>;

/// A fetch that is on its way for longer is not waited for by newcomers, who ask the token by themselves: it may hang,
/// and other sessions need not. Far above what a fetch takes, far below the hang limit.
const LATE_NS: u64 = 100_000_000;

impl RandomPool {
    /// `plan` is the kind of plan of a fetch, `mask` the tokens that may be asked.
    pub(crate) fn new(core: Arc<Core>, mask: u64, plan: usize) -> Self {
        let state = State {
            store: Store::new(),
            portion: Portion::new(),
            low: 0,
            waiting: VecDeque::new(),
            fetch: None,
            counts: Counts::default(),
        };
        Self { core, mask, plan, state: Mutex::new(state) }
    }

    /// Fills `out` at once, if there is enough and nobody waits; has more fetched before there is none.
    pub(crate) fn take(self: &Arc<Self>, out: &mut [u8]) -> bool {
        // The child's copy of these bytes is the parent's; the lock may be held by a thread that is not there.
        if forked() {
            return false;
        }
        let mut state = self.state.lock();
        let taken = state.waiting.is_empty() && state.take(out);
        if taken && state.fetch.is_none() && state.store.len() < state.low {
            let len = state.portion.len();
            self.settle(state, Some(len));
        }
        taken
    }

    /// Has a caller wait for its `len` bytes. False if it had better ask the token by itself, because the fetch that
    /// is on its way takes too long.
    pub(crate) fn join(self: &Arc<Self>, node: &Arc<Node>, len: usize, now: Time) -> bool {
        if forked() {
            return false;
        }
        let mut state = self.state.lock();
        if state.fetch.as_ref().is_some_and(|fetch| now.ns_since(fetch.since) > LATE_NS) {
            return false;
        }
        state.waiting.push_back(Waiting { node: Arc::clone(node), len });
        self.settle(state, None);
        true
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state.lock();
        Counts { held: state.store.len(), ..state.counts }
    }

    /// Forgets the bytes that nobody has had: the engine has stopped.
    pub(crate) fn wipe(&self) {
        self.state.lock().store.wipe();
    }

    /// Serves who waits, and begins a fetch if somebody still does, or one of so many bytes. Nobody is woken, and
    /// nothing is queued, while the pool is locked.
    fn settle(self: &Arc<Self>, mut state: MutexGuard<'_, State>, ahead: Option<usize>) {
        let served = state.serve();
        let wanted = state.wanted().or(ahead).filter(|_| state.fetch.is_none());
        let fetch = wanted.map(|len| state.begin(self.fetch_node(len)));
        drop(state);
        self.deliver(served);
        if let Some(node) = fetch {
            let (kind, priority) = (OperationKind::Random, Priority::Normal);
            let lane = self.core.lane(LaneId { key: 0, kind, mask: self.mask, priority, tenant: 0 });
            self.core.submit(&lane, [node]);
        }
    }

    /// A fetch of so many bytes. It holds no room in the engine: there is one, of bounded size, and whoever waits for
    /// it holds room of its own, so that it cannot be refused on their behalf.
    fn fetch_node(self: &Arc<Self>, len: usize) -> Arc<Node> {
        let asked = Asked { ask: Ask::random(len), key: None, requests: 1, repeats: true, tried: None };
        let task = Task { handles: None, output_len: len, plan: self.plan, merge: None };
        let waker = Waker::from(Arc::clone(self));
        Node::make(asked, task, |_, _| {}, now(), None, Some(&waker), None)
    }

    /// The fetch has been answered.
    fn collect(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let Some(fetch) = state.fetch.take() else { return };
        match fetch.node.try_collect() {
            None => state.fetch = Some(fetch),
            Some(Ok(bytes)) => {
                state.fetched(&bytes, fetch.node.ran().map_or(0, |ran| ran.token_ns));
                Node::recycle(fetch.node);
                self.settle(state, None);
            }
            Some(Err(error)) => {
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                let failed = waiting.into_iter().map(|waiting| (waiting.node, Err(error.clone())));
                self.deliver(failed.collect());
            }
        }
    }

    fn deliver(&self, served: Served) {
        for (node, answer) in served {
            let mut places = self.core.admission.places();
            let waker = match answer {
                Ok(output) => node.complete(Buffers { input: Payload::default(), output }, &mut places),
                Err(error) => node.fail(error, &mut places),
            };
            drop(places);
            if let Some(waker) = waker {
                wake(waker, &self.core.counters.panics);
            }
        }
    }
}

impl State {
    fn take(&mut self, out: &mut [u8]) -> bool {
        let taken = self.store.take(out);
        if taken {
            self.counts.requests += 1;
            self.counts.given += out.len() as u64;
        }
        taken
    }

    /// Takes what those are to have who waited longest, as far as there is enough. Who gave up gets nothing.
    fn serve(&mut self) -> Served {
        let mut served = Vec::new();
        while let Some(Waiting { node, len }) = self.waiting.pop_front() {
            if node.is_dead() {
                continue;
            }
            let mut out = Payload::zeroed(len);
            if !self.take(&mut out) {
                self.waiting.push_front(Waiting { node, len });
                break;
            }
            served.push((node, Ok(out)));
        }
        served
    }

    /// How much is to be fetched for those who wait, if anybody does.
    fn wanted(&self) -> Option<usize> {
        let wanted: usize = self.waiting.iter().map(|waiting| waiting.len).sum();
        (wanted > 0).then(|| self.portion.len().max(wanted.min(FETCH_MAX)))
    }

    fn begin(&mut self, node: Arc<Node>) -> Arc<Node> {
        self.fetch = Some(Fetch { node: Arc::clone(&node), since: node.submitted });
        node
    }

    fn fetched(&mut self, bytes: &[u8], token_ns: u64) {
        self.portion.learn(bytes.len(), token_ns);
        self.store.put(bytes);
        self.low = bytes.len();
        self.counts.fetches += 1;
        self.counts.fetched += bytes.len() as u64;
    }
}

/// The pool is the caller of its fetches.
impl Wake for RandomPool {
    fn wake(self: Arc<Self>) {
        self.collect();
    }
}
