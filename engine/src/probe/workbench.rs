//! Where a probe works: two sessions of one token, and keys that go with them.

use std::time::Duration;

use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki_sys as sys;

use super::found::{MechanismFound, works};
use super::trials::{self, Trial, TrialKey};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::generate::{Generated, KeySpec, generate_in_session, guarded};
use crate::keys::listing::Listed;
use crate::pkcs11::{
    self, Fault, Function, Library, MechanismInfo, ObjectHandle, Session, SessionFate, Slot,
};
use crate::token::copies::SESSION_LABEL;
use crate::token::facts::KeyFacts;
use crate::token::session::without_iv;
use crate::token::task::{Mechanism, Usage};

pub(super) struct Workbench {
    pub(super) library: Library,
    pub(super) slot: Slot,
    pub(super) mechanisms: Vec<MechanismInfo>,
    /// Does the work. After a failure another takes its place, for the operation may be active still; none, while the token
    /// refuses it.
    work: Result<Session, Fault>,
    keys: Vec<(TrialKey, Result<Made, Fault>)>,
    /// What else is to be destroyed in the end.
    objects: Vec<ObjectHandle>,
    /// When the probe is to be done.
    pub(super) until: Time,
    /// Whether a stage has left something out for want of time.
    pub(super) is_cut: bool,
    /// Keeps the login, and the keys: they go when the session that made them is closed (PKCS#11 2.40, 4.4). The last field,
    /// so that it closes last.
    pub(super) holder: Session,
}

/// Sessions that the workbench itself has open.
pub(super) const OWN_SESSIONS: usize = 2;

/// A key that was made for trials.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) key: ObjectHandle,
    pub(super) public: Option<ObjectHandle>,
    pub(super) facts: KeyFacts,
}

/// A signature or MAC that works, to be made again and again.
pub(super) struct Signer {
    pub(super) operation: &'static str,
    pub(super) key: ObjectHandle,
    pub(super) mechanism: Mechanism,
    pub(super) input: Vec<u8>,
}

/// Longest output of a trial: as long as the longest modulus that is in use.
pub(super) const OUTPUT_MAX: usize = 2_048;

impl Workbench {
    pub(super) fn new(
        library: Library,
        slot: Slot,
        mechanisms: Vec<MechanismInfo>,
        (holder, work): (Session, Session),
        until: Time,
    ) -> Self {
        Self {
            library,
            slot,
            mechanisms,
            work: Ok(work),
            keys: Vec::new(),
            objects: Vec::new(),
            until,
            is_cut: false,
            holder,
        }
    }

    /// Time that is left for a stage that may take so long.
    pub(super) fn within(&self, limit: Duration) -> Time {
        now().after(limit).min(self.until)
    }

    /// The session that works.
    ///
    /// # Errors
    /// What the token answered when it refused one.
    pub(super) fn work(&mut self) -> Result<&mut Session, Fault> {
        if self.work.is_err() {
            self.work = self.library.open(self.slot);
        }
        self.work.as_mut().map_err(|fault| *fault)
    }

    /// Puts another session in the place of the one that works.
    ///
    /// # Errors
    /// If the token is gone. If it only has no session just now, whatever needs one fails.
    pub(super) fn renew(&mut self) -> Result<(), Fault> {
        // Closed before another is opened: there may be no more than these.
        self.work = Err(Fault::new(Function::OpenSession, sys::CKR_SESSION_COUNT));
        self.work = self.library.open(self.slot).or_else(|_| self.library.open(self.slot));
        match &self.work {
            Err(fault) if is_end(*fault) => Err(*fault),
            _ => Ok(()),
        }
    }

    /// As [`renew`](Self::renew), after this fault of that session: what is not there any more is not closed.
    pub(super) fn renew_after(&mut self, fault: Fault) -> Result<(), Fault> {
        if let Ok(work) = &mut self.work
            && fault.class().session == SessionFate::Abandon
        {
            work.abandon();
        }
        self.renew()
    }

    /// As [`renew_after`](Self::renew_after), of what the engine made of a fault.
    pub(super) fn renew_after_error(&mut self, error: &Error) -> Result<(), Fault> {
        if let Ok(work) = &mut self.work
            && error.kind() == ErrorKind::SessionLost
        {
            work.abandon();
        }
        self.renew()
    }

    /// Whether the token lists a mechanism for this use. One without any use counts for all, as it does for engines.
    pub(super) fn lists(&self, mechanism: u64, usage: Usage) -> bool {
        let all = Usage::ALL.into_iter().fold(0, |flags, usage| flags | usage.flag());
        let mut listed = self.mechanisms.iter().filter(|info| info.mechanism == mechanism);
        listed.any(|info| info.flags & all == 0 || info.flags & usage.flag() != 0)
    }

    /// The key for trials, which is made when it is first asked for.
    pub(super) fn key(&mut self, of: TrialKey) -> Result<Made, Fault> {
        if let Some((_, made)) = self.keys.iter().find(|(key, _)| *key == of) {
            return made.clone();
        }
        let made = self.make(of);
        self.keys.push((of, made.clone()));
        made
    }

    fn make(&mut self, of: TrialKey) -> Result<Made, Fault> {
        let generated = match of.spec() {
            Some(spec) => generate_in_session(&mut self.holder, spec, &of.id()),
            None => {
                let how = pkcs11::Mechanism::Plain(sys::CKM_DES3_KEY_GEN);
                let template = secret(of);
                let key = self.holder.generate_key(&how, &template);
                key.map(|key| Generated { key, public: None })
            }
        };
        // Some devices make no secret keys by themselves, as the TPM does not.
        let generated = generated.or_else(|fault| match value_len(of) {
            Some(len) => self.create(of, &vec![0xa7; len]).map_err(|_| fault),
            None => Err(fault),
        })?;
        let Generated { key, public } = generated;
        self.objects.extend(public.into_iter().chain([key]));
        let listed = match public {
            Some(public) => Listed::read_pair(&mut self.holder, key, public, 0),
            None => Listed::read(&mut self.holder, key, 0),
        };
        // What it does not show of itself is not needed to use it.
        let facts = listed.map_or_else(|_| unread(of), |listed| listed.facts);
        Ok(Made { key, public, facts })
    }

    /// A key of known value.
    pub(super) fn known(&mut self, of: TrialKey, value: &[u8]) -> Result<ObjectHandle, Fault> {
        let Generated { key, .. } = self.create(of, value)?;
        self.objects.push(key);
        Ok(key)
    }

    fn create(&mut self, of: TrialKey, value: &[u8]) -> Result<Generated, Fault> {
        let mut template = secret(of);
        let kind = match of {
            TrialKey::Hmac => KeyType::GENERIC_SECRET,
            TrialKey::TripleDes | TrialKey::TripleDesMac => KeyType::DES3,
            _ => KeyType::AES,
        };
        template.extend([Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(kind)]);
        template.push(Attribute::Value(value.to_vec()));
        self.holder.create(&template).map(|key| Generated { key, public: None })
    }

    /// The first of these operations that was found to work.
    pub(super) fn signer(&mut self, of: &[&str], found: &[MechanismFound]) -> Option<Signer> {
        of.iter().find(|name| works(found, name)).and_then(|name| self.signer_of(trials::named(name)?))
    }

    /// What runs such a trial again and again. None if its key could not be made.
    pub(super) fn signer_of(&mut self, trial: &Trial) -> Option<Signer> {
        let key = self.key(trial.key).ok()?.key;
        let mechanism = trial.mechanism();
        let input = super::runs::input(&mechanism);
        Some(Signer { operation: trial.operation, key, mechanism, input })
    }
}

impl Drop for Workbench {
    fn drop(&mut self) {
        for object in self.objects.drain(..) {
            // It goes with its session in any case.
            let _destroyed = self.holder.destroy(object);
        }
    }
}

impl Signer {
    pub(super) fn sign(&self, session: &mut Session, out: &mut [u8]) -> Result<usize, Fault> {
        session.sign(self.key, &without_iv(&self.mechanism), &self.input, out)
    }
}

/// What a secret key that no spec describes, or of which the value is given, is made with.
fn secret(of: TrialKey) -> Vec<Attribute> {
    let signs = matches!(of, TrialKey::Hmac | TrialKey::AesMac | TrialKey::TripleDesMac);
    let mut template = vec![
        Attribute::Token(false),
        Attribute::Label(SESSION_LABEL.to_vec()),
        Attribute::Id(of.id()),
        Attribute::Sign(signs),
        Attribute::Verify(signs),
        Attribute::Encrypt(!signs),
        Attribute::Decrypt(!signs),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    template.extend(guarded());
    template
}

fn value_len(of: TrialKey) -> Option<usize> {
    match of.spec() {
        None => Some(24),
        Some(spec) => KeySpec::secret_len(spec).ok().and_then(|len| usize::try_from(len).ok()),
    }
}

/// The facts of a key that shows none.
fn unread(of: TrialKey) -> KeyFacts {
    KeyFacts {
        kind: of.kind(),
        sign: true,
        verify: true,
        encrypt: true,
        decrypt: true,
        allowed: None,
        derive: false,
        wrap: false,
        unwrap: false,
        always_authenticate: false,
        public: None,
    }
}

/// Whether a fault says that the token is gone, or the login, so that there is nothing more to find out.
pub(super) fn is_end(fault: Fault) -> bool {
    matches!(Error::from(fault).kind(), ErrorKind::TokenLost | ErrorKind::Forked)
}
