//! Whether tokens have room for the sessions that an engine wants, and leave some to others.

use std::num::NonZero;

use hsmux::{Config, SessionCounts, Sessions};

use super::finding::Finding;
use super::token::Token;
use crate::connection::Site;

/// What an engine wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    sessions: Sessions,
    instances: usize,
    processors: usize,
}

/// Models and manufacturers of tokens that are software on this machine: they gain nothing by more sessions than it has
/// processors.
const SOFTWARE: [&str; 3] = ["SoftHSM v2", "NSS 3", "Kryoptic Project"];

impl Wanted {
    pub(super) fn of(site: &Site) -> Self {
        let config = site.config();
        Self {
            sessions: config.map(Config::sessions).unwrap_or_default(),
            instances: config.map_or(1, Config::instances),
            processors: std::thread::available_parallelism().map_or(1, NonZero::get),
        }
    }

    /// Most sessions that it has on a token.
    pub(super) fn most(&self, token: &Token) -> u64 {
        self.span(token).1
    }

    /// Fewest and most, with the engine's own.
    fn span(&self, token: &Token) -> (u64, u64) {
        let span = self.sessions.span(token.sessions.rw_max, self.instances);
        (*span.start() as u64, *span.end() as u64)
    }
}

/// Whether there is room for them.
pub(super) fn judge(tokens: &[&Token], wanted: &Wanted) -> Vec<Finding> {
    if tokens.is_empty() {
        return vec![Finding::skipped("sessions.room", "no token was found whose sessions could be counted")];
    }
    let each = tokens.iter().flat_map(|token| {
        let room = judge_room(token, wanted);
        [Some(room), judge_processors(token, wanted)].into_iter().flatten()
    });
    each.collect()
}

/// How many sessions there are in all, and how many more could be opened; none without a limit.
///
/// PKCS#11 2.40, `CK_TOKEN_INFO`: `ulSessionCount` is the "number of sessions that this application currently has open with the
/// token", and this one has none. Those of others are seen only on tokens that count them against the standard.
fn room(counts: SessionCounts) -> Option<(u64, u64)> {
    let of = |max: Option<u64>, open: Option<u64>| Some((max?, max?.saturating_sub(open.unwrap_or(0))));
    let (all, rw) = (of(counts.max, counts.open), of(counts.rw_max, counts.rw_open));
    match (all, rw) {
        (Some(all), Some(rw)) => Some((all.0.min(rw.0), all.1.min(rw.1))),
        (all, rw) => all.or(rw),
    }
}

fn judge_room(token: &Token, wanted: &Wanted) -> Finding {
    const CHECK: &str = "sessions.room";
    let said = token.said();
    let (least, most) = wanted.span(token);
    let takes = if least == most { format!("{most}") } else { format!("{least} to {most}") };
    let Some((max, free)) = room(token.sessions) else {
        return Finding::ok(CHECK, format!("{said} tells no limit; the engine takes {takes} sessions"));
    };
    let what = format!("{said} has {max} sessions, of which {free} are free; the engine takes {takes}");
    // Some modules count those of all applications: of the service too.
    let others = match free < max {
        true => {
            "if the service runs, these may be its own: stop it and look again; else close those of other applications"
        }
        false => "use another device",
    };
    let sessions = fits(free, wanted.instances);
    if sessions == 0 {
        let advice = format!("an engine needs three on each token and instance; {others}");
        return Finding::problem(CHECK, format!("{what}: no engine starts"), advice);
    }
    // It starts with as many as it gets.
    if free < most {
        let few = if free < least { "it is set to have" } else { "it may have" };
        let advice = format!("sessions = {sessions}   # two more are the engine's own; or {others}");
        return Finding::warning(CHECK, format!("{what}: it gets fewer than {few}"), advice);
    }
    if max - most < max.div_ceil(4) {
        let what = format!("{what}, which leaves others {} at most", max - most);
        return Finding::warning(
            CHECK,
            what,
            "sessions = \"auto\" leaves others a quarter, if there are others",
        );
    }
    Finding::ok(CHECK, what)
}

/// How many sessions may be set where so many are free.
fn fits(free: u64, instances: usize) -> u64 {
    (free / instances.max(1) as u64).saturating_sub(2)
}

/// None where it does not matter.
fn judge_processors(token: &Token, wanted: &Wanted) -> Option<Finding> {
    const CHECK: &str = "sessions.processors";
    let names = [&token.model, &token.manufacturer];
    let is_software = names.iter().any(|name| SOFTWARE.iter().any(|known| name.starts_with(known)));
    // A range or `auto` finds out what pays.
    let fixed = wanted.sessions.most().filter(|&most| Sessions::from(most) == wanted.sessions)?;
    let (said, processors) = (token.said(), wanted.processors);
    let all = fixed * wanted.instances;
    let what = format!("{said} is software, with {all} sessions in use on {processors} processors");
    if !is_software {
        return None;
    }
    Some(match all > processors * 2 {
        true => Finding::warning(
            CHECK,
            format!("{what}: they wait for each other"),
            format!("sessions = \"auto\", or at most {}", (processors * 2 / wanted.instances).max(1)),
        ),
        false => Finding::ok(CHECK, what),
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn token(max: Option<u64>, open: u64) -> Token {
        let mut sessions = SessionCounts::default();
        (sessions.max, sessions.open, sessions.rw_max, sessions.rw_open) = (max, Some(open), max, Some(open));
        Token { label: "pay-1".into(), sessions, ..Token::default() }
    }

    fn wanted(sessions: &str, instances: usize) -> Wanted {
        Wanted { sessions: sessions.parse().unwrap(), instances, processors: 2 }
    }

    #[test]
    fn room_is_what_both_counts_leave() {
        let mut counts = token(Some(16), 3).sessions;
        assert_eq!(room(counts), Some((16, 13)));
        counts.rw_max = Some(8);
        assert_eq!(room(counts), Some((8, 5)));
        counts.rw_max = None;
        assert_eq!(room(counts), Some((16, 13)));
        counts.open = None;
        assert_eq!(room(counts), Some((16, 16)));
        assert_eq!(room(token(None, 3).sessions), None);
        assert_eq!(room(token(Some(2), 5).sessions), Some((2, 0)));
    }

    #[test]
    fn fewer_than_three_are_a_problem_and_fewer_than_are_set_or_little_left_for_others_a_warning() {
        for (max, open, sessions, level) in [
            (None, 0, "64", Level::Ok),
            (Some(1024), 0, "64", Level::Ok),
            // Six with the engine's own, of eight: a quarter is left.
            (Some(8), 0, "4", Level::Ok),
            (Some(8), 0, "5", Level::Warning),
            (Some(8), 0, "6", Level::Warning),
            // The engine takes what it gets.
            (Some(8), 0, "7", Level::Warning),
            (Some(8), 0, "8", Level::Warning),
            (Some(8), 3, "4", Level::Warning),
            (Some(8), 5, "4", Level::Warning),
            (Some(8), 6, "4", Level::Problem),
            (Some(16), 5, "4-10", Level::Warning),
            (Some(16), 11, "4-10", Level::Warning),
            (Some(16), 14, "4-10", Level::Problem),
            (Some(16), 0, "auto", Level::Ok),
            (Some(16), 5, "auto", Level::Warning),
            (Some(2), 0, "auto", Level::Problem),
        ] {
            let finding = judge_room(&token(max, open), &wanted(sessions, 1));
            assert_eq!(finding.level, level, "{max:?} {open} {sessions}: {finding:?}");
        }
        // Each instance has its own.
        assert_eq!(judge_room(&token(Some(8), 0), &wanted("3", 2)).level, Level::Warning);
        assert_eq!(judge_room(&token(Some(8), 3), &wanted("3", 2)).level, Level::Problem);
    }

    #[test]
    fn the_advice_is_a_number_that_fits() {
        let advice = |open| judge_room(&token(Some(8), open), &wanted("8", 1)).advice.unwrap();
        assert!(advice(0).starts_with("sessions = 6 "), "{}", advice(0));
        assert!(
            advice(6).contains("needs three") && advice(6).contains("if the service runs"),
            "{}",
            advice(6)
        );
    }

    #[test]
    fn a_software_token_is_given_no_more_sessions_than_processors_can_serve() {
        let software = || Token { model: "SoftHSM v2".into(), ..token(None, 0) };
        let level = |sessions, instances| {
            judge_processors(&software(), &wanted(sessions, instances)).map(|f| f.level)
        };
        assert_eq!(level("4", 1), Some(Level::Ok));
        assert_eq!(level("5", 1), Some(Level::Warning));
        assert_eq!(level("3", 2), Some(Level::Warning));
        assert_eq!((level("auto", 1), level("2-64", 1)), (None, None));
        assert!(judge_processors(&token(None, 0), &wanted("64", 1)).is_none());
    }
}
