//! `hsmux load` on SoftHSM2.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::config::configured;
use crate::hsm::Hsm;

const FIELDS: [&str; 20] = [
    "api",
    "baseline",
    "baselines",
    "c_calls_per_op",
    "callers",
    "cpu_ns_per_op",
    "driver",
    "errors",
    "latency_us",
    "op",
    "ops",
    "ops_per_s",
    "queue_wait_us",
    "ratio",
    "ratio_interval",
    "seconds",
    "sessions",
    "size",
    "smallest_share",
    "stages_us",
];

/// The one object on stdout, after its fields were checked.
#[track_caller]
fn report(hsm: &Hsm, arguments: &[&str]) -> serde_json::Value {
    let ended = hsm.run_with_pin(&[&["load", "--json", "--seconds", "0.5"], arguments].concat());
    ended.succeeds();
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let mut fields: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, FIELDS);
    assert!(report["ops"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["errors"], 0, "{report}");
    report
}

#[test]
fn every_operation_runs_and_reports_one_object() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let operations = [
        "rsa2048-sha256",
        "rsa2048-pss",
        "ecdsa-p256",
        "ecdsa-p384",
        "hmac-sha256",
        "aes-gcm",
        "aes-ecb",
        "random",
    ];
    for operation in operations {
        let report = report(&hsm, &["--op", operation]);
        assert_eq!((report["op"].as_str(), report["api"].as_str()), (Some(operation), Some("blocking")));
        assert!(report["ratio"].is_null());
    }
}

#[test]
fn every_way_of_asking_runs_with_the_options_given() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let many = report(&hsm, &["--op", "hmac-sha256:100", "--api", "many", "--batch", "16", "--callers", "3"]);
    assert_eq!((&many["api"], &many["callers"], &many["size"]), (&"many".into(), &3.into(), &100.into()));
    let tasks = report(&hsm, &["--op", "aes-gcm:16", "--api", "tasks", "--callers", "20", "--sessions", "3"]);
    assert_eq!((&tasks["api"], &tasks["sessions"]), (&"async".into(), &3.into()));
    assert!(tasks["stages_us"]["queued"].as_f64().unwrap() > 0.0);
    let instances =
        report(&hsm, &["--op", "aes-gcm:16", "--callers", "2", "--instances", "2", "--sessions", "1"]);
    assert_eq!(instances["sessions"], 2);
    assert!(tasks["smallest_share"].as_f64().unwrap() <= 1.0);
    let window = report(&hsm, &["--op", "aes-ecb:16", "--api", "window", "--callers", "32"]);
    assert_eq!((&window["api"], &window["driver"]), (&"async".into(), &"window".into()));
    assert!(window["smallest_share"].is_null());
    let inline = report(&hsm, &["--op", "ecdsa-p256", "--deadline", "none"]);
    assert_eq!(inline["stages_us"]["queued"].as_f64(), Some(0.0));
    assert_eq!(inline["c_calls_per_op"].as_f64(), Some(2.0));
}

#[test]
fn a_comparison_names_its_baseline_and_its_interval() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let report = report(&hsm, &["--op", "ecdsa-p256", "--compare", "raw", "--deadline", "none"]);
    assert_eq!(report["baseline"]["name"], "raw");
    assert!([1, 2, 4, 8].map(Some).contains(&report["baseline"]["threads"].as_u64()));
    let ratio = report["ratio"].as_f64().unwrap();
    let interval = report["ratio_interval"].as_array().unwrap();
    assert!(interval[0].as_f64().unwrap() <= ratio && ratio <= interval[1].as_f64().unwrap(), "{report}");
}

#[test]
fn several_baselines_have_a_ratio_each_and_their_rounds() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let names = ["raw", "raw-copy", "cryptoki", "r2d2", "mutex", "alone"];
    let compare = names.map(|name| ["--compare", name]).concat();
    let report = report(&hsm, &[&["--op", "aes-ctr:48", "--threads", "1,2"], &compare[..]].concat());
    let baselines = report["baselines"].as_array().unwrap();
    assert_eq!(baselines.iter().map(|it| it["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    for baseline in baselines {
        let rounds = baseline["rounds"].as_array().unwrap();
        let counts = baseline["counts"].as_array().unwrap().len();
        assert!(rounds.len() >= 5 && baseline["ratio"].as_f64().unwrap() > 0.0, "{baseline}");
        for round in rounds {
            assert_eq!(round["baseline"].as_array().unwrap().len(), counts);
            assert!(
                round["engine"]["queued_us"].is_array() && round["engine"]["ops_per_s"].is_f64(),
                "{round}"
            );
        }
    }
    assert_eq!(report["ratio"], baselines[0]["ratio"]);
    let refused = hsm.run_with_pin(&["load", "--op", "random", "--compare", "raw-copy"]);
    refused.fails(2, &["no key to copy"]);
    let refused = hsm.run_with_pin(&["load", "--op", "random", "--threads", "2"]);
    assert_eq!(refused.code, Some(2));
}

#[test]
fn a_comparison_finds_a_token_that_was_named_by_uri() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    let report = report(&hsm, &["--op", "hmac-sha256", "--compare", "raw", "--token", "pkcs11:token=south"]);
    assert_eq!(report["baseline"]["name"], "raw");
}

#[test]
fn the_temporary_key_is_gone_after_the_run_and_a_named_key_stays() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.import("only", "ours", "01");
    report(&hsm, &["--op", "ecdsa-p256"]);
    report(&hsm, &["--op", "ecdsa-p256", "--key", "ours"]);
    let keys = hsm.run_with_pin(&["info"]).stdout;
    assert!(keys.contains("ours") && !keys.contains("hsmux-load-"), "{keys}");
}

#[test]
fn a_load_runs_under_the_key_that_a_uri_names_by_identifier() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.import("only", "ours", "01");
    hsm.import("only", "twice", "02");
    hsm.import("only", "twice", "03");
    let load = |key: &str| {
        let uri = format!("pkcs11:token=only;{key}");
        hsm.run_with_pin(&["load", "--op", "ecdsa-p256", "--seconds", "0.1", "--uri", &uri])
    };
    for key in ["id=%01", "object=ours;id=%01;type=private"] {
        let ended = load(key);
        ended.succeeds();
        assert!(!ended.stderr.contains("temporary key"), "{ended:?}");
    }
    for key in ["id=%09", "object=ours;id=%02", "object=ours;type=secret-key"] {
        load(key).fails(6, &["no such key"]);
    }
    load("object=twice;id=%02").fails(6, &["shares its label"]);
    let compared = ["--op", "ecdsa-p256", "--compare", "raw", "--uri", "pkcs11:id=%01"];
    assert_eq!(report(&hsm, &compared)["baseline"]["name"], "raw");
}

#[test]
fn a_comparison_runs_where_the_configuration_says_that_the_pin_is_read_again() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let config = configured(&hsm, "only", "pin_keep = \"reread\"");
    let load = ["load", "--op", "hmac-sha256", "--seconds", "0.1", "--compare", "raw", "--config", &config];
    hsm.run(&load).succeeds();
}

#[test]
fn a_killed_run_leaves_a_key_that_the_next_run_removes() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let pin = format!("--pin-source=file:{}", hsm.path("pin").display());
    let mut command = hsm.command(&["load", "--op", "hmac-sha256", "--seconds", "600", &pin]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("temporary key"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
    let next = hsm.run_with_pin(&["load", "--op", "hmac-sha256", "--seconds", "0.1"]);
    next.succeeds();
    assert!(next.stderr.contains("removed 1 temporary key"), "{next:?}");
    assert!(!hsm.run_with_pin(&["info"]).stdout.contains("hsmux-load-"));
}

#[test]
fn a_run_leaves_an_interval_log_and_a_scrape_where_it_is_told_to() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let paths = ["load.hlog", "load.prom"].map(|name| hsm.path(name).display().to_string());
    let files = [&format!("--hlog={}", paths[0])[..], &format!("--prometheus={}", paths[1])];
    let report = report(&hsm, &[&["--op", "hmac-sha256"], &files[..]].concat());
    let log = std::fs::read_to_string(&paths[0]).unwrap();
    assert!(log.contains("nanoseconds") && log.contains("\nTag=sign-hmac.total,"), "{log}");
    let page = std::fs::read_to_string(&paths[1]).unwrap();
    let done = "hsmux_operations_total{token=\"only\",operation=\"sign-hmac\",result=\"ok\"} ";
    let done: u64 = page.lines().find_map(|line| line.strip_prefix(done)).unwrap().parse().unwrap();
    // The warm-up counts too.
    assert!(done >= report["ops"].as_u64().unwrap(), "{done}: {report}");
    let nowhere = hsm.run_with_pin(&["load", "--op", "random", "--seconds", "0.1", "--hlog=/nowhere/x"]);
    assert_eq!((nowhere.code, nowhere.stdout.len()), (Some(2), 0));
}

#[test]
fn the_table_tells_who_asked_and_what_it_cost() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let load = ["load", "--op", "random", "--seconds", "0.1", "--api", "async", "--callers", "4"];
    let ended = hsm.run_with_pin(&load);
    ended.succeeds();
    for part in ["4 tokio tasks on a current-thread runtime", "ops/s", "p99.9", "ns per operation"] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
}
