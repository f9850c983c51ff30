//! Modules: loaded once, initialised once, never unloaded.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use cryptoki_sys as sys;
use once_cell::sync::Lazy;

use crate::error::{Error, ErrorKind, Result};
use crate::pkcs11::codes::{Code, Fault};
use crate::pkcs11::function::{CallCounts, Function};
use crate::pkcs11::session::Session;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// A slot's number, good for one instance only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot(pub(super) sys::CK_SLOT_ID);

/// What `C_GetTokenInfo` says, with the padding taken off.
#[derive(Clone, Debug)]
pub(crate) struct TokenInfo {
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) manufacturer: String,
    pub(crate) flags: u64,
    /// Most sessions; `None` if unlimited or not told.
    pub(crate) sessions_max: Option<u64>,
}

/// What `C_GetMechanismInfo` says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MechanismInfo {
    pub(crate) mechanism: u64,
    pub(crate) key_min: u64,
    pub(crate) key_max: u64,
    pub(crate) flags: u64,
}

/// A loaded and initialised module. Clones share it; the last one to go finalises it, if it was ours.
#[derive(Clone)]
pub(crate) struct Library(Arc<Instance>);

pub(super) struct Instance {
    list: &'static sys::CK_FUNCTION_LIST,
    path: PathBuf,
    /// Whether this process's `C_Initialize` was ours: else it is not ours to finalise.
    ours: bool,
    counts: CallCounts,
}

/// Modules of this process by canonical path. The lock is held over `C_Initialize` and `C_Finalize`, which
/// PKCS#11 2.40 (5.4) forbids to run at the same time.
static MODULES: Lazy<Mutex<HashMap<PathBuf, Module>>> = Lazy::new(|| Mutex::new(HashMap::new()));

/// A module that is mapped for ever, and its instance while there is one.
struct Module {
    list: &'static sys::CK_FUNCTION_LIST,
    init_args: Option<String>,
    instance: std::sync::Weak<Instance>,
}

/// Set in a child that was forked after a module was loaded.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Whether this process was forked after a module was loaded: then nothing may be called.
pub(crate) fn forked() -> bool {
    // Relaxed: set before the child's only thread runs on.
    FORKED.load(Ordering::Relaxed)
}

impl Library {
    /// Loads and initialises a module, or joins the instance that this process has of it.
    ///
    /// `init_args` goes to `C_Initialize` as `pReserved`, for modules that read a string there (NSS, p11-sim).
    pub(crate) fn load(path: &Path, init_args: Option<&str>) -> Result<Self> {
        if forked() {
            return Err(Fault { function: Function::Initialize, code: Code::Forked }.into());
        }
        let path = path.canonicalize().map_err(|error| cannot_load(path, &error.to_string()))?;
        let mut modules = MODULES.lock();
        if !modules.contains_key(&path) {
            let list = map(&path)?;
            watch_for_forks();
            modules.insert(path.clone(), Module { list, init_args: None, instance: std::sync::Weak::new() });
        }
        let Some(module) = modules.get_mut(&path) else {
            return Err(Error::internal("a module vanished from the registry"));
        };
        if let Some(instance) = module.instance.upgrade() {
            if module.init_args.as_deref() != init_args {
                let text = "the module is in use with other init-args in this process";
                return Err(Error::operator(ErrorKind::Configuration, text));
            }
            return Ok(Self(instance));
        }
        let ours = initialise(module.list, init_args)?;
        let instance = Arc::new(Instance { list: module.list, path, ours, counts: CallCounts::new() });
        instance.counts.count_shared(Function::Initialize);
        module.instance = Arc::downgrade(&instance);
        module.init_args = init_args.map(str::to_owned);
        Ok(Self(instance))
    }

    /// The slots that hold a token now.
    pub(crate) fn slots(&self) -> Result<Vec<Slot>, Fault> {
        let function = self.0.function(Function::GetSlotList, |list| list.C_GetSlotList)?;
        // A token may come between the two calls; room for a few more makes that harmless.
        let mut count = 0;
        // SAFETY: a null list asks for the count, which is written to a live local.
        check(Function::GetSlotList, unsafe { function(sys::CK_TRUE, ptr::null_mut(), &raw mut count) })?;
        let mut slots = vec![0; to_usize(count) + 8];
        count = to_ulong(slots.len());
        // SAFETY: `slots` has room for `count` numbers.
        check(Function::GetSlotList, unsafe { function(sys::CK_TRUE, slots.as_mut_ptr(), &raw mut count) })?;
        slots.truncate(to_usize(count));
        Ok(slots.into_iter().map(Slot).collect())
    }

    pub(crate) fn token_info(&self, slot: Slot) -> Result<TokenInfo, Fault> {
        let function = self.0.function(Function::GetTokenInfo, |list| list.C_GetTokenInfo)?;
        let mut info = sys::CK_TOKEN_INFO::default();
        // SAFETY: the structure is written to a live local.
        check(Function::GetTokenInfo, unsafe { function(slot.0, &raw mut info) })?;
        // CK_EFFECTIVELY_INFINITE is 0, CK_UNAVAILABLE_INFORMATION all ones (PKCS#11 2.40, 3.2).
        let sessions_max = match info.ulMaxRwSessionCount {
            0 | sys::CK_UNAVAILABLE_INFORMATION => None,
            count => Some(count),
        };
        Ok(TokenInfo {
            label: text(&info.label),
            serial: text(&info.serialNumber),
            model: text(&info.model),
            manufacturer: text(&info.manufacturerID),
            flags: info.flags,
            sessions_max,
        })
    }

    pub(crate) fn mechanisms(&self, slot: Slot) -> Result<Vec<MechanismInfo>, Fault> {
        let function = self.0.function(Function::GetMechanismList, |list| list.C_GetMechanismList)?;
        let mut count = 0;
        // SAFETY: a null list asks for the count, which is written to a live local.
        check(Function::GetMechanismList, unsafe { function(slot.0, ptr::null_mut(), &raw mut count) })?;
        let mut mechanisms = vec![0; to_usize(count)];
        // SAFETY: `mechanisms` has room for `count` numbers.
        let code = unsafe { function(slot.0, mechanisms.as_mut_ptr(), &raw mut count) };
        check(Function::GetMechanismList, code)?;
        mechanisms.truncate(to_usize(count));
        mechanisms.into_iter().map(|mechanism| self.mechanism(slot, mechanism)).collect()
    }

    /// Opens a read/write session.
    pub(crate) fn open(&self, slot: Slot) -> Result<Session, Fault> {
        let function = self.0.function(Function::OpenSession, |list| list.C_OpenSession)?;
        let (flags, mut handle) = (sys::CKF_SERIAL_SESSION | sys::CKF_RW_SESSION, 0);
        // SAFETY: no callback is given; the handle is written to a live local.
        let code = unsafe { function(slot.0, flags, ptr::null_mut(), None, &raw mut handle) };
        check(Function::OpenSession, code)?;
        Ok(Session::new(Arc::clone(&self.0), handle))
    }

    /// Calls that belong to no session, by function.
    pub(crate) fn counts(&self) -> &CallCounts {
        &self.0.counts
    }

    fn mechanism(&self, slot: Slot, mechanism: u64) -> Result<MechanismInfo, Fault> {
        let function = self.0.function(Function::GetMechanismInfo, |list| list.C_GetMechanismInfo)?;
        let mut info = sys::CK_MECHANISM_INFO::default();
        // SAFETY: the structure is written to a live local.
        check(Function::GetMechanismInfo, unsafe { function(slot.0, mechanism, &raw mut info) })?;
        let (key_min, key_max) = (info.ulMinKeySize, info.ulMaxKeySize);
        Ok(MechanismInfo { mechanism, key_min, key_max, flags: info.flags })
    }
}

impl Instance {
    /// The function to call, counted as a call that belongs to no session.
    fn function<F>(
        &self,
        function: Function,
        pick: impl Fn(&sys::CK_FUNCTION_LIST) -> Option<F>,
    ) -> Result<F, Fault> {
        let found = self.find(function, pick)?;
        self.counts.count_shared(function);
        Ok(found)
    }

    pub(super) fn find<F>(
        &self,
        function: Function,
        pick: impl Fn(&sys::CK_FUNCTION_LIST) -> Option<F>,
    ) -> Result<F, Fault> {
        if forked() {
            return Err(Fault { function, code: Code::Forked });
        }
        pick(self.list).ok_or(Fault { function, code: Code::Missing })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if forked() || !self.ours {
            return;
        }
        let modules = MODULES.lock();
        // Someone may have loaded the module again between the last drop and the lock: then it is theirs.
        if modules.get(&self.path).is_some_and(|module| module.instance.strong_count() > 0) {
            return;
        }
        if let Some(finalise) = self.list.C_Finalize {
            // SAFETY: no session and no other handle of this instance is left, so nobody is inside; the
            // registry's lock keeps others from initialising meanwhile.
            let code = unsafe { finalise(ptr::null_mut()) };
            tracing::debug!(code, "module finalised");
        }
    }
}

pub(super) fn check(function: Function, code: sys::CK_RV) -> Result<(), Fault> {
    if code == sys::CKR_OK { Ok(()) } else { Err(Fault::new(function, code)) }
}

pub(super) fn to_ulong(len: usize) -> sys::CK_ULONG {
    len as sys::CK_ULONG
}

#[expect(clippy::cast_possible_truncation, reason = "a length that came from a usize or bounds one")]
pub(super) fn to_usize(len: sys::CK_ULONG) -> usize {
    len as usize
}

/// Maps the module for ever and asks for its function list.
fn map(path: &Path) -> Result<&'static sys::CK_FUNCTION_LIST> {
    // SAFETY: loading runs the module's constructors: the operator named it as the module to trust.
    let library =
        unsafe { libloading::Library::new(path) }.map_err(|error| cannot_load(path, &error.to_string()))?;
    // Never unloaded: modules leave threads and exit handlers behind that would run unmapped code.
    let library: &'static libloading::Library = Box::leak(Box::new(library));
    let not_a_module =
        || Error::operator(ErrorKind::Module, format!("{} is not a PKCS#11 library", path.display()));
    // SAFETY: the symbol has this type in every PKCS#11 library (PKCS#11 2.40, 5.4).
    let symbol = unsafe { library.get::<sys::CK_C_GetFunctionList>(b"C_GetFunctionList\0") };
    let Some(get_list) = symbol.ok().and_then(|symbol| *symbol) else { return Err(not_a_module()) };
    let mut list = ptr::null_mut();
    // SAFETY: the pointer is written to a live local.
    let code = unsafe { get_list(&raw mut list) };
    check(Function::Initialize, code).map_err(|_| not_a_module())?;
    // SAFETY: the standard lets the list live as long as the library, which is never unloaded.
    unsafe { list.as_ref() }.ok_or_else(not_a_module)
}

/// Returns whether the instance is ours: not if something else in this process initialised the module.
fn initialise(list: &sys::CK_FUNCTION_LIST, init_args: Option<&str>) -> Result<bool> {
    let missing = Fault { function: Function::Initialize, code: Code::Missing };
    let function = list.C_Initialize.ok_or(missing)?;
    let reserved = match init_args {
        Some(text) => CString::new(text)
            .map_err(|_| Error::operator(ErrorKind::Configuration, "init-args contain a zero byte"))?
            // Leaked: modules are known to keep the pointer.
            .into_raw()
            .cast(),
        None => ptr::null_mut(),
    };
    let flags = sys::CKF_OS_LOCKING_OK;
    let mut args = sys::CK_C_INITIALIZE_ARGS { flags, pReserved: reserved, ..Default::default() };
    // SAFETY: the arguments are a live local, and the string behind `pReserved` lives for ever.
    match unsafe { function((&raw mut args).cast()) } {
        sys::CKR_OK => Ok(true),
        sys::CKR_CRYPTOKI_ALREADY_INITIALIZED => Ok(false),
        code => Err(Error::from(Fault::new(Function::Initialize, code))),
    }
}

/// Sets [`FORKED`] in children from now on; once per process.
fn watch_for_forks() {
    extern "C" fn in_child() {
        FORKED.store(true, Ordering::Relaxed);
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a static function that only stores to an atomic, as a fork handler may.
        let code = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        debug_assert_eq!(code, 0, "pthread_atfork");
    });
}

fn cannot_load(path: &Path, why: &str) -> Error {
    Error::operator(ErrorKind::Module, format!("cannot load {}: {why}", path.display()))
}

/// Fields are padded with blanks; some modules pad with zeros.
fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &str) -> Error {
        Library::load(Path::new(path), None).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_missing_module_is_named() {
        let error = error("/nonexistent/module.so");
        assert_eq!(error.kind(), ErrorKind::Module);
        assert!(error.to_string().contains("cannot load /nonexistent/module.so"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_library_cannot_be_loaded() {
        assert!(error("/etc/passwd").to_string().contains("cannot load /etc/passwd"));
    }

    #[test]
    fn padding_is_taken_off_text_fields() {
        assert_eq!(text(b"pay-1   "), "pay-1");
        assert_eq!(text(b"pay 1\0\0\0"), "pay 1");
    }
}
