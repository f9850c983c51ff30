//! `hsmux load --find-knee` and `--compare FILE`, on simulated devices of known speed: a program of its own, whose tests run one
//! after the other, for what is measured here is time.
//!
//! `HSMUX_LOAD_TIMES` says how often each is done, and has a difference of 5 % found; without it, one of 20 % once.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

#[path = "../end_to_end/hsm.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use more of it")]
mod hsm;
#[path = "../end_to_end/sim.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use more of it")]
mod sim;

use std::path::Path;

use hsmux_bench::result::LoadResult;
use parking_lot::{Mutex, MutexGuard};

use hsm::Ended;
use sim::Sim;

/// One at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

/// How often each comparison and search is made, all of which have to come out right; and what the slower device takes for what the
/// faster one does in 4,000 us. A machine that runs other things, too, shows no 5 % in some seconds.
fn times() -> (u32, u32) {
    std::env::var("HSMUX_LOAD_TIMES").map_or((1, 4_800), |text| (text.parse().unwrap(), 4_200))
}

/// A device with four cores that take so many microseconds for an operation.
fn device(sim: &Sim, name: &str, op_us: u32, seed: u32) -> String {
    let path = sim.path(name);
    std::fs::write(&path, format!("op = \"{op_us}us\"\ncores = 4\nseed = {seed}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs 16 callers in a closed loop, whose results go to a directory of this name.
fn closed(sim: &Sim, device: &str, out: &str, further: &[&str]) -> (Ended, String) {
    let out = sim.path(out);
    // With `auto` the engine tries other numbers of sessions now and then, and a second of that is slower by 5 %.
    let load = [
        "load",
        "--op",
        "hmac-sha256",
        "--callers",
        "16",
        "--sessions",
        "8",
        "--seconds",
        "10",
        "--sim",
        device,
        "--out",
    ];
    let ended = sim.run(&[&load[..], &[out.to_str().unwrap()], further].concat());
    (ended, out.join("result.json").to_str().unwrap().to_owned())
}

#[test]
fn a_device_is_no_faster_than_itself_and_a_slower_one_is_found() {
    let (_alone, sim, (times, slow_us)) = (alone(), Sim::new(""), times());
    let (fast, slow) = (device(&sim, "fast.toml", 4_000, 0), device(&sim, "slow.toml", slow_us, 0));
    for _ in 0..times {
        let (ended, earlier) = closed(&sim, &fast, "earlier", &[]);
        ended.succeeds();
        let (itself, _) = closed(&sim, &fast, "itself", &["--compare", &earlier]);
        // Its 99th percentile may have grown with what else the machine did.
        assert!([Some(0), Some(12)].contains(&itself.code), "{itself:?}");
        assert!(itself.stdout.contains("compared with the earlier run: no difference"), "{}", itself.stdout);
        let (slower, _) = closed(&sim, &slow, "slower", &["--compare", &earlier]);
        assert_eq!(slower.code, Some(12), "{slower:?}");
        assert!(slower.stdout.contains("compared with the earlier run: slower"), "{}", slower.stdout);
    }
}

#[test]
fn the_knee_of_a_device_is_found() {
    let (_alone, sim) = (alone(), Sim::new(""));
    for seed in 1..=times().0 {
        // Four at a time, 4 ms each: 1,000 a second.
        let device = device(&sim, "device.toml", 4_000, seed);
        let out = sim.path("out");
        let load = ["load", "--op", "hmac-sha256", "--find-knee", "--slo", "p99=100ms", "--rate", "500"];
        let on = ["--seconds", "40", "--callers", "2000", "--sim", &device, "--out", out.to_str().unwrap()];
        let ended = sim.run(&[&load[..], &on].concat());
        ended.succeeds();
        let result = LoadResult::read(&Path::new(&out).join("result.json")).unwrap();
        let knee = result.knee.unwrap();
        assert!((950.0..=1_050.0).contains(&knee.per_s), "{knee:?}: {}", ended.stderr);
        assert!(
            result.curve.len() > 4 && result.curve.iter().any(|point| !point.meets),
            "{:?}",
            result.curve
        );
        assert!(ended.stdout.contains("meets p99=100ms"), "{}", ended.stdout);
    }
}

#[test]
fn what_cannot_be_compared_or_searched_for_is_refused() {
    let (_alone, sim) = (alone(), Sim::new("tokens=1"));
    let load = |options: &[&str]| sim.run(&[&["load", "--op", "hmac-sha256"], options].concat());
    let ended = load(&["--compare", "nothing"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("neither a baseline"), "{ended:?}");
    let ended = load(&["--find-knee"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--slo"), "{ended:?}");
    load(&["--find-knee", "--slo", "p97=1ms"]).fails(2, &[]);
    let search = ["--find-knee", "--slo", "p99=1ms", "--compare", "raw"];
    load(&search).fails(2, &["baselines do one operation at one rate"]);
    load(&["--rate", "9", "--compare", "raw", "--threads", "1,2"]).fails(2, &["--threads is one count here"]);
    let file = sim.path("no-result.json");
    std::fs::write(&file, "{}").unwrap();
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let ended = load(&["--seconds", "0.2", "--compare", file.to_str().unwrap(), &pin]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no-result.json"), "{ended:?}");
}
