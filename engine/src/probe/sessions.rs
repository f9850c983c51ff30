//! How many sessions a token gives, and how many of them pay.

use std::sync::Barrier;
use std::time::Duration;

use super::found::{ScalingFound, ScalingPoint, SessionsFound};
use super::workbench::{OUTPUT_MAX, OWN_SESSIONS, Signer, Workbench, is_end};
use crate::clock::{Time, now};
use crate::error::Result;
use crate::pkcs11::{Fault, Session};

/// Sessions by which the rate is measured.
const COUNTS: [usize; 5] = [1, 2, 4, 8, 16];

/// How often each number has its turn, forth and then back: the better of its turns counts, for what else the machine does
/// makes them only slower.
const ROUNDS: usize = 2;

/// For how long a turn lasts: some hundred operations of a slow device.
const LASTS: Duration = Duration::from_millis(150);

/// Opens sessions until one is refused, `most` are open or the time is up, and closes them.
pub(super) fn count(
    bench: &Workbench,
    told: Option<u64>,
    most: usize,
    until: Time,
    mut step: impl FnMut(usize, usize),
) -> Result<Option<SessionsFound>> {
    let mut open = Vec::new();
    let mut refused = None;
    while OWN_SESSIONS + open.len() < most {
        if now() >= until {
            // As many may be had as were wanted: nobody knows.
            return Ok(None);
        }
        step(OWN_SESSIONS + open.len(), most);
        match bench.library.open(bench.slot) {
            Ok(session) => open.push(session),
            Err(fault) if is_end(fault) => return Err(fault.into()),
            Err(fault) => {
                refused = Some(fault.name());
                break;
            }
        }
    }
    Ok(Some(SessionsFound { told, opened: OWN_SESSIONS + open.len(), refused }))
}

/// Signs with ever more sessions at once, and with ever fewer again. None if there was no time for each to have a turn, for
/// the best might be among the others.
pub(super) fn scale(
    bench: &Workbench,
    signer: &Signer,
    until: Time,
    mut step: impl FnMut(usize, usize),
) -> Result<Option<ScalingFound>> {
    let mut points: Vec<ScalingPoint> = Vec::new();
    // What so many sessions at once are refused, or fail with, is no rate: it goes on with fewer.
    let mut most = usize::MAX;
    let turns = COUNTS.into_iter().chain(COUNTS.into_iter().rev());
    for (at, sessions) in turns.enumerate() {
        step(at, COUNTS.len() * ROUNDS);
        if now().after(LASTS) > until {
            if at < COUNTS.len() {
                return Ok(None);
            }
            break;
        }
        if sessions >= most {
            continue;
        }
        let opened = (0..sessions).map(|_| bench.library.open(bench.slot)).collect::<Result<Vec<_>, _>>();
        match opened.and_then(|opened| rate(opened, signer)) {
            Ok(per_second) => note(&mut points, ScalingPoint { sessions, per_second }),
            Err(fault) if is_end(fault) => return Err(fault.into()),
            Err(_) => most = sessions,
        }
    }
    let operation = signer.operation.to_owned();
    Ok(recommend(&points).map(|recommended| ScalingFound { operation, recommended, points }))
}

/// Keeps the better of two turns.
fn note(points: &mut Vec<ScalingPoint>, new: ScalingPoint) {
    match points.iter_mut().find(|point| point.sessions == new.sessions) {
        Some(point) => point.per_second = point.per_second.max(new.per_second),
        None => points.push(new),
    }
}

/// Operations a second of all these sessions, each on a thread of its own.
fn rate(sessions: Vec<Session>, signer: &Signer) -> Result<u64, Fault> {
    let ready = Barrier::new(sessions.len());
    let counts = std::thread::scope(|scope| {
        let run = |mut session: Session| {
            let ready = &ready;
            scope.spawn(move || {
                let mut out = [0; OUTPUT_MAX];
                // The first one fetches what a module keeps for later ones, and is not counted.
                let warm = signer.sign(&mut session, &mut out).map(drop);
                ready.wait();
                warm?;
                let (begun, mut count) = (now(), 0_u64);
                let end = begun.after(LASTS);
                while now() < end {
                    signer.sign(&mut session, &mut out)?;
                    count += 1;
                }
                Ok((count, now().ns_since(begun)))
            })
        };
        let threads: Vec<_> = sessions.into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let rate_of = |(count, ns): (u64, u64)| count.saturating_mul(1_000_000_000) / ns.max(1);
    // A thread that has panicked has done nothing that can be counted.
    counts.into_iter().flatten().map(|counted| counted.map(rate_of)).sum()
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
