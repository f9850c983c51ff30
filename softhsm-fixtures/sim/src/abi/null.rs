//! The null mode at the C interface: the shortest way from a call to its answer.

use cryptoki_sys as sys;

use super::raw::{self, Room};
use crate::null::{self, PATTERN};
use crate::sessions::Slot;
use crate::work::Kind;

/// `C_SignInit` and its kin.
///
/// # Safety
/// `mechanism` is null or good for reading.
#[inline]
pub(super) unsafe fn init(
    slot: &Slot,
    kind: Kind,
    mechanism: *const sys::CK_MECHANISM,
    key: sys::CK_OBJECT_HANDLE,
) -> Result<(), sys::CK_RV> {
    // SAFETY: as the caller says.
    let mechanism = unsafe { raw::get(mechanism) }?;
    null::init(slot, kind, mechanism.mechanism, key)
}

/// `C_Sign`, `C_Encrypt` and `C_Decrypt`. The input is not read.
///
/// # Safety
/// `out` is null or good for writing `*out_len` bytes, `out_len` null or good for reading and writing.
#[inline]
pub(super) unsafe fn run(
    slot: &Slot,
    kind: Kind,
    input_len: sys::CK_ULONG,
    out: *mut u8,
    out_len: *mut sys::CK_ULONG,
) -> Result<(), sys::CK_RV> {
    let needed = null::output_len(slot, kind, input_len)?;
    // SAFETY: as the caller says.
    match unsafe { raw::room(out, out_len, needed) }? {
        Room::Query => Ok(()),
        Room::TooSmall => Err(sys::CKR_BUFFER_TOO_SMALL),
        Room::Enough => {
            null::end(slot);
            // SAFETY: `room` found that the buffer is large enough.
            unsafe { fill(out, raw::to_usize(needed)) };
            // SAFETY: as the caller says.
            unsafe { raw::put(out_len, needed) }
        }
    }
}

/// `C_EncryptUpdate` and `C_DecryptUpdate`, which leave the operation as it is.
///
/// # Safety
/// As for [`run`].
#[inline]
pub(super) unsafe fn update(
    slot: &Slot,
    kind: Kind,
    input_len: sys::CK_ULONG,
    out: *mut u8,
    out_len: *mut sys::CK_ULONG,
) -> Result<(), sys::CK_RV> {
    let needed = null::output_len(slot, kind, input_len)?;
    // SAFETY: as the caller says.
    match unsafe { raw::room(out, out_len, needed) }? {
        Room::Query => Ok(()),
        Room::TooSmall => Err(sys::CKR_BUFFER_TOO_SMALL),
        Room::Enough => {
            // SAFETY: `room` found that the buffer is large enough.
            unsafe { fill(out, raw::to_usize(needed)) };
            // SAFETY: as the caller says.
            unsafe { raw::put(out_len, needed) }
        }
    }
}

/// `C_Verify`: every signature of the right length is valid.
#[inline]
pub(super) fn verify(slot: &Slot, signature_len: sys::CK_ULONG) -> Result<(), sys::CK_RV> {
    let len = null::output_len(slot, Kind::Verify, 0)?;
    null::end(slot);
    if signature_len == len { Ok(()) } else { Err(sys::CKR_SIGNATURE_LEN_RANGE) }
}

/// Writes the pattern, over and over.
///
/// # Safety
/// `out` is good for writing `len` bytes.
#[inline]
pub(super) unsafe fn fill(out: *mut u8, len: usize) {
    let mut done = 0;
    while done < len {
        let part = PATTERN.len().min(len - done);
        // SAFETY: `done` is below `len`.
        let to = unsafe { out.add(done) };
        // SAFETY: as many bytes are left of both; the pattern is the simulator's own.
        unsafe { raw::copy(&PATTERN[..part], to) };
        done += part;
    }
}
