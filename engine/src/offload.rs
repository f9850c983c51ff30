//! Host work that is too long for a thread that polls futures: it runs on rayon's threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use event_listener::Event;

use crate::error::{Error, Result};
use crate::sync::Mutex;

/// Inputs above this are hashed elsewhere by async requests (design: "above 16 KiB off the polling thread").
pub(crate) const POLL_BYTES_MAX: usize = 16 << 10;

/// Runs `work` on rayon's threads, from now on, and waits for it without blocking.
///
/// # Cancel safety
/// If the future is dropped the work still runs to its end, and its result is dropped.
pub(crate) fn offload<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> impl Future<Output = Result<R>> + Send {
    let done = Arc::new((Mutex::new(None), Event::new()));
    let report = Arc::clone(&done);
    rayon::spawn(move || {
        let value = catch_unwind(AssertUnwindSafe(work));
        *report.0.lock() = Some(value);
        report.1.notify(1);
    });
    async move {
        loop {
            let heard = done.1.listen();
            if let Some(value) = done.0.lock().take() {
                return value.map_err(|_| Error::internal("a panic while the host prepared a request"));
            }
            heard.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn work_begins_before_anyone_polls_for_it() {
        let (send, heard) = std::sync::mpsc::sync_channel(1);
        let work = offload(move || send.send(()).is_ok());
        heard.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
        assert!(futures::executor::block_on(work).unwrap());
    }

    #[test]
    fn work_runs_elsewhere_and_a_panic_in_it_is_an_error() {
        let here = std::thread::current().id();
        let there = futures::executor::block_on(offload(|| std::thread::current().id())).unwrap();
        assert_ne!(here, there);
        let error = futures::executor::block_on(offload(|| panic!("on purpose"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
