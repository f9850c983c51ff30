//! Sessions: every call that needs one.

use std::ptr;
use std::sync::Arc;

use crossbeam::utils::CachePadded;
use cryptoki::object::{Attribute, AttributeType};
use cryptoki_sys as sys;

use crate::pkcs11::attributes;
use crate::pkcs11::codes::{Code, Fault};
use crate::pkcs11::function::{CallCounts, Function};
use crate::pkcs11::library::{Instance, Library, Slot, forked, to_ulong, to_usize};
use crate::pkcs11::mechanism::{IvReplaced, Mechanism};
use crate::pkcs11::message::Parameter;
use crate::presence::Presence;

/// An object's number, good for one token of one instance until the token is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectHandle(sys::CK_OBJECT_HANDLE);

impl ObjectHandle {
    pub(crate) const fn number(self) -> sys::CK_OBJECT_HANDLE {
        self.0
    }

    pub(crate) const fn numbered(number: sys::CK_OBJECT_HANDLE) -> Self {
        Self(number)
    }
}

/// An open session. It is closed when dropped.
///
/// `&mut self` everywhere: PKCS#11 2.40 (5.1.1 and 6.7) lets one thread at a time use a session.
pub(crate) struct Session {
    instance: Arc<Instance>,
    pub(super) handle: sys::CK_SESSION_HANDLE,
    counts: Arc<CachePadded<CallCounts>>,
    /// Of the messages that are open. Freed after the session is closed.
    pub(super) parameter: Option<Box<Parameter>>,
    /// Of those that go with it, if it is one of several.
    presence: Option<Arc<Presence>>,
    /// It is not there any more, and its number may be another's.
    abandoned: bool,
    slot: Slot,
    /// An operation is active still.
    unfinished: bool,
}

/// Objects per `C_FindObjects`.
const FIND_PAGE: usize = 64;

/// `C_SignInit`, `C_EncryptInit` and `C_DecryptInit`.
pub(super) type Init =
    unsafe extern "C" fn(sys::CK_SESSION_HANDLE, *mut sys::CK_MECHANISM, sys::CK_OBJECT_HANDLE) -> sys::CK_RV;

/// `C_Sign`, `C_Encrypt` and `C_Decrypt`.
pub(super) type Run = unsafe extern "C" fn(
    sys::CK_SESSION_HANDLE,
    *mut sys::CK_BYTE,
    sys::CK_ULONG,
    *mut sys::CK_BYTE,
    *mut sys::CK_ULONG,
) -> sys::CK_RV;

impl Session {
    /// One that was opened just now; it is inside the instance's barrier and leaves it.
    pub(super) fn new(instance: Arc<Instance>, slot: Slot, handle: sys::CK_SESSION_HANDLE) -> Self {
        let counts = Arc::new(CachePadded::new(CallCounts::new()));
        let (parameter, presence, abandoned, unfinished) = (None, None, false, false);
        Self { instance, handle, counts, parameter, presence, abandoned, slot, unfinished }
    }

    /// It goes when the others do that share this, and no call is made with it after that, which a call that hung may come
    /// out to.
    pub(crate) fn share_presence(&mut self, presence: &Arc<Presence>) {
        self.presence = Some(Arc::clone(presence));
    }

    /// The module has forgotten it, or is to be finalised: it is not closed, for its number may be given to another, and
    /// not used any more.
    pub(crate) fn abandon(&mut self) {
        if !self.abandoned {
            self.abandoned = true;
            self.instance.barrier.leave();
        }
    }

    pub(super) const fn handle(&self) -> sys::CK_SESSION_HANDLE {
        self.handle
    }

    /// Logs the user in: for all sessions that this process has with the token. Without a PIN the token asks for it
    /// by itself (PKCS#11 2.40, 5.6: "the pPin parameter to C_Login should be NULL_PTR").
    pub(crate) fn login(&mut self, pin: Option<&[u8]>) -> Result<(), Fault> {
        let function = self.find_function(Function::Login, |list| list.C_Login)?;
        let (start, len) = pin.map_or((ptr::null_mut(), 0), |pin| (pin.as_ptr().cast_mut(), pin.len()));
        // SAFETY: the PIN is only read, and outlives the call; a null pointer goes with length 0.
        let code = unsafe { function(self.handle, sys::CKU_USER, start, to_ulong(len)) };
        self.check(Function::Login, code)
    }

    /// Gives the user another PIN (PKCS#11 2.40, 5.6, `C_SetPIN`: "modifies the PIN of the user that is currently logged in").
    /// Logins stay as they are.
    pub(crate) fn set_pin(&mut self, old: &[u8], new: &[u8]) -> Result<(), Fault> {
        let function = self.find_function(Function::SetPIN, |list| list.C_SetPIN)?;
        let (old, old_len) = (old.as_ptr().cast_mut(), to_ulong(old.len()));
        let (new, new_len) = (new.as_ptr().cast_mut(), to_ulong(new.len()));
        // SAFETY: both PINs are only read, and outlive the call.
        let code = unsafe { function(self.handle, old, old_len, new, new_len) };
        self.check(Function::SetPIN, code)
    }

    /// `C_SignInit` and `C_Sign`; returns the length of the signature.
    pub(crate) fn sign(
        &mut self,
        key: ObjectHandle,
        how: &Mechanism<'_>,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let init = self.find_function(Function::SignInit, |list| list.C_SignInit)?;
        let run = self.instance.find(Function::Sign, |list| list.C_Sign)?;
        self.operate((Function::SignInit, init), (Function::Sign, run), key, how, data, out)
    }

    /// `C_EncryptInit` and `C_Encrypt`; returns the length of the ciphertext.
    pub(crate) fn encrypt(
        &mut self,
        key: ObjectHandle,
        how: &Mechanism<'_>,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let init = self.find_function(Function::EncryptInit, |list| list.C_EncryptInit)?;
        let run = self.instance.find(Function::Encrypt, |list| list.C_Encrypt)?;
        self.operate((Function::EncryptInit, init), (Function::Encrypt, run), key, how, data, out)
    }

    /// `C_DecryptInit` and `C_Decrypt`; returns the length of the plaintext.
    pub(crate) fn decrypt(
        &mut self,
        key: ObjectHandle,
        how: &Mechanism<'_>,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let init = self.find_function(Function::DecryptInit, |list| list.C_DecryptInit)?;
        let run = self.instance.find(Function::Decrypt, |list| list.C_Decrypt)?;
        self.operate((Function::DecryptInit, init), (Function::Decrypt, run), key, how, data, out)
    }

    /// `C_VerifyInit` and `C_Verify`. That a signature or MAC is not that of the data is a fault too.
    pub(crate) fn verify(
        &mut self,
        key: ObjectHandle,
        how: &Mechanism<'_>,
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), Fault> {
        self.end_unfinished()?;
        let init = self.find_function(Function::VerifyInit, |list| list.C_VerifyInit)?;
        let run = self.instance.find(Function::Verify, |list| list.C_Verify)?;
        let (result, _) = how.with(|mechanism| {
            // SAFETY: the mechanism lives until `with` returns, after the operation.
            self.check(Function::VerifyInit, unsafe { init(self.handle, mechanism, key.0) })?;
            self.check_presence(Function::Verify)?;
            self.counts.count(Function::Verify);
            let (data, data_len) = (data.as_ptr().cast_mut(), to_ulong(data.len()));
            let (signature, signature_len) = (signature.as_ptr().cast_mut(), to_ulong(signature.len()));
            // SAFETY: `data` and `signature` are only read, and outlive the call.
            self.check(Function::Verify, unsafe {
                run(self.handle, data, data_len, signature, signature_len)
            })
        });
        result
    }

    /// Fills `out` with random bytes of the token.
    pub(crate) fn random(&mut self, out: &mut [u8]) -> Result<(), Fault> {
        let function = self.find_function(Function::GenerateRandom, |list| list.C_GenerateRandom)?;
        // SAFETY: `out` has room for the length given.
        self.check(Function::GenerateRandom, unsafe {
            function(self.handle, out.as_mut_ptr(), to_ulong(out.len()))
        })
    }

    /// All objects that match the template.
    pub(crate) fn find(&mut self, template: &[Attribute]) -> Result<Vec<ObjectHandle>, Fault> {
        self.end_unfinished()?;
        let init = self.find_function(Function::FindObjectsInit, |list| list.C_FindObjectsInit)?;
        let mut template: Vec<sys::CK_ATTRIBUTE> = template.iter().map(Into::into).collect();
        // SAFETY: the template's values live in the caller's attributes, which outlive the call.
        let code = unsafe { init(self.handle, template.as_mut_ptr(), to_ulong(template.len())) };
        self.check(Function::FindObjectsInit, code)?;
        let found = self.find_pages();
        let finish = self.find_function(Function::FindObjectsFinal, |list| list.C_FindObjectsFinal)?;
        // SAFETY: a plain call; it ends the search also when a page failed.
        let code = unsafe { finish(self.handle) };
        found.and_then(|found| self.check(Function::FindObjectsFinal, code).map(|()| found))
    }

    /// The values of attributes; `None` where the object has none or does not show it.
    pub(crate) fn attributes(
        &mut self,
        object: ObjectHandle,
        types: &[AttributeType],
    ) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        attributes::read(types, |template| self.read_attributes(object, template))
    }

    /// Copies an object, with these attributes changed.
    pub(crate) fn copy(
        &mut self,
        object: ObjectHandle,
        template: &[Attribute],
    ) -> Result<ObjectHandle, Fault> {
        let function = self.find_function(Function::CopyObject, |list| list.C_CopyObject)?;
        let mut template: Vec<sys::CK_ATTRIBUTE> = template.iter().map(Into::into).collect();
        let mut copy = 0;
        // SAFETY: the template outlives the call; the handle is written to a live local.
        let code = unsafe {
            function(self.handle, object.0, template.as_mut_ptr(), to_ulong(template.len()), &raw mut copy)
        };
        self.check(Function::CopyObject, code).map(|()| ObjectHandle(copy))
    }

    /// Makes an object of attributes alone.
    pub(crate) fn create(&mut self, template: &[Attribute]) -> Result<ObjectHandle, Fault> {
        let function = self.find_function(Function::CreateObject, |list| list.C_CreateObject)?;
        let mut template: Vec<sys::CK_ATTRIBUTE> = template.iter().map(Into::into).collect();
        let (handle, mut object) = (self.handle, 0);
        let (template, len) = (template.as_mut_ptr(), to_ulong(template.len()));
        // SAFETY: the template outlives the call; the handle is written to a live local.
        let code = unsafe { function(handle, template, len, &raw mut object) };
        self.check(Function::CreateObject, code).map(|()| ObjectHandle(object))
    }

    pub(crate) fn destroy(&mut self, object: ObjectHandle) -> Result<(), Fault> {
        let function = self.find_function(Function::DestroyObject, |list| list.C_DestroyObject)?;
        // SAFETY: a plain call.
        self.check(Function::DestroyObject, unsafe { function(self.handle, object.0) })
    }

    /// Generates a secret key.
    pub(crate) fn generate_key(
        &mut self,
        how: &Mechanism<'_>,
        template: &[Attribute],
    ) -> Result<ObjectHandle, Fault> {
        let function = self.find_function(Function::GenerateKey, |list| list.C_GenerateKey)?;
        let mut template: Vec<sys::CK_ATTRIBUTE> = template.iter().map(Into::into).collect();
        let (handle, mut key) = (self.handle, 0);
        let (code, _) = how.with(|mechanism| {
            // SAFETY: mechanism and template outlive the call; the handle is written to a live local.
            unsafe {
                function(handle, mechanism, template.as_mut_ptr(), to_ulong(template.len()), &raw mut key)
            }
        });
        self.check(Function::GenerateKey, code).map(|()| ObjectHandle(key))
    }

    /// Generates a key pair; returns the public, then the private key.
    pub(crate) fn generate_key_pair(
        &mut self,
        how: &Mechanism<'_>,
        public: &[Attribute],
        private: &[Attribute],
    ) -> Result<(ObjectHandle, ObjectHandle), Fault> {
        let function = self.find_function(Function::GenerateKeyPair, |list| list.C_GenerateKeyPair)?;
        let mut public: Vec<sys::CK_ATTRIBUTE> = public.iter().map(Into::into).collect();
        let mut private: Vec<sys::CK_ATTRIBUTE> = private.iter().map(Into::into).collect();
        let (public_len, private_len) = (to_ulong(public.len()), to_ulong(private.len()));
        let (handle, mut keys) = (self.handle, (0, 0));
        let (public, private) = (public.as_mut_ptr(), private.as_mut_ptr());
        let (code, _) = how.with(|mechanism| {
            let (public_key, private_key) = (&raw mut keys.0, &raw mut keys.1);
            // SAFETY: mechanism and templates outlive the call; the handles are written to live locals.
            unsafe {
                function(handle, mechanism, public, public_len, private, private_len, public_key, private_key)
            }
        });
        self.check(Function::GenerateKeyPair, code).map(|()| (ObjectHandle(keys.0), ObjectHandle(keys.1)))
    }

    /// Derives a key from another.
    pub(crate) fn derive(
        &mut self,
        base: ObjectHandle,
        how: &Mechanism<'_>,
        template: &[Attribute],
    ) -> Result<ObjectHandle, Fault> {
        let function = self.find_function(Function::DeriveKey, |list| list.C_DeriveKey)?;
        let mut template: Vec<sys::CK_ATTRIBUTE> = template.iter().map(Into::into).collect();
        let (handle, mut key) = (self.handle, 0);
        let (template, len) = (template.as_mut_ptr(), to_ulong(template.len()));
        let (code, _) = how.with(|mechanism| {
            // SAFETY: mechanism and template outlive the call; the handle is written to a live local.
            unsafe { function(handle, mechanism, base.0, template, len, &raw mut key) }
        });
        self.check(Function::DeriveKey, code).map(|()| ObjectHandle(key))
    }

    /// Wraps a key under another into `out`; returns the length.
    pub(crate) fn wrap(
        &mut self,
        wrapping: ObjectHandle,
        how: &Mechanism<'_>,
        key: ObjectHandle,
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let function = self.find_function(Function::WrapKey, |list| list.C_WrapKey)?;
        let (handle, mut len) = (self.handle, to_ulong(out.len()));
        let (code, _) = how.with(|mechanism| {
            // SAFETY: the mechanism outlives the call, and `out` has room for `len`.
            unsafe { function(handle, mechanism, wrapping.0, key.0, out.as_mut_ptr(), &raw mut len) }
        });
        self.check(Function::WrapKey, code).map(|()| to_usize(len).min(out.len()))
    }

    /// Unwraps a key.
    pub(crate) fn unwrap(
        &mut self,
        wrapping: ObjectHandle,
        how: &Mechanism<'_>,
        wrapped: &[u8],
        template: &[Attribute],
    ) -> Result<ObjectHandle, Fault> {
        let function = self.find_function(Function::UnwrapKey, |list| list.C_UnwrapKey)?;
        let mut template: Vec<sys::CK_ATTRIBUTE> = template.iter().map(Into::into).collect();
        let (handle, mut key) = (self.handle, 0);
        let (template, len) = (template.as_mut_ptr(), to_ulong(template.len()));
        let (data, data_len) = (wrapped.as_ptr().cast_mut(), to_ulong(wrapped.len()));
        let (code, _) = how.with(|mechanism| {
            // SAFETY: mechanism, wrapped key and template outlive the call; the handle is written to a live local.
            unsafe { function(handle, mechanism, wrapping.0, data, data_len, template, len, &raw mut key) }
        });
        self.check(Function::UnwrapKey, code).map(|()| ObjectHandle(key))
    }

    /// Calls by function; counts on after the session is closed.
    pub(crate) fn counts(&self) -> &Arc<CachePadded<CallCounts>> {
        &self.counts
    }

    /// Init and one call, with the mechanism in place for both.
    fn operate(
        &mut self,
        (init_name, init): (Function, Init),
        (run_name, run): (Function, Run),
        key: ObjectHandle,
        how: &Mechanism<'_>,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        self.end_unfinished()?;
        let mut len = to_ulong(out.len());
        let (result, replaced) = how.with(|mechanism| {
            // SAFETY: the mechanism lives until `with` returns, after the operation.
            self.check(init_name, unsafe { init(self.handle, mechanism, key.0) })?;
            self.check_presence(run_name)?;
            self.counts.count(run_name);
            let (data, data_len) = (data.as_ptr().cast_mut(), to_ulong(data.len()));
            // SAFETY: `data` is only read, `out` has room for `len`; both outlive the call.
            self.check(run_name, unsafe { run(self.handle, data, data_len, out.as_mut_ptr(), &raw mut len) })
        });
        // A call ends the operation "unless it returns CKR_BUFFER_TOO_SMALL" (PKCS#11 2.40, 5.8 to 5.13).
        self.unfinished = result.is_err_and(|fault| fault.is_too_small(run_name));
        result?;
        if replaced == IvReplaced(true) {
            // The ciphertext belongs to an IV that nobody asked for and that would be lost: some vendors' modules
            // ignore the one they are given. Better no answer than one that can never be decrypted.
            return Err(Fault::of(run_name, Code::IvReplaced));
        }
        // A module that claims to have written more than it was given room for is not believed.
        Ok(to_usize(len).min(out.len()))
    }

    fn find_pages(&mut self) -> Result<Vec<ObjectHandle>, Fault> {
        let mut found = Vec::new();
        loop {
            let function = self.find_function(Function::FindObjects, |list| list.C_FindObjects)?;
            let (mut page, mut count) = ([0; FIND_PAGE], 0);
            // SAFETY: `page` has room for the number of handles given.
            let code =
                unsafe { function(self.handle, page.as_mut_ptr(), to_ulong(FIND_PAGE), &raw mut count) };
            self.check(Function::FindObjects, code)?;
            if count == 0 {
                return Ok(found);
            }
            found.extend(page.iter().take(to_usize(count)).map(|&handle| ObjectHandle(handle)));
        }
    }

    /// Reads lengths where `pValue` is null, else values. An attribute that is sensitive or missing is marked
    /// in the template and does not fail the others (PKCS#11 2.40, `C_GetAttributeValue`).
    fn read_attributes(
        &mut self,
        object: ObjectHandle,
        template: &mut [sys::CK_ATTRIBUTE],
    ) -> Result<(), Fault> {
        let function = self.find_function(Function::GetAttributeValue, |list| list.C_GetAttributeValue)?;
        // SAFETY: every `pValue` is null or points to `ulValueLen` writable bytes.
        let code =
            unsafe { function(self.handle, object.0, template.as_mut_ptr(), to_ulong(template.len())) };
        match code {
            sys::CKR_ATTRIBUTE_SENSITIVE | sys::CKR_ATTRIBUTE_TYPE_INVALID => Ok(()),
            code => self.check(Function::GetAttributeValue, code),
        }
    }

    /// Reads what a call answered, as this module means it.
    #[inline]
    pub(super) fn check(&self, function: Function, code: sys::CK_RV) -> Result<(), Fault> {
        if code == sys::CKR_OK { Ok(()) } else { Err(Fault::returned(self.instance.kind, function, code)) }
    }

    /// Init may have hung until its session's number was another's.
    #[inline]
    fn check_presence(&self, function: Function) -> Result<(), Fault> {
        match &self.presence {
            Some(presence) if presence.has_ended() => Err(Fault::of(function, Code::SessionGone)),
            _ => Ok(()),
        }
    }

    /// If an operation is active still, another session takes the place of this one, which is closed: to go on with the
    /// operation would be to execute it. Whoever serves requests does not come here, for such a session is retired.
    fn end_unfinished(&mut self) -> Result<(), Fault> {
        if !self.unfinished {
            return Ok(());
        }
        let mut other = Library::of(&self.instance).open(self.slot)?;
        other.counts = Arc::clone(&self.counts);
        other.presence.clone_from(&self.presence);
        std::mem::swap(&mut self.handle, &mut other.handle);
        self.unfinished = false;
        Ok(())
    }

    /// The function to call, counted.
    pub(super) fn find_function<F>(
        &self,
        function: Function,
        pick: impl Fn(&sys::CK_FUNCTION_LIST) -> Option<F>,
    ) -> Result<F, Fault> {
        debug_assert!(!self.abandoned, "{} with a session that is not there any more", function.name());
        self.check_presence(function)?;
        let found = self.instance.find(function, pick)?;
        self.counts.count(function);
        Ok(found)
    }
}

impl Session {
    /// As [`Session::find_function`], among those that came with PKCS#11 3.0.
    pub(super) fn find_function_3<F>(
        &self,
        function: Function,
        pick: impl Fn(&sys::CK_FUNCTION_LIST_3_0) -> Option<F>,
    ) -> Result<F, Fault> {
        self.check_presence(function)?;
        let found = self.instance.find_3(function, pick)?;
        self.counts.count(function);
        Ok(found)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.abandoned {
            return;
        }
        // In a forked child there is nothing to close: the session is the parent's, and so may be the barrier's lock.
        if forked() {
            return;
        }
        if let Ok(close) = self.find_function(Function::CloseSession, |list| list.C_CloseSession) {
            // SAFETY: the handle is this session's own and is not used again.
            unsafe { close(self.handle) };
        }
        self.instance.barrier.leave();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("handle", &self.handle).finish_non_exhaustive()
    }
}
