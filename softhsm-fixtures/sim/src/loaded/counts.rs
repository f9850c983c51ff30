//! What a loaded simulator has counted of its callers' mistakes, and of what it has executed.

use super::{CString, Loaded, c_char};

impl Loaded {
    /// Calls so far with the number of a session that is not open. A session that the token has lost is found out by
    /// such a call; where nothing is lost, it is 0 in a sound program.
    #[must_use]
    pub fn stale_sessions(&self) -> u64 {
        self.number(b"p11_sim_stale_sessions\0")
    }

    /// Calls so far with the number of an object that is not there, or may not be seen without a login. As for
    /// sessions. In null mode only keys of another token are noticed.
    #[must_use]
    pub fn stale_objects(&self) -> u64 {
        self.number(b"p11_sim_stale_objects\0")
    }

    /// How often an operation was to begin in a session that had not ended another one, whatever rules answered
    /// elsewhere. 0 in a sound program.
    #[must_use]
    pub fn active_at_init(&self) -> u64 {
        self.number(b"p11_sim_active_at_init\0")
    }

    /// Calls so far that `C_Finalize` found inside the module, those that hang included.
    #[must_use]
    pub fn finalised_inside(&self) -> u64 {
        self.number(b"p11_sim_finalised_inside\0")
    }

    /// Outputs so far that were written after their call had returned, as `late-MS` tells.
    #[must_use]
    pub fn late_writes(&self) -> u64 {
        self.number(b"p11_sim_late_writes\0")
    }

    /// How often this input was executed, by all functions and with all keys, while `count_executions` is set. The
    /// input of a call that makes an object is the object's label, or its id if it has no label.
    #[must_use]
    pub fn executions(&self, input: &[u8]) -> u64 {
        self.executions_by(None, input)
    }

    /// As [`Loaded::executions`], by one function.
    ///
    /// # Panics
    /// If there is no such function: a typing error in a test.
    #[must_use]
    pub fn executions_of(&self, function: &str, input: &[u8]) -> u64 {
        let executions = self.executions_by(Some(function), input);
        assert_ne!(executions, u64::MAX, "no function {function:?}");
        executions
    }

    /// How many inputs one function has executed with one key more than so often: 0 for 1 if every request ran at most
    /// once, no two had the same input, and the client has signed nothing twice of its own accord.
    #[must_use]
    pub fn executed_more_than(&self, times: u64) -> u64 {
        let above = self.symbol::<extern "C" fn(u64) -> u64>(b"p11_sim_executed_more_than\0");
        above.map_or(u64::MAX, |above| above(times))
    }

    /// Executions that were not counted, because there were more different inputs than `count_executions` says.
    #[must_use]
    pub fn executions_forgotten(&self) -> u64 {
        self.number(b"p11_sim_executions_forgotten\0")
    }

    fn executions_by(&self, function: Option<&str>, input: &[u8]) -> u64 {
        type Executions = unsafe extern "C" fn(*const c_char, *const u8, u64) -> u64;
        let name = function.map(|function| CString::new(function).unwrap_or_default());
        let name = name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        let executions = self.symbol::<Executions>(b"p11_sim_executions\0");
        // SAFETY: the symbol has this type, the name ends in a zero byte, and the input is as long as it says.
        executions.map_or(u64::MAX, |read| unsafe { read(name, input.as_ptr(), input.len() as u64) })
    }
}
