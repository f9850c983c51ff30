//! Calls of a function list by hand, with return codes as results.

use std::ptr;

use cryptoki_sys as sys;

pub(crate) type Rv<T> = Result<T, sys::CK_RV>;

/// A function list.
#[derive(Clone, Copy)]
pub(crate) struct Raw(pub(crate) &'static sys::CK_FUNCTION_LIST);

/// Calls a function of the list; null pointers and live locals are all that any test passes.
macro_rules! call {
    ($raw:expr, $name:ident($($arg:expr),* $(,)?)) => {{
        let function = $raw.0.$name.unwrap();
        // SAFETY: every pointer is null, or of a live local as long as the length beside it.
        match unsafe { function($($arg),*) } {
            sys::CKR_OK => Ok(()),
            code => Err(code),
        }
    }};
}
pub(crate) use call;

pub(crate) fn len<T>(values: &[T]) -> sys::CK_ULONG {
    values.len().try_into().unwrap()
}

impl Raw {
    pub(crate) fn initialise(self) -> Rv<()> {
        call!(self, C_Initialize(ptr::null_mut()))
    }

    pub(crate) fn finalise(self) -> Rv<()> {
        call!(self, C_Finalize(ptr::null_mut()))
    }

    pub(crate) fn slots(self) -> Rv<Vec<sys::CK_SLOT_ID>> {
        let (mut slots, mut count) = ([0; 64], 64);
        call!(self, C_GetSlotList(sys::CK_TRUE, slots.as_mut_ptr(), &raw mut count))?;
        Ok(slots[..count.try_into().unwrap()].to_vec())
    }

    pub(crate) fn token_info(self, slot: sys::CK_SLOT_ID) -> Rv<sys::CK_TOKEN_INFO> {
        let mut info = sys::CK_TOKEN_INFO::default();
        call!(self, C_GetTokenInfo(slot, &raw mut info)).map(|()| info)
    }

    pub(crate) fn open(self, slot: sys::CK_SLOT_ID) -> Rv<u64> {
        let (flags, mut session) = (sys::CKF_SERIAL_SESSION | sys::CKF_RW_SESSION, 0);
        call!(self, C_OpenSession(slot, flags, ptr::null_mut(), None, &raw mut session)).map(|()| session)
    }

    pub(crate) fn close(self, session: u64) -> Rv<()> {
        call!(self, C_CloseSession(session))
    }

    pub(crate) fn info(self, session: u64) -> Rv<sys::CK_SESSION_INFO> {
        let mut info = sys::CK_SESSION_INFO::default();
        call!(self, C_GetSessionInfo(session, &raw mut info)).map(|()| info)
    }

    pub(crate) fn log_in(self, session: u64, pin: &str) -> Rv<()> {
        let pin_len = len(pin.as_bytes());
        call!(self, C_Login(session, sys::CKU_USER, pin.as_ptr().cast_mut(), pin_len))
    }

    pub(crate) fn find(self, session: u64, template: &[(sys::CK_ATTRIBUTE_TYPE, &[u8])]) -> Rv<Vec<u64>> {
        let mut template = attributes(template);
        call!(self, C_FindObjectsInit(session, template.as_mut_ptr(), len(&template)))?;
        let (mut objects, mut count) = ([0; 100], 0);
        let found = call!(self, C_FindObjects(session, objects.as_mut_ptr(), 100, &raw mut count));
        call!(self, C_FindObjectsFinal(session))?;
        found.map(|()| objects[..count.try_into().unwrap()].to_vec())
    }

    /// The private or secret key of this label.
    pub(crate) fn key(self, session: u64, label: &str) -> u64 {
        let class = if label.starts_with("aes") || label.starts_with("hmac") {
            sys::CKO_SECRET_KEY
        } else {
            sys::CKO_PRIVATE_KEY
        };
        let template = [(sys::CKA_LABEL, label.as_bytes()), (sys::CKA_CLASS, &class.to_ne_bytes()[..])];
        self.find(session, &template).unwrap()[0]
    }

    /// `C_SignInit` without a parameter.
    pub(crate) fn sign_init(self, session: u64, mechanism: sys::CK_MECHANISM_TYPE, key: u64) -> Rv<()> {
        let mut mechanism = sys::CK_MECHANISM { mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        call!(self, C_SignInit(session, &raw mut mechanism, key))
    }

    /// `C_Sign` into a buffer of this length; the length that it says comes back with an error too.
    pub(crate) fn sign_into(self, session: u64, data: &[u8], out: &mut [u8]) -> (Rv<()>, u64) {
        let mut out_len = len(out);
        let (data, data_len) = (data.as_ptr().cast_mut(), len(data));
        let result = call!(self, C_Sign(session, data, data_len, out.as_mut_ptr(), &raw mut out_len));
        (result, out_len)
    }

    /// HMAC with the key that every token has: an operation that needs no parameter.
    pub(crate) fn mac(self, session: u64, key: u64, data: &[u8]) -> Rv<[u8; 32]> {
        self.sign_init(session, sys::CKM_SHA256_HMAC, key)?;
        let mut out = [0; 32];
        self.sign_into(session, data, &mut out).0.map(|()| out)
    }
}

/// A template that points to these values; they must outlive its use.
pub(crate) fn attributes(template: &[(sys::CK_ATTRIBUTE_TYPE, &[u8])]) -> Vec<sys::CK_ATTRIBUTE> {
    let attribute = |&(type_, value): &(sys::CK_ATTRIBUTE_TYPE, &[u8])| sys::CK_ATTRIBUTE {
        type_,
        pValue: value.as_ptr().cast_mut().cast(),
        ulValueLen: len(value),
    };
    template.iter().map(attribute).collect()
}
