//! Operations of a mix: sizes, keys, tenants.

use std::fmt;
use std::time::Duration;

use hsmux::Priority;

use crate::case::{Case, Op};

/// An entry of a profile's mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its name in the results.
    pub name: String,
    /// What is done.
    pub op: Op,
    /// How often, against the sum of all weights.
    pub weight: u32,
    /// Bytes of its messages.
    pub size: Size,
    /// Its keys: as many to itself, of the kind that [`Op::key_spec`] says. One that nobody asks for, where the operation
    /// takes none.
    pub keys: Spread,
    /// On whose behalf.
    pub tenant: Tenant,
    /// Weight against others that wait for the same sessions.
    pub priority: Priority,
    /// Of each request; the default is the profile's. [`Profile::deadline_of`](super::Profile::deadline_of) has both.
    pub deadline: Deadline,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadline {
    /// As it is where nothing is said: an operation's is the profile's, a profile's is the engine's.
    #[default]
    Default,
    /// However long it takes.
    None,
    /// So long from when it is made.
    In(Duration),
}

/// Bytes of messages. Where an operation takes whole blocks, draws are rounded up to them.
#[derive(Clone, Debug, PartialEq)]
pub enum Size {
    /// Always so many.
    Fixed(usize),
    /// From so many to so many, each as often as the others.
    Uniform(usize, usize),
    /// Sizes with their weights, which do not sum to zero.
    Choice(Vec<(usize, u32)>),
    /// A logarithm with a normal distribution.
    LogNormal {
        /// Half are below.
        median: usize,
        /// Deviation of the natural logarithm.
        sigma: f64,
        /// What would be above is this.
        max: usize,
    },
}

/// How requests spread over several keys or tenants: the n-th is asked for as often as 1 / n to a power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// How many there are: at least 1.
    pub count: u32,
    /// The power: 0 for all alike.
    pub zipf: f64,
}

/// On whose behalf requests are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tenant {
    /// This one; 0 is nobody.
    One(u64),
    /// Tenants 1 to so many.
    Many(Spread),
}

impl Operation {
    /// An entry with this operation and size, and all else as it is where nothing is said.
    #[must_use]
    pub fn of(case: Case) -> Self {
        Self {
            name: case.to_string(),
            op: case.op,
            weight: 1,
            size: Size::Fixed(case.size),
            keys: Spread::ONE,
            tenant: Tenant::One(0),
            priority: Priority::Normal,
            deadline: Deadline::Default,
        }
    }
}

impl Size {
    /// Refuses sizes that an operation does not take.
    pub(super) fn check(&self, op: Op) -> Result<(), String> {
        match self {
            Self::Fixed(size) => op.check_size(*size),
            Self::Uniform(min, max) if min > max => {
                Err("the first size of `uniform` is the smaller".to_owned())
            }
            Self::Uniform(min, max) => op.check_size(*min).and_then(|()| op.check_size(*max)),
            Self::Choice(sizes) if sizes.iter().all(|&(_, weight)| weight == 0) => {
                Err("the weights of `choice` sum to zero: give at least one size another".to_owned())
            }
            Self::Choice(sizes) => sizes.iter().try_for_each(|&(size, _)| op.check_size(size)),
            Self::LogNormal { median, max, .. } if !(1..=*max).contains(median) => {
                Err("`median` is from 1 to `max`".to_owned())
            }
            Self::LogNormal { max, .. } => op.check_size(*max),
        }
    }
}

impl Spread {
    /// One, which is always asked.
    pub const ONE: Self = Self { count: 1, zipf: 0.0 };
}

/// As names of operations have it: `64`, `16-256`, `64|1024`, `~1024`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Uniform(min, max) => write!(f, "{min}-{max}"),
            Self::Choice(sizes) => match &sizes[..] {
                [(one, _)] => write!(f, "{one}"),
                [(one, _), (other, _)] => write!(f, "{one}|{other}"),
                [(one, _), .., (last, _)] => write!(f, "{one}|..|{last}"),
                [] => Ok(()),
            },
            Self::LogNormal { median, .. } => write!(f, "~{median}"),
        }
    }
}
