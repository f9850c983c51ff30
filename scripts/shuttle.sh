#!/usr/bin/env bash
# Runs the whole schedule (callers, workers, watcher) in random orders of its threads: scripts/shuttle.sh [SCHEDULES]
# Each test runs in so many orders (default 1000); the completion of a request in all there are.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_toolchain
export RUSTFLAGS="--cfg hsmux_shuttle" CARGO_TARGET_DIR=target/shuttle HSMUX_SHUTTLE_SCHEDULES=${1:-1000}
exec cargo test -q -p hsmux --lib shuttle
