//! How many sessions a token gives, and how many of them pay.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use cryptoki_sys as sys;

use super::found::{ScalingFound, ScalingPoint, SessionsFound};
use super::workbench::{OUTPUT_MAX, OWN_SESSIONS, Signer, Workbench, is_end};
use crate::clock::{Time, now};
use crate::error::Result;
use crate::pkcs11::{Fault, Session, SessionFate};
use crate::sync::RwLock;

/// Sessions by which the rate is measured.
const COUNTS: [usize; 5] = [1, 2, 4, 8, 16];

/// How often each number has its turn, forth and then back: the better of its turns counts, for what else the machine does
/// makes them only slower.
const ROUNDS: usize = 2;

/// For how long a turn lasts: some hundred operations of a slow device.
const LASTS: Duration = Duration::from_millis(150);

/// Opens sessions until one is refused, `most` are open or the time is up, and closes them. Only `CKR_SESSION_COUNT` says that
/// there are no more, and only if it comes again when one was closed and opened anew: others may have held some for a moment.
pub(super) fn count(
    bench: &Workbench,
    told: Option<u64>,
    most: usize,
    until: Time,
    mut step: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Option<SessionsFound>> {
    let mut open = Vec::new();
    let mut refused = None;
    while OWN_SESSIONS + open.len() < most {
        if now() >= until {
            // As many may be had as were wanted: nobody knows.
            return Ok(None);
        }
        step(OWN_SESSIONS + open.len(), most)?;
        match bench.library.open(bench.slot) {
            Ok(session) => open.push(session),
            Err(fault) if is_end(fault) => return Err(fault.into()),
            Err(fault) => {
                if fault.is(sys::CKR_SESSION_COUNT) && !is_refused_again(bench, &mut open)? {
                    continue;
                }
                refused = Some(fault.name());
                break;
            }
        }
    }
    Ok(Some(SessionsFound { told, opened: OWN_SESSIONS + open.len(), refused }))
}

/// Closes a session and opens it again, and one more if it can. Whether that is refused as well.
fn is_refused_again(bench: &Workbench, open: &mut Vec<Session>) -> Result<bool> {
    let again = if open.pop().is_some() { 2 } else { 1 };
    for _ in 0..again {
        match bench.library.open(bench.slot) {
            Ok(session) => open.push(session),
            Err(fault) if is_end(fault) => return Err(fault.into()),
            Err(fault) => return Ok(fault.is(sys::CKR_SESSION_COUNT)),
        }
    }
    Ok(false)
}

/// Signs with ever more sessions at once, and with ever fewer again. None if there was no time for each to have a turn, for
/// the best might be among the others.
pub(super) fn scale(
    bench: &mut Workbench,
    signer: &Signer,
    until: Time,
    mut step: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Option<ScalingFound>> {
    let mut points: Vec<ScalingPoint> = Vec::new();
    // What so many sessions at once are refused, or fail with, is no rate: it goes on with fewer.
    let mut most = usize::MAX;
    let turns = COUNTS.into_iter().chain(COUNTS.into_iter().rev());
    for (at, sessions) in turns.enumerate() {
        step(at, COUNTS.len() * ROUNDS)?;
        if now().after(LASTS) > until {
            if at < COUNTS.len() {
                return Ok(None);
            }
            bench.is_cut = true;
            break;
        }
        if sessions >= most {
            continue;
        }
        // What happens once may be somebody else's doing.
        match turn(bench, sessions, signer).or_else(|_| turn(bench, sessions, signer)) {
            Ok(Some(per_second)) => note(&mut points, ScalingPoint { sessions, per_second }),
            Ok(None) => {}
            Err(fault) if is_end(fault) => return Err(fault.into()),
            Err(_) => most = sessions,
        }
    }
    let operation = signer.operation.to_owned();
    Ok(recommend(&points).map(|recommended| ScalingFound { operation, recommended, points }))
}

/// The rate of so many sessions; none if the host does not have the threads.
fn turn(bench: &Workbench, sessions: usize, signer: &Signer) -> Result<Option<u64>, Fault> {
    let opened = (0..sessions).map(|_| bench.library.open(bench.slot)).collect::<Result<Vec<_>, _>>()?;
    rate(opened, signer)
}

/// Keeps the better of two turns.
fn note(points: &mut Vec<ScalingPoint>, new: ScalingPoint) {
    match points.iter_mut().find(|point| point.sessions == new.sessions) {
        Some(point) => point.per_second = point.per_second.max(new.per_second),
        None => points.push(new),
    }
}

/// Operations a second of all these sessions, each on a thread of its own. None if one of the threads could not be started.
fn rate(sessions: Vec<Session>, signer: &Signer) -> Result<Option<u64>, Fault> {
    // Held until all have signed once. It says whether they are to go on.
    let starts = RwLock::new(false);
    let mut gate = starts.write();
    let (warm, warming) = channel();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for session in sessions {
            let (starts, warm) = (&starts, warm.clone());
            let run = move || work(session, signer, warm, starts);
            match std::thread::Builder::new().name("hsmux-probe".into()).spawn_scoped(scope, run) {
                Ok(thread) => threads.push(thread),
                // The others find that they are not to go on.
                Err(_) => {
                    drop(gate);
                    return Ok(None);
                }
            }
        }
        drop(warm);
        // Until each has dropped its end, which one that panics does too.
        while warming.recv().is_ok() {}
        *gate = true;
        drop(gate);
        // A thread that has panicked has done nothing that can be counted.
        let worked = threads.into_iter().filter_map(|thread| thread.join().ok());
        worked.collect::<Result<Vec<_>, _>>().map(|worked| Some(rate_of(&worked)))
    })
}

/// What one session has done, and when.
struct Worked {
    begun: Time,
    count: u64,
    done: Time,
}

fn work(
    mut session: Session,
    signer: &Signer,
    warm: Sender<()>,
    starts: &RwLock<bool>,
) -> Result<Worked, Fault> {
    let mut out = [0; OUTPUT_MAX];
    let mut sign = || {
        signer.sign(&mut session, &mut out).inspect_err(|fault| {
            if fault.class().session == SessionFate::Abandon {
                session.abandon();
            }
        })
    };
    // The first one fetches what a module keeps for later ones, and is not counted.
    let first = sign();
    drop(warm);
    let may_start = *starts.read();
    first?;
    let (begun, mut count) = (now(), 0);
    let mut done = begun;
    let end = begun.after(LASTS);
    while may_start && done < end {
        sign()?;
        count += 1;
        done = now();
    }
    Ok(Worked { begun, count, done })
}

/// All of them together, from when the first began until the last was done.
fn rate_of(worked: &[Worked]) -> u64 {
    let count: u64 = worked.iter().map(|worked| worked.count).sum();
    let begun = worked.iter().map(|worked| worked.begun).min();
    let done = worked.iter().map(|worked| worked.done).max();
    let ns = begun.zip(done).map_or(0, |(begun, done)| done.ns_since(begun));
    count.saturating_mul(1_000_000_000) / ns.max(1)
}

/// The fewest sessions whose rate is within a twentieth of the best.
pub(super) fn recommend(points: &[ScalingPoint]) -> Option<usize> {
    let best = points.iter().map(|point| point.per_second).max().filter(|&best| best > 0)?;
    let is_enough = |point: &&ScalingPoint| u128::from(point.per_second) * 20 >= u128::from(best) * 19;
    points.iter().filter(is_enough).map(|point| point.sessions).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recommended(rates: &[u64]) -> Option<usize> {
        let point = |(&per_second, sessions)| ScalingPoint { sessions, per_second };
        recommend(&rates.iter().zip(COUNTS).map(point).collect::<Vec<_>>())
    }

    #[test]
    fn the_fewest_sessions_are_recommended_that_are_nearly_as_fast_as_the_best() {
        assert_eq!(recommended(&[100, 200, 400, 800, 1_600]), Some(16), "it grows to the end");
        assert_eq!(recommended(&[1_000, 1_990, 2_000, 2_005, 2_010]), Some(2), "two cores");
        assert_eq!(recommended(&[1_000, 900, 800, 700, 600]), Some(1), "one lock");
        assert_eq!(recommended(&[949, 1_000, 0, 0, 0]), Some(2), "more than a twentieth below");
        assert_eq!(recommended(&[950, 1_000, 0, 0, 0]), Some(1), "a twentieth below");
        assert_eq!(recommended(&[u64::MAX, u64::MAX]), Some(1));
    }

    #[test]
    fn a_rate_is_what_all_did_from_the_first_begin_to_the_last_end() {
        let worked = |begun, count, done| {
            let at = |ms: u64| Time::from_ns(ms * 1_000_000);
            Worked { begun: at(begun), count, done: at(done) }
        };
        assert_eq!(rate_of(&[worked(100, 50, 200)]), 500);
        assert_eq!(rate_of(&[worked(100, 50, 200), worked(100, 50, 200)]), 1_000);
        // One after the other is no faster than one alone.
        assert_eq!(rate_of(&[worked(100, 50, 200), worked(200, 50, 300)]), 500);
        assert_eq!(rate_of(&[]), 0);
    }

    #[test]
    fn the_better_of_two_turns_counts() {
        let mut points = Vec::new();
        for (sessions, per_second) in [(1, 5), (2, 9), (2, 8), (1, 6)] {
            note(&mut points, ScalingPoint { sessions, per_second });
        }
        assert_eq!(points.iter().map(|point| point.per_second).collect::<Vec<_>>(), [6, 9]);
    }

    #[test]
    fn of_nothing_nothing_is_recommended() {
        assert_eq!((recommended(&[]), recommended(&[0, 0])), (None, None));
    }
}
