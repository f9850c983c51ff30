//! What the simulator itself costs: a null operation through the function pointers, and how late sleeps end.
//!
//! `cargo run --release -p p11-sim --example cost`

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a report")]

use std::ptr;

use cryptoki_sys as sys;
use p11_sim::{Loaded, configure, function_list};

/// Operations per thread: a fraction of a second.
const OPERATIONS: u32 = 10_000_000;

fn main() {
    configure("null=1").unwrap();
    // SAFETY: the list is a static.
    let list = unsafe { function_list().as_ref() }.unwrap();
    // SAFETY: no arguments are given.
    assert_eq!(unsafe { list.C_Initialize.unwrap()(ptr::null_mut()) }, sys::CKR_OK);
    let loaded = Loaded::private_copy("null=1").unwrap();
    let loaded_list = loaded.function_list();
    // SAFETY: no arguments are given.
    assert_eq!(unsafe { loaded_list.C_Initialize.unwrap()(ptr::null_mut()) }, sys::CKR_OK);
    for (face, list, threads) in [("linked", list, 1), ("linked", list, 2), ("loaded", loaded_list, 2)] {
        let sessions: Vec<_> = (0..threads).map(|_| open(list)).collect();
        let each: Vec<_> = std::thread::scope(|scope| {
            let spawn = |&(session, key)| scope.spawn(move || null_cost_ns(list, session, key));
            let threads: Vec<_> = sessions.iter().map(spawn).collect();
            threads.into_iter().map(|thread| format!("{:.1}", thread.join().unwrap())).collect()
        });
        println!(
            "null, {face}, Init + Sign, {threads} thread(s): {} ns of processor time each",
            each.join(", ")
        );
    }
    let (session, key) = open(list);
    // With a limit that is never reached calls take the way on which rules would be looked for.
    configure("throttle=1000").unwrap();
    let long_ns = null_cost_ns(list, session, key);
    println!("null, linked, Init + Sign by the long way: {long_ns:.1} ns of processor time");
    configure("throttle=0").unwrap();
    for wait_us in [2.0, 10.0, 50.0, 100.0, 1_000.0] {
        configure(&format!("op_us={wait_us}")).unwrap();
        let mut late: Vec<_> = (0..1_000).map(|_| run_late(list, session, key, wait_us)).collect();
        late.sort_by(f64::total_cmp);
        println!("op_us={wait_us}: late by {:.1} µs (half), {:.1} µs (99 of 100)", late[500], late[990]);
    }
    assert_eq!(p11_sim::counters().concurrent_use, 0);
}

/// Processor time of one operation, so that other load on the machine counts less.
fn null_cost_ns(list: &sys::CK_FUNCTION_LIST, session: u64, key: u64) -> f64 {
    let begun = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
    (0..OPERATIONS).for_each(|_| operate(list, session, key));
    (clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) - begun) / f64::from(OPERATIONS)
}

/// Microseconds by which an operation took longer than asked.
fn run_late(list: &sys::CK_FUNCTION_LIST, session: u64, key: u64, wait_us: f64) -> f64 {
    let begun = clock_ns(libc::CLOCK_MONOTONIC);
    operate(list, session, key);
    (clock_ns(libc::CLOCK_MONOTONIC) - begun) / 1_000.0 - wait_us
}

fn operate(list: &sys::CK_FUNCTION_LIST, session: u64, key: u64) {
    let mut mechanism =
        sys::CK_MECHANISM { mechanism: sys::CKM_ECDSA, pParameter: ptr::null_mut(), ulParameterLen: 0 };
    let (mut digest, mut out, mut len) = ([7; 32], [0; 64], 64);
    // SAFETY: the mechanism is a live local.
    assert_eq!(unsafe { list.C_SignInit.unwrap()(session, &raw mut mechanism, key) }, sys::CKR_OK);
    let sign = list.C_Sign.unwrap();
    // SAFETY: the buffers are live locals of the lengths given.
    let code = unsafe { sign(session, digest.as_mut_ptr(), 32, out.as_mut_ptr(), &raw mut len) };
    assert_eq!((code, len), (sys::CKR_OK, 64));
}

/// A session of the first token, and its P-256 key.
fn open(list: &sys::CK_FUNCTION_LIST) -> (u64, u64) {
    let (mut slot, mut count, mut session) = (0, 1, 0);
    // SAFETY: the slot and the count are live locals.
    unsafe { list.C_GetSlotList.unwrap()(sys::CK_TRUE, &raw mut slot, &raw mut count) };
    let (open, flags) = (list.C_OpenSession.unwrap(), sys::CKF_SERIAL_SESSION | sys::CKF_RW_SESSION);
    // SAFETY: the handle is written to a live local.
    unsafe { open(slot, flags, ptr::null_mut(), None, &raw mut session) };
    // Another session may have logged in already.
    // SAFETY: the PIN is four bytes long and only read.
    unsafe { list.C_Login.unwrap()(session, sys::CKU_USER, b"1234".as_ptr().cast_mut(), 4) };
    let class = sys::CKO_PRIVATE_KEY;
    let attribute = |type_, value: *const u8, len| sys::CK_ATTRIBUTE {
        type_,
        pValue: value.cast_mut().cast(),
        ulValueLen: len,
    };
    let mut template = [
        attribute(sys::CKA_CLASS, (&raw const class).cast(), 8),
        attribute(sys::CKA_LABEL, b"p256".as_ptr(), 4),
    ];
    let (mut key, mut found) = (0, 0);
    // SAFETY: the template and its values are live locals.
    unsafe { list.C_FindObjectsInit.unwrap()(session, template.as_mut_ptr(), 2) };
    // SAFETY: one handle is written to a live local.
    unsafe { list.C_FindObjects.unwrap()(session, &raw mut key, 1, &raw mut found) };
    // SAFETY: a plain call.
    unsafe { list.C_FindObjectsFinal.unwrap()(session) };
    assert_eq!(found, 1);
    (session, key)
}

fn clock_ns(clock: libc::clockid_t) -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a live local.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
