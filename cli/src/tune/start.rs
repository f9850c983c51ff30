//! What the settings are before anything is tuned, as the text of the configuration says.

use hsmux_bench::tune::{Limits, Setting};
use toml_edit::{DocumentMut, Item};

use super::args::{Args, Switch};
use crate::exit::{Exit, Failure, Result};

/// What a configuration says of the settings that are tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// `None` if the engine finds the number by itself.
    pub(super) sessions: Option<usize>,
    /// Between which numbers it looks for it, where the operator says that: there nothing else is tried.
    bounds: Option<(usize, usize)>,
    pub(super) instances: usize,
    pub(super) coalescing: bool,
    /// `None` if keys must have copies: then there is nothing to try.
    copies: Option<bool>,
}

/// What there is without a configuration.
impl Default for Start {
    fn default() -> Self {
        Self { sessions: None, bounds: None, instances: 1, coalescing: true, copies: Some(true) }
    }
}

impl Start {
    /// Of a configuration that has been read already.
    pub(super) fn of(text: &str) -> Result<Self> {
        let document: DocumentMut =
            text.parse().map_err(|error| Failure::new(Exit::Usage, format!("configuration: {error}")))?;
        let count = |name: &str| {
            let number = document.get(name).and_then(Item::as_integer)?;
            usize::try_from(number).ok()
        };
        let text = |name: &str| document.get(name).and_then(Item::as_str);
        let sessions = count("sessions").or_else(|| text("sessions")?.parse().ok());
        Ok(Self {
            sessions,
            bounds: bounds(&document).filter(|_| sessions.is_none()),
            instances: count("instances").unwrap_or(1).max(1),
            coalescing: document.get("coalescing").and_then(Item::as_bool).unwrap_or(true),
            copies: match text("copies") {
                Some("required") => None,
                when => Some(when != Some("off")),
            },
        })
    }

    /// The same with so many sessions.
    pub(super) fn setting(&self, sessions: usize) -> Setting {
        let (instances, coalescing) = (self.instances, self.coalescing);
        Setting { sessions, instances, coalescing, copies: self.copies.unwrap_or(true) }
    }

    /// What may be tried, on tokens that have so many sessions for an engine.
    pub(super) fn limits(&self, args: &Args, sessions_most: Option<usize>) -> Limits {
        let usual = Limits::default();
        let instances_max = args.instances_max.map_or(1, |most| most.get().into());
        let instances = self.instances.max(instances_max);
        let own = sessions_most.map_or(usize::MAX, |most| usual_part(most / instances));
        let by_default = usual.sessions_max.max(self.sessions.unwrap_or(0)).min(own);
        let most = args.sessions_max.map_or(by_default, |most| most.get().into());
        let bounds = self.bounds.map(|(least, most_of_bounds)| {
            (least, args.sessions_max.map_or(most_of_bounds, |_| most.min(most_of_bounds)))
        });
        let (sessions_min, sessions_max) = bounds.unwrap_or((usual.sessions_min, most));
        let may = |switch| !args.keep.contains(&switch);
        Limits {
            sessions_min: sessions_min.min(sessions_max),
            sessions_max,
            instances_max,
            coalescing: self.coalescing && may(Switch::Coalescing),
            copies: self.copies == Some(true) && may(Switch::Copies),
            slo: args.slo.clone(),
            total: args.time.0,
            ..usual
        }
    }
}

/// The numbers that `sessions` lies between: "4-8" or `{ min = 4, max = 8 }`.
fn bounds(document: &DocumentMut) -> Option<(usize, usize)> {
    let sessions = document.get("sessions")?;
    if let Some((least, most)) = sessions.as_str().and_then(|text| text.split_once('-')) {
        return Some((least.trim().parse().ok()?, most.trim().parse().ok()?));
    }
    let number = |name| usize::try_from(sessions.get(name)?.as_integer()?).ok();
    Some((number("min")?, number("max")?))
}

/// What an engine that finds its sessions by itself takes of a token's: three quarters, its own two included.
const fn usual_part(sessions: usize) -> usize {
    let part = (sessions - sessions.div_ceil(4)).saturating_sub(2);
    if part == 0 { 1 } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_what_there_is_at_start_and_what_may_be_turned() {
        let of = |text: &str| Start::of(text).unwrap();
        assert_eq!(of("module = \"m\"\n"), Start::default());
        for text in
            ["sessions = \"4-8\"\n", "sessions = { min = 4, max = 8 }\n", "[sessions]\nmin = 4\nmax = 8\n"]
        {
            assert_eq!((of(text).sessions, of(text).bounds), (None, Some((4, 8))), "{text}");
        }
        assert_eq!([of("sessions = 12\n").sessions, of("sessions = \"12\"\n").sessions], [Some(12); 2]);
        let off = of("instances = 2\ncoalescing = false\ncopies = \"off\"\n");
        assert_eq!(off.setting(3), Setting { sessions: 3, instances: 2, coalescing: false, copies: false });
        assert_eq!(of("copies = \"required\"\n").copies, None);
        assert!(Start::of("sessions = \n").is_err());
    }

    #[test]
    fn the_search_stays_within_the_bounds_of_the_operator_and_shares_a_token_among_its_instances() {
        #[derive(clap::Parser)]
        struct Options {
            #[command(flatten)]
            args: Args,
        }
        let limits = |text: &str, most, options: &[&str]| {
            let line = [&["tune", "--op", "ecdsa-p256"], options].concat();
            let options = <Options as clap::Parser>::parse_from(line);
            let limits = Start::of(text).unwrap().limits(&options.args, most);
            (limits.sessions_min, limits.sessions_max)
        };
        assert_eq!(limits("sessions = \"4-8\"\n", None, &[]), (4, 8));
        assert_eq!(limits("sessions = \"4-100\"\n", None, &["--sessions-max", "70"]), (4, 70));
        assert_eq!(limits("sessions = \"4-8\"\n", None, &["--sessions-max", "2"]), (2, 2));
        assert_eq!(limits("", Some(32), &[]), (1, 22));
        assert_eq!(limits("", Some(64), &["--instances-max", "4"]), (1, 10));
        assert_eq!(limits("instances = 4\n", Some(64), &["--instances-max", "2"]), (1, 10));
    }

    #[test]
    fn a_small_device_keeps_sessions_for_other_applications() {
        assert_eq!([1, 4, 5, 16, 32].map(usual_part), [1, 1, 1, 10, 22]);
    }
}
