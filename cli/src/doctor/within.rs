//! A bound on what a module takes: it may never come back.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Has something done on a thread of its own, and waits for it so long at most. What does not end in time stays where it is,
/// until the process ends.
///
/// # Errors
/// In words: there was no answer in time, or none at all.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (answer, answered) = sync_channel(1);
    let run = move || {
        // Who has stopped waiting does not take it.
        let _taken = answer.send(job());
    };
    let started = std::thread::Builder::new().name("hsmux-doctor".to_owned()).spawn(run);
    started.map_err(|error| format!("no thread can be started for it: {error}"))?;
    answered.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("there was no answer in {}", humantime::format_duration(limit)),
        RecvTimeoutError::Disconnected => "it ended without an answer".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_back_is_not_waited_for() {
        let (release, held) = sync_channel::<()>(0);
        let hung = within(Duration::from_millis(1), move || held.recv().is_ok());
        assert_eq!(hung.unwrap_err(), "there was no answer in 1ms");
        drop(release);
        assert_eq!(within(Duration::from_secs(60), || 7), Ok(7));
        assert_eq!(
            within(Duration::from_secs(60), || std::panic::resume_unwind(Box::new(()))),
            Err::<(), _>("it ended without an answer".to_owned())
        );
    }
}
