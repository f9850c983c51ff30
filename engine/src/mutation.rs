//! Altered messages, for tests that none of them opens.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How a message is altered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mutation {
    Bits(usize),
    Byte,
    Cut,
    Append,
    Insert,
    Remove,
    /// A part takes another's place, and the other its.
    Swap,
    /// A part comes twice.
    Repeat,
}

impl Mutation {
    const ALL: [Self; 9] = [
        Self::Bits(1),
        Self::Bits(2),
        Self::Byte,
        Self::Cut,
        Self::Append,
        Self::Insert,
        Self::Remove,
        Self::Swap,
        Self::Repeat,
    ];

    /// So many altered messages, the same in each run. Now and then one comes out as it was.
    pub(crate) fn some(message: &[u8], count: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut random = StdRng::seed_from_u64(message.len() as u64);
        (0..count).map(move |i| Self::ALL[i % Self::ALL.len()].of(message, &mut random))
    }

    fn of(self, message: &[u8], random: &mut StdRng) -> Vec<u8> {
        let mut bytes = message.to_vec();
        let (one, other) = (random.random_range(0..bytes.len()), random.random_range(0..bytes.len()));
        let (from, to) = (one.min(other), one.max(other) + 1);
        match self {
            Self::Bits(count) => {
                for _ in 0..count {
                    bytes[random.random_range(0..message.len())] ^= 1 << random.random_range(0..8);
                }
            }
            Self::Byte => bytes[one] = random.random(),
            Self::Cut => bytes.truncate(one),
            Self::Append => bytes.extend((0..=one % 40).map(|_| random.random::<u8>())),
            Self::Insert => bytes.insert(one, random.random()),
            Self::Remove => drop(bytes.drain(from..to)),
            Self::Swap => {
                let len = (to - from) / 2;
                let (front, back) = bytes[from..to].split_at_mut(to - from - len);
                front[..len].swap_with_slice(back);
            }
            Self::Repeat => {
                let part = bytes[from..to].to_vec();
                bytes.splice(to..to, part);
            }
        }
        bytes
    }
}

/// A message with each of its bits turned, one at a time.
pub(crate) fn single_bits(message: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..message.len() * 8).map(|bit| {
        let mut bytes = message.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    })
}
