//! What the host does by itself, and where: verification, and encryption with a public key.

use std::sync::Arc;

use super::{Audited, Build, InTime, Request, Settling};
use crate::error::{Error, Result};
use crate::keys::KeyVersion;
use crate::offload::offload;
use crate::operation::{Ask, Operation};
use crate::payload::Payload;

/// A request of its own, to be run on any thread.
pub(super) struct HostWork<O: Operation> {
    version: Arc<KeyVersion>,
    ask: Ask,
    input: Payload,
    build: Build<O>,
}

impl<O: Operation> HostWork<O> {
    pub(super) fn run(self) -> Result<O::Output> {
        (self.build)(&self.ask, self.ask.on_host(&self.version.facts, &self.input)?)
    }
}

/// Work of the host: under way, or to begin when its intent is in the audit log.
enum Running<F, O: Operation> {
    Begun(F),
    Waits(Settling<()>, HostWork<O>, InTime),
}

impl<O: Operation> Request<'_, O> {
    /// Runs it on this thread.
    pub(super) fn run_on_host(&mut self) -> Result<O::Output> {
        Audited::begin(&mut self.audited);
        let facts = self.facts().ok_or_else(without_key)?;
        (self.build)(&self.ask, self.ask.on_host(facts, &self.input)?)
    }

    /// The work, taken from the request.
    pub(super) fn host_work(&mut self) -> Result<HostWork<O>> {
        let version = self.key.map(Arc::clone).ok_or_else(without_key)?;
        let input = std::mem::take(&mut self.input).into_payload();
        Ok(HostWork { version, ask: self.ask.clone(), input, build: self.build })
    }

    /// Checks the request and has it run away from the thread that polls, from now on and not only when the future
    /// is polled.
    pub(super) fn begin_on_host(mut self) -> Result<impl Future<Output = Result<O::Output>> + Send> {
        self.start()?;
        let intent = self.intent().map(|intent| (intent, self.in_time()));
        let work = self.host_work().map_err(|error| self.fail(error))?;
        let (mut trace, mut audited) = (self.trace, self.audited);
        let begin = |work: HostWork<O>| offload(move || work.run());
        let running = match intent {
            None => {
                Audited::begin(&mut audited);
                Running::Begun(begin(work))
            }
            Some((intent, in_time)) => Running::Waits(intent, work, in_time),
        };
        Ok(async move {
            let running = match running {
                Running::Begun(running) => running,
                Running::Waits(intent, work, in_time) => {
                    if let Err(error) = intent.await.and_then(|()| in_time.check()) {
                        Audited::refuse(&mut audited, Some(error.kind()));
                        return super::Trace::end(&mut trace, Err(error));
                    }
                    Audited::begin(&mut audited);
                    begin(work)
                }
            };
            let answer = running.await.and_then(|answer| answer);
            let answer = match audited {
                Some(audited) => audited.settle(answer).await,
                None => answer,
            };
            super::Trace::end(&mut trace, answer)
        })
    }
}

fn without_key() -> Error {
    Error::internal("a host operation without a key")
}
