//! `hsmux load --find-knee` and `--compare FILE`, on simulated devices of known speed.

use std::path::Path;

use hsmux_bench::result::LoadResult;

use crate::hsm::Ended;
use crate::sim::Sim;

/// How often each comparison and search is made: all have to come out right.
fn times() -> u32 {
    std::env::var("HSMUX_LOAD_TIMES").map_or(1, |text| text.parse().unwrap())
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
    let load =
        ["load", "--op", "hmac-sha256", "--callers", "16", "--seconds", "12", "--sim", device, "--out"];
    let ended = sim.run(&[&load[..], &[out.to_str().unwrap()], further].concat());
    (ended, out.join("result.json").to_str().unwrap().to_owned())
}

#[test]
fn a_device_is_no_faster_than_itself_and_one_in_twenty_slower_is_found() {
    let sim = Sim::new("");
    let (fast, slow) = (device(&sim, "fast.toml", 4_000, 0), device(&sim, "slow.toml", 4_200, 0));
    for _ in 0..times() {
        let (ended, earlier) = closed(&sim, &fast, "earlier", &[]);
        ended.succeeds();
        let (itself, _) = closed(&sim, &fast, "itself", &["--compare", &earlier]);
        itself.succeeds();
        assert!(itself.stdout.contains("compared with the earlier run: no difference"), "{}", itself.stdout);
        let (slower, _) = closed(&sim, &slow, "slower", &["--compare", &earlier]);
        assert_eq!(slower.code, Some(12), "{slower:?}");
        assert!(slower.stdout.contains("compared with the earlier run: slower"), "{}", slower.stdout);
    }
}

#[test]
fn the_knee_of_a_device_is_found() {
    let sim = Sim::new("");
    for seed in 1..=times() {
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
    let sim = Sim::new("tokens=1");
    let load = |options: &[&str]| sim.run(&[&["load", "--op", "hmac-sha256"], options].concat());
    let ended = load(&["--compare", "nothing"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("neither a baseline"), "{ended:?}");
    let ended = load(&["--find-knee"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--slo"), "{ended:?}");
    load(&["--find-knee", "--slo", "p97=1ms"]).fails(2, &[]);
    load(&["--rate", "100", "--compare", "raw"]).fails(2, &["baselines are compared with in closed loops"]);
    let file = sim.path("no-result.json");
    std::fs::write(&file, "{}").unwrap();
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let ended = load(&["--seconds", "0.2", "--compare", file.to_str().unwrap(), &pin]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no-result.json"), "{ended:?}");
}
