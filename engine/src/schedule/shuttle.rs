//! The whole schedule under shuttle: callers, workers and a watcher on threads, in orders of shuttle's choice.
//!
//! Dispatch, lanes, nodes, admission, deadlines, watches and mailboxes are the engine's own, their queues, locks and parkers
//! models (`sync.rs`). Workers and the watcher do here what `worker.rs`, `turn.rs` and `watcher.rs` do, without a module to
//! call: in its place others get their chance to run. Shuttle knows no order weaker than sequential consistency; that is what
//! the models in `loom.rs` are for.
//!
//! Run with `scripts/shuttle.sh`. `HSMUX_SHUTTLE_SCHEDULES` is how many
//! orders each test runs in. A failure prints the order; `shuttle::replay` runs it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Plain, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use shuttle::thread;

use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::operation::Ask;
use crate::payload::Payload;
use crate::schedule::admission::Admission;
use crate::schedule::core::{LaneRef, draining};
use crate::schedule::deadlines::Deadlines;
use crate::schedule::dispatch::{self, Cost, Dispatch, Orphan, Turn};
use crate::schedule::fairness::Priority;
use crate::schedule::lane::Lane;
use crate::schedule::node::{Asked, Begun, Expired, Node};
use crate::schedule::seat::{Mailbox, Place, Watch, Work};
use crate::schedule::wake::wake;
use crate::sync::{AtomicBool, AtomicU64, Ordering, Parker, Unparker};
use crate::token::task::Task;

struct Seat {
    place: Place,
    watch: Arc<Watch>,
    mailbox: Arc<Mailbox<Self>>,
}

impl dispatch::Seat for Seat {
    fn token(&self) -> usize {
        self.place.token
    }

    fn index(&self) -> usize {
        self.place.index
    }

    fn hand_over(self: Box<Self>) {
        let mailbox = Arc::clone(&self.mailbox);
        mailbox.deliver(self);
    }
}

/// What all threads share.
struct World {
    dispatch: Dispatch<Arc<Node>, Seat>,
    admission: Arc<Admission>,
    deadlines: Deadlines,
    lane: LaneRef,
    watches: Vec<Arc<Watch>>,
    mailboxes: Vec<Arc<Mailbox<Seat>>>,
    /// Nanoseconds, as the watcher counts them.
    clock: Plain,
    panics: AtomicU64,
    stopped: AtomicBool,
    /// The first call hangs until this is set.
    released: Option<AtomicBool>,
    /// Calls so far, and when the one that hangs began; 0 before.
    calls: Plain,
    hangs_since: Plain,
    /// Callers that have their answer.
    told: Plain,
}

const COST_NS: u64 = 1_000_000;

impl World {
    /// One token with so many sessions, all idle, and a worker for each.
    fn new(sessions: usize, hangs: bool) -> (Arc<Self>, Vec<thread::JoinHandle<()>>) {
        let (mailboxes, parkers): (Vec<_>, Vec<_>) = (0..sessions).map(|_| Mailbox::new()).unzip();
        let place = |index| Place { token: 0, index };
        let watch = |index| Arc::new(Watch::new(place(index), Mailbox::new().0));
        let world = Arc::new(Self {
            dispatch: Dispatch::new(&[sessions]),
            admission: Arc::new(Admission::new(100, 1 << 20)),
            deadlines: Deadlines::new(),
            lane: Arc::new(Lane::new(Priority::Normal, Arc::new(AtomicU64::new(1)))),
            watches: (0..sessions).map(watch).collect(),
            mailboxes,
            clock: Plain::new(1),
            panics: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            released: hangs.then(|| AtomicBool::new(false)),
            calls: Plain::new(0),
            hangs_since: Plain::new(0),
            told: Plain::new(0),
        });
        let workers = parkers.into_iter().enumerate().map(|(index, parker)| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.work(index, &parker))
        });
        let workers = workers.collect();
        for index in 0..sessions {
            let (watch, mailbox) = (Arc::clone(&world.watches[index]), Arc::clone(&world.mailboxes[index]));
            world.dispatch.release(Box::new(Seat { place: place(index), watch, mailbox }));
        }
        (world, workers)
    }

    fn now(&self) -> Time {
        Time::from_ns(self.clock.fetch_add(1, Relaxed))
    }

    fn work(&self, index: usize, parker: &Parker) {
        while let Some(seat) = self.mailboxes[index].receive(parker) {
            let watch = Arc::clone(&seat.watch);
            if self.stopped.load(Ordering::SeqCst) {
                // Closed.
                self.mailboxes[index].close();
            } else if !self.serve(seat) {
                return;
            }
            self.deliver(&watch);
        }
    }

    /// Takes turns until there is no work. False if the seat was written off.
    fn serve(&self, mut seat: Box<Seat>) -> bool {
        loop {
            let mut nodes = Vec::new();
            let cost = |_: &_, _: &_| Cost { ns: COST_NS, fills: false };
            let taken = self.dispatch.take(0, self.now().as_ns(), 2 * COST_NS, cost, &mut nodes);
            let Some(turn) = taken else {
                self.dispatch.release(seat);
                if self.stopped.load(Ordering::SeqCst) {
                    self.close_idle();
                }
                return true;
            };
            match self.run(seat, &turn, &mut nodes) {
                Some(back) => seat = back,
                None => return false,
            }
            self.dispatch.settle(&turn, COST_NS, 0, COST_NS);
        }
    }

    fn run(&self, seat: Box<Seat>, turn: &Turn<Arc<Node>>, nodes: &mut Vec<Arc<Node>>) -> Option<Box<Seat>> {
        let nodes = seat.watch.begin_turn(&turn.lane, nodes);
        for (position, node) in nodes.iter().enumerate() {
            let (at, mut places) = (self.now(), self.admission.places());
            let waker = match node.begin(at, &mut places) {
                Begun::Run(mut buffers) => {
                    assert!(node.deadline.is_none_or(|deadline| at < deadline), "run after its deadline");
                    seat.watch.enter(at, position..position + 1);
                    self.call(at);
                    if !seat.watch.leave(at) {
                        return None;
                    }
                    buffers.output.clear();
                    buffers.output.extend_from_slice(&buffers.input);
                    node.complete(buffers, &mut places)
                }
                Begun::Expired(waker) => waker,
                Begun::Gone => None,
            };
            seat.watch.keep(waker, &mut places, at);
        }
        seat.watch.end_turn();
        Some(seat)
    }

    fn call(&self, at: Time) {
        let first = self.calls.fetch_add(1, Relaxed) == 0;
        thread::yield_now();
        if let Some(released) = self.released.as_ref().filter(|_| first) {
            self.hangs_since.store(at.as_ns(), Relaxed);
            while !released.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
    }

    fn deliver(&self, watch: &Watch) {
        watch.deliver(&mut Vec::new(), self.admission.places(), &self.panics);
    }

    fn submit(&self, node: Arc<Node>) {
        self.fail(self.dispatch.submit(&self.lane, [node]), lost);
        if self.stopped.load(Ordering::SeqCst) {
            self.fail_queued();
        }
    }

    fn fail(&self, orphan: Option<Orphan<Arc<Node>>>, error: fn() -> Error) {
        let Some(orphan) = orphan else { return };
        self.dispatch.fail(orphan, |node| {
            let waker = node.fail(error(), &mut self.admission.places());
            waker.into_iter().for_each(|waker| wake(waker, &self.panics));
        });
    }

    fn fail_queued(&self) {
        self.dispatch.drain().into_iter().for_each(|orphan| self.fail(Some(orphan), draining));
    }

    fn close_idle(&self) {
        while let Some(seat) = self.dispatch.take_from(0) {
            dispatch::Seat::hand_over(seat);
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.fail_queued();
        self.close_idle();
    }

    /// One look of the watcher: deadlines, and a call that is inside the module for too long.
    fn look(&self) {
        let now = Time::from_ns(self.clock.fetch_add(1_000, Relaxed) + 1_000);
        let mut answered = false;
        for node in self.deadlines.due(now) {
            match node.expire(&mut self.admission.places()) {
                Expired::Answered => answered = true,
                Expired::Now { waker, .. } => waker.into_iter().for_each(|waker| wake(waker, &self.panics)),
            }
        }
        for watch in &self.watches {
            if answered {
                self.deliver(watch);
            }
            let hangs = |since: Time| since.as_ns() == self.hangs_since.load(Relaxed);
            if let Some(busy) = watch.busy().filter(|busy| hangs(busy.since)) {
                self.write_off(watch, busy.since);
            }
        }
        self.dispatch.orphans().for_each(|orphan| self.fail(Some(orphan), lost));
    }

    fn write_off(&self, watch: &Watch, since: Time) {
        let Some(Work { lane, current, rest }) = watch.write_off(since) else { return };
        for node in current {
            let hung = Error::new(ErrorKind::Hung, Retry::Later, Outcome::Unknown);
            let waker = node.fail(hung, &mut self.admission.places());
            waker.into_iter().for_each(|waker| wake(waker, &self.panics));
        }
        self.deliver(watch);
        if let Some(lane) = lane {
            self.fail(self.dispatch.give_back(&lane, rest), lost);
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone)
}

/// A caller's own request, and how it is woken.
struct Asks {
    node: Arc<Node>,
    number: u8,
    parker: Parker,
}

struct Unpark(Unparker);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Puts a request in flight, as a future does when it is first polled.
fn ask(world: &World, number: u8, deadline: Option<Time>) -> Asks {
    let parker = Parker::new();
    let waker = Waker::from(Arc::new(Unpark(parker.unparker().clone())));
    let node = make(world, number, deadline, &waker);
    if let Some(deadline) = deadline {
        world.deadlines.register(deadline, &node);
    }
    world.submit(Arc::clone(&node));
    Asks { node, number, parker }
}

fn make(world: &World, number: u8, deadline: Option<Time>, waker: &Waker) -> Arc<Node> {
    let permit = world.admission.admit(100).expect("there is room");
    let asked = Asked { ask: Ask::random(1), key: None, requests: 1, repeats: true, tried: None };
    let task = Task { handles: None, output_len: 1, plan: 0, merge: None };
    let fill = |_: &Ask, memory: &mut Payload| memory.push(number);
    Node::make(asked, task, fill, Time::from_ns(1), deadline, Some(waker), Some(permit))
}

impl Asks {
    fn wait(self) -> Result<()> {
        let waker = Waker::from(Arc::new(Unpark(self.parker.unparker().clone())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = self.node.poll(&mut context) {
                assert!(self.node.try_collect().is_none(), "answered twice");
                return answer.map(|output| assert_eq!(output[..], [self.number], "another's answer"));
            }
            self.parker.park();
        }
    }
}

/// Ends everything; then nothing may be left.
fn end(world: Arc<World>, workers: Vec<thread::JoinHandle<()>>) {
    world.stop();
    workers.into_iter().for_each(|worker| worker.join().expect("a worker"));
    assert!(world.lane.is_idle() && !world.dispatch.any_waits());
    let world = Arc::into_inner(world).expect("nobody else has it");
    let admission = Arc::clone(&world.admission);
    drop(world);
    assert_eq!((admission.requests(), admission.bytes()), (0, 0), "room is not given back");
}

/// Runs a test in many orders, half of them with few changes of thread at the worst places.
fn model(run: impl Fn() + Clone + Send + Sync + 'static) {
    let text = std::env::var("HSMUX_SHUTTLE_SCHEDULES").ok();
    let schedules = text.map_or(1_000, |text| text.parse().expect("HSMUX_SHUTTLE_SCHEDULES is a number"));
    shuttle::check_random(run.clone(), schedules / 2);
    shuttle::check_pct(run, schedules / 2, 3);
}

#[test]
fn shuttle_every_request_is_answered_once_and_with_its_own_answer() {
    model(|| {
        let (world, workers) = World::new(2, false);
        let callers = (0..3).map(|caller| {
            spawn(&world, move |world| {
                for number in [2 * caller, 2 * caller + 1] {
                    assert!(ask(world, number, None).wait().is_ok());
                }
            })
        });
        join(callers.collect());
        end(world, workers);
    });
}

#[test]
fn shuttle_an_inline_caller_and_a_limit_hide_no_session_from_work_that_waits() {
    model(|| {
        let (world, workers) = World::new(2, false);
        let caller = spawn(&world, |world| assert!(ask(world, 1, None).wait().is_ok()));
        let inline = spawn(&world, |world| {
            if let Some(seat) = world.dispatch.lease(1, 0, (0, 1)) {
                seat.watch.enter_inline(world.now());
                thread::yield_now();
                seat.watch.leave_inline();
                world.dispatch.release(seat);
            }
        });
        let controller =
            spawn(&world, |world| [1, 2, 1].into_iter().for_each(|n| world.dispatch.set_limit(0, n)));
        join(vec![caller, inline, controller]);
        end(world, workers);
    });
}

#[test]
fn shuttle_deadlines_pass_callers_leave_and_a_call_hangs() {
    model(|| {
        let (world, workers) = World::new(2, true);
        let patient = spawn(&world, |world| {
            assert!(ask(world, 1, None).wait().is_ok_or(ErrorKind::Hung));
            world.told.fetch_add(1, Relaxed);
        });
        let hurried = spawn(&world, |world| {
            let answer = ask(world, 2, Some(Time::from_ns(3_000))).wait();
            assert!(answer.is_ok_or(ErrorKind::Hung) || answer.is_ok_or(ErrorKind::DeadlineExceeded));
            world.told.fetch_add(1, Relaxed);
        });
        let leaves = spawn(&world, |world| {
            let asks = ask(world, 3, None);
            thread::yield_now();
            asks.node.withdraw();
        });
        // The watcher, while anybody waits.
        while world.told.load(Relaxed) < 2 {
            world.look();
            thread::yield_now();
        }
        join(vec![patient, hurried, leaves]);
        world.released.as_ref().expect("it hangs").store(true, Ordering::SeqCst);
        // One of them was written off: its worker ends by itself.
        world.mailboxes.iter().for_each(|mailbox| mailbox.close());
        end(world, workers);
    });
}

#[test]
fn shuttle_what_is_queued_while_the_token_is_lost_or_the_engine_stops_is_answered() {
    model(|| {
        let (world, workers) = World::new(1, false);
        let callers = (0..2).map(|number| {
            spawn(&world, move |world| {
                let answer = ask(world, number, None).wait();
                assert!(answer.is_ok_or(ErrorKind::TokenLost) || answer.is_ok_or(ErrorKind::Draining));
            })
        });
        let callers = callers.collect();
        let loses = spawn(&world, |world| {
            for healthy in [false, true] {
                let orphans = world.dispatch.set_healthy(0, healthy);
                orphans.into_iter().for_each(|orphan| world.fail(Some(orphan), lost));
            }
            world.look();
        });
        let stops = spawn(&world, World::stop);
        join(vec![loses, stops]);
        // The watcher's last looks.
        world.look();
        world.stop();
        join(callers);
        world.look();
        end(world, workers);
    });
}

/// Every order there is of a session, the watcher and the caller at one request: its cell is one lock, so these are all.
#[test]
fn shuttle_completion_deadline_and_caller_meet_in_every_order() {
    let run = |leaves: bool| {
        let (world, workers) = World::new(0, false);
        assert!(workers.is_empty());
        let parker = Parker::new();
        let woken = Waker::from(Arc::new(Unpark(parker.unparker().clone())));
        let node = make(&world, 7, Some(Time::from_ns(500)), &woken);
        let session = {
            let node = Arc::clone(&node);
            spawn(&world, move |world| {
                let mut places = world.admission.places();
                let waker = match node.begin(Time::from_ns(10), &mut places) {
                    Begun::Run(buffers) => node.complete(buffers, &mut places),
                    Begun::Expired(waker) => waker,
                    Begun::Gone => None,
                };
                waker.into_iter().for_each(Waker::wake);
            })
        };
        let watcher = {
            let node = Arc::clone(&node);
            spawn(&world, move |world| {
                if let Expired::Now { waker: Some(waker), .. } = node.expire(&mut world.admission.places()) {
                    waker.wake();
                }
            })
        };
        if leaves {
            node.withdraw();
            join(vec![session, watcher]);
            assert!(node.try_collect().is_none(), "answered, and nobody there");
        } else {
            let early = node.poll(&mut Context::from_waker(&woken));
            join(vec![session, watcher]);
            let late = node.poll(&mut Context::from_waker(&woken));
            assert!(early.is_ready() != late.is_ready(), "answered once");
            // A caller that found nothing was woken.
            assert!(early.is_ready() || parker.was_unparked());
        }
        // What was withdrawn while a session was at it gives its place back when it goes.
        drop(node);
        assert_eq!(world.admission.requests(), 0, "a place is not given back");
    };
    shuttle::check_dfs(move || run(false), None);
    shuttle::check_dfs(move || run(true), None);
}

trait IsOkOr {
    /// Whether it went well, or failed in just this way.
    fn is_ok_or(&self, kind: ErrorKind) -> bool;
}

impl IsOkOr for Result<()> {
    fn is_ok_or(&self, kind: ErrorKind) -> bool {
        self.as_ref().is_ok() || self.as_ref().is_err_and(|error| error.kind() == kind)
    }
}

fn spawn(world: &Arc<World>, run: impl FnOnce(&World) + Send + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || run(&world))
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("a thread of the model"));
}
