//! Calls that a probe makes to see how a module behaves: apart from each other, with too little room, with an IV that
//! the module may write over. What serves requests makes none of them.

use cryptoki_sys as sys;

use crate::pkcs11::Fault;
use crate::pkcs11::function::Function;
use crate::pkcs11::library::{Library, Slot, check, to_ulong, to_usize};
use crate::pkcs11::mechanism::{Mechanism, pointer};
use crate::pkcs11::session::{Init, ObjectHandle, Run, Session};

/// Bytes that a module has room for where the IV of AES-GCM is, however long the one is that it is given: one that chooses IVs
/// itself may write its own without a look at the length.
pub(crate) const IV_ROOM: usize = 64;

/// What is done in two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TwoCalls {
    Sign,
    Encrypt,
}

/// What a session answered after `CKR_BUFFER_TOO_SMALL`. It is not to be used any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AfterTooSmall {
    /// To `C_Sign` with one byte of room.
    pub(crate) first: Result<(), Fault>,
    /// To `C_Sign` with room enough, or to `C_SignInit` without a mechanism.
    pub(crate) second: Result<(), Fault>,
    /// To another `C_SignInit` after the latter, and to its `C_Sign`.
    pub(crate) third: Result<(), Fault>,
}

impl TwoCalls {
    const fn names(self) -> (Function, Function) {
        match self {
            Self::Sign => (Function::SignInit, Function::Sign),
            Self::Encrypt => (Function::EncryptInit, Function::Encrypt),
        }
    }
}

impl Library {
    /// The versions of a token's hardware and firmware, major and minor.
    pub(crate) fn token_versions(&self, slot: Slot) -> Result<[(u8, u8); 2], Fault> {
        let (function, _inside) = self.function(Function::GetTokenInfo, |list| list.C_GetTokenInfo)?;
        let mut info = sys::CK_TOKEN_INFO::default();
        // SAFETY: the structure is written to a live local.
        check(Function::GetTokenInfo, unsafe { function(slot.0, &raw mut info) })?;
        Ok([info.hardwareVersion, info.firmwareVersion].map(|version| (version.major, version.minor)))
    }
}

impl Session {
    /// Init and one call; `between` is called before the first, between the two and after the second.
    pub(crate) fn in_two_calls(
        &mut self,
        what: TwoCalls,
        key: ObjectHandle,
        how: &Mechanism<'_>,
        data: &[u8],
        out: &mut [u8],
        mut between: impl FnMut(),
    ) -> Result<usize, Fault> {
        let ((init_name, run_name), (init, run)) = (what.names(), self.two_functions(what)?);
        let mut len = to_ulong(out.len());
        let (result, _) = how.with(|mechanism| {
            between();
            // SAFETY: the mechanism lives until `with` returns, after the operation.
            let begun = unsafe { init(self.handle(), mechanism, key.number()) };
            between();
            self.check(init_name, begun)?;
            let (data, data_len) = (data.as_ptr().cast_mut(), to_ulong(data.len()));
            // SAFETY: `data` is only read, `out` has room for `len`; both outlive the call.
            let code = unsafe { run(self.handle(), data, data_len, out.as_mut_ptr(), &raw mut len) };
            between();
            self.check(run_name, code)
        });
        result.map(|()| to_usize(len).min(out.len()))
    }

    /// Encrypts by AES-GCM with a tag of 16 bytes, under an IV of so many bytes. What the module writes over it stays there.
    pub(crate) fn encrypt_gcm(
        &mut self,
        key: ObjectHandle,
        (iv, iv_len): (&mut [u8; IV_ROOM], usize),
        aad: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let (init, run) = self.two_functions(TwoCalls::Encrypt)?;
        let mut parameter = sys::CK_GCM_PARAMS {
            pIv: iv.as_mut_ptr(),
            ulIvLen: to_ulong(iv_len.min(IV_ROOM)),
            ulIvBits: to_ulong(iv_len.min(IV_ROOM) * 8),
            pAAD: pointer(aad),
            ulAADLen: to_ulong(aad.len()),
            ulTagBits: 128,
        };
        let mut mechanism = sys::CK_MECHANISM {
            mechanism: sys::CKM_AES_GCM,
            pParameter: (&raw mut parameter).cast(),
            ulParameterLen: to_ulong(size_of::<sys::CK_GCM_PARAMS>()),
        };
        // SAFETY: mechanism, parameter and what it points to live until the operation has ended, below.
        let code = unsafe { init(self.handle(), &raw mut mechanism, key.number()) };
        self.check(Function::EncryptInit, code)?;
        let (data, data_len, mut len) = (data.as_ptr().cast_mut(), to_ulong(data.len()), to_ulong(out.len()));
        // SAFETY: `data` is only read, `out` has room for `len`; both outlive the call.
        let code = unsafe { run(self.handle(), data, data_len, out.as_mut_ptr(), &raw mut len) };
        self.check(Function::Encrypt, code)?;
        Ok(to_usize(len).min(out.len()))
    }

    /// Signs with one byte of room for the output, then with room enough; or, with `cancel`, cancels the operation by
    /// `C_SignInit` without a mechanism and begins another (PKCS#11 3.0, 5.13.1: "C_SignInit can be called with pMechanism
    /// set to NULL_PTR to terminate an active signature operation"). For modules of 3.0 only: others may not look whether
    /// there is one.
    pub(crate) fn sign_into_too_little(
        &mut self,
        key: ObjectHandle,
        how: &Mechanism<'_>,
        data: &[u8],
        cancel: bool,
    ) -> Result<AfterTooSmall, Fault> {
        let (init, run) = self.two_functions(TwoCalls::Sign)?;
        let (data, data_len) = (data.as_ptr().cast_mut(), to_ulong(data.len()));
        // As long as the longest modulus that is in use, whatever length the module is told.
        const ROOM: usize = 2_048;
        let mut out = [0; ROOM];
        let mut sign = |room: usize| {
            let mut len = to_ulong(room);
            // SAFETY: `data` is only read, `out` has room for `len`; both outlive the call.
            let code = unsafe { run(self.handle(), data, data_len, out.as_mut_ptr(), &raw mut len) };
            self.check(Function::Sign, code)
        };
        let (answers, _) = how.with(|mechanism| {
            // SAFETY: the mechanism lives until `with` returns, after the operation.
            self.check(Function::SignInit, unsafe { init(self.handle(), mechanism, key.number()) })?;
            let first = sign(1);
            if !cancel {
                return Ok(AfterTooSmall { first, second: sign(ROOM), third: Ok(()) });
            }
            // SAFETY: without a mechanism nothing is read; the module is one of 3.0, which defines it.
            let code = unsafe { init(self.handle(), std::ptr::null_mut(), key.number()) };
            let second = self.check(Function::SignInit, code);
            // SAFETY: as for the first one.
            let code = unsafe { init(self.handle(), mechanism, key.number()) };
            // The operation has ended before its mechanism goes.
            let third = self.check(Function::SignInit, code).and_then(|()| sign(ROOM));
            Ok(AfterTooSmall { first, second, third })
        });
        answers
    }

    /// One call of `C_GetAttributeValue`, for the class of an object.
    pub(crate) fn read_class(&mut self, object: ObjectHandle) -> Result<(), Fault> {
        let mut class: sys::CK_OBJECT_CLASS = 0;
        let mut template = [sys::CK_ATTRIBUTE {
            type_: sys::CKA_CLASS,
            pValue: (&raw mut class).cast(),
            ulValueLen: to_ulong(size_of::<sys::CK_OBJECT_CLASS>()),
        }];
        let function = self.find_function(Function::GetAttributeValue, |list| list.C_GetAttributeValue)?;
        // SAFETY: `pValue` points to `ulValueLen` writable bytes of a live local.
        let code = unsafe { function(self.handle(), object.number(), template.as_mut_ptr(), 1) };
        self.check(Function::GetAttributeValue, code)
    }

    fn two_functions(&self, what: TwoCalls) -> Result<(Init, Run), Fault> {
        let (init_name, run_name) = what.names();
        Ok(match what {
            TwoCalls::Sign => (
                self.find_function(init_name, |list| list.C_SignInit)?,
                self.find_function(run_name, |list| list.C_Sign)?,
            ),
            TwoCalls::Encrypt => (
                self.find_function(init_name, |list| list.C_EncryptInit)?,
                self.find_function(run_name, |list| list.C_Encrypt)?,
            ),
        })
    }
}
