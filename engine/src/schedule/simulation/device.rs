//! The tokens as the engine finds them: sessions by number, logins, faults, and a ledger of what was executed.

use std::collections::BTreeMap;

use crate::error::Outcome;
use crate::pkcs11::{Fault, Function};
use crate::schedule::simulation::dice::Dice;
use crate::token::session::Failed;

/// A token as it is, whatever the engine thinks of it.
pub(super) struct Device {
    pub(super) present: bool,
    logged_in: bool,
    /// It refuses the PIN from now on.
    pub(super) refuses: bool,
    /// What was sent to it after that.
    refused_before: bool,
    /// Open sessions: their owners, by number. Numbers begin anew whenever the token comes back.
    sessions: BTreeMap<u64, Open>,
    next: u64,
    /// Times it has gone away.
    removals: u64,
    /// The same when the service session was opened: what it knows of this process is gone if they differ.
    removals_then: u64,
}

struct Open {
    owner: usize,
    in_call: bool,
}

/// How often things go wrong, in a million calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) codes: u64,
    pub(super) hangs: u64,
    pub(super) losses: u64,
    pub(super) refusals: u64,
}

/// A session as its owner knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle {
    pub(super) number: u64,
    pub(super) owner: usize,
}

/// What a call is going to answer, and whether the device does what is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    code: Option<u64>,
    pub(super) executes: bool,
    /// How long it takes.
    pub(super) ns: u64,
}

/// Codes that a session gets to see, of every class and fate of the table.
const CODES: [u64; 16] =
    [0x02, 0x05, 0x06, 0x20, 0x30, 0x30, 0x31, 0x50, 0x60, 0x70, 0x90, 0xb0, 0xb3, 0x91, 0x201, 0x8000_1234];
const SESSION_CLOSED: u64 = 0xb0;
const SESSION_HANDLE_INVALID: u64 = 0xb3;
const DEVICE_REMOVED: u64 = 0x32;
const TOKEN_NOT_PRESENT: u64 = 0xe0;
const USER_NOT_LOGGED_IN: u64 = 0x101;
const CRYPTOKI_NOT_INITIALIZED: u64 = 0x190;

impl Device {
    pub(super) const fn new() -> Self {
        let sessions = BTreeMap::new();
        Self {
            present: true,
            logged_in: true,
            refuses: false,
            refused_before: false,
            sessions,
            next: 1,
            removals: 0,
            removals_then: 0,
        }
    }

    /// Opens a session, after a look at the service session, as the service thread does.
    pub(super) fn open(&mut self, owner: usize) -> Result<Handle, Failed> {
        if !self.present {
            return Err(answer(Function::OpenSession, TOKEN_NOT_PRESENT));
        }
        if self.has_forgotten() {
            return Err(answer(Function::GenerateRandom, SESSION_HANDLE_INVALID));
        }
        let number = self.next;
        self.next += 1;
        self.sessions.insert(number, Open { owner, in_call: false });
        Ok(Handle { number, owner })
    }

    /// A login, after which every session is logged in. With true in the error no more is to be sent.
    pub(super) fn log_in(&mut self) -> Result<(), bool> {
        assert!(!self.refused_before, "a PIN that was refused is sent again");
        if !self.present {
            return Err(false);
        }
        self.refused_before = self.refuses;
        self.removals_then = self.removals;
        self.logged_in = !self.refuses;
        if self.refuses { Err(true) } else { Ok(()) }
    }

    /// A call begins; says how it will end.
    pub(super) fn enter(
        &mut self,
        handle: Handle,
        weather: Weather,
        cost_ns: u64,
        dice: &mut Dice,
    ) -> Verdict {
        let refusal = |code| Verdict { code: Some(code), executes: false, ns: 2_000 };
        if !self.present {
            return refusal(TOKEN_NOT_PRESENT);
        }
        let Some(session) = self.sessions.get_mut(&handle.number) else {
            return refusal(SESSION_HANDLE_INVALID);
        };
        assert_eq!(session.owner, handle.owner, "a number that was given to another session is used");
        assert!(!std::mem::replace(&mut session.in_call, true), "two at once in a session");
        let mut verdict =
            if self.logged_in { weather.throw(cost_ns, dice) } else { refusal(USER_NOT_LOGGED_IN) };
        match verdict.code {
            Some(SESSION_CLOSED | SESSION_HANDLE_INVALID) => drop(self.sessions.remove(&handle.number)),
            Some(DEVICE_REMOVED | TOKEN_NOT_PRESENT | CRYPTOKI_NOT_INITIALIZED) => self.remove(),
            Some(USER_NOT_LOGGED_IN) => self.logged_in = false,
            _ => {}
        }
        if dice.of_million(weather.hangs) {
            verdict.ns = dice.between(50_000_000, 4_000_000_000);
        }
        verdict
    }

    /// The call returns.
    pub(super) fn leave(&mut self, handle: Handle, verdict: Verdict) -> Result<(), Failed> {
        if let Some(session) = self.sessions.get_mut(&handle.number).filter(|it| it.owner == handle.owner) {
            session.in_call = false;
        }
        verdict.code.map_or(Ok(()), |code| Err(answer(Function::Sign, code)))
    }

    /// Closing what is not there answers an error that nobody reads; closing another's session is never right.
    pub(super) fn close(&mut self, handle: Handle) {
        if let Some(session) = self.sessions.remove(&handle.number) {
            assert_eq!(session.owner, handle.owner, "another's session is closed");
            assert!(!session.in_call, "a session is closed inside a call");
        }
    }

    /// The token goes away, and what it knew of this process with it.
    pub(super) fn remove(&mut self) {
        (self.present, self.logged_in, self.next) = (false, false, 1);
        self.removals += 1;
        self.sessions.clear();
    }

    pub(super) fn log_out(&mut self) {
        self.logged_in = false;
    }

    /// Whether it was away since the last login: an engine that made no call meanwhile does not know yet.
    pub(super) const fn has_forgotten(&self) -> bool {
        self.removals != self.removals_then
    }

    pub(super) fn open_sessions(&self) -> usize {
        self.sessions.len()
    }
}

impl Weather {
    fn throw(self, cost_ns: u64, dice: &mut Dice) -> Verdict {
        let ns = cost_ns / 2 + dice.between(0, cost_ns);
        let code = if dice.of_million(self.losses) {
            dice.pick(&[DEVICE_REMOVED, TOKEN_NOT_PRESENT, USER_NOT_LOGGED_IN, CRYPTOKI_NOT_INITIALIZED])
        } else if dice.of_million(self.codes) {
            dice.pick(&CODES)
        } else {
            return Verdict { code: None, executes: true, ns };
        };
        let executes = match Fault::new(Function::Sign, code).class().outcome {
            Outcome::NotDone => false,
            Outcome::Done => true,
            Outcome::Unknown => dice.of_million(500_000),
        };
        Verdict { code: Some(code), executes, ns }
    }
}

fn answer(function: Function, code: u64) -> Failed {
    Fault::new(function, code).into()
}
