//! The operator's configuration, as it was read, and the places to measure at that it leads to.

use std::fs::{self, DirBuilder, Metadata};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hsmux::Config;
use toml_edit::DocumentMut;

use super::args::Args;
use super::tell;
use crate::connection::Site;
use crate::exit::{Exit, Failure, Result};
use crate::load::Device;

/// A configuration file, read once: what is measured is what stands in it, and what is written comes of the same text.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    pub(super) text: String,
    pub(super) metadata: Metadata,
}

/// Where to work.
#[derive(Debug)]
pub(super) struct Sites {
    /// Where settings are measured. Its audit log, if it has one, is a temporary one.
    pub(super) measured: Site,
    /// The same without an audit log: for the engine that keeps the login and has the keys.
    pub(super) bare: Site,
    pub(super) log: Option<TemporaryLog>,
}

/// A directory for an audit log that nobody reads. It is removed at the end.
#[derive(Debug)]
pub(super) struct TemporaryLog(PathBuf);

impl Source {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let cannot = |error| Failure::new(Exit::Usage, format!("{}: {error}", path.display()));
        let metadata = fs::metadata(path).map_err(cannot)?;
        let text = fs::read_to_string(path).map_err(cannot)?;
        Ok(Self { path: path.to_owned(), text, metadata })
    }

    /// Refuses a file that somebody has changed since: what was measured is not what it says now.
    pub(super) fn check_unchanged(&self) -> Result {
        match fs::read_to_string(&self.path) {
            Ok(text) if text == self.text => Ok(()),
            _ => {
                let text = format!(
                    "{} has changed while settings were measured: nothing is written",
                    self.path.display()
                );
                Err(Failure::new(Exit::Usage, text))
            }
        }
    }

    fn config(&self, text: &str) -> Result<Config> {
        text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", self.path.display())))
    }
}

impl Sites {
    pub(super) fn of(args: &Args, device: Option<&Device>, source: Option<&Source>) -> Result<Self> {
        if let Some(source) = source {
            return Self::of_config(source);
        }
        let site = || device.map_or_else(|| args.connection.resolve(), |device| Ok(device.site()));
        Ok(Self { measured: site()?, bare: site()?, log: None })
    }

    fn of_config(source: &Source) -> Result<Self> {
        // As it stands, so that what is wrong with it is told by its own lines.
        source.config(&source.text)?;
        let mut document: DocumentMut = source
            .text
            .parse()
            .map_err(|error| Failure::new(Exit::Usage, format!("configuration: {error}")))?;
        let site = |document: &DocumentMut| source.config(&document.to_string()).map(Site::of_config);
        let directory = document.get("audit").and_then(|audit| audit.get("directory")?.as_str());
        let Some(log) = directory.map(|directory| TemporaryLog::beside(Path::new(directory))).transpose()?
        else {
            return Ok(Self { measured: site(&document)?, bare: site(&document)?, log: None });
        };
        document["audit"]["directory"] = toml_edit::value(log.0.display().to_string());
        let measured = site(&document)?;
        document.remove("audit");
        tell(&format!(
            "while settings are measured the audit log is {}, which goes at the end",
            log.0.display()
        ));
        Ok(Self { measured, bare: site(&document)?, log: Some(log) })
    }
}

impl TemporaryLog {
    /// On the disk of the log itself, for how fast that is matters; where nothing can be made there, with other temporary files.
    fn beside(log: &Path) -> Result<Self> {
        let name = format!("hsmux-tune-{}", std::process::id());
        let parent = log.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside = Self(parent.join(&name));
        if beside.make().is_ok() {
            return Ok(beside);
        }
        let other = Self(std::env::temp_dir().join(&name));
        other.make()?;
        tell(
            "no temporary audit log can be made beside the log: one on another disk may be faster or slower",
        );
        Ok(other)
    }

    fn make(&self) -> std::io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.0)
    }

    /// Empties it: each engine begins a log of its own.
    pub(super) fn renew(&self) -> Result {
        fs::remove_dir_all(&self.0)?;
        Ok(self.make()?)
    }
}

impl Drop for TemporaryLog {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_changes_meanwhile_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours.toml");
        fs::write(&path, "# one").unwrap();
        let source = Source::read(&path).unwrap();
        source.check_unchanged().unwrap();
        fs::write(&path, "# two").unwrap();
        assert!(source.check_unchanged().is_err());
        fs::remove_file(&path).unwrap();
        assert!(source.check_unchanged().is_err());
    }

    #[test]
    fn the_log_of_production_is_not_the_one_that_is_measured_with() {
        let directory = tempfile::tempdir().unwrap();
        let [path, log] = ["ours.toml", "log"].map(|name| directory.path().join(name));
        let text = format!(
            "module = \"/m.so\"\npin = \"env:A\"\n[[token]]\nname = \"a\"\n[audit]\ndirectory = {log:?}\nmode = \"strict\"\nloss = \"stop\"\n"
        );
        fs::write(&path, text).unwrap();
        let sites = Sites::of_config(&Source::read(&path).unwrap()).unwrap();
        assert!(sites.measured.has_audit() && !sites.bare.has_audit());
        let temporary = sites.log.as_ref().unwrap().0.clone();
        let told = format!("{:?}", sites.measured.config().unwrap().audit().unwrap());
        assert!(temporary.is_dir() && told.contains(temporary.to_str().unwrap()), "{told}");
        fs::write(temporary.join("a"), "").unwrap();
        sites.log.as_ref().unwrap().renew().unwrap();
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
        drop(sites);
        assert!(!temporary.exists() && !log.exists());
    }
}
