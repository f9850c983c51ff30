//! The audit log of an engine: where it is kept, and who signs it.

mod recorded;

use std::sync::{Arc, Weak};
use std::time::Duration;

use cryptoki_sys as sys;
use ring::digest::{SHA256, digest};

use super::Shared;
use crate::audit::checkpoint::Signer;
use crate::audit::journal::Journal;
use crate::audit::record::Text;
use crate::audit::{Audit, AuditKey, AuditMode};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::KeyVersion;
use crate::keys::generate::KeySpec;
use crate::keys::key_config::KeyConfig;
use crate::metrics::AuditSnapshot;
use crate::operation::{ecdsa_der, spki_der};
use crate::pkcs11::Mechanism;
use crate::sync::{Condvar, Mutex};
use crate::token::facts::Curve;

pub(crate) use recorded::Recorded;

/// The name of the key that signs checkpoints: a managed one, so that every token has it. No caller gets at it.
pub(crate) const SIGNER: &str = "hsmux.audit";

/// An open audit log, and what its records say of this engine.
pub(crate) struct Book {
    pub(crate) journal: Journal,
    pub(crate) mode: AuditMode,
    /// Serial numbers, by token.
    tokens: Vec<Text>,
    /// Operations whose records are not written yet, and who waits until there are none.
    open: Mutex<usize>,
    none_open: Condvar,
}

/// How long a signature for a checkpoint may take.
const SIGN_LIMIT: Duration = Duration::from_secs(10);

impl Book {
    /// Opens the log, with the key on the tokens that signs it, which is made if there is none.
    pub(super) fn open(shared: &Arc<Shared>, settings: &Audit, room: usize) -> Result<Self> {
        let version = signing_key(shared)?;
        let public = version.facts.public.as_ref();
        let public =
            public.ok_or_else(|| Error::internal("a key of an elliptic curve without a public half"))?;
        let public_key = spki_der(public)?;
        let signer = TokenSigner { shared: Arc::downgrade(shared), version, public_key };
        let journal = Journal::open(settings, room, Some(Box::new(signer)))?;
        let tokens = shared.tokens.iter().map(|token| Text::from(token.info.serial.as_str())).collect();
        let (open, none_open) = (Mutex::new(0), Condvar::new());
        Ok(Self { journal, mode: settings.mode, tokens, open, none_open })
    }

    /// An operation begins whose record is to be written.
    pub(crate) fn enter(&self) {
        *self.open.lock() += 1;
    }

    /// Its record is on its way, or there is to be none.
    pub(crate) fn leave(&self) {
        let mut open = self.open.lock();
        *open -= 1;
        if *open == 0 {
            self.none_open.notify_all();
        }
    }

    /// Waits until callers have collected their answers, for only then are these recorded; at most until `limit`.
    pub(super) fn wait_collected(&self, limit: Time) {
        let mut open = self.open.lock();
        while *open > 0 && !self.none_open.wait_for(&mut open, now().until(limit)).timed_out() {}
    }

    pub(crate) fn token(&self, index: Option<usize>) -> Option<Text> {
        index.and_then(|index| self.tokens.get(index)).cloned()
    }

    pub(super) fn snapshot(&self) -> AuditSnapshot {
        let figures = self.journal.figures();
        let sync = |quantile| Duration::from_nanos(figures.sync_ns.value_at_quantile(quantile));
        AuditSnapshot {
            records: figures.records,
            lost: figures.lost,
            faults: figures.faults,
            is_failing: figures.is_failing,
            checkpoints: figures.checkpoints,
            checkpoints_failed: figures.checkpoints_failed,
            sync_p50: sync(0.5),
            sync_p99: sync(0.99),
        }
    }

    pub(super) fn close(&self, until: Time) {
        self.journal.close(until);
    }
}

fn signing_key(shared: &Arc<Shared>) -> Result<Arc<KeyVersion>> {
    let find = || shared.ledger.catalogue.read().by_name(SIGNER);
    if find()?.is_none() {
        let terms = shared.terms_of(SIGNER, &KeyConfig::new(KeySpec::Ec(Curve::P256)))?;
        let made = shared.create_key(terms, &mut Recorded::nowhere());
        match made {
            // Another engine has just made it, or is about to.
            Err(error) if !matches!(error.kind(), ErrorKind::KeyAmbiguous | ErrorKind::Conflict) => {
                return Err(error);
            }
            _ => shared.find_catalogue()?,
        }
    }
    let later = || Error::new(ErrorKind::Conflict, Retry::Later, Outcome::NotDone);
    let managed = find()?.ok_or_else(later)?;
    shared.primary_of(&managed)
}

/// Signs on the service session of a token, so also while no requests are taken any more.
struct TokenSigner {
    shared: Weak<Shared>,
    version: Arc<KeyVersion>,
    public_key: Vec<u8>,
}

impl Signer for TokenSigner {
    fn key(&self) -> AuditKey {
        #[expect(clippy::expect_used, reason = "the engine has written it itself, of a key on P-256")]
        AuditKey::parse(&self.public_key).expect("a public key")
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
        let gone = || Error::new(ErrorKind::Draining, Retry::Never, Outcome::NotDone);
        let shared = self.shared.upgrade().ok_or_else(gone)?;
        let text_digest = digest(&SHA256, text);
        let lost = || Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone);
        let (token, handle) = shared
            .serving()
            .find_map(|token| Some((token, self.version.handles.on(token)?)))
            .ok_or_else(lost)?;
        let pair = shared.tokens[token].consult(SIGN_LIMIT, move |session, epoch| {
            if epoch != handle.epoch {
                return Err(Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone));
            }
            let mut signature = vec![0; 2 * Curve::P256.field_len()];
            let how = Mechanism::Plain(sys::CKM_ECDSA);
            let len = session.sign(handle.object, &how, text_digest.as_ref(), &mut signature)?;
            signature.truncate(len);
            Ok(signature)
        })?;
        ecdsa_der(&pair)
    }
}
