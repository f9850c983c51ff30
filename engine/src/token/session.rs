//! A logged-in session that runs tasks.

use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::pkcs11::{self, Fault, ObjectHandle, SessionFate};
use crate::token::task::{Call, GCM_IV_LEN, GCM_TAG_LEN, Handles, Hash, Iv, Mechanism};

/// A session of a token that is logged in, for the epoch in which it was opened.
#[derive(Debug)]
pub(crate) struct Session {
    raw: pkcs11::Session,
    token: usize,
    epoch: u64,
}

/// What becomes of the session after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It can go on.
    Keep,
    /// It is dead, or an operation may be active in it.
    Close,
    /// Its token is gone.
    TokenDown,
}

/// A task that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) fate: Fate,
}

impl Session {
    pub(crate) const fn new(raw: pkcs11::Session, token: usize, epoch: u64) -> Self {
        Self { raw, token, epoch }
    }

    /// Runs a call into `output`, which has the length that the operation planned; returns how much of it was
    /// written. `handles` says where the key is; calls without a key have none.
    pub(crate) fn run(
        &mut self,
        call: &Call,
        handles: Option<&Handles>,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, Failed> {
        let (function, mechanism): (Function, _) = match call {
            Call::Random => return Ok(self.raw.random(output).map(|()| output.len())?),
            Call::Sign(mechanism) => (pkcs11::Session::sign, mechanism),
            Call::Encrypt(mechanism) => (pkcs11::Session::encrypt, mechanism),
            Call::Decrypt(mechanism) => (pkcs11::Session::decrypt, mechanism),
        };
        let key = self.key(handles)?;
        match mechanism {
            Mechanism::AesGcm { iv, aad } => {
                let aad = aad.as_deref().unwrap_or_default();
                match iv {
                    Iv::Given(iv) => {
                        let how = pkcs11::Mechanism::Gcm { iv, aad, tag_len: GCM_TAG_LEN };
                        Ok(function(&mut self.raw, key, &how, input, output)?)
                    }
                    Iv::Drawn if matches!(call, Call::Encrypt(_)) => {
                        self.encrypt_gcm(key, aad, input, output)
                    }
                    Iv::Drawn => Err(internal("decryption without an IV")),
                }
            }
            mechanism => Ok(function(&mut self.raw, key, &plain(mechanism), input, output)?),
        }
    }

    /// Draws the IV from the kernel just before the call, anew for every attempt: 96 random bits (SP 800-38D,
    /// 8.2.2). It goes in front of the ciphertext.
    fn encrypt_gcm(
        &mut self,
        key: ObjectHandle,
        aad: &[u8],
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, Failed> {
        let Some((iv, body)) = output.split_first_chunk_mut::<GCM_IV_LEN>() else {
            return Err(internal("no room for an IV"));
        };
        getrandom::fill(iv).map_err(|error| {
            let text = format!("the kernel gives no random bytes: {error}");
            let error = Error::new(ErrorKind::Device, Retry::Later, Outcome::NotDone).because(text);
            Failed { error, fate: Fate::Keep }
        })?;
        let how = pkcs11::Mechanism::Gcm { iv, aad, tag_len: GCM_TAG_LEN };
        let written = self.raw.encrypt(key, &how, input, body)?;
        Ok(GCM_IV_LEN + written)
    }

    fn key(&self, handles: Option<&Handles>) -> Result<ObjectHandle, Failed> {
        match handles.and_then(|handles| handles.on(self.token)) {
            Some(handle) if handle.epoch == self.epoch => Ok(handle.object),
            Some(_) => Err(Failed {
                error: Error::new(ErrorKind::SessionLost, Retry::Now, Outcome::NotDone),
                fate: Fate::Close,
            }),
            None => Err(internal("a request reached a token without its key")),
        }
    }
}

/// `sign`, `encrypt` or `decrypt` of a session.
type Function =
    fn(&mut pkcs11::Session, ObjectHandle, &pkcs11::Mechanism<'_>, &[u8], &mut [u8]) -> Result<usize, Fault>;

fn plain(mechanism: &Mechanism) -> pkcs11::Mechanism<'static> {
    match *mechanism {
        Mechanism::RsaPss { hash, salt_len } => {
            let (hash, mgf) = match hash {
                Hash::Sha256 => (sys::CKM_SHA256, sys::CKG_MGF1_SHA256),
                Hash::Sha384 => (sys::CKM_SHA384, sys::CKG_MGF1_SHA384),
                Hash::Sha512 => (sys::CKM_SHA512, sys::CKG_MGF1_SHA512),
            };
            pkcs11::Mechanism::Pss { hash, mgf, salt_len }
        }
        ref mechanism => pkcs11::Mechanism::Plain(mechanism.mechanism_type().into()),
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        let fate = match fault.class().session {
            SessionFate::Keep => Fate::Keep,
            SessionFate::Close => Fate::Close,
            SessionFate::TokenDown => Fate::TokenDown,
        };
        Self { error: fault.into(), fate }
    }
}

fn internal(text: &'static str) -> Failed {
    Failed { error: Error::internal(text), fate: Fate::Keep }
}
