//! How far a run is, on a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tally::Tally;

/// A line on standard error that is drawn anew; nothing if that is no terminal or nobody wants it. Without colours,
/// so `NO_COLOR` asks nothing of it.
#[derive(Debug)]
pub(super) struct Progress(Option<ProgressBar>);

/// Times a second that the line is drawn at most: enough to see it move.
const DRAWN_PER_S: u8 = 5;

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(DRAWN_PER_S));
        // Without a style of ours the bar has its own.
        if let Ok(style) = ProgressStyle::with_template("{pos} records, {per_sec}, {elapsed}{msg}") {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    pub(super) fn show(&self, tally: &Tally) {
        let Some(bar) = &self.0 else { return };
        if tally.failures() > 0 {
            bar.set_message(format!(", {} failed", tally.failures()));
        }
        bar.set_position(tally.records());
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}
