//! The safe face of a simulator that was loaded by its path.

#![expect(unsafe_code, reason = "calls of the simulator's own symbols")]

use std::ffi::{CString, c_char};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cryptoki_sys as sys;

mod counts;
mod find;

pub use find::{MODULE_VARIABLE, cdylib_path, module_path};

/// A copy of the module in this process: what it was asked and how it is to behave.
///
/// A module counts as one per path: whoever loads [`Loaded::path`] later, the engine for one, has the same
/// sessions, counters and hangs. Once loaded it stays in memory; only the file of a private copy is removed when
/// the value is dropped.
pub struct Loaded {
    library: &'static libloading::Library,
    path: PathBuf,
    /// A directory to remove.
    temporary: Option<PathBuf>,
}

/// Why a simulator could not be loaded or configured.
#[derive(Debug)]
pub struct LoadError(String);

impl Loaded {
    /// Opens the module at this path, or joins it if the process has it open.
    ///
    /// # Errors
    /// If there is no simulator at the path.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let path = path.canonicalize().map_err(|error| failed("find", path, &error))?;
        // SAFETY: the simulator has no constructors that run when it is loaded.
        let library =
            unsafe { libloading::Library::new(&path) }.map_err(|error| failed("load", &path, &error))?;
        // Never unloaded: threads may hang in it.
        let loaded = Self { library: Box::leak(Box::new(library)), path, temporary: None };
        if loaded.symbol::<extern "C" fn() -> u64>(b"p11_sim_hanging\0").is_none() {
            return Err(LoadError(format!("{} is not the simulator", loaded.path.display())));
        }
        Ok(loaded)
    }

    /// Opens a copy that nobody else has: its own tokens, counters and hangs. It is configured before anyone can
    /// initialise it.
    ///
    /// # Errors
    /// If the module has not been built, cannot be copied or refuses the configuration.
    pub fn private_copy(config: &str) -> Result<Self, LoadError> {
        let built = cdylib_path().ok_or_else(|| LoadError("the module has not been built".into()))?;
        Self::copy_of(&built, config)
    }

    /// As [`Loaded::private_copy`], of the module in this file.
    ///
    /// # Errors
    /// If it cannot be copied, is no simulator or refuses the configuration.
    pub fn copy_of(module: &Path, config: &str) -> Result<Self, LoadError> {
        static COPIES: AtomicU64 = AtomicU64::new(0);
        let copy = COPIES.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("p11-sim-{}-{copy}", std::process::id()));
        let path = directory.join(format!("libp11_sim_{copy}.so"));
        std::fs::create_dir_all(&directory).map_err(|error| failed("make", &directory, &error))?;
        std::fs::copy(module, &path).map_err(|error| failed("copy", module, &error))?;
        let mut loaded = Self::open(&path)?;
        loaded.temporary = Some(directory);
        loaded.configure(config)?;
        Ok(loaded)
    }

    /// Where the module is: for the engine, or any other program of this process.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the configuration: whole before `C_Initialize`, in parts while the module is in use.
    ///
    /// # Errors
    /// If the text is wrong, or names something that cannot be changed now; standard error says what.
    pub fn configure(&self, config: &str) -> Result<(), LoadError> {
        self.say(b"p11_sim_configure\0", config)
    }

    /// Changes live parts of the configuration: now if the module is in use, and for every `C_Initialize` to come, so that
    /// a token which was taken away stays away if the client initialises the module anew. `stall=` begins at once in any
    /// case.
    ///
    /// # Errors
    /// If the text is wrong, or names something that is not live; standard error says what. Then nothing is changed.
    pub fn change(&self, config: &str) -> Result<(), LoadError> {
        self.say(b"p11_sim_change\0", config)
    }

    /// Calls so far of the function of this name, as `C_Sign`.
    ///
    /// # Panics
    /// If there is no such function: a typing error in a test.
    #[must_use]
    pub fn calls_of(&self, function: &str) -> u64 {
        type Calls = unsafe extern "C" fn(*const c_char) -> u64;
        let name = CString::new(function).unwrap_or_default();
        let calls = self.symbol::<Calls>(b"p11_sim_calls_of\0").map_or(u64::MAX, |calls| {
            // SAFETY: the symbol has this type, and the name ends in a zero byte.
            unsafe { calls(name.as_ptr()) }
        });
        assert_ne!(calls, u64::MAX, "no function {function:?}");
        calls
    }

    /// Calls so far of a function on the token with this label.
    ///
    /// # Panics
    /// If there is no such function, or no such token in the device in use or the last one that was.
    #[must_use]
    pub fn calls_on(&self, function: &str, token: &str) -> u64 {
        type Calls = unsafe extern "C" fn(*const c_char, *const c_char) -> u64;
        let name = CString::new(function).unwrap_or_default();
        let label = CString::new(token).unwrap_or_default();
        let calls = self.symbol::<Calls>(b"p11_sim_calls_on\0").map_or(u64::MAX, |calls| {
            // SAFETY: the symbol has this type, and both texts end in a zero byte.
            unsafe { calls(name.as_ptr(), label.as_ptr()) }
        });
        assert_ne!(calls, u64::MAX, "no function {function:?} or no token {token:?}");
        calls
    }

    /// How many calls have answered this code, which is not `CKR_OK`; those that a rule told to included.
    #[must_use]
    pub fn answers_of(&self, code: sys::CK_RV) -> u64 {
        let answers = self.symbol::<extern "C" fn(sys::CK_RV) -> u64>(b"p11_sim_answers_of\0");
        answers.map_or(u64::MAX, |answers| answers(code))
    }

    /// How often a thread entered a session that another one was in. 0 in a sound program.
    #[must_use]
    pub fn concurrent_use(&self) -> u64 {
        self.number(b"p11_sim_concurrent_use\0")
    }

    /// How many calls of `C_Sign` began after the moment in their input, and by how much the latest did. With
    /// `stamped=1`, else none.
    #[must_use]
    pub fn late(&self) -> (u64, Duration) {
        (self.number(b"p11_sim_late\0"), Duration::from_nanos(self.number(b"p11_sim_latest_ns\0")))
    }

    /// The clock of those moments, in nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.number(b"p11_sim_now_ns\0")
    }

    /// How many calls hang now.
    #[must_use]
    pub fn hanging(&self) -> u64 {
        self.number(b"p11_sim_hanging\0")
    }

    /// Waits until so many calls hang at once; false if they do not within the limit.
    #[must_use]
    pub fn wait_hanging(&self, count: u64, limit: Duration) -> bool {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let wait = self.symbol::<extern "C" fn(u64, u64) -> u64>(b"p11_sim_wait_hanging\0");
        wait.is_some_and(|wait| wait(count, limit_ms) == 1)
    }

    /// Lets every call go that hangs now, and forgets the rules by which calls hang.
    pub fn release_hangs(&self) {
        self.run(b"p11_sim_release_hangs\0");
    }

    /// Sets every counter to zero.
    pub fn reset_counters(&self) {
        self.run(b"p11_sim_reset_counters\0");
    }

    /// The function list, for a test that calls the module by hand.
    ///
    /// # Panics
    /// If the module has none, which [`Loaded::open`] would have noticed.
    #[must_use]
    #[expect(clippy::expect_used, reason = "every copy of the simulator has this symbol")]
    pub fn function_list(&self) -> &'static sys::CK_FUNCTION_LIST {
        type GetList = unsafe extern "C" fn(*mut *mut sys::CK_FUNCTION_LIST) -> sys::CK_RV;
        let get_list = self.symbol::<GetList>(b"C_GetFunctionList\0").expect("C_GetFunctionList");
        let mut list = std::ptr::null_mut();
        // SAFETY: the list's address is written to a live local.
        unsafe { get_list(&raw mut list) };
        // SAFETY: the list is a static of a module that is never unloaded.
        unsafe { list.as_ref() }.expect("a function list")
    }

    /// The function list of PKCS#11 3.0, if the module has it as it is configured now.
    ///
    /// # Panics
    /// If the module has no `C_GetInterface`, which every copy of the simulator has.
    #[must_use]
    #[expect(clippy::expect_used, reason = "every copy of the simulator has this symbol")]
    pub fn function_list_3(&self) -> Option<&'static sys::CK_FUNCTION_LIST_3_0> {
        let symbol = self.symbol::<sys::CK_C_GetInterface>(b"C_GetInterface\0").flatten();
        let get_interface = symbol.expect("C_GetInterface");
        let name = c"PKCS 11".as_ptr().cast_mut().cast();
        let (mut version, mut interface) = (sys::CK_VERSION { major: 3, minor: 0 }, std::ptr::null_mut());
        // SAFETY: the name is a static, version and interface are live locals.
        let code = unsafe { get_interface(name, &raw mut version, &raw mut interface, 0) };
        if code != sys::CKR_OK {
            return None;
        }
        // SAFETY: the interface is a static of a module that is never unloaded.
        let interface: &sys::CK_INTERFACE = unsafe { interface.as_ref() }?;
        // SAFETY: so is the list, which is of the version that was asked for.
        unsafe { interface.pFunctionList.cast::<sys::CK_FUNCTION_LIST_3_0>().as_ref() }
    }

    fn say(&self, symbol: &[u8], config: &str) -> Result<(), LoadError> {
        type Configure = unsafe extern "C" fn(*const c_char) -> sys::CK_RV;
        let text = CString::new(config).map_err(|_| LoadError("a zero byte in the configuration".into()))?;
        let refused = || LoadError(format!("the simulator refuses {config:?}"));
        let configure = self.symbol::<Configure>(symbol).ok_or_else(refused)?;
        // SAFETY: the symbol has this type, and the text ends in a zero byte.
        let code = unsafe { configure(text.as_ptr()) };
        if code == sys::CKR_OK { Ok(()) } else { Err(refused()) }
    }

    fn number(&self, name: &[u8]) -> u64 {
        self.symbol::<extern "C" fn() -> u64>(name).map_or(u64::MAX, |read| read())
    }

    fn run(&self, name: &[u8]) {
        if let Some(run) = self.symbol::<extern "C" fn()>(name) {
            run();
        }
    }

    fn symbol<F: Copy>(&self, name: &[u8]) -> Option<F> {
        // SAFETY: every caller names a symbol of the simulator with the type that it has there.
        unsafe { self.library.get::<F>(name) }.ok().map(|symbol| *symbol)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Some(directory) = &self.temporary {
            // What is left behind is a small file in a directory for such.
            let _removed = std::fs::remove_dir_all(directory);
        }
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

fn failed(what: &str, path: &Path, error: &dyn fmt::Display) -> LoadError {
    LoadError(format!("cannot {what} {}: {error}", path.display()))
}
