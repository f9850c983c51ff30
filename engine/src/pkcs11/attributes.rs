//! Attributes of objects, as modules answer them.

use cryptoki::object::AttributeType;
use cryptoki_sys as sys;

use crate::pkcs11::codes::Fault;
use crate::pkcs11::library::to_usize;

/// A longer value is taken for one that the object does not show: no attribute of a key is as long by far, and memory is
/// not made because a module says so.
const VALUE_MAX: usize = 1 << 20;

/// Reads attributes by two calls of `C_GetAttributeValue`, for the lengths and for the values; `None` where the object has
/// none or does not show it. In the second call every `pValue` is null or points to `ulValueLen` writable bytes.
pub(super) fn read(
    types: &[AttributeType],
    mut call: impl FnMut(&mut [sys::CK_ATTRIBUTE]) -> Result<(), Fault>,
) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    let empty =
        |&attribute: &AttributeType| sys::CK_ATTRIBUTE { type_: attribute.into(), ..Default::default() };
    let mut template: Vec<_> = types.iter().map(empty).collect();
    call(&mut template)?;
    let lengths = template.iter().map(|attribute| attribute.ulValueLen);
    let mut values: Vec<Option<Vec<u8>>> =
        lengths.map(|len| (len <= VALUE_MAX as sys::CK_ULONG).then(|| vec![0; to_usize(len)])).collect();
    for (attribute, value) in template.iter_mut().zip(&mut values) {
        match value {
            Some(value) => attribute.pValue = value.as_mut_ptr().cast(),
            None => attribute.ulValueLen = 0,
        }
    }
    call(&mut template)?;
    for (attribute, value) in template.iter().zip(&mut values) {
        match value {
            Some(value) if attribute.ulValueLen != sys::CK_UNAVAILABLE_INFORMATION => {
                value.truncate(to_usize(attribute.ulValueLen));
            }
            _ => *value = None,
        }
    }
    Ok(values)
}

/// What a module answers for one attribute: a length, then another, and bytes.
#[cfg(any(test, fuzzing))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) first_len: u64,
    pub(crate) second_len: u64,
    pub(crate) bytes: &'a [u8],
}

/// Reads attributes of a module that answers so.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_answers(types: &[AttributeType], answers: &[Answer<'_>]) -> Vec<Option<Vec<u8>>> {
    let mut calls = 0;
    let played = |template: &mut [sys::CK_ATTRIBUTE]| {
        calls += 1;
        for (attribute, answer) in template.iter_mut().zip(answers) {
            if calls == 1 {
                attribute.ulValueLen = answer.first_len;
                continue;
            }
            let bytes = answer.bytes.len().min(to_usize(attribute.ulValueLen));
            if !attribute.pValue.is_null() {
                // SAFETY: the buffer has `ulValueLen` bytes, and no more are written.
                unsafe {
                    std::ptr::copy_nonoverlapping(answer.bytes.as_ptr(), attribute.pValue.cast(), bytes)
                };
            }
            attribute.ulValueLen = answer.second_len;
        }
        Ok(())
    };
    read(types, played).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_cannot_be_are_not_believed_and_the_others_are_read() {
        const NONE: u64 = sys::CK_UNAVAILABLE_INFORMATION;
        let answers = [
            (3, 3),
            (NONE, NONE),
            (NONE - 1, 4),
            (1 << 40, 1 << 40),
            (3, NONE),
            (3, 2),
            (3, 1 << 40),
            (0, 0),
        ];
        let answers = answers.map(|(first_len, second_len)| Answer { first_len, second_len, bytes: b"abcd" });
        let read = read_answers(&[AttributeType::Label; 8], &answers);
        let value = |text: &[u8]| Some(text.to_vec());
        let wanted = [value(b"abc"), None, None, None, None, value(b"ab"), value(b"abc"), value(b"")];
        assert_eq!(read, wanted);
    }
}
