//! `hsmux load` with profiles, rates and results, on the simulated HSM.

use hsmux_bench::result::LoadResult;

use crate::sim::Sim;

const CONFIG: &str = "tokens=1,op_us=200";

/// Runs a load that writes its results, and reads them back.
#[track_caller]
fn results(sim: &Sim, arguments: &[&str]) -> (LoadResult, String) {
    let (pin, out) = (format!("--pin-source=file:{}", sim.path("pin").display()), sim.path("out"));
    let fixed = [pin.as_str(), "--out", out.to_str().unwrap()];
    let ended = sim.run(&[&["load"], arguments, &fixed].concat());
    ended.succeeds();
    (LoadResult::read(&out.join("result.json")).unwrap(), ended.stdout)
}

#[test]
fn an_open_loop_asks_at_its_rate_and_leaves_its_results_as_files() {
    let sim = Sim::new(CONFIG);
    for (api, pace) in [("tasks", "constant"), ("blocking", "poisson")] {
        let rate = format!("{pace}:400");
        let (result, text) =
            results(&sim, &["--op", "hmac-sha256", "--rate", &rate, "--seconds", "2", "--api", api]);
        assert_eq!(
            (result.title.as_str(), result.arrivals.as_str()),
            ("hmac-sha256:64", format!("{pace} 400/s").as_str())
        );
        // A Poisson process of 800 arrivals has a deviation of 28.
        assert!((650..950).contains(&result.total.ops), "{api}: {}", result.total.ops);
        assert_eq!((result.total.errors, result.total.asked_per_s), (0, Some(400.0)));
        assert!(result.total.latency.min_ns > 200_000, "{:?}", result.total.latency);
        assert!(result.total.lateness.as_ref().is_some_and(|late| late.count == result.total.ops));
        assert!(text.contains("p99.9") && text.contains("all"), "{text}");
        for file in ["latency.hgrm", "series.csv", "report.html"] {
            assert!(std::fs::metadata(sim.path("out").join(file)).unwrap().len() > 100, "{file}");
        }
    }
}

#[test]
fn a_closed_loop_has_no_rate_and_its_latency_counts_from_the_call() {
    let sim = Sim::new(CONFIG);
    let (result, _) = results(&sim, &["--op", "hmac-sha256", "--callers", "3", "--seconds", "1"]);
    assert_eq!((result.arrivals.as_str(), result.total.asked_per_s), ("closed, 3 callers", None));
    assert!(result.total.ops > 100 && result.total.lateness.is_none());
}

#[test]
fn a_preset_runs_its_mix_and_phases_scaled_to_a_rate_and_a_time() {
    let sim = Sim::new(CONFIG);
    let (result, _) = results(&sim, &["--profile", "payment-auth", "--rate", "200", "--seconds", "3"]);
    assert_eq!((result.title.as_str(), result.total.errors), ("payment-auth", 0));
    assert!(result.operations.len() > 1 && result.phases.len() > 1 && !result.stages.is_empty());
    let asked: f64 = result.phases.iter().map(|phase| phase.summary.ops as f64).sum();
    assert!((300.0..900.0).contains(&asked), "{asked}");
    assert_eq!(result.tokens.len(), 1);
    assert!((result.tokens[0].share - 1.0).abs() < 1e-9);
}

#[test]
fn a_rate_that_cannot_be_kept_up_with_is_said_to_be_one() {
    let sim = Sim::new("tokens=1,op_us=20000");
    let (result, text) = results(
        &sim,
        &["--op", "hmac-sha256", "--rate", "1000", "--seconds", "1", "--callers", "2", "--sessions", "2"],
    );
    assert!(result.total.ops_per_s < 150.0, "{}", result.total.ops_per_s);
    assert!(
        result.notes.iter().any(|note| note.starts_with("could not keep up in phase steady")),
        "{:?}",
        result.notes
    );
    assert!(text.contains("note: could not keep up"), "{text}");
    // Of the last ones that were begun: a second after the end the others are given up, and counted.
    assert!(result.total.latency.max_ns > 1_000_000_000, "{:?}", result.total.latency);
    let unbegun = result.notes.iter().find(|note| note.contains("were never begun")).unwrap();
    let unbegun: u64 = unbegun.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(result.total.ops + unbegun, 1_000, "{:?}", result.notes);
}

#[test]
fn baselines_are_asked_at_the_same_rate_in_turn_with_the_engine() {
    let sim = Sim::new(CONFIG);
    for arrivals in [&["--rate", "poisson:300"][..], &["--callers", "2"]] {
        let fixed = ["--op", "hmac-sha256", "--seconds", "2", "--compare", "raw", "--compare", "alone"];
        let (result, _) = results(&sim, &[&fixed, arrivals].concat());
        let names: Vec<_> = result.baselines.iter().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["raw", "alone"]);
        // An operation takes 0.2 ms: of 2 s both do all that is asked, and the engine's part of it is a whole run of 2 s.
        for of in &result.baselines {
            assert!(of.p50_ns > 200_000 && of.p99_ns >= of.p50_ns && of.interval.is_some(), "{of:?}");
        }
        assert!((1.9..2.6).contains(&result.total.seconds), "{}", result.total.seconds);
        if result.total.asked_per_s.is_some() {
            assert!((0.8..1.2).contains(&result.baselines[0].ratio), "{:?}", result.baselines);
            assert!((250.0..350.0).contains(&result.baselines[0].ops_per_s), "{:?}", result.baselines);
        }
    }
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let refused = sim.run(&["load", "--profile", "dnssec", "--compare", "raw", &pin]);
    refused.fails(2, &["one operation at one rate"]);
}

#[test]
fn a_load_of_which_nothing_succeeded_says_why_and_is_a_failure() {
    let sim = Sim::new(CONFIG);
    let script = sim.path("device.toml");
    let text = "[[at]]\nafter = \"0s\"\nwhat = \"errors\"\ncode = \"CKR_DEVICE_ERROR\"\nshare = \"100%\"\n";
    std::fs::write(&script, text).unwrap();
    let script = script.to_str().unwrap();
    let ended =
        sim.run(&["load", "--op", "hmac-sha256", "--rate", "50", "--seconds", "0.5", "--sim", script]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no request succeeded: "), "{ended:?}");
    assert!(ended.stdout.contains("errors"), "the figures are told all the same: {ended:?}");
    let search =
        ["load", "--op", "hmac-sha256", "--find-knee", "--slo", "p99=5ms", "--seconds", "1", "--sim", script];
    sim.run(&search).fails(2, &["need a device that stays the same"]);
}

#[test]
fn what_is_no_profile_is_refused_with_its_place() {
    let sim = Sim::new(CONFIG);
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let refused = |profile: &str| {
        let ended = sim.run(&["load", "--profile", profile, &pin]);
        ended.fails(2, &[]);
        ended.stderr
    };
    assert!(refused("payments").contains("no such file, and no such preset; there are payment-auth"));
    let file = sim.path("profile.toml");
    std::fs::write(&file, "name = \"a\"\n[[phase]]\nname = \"b\"\nfor = \"1s\"\nrates = 1\n").unwrap();
    assert!(
        refused(file.to_str().unwrap()).contains("profile.toml:5:1"),
        "{}",
        refused(file.to_str().unwrap())
    );
}

#[test]
fn a_directory_that_cannot_be_written_costs_the_files_and_not_the_figures() {
    let sim = Sim::new(CONFIG);
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let ended = sim.run(&[
        "load",
        "--op",
        "hmac-sha256",
        "--rate",
        "100",
        "--seconds",
        "0.2",
        &pin,
        "--out",
        "/dev/full/out",
    ]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stdout.contains("hmac-sha256:64") && ended.stderr.contains("cannot be written"),
        "{ended:?}"
    );
}

#[test]
fn on_a_simulated_device_a_token_that_is_lost_is_told_and_its_share_goes_to_the_other() {
    let sim = Sim::new(CONFIG);
    let (script, out) = (sim.path("device.toml"), sim.path("out"));
    let text = "tokens = 2\nop = \"1ms\"\n[[at]]\nafter = \"1s\"\nwhat = \"lost\"\ntoken = 0\nfor = \"1s\"\n";
    std::fs::write(&script, text).unwrap();
    let [script, out] = [&script, &out].map(|path| path.to_str().unwrap());
    let load =
        ["load", "--op", "hmac-sha256", "--rate", "400", "--seconds", "4", "--sim", script, "--out", out];
    let ended = sim.run(&load);
    ended.succeeds();
    let result = LoadResult::read(&sim.path("out").join("result.json")).unwrap();
    assert_eq!((result.total.ops, result.total.errors), (1_600, 0), "{:?}", result.errors);
    assert!(result.notes.iter().any(|note| note.contains("sim-0 lost at 1.")), "{:?}", result.notes);
    assert!(result.series.iter().any(|second| second.tokens_up == Some(1)), "{:?}", result.series);
    assert_eq!(result.series.last().unwrap().tokens_up, Some(2));
    let shares: Vec<_> = result.tokens.iter().map(|token| token.share).collect();
    assert!(shares.len() == 2 && shares[0] > 0.1 && shares[0] < shares[1], "{shares:?}");
    let named = sim.run(&["load", "--op", "hmac-sha256", "--sim", script, "--token", "a"]);
    named.fails(2, &["--sim says itself"]);
}

#[test]
fn a_script_that_is_wrong_is_refused_with_its_place() {
    let sim = Sim::new(CONFIG);
    let script = sim.path("device.toml");
    std::fs::write(&script, "tokens = 0\n").unwrap();
    let ended = sim.run(&["load", "--op", "hmac-sha256", "--sim", script.to_str().unwrap()]);
    ended.fails(2, &["device.toml:1:10"]);
}
