use std::fs::Permissions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::ExposeSecret;

use super::read::PIN_LEN_MAX;
use super::*;

/// What a source gives: the PIN, or the failure's text.
fn read(source: &PinSource) -> Result<String, String> {
    source.read().map(|pin| pin.expose_secret().to_owned()).map_err(|error| {
        assert_eq!(error.kind(), ErrorKind::PinUnavailable);
        format!("{error} {error:?}")
    })
}

fn write(path: &Path, content: &[u8], mode: u32) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What a file of this content and mode gives.
fn read_file(content: &[u8], mode: u32) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pin");
    write(&path, content, mode);
    read(&PinSource::File(path))
}

#[test]
fn every_form_is_read_from_its_text() {
    for (text, form) in [
        ("file:/run/pin", "PinSource::File(..)"),
        ("env:HSM_PIN", "PinSource::Env(..)"),
        ("fd:3", "PinSource::Fd(..)"),
        ("credential:hsm-pin", "PinSource::Credential(..)"),
        ("prompt", "PinSource::Prompt"),
        ("protected", "PinSource::ProtectedAuthenticationPath"),
    ] {
        assert_eq!(format!("{:?}", text.parse::<PinSource>().unwrap()), form);
    }
    let file = "file:a:b".parse::<PinSource>().unwrap();
    assert!(matches!(file, PinSource::File(path) if path == Path::new("a:b")));
    assert!(matches!("fd:3".parse::<PinSource>().unwrap(), PinSource::Fd(3)));
}

#[test]
fn a_pin_given_as_its_own_source_is_refused_and_not_repeated() {
    for text in [
        "918273",
        "pin:918273",
        "file:",
        "env:",
        "env:A=918273",
        "FILE:918273",
        "fd:",
        "fd:-918273",
        "fd:91827391827391",
        "credential:",
        "credential:..",
        "credential:../918273",
        "prompt:918273",
        "",
    ] {
        let error = text.parse::<PinSource>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("never a PIN"), "{error}");
        assert!(!format!("{error} {error:?}").contains("918273"), "{error}");
    }
}

#[test]
fn debug_shows_nothing_of_a_source() {
    let sources = [
        PinSource::from("918273"),
        PinSource::from("918273".to_owned()),
        PinSource::from(SecretString::from("918273")),
        PinSource::File("918273".into()),
        PinSource::Env("918273".into()),
        PinSource::Credential("918273".into()),
        PinSource::Fd(918_273),
    ];
    for source in sources {
        let builder = crate::Engine::builder().pin(source.clone());
        assert!(!format!("{source:?} {builder:?}").contains("918273"), "{source:?}");
    }
}

#[test]
fn one_trailing_newline_is_not_part_of_the_pin() {
    assert_eq!(read_file(b"12 34", 0o600).unwrap(), "12 34");
    assert_eq!(read_file(b"1234\n", 0o400).unwrap(), "1234");
    assert_eq!(read_file(b"1234\n\n", 0o600).unwrap(), "1234\n");
    assert_eq!(
        read_file(&[[b'7'; PIN_LEN_MAX].as_slice(), b"\n"].concat(), 0o600).unwrap().len(),
        PIN_LEN_MAX
    );
}

#[test]
fn a_file_that_group_or_others_may_touch_is_refused() {
    for mode in [0o640, 0o660, 0o620, 0o644, 0o604, 0o602] {
        let failure = read_file(b"918273", mode).unwrap_err();
        assert!(failure.contains("others may") && !failure.contains("918273"), "{mode:o}: {failure}");
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), b"918273", 0o600);
    // Only root can give files away.
    if std::os::unix::fs::chown(file.path(), Some(65_534), None).is_ok() {
        let failure = read(&PinSource::File(file.path().into())).unwrap_err();
        assert!(failure.contains("another user") && !failure.contains("918273"), "{failure}");
    }
}

#[test]
fn a_file_that_holds_no_pin_is_refused_and_not_repeated() {
    let long = [b'7'; PIN_LEN_MAX + 1];
    for (content, why) in [
        (&b""[..], "empty"),
        (b"\n", "empty"),
        (b"77\xff", "not UTF-8"),
        (&long, "longer"),
        (&[b'7'; 9999], "longer"),
    ] {
        let failure = read_file(content, 0o600).unwrap_err();
        assert!(failure.contains(why) && !failure.contains("77"), "{failure}");
    }
}

#[test]
fn a_link_is_followed_to_the_file_whose_permissions_count() {
    let directory = tempfile::tempdir().unwrap();
    let (target, link) = (directory.path().join("target"), directory.path().join("link"));
    symlink(&target, &link).unwrap();
    let source = PinSource::File(link);
    assert!(read(&source).unwrap_err().contains("No such file"));
    write(&target, b"918273", 0o600);
    assert_eq!(read(&source).unwrap(), "918273");
    write(&target, b"918273", 0o644);
    assert!(read(&source).unwrap_err().contains("others may"));
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for path in [directory.path().to_owned(), pipe, "/dev/null".into()] {
        let failure = read(&PinSource::File(path)).unwrap_err();
        assert!(failure.contains("not a regular file"), "{failure}");
    }
}

#[test]
fn a_pin_comes_from_the_environment_as_it_is() {
    // Cargo sets it for every test.
    assert_eq!(read(&PinSource::Env("CARGO_PKG_NAME".into())).unwrap(), "hsmux");
    let failure = read(&PinSource::Env("HSMUX_TEST_NO_PIN".into())).unwrap_err();
    assert!(failure.contains("HSMUX_TEST_NO_PIN: not set"), "{failure}");
}

#[test]
fn a_pin_comes_from_a_file_descriptor_up_to_its_end() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"918273\n").unwrap();
    drop(writer);
    assert_eq!(read(&PinSource::Fd(reader.as_raw_fd())).unwrap(), "918273");
    assert!(read(&PinSource::Fd(reader.as_raw_fd())).unwrap_err().contains("empty"));
    assert!(read(&PinSource::Fd(-1)).unwrap_err().contains("file descriptor -1"));
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'7'; PIN_LEN_MAX + 2]).unwrap();
    // Still open: it is not waited for.
    assert!(read(&PinSource::Fd(reader.as_raw_fd())).unwrap_err().contains("longer"));
    drop(writer);
}

/// Set in the process that runs one test again with an environment of its own.
const AGAIN: &str = "HSMUX_TEST_AGAIN";

/// Runs this test again in a process with these variables, through a program if there is one; whether it passed.
fn again(test: &str, through: &[&str], variables: &[(&str, &Path)]) -> bool {
    let own = std::env::current_exe().unwrap().into_os_string();
    let mut words = through.iter().map(|word| (*word).into()).chain([own]);
    let mut command = std::process::Command::new(words.next().unwrap());
    command.args(words).args(["--exact", &format!("pin::tests::{test}")]).env(AGAIN, "1");
    command.envs(variables.iter().copied()).stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed")
}

#[test]
fn a_pin_comes_from_the_directory_of_credentials() {
    let source: PinSource = "credential:hsm-pin".parse().unwrap();
    if std::env::var_os(AGAIN).is_some() {
        let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
            assert!(read(&source).unwrap_err().contains("CREDENTIALS_DIRECTORY is not set"));
            return;
        };
        let path = Path::new(&directory).join("hsm-pin");
        for mode in [0o400, 0o440] {
            write(&path, b"918273\n", mode);
            assert_eq!(read(&source).unwrap(), "918273");
            std::fs::remove_file(&path).unwrap();
        }
        write(&path, b"918273\n", 0o444);
        assert!(read(&source).unwrap_err().contains("others may"));
        return;
    }
    let test = "a_pin_comes_from_the_directory_of_credentials";
    let directory = tempfile::tempdir().unwrap();
    assert!(again(test, &[], &[("CREDENTIALS_DIRECTORY", directory.path())]));
    assert!(again(test, &["env", "-u", "CREDENTIALS_DIRECTORY"], &[]));
}

#[test]
fn nobody_is_asked_where_there_is_no_terminal() {
    if std::env::var_os(AGAIN).is_some() {
        assert!(read(&PinSource::Prompt).unwrap_err().contains("terminal"));
        return;
    }
    // A session of its own has no terminal.
    assert!(again("nobody_is_asked_where_there_is_no_terminal", &["setsid", "--wait"], &[]));
}

#[test]
fn a_token_that_asks_by_itself_gives_its_pin_to_nobody() {
    let error = PinSource::ProtectedAuthenticationPath.read().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

#[test]
fn a_record_of_which_it_is_not_sure_that_it_lasts_is_no_attempt() {
    if std::env::var_os(AGAIN).is_none() {
        assert!(again("a_record_of_which_it_is_not_sure_that_it_lasts_is_no_attempt", &[], &[]));
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let token = TokenId { serial: "0042", label: "pay-1", model: "m", manufacturer: "hsmux" };
    let pin = Pin::new(PinSource::from("918273"), PinKeep::Memory, Some(place.path())).unwrap();
    let attempt = || pin.claim(token, Duration::ZERO).unwrap().allow(false).unwrap();
    let never = |_: Option<&[u8]>| -> Result<(), bool> { panic!("the PIN was lent") };
    let record = || std::fs::read_to_string(place.path().join(format!("pin-{}.toml", token.hash()))).ok();
    let fails_three_times = || {
        for _ in 0..3 {
            let (attempt, before) = (attempt(), record());
            // One descriptor for the record, and none to synchronise its directory.
            let limits = getrlimit(Resource::Nofile);
            let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
            let current = Some(u64::try_from(next).unwrap() + 1);
            setrlimit(Resource::Nofile, Rlimit { current, ..limits }).unwrap();
            let sent = attempt.send(false, never, |_| Counted::Yes);
            setrlimit(Resource::Nofile, limits).unwrap();
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::Configuration);
            assert_eq!(record(), before);
        }
    };
    fails_three_times();
    assert_eq!(record(), None);
    let killed = || attempt().send(false, never, |_| Counted::Yes).unwrap();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(killed)).unwrap_err();
    assert!(record().unwrap().contains("attempts = 1"));
    fails_three_times();
    attempt().send(false, |_| Ok::<_, bool>(()), |_| Counted::Yes).unwrap().unwrap();
}

#[test]
fn the_pin_source_of_a_uri_is_a_file_or_one_of_our_forms() {
    let source = |text: &str| PinSource::try_from(&text.parse::<Pkcs11Uri>().unwrap());
    for (text, wanted) in [
        ("pkcs11:?pin-source=file:/etc/pin", "/etc/pin"),
        ("pkcs11:?pin-source=file:///etc/pin", "/etc/pin"),
        ("pkcs11:?pin-source=file://localhost/etc/pin", "/etc/pin"),
        ("pkcs11:?pin-source=file:/etc/the%2520pin", "/etc/the pin"),
        ("pkcs11:?pin-source=file:/etc/the%20pin", "/etc/the pin"),
    ] {
        assert!(matches!(source(text), Ok(PinSource::File(path)) if path == Path::new(wanted)), "{text}");
    }
    assert!(matches!(source("pkcs11:?pin-source=env:PIN"), Ok(PinSource::Env(name)) if name == "PIN"));
    assert!(matches!(source("pkcs11:?pin-source=prompt"), Ok(PinSource::Prompt)));
    for text in [
        "pkcs11:",
        "pkcs11:?pin-source=file:pin",
        "pkcs11:?pin-source=file://other/etc/pin",
        "pkcs11:?pin-source=file:/etc/%25zz",
        "pkcs11:?pin-source=|/bin/cat%20/etc/pin",
        "pkcs11:?pin-source=https://pin",
        "pkcs11:?pin-source=1234",
    ] {
        assert_eq!(source(text).unwrap_err().kind(), ErrorKind::Configuration, "{text}");
    }
}

#[test]
fn all_that_is_wrong_with_a_file_is_told_at_once_and_nothing_of_the_pin() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pin");
    let examine = |content: &[u8], mode| {
        write(&path, content, mode);
        let examined = PinSource::File(path.clone()).examine();
        assert!(!format!("{examined:?}").contains("918273"), "{examined:?}");
        (examined.faults, examined.ends_in_blank)
    };
    let open = PinFault::OpenToOthers { remedy: "chmod 600" };
    assert_eq!(examine(b"918273\n", 0o600), (vec![], Some(false)));
    assert_eq!(examine(b"918273", 0o644), (vec![open.clone()], Some(false)));
    assert_eq!(examine(b"\n", 0o640), (vec![open, PinFault::Empty], None));
    assert_eq!(examine(b"\xff", 0o600), (vec![PinFault::NotUtf8], None));
    assert_eq!(examine(&[b'7'; PIN_LEN_MAX + 1], 0o600), (vec![PinFault::TooLong], None));
    for blank in ["918273 \n", "918273\n\n", "918273\r\n", "918273\t"] {
        assert_eq!(examine(blank.as_bytes(), 0o600), (vec![], Some(true)), "{blank:?}");
    }
    // What is refused first is what a read says.
    let failure = read_file(b"\n", 0o640).unwrap_err();
    assert!(failure.contains("others may read or write it"), "{failure}");
}

#[test]
fn what_is_no_file_is_not_read_and_what_is_asked_once_is_not_asked() {
    let directory = tempfile::tempdir().unwrap();
    let faults = |source: &str| source.parse::<PinSource>().unwrap().examine();
    let folder = faults(&format!("file:{}", directory.path().display()));
    assert!(folder.faults.contains(&PinFault::NotAFile) && folder.ends_in_blank.is_none(), "{folder:?}");
    assert!(matches!(faults("file:/no/such/pin").faults[..], [PinFault::Unreadable(_)]));
    assert!(matches!(faults("env:HSMUX_TEST_NO_PIN").faults[..], [PinFault::Unreadable(_)]));
    // A word without a slash may be the PIN.
    assert_eq!(faults("file:918273").place, "the file");
    for once in ["prompt", "protected", "fd:0"] {
        let examined = faults(once);
        assert!(examined.faults.is_empty() && examined.ends_in_blank.is_none(), "{examined:?}");
    }
}
