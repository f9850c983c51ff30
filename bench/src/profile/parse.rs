//! A profile read from TOML: first its fields, then what they have to do with each other.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use hsmux::Priority;
use serde::Deserialize;
use toml::Spanned;

use super::error::ProfileError;
use super::operation::{Deadline, Operation, Size, Spread, Tenant};
use super::phase::{Demand, Phase};
use super::value::{Bytes, Either, Name, Power, Read, Whole};
use super::{CALLERS, Profile, ProfileApi};
use crate::arrivals::{Pace, Rate};
use crate::case::Op;
use crate::temporary::TemporaryKey;

/// Shortest phase: below it nothing is to be seen.
pub(super) const PHASE_MIN: Duration = Duration::from_millis(1);

/// Longest run: that of its temporary keys.
pub(super) const LENGTH_MAX: Duration = TemporaryKey::RUN_MAX;

/// Most phases: the results show each of them.
const PHASES_MAX: usize = 1000;

/// Most operations: the results show each of them.
const OPERATIONS_MAX: usize = 256;

/// Most sizes of a choice: more are a distribution.
const CHOICES_MAX: usize = 256;

/// Most callers that are threads: above it the load measures the scheduler of the system.
const THREADS_MAX: u32 = 4096;

/// Longest description, in bytes: a page, which the results repeat.
const DESCRIPTION_MAX: usize = 4096;

/// Most keys of an operation, and of all together: each is generated on the token before the run.
const KEYS_MAX: u64 = 4096;

/// Most tenants of an operation: each has eight bytes in a table that draws search.
const TENANTS_MAX: u64 = 100_000;

/// TOML has no numbers above.
const NUMBER_MAX: u64 = i64::MAX as u64;

type Callers = Whole<1, 65_535>;
type Weight = Whole<0, { u32::MAX as u64 }>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    name: Read<Name>,
    description: Option<Spanned<String>>,
    pace: Option<Read<Pace>>,
    api: Option<Read<ProfileApi>>,
    callers: Option<Spanned<Read<Callers>>>,
    deadline: Option<Read<Deadline>>,
    seed: Option<Read<Whole<0, NUMBER_MAX>>>,
    #[serde(default)]
    phase: Vec<Spanned<RawPhase>>,
    #[serde(default)]
    operation: Vec<Spanned<RawOperation>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPhase {
    name: Read<Name>,
    #[serde(rename = "for")]
    length: Read<Duration>,
    rate: Option<Spanned<Read<Rate>>>,
    ramp: Option<Spanned<[Read<Rate>; 2]>>,
    callers: Option<Spanned<Read<Callers>>>,
    counted: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOperation {
    op: Read<Op>,
    name: Option<Read<Name>>,
    weight: Option<Read<Weight>>,
    size: Option<Spanned<Either<Bytes, RawSize>>>,
    keys: Option<Spanned<Either<Whole<1, KEYS_MAX>, RawSpread<KEYS_MAX>>>>,
    tenant: Option<Either<Whole<0, NUMBER_MAX>, RawSpread<TENANTS_MAX>>>,
    priority: Option<Read<Priority>>,
    deadline: Option<Read<Deadline>>,
}

/// One of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSize {
    uniform: Option<[Read<Bytes>; 2]>,
    choice: Option<Vec<(Read<Bytes>, Read<Weight>)>>,
    lognormal: Option<RawLogNormal>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLogNormal {
    median: Read<Bytes>,
    sigma: Read<Power>,
    max: Read<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpread<const MAX: u64> {
    count: Read<Whole<1, MAX>>,
    zipf: Option<Read<Power>>,
}

/// What is wrong, and where in the text, in bytes.
type Wrong = (Option<Range<usize>>, String);

pub(super) fn profile(text: &str) -> Result<Profile, ProfileError> {
    let raw: RawProfile =
        toml::from_str(text).map_err(|error| ProfileError::new(text, error.span(), error.message()))?;
    let phases: Vec<_> = raw.phase.iter().map(Spanned::span).collect();
    let operations: Vec<_> = raw.operation.iter().map(Spanned::span).collect();
    let checked = raw.resolve().and_then(|profile| profile.check(&phases, &operations).map(|()| profile));
    checked.map_err(|(span, what)| ProfileError::new(text, span, &what))
}

impl RawProfile {
    fn resolve(self) -> Result<Profile, Wrong> {
        let api = self.api.map_or_else(ProfileApi::default, |api| api.0);
        let pace = self.pace.map(|pace| pace.0);
        let callers = self.callers.as_ref().map(|callers| checked_callers(callers, api)).transpose()?;
        let (description_span, description) =
            self.description.map_or((None, String::new()), |it| (Some(it.span()), it.into_inner()));
        if description.len() > DESCRIPTION_MAX {
            let what = format!("this description is longer than {DESCRIPTION_MAX} bytes: shorten it");
            return Err((description_span, what));
        }
        let phases = self.phase.into_iter().map(|phase| RawPhase::resolve(phase, pace, api));
        let operations = self.operation.into_iter().map(|operation| operation.into_inner().resolve());
        Ok(Profile {
            name: self.name.0.0,
            description,
            pace,
            api,
            callers: callers.unwrap_or(CALLERS),
            deadline: self.deadline.map_or(Deadline::Default, |deadline| deadline.0),
            seed: self.seed.map_or(1, |seed| seed.0.0),
            phases: phases.collect::<Result<_, _>>()?,
            operations: operations.collect::<Result<_, _>>()?,
        })
    }
}

impl Profile {
    /// What its parts have to do with each other.
    fn check(&self, phases: &[Range<usize>], operations: &[Range<usize>]) -> Result<(), Wrong> {
        let wrong = |span: Option<&Range<usize>>, what: &str| Err((span.cloned(), what.to_owned()));
        if self.phases.is_empty() || self.phases.len() > PHASES_MAX {
            return wrong(phases.last(), "a profile has from 1 to 1000 [[phase]]");
        }
        if self.operations.is_empty() || self.operations.len() > OPERATIONS_MAX {
            return wrong(operations.last(), "a profile has from 1 to 256 [[operation]]");
        }
        if let Some(twice) = repeated(self.phases.iter().map(|phase| &phase.name)) {
            return wrong(phases.get(twice), "a phase of this name is there already: give this one another");
        }
        if let Some(twice) = repeated(self.operations.iter().map(|operation| &operation.name)) {
            let what = "an operation of this name is there already: give this one another `name`";
            return wrong(operations.get(twice), what);
        }
        if !self.phases.iter().any(|phase| phase.counted) {
            return wrong(phases.first(), "no phase counts: leave `counted = false` out of at least one");
        }
        if self.length() > LENGTH_MAX {
            return wrong(phases.last(), "the phases take more than 12 hours together: shorten them");
        }
        if self.operations.iter().all(|operation| operation.weight == 0) {
            let what = "the weights of all operations sum to zero: give at least one another `weight`";
            return wrong(operations.first(), what);
        }
        if self.keys() > KEYS_MAX {
            return wrong(operations.last(), "the operations have more than 4096 keys together: take fewer");
        }
        Ok(())
    }
}

impl RawPhase {
    fn resolve(raw: Spanned<Self>, pace: Option<Pace>, api: ProfileApi) -> Result<Phase, Wrong> {
        let span = raw.span();
        let raw = raw.into_inner();
        let demand = match pace {
            Some(_) => raw.open().map_err(|(within, what)| (within.or(Some(span)), what))?,
            None => raw.closed(api)?,
        };
        Ok(Phase { name: raw.name.0.0, length: raw.length.0, demand, counted: raw.counted.unwrap_or(true) })
    }

    fn open(&self) -> Result<Demand, Wrong> {
        if let Some(callers) = &self.callers {
            let what = "with a `pace` phases have no callers of their own: set `callers` of the profile";
            return Err((Some(callers.span()), what.to_owned()));
        }
        match (&self.rate, &self.ramp) {
            (Some(rate), None) => Ok(Demand::Rate(rate.get_ref().0)),
            (None, Some(ramp)) => {
                let [from, to] = ramp.get_ref();
                Ok(Demand::Ramp(from.0, to.0))
            }
            (Some(_), Some(ramp)) => {
                Err((Some(ramp.span()), "a phase has a `rate` or a `ramp`: take one away".to_owned()))
            }
            (None, None) => Err((None, "with a `pace` a phase needs a `rate` or a `ramp`".to_owned())),
        }
    }

    fn closed(&self, api: ProfileApi) -> Result<Demand, Wrong> {
        let rate = self.rate.as_ref().map(Spanned::span);
        if let Some(span) = rate.or_else(|| self.ramp.as_ref().map(Spanned::span)) {
            let what = "a closed loop has no rate: give the profile `pace = \"poisson\"` or \"constant\"";
            return Err((Some(span), what.to_owned()));
        }
        self.callers.as_ref().map(|callers| checked_callers(callers, api)).transpose().map(Demand::Callers)
    }
}

impl RawOperation {
    fn resolve(self) -> Result<Operation, Wrong> {
        let op = self.op.0;
        let size_span = self.size.as_ref().map(Spanned::span);
        let size = match self.size.map(Spanned::into_inner) {
            None => Ok(Size::Fixed(op.default_size())),
            Some(Either::Value(bytes)) => Ok(Size::Fixed(bytes.0)),
            Some(Either::Table(raw)) => raw.resolve(),
        };
        let size = size.and_then(|size| size.check(op).map(|()| size)).map_err(|what| (size_span, what))?;
        let keys = match self.keys {
            Some(keys) if op.key_spec().is_none() => {
                let what = format!("{} takes no key: take `keys` away", op.as_str());
                return Err((Some(keys.span()), what));
            }
            Some(keys) => match keys.into_inner() {
                Either::Value(count) => Spread { count: count.narrow(), zipf: 0.0 },
                Either::Table(spread) => spread.resolve(),
            },
            None => Spread::ONE,
        };
        Ok(Operation {
            name: self.name.map_or_else(|| format!("{}:{size}", op.as_str()), |name| name.0.0),
            op,
            weight: self.weight.map_or(1, |weight| weight.0.narrow()),
            size,
            keys,
            tenant: match self.tenant {
                None => Tenant::One(0),
                Some(Either::Value(tenant)) => Tenant::One(tenant.0),
                Some(Either::Table(spread)) => Tenant::Many(spread.resolve()),
            },
            priority: self.priority.map_or(Priority::Normal, |priority| priority.0),
            deadline: self.deadline.map_or(Deadline::Default, |deadline| deadline.0),
        })
    }
}

impl<const MAX: u64> RawSpread<MAX> {
    fn resolve(self) -> Spread {
        Spread { count: self.count.0.narrow(), zipf: self.zipf.map_or(0.0, |zipf| zipf.0.0) }
    }
}

impl RawSize {
    fn resolve(self) -> Result<Size, String> {
        match self {
            Self { uniform: Some([min, max]), choice: None, lognormal: None } => {
                Ok(Size::Uniform(min.0.0, max.0.0))
            }
            Self { uniform: None, choice: Some(sizes), lognormal: None } => {
                if !(1..=CHOICES_MAX).contains(&sizes.len()) {
                    let what =
                        format!("a `choice` has from 1 to {CHOICES_MAX} pairs of a size and its weight");
                    return Err(what);
                }
                let sizes = sizes.into_iter().map(|(size, weight)| (size.0.0, weight.0.narrow()));
                Ok(Size::Choice(sizes.collect()))
            }
            Self { uniform: None, choice: None, lognormal: Some(raw) } => {
                Ok(Size::LogNormal { median: raw.median.0.0, sigma: raw.sigma.0.0, max: raw.max.0.0 })
            }
            _ => Err("a size that varies has exactly one of `uniform`, `choice` and `lognormal`".to_owned()),
        }
    }
}

fn checked_callers(callers: &Spanned<Read<Callers>>, api: ProfileApi) -> Result<u32, Wrong> {
    match callers.get_ref().0.narrow() {
        many if api == ProfileApi::Blocking && many > THREADS_MAX => {
            let what = format!("more than {THREADS_MAX} callers need `api = \"tasks\"`");
            Err((Some(callers.span()), what))
        }
        callers => Ok(callers),
    }
}

/// The first that was there before.
fn repeated<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<usize> {
    let mut seen = HashSet::new();
    names.position(|name| !seen.insert(name))
}
