//! Many requests, one call: block modes as functions of single blocks.
//!
//! ECB enciphers each block by itself (SP 800-38A, 6.1), so the blocks of many messages under one key can go to the
//! token in one call. CTR both ways and CBC decryption are ECB over many blocks with an exclusive or on the host
//! (6.5, 6.2); CBC encryption chains, but all messages can advance by one block in the same call. GCM and CMAC are
//! never served so: their secret subkeys, which are enciphered blocks, would come to the host.
//!
//! Pure, on byte slices: who calls gives the cipher as a function. What is laid out here is wiped after each use.

mod counter;
#[cfg(test)]
mod tests;

use zeroize::Zeroize;

/// How messages become blocks and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    EcbEncrypt,
    EcbDecrypt,
    /// The first counter block, of which so many bits at the end count; both ways.
    Ctr {
        counter_bits: u32,
    },
    CbcEncrypt,
    CbcDecrypt,
}

/// Modes that are proven together: there and back, and CTR whatever part of its blocks counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ecb,
    Ctr,
    Cbc,
}

/// One request: its message, and room for as many bytes.
pub(crate) struct Message<'a> {
    /// A block; empty for ECB.
    pub(crate) iv: &'a [u8],
    /// Whole blocks, but for CTR.
    pub(crate) input: &'a [u8],
    /// As long as the input.
    pub(crate) output: &'a mut [u8],
}

/// Memory for what goes to the cipher and comes from it, kept from call to call.
#[derive(Default)]
pub(crate) struct Blocks {
    to: Vec<u8>,
    from: Vec<u8>,
}

/// Payload is not shown.
impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").finish_non_exhaustive()
    }
}

impl Mode {
    /// Whether the block cipher runs forwards.
    pub(crate) const fn enciphers(self) -> bool {
        match self {
            Self::EcbEncrypt | Self::Ctr { .. } | Self::CbcEncrypt => true,
            Self::EcbDecrypt | Self::CbcDecrypt => false,
        }
    }

    pub(crate) const fn family(self) -> Family {
        match self {
            Self::EcbEncrypt | Self::EcbDecrypt => Family::Ecb,
            Self::Ctr { .. } => Family::Ctr,
            Self::CbcEncrypt | Self::CbcDecrypt => Family::Cbc,
        }
    }

    /// How many calls of the cipher serve messages of these lengths.
    pub(crate) fn calls(self, block: usize, lengths: impl Iterator<Item = usize>) -> usize {
        match self {
            Self::CbcEncrypt => lengths.map(|len| len / block).max().unwrap_or(0),
            _ => usize::from(lengths.map(|len| len.div_ceil(block)).sum::<usize>() > 0),
        }
    }
}

/// Serves messages with a cipher that takes whole blocks of `block` bytes and writes as many.
///
/// # Errors
/// Those of the cipher; the outputs are then in an undefined state.
pub(crate) fn serve<E>(
    mode: Mode,
    block: usize,
    messages: &mut [Message<'_>],
    blocks: &mut Blocks,
    mut cipher: impl FnMut(&[u8], &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let rounds = match mode {
        Mode::CbcEncrypt => mode.calls(block, messages.iter().map(|message| message.input.len())),
        _ => 1,
    };
    // Never grown while it holds payload: memory that is outgrown is not wiped.
    blocks.to.reserve(messages.iter().map(|message| message.input.len().next_multiple_of(block)).sum());
    for round in 0..rounds {
        for message in &*messages {
            match mode {
                Mode::EcbEncrypt | Mode::EcbDecrypt | Mode::CbcDecrypt => {
                    blocks.to.extend_from_slice(message.input);
                }
                Mode::Ctr { counter_bits } => {
                    counter::blocks(message.iv, counter_bits, message.input.len(), &mut blocks.to);
                }
                Mode::CbcEncrypt => lay_link(block, round, message, &mut blocks.to),
            }
        }
        if blocks.to.is_empty() {
            continue;
        }
        blocks.from.resize(blocks.to.len(), 0);
        let done = cipher(&blocks.to, &mut blocks.from);
        if done.is_ok() {
            hand_out(mode, block, round, messages, &blocks.from);
        }
        blocks.wipe();
        done?;
    }
    Ok(())
}

impl Family {
    /// In the order of their declaration.
    pub(crate) const ALL: [Self; 3] = [Self::Ecb, Self::Ctr, Self::Cbc];
}

impl Blocks {
    /// What is used only, not all the room there is.
    fn wipe(&mut self) {
        for memory in [&mut self.to, &mut self.from] {
            memory.as_mut_slice().zeroize();
            memory.clear();
        }
    }
}

/// Gives each message what is its own.
fn hand_out(mode: Mode, block: usize, round: usize, messages: &mut [Message<'_>], mut from: &[u8]) {
    for message in messages {
        let len = message.input.len();
        let taken = match mode {
            Mode::Ctr { .. } => len.next_multiple_of(block),
            Mode::CbcEncrypt => link(block, round, len).map_or(0, |link| link.len()),
            Mode::EcbEncrypt | Mode::EcbDecrypt | Mode::CbcDecrypt => len,
        };
        let (own, rest) = from.split_at(taken);
        from = rest;
        match mode {
            Mode::EcbEncrypt | Mode::EcbDecrypt => message.output.copy_from_slice(own),
            Mode::Ctr { .. } => xor(message.output, message.input, own),
            Mode::CbcDecrypt => {
                let first = block.min(len);
                xor(&mut message.output[..first], own, message.iv);
                xor(&mut message.output[first..], &own[first..], message.input);
            }
            Mode::CbcEncrypt => {
                if let Some(link) = link(block, round, len) {
                    message.output[link].copy_from_slice(own);
                }
            }
        }
    }
}

/// Lays out the block of a message that CBC encryption comes to in this round, if it is that long.
fn lay_link(block: usize, round: usize, message: &Message<'_>, to: &mut Vec<u8>) {
    let Some(link) = link(block, round, message.input.len()) else { return };
    let before = if round == 0 { message.iv } else { &message.output[link.start - block..link.start] };
    to.extend(message.input[link].iter().zip(before).map(|(byte, before)| byte ^ before));
}

fn link(block: usize, round: usize, len: usize) -> Option<std::ops::Range<usize>> {
    let link = round * block..(round + 1) * block;
    (link.end <= len).then_some(link)
}

/// As many bytes as `to` has.
fn xor(to: &mut [u8], one: &[u8], other: &[u8]) {
    for ((to, one), other) in to.iter_mut().zip(one).zip(other) {
        *to = one ^ other;
    }
}
