//! Where a PIN is, and is not, in a process that has logged in with it: its memory, its output, its environment.
//!
//! On SoftHSM2, which keeps no PIN in plain: the simulated HSM holds its own. The PIN that is looked for is made anew for each
//! run, so that it stands in no program, and becomes the token's by a rotation.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hsmux::{Copies, Engine, Hmac, PinKeep, PinSource, RsaOaep};

/// The environment of the process that is looked into: the file with the PIN, and how it is kept.
const PIN: &str = "HSMUX_TEST_PIN_FILE";
const KEEP: &str = "HSMUX_TEST_KEEP";
const HARDEN: &str = "HSMUX_TEST_HARDEN";

const READY: &str = "logged in";

/// A subscriber that tells everything, and panics at each warning.
struct Panics;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Panics {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        assert!(*event.metadata().level() > tracing::Level::WARN, "a subscriber that panics");
    }
}

#[test]
fn a_process_that_other_tests_start() {
    use tracing_subscriber::layer::SubscriberExt;
    let Some(path) = std::env::var_os(PIN) else { return };
    let print = tracing_subscriber::fmt::layer().with_writer(std::io::stdout);
    let all = tracing_subscriber::registry().with(print).with(Panics);
    tracing::subscriber::set_global_default(all).unwrap();
    let hsm = softhsm_fixtures::SoftHsm::for_tests().unwrap();
    let token = hsm.unique_token();
    token.import_hmac("hmac", b"a key for MACs of 32 bytes ......");
    let path = std::path::PathBuf::from(path);
    let first = path.with_extension("first");
    std::fs::write(&first, softhsm_fixtures::PIN).unwrap();
    std::fs::set_permissions(&first, std::fs::Permissions::from_mode(0o600)).unwrap();
    let keep = if std::env::var(KEEP).unwrap() == "memory" { PinKeep::Memory } else { PinKeep::Reread };
    let builder =
        || Engine::builder().module(hsm.module()).tokens([token.label()]).pin_keep(keep).sessions(1);
    let builder = || builder().state_dir(path.with_extension("state")).copies(Copies::Off);
    let engine = builder().pin(PinSource::File(first)).build().unwrap();
    engine.rotate_pin(PinSource::File(path.clone())).unwrap();
    assert_eq!(engine.drain(std::time::Duration::from_secs(10)), 0);
    drop(engine);
    // The PIN is the token's, by another login.
    let builder = builder().pin(PinSource::File(path));
    let engine = builder.harden_process(std::env::var_os(HARDEN).is_some()).build().unwrap();
    let key = engine.key("hmac").unwrap();
    for _ in 0..10 {
        key.sign(Hmac::SHA256, b"x").wait().unwrap();
        let error = key.decrypt(RsaOaep::SHA256, b"x").wait().unwrap_err();
        println!("{error} {error:?} {engine:?}");
    }
    let broken = engine.key("no such key").unwrap_err();
    println!("{broken} {broken:?}");
    let warn = std::panic::AssertUnwindSafe(|| tracing::warn!(?engine, "a warning"));
    let caught = std::panic::catch_unwind(warn);
    assert!(caught.is_err());
    println!("\n{READY}");
    // Until the test ends it.
    let _end = std::io::stdin().read(&mut [0]);
}

/// A process that has logged in, and what it has said.
struct Process(Child, String);

impl Process {
    fn start(pin_file: &Path, keep: &str, harden: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_process_that_other_tests_start", "--nocapture"]);
        command.env(PIN, pin_file).env(KEEP, keep).env("RUST_BACKTRACE", "1");
        if harden {
            command.env(HARDEN, "1");
        }
        let log = File::create(pin_file.with_extension("stderr")).unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said: Vec<_> = lines.take_while(|line| line != READY).collect();
        said.push(std::fs::read_to_string(pin_file.with_extension("stderr")).unwrap());
        let process = Self(child, said.join("\n"));
        assert!(process.1.contains("a subscriber that panics"), "{}", process.1);
        process
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        format!("/proc/{}/{name}", self.0.id()).into()
    }

    /// Where a text is in its memory: whether that page is locked, for each place. None where nobody may look.
    fn places(&self, text: &[u8]) -> Option<Vec<bool>> {
        let memory = match File::open(self.file("mem")) {
            Ok(memory) => memory,
            Err(error) => {
                eprintln!("the memory of a child cannot be read here ({error}): not looked at");
                return None;
            }
        };
        let maps = std::fs::read_to_string(self.file("smaps")).unwrap();
        let mut places = Vec::new();
        let mut range = None;
        for line in maps.lines() {
            let first = line.split(' ').next().unwrap();
            if let Some((start, end)) = first.split_once('-') {
                let number = |text| u64::from_str_radix(text, 16).ok();
                let is_readable = line.split(' ').nth(1).is_some_and(|flags| flags.starts_with('r'));
                range = number(start).zip(number(end)).filter(|_| is_readable);
            } else if let Some(flags) = line.strip_prefix("VmFlags:") {
                let Some((start, end)) = range.take() else { continue };
                let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
                // What the kernel keeps for itself cannot be read.
                if memory.read_exact_at(&mut bytes, start).is_ok() {
                    let found = bytes.windows(text.len()).filter(|window| *window == text).count();
                    let is_locked = flags.split(' ').any(|flag| flag == "lo");
                    places.extend(std::iter::repeat_n(is_locked, found));
                }
            }
        }
        Some(places)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}

/// A file with a PIN that nobody has seen before.
fn canary(place: &Path) -> (std::path::PathBuf, String) {
    let mut random = [0; 12];
    getrandom::fill(&mut random).unwrap();
    let pin: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = place.join("pin");
    std::fs::write(&path, &pin).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (path, pin)
}

/// Whether there is a SoftHSM2 to log in to.
fn has_softhsm() -> bool {
    softhsm_fixtures::SoftHsm::for_tests().is_some()
}

#[test]
fn a_pin_is_on_one_locked_page_or_nowhere() {
    if !has_softhsm() {
        return;
    }
    for (keep, wanted) in [("memory", vec![true]), ("reread", Vec::new())] {
        let place = tempfile::tempdir().unwrap();
        let (path, pin) = canary(place.path());
        let process = Process::start(&path, keep, false);
        for file in ["environ", "cmdline"] {
            let bytes = std::fs::read(process.file(file)).unwrap();
            assert!(!bytes.windows(pin.len()).any(|window| window == pin.as_bytes()), "{file}");
        }
        assert!(!process.1.contains(&pin));
        if let Some(places) = process.places(pin.as_bytes()) {
            assert_eq!(places, wanted, "{keep}");
        }
        // That it would be found: this is there.
        assert!(process.places(READY.as_bytes()).is_none_or(|places| !places.is_empty()));
    }
}

#[test]
fn a_hardened_process_leaves_no_core_file() {
    if !has_softhsm() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (path, _) = canary(place.path());
    let process = Process::start(&path, "memory", true);
    let limits = std::fs::read_to_string(process.file("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}
