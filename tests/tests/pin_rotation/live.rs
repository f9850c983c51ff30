//! Rotations that nothing goes wrong with, and those that are refused before anything is sent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hsmux::{Engine, Error, ErrorKind, Health, Hmac, Outcome, PinKeep, PinSource, Retry};
use hsmux_tests::{eventually, sign, wait_for};

use crate::site::{NEW, OLD, Site};

fn serves(engine: &Engine) {
    sign(&engine.key("hmac").unwrap(), b"x").unwrap();
}

/// Takes every token away and puts it back, so that the engine logs in anew.
fn lose_all(site: &Site, sim: &p11_sim::Loaded, engine: &Engine) {
    for (token, label) in site.labels().iter().enumerate() {
        let key = crate::site::key_of(engine, label);
        let before = sim.calls_on("C_Login", label);
        sim.configure(&format!("removed={label}")).unwrap();
        eventually("its loss is noticed", || {
            let _answer = key.sign(Hmac::SHA256, b"x").wait();
            hsmux_tests::health(engine, token) != Health::Serving
        });
        sim.configure("removed=").unwrap();
        eventually("it was logged in to", || sim.calls_on("C_Login", label) > before);
        wait_for(engine, token, Health::Serving);
    }
}

#[test]
fn every_token_gets_the_new_pin_while_requests_go_on_and_later_logins_send_it() {
    for keep in [PinKeep::Memory, PinKeep::Reread] {
        let site = Site::new(3);
        let sim = site.sim("");
        let engine = site.builder(&sim, site.file("old")).pin_keep(keep).build().unwrap();
        let key = engine.key("hmac").unwrap();
        let (stop, signed) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let requests = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    sign(&key, b"x").unwrap();
                    signed.fetch_add(1, Ordering::Relaxed);
                }
            });
            eventually("requests go on", || signed.load(Ordering::Relaxed) > 100);
            let rotation = engine.rotate_pin(site.file("new")).unwrap();
            let labels: Vec<_> = rotation.tokens.iter().map(|token| token.label.clone()).collect();
            assert_eq!(labels, site.labels());
            assert!(rotation.tokens.iter().all(|token| !token.had_it));
            let so_far = signed.load(Ordering::Relaxed);
            eventually("requests still go on", || signed.load(Ordering::Relaxed) > so_far + 100);
            stop.store(true, Ordering::Relaxed);
            requests.join().unwrap();
        });
        assert_eq!((site.pins(), site.stages()), (vec![NEW.to_owned(); 3], vec!["new".to_owned(); 3]));
        assert_eq!(sim.calls_of("C_SetPIN"), 3);
        // Not from the old file, which is there no more.
        std::fs::remove_file(site.path("old")).unwrap();
        lose_all(&site, &sim, &engine);
        assert_eq!((sim.calls_of("C_Login"), site.wrong()), (6, 0));
        for text in [OLD, NEW] {
            assert!(!site.state_text().contains(text));
        }
    }
}

#[test]
fn who_has_the_old_pin_from_a_file_that_has_not_changed_sends_it_no_more() {
    let site = Site::new(2);
    let sim = site.sim("");
    let other_sim = site.sim("");
    let other = site.builder(&other_sim, site.file("old")).build().unwrap();
    let engine = site.builder(&sim, site.file("old")).build().unwrap();
    engine.rotate_pin(site.file("new")).unwrap();
    let refused = |error: Error| {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::PinRefused, Retry::Operator), "{error}");
        assert!(error.to_string().contains("the PIN was rotated at 2"), "{error}");
    };
    refused(site.builder(&site.sim(""), site.file("old")).build().map(drop).unwrap_err());
    // One that serves does so until it has to log in.
    serves(&other);
    other_sim.configure("removed=sim-0").unwrap();
    eventually("its loss is noticed", || {
        serves(&other);
        hsmux_tests::health(&other, 0) != Health::Serving
    });
    other_sim.configure("removed=").unwrap();
    wait_for(&other, 0, Health::GivenUp);
    assert_eq!(site.wrong(), 0);
    // The new PIN takes the place of the old one.
    std::fs::rename(site.path("new"), site.path("old")).unwrap();
    serves(&site.builder(&site.sim(""), site.file("old")).build().unwrap());
    site.write("old", NEW);
    serves(&site.builder(&site.sim(""), site.file("old")).build().unwrap());
    assert_eq!(site.wrong(), 0);
}

#[test]
fn an_engine_that_reads_its_pin_again_comes_back_when_its_source_has_the_new_one() {
    let site = Site::new(1);
    let (sim, other_sim) = (site.sim(""), site.sim(""));
    let other = site.builder(&other_sim, site.file("old")).pin_keep(PinKeep::Reread).build().unwrap();
    let key = other.key("hmac").unwrap();
    let engine = site.builder(&sim, site.file("old")).build().unwrap();
    engine.rotate_pin(site.file("new")).unwrap();
    other_sim.configure("removed=sim-0").unwrap();
    eventually("its loss is noticed", || sign(&key, b"x").is_err());
    let looks = other_sim.calls_of("C_GetTokenInfo");
    other_sim.configure("removed=").unwrap();
    eventually("it was looked for", || other_sim.calls_of("C_GetTokenInfo") > looks + 6);
    assert_eq!((other_sim.calls_of("C_Login"), site.wrong()), (1, 0));
    site.write("old", NEW);
    eventually("it serves again", || sign(&key, b"x").is_ok());
    assert_eq!((other_sim.calls_of("C_Login"), site.wrong()), (2, 0));
}

#[test]
fn a_pin_is_rotated_again_and_again_and_none_of_the_earlier_ones_is_sent() {
    let site = Site::new(2);
    let sim = site.sim("");
    let engine = site.builder(&sim, site.file("old")).build().unwrap();
    let names: Vec<_> = (0..4).map(|number| format!("pin-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let source = site.write(name, &format!("pin number {number}"));
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64 + 1);
        std::fs::File::open(site.path(name)).unwrap().set_modified(then).unwrap();
        engine.rotate_pin(source).unwrap();
    }
    assert_eq!(site.pins(), ["pin number 3"; 2]);
    for name in ["old", "pin-0", "pin-1", "pin-2"] {
        let error = site.builder(&site.sim(""), site.file(name)).build().map(drop).unwrap_err();
        assert!(error.to_string().contains("was rotated"), "{name}: {error}");
    }
    serves(&site.builder(&site.sim(""), site.file("pin-3")).build().unwrap());
    assert_eq!(site.wrong(), 0);
}

#[test]
fn other_instances_keep_their_logins_and_send_the_new_pin_later() {
    let site = Site::new(2);
    let sim = site.sim("");
    let builder = site.builder(&sim, site.file("old")).init_args(site.config("")).instances(2);
    let engine = builder.build().unwrap();
    engine.rotate_pin(site.file("new")).unwrap();
    assert_eq!((site.pins(), sim.calls_of("C_SetPIN")), (vec![NEW.to_owned(); 2], 2));
    serves(&engine);
    assert_eq!(site.wrong(), 0);
}

#[test]
fn what_cannot_be_rotated_is_told_before_anything_is_sent() {
    let site = Site::new(2);
    let sim = site.sim("");
    let engine = site.builder(&sim, site.file("old")).build().unwrap();
    let refused = |engine: &Engine, new: PinSource, kind, said: &str| {
        let error = engine.rotate_pin(new).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NotDone), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        for pin in [OLD, NEW] {
            assert!(!format!("{error} {error:?}").contains(pin), "{error}");
        }
    };
    let (input, settings) = (ErrorKind::InvalidInput, ErrorKind::Configuration);
    refused(&engine, OLD.into(), input, "the new PIN is the old one");
    refused(&engine, "abc".into(), input, "of 4 to 64 bytes");
    refused(&engine, "x".repeat(65).into(), input, "of 4 to 64 bytes");
    refused(&engine, PinSource::ProtectedAuthenticationPath, settings, "types at the token");
    refused(&engine, site.file("none"), ErrorKind::PinUnavailable, "No such file");
    let hsm = hsmux_tests::Hsm::new(1, "");
    refused(&hsm.builder().build().unwrap(), NEW.into(), settings, "state directory");
    let reread = site.builder(&site.sim(""), site.file("old")).pin_keep(PinKeep::Reread).build().unwrap();
    refused(&reread, NEW.into(), settings, "cannot be read again");
    site.write("old", "another");
    refused(&reread, site.file("new"), settings, "was changed since the last login");
    sim.configure("removed=sim-1").unwrap();
    refused(&engine, site.file("new"), ErrorKind::TokenLost, "CKR_TOKEN_NOT_PRESENT");
    assert_eq!((sim.calls_of("C_SetPIN"), site.stages()), (0, vec!["none".to_owned(); 2]));
    assert!(site.builder(&site.sim(""), OLD.into()).resume_rotation(NEW).build().is_err());
}

#[test]
fn one_engine_rotates_at_a_time() {
    let site = Site::new(1);
    let (sim, other_sim) = (site.sim("hang=C_SetPIN:1"), site.sim(""));
    let engine = site.builder(&sim, site.file("old")).build().unwrap();
    let other = site.builder(&other_sim, site.file("old")).build().unwrap();
    std::thread::scope(|scope| {
        let rotating = scope.spawn(|| engine.rotate_pin(site.file("new")).map(drop));
        eventually("it is inside", || sim.hanging() == 1);
        let error = other.rotate_pin("another one").unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Busy, Outcome::NotDone), "{error}");
        sim.release_hangs();
        rotating.join().unwrap().unwrap();
    });
    assert_eq!((site.pins(), site.wrong()), (vec![NEW.to_owned()], 0));
}
