//! The module, its slots, tokens and mechanisms.

#![expect(non_snake_case, reason = "the standard's names")]

use std::ffi::{CStr, c_void};

use cryptoki_sys as sys;

use super::interface::VERSION_3;
use super::raw::{self, padded};
use super::{VERSION, slot_calls};
use crate::call::{general, general_rules, guarded, others_inside, result};
use crate::counters::Event;
use crate::device::{self, Device, SLOT_FIRST};
use crate::function::Function;
use crate::mechanism::Offered;
use crate::sessions;
use crate::token::PIN_LEN;

const MANUFACTURER: &str = "hsmux";

pub(super) unsafe extern "C" fn C_Initialize(args: *mut c_void) -> sys::CK_RV {
    guarded(|| {
        sessions::count_loose(Function::C_Initialize);
        // SAFETY: null or a `CK_C_INITIALIZE_ARGS`, says the standard.
        let text = unsafe { configuration(args.cast()) }?;
        device::initialise(text)?;
        general_rules(Function::C_Initialize)
    })
}

pub(super) unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> sys::CK_RV {
    general(Function::C_Finalize, |_| {
        if !reserved.is_null() {
            return Err(sys::CKR_ARGUMENTS_BAD);
        }
        // PKCS#11 2.40, C_Finalize: "The behavior of C_Finalize is undefined if it is called while other threads of the
        // application are making Cryptoki calls."
        Event::FinalisedInside.add(others_inside());
        device::finalise()
    })
}

pub(super) unsafe extern "C" fn C_GetInfo(info: *mut sys::CK_INFO) -> sys::CK_RV {
    general(Function::C_GetInfo, |device| {
        if let Some(forward) = &device.forward {
            let function = forward.list.C_GetInfo.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
            // SAFETY: the caller has kept the standard's rules for this function.
            return result(unsafe { function(info) });
        }
        let own = sys::CK_INFO {
            cryptokiVersion: if device.config.interface_3 { VERSION_3 } else { VERSION },
            manufacturerID: padded(MANUFACTURER),
            flags: 0,
            libraryDescription: padded("simulated HSM"),
            libraryVersion: sys::CK_VERSION { major: 0, minor: 1 },
        };
        // SAFETY: as above.
        unsafe { raw::put(info, own) }
    })
}

pub(super) unsafe extern "C" fn C_GetSlotList(
    present: sys::CK_BBOOL,
    list: *mut sys::CK_SLOT_ID,
    count: *mut sys::CK_ULONG,
) -> sys::CK_RV {
    general(Function::C_GetSlotList, |device| {
        if let Some(forward) = &device.forward {
            let function = forward.list.C_GetSlotList.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
            // SAFETY: the caller has kept the standard's rules for this function.
            return result(unsafe { function(present, list, count) });
        }
        let there = |index: &usize| present == sys::CK_FALSE || !device.is_absent(*index);
        let tokens = (0..device.tokens.len()).filter(there);
        let slots: Vec<_> = tokens.map(|index| SLOT_FIRST + index as sys::CK_SLOT_ID).collect();
        // SAFETY: as above.
        unsafe { raw::list(&slots, list, count) }
    })
}

pub(super) unsafe extern "C" fn C_GetTokenInfo(
    slot: sys::CK_SLOT_ID,
    info: *mut sys::CK_TOKEN_INFO,
) -> sys::CK_RV {
    crate::call::on_slot(Function::C_GetTokenInfo, slot, |device, token| {
        let mut own = match &device.forward {
            Some(forward) => {
                let function = forward.list.C_GetTokenInfo.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                let mut own = sys::CK_TOKEN_INFO::default();
                // SAFETY: the structure is written to a live local.
                result(unsafe { function(slot, &raw mut own) })?;
                own
            }
            None => token_info(device, token)?,
        };
        own.flags ^= device.config.flipped(&device.label(token));
        if device.sessions_max() > 0 {
            own.ulMaxSessionCount = device.sessions_max();
            own.ulMaxRwSessionCount = device.sessions_max();
        }
        // SAFETY: the caller has kept the standard's rules for this function.
        unsafe { raw::put(info, own) }
    })
}

pub(super) unsafe extern "C" fn C_WaitForSlotEvent(
    flags: sys::CK_FLAGS,
    slot: *mut sys::CK_SLOT_ID,
    reserved: *mut c_void,
) -> sys::CK_RV {
    general(Function::C_WaitForSlotEvent, |device| {
        if let Some(forward) = &device.forward {
            let function = forward.list.C_WaitForSlotEvent.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
            // SAFETY: the caller has kept the standard's rules for this function.
            return result(unsafe { function(flags, slot, reserved) });
        }
        // Slots never change, so that whoever blocked would wait for ever.
        let blocks = flags & sys::CKF_DONT_BLOCK == 0;
        Err(if blocks { sys::CKR_FUNCTION_NOT_SUPPORTED } else { sys::CKR_NO_EVENT })
    })
}

slot_calls!(
    C_GetSlotInfo(info: *mut sys::CK_SLOT_INFO) = slot_info;
    C_GetMechanismList(list: *mut sys::CK_MECHANISM_TYPE, count: *mut sys::CK_ULONG) = mechanism_list;
    C_GetMechanismInfo(mechanism: sys::CK_MECHANISM_TYPE, info: *mut sys::CK_MECHANISM_INFO) = mechanism_info;
);

/// What the arguments of `C_Initialize` say: a configuration in `pReserved`, as NSS has it, or none.
///
/// # Safety
/// `args` is null or good for reading, its `pReserved` null or a text that ends in a zero byte.
unsafe fn configuration(args: *const sys::CK_C_INITIALIZE_ARGS) -> Result<Option<String>, sys::CK_RV> {
    if args.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller says.
    let args = unsafe { raw::get(args) }?;
    let mutexes = [
        args.CreateMutex.is_some(),
        args.DestroyMutex.is_some(),
        args.LockMutex.is_some(),
        args.UnlockMutex.is_some(),
    ];
    // PKCS#11 2.40, C_Initialize: either all four or none; with functions of the application alone, the module
    // would have to use them.
    if mutexes.contains(&true) && mutexes.contains(&false) {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    if mutexes.contains(&true) && args.flags & sys::CKF_OS_LOCKING_OK == 0 {
        return Err(sys::CKR_CANT_LOCK);
    }
    if args.pReserved.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and a text that ends, says the caller.
    let text = unsafe { CStr::from_ptr(args.pReserved.cast()) };
    text.to_str().map(|text| Some(text.to_owned())).map_err(|_| sys::CKR_ARGUMENTS_BAD)
}

/// # Safety
/// As for the entry.
unsafe fn slot_info(device: &Device, token: usize, info: *mut sys::CK_SLOT_INFO) -> Result<(), sys::CK_RV> {
    let own = sys::CK_SLOT_INFO {
        slotDescription: padded(&format!("slot of sim-{token}")),
        manufacturerID: padded(MANUFACTURER),
        flags: if device.is_absent(token) { 0 } else { sys::CKF_TOKEN_PRESENT } | sys::CKF_HW_SLOT,
        hardwareVersion: sys::CK_VERSION { major: 1, minor: 0 },
        firmwareVersion: sys::CK_VERSION { major: 1, minor: 0 },
    };
    // SAFETY: as for the entry.
    unsafe { raw::put(info, own) }
}

fn token_info(device: &Device, index: usize) -> Result<sys::CK_TOKEN_INFO, sys::CK_RV> {
    let token = device.tokens.get(index).ok_or(sys::CKR_SLOT_ID_INVALID)?;
    let (open, open_rw) = sessions::open_of(index);
    let memory = sys::CK_UNAVAILABLE_INFORMATION;
    let flags = sys::CKF_RNG
        | sys::CKF_LOGIN_REQUIRED
        | sys::CKF_USER_PIN_INITIALIZED
        | sys::CKF_TOKEN_INITIALIZED
        | token.pin_flags();
    Ok(sys::CK_TOKEN_INFO {
        label: padded(&token.label),
        manufacturerID: padded(MANUFACTURER),
        model: padded("p11-sim"),
        serialNumber: padded(&format!("{index:016}")),
        flags,
        ulMaxSessionCount: sys::CK_EFFECTIVELY_INFINITE,
        ulSessionCount: open,
        ulMaxRwSessionCount: sys::CK_EFFECTIVELY_INFINITE,
        ulRwSessionCount: open_rw,
        ulMaxPinLen: *PIN_LEN.end() as sys::CK_ULONG,
        ulMinPinLen: *PIN_LEN.start() as sys::CK_ULONG,
        ulTotalPublicMemory: memory,
        ulFreePublicMemory: memory,
        ulTotalPrivateMemory: memory,
        ulFreePrivateMemory: memory,
        hardwareVersion: sys::CK_VERSION { major: 1, minor: 0 },
        firmwareVersion: sys::CK_VERSION { major: 1, minor: 0 },
        utcTime: padded(""),
    })
}

/// # Safety
/// As for the entry.
unsafe fn mechanism_list(
    device: &Device,
    token: usize,
    list: *mut sys::CK_MECHANISM_TYPE,
    count: *mut sys::CK_ULONG,
) -> Result<(), sys::CK_RV> {
    let offered: Vec<_> = offered(device, token)?.iter().map(|(mechanism, ..)| *mechanism).collect();
    // SAFETY: as for the entry.
    unsafe { raw::list(&offered, list, count) }
}

/// # Safety
/// As for the entry.
unsafe fn mechanism_info(
    device: &Device,
    token: usize,
    mechanism: sys::CK_MECHANISM_TYPE,
    info: *mut sys::CK_MECHANISM_INFO,
) -> Result<(), sys::CK_RV> {
    let offered = offered(device, token)?.iter().find(|(own, ..)| *own == mechanism);
    let &(_, ulMinKeySize, ulMaxKeySize, flags) = offered.ok_or(sys::CKR_MECHANISM_INVALID)?;
    let messages = mechanism == sys::CKM_AES_GCM && device.config.interface_3;
    let flags = flags | if messages { sys::CKF_MESSAGE_ENCRYPT | sys::CKF_MESSAGE_DECRYPT } else { 0 };
    // SAFETY: as for the entry.
    unsafe { raw::put(info, sys::CK_MECHANISM_INFO { ulMinKeySize, ulMaxKeySize, flags }) }
}

fn offered(device: &Device, token: usize) -> Result<&[Offered], sys::CK_RV> {
    device.tokens.get(token).map(crate::token::Token::offered).ok_or(sys::CKR_SLOT_ID_INVALID)
}
