//! The service thread of a token: whatever is not a request runs there, so that no caller waits for it.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crossbeam::channel::{Sender, unbounded};

use crate::error::{Error, ErrorKind, Outcome, Result, Retry};

/// A thread that runs jobs one after the other on a state of its own. It ends, and drops the state, when the
/// last `Service` is gone.
pub(crate) struct Service<S> {
    jobs: Sender<Job<S>>,
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

impl<S: Send + 'static> Service<S> {
    pub(crate) fn start(name: String, mut state: S) -> Result<Self> {
        let (jobs, inbox) = unbounded::<Job<S>>();
        let run = move || inbox.into_iter().for_each(|job| job(&mut state));
        std::thread::Builder::new().name(name).spawn(run).map_err(|error| {
            Error::operator(ErrorKind::Busy, format!("cannot start a service thread: {error}"))
        })?;
        Ok(Self { jobs })
    }

    /// Has a job done some time; nobody waits for it.
    pub(crate) fn post(&self, job: impl FnOnce(&mut S) + Send + 'static) {
        // The thread ends only when this sender is gone; a job that is lost to a panic there is lost.
        let _sent = self.jobs.send(Box::new(job));
    }

    /// Has a job done and waits for its result, at most for `limit`.
    pub(crate) fn call<R: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce(&mut S) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (reply, answer) = sync_channel(1);
        self.post(move |state| {
            let _heard = reply.send(job(state));
        });
        answer.recv_timeout(limit).unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Hung, Retry::Later, Outcome::Unknown)
                .because("the token's service thread"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_in_order_on_one_state() {
        let service = Service::start("test".into(), Vec::new()).unwrap();
        service.post(|list| list.push(1));
        service.post(|list| list.push(2));
        let list = service.call(Duration::from_secs(10), |list| Ok(list.clone())).unwrap();
        assert_eq!(list, [1, 2]);
    }

    #[test]
    fn who_waits_for_a_job_that_never_ends_is_answered_at_the_limit() {
        let service = Service::start("test".into(), ()).unwrap();
        let (release, hold) = sync_channel::<()>(1);
        service.post(move |()| {
            let _released = hold.recv();
        });
        let error = service.call(Duration::from_millis(1), |()| Ok(())).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Hung, Outcome::Unknown));
        drop(release);
    }
}
