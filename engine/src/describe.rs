//! What a module, its tokens and their keys say of themselves, for people.

use std::path::Path;
use std::sync::Arc;

use cryptoki::mechanism::MechanismType;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::keys::listing::Listed;
use crate::pkcs11::{Library, MechanismInfo, SessionCounts, Slot, TokenClock, TokenFlags, TokenInfo};
use crate::request::check_not_forked;
use crate::token::facts::{KeyFlags, KeyKind};
use crate::token::name::TokenName;
use crate::token::{Token, instances_of, named};

/// A module as it describes itself (`C_GetInfo`), with the tokens in its slots.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModuleDescription {
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub description: String,
    /// Its own version, major and minor.
    pub version: (u8, u8),
    /// The version of PKCS#11 that it follows.
    pub cryptoki: (u8, u8),
    /// Initialised tokens; slots without one are left out.
    pub tokens: Vec<TokenDescription>,
    /// Tokens that are not initialised. Of mechanisms and label they may tell nothing.
    pub uninitialised: Vec<TokenDescription>,
    /// Slots whose token does not say what it is or what it can do, by number. Such a token is in neither list: whoever takes
    /// the only one listed for the only one there is may be wrong.
    pub unreadable: Vec<(u64, Error)>,
}

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
    /// The number of its slot, which may be another when the module is initialised again.
    pub slot: u64,
    /// Its flags when it was described.
    pub flags: TokenFlags,
    /// Its sessions when it was described, by all that it counts.
    pub sessions: SessionCounts,
    /// Its clock, if it says that it has one (`CKF_CLOCK_ON_TOKEN`).
    pub clock: Option<TokenClock>,
    /// Most read/write sessions; `None` if unlimited or not told.
    pub sessions_max: Option<u64>,
    /// What it offers.
    pub mechanisms: Vec<MechanismDescription>,
    /// Instances of the module through which the engine uses it; 1 where no engine was asked.
    pub instances: usize,
    /// What names are compared with.
    info: TokenInfo,
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

/// A private or secret key on one token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyDescription {
    /// Label of the token, which another may have too.
    pub token: String,
    /// Serial number of the token.
    pub token_serial: String,
    /// The key's label: its name in this crate.
    pub label: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// Type and size, as in `RSA-2048`, `EC P-256`, `AES-256`, `HMAC-256`; sizes in bits.
    pub kind: String,
    /// What it may do: of sign, verify, encrypt, decrypt.
    pub uses: Vec<&'static str>,
    /// How well it is guarded.
    pub flags: KeyFlags,
    /// `CKA_ALLOWED_MECHANISMS` by name; empty if all are allowed.
    pub allowed: Vec<String>,
    /// Whether the token shows its public half.
    pub has_public: bool,
}

impl TokenDescription {
    /// Whether a name is this token's: its label, its serial number, or a PKCS#11 URI that selects it, as in
    /// [`Builder::tokens`](crate::Builder::tokens). What a URI says of the module is not looked at.
    ///
    /// # Errors
    /// `Configuration` if the name begins with `pkcs11:` and is no URI.
    pub fn is_named(&self, name: &str) -> Result<bool> {
        Ok(TokenName::parse(name)?.fits(&self.info))
    }
}

impl MechanismDescription {
    /// The name in the standard, or the number if this crate knows none.
    #[must_use]
    pub fn name(&self) -> String {
        mechanism_name(self.number)
    }
}

/// Mechanisms that this crate uses and `cryptoki` has no names for.
const OWN_NAMES: [(u64, &str); 3] = [
    (cryptoki_sys::CKM_DES3_CBC, "CKM_DES3_CBC"),
    (cryptoki_sys::CKM_DES3_CBC_PAD, "CKM_DES3_CBC_PAD"),
    (cryptoki_sys::CKM_DES3_CMAC, "CKM_DES3_CMAC"),
];

pub(crate) fn mechanism_name(number: u64) -> String {
    let own = OWN_NAMES.iter().find(|(of, _)| *of == number).map(|(_, name)| (*name).to_owned());
    let known = || MechanismType::try_from(number).ok().map(|mechanism| mechanism.to_string());
    own.or_else(known).unwrap_or_else(|| format!("{number:#010x}"))
}

/// Loads a module and describes it and its tokens; nothing is logged in to.
///
/// # Errors
/// `Module`, or what the module answers when it is loaded and asked which slots there are. What a slot answers is no error: see
/// [`ModuleDescription::unreadable`].
///
/// # Blocking
/// As long as the module takes.
pub fn inspect(module: &Path, init_args: Option<&str>) -> Result<ModuleDescription> {
    let library = Library::load(module, init_args, None)?;
    let info = library.info()?;
    let mut described = ModuleDescription {
        manufacturer: info.manufacturer,
        description: info.description,
        version: info.version,
        cryptoki: info.cryptoki,
        tokens: Vec::new(),
        uninitialised: Vec::new(),
        unreadable: Vec::new(),
    };
    for slot in library.slots()? {
        match inspect_slot(&library, slot) {
            Ok(token) if token.flags.initialised => described.tokens.push(token),
            Ok(token) => described.uninitialised.push(token),
            // A slot that cannot say what it holds says nothing of the others.
            Err(error) => described.unreadable.push((slot.number(), error)),
        }
    }
    Ok(described)
}

fn inspect_slot(library: &Library, slot: Slot) -> Result<TokenDescription> {
    let token = library.token_info(slot)?;
    let mechanisms = match library.mechanisms(slot) {
        // Some modules list none before the token is initialised.
        Err(_) if !TokenFlags::of(token.flags).initialised => Vec::new(),
        mechanisms => mechanisms?,
    };
    Ok(token_description(&token, &mechanisms, 1))
}

impl Engine {
    /// Describes the tokens, as they were when the engine was built: each once, however many instances of the module
    /// there are.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenDescription> {
        let all = &self.shared.tokens;
        let describe = |token: &Arc<Token>| {
            let instances = instances_of(all, token.index).count_ones() as usize;
            token_description(&token.info, &token.mechanisms, instances)
        };
        named(all).map(describe).collect()
    }

    /// Describes every private and secret key of every token, by token and label, as they were listed last: when the
    /// engine was built or has changed them, or since then for [`Engine::key`]; with several instances, as the first one
    /// lists them. In a forked child there are none.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyDescription> {
        let mut keys = Vec::new();
        if check_not_forked().is_err() {
            return keys;
        }
        for (token, listing) in named(&self.shared.tokens).zip(&self.shared.listings) {
            let listing = listing.read();
            keys.extend(listing.keys().map(|(label, key)| key_description(token, label, key)));
        }
        keys.sort_by(|one, other| {
            let of_tokens = (&one.token, &one.token_serial).cmp(&(&other.token, &other.token_serial));
            of_tokens.then_with(|| (&one.label, &one.id).cmp(&(&other.label, &other.id)))
        });
        keys
    }
}

fn token_description(info: &TokenInfo, mechanisms: &[MechanismInfo], instances: usize) -> TokenDescription {
    let mechanism = |info: &MechanismInfo| MechanismDescription {
        number: info.mechanism,
        key_min: info.key_min,
        key_max: info.key_max,
        flags: info.flags,
    };
    TokenDescription {
        label: info.label.clone(),
        serial: info.serial.clone(),
        manufacturer: info.manufacturer.clone(),
        model: info.model.clone(),
        slot: info.slot.number(),
        flags: TokenFlags::of(info.flags),
        sessions: info.sessions,
        clock: info.clock,
        sessions_max: info.sessions_max,
        mechanisms: mechanisms.iter().map(mechanism).collect(),
        instances,
        info: info.clone(),
    }
}

/// Type and size of a key, for people.
pub(crate) fn kind_name(kind: KeyKind) -> String {
    match kind {
        KeyKind::Rsa { bits } => format!("RSA-{bits}"),
        KeyKind::Ec(curve) => format!("EC P-{}", curve.bits()),
        KeyKind::Ed25519 => "Ed25519".to_owned(),
        KeyKind::TripleDes { len } => format!("3DES-{}", len / 8 * 56),
        KeyKind::Aes { len } => format!("AES-{}", len * 8),
        KeyKind::Generic { len } => format!("HMAC-{}", len * 8),
        KeyKind::Other => "other".to_owned(),
    }
}

fn key_description(token: &Token, label: &[u8], key: &Listed) -> KeyDescription {
    let facts = &key.facts;
    let kind = kind_name(facts.kind);
    let uses = [
        ("sign", facts.sign),
        ("verify", facts.verify),
        ("encrypt", facts.encrypt),
        ("decrypt", facts.decrypt),
    ];
    KeyDescription {
        token: token.info.label.clone(),
        token_serial: token.info.serial.clone(),
        label: String::from_utf8_lossy(label).into_owned(),
        id: key.id.clone(),
        kind,
        uses: uses.into_iter().filter_map(|(name, may)| may.then_some(name)).collect(),
        flags: key.flags,
        allowed: facts.allowed.iter().flatten().map(|&number| mechanism_name(number)).collect(),
        has_public: facts.public.is_some(),
    }
}
