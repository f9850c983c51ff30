//! What the engine itself costs: on a simulated HSM that answers at once, so that nothing else is in the figures.
//!
//! Takes `libp11_sim.so` from `P11_SIM_MODULE`, else from where `cargo build -p p11-sim --release` puts it.

#![expect(clippy::expect_used, reason = "a constant that every run would find wrong")]

mod contenders;

use std::path::PathBuf;

use contenders::{Contenders, Place, Settings};
use criterion::{Criterion, criterion_group, criterion_main};
use hsmux_bench::{Api, BaselineName, Load, Runtime};

const CONFIGURATION: &str = "null=1";

const SETTINGS: Settings = Settings { sessions: Some(2), deadline: false };

fn overhead(criterion: &mut Criterion) {
    let Some(module) = simulator() else {
        let text = "cargo build -p p11-sim --release, or set P11_SIM_MODULE";
        eprintln!("SKIPPED: the benches of overhead need the simulated HSM: {text}");
        return;
    };
    for (name, op, key) in [("sign/p256", "ecdsa-p256", "p256"), ("encrypt/gcm32", "aes-gcm:32", "aes256")] {
        let place = Place { module: &module, init_args: Some(CONFIGURATION), token: "sim-0", pin: "1234" };
        let case = op.parse().expect("a known operation");
        let contenders = Contenders::new(place, case, Some(key), SETTINGS);
        let mut group = contenders::group(criterion, &format!("overhead/{name}"));
        for baseline in [BaselineName::Raw, BaselineName::Cryptoki, BaselineName::R2d2] {
            contenders.baseline(&mut group, baseline, 1);
        }
        contenders.engine(&mut group, Load { api: Api::Blocking, callers: 1 });
        for runtime in [Runtime::CurrentThread, Runtime::TwoWorkers] {
            contenders.engine(&mut group, Load { api: Api::Async(runtime), callers: 256 });
        }
        group.finish();
    }
}

/// The module beside the directory in which this bench was built.
fn simulator() -> Option<PathBuf> {
    let named = std::env::var_os("P11_SIM_MODULE").map(PathBuf::from);
    let bench = std::env::current_exe().ok()?;
    let built = bench.parent()?.parent()?.join("libp11_sim.so");
    named.into_iter().chain([built]).find(|path| path.is_file())
}

criterion_group!(benches, overhead);
criterion_main!(benches);
