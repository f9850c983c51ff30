//! Keys made of other keys: agreed on, wrapped, unwrapped. Rare and on the service session, beside the requests.

use std::borrow::Cow;
use std::sync::Arc;

use super::Key;
use crate::audit::record as audit;
use crate::engine::Shared;
use crate::engine::audit::Recorded;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::KeyVersion;
use crate::keys::derive::{Agreement, AgreementKdf};
use crate::keys::generate::KeySpec;
use crate::keys::listing::Listed;
use crate::keys::state::Use;
use crate::keys::wrap::{KeyWrap, WRAPPED_LEN_MAX};
use crate::pkcs11::{Mechanism, ObjectHandle, Session};
use crate::request::check_not_forked;
use crate::token::Token;
use crate::token::facts::KeyKind;
use crate::token::object::SessionObject;
use crate::token::task::Handle;

/// Of an operation or an algorithm, in the audit log.
type Name = Cow<'static, str>;

/// A key that is encrypted under another.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    bytes: Vec<u8>,
}

impl WrappedKey {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

impl AsRef<[u8]> for WrappedKey {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WrappedKey({} bytes)", self.bytes.len())
    }
}

impl Key {
    /// Agrees on a key with the holder of another key pair (ECDH, `CKM_ECDH1_DERIVE`) and derives it inside a token.
    ///
    /// `peer` is the other side's public key as an uncompressed point (SEC 1, 2.3.3: `04 || x || y`), which is
    /// checked to lie on the curve; `shared` goes into the derivation function, and must be empty for
    /// [`AgreementKdf::Raw`]. The result is a session key of one token: sensitive, not extractable, and gone when
    /// the last [`Key`] and request on it are.
    ///
    /// # Errors
    /// `KeyMismatch` if this is no key of an elliptic curve, `NotPermitted` without `CKA_DERIVE`, `InvalidInput`
    /// for a peer that is no point or a spec that is no secret key, `MechanismUnavailable`; what the token answers.
    ///
    /// # Blocking
    /// Until the token has answered: one call on its service session, and of the first key of a block cipher of its type
    /// and length a self-test ([`Builder::coalescing`](crate::Builder::coalescing)); at most a minute each.
    pub fn agree(&self, peer: &[u8], kdf: AgreementKdf, shared: &[u8], spec: KeySpec) -> Result<Self> {
        check_not_forked()?;
        self.check_use(Use::Agree)?;
        let facts = &self.version().facts;
        let KeyKind::Ec(curve) = facts.kind else {
            return Err(Error::refused(ErrorKind::KeyMismatch, "a key of an elliptic curve is needed"));
        };
        permit(facts.derive, "CKA_DERIVE is not set")?;
        permit(permits_number(self, cryptoki_sys::CKM_ECDH1_DERIVE), NOT_ALLOWED)?;
        spec.secret_template()?;
        let agreement = Agreement::new(curve, kdf, shared, peer)?;
        let offers = |token: &Token| token.offers(cryptoki_sys::CKM_ECDH1_DERIVE);
        let (token, handle) = self.place(offers)?;
        let names = ("agree-ecdh".into(), kdf.name(curve).into());
        let mut record = self.begin_use(names, audit::Use::of(None, &agreement.input()))?;
        record.runs_on(token);
        let derive = move |session: &mut Session| agreement.derive(session, handle.object, spec);
        record.end(self.session_key(token, handle.epoch, spec, derive))
    }

    /// Wraps another key under this one, so that it can leave the token.
    ///
    /// # Errors
    /// `NotPermitted` without `CKA_WRAP` on this key, or if the other is not extractable; `KeyMismatch` if this is no
    /// AES key; `MechanismUnavailable` if no token holds both and has the mechanism, or is known to wrap such a key
    /// wrongly; what the token answers.
    ///
    /// # Blocking
    /// As [`Key::agree`].
    pub fn wrap(&self, how: KeyWrap, other: &Self) -> Result<WrappedKey> {
        check_not_forked()?;
        self.check_use(Use::Wrap)?;
        // What leaves the token is no key of the catalogue: those stay where they are.
        permit(other.version().tie.is_none(), "a managed key leaves no token")?;
        self.check_wrapping()?;
        permit(self.version().facts.wrap, "CKA_WRAP is not set")?;
        if !Arc::ptr_eq(&self.shared, &other.shared) {
            return Err(Error::refused(ErrorKind::InvalidInput, "the other key is one of another engine"));
        }
        let kind = other.version().facts.kind;
        // Proven: what else lies there under its name may be another key.
        let holds = |token: &Token| {
            let held = other.version().proven & (1 << token.index) != 0;
            held && how.is_right_on(token, kind)
        };
        let (token, handle, number) = self.place_wrapping(how, holds)?;
        let Some(wrapped) = other.version().handles.on(token) else {
            return Err(Error::internal("a key vanished from its token"));
        };
        if wrapped.epoch != handle.epoch {
            return Err(Error::new(ErrorKind::SessionLost, Retry::Later, Outcome::NotDone));
        }
        let (algorithm, operation, _) = how.names();
        let one = audit::Use { other: other.version().handles.name(), ..audit::Use::named(None) };
        let mut record = self.begin_use((operation.into(), algorithm.into()), one)?;
        record.runs_on(token);
        let bytes = self.shared.tokens[token].with_objects(handle.epoch, move |session| {
            let mut out = vec![0; WRAPPED_LEN_MAX];
            let how = Mechanism::Plain(number);
            let len = session.wrap(handle.object, &how, wrapped.object, &mut out)?;
            out.truncate(len);
            Ok(out)
        });
        record.end(bytes).map(|bytes| WrappedKey { bytes })
    }

    /// Unwraps a secret key that was wrapped under this one; the result lives as that of [`Key::agree`].
    ///
    /// # Errors
    /// `NotPermitted` without `CKA_UNWRAP`; `KeyMismatch` if this is no AES key; `InvalidInput` for a spec that is no
    /// secret key, or bytes that have not the length of such a key when it is wrapped; `DecryptFailed` for bytes that
    /// are no key wrapped under this one; `MechanismUnavailable`; what the token answers.
    ///
    /// # Blocking
    /// As [`Key::agree`].
    pub fn unwrap(&self, how: KeyWrap, wrapped: &[u8], spec: KeySpec) -> Result<Self> {
        check_not_forked()?;
        self.check_use(Use::Unwrap)?;
        self.check_wrapping()?;
        permit(self.version().facts.unwrap, "CKA_UNWRAP is not set")?;
        // PKCS#11 2.40, C_UnwrapKey: CKA_VALUE_LEN "MUST NOT be specified" where the mechanism says the length.
        let mut template = spec.secret_template()?;
        template.retain(|attribute| !matches!(attribute, cryptoki::object::Attribute::ValueLen(_)));
        if usize::try_from(spec.secret_len()?).map(|len| how.wrapped_len(len)) != Ok(wrapped.len()) {
            let text = "the bytes have not the length of such a key when it is wrapped";
            return Err(Error::refused(ErrorKind::InvalidInput, text));
        }
        let (token, handle, number) = self.place_wrapping(how, |_| true)?;
        let (algorithm, _, operation) = how.names();
        let one = audit::Use::of(None, wrapped);
        let mut record = self.begin_use((operation.into(), algorithm.into()), one)?;
        record.runs_on(token);
        let wrapped = wrapped.to_vec();
        record.end(self.session_key(token, handle.epoch, spec, move |session| {
            Ok(session.unwrap(handle.object, &Mechanism::Plain(number), &wrapped, &template)?)
        }))
    }

    /// Begins the record of a use that is no request.
    fn begin_use(&self, names: (Name, Name), one: audit::Use) -> Result<Recorded> {
        let label = self.label.as_deref().cloned().unwrap_or_default();
        self.shared.begin_use(self.version(), names, &label, one)
    }

    /// What the catalogue says of a managed key, for uses that are no requests.
    fn check_use(&self, to: Use) -> Result<()> {
        let tie = self.version().tie.as_ref();
        tie.map_or(Ok(()), |tie| tie.check_use(to, self.tenant, self.at_risk))
    }

    fn check_wrapping(&self) -> Result<()> {
        match self.version().facts.kind {
            KeyKind::Aes { .. } => Ok(()),
            _ => Err(Error::refused(ErrorKind::KeyMismatch, "an AES key is needed")),
        }
    }

    /// The token that wraps or unwraps, this key's object there, and the mechanism that it has and the key allows.
    fn place_wrapping(&self, how: KeyWrap, fits: impl Fn(&Token) -> bool) -> Result<(usize, Handle, u64)> {
        let number_on = |token: &Token| how.numbers_on(token).find(|&number| permits_number(self, number));
        match self.place(|token| fits(token) && number_on(token).is_some()) {
            Ok((token, handle)) => {
                let gone = || Error::internal("a mechanism vanished from its token");
                let number = number_on(&self.shared.tokens[token]).ok_or_else(gone)?;
                Ok((token, handle, number))
            }
            // Some token would do it, if the key allowed that.
            Err(_) if self.place(|token| fits(token) && how.numbers_on(token).next().is_some()).is_ok() => {
                Err(Error::refused(ErrorKind::NotPermitted, NOT_ALLOWED))
            }
            Err(error) => Err(error),
        }
    }

    /// The first token in service with the key that fits, and its object there.
    fn place(&self, fits: impl Fn(&Token) -> bool) -> Result<(usize, Handle)> {
        let serving = self.shared.core.dispatch.serving();
        let held = crate::schedule::dispatch::tokens(self.version().proven & serving);
        held.filter(|&index| fits(&self.shared.tokens[index]))
            .find_map(|index| Some((index, self.version().handles.on(index)?)))
            .ok_or_else(|| {
                let text = "asked of every token in service that holds the key";
                Error::refused(ErrorKind::MechanismUnavailable, text)
            })
    }

    /// Has a session object made of objects of an epoch, and reads what it is.
    fn session_key(
        &self,
        token: usize,
        epoch: u64,
        spec: KeySpec,
        make: impl FnOnce(&mut Session) -> Result<ObjectHandle> + Send + 'static,
    ) -> Result<Self> {
        let holder = Arc::clone(&self.shared.tokens[token]);
        let (mut listed, owned) = self.shared.tokens[token].with_objects(epoch, move |session| {
            let object = make(session)?;
            // Owned from the first: if nobody waits for the answer any more, or something is wrong with the key.
            let owned = SessionObject::new(holder, epoch, object);
            Ok((Listed::read(session, object, epoch)?, owned))
        })?;
        let shared: Arc<Shared> = Arc::clone(&self.shared);
        listed.facts.kind = spec.sized(listed.facts.kind);
        let version = Arc::new(KeyVersion::of_session(token, &shared.tokens, listed, owned));
        if !spec.is_kind(version.facts.kind) {
            return Err(Error::refused(ErrorKind::KeyMismatch, "the token made a key of another length"));
        }
        Ok(Self::new(&shared, version))
    }
}

fn permit(allowed: bool, otherwise: &'static str) -> Result<()> {
    if allowed { Ok(()) } else { Err(Error::refused(ErrorKind::NotPermitted, otherwise)) }
}

fn permits_number(key: &Key, number: u64) -> bool {
    let allowed = key.version().facts.allowed.as_deref().unwrap_or_default();
    allowed.is_empty() || allowed.contains(&number)
}

const NOT_ALLOWED: &str = "the mechanism is not among its CKA_ALLOWED_MECHANISMS";
