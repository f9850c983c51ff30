//! Keys: what the tokens hold, under which name, and whether it is the same key everywhere.

pub(crate) mod canary;
pub(crate) mod catalogue;
pub(crate) mod copies;
pub(crate) mod derive;
pub(crate) mod generate;
pub(crate) mod hex;
pub(crate) mod identity;
pub(crate) mod key_config;
pub(crate) mod key_id;
pub(crate) mod known;
pub(crate) mod listing;
pub(crate) mod managed;
pub(crate) mod name;
mod self_test;
mod spec_name;
pub(crate) mod state;
pub(crate) mod transport;
pub(crate) mod wrap;

use std::sync::Arc;

use crate::coalesce::Family;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::copies::Copies;
use crate::keys::generate::KeySpec;
use crate::keys::identity::{Proof, Proven};
use crate::keys::known::Objects;
use crate::keys::listing::{Listed, Listing};
use crate::keys::managed::Tie;
use crate::keys::name::KeyName;
use crate::operation::allows;
use crate::pkcs11::{Direction, Session};
use crate::sync::{AtomicBool, AtomicU64, Ordering, RwLock};
use crate::token::Token;
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::merge::Merge;
use crate::token::object::SessionObject;
use crate::token::task::{Call, Handle, Handles, Mechanism, Usage};

/// One generation of a key's material, and where it lives.
#[derive(Debug)]
pub(crate) struct KeyVersion {
    /// Unique in this process; never 0.
    pub(crate) number: u64,
    pub(crate) facts: KeyFacts,
    pub(crate) handles: Arc<Handles>,
    /// The tokens on which the key was proven to be the same: bit i is token i.
    pub(crate) proven: u64,
    /// What shows that it is this key, where something can.
    proof: Option<Proof>,
    /// Tokens that were lost when the others were asked: it is not used there. Bit i is token i.
    unasked: u64,
    /// Tokens that have come back without it. Bit i is token i.
    absent: AtomicU64,
    /// The tokens on which the key was proven to be the same and that offer a mechanism, by
    /// [`Usage`] and [`Mechanism::index`]: bit i is token i. Worked out once, because every request asks.
    eligible: [[u64; Mechanism::COUNT]; Usage::ALL.len()],
    /// The tokens on which requests may share calls, because the self-test has shown that they are answered as by
    /// themselves, by [`Family`]: bit i is token i.
    merging: [u64; Family::ALL.len()],
    /// Whether the host may do the modes of its ciphers around single blocks.
    host_modes: AtomicBool,
    /// Of a managed key: what its catalogue says of this version.
    pub(crate) tie: Option<Tie>,
}

impl KeyVersion {
    /// Proves what was found of a key on the tokens, and uses it on all that hold the same; there it may get copies.
    pub(crate) fn load(found: &Found, tokens: &[Arc<Token>], copies: Copies) -> Result<Self> {
        Self::load_vouched(found, tokens, copies, false)
    }

    /// As [`KeyVersion::load`]; where no token can show anything of the key, and somebody vouches that it is the same, it is used
    /// on all of them.
    pub(crate) fn load_vouched(
        found: &Found,
        tokens: &[Arc<Token>],
        copies: Copies,
        vouched: bool,
    ) -> Result<Self> {
        let held: Vec<_> = found.held().collect();
        let Some((_, first)) = held.first() else {
            return Err(Error::operator(ErrorKind::KeyNotFound, "it has just gone"));
        };
        let Proven { tokens: proven, unasked, proof } = identity::prove(tokens, &held, vouched)?;
        let handles = Handles::new(found.0.iter().map(|found| found.as_ref().map(Listed::handle)));
        found.uri().into_iter().for_each(|name| handles.call(name.into()));
        let version = Self { proof, unasked, ..Self::new(first.facts.clone(), handles, proven, tokens) };
        let used: Vec<_> = held.iter().copied().filter(|(index, _)| proven & (1 << index) != 0).collect();
        copies::make(copies, tokens, &used, &version.handles)?;
        Ok(version)
    }

    /// What shows that it is this key and no other, where something can.
    pub(crate) fn proof(&self) -> Option<&[u8]> {
        self.proof.as_ref().map(Proof::as_bytes)
    }

    /// Ties it to the managed key that it is a version of.
    pub(crate) fn tied(self, tie: Tie) -> Self {
        Self { tie: Some(tie), ..self }
    }

    /// The version that new work uses: this one, or what has taken its place since.
    #[inline]
    pub(crate) fn newest(self: &Arc<Self>) -> &Arc<Self> {
        let mut version = self;
        while let Some(next) = version.tie.as_ref().and_then(Tie::next) {
            version = next;
        }
        version
    }

    /// A key that lives on one token in a session, until nobody uses it any more.
    pub(crate) fn of_session(
        token: usize,
        tokens: &[Arc<Token>],
        listed: Listed,
        owned: SessionObject,
    ) -> Self {
        let by_token = (0..tokens.len()).map(|index| (index == token).then(|| listed.handle()));
        Self::new(listed.facts.clone(), Handles::owning(by_token, Some(owned)), 1 << token, tokens)
    }

    /// The tokens that can run a mechanism with this key.
    #[inline]
    pub(crate) fn eligible(&self, usage: Usage, mechanism: &Mechanism, tokens: &[Arc<Token>]) -> u64 {
        let eligible = &self.eligible[usage as usize];
        // Relaxed: who sees it late is told by the token's sessions.
        let there = !self.absent.load(Ordering::Relaxed);
        there
            & match (mechanism, mechanism.index()) {
                (Mechanism::RetailMac { tokens, .. }, Some(index)) => eligible[index] & tokens,
                (_, Some(index)) => eligible[index],
                (_, None) => {
                    offering(self.proven, tokens, |token| token.offers_for(mechanism.number(), usage))
                }
            }
    }

    /// Whether a token that has come back holds this key there. Where nothing can be shown, its attributes decide.
    ///
    /// # Errors
    /// What the token answers.
    pub(crate) fn is(&self, session: &mut Session, token: &Token, listed: &Listed) -> Result<bool> {
        let mut facts = listed.facts.clone();
        self.tie.iter().for_each(|tie| tie.spec.shape(&mut facts));
        if facts != self.facts {
            return Ok(false);
        }
        let Some(proof) = &self.proof else { return Ok(true) };
        Ok(identity::proof_by(session, token, listed)?.as_ref() == Some(proof))
    }

    /// A token has come back, with the key or without it.
    fn came_back(&self, token: usize, handle: Option<Handle>) {
        self.handles.came_back(token, handle);
        match handle {
            Some(_) => self.absent.fetch_and(!(1 << token), Ordering::Relaxed),
            None => self.absent.fetch_or(1 << token, Ordering::Relaxed),
        };
    }

    /// Whether every token that held it has come back without it.
    pub(crate) fn is_gone(&self) -> bool {
        self.proven & !self.absent.load(Ordering::Relaxed) == 0
    }

    /// Whether the token was lost when the others were asked: who asks for the key from now on has it used there too.
    fn is_unasked(&self, token: usize) -> bool {
        self.unasked & (1 << token) != 0
    }

    /// Lets the host do modes around single blocks.
    pub(crate) fn allow_host_modes(&self) -> Result<()> {
        if ecb(self.facts.kind).is_none() {
            return Err(Error::refused(ErrorKind::KeyMismatch, "it is no key of a block cipher"));
        }
        if !may_use_ecb(&self.facts) {
            let text = "the key may not be used by ECB, which modes on the host are made of";
            return Err(Error::refused(ErrorKind::NotPermitted, text));
        }
        self.host_modes.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// How a call under this key can be merged with its like on any of these tokens.
    pub(crate) fn merge(&self, call: &Call, mask: u64) -> Option<Merge> {
        let merge = Merge::of(call, self.host_modes.load(Ordering::Relaxed))?;
        let (usage, permitted) = match merge.direction() {
            Direction::Encrypt => (Usage::Encrypt, self.facts.encrypt),
            Direction::Decrypt => (Usage::Decrypt, self.facts.decrypt),
        };
        let offering = self.eligible[usage as usize][merge.ecb().index()?];
        let tokens = offering & self.merging[merge.family() as usize];
        (permitted && mask & !tokens == 0).then_some(merge)
    }

    /// Blocks for the self-test of coalescing, if this is the first key of its kind.
    fn new(facts: KeyFacts, handles: Handles, proven: u64, tokens: &[Arc<Token>]) -> Self {
        let eligible = Usage::ALL.map(|usage| {
            std::array::from_fn(|index| offering(proven, tokens, |token| token.has(index, usage, facts.kind)))
        });
        let merging = self_test::passed_by(&facts, proven, tokens);
        handles.describe(facts.clone());
        Self {
            number: next_number(),
            merging,
            facts,
            handles: Arc::new(handles),
            proven,
            proof: None,
            unasked: 0,
            absent: AtomicU64::new(0),
            eligible,
            host_modes: AtomicBool::new(false),
            tie: None,
        }
    }
}

/// The mechanism of single blocks, of a key of a block cipher.
const fn ecb(kind: KeyKind) -> Option<Mechanism> {
    match kind {
        KeyKind::Aes { .. } => Some(Mechanism::AesEcb),
        KeyKind::TripleDes { .. } => Some(Mechanism::TripleDesEcb),
        _ => None,
    }
}

fn may_use_ecb(facts: &KeyFacts) -> bool {
    (facts.encrypt || facts.decrypt) && ecb(facts.kind).is_some_and(|ecb| allows(facts, &ecb))
}

/// Those tokens of a mask that offer something.
fn offering(mask: u64, tokens: &[Arc<Token>], offers: impl Fn(&Token) -> bool) -> u64 {
    let held = crate::schedule::dispatch::tokens(mask);
    held.filter(|&index| tokens.get(index).is_some_and(|token| offers(token)))
        .fold(0, |mask, index| mask | 1 << index)
}

/// What the tokens hold under a name, by index of the token.
pub(crate) struct Found(Vec<Option<Listed>>);

impl Found {
    /// Looks a key up on the tokens where its name may be looked for.
    pub(crate) fn find(
        name: &KeyName<'_>,
        tokens: &[Arc<Token>],
        listings: &[RwLock<Listing>],
    ) -> Result<Self> {
        let of = |listing: &Listing| Ok(listing.find(name)?.cloned());
        look_up(name, tokens, listings, of).collect::<Result<_>>().map(Self)
    }

    /// As [`Found::find`], on one token only, in every instance of the module. `token` is its index in the first one.
    pub(crate) fn find_on(
        name: &KeyName<'_>,
        token: usize,
        tokens: &[Arc<Token>],
        listings: &[RwLock<Listing>],
    ) -> Result<Self> {
        let of = |(held, listing): (&Arc<Token>, &RwLock<Listing>)| match held.first == token {
            true => Ok(listing.read().find(name)?.cloned()),
            false => Ok(None),
        };
        tokens.iter().zip(listings).map(of).collect::<Result<_>>().map(Self)
    }

    /// As keys of this spec, which is known of them.
    pub(crate) fn shaped(mut self, spec: KeySpec) -> Self {
        self.0.iter_mut().flatten().for_each(|listed| spec.shape(&mut listed.facts));
        self
    }

    /// What was found, with the index of its token.
    pub(crate) fn held(&self) -> impl Iterator<Item = (usize, &Listed)> {
        self.0.iter().enumerate().filter_map(|(index, found)| Some((index, found.as_ref()?)))
    }

    /// Whether what several tokens hold is one key.
    ///
    /// # Errors
    /// `KeyAmbiguous` if two differ, or if nothing shows that they do not.
    pub(crate) fn check_same(&self, tokens: &[Arc<Token>]) -> Result<()> {
        let held: Vec<_> = self.held().collect();
        let proven = identity::prove(tokens, &held, false)?.tokens;
        match held.iter().find(|(index, _)| proven & (1 << index) == 0) {
            None => Ok(()),
            Some((index, _)) => {
                let text = format!("nothing shows that the key of token {index} is that of the other tokens");
                Err(Error::operator(ErrorKind::KeyAmbiguous, text))
            }
        }
    }

    /// What the objects are called, on the first token that holds some.
    pub(crate) fn uri(&self) -> Option<String> {
        self.held().next().and_then(|(_, listed)| listed.uri())
    }

    pub(crate) fn objects(&self) -> Objects {
        self.0.iter().map(|found| found.as_ref().map(Listed::handle)).collect()
    }
}

impl Objects {
    /// As [`Found::find`], for whoever has asked before and needs no more.
    pub(crate) fn find(
        name: &KeyName<'_>,
        tokens: &[Arc<Token>],
        listings: &[RwLock<Listing>],
    ) -> Result<Self> {
        let of = |listing: &Listing| Ok(listing.find(name)?.map(Listed::handle));
        let objects = look_up(name, tokens, listings, of).collect::<Result<Self>>()?;
        if !objects.is_empty() {
            return Ok(objects);
        }
        let named: Vec<_> = crate::token::named(tokens).collect();
        let asked = named.iter().filter(|token| name.fits_token(&token.info)).count();
        let of_all = if asked < named.len() { format!("{asked} of ") } else { String::new() };
        Err(Error::operator(ErrorKind::KeyNotFound, format!("asked of {of_all}{} tokens", named.len())))
    }
}

fn look_up<T>(
    name: &KeyName<'_>,
    tokens: &[Arc<Token>],
    listings: &[RwLock<Listing>],
    of: impl Fn(&Listing) -> Result<Option<T>>,
) -> impl Iterator<Item = Result<Option<T>>> {
    tokens.iter().zip(listings).map(move |(token, listing)| match name.fits_token(&token.info) {
        true => of(&listing.read()),
        false => Ok(None),
    })
}

/// Numbers of key versions begin at 1: 0 stands for no key.
fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}
