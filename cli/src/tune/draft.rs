//! The file that a configuration is written to.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, RenameFlags, Uid, fchmod, fchown, renameat_with};
use rustix::io::Errno;

use super::tell;
use crate::exit::{Exit, Failure, Result};

/// A file that is to be there whole or not at all. Until then what is to become of it lies beside it, from before the first
/// measurement: what stands in its way is known before minutes have passed.
#[derive(Debug)]
pub(super) struct Draft {
    /// The file itself: where a link leads.
    path: PathBuf,
    beside: PathBuf,
    file: File,
    /// Whether a file that is there may be overwritten.
    force: bool,
}

impl Draft {
    /// Refuses a file that is there, unless it may be overwritten, and a directory that cannot be written to.
    pub(super) fn create(path: &Path, force: bool) -> Result<Self> {
        let is_there = path.symlink_metadata().is_ok();
        if is_there && !force {
            let text = format!("{} is there already: say --force to overwrite it", path.display());
            return Err(Failure::new(Exit::Usage, text));
        }
        let cannot = |error: &dyn std::fmt::Display| cannot(path, error);
        // A link stays one.
        let path =
            if is_there { path.canonicalize().map_err(|error| cannot(&error))? } else { path.to_owned() };
        if is_there && !path.is_file() {
            return Err(cannot(&"it is no regular file"));
        }
        let beside = beside(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside);
        let file = file.map_err(|error| cannot(&error))?;
        Ok(Self { path, beside, file, force })
    }

    /// Writes it, with mode and owner of the file in whose place it comes, else of the one that it was made from.
    pub(super) fn finish(mut self, text: &str, from: Option<&Metadata>) -> Result {
        let replaced = fs::metadata(&self.path).ok().filter(|_| self.force);
        let put = self.put(text, replaced.as_ref().or(from));
        put.map_err(|error| cannot(&self.path, &error))
    }

    fn put(&mut self, text: &str, like: Option<&Metadata>) -> io::Result<()> {
        if let Some(like) = like {
            self.belong_to_owner_of(like)?;
            fchmod(&self.file, Mode::from_raw_mode(like.mode() & 0o777))?;
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        if self.force {
            fs::rename(&self.beside, &self.path)?;
        } else {
            put_where_nothing_is(&self.beside, &self.path)?;
        }
        File::open(directory(&self.path))?.sync_all()
    }

    fn belong_to_owner_of(&self, like: &Metadata) -> io::Result<()> {
        let ours = self.file.metadata()?;
        if (ours.uid(), ours.gid()) != (like.uid(), like.gid())
            && let Err(error) =
                fchown(&self.file, Some(Uid::from_raw(like.uid())), Some(Gid::from_raw(like.gid())))
        {
            // Who may not give files away has measured all the same.
            tell(&format!(
                "{} gets another owner than the file that it comes from: {error}",
                self.path.display()
            ));
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename it is not there any more.
        let _removed = fs::remove_file(&self.beside);
    }
}

/// Unlike a plain rename it refuses a file that has come since. Not every file system has hard links.
fn put_where_nothing_is(beside: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(beside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => rename_where_nothing_is(beside, path),
        put => put,
    }
}

fn rename_where_nothing_is(beside: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, beside, CWD, path, RenameFlags::NOREPLACE) {
        // Some do not know that either. Nothing was there before the measurements.
        Err(Errno::INVAL | Errno::NOSYS) if path.symlink_metadata().is_err() => fs::rename(beside, path),
        renamed => Ok(renamed?),
    }
}

/// A name in the same directory that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    path.with_file_name(name)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cannot(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("{} cannot be written: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_file_that_is_there_stays_unless_told_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tuned.toml");
        let [first, second] = [(); 2].map(|()| Draft::create(&path, false));
        first.unwrap().finish("one", None).unwrap();
        assert!(second.is_err(), "one at a time");
        assert!(Draft::create(&path, false).is_err());
        Draft::create(&path, true).unwrap().finish("three", None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        for other in
            [directory.path().join("none/tuned.toml"), directory.path().to_owned(), "/dev/null".into()]
        {
            assert!(Draft::create(&other, true).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_file_that_has_come_since_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["tuned.toml", "other"].map(|name| directory.path().join(name));
        let draft = Draft::create(&path, false).unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(draft.finish("ours", None).is_err());
        fs::write(&other, "ours").unwrap();
        assert!(rename_where_nothing_is(&other, &path).is_err(), "nor where there are no hard links");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        fs::remove_file(&path).unwrap();
        rename_where_nothing_is(&other, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        drop(Draft::create(&directory.path().join("tuned.toml"), false).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_stays_and_the_file_that_it_leads_to_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link, from] =
            ["real.toml", "link.toml", "from.toml"].map(|name| directory.path().join(name));
        for (path, mode) in [(&path, 0o604), (&from, 0o660)] {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let from = fs::metadata(&from).unwrap();
        Draft::create(&link, true).unwrap().finish("new", Some(&from)).unwrap();
        assert!(link.is_symlink() && mode(&path) == 0o604);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let other = directory.path().join("other.toml");
        Draft::create(&other, false).unwrap().finish("new", Some(&from)).unwrap();
        assert_eq!(mode(&other), 0o660, "whatever the umask leaves");
    }
}
