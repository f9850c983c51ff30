//! What shells and `man` are told.

use crate::sim::Sim;

#[test]
fn every_shell_has_a_completion_that_knows_the_commands() {
    let sim = Sim::new("null=1");
    for shell in ["bash", "zsh", "fish"] {
        let script = sim.run(&["completion", shell]);
        script.succeeds();
        for word in ["bulk", "resume-from", "ecdsa-p256-sha256"] {
            assert!(script.stdout.contains(word), "{word} for {shell}");
        }
    }
    sim.run(&["completion", "dosshell"]).fails(2, &[]);
}

#[test]
fn every_command_has_a_manual_page() {
    let sim = Sim::new("null=1");
    let directory = sim.path("man/man1");
    sim.run(&["man", directory.to_str().unwrap()]).succeeds();
    for page in [
        "hsmux",
        "hsmux-load",
        "hsmux-info",
        "hsmux-bulk",
        "hsmux-bulk-sign",
        "hsmux-pin-clear",
        "hsmux-doctor",
        "hsmux-report",
        "hsmux-man",
    ] {
        let text = std::fs::read_to_string(directory.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS") || text.contains(".SH NAME"), "{page}");
    }
}
