//! Against RustCrypto's modes, with its ciphers behind the call.

use std::convert::Infallible;

use aes::Aes256;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, KeyInit,
    KeyIvInit, StreamCipher,
};
use cbc::cipher::block_padding::NoPadding;
use des::TdesEde3;
use proptest::prelude::*;

use super::*;

/// The cipher as a token runs it, and how often it was called.
struct Token<C> {
    cipher: C,
    calls: usize,
}

impl<C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser + KeyInit> Token<C> {
    fn new(key: &[u8]) -> Self {
        Self { cipher: C::new_from_slice(key).unwrap(), calls: 0 }
    }

    fn run(&mut self, mode: Mode, to: &[u8], from: &mut [u8]) {
        self.calls += 1;
        from.copy_from_slice(to);
        for block in from.chunks_exact_mut(C::block_size()) {
            let block = block.try_into().unwrap();
            if mode.enciphers() { self.cipher.encrypt_block(block) } else { self.cipher.decrypt_block(block) }
        }
    }

    /// Serves the messages, each with its IV; returns the outputs.
    fn serve(&mut self, mode: Mode, messages: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<u8>> {
        let mut outputs: Vec<_> = messages.iter().map(|(_, input)| vec![0; input.len()]).collect();
        let mut parts: Vec<_> = messages
            .iter()
            .zip(&mut outputs)
            .map(|((iv, input), output)| Message { iv, input, output })
            .collect();
        let mut blocks = Blocks::default();
        let done = serve(mode, C::block_size(), &mut parts, &mut blocks, |to, from| {
            self.run(mode, to, from);
            Ok::<_, Infallible>(())
        });
        done.unwrap();
        outputs
    }
}

const KEY: [u8; 32] = *b"an AES key that protects nothing";

/// Messages of 0 to several blocks, with IVs.
fn messages(block: usize, whole: bool) -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let iv = proptest::collection::vec(any::<u8>(), block);
    let input = proptest::collection::vec(any::<u8>(), 0..block * 5).prop_map(move |mut input| {
        if whole {
            input.truncate(input.len() / block * block);
        }
        input
    });
    proptest::collection::vec((iv, input), 0..9)
}

fn ctr<C: KeyIvInit + StreamCipher>(iv: &[u8], input: &[u8]) -> Vec<u8> {
    let mut output = input.to_vec();
    C::new_from_slices(&KEY, iv).unwrap().apply_keystream(&mut output);
    output
}

proptest! {
    #[test]
    fn ecb_of_many_messages_is_ecb_of_each(messages in messages(16, true)) {
        for mode in [Mode::EcbEncrypt, Mode::EcbDecrypt] {
            let mut token = Token::<Aes256>::new(&KEY);
            let outputs = token.serve(mode, &messages);
            prop_assert!(token.calls <= 1);
            for ((_, input), output) in messages.iter().zip(outputs) {
                let mut alone = vec![0; input.len()];
                token.run(mode, input, &mut alone);
                prop_assert_eq!(output, alone);
            }
        }
    }

    #[test]
    fn ctr_of_many_messages_is_ctr_of_each_with_partial_blocks_too(messages in messages(16, false)) {
        let mut token = Token::<Aes256>::new(&KEY);
        let outputs = token.serve(Mode::Ctr { counter_bits: 128 }, &messages);
        prop_assert!(token.calls <= 1);
        for ((iv, input), output) in messages.iter().zip(&outputs) {
            prop_assert_eq!(output, &ctr::<ctr::Ctr128BE<Aes256>>(iv, input));
        }
        for ((iv, input), output) in messages.iter().zip(token.serve(Mode::Ctr { counter_bits: 32 }, &messages)) {
            // RustCrypto wraps where the engine refuses: up to there both agree.
            prop_assert_eq!(output, ctr::<ctr::Ctr32BE<Aes256>>(iv, input));
        }
    }

    #[test]
    fn cbc_of_many_messages_is_cbc_of_each_both_ways(messages in messages(16, true)) {
        let mut token = Token::<Aes256>::new(&KEY);
        let outputs = token.serve(Mode::CbcEncrypt, &messages);
        let longest = messages.iter().map(|(_, input)| input.len() / 16).max().unwrap_or(0);
        prop_assert_eq!(token.calls, longest);
        for ((iv, input), output) in messages.iter().zip(&outputs) {
            let alone = cbc::Encryptor::<Aes256>::new_from_slices(&KEY, iv).unwrap();
            prop_assert_eq!(output, &alone.encrypt_padded_vec::<NoPadding>(input));
        }
        for ((iv, input), output) in messages.iter().zip(token.serve(Mode::CbcDecrypt, &messages)) {
            let alone = cbc::Decryptor::<Aes256>::new_from_slices(&KEY, iv).unwrap();
            prop_assert_eq!(output, alone.decrypt_padded_vec::<NoPadding>(input).unwrap());
        }
    }

    #[test]
    fn triple_des_has_blocks_of_8_bytes(messages in messages(8, true)) {
        let key = &KEY[..24];
        let mut token = Token::<TdesEde3>::new(key);
        for ((iv, input), output) in messages.iter().zip(token.serve(Mode::CbcEncrypt, &messages)) {
            let alone = cbc::Encryptor::<TdesEde3>::new_from_slices(key, iv).unwrap();
            prop_assert_eq!(output, alone.encrypt_padded_vec::<NoPadding>(input));
        }
        for ((iv, input), output) in messages.iter().zip(token.serve(Mode::CbcDecrypt, &messages)) {
            let alone = cbc::Decryptor::<TdesEde3>::new_from_slices(key, iv).unwrap();
            prop_assert_eq!(output, alone.decrypt_padded_vec::<NoPadding>(input).unwrap());
        }
    }
}

#[test]
fn the_last_counter_value_is_used_and_nothing_above_the_counter_bits_moves() {
    let mut token = Token::<Aes256>::new(&KEY);
    let mut iv = vec![0xff; 16];
    iv[15] = 0xfe;
    let messages = [(iv.clone(), vec![0; 32])];
    for counter_bits in [1, 8, 128] {
        let output = token.serve(Mode::Ctr { counter_bits }, &messages).remove(0);
        let mut counters = [&iv[..], &[0xff; 16]].concat();
        token.run(Mode::EcbEncrypt, &counters.clone(), &mut counters);
        assert_eq!(output, counters, "{counter_bits}");
    }
}

#[test]
fn a_cipher_that_fails_ends_it_and_what_was_laid_out_is_wiped() {
    let mut output = [0; 16];
    let mut parts = [Message { iv: &[], input: &[7; 16], output: &mut output }];
    let mut blocks = Blocks::default();
    let done = serve(Mode::EcbEncrypt, 16, &mut parts, &mut blocks, |to, from| {
        assert_eq!(to, [7; 16]);
        from.fill(9);
        Err("no")
    });
    assert_eq!(done, Err("no"));
    assert_eq!(output, [0; 16]);
    assert!(blocks.to.is_empty() && blocks.from.is_empty());
}

#[test]
fn messages_of_nothing_need_no_call() {
    let mut token = Token::<Aes256>::new(&KEY);
    let nothing = [(vec![0; 16], Vec::new()), (vec![0; 16], Vec::new())];
    for mode in [Mode::EcbEncrypt, Mode::Ctr { counter_bits: 32 }, Mode::CbcEncrypt, Mode::CbcDecrypt] {
        assert_eq!(token.serve(mode, &nothing), [Vec::<u8>::new(), vec![]]);
        assert_eq!(mode.calls(16, nothing.iter().map(|(_, input)| input.len())), 0);
    }
    assert_eq!(token.calls, 0);
}
