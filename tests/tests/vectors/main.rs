//! Every operation on SoftHSM2 against known answers and against independent software, alone and under load.
//!
//! `tests/VECTORS.md` lists the files with their counts; each test looks its row up there, so that a count that
//! changes is noticed. With `--nocapture` the rows are printed.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

mod agreement;
mod bad_input;
mod ciphers;
mod curves;
mod independent;
mod known;
mod load;
mod macs;
mod rsa_decryption;
mod rsa_signatures;
mod software;
mod support;
mod wrapping;
