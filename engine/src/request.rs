//! Requests: what is asked, before it is in flight.

mod audited;
mod flight;
mod future;
mod group;
mod host;
mod inline;
mod joint;
mod many;
mod pipeline;
mod queue;
mod random;
mod together;
mod trace;

use std::convert::Infallible;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize;

use crate::audit::AuditMode;
use crate::audit::record::{Text, Use, Uses};
use crate::clock::{Time, now};
use crate::engine::Shared;
use crate::engine::audit::Book;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::keys::KeyVersion;
use crate::keys::managed::Tie;
use crate::operation::{Ask, Operation, OperationKind};
use crate::payload::Input;
use crate::pending::Pending;
use crate::schedule::core::Core;
use crate::schedule::fairness::Priority;
use crate::schedule::node::{expired, may_repeat};
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::task::{Handles, Mechanism};

pub(crate) use audited::{Audited, Label, Ones, Settling};
pub use future::RequestFuture;
pub(crate) use many::Item;
pub use many::Many;
pub use pipeline::{Pipeline, pipeline};
pub(crate) use queue::{finish, plan};
pub use trace::RequestId;
pub(crate) use trace::{Ran, Trace};

/// A request that nothing has happened to yet: it starts with [`Request::wait`], [`Request::wait_into`],
/// [`Request::submit`] or `.await`.
///
/// ```no_run
/// # fn main() -> hsmux::Result<()> {
/// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
/// use std::time::Duration;
/// let key = engine.key("card-signing")?;
/// let request = key.sign(hsmux::Ecdsa::P256_SHA256, b"pay 10 to A".as_slice());
/// let signature = request.deadline_in(Duration::from_millis(50)).wait()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a request does nothing until it is waited for, awaited or submitted"]
pub struct Request<'a, O: Operation> {
    shared: &'a Arc<Shared>,
    key: Option<&'a Arc<KeyVersion>>,
    ask: Ask,
    input: Input<'a>,
    build: Build<O>,
    deadline: Deadline,
    priority: Priority,
    tenant: u64,
    waits_for_room: bool,
    at_most_once: bool,
    /// The caller takes the risk that a compromised key is.
    at_risk: bool,
    /// The name of the algorithm, if anybody wants to know.
    named: &'static str,
    /// What the audit log is to call it, if there is one.
    label: Option<Box<Label>>,
    /// Its record, from when it starts until it is in flight; then its [`Pending`] has it.
    audited: Option<Box<Audited>>,
    /// What the audit log says of those that were put together.
    uses: Option<Box<Uses>>,
    /// Its intent is in the audit log.
    is_intended: bool,
    /// From when its deadline counts, if it has started before now.
    since: Option<Time>,
    /// The caller has tried it itself, and may have had it executed.
    tried: Option<Outcome>,
    /// How many requests of the caller it is: more than one if they were put together.
    requests: u32,
    /// Its id and, from when it starts until it is in flight, its span; then its [`Pending`] has them.
    trace: Option<Box<Trace>>,
}

/// Makes the output of the finished bytes.
pub(crate) type Build<O> = fn(&Ask, Vec<u8>) -> Result<<O as Operation>::Output>;

#[derive(Clone, Copy)]
enum Deadline {
    Engine,
    In(Option<Duration>),
}

/// A request that was not accepted, and why.
pub struct Refused<'a, O: Operation> {
    /// The request as it was: it may be submitted again.
    pub request: Request<'a, O>,
    /// Why it was refused.
    pub error: Error,
}

impl<'a, O: Operation> Request<'a, O> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        key: Option<&'a Arc<KeyVersion>>,
        ask: Ask,
        input: Input<'a>,
        build: Build<O>,
    ) -> Self {
        let (deadline, priority) = (Deadline::Engine, Priority::Normal);
        Self {
            shared,
            key,
            ask,
            input,
            build,
            deadline,
            priority,
            tenant: 0,
            waits_for_room: false,
            at_most_once: false,
            at_risk: false,
            named: "",
            label: None,
            audited: None,
            uses: None,
            is_intended: false,
            since: None,
            tried: None,
            requests: 1,
            trace: None,
        }
    }

    /// Another request under the same settings, without an id.
    pub(crate) fn alike<P: Operation>(&self, ask: Ask, input: Input<'a>, build: Build<P>) -> Request<'a, P> {
        Request {
            deadline: self.deadline,
            priority: self.priority,
            tenant: self.tenant,
            waits_for_room: self.waits_for_room,
            at_most_once: self.at_most_once,
            at_risk: self.at_risk,
            named: self.named,
            label: self.label.clone(),
            ..Request::new(self.shared, self.key, ask, input, build)
        }
    }

    pub(crate) fn at_risk(mut self, takes: bool) -> Self {
        self.at_risk = takes;
        self
    }

    /// As [`Request::request_id`] and [`Request::caller`], of whoever asks by a key.
    pub(crate) fn labelled(self, label: &Label) -> Self {
        let named = match label.id {
            Some(id) => self.request_id(id),
            None => self,
        };
        match &label.caller {
            Some(caller) => named.caller_text(caller.clone()),
            None => named,
        }
    }

    pub(crate) fn named(mut self, name: &'static str) -> Self {
        self.named = name;
        self
    }

    /// Answers the waiter after this time at the latest, counted from when the request starts.
    ///
    /// A request that has queued, and has less time left than its call takes by half as much again, is answered at once
    /// instead of being run: [`ErrorKind::DeadlineExceeded`], [`Outcome::NotDone`]. While more is asked for than the
    /// tokens can do, they so work for those whom the answer reaches in time.
    ///
    /// With an audit log an answer waits for its record beyond that: see [`AuditMode`](crate::AuditMode).
    pub fn deadline_in(self, limit: Duration) -> Self {
        self.deadline(Some(limit))
    }

    /// Sets or takes away the deadline; without this call the engine's default holds (10 s).
    ///
    /// `None` lets a blocking caller run the request itself, on its own thread, if a session is idle: the
    /// fastest way, but a call that hangs in the module then holds the caller.
    pub fn deadline(mut self, limit: Option<Duration>) -> Self {
        self.deadline = Deadline::In(limit);
        self
    }

    /// Weight against other requests that wait for the same sessions.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// On whose behalf: a number of the caller's own; 0, the default, is nobody's. Requests of one tenant do not hold up
    /// another's on the same key, and a tenant may have as many requests and bytes in flight as are free: one that floods
    /// alone takes half of the engine's room, two that flood a third each, and the others find some.
    ///
    /// # Errors
    /// Beyond that the request is refused with [`ErrorKind::Overloaded`], whose text says that it is the tenant's room that
    /// is taken, or waits, as [`Request::wait_for_room`] says. A tenant that has nothing in flight may always have one
    /// request, if the engine may. [`Snapshot::refused_tenants`](crate::Snapshot::refused_tenants) counts the refusals.
    ///
    /// Requests that a blocking caller runs itself take no room. Those of nobody are bounded by the engine's limits only.
    pub fn tenant(mut self, tenant: u64) -> Self {
        self.tenant = tenant;
        self
    }

    /// Waits for room instead of being refused when the engine's limit on requests or bytes in flight is
    /// reached, until the deadline.
    ///
    /// Those who wait hear of room in the order of coming, each if it is enough for it: a large request that does not
    /// fit holds up no small one, and may be passed by small ones for as long as they leave too little for it.
    pub fn wait_for_room(mut self) -> Self {
        self.waits_for_room = true;
        self
    }

    /// Never runs the request again if it may have been executed. Without this call the engine runs a request once more
    /// when a session or a token fails it, for a second signature, MAC or decryption costs time only, and an encryption
    /// has a new IV every time it is tried. Raw mechanisms are never run again so.
    pub fn at_most_once(mut self) -> Self {
        self.at_most_once = true;
        self
    }

    /// The caller's own name for the request, in its span. Default: none.
    ///
    /// Every request has a `tracing` span, `request` of target `hsmux::request` at level `DEBUG`, with the caller's
    /// current span as its parent: opened when the request starts, closed when its answer is collected, on the
    /// caller's own threads. Its fields are `request_id`, `operation`, `size` (of the input, in bytes), `queued_us`,
    /// `token_us` and `total_us` as [`Stage`](crate::Stage) has them, `outcome` (`done`, `not-done` or `unknown`: did
    /// a token execute it?) and `error` ([`ErrorKind::name`], or `withdrawn` if the caller gave it up). What did not
    /// run on a token has neither `queued_us` nor `token_us`. Payloads, keys and PINs are in no field.
    ///
    /// Where no subscriber wants the span it costs a load and a branch, and the id, if that is set then, is not kept.
    pub fn request_id(mut self, id: impl Into<RequestId>) -> Self {
        let id = id.into();
        if self.shared.book.get().is_some() {
            self.label.get_or_insert_default().id = Some(id);
        }
        Trace::name(&mut self.trace, id);
        self
    }

    /// Who asks, in the application's own words: kept in the request's record in the audit log
    /// ([`Builder::audit`](crate::Builder::audit)), and nowhere else. Default: nobody is named.
    pub fn caller(self, label: &str) -> Self {
        self.caller_text(label.into())
    }

    fn caller_text(mut self, label: Text) -> Self {
        if self.shared.book.get().is_some() {
            self.label.get_or_insert_default().caller = Some(label);
        }
        self
    }

    /// Runs the request and waits for its output.
    ///
    /// # Errors
    /// Whatever [`ErrorKind`] names; `Overloaded` if there is no room for the request now.
    ///
    /// # Blocking
    /// Until the answer or the deadline. Without a deadline and with an idle session, the calling thread runs
    /// the request itself.
    pub fn wait(mut self) -> Result<O::Output> {
        let mask = self.start_here()?;
        if self.ask.call().is_none() {
            let answer = self.run_on_host();
            return self.end(answer);
        }
        match self.pool() {
            Some(pool) => self.wait_on_pool(pool, mask),
            None => self.wait_on_token(mask),
        }
    }

    /// Runs the request, waits, and leaves the output's bytes in `out`; returns how many they are.
    ///
    /// The bytes are those of the output's `as_bytes`. On the inline way the module writes straight into
    /// `out` if that has room for what the module may ask for (for AES-GCM decryption 16 bytes more than the
    /// plaintext); otherwise they are copied out of the engine's memory, so that a late write of an abandoned
    /// call never meets the caller's.
    ///
    /// # Errors
    /// As [`Request::wait`]; `InvalidInput` before anything runs if `out` is too short. `out` is wiped on
    /// every error that comes after the token was asked.
    ///
    /// # Blocking
    /// As [`Request::wait`].
    pub fn wait_into(mut self, out: &mut [u8]) -> Result<usize>
    where
        O::Output: AsRef<[u8]>,
    {
        let mask = self.start_here()?;
        let needed = self.ask.final_len_max(self.key_kind(), self.input.len());
        if out.len() < needed {
            let text = format!("the output takes {needed} bytes, the buffer {}", out.len());
            return Err(self.fail(Error::refused(ErrorKind::InvalidInput, text)));
        }
        if self.ask.call().is_none() {
            let answer = self.run_on_host();
            return self.end(answer.and_then(|output| copy(output.as_ref(), out)));
        }
        match self.pool() {
            Some(pool) => self.wait_on_pool_into(pool, mask, out),
            None => self.wait_on_token_into(mask, out),
        }
    }

    /// Puts the request in flight.
    ///
    /// # Errors
    /// [`Refused`], with the request, if it is not valid or there is no room for it now.
    ///
    /// # Blocking
    /// Not at all, unless [`Request::wait_for_room`] was asked for: then until there is room or the deadline
    /// has passed, so not on a thread that polls futures. A long message is hashed here, and what the host does by
    /// itself (verification of signatures, encryption with RSA) is done here.
    ///
    /// # Cancel safety
    /// Dropping the [`Pending`] withdraws the request if no session has begun it; else its result is dropped.
    pub fn submit(mut self) -> std::result::Result<Pending<O>, Box<Refused<'a, O>>> {
        match self.start_here() {
            Ok(_) if self.ask.call().is_none() => {
                let answer = self.run_on_host();
                let answer = self.end(answer);
                Ok(self.answered(answer))
            }
            Ok(mask) => match self.pool() {
                Some(pool) => self.submit_to_pool(pool, mask),
                None => self.queue_for_room(mask),
            },
            Err(error) => Err(Box::new(Refused { request: self, error })),
        }
    }

    /// Runs the request on this thread if it may and a session is idle, else in a lane.
    #[inline]
    fn wait_on_token(&mut self, mut mask: u64) -> Result<O::Output> {
        if self.limit().is_none() {
            match self.run_inline(mask) {
                Some(Err(error)) if self.tries_again(&error, &mut mask) => {}
                Some(result) => return self.end(result),
                None => {}
            }
        }
        self.queue(mask)?.wait()
    }

    /// As [`Request::wait_on_token`], into the caller's memory, which has room.
    #[inline]
    fn wait_on_token_into(&mut self, mut mask: u64, out: &mut [u8]) -> Result<usize>
    where
        O::Output: AsRef<[u8]>,
    {
        if self.limit().is_none()
            && let Some(result) = self.run_inline_into(mask, out)
        {
            match result {
                Err(error) if self.tries_again(&error, &mut mask) => out.zeroize(),
                result => return self.end(result).inspect_err(|_| out.zeroize()),
            }
        }
        let output = self.queue(mask)?.wait()?;
        copy(output.as_ref(), out)
    }

    /// Whether it is run once more, by a session that it waits for, after the caller's own try has failed so: on another
    /// token, if one serves.
    #[cold]
    fn tries_again(&mut self, error: &Error, mask: &mut u64) -> bool {
        self.tried = Some(error.outcome());
        // A session that was dead says nothing of its token.
        if error.kind() != ErrorKind::SessionLost {
            *mask = self.shared.core.without(*mask, inline::last_token());
        }
        may_repeat(error, self.repeats())
    }

    /// Whether it may be run once more although it may have been executed.
    fn repeats(&self) -> bool {
        !self.at_most_once && self.ask.is_repeatable()
    }

    /// Opens the request's span, if that is not open yet, and checks the request.
    #[inline]
    fn start(&mut self) -> Result<u64> {
        Trace::start(&mut self.trace, self.ask.kind(), self.input.len());
        let mask = self.check().map_err(|error| self.fail(error))?;
        if let Some(book) = self.shared.book.get() {
            self.begin_record(book);
        }
        Ok(mask)
    }

    /// Closes the request's span with its answer, which waits for its record if there is an audit log.
    fn end<T>(&mut self, answer: Result<T>) -> Result<T> {
        let answer = match self.audited.take() {
            Some(audited) => audited.settle(answer).wait(),
            None => answer,
        };
        Trace::end(&mut self.trace, answer)
    }

    /// What the audit log is to say of it, but for how it ends.
    #[cold]
    fn begin_record(&mut self, book: &Arc<Book>) {
        let Some(version) = self.key.filter(|_| self.audited.is_none()) else { return };
        let label = self.label.as_deref();
        let algorithm = (!self.named.is_empty()).then_some(self.named.into());
        let on = version.recorded(label.and_then(Label::caller), self.ask.kind().as_str().into(), algorithm);
        let request = label.and_then(Label::request);
        let ones = match self.uses.take() {
            Some(all) => Ones::All(*all),
            None => {
                let other = self.ask.first_key().and_then(Handles::name);
                Ones::One(Use { other, ..Use::of(request, &self.input) })
            }
        };
        self.audited = Some(Box::new(Audited::new(Arc::clone(book), on, ones)));
    }

    /// Whether there is an audit log.
    fn is_recorded(&self) -> bool {
        self.shared.book.get().is_some()
    }

    /// The id that the audit log knows it by.
    fn label_id(&self) -> Option<RequestId> {
        self.label.as_ref()?.id
    }

    /// The caller that the audit log knows it to be of.
    fn recorded_caller(&self) -> Option<&Text> {
        self.label.as_ref()?.caller.as_ref()
    }

    /// What is to be recorded, and durable, before it begins; none if nothing is.
    fn intent(&mut self) -> Option<Settling<()>> {
        let is_wanted = self.shared.book.get().is_some_and(|book| book.mode == AuditMode::StrictIntent);
        if !is_wanted || std::mem::replace(&mut self.is_intended, true) {
            return None;
        }
        let audited = self.audited.as_mut()?;
        // The wait for it is a part of the request's time.
        self.since.get_or_insert_with(now);
        Some(audited.intend())
    }

    /// Starts the request, and waits on this thread until its intent is durable, if that is to be.
    #[inline]
    fn start_here(&mut self) -> Result<u64> {
        let mask = self.start()?;
        match self.intent() {
            Some(intent) => {
                let (_, deadline) = self.times();
                intent.wait().and_then(|()| self.check_time(deadline)).map_err(|error| self.fail(error))?;
                Ok(mask)
            }
            None => Ok(mask),
        }
    }

    /// Closes the request's span with an error.
    fn fail(&mut self, error: Error) -> Error {
        if self.tried.is_none() {
            // It has not run, and will not, unless it is submitted again.
            Audited::refuse(&mut self.audited, Some(error.kind()));
            (self.is_intended, self.since) = (false, None);
        }
        // The caller's own try counts.
        let unknown = self.tried.is_some_and(|outcome| outcome != Outcome::NotDone);
        let error = if unknown { error.after_unknown() } else { error };
        // Of a `Result` without a value only the error is left.
        self.end::<Infallible>(Err(error)).map_or_else(|error| error, |never| match never {})
    }

    /// Everything that can be said without a session. Returns the tokens that can run the request.
    #[inline]
    fn check(&self) -> Result<u64> {
        check_not_forked()?;
        self.shared.core.check_open()?;
        if self.limit().is_some_and(|limit| limit.is_zero()) {
            return Err(expired(Outcome::NotDone));
        }
        if let Some(tie) = self.key.and_then(|version| version.tie.as_ref()) {
            self.check_tie(tie)?;
        }
        self.ask.check(self.facts(), &self.input)?;
        self.check_engine()?;
        let mask = self.mask();
        if mask == 0 && self.key.is_some_and(|version| version.is_gone()) {
            return Err(Error::refused(ErrorKind::KeyNotFound, "its tokens have come back without it"));
        }
        if mask == 0 && self.ask.call().is_some() {
            return Err(self.unavailable());
        }
        Ok(mask)
    }

    /// No token with the key has the mechanism.
    #[cold]
    fn unavailable(&self) -> Error {
        let by_profile = self.key.zip(self.ask.used()).is_some_and(|(version, (usage, mechanism))| {
            let kind = version.facts.kind;
            self.shared.tokens.iter().any(|token| token.is_known_to_fail(mechanism, usage, kind))
        });
        let text = match by_profile {
            true => "the module profile says that it is listed and fails",
            false => "asked of every token that holds the key",
        };
        Error::refused(ErrorKind::MechanismUnavailable, text)
    }

    /// What the catalogue says of a managed key.
    #[inline]
    fn check_tie(&self, tie: &Tie) -> Result<()> {
        tie.check(self.ask.kind(), self.tenant, self.at_risk)?;
        if let Some(count) = tie.messages.as_ref().filter(|_| self.ask.kind() == OperationKind::EncryptAesGcm)
        {
            let ledger = &self.shared.ledger;
            ledger.check_messages(count)?;
        }
        if self.ask.is_raw() {
            let text = "a managed key is not used by raw mechanisms, which pass by what it was made for";
            return Err(Error::refused(ErrorKind::NotPermitted, text));
        }
        match tie.permits(self.named) {
            false => Err(Error::refused(ErrorKind::NotPermitted, "it was not made for this algorithm")),
            true => Ok(()),
        }
    }

    /// What only this engine can say.
    #[inline]
    fn check_engine(&self) -> Result<()> {
        let opens_padding =
            self.ask.kind() == OperationKind::DecryptRsaPkcs1 || self.ask.is_raw_rsa_decryption();
        if opens_padding && !self.shared.rsa_pkcs1_decryption {
            let text = "the engine does not decrypt RSA PKCS#1 v1.5 unless it is told to";
            return Err(Error::refused(ErrorKind::NotPermitted, text));
        }
        match self.ask.mechanism() {
            Some(Mechanism::RetailMac { engine, .. }) if *engine != self.shared.number => {
                let text = "the first key of the retail MAC is one of another engine";
                Err(Error::refused(ErrorKind::InvalidInput, text))
            }
            _ => Ok(()),
        }
    }

    fn facts(&self) -> Option<&KeyFacts> {
        self.key.map(|version| &version.facts)
    }

    fn key_kind(&self) -> Option<KeyKind> {
        self.facts().map(|facts| facts.kind)
    }

    fn limit(&self) -> Option<Duration> {
        match self.deadline {
            Deadline::Engine => self.shared.deadline(),
            Deadline::In(limit) => limit,
        }
    }

    /// When the request started, which is now, and when it is to be answered.
    fn times(&self) -> (Time, Option<Time>) {
        self.times_from(None)
    }

    /// As [`Self::times`], for a request that may have started before: then, or when its intent was recorded.
    fn times_from(&self, started: Option<Time>) -> (Time, Option<Time>) {
        let started = started.or(self.since).unwrap_or_else(now);
        (started, self.limit().map(|limit| started.after(limit)))
    }

    /// Refuses what is to be answered before now.
    fn check_time(&self, deadline: Option<Time>) -> Result<()> {
        check_time(&self.shared.core, self.requests, deadline)
    }

    /// What is left of it to check when its intent is durable, once the request is taken apart.
    fn in_time(&self) -> InTime {
        let (_, deadline) = self.times();
        InTime { core: Arc::clone(&self.shared.core), requests: self.requests, deadline }
    }

    /// The tokens that can run it.
    #[inline]
    fn mask(&self) -> u64 {
        match (self.ask.used(), self.key) {
            (Some((usage, mechanism)), Some(version)) => {
                version.eligible(usage, mechanism, &self.shared.tokens)
            }
            // Without a mechanism: random bytes, which every token gives.
            _ => u64::MAX >> (64 - self.shared.tokens.len()),
        }
    }
}

/// The deadline of a request whose intent is waited for.
struct InTime {
    core: Arc<Core>,
    requests: u32,
    deadline: Option<Time>,
}

impl InTime {
    /// Refuses what is to be answered before now.
    fn check(&self) -> Result<()> {
        check_time(&self.core, self.requests, self.deadline)
    }
}

fn check_time(core: &Core, requests: u32, deadline: Option<Time>) -> Result<()> {
    if deadline.is_some_and(|deadline| now().until(deadline).is_zero()) {
        core.counters.expired(requests.into());
        return Err(expired(Outcome::NotDone));
    }
    Ok(())
}

/// As long as the plan said at most, which bounds it.
fn copy(bytes: &[u8], out: &mut [u8]) -> Result<usize> {
    let room = out.get_mut(..bytes.len()).ok_or_else(|| Error::internal("an output longer than planned"))?;
    room.copy_from_slice(bytes);
    Ok(bytes.len())
}

/// In a forked child nothing may be called, and locks may be held by threads that are not there.
#[inline]
pub(crate) fn check_not_forked() -> Result<()> {
    if crate::pkcs11::forked() {
        return Err(Error::refused(ErrorKind::Forked, "build the engine after the fork"));
    }
    Ok(())
}

impl<'a, O: Operation> IntoFuture for Request<'a, O> {
    type Output = Result<O::Output>;
    type IntoFuture = RequestFuture<'a, O>;

    fn into_future(self) -> Self::IntoFuture {
        RequestFuture::new(self)
    }
}

impl<O: Operation> std::fmt::Debug for Request<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("kind", &self.ask.kind())
            .field("size", &self.input.len())
            .finish_non_exhaustive()
    }
}

impl<O: Operation> std::fmt::Debug for Refused<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}
