//! Snapshots as an interval log of HdrHistogram (`.hlog`), which its plotters and log processors read.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::clock::Time;
use crate::metrics::{OperationSnapshot, Snapshot, Stage, buckets};
use crate::operation::OperationKind;

/// Writes what happened between snapshots as an interval log of HdrHistogram: one line per interval, kind of operation
/// and stage in which something succeeded.
///
/// The tag of a line is `sign-ecdsa.total` and the like, kind and stage; the tokens of the engine are merged, because
/// a tag may hold neither comma nor blank, which labels of tokens do. Values are nanoseconds, to two significant digits.
/// Timestamps are seconds since the first snapshot, whose time of day is in the header.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
/// let file = std::io::BufWriter::new(std::fs::File::create("signing.hlog")?);
/// let mut log = hsmux::IntervalLog::new(file, &engine.snapshot())?;
/// // Every second or so:
/// log.record(&engine.snapshot())?;
/// # Ok(())
/// # }
/// ```
pub struct IntervalLog<W> {
    writer: W,
    serializer: V2DeflateSerializer,
    start: Time,
    last: Time,
    /// What had happened when the last interval ended.
    seen: HashMap<(OperationKind, Stage), Histogram<u64>>,
}

impl<W: Write> IntervalLog<W> {
    /// Writes the header. The first interval begins with `start`: what happened before it is in no line.
    ///
    /// # Errors
    /// What the writer answers.
    ///
    /// # Blocking
    /// As long as the writer does; so does [`IntervalLog::record`].
    pub fn new(mut writer: W, start: &Snapshot) -> io::Result<Self> {
        let mut serializer = V2DeflateSerializer::new();
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(
                "[Written by hsmux; values and Interval_Max are nanoseconds, tags are operation.stage]",
            )
            .with_start_time(start.taken_at)
            .with_base_time(start.taken_at)
            .begin_log_with(&mut writer, &mut serializer)?;
        let columns = ["StartTimestamp", "Interval_Length", "Interval_Max", "Interval_Compressed_Histogram"];
        writeln!(writer, "\"{}\"", columns.join("\",\""))?;
        let at = start.taken;
        Ok(Self { writer, serializer, start: at, last: at, seen: merged(start)? })
    }

    /// Writes what happened since the snapshot before, and flushes the writer. A kind of operation of which none
    /// succeeded has no line.
    ///
    /// # Errors
    /// `InvalidInput` if the snapshot is older than the one before or of another engine: the interval is left out.
    /// What the writer answers: the interval is lost then, the next one begins with this snapshot.
    pub fn record(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let all = merged(snapshot)?;
        if snapshot.taken < self.last || self.seen.keys().any(|key| !all.contains_key(key)) {
            return Err(not_later());
        }
        let mut interval = Vec::new();
        for kind in OperationKind::ALL {
            for stage in Stage::ALL {
                let Some(mut times) = all.get(&(kind, stage)).cloned() else { continue };
                if let Some(seen) = self.seen.get(&(kind, stage)) {
                    times.subtract(seen).map_err(|_| not_later())?;
                }
                if !times.is_empty() {
                    interval.push((format!("{kind}.{}", stage.as_str()), times));
                }
            }
        }
        let from = std::mem::replace(&mut self.last, snapshot.taken);
        self.seen = all;
        self.write(from, &interval)
    }

    fn write(&mut self, from: Time, interval: &[(String, Histogram<u64>)]) -> io::Result<()> {
        let (offset, length) = (self.start.until(from), from.until(self.last));
        // A builder without headers writes nothing by itself: the writer that it makes borrows ours for a moment.
        let mut log =
            IntervalLogWriterBuilder::new().begin_log_with(&mut self.writer, &mut self.serializer)?;
        for (tag, times) in interval {
            log.write_histogram(times, offset, length, Tag::new(tag))
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        self.writer.flush()
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

impl<W> std::fmt::Debug for IntervalLog<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length: Duration = self.start.until(self.last);
        f.debug_struct("IntervalLog").field("length", &length).finish_non_exhaustive()
    }
}

/// Times by kind and stage, of all tokens together.
fn merged(snapshot: &Snapshot) -> io::Result<HashMap<(OperationKind, Stage), Histogram<u64>>> {
    let mut all = HashMap::new();
    for operation in snapshot.tokens.iter().flat_map(|token| &token.operations) {
        for stage in Stage::ALL {
            let sum: &mut Histogram<u64> = all.entry((operation.kind, stage)).or_insert_with(buckets::empty);
            add(sum, operation, stage)?;
        }
    }
    Ok(all)
}

/// They have the same bounds: this fails for no histogram of ours.
fn add(sum: &mut Histogram<u64>, operation: &OperationSnapshot, stage: Stage) -> io::Result<()> {
    sum.add(operation.stage(stage)).map_err(|error| io::Error::other(error.to_string()))
}

fn not_later() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the snapshot is not later than the one before")
}
