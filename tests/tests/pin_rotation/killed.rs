//! A rotation that is killed at any moment: whoever starts next sends no PIN more than once, and a rotation that goes on ends
//! with the new PIN on every token.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quanta::Instant;

use hsmux::{Copies, Engine, ErrorKind, PinSource};
use hsmux_tests::sign;

use crate::site::{NEW, OLD, Site};

/// The environment of a process that rotates: the simulator's configuration, and where everything is.
const CONFIG: &str = "HSMUX_TEST_SIM";
const PLACE: &str = "HSMUX_TEST_PLACE";

const TOKENS: usize = 3;

/// What it says when it has its engine, and when it has rotated.
const READY: &str = "ready to rotate";
const ROTATED: &str = "rotated";

#[test]
fn a_process_that_other_tests_start() {
    let var = |name| std::env::var(name).ok();
    let (Some(config), Some(place)) = (var(CONFIG), var(PLACE)) else { return };
    let file = |name: &str| PinSource::File(format!("{place}/{name}").into());
    let labels = (0..TOKENS).map(|index| format!("sim-{index}"));
    let builder = Engine::builder().module(p11_sim::cdylib_path().unwrap()).tokens(labels).pin(file("old"));
    let builder = builder.init_args(config).state_dir(format!("{place}/state"));
    let engine = builder.copies(Copies::Off).sessions(1).build().unwrap();
    println!("\n{READY}");
    engine.rotate_pin(file("new")).unwrap();
    println!("\n{ROTATED}");
}

struct Rotating(Child, std::io::Lines<BufReader<std::process::ChildStdout>>);

impl Rotating {
    /// Starts a process; it is about to rotate when this returns.
    fn start(site: &Site) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed::a_process_that_other_tests_start", "--nocapture"]);
        command.env(CONFIG, site.config("")).env(PLACE, site.path(""));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut started = Self(child, lines);
        assert!(started.says(READY));
        started
    }

    fn says(&mut self, what: &str) -> bool {
        self.1.by_ref().map_while(Result::ok).any(|line| line == what)
    }

    /// SIGKILL, unless it has ended by itself.
    fn kill(&mut self) {
        let _ended = self.0.kill();
        self.0.wait().unwrap();
    }
}

impl Drop for Rotating {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts an engine, and looks that no token was tried wrongly more than once by it.
fn start(site: &Site, pin: &str, resume: bool) -> hsmux::Result<(p11_sim::Loaded, Engine)> {
    let wrong = |token| site.tries(token).iter().filter(|how| *how == "wrong").count();
    let before: Vec<_> = (0..TOKENS).map(wrong).collect();
    let sim = site.sim("");
    let builder = site.builder(&sim, site.file(pin)).sessions(1);
    let builder = if resume { builder.resume_rotation(site.file("new")) } else { builder };
    let built = builder.build();
    for (token, before) in before.into_iter().enumerate() {
        assert!(wrong(token) <= before + 1, "{pin}: {:?}", site.tries(token));
    }
    if let Err(error) = &built {
        let kinds = [ErrorKind::PinRefused, ErrorKind::Configuration];
        assert!(kinds.contains(&error.kind()), "{pin}, {resume}: {error}");
        assert!(!error.to_string().contains("hsmux pin clear"), "{pin}, {resume}: {error}");
    }
    Ok((sim, built?))
}

fn kills() -> u64 {
    std::env::var("HSMUX_KILLS").map_or(100, |text| text.parse().unwrap())
}

/// How long a rotation takes here and now, so that kills come at all moments of it.
fn rotation_ns() -> u64 {
    let site = Site::new(TOKENS);
    let mut process = Rotating::start(&site);
    let began = Instant::now();
    assert!(process.says(ROTATED));
    u64::try_from(began.elapsed().as_nanos()).unwrap()
}

#[test]
fn a_rotation_that_is_killed_goes_on_and_no_pin_is_guessed() {
    let (mut dice, span) = (2026_u64, rotation_ns());
    let mut cut_off = 0;
    for kill in 0..kills() {
        let site = Site::new(TOKENS);
        let mut process = Rotating::start(&site);
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::park_timeout(Duration::from_nanos((dice >> 16) % (span + span / 4)));
        process.kill();
        let (left, pins) = (site.stages(), site.pins());
        cut_off +=
            usize::from(left.iter().any(|stage| stage != "new") && left.iter().any(|stage| stage != "none"));
        // Whoever comes with one PIN only, in either order.
        let order = if kill % 2 == 0 { ["old", "new"] } else { ["new", "old"] };
        let serve = |(_sim, engine): (p11_sim::Loaded, Engine)| {
            sign(&engine.key("hmac").unwrap(), b"x").unwrap();
        };
        // Before it has begun nothing is written, and the new PIN is a wrong one like any other.
        let has_begun = left.iter().any(|stage| stage != "none");
        if kill % 3 != 0 && has_begun {
            let served = order.map(|pin| start(&site, pin, false).map(serve).is_ok());
            let all = |pin: &str| pins.iter().all(|of| of == pin);
            // One PIN on all tokens serves, unless it is not known yet that it is on all of them.
            assert!(!served.contains(&true) || all(OLD) || all(NEW), "{left:?} {pins:?}");
        }
        let (_sim, engine) = match start(&site, "old", true) {
            Ok(started) => started,
            // It had not begun, or was at its end.
            Err(_) => start(&site, if site.pin_of(0) == OLD { "old" } else { "new" }, false).unwrap(),
        };
        if site.pins().iter().any(|pin| pin == OLD) {
            engine.rotate_pin(site.file("new")).unwrap();
        }
        sign(&engine.key("hmac").unwrap(), b"x").unwrap();
        assert_eq!(site.pins(), [NEW; TOKENS], "{left:?}");
        drop(engine);
        start(&site, "new", false).map(serve).unwrap();
        for token in 0..TOKENS {
            assert!(
                site.tries(token).iter().filter(|how| *how == "wrong").count() <= 1,
                "{left:?} {:?}",
                site.tries(token)
            );
        }
    }
    println!("{} kills, {cut_off} within a rotation: no PIN was sent wrongly twice", kills());
    assert!(cut_off > 0);
}
