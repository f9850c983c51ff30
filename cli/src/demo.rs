//! `hsmux demo`: the engine at work on throw-away tokens, with a check of what it made.

mod live;
mod tables;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use hsmux::{Engine, Snapshot};
use hsmux_bench::check::{Material, Software};
use hsmux_bench::mixed::{Check, Labels, Mixed, Report};
use softhsm_fixtures::{ExampleHsm, TestKey};

use crate::exit::{Exit, Failure, Result};
use crate::units;
use live::Live;

/// Options of `hsmux demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long to run: seconds, or a number with its unit
    #[arg(long, value_name = "S", default_value = "10", value_parser = whole_seconds)]
    seconds: u64,

    /// How many callers ask at once: half of them threads, half async tasks
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    callers: u32,
}

/// Whole seconds, up to a day: the display has a line for each.
fn whole_seconds(text: &str) -> std::result::Result<u64, String> {
    match units::seconds(text)? {
        time if time.subsec_nanos() == 0 && time.as_secs() <= 86_400 => Ok(time.as_secs()),
        _ => Err("whole seconds, up to 24h".to_owned()),
    }
}

const LABELS: Labels = Labels {
    rsa: "demo-rsa-2048",
    p256: "demo-p256",
    p384: "demo-p384",
    aes: "demo-aes-256",
    hmac: "demo-hmac",
    further: None,
};

const KEYS: [(&str, TestKey); 5] = [
    (LABELS.rsa, TestKey::Rsa2048),
    (LABELS.p256, TestKey::P256),
    (LABELS.p384, TestKey::P384),
    (LABELS.aes, TestKey::Aes256),
    (LABELS.hmac, TestKey::Hmac),
];

const TOKENS: usize = 2;

/// Outputs that are checked of all callers and each kind of operation together: enough that a fault in one of a
/// thousand shows, few enough that software has checked them in a second or two.
const SAMPLE: usize = 1_000;

/// How long the end may take: far longer than any operation of a software token.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Runs the demo.
pub(crate) fn run(args: Args) -> Result {
    let mut out = io::stdout();
    let hsm = ExampleHsm::throw_away(TOKENS, &KEYS)
        .map_err(|error| Failure::new(Exit::Module, error.to_string()))?;
    let engine = Engine::builder().module(hsm.module()).tokens(hsm.tokens()).pin(hsm.pin()).build()?;
    let engine = Arc::new(engine);
    let software = Arc::new(Software::new(material()?).map_err(other)?);

    let check = Check::Sample(SAMPLE.div_ceil(args.callers as usize));
    let mixed = Mixed::new(LABELS, args.callers, check);
    introduce(&mut out, &args, &engine.snapshot())?;
    // Tokens prove once that they hold the same key: before the load, so that its calls can be told.
    KEYS.iter().try_for_each(|(label, _)| engine.key(label).map(drop))?;
    let before = engine.snapshot();
    let running = mixed.start(&engine, &software).map_err(other)?;
    let watched = watch(&mut out, &engine, args.seconds);
    // Whatever became of the output, the callers are stopped first.
    let report = running.stop();
    watched?;
    let after = engine.snapshot();

    tables::percentiles(&mut out, &after)?;
    tables::calls(&mut out, &before, &after)?;
    tables::checks(&mut out, &report, check)?;
    let left = engine.drain(DRAIN_MAX);
    conclude(&mut out, &report, &after, left)
}

fn introduce(out: &mut impl Write, args: &Args, snapshot: &Snapshot) -> Result {
    let sessions: usize = snapshot.tokens.iter().map(|token| token.sessions).sum();
    let (threads, tasks) = (args.callers.div_ceil(2), args.callers / 2);
    writeln!(
        out,
        "{threads} blocking threads and {tasks} async tasks share {sessions} sessions on {TOKENS} throw-away \
         SoftHSM2 tokens that hold the same keys, for {} s.\n",
        args.seconds
    )?;
    Ok(())
}

/// Shows what happens, once a second.
fn watch(out: &mut impl Write, engine: &Engine, seconds: u64) -> Result {
    let mut live = Live::new(&engine.snapshot(), io::stdout().is_terminal());
    // Nobody ever sends: this only lets a second pass.
    let (_nobody, never) = mpsc::channel::<()>();
    for second in 1..=seconds {
        let _ = never.recv_timeout(Duration::from_secs(1));
        live.show(out, second, &engine.snapshot())?;
    }
    Ok(())
}

/// The last line, and the exit code.
fn conclude(out: &mut impl Write, report: &Report, snapshot: &Snapshot, left: usize) -> Result {
    let errors_on_tokens: u64 = snapshot
        .tokens
        .iter()
        .flat_map(|token| &token.operations)
        .flat_map(|op| &op.errors)
        .map(|(_, n)| n)
        .sum();
    let logins = snapshot.calls.get("C_Login").copied().unwrap_or_default();
    writeln!(out, "{report}; {errors_on_tokens} errors on the tokens, {logins} logins")?;
    if report.is_clean() && errors_on_tokens == 0 && left == 0 {
        writeln!(out, "All is well.")?;
        return Ok(());
    }
    Err(Failure::new(Exit::Other, format!("the demo went wrong: {report}; {left} sessions left open")))
}

fn material() -> Result<Material<'static>> {
    let public = |key: TestKey| key.public_key_der().ok_or_else(|| other("a test key has no public half"));
    let secret = |key: TestKey| key.secret().ok_or_else(|| other("a test key has no value"));
    Ok(Material {
        rsa: public(TestKey::Rsa2048)?,
        p256: public(TestKey::P256)?,
        p384: public(TestKey::P384)?,
        aes: secret(TestKey::Aes256)?,
        hmac: secret(TestKey::Hmac)?,
        further: None,
    })
}

fn other(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Other, text)
}
