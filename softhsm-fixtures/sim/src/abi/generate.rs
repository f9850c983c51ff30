//! Keys that the token makes.

#![expect(non_snake_case, reason = "the standard's names")]

use cryptoki_sys as sys;

use super::objects::{Attributes, Handle, Ulong, add};
use super::{raw, session_calls};
use crate::call::Call;
use crate::key::{Key, Kind, generated_rsa, on_curve};
use crate::material::set_parity;
use crate::object::{Object, Origin, Template};

session_calls!(
    C_GenerateKey(mechanism: *mut sys::CK_MECHANISM, template: Attributes, count: Ulong, key: *mut Handle)
        makes template count = generate;
    C_GenerateKeyPair(
        mechanism: *mut sys::CK_MECHANISM,
        public: Attributes,
        public_count: Ulong,
        private: Attributes,
        private_count: Ulong,
        public_key: *mut Handle,
        private_key: *mut Handle,
    ) makes private private_count = generate_pair;
);

/// # Safety
/// As for the entry.
unsafe fn generate(
    call: &Call,
    mechanism: *mut sys::CK_MECHANISM,
    template: Attributes,
    count: Ulong,
    key: *mut Handle,
) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let mechanism = unsafe { raw::get(mechanism) }?.mechanism;
    // SAFETY: as for the entry.
    let template = unsafe { raw::template(template, count) }?;
    call.token()?.check_offered(mechanism, sys::CKF_GENERATE)?;
    let value_len = || template.number(sys::CKA_VALUE_LEN)?.ok_or(sys::CKR_TEMPLATE_INCOMPLETE);
    let (key_type, len) = match mechanism {
        sys::CKM_AES_KEY_GEN => (sys::CKK_AES, value_len()?),
        sys::CKM_GENERIC_SECRET_KEY_GEN => (sys::CKK_GENERIC_SECRET, value_len()?),
        sys::CKM_DES3_KEY_GEN => (sys::CKK_DES3, 24),
        _ => return Err(sys::CKR_MECHANISM_INVALID),
    };
    let mut value = vec![0; usize::try_from(len).ok().filter(|&len| len <= 512).unwrap_or(0)];
    call.slot.random.fill(&mut value);
    if key_type == sys::CKK_DES3 {
        set_parity(&mut value);
    }
    let made = Key::secret(key_type, &value).map_err(|_| sys::CKR_KEY_SIZE_RANGE)?;
    // SAFETY: as for the entry.
    unsafe { add(call, Object::secret(made, &template, Origin::Generated)?, key) }
}

/// # Safety
/// As for the entry.
#[expect(clippy::too_many_arguments, reason = "the standard's")]
unsafe fn generate_pair(
    call: &Call,
    mechanism: *mut sys::CK_MECHANISM,
    public: Attributes,
    public_count: Ulong,
    private: Attributes,
    private_count: Ulong,
    public_key: *mut Handle,
    private_key: *mut Handle,
) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let mechanism = unsafe { raw::get(mechanism) }?.mechanism;
    // SAFETY: as for the entry.
    let public = unsafe { raw::template(public, public_count) }?;
    // SAFETY: as for the entry.
    let private = unsafe { raw::template(private, private_count) }?;
    if public_key.is_null() || private_key.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    call.token()?.check_offered(mechanism, sys::CKF_GENERATE_KEY_PAIR)?;
    let key = pair(call, mechanism, &public)?;
    let half = key.public().ok_or(sys::CKR_GENERAL_ERROR)?;
    let public = Object::public(half, &public, true)?;
    let private = Object::private(key, &private, Origin::Generated)?;
    // SAFETY: as for the entry. The private half first: it alone can be refused for want of a login.
    unsafe { add(call, private, private_key) }?;
    // SAFETY: as for the entry.
    unsafe { add(call, public, public_key) }
}

/// A new pair: on a curve from the session's random bytes, or one of the fixed RSA keys.
fn pair(call: &Call, mechanism: sys::CK_MECHANISM_TYPE, public: &Template) -> Result<Key, sys::CK_RV> {
    if mechanism == sys::CKM_RSA_PKCS_KEY_PAIR_GEN {
        let bits = public.number(sys::CKA_MODULUS_BITS)?.ok_or(sys::CKR_TEMPLATE_INCOMPLETE)?;
        let key = generated_rsa(bits, call.token()?.objects_made()).ok_or(sys::CKR_KEY_SIZE_RANGE)?;
        return Ok(Key::Rsa(key));
    }
    let curve = public.get(sys::CKA_EC_PARAMS).ok_or(sys::CKR_TEMPLATE_INCOMPLETE)?;
    let kind = on_curve(curve).ok_or(sys::CKR_CURVE_NOT_SUPPORTED)?;
    let is_edwards = mechanism == sys::CKM_EC_EDWARDS_KEY_PAIR_GEN;
    if is_edwards != (kind == Kind::Ed25519) {
        return Err(sys::CKR_CURVE_NOT_SUPPORTED);
    }
    Ok(Key::derive(kind, call.slot.random.next(), "generated", 0))
}
