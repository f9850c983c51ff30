//! Several requests of one key by fewer calls than they are.

use crate::coalesce::{self, Family, Message, Mode};
use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::pkcs11::Direction;
use crate::token::hold::{Ecb, When};
use crate::token::session::{Failed, Fate, Session, draw};
use crate::token::task::{AES_BLOCK_LEN, Call, DES_BLOCK_LEN, Handles, Iv, Mechanism, Part};

/// How requests are merged: those that agree in this can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    mode: Mode,
    block: usize,
}

/// A request on its way through a merged call, with room for its whole output.
pub(crate) struct Merging<'a> {
    pub(crate) call: &'a Call,
    pub(crate) input: &'a [u8],
    pub(crate) output: &'a mut [u8],
}

impl Merge {
    /// How a call can be merged with its like; `host_modes` says whether the mode may be done on the host.
    pub(crate) fn of(call: &Call, host_modes: bool) -> Option<Self> {
        let aes = |mode| Self { mode, block: AES_BLOCK_LEN };
        let triple_des = |mode| Self { mode, block: DES_BLOCK_LEN };
        Some(match call {
            Call::Encrypt(Mechanism::AesEcb) => aes(Mode::EcbEncrypt),
            Call::Decrypt(Mechanism::AesEcb) => aes(Mode::EcbDecrypt),
            Call::Encrypt(Mechanism::TripleDesEcb) => triple_des(Mode::EcbEncrypt),
            Call::Decrypt(Mechanism::TripleDesEcb) => triple_des(Mode::EcbDecrypt),
            _ if !host_modes => return None,
            Call::Encrypt(Mechanism::AesCtr { counter_bits, .. })
            | Call::Decrypt(Mechanism::AesCtr { counter_bits, .. }) => {
                aes(Mode::Ctr { counter_bits: *counter_bits })
            }
            Call::Encrypt(Mechanism::AesCbc(_)) => aes(Mode::CbcEncrypt),
            Call::Decrypt(Mechanism::AesCbc(_)) => aes(Mode::CbcDecrypt),
            Call::Encrypt(Mechanism::TripleDesCbc(_)) => triple_des(Mode::CbcEncrypt),
            Call::Decrypt(Mechanism::TripleDesCbc(_)) => triple_des(Mode::CbcDecrypt),
            _ => return None,
        })
    }

    /// What the token does for it.
    pub(crate) const fn direction(self) -> Direction {
        if self.mode.enciphers() { Direction::Encrypt } else { Direction::Decrypt }
    }

    /// What must have been shown of a token before it may do this.
    pub(crate) const fn family(self) -> Family {
        self.mode.family()
    }

    /// The mechanism that the token runs for it.
    pub(crate) const fn ecb(self) -> Mechanism {
        if self.block == AES_BLOCK_LEN { Mechanism::AesEcb } else { Mechanism::TripleDesEcb }
    }

    /// Whether any number of requests takes one call.
    pub(crate) const fn takes_one_call(self) -> bool {
        !matches!(self.mode, Mode::CbcEncrypt)
    }

    /// Whether the requests differ in nothing but their blocks.
    pub(crate) const fn is_of_blocks(self) -> bool {
        matches!(self.mode.family(), Family::Ecb)
    }

    /// Whether merging requests with inputs of these lengths takes fewer calls than they are.
    pub(crate) fn pays(self, lengths: impl Iterator<Item = usize> + Clone) -> bool {
        let requests = lengths.clone().count();
        requests > 1 && self.mode.calls(self.block, lengths) < requests
    }
}

/// Adds the parts of a request to those that are to be merged.
pub(crate) fn split<'a>(
    parts: &'a [Part],
    mut input: &'a [u8],
    mut output: &'a mut [u8],
    requests: &mut Vec<Merging<'a>>,
) -> Result<(), Failed> {
    for Part { call, input: input_len, output: output_len } in parts {
        let (own, others) = input.split_at_checked(*input_len).ok_or_else(no_room)?;
        let (room, rooms) = output.split_at_mut_checked(*output_len).ok_or_else(no_room)?;
        requests.push(Merging { call, input: own, output: room });
        (input, output) = (others, rooms);
    }
    Ok(())
}

impl Session {
    /// Runs a request; its parts, if it has some. Returns how many bytes of the output are written.
    ///
    /// # Errors
    /// As [`Session::run`].
    #[inline]
    pub(crate) fn run_all(
        &mut self,
        (call, parts): (&Call, &[Part]),
        handles: Option<&Handles>,
        input: &[u8],
        output: &mut [u8],
        when: When,
    ) -> Result<usize, Failed> {
        if parts.is_empty() {
            return self.run(call, handles, input, output, when);
        }
        let len = output.len();
        let merge = Merge::of(call, true).ok_or_else(no_room)?;
        let mut requests = Vec::with_capacity(parts.len());
        split(parts, input, output, &mut requests)?;
        self.run_merged(merge, handles, &mut requests, when)?;
        Ok(len)
    }

    /// Runs requests that merge alike under one key.
    ///
    /// # Errors
    /// Of a call of the token: what it has written is worth nothing then, and each request is to be run by itself.
    pub(crate) fn run_merged(
        &mut self,
        merge: Merge,
        handles: Option<&Handles>,
        requests: &mut [Merging<'_>],
        when: When,
    ) -> Result<(), Failed> {
        self.check_epoch()?;
        let key = self.key(handles)?;
        let ecb = Ecb { direction: merge.direction(), mechanism: merge.ecb().number(), key };
        self.interrupt_messages()?;
        draw_all(requests)?;
        let mut messages: Vec<_> = requests.iter_mut().map(message).collect::<Result<_, _>>()?;
        let mut blocks = std::mem::take(&mut self.blocks);
        let is_due = self.check.is_on() && self.check.is_due();
        let done =
            coalesce::serve(merge.mode, merge.block, &mut messages, &mut blocks, |to, from| {
                match self.ecb(ecb, to, from, when)? {
                    written if written != to.len() && self.check.is_on() => Err(self.wrong_len()),
                    written if written != to.len() => Err(short()),
                    _ if is_due => self.check_blocks(ecb, &merge.ecb(), handles, to, from),
                    _ => Ok(()),
                }
            });
        self.blocks = blocks;
        done
    }
}

/// Draws the IVs of all that have none yet, by one call of the kernel. They go in front of the ciphertexts.
fn draw_all(requests: &mut [Merging<'_>]) -> Result<(), Failed> {
    let lengths = |request: &Merging<'_>| match request.call {
        Call::Encrypt(mechanism) if matches!(mechanism.iv(), Some(Iv::Drawn)) => mechanism.drawn_iv_len(),
        _ => (0, 0),
    };
    let mut drawn = vec![0; requests.iter().map(|request| lengths(request).1).sum()];
    if drawn.is_empty() {
        return Ok(());
    }
    draw(&mut drawn)?;
    let mut rest = &drawn[..];
    for request in requests {
        let (len, random) = lengths(request);
        let (own, others) = rest.split_at(random);
        let iv = request.output.get_mut(..len).ok_or_else(no_room)?;
        iv[..random].copy_from_slice(own);
        iv[random..].fill(0);
        rest = others;
    }
    Ok(())
}

/// The message of a request, and the part of its output that belongs to it.
fn message<'a>(request: &'a mut Merging<'_>) -> Result<Message<'a>, Failed> {
    let (input, len) = (request.input, request.input.len());
    let (iv, output) = match request.call {
        Call::Encrypt(mechanism) | Call::Decrypt(mechanism) => match mechanism.iv() {
            None => (&[][..], &mut request.output[..]),
            Some(Iv::Given(iv)) => (&iv[..], &mut request.output[..]),
            Some(Iv::Drawn) => {
                let (iv, output) = request.output.split_at_mut(mechanism.drawn_iv_len().0);
                (&*iv, output)
            }
        },
        Call::Sign(_) | Call::Random => return Err(no_room()),
    };
    Ok(Message { iv, input, output: output.get_mut(..len).ok_or_else(no_room)? })
}

fn no_room() -> Failed {
    Failed { error: Error::internal("a merged request without room for its output"), fate: Fate::Keep }
}

fn short() -> Failed {
    let error = Error::new(ErrorKind::Device, Retry::Now, Outcome::Done)
        .because("the module wrote another length than it was given");
    Failed { error, fate: Fate::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecb_merges_always_the_other_modes_only_where_the_host_may_do_them_and_gcm_never() {
        let ctr = || Mechanism::AesCtr { iv: Iv::Drawn, counter_bits: 32 };
        let gcm = || Mechanism::AesGcm { iv: Iv::Drawn, aad: None };
        for call in [Call::Encrypt(Mechanism::AesEcb), Call::Decrypt(Mechanism::TripleDesEcb)] {
            assert!(Merge::of(&call, false).is_some(), "{call:?}");
        }
        let host = [
            Call::Encrypt(ctr()),
            Call::Decrypt(ctr()),
            Call::Encrypt(Mechanism::AesCbc(Iv::Drawn)),
            Call::Decrypt(Mechanism::TripleDesCbc(Iv::Drawn)),
        ];
        for call in host {
            assert!(Merge::of(&call, false).is_none() && Merge::of(&call, true).is_some(), "{call:?}");
        }
        for call in [Call::Encrypt(gcm()), Call::Decrypt(gcm()), Call::Sign(Mechanism::AesCmac), Call::Random]
        {
            assert!(Merge::of(&call, true).is_none(), "{call:?}");
        }
    }

    #[test]
    fn ctr_runs_the_cipher_forwards_both_ways() {
        let ctr = Call::Decrypt(Mechanism::AesCtr { iv: Iv::Drawn, counter_bits: 32 });
        assert_eq!(Merge::of(&ctr, true).map(Merge::direction), Some(Direction::Encrypt));
    }

    #[test]
    fn chained_messages_are_merged_only_if_there_are_more_of_them_than_blocks_in_the_longest() {
        let cbc = Merge::of(&Call::Encrypt(Mechanism::AesCbc(Iv::Drawn)), true).unwrap();
        assert!(cbc.pays([16, 32, 16].into_iter()));
        assert!(!cbc.pays([16, 32].into_iter()));
        let ecb = Merge::of(&Call::Encrypt(Mechanism::AesEcb), false).unwrap();
        assert!(ecb.pays([1_600, 16].into_iter()) && !ecb.pays([16].into_iter()));
    }
}
