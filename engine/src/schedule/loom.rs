//! Models of the lane protocol, and of calls that are written off: loom runs every interleaving, with the memory model of C11.
//!
//! Run with `RUSTFLAGS="--cfg hsmux_loom" cargo test -p hsmux --release --lib loom`.

use loom::thread;

use crate::schedule::dispatch::{Cost, Dispatch, Seat};
use crate::schedule::fairness::Class;
use crate::schedule::inside::Inside;
use crate::schedule::lane::Lane;
use crate::sync::{Arc, AtomicU64, Mutex};

type Handed = Arc<Mutex<Vec<Box<Session>>>>;
type Served = Arc<Mutex<Vec<u32>>>;

struct Session {
    token: usize,
    index: usize,
    handed: Handed,
}

impl Seat for Session {
    fn token(&self) -> usize {
        self.token
    }

    fn index(&self) -> usize {
        self.index
    }

    fn hand_over(self: Box<Self>) {
        let handed = Arc::clone(&self.handed);
        handed.lock().push(self);
    }
}

#[derive(Clone)]
struct World {
    dispatch: Arc<Dispatch<u32, Session>>,
    lane: Arc<Lane<u32>>,
    handed: Handed,
    served: Served,
}

/// More than the turn's budget: every turn takes one item.
const COST_NS: u64 = 10;
const BUDGET_NS: u64 = 10;

impl World {
    /// One token with so many sessions, none of them idle yet, and one lane.
    fn new(sessions: usize) -> Self {
        Self {
            dispatch: Arc::new(Dispatch::new(&[sessions])),
            lane: Arc::new(Lane::new(Class::Normal, Arc::new(AtomicU64::new(1)))),
            handed: Arc::new(Mutex::new(Vec::new())),
            served: Arc::new(Mutex::new(Vec::new())),
        }
    }

    fn session(&self, index: usize) -> Box<Session> {
        Box::new(Session { token: 0, index, handed: Arc::clone(&self.handed) })
    }

    fn submit(&self, item: u32) {
        assert!(self.dispatch.submit(&self.lane, [item]).is_none(), "the only token is healthy");
    }

    fn take(&self, token: usize) -> Vec<u32> {
        let mut items = Vec::new();
        let _ =
            self.dispatch.take(token, 1, BUDGET_NS, |_, _| Cost { ns: COST_NS, fills: false }, &mut items);
        items
    }

    /// What a worker does with a session that was handed to it.
    fn serve(&self, session: Box<Session>) {
        loop {
            let items = self.take(session.token);
            if items.is_empty() {
                return self.dispatch.release(session);
            }
            self.served.lock().extend(items);
        }
    }

    /// Lets the workers of the handed sessions run to their end, then says what was served.
    fn settle(&self) -> Vec<u32> {
        loop {
            let Some(session) = self.handed.lock().pop() else { break };
            self.serve(session);
        }
        let mut served = self.served.lock().clone();
        served.sort_unstable();
        served
    }
}

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Three preemptions reach every ordering of two racing pairs; without a bound the models take hours.
    builder.preemption_bound = Some(3);
    builder.check(run);
}

#[test]
fn loom_a_submit_against_an_inline_release_leaves_nothing_behind() {
    model(|| {
        let world = World::new(1);
        let inline = world.session(0);
        let other = world.clone();
        let submitter = thread::spawn(move || other.submit(1));
        world.dispatch.release(inline);
        submitter.join().expect("submitter");
        assert_eq!(world.settle(), [1]);
    });
}

#[test]
fn loom_one_lane_is_served_by_many_sessions_each_item_once() {
    model(|| {
        let world = World::new(2);
        world.submit(1);
        world.submit(2);
        let other = world.clone();
        let worker = thread::spawn(move || other.serve(other.session(0)));
        world.serve(world.session(1));
        worker.join().expect("worker");
        assert_eq!(world.settle(), [1, 2]);
    });
}

#[test]
fn loom_an_item_pushed_while_the_lane_is_set_idle_is_served() {
    model(|| {
        let world = World::new(1);
        world.submit(1);
        let other = world.clone();
        let submitter = thread::spawn(move || other.submit(2));
        world.serve(world.session(0));
        submitter.join().expect("submitter");
        assert_eq!(world.settle(), [1, 2]);
    });
}

#[test]
fn loom_an_item_given_back_into_a_lane_that_fills_is_served_once() {
    model(|| {
        let world = World::new(1);
        world.submit(1);
        let other = world.clone();
        let submitter = thread::spawn(move || other.submit(2));
        let session = world.session(0);
        let taken = world.take(0);
        assert!(world.dispatch.give_back(&world.lane, taken).is_none(), "the only token is healthy");
        world.dispatch.release(session);
        submitter.join().expect("submitter");
        assert_eq!(world.settle(), [1, 2]);
    });
}

#[test]
fn loom_a_lane_queued_while_its_token_is_lost_is_handed_out_to_be_failed() {
    model(|| {
        let world = World::new(1);
        let other = world.clone();
        let submitter = thread::spawn(move || {
            let orphan = other.dispatch.submit(&other.lane, [1]);
            orphan
                .into_iter()
                .for_each(|orphan| other.dispatch.fail(orphan, |item| other.served.lock().push(item)));
        });
        for orphan in world.dispatch.set_healthy(0, false) {
            world.dispatch.fail(orphan, |item| world.served.lock().push(item));
        }
        submitter.join().expect("submitter");
        assert_eq!(world.settle(), [1]);
    });
}

#[test]
fn loom_a_session_that_comes_back_as_the_limit_rises_is_found() {
    model(|| {
        let world = World::new(1);
        world.dispatch.set_limit(0, 0);
        let session = world.session(0);
        world.submit(1);
        let other = world.clone();
        let watcher = thread::spawn(move || other.dispatch.set_limit(0, 1));
        world.dispatch.release(session);
        watcher.join().expect("watcher");
        assert_eq!(world.settle(), [1]);
    });
}

#[test]
fn loom_work_that_comes_as_the_limit_rises_is_served() {
    model(|| {
        let world = World::new(1);
        world.dispatch.set_limit(0, 0);
        world.dispatch.release(world.session(0));
        let other = world.clone();
        let watcher = thread::spawn(move || other.dispatch.set_limit(0, 1));
        world.submit(1);
        watcher.join().expect("watcher");
        assert_eq!(world.settle(), [1]);
    });
}

#[test]
fn loom_work_that_comes_as_the_limit_falls_is_served() {
    model(|| {
        let world = World::new(2);
        world.dispatch.release(world.session(0));
        let session = world.session(1);
        let other = world.clone();
        let watcher = thread::spawn(move || other.dispatch.set_limit(0, 1));
        world.submit(1);
        world.dispatch.release(session);
        watcher.join().expect("watcher");
        assert_eq!(world.settle(), [1]);
    });
}

#[test]
fn loom_a_call_that_returns_as_it_is_written_off_is_given_up_by_one_of_the_two() {
    model(|| {
        let inside = Arc::new(Inside::new());
        let worker = Arc::clone(&inside);
        // Two calls of one turn.
        let worker = thread::spawn(move || {
            worker.enter(100, 0..1);
            if !worker.leave(100) {
                return 0;
            }
            worker.enter(200, 1..4);
            if worker.leave(200) { 2 } else { 1 }
        });
        let given_up = inside.busy().and_then(|(since_ns, _)| Some((since_ns, inside.write_off(since_ns)?)));
        // How many calls the worker has come out of as if nothing had been.
        match (given_up, worker.join().expect("worker")) {
            (None, calls) => assert_eq!((calls, inside.busy()), (2, None)),
            (Some((100, requests)), calls) => assert_eq!((requests, calls), (0..1, 0)),
            (Some((_, requests)), calls) => assert_eq!((requests, calls), (1..4, 1)),
        }
        assert_eq!(inside.busy(), None);
    });
}
