//! The service thread of a token: whatever is not a request runs there, so that no caller waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crossbeam::channel::{Sender, unbounded};

use crate::clock::now;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::threads::Threads;

/// A thread that runs jobs one after the other on a state of its own. It drops the state and ends when it is closed,
/// or when the `Service` is gone.
pub(crate) struct Service<S> {
    jobs: Sender<Job<S>>,
    thread: Threads,
}

/// Keeps a service's thread from its jobs until it is dropped.
#[expect(dead_code, reason = "what matters is that its end of the channel goes")]
pub(crate) struct Held(SyncSender<()>);

/// The state is gone once the service is closed.
type Job<S> = Box<dyn FnOnce(&mut Option<S>) + Send>;

impl<S: Send + 'static> Service<S> {
    pub(crate) fn start(name: String, state: S) -> Result<Self> {
        let (jobs, inbox) = unbounded::<Job<S>>();
        let mut state = Some(state);
        let run = move || {
            for job in inbox {
                // A panic in a job (log subscribers are user code) is that job's alone: who waits for it is told when it is dropped.
                let _done = catch_unwind(AssertUnwindSafe(|| job(&mut state)));
                if state.is_none() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name(name).spawn(run).map_err(|error| {
            Error::operator(ErrorKind::Busy, format!("cannot start a service thread: {error}"))
        })?;
        let thread = Threads::default();
        thread.add(started);
        Ok(Self { jobs, thread })
    }

    /// Has a job done some time, unless the service is closed; nobody waits for it.
    pub(crate) fn post(&self, job: impl FnOnce(&mut S) + Send + 'static) {
        self.send(|state| {
            if let Some(state) = state {
                job(state);
            }
        });
    }

    /// Has the state dropped after the jobs that wait now; nobody waits for it before the process ends.
    pub(crate) fn close(&self) {
        self.send(|state| drop(state.take()));
        self.thread.leave();
    }

    /// As [`Service::close`], and waits for the end of the thread, at most for `limit`.
    pub(crate) fn close_and_wait(&self, limit: Duration) {
        self.send(|state| drop(state.take()));
        self.thread.join(now().after(limit));
    }

    /// Has a job done and waits for its result, at most for `limit`.
    pub(crate) fn call<R: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce(&mut S) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (reply, answer) = sync_channel(1);
        self.send(move |state| {
            let closed = || Err(Error::new(ErrorKind::Draining, Retry::Never, Outcome::NotDone));
            let _heard = reply.send(state.as_mut().map_or_else(closed, job));
        });
        answer.recv_timeout(limit).unwrap_or_else(|why| match why {
            RecvTimeoutError::Timeout => Err(Error::new(ErrorKind::Hung, Retry::Later, Outcome::Unknown)
                .because("the token's service thread")),
            RecvTimeoutError::Disconnected => {
                Err(Error::new(ErrorKind::Draining, Retry::Never, Outcome::Unknown))
            }
        })
    }

    /// Waits until the thread has done the jobs that wait now, at most for `limit`, and has it do no more.
    pub(crate) fn hold(&self, limit: Duration) -> Result<Held> {
        let (entered, enters) = sync_channel(1);
        let (holder, released) = sync_channel(1);
        self.send(move |_| {
            let _heard = entered.send(());
            // Ends with an error, when the holder goes.
            let _gone = released.recv();
        });
        match enters.recv_timeout(limit) {
            Ok(()) => Ok(Held(holder)),
            Err(_) => Err(Error::new(ErrorKind::Busy, Retry::Later, Outcome::NotDone)
                .because("a service thread of the token has not come back")),
        }
    }

    fn send(&self, job: impl FnOnce(&mut Option<S>) + Send + 'static) {
        // The thread ends only when this sender is gone; a job that is lost to a panic there is lost.
        let _sent = self.jobs.send(Box::new(job));
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
    fn a_service_that_is_held_does_its_jobs_when_it_is_let_go() {
        let service = Service::start("test".into(), 0).unwrap();
        let held = service.hold(Duration::from_secs(10)).unwrap();
        let (tell, told) = sync_channel(1);
        service.post(move |_| tell.send(()).unwrap());
        assert!(told.try_recv().is_err());
        assert_eq!(service.hold(Duration::ZERO).map(drop).unwrap_err().kind(), ErrorKind::Busy);
        drop(held);
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(()));
        assert!(service.hold(Duration::from_secs(10)).is_ok(), "who gave up holds nothing");
    }

    #[test]
    fn a_closed_service_has_dropped_its_state_and_takes_no_more_jobs() {
        let state = std::sync::Arc::new(());
        let service = Service::start("test".into(), std::sync::Arc::clone(&state)).unwrap();
        service.close_and_wait(Duration::from_secs(10));
        assert_eq!(std::sync::Arc::strong_count(&state), 1);
        let error = service.call(Duration::from_secs(10), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Draining);
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
