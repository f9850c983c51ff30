//! Throw-away SoftHSM2 tokens, with keys whose material is known, for tests and demonstrations.
//!
//! Each process gets one token directory of its own, for SoftHSM2 2.6.1 loses tokens when two processes start
//! on one. Each test takes a token of its own from it: [`SoftHsm::for_tests`]. Programs start theirs with
//! [`SoftHsm::start`], examples with [`ExampleHsm::open`].
//!
//! ```
//! use softhsm_fixtures::{SoftHsm, TestKey};
//!
//! if let Some(softhsm) = SoftHsm::for_tests() {
//!     let tokens = [softhsm.unique_token(), softhsm.unique_token()];
//!     tokens.iter().for_each(|token| token.import("card-signing", TestKey::P256));
//!     // What software checks the tokens' signatures with:
//!     assert_eq!(TestKey::P256.public_key_der().map(<[u8]>::len), Some(91));
//! }
//! ```

mod custom;
mod directory;
mod error;
mod example;
mod generate;
mod keys;
#[cfg(unix)]
mod remote;
mod softhsm;
mod token;

pub use custom::{CurveName, CustomKey, KeyUse, RsaNumbers};
pub use error::Error;
pub use example::ExampleHsm;
pub use generate::PairKind;
pub use keys::TestKey;
#[cfg(unix)]
pub use remote::RemoteModule;
pub use softhsm::{SoftHsm, PIN, TOKENS};
pub use token::TestToken;
