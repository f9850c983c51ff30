//! Return codes: any 64 bits from any function have a meaning, and it contradicts neither itself nor the function.

#![no_main]

use hsmux::fuzzing::{Verdict, read_code};
use hsmux::{ErrorKind, Outcome, Retry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: (u8, bool, u64)| {
    let (function, small, code) = answer;
    // Most codes of the standard have ten bits.
    let code = if small { code % 0x400 } else { code };
    // Zero is no fault.
    if code != 0 {
        check(code, &read_code(function.into(), code));
    }
});

fn check(code: u64, verdict: &Verdict) {
    let (kind, retry, outcome) = verdict.says();
    let text = verdict.error.to_string();
    assert!(!text.contains(char::is_control) && text.len() < 200, "{text:?}");
    assert!(
        !verdict.is_init || outcome != Outcome::Unknown,
        "what prepares an operation has not run it: {text}"
    );
    assert!(retry != Retry::Now || outcome != Outcome::Done, "what is done is not tried again: {text}");
    assert!(!verdict.loses_token || kind == ErrorKind::TokenLost, "{text}");
    assert!(kind != ErrorKind::TokenLost || verdict.loses_token, "{text}");
    if verdict.is_decryption && kind == ErrorKind::DecryptFailed {
        // One verdict for all bad ciphertexts, which costs nobody a session.
        assert_eq!(
            (text.as_str(), retry, outcome),
            (ErrorKind::DecryptFailed.as_str(), Retry::Never, Outcome::Done)
        );
        assert!(verdict.keeps_session);
    }
    // The standard's last code, and the first of vendors (PKCS#11 3.2, `pkcs11t.h`).
    if (0x1000..0x8000_0000).contains(&code) || code > 0x8000_0000 {
        assert_eq!((kind, retry), (ErrorKind::Device, Retry::Never), "{text}");
        assert!(!verdict.keeps_session, "nobody knows what a strange code has left behind: {text}");
        assert!(text.contains(&format!("0x{code:08x}")), "{text}");
    }
}
