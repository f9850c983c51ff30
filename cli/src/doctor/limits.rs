//! Limits that the system sets to processes: open files, and memory that is locked.

use rustix::process::{Resource, getrlimit};

use super::access::me;
use super::finding::Finding;

/// Limits of this process, which are those of a service only if it is started in the same way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most open files; none if there is no limit.
    files: Option<u64>,
    /// Most locked memory, in bytes.
    locked: Option<u64>,
    is_root: bool,
    /// Most sessions of the engine; none if that is not known.
    sessions: Option<u64>,
    /// Whether the PIN's memory must be locked.
    hardens: bool,
}

/// Open files beside those of sessions: logs, the audit log, records, libraries, what the program itself has.
const FILES_BESIDE: u64 = 64;

/// What a page has at most on any machine.
const PAGE_MAX: u64 = 64 << 10;

impl Limits {
    pub(super) fn here(sessions: Option<u64>, hardens: bool) -> Self {
        Self {
            files: getrlimit(Resource::Nofile).current,
            locked: getrlimit(Resource::Memlock).current,
            is_root: me() == 0,
            sessions,
            hardens,
        }
    }
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
    match limits.locked {
        // getrlimit(2): with CAP_IPC_LOCK there is no limit.
        _ if limits.is_root => Finding::ok(CHECK, "root may lock memory"),
        Some(limit) if limit >= PAGE_MAX => {
            Finding::ok(CHECK, format!("{limit} bytes of memory may be locked here"))
        }
        None => Finding::ok(CHECK, "any amount of memory may be locked here"),
        Some(limit) if limit > 0 => Finding::ok(
            CHECK,
            format!("{limit} bytes of memory may be locked here: a page or so, for one PIN"),
        ),
        Some(_) if limits.hardens => {
            let what = "no memory may be locked here (RLIMIT_MEMLOCK is 0), and harden_process demands it for the PIN";
            Finding::problem(CHECK, what, advice)
        }
        Some(_) => {
            let what = "no memory may be locked here (RLIMIT_MEMLOCK is 0): the PIN may be swapped to a disk";
            Finding::warning(CHECK, what, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const GOOD: Limits = Limits {
        files: Some(1024),
        locked: Some(8 << 20),
        is_root: false,
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
        let level =
            |locked, is_root, hardens| judge_memory(&Limits { locked, is_root, hardens, ..GOOD }).level;
        assert_eq!(level(Some(0), false, false), Level::Warning);
        assert_eq!(level(Some(0), false, true), Level::Problem);
        assert_eq!(level(Some(0), true, true), Level::Ok);
        assert_eq!(level(Some(4096), false, true), Level::Ok);
        assert_eq!(level(None, false, true), Level::Ok);
        let here = judge(&Limits::here(Some(3), false));
        assert_eq!(
            here.iter().map(|finding| finding.check).collect::<Vec<_>>(),
            ["limits.files", "limits.memory"]
        );
    }
}
