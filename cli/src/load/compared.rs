//! The baselines of `hsmux load --compare`.

use std::sync::Arc;
use std::time::Duration;

use hsmux::{Engine, TokenDescription};
use hsmux_bench::profile::Profile;
use hsmux_bench::run::{self, Flow, Interval, Turns};
use hsmux_bench::{Comparison, Plan, Rival, Site, Target, Works, compare};
use secrecy::SecretString;

use super::{Args, note};
use crate::connection;
use crate::exit::{Exit, Failure, Result};

/// Opens every baseline that was named, and runs all of them in turn with the engine.
pub(super) fn run(
    args: &Args,
    site: &connection::Site,
    engine: &Engine,
    target: &Target,
    key: Option<&str>,
    tokens: &[String],
    pin: &SecretString,
) -> Result<Comparison> {
    let sessions = args.sessions.and_then(hsmux::Sessions::most);
    let threads = match args.threads.as_slice() {
        [] => Plan::usual_threads(sessions),
        counts => counts.iter().map(|count| count.get().into()).collect(),
    };
    let most = threads.iter().copied().max().unwrap_or(1);
    let plan = Plan::new(args.seconds(), threads, args.compare.len());
    let rivals = open(args, site, engine, target, (key, tokens, pin), most)?;
    Ok(compare(target, args.load(), &rivals, &plan)?)
}

/// How long the engine runs before that does not count, so that it finds how many sessions pay.
const SETTLES: Duration = Duration::from_secs(1);

/// Runs a profile of one operation on the engine and on every baseline that was named, in turn, with requests due at the same
/// moments.
pub(super) fn in_turns(
    args: &Args,
    site: &connection::Site,
    (engine, works, profile): (&Arc<Engine>, &Arc<Works>, &Profile),
    (key, tokens, pin): (Option<&str>, &[String], &SecretString),
    mut watch: impl FnMut(Option<&Interval>) -> Flow,
) -> Result<Turns> {
    let failed = |text: String| Failure::new(Exit::Other, text);
    let target = Target::new(engine, args.case()?, key)?;
    let settling = profile.clone().for_time(SETTLES).map_err(failed)?;
    run::run(engine, settling, works, |_| watch(None)).map_err(failed)?;
    let threads = match args.threads.first() {
        None if profile.pace.is_none() => profile.callers as usize,
        None => target.sessions().max(1),
        Some(count) => count.get().into(),
    };
    let threads = threads.min(super::THREADS_MAX.into());
    let rivals = open(args, site, engine, &target, (key, tokens, pin), threads)?;
    run::in_turns(engine, profile, works, (&rivals, threads), watch).map_err(failed)
}

fn open<'a>(
    args: &Args,
    site: &connection::Site,
    engine: &Engine,
    target: &'a Target,
    (key, tokens, pin): (Option<&str>, &[String], &SecretString),
    threads_max: usize,
) -> Result<Vec<Rival<'a>>> {
    let holders = holders(engine, key, tokens);
    let site = Site::new(site.module(), site.init_args(), holders, pin.clone());
    let mut rivals = Vec::new();
    for name in args.baselines().map(super::args::Baseline::name) {
        let baseline = name.open(&site, target, key, threads_max)?;
        let threads = baseline.threads_max();
        if threads > 1 && threads < threads_max {
            note(&format!("the tokens give {name} {threads} sessions only"))?;
        }
        rivals.push(Rival { name, baseline });
    }
    Ok(rivals)
}

/// Those of the named tokens that hold the key: the engine uses no others for it, so a baseline may not. It knows
/// labels and serial numbers only.
fn holders(engine: &Engine, key: Option<&str>, names: &[String]) -> Vec<String> {
    let keys = engine.keys();
    let holds = |token: &TokenDescription| {
        key.is_none_or(|key| keys.iter().any(|known| known.token == token.label && known.label == key))
    };
    let tokens = engine.tokens();
    let held = names.iter().zip(&tokens).filter(|(_, token)| holds(token));
    let by_label = |name: &String, token: &TokenDescription| *name == token.label || token.serial.is_empty();
    held.map(|(name, token)| if by_label(name, token) { &token.label } else { &token.serial }.clone())
        .collect()
}
