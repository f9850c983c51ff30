//! The null mode: operations answer at once, with output of the right size and no cryptography.
//!
//! It checks that the session is open, that the handle of a key belongs to its token and what operation is
//! active; not the login, nor whether the key is still there, nor parameters. All of it is in the session's own
//! cache lines, and nothing is locked or allocated. Relaxed throughout: a session is used by one thread at a time.

use std::sync::atomic::Ordering;

use cryptoki_sys as sys;

use crate::mechanism::{Cipher, Hash, TAG_LEN};
use crate::objects::TOKEN_SHIFT;
use crate::sessions::Slot;
use crate::work::Kind;

/// What is known of the length of an output. Numbers leave room for a rule and a length in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It is this.
    Fixed(u64),
    /// A ciphertext is so much longer.
    Longer(u64),
    /// A ciphertext is whole blocks of so many bytes, with padding; a plaintext takes a byte less, at most.
    Padded(u64),
}

/// Length of what decryption by RSA yields where a padding is taken off: a key of AES-256, as is usual.
const UNWRAPPED_LEN: u64 = 32;

/// `C_SignInit` and its kin. The active operation is kept as its kind in the lowest byte, the rule for its length
/// in the next one, and the rule's number above.
#[inline]
pub(crate) fn init(
    slot: &Slot,
    kind: Kind,
    mechanism: sys::CK_MECHANISM_TYPE,
    key: sys::CK_OBJECT_HANDLE,
) -> Result<(), sys::CK_RV> {
    if slot.null_op.load(Ordering::Relaxed) != 0 {
        return Err(sys::CKR_OPERATION_ACTIVE);
    }
    if key >> TOKEN_SHIFT != slot.token() as u64 + 1 {
        return Err(sys::CKR_KEY_HANDLE_INVALID);
    }
    let rule = match kind {
        Kind::Sign | Kind::Verify => signature(mechanism, key),
        Kind::Encrypt => ciphertext(mechanism),
        Kind::Decrypt => plaintext(mechanism, key),
    };
    let (rule, number) = match rule.ok_or(sys::CKR_MECHANISM_INVALID)? {
        Rule::Fixed(len) => (FIXED, len),
        Rule::Longer(len) => (LONGER, len),
        Rule::Padded(len) => (PADDED, len),
    };
    slot.null_op.store((number << 16) | (rule << 8) | code(kind), Ordering::Relaxed);
    Ok(())
}

const FIXED: u64 = 0;
const LONGER: u64 = 1;
const PADDED: u64 = 2;

#[inline]
const fn signature(mechanism: sys::CK_MECHANISM_TYPE, key: sys::CK_OBJECT_HANDLE) -> Option<Rule> {
    Some(Rule::Fixed(match mechanism {
        sys::CKM_RSA_PKCS
        | sys::CKM_RSA_PKCS_PSS
        | sys::CKM_ECDSA
        | sys::CKM_ECDSA_SHA256
        | sys::CKM_ECDSA_SHA384
        | sys::CKM_ECDSA_SHA512
        | sys::CKM_EDDSA
        | sys::CKM_SHA256_RSA_PKCS
        | sys::CKM_SHA384_RSA_PKCS
        | sys::CKM_SHA512_RSA_PKCS
        | sys::CKM_SHA256_RSA_PKCS_PSS
        | sys::CKM_SHA384_RSA_PKCS_PSS
        | sys::CKM_SHA512_RSA_PKCS_PSS => of_key(key),
        sys::CKM_SHA256_HMAC => Hash::Sha256.len() as u64,
        sys::CKM_SHA384_HMAC => Hash::Sha384.len() as u64,
        sys::CKM_SHA512_HMAC => Hash::Sha512.len() as u64,
        sys::CKM_AES_CMAC => Cipher::Aes.block_len() as u64,
        sys::CKM_DES3_CMAC => Cipher::TripleDes.block_len() as u64,
        _ => return None,
    }))
}

#[inline]
const fn ciphertext(mechanism: sys::CK_MECHANISM_TYPE) -> Option<Rule> {
    Some(match mechanism {
        sys::CKM_AES_GCM => Rule::Longer(TAG_LEN as u64),
        sys::CKM_AES_ECB | sys::CKM_AES_CBC | sys::CKM_AES_CTR | sys::CKM_DES3_ECB | sys::CKM_DES3_CBC => {
            Rule::Longer(0)
        }
        sys::CKM_AES_CBC_PAD => Rule::Padded(Cipher::Aes.block_len() as u64),
        sys::CKM_DES3_CBC_PAD => Rule::Padded(Cipher::TripleDes.block_len() as u64),
        _ => return None,
    })
}

#[inline]
const fn plaintext(mechanism: sys::CK_MECHANISM_TYPE, key: sys::CK_OBJECT_HANDLE) -> Option<Rule> {
    match mechanism {
        sys::CKM_RSA_X_509 => Some(Rule::Fixed(of_key(key))),
        sys::CKM_RSA_PKCS | sys::CKM_RSA_PKCS_OAEP => Some(Rule::Fixed(UNWRAPPED_LEN)),
        mechanism => ciphertext(mechanism),
    }
}

/// What the handle says: see [`Token::add`](crate::objects::Objects::insert).
const fn of_key(key: sys::CK_OBJECT_HANDLE) -> u64 {
    (key & 0xff) * 4
}

/// The length of the output of the active operation.
#[inline]
pub(crate) fn output_len(slot: &Slot, kind: Kind, input_len: u64) -> Result<u64, sys::CK_RV> {
    let active = slot.null_op.load(Ordering::Relaxed);
    if active & 0xff != code(kind) {
        return Err(sys::CKR_OPERATION_NOT_INITIALIZED);
    }
    let number = active >> 16;
    Ok(match ((active >> 8) & 0xff, kind) {
        (FIXED, _) => number,
        (PADDED, Kind::Decrypt) => input_len.saturating_sub(1),
        (PADDED, _) => (input_len / number + 1) * number,
        (_, Kind::Decrypt) => input_len.saturating_sub(number),
        _ => input_len + number,
    })
}

/// `C_MessageEncryptInit` and its twin.
pub(crate) fn init_messages(slot: &Slot, kind: Kind, key: sys::CK_OBJECT_HANDLE) -> Result<(), sys::CK_RV> {
    if slot.null_op.load(Ordering::Relaxed) != 0 {
        return Err(sys::CKR_OPERATION_ACTIVE);
    }
    if key >> TOKEN_SHIFT != slot.token() as u64 + 1 {
        return Err(sys::CKR_KEY_HANDLE_INVALID);
    }
    slot.null_op.store(MESSAGES | code(kind), Ordering::Relaxed);
    Ok(())
}

/// An error unless messages of this kind are active.
#[inline]
pub(crate) fn check_messages(slot: &Slot, kind: Kind) -> Result<(), sys::CK_RV> {
    let active = slot.null_op.load(Ordering::Relaxed) == MESSAGES | code(kind);
    if active { Ok(()) } else { Err(sys::CKR_OPERATION_NOT_INITIALIZED) }
}

/// Tells messages from the operation of the same kind.
const MESSAGES: u64 = 0x80;

/// Ends the active operation.
#[inline]
pub(crate) fn end(slot: &Slot) {
    slot.null_op.store(0, Ordering::Relaxed);
}

/// What every output is: the same for all inputs and tokens, and neither zeros nor a counter, so that it passes
/// for the answer of a token where answers are compared.
pub(crate) static PATTERN: [u8; 256] = pattern();

const fn code(kind: Kind) -> u64 {
    kind as u64 + 1
}

const fn pattern() -> [u8; 256] {
    // A linear congruential generator (Knuth, MMIX): any sequence without structure to the eye does.
    let (mut bytes, mut state, mut i) = ([0; 256], 1_u64, 0);
    while i < bytes.len() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes[i] = (state >> 56) as u8;
        i += 1;
    }
    bytes
}
