//! Engines that get their PIN from somewhere else than their caller.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::fs::Permissions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hsmux::{Engine, Error, ErrorKind, Hmac, PinKeep, PinSource};
use hsmux_tests::{Hsm, Ready};

fn signs(builder: Ready) {
    let engine = builder.sessions(1).build().unwrap();
    assert_eq!(engine.key("hmac").unwrap().sign(Hmac::SHA256, b"x").wait().unwrap().len(), 32);
}

fn refused(builder: Ready) -> Error {
    builder.build().map(drop).unwrap_err()
}

/// A file that nobody else reads, in a folder that goes with the test.
fn file(content: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pin");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

#[test]
fn a_file_gives_the_pin_of_every_token_kept_or_read_again() {
    for keep in [PinKeep::Memory, PinKeep::Reread] {
        let hsm = Hsm::new(2, "pin=918273");
        let (_directory, path) = file("918273\n", 0o600);
        signs(hsm.builder().pin(PinSource::File(path)).pin_keep(keep));
        hsm.assert_sound();
    }
}

#[test]
fn a_descriptor_gives_the_pin_of_every_token_once() {
    let hsm = Hsm::new(2, "pin=918273");
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"918273\n").unwrap();
    drop(writer);
    let source = PinSource::Fd(reader.as_raw_fd());
    let error = refused(hsm.builder().pin(source.clone()).pin_keep(PinKeep::Reread));
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    signs(hsm.builder().pin(source));
}

#[test]
fn a_source_that_gives_no_pin_is_told_and_no_token_is_asked() {
    let hsm = Hsm::new(1, "pin=918273");
    let (_directory, path) = file("918273", 0o644);
    for keep in [PinKeep::Memory, PinKeep::Reread] {
        let error = refused(hsm.builder().pin(PinSource::File(path.clone())).pin_keep(keep));
        assert_eq!(error.kind(), ErrorKind::PinUnavailable, "{error}");
        assert!(!format!("{error} {error:?}").contains("918273"), "{error}");
    }
    assert_eq!(hsm.sim.calls_of("C_Login"), 0);
}

#[test]
fn a_token_with_a_keypad_asks_by_itself_and_one_without_cannot() {
    let hsm = Hsm::new(1, "keypad=1,pin=918273");
    signs(hsm.builder().pin(PinSource::ProtectedAuthenticationPath));
    let hsm = Hsm::new(1, "");
    let error = refused(hsm.builder().pin(PinSource::ProtectedAuthenticationPath));
    assert_eq!(error.kind(), ErrorKind::PinUnavailable, "{error}");
    assert_eq!(hsm.sim.calls_of("C_Login"), 0);
}

#[test]
fn a_builder_shows_nothing_of_its_pin() {
    let builder = Engine::builder().module("m").tokens(["t"]).pin("918273").pin_keep(PinKeep::Memory);
    assert!(!format!("{builder:?}").contains("918273"));
}
