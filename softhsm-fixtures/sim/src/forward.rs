//! A real module behind the simulator: every call goes on to it.

#![expect(unsafe_code, reason = "calls of the C interface")]

use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys as sys;
use parking_lot::Mutex;

use crate::call::result;
use crate::config::TOKENS_MAX;
use crate::rule::Names;

/// Longest label or id that is read: more than any token has.
const NAME_MAX: usize = 1_024;

/// A loaded module. It is never unloaded.
pub(crate) struct Forward {
    pub(crate) list: &'static sys::CK_FUNCTION_LIST,
    /// Whether `C_Initialize` was ours: else `C_Finalize` is not.
    ours: AtomicBool,
    /// Labels of the tokens seen so far; a token's number is its place here.
    labels: Mutex<Vec<String>>,
}

impl Forward {
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let cannot = |why: &dyn std::fmt::Display| format!("forward={}: {why}", path.display());
        // SAFETY: loading runs the module's constructors: whoever wrote the configuration trusts it.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| cannot(&error))?;
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        // SAFETY: the symbol has this type in every PKCS#11 library (PKCS#11 2.40, 5.4).
        let symbol = unsafe { library.get::<sys::CK_C_GetFunctionList>(b"C_GetFunctionList\0") };
        let get_list = symbol.ok().and_then(|symbol| *symbol).ok_or_else(|| cannot(&"no PKCS#11 library"))?;
        let mut list = ptr::null_mut();
        // SAFETY: the pointer is written to a live local.
        let code = unsafe { get_list(&raw mut list) };
        result(code).map_err(|code| cannot(&format!("C_GetFunctionList: {code:#x}")))?;
        // SAFETY: the list lives as long as the library, which is never unloaded.
        let list = unsafe { list.as_ref() }.ok_or_else(|| cannot(&"no function list"))?;
        Ok(Self { list, ours: AtomicBool::new(false), labels: Mutex::default() })
    }

    /// `C_Initialize`, unless something else in this process has done it.
    pub(crate) fn initialise(&self) -> Result<(), sys::CK_RV> {
        let initialise = self.list.C_Initialize.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
        let flags = sys::CKF_OS_LOCKING_OK;
        let mut args = sys::CK_C_INITIALIZE_ARGS { flags, ..Default::default() };
        // SAFETY: the arguments are a live local.
        let code = unsafe { initialise((&raw mut args).cast()) };
        self.ours.store(code == sys::CKR_OK, Ordering::Relaxed);
        if code == sys::CKR_CRYPTOKI_ALREADY_INITIALIZED { Ok(()) } else { result(code) }
    }

    /// `C_Finalize`, if `C_Initialize` was ours.
    pub(crate) fn finalise(&self) -> Result<(), sys::CK_RV> {
        match self.list.C_Finalize {
            Some(finalise) if self.ours.load(Ordering::Relaxed) => {
                // SAFETY: the reserved argument is null, as it must be; our sessions are closed.
                result(unsafe { finalise(ptr::null_mut()) })
            }
            _ => Ok(()),
        }
    }

    /// The number of the token in a slot, by its label, which is asked for every time: a slot may get another.
    pub(crate) fn token_in(&self, slot: sys::CK_SLOT_ID) -> Result<usize, sys::CK_RV> {
        let info = self.list.C_GetTokenInfo.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
        let mut token = sys::CK_TOKEN_INFO::default();
        // SAFETY: the structure is written to a live local.
        result(unsafe { info(slot, &raw mut token) })?;
        let label = String::from_utf8_lossy(&token.label).trim_end_matches([' ', '\0']).to_owned();
        let mut labels = self.labels.lock();
        if let Some(known) = labels.iter().position(|known| *known == label) {
            return Ok(known);
        }
        if labels.len() == TOKENS_MAX {
            return Err(sys::CKR_HOST_MEMORY);
        }
        labels.push(label);
        Ok(labels.len() - 1)
    }

    pub(crate) fn label(&self, token: usize) -> String {
        self.labels.lock().get(token).cloned().unwrap_or_default()
    }

    /// What an object of the module is called; nothing if it does not say.
    pub(crate) fn names(
        &self,
        session: sys::CK_SESSION_HANDLE,
        object: sys::CK_OBJECT_HANDLE,
    ) -> Option<Names> {
        Some(Names {
            label: self.attribute(session, object, sys::CKA_LABEL)?,
            id: self.attribute(session, object, sys::CKA_ID).unwrap_or_default(),
        })
    }

    fn attribute(
        &self,
        session: sys::CK_SESSION_HANDLE,
        object: sys::CK_OBJECT_HANDLE,
        kind: sys::CK_ATTRIBUTE_TYPE,
    ) -> Option<Vec<u8>> {
        let read = self.list.C_GetAttributeValue?;
        let mut value = vec![0_u8; NAME_MAX];
        let pointer = value.as_mut_ptr().cast();
        let mut template =
            sys::CK_ATTRIBUTE { type_: kind, pValue: pointer, ulValueLen: NAME_MAX as sys::CK_ULONG };
        // SAFETY: the template and its value are live locals.
        let code = unsafe { read(session, object, &raw mut template, 1) };
        result(code).ok()?;
        value.truncate(usize::try_from(template.ulValueLen).unwrap_or(0));
        Some(value)
    }

    /// Logs the user out.
    pub(crate) fn log_out(&self, session: sys::CK_SESSION_HANDLE) {
        if let Some(log_out) = self.list.C_Logout {
            // SAFETY: a plain call.
            unsafe { log_out(session) };
        }
    }

    /// Closes a session of the module that the simulator has no room for.
    pub(crate) fn close(&self, session: sys::CK_SESSION_HANDLE) {
        if let Some(close) = self.list.C_CloseSession {
            // SAFETY: a plain call; the session is used by nobody else.
            unsafe { close(session) };
        }
    }
}
