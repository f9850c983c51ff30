//! A wrong PIN is sent once, by however many processes and however they end: what the state directory remembers.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

#[path = "support/processes.rs"]
mod processes;

use std::os::unix::fs::PermissionsExt;

use hsmux::{Builder, ErrorKind, Health, Hmac, PinKeep, PinRecord, PinSource, PinState, Retry};
use hsmux_tests::{Hsm, Ready, eventually};
use processes::{Dice, End, Ending, REFUSED, RIGHT, Site, WRONG};

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
    let consenting = |pin| site.run_consenting(pin);
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
    assert_eq!(site.run_consenting(WRONG), REFUSED);
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
fn an_answer_that_did_not_count_settles_no_login_that_was_cut_off_before() {
    let (site, mut sent) = (Site::new(), 0);
    for _ in 0..4 {
        site.run_until(WRONG, Ending::Inside);
        sent += site.logins().len();
        // The token forgets it.
        let _gone = std::fs::remove_file(site.log());
        // CKR_TOKEN_NOT_PRESENT.
        let end = site.start(WRONG, "fault=C_Login:1=0xe0").wait();
        assert_ne!(end, End::Served);
        let _gone = std::fs::remove_file(site.log());
    }
    assert_eq!((sent, site.record()), (2, Some(PinState::Refused)));
}

#[test]
fn nobody_is_kept_from_clearing_the_record_of_a_lost_token_while_it_is_away() {
    let site = Site::new();
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().state_dir(site.state()).build().unwrap();
    let key = engine.key("hmac").unwrap();
    // Whoever takes the lock makes its file.
    let locks = || {
        let paths = site.state().read_dir().unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "lock")).collect::<Vec<_>>()
    };
    assert_eq!(locks().len(), 1);
    std::fs::remove_file(&locks()[0]).unwrap();
    hsm.sim.configure("removed=sim-0").unwrap();
    key.sign(Hmac::SHA256, b"x").wait().unwrap_err();
    let before = hsm.sim.calls_of("C_GetSlotList");
    eventually("it was looked for", || hsm.sim.calls_of("C_GetSlotList") >= before + 3);
    assert!(locks().is_empty());
    hsm.sim.configure("removed=").unwrap();
    eventually("it is back", || key.sign(Hmac::SHA256, b"x").wait().is_ok());
    assert_eq!((locks().len(), site.record()), (1, None));
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
