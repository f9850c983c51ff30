#!/usr/bin/env bash
# Shows the engine at work on throw-away SoftHSM2 tokens: installs SoftHSM2 if it is missing, builds, runs. Then a payment service's
# load on two simulated HSMs, one of which is lost and comes back, as a report.
# Arguments go to `hsmux demo`: --seconds S, --callers N.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_toolchain
need_softhsm
cargo run --release -p hsmux-cli --bin hsmux -- demo "$@"
printf '\nA load on two simulated HSMs: one is lost at 8 s and comes back at 13 s, at 16 s both stall.\n\n'
target/release/hsmux load --profile payment-auth --rate 1k --seconds 20 --sim scripts/demo-device.toml --out target/demo
printf '\nThe report: %s\n' "$PWD/target/demo/report.html"
