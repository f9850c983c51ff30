//! Limits that the system sets to processes: open files, and memory that is locked.

use rustix::process::{Resource, getrlimit};

use super::finding::Finding;

/// Limits of this process, which are those of a service only if it is started in the same way.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Most open files; none if there is no limit.
    files: Option<u64>,
    /// Whether a page of memory could be locked, which is all that a PIN takes; else why not.
    locked: Result<(), String>,
    /// Most locked memory, in bytes; none if there is no limit.
    locked_max: Option<u64>,
    /// Most sessions of the engine; none if that is not known.
    sessions: Option<u64>,
    /// Whether the PIN's memory must be locked.
    hardens: bool,
}

/// Open files beside those of sessions: logs, the audit log, records, libraries, what the program itself has.
const FILES_BESIDE: u64 = 64;

impl Limits {
    pub(super) fn here(sessions: Option<u64>, hardens: bool) -> Self {
        Self {
            files: getrlimit(Resource::Nofile).current,
            locked: lock_page(),
            locked_max: getrlimit(Resource::Memlock).current,
            sessions,
            hardens,
        }
    }
}

/// Locks a page, for a moment: who may do so without a limit, and what else is locked, the limit does not tell.
fn lock_page() -> Result<(), String> {
    let page = vec![0_u8; region::page::size()];
    region::lock(page.as_ptr(), page.len()).map(drop).map_err(|error| error.to_string())
}

/// Whether they are enough.
pub(super) fn judge(limits: &Limits) -> Vec<Finding> {
    vec![judge_files(limits), judge_memory(limits)]
}

fn judge_files(limits: &Limits) -> Finding {
    const CHECK: &str = "limits.files";
    let Some(sessions) = limits.sessions else {
        return Finding::skipped(CHECK, "it is not known how many sessions there will be");
    };
    let need = sessions + FILES_BESIDE;
    match limits.files {
        Some(limit) if limit < need => Finding::warning(
            CHECK,
            format!(
                "{limit} files may be open here, and {sessions} sessions may need {need}: modules on a network have a \
                 connection for each"
            ),
            format!("LimitNOFILE={need} in the service's unit, or ulimit -n {need}"),
        ),
        Some(limit) => {
            Finding::ok(CHECK, format!("{limit} files may be open here, for {sessions} sessions at most"))
        }
        None => Finding::ok(CHECK, "any number of files may be open here"),
    }
}

fn judge_memory(limits: &Limits) -> Finding {
    const CHECK: &str = "limits.memory";
    let advice = "LimitMEMLOCK=64K in the service's unit, or ulimit -l 64";
    let Err(why) = &limits.locked else { return Finding::ok(CHECK, "memory for a PIN can be locked here") };
    let limit =
        limits.locked_max.map_or_else(String::new, |bytes| format!(" (RLIMIT_MEMLOCK is {bytes} bytes)"));
    let what = format!("no memory can be locked here{limit}: {why}");
    match limits.hardens {
        true => Finding::problem(CHECK, format!("{what}; harden_process demands it for the PIN"), advice),
        false => Finding::warning(CHECK, format!("{what}; the PIN may be swapped to a disk"), advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const GOOD: Limits = Limits {
        files: Some(1024),
        locked: Ok(()),
        locked_max: Some(8 << 20),
        sessions: Some(66),
        hardens: false,
    };

    #[test]
    fn too_few_open_files_for_the_sessions_are_a_warning() {
        let of = |files, sessions| judge_files(&Limits { files, sessions, ..GOOD });
        assert_eq!(of(Some(1024), Some(66)).level, Level::Ok);
        assert_eq!(of(None, Some(1 << 40)).level, Level::Ok);
        assert_eq!(of(Some(130), Some(66)).level, Level::Ok);
        let few = of(Some(129), Some(66));
        assert!(few.level == Level::Warning && few.advice.unwrap().contains("LimitNOFILE=130"));
        assert_eq!(of(Some(1024), None).level, Level::Skipped);
    }

    #[test]
    fn memory_that_cannot_be_locked_is_a_warning_or_where_it_must_be_a_problem() {
        let of = |locked: Result<(), &str>, hardens| {
            let locked = locked.map_err(str::to_owned);
            judge_memory(&Limits { locked, locked_max: Some(0), hardens, ..GOOD })
        };
        assert_eq!(of(Err("denied"), true).level, Level::Problem);
        let warned = of(Err("denied"), false);
        assert!(warned.level == Level::Warning && warned.what.contains("RLIMIT_MEMLOCK is 0 bytes): denied"));
        // Whatever the limit is.
        assert_eq!([of(Ok(()), false).level, of(Ok(()), true).level], [Level::Ok; 2]);
        let here = judge(&Limits::here(Some(3), false));
        assert_eq!(
            here.iter().map(|finding| finding.check).collect::<Vec<_>>(),
            ["limits.files", "limits.memory"]
        );
    }
}
