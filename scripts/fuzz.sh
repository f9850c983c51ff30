#!/usr/bin/env bash
# Fuzzes what is read from outside: scripts/fuzz.sh [SECONDS [TARGET...]]
# Each target runs for so many seconds (default 60), all of them if none is named. Ends with an error at the first
# finding; the input that did it lies in fuzz/artifacts. Needs a nightly compiler; installs cargo-fuzz if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_toolchain
cargo +nightly --version >/dev/null 2>&1 || stop "a nightly compiler is missing: rustup toolchain install nightly"
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

seconds=${1:-60}
shift || true
if [ $# = 0 ]; then
    set -- $(cargo +nightly fuzz list)
fi
# Longer than any input that is taken, so that the bounds are met too.
limits=(-max_total_time="$seconds" -max_len=9000 -timeout=10 -print_final_stats=1)
for target; do
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    options=("${limits[@]}")
    [ ! -f "fuzz/dictionaries/$target" ] || options+=(-dict="fuzz/dictionaries/$target")
    # What is found goes to the first folder, the seeds of the repository are only read.
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- "${options[@]}"
done
