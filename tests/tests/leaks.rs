//! Engines that come and go leave nothing behind. Alone in its file: it counts the threads of the process.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use hsmux::Hmac;
use hsmux_tests::{Hsm, LONG, eventually};

/// Threads of engines, by their names.
fn engine_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("hsmux-")).count()
}

#[test]
#[cfg(target_os = "linux")]
fn a_hundred_engines_leave_no_session_and_no_thread() {
    const ENGINES: u64 = 100;
    let hsm = Hsm::new(2, "");
    let mut most = 0;
    for round in 0..ENGINES {
        let engine = hsm.builder().sessions(2).build().unwrap();
        let key = engine.key("hmac").unwrap();
        let pending: Vec<_> =
            (0..8_u8).map(|i| key.sign(Hmac::SHA256, vec![i]).deadline_in(LONG).submit().unwrap()).collect();
        most = most.max(engine_threads());
        // Drained, dropped with requests in flight, or dropped when all is answered.
        if round % 3 == 0 {
            assert_eq!(engine.drain(LONG), 0);
        }
        if round % 3 != 1 {
            pending.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
        }
        drop((key, engine));
        hsm.wait_closed();
    }
    assert!(most >= 4, "the threads are not found by their names");
    eventually("every thread has ended", || engine_threads() == 0);
    assert_eq!(hsm.sim.calls_of("C_Initialize"), ENGINES);
    assert_eq!(hsm.sim.calls_of("C_Login"), 2 * ENGINES);
    assert_eq!(hsm.sim.concurrent_use(), 0);
}
