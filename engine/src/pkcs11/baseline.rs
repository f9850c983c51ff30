//! The raw loop that the benches measure the engine against: what an expert would write in C, no more.
//!
//! One session per thread, the functions looked up once, then for each operation Init and one call into memory
//! that is there already. No counting, no clock, no queue.

use std::path::Path;

use cryptoki::object::Attribute;
use cryptoki_sys as sys;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, ErrorKind, Result};
use crate::pkcs11::library::{Library, Slot, check, to_ulong, to_usize};
use crate::pkcs11::mechanism::Mechanism;
use crate::pkcs11::session::{Init, ObjectHandle, Run, Session};
use crate::pkcs11::{Fault, Function};
use crate::sync::Mutex;

/// A token for raw loops.
#[derive(Debug)]
pub struct BaselineToken {
    library: Library,
    slot: Slot,
    /// Keeps the login and the copies.
    anchor: Mutex<Anchor>,
}

/// Which object a raw loop works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaselineKey<'a> {
    /// The token key of this label.
    Token(&'a str),
    /// A session copy of it: one for each token and key, made by `C_CopyObject` with `CKA_TOKEN` false when first
    /// asked for, and used by every session of this process. It goes with the [`BaselineToken`].
    Copy(&'a str),
}

#[derive(Debug)]
struct Anchor {
    session: Session,
    /// Token keys and their copies.
    copies: Vec<(ObjectHandle, ObjectHandle)>,
}

/// What a raw loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaselineCall {
    /// `C_Sign` of a DigestInfo under `CKM_RSA_PKCS`.
    RsaPkcs1,
    /// `C_Sign` of a digest under `CKM_RSA_PKCS_PSS` with SHA-256 and a salt of 32 bytes.
    RsaPssSha256,
    /// `C_Sign` of a digest under `CKM_ECDSA`.
    Ecdsa,
    /// `C_Sign` under `CKM_SHA256_HMAC`.
    HmacSha256,
    /// `C_Sign` of a message under `CKM_EDDSA`.
    Ed25519,
    /// `C_Sign` under `CKM_AES_CMAC`.
    AesCmac,
    /// `C_Decrypt` under `CKM_RSA_PKCS_OAEP` with SHA-1 and no label.
    RsaOaepSha1,
    /// `C_Encrypt` under `CKM_AES_GCM` with a tag of 16 bytes and an IV that counts from a random one.
    AesGcm,
    /// `C_Encrypt` under `CKM_AES_ECB`.
    AesEcb,
    /// `C_Encrypt` under `CKM_AES_CBC` with an IV from the kernel's generator: one that counts would be no IV for
    /// CBC, which must not be foreseen (SP 800-38A, appendix C).
    AesCbcEncrypt,
    /// `C_Decrypt` under `CKM_AES_CBC` with the IV in front of the ciphertext.
    AesCbcDecrypt,
    /// `C_Encrypt` under `CKM_AES_CTR` with a nonce of 12 bytes that counts from a random one.
    AesCtr,
    /// `C_GenerateRandom`.
    Random,
}

/// A session of one thread, ready to run one kind of call.
#[derive(Debug)]
pub struct BaselineSession {
    session: Session,
    call: BaselineCall,
    key: Option<ObjectHandle>,
    functions: Functions,
    /// The last IV. It begins at random and counts: the key may be one in production, and no IV may come twice.
    iv: [u8; 16],
}

#[derive(Clone, Copy, Debug)]
enum Functions {
    Keyed(Init, Run),
    Random(unsafe extern "C" fn(sys::CK_SESSION_HANDLE, *mut sys::CK_BYTE, sys::CK_ULONG) -> sys::CK_RV),
}

impl BaselineToken {
    /// Finds the token by label or serial number and logs in, unless this process has.
    ///
    /// # Errors
    /// As [`Builder::build`](crate::Builder::build).
    ///
    /// # Blocking
    /// As long as the module takes.
    pub fn open(module: &Path, init_args: Option<&str>, token: &str, pin: &SecretString) -> Result<Self> {
        let library = Library::load(module, init_args, None)?;
        for slot in library.slots()? {
            let info = library.token_info(slot)?;
            if info.label == token || info.serial == token {
                let mut session = library.open(slot)?;
                match session.login(Some(pin.expose_secret().as_bytes())) {
                    Err(fault) if !fault.is(sys::CKR_USER_ALREADY_LOGGED_IN) => return Err(fault.into()),
                    _ => {
                        let anchor = Mutex::new(Anchor { session, copies: Vec::new() });
                        return Ok(Self { library, slot, anchor });
                    }
                }
            }
        }
        Err(Error::operator(ErrorKind::TokenNotFound, token.to_owned()))
    }

    /// Opens a session for one thread. Random bytes take no key.
    ///
    /// # Errors
    /// `KeyNotFound`, or what the token answers, to the wish for a copy too.
    ///
    /// # Blocking
    /// As long as the module takes.
    pub fn session(&self, call: BaselineCall, key: Option<BaselineKey<'_>>) -> Result<BaselineSession> {
        let mut session = self.library.open(self.slot)?;
        let key = key.map(|key| self.find(&mut session, call, key)).transpose()?;
        let (functions, mut iv) = (functions(&session, call)?, [0; 16]);
        // What counts; behind it stands the counter of CTR, which begins at 0.
        session.random(&mut iv[..NONCE_LEN])?;
        Ok(BaselineSession { session, call, key, functions, iv })
    }

    fn find(&self, session: &mut Session, call: BaselineCall, key: BaselineKey<'_>) -> Result<ObjectHandle> {
        let class = match call {
            BaselineCall::RsaPkcs1
            | BaselineCall::RsaPssSha256
            | BaselineCall::RsaOaepSha1
            | BaselineCall::Ecdsa
            | BaselineCall::Ed25519 => cryptoki::object::ObjectClass::PRIVATE_KEY,
            _ => cryptoki::object::ObjectClass::SECRET_KEY,
        };
        let (BaselineKey::Token(label) | BaselineKey::Copy(label)) = key;
        // A copy has the label of its original.
        let template = [Attribute::Class(class), Attribute::Label(label.into()), Attribute::Token(true)];
        let found = session.find(&template)?.first().copied();
        let found = found.ok_or_else(|| Error::operator(ErrorKind::KeyNotFound, "for the raw loop"))?;
        match key {
            BaselineKey::Token(_) => Ok(found),
            BaselineKey::Copy(_) => Ok(self.anchor.lock().copy_of(found)?),
        }
    }
}

impl Anchor {
    fn copy_of(&mut self, key: ObjectHandle) -> Result<ObjectHandle, Fault> {
        if let Some((_, copy)) = self.copies.iter().find(|(original, _)| *original == key) {
            return Ok(*copy);
        }
        let function = self.session.find_function(Function::CopyObject, |list| list.C_CopyObject)?;
        let mut template = [sys::CK_ATTRIBUTE::from(&Attribute::Token(false))];
        let (count, mut copy) = (to_ulong(template.len()), 0);
        let (session, template) = (self.session.handle(), template.as_mut_ptr());
        // SAFETY: the template outlives the call; the handle is written to a live local.
        let code = unsafe { function(session, key.number(), template, count, &raw mut copy) };
        check(Function::CopyObject, code)?;
        let copy = ObjectHandle::numbered(copy);
        self.copies.push((key, copy));
        Ok(copy)
    }
}

impl BaselineSession {
    /// Runs one operation; returns how many bytes were written.
    ///
    /// # Errors
    /// What the module answers.
    ///
    /// # Blocking
    /// As long as the module takes.
    pub fn run(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize> {
        Ok(self.call(input, out)?)
    }

    /// The IV of the last encryption, which is not part of the output; empty if there is none.
    #[must_use]
    pub fn iv(&self) -> &[u8] {
        match self.call {
            BaselineCall::AesGcm => &self.iv[..NONCE_LEN],
            BaselineCall::AesCbcEncrypt | BaselineCall::AesCtr => &self.iv,
            _ => &[],
        }
    }

    /// Makes the IV of the next call, or takes it from the front of the input; what is left is the call's.
    fn next_iv<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        match self.call {
            BaselineCall::AesGcm | BaselineCall::AesCtr => count_up(&mut self.iv[..NONCE_LEN]),
            BaselineCall::AesCbcEncrypt => {
                // A kernel that gives none leaves the IV as it was: what is measured here goes to nobody.
                let _drawn = getrandom::fill(&mut self.iv);
            }
            BaselineCall::AesCbcDecrypt => {
                if let Some((iv, body)) = input.split_first_chunk() {
                    self.iv = *iv;
                    return body;
                }
            }
            _ => {}
        }
        input
    }

    fn call(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        let handle = self.session.handle();
        let (init, run) = match self.functions {
            Functions::Keyed(init, run) => (init, run),
            Functions::Random(random) => {
                // SAFETY: `out` has room for the length given.
                let code = unsafe { random(handle, out.as_mut_ptr(), to_ulong(out.len())) };
                return check(Function::GenerateRandom, code).map(|()| out.len());
            }
        };
        let input = self.next_iv(input);
        let key = self.key.map_or(0, ObjectHandle::number);
        let mut len = to_ulong(out.len());
        let (result, _) = mechanism(self.call, &self.iv).with(|mechanism| {
            // SAFETY: the mechanism lives until `with` returns, after the operation.
            check(Function::SignInit, unsafe { init(handle, mechanism, key) })?;
            let (data, data_len) = (input.as_ptr().cast_mut(), to_ulong(input.len()));
            // SAFETY: `data` is only read, `out` has room for `len`; both outlive the call.
            check(Function::Sign, unsafe { run(handle, data, data_len, out.as_mut_ptr(), &raw mut len) })
        });
        result?;
        Ok(to_usize(len))
    }
}

/// Length of what counts in an IV.
const NONCE_LEN: usize = 12;

fn count_up(iv: &mut [u8]) {
    for byte in iv.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}

fn functions(session: &Session, call: BaselineCall) -> Result<Functions, Fault> {
    Ok(match call {
        BaselineCall::Random => {
            Functions::Random(session.find_function(Function::GenerateRandom, |list| list.C_GenerateRandom)?)
        }
        BaselineCall::RsaOaepSha1 | BaselineCall::AesCbcDecrypt => Functions::Keyed(
            session.find_function(Function::DecryptInit, |list| list.C_DecryptInit)?,
            session.find_function(Function::Decrypt, |list| list.C_Decrypt)?,
        ),
        BaselineCall::AesGcm | BaselineCall::AesEcb | BaselineCall::AesCbcEncrypt | BaselineCall::AesCtr => {
            Functions::Keyed(
                session.find_function(Function::EncryptInit, |list| list.C_EncryptInit)?,
                session.find_function(Function::Encrypt, |list| list.C_Encrypt)?,
            )
        }
        _ => Functions::Keyed(
            session.find_function(Function::SignInit, |list| list.C_SignInit)?,
            session.find_function(Function::Sign, |list| list.C_Sign)?,
        ),
    })
}

fn mechanism(call: BaselineCall, iv: &[u8; 16]) -> Mechanism<'_> {
    match call {
        BaselineCall::RsaPkcs1 => Mechanism::Plain(sys::CKM_RSA_PKCS),
        BaselineCall::RsaPssSha256 => Mechanism::Pss {
            mechanism: sys::CKM_RSA_PKCS_PSS,
            hash: sys::CKM_SHA256,
            mgf: sys::CKG_MGF1_SHA256,
            salt_len: 32,
        },
        BaselineCall::Ecdsa => Mechanism::Plain(sys::CKM_ECDSA),
        BaselineCall::HmacSha256 => Mechanism::Plain(sys::CKM_SHA256_HMAC),
        BaselineCall::Ed25519 => Mechanism::Plain(sys::CKM_EDDSA),
        BaselineCall::AesCmac => Mechanism::Plain(sys::CKM_AES_CMAC),
        BaselineCall::RsaOaepSha1 => {
            Mechanism::Oaep { hash: sys::CKM_SHA_1, mgf: sys::CKG_MGF1_SHA1, label: &[] }
        }
        BaselineCall::AesGcm => Mechanism::Gcm { iv: &iv[..NONCE_LEN], aad: &[], tag_len: 16 },
        BaselineCall::AesCbcEncrypt | BaselineCall::AesCbcDecrypt => Mechanism::Bytes(sys::CKM_AES_CBC, iv),
        BaselineCall::AesCtr => Mechanism::Ctr { block: *iv, counter_bits: 32 },
        BaselineCall::AesEcb | BaselineCall::Random => Mechanism::Plain(sys::CKM_AES_ECB),
    }
}
