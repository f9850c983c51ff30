//! `hsmux tune` on the simulated HSM.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::hsm::Ended;
use crate::sim::Sim;

/// A device that the program simulates itself: four cores, some milliseconds for each operation, so that even a program built for
/// debugging on a busy machine is faster than it.
const DEVICE: &str = "tokens = 1\nop = \"5ms\"\ncores = 4\n";

/// What is quick to tune: sessions alone, few of them.
const QUICK: [&str; 8] =
    ["tune", "--op", "hmac-sha256", "--keep", "copies,coalescing", "--sessions-max", "16", "--callers=32"];

/// Tunes a simulated device for a time.
fn tune(sim: &Sim, device: &str, more: &[&str]) -> Ended {
    std::fs::write(sim.path("device.toml"), device).unwrap();
    let script = sim.path("device.toml");
    sim.run(&[&QUICK[..], &["--sim", script.to_str().unwrap()], more].concat())
}

/// The number of sessions that a configuration says.
#[track_caller]
fn sessions(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("sessions = ")).expect("sessions are said");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn on_a_device_with_four_cores_four_sessions_are_advised_and_the_file_loads() {
    let sim = Sim::new("null=1");
    let out = sim.path("tuned.toml");
    let ended = tune(&sim, DEVICE, &["--time", "12s", "--out", out.to_str().unwrap()]);
    ended.succeeds();
    assert!((3..=8).contains(&sessions(&out)), "{ended:?}");
    assert!(ended.stdout.contains("advised") && ended.stdout.contains("\nadvice: "), "{ended:?}");
    assert!(ended.stderr.contains("best so far: "), "{ended:?}");
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(text.contains("# tuned 20") && text.contains("with hmac-sha256:64, 32 callers: "), "{text}");
    assert!(text.contains("pin = \"prompt\"") && !text.contains("1234"), "{text}");
    let checked = sim.run(&["config", "check", out.to_str().unwrap()]);
    checked.succeeds();
    assert!(checked.stdout.contains("good, 1 token"), "{checked:?}");
}

#[test]
fn of_a_configuration_only_the_tuned_fields_change_and_the_search_begins_at_what_it_says() {
    let sim = Sim::new("tokens=1,op_us=2000,cores=1,seed=4711");
    let [config, out] = ["ours.toml", "tuned.toml"].map(|name| sim.path(name));
    let ours = format!(
        "# Ours.\nmodule = {:?}\npin = \"file:{}\" # rotated in May\n# As in the old days.\nsessions = 3\ncoalescing = false\n\n[[token]]\nname = \"sim-0\"\n",
        p11_sim::cdylib_path().unwrap(),
        sim.path("pin").display()
    );
    std::fs::write(&config, &ours).unwrap();
    let [config, out] = [&config, &out].map(|path| path.to_str().unwrap());
    let arguments = [
        "tune",
        "--op",
        "hmac-sha256",
        "--config",
        config,
        "--out",
        out,
        "--time",
        "6s",
        "--sessions-max=4",
        "--json",
    ];
    let ended = sim.run(&arguments);
    ended.succeeds();
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (json["schema"].as_u64(), json["load"]["profile"].as_str()),
        (Some(1), Some("hmac-sha256:64"))
    );
    let advice = &json["advice"];
    assert_eq!(
        (advice["start"]["sessions"].as_u64(), advice["start"]["coalescing"].as_bool()),
        (Some(3), Some(false))
    );
    let tried = advice["tried"].as_array().unwrap();
    assert!(
        tried.iter().all(|tried| tried["setting"]["coalescing"] == false),
        "what is off stays off: {advice}"
    );
    // The device does 500 a second, however short the measurement and long the queue.
    let per_s = tried.iter().filter_map(|tried| tried["per_s"].as_f64()).fold(0.0, f64::max);
    assert!((200.0..600.0).contains(&per_s), "{advice}");
    let tuned = std::fs::read_to_string(out).unwrap();
    let kept = |text: &str| -> Vec<String> {
        let is_ours =
            |line: &&str| !["# tuned ", "sessions = ", "copies = "].iter().any(|it| line.starts_with(it));
        text.lines().filter(is_ours).map(str::to_owned).collect()
    };
    assert_eq!(kept(&tuned), kept(&ours), "{tuned}");
    assert!(tuned.contains("# As in the old days.\n# tuned 20"), "{tuned}");
    sim.run(&["config", "check", out]).succeeds();
    let keys = sim.run(&["info", "--config", config]);
    assert!(!keys.stdout.contains("hsmux-load-"), "temporary keys are removed: {keys:?}");
}

#[test]
fn a_token_with_a_session_limit_is_never_advised_more_than_it_gives() {
    let sim = Sim::new("null=1");
    let out = sim.path("tuned.toml");
    // Three, of which the engine keeps two for itself; asked for more by --sessions-max.
    let device = format!("{DEVICE}sessions = 3\n");
    let ended = tune(&sim, &device, &["--time", "6s", "--out", out.to_str().unwrap()]);
    ended.succeeds();
    assert_eq!(sessions(&out), 1, "{ended:?}");
    assert!(ended.stdout.contains("failed: the token gives only 1 session"), "{ended:?}");
}

#[test]
fn a_file_that_is_there_is_refused_before_anything_is_measured() {
    let sim = Sim::new("null=1");
    let out = sim.path("tuned.toml");
    std::fs::write(&out, "ours").unwrap();
    let ended = tune(&sim, DEVICE, &["--out", out.to_str().unwrap()]);
    ended.fails(2, &["tuned.toml is there already", "--force"]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "ours");
    tune(&sim, DEVICE, &["--token", "sim-0"]).fails(2, &["--sim says itself"]);
}

#[test]
fn an_objective_that_nothing_meets_is_said_and_ends_with_its_code() {
    let sim = Sim::new("null=1");
    let ended = tune(&sim, DEVICE, &["--time", "2s", "--slo", "p99=1ms"]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(ended.stdout.contains("no setting was seen to meet the objective"), "{ended:?}");
}

#[test]
fn ctrl_c_ends_it_with_the_best_so_far() {
    let sim = Sim::new("null=1");
    let (device, out) = (sim.path("device.toml"), sim.path("tuned.toml"));
    std::fs::write(&device, DEVICE).unwrap();
    let paths = ["--sim", device.to_str().unwrap(), "--out", out.to_str().unwrap(), "--time", "60s"];
    let mut command = sim.command(&[&QUICK[..], &paths].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    // The first measurement has been made.
    assert!(lines.any(|line| line.unwrap().contains("best so far: ")));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    lines.for_each(drop);
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stdout.contains("unfinished: it was stopped"), "{ended:?}");
    assert!(sessions(&out) >= 1);
}

#[test]
fn without_a_configuration_a_complete_one_is_written_that_works_from_anywhere() {
    let sim = Sim::new("tokens=1,op_us=2000,cores=1,seed=4712");
    let out = sim.path("tuned.toml");
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let arguments = ["tune", "--op", "hmac-sha256", "--out", out.to_str().unwrap(), "--time", "2s", &pin];
    let ended = sim.run(&[&arguments[..], &["--token", "sim-0", "--sessions-max=2"]].concat());
    ended.succeeds();
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(text.contains(&format!("pin = \"file:{}\"", sim.path("pin").display())), "{text}");
    assert!(text.contains("[[token]]\nname = \"sim-0\"\n") && !text.contains("1234"), "{text}");
    // It says all that the options said.
    sim.run(&["info", "--config", out.to_str().unwrap()]).succeeds();
}

#[test]
fn a_pin_that_is_refused_is_sent_once_and_nothing_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logins");
    let sim = Sim::new(&format!("tokens=1,pin=5678,pin_log={},seed=4713", log.display()));
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let ended = sim.run(&["tune", "--op", "hmac-sha256", "--time", "2s", &pin]);
    ended.fails(5, &["PIN"]);
    assert!(!ended.stderr.contains("best so far"), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 1);
}
