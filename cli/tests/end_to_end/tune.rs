//! `hsmux tune` on the simulated HSM.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::hsm::Ended;
use crate::sim::Sim;

/// A device that the program simulates itself: four cores, some milliseconds for each operation, so that even a program built for
/// debugging on a busy machine is faster than it.
const DEVICE: &str = "tokens = 1\nop = \"5ms\"\ncores = 4\n";

/// What is quick to tune: one session or two, which differ by far. It is over long before its time, on a slow machine too.
const QUICK: [&str; 8] = [
    "tune",
    "--op=hmac-sha256",
    "--keep=copies,coalescing",
    "--callers=16",
    "--sessions-max",
    "2",
    "--time",
    "2m",
];

/// Tunes a simulated device.
fn tune(sim: &Sim, device: &str, more: &[&str]) -> Ended {
    std::fs::write(sim.path("device.toml"), device).unwrap();
    let script = sim.path("device.toml");
    sim.run(&[&QUICK[..], &["--sim", script.to_str().unwrap()], more].concat())
}

/// A configuration of the simulated module, with these lines.
fn configured(sim: &Sim, lines: &str) -> String {
    let path = sim.path("ours.toml");
    let text = format!(
        "# Ours.\nmodule = {:?}\npin = \"file:{}\" # rotated in May\n{lines}\n[[token]]\nname = \"sim-0\"\n",
        p11_sim::cdylib_path().unwrap(),
        sim.path("pin").display()
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The simulator with what all of these tests share: 2 ms for an operation, four at a time, and objects that outlive a process.
fn stored(config: &str) -> Sim {
    let sim = Sim::new("");
    let store = sim.path("objects");
    std::fs::create_dir(&store).unwrap();
    sim.with(&format!("tokens=1,op_us=2000,cores=4,store={},{config}", store.display()))
}

/// Starts it, waits until the first measurement has been made, and sends it a signal.
fn interrupted(command: &mut Command, signal: Signal) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("best so far: ")));
    kill_process(Pid::from_child(&child), signal).unwrap();
    let rest: Vec<_> = lines.collect();
    Ended { stderr: rest.join("\n"), ..Ended::of(&child.wait_with_output().unwrap()) }
}

/// How often a PIN was sent.
fn logins(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap().lines().count()
}

#[test]
fn on_a_device_with_four_cores_two_sessions_are_better_than_one_and_the_file_loads() {
    let sim = Sim::new("null=1");
    let out = sim.path("tuned.toml");
    let ended = tune(&sim, DEVICE, &["--out", out.to_str().unwrap()]);
    ended.succeeds();
    assert!(ended.stdout.contains("advised") && ended.stdout.contains("\nadvice: 2 sessions: "), "{ended:?}");
    assert!(ended.stderr.contains("best so far: "), "{ended:?}");
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(text.contains("pin = \"prompt\"") && !text.contains("1234"), "{text}");
    let checked = sim.run(&["config", "check", out.to_str().unwrap()]);
    checked.succeeds();
    assert!(checked.stdout.contains("good, 1 token"), "{checked:?}");
}

#[test]
fn of_a_configuration_only_the_tuned_fields_change_and_the_search_begins_at_what_it_says() {
    let sim = stored("seed=4711");
    let config = configured(&sim, "# As in the old days.\nsessions = 1\ncoalescing = false\n");
    let ours = std::fs::read_to_string(&config).unwrap();
    let out = sim.path("tuned.toml");
    let out = out.to_str().unwrap();
    let ended = sim.run(&[&QUICK[..], &["--config", &config, "--out", out, "--json"]].concat());
    ended.succeeds();
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (json["schema"].as_u64(), json["load"]["profile"].as_str()),
        (Some(1), Some("hmac-sha256:64"))
    );
    let advice = &json["advice"];
    assert_eq!(
        (advice["start"]["sessions"].as_u64(), advice["start"]["coalescing"].as_bool()),
        (Some(1), Some(false))
    );
    assert_eq!((advice["decided"].as_bool(), advice["best"]["sessions"].as_u64()), (Some(true), Some(2)));
    let tried = advice["tried"].as_array().unwrap();
    assert!(
        tried.iter().all(|tried| tried["setting"]["coalescing"] == false),
        "what is off stays off: {advice}"
    );
    // The device does 500 a second in each session, however short the measurement and long the queue.
    let per_s = tried.iter().filter_map(|tried| tried["per_s"].as_f64()).fold(0.0, f64::max);
    assert!(per_s < 1200.0, "{advice}");
    let tuned = std::fs::read_to_string(out).unwrap();
    let kept = |text: &str| -> Vec<String> {
        let is_ours = |line: &&str| !["# hsmux tune ", "sessions = "].iter().any(|it| line.starts_with(it));
        text.lines().filter(is_ours).map(str::to_owned).collect()
    };
    assert_eq!(kept(&tuned), kept(&ours), "{tuned}");
    assert!(
        tuned.contains("# As in the old days.\n# hsmux tune 20") && tuned.contains("\nsessions = 2\n"),
        "{tuned}"
    );
    sim.run(&["config", "check", out]).succeeds();
}

#[test]
fn a_token_with_a_session_limit_is_never_advised_more_than_it_gives() {
    let sim = Sim::new("null=1");
    // Three, of which the engine keeps two for itself; asked for more by --sessions-max.
    let ended = tune(&sim, &format!("{DEVICE}sessions = 3\n"), &[]);
    ended.succeeds();
    assert!(ended.stdout.contains("\nadvice: 1 session: "), "{ended:?}");
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
    let ended = tune(&sim, DEVICE, &["--slo", "p99=1ms"]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(ended.stdout.contains("no setting was seen to meet the objective"), "{ended:?}");
    let without = ["tune", "--op=hmac-sha256", "--slo=p99=1ms"];
    sim.run(&without).fails(2, &["--help"]);
}

#[test]
fn ctrl_c_leaves_what_runs_today_no_file_and_no_key() {
    let sim = stored("seed=4714");
    let config = configured(&sim, "sessions = 1\n");
    let out = sim.path("tuned.toml");
    let files = || std::fs::read_dir(sim.path("")).unwrap().count();
    let before = files();
    let options = ["--config", &config, "--out", out.to_str().unwrap()];
    let ended = interrupted(&mut sim.command(&[&QUICK[..], &options].concat()), Signal::INT);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stdout.contains("unfinished: it was stopped before anything was seen"), "{ended:?}");
    assert!(ended.stderr.contains("no file is written"), "{ended:?}");
    assert_eq!(files(), before, "nor what would have become of it");
    assert!(!sim.run(&["info", "--config", &config]).stdout.contains("hsmux-load-"));
}

#[test]
fn keys_of_a_run_that_was_killed_are_removed_by_the_next_whose_refused_settings_leave_none() {
    // For two sessions and the two of the engine, but not for four, nor for another engine beside.
    let sim = stored("seed=process,sessions=4");
    let config = configured(&sim, "sessions = 1\n");
    let tune = [&QUICK[..4], &["--config", &config, "--sessions-max", "4", "--time", "2m"]].concat();
    interrupted(&mut sim.command(&tune), Signal::KILL);
    let keys = || sim.run(&["info", "--config", &config]).stdout;
    assert!(keys().contains("hsmux-load-"), "{}", keys());
    let ended = sim.run(&tune);
    ended.succeeds();
    assert!(ended.stderr.contains("removed 1 temporary keys"), "{ended:?}");
    assert!(
        ended.stdout.contains("\nadvice: 2 sessions: ") && ended.stdout.contains("failed: "),
        "{ended:?}"
    );
    assert!(!keys().contains("hsmux-load-"), "{}", keys());
}

#[test]
fn after_a_login_that_may_have_counted_no_pin_is_sent_again_and_the_table_is_there_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logins");
    // The first engine keeps the login, the second is the start.
    let sim = stored(&format!("seed=4715,pin_log={},fault=C_Login:3+=0x5", log.display()));
    let config = configured(&sim, "sessions = 1\n");
    let out = directory.path().join("tuned.toml");
    let ended = sim.run(&[&QUICK[..], &["--config", &config, "--out", out.to_str().unwrap()]].concat());
    assert!(!matches!(ended.code, Some(0 | 7)), "{ended:?}");
    assert!(ended.stdout.contains("advice: 1 session: ") && ended.stderr.contains("C_Login"), "{ended:?}");
    assert_eq!(logins(&log), 3, "{ended:?}");
    assert!(!out.exists());
    assert!(
        !ended.stderr.contains("temporary keys remain"),
        "the login that is kept is good for that: {ended:?}"
    );
}

#[test]
fn the_audit_log_of_production_is_not_written_to() {
    let sim = stored("seed=4716");
    let log = sim.path("log");
    let config = configured(&sim, "sessions = 1\n");
    let audit = format!("[audit]\ndirectory = {log:?}\nmode = \"strict\"\nloss = \"stop\"\n");
    let text = std::fs::read_to_string(&config).unwrap() + &audit;
    std::fs::write(&config, text).unwrap();
    let ended = interrupted(&mut sim.command(&[&QUICK[..], &["--config", &config]].concat()), Signal::TERM);
    assert_eq!(ended.code, Some(143), "{ended:?}");
    let left = std::fs::read_dir(sim.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().contains("tune")) && !log.exists());
}

#[test]
fn without_a_configuration_a_complete_one_is_written_that_works_from_anywhere() {
    let sim = Sim::new("tokens=1,op_us=2000,cores=4,seed=4712");
    let out = sim.path("tuned.toml");
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let options = ["--out", out.to_str().unwrap(), &pin, "--token", "sim-0"];
    let mut command = sim.command(&[&QUICK[..], &options].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Nobody listens to what is tried meanwhile.
    drop(child.stderr.take());
    Ended::of(&child.wait_with_output().unwrap()).succeeds();
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
    assert_eq!(logins(&log), 1);
}

#[test]
fn tokens_of_one_scope_are_not_tuned_by_what_one_of_them_does_alone() {
    let sim = Sim::new("tokens=2,seed=4717");
    let config = configured(&sim, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let other = "scope = \"box\"\n[[token]]\nname = \"sim-1\"\nscope = \"box\"\n";
    std::fs::write(&config, text + other).unwrap();
    sim.run(&[&QUICK[..], &["--config", &config]].concat()).fails(2, &["sim-0, sim-1", "\"box\""]);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_refused_before_a_pin_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logins");
    let sim = Sim::new(&format!("tokens=1,seed=4718,pin_log={}", log.display()));
    let config = configured(&sim, "");
    // Nobody makes files there, whoever they are.
    let ended = sim.run(&[&QUICK[..], &["--config", &config, "--out", "/proc/tuned.toml"]].concat());
    ended.fails(2, &["/proc/tuned.toml cannot be written"]);
    assert!(!log.exists());
}

#[test]
fn of_two_tokens_the_one_that_was_measured_is_told() {
    let sim = stored("seed=4719").with("tokens=2,op_us=2000,cores=4,seed=4719");
    let config = configured(&sim, "sessions = 1\n");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + "[[token]]\nname = \"sim-1\"\n").unwrap();
    let options = ["--config", &config, "--sessions-max=20", "--time=2m"];
    let ended = interrupted(&mut sim.command(&[&QUICK[..3], &options].concat()), Signal::INT);
    // For both tokens, each with twice the sessions, there would be 80.
    assert!(ended.stdout.contains(", 64 callers, measured on the first of 2 tokens"), "{ended:?}");
}

#[test]
fn a_token_that_is_lost_ends_it_without_another_login_and_names_the_keys_that_stay() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logins");
    let sim = stored(&format!("seed=4720,pin_log={},fault=C_Sign:100=removed", log.display()));
    let config = configured(&sim, "sessions = 1\n");
    let ended = sim.run(&[&QUICK[..], &["--config", &config]].concat());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.stdout.contains("advice: ") && ended.stderr.contains("does not serve any more"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("temporary keys remain") && ended.stderr.contains("hsmux-load-"),
        "{ended:?}"
    );
    assert_eq!(logins(&log), 2, "of the engine that keeps the login, and of the start");
}

#[test]
fn keys_that_were_made_before_one_failed_are_removed() {
    let sim = stored("seed=process,fault=C_GenerateKeyPair:2=0x30");
    let config = configured(&sim, "");
    let ended = sim.run(&["tune", "--config", &config, "--profile", "dnssec"]);
    ended.fails(1, &["C_GenerateKeyPair"]);
    let keys = sim.run(&["info", "--config", &config]);
    keys.succeeds();
    assert!(!keys.stdout.contains("hsmux-load-"), "{keys:?}");
}
