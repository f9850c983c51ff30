//! A load on a log, without an engine: for benches, and for what needs a log to read.

use std::time::Duration;

use hdrhistogram::Histogram;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::checkpoint::Signer;
use super::hex::serde::Hex;
use super::journal::{Journal, append_and_wait};
use super::key::AuditKey;
use super::merkle::sha256;
use super::record::{End, On, Record, Text, Use, What};
use super::settings::Audit;
use crate::clock::{Time, now, time_of_day};
use crate::error::{Error, Outcome, Result};

/// Writes records to an audit log; its checkpoints are signed in software.
#[derive(Debug)]
pub struct AuditTrial {
    settings: Audit,
}

/// What came out of an [`AuditTrial`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditTrialFigures {
    /// Records that were answered for.
    pub records: u64,
    /// How long all of it took.
    pub time: Duration,
    /// How long an appender waited for the answer, in nanoseconds.
    pub wait_ns: Histogram<u64>,
    /// How long the disk took to synchronise, in nanoseconds.
    pub sync_ns: Histogram<u64>,
    /// Checkpoints that were made.
    pub checkpoints: u64,
}

/// Records that may be queued: more than there are appenders in any trial.
const ROOM: usize = 4096;

/// How long a log may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

impl AuditTrial {
    /// On a log of these settings.
    #[must_use]
    pub const fn new(settings: Audit) -> Self {
        Self { settings }
    }

    /// The public key of the checkpoints, as a `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    /// None that can come about.
    pub fn public_key_der() -> Result<Vec<u8>> {
        // RFC 8410, 4: this, and then the 32 bytes of the key.
        let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        Ok([&head, Software::new()?.0.public_key().as_ref()].concat())
    }

    /// Has so many threads append so many records each, one after the other, and closes the log.
    ///
    /// # Errors
    /// Those of opening the log, and of the first record that was not written.
    ///
    /// # Blocking
    /// Until all is written.
    pub fn run(&self, appenders: usize, records_each: u64) -> Result<AuditTrialFigures> {
        let journal = Journal::open(&self.settings, ROOM, Some(Box::new(Software::new()?)))?;
        let begun = now();
        let waits: Result<Vec<Histogram<u64>>> = std::thread::scope(|scope| {
            let journal = &journal;
            let threads: Vec<_> = (0..appenders)
                .map(|number| scope.spawn(move || append(journal, number, records_each)))
                .collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended
                .map(|ended| ended.unwrap_or_else(|_| Err(Error::internal("an appender panicked"))))
                .collect()
        });
        let time = begun.until(now());

        journal.close(now().after(CLOSE_LIMIT));
        let figures = journal.figures();
        let mut wait_ns = figures.sync_ns.clone();
        wait_ns.clear();
        for waits in waits? {
            wait_ns.add(waits).map_err(|_| Error::internal("histograms of the same digits do not add up"))?;
        }
        let (sync_ns, checkpoints) = (figures.sync_ns, figures.checkpoints);
        Ok(AuditTrialFigures { records: wait_ns.len(), time, wait_ns, sync_ns, checkpoints })
    }
}

/// Appends records, each after the one before was answered for.
fn append(journal: &Journal, number: usize, records: u64) -> Result<Histogram<u64>> {
    let mut waits = journal.figures().sync_ns;
    waits.clear();
    let key = Text::from("card-signing");
    let token = Text::from("pay-1");
    let caller = Text::from(format!("appender-{number}"));
    for record in 0..records {
        let on = On {
            caller: Some(caller.clone()),
            key: Some(key.clone()),
            version: Some(1),
            object: None,
            operation: "sign".into(),
            algorithm: Some("ecdsa-p256-sha256".into()),
        };
        let input = Some(Hex(sha256(&record.to_be_bytes())));
        let one = Use { request: Some(format!("{number}-{record}").into()), input, other: None };
        let end = End { intent: None, token: Some(token.clone()), outcome: Outcome::Done, error: None };
        let begun = now();
        append_and_wait(journal, Record { time: time_of_day(), what: What::Use(on, one, end) })?;
        // It grows as it must, so every value fits.
        let _recorded = waits.record(Time::ns_since(now(), begun));
    }
    Ok(waits)
}

/// A key in software.
struct Software(Ed25519KeyPair);

impl Software {
    fn new() -> Result<Self> {
        // Anybody may know it: it signs trials.
        let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]);
        pair.map(Self).map_err(|_| Error::internal("a seed of 32 bytes is no key"))
    }
}

impl Signer for Software {
    fn key(&self) -> AuditKey {
        let mut public = [0; 32];
        // RFC 8032, 5.1.5: a public key has 32 bytes.
        public.copy_from_slice(self.0.public_key().as_ref());
        AuditKey::ed25519(None, &public)
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
        Ok(self.0.sign(text).as_ref().to_vec())
    }
}
