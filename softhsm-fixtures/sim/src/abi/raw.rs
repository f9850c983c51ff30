//! The caller's memory: read into values, written from values.

use cryptoki_sys as sys;

use crate::object::Template;

/// What a buffer for output is good for.
pub(super) enum Room {
    /// There is none: only the length is asked for.
    Query,
    /// It is too small, and the length that is needed has been written.
    TooSmall,
    Enough,
}

/// The bytes at a pointer.
///
/// # Safety
/// `data` is null or good for reading `len` bytes while the result lives.
pub(super) unsafe fn bytes<'a>(data: *const u8, len: sys::CK_ULONG) -> Result<&'a [u8], sys::CK_RV> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    // SAFETY: not null, and good for `len` bytes, says the caller.
    Ok(unsafe { std::slice::from_raw_parts(data, to_usize(len)) })
}

/// The value at a pointer.
///
/// # Safety
/// `from` is null or good for reading.
#[inline]
pub(super) unsafe fn get<T: Copy>(from: *const T) -> Result<T, sys::CK_RV> {
    if from.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    // SAFETY: not null, and good for reading, says the caller. Callers in C align what they declare, but a
    // parameter inside a buffer of bytes need not be.
    Ok(unsafe { from.read_unaligned() })
}

/// Writes a value.
///
/// # Safety
/// `to` is null or good for writing.
#[inline]
pub(super) unsafe fn put<T>(to: *mut T, value: T) -> Result<(), sys::CK_RV> {
    if to.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    // SAFETY: not null, and good for writing, says the caller.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Compares a buffer with the length that is needed, which is written to `len` (PKCS#11 2.40, 5.2).
///
/// # Safety
/// `len` is null or good for reading and writing.
#[inline]
pub(super) unsafe fn room<T>(
    out: *mut T,
    len: *mut sys::CK_ULONG,
    needed: sys::CK_ULONG,
) -> Result<Room, sys::CK_RV> {
    // SAFETY: null or readable, says the caller.
    let given = unsafe { get(len) }?;
    if !out.is_null() && given >= needed {
        return Ok(Room::Enough);
    }
    // SAFETY: null or writable, says the caller.
    unsafe { put(len, needed) }?;
    Ok(if out.is_null() { Room::Query } else { Room::TooSmall })
}

/// Copies values out. The length is the caller's affair.
///
/// # Safety
/// `out` is good for writing as many values and does not overlap them.
pub(super) unsafe fn copy<T: Copy>(values: &[T], out: *mut T) {
    // SAFETY: the caller says so.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), out, values.len()) };
}

/// Writes a list with its length, or answers as `room` finds.
///
/// # Safety
/// `len` is null or good for reading and writing; `out` is null or good for writing as many values as it says.
pub(super) unsafe fn list<T: Copy>(
    values: &[T],
    out: *mut T,
    len: *mut sys::CK_ULONG,
) -> Result<(), sys::CK_RV> {
    let count = values.len() as sys::CK_ULONG;
    // SAFETY: as the caller says.
    match unsafe { room(out, len, count) }? {
        Room::Query => Ok(()),
        Room::TooSmall => Err(sys::CKR_BUFFER_TOO_SMALL),
        Room::Enough => {
            // SAFETY: `room` found that the buffer is large enough; it is not the simulator's own memory.
            unsafe { copy(values, out) };
            // SAFETY: as the caller says.
            unsafe { put(len, count) }
        }
    }
}

/// Makes the output of a call wrong if a rule says so.
///
/// # Safety
/// `out` is null or good for writing as many bytes as `len` says, which is null or good for reading and writing.
pub(super) unsafe fn spoil(out: *mut u8, len: *mut sys::CK_ULONG) {
    // SAFETY: as the caller says.
    let Ok(written) = (unsafe { get(len) }) else { return };
    if !out.is_null() && written > 0 {
        // SAFETY: not null, and good for as many bytes, says the caller.
        let output = unsafe { std::slice::from_raw_parts_mut(out, to_usize(written)) };
        let left = crate::faults::spoil(output);
        // SAFETY: as the caller says; it was read just now.
        let _written = unsafe { put(len, left as sys::CK_ULONG) };
    }
}

/// A template, copied.
///
/// # Safety
/// `attributes` is null or good for reading `count` attributes, the values of which are null or good for reading.
pub(super) unsafe fn template(
    attributes: *const sys::CK_ATTRIBUTE,
    count: sys::CK_ULONG,
) -> Result<Template, sys::CK_RV> {
    if attributes.is_null() && count > 0 {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    let mut template = Template::default();
    for i in 0..to_usize(count) {
        // SAFETY: within the `count` attributes that the caller vouches for.
        let at = unsafe { attributes.add(i) };
        // SAFETY: as above.
        let attribute = unsafe { get(at) }?;
        // SAFETY: as above, for the attribute's value.
        let value = unsafe { bytes(attribute.pValue.cast(), attribute.ulValueLen) }?;
        template.0.push((attribute.type_, value.to_vec()));
    }
    Ok(template)
}

#[expect(clippy::cast_possible_truncation, reason = "CK_ULONG is as wide as a pointer where this runs")]
pub(super) const fn to_usize(len: sys::CK_ULONG) -> usize {
    len as usize
}

/// Text in a field of fixed length, padded with blanks (PKCS#11 2.40, 3.2).
pub(super) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    field.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
    field
}
