//! Encryption and decryption in parts, for operations that are held open.

use cryptoki_sys as sys;

use crate::pkcs11::codes::Fault;
use crate::pkcs11::function::Function;
use crate::pkcs11::library::{to_ulong, to_usize};
use crate::pkcs11::session::{Init, ObjectHandle, Run, Session};

/// What a block cipher does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    const fn functions(self) -> [Function; 3] {
        match self {
            Self::Encrypt => [Function::EncryptInit, Function::EncryptUpdate, Function::EncryptFinal],
            Self::Decrypt => [Function::DecryptInit, Function::DecryptUpdate, Function::DecryptFinal],
        }
    }
}

impl Session {
    /// `C_EncryptInit` or `C_DecryptInit` of a mechanism without parameters. The operation stays open: until it is
    /// ended or fails, the session does nothing else.
    pub(crate) fn begin_parts(
        &mut self,
        direction: Direction,
        key: ObjectHandle,
        mechanism: sys::CK_MECHANISM_TYPE,
    ) -> Result<(), Fault> {
        let [name, ..] = direction.functions();
        let init: Init = self.find_function(name, |list| match direction {
            Direction::Encrypt => list.C_EncryptInit,
            Direction::Decrypt => list.C_DecryptInit,
        })?;
        let mut mechanism =
            sys::CK_MECHANISM { mechanism, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
        // SAFETY: the mechanism has no parameters that a module could keep a pointer to; it outlives the call, which
        // reads it.
        self.check(name, unsafe { init(self.handle(), &raw mut mechanism, key.number()) })
    }

    /// `C_EncryptUpdate` or `C_DecryptUpdate`; returns how much came out.
    pub(crate) fn part(&mut self, direction: Direction, data: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        let [_, name, _] = direction.functions();
        let run: Run = self.find_function(name, |list| match direction {
            Direction::Encrypt => list.C_EncryptUpdate,
            Direction::Decrypt => list.C_DecryptUpdate,
        })?;
        let mut len = to_ulong(out.len());
        let (start, data_len) = (data.as_ptr().cast_mut(), to_ulong(data.len()));
        // SAFETY: `data` is only read, `out` has room for `len`; both outlive the call.
        self.check(name, unsafe { run(self.handle(), start, data_len, out.as_mut_ptr(), &raw mut len) })?;
        Ok(to_usize(len).min(out.len()))
    }

    /// `C_EncryptFinal` or `C_DecryptFinal`; what comes out is dropped.
    pub(crate) fn end_parts(&mut self, direction: Direction) -> Result<(), Fault> {
        let [_, _, name] = direction.functions();
        let finish = self.find_function(name, |list| match direction {
            Direction::Encrypt => list.C_EncryptFinal,
            Direction::Decrypt => list.C_DecryptFinal,
        })?;
        // A block, for modules that hold one back.
        let mut rest = zeroize::Zeroizing::new([0; 32]);
        let mut len = to_ulong(rest.len());
        // SAFETY: `rest` has room for `len`; both outlive the call.
        self.check(name, unsafe { finish(self.handle(), rest.as_mut_ptr(), &raw mut len) })
    }
}
