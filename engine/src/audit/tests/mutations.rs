//! Ten thousand logs that were tampered with: each is found out, at the first bad place.

use std::ops::Range;

use super::super::line;
use super::super::walk::Sum;
use super::*;

const MUTATIONS: usize = 10_000;

/// Where a fault must be found: a file, a record, or both.
#[derive(Debug, Default)]
struct Expected {
    file: Option<String>,
    sequence: Option<u64>,
}

/// A log in memory.
struct Log {
    files: BTreeMap<String, Vec<u8>>,
    /// Of each record: its segment, and its bytes there with the line feed.
    lines: Vec<(String, Range<usize>)>,
    checkpoints: Vec<u64>,
    since: AuditCheckpoint,
    /// A checkpoint of another log, by the same key, for each of this one's.
    others: BTreeMap<u64, Vec<u8>>,
}

impl Log {
    /// Of two writers, the first of which was cut off in a write.
    fn written(place: &Path) -> (Audit, Self) {
        let settings = settings(place).segment_len(3_000).checkpoints(6, LONG);
        let journal = open(&settings);
        write_with_checkpoints(&journal, 6, 4);
        close(&journal);
        let last = files::segment(*files::list(&settings.directory).unwrap().segments.last().unwrap());
        let torn =
            [&std::fs::read(settings.directory.join(&last)).unwrap()[..], b"{\"v\":1,\"seq\":3"].concat();
        std::fs::write(settings.directory.join(&last), torn).unwrap();
        let journal = open(&settings);
        one_of_each().into_iter().filter(|record| record.what.kind() != "start").for_each(|record| {
            // A record of a checkpoint that was never made is a contradiction of its own.
            if record.what.kind() != "checkpoint" {
                append_and_wait(&journal, record).unwrap();
            }
        });
        write_with_checkpoints(&journal, 6, 3);
        close(&journal);
        let log = Self::read(&settings);
        (settings, log)
    }

    fn read(settings: &Audit) -> Self {
        let mut files = snapshot(&settings.directory);
        files.remove("lock");
        let mut lines = Vec::new();
        for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".jsonl")) {
            let mut start = 0;
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                lines.push((name.clone(), start..start + line.len()));
                start += line.len();
            }
        }
        let checkpoints = files::list(&settings.directory).unwrap().checkpoints;
        let other = |size: &u64| {
            let checkpoint = AuditCheckpoint::sign("example.com/audit/00", *size, sha256(b"other"), &Ed(1));
            (*size, checkpoint.unwrap().as_str().as_bytes().to_vec())
        };
        let others = checkpoints.iter().map(other).collect();
        Self { files, lines, checkpoints, since: last_checkpoint(&settings.directory), others }
    }

    fn line(&self, index: usize) -> Vec<u8> {
        let (name, range) = &self.lines[index];
        self.files[name][range.clone()].to_vec()
    }

    /// The segment of a record with something in the place of its line.
    fn replaced(&self, index: usize, line: &[u8]) -> (String, Vec<u8>) {
        let (name, range) = &self.lines[index];
        let mut bytes = self.files[name].clone();
        bytes.splice(range.clone(), line.iter().copied());
        (name.clone(), bytes)
    }

    /// The record in which a byte of a segment lies.
    fn record_at(&self, name: &str, byte: usize) -> u64 {
        self.lines.iter().position(|(of, range)| of == name && range.contains(&byte)).unwrap() as u64
    }

    /// The first record that names this text.
    fn naming(&self, text: &str) -> Option<u64> {
        (0..self.lines.len())
            .find(|index| String::from_utf8_lossy(&self.line(*index)).contains(text))
            .map(|at| at as u64)
    }
}

/// A mutation: what it does, the files that it changes (to nothing: takes away), and where it must be found.
type Mutation = (String, Vec<(String, Option<Vec<u8>>)>, Expected);

fn at_record(sequence: u64) -> Expected {
    Expected { file: None, sequence: Some(sequence) }
}

fn at_file(name: &str) -> Expected {
    Expected { file: Some(name.to_owned()), sequence: None }
}

/// Any bit of any byte of any file.
fn flipped(log: &Log, dice: &mut Dice) -> Mutation {
    // By bytes, so that segments have their share; every eighth one in one of the small files.
    let is_small = dice.below(8) == 0;
    let of_kind: Vec<_> = log.files.iter().filter(|(name, _)| name.ends_with(".jsonl") != is_small).collect();
    let total = of_kind.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut at = dice.below(total);
    let (name, bytes) = of_kind
        .into_iter()
        .find(|(_, bytes)| {
            at < bytes.len() || {
                at -= bytes.len();
                false
            }
        })
        .unwrap();
    let mut other = bytes.clone();
    let bit = dice.below(8);
    other[at] ^= 1 << bit;
    let expected = if name.ends_with(".jsonl") {
        Expected { file: Some(name.clone()), sequence: Some(log.record_at(name, at)) }
    } else if name.starts_with("torn-") {
        at_record(log.naming(name).unwrap())
    } else {
        at_file(name)
    };
    (format!("bit {bit} of byte {at} of {name}"), vec![(name.clone(), Some(other))], expected)
}

/// A record is taken out, doubled, or two are swapped.
fn shuffled(log: &Log, dice: &mut Dice) -> Mutation {
    let index = dice.below(log.lines.len());
    let line = log.line(index);
    let one = |(name, bytes)| vec![(name, Some(bytes))];
    match dice.below(3) {
        0 => (format!("without record {index}"), one(log.replaced(index, b"")), at_record(index as u64)),
        1 => {
            let twice = [&line[..], &line].concat();
            (format!("record {index} twice"), one(log.replaced(index, &twice)), at_record(index as u64 + 1))
        }
        _ => {
            let other = (index + 1 + dice.below(log.lines.len() - 1)) % log.lines.len();
            let (first, second) = (index.min(other), index.max(other));
            // The later one first, so that the place of the earlier stays.
            let mut files = log.files.clone();
            for (at, line) in [(second, log.line(first)), (first, log.line(second))] {
                let (name, range) = &log.lines[at];
                files.get_mut(name).unwrap().splice(range.clone(), line);
            }
            let changed = [first, second].map(|at| log.lines[at].0.clone());
            let changed = changed.map(|name| (name.clone(), Some(files[&name].clone()))).into();
            (format!("records {first} and {second} swapped"), changed, at_record(first as u64))
        }
    }
}

/// A segment ends at or in a line, or has gone.
fn cut(log: &Log, dice: &mut Dice) -> Mutation {
    let index = dice.below(log.lines.len());
    let (name, range) = &log.lines[index];
    match dice.below(5) {
        0 => {
            let first = log.lines.iter().position(|(of, _)| of == name).unwrap();
            (format!("without {name}"), vec![(name.clone(), None)], at_record(first as u64))
        }
        1 => {
            let text = format!("cut off at record {index}");
            (
                text,
                vec![(name.clone(), Some(log.files[name][..range.start].to_vec()))],
                at_record(index as u64),
            )
        }
        2 => {
            // All that follows too, other segments included.
            let mut changed = vec![(name.clone(), Some(log.files[name][..range.start].to_vec()))];
            changed.extend(
                log.files
                    .keys()
                    .filter(|of| of.ends_with(".jsonl") && *of > name)
                    .map(|of| (of.clone(), None)),
            );
            (format!("nothing from record {index} on"), changed, at_record(index as u64))
        }
        _ => {
            let at = range.start + 1 + dice.below(range.len() - 1);
            let text = format!("cut off in record {index}");
            (text, vec![(name.clone(), Some(log.files[name][..at].to_vec()))], at_record(index as u64))
        }
    }
}

/// A checkpoint has gone, or is that of another log.
fn checkpoint(log: &Log, dice: &mut Dice) -> Mutation {
    let size = log.checkpoints[dice.below(log.checkpoints.len())];
    let name = files::checkpoint(size);
    if dice.below(2) == 0 {
        let text = format!("{name} of another log");
        return (text, vec![(name.clone(), Some(log.others[&size].clone()))], at_file(&name));
    }
    // It is missed by the record of it, or by whoever remembers it.
    let named = log.naming(&format!("\"size\":{size},"));
    let expected = named.map_or_else(|| at_file(&name), at_record);
    (format!("without {name}"), vec![(name, None)], expected)
}

/// A record is changed, and all that follows is sealed anew, as somebody can who has no key.
fn resealed(log: &Log, dice: &mut Dice) -> Mutation {
    let index = 1 + dice.below(log.lines.len() - 1);
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut sum = Sum::default();
    for (at, (name, _)) in log.lines.iter().enumerate() {
        let line = log.line(at);
        let mut record = line::record(line.strip_suffix(b"\n").unwrap()).unwrap();
        if at == index {
            // Its year.
            let year = record.windows(5).position(|window| window == b"e\":\"2").unwrap() + 5;
            record[year] = b'1';
        }
        let out = files.entry(name.clone()).or_default();
        sum.add(line::seal_text(&record, &sum.chain, out));
        out.push(b'\n');
    }
    let last_good = log.checkpoints.iter().rfind(|size| **size <= index as u64);
    let expected = at_record(last_good.copied().unwrap_or(0));
    (
        format!("record {index} changed, all after it sealed anew"),
        files.into_iter().map(|(name, bytes)| (name, Some(bytes))).collect(),
        expected,
    )
}

fn mutation(log: &Log, dice: &mut Dice) -> Mutation {
    match dice.below(20) {
        0..11 => flipped(log, dice),
        11..14 => shuffled(log, dice),
        14..17 => cut(log, dice),
        17..19 => checkpoint(log, dice),
        _ => resealed(log, dice),
    }
}

#[test]
fn ten_thousand_logs_that_were_tampered_with_are_found_out_at_the_first_bad_place() {
    let place = tempfile::tempdir().unwrap();
    let (settings, log) = Log::written(place.path());
    let verify = || super::log(&settings).verify(&keys(), Some(&log.since)).unwrap();
    assert_eq!(verify().fault, None, "as it was written");
    let (sizes, lines) = (log.checkpoints.len(), log.lines.len());
    assert!(
        sizes > 5 && lines > 50 && log.files.keys().any(|name| name.starts_with("torn-")),
        "{sizes} {lines}"
    );
    let put = |name: &str, bytes: Option<&[u8]>| match bytes {
        Some(bytes) => std::fs::write(settings.directory.join(name), bytes).unwrap(),
        None => std::fs::remove_file(settings.directory.join(name)).unwrap(),
    };
    let mut dice = Dice(0x5eed);
    for number in 0..MUTATIONS {
        let (what, changed, expected) = mutation(&log, &mut dice);
        changed.iter().for_each(|(name, bytes)| put(name, bytes.as_deref()));
        let fault = verify().fault.unwrap_or_else(|| panic!("mutation {number} was not found: {what}"));
        let is_file = expected.file.as_ref().is_none_or(|file| *file == fault.file);
        let is_record = expected.sequence.is_none_or(|sequence| Some(sequence) == fault.sequence);
        assert!(is_file && is_record, "mutation {number}: {what}: {expected:?}, but {fault:?}");
        changed.iter().for_each(|(name, _)| put(name, Some(&log.files[name])));
    }
    assert_eq!(verify().fault, None, "as it was written, again");
}

#[test]
fn a_log_that_was_cut_off_with_its_checkpoints_is_found_out_by_one_that_is_remembered() {
    let place = tempfile::tempdir().unwrap();
    let (settings, log) = Log::written(place.path());
    let (_, least) = (log.checkpoints[0], log.checkpoints[1] as usize);
    for (name, range) in log.lines.iter().skip(least).rev() {
        let path = settings.directory.join(name);
        std::fs::write(&path, &log.files[name][..range.start]).unwrap();
    }
    for size in log.checkpoints.iter().skip(2) {
        std::fs::remove_file(settings.directory.join(files::checkpoint(*size))).unwrap();
    }
    std::fs::remove_file(settings.directory.join(files::RESUME)).unwrap();
    let names: std::collections::BTreeSet<_> = log.lines[..least].iter().map(|(name, _)| name).collect();
    for (name, _) in log.files.iter().filter(|(name, _)| name.ends_with(".jsonl") && !names.contains(name)) {
        std::fs::remove_file(settings.directory.join(name)).unwrap();
    }
    assert_eq!(verified(&settings).records, least as u64, "nothing is left that tells");
    let fault = super::log(&settings).verify(&keys(), Some(&log.since)).unwrap().fault.unwrap();
    assert_eq!(fault.sequence, Some(least as u64), "{fault:?}");
}

#[test]
fn a_remembered_checkpoint_of_another_log_or_key_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let (settings, log) = Log::written(place.path());
    let other = AuditCheckpoint::parse(&log.others[&log.checkpoints[0]]).unwrap();
    let fault = super::log(&settings).verify(&keys(), Some(&other)).unwrap().fault.unwrap();
    assert!(fault.sequence == Some(0) && fault.why.contains("the remembered checkpoint is of"), "{fault:?}");
    let error = super::log(&settings).verify(&[Ed(2).key()], Some(&log.since)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let fault = super::log(&settings).verify(&[Ed(2).key()], None).unwrap().fault.unwrap();
    assert_eq!(fault.file, files::checkpoint(log.checkpoints[0]));
    // A key that was replaced stays good for what it has signed.
    let both = [Ed(2).key(), Ed(1).key()];
    assert_eq!(super::log(&settings).verify(&both, None).unwrap().fault, None);
}
