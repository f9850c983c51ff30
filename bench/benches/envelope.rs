//! The envelope cipher beside bare AES-256-GCM of `ring`: 1 MiB messages, chunk sizes from 1 KiB to 1 MiB, other lengths.
//!
//! ```text
//! cargo bench -p hsmux-bench --bench envelope
//! ```
//!
//! Contenders take turns, each for a moment, in rounds; each figure is the median over the rounds, of rates and of ratios
//! within a round. `HSMUX_BENCH_ROUNDS` (15) says how many. One thread, one data key, no module. Time is what the thread has
//! had of a processor, the system's making of pages included: nothing here waits, so what neighbours take is not counted.

#![expect(clippy::print_stdout, reason = "it prints its table")]
#![expect(clippy::expect_used, reason = "a failure here ends the bench")]

use std::hint::black_box;
use std::time::Duration;

use hsmux::{
    ChunkSize, DataKey, DataKeyProvider, EncryptionContext, Envelope, EnvelopeSettings, GeneratedDataKey,
};
use hsmux_bench::{median, median_interval};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};

/// How long a contender runs in a round.
const MOMENT: Duration = Duration::from_millis(60);

const MIB: usize = 1 << 20;

/// Always the same data key; what the token would take is not in the figures.
struct Local;

impl DataKeyProvider for Local {
    fn generate(&self, _context: &EncryptionContext) -> hsmux::Result<GeneratedDataKey> {
        Ok(GeneratedDataKey { key: DataKey::take(&mut [7; 32])?, wrapped: vec![1; 90] })
    }

    fn unwrap(&self, _wrapped: &[u8], _context: &EncryptionContext) -> hsmux::Result<DataKey> {
        DataKey::take(&mut [7; 32])
    }
}

/// `ring` alone, with nonces that count.
struct Bare {
    key: LessSafeKey,
    number: u64,
}

impl Bare {
    fn new() -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes");
        Self { key: LessSafeKey::new(key), number: 0 }
    }

    fn nonce(&mut self) -> Nonce {
        self.number += 1;
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.number.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal_in_place(&mut self, buffer: &mut [u8]) {
        let nonce = self.nonce();
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), buffer).expect("it seals");
        let _ = black_box(tag);
    }

    fn seal_into(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let nonce = self.nonce();
        out.clear();
        out.extend_from_slice(text);
        self.key.seal_in_place_append_tag(nonce, Aad::empty(), out).expect("it seals");
    }

    fn open_into(&self, sealed: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(sealed);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        black_box(self.key.open_in_place(nonce, Aad::empty(), out).expect("it opens"));
    }

    fn sealed(&self, text: &[u8]) -> Vec<u8> {
        let mut out = text.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut out).expect("it seals");
        out
    }
}

type Contender<'a> = (String, Box<dyn FnMut() + 'a>);

fn main() {
    let rounds = std::env::var("HSMUX_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(15);
    let text = vec![0xA5; MIB];
    messages(rounds, &text);
    chunks(rounds, &text);
    for len in [64, 1 << 10, 4 << 10, 64 << 10] {
        lengths(rounds, &text[..len]);
    }
}

/// 1 MiB: the first contender is the one that the promise names.
fn messages(rounds: usize, text: &[u8]) {
    let (envelope, context) = (Envelope::new(Local), EncryptionContext::empty());
    let (mut bare, mut again, opener) = (Bare::new(), Bare::new(), Bare::new());
    let (mut buffer, mut out, mut sealed_out, mut opened) = (text.to_vec(), vec![], vec![], vec![]);
    let (mut in_place, mut opened_out) = (text.to_vec(), vec![]);
    let (sealed, message) = (opener.sealed(text), envelope.seal(text, &context).expect("it seals"));
    compare(
        "1 MiB",
        rounds,
        text.len(),
        &mut [
            ("ring, in place".into(), Box::new(|| bare.seal_in_place(&mut buffer))),
            ("ring, to a buffer that is kept".into(), Box::new(|| again.seal_into(text, &mut out))),
            (
                "Envelope::seal_in_place".into(),
                Box::new(|| {
                    in_place.truncate(text.len());
                    envelope.seal_in_place(&mut in_place, &context).expect("it seals");
                }),
            ),
            (
                "Envelope::seal_into, a buffer that is kept".into(),
                Box::new(|| {
                    sealed_out.clear();
                    envelope.seal_into(text, &context, &mut sealed_out).expect("it seals");
                }),
            ),
            (
                "Envelope::seal, new memory".into(),
                Box::new(|| {
                    black_box(envelope.seal(text, &context).expect("it seals"));
                }),
            ),
            (
                "ring opens, to a buffer that is kept".into(),
                Box::new(|| opener.open_into(&sealed, &mut opened)),
            ),
            (
                "Envelope::open_into, a buffer that is kept".into(),
                Box::new(|| {
                    opened_out.clear();
                    envelope.open_into(&message, &context, &mut opened_out).expect("it opens");
                }),
            ),
            (
                "Envelope::open, new memory, wiped".into(),
                Box::new(|| {
                    black_box(envelope.open(&message, &context).expect("it opens"));
                }),
            ),
        ],
    );
}

fn chunks(rounds: usize, text: &[u8]) {
    let (mut bare, mut buffer) = (Bare::new(), text.to_vec());
    let mut contenders: Vec<Contender<'_>> =
        vec![("ring, in place".into(), Box::new(|| bare.seal_in_place(&mut buffer)))];
    for exponent in 10..=20 {
        let size = ChunkSize::new(1 << exponent).expect("a size of chunks");
        let envelope = Envelope::with(Local, EnvelopeSettings::default().chunk_size(size));
        let (context, mut out) = (EncryptionContext::empty(), vec![]);
        let seal = move || {
            out.clear();
            envelope.seal_into(text, &context, &mut out).expect("it seals");
        };
        contenders
            .push((format!("Envelope::seal_into, chunks of {} KiB", size.bytes() >> 10), Box::new(seal)));
    }
    compare("1 MiB by chunk size", rounds, text.len(), &mut contenders);
}

fn lengths(rounds: usize, text: &[u8]) {
    let (envelope, context) = (Envelope::new(Local), EncryptionContext::empty());
    let (mut bare, mut buffer, mut out) = (Bare::new(), text.to_vec(), vec![]);
    let message = envelope.seal(text, &context).expect("it seals");
    compare(
        &format!("{} bytes", text.len()),
        rounds,
        text.len(),
        &mut [
            ("ring, in place".into(), Box::new(|| bare.seal_in_place(&mut buffer))),
            (
                "Envelope::seal_into, a buffer that is kept".into(),
                Box::new(|| {
                    out.clear();
                    envelope.seal_into(text, &context, &mut out).expect("it seals");
                }),
            ),
            (
                "Envelope::open, new memory, wiped".into(),
                Box::new(|| {
                    black_box(envelope.open(&message, &context).expect("it opens"));
                }),
            ),
        ],
    );
}

/// Runs all in turn and prints what came out, each beside the first.
fn compare(what: &str, rounds: usize, len: usize, contenders: &mut [Contender<'_>]) {
    let mut seconds = vec![vec![]; contenders.len()];
    for round in 0..=rounds {
        for (at, (_, run)) in contenders.iter_mut().enumerate() {
            let (start, mut runs) = (processor_time(), 0_u32);
            while processor_time() - start < MOMENT {
                run();
                runs += 1;
            }
            // The first round warms up: memory, caches, the branch predictor.
            if round > 0 {
                seconds[at].push((processor_time() - start).as_secs_f64() / f64::from(runs));
            }
        }
    }
    println!("\n{what}, {rounds} rounds");
    println!("{:<46} {:>9} {:>9}   {:>14}", "", "us each", "MiB/s", "of the first");
    for (at, (name, _)) in contenders.iter().enumerate() {
        let middle = median(&seconds[at]).expect("a round");
        let rate = len as f64 / middle / MIB as f64;
        let ratios: Vec<f64> = seconds[0].iter().zip(&seconds[at]).map(|(first, own)| first / own).collect();
        let ratio = median(&ratios).expect("a round");
        let spread =
            median_interval(&ratios).map_or(String::new(), |of| format!("({:.2} to {:.2})", of.low, of.high));
        println!("{name:<46} {:>9.2} {rate:>9.0}   {ratio:.3} {spread}", middle * 1e6);
    }
}

/// What this thread has had of a processor so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}
