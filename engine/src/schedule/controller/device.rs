//! A simulated device in virtual time, with callers in a closed loop and sessions that a controller puts in use.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{Controller, Sessions, Totals};
use crate::clock::Time;

pub(super) const MS: u64 = 1_000_000;
pub(super) const US: u64 = 1_000;

/// What it is like; may change between two runs.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// Operations that run at once; later ones are held up inside their call.
    pub(super) cores: usize,
    /// Callers, each with one request at a time.
    pub(super) callers: usize,
    /// Kinds of operation (index of the plan, nanoseconds), which callers ask for in turn.
    pub(super) kinds: Vec<(usize, u64)>,
    /// With so many calls inside, each takes twice as long.
    pub(super) doubles_at: Option<usize>,
    /// With more calls inside than this, further ones fail.
    pub(super) throttles_at: Option<usize>,
    /// Each so many calls one fails.
    pub(super) fails_each: Option<usize>,
    /// Part of the cores that others use, in per cent, at random.
    pub(super) others: u64,
    /// Sessions that it gives.
    pub(super) most: usize,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            cores: 1,
            callers: 256,
            kinds: vec![(0, MS)],
            doubles_at: None,
            throttles_at: None,
            fails_each: None,
            others: 0,
            most: usize::MAX,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A call returns.
    Returned { kind: usize, ns: u64, failed: bool },
    /// A request is submitted.
    Submitted,
    /// The controller looks.
    Look,
    /// A session has been opened.
    Opened,
    /// Others come with an operation.
    Other,
}

/// A device under load.
pub(super) struct World {
    pub(super) device: Device,
    pub(super) controller: Controller,
    pub(super) now: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    totals: Totals,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// When those who wait were submitted.
    waiting: VecDeque<u64>,
    /// Where each core is free.
    free: BinaryHeap<Reverse<u64>>,
    inside: usize,
    open: usize,
    opening: bool,
    present: usize,
    asked: usize,
    number: u64,
    random: u64,
}

/// A session is opened in this time.
const OPENING_NS: u64 = MS;

impl World {
    pub(super) fn new(device: Device, floor: usize, ceiling: usize, start: usize) -> Self {
        let mut world = Self {
            device,
            controller: Controller::new(floor, ceiling, start),
            now: 0,
            done: 0,
            failed: 0,
            totals: Totals::default(),
            events: BinaryHeap::new(),
            waiting: VecDeque::new(),
            free: BinaryHeap::new(),
            inside: 0,
            open: start,
            opening: false,
            present: 0,
            asked: 0,
            number: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        world.after(MS, Event::Look);
        world.after(MS, Event::Other);
        world
    }

    /// Changes the device, from now on.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Device)) {
        change(&mut self.device);
        self.free.clear();
    }

    /// Goes on for so long. Returns the operations per second meanwhile.
    pub(super) fn run(&mut self, ns: u64) -> f64 {
        let (until, before) = (self.now + ns, self.done);
        while self.present < self.device.callers {
            self.present += 1;
            self.after(0, Event::Submitted);
        }
        while let Some(&Reverse((at, _, event))) = self.events.peek() {
            if at > until {
                break;
            }
            self.events.pop();
            self.now = at;
            self.happen(event);
        }
        self.now = until;
        (self.done - before) as f64 / (ns as f64 / 1e9)
    }

    /// Runs step by step; the sessions that were in use, at least and at most.
    pub(super) fn range(&mut self, ns: u64) -> (usize, usize) {
        (0..ns / MS).fold((usize::MAX, 0), |(least, most), _| {
            self.run(MS);
            (least.min(self.controller.in_use()), most.max(self.controller.in_use()))
        })
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submitted => self.waiting.push_back(self.now),
            Event::Returned { kind, ns, failed } => {
                self.inside -= 1;
                if failed {
                    self.failed += 1;
                    self.totals.pushed_back += 1;
                } else {
                    self.done += 1;
                    let plan = &mut self.totals.plans[kind];
                    *plan = (plan.0 + 1, plan.1 + ns);
                }
                if self.present > self.device.callers {
                    self.present -= 1;
                } else {
                    self.after(0, Event::Submitted);
                }
            }
            Event::Look => {
                let sessions = Sessions { open: self.open, most: self.device.most };
                let next = self.controller.look(Time::from_ns(self.now + 1), &self.totals, sessions);
                self.after(next.unwrap_or(100 * MS), Event::Look);
                self.open_one();
            }
            Event::Opened => {
                self.opening = false;
                self.open += 1;
                self.open_one();
            }
            Event::Other => {
                let ns = self.device.kinds[0].1;
                let apart_ns = (ns * 100 / self.device.cores as u64).checked_div(self.device.others);
                if let Some(mean_ns) = apart_ns {
                    self.book(ns);
                    let next_ns = 1 + self.random() % (2 * mean_ns.max(1));
                    self.after(next_ns, Event::Other);
                } else {
                    self.after(MS, Event::Other);
                }
            }
        }
        self.begin();
    }

    fn open_one(&mut self) {
        if !self.opening && self.open < self.controller.in_use().min(self.device.most) {
            self.opening = true;
            self.after(OPENING_NS, Event::Opened);
        }
    }

    /// Sessions that are free take what waits.
    fn begin(&mut self) {
        while self.inside < self.controller.in_use().min(self.open) {
            let Some(submitted) = self.waiting.pop_front() else { return };
            self.totals.queued_ns += self.now - submitted;
            let (kind, mut ns) = self.device.kinds[self.asked % self.device.kinds.len()];
            self.asked += 1;
            let broken = self.device.fails_each.is_some_and(|each| self.asked.is_multiple_of(each));
            if broken || self.device.throttles_at.is_some_and(|most| self.inside >= most) {
                self.inside += 1;
                self.after(ns / 4, Event::Returned { kind, ns, failed: true });
                continue;
            }
            self.inside += 1;
            if let Some(doubles_at) = self.device.doubles_at {
                ns += ns * self.inside as u64 / doubles_at as u64;
            }
            // No two calls take exactly the same.
            ns += self.random() % (ns / 20 + 1);
            let end = self.book(ns);
            self.after(end - self.now, Event::Returned { kind, ns: end - self.now, failed: false });
        }
    }

    /// Takes the core that is free first; returns when it is done.
    fn book(&mut self, ns: u64) -> u64 {
        while self.free.len() < self.device.cores {
            self.free.push(Reverse(self.now));
        }
        let Reverse(free) = self.free.pop().unwrap();
        let end = free.max(self.now) + ns;
        self.free.push(Reverse(end));
        end
    }

    fn after(&mut self, ns: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((self.now + ns, self.number, event)));
    }

    /// xorshift64.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
