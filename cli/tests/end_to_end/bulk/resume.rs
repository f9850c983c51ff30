//! Runs that go on where an earlier one ended.

use std::os::unix::fs::PermissionsExt;

use super::ends::resume_from;
use super::{HMAC, SIGN};
use crate::sim::{Sim, ThroughShell, check_lines, feed, records};

const RSA: [&str; 5] = ["sign", "--alg", "rsa-pkcs1-sha256", "--key", "rsa2048"];

#[test]
fn a_run_from_the_middle_gives_the_lines_that_a_whole_run_gives_from_there() {
    let sim = Sim::new("");
    let whole = sim.run_bulk(&HMAC, records(1_000));
    whole.succeeds();
    let rest = sim.run_bulk(&[&HMAC[..], &["--resume-from", "301"]].concat(), records(1_000));
    rest.succeeds();
    let first: String = whole.stdout.lines().take(300).map(|line| format!("{line}\n")).collect();
    assert_eq!(first + &rest.stdout, whole.stdout);
}

#[test]
fn wherever_a_file_was_torn_the_resumed_file_equals_that_of_one_run() {
    let sim = Sim::new("");
    for (arguments, count) in [(&HMAC, 600), (&RSA, 40)] {
        let whole = sim.run_bulk(arguments, records(count));
        whole.succeeds();
        let (path, whole) = (sim.path("out"), whole.stdout.into_bytes());
        let output = ["--output", path.to_str().unwrap(), "--resume"];
        for torn in [0, 3, whole.len() / 3, whole.len() / 2, whole.len() - 1, whole.len()] {
            std::fs::write(&path, &whole[..torn]).unwrap();
            let resumed = sim.run_bulk(&[&arguments[..], &output].concat(), records(count));
            resumed.succeeds();
            assert!(std::fs::read(&path).unwrap() == whole, "torn at {torn}");
            assert_eq!(resumed.stdout, "");
        }
    }
}

#[test]
fn signatures_that_differ_each_time_cover_every_line_once() {
    let sim = Sim::new("");
    let path = sim.path("out");
    let output = ["--output", path.to_str().unwrap()];
    sim.run_bulk(&[&SIGN[..], &output].concat(), records(200)).succeeds();
    let kept = std::fs::read(&path).unwrap();
    std::fs::write(&path, &kept[..kept.len() / 2]).unwrap();
    sim.run_bulk(&[&SIGN[..], &output, &["--resume"]].concat(), records(200)).succeeds();
    assert_eq!(check_lines(&std::fs::read_to_string(&path).unwrap(), 1, "signature"), 200);
}

#[test]
fn a_file_is_its_owners_and_never_written_over() {
    let sim = Sim::new("");
    let path = sim.path("out");
    let output = [&HMAC[..], &["--output", path.to_str().unwrap()]].concat();
    sim.run_bulk(&output, records(3)).succeeds();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = std::fs::read(&path).unwrap();
    sim.run_bulk(&output, records(3)).fails(2, &["--resume"]);
    assert!(std::fs::read(&path).unwrap() == kept);
}

#[test]
fn a_file_that_others_may_read_is_closed_to_them_before_anything_is_written() {
    let sim = Sim::new("");
    let path = sim.path("out");
    let resume = [&HMAC[..], &["--output", path.to_str().unwrap(), "--resume"]].concat();
    for arguments in [&resume[..resume.len() - 1], &resume] {
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        sim.run_bulk(arguments, records(3)).succeeds();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_run_that_does_not_come_to_its_key_leaves_the_file_as_it_was() {
    let sim = Sim::new("");
    let path = sim.path("out");
    let torn = "{\"line\":1,\"mac\":\"\"}\n{\"line\":2,\"m";
    std::fs::write(&path, torn).unwrap();
    let keyless = ["mac", "--alg", "hmac-sha256", "--key", "none", "--resume", "--output"];
    sim.run_bulk(&[&keyless[..], &[path.to_str().unwrap()]].concat(), records(3)).fails(6, &["no such key"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), torn);
}

#[test]
fn a_run_into_a_full_disk_leaves_whole_lines_to_which_the_next_run_appends() {
    let sim = Sim::new("");
    let whole = sim.run_bulk(&HMAC, records(600)).stdout;
    // A file may grow to 16 blocks of 512 bytes; that is told by an error, not by a signal.
    let run = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\" >> \"$OUT\"";
    let full = feed(&mut sim.bulk(&HMAC).through_shell(run, &sim.path("out")), records(600).as_bytes());
    assert_eq!(full.code, Some(1), "{full:?}");
    assert!(!full.stderr.contains("cut off"), "{full:?}");
    let kept = std::fs::read_to_string(sim.path("out")).unwrap();
    assert!(kept.ends_with('\n') && kept.len() > 7_000, "{kept}");
    let from = resume_from(&full).to_string();
    let rest = sim.run_bulk(&[&HMAC[..], &["--resume-from", &from]].concat(), records(600));
    assert!(kept + &rest.stdout == whole);
}

#[test]
fn a_file_of_something_else_and_an_input_too_short_are_refused() {
    let sim = Sim::new("");
    let path = sim.path("out");
    let resume = [&HMAC[..], &["--output", path.to_str().unwrap(), "--resume"]].concat();
    std::fs::write(&path, "a letter\n").unwrap();
    sim.run_bulk(&resume, records(3)).fails(2, &["no output of hsmux bulk"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a letter\n");
    for foreign in ["no newline at all", "{\"line\":301,\"ma"] {
        std::fs::write(&path, foreign).unwrap();
        sim.run_bulk(&resume, records(3)).fails(2, &["no output of hsmux bulk"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
    }
    std::fs::write(&path, "").unwrap();
    sim.run_bulk(&resume, records(3)).succeeds();
    sim.run_bulk(&resume, records(2)).fails(2, &["2 lines only"]);
    sim.run_bulk(&resume, records(3)).succeeds();
    assert_eq!(check_lines(&std::fs::read_to_string(&path).unwrap(), 1, "mac"), 3);
}
