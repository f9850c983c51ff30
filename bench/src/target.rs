//! An engine under load: how its requests are made, and what it counted meanwhile.

use std::sync::Arc;

use hdrhistogram::Histogram;
use hsmux::{Engine, Error, OperationKind, Snapshot, Stage};

use crate::ask::{Ask, Asks};
use crate::case::Case;
use crate::cell::{Cell, Window, add, histogram};
use crate::drive::{Load, drive};
use crate::inputs::Inputs;

/// An engine and a key, ready for a case.
#[derive(Debug)]
pub struct Target {
    engine: Arc<Engine>,
    inputs: Inputs,
    asks: Asks,
}

/// A cell, and what the engine says of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The cell.
    pub cell: Cell,
    /// Times by stage in the order of [`Stage::ALL`], in nanoseconds, warm-up included.
    pub stages: [Histogram<u64>; Stage::ALL.len()],
    /// PKCS#11 calls, warm-up included.
    pub calls: u64,
}

impl Target {
    /// Makes a target of an engine, and tries the case once.
    ///
    /// # Errors
    /// That of the one operation; `KeyNotFound` if the engine has no such key, which random bytes do not need.
    ///
    /// # Blocking
    /// As long as one operation takes.
    pub fn new(engine: &Arc<Engine>, case: Case, key: Option<&str>) -> Result<Self, Error> {
        let (asks, inputs) = Asks::new(engine, case, key)?;
        let target = Self { engine: Arc::clone(engine), inputs, asks };
        target.once()?;
        Ok(target)
    }

    /// What is done.
    #[must_use]
    pub const fn case(&self) -> Case {
        self.inputs.case()
    }

    /// What the operations are given, for the other side of a comparison.
    #[must_use]
    pub const fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Sessions that work or idle, of all tokens.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.engine.snapshot().tokens.iter().map(|token| token.sessions).sum()
    }

    /// Runs a cell: callers in a closed loop until the window closes.
    ///
    /// # Blocking
    /// Until the window has closed and every caller has its last answer.
    #[must_use]
    pub fn run(&self, load: Load, window: Window) -> Measured {
        let before = self.engine.snapshot();
        let cell = match &self.asks {
            Asks::Sign(ask) => drive(ask, &self.inputs, load, window),
            Asks::Encrypt(ask) => drive(ask, &self.inputs, load, window),
            Asks::Decrypt(ask) => drive(ask, &self.inputs, load, window),
            Asks::Random(ask) => drive(ask, &self.inputs, load, window),
        };
        let after = self.engine.snapshot();
        let calls = calls(&after) - calls(&before);
        Measured { cell, stages: Stage::ALL.map(|stage| self.between(&before, &after, stage)), calls }
    }

    /// Runs one operation; returns its input and its output.
    ///
    /// # Errors
    /// That of the operation.
    ///
    /// # Blocking
    /// As long as the operation takes.
    pub fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let (mut message, mut out) = (self.inputs.message(0), vec![0; self.case().output_len()]);
        let input = message.advance().to_vec();
        let len = self.ask(&input, &mut out)?;
        out.truncate(len);
        Ok((input, out))
    }

    /// Runs one operation on a message, into memory that is there; returns the output's length.
    pub(crate) fn ask(&self, message: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        match &self.asks {
            Asks::Sign(ask) => ask.one(message).wait_into(out),
            Asks::Encrypt(ask) => ask.one(message).wait_into(out),
            Asks::Decrypt(ask) => ask.one(message).wait_into(out),
            Asks::Random(ask) => ask.one(message).wait_into(out),
        }
    }

    /// What a stage gained between two snapshots.
    fn between(&self, before: &Snapshot, after: &Snapshot, stage: Stage) -> Histogram<u64> {
        let kind = self.case().op.kind();
        since(&sum_of(after, kind, stage), &sum_of(before, kind, stage))
    }
}

/// What came since an earlier reading.
pub(crate) fn since(all: &Histogram<u64>, earlier: &Histogram<u64>) -> Histogram<u64> {
    let mut gained = all.clone();
    // Counts only grow; should they not, all since the start is the honest answer left.
    let _ = gained.subtract(earlier);
    gained
}

/// The times of a stage of one kind of operation, of all tokens.
pub(crate) fn sum_of(snapshot: &Snapshot, kind: OperationKind, stage: Stage) -> Histogram<u64> {
    let mut sum = histogram();
    let operations = snapshot.tokens.iter().flat_map(|token| &token.operations);
    for operation in operations.filter(|operation| operation.kind == kind) {
        add(&mut sum, operation.stage(stage));
    }
    sum
}

impl Measured {
    /// Nothing yet.
    #[must_use]
    pub fn empty() -> Self {
        Self { cell: Cell::empty(), stages: [histogram(), histogram(), histogram()], calls: 0 }
    }

    /// Adds another measurement of the same target.
    pub fn add(&mut self, other: &Self) {
        self.cell.add(&other.cell);
        self.stages.iter_mut().zip(&other.stages).for_each(|(sum, stage)| add(sum, stage));
        self.calls += other.calls;
    }
}

fn calls(snapshot: &Snapshot) -> u64 {
    snapshot.calls.values().sum()
}
