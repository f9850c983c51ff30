//! `hsmux bulk`: order, bad input, and every way a run can end.

mod ends;
mod resume;

use data_encoding::BASE64;
use serde_json::Value;

use crate::hsm::{Ended, Hsm};
use crate::sim::{Running, Sim, ThroughShell, check_lines, feed, records};

const HMAC: [&str; 5] = ["mac", "--alg", "hmac-sha256", "--key", "hmac"];
/// Label of the simulator's first token.
const TOKEN: &str = "sim-0";

const SIGN: [&str; 5] = ["sign", "--alg", "ecdsa-p256", "--key", "p256"];

/// The lines of output as JSON, after their numbers were checked.
#[track_caller]
fn lines(ended: &Ended) -> Vec<Value> {
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (1..).zip(&lines).for_each(|(number, line)| assert_eq!(line["line"], number, "{line}"));
    lines
}

#[test]
fn signatures_come_in_the_order_of_their_lines_and_other_software_takes_them() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.import("only", "card-signing", "01");
    let pin = format!("--pin-source=file:{}", hsm.path("pin").display());
    let arguments = ["bulk", "sign", "--alg", "ecdsa-p256-sha256", "--key", "card-signing", &pin];
    let ended = feed(&mut hsm.command(&arguments), records(2_000).as_bytes());
    ended.succeeds();
    assert_eq!(check_lines(&ended.stdout, 1, "signature"), 2_000);
    assert!(ended.stderr.contains("2000 records, 0 failed"), "{}", ended.stderr);
    let pem = include_str!("test-p256.pem");
    let pkcs8: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let pkcs8 = BASE64.decode(pkcs8.as_bytes()).unwrap();
    // The private key ends with its public point of 65 bytes (RFC 5915, 3).
    let point = &pkcs8[pkcs8.len() - 65..];
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    for (number, line) in (1..).zip(lines(&ended)).step_by(101) {
        let signature = BASE64.decode(line["signature"].as_str().unwrap().as_bytes()).unwrap();
        public.verify(format!("message {number}").as_bytes(), &signature).unwrap();
    }
}

#[test]
fn a_bad_line_has_its_error_and_no_line_is_lost() {
    let sim = Sim::new("");
    let input: &[&[u8]] = &[
        b"{\"id\":\"a\",\"text\":\"one\"}\n",
        b"\n",
        b"no JSON\n",
        b"{\"id\":4,\"data\":\"!\"}\n",
        b"{\"text\":\"\xff\"}\n",
        b"{\"id\":6,\"text\":\"a\",\"to\":\"b\"}\n",
        b"{\"text\":\"one\",\"aad\":\"\"}\n",
        b"{\"id\":\"a\",\"text\":\"one\"}\r\n",
        &[b'x'; 5_000],
        b"\n{\"id\":\"a\",\"text\":\"one\"}",
    ];
    let ended = sim.run_bulk(&[&HMAC[..], &["--line-max", "4KiB"]].concat(), input.concat());
    assert_eq!(ended.code, Some(9), "{ended:?}");
    let lines = lines(&ended);
    let kinds: Vec<_> = lines.iter().map(|line| line["error"]["kind"].as_str().unwrap_or("fine")).collect();
    let bad = "InvalidRecord";
    assert_eq!(kinds, ["fine", bad, bad, bad, bad, bad, bad, "fine", "LineTooLong", "fine"]);
    assert_eq!(
        [&lines[3]["id"], &lines[5]["id"], &lines[9]["id"]],
        [4, 6, 97]
            .map(|id| match id {
                97 => Value::from("a"),
                id => Value::from(id),
            })
            .each_ref()
    );
    assert!(lines[0]["mac"] == lines[7]["mac"] && lines[0]["mac"] == lines[9]["mac"]);
    assert!(ended.stderr.contains("7 failed (InvalidRecord 6, LineTooLong 1)"), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("hsmux: 7 of 10 records failed\n"), "{}", ended.stderr);
}

#[test]
fn records_of_nothing_and_of_a_megabyte_run() {
    let sim = Sim::new("");
    let long = "x".repeat(1 << 20);
    let input = format!("{{\"text\":\"\"}}\n{{\"text\":\"{long}\"}}\n{{\"text\":\"{long}\"}}\n");
    let ended = sim.run_bulk(&[&HMAC[..], &["--window-bytes", "64KiB"]].concat(), input);
    ended.succeeds();
    let lines = lines(&ended);
    assert!(lines.len() == 3 && lines[1]["mac"] == lines[2]["mac"] && lines[0]["mac"] != lines[1]["mac"]);
    assert!(sim.run_bulk(&HMAC, "").stdout.is_empty());
}

#[test]
fn what_was_encrypted_with_its_additional_data_is_decrypted_and_the_rest_is_refused() {
    let sim = Sim::new("");
    let aad = |id: u64| {
        if id.is_multiple_of(3) { String::new() } else { format!(",\"aad\":\"{}\"", BASE64.encode(&[7, 7])) }
    };
    let plain: String =
        (1..=500).map(|id| format!("{{\"id\":{id},\"hex\":\"{id:08x}\"{}}}\n", aad(id))).collect();
    let aes = ["--alg", "aes-gcm", "--key", "aes256"];
    let encrypted = sim.run_bulk(&[&["encrypt"], &aes[..]].concat(), plain);
    encrypted.succeeds();
    assert_eq!(check_lines(&encrypted.stdout, 1, "ciphertext"), 500);
    let to_decrypt = |line: &Value| {
        let id = line["id"].as_u64().unwrap();
        // One is decrypted without the data that it was encrypted with.
        let aad = if id == 100 { String::new() } else { aad(id) };
        format!("{{\"id\":{id},\"data\":{}{aad}}}\n", line["ciphertext"])
    };
    let ciphertexts: String = lines(&encrypted).iter().map(to_decrypt).collect();
    let decrypted = sim.run_bulk(&[&["decrypt"], &aes[..]].concat(), ciphertexts);
    assert_eq!(decrypted.code, Some(9));
    for (id, line) in (1_u32..).zip(lines(&decrypted)) {
        match id {
            100 => assert_eq!(line["error"]["kind"], "DecryptFailed"),
            id => assert_eq!(line["plaintext"], BASE64.encode(&id.to_be_bytes())),
        }
    }
}

#[test]
fn a_slow_producer_has_each_answer_before_it_goes_on() {
    let sim = Sim::new("");
    let mut running = Running::start(&mut sim.bulk(&HMAC));
    let mut stdin = running.child.stdin.take().unwrap();
    for number in 1..=5 {
        std::io::Write::write_all(&mut stdin, b"{\"text\":\"a\"}\n").unwrap();
        assert!(running.line().starts_with(&format!("{{\"line\":{number},\"mac\":")));
    }
    drop(stdin);
    assert!(running.child.wait().unwrap().success());
}

#[test]
fn a_window_beyond_the_engines_room_waits_and_fails_nothing() {
    let sim = Sim::new("null=1");
    let ended = sim.run_bulk(&[&SIGN[..], &["--window", "100000", "--quiet"]].concat(), records(120_000));
    ended.succeeds();
    assert_eq!((ended.stdout.lines().count(), ended.stderr.as_str()), (120_000, ""));
}

#[test]
fn a_deadline_that_cannot_be_met_fails_the_record() {
    let sim = Sim::new("op_us=2000");
    let ended = sim.run_bulk(&[&HMAC[..], &["--deadline", "10us"]].concat(), records(3));
    assert_eq!(ended.code, Some(9));
    assert!(lines(&ended).iter().all(|line| line["error"]["kind"] == "DeadlineExceeded"), "{ended:?}");
}

#[test]
fn a_deadline_comes_from_the_option_else_from_the_configuration_else_there_is_none() {
    let sim = Sim::new("op_us=2000");
    let config = sim.path("hsmux.toml");
    let (module, pin) = (p11_sim::cdylib_path().unwrap(), sim.path("pin"));
    let text = format!(
        "module = \"{}\"\npin = \"file:{}\"\ndeadline = \"10us\"\n[[token]]\nname = \"{TOKEN}\"\n",
        module.display(),
        pin.display()
    );
    std::fs::write(&config, text).unwrap();
    let configured = [&["bulk"], &HMAC[..], &["--config", config.to_str().unwrap()]].concat();
    let run =
        |more: &[&str]| feed(&mut sim.command(&[&configured[..], more].concat()), records(3).as_bytes());
    let ended = run(&[]);
    assert_eq!(ended.code, Some(9), "{ended:?}");
    assert!(lines(&ended).iter().all(|line| line["error"]["kind"] == "DeadlineExceeded"), "{ended:?}");
    run(&["--deadline", "none"]).succeeds();
    run(&["--deadline", "1m"]).succeeds();
}

#[test]
fn records_are_never_read_as_a_pin() {
    let sim = Sim::new("");
    let config = sim.path("hsmux.toml");
    let module = p11_sim::cdylib_path().unwrap();
    let text = format!("module = \"{}\"\npin = \"fd:0\"\n[[token]]\nname = \"{TOKEN}\"\n", module.display());
    std::fs::write(&config, text).unwrap();
    std::fs::copy(sim.path("pin"), sim.path("records")).unwrap();
    let refused = |arguments: &[&str], script: &str| {
        let command = sim.command(&[&["bulk"], &HMAC[..], arguments].concat());
        let ended = feed(&mut command.through_shell(script, &sim.path("records")), b"1234\n");
        ended.fails(2, &["stdin"]);
    };
    let plain = "exec \"$0\" \"$@\"";
    refused(&["--pin-source", "fd:0"], plain);
    refused(&["--pin-source", "fd:3"], "exec \"$0\" \"$@\" 3<&0");
    refused(&["--pin-source", "file:/dev/stdin"], "exec \"$0\" \"$@\" < \"$OUT\"");
    refused(&["--uri", "pkcs11:?pin-source=fd:0"], plain);
    refused(&["--config", config.to_str().unwrap()], plain);
}

#[test]
fn memory_does_not_grow_with_the_input() {
    let most = |count| {
        let sim = Sim::new("null=1");
        // A number of sessions, for each takes memory of its own.
        let mut running = Running::start(sim.bulk(&SIGN).args(["--sessions", "2"]));
        let mut stdin = running.child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            let stdin = &mut stdin;
            scope.spawn(move || std::io::Write::write_all(stdin, records(count).as_bytes()).unwrap());
            (0..count).for_each(|_| assert!(running.line().ends_with('\n')));
        });
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
        drop(stdin);
        assert!(running.child.wait().unwrap().success());
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    };
    let (short, long) = (most(100_000), most(400_000));
    assert!(long < short + short / 5, "{short} kB for 100 000 records, {long} kB for 400 000");
}
