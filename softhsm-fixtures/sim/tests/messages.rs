//! The interface of PKCS#11 3.0: messages of AES-GCM, checked by ring, and what misuse is answered.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, reason = "shared with tests that use more of it")]

#[path = "support/raw.rs"]
mod raw;
#[path = "support/sim.rs"]
mod sim;

use cryptoki_sys as sys;
use p11_sim::Loaded;
use raw::{Raw, Rv, len};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const KEY: [u8; 32] = [0x5A; 32];

/// A session that is logged in, with a key of a known value.
struct Session {
    sim: Loaded,
    list: &'static sys::CK_FUNCTION_LIST_3_0,
    raw: Raw,
    session: u64,
    key: u64,
}

/// Calls a function of the new list; every pointer is null or of a live local as long as the length beside it.
macro_rules! call_3 {
    ($session:expr, $name:ident($($arg:expr),* $(,)?)) => {{
        let function = $session.list.$name.unwrap();
        // SAFETY: as the macro says.
        match unsafe { function($session.session, $($arg),*) } {
            sys::CKR_OK => Ok(()),
            code => Err(code),
        }
    }};
}

impl Session {
    fn new(config: &str) -> Self {
        let sim = Loaded::private_copy(config).unwrap();
        let (list, raw) = (sim.function_list_3().unwrap(), Raw(sim.function_list()));
        raw.initialise().unwrap();
        let session = raw.open(raw.slots().unwrap()[0]).unwrap();
        raw.log_in(session, "1234").unwrap();
        let mut this = Self { sim, list, raw, session, key: 0 };
        this.key = this.import(true);
        this
    }

    fn import(&self, encrypts: bool) -> u64 {
        let (class, kind) = (sys::CKO_SECRET_KEY.to_ne_bytes(), sys::CKK_AES.to_ne_bytes());
        let may = [u8::from(encrypts)];
        let template: [(u64, &[u8]); 5] = [
            (sys::CKA_CLASS, &class),
            (sys::CKA_KEY_TYPE, &kind),
            (sys::CKA_VALUE, &KEY),
            (sys::CKA_ENCRYPT, &may),
            (sys::CKA_DECRYPT, &[1]),
        ];
        let (mut template, mut key) = (raw::attributes(&template), 0);
        let count = len(&template);
        raw::call!(self.raw, C_CreateObject(self.session, template.as_mut_ptr(), count, &raw mut key))
            .unwrap();
        key
    }

    fn init(&self, mechanism: u64, key: u64) -> Rv<()> {
        let mut mechanism =
            sys::CK_MECHANISM { mechanism, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
        call_3!(self, C_MessageEncryptInit(&raw mut mechanism, key))
    }

    fn init_decrypt(&self) -> Rv<()> {
        let mechanism = sys::CKM_AES_GCM;
        let mut mechanism =
            sys::CK_MECHANISM { mechanism, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
        call_3!(self, C_MessageDecryptInit(&raw mut mechanism, self.key))
    }

    /// Text and tag.
    fn encrypt(&self, iv: &mut [u8], aad: &[u8], plain: &[u8]) -> Rv<(Vec<u8>, [u8; 16])> {
        let (mut out, mut tag) = (vec![0xEE; plain.len()], [0; 16]);
        let (mut parameter, mut out_len) = (parameter(iv, &mut tag), len(&out));
        let (pointer, size) = ((&raw mut parameter).cast(), size_of_val(&parameter).try_into().unwrap());
        let (aad, aad_len) = (aad.as_ptr().cast_mut(), len(aad));
        let (plain, plain_len) = (plain.as_ptr().cast_mut(), len(plain));
        let (to, room) = (out.as_mut_ptr(), &raw mut out_len);
        call_3!(self, C_EncryptMessage(pointer, size, aad, aad_len, plain, plain_len, to, room))?;
        assert_eq!(out_len, len(&out));
        Ok((out, tag))
    }

    fn decrypt(&self, iv: &mut [u8], aad: &[u8], sealed: &[u8], mut tag: [u8; 16]) -> Rv<Vec<u8>> {
        let mut out = vec![0xEE; sealed.len()];
        let (mut parameter, mut out_len) = (parameter(iv, &mut tag), len(&out));
        let (pointer, size) = ((&raw mut parameter).cast(), size_of_val(&parameter).try_into().unwrap());
        let (aad, aad_len) = (aad.as_ptr().cast_mut(), len(aad));
        let (sealed, sealed_len) = (sealed.as_ptr().cast_mut(), len(sealed));
        let (to, room) = (out.as_mut_ptr(), &raw mut out_len);
        call_3!(self, C_DecryptMessage(pointer, size, aad, aad_len, sealed, sealed_len, to, room))?;
        Ok(out)
    }
}

fn parameter(iv: &mut [u8], tag: &mut [u8; 16]) -> sys::CK_GCM_MESSAGE_PARAMS {
    sys::CK_GCM_MESSAGE_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: len(iv),
        ulIvFixedBits: 0,
        ivGenerator: sys::CKG_NO_GENERATE,
        pTag: tag.as_mut_ptr(),
        ulTagBits: 128,
    }
}

fn by_ring(iv: [u8; 12], aad: &[u8], plain: &[u8]) -> (Vec<u8>, [u8; 16]) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap());
    let mut out = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key(iv);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out).unwrap();
    (out, tag.as_ref().try_into().unwrap())
}

#[test]
fn one_init_serves_many_messages_each_with_its_own_iv_data_and_tag() {
    let session = Session::new("");
    session.init(sys::CKM_AES_GCM, session.key).unwrap();
    let mut sealed = Vec::new();
    for number in 0..40_u8 {
        let (mut iv, plain) = ([number; 12], vec![number; usize::from(number) * 7]);
        let aad = &plain[..plain.len() / 2];
        let made = session.encrypt(&mut iv, aad, &plain).unwrap();
        assert_eq!(made, by_ring(iv, aad, &plain));
        sealed.push((iv, plain.clone(), made));
    }
    call_3!(session, C_MessageEncryptFinal()).unwrap();
    session.init_decrypt().unwrap();
    for (mut iv, plain, (body, mut tag)) in sealed {
        let aad = &plain[..plain.len() / 2];
        assert_eq!(session.decrypt(&mut iv, aad, &body, tag), Ok(plain.clone()));
        tag[7] ^= 1;
        let forged = session.decrypt(&mut iv, aad, &body, tag);
        assert_eq!(forged, Err(sys::CKR_ENCRYPTED_DATA_INVALID), "and the next message goes on");
    }
    call_3!(session, C_MessageDecryptFinal()).unwrap();
    let calls = |name| session.sim.calls_of(name);
    assert_eq!((calls("C_MessageEncryptInit"), calls("C_EncryptMessage")), (1, 40));
    assert_eq!((calls("C_MessageDecryptInit"), calls("C_DecryptMessage")), (1, 80));
    assert_eq!((calls("C_MessageEncryptFinal"), calls("C_MessageDecryptFinal")), (1, 1));
}

#[test]
fn misuse_is_answered_as_the_standard_says() {
    let session = Session::new("");
    let (gcm, key) = (sys::CKM_AES_GCM, session.key);
    let not_begun = Err(sys::CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(session.encrypt(&mut [1; 12], &[], b"x").map(drop), not_begun);
    assert_eq!(call_3!(session, C_MessageEncryptFinal()), not_begun);
    assert_eq!(session.init(gcm, 1 << 40), Err(sys::CKR_KEY_HANDLE_INVALID));
    assert_eq!(session.init(sys::CKM_AES_CBC, key), Err(sys::CKR_MECHANISM_INVALID));
    let hmac = session.raw.key(session.session, "hmac");
    assert_eq!(session.init(gcm, hmac), Err(sys::CKR_KEY_TYPE_INCONSISTENT));
    assert_eq!(session.init(gcm, session.import(false)), Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED));

    session.init(gcm, key).unwrap();
    assert_eq!(session.init(gcm, key), Err(sys::CKR_OPERATION_ACTIVE));
    assert_eq!(session.init_decrypt(), Err(sys::CKR_OPERATION_ACTIVE));
    let sign = session.raw.sign_init(session.session, sys::CKM_SHA256_HMAC, hmac);
    assert_eq!(sign, Err(sys::CKR_OPERATION_ACTIVE));
    assert_eq!(session.decrypt(&mut [1; 12], &[], b"x", [0; 16]), not_begun.map(|()| Vec::new()));
    assert_eq!(call_3!(session, C_MessageDecryptFinal()), not_begun);
    let no_iv = session.encrypt(&mut [], &[], b"x").map(drop);
    assert_eq!(no_iv, Err(sys::CKR_MECHANISM_PARAM_INVALID));
    assert!(session.encrypt(&mut [1; 12], &[], b"x").is_ok(), "errors leave it active");
    call_3!(session, C_MessageEncryptFinal()).unwrap();
    assert_eq!(call_3!(session, C_MessageEncryptFinal()), not_begun);
    session.raw.mac(session.session, hmac, b"x").unwrap();

    session.raw.sign_init(session.session, sys::CKM_SHA256_HMAC, hmac).unwrap();
    assert_eq!(session.init(gcm, key), Err(sys::CKR_OPERATION_ACTIVE));
}

#[test]
fn a_null_mechanism_ends_what_is_active() {
    let session = Session::new("");
    session.init(sys::CKM_AES_GCM, session.key).unwrap();
    call_3!(session, C_MessageEncryptInit(std::ptr::null_mut(), 0)).unwrap();
    session.init(sys::CKM_AES_GCM, session.key).unwrap();
}

#[test]
fn the_null_mode_answers_messages_and_keeps_the_order_of_calls() {
    let session = Session::new("null=1");
    session.init(sys::CKM_AES_GCM, session.key).unwrap();
    assert_eq!(session.init(sys::CKM_AES_GCM, session.key), Err(sys::CKR_OPERATION_ACTIVE));
    let (body, tag) = session.encrypt(&mut [1; 12], &[], &[0; 40]).unwrap();
    assert!(body != [0xEE; 40] && tag != [0; 16]);
    call_3!(session, C_MessageEncryptFinal()).unwrap();
    assert_eq!(session.encrypt(&mut [1; 12], &[], b"x").map(drop), Err(sys::CKR_OPERATION_NOT_INITIALIZED));
}

#[test]
fn configurations_take_the_interface_or_its_functions_away() {
    let old = Loaded::private_copy("interface=2.40").unwrap();
    assert!(old.function_list_3().is_none());
    let bare = Session::new("messages=0");
    assert_eq!(bare.init(sys::CKM_AES_GCM, bare.key), Err(sys::CKR_FUNCTION_NOT_SUPPORTED));
    assert_eq!(call_3!(bare, C_SessionCancel(0)), Err(sys::CKR_FUNCTION_NOT_SUPPORTED));
}
