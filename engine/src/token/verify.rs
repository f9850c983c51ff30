//! Outputs of tokens, checked before they are handed out: whether, how often, and what comes of it. How they are
//! checked is in `ciphers` and `signatures`.
//!
//! A check is made by the session that ran the operation, so it covers whatever ran there: requests of callers on
//! their own threads, of workers, merged ones, messages, parts of operations that are held open.

mod ciphers;
mod signatures;

use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::pkcs11::{Direction, Fault};
use crate::sync::{Arc, AtomicU64, CachePadded, Ordering};
use crate::token::hold::Ecb;
use crate::token::mechanism::{AES_BLOCK_LEN, DES_BLOCK_LEN, GCM_TAG_LEN};
use crate::token::session::{Failed, Fate, Session};
use crate::token::task::{Call, Handles, Iv, Mechanism};
use crate::token::verify::ciphers::Made;

/// Which outputs of tokens are checked before they are handed out.
///
/// As a text, in TOML: `off`, `sampled`, `always`.
///
/// | output | checked by | where the key or the token does not allow that |
/// |---|---|---|
/// | ciphertext: AES-GCM, CBC, ECB, triple DES | the token deciphers it; the message must come out | enciphered again under the same IV |
/// | what they deciphered | the token enciphers it again under the same IV; the ciphertext must come out | deciphered again |
/// | AES-CTR, both ways | the token enciphers the counter blocks by ECB, one block further on, and the host adds them; the key stream is wiped | the same call again |
/// | what CBC deciphered whose padding the token takes off, RSA-OAEP likewise | deciphered again | not at all |
/// | what RSA deciphered whose padding the host takes off | raised to the public exponent in software | deciphered again |
/// | ECDSA, Ed25519, RSA signatures | the public key, in software | PKCS#1 v1.5 and Ed25519: made again; ECDSA and PSS: not at all |
/// | HMAC, CMAC | the token verifies it (`C_Verify`) | made again |
/// | retail MAC | its blocks are deciphered | made again |
/// | random bytes | the first 16 (of fewer the first 8) must not be those of the session's last answer that was checked | fewer than 8: not at all |
/// | RSA PKCS#1 v1.5 decryption whose padding the token takes off, [`RawMechanism`](crate::RawMechanism) | not at all | |
///
/// What is enciphered, deciphered or made *again* shows nothing if the token errs twice in the same way. The length of
/// an output is looked at every time unless this is `Off`. Of RSA PKCS#1 v1.5 decryption a second answer could tell
/// good paddings from bad ones, where a token answers bad ones with random bytes. What is no output of a request
/// (agreed, wrapped and generated keys) is not checked.
/// [`CheckSnapshot`](crate::CheckSnapshot) counts what was checked and what could not be.
///
/// # A wrong output
/// It is wiped and never handed out. All instances of the token are taken out of service at once, with
/// [`Health::Ejected`](crate::Health::Ejected), until [`Engine::readmit_token`](crate::Engine::readmit_token): what
/// errs once may err again where nobody looks. The request is run again by another token unless
/// [`Request::at_most_once`](crate::Request::at_most_once) was asked for; then, and where there is no other, its error
/// is `Device` or `TokenLost`, with the outcome `Done` or `Unknown`.
///
/// No input can take a token out: a ciphertext that is refused is an ordinary `DecryptFailed`. A signature that does
/// not fit the public half of its key is made again; if that does not fit either, and none of the key ever did, then
/// the public half may be another key's (somebody gave its object the same `CKA_ID`). That signature is not handed out
/// (`Device`), and the token stays.
///
/// # Cost
/// While it is off, a branch for each call of a session. A sample costs no more than the noise of the measurement.
/// `Always` costs a second operation of the token or a verification in software, and neither operations that are held
/// open ([`Builder::holding`](crate::Builder::holding)) nor messages ([`Builder::message_api`](crate::Builder::message_api))
/// are used:
///
/// | SoftHSM2 2.6.1, one caller, 64 bytes | calls, off | calls, always | time, always against off |
/// |---|---|---|---|
/// | HMAC-SHA-256 | 2 | 4 | 1.9 |
/// | AES-CMAC | 2 | 4 | 1.6 |
/// | ECDSA P-256 | 2 | 2 | 4.8 |
/// | RSA-2048, PKCS#1 v1.5 | 2 | 2 | 0.9, which is noise |
/// | AES-GCM encryption | 2 | 4 | 2.0 |
/// | AES-CTR encryption | 2 | 4 | 2.3 |
/// | AES-ECB encryption | 1, held open | 4 | 26 |
///
/// ECDSA is slow to verify here, for the software that verifies digests is slower than a token that signs on the same
/// host. Of a device whose operation takes a quarter of a millisecond (`p11-sim`) it is 2.4 times. Medians of 21 rounds
/// in turns, two cores of an Intel Xeon guest that others used too, so only the ratios mean something; Rust 1.95
/// without link-time optimisation: `CARGO_PROFILE_DEV_OPT_LEVEL=2 cargo run -p hsmux-tests --example verify_cost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyOutputs {
    /// None.
    #[default]
    Off,
    /// The first call of each session, and then one in 1 000, at random: for a token that errs often, which it finds
    /// within 2 000 calls of a session. Wrong outputs are handed out until then. Requests that share a call are
    /// checked together.
    Sampled,
    /// Every one.
    Always,
}

/// What sessions of a token share about checks.
#[derive(Debug)]
pub(crate) struct Checks {
    how: VerifyOutputs,
    counts: CachePadded<[AtomicU64; 3]>,
}

/// What was found of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Right,
    Wrong,
    /// Nothing shows it.
    Unknown,
    /// It does not fit the public half of its key, which has never fitted anything.
    Unfit,
}

/// What a session keeps for its checks.
#[derive(Debug)]
pub(super) struct Check {
    shared: Arc<Checks>,
    /// Whether any output is looked at.
    on: bool,
    /// Calls until the next that is checked.
    left: u32,
    /// A digest of the random bytes that were checked last.
    random: Option<[u8; DIGEST_LEN]>,
}

/// Twice the mean distance between calls that are checked in a sample, and its bound.
const SAMPLE_WITHIN: u32 = 2_000;

/// Of SHA-256.
const DIGEST_LEN: usize = 32;

/// How many random bytes are compared with those of the last answer: equal ones come by chance once in 2^128 answers.
/// FIPS 140-2, 4.9.2: "the subsequent generation of n-bit blocks shall be compared with the previously generated block".
const RANDOM_COMPARED: usize = 16;

/// The same for short answers: once in 2^64.
const RANDOM_COMPARED_MIN: usize = 8;

impl Checks {
    pub(crate) fn new(how: VerifyOutputs) -> Arc<Self> {
        Arc::new(Self { how, counts: CachePadded::default() })
    }

    /// Whether every output is checked.
    pub(crate) fn are_of_all(&self) -> bool {
        self.how == VerifyOutputs::Always
    }

    /// Outputs found right, found wrong, and those of which nothing was found.
    pub(crate) fn counts(&self) -> [u64; 3] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn count(&self, finding: Finding) {
        let place = match finding {
            Finding::Right => 0,
            Finding::Wrong => 1,
            Finding::Unknown | Finding::Unfit => 2,
        };
        self.counts[place].fetch_add(1, Ordering::Relaxed);
    }
}

impl Check {
    pub(super) fn new(shared: Arc<Checks>) -> Self {
        let on = shared.how != VerifyOutputs::Off;
        Self { shared, on, left: 0, random: None }
    }

    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    /// Whether the output of a call that has run is to be checked.
    pub(super) fn is_due(&mut self) -> bool {
        if self.shared.how != VerifyOutputs::Sampled {
            return self.on;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                false
            }
            None => {
                // Without dice from the kernel the mean is as good.
                self.left = distance(getrandom::u32().unwrap_or(SAMPLE_WITHIN / 2));
                true
            }
        }
    }

    /// Random bytes that come again. Only a digest of them is kept.
    fn find_random(&mut self, bytes: &[u8]) -> Finding {
        let front = bytes.get(..RANDOM_COMPARED).or_else(|| bytes.get(..RANDOM_COMPARED_MIN));
        let Some(front) = front else { return Finding::Unknown };
        let digest = ring::digest::digest(&ring::digest::SHA256, front);
        let now = digest.as_ref().try_into().ok();
        let before = std::mem::replace(&mut self.random, now);
        if before.is_some() && before == now { Finding::Wrong } else { Finding::Right }
    }
}

/// Calls between two that are checked, at random: what errs at regular distances is not missed for ever.
const fn distance(dice: u32) -> u32 {
    dice % (SAMPLE_WITHIN - 1)
}

impl Session {
    /// Looks at what a call has written, the first `written` bytes of `output`, if it is its turn.
    ///
    /// # Errors
    /// It is wrong, or the check has failed: then nobody knows. The output is wiped.
    #[inline(never)]
    pub(super) fn check_output(
        &mut self,
        call: &Call,
        handles: Option<&Handles>,
        input: &[u8],
        output: &mut [u8],
        written: usize,
    ) -> Result<(), Failed> {
        let is_due = self.check.is_due();
        let found = match written_len(call, input.len()) {
            Some(len) if len != written => Ok(Finding::Wrong),
            _ if !is_due => return Ok(()),
            _ => self.find(call, handles, input, (output.get(..written).unwrap_or_default(), output.len())),
        };
        self.conclude(found).inspect_err(|_| output.zeroize())
    }

    /// As [`Session::check_output`], of blocks that were due and belong to several requests.
    pub(super) fn check_blocks(
        &mut self,
        ecb: Ecb,
        mechanism: &Mechanism,
        handles: Option<&Handles>,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(), Failed> {
        let Ecb { direction, key, .. } = ecb;
        let (iv, facts) = (&[][..], handles.and_then(Handles::facts));
        let made = Made { direction, key, mechanism, iv, from: input, to: output };
        let found = self.let_go().and_then(|()| self.find_cipher(&made, facts));
        self.conclude(found).inspect_err(|_| output.zeroize())
    }

    /// A token has written another length than there can be.
    pub(super) fn wrong_len(&self) -> Failed {
        self.check.shared.count(Finding::Wrong);
        wrong()
    }

    fn find(
        &mut self,
        call: &Call,
        handles: Option<&Handles>,
        input: &[u8],
        (output, room): (&[u8], usize),
    ) -> Result<Finding, Failed> {
        let (direction, mechanism) = match call {
            Call::Random => return Ok(self.check.find_random(output)),
            Call::Sign(mechanism) => {
                self.let_go_all()?;
                return match handles {
                    Some(handles) => self.find_signature(mechanism, handles, input, (output, room)),
                    None => Ok(Finding::Unknown),
                };
            }
            Call::Encrypt(mechanism) => (Direction::Encrypt, mechanism),
            Call::Decrypt(mechanism) => (Direction::Decrypt, mechanism),
        };
        self.let_go_all()?;
        let key = self.key(handles)?;
        let (iv, to) = match mechanism.iv() {
            Some(Iv::Given(iv)) => (&iv[..], output),
            Some(Iv::Drawn) => output.split_at_checked(mechanism.drawn_iv_len().0).unwrap_or_default(),
            None => (&[][..], output),
        };
        let made = Made { direction, key, mechanism, iv, from: input, to };
        match (handles, mechanism, direction) {
            (Some(handles), Mechanism::RsaRaw, Direction::Decrypt) => self.find_bare_rsa(&made, handles),
            (handles, ..) => self.find_cipher(&made, handles.and_then(Handles::facts)),
        }
    }

    /// What becomes of the request.
    fn conclude(&self, found: Result<Finding, Failed>) -> Result<(), Failed> {
        // The operation has run; it is the check that has not.
        let found =
            found.map_err(|failed| Failed { error: failed.error.after_unknown(), fate: failed.fate })?;
        self.check.shared.count(found);
        match found {
            Finding::Right | Finding::Unknown => Ok(()),
            Finding::Wrong => Err(wrong()),
            Finding::Unfit => Err(unfit()),
        }
    }
}

/// How much a call writes, the IV that is drawn for it included, where that is the same for every key.
fn written_len(call: &Call, input_len: usize) -> Option<usize> {
    let drawn = |mechanism: &Mechanism| match mechanism.iv() {
        Some(Iv::Drawn) => mechanism.drawn_iv_len().0,
        _ => 0,
    };
    match call {
        Call::Encrypt(mechanism @ Mechanism::AesGcm { .. }) => {
            Some(drawn(mechanism) + input_len + GCM_TAG_LEN)
        }
        Call::Decrypt(Mechanism::AesGcm { .. }) => input_len.checked_sub(GCM_TAG_LEN),
        Call::Encrypt(mechanism) | Call::Decrypt(mechanism) => match mechanism {
            Mechanism::AesEcb
            | Mechanism::AesCbc(_)
            | Mechanism::AesCtr { .. }
            | Mechanism::TripleDesEcb
            | Mechanism::TripleDesCbc(_) => Some(drawn(mechanism) + input_len),
            _ => None,
        },
        Call::Sign(mechanism) => match mechanism {
            Mechanism::Hmac(hash) => Some(hash.len()),
            Mechanism::AesCmac => Some(AES_BLOCK_LEN),
            Mechanism::TripleDesCmac | Mechanism::RetailMac { .. } => Some(DES_BLOCK_LEN),
            _ => None,
        },
        Call::Random => None,
    }
}

/// What a call of a check has answered.
enum Answer {
    Right,
    Wrong,
    /// It takes no such ciphertext.
    Refused,
    /// The key, the token or the module does not allow the call.
    NotAsked,
}

impl Answer {
    /// Of a fault: whether it is about the ciphertext, about the call, or ends the check.
    fn of(fault: Fault) -> Result<Self, Failed> {
        let failed = Failed::from(fault);
        match failed.fate {
            Fate::Keep if failed.error.kind() == ErrorKind::DecryptFailed => Ok(Self::Refused),
            Fate::Keep => Ok(Self::NotAsked),
            _ => Err(failed),
        }
    }
}

/// Done: so that it is run again only where running it twice harms nobody.
fn wrong() -> Failed {
    let error = Error::new(ErrorKind::Device, Retry::Now, Outcome::Done)
        .because("the token gave a wrong answer, which is not handed out");
    Failed { error, fate: Fate::Eject }
}

fn unfit() -> Failed {
    let error = Error::new(ErrorKind::Device, Retry::Now, Outcome::Done)
        .because("it does not fit the public half that the token shows: is that another key's?");
    Failed { error, fate: Fate::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(how: VerifyOutputs) -> Check {
        Check::new(Checks::new(how))
    }

    #[test]
    fn of_a_sample_the_first_call_is_checked_and_then_one_in_a_thousand() {
        let mut check = check(VerifyOutputs::Sampled);
        let due: Vec<_> = (0..1_000_000_u32).filter(|_| check.is_due()).collect();
        assert_eq!(due[0], 0);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] < SAMPLE_WITHIN));
        assert!((900..1_100).contains(&due.len()), "{}", due.len());
    }

    #[test]
    fn always_is_every_call_and_off_is_none() {
        assert!((0..100).all(|_| check(VerifyOutputs::Always).is_due()));
        let mut off = check(VerifyOutputs::Off);
        assert!(!off.is_on() && !(0..100).any(|_| off.is_due()));
    }

    #[test]
    fn random_bytes_that_come_again_are_wrong() {
        let mut check = check(VerifyOutputs::Always);
        let answers = [[1; 32], [2; 32], [1; 32]];
        assert!(answers.iter().all(|bytes| check.find_random(bytes) == Finding::Right));
        assert_eq!(check.find_random(&[1; 40]), Finding::Wrong);
        assert_eq!(check.find_random(&[1; 9]), Finding::Right, "of another length");
        assert_eq!(check.find_random(&[1; 9]), Finding::Wrong);
        assert_eq!(check.find_random(&[1; 7]), Finding::Unknown);
    }

    #[test]
    fn a_call_writes_as_much_as_its_algorithm_yields() {
        let gcm = |iv| Mechanism::AesGcm { iv, aad: None };
        let given = || Iv::Given([0; 12][..].into());
        assert_eq!(written_len(&Call::Encrypt(gcm(Iv::Drawn)), 5), Some(12 + 5 + 16));
        assert_eq!(written_len(&Call::Encrypt(gcm(given())), 5), Some(5 + 16));
        assert_eq!(written_len(&Call::Decrypt(gcm(given())), 21), Some(5));
        assert_eq!(written_len(&Call::Encrypt(Mechanism::TripleDesCbc(Iv::Drawn)), 16), Some(24));
        assert_eq!(written_len(&Call::Encrypt(Mechanism::AesCbcPad(Iv::Drawn)), 16), None);
        assert_eq!(written_len(&Call::Sign(Mechanism::AesCmac), 1_000), Some(16));
    }
}
