#!/usr/bin/env bash
# Shows the engine at work on throw-away SoftHSM2 tokens: installs SoftHSM2 if it is missing, builds, runs.
# Arguments go to `hsmux demo`: --seconds S, --callers N.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_toolchain
need_softhsm
exec cargo run --release -p hsmux-cli --bin hsmux -- demo "$@"
