//! Private copies of a module's library: loaded beside the module, each has globals of its own.

use std::path::{Path, PathBuf};

use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Result};
use crate::pkcs11::map::{Lists, map};

/// Maps a copy of the library at `path`, for ever. `others` are the function lists that this process has of it.
///
/// The file lies in a directory that only this user may enter, and is gone when this returns: the mapping keeps what
/// it needs. A copy and not a link, for the loader knows a file again by its inode.
pub(super) fn map_copy(path: &Path, number: usize, others: &[&sys::CK_FUNCTION_LIST]) -> Result<Lists> {
    let failed = |error: std::io::Error| refused(&format!("cannot copy {}: {error}", path.display()));
    let folder = tempfile::Builder::new().prefix("hsmux-").tempdir().map_err(failed)?;
    let copy = folder.path().join(copy_name(path, number));
    std::fs::copy(path, &copy).map_err(failed)?;
    let lists = map(&copy).map_err(|error| {
        refused(&format!("{error}; programs must be allowed in the directory for temporary files (TMPDIR)"))
    })?;
    if others.iter().any(|other| are_same(other, lists.list)) {
        return Err(refused("a copy of it has the same functions"));
    }
    Ok(lists)
}

/// Why a module cannot have several instances.
pub(crate) fn refused(why: &str) -> Error {
    Error::operator(ErrorKind::Configuration, format!("the module does not bear several instances: {why}"))
}

/// Names of their own, so that debuggers tell the copies apart.
fn copy_name(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = PathBuf::from(format!("{stem}-instance-{number}"));
    match path.extension() {
        Some(extension) => name.with_extension(extension),
        None => name,
    }
}

/// Whether two lists lead into the same library.
fn are_same(one: &sys::CK_FUNCTION_LIST, other: &sys::CK_FUNCTION_LIST) -> bool {
    let entry = |list: &sys::CK_FUNCTION_LIST| list.C_Initialize.map(|function| function as usize);
    std::ptr::eq(one, other) || entry(one) == entry(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_names_that_tell_them_apart() {
        let name = |path: &str, number| copy_name(Path::new(path), number);
        assert_eq!(name("/usr/lib/libsofthsm2.so", 2), Path::new("libsofthsm2-instance-2.so"));
        assert_eq!(name("/opt/module", 3), Path::new("module-instance-3"));
    }

    #[test]
    fn lists_of_the_same_functions_are_of_the_same_library() {
        unsafe extern "C" fn one(_: sys::CK_VOID_PTR) -> sys::CK_RV {
            1
        }
        unsafe extern "C" fn other(_: sys::CK_VOID_PTR) -> sys::CK_RV {
            2
        }
        let list =
            |initialise| sys::CK_FUNCTION_LIST { C_Initialize: Some(initialise), ..Default::default() };
        let lists = [list(one), list(one), list(other)];
        assert!(are_same(&lists[0], &lists[0]) && are_same(&lists[0], &lists[1]));
        assert!(!are_same(&lists[0], &lists[2]));
    }
}
