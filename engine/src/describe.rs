//! What the tokens of an engine are and offer, for people.

use crate::engine::Engine;

/// A token as it describes itself (`C_GetTokenInfo`, `C_GetMechanismInfo`).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenDescription {
    /// Label.
    pub label: String,
    /// Serial number.
    pub serial: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Most read/write sessions; `None` if unlimited or not told.
    pub sessions_max: Option<u64>,
    /// What it offers.
    pub mechanisms: Vec<MechanismDescription>,
}

/// A mechanism that a token offers.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MechanismDescription {
    /// Its `CKM_` number.
    pub number: u64,
    /// Smallest key, in bits or bytes as the standard says for the mechanism.
    pub key_min: u64,
    /// Largest key.
    pub key_max: u64,
    /// `CKF_` flags: what it can be used for.
    pub flags: u64,
}

impl Engine {
    /// Describes the tokens, as they were when the engine was built.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenDescription> {
        self.shared.tokens.iter().map(|token| describe(token)).collect()
    }
}

fn describe(token: &crate::token::Token) -> TokenDescription {
    let mechanism = |info: &crate::pkcs11::MechanismInfo| MechanismDescription {
        number: info.mechanism,
        key_min: info.key_min,
        key_max: info.key_max,
        flags: info.flags,
    };
    TokenDescription {
        label: token.info.label.clone(),
        serial: token.info.serial.clone(),
        manufacturer: token.info.manufacturer.clone(),
        model: token.info.model.clone(),
        sessions_max: token.info.sessions_max,
        mechanisms: token.mechanisms.iter().map(mechanism).collect(),
    }
}
