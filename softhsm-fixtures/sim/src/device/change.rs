//! What of the configuration changes while the device is in use.

use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys as sys;

use super::{Device, refuse};
use crate::config::{Live, SLOWER_MAX, Stall, TOKENS_MAX};
use crate::executions::EXECUTIONS;
use crate::faults::{FAULT_RULES, HANG_RULES};
use crate::stalls::STALLS;

/// Once, in thousandths.
pub(super) const ONCE: u64 = 1_000;

/// The longest that anything takes, however slow it is made: a day. A sum of such times and the clock is in range.
const SLOWEST_NS: u64 = 86_400_000_000_000;

impl Device {
    /// Changes what the text names, and leaves the rest.
    pub(super) fn change(&self, text: &str) -> Result<(), sys::CK_RV> {
        let changed = self.live.lock().changed(text).map_err(|why| refuse(&why))?;
        if text.contains("hang=") {
            HANG_RULES.set(&changed.hangs, self.config.seed);
        }
        if text.contains("fault=") || text.contains("faults=") {
            FAULT_RULES.set(&changed.faults, self.config.seed);
        } else if text.contains("rules=") {
            FAULT_RULES.renew(&changed.faults, self.config.seed);
        }
        if text.contains("removed=") {
            self.place(&changed.removed);
        }
        self.apply(changed);
        Ok(())
    }

    /// Begins and ends stalls.
    pub(super) fn stall(&self, stalls: &[Stall]) {
        for stall in stalls {
            match stall {
                Stall::End => STALLS.end(),
                Stall::Begin { time, token: None } => STALLS.begin(None, *time),
                Stall::Begin { time, token: Some(label) } => {
                    let token = (0..TOKENS_MAX).find(|&token| self.label(token) == *label);
                    token.into_iter().for_each(|token| STALLS.begin(Some(token), *time));
                }
            }
        }
    }

    /// How many times the configured times count on a token, in thousandths.
    fn slowness(&self, live: &Live, token: usize) -> u64 {
        let label = self.label(token);
        let own = live.slower.iter().filter(|slower| slower.token.as_ref().is_none_or(|own| *own == label));
        own.fold(ONCE, |all, slower| (all.saturating_mul(slower.thousandths) / ONCE).min(SLOWER_MAX))
    }

    /// Relaxed everywhere: a call that runs meanwhile may have the old value.
    pub(super) fn apply(&self, live: Live) {
        self.op_ns.store(live.op_ns, Ordering::Relaxed);
        self.call_ns.store(live.call_ns, Ordering::Relaxed);
        self.sessions_max.store(live.sessions, Ordering::Relaxed);
        self.throttle.store(live.throttle, Ordering::Relaxed);
        EXECUTIONS.limit(live.executions);
        for (token, slower) in self.slower.iter().enumerate() {
            slower.store(self.slowness(&live, token), Ordering::Relaxed);
        }
        self.stall(&live.stalls);
        let mut now = self.live.lock();
        if now.cores != live.cores {
            self.cores.iter().for_each(|cores| cores.reset(live.cores));
        }
        *now = live;
    }

    /// Takes these tokens away and puts the others back.
    pub(super) fn place(&self, removed: &[String]) {
        for token in 0..TOKENS_MAX {
            let label = self.label(token);
            if removed.contains(&label) {
                self.remove(token, None);
            } else {
                self.absent_until_ns[token].store(0, Ordering::Relaxed);
            }
        }
    }

    /// How long an operation occupies a core of this token, and a call is on its way to it and back.
    pub(super) fn times_ns(&self, token: Option<usize>) -> (u64, u64) {
        let slower = token.and_then(|token| self.slower.get(token));
        let thousandths = slower.map_or(ONCE, |slower| slower.load(Ordering::Relaxed));
        let slowed = |ns: &AtomicU64| match ns.load(Ordering::Relaxed) {
            ns if thousandths == ONCE => ns,
            ns => (ns / ONCE)
                .saturating_mul(thousandths)
                .saturating_add(ns % ONCE * thousandths / ONCE)
                .min(SLOWEST_NS),
        };
        (slowed(&self.op_ns), slowed(&self.call_ns))
    }
}
