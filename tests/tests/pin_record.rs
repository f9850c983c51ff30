//! A wrong PIN is sent once, by however many processes and however they end: what the state directory remembers.
//!
//! The processes are this program, run anew with `a_process_that_other_tests_start` as its only test. Their simulated HSM
//! writes every `C_Login` down before anything becomes of it, and counts wrong tries from there.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use hsmux::{Builder, Engine, ErrorKind, Health, Hmac, PinKeep, PinRecord, PinSource, PinState, Retry};
use hsmux_tests::{Hsm, Ready, eventually};

/// A state directory, and the simulated HSM's log of logins.
struct Site(tempfile::TempDir);

/// A process that starts an engine.
struct Process(Child);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Served,
    Failed(ErrorKind),
    Killed,
}

/// How the test ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Not at all.
    ByItself,
    /// So long after it was started, its login taking a while.
    After(Duration),
    /// While it is inside `C_Login`, if it makes a login.
    Inside,
    /// Once it knows what became of its engine.
    Settled,
}

const RIGHT: &str = "1234";
const WRONG: &str = "4321";

/// The environment of a process, in which the test tells it what to do.
const STATE: &str = "HSMUX_TEST_STATE_DIR";
const CONFIG: &str = "HSMUX_TEST_SIM";
const PIN: &str = "HSMUX_TEST_PIN";
/// To send the PIN in spite of warnings.
const CONSENT: &str = "HSMUX_TEST_CONSENT";
/// To say how it went and wait to be killed.
const WAITS: &str = "HSMUX_TEST_WAITS";

/// Exit codes: the first for an engine that served, the second and up for kinds of errors.
const SERVED: i32 = 7;
const FAILED: i32 = 40;

/// What a process says when it knows.
const SETTLED: &str = "the engine is there, or is not";

#[test]
fn a_process_that_other_tests_start() {
    let var = |name| std::env::var(name).ok();
    let (Some(state), Some(config), Some(pin)) = (var(STATE), var(CONFIG), var(PIN)) else { return };
    let builder = Engine::builder().module(p11_sim::cdylib_path().unwrap()).tokens(["sim-0"]);
    let builder = builder.pin(pin).init_args(config).state_dir(state).sessions(1);
    let builder = if var(CONSENT).is_some() { builder.pin_despite_warning() } else { builder };
    let built = builder.build();
    if var(WAITS).is_some() {
        println!("{SETTLED}");
        let _end = std::io::stdin().read(&mut [0]);
    }
    let code = match built.and_then(|engine| engine.key("hmac")?.sign(Hmac::SHA256, b"x").wait()) {
        Ok(_) => SERVED,
        Err(error) => FAILED + error.kind() as i32,
    };
    std::process::exit(code);
}

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("logins")
    }

    /// What the simulated HSM wrote down.
    fn logins(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().map(|line| line.replace("sim-0 ", "")).collect()
    }

    /// What is remembered of its token.
    fn record(&self) -> Option<PinState> {
        record(&self.state())
    }

    /// What an operator does who has looked at it.
    fn clear(&self) {
        let records = PinRecord::list(&self.state()).unwrap();
        assert!(records.len() == 1 && records[0].is_named("sim-0"));
        records[0].clear().unwrap();
    }

    fn command(&self, pin: &str, more: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_process_that_other_tests_start", "--nocapture"]);
        command.env(STATE, self.state()).env(PIN, pin);
        command.env(CONFIG, format!("pin_log={},{more}", self.log().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    fn start(&self, pin: &str, more: &str) -> Process {
        Process(self.command(pin, more).spawn().unwrap())
    }

    /// Starts a process and lets it end by itself.
    fn run(&self, pin: &str) -> End {
        self.start(pin, "").wait()
    }

    /// Starts a process and ends it so.
    fn run_until(&self, pin: &str, ending: Ending) -> End {
        match ending {
            Ending::ByItself => self.run(pin),
            Ending::After(time) => {
                let process = self.start(pin, "fault=C_Login:1=slow-20000");
                std::thread::park_timeout(time);
                process.kill()
            }
            Ending::Inside => {
                let before = self.logins().len();
                let mut process = self.start(pin, "hang=C_Login:1");
                eventually("it logs in or has ended", || {
                    self.logins().len() > before || process.0.try_wait().unwrap().is_some()
                });
                process.kill()
            }
            Ending::Settled => {
                let mut process = Process(self.command(pin, "").env(WAITS, "1").spawn().unwrap());
                let said = BufReader::new(process.0.stdout.take().unwrap()).lines();
                assert!(said.map_while(Result::ok).any(|line| line.contains(SETTLED)));
                process.kill()
            }
        }
    }
}

impl Process {
    fn wait(mut self) -> End {
        End::of(self.0.wait().unwrap())
    }

    /// SIGKILL, unless it has ended by itself.
    fn kill(mut self) -> End {
        self.0.kill().unwrap();
        self.wait()
    }
}

/// A test that fails leaves nobody behind.
impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}

impl End {
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(SERVED) => Self::Served,
            Some(code) => {
                let kind = ErrorKind::ALL.into_iter().find(|kind| FAILED + *kind as i32 == code);
                assert!(kind.is_some(), "exit code {code}");
                Self::Failed(kind.unwrap())
            }
            None => {
                assert!(status.signal().is_some());
                Self::Killed
            }
        }
    }
}

const REFUSED: End = End::Failed(ErrorKind::PinRefused);

fn record(state: &Path) -> Option<PinState> {
    let records = if state.exists() { PinRecord::list(state).unwrap() } else { Vec::new() };
    assert!(records.len() <= 1, "{records:?}");
    records.first().map(PinRecord::state)
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn ending(&mut self) -> Ending {
        match self.below(8) {
            0 => Ending::ByItself,
            1 => Ending::Inside,
            2 => Ending::Settled,
            // An engine starts and fails within this on an idle machine.
            _ => Ending::After(Duration::from_micros(self.below(150_000))),
        }
    }
}

/// Restarts processes with a wrong PIN, of which some are killed, and looks after each that the token was tried once at
/// most. Returns how many ended by themselves.
fn restart(site: &Site, dice: &mut Dice, times: usize) -> usize {
    let mut by_themselves = 0;
    for time in 0..times {
        // Two in a row that are killed between the record and their login end it, too, but without any login.
        let was_cut_off = site.logins().is_empty() && site.record().is_some();
        let ending = if was_cut_off { Ending::Inside } else { dice.ending() };
        match site.run_until(WRONG, ending) {
            End::Killed => {}
            end => {
                assert_eq!(end, REFUSED, "{time}: {ending:?}");
                by_themselves += 1;
            }
        }
        let logins = site.logins();
        assert!(logins.len() <= 1, "{time}: {ending:?}: {logins:?}");
    }
    by_themselves
}

#[test]
fn a_wrong_pin_is_sent_once_in_a_hundred_restarts_however_they_end() {
    let site = Site::new();
    let by_themselves = restart(&site, &mut Dice(2026), 100);
    assert_eq!(site.logins(), ["wrong"]);
    assert!((1..100).contains(&by_themselves), "{by_themselves}");
    assert_eq!(site.run(WRONG), REFUSED);
    assert_eq!((site.record(), site.logins()), (Some(PinState::Refused), vec!["wrong".to_owned()]));
}

#[test]
fn a_wrong_pin_is_sent_once_whatever_becomes_of_the_first_who_sends_it() {
    for seed in 100..116 {
        let site = Site::new();
        restart(&site, &mut Dice(seed), 4);
        // Whoever was not killed has sent it.
        assert_eq!((site.run(WRONG), site.record()), (REFUSED, Some(PinState::Refused)), "seed {seed}");
        assert_eq!(site.logins(), ["wrong"], "seed {seed}");
    }
}

#[test]
fn a_pin_that_was_refused_is_not_sent_again_right_or_wrong_with_or_without_consent() {
    let site = Site::new();
    assert_eq!(site.run(WRONG), REFUSED);
    let consenting = |pin| Process(site.command(pin, "").env(CONSENT, "1").spawn().unwrap()).wait();
    for pin in [WRONG, RIGHT] {
        assert_eq!([site.run(pin), consenting(pin)], [REFUSED; 2]);
    }
    assert_eq!(site.logins(), ["wrong"]);
    // The operator clears it, and consents to what the flags say: once.
    site.clear();
    assert_eq!((site.run(WRONG), site.record()), (End::Failed(ErrorKind::PinLocked), None));
    assert_eq!([consenting(WRONG), consenting(WRONG)], [REFUSED; 2]);
    assert_eq!(site.logins(), ["wrong", "wrong"]);
    site.clear();
    assert_eq!([consenting(RIGHT), site.run(RIGHT)], [End::Served; 2]);
    assert_eq!((site.record(), site.logins().len()), (None, 4));
}

#[test]
fn who_is_killed_before_the_token_has_seen_the_pin_leaves_the_next_one_free_to_try() {
    for (pin, end, record) in [(RIGHT, End::Served, None), (WRONG, REFUSED, Some(PinState::Refused))] {
        let site = Site::new();
        assert_eq!(site.run_until(pin, Ending::Inside), End::Killed);
        assert_eq!(site.record(), Some(PinState::Trying));
        // It never came to the token.
        std::fs::remove_file(site.log()).unwrap();
        assert_eq!((site.run(pin), site.record()), (end, record));
        assert_eq!(site.logins().len(), 1);
    }
}

#[test]
fn who_is_killed_while_the_token_refuses_the_pin_is_the_last_to_send_it() {
    let site = Site::new();
    assert_eq!(site.run_until(WRONG, Ending::Inside), End::Killed);
    assert_eq!(site.record(), Some(PinState::Trying));
    // Also where the operator has consented to what the flags say: this may be our own wrong try.
    let mut command = site.command(WRONG, "");
    assert_eq!(Process(command.env(CONSENT, "1").spawn().unwrap()).wait(), REFUSED);
    assert_eq!((site.record(), site.run(WRONG)), (Some(PinState::Refused), REFUSED));
    assert_eq!(site.logins(), ["wrong"]);
}

#[test]
fn who_is_killed_while_the_token_accepts_the_pin_is_followed_by_one_who_serves() {
    let site = Site::new();
    assert_eq!(site.run_until(RIGHT, Ending::Inside), End::Killed);
    assert_eq!((site.run(RIGHT), site.record()), (End::Served, None));
    assert_eq!(site.logins(), ["right", "right"]);
}

#[test]
fn a_token_that_never_warns_gets_a_wrong_pin_twice_at_most() {
    let (site, mut sent) = (Site::new(), 0);
    for _ in 0..5 {
        site.run_until(WRONG, Ending::Inside);
        sent += site.logins().len();
        // The token forgets it.
        let _gone = std::fs::remove_file(site.log());
    }
    assert_eq!((sent, site.record()), (2, Some(PinState::Refused)));
}

#[test]
fn one_process_logs_in_while_the_others_wait() {
    let site = Site::new();
    let first = site.start(RIGHT, "hang=C_Login:1");
    eventually("it is inside its login", || !site.logins().is_empty());
    let hsm = Hsm::new(1, "");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| hsm.builder().state_dir(site.state()).build().map(drop));
        eventually("the second has come to its login", || hsm.sim.calls_of("C_GetTokenInfo") >= 2);
        // Meanwhile others start, with another directory, and end.
        let other = Site::new();
        assert_eq!([other.run(RIGHT), other.run(RIGHT)], [End::Served; 2]);
        assert!(!second.is_finished());
        assert_eq!((hsm.sim.calls_of("C_Login"), site.record()), (0, Some(PinState::Trying)));
        let error = PinRecord::list(&site.state()).unwrap()[0].clear().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert_eq!(first.kill(), End::Killed);
        second.join().unwrap().unwrap();
    });
    assert_eq!((hsm.sim.calls_of("C_Login"), site.record()), (1, None));
}

/// A file with a PIN.
fn pin_file(site: &Site, pin: &str) -> PinSource {
    let path = site.0.path().join("pin");
    std::fs::write(&path, pin).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    PinSource::File(path)
}

#[test]
fn a_pin_that_was_changed_while_a_token_was_lost_is_sent_once_and_by_nobody_after() {
    let site = Site::new();
    let hsm = Hsm::new(1, &format!("pin_log={}", site.log().display()));
    let builder = hsm.builder().pin(pin_file(&site, RIGHT)).pin_keep(PinKeep::Reread);
    let engine = builder.state_dir(site.state()).build().unwrap();
    assert_eq!(site.record(), None);
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("removed=sim-0").unwrap();
    key.sign(Hmac::SHA256, b"x").wait().unwrap_err();
    pin_file(&site, WRONG);
    hsm.sim.configure("removed=").unwrap();
    eventually("the token is given up", || engine.snapshot().tokens[0].health == Health::GivenUp);
    let refused = || {
        assert_eq!(site.logins(), ["right", "wrong"]);
        assert_eq!(site.record(), Some(PinState::Refused));
    };
    refused();
    for _ in 0..20 {
        key.sign(Hmac::SHA256, b"x").wait().unwrap_err();
    }
    for pin in [WRONG, RIGHT] {
        assert_eq!(site.run(pin), REFUSED);
        refused();
    }
}

#[test]
fn a_token_that_comes_back_is_not_logged_in_to_if_another_process_was_refused_meanwhile() {
    let site = Site::new();
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().state_dir(site.state()).build().unwrap();
    let key = engine.key("hmac").unwrap();
    assert_eq!(site.run(WRONG), REFUSED);
    key.sign(Hmac::SHA256, b"x").wait().unwrap();
    hsm.sim.configure("removed=sim-0").unwrap();
    key.sign(Hmac::SHA256, b"x").wait().unwrap_err();
    hsm.sim.configure("removed=").unwrap();
    eventually("the token is given up", || engine.snapshot().tokens[0].health == Health::GivenUp);
    assert_eq!(hsm.sim.calls_of("C_Login"), 1);
}

/// Builds an engine on a token that nobody else has.
fn build(site: &Site, sim: &str, how: impl FnOnce(Ready) -> Ready) -> (u64, hsmux::Result<()>) {
    let hsm = Hsm::new(1, sim);
    let built = how(hsm.builder().state_dir(site.state())).build().map(drop);
    (hsm.sim.calls_of("C_Login"), built)
}

#[test]
fn an_answer_that_may_hide_a_wrong_try_counts_as_one_and_a_busy_token_does_not() {
    // CKR_DEVICE_ERROR; CKR_PIN_EXPIRED; CKR_DEVICE_REMOVED; a lost reply.
    for code in ["0x30", "0xa3", "0x32", "0x5!"] {
        let site = Site::new();
        let (logins, built) = build(&site, &format!("fault=C_Login:1={code}"), |ready| ready);
        let error = built.unwrap_err();
        assert_eq!((logins, site.record()), (1, Some(PinState::Refused)), "{code}");
        assert_eq!(error.retry(), Retry::Operator, "{code}: {error}");
        let (logins, built) = build(&site, "", |ready| ready);
        let error = built.unwrap_err();
        assert_eq!((logins, error.kind(), error.retry()), (0, ErrorKind::PinRefused, Retry::Operator));
        let remedy =
            format!("`hsmux pin clear --state-dir {} ", site.state().canonicalize().unwrap().display());
        assert!(error.to_string().contains(&remedy), "{error}");
    }
    // CKR_DEVICE_MEMORY; CKR_TOKEN_NOT_PRESENT; the session is gone before the call.
    for fault in ["0x31", "0xe0", "session-lost"] {
        let site = Site::new();
        let (logins, built) = build(&site, &format!("fault=C_Login:1={fault}"), |ready| ready);
        assert!(logins == 1 && built.is_err() && site.record().is_none(), "{fault}");
        build(&site, "", |ready| ready).1.unwrap();
    }
}

#[test]
fn every_instance_logs_in_and_a_refusal_by_the_first_spares_the_second() {
    let site = Site::new();
    build(&site, "", |ready| ready.instances(2)).1.unwrap();
    assert_eq!(site.record(), None);
    let (logins, built) = build(&site, "", |ready| ready.instances(2).pin(WRONG));
    assert_eq!((logins, built.unwrap_err().kind()), (1, ErrorKind::PinRefused));
    assert_eq!(site.record(), Some(PinState::Refused));
}

#[test]
fn a_damaged_record_counts_as_a_refusal() {
    let site = Site::new();
    assert_eq!(build(&site, "", |ready| ready.pin(WRONG)).0, 1);
    let id = PinRecord::list(&site.state()).unwrap()[0].id().to_owned();
    std::fs::write(site.state().join(format!("pin-{id}.toml")), "version = 1\nstate = \"try").unwrap();
    let (logins, built) = build(&site, "", |ready| ready);
    assert_eq!((logins, built.unwrap_err().kind()), (0, ErrorKind::PinRefused));
    assert_eq!(site.record(), Some(PinState::Damaged));
    PinRecord::list(&site.state()).unwrap()[0].clear().unwrap();
    build(&site, "", |ready| ready).1.unwrap();
}

#[test]
fn a_person_at_a_keypad_is_asked_whatever_is_remembered() {
    let site = Site::new();
    build(&site, "", |ready| ready.pin(WRONG)).1.unwrap_err();
    let keypad = |ready: Ready| ready.pin(PinSource::ProtectedAuthenticationPath);
    let (logins, built) = build(&site, "keypad=1", keypad);
    built.unwrap();
    assert_eq!((logins, site.record()), (1, Some(PinState::Refused)));
}

#[test]
fn a_directory_that_others_may_change_is_refused_before_anything_is_asked() {
    let site = Site::new();
    let refused = || {
        let (logins, built) =
            build(&site, "", |ready: Builder<_, _, _>| ready.pin(PinSource::Env("UNSET".into())));
        let error = built.unwrap_err();
        assert_eq!((logins, error.kind()), (0, ErrorKind::Configuration), "{error}");
    };
    std::fs::create_dir(site.state()).unwrap();
    std::fs::set_permissions(site.state(), std::fs::Permissions::from_mode(0o777)).unwrap();
    refused();
    std::fs::remove_dir(site.state()).unwrap();
    std::fs::write(site.state(), "").unwrap();
    refused();
}
