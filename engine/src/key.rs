//! Keys, as callers hold them: each method makes a request and does nothing yet.

mod message;
mod stream;
mod transport;

use std::borrow::Cow;
use std::sync::Arc;

use crate::engine::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyVersion;
use crate::keys::key_id::KeyId;
use crate::operation::{
    Ask, Cipher, Decrypt, Encrypt, FirstKey, MacPadding, RetailMac, Sign, SignAlgorithm, Verify, allows,
    ciphertext, plaintext, signature, spki_der, verdict,
};
use crate::request::{Item, Label, Many, Request, RequestId};
use crate::token::facts::KeyKind;
use crate::token::task::{Iv, Mechanism};

pub use message::DataKeys;
pub use stream::SignStream;
pub use transport::WrappedKey;

/// The input of what many requests have in common.
const NOTHING: &[u8] = &[];

/// A key of the engine, by name. Cheap to clone.
#[derive(Clone)]
pub struct Key {
    pub(crate) shared: Arc<Shared>,
    version: Arc<KeyVersion>,
    /// Of a managed key: this version and no later one.
    is_pinned: bool,
    at_risk: bool,
    tenant: u64,
    /// What the audit log is to call what is asked by it, unless a request says otherwise.
    label: Option<Arc<Label>>,
}

impl Key {
    pub(crate) fn new(shared: &Arc<Shared>, version: Arc<KeyVersion>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared, version, is_pinned: false, at_risk: false, tenant: 0, label: None }
    }

    /// The version that requests use now.
    #[inline]
    pub(crate) fn version(&self) -> &Arc<KeyVersion> {
        if self.is_pinned { &self.version } else { self.version.newest() }
    }

    /// Whether both are the same generation of the same key on the same tokens of one engine: then their requests
    /// share queues and are served together.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.version().number == other.version().number
    }

    /// Lets the host do CTR and CBC for this key around single blocks that the token enciphers, so that requests that
    /// wait for it share calls: on SoftHSM2 more than ten times as many a second (16 bytes, 256 in flight), and on a
    /// network HSM as many as fit a call.
    /// For as long as the engine knows the key, for everybody who holds it.
    ///
    /// What leaves the token is the cipher's output on counter blocks and on ciphertexts, from which nothing else can
    /// be made than from CTR and CBC themselves. But the mode is then this process's work: not for where only a
    /// validated module may encrypt ([`Builder::validated_only`](crate::Builder::validated_only)).
    ///
    /// A mode that the token has not shown to be the same either way is left to it
    /// ([`Builder::coalescing`](crate::Builder::coalescing)).
    ///
    /// # Errors
    /// `KeyMismatch` if it is no key of AES or triple DES; `NotPermitted` if it may not be used by the ECB mechanism, or
    /// if only the module may do modes.
    pub fn with_host_modes(self) -> Result<Self> {
        if self.shared.validated_only {
            let text = "the engine is built with `validated_only`: no mode may be done on the host";
            return Err(Error::refused(ErrorKind::NotPermitted, text));
        }
        if self.version().tie.as_ref().is_some_and(|tie| !tie.has_host_modes) {
            let text = "the managed key was made without host modes";
            return Err(Error::refused(ErrorKind::NotPermitted, text));
        }
        self.version().allow_host_modes()?;
        Ok(self)
    }

    /// This version of a managed key and no later one, as for what an older one has signed.
    ///
    /// # Errors
    /// `KeyNotFound` if the key is not managed, or has no such version.
    ///
    /// # Blocking
    /// As [`Engine::key`](crate::Engine::key), the first time that a version is asked for.
    pub fn version_numbered(&self, number: u32) -> Result<Self> {
        let unknown = || Error::refused(ErrorKind::KeyNotFound, "it is no managed key");
        let tie = self.version.tie.as_ref().ok_or_else(unknown)?;
        let version = self.shared.version_by_id(&tie.id, number)?;
        Ok(Self { version, is_pinned: true, ..self.clone() })
    }

    /// The number of the version that requests use now; none of a key that is not managed.
    #[must_use]
    pub fn version_number(&self) -> Option<u32> {
        self.version().tie.as_ref().map(|tie| tie.version)
    }

    /// The identifier of a managed key.
    #[must_use]
    pub fn id(&self) -> Option<&KeyId> {
        self.version.tie.as_ref().map(|tie| &tie.id)
    }

    /// Takes the risk that a compromised key is: it verifies and decrypts then, as if it were deactivated.
    #[must_use]
    pub fn at_risk(mut self) -> Self {
        self.at_risk = true;
        self
    }

    /// On whose behalf the key is used: requests begin with this [tenant](Request::tenant). A tenant's own key is found by no
    /// other.
    #[must_use]
    pub fn for_tenant(mut self, tenant: u64) -> Self {
        self.tenant = tenant;
        self
    }

    /// Who uses the key, for the audit log: requests begin with this [caller](Request::caller), and what is no request, such as
    /// [`Key::agree`] and [`Key::wrap`], is recorded with it. It says nothing of keys that are made by this one.
    #[must_use]
    pub fn for_caller(mut self, label: &str) -> Self {
        self.label_mut().caller = Some(label.into());
        self
    }

    /// What the key is used for, for the audit log: requests begin with this [id](Request::request_id), and what is no request
    /// is recorded with it.
    ///
    /// ```no_run
    /// # fn main() -> hsmux::Result<()> {
    /// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
    /// # let (ours, theirs) = (engine.key("ours")?, [4; 65]);
    /// use hsmux::{AgreementKdf, KeySpec};
    /// let ours = ours.for_caller("terminal 12").for_request(4711);
    /// let session = ours.agree(&theirs, AgreementKdf::Raw, b"", KeySpec::Aes(32))?;
    /// # let _ = session;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_request(mut self, id: impl Into<RequestId>) -> Self {
        self.label_mut().id = Some(id.into());
        self
    }

    fn label_mut(&mut self) -> &mut Label {
        Arc::make_mut(self.label.get_or_insert_default())
    }

    /// The name of an algorithm, where anybody wants to know: a key that is not permitted for all, or the audit log. Empty else.
    #[inline]
    fn names(&self, name: impl FnOnce() -> &'static str) -> &'static str {
        let is_wanted = self.shared.book.get().is_some()
            || self.version().tie.as_ref().is_some_and(|tie| tie.is_restricted());
        if is_wanted { name() } else { "" }
    }

    /// Signs a message, or makes its MAC.
    pub fn sign<'a>(
        &'a self,
        how: impl Into<SignAlgorithm>,
        message: impl Into<Cow<'a, [u8]>>,
    ) -> Request<'a, Sign> {
        let how = how.into();
        let named = self.names(|| how.name());
        self.request(Ask::sign(how), message, signature, named)
    }

    /// Signs a digest that the caller has computed.
    pub fn sign_digest<'a>(
        &'a self,
        how: impl Into<SignAlgorithm>,
        digest: impl Into<Cow<'a, [u8]>>,
    ) -> Request<'a, Sign> {
        let how = how.into();
        let named = self.names(|| how.name());
        self.request(Ask::sign_digest(how), digest, signature, named)
    }

    /// Verifies the signature of a digest that the caller has computed.
    pub fn verify_digest<'a>(
        &'a self,
        how: impl Into<SignAlgorithm>,
        digest: impl Into<Cow<'a, [u8]>>,
        signature: &[u8],
    ) -> Request<'a, Verify> {
        let how = how.into();
        let named = self.names(|| how.name());
        self.request(Ask::verify_digest(how, signature), digest, verdict, named)
    }

    /// Verifies a signature on the host, or a MAC by making it again.
    pub fn verify<'a>(
        &'a self,
        how: impl Into<SignAlgorithm>,
        message: impl Into<Cow<'a, [u8]>>,
        signature: &[u8],
    ) -> Request<'a, Verify> {
        let how = how.into();
        let named = self.names(|| how.name());
        self.request(Ask::verify(how, signature), message, verdict, named)
    }

    /// Encrypts.
    pub fn encrypt<'a>(
        &'a self,
        how: impl Into<Cipher>,
        plain: impl Into<Cow<'a, [u8]>>,
    ) -> Request<'a, Encrypt> {
        let how = how.into();
        let named = self.names(|| how.name());
        self.request(Ask::encrypt(how), plain, ciphertext, named)
    }

    /// Decrypts.
    pub fn decrypt<'a>(
        &'a self,
        how: impl Into<Cipher>,
        cipher: impl Into<Cow<'a, [u8]>>,
    ) -> Request<'a, Decrypt> {
        let how = how.into();
        let named = self.names(|| how.name());
        self.request(Ask::decrypt(how), cipher, plaintext, named)
    }

    /// The public key as SubjectPublicKeyInfo in DER (RFC 5280, 4.1.2.7).
    ///
    /// # Errors
    /// `KeyMismatch` if the key has no public half, or the token does not show it.
    pub fn public_key_der(&self) -> Result<Vec<u8>> {
        match &self.version().facts.public {
            Some(public) => spki_der(public),
            None => Err(Error::refused(ErrorKind::KeyMismatch, "no public key is known")),
        }
    }

    /// Signs many messages, or makes their MACs.
    pub fn sign_many<'a, I: Into<Cow<'a, [u8]>>>(
        &'a self,
        how: impl Into<SignAlgorithm>,
        messages: impl IntoIterator<Item = I>,
    ) -> Many<'a, Sign> {
        Many::new(self.sign(how, NOTHING), messages.into_iter().map(Item::alike))
    }

    /// Verifies many signatures or MACs, each with its message.
    pub fn verify_many<'a, I: Into<Cow<'a, [u8]>>, S: AsRef<[u8]>>(
        &'a self,
        how: impl Into<SignAlgorithm>,
        signed: impl IntoIterator<Item = (I, S)>,
    ) -> Many<'a, Verify> {
        let how = how.into();
        let verify =
            |(message, signature): (I, S)| Item::of(self.verify(how.clone(), message, signature.as_ref()));
        Many::new(self.verify(how.clone(), NOTHING, NOTHING), signed.into_iter().map(verify))
    }

    /// Encrypts many messages: with the same additional data, and each under an IV that the engine draws.
    ///
    /// All fail with `InvalidInput` if `how` gives an IV and there are several: SP 800-38D, 8, demands that no
    /// IV is used twice with one key.
    pub fn encrypt_many<'a, I: Into<Cow<'a, [u8]>>>(
        &'a self,
        how: impl Into<Cipher>,
        plains: impl IntoIterator<Item = I>,
    ) -> Many<'a, Encrypt> {
        let how = how.into();
        let gives_iv = how.gives_iv();
        let many = Many::new(self.encrypt(how, NOTHING), plains.into_iter().map(Item::alike));
        if gives_iv && many.len() > 1 {
            let text = "one IV for several messages";
            return many.refuse(Error::refused(ErrorKind::InvalidInput, text));
        }
        many
    }

    /// Decrypts many ciphertexts.
    pub fn decrypt_many<'a, I: Into<Cow<'a, [u8]>>>(
        &'a self,
        how: impl Into<Cipher>,
        ciphers: impl IntoIterator<Item = I>,
    ) -> Many<'a, Decrypt> {
        Many::new(self.decrypt(how, NOTHING), ciphers.into_iter().map(Item::alike))
    }

    fn request<'a, O: crate::Operation>(
        &'a self,
        mut ask: Ask,
        input: impl Into<Cow<'a, [u8]>>,
        build: fn(&Ask, Vec<u8>) -> Result<O::Output>,
        named: &'static str,
    ) -> Request<'a, O> {
        let (version, tokens) = (self.version(), &self.shared.tokens);
        ask.choose(|usage, mechanism| {
            version.eligible(usage, mechanism, tokens) != 0 && allows(&version.facts, mechanism)
        });
        let request = Request::new(&self.shared, Some(version), ask, input.into().into(), build);
        let request = request.tenant(self.tenant).at_risk(self.at_risk).named(named);
        match &self.label {
            Some(label) => request.labelled(label),
            None => request,
        }
    }
}

impl RetailMac {
    /// The retail MAC under the key that is asked, `K1 || K2 || K1`, with `first`, `K1 || K1 || K1`.
    ///
    /// # Errors
    /// `KeyMismatch` if `first` is no key of triple DES; `NotPermitted` if it may not encrypt, or not by
    /// `CKM_DES3_CBC`.
    pub fn new(first: &Key, padding: MacPadding) -> Result<Self> {
        if first.version().tie.is_some() {
            let text = "a managed key is no companion of another in a retail MAC";
            return Err(Error::refused(ErrorKind::NotPermitted, text));
        }
        let facts = &first.version().facts;
        if !matches!(facts.kind, KeyKind::TripleDes { .. }) {
            return Err(Error::refused(ErrorKind::KeyMismatch, "the first key is no key of triple DES"));
        }
        let chain = Mechanism::TripleDesCbc(Iv::Drawn);
        if !facts.encrypt || !allows(facts, &chain) {
            let text = "the first key may not encrypt by CKM_DES3_CBC";
            return Err(Error::refused(ErrorKind::NotPermitted, text));
        }
        let (handles, tokens) = (Arc::clone(&first.version().handles), first.version().proven);
        Ok(Self { first: FirstKey { handles, tokens, engine: first.shared.number }, padding })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kind", &self.version().facts.kind).finish_non_exhaustive()
    }
}
