//! Where a directory of the engine's own is: made for this user alone, and on a way that nobody else can lead elsewhere.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// Bits of a mode by which others could put files in.
const OTHERS_WRITE: u32 = 0o022;

/// The bit of a directory in which one may only rename and remove what is one's own.
const STICKY: u32 = 0o1000;

/// Links that are followed on the way: as many as Linux follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Makes what is missing of a directory's path, for this user alone. When it returns all of it outlives a loss of power.
pub(crate) fn make(path: &Path) -> Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<_> = path.ancestors().take_while(|level| !level.exists()).collect();
    for level in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(level) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            // Who has made it meanwhile may not have synchronised it yet.
            _ => level.parent().map_or(Ok(()), sync)?,
        }
    }
    Ok(())
}

/// Synchronises a directory, and the one that it is in: whoever made it may have been killed before they did. An error says
/// that nothing would outlive a loss of power there.
pub(crate) fn settle(directory: &Path) -> Result<()> {
    sync(directory)?;
    let Some(parent) = directory.parent() else { return Ok(()) };
    // The root of a file system has no name in it that could be lost.
    if parent.metadata()?.dev() != directory.metadata()?.dev() {
        return Ok(());
    }
    match sync(parent) {
        // One that this user may only pass through is another's: so is what is in it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        synchronised => synchronised,
    }
}

/// A file is there under its name after a crash only if its directory was synchronised.
pub(crate) fn sync(directory: &Path) -> Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that a path leads to, by a path without links.
///
/// # Errors
/// Unless it is a directory of this user's in which nobody else may write, and nobody but this user and root can put
/// another in its place: by its name, by that of a directory above it, or by a link on the way.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let mut left = parts(&std::path::absolute(path)?);
    let (mut place, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                place.pop();
                continue;
            }
            Some(Component::Normal(name)) => place.push(name),
            _ => place = PathBuf::from("/"),
        }
        let facts = place.symlink_metadata()?;
        if facts.is_symlink() && links < LINKS_MAX {
            links += 1;
            check(&place, facts.uid() != 0 && !is_own(&facts), "a link of another user's")?;
            left.extend(parts(&place.read_link()?));
            place.pop();
        } else {
            check_step(&place, &facts, left.is_empty())?;
        }
    }
    Ok(place)
}

/// Whether a directory is one that an engine keeps its own files in, as its `state_dir` and its audit log: it belongs to this
/// process's user, nobody else may write there, and nobody but this user and root can put another in its place.
///
/// # Errors
/// `Configuration`, with the step of the path where that is not so and why.
pub fn check_private_directory(path: &Path) -> crate::Result<()> {
    let refused = |error: Error| crate::Error::operator(crate::ErrorKind::Configuration, error.to_string());
    resolve(path).map(drop).map_err(refused)
}

/// Whether an engine could make a directory that is not there yet: what there is of the way to it may be trusted, as
/// [`check_private_directory`] has it. Whether this user may write there is not looked at.
///
/// # Errors
/// `Configuration`, with the step of the path where that is not so and why.
pub fn check_private_way(path: &Path) -> crate::Result<()> {
    let refused = |error: Error| crate::Error::operator(crate::ErrorKind::Configuration, error.to_string());
    match resolve(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        resolved => resolved.map(drop).map_err(refused),
    }
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// A directory on the way, or the one at its end.
fn check_step(place: &Path, facts: &Metadata, is_last: bool) -> Result<()> {
    check(place, !facts.is_dir(), "not a directory")?;
    // Root may give away what is on the way, but at the end it would be somebody else's.
    let is_anothers = !is_own(facts) && (is_last || facts.uid() != 0);
    check(place, is_anothers, "belongs to another user than this process's")?;
    let is_guarded = !is_last && facts.mode() & STICKY != 0;
    let is_open = facts.mode() & OTHERS_WRITE != 0 && !is_guarded;
    check(place, is_open, "others may write there: take that away (chmod go-w)")
}

fn is_own(facts: &Metadata) -> bool {
    facts.uid() == rustix::process::geteuid().as_raw()
}

fn check(place: &Path, is_wrong: bool, why: &str) -> Result<()> {
    if is_wrong { Err(Error::other(format!("{}: {why}", place.display()))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        resolve(path).unwrap_err().to_string()
    }

    fn set_mode(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn every_level_that_is_missing_is_made_for_this_user_alone() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a/b/../c");
        for _ in 0..2 {
            make(&path).unwrap();
        }
        for made in ["a", "a/b", "a/c"] {
            assert_eq!(top.path().join(made).metadata().unwrap().mode() & 0o777, 0o700, "{made}");
        }
        let place = resolve(&path).unwrap();
        assert_eq!(place, path.canonicalize().unwrap());
        settle(&place).unwrap();
        // Above is what this user cannot open (unless it is root), and cannot have made.
        set_mode(&top.path().join("a"), 0o311);
        settle(&place).unwrap();
        set_mode(&top.path().join("a"), 0o700);
        assert!(settle(&place.join("d")).is_err());
    }

    #[test]
    fn a_directory_above_it_that_others_may_change_is_refused_unless_it_is_sticky() {
        let top = tempfile::tempdir().unwrap();
        let (above, state) = (top.path().join("above"), top.path().join("above/state"));
        make(&state).unwrap();
        for mode in [0o770, 0o707, 0o777] {
            set_mode(&above, mode);
            assert!(refusal(&state).contains("above: others may write there"), "{mode:o}");
        }
        for mode in [0o755, 0o1777] {
            set_mode(&above, mode);
            resolve(&state).unwrap();
        }
        // At the end it does not help that others may not remove files: they could make them.
        set_mode(&state, 0o1777);
        assert!(refusal(&state).contains("others may write there"));
        set_mode(&state, 0o700);
        // Only root can give it away.
        if chown(&above, Some(65_534), None).is_ok() {
            assert!(refusal(&state).contains("above: belongs to another user"));
        }
    }

    #[test]
    fn the_way_to_a_directory_that_is_not_there_yet_is_looked_at_as_far_as_it_goes() {
        let top = tempfile::tempdir().unwrap();
        let (above, missing) = (top.path().join("above"), top.path().join("above/state/below"));
        create_dir(&above).unwrap();
        // Sticky is enough on the way, as of `/tmp`.
        for mode in [0o700, 0o1777] {
            set_mode(&above, mode);
            check_private_way(&missing).unwrap();
        }
        set_mode(&above, 0o777);
        let error = check_private_way(&missing).unwrap_err();
        assert!(error.to_string().contains("above: others may write there"), "{error}");
        std::fs::write(top.path().join("file"), "").unwrap();
        assert!(check_private_way(&top.path().join("file/below")).is_err());
    }

    #[test]
    fn a_link_is_followed_where_nobody_else_can_change_it() {
        let top = tempfile::tempdir().unwrap();
        let (state, open) = (top.path().join("state"), top.path().join("open"));
        create_dir(&state).unwrap();
        create_dir(&open).unwrap();
        symlink("../state", open.join("second")).unwrap();
        symlink("open/second", top.path().join("first")).unwrap();
        let first = top.path().join("first");
        assert_eq!(resolve(&first).unwrap(), state.canonicalize().unwrap());
        set_mode(&open, 0o777);
        assert!(refusal(&first).contains("open: others may write there"));
        set_mode(&open, 0o1777);
        resolve(&first).unwrap();
        if std::os::unix::fs::lchown(open.join("second"), Some(65_534), None).is_ok() {
            assert!(refusal(&first).contains("second: a link of another user's"));
        }
        symlink("round", top.path().join("round")).unwrap();
        assert!(refusal(&top.path().join("round")).contains("not a directory"));
    }
}
