//! Every operation against independent software, both ways: what the token makes software takes, and the reverse.

mod asymmetric;
mod symmetric;

use hsmux::{Cipher, Engine, Key, SignAlgorithm};
use sha2::{Digest, Sha512};
use softhsm_fixtures::{CustomKey, SoftHsm};

use crate::support::{Found, Keys, Seen, Tally, Way, builder_on, finish, same, text};

/// One operation, to be tried with any message.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) check: Check,
}

type Check = Box<dyn Fn(&[u8], Way) -> Found + Send + Sync>;

/// The lengths that are tried of each: around a block, and more than one buffer of anybody's.
const LENS: [usize; 7] = [0, 1, 15, 16, 17, 1000, 65_537];

/// Messages of each length.
const REPEATED: usize = 2;

pub(crate) fn keys() -> Keys {
    let mut keys: Vec<(&str, CustomKey)> = symmetric::keys();
    keys.extend(asymmetric::keys());
    keys.into_iter().map(|(label, key)| (label.to_owned(), key)).collect()
}

/// Every operation of an engine whose tokens hold [`keys`].
pub(crate) fn cases(engine: &Engine) -> Vec<Case> {
    let mut cases = symmetric::cases(engine);
    cases.extend(asymmetric::cases(engine));
    cases
}

/// An engine on so many new tokens that hold [`keys`], as a service would have them: on disk.
pub(crate) fn engine_on(tokens: usize) -> Option<Engine> {
    let softhsm = SoftHsm::for_tests()?;
    let tokens: Vec<_> = (0..tokens).map(|_| softhsm.unique_token()).collect();
    for token in &tokens {
        keys().iter().for_each(|(label, key)| token.import_custom(label, key));
    }
    let builder = builder_on(softhsm, tokens.iter().map(|token| token.label()));
    Some(builder.allow_rsa_pkcs1_decryption().build().unwrap())
}

fn case(name: &'static str, check: impl Fn(&[u8], Way) -> Found + Send + Sync + 'static) -> Case {
    Case { name, check: Box::new(check) }
}

/// The token encrypts what software opens, and opens what software encrypts.
fn both_ways(
    (key, how): (&Key, impl Into<Cipher>),
    (message, way): (&[u8], Way),
    open: impl Fn(&[u8]) -> Vec<u8>,
    seal: impl Fn(&[u8]) -> Vec<u8>,
) -> Found {
    let how = how.into();
    let sealed = way.of(key.encrypt(how.clone(), message)).map_err(text)?;
    same("opened by software", &open(&sealed), message)?;
    let opened = way.of(key.decrypt(how, seal(message))).map_err(text)?;
    same("opened by the token", &opened, message)
}

/// Software accepts the token's signature; the engine accepts both that and software's, and no other.
fn signed(
    (key, how): (&Key, impl Into<SignAlgorithm>),
    (message, way): (&[u8], Way),
    accepts: impl Fn(&[u8]) -> bool,
    sign: impl Fn() -> Vec<u8>,
) -> Found {
    let how = how.into();
    let mut made = way.of(key.sign(how.clone(), message)).map_err(text)?.into_vec();
    if !accepts(&made) {
        return Err("software refuses the token's signature".into());
    }
    let verify = |signature: &[u8]| way.of(key.verify(how.clone(), message, signature)).map_err(text);
    let (own, other) = (verify(&made)?.is_valid(), verify(&sign())?.is_valid());
    let last = made.len() - 1;
    made[last] ^= 1;
    match (own, other, verify(&made)?.is_valid()) {
        (true, true, false) => Ok(Seen::Right),
        found => Err(format!("own, software's and a false signature are {found:?}")),
    }
}

/// Bytes that depend on the message: IVs and values that software chooses.
fn derived(message: &[u8], label: &str) -> [u8; 64] {
    Sha512::digest([message, label.as_bytes()].concat()).into()
}

/// Bytes of a seed (SplitMix64): variety, no secrecy.
pub(crate) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_be_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

#[test]
fn every_operation_agrees_with_independent_software_both_ways() {
    let Some(engine) = engine_on(1) else { return };
    let messages: Vec<Vec<u8>> =
        (1..).zip(LENS.repeat(REPEATED)).map(|(seed, len)| random_bytes(seed, len)).collect();
    let tallies = cases(&engine)
        .into_iter()
        .map(|case| Tally::of(case.name, &messages, |message, way| (case.check)(message, way)));
    finish(&tallies.collect::<Vec<_>>());
}
