//! Events as changes of the configuration, one after the other. Nothing here knows a clock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::event::{Event, What, label};

/// A change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// When, from the start.
    pub(super) at: Duration,
    /// For [`Loaded::change`](crate::Loaded::change).
    pub(super) change: String,
    /// What has happened then.
    pub(super) says: String,
}

/// Steps that are done one after the other.
#[derive(Debug)]
pub(super) struct Timeline<'a> {
    left: &'a [Step],
}

/// How the device is between two steps; what is in force is named by its event's number.
#[derive(Debug, Default)]
struct State {
    /// Which event has taken a token.
    lost: BTreeMap<usize, usize>,
    rules: BTreeMap<usize, String>,
    slower: BTreeMap<usize, String>,
    /// What stalls: a token, or all.
    stalled: BTreeMap<usize, Option<usize>>,
}

/// One end of an event. At the same moment, ends come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    End,
    Begin,
}

/// An event that cannot be, with its place in the file.
type Wrong = (Range<usize>, String);

/// All changes, in order.
pub(super) fn steps(events: &[Event], tokens: usize) -> Result<Vec<Step>, Wrong> {
    let begins = events.iter().enumerate().map(|(number, event)| (event.at, Side::Begin, number));
    let ends = events.iter().enumerate().filter_map(|(number, event)| {
        event.end()?;
        Some((event.at + event.length?, Side::End, number))
    });
    let mut moments: Vec<_> = begins.chain(ends).collect();
    moments.sort_unstable();
    let mut state = State::default();
    let mut steps = Vec::new();
    for (at, side, number) in moments {
        let event = &events[number];
        let step = match side {
            Side::Begin => {
                let change = state.begin(number, event, tokens).map_err(|why| (event.span.clone(), why))?;
                Some((change, event.to_string()))
            }
            Side::End => state.end(number, event).zip(event.end()),
        };
        steps.extend(step.map(|(change, says)| Step { at, change, says }));
    }
    Ok(steps)
}

impl State {
    /// What a beginning changes; an error if it cannot be.
    fn begin(&mut self, number: usize, event: &Event, tokens: usize) -> Result<String, String> {
        let place = event.place();
        let named = || event.token.map_or_else(|| "all tokens".to_owned(), label);
        match &event.what {
            What::Lost => {
                let meant: Vec<_> = self.meant(event, tokens, false);
                if meant.is_empty() {
                    return Err(format!("{} cannot be lost here: lost already", named()));
                }
                self.lost.extend(meant.into_iter().map(|token| (token, number)));
                Ok(self.removed())
            }
            What::Back => {
                let meant: Vec<_> = self.meant(event, tokens, true);
                if meant.is_empty() {
                    return Err(format!("{} cannot come back here: not lost", named()));
                }
                self.lost.retain(|token, _| !meant.contains(token));
                Ok(self.removed())
            }
            What::Stall => {
                self.stalled.insert(number, event.token);
                Ok(format!("stall={}{place}", event.length.map_or(0, |length| length.as_millis())))
            }
            What::Hang { calls } => {
                let limit = event.length.map_or_else(String::new, |time| format!("-{}", time.as_millis()));
                self.rules.insert(number, format!("{calls}:1=hang{limit}{place}"));
                Ok(self.rules())
            }
            What::Errors { calls, share, code } => {
                let when = share.as_deref().unwrap_or("1+");
                self.rules.insert(number, format!("{calls}:{when}={:#x}{place}", code.0));
                Ok(self.rules())
            }
            What::Slower { thousandths } => {
                let times = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
                self.slower.insert(number, format!("{times}{place}"));
                Ok(self.slower())
            }
        }
    }

    /// What an end changes; nothing if something else has ended it.
    fn end(&mut self, number: usize, event: &Event) -> Option<String> {
        match event.what {
            What::Lost => {
                let before = self.lost.len();
                self.lost.retain(|_, by| *by != number);
                (self.lost.len() < before).then(|| self.removed())
            }
            What::Stall => {
                let own = self.stalled.remove(&number);
                let goes_on = self.stalled.values().any(|&token| Some(token) == own);
                (!goes_on).then(|| format!("stall=0{}", event.place()))
            }
            What::Errors { .. } => {
                self.rules.remove(&number);
                Some(self.rules())
            }
            What::Slower { .. } => {
                self.slower.remove(&number);
                Some(self.slower())
            }
            What::Back | What::Hang { .. } => None,
        }
    }

    /// The tokens that an event is about and that are lost, or are not.
    fn meant(&self, event: &Event, tokens: usize, lost: bool) -> Vec<usize> {
        let named = |token: &usize| event.token.is_none_or(|own| own == *token);
        (0..tokens).filter(named).filter(|token| self.lost.contains_key(token) == lost).collect()
    }

    fn removed(&self) -> String {
        let labels: Vec<_> = self.lost.keys().map(|&token| label(token)).collect();
        format!("removed={}", labels.join(";"))
    }

    /// In the order of their events: of two that are equal the first goes on counting.
    fn rules(&self) -> String {
        format!("rules={}", joined(&self.rules))
    }

    fn slower(&self) -> String {
        format!("slower={}", joined(&self.slower))
    }
}

fn joined(items: &BTreeMap<usize, String>) -> String {
    items.values().map(String::as_str).collect::<Vec<_>>().join(";")
}

impl<'a> Timeline<'a> {
    pub(super) const fn new(steps: &'a [Step]) -> Self {
        Self { left: steps }
    }

    /// When the next step is due; `None` if all are done.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.left.first().map(|step| step.at)
    }

    /// The steps that are due now, of which each is given out once.
    pub(super) fn due(&mut self, now: Duration) -> &'a [Step] {
        let (due, left) = self.left.split_at(self.left.partition_point(|step| step.at <= now));
        self.left = left;
        due
    }
}
