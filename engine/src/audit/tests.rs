//! Logs as they are written, damaged, cut off and verified.

#![expect(clippy::cast_possible_truncation, reason = "numbers of records and bytes here are small")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::checkpoint::Signer;
use super::checkpoint::tests::Ed;
use super::disk::{Disk, Files};
use super::hex::serde::Hex;
use super::journal::{Journal, Kept, append_and_wait};
use super::merkle::sha256;
use super::record::tests::one_of_each;
use super::record::{End, On, Record, Use, What};
use super::*;
use crate::clock::now;
use crate::error::{ErrorKind, Outcome, Retry};

mod crashes;
mod ends;
mod faults;
mod mutations;
mod proofs;
mod writing;

/// A bound on what should take a moment.
const LONG: Duration = Duration::from_secs(30);

fn keys() -> [AuditKey; 1] {
    [Ed(1).key()]
}

fn settings(place: &Path) -> Audit {
    // By time no checkpoint comes while a test runs.
    Audit::new(place.join("log")).name("example.com/audit").checkpoints(10_000, Duration::from_secs(3_600))
}

fn open(settings: &Audit) -> Journal {
    open_on(settings, Files)
}

fn open_on(settings: &Audit, disk: impl Disk) -> Journal {
    Journal::open_on(settings, 1_000, Some(Box::new(Ed(1))), Box::new(disk)).unwrap()
}

fn refusal(settings: &Audit) -> crate::Error {
    Journal::open(settings, 1, None).map(drop).unwrap_err()
}

fn close(journal: &Journal) {
    journal.close(now().after(LONG));
}

fn log(settings: &Audit) -> AuditLog {
    AuditLog::at(&settings.directory)
}

fn verified(settings: &Audit) -> AuditReport {
    let report = log(settings).verify(&keys(), None).unwrap();
    assert_eq!(report.fault, None);
    report
}

/// A use with this request id.
fn signed(request: &str) -> Record {
    let on = On {
        caller: Some("desk".into()),
        key: Some("card-signing".into()),
        version: Some(1),
        object: None,
        operation: "sign".into(),
        algorithm: Some("ecdsa-p256-sha256".into()),
    };
    let one =
        Use { request: Some(request.into()), input: Some(Hex(sha256(request.as_bytes()))), other: None };
    let end = End { intent: None, token: Some("pay-1".into()), outcome: Outcome::Done, error: None };
    Record { time: UNIX_EPOCH + Duration::from_secs(1_764_385_200), what: What::Use(on, one, end) }
}

/// Has these written, one after the other.
fn write_signed(journal: &Journal, requests: std::ops::Range<u32>) {
    for request in requests {
        append_and_wait(journal, signed(&request.to_string())).unwrap();
    }
}

/// Has so many written for each of some checkpoints, of which one comes after so many.
fn write_with_checkpoints(journal: &Journal, records: u32, checkpoints: u32) {
    for round in 0..checkpoints {
        let before = journal.figures().checkpoints;
        write_signed(journal, round * records..(round + 1) * records);
        eventually("a checkpoint is made", || journal.figures().checkpoints > before);
    }
}

/// The records of a log as JSON.
fn records(settings: &Audit) -> Vec<serde_json::Value> {
    let mut tail = log(settings).tail(usize::MAX).unwrap();
    std::iter::from_fn(|| tail.next_record().unwrap())
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect()
}

fn kinds(settings: &Audit) -> Vec<String> {
    records(settings).iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect()
}

fn last_checkpoint(directory: &Path) -> AuditCheckpoint {
    let size = *files::list(directory).unwrap().checkpoints.last().unwrap();
    files::read_checkpoint(directory, size).unwrap().unwrap()
}

/// Every file of a directory.
fn snapshot(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = directory.read_dir().unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

/// Waits for something that no event tells of.
fn eventually(what: &str, mut came: impl FnMut() -> bool) {
    let step = Duration::from_millis(1);
    let looks = LONG.as_millis() / step.as_millis();
    let look = |_| {
        let came = came();
        if !came {
            std::thread::park_timeout(step);
        }
        came
    };
    assert!((0..looks).any(look), "waited in vain until {what}");
}

/// Numbers that look random and are the same for a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
