//! Every return code from every function by which requests run: what the caller is told, what becomes of the session, and
//! whether the request is made again.
//!
//! `data/return-codes.tsv` is read from the standard (PKCS#11 3.2, 5.1) and from what modules do; the engine's own table is
//! not looked at here.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use hsmux::{AesCbc, Engine, Error, ErrorKind, Health, Hmac, Key, Outcome};
use hsmux_tests::{Hsm, LONG, eventually};

const TABLE: &str = include_str!("../data/return-codes.tsv");

/// Vendors' own codes, and numbers that no header has.
const UNKNOWN: [u64; 3] = [0x8000_0000, 0x8000_0387, 0x0000_7777];

struct Row {
    code: u64,
    name: &'static str,
    class: &'static str,
    session: &'static str,
    outcome: &'static str,
}

/// Functions by which requests run.
const FUNCTIONS: [&str; 7] =
    ["C_SignInit", "C_Sign", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_GenerateRandom"];

/// From `C_Decrypt` these say that the ciphertext is not accepted, whatever else they may mean.
const VERDICTS: [u64; 10] = [0x05, 0x06, 0x20, 0x21, 0x35, 0x40, 0x41, 0x42, 0xc0, 0xc1];

/// Codes that are about ciphertexts alone.
const BAD_CIPHERTEXT: [u64; 3] = [0x40, 0x41, 0x42];

fn rows() -> impl Iterator<Item = Row> {
    let read = |line: &'static str| {
        let mut fields = line.split('\t');
        let [code, name, class, session, outcome] = std::array::from_fn(|_| fields.next().unwrap());
        let code = u64::from_str_radix(code.trim_start_matches("0x"), 16).unwrap();
        Row { code, name, class, session, outcome }
    };
    let unknown = UNKNOWN.map(|code| Row {
        code,
        name: "a code of nobody's",
        class: "DeviceFault",
        session: "close",
        outcome: "unknown",
    });
    TABLE.lines().skip(1).map(read).chain(unknown)
}

/// An engine of one session, which calls nothing but what requests need.
struct Bench {
    hsm: Hsm,
    engine: Engine,
    aes: Key,
    hmac: Key,
    sealed: Vec<u8>,
}

/// What a cell of the table saw.
struct Seen {
    answer: Result<(), Error>,
    /// Calls of the function.
    calls: u64,
    opened: u64,
    closed: u64,
    logins: u64,
}

impl Bench {
    fn new() -> Self {
        Self::on(Hsm::new(1, ""))
    }

    /// With a new engine: one whose token was lost looks for it ever more rarely.
    fn renewed(self) -> Self {
        let Self { hsm, engine, aes, hmac, .. } = self;
        assert_eq!(engine.drain(LONG), 0);
        drop((engine, aes, hmac));
        // What the old one closes is not to be counted for the new one.
        eventually("the old one is gone", || {
            hsm.sim.calls_of("C_Finalize") == hsm.sim.calls_of("C_Initialize")
        });
        Self::on(hsm)
    }

    fn on(hsm: Hsm) -> Self {
        let builder = hsm.builder().sessions(1).coalescing(false).holding(false).random_pool(false);
        let engine = builder.build().unwrap();
        let (aes, hmac) = (engine.key("aes256").unwrap(), engine.key("hmac").unwrap());
        let sealed = aes.encrypt(AesCbc::new(), b"text").wait().unwrap().into();
        Self { hsm, engine, aes, hmac, sealed }
    }

    /// A request that comes by the function.
    fn request(&self, function: &str) -> Result<(), Error> {
        match function {
            "C_SignInit" | "C_Sign" => {
                self.hmac.sign(Hmac::SHA256, b"x").deadline_in(LONG).at_most_once().wait().map(drop)
            }
            "C_EncryptInit" | "C_Encrypt" => {
                self.aes.encrypt(AesCbc::new(), b"x").deadline_in(LONG).at_most_once().wait().map(drop)
            }
            "C_GenerateRandom" => self.engine.random(32).deadline_in(LONG).at_most_once().wait().map(drop),
            _ => {
                let request = self.aes.decrypt(AesCbc::new(), &self.sealed);
                request.deadline_in(LONG).at_most_once().wait().map(drop)
            }
        }
    }

    /// The first call of the function answers the code.
    fn cell(&self, function: &str, code: u64) -> Seen {
        let calls = |function| self.hsm.sim.calls_of(function);
        let watched = ["C_OpenSession", "C_CloseSession", "C_Login"];
        let (before, of_function) = (watched.map(calls), calls(function));
        self.hsm.sim.configure(&format!("fault={function}:1={code:#x}")).unwrap();
        let answer = self.request(function);
        let called = calls(function) - of_function;
        self.hsm.sim.configure("fault=").unwrap();
        eventually("the token serves", || {
            let token = &self.engine.snapshot().tokens[0];
            (token.health, token.sessions, token.idle) == (Health::Serving, 1, 1)
        });
        let [opened, closed, logins] = [0, 1, 2].map(|i| calls(watched[i]) - before[i]);
        Seen { answer, calls: called, opened, closed, logins }
    }
}

/// What is wrong with a cell, if anything.
fn check(row: &Row, function: &str, seen: &Seen) -> Result<(), String> {
    let init = function.ends_with("Init");
    // All that is said of a ciphertext looks alike, whoever says it.
    if function == "C_Decrypt" && VERDICTS.contains(&row.code) || BAD_CIPHERTEXT.contains(&row.code) {
        let told = seen.answer.as_ref().err().map(|error| (error.kind(), error.outcome()));
        let right = told == Some((ErrorKind::DecryptFailed, Outcome::Done)) && seen.opened == 0;
        return if right { Ok(()) } else { Err("a ciphertext that is not accepted".into()) };
    }
    let down = row.class == "TokenGone" || row.name == "CKR_USER_NOT_LOGGED_IN";
    let outcome = match row.outcome {
        "not_done" => Outcome::NotDone,
        // CKR_FUNCTION_FAILED: "treat as unknown" for what must not be repeated, says the table's note.
        "unknown" if init => Outcome::NotDone,
        "unknown" => Outcome::Unknown,
        _ => Outcome::Done,
    };
    let outcome = match row.name {
        "CKR_FUNCTION_FAILED" if !init => Outcome::Unknown,
        _ => outcome,
    };
    // A session is replaced after a few random bytes were asked for, by which the token shows that it is there.
    let calls_max = if function == "C_GenerateRandom" && seen.opened > 0 { 3 } else { 2 };
    match &seen.answer {
        // Made again, once, for nothing had been done; of a token that was lost, after it had come back and shown its keys.
        Ok(()) if outcome == Outcome::NotDone && (down || seen.calls <= calls_max) => {}
        Ok(()) => return Err("the request was made again although it may have been executed".into()),
        Err(error) if down && error.kind() == ErrorKind::TokenLost => {}
        Err(error) if down => return Err(format!("{:?} of a token that is lost", error.kind())),
        Err(error) if error.outcome() != outcome => {
            return Err(format!("outcome {:?}, not {outcome:?}", error.outcome()));
        }
        Err(error) => check_class(row, error)?,
    }
    let (opened, closed) = (seen.opened, seen.closed);
    match row.session {
        _ if down && seen.logins == 1 => Ok(()),
        _ if down => Err(format!("{} logins", seen.logins)),
        "keep" | "none" if (opened, closed, seen.logins) == (0, 0, 0) => Ok(()),
        "close" | "cancel" if (opened, closed) == (1, 1) => Ok(()),
        "abandon" if (opened, closed) == (1, 0) => Ok(()),
        // The module itself is dead: its session is closed like any other.
        "abandon" if row.class == "Fatal" || row.class == "DeviceFault" => Ok(()),
        other => Err(format!("{opened} opened, {closed} closed, where a session is to {other}")),
    }
}

fn check_class(row: &Row, error: &Error) -> Result<(), String> {
    use ErrorKind as K;
    let kinds: &[K] = match row.class {
        // Busy ones are tried again by the engine, and then told.
        "Transient" => &[K::Busy, K::Device],
        "SessionLost" => &[K::SessionLost, K::Internal],
        "LoginLost" => &[K::KeyNotFound, K::PinRefused, K::PinLocked, K::SessionLost, K::Internal],
        "DeviceFault" | "OutcomeUnknown" => &[K::Device, K::Internal],
        "Fatal" => &[K::Module],
        "Ok" => &[K::InvalidInput, K::Module],
        _ => &[
            K::InvalidInput,
            K::NotPermitted,
            K::KeyMismatch,
            K::KeyNotFound,
            K::MechanismUnavailable,
            K::DecryptFailed,
            K::PinRefused,
            K::Device,
            K::Internal,
        ],
    };
    if kinds.contains(&error.kind()) { Ok(()) } else { Err(format!("{:?} for {}", error.kind(), row.class)) }
}

#[test]
fn every_code_from_every_function_is_told_and_dealt_with_as_the_table_says() {
    let mut bench = Bench::new();
    let mut wrong = Vec::new();
    let mut cells = 0;
    for row in rows() {
        for function in FUNCTIONS {
            let seen = bench.cell(function, row.code);
            cells += 1;
            if let Err(why) = check(&row, function, &seen) {
                wrong.push(format!("{function} answers {} ({:#x}): {why}", row.name, row.code));
            }
            if seen.logins > 0 {
                bench = bench.renewed();
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cells} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cells > 700);
    assert_eq!(bench.hsm.sim.concurrent_use(), 0);
    bench.request("C_Sign").unwrap();
}
