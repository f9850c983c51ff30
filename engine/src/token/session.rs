//! A logged-in session that runs tasks.

mod message;

use cryptoki_sys as sys;

use crate::coalesce::Blocks;
use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::pkcs11::{self, Fault, ObjectHandle, SessionFate};
use crate::sync::Arc;
use crate::token::epoch::{Epoch, Loss};
use crate::token::hold::{Ecb, Hold, Holds, When};
use crate::token::message::{Messages, Of};
use crate::token::task::{Call, DES_BLOCK_LEN, GCM_TAG_LEN, Handles, Iv, Mechanism};
use crate::token::verify::{Check, Checks};
use zeroize::Zeroizing;

/// A session of a token that is logged in, for the epoch in which it was opened.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) raw: pkcs11::Session,
    token: usize,
    pub(super) epoch: Arc<Epoch>,
    pub(super) hold: Hold,
    /// Memory for merged calls.
    pub(super) blocks: Blocks,
    messages: Messages,
    pub(super) check: Check,
}

/// What becomes of the session after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It can go on.
    Keep,
    /// It is dead, or an operation may be active in it.
    Close,
    /// It is not there any more, so that it cannot be closed either.
    Abandon,
    /// Its token is gone, or the login to it.
    TokenDown(Loss),
    /// Its token has given a wrong answer: all of it is to be taken out of service.
    Eject,
}

impl Fate {
    /// Whether the session, its token or the login is not there any more.
    pub(crate) const fn is_loss(self) -> bool {
        matches!(self, Self::Abandon | Self::TokenDown(_))
    }
}

/// A task that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) fate: Fate,
}

impl Session {
    pub(crate) fn new(
        raw: pkcs11::Session,
        token: usize,
        epoch: Arc<Epoch>,
        messages: Messages,
        holds: Arc<Holds>,
        checks: Arc<Checks>,
    ) -> Self {
        let (hold, blocks, check) = (Hold::new(holds), Blocks::default(), Check::new(checks));
        Self { raw, token, epoch, hold, blocks, messages, check }
    }

    /// Runs a call into `output`, which has the length that the operation planned; returns how much of it was
    /// written. `handles` says where the key is; calls without a key have none.
    #[inline]
    pub(crate) fn run(
        &mut self,
        call: &Call,
        handles: Option<&Handles>,
        input: &[u8],
        output: &mut [u8],
        when: When,
    ) -> Result<usize, Failed> {
        self.check_epoch()?;
        if let (Call::Encrypt(Mechanism::AesGcm { .. }), Some(handles)) = (call, handles) {
            // Each attempt has an IV of its own.
            handles.count_message();
        }
        let written = match self.run_once(call, handles, input, output, when) {
            // A copy that has gone, before anything ran: the key itself may be there.
            Err(Failed { error, fate: Fate::Keep })
                if error.kind() == ErrorKind::KeyNotFound
                    && handles.is_some_and(|handles| handles.set_copy(self.token, None)) =>
            {
                self.run_once(call, handles, input, output, when)?
            }
            result => result?,
        };
        if self.check.is_on() {
            self.check_output(call, handles, input, output, written)?;
        }
        Ok(written)
    }

    /// Whether nothing can be done with it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.epoch.is_over()
    }

    /// In which it was opened.
    pub(crate) const fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    /// It is not there any more.
    pub(crate) fn abandon(&mut self) {
        self.raw.abandon();
    }

    /// Of an epoch that is over nothing is used: the session's number may be another's.
    #[inline]
    pub(super) fn check_epoch(&self) -> Result<(), Failed> {
        if self.epoch.is_over() { Err(lost()) } else { Ok(()) }
    }

    /// Ends whatever is held open.
    pub(crate) fn let_go_all(&mut self) -> Result<(), Failed> {
        self.interrupt_messages()?;
        self.let_go()
    }

    /// Something else than a message comes next.
    pub(super) fn interrupt_messages(&mut self) -> Result<(), Failed> {
        self.messages.interrupt();
        self.end_messages()
    }

    #[inline]
    fn run_once(
        &mut self,
        call: &Call,
        handles: Option<&Handles>,
        input: &[u8],
        output: &mut [u8],
        when: When,
    ) -> Result<usize, Failed> {
        if let Call::Encrypt(mechanism) | Call::Decrypt(mechanism) = call
            && mechanism.is_ecb()
        {
            let ecb = Ecb::of(call, mechanism.number(), self.key(handles)?);
            self.interrupt_messages()?;
            return self.ecb(ecb, input, output, when);
        }
        if let Some((direction, given)) = self.as_message(call, input) {
            let key = self.key(handles)?;
            self.let_go()?;
            if let Some(result) = self.message(Of { key, direction }, given, output) {
                return result;
            }
        } else if !matches!(call, Call::Random) {
            // Random bytes take no operation: they leave open what is.
            self.interrupt_messages()?;
        }
        let (function, mechanism): (Function, _) = match call {
            // The only one that may run beside an open operation.
            Call::Random => return Ok(self.raw.random(output).map(|()| output.len())?),
            Call::Sign(mechanism) => (pkcs11::Session::sign, mechanism),
            Call::Encrypt(mechanism) => (pkcs11::Session::encrypt, mechanism),
            Call::Decrypt(mechanism) => (pkcs11::Session::decrypt, mechanism),
        };
        self.let_go()?;
        let key = self.key(handles)?;
        match mechanism {
            Mechanism::RetailMac { first, .. } => self.retail_mac(key, first, input, output),
            mechanism => match mechanism.iv() {
                Some(Iv::Drawn) if matches!(call, Call::Encrypt(_)) => {
                    self.encrypt_drawn(key, mechanism, input, output)
                }
                Some(Iv::Drawn) => Err(internal("decryption without an IV")),
                Some(Iv::Given(iv)) => with_iv(mechanism, iv, |how| {
                    function(&mut self.raw, key, how, input, output).map_err(Failed::from)
                }),
                None => match function(&mut self.raw, key, &without_iv(mechanism), input, output) {
                    Err(fault) if fault.is(sys::CKR_BUFFER_TOO_SMALL) && mechanism.index().is_none() => {
                        Err(output_too_long(fault))
                    }
                    result => Ok(result?),
                },
            },
        }
    }

    /// Draws the IV from the kernel just before the call, anew for every attempt. It goes in front of the
    /// ciphertext.
    fn encrypt_drawn(
        &mut self,
        key: ObjectHandle,
        mechanism: &Mechanism,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, Failed> {
        let (len, random) = mechanism.drawn_iv_len();
        if output.len() < len {
            return Err(internal("no room for an IV"));
        }
        let (iv, body) = output.split_at_mut(len);
        let (drawn, counter) = iv.split_at_mut(random);
        draw(drawn)?;
        counter.fill(0);
        let written = with_iv(mechanism, iv, |how| Ok(self.raw.encrypt(key, how, input, body)?))?;
        Ok(len + written)
    }

    /// ISO/IEC 9797-1, MAC algorithm 3, over whole blocks: all but the last are chained under single DES, which
    /// triple DES with three equal keys is; the last goes through `E(D(E(x)))`, which is triple DES with the two.
    pub(super) fn retail_mac(
        &mut self,
        key: ObjectHandle,
        first: &Handles,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, Failed> {
        let Some((front, last)) = input.split_last_chunk::<DES_BLOCK_LEN>() else {
            return Err(internal("a retail MAC without a block"));
        };
        let mut block = Zeroizing::new(*last);
        if !front.is_empty() {
            let first = self.key(Some(first))?;
            let mut chained = Zeroizing::new(vec![0; front.len()]);
            let how = pkcs11::Mechanism::Bytes(sys::CKM_DES3_CBC, &[0; DES_BLOCK_LEN]);
            let written = self.raw.encrypt(first, &how, front, &mut chained)?;
            let state = chained.last_chunk::<DES_BLOCK_LEN>().filter(|_| written == front.len());
            let Some(state) = state else {
                if self.check.is_on() {
                    return Err(self.wrong_len());
                }
                let error = Error::new(ErrorKind::Device, Retry::Now, Outcome::Done)
                    .because("the module wrote another length than it was given to encrypt");
                return Err(Failed { error, fate: Fate::Keep });
            };
            block.iter_mut().zip(state).for_each(|(byte, state)| *byte ^= state);
        }
        let how = pkcs11::Mechanism::Plain(sys::CKM_DES3_ECB);
        Ok(self.raw.encrypt(key, &how, &*block, output)?)
    }

    #[inline]
    pub(super) fn key(&self, handles: Option<&Handles>) -> Result<ObjectHandle, Failed> {
        match handles.and_then(|handles| handles.used_on(self.token)) {
            Some(handle) if handle.epoch == self.epoch.number => Ok(handle.object),
            Some(handle) if handle.is_absent() => Err(Failed {
                error: Error::new(ErrorKind::KeyNotFound, Retry::Now, Outcome::NotDone)
                    .because("the token came back without it"),
                fate: Fate::Keep,
            }),
            // It changes just now.
            Some(handle) if handle.is_torn() => Err(Failed { fate: Fate::Keep, ..lost() }),
            // Of a key that was lost with its epoch. The session is none the worse for it.
            Some(handle) if handle.epoch < self.epoch.number => Err(Failed {
                error: Error::new(ErrorKind::KeyNotFound, Retry::Never, Outcome::NotDone)
                    .because("it was lost with the token, or the login to it"),
                fate: Fate::Keep,
            }),
            Some(_) => Err(lost()),
            None => Err(internal("a request reached a token without its key")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.epoch.is_gone() {
            self.raw.abandon();
        }
    }
}

fn lost() -> Failed {
    let error = Error::new(ErrorKind::SessionLost, Retry::Now, Outcome::NotDone);
    Failed { error, fate: Fate::Close }
}

/// Random bytes of the kernel.
pub(super) fn draw(bytes: &mut [u8]) -> Result<(), Failed> {
    getrandom::fill(bytes).map_err(|error| {
        let text = format!("the kernel gives no random bytes: {error}");
        let error = Error::new(ErrorKind::Device, Retry::Later, Outcome::NotDone).because(text);
        Failed { error, fate: Fate::Keep }
    })
}

/// `sign`, `encrypt` or `decrypt` of a session.
type Function =
    fn(&mut pkcs11::Session, ObjectHandle, &pkcs11::Mechanism<'_>, &[u8], &mut [u8]) -> Result<usize, Fault>;

/// A mechanism with this IV.
pub(super) fn with_iv<R>(
    mechanism: &Mechanism,
    iv: &[u8],
    run: impl FnOnce(&pkcs11::Mechanism<'_>) -> Result<R, Failed>,
) -> Result<R, Failed> {
    match mechanism {
        Mechanism::AesGcm { aad, .. } => {
            let aad = aad.as_deref().unwrap_or_default();
            run(&pkcs11::Mechanism::Gcm { iv, aad, tag_len: GCM_TAG_LEN })
        }
        Mechanism::AesCtr { counter_bits, .. } => match iv.try_into() {
            Ok(block) => run(&pkcs11::Mechanism::Ctr { block, counter_bits: *counter_bits }),
            Err(_) => Err(internal("a counter block of another length")),
        },
        mechanism => run(&pkcs11::Mechanism::Bytes(mechanism.number(), iv)),
    }
}

#[inline]
pub(crate) fn without_iv(mechanism: &Mechanism) -> pkcs11::Mechanism<'_> {
    match mechanism {
        Mechanism::RsaPss { hash, salt_len } | Mechanism::RsaPssHashing { hash, salt_len } => {
            let (mechanism, (hash, mgf)) = (mechanism.number(), hash.numbers());
            pkcs11::Mechanism::Pss { mechanism, hash, mgf, salt_len: *salt_len }
        }
        Mechanism::RsaOaep { hash, label } => {
            let (hash, mgf) = hash.numbers();
            pkcs11::Mechanism::Oaep { hash, mgf, label: label.as_deref().unwrap_or_default() }
        }
        Mechanism::Raw { number, parameter } => pkcs11::Mechanism::Bytes(*number, parameter),
        mechanism => pkcs11::Mechanism::Plain(mechanism.number()),
    }
}

impl From<Fault> for Fate {
    fn from(fault: Fault) -> Self {
        match fault.class().session {
            SessionFate::Keep => Self::Keep,
            SessionFate::Close => Self::Close,
            SessionFate::Abandon => Self::Abandon,
            SessionFate::LoggedOut => Self::TokenDown(Loss::Login),
            SessionFate::TokenDown => Self::TokenDown(Loss::Token),
        }
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { error: fault.into(), fate: fault.into() }
    }
}

/// Of a raw mechanism, whose output the caller has bounded. The session goes as the code says: some modules keep the
/// operation.
fn output_too_long(fault: Fault) -> Failed {
    let error = Error::refused(ErrorKind::InvalidInput, "the output is longer than RawMechanism::output_max");
    Failed { error, ..Failed::from(fault) }
}

fn internal(text: &'static str) -> Failed {
    Failed { error: Error::internal(text), fate: Fate::Keep }
}
