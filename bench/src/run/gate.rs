//! Which request a caller makes next, and when it is due.

use std::iter::Peekable;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::arrivals::{Arrival, Schedule};
use crate::profile::Profile;

/// What all callers of a run take their requests from.
#[derive(Debug)]
pub(super) struct Gate {
    arrivals: Arrivals,
    idle: Mutex<Idle>,
    is_stopped: AtomicBool,
    /// It was stopped because what was due had not been begun long after the end.
    is_cut: AtomicBool,
}

/// What is due when.
#[derive(Debug)]
enum Arrivals {
    /// Whatever became of those before.
    Open(Mutex<Peekable<Schedule>>),
    /// As soon as a caller has its answer: by phase, when it ends and how many callers it has. No lock: at millions a second
    /// callers would wait for each other.
    Closed(Vec<(Duration, u32)>),
}

/// Tasks that wait for something to be due.
#[derive(Debug)]
struct Idle {
    wakers: Vec<(u32, Waker)>,
    /// By caller, whether it is one of them.
    is_idle: Vec<bool>,
}

/// What a caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A request, which is due then or was due before.
    Make(Arrival),
    /// Nothing until then.
    Wait(Duration),
    /// Nothing more.
    End,
}

impl Gate {
    pub(super) fn new(profile: &Profile) -> Self {
        let arrivals = match profile.schedule() {
            Some(schedule) => Arrivals::Open(Mutex::new(schedule.peekable())),
            None => Arrivals::Closed(ends(profile)),
        };
        let is_idle = vec![false; most_callers(profile) as usize];
        let idle = Mutex::new(Idle { wakers: Vec::new(), is_idle });
        Self { arrivals, idle, is_stopped: AtomicBool::new(false), is_cut: AtomicBool::new(false) }
    }

    /// What a caller does that has a thread to itself: of an open loop it takes what is due next, however far away that is.
    pub(super) fn claim(&self, caller: u32, now: Duration) -> Next {
        match &self.arrivals {
            _ if self.is_stopped() => Next::End,
            Arrivals::Open(schedule) => schedule.lock().next().map_or(Next::End, Next::Make),
            Arrivals::Closed(phases) => closed(phases, caller, now),
        }
    }

    /// What a caller does that is a task: it is woken when something is due.
    pub(super) fn poll(
        &self,
        caller: u32,
        now: impl Fn() -> Duration,
        context: &Context<'_>,
    ) -> Poll<Option<Arrival>> {
        let mut idle = self.idle.lock();
        idle.takes_notice_of(caller);
        // Read under the lock: whoever is not there yet when a request becomes due and is woken for sees that it is due.
        let next = if self.is_stopped() { Next::End } else { self.due(caller, now(), &mut idle) };
        match next {
            Next::Make(arrival) => Poll::Ready(Some(arrival)),
            Next::Wait(_) => {
                idle.add(caller, context.waker());
                Poll::Pending
            }
            Next::End => {
                idle.wake_all();
                Poll::Ready(None)
            }
        }
    }

    fn due(&self, caller: u32, now: Duration, idle: &mut Idle) -> Next {
        let schedule = match &self.arrivals {
            Arrivals::Open(schedule) => schedule,
            Arrivals::Closed(phases) => return closed(phases, caller, now),
        };
        let mut schedule = schedule.lock();
        match schedule.next_if(|arrival| arrival.at <= now) {
            Some(arrival) => {
                // Several may have become due at once: one wakes the next.
                if schedule.peek().is_some_and(|next| next.at <= now) {
                    idle.wake();
                }
                Next::Make(arrival)
            }
            None => schedule.peek().map_or(Next::End, |next| Next::Wait(next.at)),
        }
    }

    /// Something is due: wakes a task for it, if one waits.
    pub(super) fn wake(&self) {
        self.idle.lock().wake();
    }

    /// Wakes all tasks: a phase begins, or there is nothing more.
    pub(super) fn wake_all(&self) {
        self.idle.lock().wake_all();
    }

    /// No more requests are made.
    pub(super) fn stop(&self) {
        let mut idle = self.idle.lock();
        // Relaxed: tasks look at it under the lock, and threads sooner or later.
        self.is_stopped.store(true, Ordering::Relaxed);
        idle.wake_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// As [`stop`](Self::stop), but not because somebody asked for it.
    pub(super) fn cut(&self) {
        if !self.is_stopped() {
            self.is_cut.store(true, Ordering::Relaxed);
            self.stop();
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Takes what was due by then and was never begun; how many those are.
    pub(super) fn take_unbegun(&self, now: Duration) -> u64 {
        let Arrivals::Open(schedule) = &self.arrivals else { return 0 };
        let mut schedule = schedule.lock();
        std::iter::from_fn(|| schedule.next_if(|arrival| arrival.at <= now)).count() as u64
    }
}

impl Idle {
    fn add(&mut self, caller: u32, waker: &Waker) {
        self.wakers.push((caller, waker.clone()));
        self.is_idle[caller as usize] = true;
    }

    fn wake(&mut self) {
        // The last that became idle: its memory is warm.
        if let Some((caller, waker)) = self.wakers.pop() {
            self.is_idle[caller as usize] = false;
            waker.wake();
        }
    }

    fn wake_all(&mut self) {
        self.is_idle.fill(false);
        self.wakers.drain(..).for_each(|(_, waker)| waker.wake());
    }

    /// A caller is here. If it was woken by something else, nobody may wake it in the place of another any more.
    fn takes_notice_of(&mut self, caller: u32) {
        if std::mem::take(&mut self.is_idle[caller as usize]) {
            self.wakers.retain(|(other, _)| *other != caller);
        }
    }
}

/// What a caller of a closed loop does.
fn closed(phases: &[(Duration, u32)], caller: u32, now: Duration) -> Next {
    let phase = phases.partition_point(|&(end, _)| end <= now);
    match phases.get(phase) {
        None => Next::End,
        Some(&(_, callers)) if caller < callers => Next::Make(Arrival { at: now, phase }),
        Some(&(end, _)) => Next::Wait(end),
    }
}

/// How many callers a run has.
pub(super) fn most_callers(profile: &Profile) -> u32 {
    profile.phases.iter().map(|phase| profile.callers_in(phase)).max().unwrap_or(0)
}

/// When each phase ends, and how many callers it has.
fn ends(profile: &Profile) -> Vec<(Duration, u32)> {
    let mut end = Duration::ZERO;
    let phases = profile.phases.iter().map(|phase| {
        end += phase.length;
        (end, profile.callers_in(phase))
    });
    phases.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(text: &str) -> Gate {
        Gate::new(&Profile::parse(text).unwrap())
    }

    const OPEN: &str = "name = 'a'\npace = 'constant'\n[[phase]]\nname = 'b'\nfor = '1s'\nrate = '4/s'\n\
        [[operation]]\nop = 'random'\n";
    const CLOSED: &str = "name = 'a'\n[[phase]]\nname = 'b'\nfor = '1s'\ncallers = 1\n[[phase]]\nname = 'c'\n\
        for = '2s'\ncallers = 2\n[[operation]]\nop = 'random'\n";

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn due(gate: &Gate, now: u64) -> Option<Option<u128>> {
        let context = Context::from_waker(Waker::noop());
        match gate.poll(0, || ms(now), &context) {
            Poll::Ready(arrival) => Some(arrival.map(|arrival| arrival.at.as_millis())),
            Poll::Pending => None,
        }
    }

    #[test]
    fn tasks_take_what_is_due_in_its_order_and_keep_when_it_was_due() {
        let gate = gate(OPEN);
        assert_eq!([due(&gate, 0), due(&gate, 0)], [Some(Some(0)), None]);
        // Nobody was there for a while: what was due then comes at once, and none is left out.
        assert_eq!(
            [due(&gate, 600), due(&gate, 600), due(&gate, 600)],
            [Some(Some(250)), Some(Some(500)), None]
        );
        assert_eq!([due(&gate, 2_000), due(&gate, 2_000)], [Some(Some(750)), Some(None)]);
    }

    #[test]
    fn a_task_that_came_by_itself_is_not_woken_in_the_place_of_another() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};
        struct Count(AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let profile = Profile { callers: 2, ..Profile::parse(OPEN).unwrap() };
        let gate = Gate::new(&profile);
        let woken = [0, 1].map(|_| Arc::new(Count(AtomicU32::new(0))));
        let poll = |caller: u32, now| {
            let waker = Waker::from(Arc::clone(&woken[caller as usize]));
            gate.poll(caller, || ms(now), &Context::from_waker(&waker)).is_ready()
        };
        assert!(poll(0, 0));
        assert_eq!([poll(0, 1), poll(1, 1)], [false, false]);
        assert!(poll(1, 250), "nobody has woken it");
        gate.wake();
        let woken = woken.map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(woken, [1, 0]);
    }

    #[test]
    fn threads_take_what_is_due_next_and_wait_for_it_themselves() {
        let gate = gate(OPEN);
        let next = |now| gate.claim(0, ms(now));
        let make = |at| Next::Make(Arrival { at: ms(at), phase: 0 });
        assert_eq!(
            [next(0), next(0), next(900), next(0), next(0)],
            [make(0), make(250), make(500), make(750), Next::End]
        );
    }

    #[test]
    fn callers_of_a_closed_loop_make_the_next_request_at_once_while_their_phase_has_so_many() {
        let gate = gate(CLOSED);
        let make = |at, phase| Next::Make(Arrival { at: ms(at), phase });
        assert_eq!([gate.claim(0, ms(5)), gate.claim(0, ms(5))], [make(5, 0), make(5, 0)]);
        assert_eq!(gate.claim(1, ms(5)), Next::Wait(ms(1_000)));
        assert_eq!([gate.claim(1, ms(1_000)), gate.claim(1, ms(3_000))], [make(1_000, 1), Next::End]);
    }

    #[test]
    fn what_was_due_and_never_begun_is_counted() {
        let gate = gate(OPEN);
        assert!(due(&gate, 0).is_some());
        gate.cut();
        assert_eq!((gate.claim(0, ms(600)), gate.is_cut(), gate.is_stopped()), (Next::End, true, true));
        assert_eq!([gate.take_unbegun(ms(600)), gate.take_unbegun(ms(600))], [2, 0]);
        assert_eq!(gate.take_unbegun(ms(9_000)), 1);
    }

    #[test]
    fn a_run_that_is_stopped_was_not_cut() {
        let gate = gate(OPEN);
        gate.stop();
        gate.cut();
        assert!(gate.is_stopped() && !gate.is_cut());
    }

    #[test]
    fn a_run_that_is_stopped_makes_no_more_requests() {
        for text in [OPEN, CLOSED] {
            let gate = gate(text);
            gate.stop();
            assert_eq!(
                (due(&gate, 0), gate.claim(0, ms(0)), gate.is_stopped()),
                (Some(None), Next::End, true)
            );
        }
    }
}
