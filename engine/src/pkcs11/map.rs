//! Mapping a module's library and finding its functions.

use std::path::Path;
use std::ptr;

use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Result};
use crate::pkcs11::function::Function;
use crate::pkcs11::library::check;

/// The functions of a module: one list for all, because some modules make a new instance for whoever asks for a second
/// (p11-kit 0.24).
#[derive(Clone, Copy)]
pub(super) struct Lists {
    pub(super) list: &'static sys::CK_FUNCTION_LIST,
    /// The same list, if it is one of PKCS#11 3.x.
    pub(super) list_3: Option<&'static sys::CK_FUNCTION_LIST_3_0>,
}

/// Maps the module for ever and asks for its function list: that of PKCS#11 3.x if there is one.
pub(super) fn map(path: &Path) -> Result<Lists> {
    // SAFETY: loading runs the module's constructors: the operator named it as the module to trust.
    let library =
        unsafe { libloading::Library::new(path) }.map_err(|error| cannot_load(path, &error.to_string()))?;
    // Never unloaded: modules leave threads and exit handlers behind that would run unmapped code.
    let library: &'static libloading::Library = Box::leak(Box::new(library));
    let not_a_module =
        || Error::operator(ErrorKind::Module, format!("{} is not a PKCS#11 library", path.display()));
    if let Some(list_3) = interface_3(library) {
        // SAFETY: the list of 3.x begins with the fields of the older one, in their order (PKCS#11 3.0, 3.6: pkcs11f.h
        // and the structure made of it), and lives as long as the library.
        let list = unsafe { &*std::ptr::from_ref(list_3).cast::<sys::CK_FUNCTION_LIST>() };
        return Ok(Lists { list, list_3: Some(list_3) });
    }
    // SAFETY: the symbol has this type in every PKCS#11 library (PKCS#11 2.40, 5.4).
    let symbol = unsafe { library.get::<sys::CK_C_GetFunctionList>(b"C_GetFunctionList\0") };
    let Some(get_list) = symbol.ok().and_then(|symbol| *symbol) else { return Err(not_a_module()) };
    let mut list = ptr::null_mut();
    // SAFETY: the pointer is written to a live local.
    let code = unsafe { get_list(&raw mut list) };
    check(Function::Initialize, code).map_err(|_| not_a_module())?;
    // SAFETY: the standard lets the list live as long as the library, which is never unloaded.
    let list = unsafe { list.as_ref() }.ok_or_else(not_a_module)?;
    Ok(Lists { list, list_3: None })
}

/// The function list of PKCS#11 3.x, newest first: later ones only add to the end of it. None where the module has no
/// `C_GetInterface`, or answers it with anything but that.
fn interface_3(library: &libloading::Library) -> Option<&'static sys::CK_FUNCTION_LIST_3_0> {
    // SAFETY: the symbol has this type where there is one (PKCS#11 3.0, 5.4.6).
    let symbol = unsafe { library.get::<sys::CK_C_GetInterface>(b"C_GetInterface\0") };
    let get_interface = symbol.ok().and_then(|symbol| *symbol)?;
    let name = c"PKCS 11".as_ptr().cast_mut().cast();
    [2, 1, 0].into_iter().find_map(|minor| {
        let (mut version, mut interface) = (sys::CK_VERSION { major: 3, minor }, ptr::null_mut());
        // SAFETY: the name is a static, which is only read; version and interface are live locals.
        let code = unsafe { get_interface(name, &raw mut version, &raw mut interface, 0) };
        if code != sys::CKR_OK {
            return None;
        }
        // SAFETY: the standard lets interface and list live as long as the library, which is never unloaded.
        let interface: &sys::CK_INTERFACE = unsafe { interface.as_ref() }?;
        // SAFETY: every list begins with its version.
        let version = unsafe { interface.pFunctionList.cast::<sys::CK_VERSION>().as_ref() }?;
        if version.major != 3 {
            return None;
        }
        // SAFETY: the list of this version begins with these fields.
        let list = unsafe { interface.pFunctionList.cast::<sys::CK_FUNCTION_LIST_3_0>().as_ref() }?;
        list.C_Initialize.is_some().then_some(list)
    })
}

pub(super) fn cannot_load(path: &Path, why: &str) -> Error {
    Error::operator(ErrorKind::Module, format!("cannot load {}: {why}", path.display()))
}
