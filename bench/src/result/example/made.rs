//! Provenance of the example.

use crate::result::{Machine, Made, Module, Token};

pub(super) const PROFILE: &str = "\
# Authorisations: a MAC or signature each, some ciphertexts.
[[phase]]
name = \"warm-up\"
seconds = 5
rate = 1000
counted = false

[[phase]]
name = \"steady\"
seconds = 40
rate = 1000

[[mix]]
op = \"ecdsa-p256:64\"
weight = 55

[[mix]]
op = \"aes-gcm:1024\"
weight = 35

[[mix]]
op = \"rsa2048-sha256:64\"
weight = 10
";

pub(super) fn made() -> Made {
    let token = |label: &str| Token {
        label: label.to_owned(),
        manufacturer: "hsmux".to_owned(),
        model: "p11-sim".to_owned(),
        firmware: "0.1".to_owned(),
    };
    let config = [("sessions", "auto"), ("coalescing", "on"), ("copies", "auto"), ("deadline", "1 s")];
    Made {
        time: "2025-11-29T12:00:00Z".to_owned(),
        hsmux: "0.1.0".to_owned(),
        commit: Some("6c81d16".to_owned()),
        command: "hsmux load --profile payment-auth --sim lost.toml --find-knee --slo p99=20ms --compare raw"
            .to_owned(),
        machine: Machine {
            cpu: "Intel Xeon at 2.3 GHz".to_owned(),
            cores: 2,
            memory_bytes: 8 << 30,
            system: "Linux 6.1, Debian 12".to_owned(),
        },
        module: Module {
            file: "libp11_sim.so".to_owned(),
            library: "p11-sim".to_owned(),
            version: "0.1".to_owned(),
            cryptoki: "2.40".to_owned(),
        },
        tokens: ["sim-0", "sim-1", "sim-2"].map(token).into(),
        config: config.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        seed: 1,
    }
}
