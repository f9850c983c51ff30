//! From a request to a session: admission, lanes, run queues, turns, workers, the watcher.
//!
//! Nothing here knows a PKCS#11 name: a session runs a task, that is all.

pub(crate) mod demotion;
pub(crate) mod dispatch;
pub(crate) mod fairness;
mod idle;
mod inside;
pub(crate) mod lane;
mod run_queue;
mod tiers;

#[cfg(not(hsmux_loom))]
pub(crate) mod admission;
#[cfg(not(hsmux_loom))]
pub(crate) mod breaker;
#[cfg(not(hsmux_loom))]
pub(crate) mod budget;
#[cfg(not(hsmux_loom))]
pub(crate) mod controller;
#[cfg(not(hsmux_loom))]
pub(crate) mod core;
#[cfg(not(hsmux_loom))]
pub(crate) mod cost;
#[cfg(not(hsmux_loom))]
pub(crate) mod deadlines;
#[cfg(not(hsmux_loom))]
mod ejection;
#[cfg(not(hsmux_loom))]
mod gather;
#[cfg(not(hsmux_loom))]
mod loss;
#[cfg(not(hsmux_loom))]
pub(crate) mod meter;
#[cfg(not(hsmux_loom))]
pub(crate) mod node;
#[cfg(not(hsmux_loom))]
pub(crate) mod quiet;
#[cfg(not(hsmux_loom))]
pub(crate) mod recovery;
#[cfg(not(hsmux_loom))]
mod rescue;
#[cfg(not(hsmux_loom))]
mod reset;
#[cfg(not(hsmux_loom))]
pub(crate) mod scope;
#[cfg(not(hsmux_loom))]
pub(crate) mod seat;
#[cfg(not(hsmux_loom))]
mod tenants;
#[cfg(not(hsmux_loom))]
pub(crate) mod turn;
#[cfg(not(hsmux_loom))]
pub(crate) mod waiters;
#[cfg(not(hsmux_loom))]
pub(crate) mod wake;
#[cfg(not(hsmux_loom))]
pub(crate) mod watcher;
#[cfg(not(hsmux_loom))]
pub(crate) mod worker;

#[cfg(all(test, hsmux_loom))]
mod loom;

#[cfg(all(test, hsmux_shuttle))]
mod shuttle;

#[cfg(test)]
#[cfg(not(any(hsmux_loom, hsmux_shuttle)))]
mod simulation;
