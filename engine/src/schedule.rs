//! From a request to a session: admission, lanes, run queues, turns, workers, the watcher.
//!
//! Nothing here knows a PKCS#11 name: a session runs a task, that is all.

pub(crate) mod dispatch;
pub(crate) mod fairness;
mod idle;
pub(crate) mod lane;
mod run_queue;

#[cfg(all(test, hsmux_loom))]
mod loom;
