//! One request of a mixed load: its message, and how it is made.

use std::sync::Arc;

use hsmux::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cmac, Ecdsa, Hmac, Key, Operation, Request, RsaPkcs1, RsaPss,
    TripleDesCbc, TripleDesEcb,
};

use super::work::{Done, Work};
use super::{Common, FurtherKeys};
use crate::check::Software;
use crate::dice::Dice;

/// A request to be made.
pub(super) struct Job {
    pub(super) work: Work,
    /// Whether it is for the second key of its kind.
    second: bool,
    message: Vec<u8>,
    aad: Arc<[u8]>,
    /// What the token gets: the message, or its ciphertext.
    input: Vec<u8>,
}

/// How a caller makes requests of one kind and what it gets: their answers, or a future of them.
pub(super) trait Way {
    type Answers<'a>;
    fn ask<'a, O, I>(self, requests: I) -> Self::Answers<'a>
    where
        O: Operation<Output: AsRef<[u8]>> + 'a,
        I: Iterator<Item = Request<'a, O>> + Send + 'a;
}

/// How long messages of a kind are.
#[derive(Clone, Copy)]
enum Shape {
    /// Blocks of so many bytes behind who asked and when, which takes 16.
    Blocks(usize),
    /// None to a few blocks, and parts of one.
    Any,
}

/// Longest message of [`Shape::Any`]: six blocks of AES, and a part.
const ANY_MAX: u64 = 100;

impl Job {
    /// The next request of a caller. The message says who asked and when, so that no two are alike and an answer
    /// that went to another caller is found out.
    pub(super) fn new(work: Work, caller: u32, sequence: u64, dice: &mut Dice, software: &Software) -> Self {
        let second = software.has_second() && dice.below(2) == 1;
        let message = message(Shape::of(work), caller, sequence, dice);
        let aad: Arc<[u8]> = match work {
            Work::EncryptGcm | Work::DecryptGcm => dice.roll().to_be_bytes().into(),
            _ => Arc::new([]),
        };
        let mut iv = [0; 16];
        iv.fill_with(|| dice.roll().to_be_bytes()[0]);
        let input = match work {
            Work::DecryptCtr => {
                let counted = match dice.below(4) {
                    // The last block of the message takes the last value of the counter.
                    0 => u32::MAX - u32::try_from(message.len().div_ceil(16)).unwrap_or(0).saturating_sub(1),
                    _ => 0,
                };
                iv[12..].copy_from_slice(&counted.to_be_bytes());
                software.sealed(work, second, &iv, &message, &aad)
            }
            _ => software.sealed(work, second, &iv, &message, &aad),
        };
        Self { work, second, message, aad, input: input.unwrap_or_default() }
    }

    /// Makes requests of one kind.
    pub(super) fn ask<'a, W: Way>(
        work: Work,
        jobs: &'a [Self],
        common: &'a Common,
        way: W,
    ) -> W::Answers<'a> {
        let keys = &common.keys;
        let gcm = |it: &Self| AesGcm::new().aad(Arc::clone(&it.aad));
        let (aes, p256) = (|it: &Self| it.of(&keys.aes), |it: &Self| it.of(&keys.p256));
        // Never the RSA key: without further keys their kinds are not chosen.
        let further = |pick: fn(&FurtherKeys) -> &Key| keys.further.as_ref().map_or(&keys.rsa, pick);
        let (cmac, des) = (further(|it| &it.cmac), further(|it| &it.des));
        let des_mac = further(|it| &it.des_mac);
        let jobs = jobs.iter();
        match work {
            Work::SignRsaPkcs1 => way.ask(jobs.map(move |it| keys.rsa.sign(RsaPkcs1::SHA256, &it.input))),
            Work::SignRsaPss => way.ask(jobs.map(move |it| keys.rsa.sign(RsaPss::SHA256, &it.input))),
            Work::SignP256 => way.ask(jobs.map(move |it| p256(it).sign(Ecdsa::P256_SHA256, &it.input))),
            Work::SignP256Der => {
                way.ask(jobs.map(move |it| p256(it).sign(Ecdsa::P256_SHA256.der(), &it.input)))
            }
            Work::SignP384 => way.ask(jobs.map(move |it| keys.p384.sign(Ecdsa::P384_SHA384, &it.input))),
            Work::SignP384Der => {
                way.ask(jobs.map(move |it| keys.p384.sign(Ecdsa::P384_SHA384.der(), &it.input)))
            }
            Work::SignHmac => way.ask(jobs.map(move |it| it.of(&keys.hmac).sign(Hmac::SHA256, &it.input))),
            Work::EncryptGcm => way.ask(jobs.map(move |it| aes(it).encrypt(gcm(it), &it.input))),
            Work::DecryptGcm => way.ask(jobs.map(move |it| aes(it).decrypt(gcm(it), &it.input))),
            Work::EncryptEcb => way.ask(jobs.map(move |it| aes(it).encrypt(AesEcb, &it.input))),
            Work::DecryptEcb => way.ask(jobs.map(move |it| aes(it).decrypt(AesEcb, &it.input))),
            Work::Random => way.ask(jobs.map(move |it| common.engine.random(it.input.len()))),
            Work::SignCmac => way.ask(jobs.map(move |it| cmac.sign(Cmac::Aes, &it.input))),
            Work::EncryptCbcPad => way.ask(jobs.map(move |it| aes(it).encrypt(AesCbc::new(), &it.input))),
            Work::DecryptCbcPad => way.ask(jobs.map(move |it| aes(it).decrypt(AesCbc::new(), &it.input))),
            Work::EncryptCbc => {
                way.ask(jobs.map(move |it| aes(it).encrypt(AesCbc::new().unpadded(), &it.input)))
            }
            Work::DecryptCbc => {
                way.ask(jobs.map(move |it| aes(it).decrypt(AesCbc::new().unpadded(), &it.input)))
            }
            Work::EncryptCtr => way.ask(jobs.map(move |it| aes(it).encrypt(AesCtr::new(), &it.input))),
            Work::DecryptCtr => way.ask(jobs.map(move |it| aes(it).decrypt(AesCtr::new(), &it.input))),
            Work::SignDesCmac => way.ask(jobs.map(move |it| des_mac.sign(Cmac::TripleDes, &it.input))),
            Work::EncryptDesEcb => way.ask(jobs.map(move |it| des.encrypt(TripleDesEcb, &it.input))),
            Work::DecryptDesEcb => way.ask(jobs.map(move |it| des.decrypt(TripleDesEcb, &it.input))),
            Work::EncryptDesCbc => way.ask(jobs.map(move |it| des.encrypt(TripleDesCbc::new(), &it.input))),
            Work::DecryptDesCbc => way.ask(jobs.map(move |it| des.decrypt(TripleDesCbc::new(), &it.input))),
        }
    }

    /// The key of a kind that this job is for.
    fn of<'a>(&self, keys: &'a [Key]) -> &'a Key {
        &keys[if self.second { keys.len() - 1 } else { 0 }]
    }

    pub(super) fn done(self, output: Vec<u8>) -> Done {
        Done { work: self.work, second: self.second, message: self.message, aad: self.aad, output }
    }
}

impl Shape {
    const fn of(work: Work) -> Self {
        match work {
            Work::EncryptEcb | Work::DecryptEcb | Work::EncryptCbc | Work::DecryptCbc | Work::Random => {
                Self::Blocks(16)
            }
            Work::EncryptDesEcb | Work::DecryptDesEcb => Self::Blocks(8),
            _ => Self::Any,
        }
    }
}

/// Who asked and when, and what the dice add. A message too short for that is the dice's own.
fn message(shape: Shape, caller: u32, sequence: u64, dice: &mut Dice) -> Vec<u8> {
    let mut message = [u64::from(caller).to_be_bytes(), sequence.to_be_bytes()].concat();
    let wanted = match shape {
        Shape::Blocks(len) => 16 + len * dice.small(16),
        Shape::Any => dice.small(ANY_MAX),
    };
    if wanted < message.len() {
        message.clear();
    }
    while message.len() < wanted {
        message.extend(dice.roll().to_be_bytes());
    }
    message.truncate(wanted);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_every_length_up_to_several_blocks() {
        let mut dice = Dice::new(3);
        let mut seen = [false; 100];
        (0..10_000).for_each(|_| seen[message(Shape::Any, 1, 2, &mut dice).len()] = true);
        assert!(seen.iter().all(|seen| *seen));
        (0..1_000).for_each(|_| assert_eq!(message(Shape::Blocks(8), 1, 2, &mut dice).len() % 8, 0));
    }
}
