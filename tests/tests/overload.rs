//! Ten times as many requests as the tokens can serve: memory stays bounded, refusals are quick and say what they are,
//! as much is served in time as at the peak, and nothing is sent to a token that nobody waits for any more.
//!
//! `HSMUX_FAILURES=long` is the form with the bounds of the promise: for a minute.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail them and say what they measured"
)]

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use hdrhistogram::Histogram;
use hsmux::{Engine, Error, ErrorKind, Hmac, Key, Outcome, Pending, Sign};
use hsmux_tests::figures::by_form;
use hsmux_tests::{Hsm, LONG, wait_idle};
use parking_lot::{Mutex, MutexGuard};
use quanta::Instant;

const TOKENS: usize = 2;
const SESSIONS: usize = 2;
const OPERATION: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(1);
/// Large, so that bytes are what is short.
const BODY: usize = 64 << 10;
const BYTES_MAX: usize = 32 << 20;
/// More than fit into the bytes.
const COLLECTED_MAX: usize = BYTES_MAX / BODY + 1;
const OVERLOAD: u32 = 10;
/// How often the generator catches up with its schedule.
const TICK: Duration = Duration::from_millis(1);

/// Requests that were answered.
#[derive(Debug, Default)]
struct Answered {
    /// In time.
    good: u64,
    /// By an error, or after the deadline.
    late: u64,
    /// By any other error.
    others: Vec<Error>,
}

/// What the generator saw.
struct Offered {
    requests: u64,
    /// After how many nanoseconds. Of a fixed size: the test's own memory is not to be taken for the engine's.
    refused: Histogram<u64>,
}

impl Offered {
    fn new() -> Self {
        Self { requests: 0, refused: Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap() }
    }

    fn refused_in(&self, part: f64) -> Duration {
        Duration::from_nanos(self.refused.value_at_quantile(part))
    }
}

/// A request whose input says when it is due, by the simulator's clock.
struct Stamped<'a> {
    hsm: &'a Hsm,
    key: &'a Key,
    body: Vec<u8>,
}

impl<'a> Stamped<'a> {
    fn new(hsm: &'a Hsm, key: &'a Key) -> Self {
        Self { hsm, key, body: vec![7; BODY] }
    }

    /// In flight, or how long it took to be refused. The engine's own time starts a moment after this look at the clock,
    /// and a thread may be taken off its core between the engine's last look and the call.
    fn submit(&mut self) -> Result<(Pending<Sign>, Instant), Duration> {
        let slack = by_form(LIMIT / 2, Duration::from_millis(1));
        let due_ns = self.hsm.sim.now_ns() + u64::try_from((LIMIT + slack).as_nanos()).unwrap();
        self.body[..8].copy_from_slice(&due_ns.to_be_bytes());
        let started = Instant::now();
        match self.key.sign(Hmac::SHA256, &self.body).deadline_in(LIMIT).submit() {
            Ok(pending) => Ok((pending, started)),
            Err(refused) => {
                let took = started.elapsed();
                assert_eq!(refused.error.kind(), ErrorKind::Overloaded, "{}", refused.error);
                assert_eq!(refused.error.outcome(), Outcome::NotDone);
                Err(took)
            }
        }
    }
}

/// As many as the tokens can have in hand, each asked for when the one before is answered. Answers a second.
fn peak(hsm: &Hsm, key: &Key, time: Duration) -> f64 {
    let started = Instant::now();
    let one = || {
        let (mut requests, mut served) = (Stamped::new(hsm, key), 0_u64);
        while started.elapsed() < time {
            let (pending, _) = requests.submit().unwrap();
            served += u64::from(pending.wait().is_ok());
        }
        served
    };
    let served: u64 = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..2 * TOKENS * SESSIONS).map(|_| scope.spawn(one)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    served as f64 / started.elapsed().as_secs_f64()
}

/// Offers so many requests a second by the clock, whatever becomes of them.
fn offer(
    hsm: &Hsm,
    key: &Key,
    rate: f64,
    time: Duration,
    to: &SyncSender<(Pending<Sign>, Instant)>,
) -> Offered {
    let (mut requests, mut offered) = (Stamped::new(hsm, key), Offered::new());
    let started = Instant::now();
    while started.elapsed() < time {
        let due = started.elapsed().as_secs_f64() * rate;
        while (offered.requests as f64) < due {
            offered.requests += 1;
            match requests.submit() {
                Ok(flying) => to.send(flying).unwrap(),
                Err(took) => offered.refused.saturating_record(u64::try_from(took.as_nanos()).unwrap()),
            }
        }
        std::thread::park_timeout(TICK);
    }
    offered
}

fn collect(from: &Receiver<(Pending<Sign>, Instant)>) -> Answered {
    let mut answered = Answered::default();
    while let Ok((pending, started)) = from.recv() {
        match pending.wait() {
            Ok(_) => answered.good += 1,
            Err(error) if error.kind() == ErrorKind::DeadlineExceeded => answered.late += 1,
            Err(error) => answered.others.push(error),
        }
        // A collector that falls behind is not the engine's fault, and would have it refuse what it has room for.
        assert!(started.elapsed() < LONG);
    }
    answered
}

/// Resident memory of this process that is no file's, in bytes: code that is touched for the first time is nobody's load.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// One test at a time: what another one takes is not to be counted here. One that failed leaves nothing to protect.
fn alone() -> MutexGuard<'static, ()> {
    static MEASURES: Mutex<()> = Mutex::new(());
    MEASURES.lock()
}

/// The most resident memory, and the most bytes that the engine says are in flight, while something goes on.
fn watch(engine: &Engine, goes_on: impl Fn() -> bool) -> (usize, usize) {
    let mut most = (0, 0);
    while goes_on() {
        most = (most.0.max(resident()), most.1.max(engine.snapshot().bytes_in_flight));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    most
}

/// What came of ten times the load.
struct Overload {
    offered: Offered,
    answered: Answered,
    /// From the first that was offered to the last that was answered.
    took: Duration,
    /// Operations that the tokens were asked for.
    calls: u64,
    /// Resident before, and at most.
    resident: (usize, usize),
    in_flight: usize,
}

fn overload(hsm: &Hsm, engine: &Engine, key: &Key, peak: f64, time: Duration) -> Overload {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(COLLECTED_MAX);
        let collecting = scope.spawn(move || collect(&receiver));
        let offering = |rate, time| {
            let sender = sender.clone();
            scope.spawn(move || offer(hsm, key, rate, time, &sender))
        };
        // As little as the tokens serve at ease, so that whoever takes part in what follows has the memory for it.
        let calm = offering(peak / 4.0, Duration::from_millis(300));
        watch(engine, || !calm.is_finished());
        let calm = calm.join().unwrap();
        assert!(calm.refused.is_empty());
        wait_idle(engine);
        let (before, calls, started) = (resident(), hsm.operations(), Instant::now());
        let offering = offering(peak * f64::from(OVERLOAD), time);
        drop(sender);
        let (most, in_flight) = watch(engine, || !offering.is_finished());
        let mut answered = collecting.join().unwrap();
        answered.good -= calm.requests;
        let (took, calls) = (started.elapsed(), hsm.operations() - calls);
        Overload {
            offered: offering.join().unwrap(),
            answered,
            took,
            calls,
            resident: (before, most),
            in_flight,
        }
    })
}

impl Overload {
    fn goodput(&self) -> f64 {
        self.answered.good as f64 / self.took.as_secs_f64()
    }

    fn print(&self, hsm: &Hsm, peak: f64, time: Duration) {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let rate = self.offered.requests as f64 / time.as_secs_f64();
        println!("peak {peak:.0}/s; offered {rate:.0}/s; in time {:.0}/s", self.goodput());
        println!("{} calls; {} answered in time, {} not", self.calls, self.answered.good, self.answered.late);
        let refused = [0.5, 0.99, 0.999, 1.0].map(|part| self.offered.refused_in(part));
        println!("{} refused after p50, p99, p99.9, max {refused:.1?}", self.offered.refused.len());
        let (late, latest) = hsm.sim.late();
        println!("calls begun after the deadline: {late}, the latest by {latest:?}");
        let [before, most, in_flight, cap] =
            [self.resident.0, self.resident.1, self.in_flight, BYTES_MAX].map(mib);
        println!(
            "resident: {before:.1} MiB before, {most:.1} at most; in flight: {in_flight:.1} of {cap:.1}"
        );
    }
}

#[test]
fn ten_times_the_load_costs_no_memory_beyond_the_cap_and_no_goodput() {
    let _alone = alone();
    let operation_us = OPERATION.as_micros();
    let hsm = Hsm::new(TOKENS, &format!("op_us={operation_us},cores={SESSIONS},stamped=1"));
    let engine = hsm.builder().sessions(SESSIONS).bytes_max(BYTES_MAX).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let peak = peak(&hsm, &key, by_form(Duration::from_millis(700), Duration::from_secs(10)));
    let time = by_form(Duration::from_secs(3), Duration::from_secs(60));
    let overload = overload(&hsm, &engine, &key, peak, time);
    overload.print(&hsm, peak, time);
    let Overload { offered, answered, calls, resident: (before, most), in_flight, .. } = &overload;
    assert!(answered.others.is_empty(), "{:?}", answered.others.first());
    let wanted = time.as_secs_f64() * peak * f64::from(OVERLOAD);
    assert!(offered.requests as f64 >= 0.9 * wanted, "too few were offered");
    // Memory: the cap was reached, and is one.
    assert!((BYTES_MAX / 10 * 9..=BYTES_MAX).contains(in_flight), "{in_flight} bytes in flight");
    assert!(most - before <= BYTES_MAX / 10 * 11, "{most} bytes, {before} before");
    // Goodput: the tokens work, and for answers that somebody waits for.
    assert!(overload.goodput() >= by_form(0.3, 0.9) * peak, "{:.0} of {peak:.0}", overload.goodput());
    assert!(answered.good as f64 >= by_form(0.8, 0.9) * *calls as f64, "{} of {calls}", answered.good);
    assert_eq!(hsm.sim.late().0, 0, "the latest by {:?}", hsm.sim.late().1);
    assert!(offered.refused_in(by_form(0.9, 0.999)) < Duration::from_millis(1));
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.refused, snapshot.panics), (offered.refused.len(), 0));
    wait_idle(&engine);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn small_requests_take_no_more_memory_than_is_counted_for_them() {
    const REQUESTS: usize = 60_000;
    let _alone = alone();
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().hang_limit(LONG).build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("hang=C_Sign:1+").unwrap();
    let mut flying = Vec::with_capacity(REQUESTS);
    let submit = || key.sign(Hmac::SHA256, b"small").deadline_in(LONG).submit().unwrap();
    flying.extend((0..REQUESTS / 10).map(|_| submit()));
    let (before, counted) = (resident(), engine.snapshot().bytes_in_flight);
    flying.extend((flying.len()..REQUESTS).map(|_| submit()));
    let (grown, counted) = (resident() - before, engine.snapshot().bytes_in_flight - counted);
    let added = REQUESTS / 10 * 9;
    println!("{} bytes of memory for a request, {} counted", grown / added, counted / added);
    hsm.sim.release_hangs();
    drop(flying);
    assert!(grown <= counted / 10 * 11, "{grown} bytes for {counted}");
    wait_idle(&engine);
}
