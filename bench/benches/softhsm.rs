//! Signing and encrypting on SoftHSM2, with a token of this run's own.

#![expect(clippy::expect_used, reason = "a constant that every run would find wrong")]

mod contenders;

use contenders::{Contenders, Place, Settings};
use criterion::{Criterion, criterion_group, criterion_main};
use hsmux_bench::{Api, BaselineName, Load, Runtime};
use softhsm_fixtures::{PIN, SoftHsm};

const SETTINGS: Settings = Settings { sessions: Some(2), deadline: false };

fn softhsm(criterion: &mut Criterion) {
    // Says itself that it is skipped.
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    for (name, op) in [
        ("sign/p256", "ecdsa-p256"),
        ("sign/ed25519", "ed25519"),
        ("sign/cmac64", "aes-cmac:64"),
        ("encrypt/gcm1k", "aes-gcm:1024"),
        ("encrypt/cbc1k", "aes-cbc-enc:1024"),
        ("decrypt/cbc1k", "aes-cbc-dec:1024"),
        ("decrypt/oaep", "rsa2048-oaep"),
    ] {
        let token = softhsm.unique_token();
        let place = Place { module: softhsm.module(), init_args: None, token: token.label(), pin: PIN };
        let case = op.parse().expect("a known operation");
        let contenders = Contenders::new(place, case, None, SETTINGS);
        let mut group = contenders::group(criterion, name);
        for baseline in [BaselineName::Raw, BaselineName::Cryptoki, BaselineName::R2d2] {
            contenders.baseline(&mut group, baseline, 2);
        }
        contenders.engine(&mut group, Load { api: Api::Blocking, callers: 2 });
        contenders.engine(&mut group, Load { api: Api::Async(Runtime::CurrentThread), callers: 64 });
        group.finish();
    }
}

criterion_group!(benches, softhsm);
criterion_main!(benches);
