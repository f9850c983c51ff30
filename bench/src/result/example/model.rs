//! Where the figures of the example come from: a queue that nobody ran.

use std::ops::Range;
use std::time::Duration;

/// How long the run is.
pub(super) const SECONDS: f64 = 60.0;

/// What does not count, at its begin.
pub(super) const WARM_UP_S: f64 = 5.0;

/// When half as much again is asked.
pub(super) const SPIKE_S: Range<f64> = 45.0..52.0;

/// Name, weight in the mix, and mean microseconds on the token.
pub(super) const OPERATIONS: [(&str, f64, f64); 3] =
    [("ecdsa-p256:64", 0.55, 640.0), ("aes-gcm:1024", 0.35, 210.0), ("rsa2048-sha256:64", 0.10, 1_900.0)];

/// When one of the three tokens is away.
const LOST_S: Range<f64> = 20.0..30.0;

pub(super) struct Model {
    pub(super) seed: u64,
    pub(super) speed: f64,
}

#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) at_s: f64,
    pub(super) operation: usize,
    pub(super) token: usize,
    pub(super) took_ns: u64,
    pub(super) failed: bool,
}

/// A generator of Lehmer's kind: enough for pictures.
struct Chance(u64);

pub(super) fn is_lost(at_s: f64) -> bool {
    LOST_S.contains(&at_s)
}

pub(super) fn ns(us: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(us / 1e6).as_nanos()).unwrap_or(u64::MAX)
}

impl Model {
    pub(super) fn requests(&self) -> Vec<Request> {
        let mut chance = Chance(self.seed);
        let mut requests = Vec::new();
        let mut at_s = 0.0;
        while at_s < SECONDS {
            requests.push(self.request(at_s, &mut chance));
            let per_s = if SPIKE_S.contains(&at_s) { 1_500.0 } else { 1_000.0 };
            at_s += -chance.fraction().max(1e-9).ln() / per_s;
        }
        requests
    }

    fn request(&self, at_s: f64, chance: &mut Chance) -> Request {
        let operation = match chance.fraction() {
            pick if pick < OPERATIONS[0].1 => 0,
            pick if pick < OPERATIONS[0].1 + OPERATIONS[1].1 => 1,
            _ => 2,
        };
        let just_lost = (0.0..0.7).contains(&(at_s - LOST_S.start));
        let pick = chance.fraction();
        let token = match (is_lost(at_s) && !just_lost, pick) {
            (false, pick) if pick < 1.0 / 3.0 => 1,
            (_, pick) if pick < 0.66 => 0,
            _ => 2,
        };
        let busy = if is_lost(at_s) || SPIKE_S.contains(&at_s) { 2.6 } else { 1.0 };
        let wait = -chance.fraction().max(1e-9).ln() * 0.42 * busy * busy;
        let mut us = OPERATIONS[operation].2 * ((0.22 * chance.normal()).exp() + wait) / self.speed;
        let on_lost = just_lost && token == 1;
        if on_lost {
            us += 1e6 * (0.7 - (at_s - LOST_S.start)).max(0.0);
        }
        Request { at_s, operation, token, took_ns: ns(us), failed: on_lost && chance.fraction() < 0.4 }
    }
}

impl Chance {
    fn fraction(&mut self) -> f64 {
        // Multiplier and modulus 2^31 - 1 of Park and Miller's minimal standard.
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        self.0 as f64 / 2_147_483_647.0
    }

    /// Twelve fractions have variance 1 together.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.fraction()).sum::<f64>() - 6.0
    }
}
