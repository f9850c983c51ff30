//! What keeps a process's memory from those who may read its remains: no core files, and no debugger of the same user.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Error, ErrorKind, Result};

/// Forbids core files (`RLIMIT_CORE` is 0, for good) and, on Linux, has the kernel let nobody but root trace the process or read
/// its memory (`PR_SET_DUMPABLE`, prctl(2)).
///
/// For programs that read a PIN and build no engine; else see [`Builder::harden_process`](crate::Builder::harden_process).
///
/// # Errors
/// `Configuration`, if one of them is not so afterwards.
pub fn process() -> Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| failed("RLIMIT_CORE", &error))?;
    if getrlimit(Resource::Core) != none {
        return Err(failed("RLIMIT_CORE", &"it is not 0"));
    }
    forbid_dumps()
}

#[cfg(target_os = "linux")]
fn forbid_dumps() -> Result<()> {
    use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

    const WHAT: &str = "PR_SET_DUMPABLE";
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| failed(WHAT, &error))?;
    match dumpable_behavior() {
        Ok(DumpableBehavior::NotDumpable) => Ok(()),
        Ok(_) => Err(failed(WHAT, &"it is not 0")),
        Err(error) => Err(failed(WHAT, &error)),
    }
}

#[cfg(not(target_os = "linux"))]
fn forbid_dumps() -> Result<()> {
    Ok(())
}

fn failed(what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::operator(ErrorKind::Configuration, format!("the process cannot be hardened: {what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_process_can_leave_no_core_and_not_be_traced() {
        process().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::process::dumpable_behavior().unwrap(),
            rustix::process::DumpableBehavior::NotDumpable
        );
        process().unwrap();
    }
}
