//! What is wrong with a script, and where.

use std::fmt;
use std::ops::Range;

/// A script that is refused. It shows as `LINE:COLUMN: what`, before which the name of the file may be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    line: usize,
    column: usize,
    what: String,
}

/// Longest text in characters: it may list all codes, and repeat a word of the file.
const TEXT_MAX: usize = 1_000;

impl ScriptError {
    /// Of a part of the text, in bytes.
    pub(super) fn new(text: &str, span: Option<Range<usize>>, what: &str) -> Self {
        let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        // A terminal would obey control characters, which are in words of the file.
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let what = what.trim_end().replace('\n', ": ");
        Self { line, column, what: what.chars().take(TEXT_MAX).map(shown).collect() }
    }

    /// Line, counted from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// Column in characters, counted from 1.
    #[must_use]
    pub const fn column(&self) -> usize {
        self.column
    }

    /// What is wrong, and what would be right.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

impl std::error::Error for ScriptError {}
