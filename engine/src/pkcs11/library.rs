//! Modules: each instance loaded once, initialised once, never unloaded.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Once};
use std::time::Duration;

use cryptoki_sys as sys;
use once_cell::sync::Lazy;

use crate::clock::time_of_day;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::pkcs11::barrier::{Barrier, Inside};
use crate::pkcs11::codes::{Code, Fault};
use crate::pkcs11::copy::{map_copy, refused};
use crate::pkcs11::function::{CallCounts, Function};
use crate::pkcs11::kind::ModuleKind;
use crate::pkcs11::map::{Lists, cannot_load, map};
use crate::pkcs11::session::Session;
use crate::pkcs11::told::{SessionCounts, TokenClock};
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::threads;

/// A slot's number, good for one instance only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot(pub(super) sys::CK_SLOT_ID);

/// What `C_GetTokenInfo` and `C_GetSlotInfo` say, with the padding taken off.
#[derive(Clone, Debug)]
pub(crate) struct TokenInfo {
    pub(crate) slot: Slot,
    /// Empty where the module does not tell, as is the manufacturer then.
    pub(crate) slot_description: String,
    pub(crate) slot_manufacturer: String,
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) manufacturer: String,
    pub(crate) flags: u64,
    /// Most sessions; `None` if unlimited or not told.
    pub(crate) sessions_max: Option<u64>,
    pub(crate) sessions: SessionCounts,
    /// `None` if it has none.
    pub(crate) clock: Option<TokenClock>,
}

/// What `C_GetInfo` says.
#[derive(Clone, Debug)]
pub(crate) struct ModuleInfo {
    pub(crate) manufacturer: String,
    pub(crate) description: String,
    pub(crate) version: (u8, u8),
    pub(crate) cryptoki: (u8, u8),
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
    lists: Lists,
    id: InstanceId,
    /// Whether this process's `C_Initialize` was ours: else it is not ours to finalise.
    ours: bool,
    counts: CallCounts,
    /// Slots whose tokens were logged in to through this instance.
    logins: Mutex<HashSet<Slot>>,
    pub(super) barrier: Barrier,
    pub(super) kind: ModuleKind,
}

/// Most slots, and most mechanisms of one: room is made for so many at most, whatever a module says it has.
const LIST_MAX: usize = 1 << 16;

/// Which instance of which module: its canonical path and its number, 0 for the library itself, from 1 on for private
/// copies of it. Engines share the copies of a number, as they share the library, so that they do not pile up.
type InstanceId = (PathBuf, usize);

/// Instances of modules in this process. The lock is held over `C_Initialize` and `C_Finalize`, which PKCS#11 2.40
/// (5.4) forbids to run at the same time.
static MODULES: Lazy<Mutex<HashMap<InstanceId, Module>>> = Lazy::new(|| Mutex::new(HashMap::new()));

/// A module that is mapped for ever, and its instance while there is one.
struct Module {
    lists: Lists,
    init_args: Option<String>,
    instance: std::sync::Weak<Instance>,
    /// Initialised by this registry and not finalised yet.
    ours: bool,
    /// Done once the module has been initialised, and has set its exit handlers.
    joins_at_exit: Once,
}

impl Module {
    fn new(lists: Lists) -> Self {
        let (instance, joins_at_exit) = (std::sync::Weak::new(), Once::new());
        Self { lists, init_args: None, instance, ours: false, joins_at_exit }
    }
}

/// Set in a child that was forked after a module was loaded.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Whether this process was forked after a module was loaded: then nothing may be called.
pub(crate) fn forked() -> bool {
    // Relaxed: set before the child's only thread runs on.
    FORKED.load(Ordering::Relaxed)
}

impl Slot {
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) const fn numbered(number: u64) -> Self {
        Self(number)
    }
}

impl Library {
    /// Loads and initialises a module, or joins the instance that this process has of it.
    ///
    /// `init_args` goes to `C_Initialize` as `pReserved`, for modules that read a string there (NSS, p11-sim). Without a `kind` what it is has been said, or does not matter.
    pub(crate) fn load(path: &Path, init_args: Option<&str>, kind: Option<ModuleKind>) -> Result<Self> {
        if forked() {
            return Err(Fault::of(Function::Initialize, Code::Forked).into());
        }
        let path = path.canonicalize().map_err(|error| cannot_load(path, &error.to_string()))?;
        Self::instance((path, 0), init_args, kind)
    }

    /// The private copy of this number, from 1 on, of the same library: loaded and initialised by itself, and shared
    /// as the library is.
    ///
    /// # Errors
    /// `Configuration`, if the module cannot be copied, or the copy is none: it shares globals with another instance.
    pub(crate) fn copy(&self, number: usize, init_args: Option<&str>) -> Result<Self> {
        if forked() {
            return Err(Fault::of(Function::Initialize, Code::Forked).into());
        }
        let copy = Self::instance((self.path().to_owned(), number), init_args, Some(self.0.kind)).map_err(
            |error| {
                // What is wrong may be that it is the second: the library itself could be initialised.
                if error.kind() == ErrorKind::Configuration { error } else { refused(&error.to_string()) }
            },
        )?;
        if copy.0.ours { Ok(copy) } else { Err(refused("a copy of it was initialised already")) }
    }

    fn instance(id: InstanceId, init_args: Option<&str>, kind: Option<ModuleKind>) -> Result<Self> {
        let mut modules = MODULES.lock();
        if !modules.contains_key(&id) {
            let lists = match &id {
                (path, 0) => map(path)?,
                (path, number) => {
                    let others = modules.iter().filter(|((of, _), _)| of == path);
                    map_copy(path, *number, &others.map(|(_, module)| module.lists.list).collect::<Vec<_>>())?
                }
            };
            watch_for_forks();
            modules.insert(id.clone(), Module::new(lists));
        }
        let Some(module) = modules.get_mut(&id) else {
            return Err(Error::internal("a module vanished from the registry"));
        };
        if let Some(instance) = module.instance.upgrade() {
            if module.init_args.as_deref() != init_args {
                let text = "the module is in use with other init-args in this process";
                return Err(Error::operator(ErrorKind::Configuration, text));
            }
            if kind.is_some_and(|kind| kind != instance.kind) {
                let text = "the module is in use as one of another kind in this process";
                return Err(Error::operator(ErrorKind::Configuration, text));
            }
            return Ok(Self(instance));
        }
        if module.ours && module.init_args.as_deref() != init_args {
            // Its last user has gone, but has not come to finalise it yet.
            let text = "the module is still in use with other init-args in this process";
            return Err(Error::operator(ErrorKind::Configuration, text));
        }
        // Still initialised by us: this instance takes the duty to finalise over.
        let ours = module.ours || initialise(module.lists.list, init_args)?;
        module.ours = ours;
        module.joins_at_exit.call_once(join_threads_at_exit);
        let (counts, logins, barrier) = (CallCounts::new(), Mutex::default(), Barrier::new());
        let instance = Arc::new(Instance {
            lists: module.lists,
            id,
            ours,
            counts,
            logins,
            barrier,
            kind: kind.unwrap_or_default(),
        });
        instance.counts.count_shared(Function::Initialize);
        module.instance = Arc::downgrade(&instance);
        module.init_args = init_args.map(str::to_owned);
        Ok(Self(instance))
    }

    /// Whether a token may well be logged in to, although who asks has not done it: others use this instance too.
    /// That is known of private copies, which nobody but this registry has; if such a token is logged in to and was
    /// not through the copy, the copy shares globals with another instance.
    pub(crate) fn may_be_logged_in(&self, slot: Slot) -> bool {
        self.0.id.1 == 0 || self.0.logins.lock().contains(&slot)
    }

    /// Keeps in mind that a token was logged in to.
    pub(crate) fn note_login(&self, slot: Slot) {
        self.0.logins.lock().insert(slot);
    }

    /// Where the module's library is: a canonical path. That of the original, for a copy.
    pub(crate) fn path(&self) -> &Path {
        &self.0.id.0
    }

    pub(crate) fn info(&self) -> Result<ModuleInfo, Fault> {
        let (function, _inside) = self.0.function(Function::GetInfo, |list| list.C_GetInfo)?;
        let mut info = sys::CK_INFO::default();
        // SAFETY: the structure is written to a live local.
        check(Function::GetInfo, unsafe { function(&raw mut info) })?;
        let version = |version: sys::CK_VERSION| (version.major, version.minor);
        Ok(ModuleInfo {
            manufacturer: text(&info.manufacturerID),
            description: text(&info.libraryDescription),
            version: version(info.libraryVersion),
            cryptoki: version(info.cryptokiVersion),
        })
    }

    /// The slots that hold a token now.
    pub(crate) fn slots(&self) -> Result<Vec<Slot>, Fault> {
        let (function, _inside) = self.0.function(Function::GetSlotList, |list| list.C_GetSlotList)?;
        // A token may come between the two calls; room for a few more makes that harmless.
        let mut count = 0;
        // SAFETY: a null list asks for the count, which is written to a live local.
        check(Function::GetSlotList, unsafe { function(sys::CK_TRUE, ptr::null_mut(), &raw mut count) })?;
        let mut slots = vec![0; to_usize(count).min(LIST_MAX) + 8];
        count = to_ulong(slots.len());
        // SAFETY: `slots` has room for `count` numbers.
        check(Function::GetSlotList, unsafe { function(sys::CK_TRUE, slots.as_mut_ptr(), &raw mut count) })?;
        slots.truncate(to_usize(count));
        Ok(slots.into_iter().map(Slot).collect())
    }

    pub(crate) fn token_info(&self, slot: Slot) -> Result<TokenInfo, Fault> {
        let (function, _inside) = self.0.function(Function::GetTokenInfo, |list| list.C_GetTokenInfo)?;
        let mut info = sys::CK_TOKEN_INFO::default();
        // SAFETY: the structure is written to a live local.
        check(Function::GetTokenInfo, unsafe { function(slot.0, &raw mut info) })?;
        let sessions = SessionCounts::of(&info);
        // Only URIs ask for it, and a token whose slot says nothing of itself is a token.
        let (slot_description, slot_manufacturer) = self.slot_info(slot).unwrap_or_default();
        Ok(TokenInfo {
            slot,
            slot_description,
            slot_manufacturer,
            label: text(&info.label),
            serial: text(&info.serialNumber),
            model: text(&info.model),
            manufacturer: text(&info.manufacturerID),
            flags: info.flags,
            sessions_max: sessions.rw_max,
            sessions,
            clock: TokenClock::of(&info, time_of_day()),
        })
    }

    /// The lengths of a user PIN that the token takes, in bytes: shortest and longest (PKCS#11 2.40, `CK_TOKEN_INFO`). What it
    /// does not tell bounds nothing.
    pub(crate) fn pin_lengths(&self, slot: Slot) -> Result<(usize, usize), Fault> {
        let (function, _inside) = self.0.function(Function::GetTokenInfo, |list| list.C_GetTokenInfo)?;
        let mut info = sys::CK_TOKEN_INFO::default();
        // SAFETY: the structure is written to a live local.
        check(Function::GetTokenInfo, unsafe { function(slot.0, &raw mut info) })?;
        let told =
            |len: sys::CK_ULONG| Some(to_usize(len)).filter(|_| len != sys::CK_UNAVAILABLE_INFORMATION);
        let min = told(info.ulMinPinLen).unwrap_or(0);
        let max = told(info.ulMaxPinLen).filter(|&max| max > 0 && max >= min);
        Ok((min, max.unwrap_or(usize::MAX)))
    }

    /// Description and manufacturer of a slot.
    fn slot_info(&self, slot: Slot) -> Result<(String, String), Fault> {
        let (function, _inside) = self.0.function(Function::GetSlotInfo, |list| list.C_GetSlotInfo)?;
        let mut info = sys::CK_SLOT_INFO::default();
        // SAFETY: the structure is written to a live local.
        check(Function::GetSlotInfo, unsafe { function(slot.0, &raw mut info) })?;
        Ok((text(&info.slotDescription), text(&info.manufacturerID)))
    }

    pub(crate) fn mechanisms(&self, slot: Slot) -> Result<Vec<MechanismInfo>, Fault> {
        let (function, _inside) =
            self.0.function(Function::GetMechanismList, |list| list.C_GetMechanismList)?;
        let mut count = 0;
        // SAFETY: a null list asks for the count, which is written to a live local.
        check(Function::GetMechanismList, unsafe { function(slot.0, ptr::null_mut(), &raw mut count) })?;
        let mut mechanisms = vec![0; to_usize(count).min(LIST_MAX)];
        count = to_ulong(mechanisms.len());
        // SAFETY: `mechanisms` has room for `count` numbers.
        let code = unsafe { function(slot.0, mechanisms.as_mut_ptr(), &raw mut count) };
        check(Function::GetMechanismList, code)?;
        mechanisms.truncate(to_usize(count));
        mechanisms.into_iter().map(|mechanism| self.mechanism(slot, mechanism)).collect()
    }

    /// Opens a read/write session.
    pub(crate) fn open(&self, slot: Slot) -> Result<Session, Fault> {
        let (function, inside) = self.0.function(Function::OpenSession, |list| list.C_OpenSession)?;
        let (flags, mut handle) = (sys::CKF_SERIAL_SESSION | sys::CKF_RW_SESSION, 0);
        // SAFETY: no callback is given; the handle is written to a live local.
        let code = unsafe { function(slot.0, flags, ptr::null_mut(), None, &raw mut handle) };
        check(Function::OpenSession, code)?;
        inside.stay();
        Ok(Session::new(Arc::clone(&self.0), slot, handle))
    }

    /// The function to call, as [`Instance::function`] has it.
    pub(super) fn function<F>(
        &self,
        function: Function,
        pick: impl Fn(&sys::CK_FUNCTION_LIST) -> Option<F>,
    ) -> Result<(F, Inside<'_>), Fault> {
        self.0.function(function, pick)
    }

    pub(super) fn of(instance: &Arc<Instance>) -> Self {
        Self(Arc::clone(instance))
    }

    /// Finalises the module and initialises it again, once all sessions of this process with it are closed or abandoned
    /// and nobody is inside it; waits for that at most for `limit`. Slots, sessions, objects and logins of before are gone.
    ///
    /// # Errors
    /// [`ErrorKind::Module`]: with [`Retry::Later`] if somebody is inside; with [`Retry::Operator`] if somebody else has
    /// initialised the module, whose it is then; what the module answers.
    pub(crate) fn reset(&self, limit: Duration) -> Result<()> {
        let instance = &self.0;
        if !instance.ours {
            return Err(Error::operator(
                ErrorKind::Module,
                "another part of this process has initialised it",
            ));
        }
        instance.barrier.close(limit).map_err(|inside| {
            let text = format!("{inside} sessions or calls are still inside it");
            Error::new(ErrorKind::Module, Retry::Later, Outcome::NotDone).because(text)
        })?;
        let result = instance.initialise_again();
        instance.barrier.open();
        result
    }

    /// Whether the module has the interface of PKCS#11 3.x.
    pub(crate) fn has_interface_3(&self) -> bool {
        self.0.lists.list_3.is_some()
    }

    /// Calls that belong to no session, by function.
    pub(crate) fn counts(&self) -> &CallCounts {
        &self.0.counts
    }

    fn mechanism(&self, slot: Slot, mechanism: u64) -> Result<MechanismInfo, Fault> {
        let (function, _inside) =
            self.0.function(Function::GetMechanismInfo, |list| list.C_GetMechanismInfo)?;
        let mut info = sys::CK_MECHANISM_INFO::default();
        // SAFETY: the structure is written to a live local.
        check(Function::GetMechanismInfo, unsafe { function(slot.0, mechanism, &raw mut info) })?;
        let (key_min, key_max) = (info.ulMinKeySize, info.ulMaxKeySize);
        Ok(MechanismInfo { mechanism, key_min, key_max, flags: info.flags })
    }
}

impl Instance {
    /// The function to call, counted as a call that belongs to no session. Who calls it is inside until the guard is
    /// dropped.
    fn function<F>(
        &self,
        function: Function,
        pick: impl Fn(&sys::CK_FUNCTION_LIST) -> Option<F>,
    ) -> Result<(F, Inside<'_>), Fault> {
        let found = self.find(function, pick)?;
        let inside = self.barrier.pass().ok_or(Fault::of(function, Code::Resetting))?;
        self.counts.count_shared(function);
        Ok((found, inside))
    }

    pub(super) fn find<F>(
        &self,
        function: Function,
        pick: impl Fn(&sys::CK_FUNCTION_LIST) -> Option<F>,
    ) -> Result<F, Fault> {
        if forked() {
            return Err(Fault::of(function, Code::Forked));
        }
        pick(self.lists.list).ok_or(Fault::of(function, Code::Missing))
    }
}

impl Instance {
    /// While the barrier is closed.
    fn initialise_again(&self) -> Result<()> {
        let modules = MODULES.lock();
        let Some(module) = modules.get(&self.id) else {
            return Err(Error::internal("a module vanished from the registry"));
        };
        let finalise = self.find(Function::Finalize, |list| list.C_Finalize)?;
        self.counts.count_shared(Function::Finalize);
        // SAFETY: the barrier is closed: no session and no call of this instance is left, so nobody is inside; the
        // registry's lock keeps others from initialising meanwhile.
        let code = unsafe { finalise(ptr::null_mut()) };
        tracing::warn!(code, "module finalised, to be initialised anew");
        // Whatever it answered: a module that has lost its state may say that there is nothing to finalise.
        self.logins.lock().clear();
        self.counts.count_shared(Function::Initialize);
        match initialise(self.lists.list, module.init_args.as_deref())? {
            true => Ok(()),
            false => Err(Error::operator(ErrorKind::Module, "it could not be finalised")),
        }
    }

    /// As [`Instance::find`], among those that came with PKCS#11 3.0.
    pub(super) fn find_3<F>(
        &self,
        function: Function,
        pick: impl Fn(&sys::CK_FUNCTION_LIST_3_0) -> Option<F>,
    ) -> Result<F, Fault> {
        if forked() {
            return Err(Fault::of(function, Code::Forked));
        }
        self.lists.list_3.and_then(pick).ok_or(Fault::of(function, Code::Missing))
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("id", &self.0.id).finish_non_exhaustive()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if forked() || !self.ours {
            return;
        }
        let mut modules = MODULES.lock();
        // Someone may have loaded the module again between the last drop and the lock: then it is theirs.
        if modules.get(&self.id).is_some_and(|module| module.instance.strong_count() > 0) {
            return;
        }
        if let Some(module) = modules.get_mut(&self.id) {
            module.ours = false;
        }
        if let Some(finalise) = self.lists.list.C_Finalize {
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

/// Returns whether the instance is ours: not if something else in this process initialised the module.
fn initialise(list: &sys::CK_FUNCTION_LIST, init_args: Option<&str>) -> Result<bool> {
    let missing = Fault::of(Function::Initialize, Code::Missing);
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
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a static function that only stores to an atomic, as a fork handler may.
        let code = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        debug_assert_eq!(code, 0, "pthread_atfork");
    });
}

/// Joins the threads of dropped engines when the process exits normally, before the handlers that modules have set
/// by now: exit handlers run in reverse order (POSIX.1-2017, `atexit`).
fn join_threads_at_exit() {
    extern "C" fn at_exit() {
        // A child has none of the threads, and their lock may be held for ever.
        if !forked() {
            threads::join_left();
        }
    }
    // SAFETY: the handler is a function of this library, which is never unloaded before the process ends.
    let code = unsafe { libc::atexit(at_exit) };
    debug_assert_eq!(code, 0, "atexit");
}

/// Fields are padded with blanks; some modules pad with zeros.
fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &str) -> Error {
        Library::load(Path::new(path), None, None).map(|_| ()).unwrap_err()
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
