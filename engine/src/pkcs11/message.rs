//! Messages of AES-GCM: any number under one Init (PKCS#11 3.0, 5.9 and 5.11), each with its own IV, associated data and
//! tag.

use cryptoki_sys as sys;

use crate::pkcs11::codes::{Code, Fault};
use crate::pkcs11::function::Function;
use crate::pkcs11::library::{to_ulong, to_usize};
use crate::pkcs11::mechanism::pointer;
use crate::pkcs11::parts::Direction;
use crate::pkcs11::session::{ObjectHandle, Session};

/// Length of the IVs that go this way: modules are told it by Init.
pub(crate) const MESSAGE_IV_LEN: usize = 12;

/// Length of the tags.
const TAG_LEN: usize = 16;

/// One message, without its text.
pub(crate) struct Message<'a> {
    pub(crate) iv: &'a [u8; MESSAGE_IV_LEN],
    pub(crate) aad: &'a [u8],
    /// Written by encryption, read by decryption.
    pub(crate) tag: &'a mut [u8; TAG_LEN],
}

/// What Init was given, in place for as long as messages may come: modules keep the pointer.
pub(super) struct Parameter {
    inner: sys::CK_GCM_MESSAGE_PARAMS,
    iv: [u8; MESSAGE_IV_LEN],
    tag: [u8; TAG_LEN],
}

// SAFETY: its pointers lead into itself, and it is used only with its session, by one thread at a time.
unsafe impl Send for Parameter {}

/// `C_EncryptMessage` and `C_DecryptMessage`.
type RunMessage = unsafe extern "C" fn(
    sys::CK_SESSION_HANDLE,
    *mut std::ffi::c_void,
    sys::CK_ULONG,
    *mut sys::CK_BYTE,
    sys::CK_ULONG,
    *mut sys::CK_BYTE,
    sys::CK_ULONG,
    *mut sys::CK_BYTE,
    *mut sys::CK_ULONG,
) -> sys::CK_RV;

impl Direction {
    const fn message_functions(self) -> [Function; 3] {
        match self {
            Self::Encrypt => {
                [Function::MessageEncryptInit, Function::EncryptMessage, Function::MessageEncryptFinal]
            }
            Self::Decrypt => {
                [Function::MessageDecryptInit, Function::DecryptMessage, Function::MessageDecryptFinal]
            }
        }
    }

    /// The flag of a mechanism that can be used so.
    pub(crate) const fn message_flag(self) -> sys::CK_FLAGS {
        match self {
            Self::Encrypt => sys::CKF_MESSAGE_ENCRYPT,
            Self::Decrypt => sys::CKF_MESSAGE_DECRYPT,
        }
    }
}

impl Session {
    /// `C_MessageEncryptInit` or `C_MessageDecryptInit`. Until the end, the session does nothing else with a key.
    pub(crate) fn begin_messages(&mut self, direction: Direction, key: ObjectHandle) -> Result<(), Fault> {
        let [name, ..] = direction.message_functions();
        let init = self.find_function_3(name, |list| match direction {
            Direction::Encrypt => list.C_MessageEncryptInit,
            Direction::Decrypt => list.C_MessageDecryptInit,
        })?;
        let parameter = self.parameter.insert(Parameter::boxed());
        let mut mechanism = sys::CK_MECHANISM {
            mechanism: sys::CKM_AES_GCM,
            pParameter: (&raw mut parameter.inner).cast(),
            ulParameterLen: to_ulong(size_of::<sys::CK_GCM_MESSAGE_PARAMS>()),
        };
        // SAFETY: the mechanism outlives the call, which reads it; its parameter stays until the messages have ended or
        // the session is closed.
        let begun = self.check(name, unsafe { init(self.handle, &raw mut mechanism, key.number()) });
        if begun.is_err() {
            self.parameter = None;
        }
        begun
    }

    /// `C_EncryptMessage` or `C_DecryptMessage`; returns the length of what was written, which is without the tag.
    pub(crate) fn message(
        &mut self,
        direction: Direction,
        message: Message<'_>,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let [_, name, _] = direction.message_functions();
        let run: RunMessage = self.find_function_3(name, |list| match direction {
            Direction::Encrypt => list.C_EncryptMessage,
            Direction::Decrypt => list.C_DecryptMessage,
        })?;
        let Message { iv, aad, tag } = message;
        let mut copy = *iv;
        let mut parameter = of(&mut copy, tag);
        let (parameter, parameter_len) = (&raw mut parameter, to_ulong(size_of_val(&parameter)));
        let (data, data_len) = (data.as_ptr().cast_mut(), to_ulong(data.len()));
        let (aad, aad_len) = (pointer(aad), to_ulong(aad.len()));
        let (out, mut len) = ((out.as_mut_ptr(), out.len()), to_ulong(out.len()));
        // SAFETY: the parameter and what it points to outlive the call, associated data and data are only read, and
        // `out` has room for `len`.
        let code = unsafe {
            run(
                self.handle,
                parameter.cast(),
                parameter_len,
                aad,
                aad_len,
                data,
                data_len,
                out.0,
                &raw mut len,
            )
        };
        self.check(name, code)?;
        if copy != *iv {
            // As for `C_Encrypt`: an IV that nobody asked for would be lost.
            return Err(Fault::of(name, Code::IvReplaced));
        }
        // A module that claims to have written more than it was given room for is not believed.
        Ok(to_usize(len).min(out.1))
    }

    /// `C_MessageEncryptFinal` or `C_MessageDecryptFinal`.
    pub(crate) fn end_messages(&mut self, direction: Direction) -> Result<(), Fault> {
        let [_, _, name] = direction.message_functions();
        let finish = self.find_function_3(name, |list| match direction {
            Direction::Encrypt => list.C_MessageEncryptFinal,
            Direction::Decrypt => list.C_MessageDecryptFinal,
        })?;
        // SAFETY: a plain call.
        let ended = self.check(name, unsafe { finish(self.handle) });
        if ended.is_ok() {
            self.parameter = None;
        }
        ended
    }
}

impl Parameter {
    fn boxed() -> Box<Self> {
        let mut this = Box::new(Self {
            inner: sys::CK_GCM_MESSAGE_PARAMS::default(),
            iv: [0; MESSAGE_IV_LEN],
            tag: [0; TAG_LEN],
        });
        let Self { inner, iv, tag } = &mut *this;
        *inner = of(iv, tag);
        this
    }
}

/// Parameters by which the module takes the IV as it is.
fn of(iv: &mut [u8; MESSAGE_IV_LEN], tag: &mut [u8; TAG_LEN]) -> sys::CK_GCM_MESSAGE_PARAMS {
    sys::CK_GCM_MESSAGE_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: to_ulong(MESSAGE_IV_LEN),
        // None, as nothing is generated: NSS 3.87 answers CKR_ARGUMENTS_BAD to 96.
        ulIvFixedBits: 0,
        ivGenerator: sys::CKG_NO_GENERATE,
        pTag: tag.as_mut_ptr(),
        ulTagBits: to_ulong(TAG_LEN * 8),
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").finish_non_exhaustive()
    }
}
