//! Time for measuring: the wall, and the CPU time of this process.

use std::time::Duration;

pub(crate) use quanta::Instant;

/// CPU time that all threads of this process have used.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // The kernel's figure is neither negative nor out of range.
    Duration::try_from(time).unwrap_or_default()
}

/// CPU time that this thread has used.
pub(crate) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
