//! One token: found by label or serial, logged in to once, and the sessions it gives.

pub(crate) mod copies;
mod current;
pub(crate) mod epoch;
pub(crate) mod facts;
pub(crate) mod gate;
pub(crate) mod hold;
pub(crate) mod login;
pub(crate) mod measured;
pub(crate) mod mechanism;
pub(crate) mod merge;
pub(crate) mod message;
pub(crate) mod message_count;
pub(crate) mod name;
pub(crate) mod object;
pub(crate) mod proofs;
pub(crate) mod rotate;
pub(crate) mod service;
pub(crate) mod session;
pub(crate) mod software;
pub(crate) mod task;
pub(crate) mod verify;

use std::sync::OnceLock;
use std::time::Duration;

use cryptoki_sys as sys;

use crate::error::Result;
use crate::pin::Pin;
use crate::pkcs11::{self, CallCounts, Direction, Library, MechanismInfo, ObjectHandle, Slot, TokenInfo};
use crate::sync::{Arc, CachePadded, Mutex};
use crate::token::copies::Copies;
use crate::token::epoch::{CurrentEpoch, Epoch, Loss};
use crate::token::facts::KeyKind;
use crate::token::gate::{Gate, Pass};
use crate::token::hold::Holds;
pub(crate) use crate::token::login::Untried;
use crate::token::login::{Answer, Entered, Login, Missed, enter, is_loss, stale};
use crate::token::measured::Measured;
use crate::token::mechanism::{Mechanism, Usage};
use crate::token::proofs::Proofs;
use crate::token::service::{Held, Service};
use crate::token::session::Session;
use crate::token::verify::{Checks, VerifyOutputs};

/// Longest time that the engine waits for a token's service thread, or for another login or write on the token.
pub(crate) const SERVICE_LIMIT: Duration = Duration::from_secs(60);

/// A token that the engine is logged in to, through one instance of its module. What further instances show of it are
/// tokens of their own here, with sessions and handles of their own.
pub(crate) struct Token {
    pub(crate) index: usize,
    /// The number of the instance, from 0.
    pub(crate) instance: usize,
    /// The index of the same token in the first instance: its own there, and in further ones what names all of them.
    pub(crate) first: usize,
    /// What the first instance says of it, which names are compared with.
    pub(crate) info: TokenInfo,
    pub(crate) mechanisms: Vec<MechanismInfo>,
    service: Service<Login>,
    counts: Arc<Mutex<Counts>>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) copies: Arc<Copies>,
    pub(crate) proofs: Arc<Proofs>,
    gate: Arc<Gate>,
    /// The one that its sessions are opened in.
    epoch: CurrentEpoch,
    /// What is to be done, on the service thread, when the token has come back, before it serves.
    on_return: OnceLock<Duty>,
    /// What it is asked when it is tried, beside random bytes.
    on_trial: OnceLock<Duty>,
    /// What a module profile says of it.
    measured: Measured,
}

/// Of the service thread, with the session there and the number of the epoch.
type Duty = Box<dyn Fn(&mut pkcs11::Session, u64) -> Result<()> + Send + Sync>;

/// Where a token stands among those of its engine.
#[derive(Clone, Copy)]
pub(crate) struct Standing<'a> {
    pub(crate) index: usize,
    pub(crate) instance: usize,
    /// The same token in the first instance; none if this is that one.
    pub(crate) first: Option<&'a Token>,
}

/// What an engine settles about its tokens.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// To send a PIN although a wrong one could lock the token.
    pub(crate) consent: bool,
    /// Whether requests share calls.
    pub(crate) coalescing: bool,
    /// Whether sessions hold operations open.
    pub(crate) holding: bool,
    /// Whether they use messages of PKCS#11 3.x.
    pub(crate) messages: bool,
    /// Which outputs are checked.
    pub(crate) verify: VerifyOutputs,
}

/// PKCS#11 calls of the token's sessions.
struct Counts {
    live: Vec<Arc<CachePadded<CallCounts>>>,
    /// Of sessions that are closed.
    past: CallCounts,
}

impl Token {
    /// Logs in, once, and starts the service thread. The pass of the token's gate is to be kept until its first
    /// sessions are open.
    ///
    /// The lock-out flags are read first: where a wrong PIN could lock the token, none is sent without consent; and none
    /// where the state directory says that it was refused.
    pub(crate) fn log_in(
        library: &Library,
        slot: Slot,
        standing: Standing<'_>,
        pin: &Arc<Pin>,
        terms: Terms,
        measured: &Measured,
    ) -> Result<(Self, Pass)> {
        let Standing { index, instance, first } = standing;
        let known = library.token_info(slot)?;
        let gate = Gate::of_token(library.path(), &known);
        let pass = gate.pass(SERVICE_LIMIT)?;
        let Entered { info, mechanisms, anchor, session } = enter(library, slot, &known, pin, terms.consent)?;
        let mechanisms = measured.left_of(mechanisms);
        let epoch = Arc::new(Epoch::new(1));
        let current = CurrentEpoch::new(&epoch);
        let checks = Checks::new(terms.verify);
        // Nothing stays open across a check.
        let may_hold = !checks.are_of_all();
        let holds = Holds::new(terms.holding && may_hold);
        let counts = Arc::new(Mutex::new(Counts::of([&anchor, &session])));
        let may = terms.messages && may_hold && library.has_interface_3();
        let messages = takes_messages(&mechanisms).map(|takes| takes && may);
        let login = Login {
            library: library.clone(),
            slot,
            index,
            info: info.clone(),
            epoch,
            current: current.clone(),
            pin: Arc::clone(pin),
            consent: terms.consent,
            unsettled: 0,
            gate: Arc::clone(&gate),
            session,
            counts: Arc::clone(&counts),
            holds: Arc::clone(&holds),
            checks: Arc::clone(&checks),
            messages,
            anchor,
        };
        let service = Service::start(format!("hsmux-{index}-service"), login)?;
        let (first, info) = first.map_or((index, info), |first| (first.index, first.info.clone()));
        Ok((
            Self {
                index,
                instance,
                first,
                info,
                mechanisms,
                service,
                counts,
                holds,
                checks,
                copies: Arc::new(Copies::measured(&measured.gains)),
                proofs: Arc::new(Proofs::new(terms.coalescing)),
                gate,
                epoch: current,
                on_return: OnceLock::new(),
                on_trial: OnceLock::new(),
                measured: measured.clone(),
            },
            pass,
        ))
    }

    /// Opens a session for requests.
    pub(crate) fn open(&self) -> Result<Session> {
        self.service.call(SERVICE_LIMIT, Login::open)
    }

    /// Has a session opened and tried (a few random bytes) on the service thread, then passed to `done` there; none if
    /// it is not wanted any more when its turn comes.
    pub(crate) fn reopen(
        &self,
        is_wanted: impl FnOnce() -> bool + Send + 'static,
        done: impl FnOnce(Option<Result<Session>>) + Send + 'static,
    ) {
        self.service.post(|login| {
            if !is_wanted() || login.epoch.is_over() {
                return done(None);
            }
            done(Some(login.check_session().and_then(|()| login.open())));
        });
    }

    /// Has something done with the service session, and waits for it. The job gets the number of the epoch.
    pub(crate) fn with_service<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut pkcs11::Session, u64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.service.call(SERVICE_LIMIT, |login| {
            if login.epoch.is_over() {
                return Err(stale());
            }
            let done = job(&mut login.session, login.epoch.number);
            login.holds.key_changes();
            done
        })
    }

    /// As [`Token::with_service`], for what changes no key: operations that are held open stay so. Waits at most for `limit`.
    pub(crate) fn consult<R: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce(&mut pkcs11::Session, u64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.service.call(limit, |login| match login.epoch.is_over() {
            true => Err(stale()),
            false => job(&mut login.session, login.epoch.number),
        })
    }

    /// As [`Token::with_service`], with objects of an epoch: in another their numbers are those of other objects.
    pub(crate) fn with_objects<R: Send + 'static>(
        &self,
        epoch: u64,
        job: impl FnOnce(&mut pkcs11::Session) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.with_service(move |session, now| if now == epoch { job(session) } else { Err(stale()) })
    }

    /// Whether its epoch is over: it was lost, and is not back.
    pub(crate) fn is_lost(&self) -> bool {
        self.epoch.is_over()
    }

    /// Sets what is to be done when the token has come back, before it serves: on its service thread, with the session
    /// there and the number of the new epoch. Once.
    pub(crate) fn set_on_return(
        &self,
        job: impl Fn(&mut pkcs11::Session, u64) -> Result<()> + Send + Sync + 'static,
    ) {
        // Set once, when the engine is built.
        let _set = self.on_return.set(Box::new(job));
    }

    /// Sets what the token is asked when it is tried, beside random bytes: an error, and it has failed. Once.
    pub(crate) fn set_on_trial(
        &self,
        job: impl Fn(&mut pkcs11::Session, u64) -> Result<()> + Send + Sync + 'static,
    ) {
        // Set once, when the engine is built.
        let _set = self.on_trial.set(Box::new(job));
    }

    /// Has the service thread try the token; `done` is called there. An error says whether it is lost. One that is lost
    /// already is not tried.
    pub(crate) fn try_out(self: &Arc<Self>, done: impl FnOnce(Result<(), Untried>) + Send + 'static) {
        let (token, done) = (Arc::clone(self), Answer::new(done));
        self.service.post(move |login| {
            done.give(if login.epoch.is_over() { Ok(()) } else { login.try_out(token.on_trial.get()) });
        });
    }

    /// Has the service thread let go of its own sessions without closing them, while the token is lost; then `done` is
    /// called there.
    pub(crate) fn stand_down(&self, done: impl FnOnce(&Library) + Send + 'static) {
        self.service.post(move |login| {
            if login.epoch.is_over() {
                login.session.abandon();
                login.anchor.abandon();
            }
            done(&login.library);
        });
    }

    /// The token or its login is lost: nothing of its epoch is used any more. `of` says in which that was seen: one that
    /// is over says nothing of the one that goes on, and then this is false.
    pub(crate) fn lose(&self, loss: Loss, of: Option<&Arc<Epoch>>) -> bool {
        self.epoch.lose(loss, of)
    }

    /// Has the service thread look for the token and, if it is there, log in, once, and make ready what there is to be
    /// made ready; then `done` is called there. One that `is_lost` not is tried; if it is by the time, it is not back yet, for nobody
    /// has looked whether its sessions are in use.
    pub(crate) fn recover(
        self: &Arc<Self>,
        is_lost: bool,
        done: impl FnOnce(Result<(), Missed>) + Send + 'static,
    ) {
        let (token, done) = (Arc::clone(self), Answer::new(done));
        self.service.post(move |login| {
            if !is_lost && login.epoch.is_over() {
                return done.give(Err(stale().into()));
            }
            if !login.epoch.is_over() {
                let tried = login.try_out(token.on_trial.get());
                return done.give(tried.map_err(|untried| Missed::from(untried.error)));
            }
            let ready = login.begin_epoch().and_then(|()| {
                token.copies.forget();
                login.holds.key_changes();
                let number = login.epoch.number;
                Ok(token.on_return.get().map_or(Ok(()), |job| job(&mut login.session, number))?)
            });
            done.give(ready.inspect_err(|missed| {
                // What is gone is not closed: its numbers may be those of the sessions that come after.
                login.epoch.end(if is_loss(&missed.error) { Loss::Token } else { Loss::Login });
            }));
        });
    }

    /// Waits until no login and no write of this process is under way on the token, and keeps others from beginning
    /// while the pass is kept.
    pub(crate) fn pass_gate(&self) -> Result<Pass> {
        self.gate.pass(SERVICE_LIMIT)
    }

    /// Waits until the service thread is outside the module, and keeps it there.
    pub(crate) fn hold_service(&self, limit: Duration) -> Result<Held> {
        self.service.hold(limit)
    }

    /// Closes the token's own sessions, the one that keeps the login last, as soon as its service thread is free.
    pub(crate) fn close(&self) {
        self.service.close();
    }

    /// As [`Token::close`], and waits for it, at most for `limit`.
    pub(crate) fn close_and_wait(&self, limit: Duration) {
        self.service.close_and_wait(limit);
    }

    /// PKCS#11 calls of all sessions that the token ever had, by function.
    pub(crate) fn add_counts(&self, sum: &CallCounts) {
        let counts = self.counts.lock();
        sum.add(&counts.past);
        counts.live.iter().for_each(|counts| sum.add(counts));
    }

    /// Has the originals of the token's copies looked at, some time.
    pub(crate) fn check_copies(&self) {
        if !self.copies.begin_sweep() {
            return;
        }
        let (copies, holds, index) = (Arc::clone(&self.copies), Arc::clone(&self.holds), self.index);
        self.service.post(move |login| {
            if !login.epoch.is_over() && copies.sweep(&mut login.session, index) {
                holds.key_changes();
            }
        });
    }

    /// Whether the token lists a mechanism.
    pub(crate) fn offers(&self, mechanism: u64) -> bool {
        self.mechanisms.iter().any(|info| info.mechanism == mechanism)
    }

    /// Whether the token lists a mechanism for this use. One that is listed without any use counts for all: some
    /// modules leave the flags empty.
    pub(crate) fn offers_for(&self, mechanism: u64, usage: Usage) -> bool {
        let all = Usage::ALL.into_iter().fold(0, |flags, usage| flags | usage.flag());
        let mut listed = self.mechanisms.iter().filter(|info| info.mechanism == mechanism);
        listed.any(|info| info.flags & all == 0 || info.flags & usage.flag() != 0)
    }

    /// Whether the token has the mechanism at this [`Mechanism::index`] for this use, as far as its list and what is
    /// known of its kind say, with keys of this kind.
    pub(crate) fn has(&self, index: usize, usage: Usage, kind: KeyKind) -> bool {
        if self.measured.fails(index, usage, kind) {
            return false;
        }
        // SoftHSM2 2.6.1 lists CKM_RSA_PKCS_OAEP and refuses any hash but SHA-1, and every label.
        let offers = self.offers_for(Mechanism::NUMBERS[index], usage);
        match index {
            Mechanism::OAEP_MORE => offers && !self.is_softhsm(),
            // Made by encryption.
            Mechanism::RETAIL_MAC => [sys::CKM_DES3_CBC, sys::CKM_DES3_ECB]
                .into_iter()
                .all(|number| self.offers_for(number, Usage::Encrypt)),
            _ => offers,
        }
    }

    /// Whether a module profile says that the mechanism is listed and fails, in this use and with such keys.
    pub(crate) fn is_known_to_fail(&self, mechanism: &Mechanism, usage: Usage, kind: KeyKind) -> bool {
        mechanism.index().is_some_and(|index| self.measured.fails(index, usage, kind))
    }

    /// Whether what is known of SoftHSM2 2.6.1 and not of the standard holds.
    pub(crate) fn is_softhsm(&self) -> bool {
        self.info.model.starts_with("SoftHSM v2")
    }

    /// Has an object of an epoch destroyed some time; nobody waits for it. In another it has gone with its session.
    pub(crate) fn destroy_later(&self, epoch: u64, object: ObjectHandle) {
        self.service.post(move |login| {
            if login.epoch.number == epoch && !login.epoch.is_over() {
                // It goes with the session in any case.
                let _destroyed = login.session.destroy(object);
                login.holds.key_changes();
            }
        });
    }
}

/// Whether a token lists AES-GCM for the functions for messages, by direction.
fn takes_messages(mechanisms: &[MechanismInfo]) -> [bool; 2] {
    [Direction::Encrypt, Direction::Decrypt].map(|direction| {
        let mut listed = mechanisms.iter().filter(|info| info.mechanism == sys::CKM_AES_GCM);
        listed.any(|info| info.flags & direction.message_flag() != 0)
    })
}

/// Each token once, as the first instance of the module has it, in the order in which they were named.
pub(crate) fn named(tokens: &[Arc<Token>]) -> impl Iterator<Item = &Arc<Token>> {
    tokens.iter().filter(|token| token.first == token.index)
}

/// The same token in all instances: bit i is token i.
pub(crate) fn instances_of(tokens: &[Arc<Token>], first: usize) -> u64 {
    tokens.iter().filter(|token| token.first == first).fold(0, |mask, token| mask | 1 << token.index)
}

impl Counts {
    fn of(sessions: [&pkcs11::Session; 2]) -> Self {
        let live = sessions.map(|session| Arc::clone(session.counts())).into();
        Self { live, past: CallCounts::new() }
    }

    /// Counts a new session from now on. Those that are closed are summed up, so that sessions may come and go.
    fn add(&mut self, new: Arc<CachePadded<CallCounts>>) {
        let past = &self.past;
        self.live.retain(|counts| {
            // Nobody else holds it: its session is closed and counts no more.
            let live = Arc::strong_count(counts) > 1;
            if !live {
                past.add(counts);
            }
            live
        });
        self.live.push(new);
    }
}
