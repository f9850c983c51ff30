//! Refusals and lost replies at each token of three.

use hsmux::{Error, ErrorKind, Health, Hmac, Outcome};
use hsmux_tests::{eventually, sign};

use crate::site::{NEW, OLD, Site};

const PIN_INVALID: &str = "0xa1";
const DEVICE_ERROR: &str = "0x30";

/// Rotates with a fault at a token, and sees that the engine serves.
fn rotate(site: &Site, sim: &p11_sim::Loaded) -> (hsmux::Engine, Result<(), Error>) {
    let engine = site.builder(sim, site.file("old")).build().unwrap();
    let rotated = engine.rotate_pin(site.file("new")).map(drop);
    sign(&engine.key("hmac").unwrap(), b"x").unwrap();
    (engine, rotated)
}

fn pins(names: [&str; 3]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

#[test]
fn a_refusal_by_any_token_gives_the_others_their_old_pin_back() {
    for (code, kind) in [
        (PIN_INVALID, ErrorKind::PinRefused),
        ("0xa2", ErrorKind::PinRefused),
        ("0xa3", ErrorKind::PinRefused),
        ("0x1b8", ErrorKind::PinRefused),
        ("0xe2", ErrorKind::Device),
        ("0x54", ErrorKind::MechanismUnavailable),
    ] {
        for token in 0..3 {
            let site = Site::new(3);
            let sim = site.sim(&format!("fault=C_SetPIN:1={code}@sim-{token}"));
            let (engine, rotated) = rotate(&site, &sim);
            let error = rotated.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NotDone), "{code}: {error}");
            let said = format!("token sim-{token}: C_SetPIN answered ");
            assert!(error.to_string().contains(&said), "{error}");
            assert!(error.to_string().contains("every token has the old PIN"), "{error}");
            assert_eq!((site.pins(), site.stages()), (pins([OLD; 3]), pins(["none"; 3])), "{code}");
            assert_eq!((sim.calls_of("C_SetPIN"), site.wrong()), (2 * token as u64 + 1, 0));
            // Nothing of it is left: the same rotation goes well.
            engine.rotate_pin(site.file("new")).unwrap();
            assert_eq!(site.pins(), [NEW; 3]);
        }
    }
}

#[test]
fn what_cannot_be_set_back_is_written_down_and_told_and_a_later_rotation_goes_on() {
    let site = Site::new(3);
    let config = format!("fault=C_SetPIN:1={PIN_INVALID}@sim-2;C_SetPIN:2={PIN_INVALID}@sim-0");
    let sim = site.sim(&config);
    let (engine, rotated) = rotate(&site, &sim);
    let error = rotated.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::PinRefused, Outcome::Unknown));
    assert!(error.to_string().contains("token sim-0 keeps the new one (C_SetPIN answered"), "{error}");
    assert_eq!((site.pins(), site.stages()), (pins([NEW, OLD, OLD]), pins(["new", "old", "old"])));
    // Not with another one.
    let conflict = engine.rotate_pin("yet another").unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict, "{conflict}");
    let elsewhere = site.builder(&site.sim(""), site.file("old")).build().map(drop).unwrap_err();
    assert!(elsewhere.to_string().contains("was rotated"), "{elsewhere}");
    let rotation = engine.rotate_pin(site.file("new")).unwrap();
    assert_eq!(rotation.tokens.iter().map(|token| token.had_it).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((site.pins(), site.wrong()), (pins([NEW; 3]), 0));
}

#[test]
fn a_lost_reply_is_settled_by_asking_once_more() {
    for token in 0..3 {
        for (after, wrong) in [("", 0), ("!", 1)] {
            let site = Site::new(3);
            let sim = site.sim(&format!("fault=C_SetPIN:1={DEVICE_ERROR}{after}@sim-{token}"));
            let (_engine, rotated) = rotate(&site, &sim);
            rotated.unwrap();
            assert_eq!((site.pins(), site.stages()), (pins([NEW; 3]), pins(["new"; 3])));
            assert_eq!((sim.calls_of("C_SetPIN"), site.wrong()), (4, wrong));
            // Whose wrong try that was is written down, so that the next login is not kept from sending the PIN.
            let next = site.builder(&site.sim(""), site.file("new")).build().unwrap();
            sign(&next.key("hmac").unwrap(), b"x").unwrap();
            assert!(!site.state_text().contains("tried_old = true"));
        }
    }
}

#[test]
fn a_token_that_is_lost_while_it_changes_its_pin_is_found_out_at_its_next_login() {
    // CKR_DEVICE_REMOVED before and after the change.
    for token in 0..3 {
        for (after, tries) in
            [("", vec!["right", "right", "wrong", "right"]), ("!", vec!["right", "right", "right"])]
        {
            let site = Site::new(3);
            let sim = site.sim(&format!("fault=C_SetPIN:1=0x32{after}@sim-{token}"));
            let engine = site.builder(&sim, site.file("old")).build().unwrap();
            let label = format!("sim-{token}");
            let key = crate::site::key_of(&engine, &label);
            let error = engine.rotate_pin(site.file("new")).unwrap_err();
            assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
            assert!(error.to_string().contains("nobody knows whether it has the new PIN"), "{error}");
            // What the code says has not come true yet: the simulator keeps the login.
            sim.configure(&format!("removed={label}")).unwrap();
            eventually("its loss is noticed", || {
                let _answer = key.sign(Hmac::SHA256, b"x").wait();
                hsmux_tests::health(&engine, token) != Health::Serving
            });
            sim.configure("removed=").unwrap();
            eventually("it is back", || {
                let _answer = sign(&key, b"x");
                hsmux_tests::health(&engine, token) == Health::Serving && sim.calls_on("C_Login", &label) > 1
            });
            assert_eq!(site.tries(token), tries, "{token}{after}");
            let rotation = engine.rotate_pin(site.file("new")).unwrap();
            assert_eq!(rotation.tokens[token].had_it, after == "!");
            assert_eq!((site.pins(), site.stages()), (pins([NEW; 3]), pins(["new"; 3])));
        }
    }
}

#[test]
fn an_old_pin_that_is_no_token_s_any_more_is_tried_once_and_written_down() {
    let site = Site::new(2);
    let sim = site.sim("");
    let engine = site.builder(&sim, site.file("old")).build().unwrap();
    // Somebody else has changed it, without any record.
    let folder = site.path("store").join("sim-0");
    std::fs::write(folder.join("pin"), "changed by hand").unwrap();
    let error = engine.rotate_pin(site.file("new")).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::PinRefused, Outcome::NotDone), "{error}");
    assert_eq!((site.tries(0), site.pin_of(1).as_str()), (vec!["right".to_owned(), "wrong".to_owned()], OLD));
    let error = site.builder(&site.sim(""), site.file("old")).build().map(drop).unwrap_err();
    assert!(error.to_string().contains("hsmux pin clear"), "{error}");
    assert_eq!(site.tries(0).len(), 2);
}
