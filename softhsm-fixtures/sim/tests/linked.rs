//! The function list linked into the program, and the counters beside it. One simulator for the whole process,
//! hence one test.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, reason = "shared with tests that use more of it")]

#[path = "support/raw.rs"]
mod raw;

use cryptoki_sys as sys;
use raw::{Raw, call};

#[test]
fn the_linked_function_list_reads_its_init_args_and_counts() {
    // SAFETY: the list is a static.
    let raw = Raw(unsafe { p11_sim::function_list().as_ref() }.unwrap());
    let mut args = sys::CK_C_INITIALIZE_ARGS {
        flags: sys::CKF_OS_LOCKING_OK,
        pReserved: c"tokens=5,op_us=".as_ptr().cast_mut().cast(),
        ..Default::default()
    };
    assert_eq!(call!(raw, C_Initialize((&raw mut args).cast())), Err(sys::CKR_ARGUMENTS_BAD));
    args.pReserved = c"tokens=5,null=1".as_ptr().cast_mut().cast();
    call!(raw, C_Initialize((&raw mut args).cast())).unwrap();
    let slots = raw.slots().unwrap();
    assert_eq!(slots.len(), 5);
    let session = raw.open(slots[4]).unwrap();
    raw.log_in(session, "1234").unwrap();
    let key = raw.key(session, "hmac");
    let signs = || p11_sim::counters().calls_of("C_Sign").unwrap();
    for calls in 1..=10 {
        raw.mac(session, key, b"x").unwrap();
        assert_eq!(signs(), calls);
    }
    p11_sim::configure("call_us=1").unwrap();
    raw.mac(session, key, b"x").unwrap();
    raw.finalise().unwrap();
    assert_eq!((signs(), p11_sim::counters().concurrent_use), (11, 0));
    assert_eq!(p11_sim::counters().calls_of("C_Nothing"), None);
}
