//! Who may change what is at a path.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::finding::Finding;

/// A file or directory, as far as it matters who may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) is_file: bool,
    pub(super) owner: u32,
    pub(super) mode: u32,
}

/// A directory that an engine keeps its own files in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Private {
    Missing {
        /// Whether this user can make it.
        can_make: bool,
    },
    /// An engine would not take it.
    Refused {
        why: String,
        /// To whom it belongs.
        owner: u32,
        /// Whether it is the directory itself that others may write to.
        is_open: bool,
    },
    /// An engine takes it, and cannot write there.
    Unwritable {
        why: String,
    },
    Usable,
}

/// Bits of a mode by which group and others may write.
const OTHERS_WRITE: u32 = 0o022;

/// The bit of a directory in which one may only replace what is one's own.
const STICKY: u32 = 0o1000;

/// This process's user.
pub(super) fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A path as a shell takes it, from wherever the command is run.
pub(super) fn quoted(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    shlex::try_quote(&path).map(|quoted| quoted.into_owned()).unwrap_or_default()
}

/// A file that has no name any more, whatever becomes of this process.
pub(super) fn scratch(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".hsmux-doctor-{}", std::process::id()));
    let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let file = match open() {
        // Of one that was killed in between, and had the same number.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(&path)?;
            open()?
        }
        opened => opened?,
    };
    std::fs::remove_file(&path)?;
    Ok(file)
}

impl Place {
    /// What a path leads to.
    pub(super) fn look(path: &Path) -> io::Result<Self> {
        let facts = path.metadata()?;
        let (is_file, owner, mode) = (facts.is_file(), facts.uid(), facts.mode() & 0o7777);
        Ok(Self { path: path.to_owned(), is_file, owner, mode })
    }

    /// The directory in which somebody could put another file in its place.
    pub(super) fn look_above(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        Self::look(path.parent().unwrap_or(&path))
    }

    /// Why somebody other than this user and root may change it, and the command against that.
    pub(super) fn open_to(&self, me: u32) -> Option<(String, String)> {
        let (path, shell) = (self.path.display(), quoted(&self.path));
        if ![0, me].contains(&self.owner) {
            let owner = self.owner;
            return Some((
                format!("{path} belongs to user {owner}, who may change it"),
                format!("chown root {shell}"),
            ));
        }
        let is_guarded = !self.is_file && self.mode & STICKY != 0;
        let is_open = self.mode & OTHERS_WRITE != 0 && !is_guarded;
        let why = || format!("others may write to {path} (mode {:04o})", self.mode);
        is_open.then(|| (why(), format!("chmod go-w {shell}")))
    }
}

impl Private {
    pub(super) fn look(path: &Path) -> Self {
        if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return match hsmux::check_private_way(path) {
                Ok(()) => Self::Missing { can_make: can_make(path) },
                Err(error) => Self::Refused { why: error.to_string(), owner: me(), is_open: false },
            };
        }
        match hsmux::check_private_directory(path) {
            // Modes do not tell of file systems that are read-only, nor of lists of access.
            Ok(()) => match path.read_dir().and_then(|_| scratch(path)) {
                Ok(_) => Self::Usable,
                Err(error) => Self::Unwritable { why: error.to_string() },
            },
            Err(error) => {
                let place = Place::look(path).ok();
                let owner = place.as_ref().map_or_else(me, |place| place.owner);
                let is_open = place.is_some_and(|place| place.mode & OTHERS_WRITE != 0);
                Self::Refused { why: error.to_string(), owner, is_open }
            }
        }
    }

    /// Whether an engine takes it, which is called `name` in the configuration.
    pub(super) fn judge(&self, check: &'static str, name: &str, path: &Path, me: u32) -> Finding {
        let (shown, shell) = (path.display(), quoted(path));
        let make = format!("install -d -m 700 {shell}   # as the user of the service");
        match self {
            Self::Missing { can_make: true } => {
                let what = format!("{name} {shown} is not there yet: the service makes it when it starts");
                Finding::warning(check, what, make)
            }
            Self::Missing { can_make: false } => {
                let what = format!("{name} {shown} is not there, and this user cannot make it");
                Finding::problem(check, what, make)
            }
            Self::Refused { why, owner, .. } if *owner != me => {
                let what = format!("{name} {shown} belongs to user {owner}, and this is user {me}: {why}");
                let advice = format!(
                    "run the doctor as the user of the service, as by `sudo -u '#{owner}'`; if that is this one: \
                     chown {me} {shell}"
                );
                Finding::problem(check, what, advice)
            }
            Self::Refused { why, is_open: true, .. } => {
                Finding::problem(check, format!("{name}: {why}"), format!("chmod go-w {shell}"))
            }
            Self::Refused { why, .. } => {
                let advice =
                    format!("namei -l {shell}   # shows each step of the way, with who may write there");
                Finding::problem(check, format!("{name}: {why}"), advice)
            }
            Self::Unwritable { why } => {
                let what = format!("{name} {shown} is this user's, and no file can be made there: {why}");
                let advice = format!(
                    "chmod u+rwx {shell}; or, if it is a read-only file system, as by ProtectSystem= of the unit: \
                     ReadWritePaths={shell}"
                );
                Finding::problem(check, what, advice)
            }
            Self::Usable => Finding::ok(check, format!("{name} {shown} is this user's alone")),
        }
    }
}

/// Whether this user can make a directory: the next one above that is there can be written to.
fn can_make(path: &Path) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let above = path.ancestors().find(|level| level.exists());
    above.is_some_and(|above| rustix::fs::access(above, Access::WRITE_OK | Access::EXEC_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::finding::Level;
    use super::*;

    const ME: u32 = 1000;

    fn place(is_file: bool, owner: u32, mode: u32) -> Place {
        Place { path: "/a b".into(), is_file, owner, mode }
    }

    #[test]
    fn what_others_may_change_is_named_with_the_command_against_it() {
        let open = |is_file, owner, mode| place(is_file, owner, mode).open_to(ME);
        assert_eq!([open(true, ME, 0o644), open(true, 0, 0o600), open(false, ME, 0o755)], [None, None, None]);
        assert_eq!(open(false, 0, 0o1777), None, "what is in a sticky directory is its owner's");
        for mode in [0o620, 0o602, 0o666] {
            let (why, advice) = open(true, ME, mode).unwrap();
            assert!(why.contains(&format!("{mode:04o}")), "{why}");
            assert_eq!(advice, "chmod go-w '/a b'");
        }
        assert!(open(true, 0, 0o1666).is_some(), "of a file it says nothing");
        assert_eq!(open(true, 7, 0o600).unwrap().1, "chown root '/a b'");
    }

    #[test]
    fn a_directory_that_an_engine_does_not_take_is_a_problem_and_one_that_it_makes_is_not() {
        let judge = |private: Private| private.judge("config.state_dir", "state_dir", Path::new("/s"), ME);
        let refused = |owner, is_open| {
            judge(Private::Refused { why: "/s: others may write there".to_owned(), owner, is_open })
        };
        let known = [
            (judge(Private::Usable), Level::Ok, ""),
            (judge(Private::Unwritable { why: "read-only".into() }), Level::Problem, "ReadWritePaths=/s"),
            (judge(Private::Missing { can_make: true }), Level::Warning, "install -d -m 700 /s"),
            (judge(Private::Missing { can_make: false }), Level::Problem, "install -d -m 700 /s"),
            (refused(ME, true), Level::Problem, "chmod go-w /s"),
            (refused(ME, false), Level::Problem, "namei -l /s"),
            (refused(7, true), Level::Problem, "sudo -u '#7'"),
        ];
        for (finding, level, advice) in known {
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.advice.clone().unwrap_or_default().contains(advice), "{finding:?}");
        }
    }

    #[test]
    fn a_directory_is_looked_at_where_it_is() {
        let top = tempfile::tempdir().unwrap();
        assert_eq!(Private::look(top.path()), Private::Usable);
        assert_eq!(Private::look(&top.path().join("a/b")), Private::Missing { can_make: true });
        assert!(Place::look(top.path()).is_ok_and(|place| !place.is_file && place.owner == me()));
    }

    #[test]
    fn a_directory_in_which_no_file_can_be_made_is_not_usable() {
        let top = tempfile::tempdir().unwrap();
        std::fs::set_permissions(top.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
        // Modes do not bind root, who cannot make files here.
        let path = if me() == 0 { Path::new("/proc") } else { top.path() };
        assert!(matches!(Private::look(path), Private::Unwritable { .. }), "{:?}", Private::look(path));
    }

    #[test]
    fn one_that_is_missing_below_what_others_may_change_is_refused() {
        let top = tempfile::tempdir().unwrap();
        std::fs::set_permissions(top.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let private = Private::look(&top.path().join("a/b"));
        assert!(
            matches!(&private, Private::Refused { why, .. } if why.contains("others may write there")),
            "{private:?}"
        );
    }

    #[test]
    fn a_scratch_file_has_no_name_and_one_that_was_left_is_no_obstacle() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join(format!(".hsmux-doctor-{}", std::process::id())), "left").unwrap();
        let _file = scratch(top.path()).unwrap();
        assert_eq!(top.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_command_names_a_path_from_everywhere() {
        assert!(Path::new(&quoted(Path::new("pin"))).is_absolute());
    }
}
