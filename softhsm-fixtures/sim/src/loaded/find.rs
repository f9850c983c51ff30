//! Where the module is.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::LoadError;

/// The environment variable that names the module's file, for a program that was moved away from it.
pub const MODULE_VARIABLE: &str = "HSMUX_SIM";

/// The module that an installed program is to load: the file that [`MODULE_VARIABLE`] names, else what [`cdylib_path`]
/// finds.
///
/// # Errors
/// If there is none: the text says what to build, or that the named file is not there.
pub fn module_path() -> Result<PathBuf, LoadError> {
    chosen(env::var_os(MODULE_VARIABLE), cdylib_path())
}

/// The module that was built with the running test, bench or example: beside its executable or one floor up, the
/// newest if there are several.
#[must_use]
pub fn cdylib_path() -> Option<PathBuf> {
    let executable = env::current_exe().ok()?;
    let beside = executable.parent()?;
    let above = beside.parent()?;
    let rooms = [beside.to_owned(), beside.join("deps"), above.to_owned(), above.join("deps")];
    let files = rooms.iter().filter_map(|room| std::fs::read_dir(room).ok()).flatten().flatten();
    let built =
        |path: &Path| path.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    files.map(|entry| entry.path()).filter(|path| is_module(path)).max_by_key(|path| built(path))
}

/// `libp11_sim.so`, with or without cargo's hash, under the name that the platform gives it.
fn is_module(path: &Path) -> bool {
    let (prefix, suffix) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let middle = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
    middle.is_some_and(|middle| middle == "p11_sim" || middle.starts_with("p11_sim-"))
}

fn chosen(named: Option<OsString>, built: Option<PathBuf>) -> Result<PathBuf, LoadError> {
    match named.filter(|named| !named.is_empty()).map(PathBuf::from) {
        Some(named) if named.is_file() => Ok(named),
        Some(named) => Err(LoadError(format!("{MODULE_VARIABLE} is {}, which is no file", named.display()))),
        None => built.ok_or_else(|| {
            let file = format!("{}p11_sim{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
            let where_to = format!("{file} is neither beside this program nor in deps there");
            LoadError(format!(
                "no simulated HSM: {where_to}; build it with `cargo build -p p11-sim`, or name it in {MODULE_VARIABLE}"
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_taken_before_one_beside_the_program_and_has_to_be_there() {
        let executable = env::current_exe().unwrap();
        let beside = Some(PathBuf::from("/beside"));
        let taken = |named: &OsStr, built| chosen(Some(named.to_owned()), built);
        assert_eq!(taken(executable.as_os_str(), beside.clone()).unwrap(), executable);
        let missing = taken(OsStr::new("/no/such/file"), beside.clone()).unwrap_err();
        assert_eq!(missing.to_string(), "HSMUX_SIM is /no/such/file, which is no file");
        assert_eq!(taken(OsStr::new(""), beside.clone()).unwrap(), PathBuf::from("/beside"));
        let nowhere = chosen(None, None).unwrap_err().to_string();
        assert!(nowhere.contains("cargo build -p p11-sim") && nowhere.contains("HSMUX_SIM"), "{nowhere}");
    }

    #[test]
    fn the_module_is_known_by_its_name() {
        let name = |middle: &str| {
            PathBuf::from(format!("{}{middle}{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX))
        };
        assert!(is_module(&name("p11_sim")));
        assert!(is_module(&name("p11_sim-0123456789abcdef")));
        assert!(!is_module(&name("p11_simulator")));
        assert!(!is_module(Path::new("libp11_sim.rlib")));
    }
}
