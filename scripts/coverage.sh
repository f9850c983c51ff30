#!/usr/bin/env bash
# Line coverage of `engine` by all tests: rustc's own instrumentation, read by LLVM's tools (package llvm-19, which
# reads what Rust 1.95 writes). Prints the files and, last, the total.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_toolchain
need_softhsm
version=19
if ! command -v llvm-cov-$version >/dev/null; then
    as_root apt-get install -qq -y llvm-$version >/dev/null 2>&1 || stop "LLVM's tools are missing: install the package llvm-$version"
fi
out=$PWD/target/coverage
rm -rf "$out/profiles"
mkdir -p "$out/profiles"
export RUSTFLAGS="-C instrument-coverage" CARGO_TARGET_DIR=$out LLVM_PROFILE_FILE="$out/profiles/%p-%m.profraw"
export HSMUX_REQUIRE_SOFTHSM=1
cargo test -q -p hsmux -p hsmux-tests --lib --tests
llvm-profdata-$version merge -sparse "$out"/profiles/*.profraw -o "$out/all.profdata"
objects=()
for binary in $(cargo test -p hsmux -p hsmux-tests --lib --tests --no-run --message-format=json 2>/dev/null |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4); do
    objects+=(-object "$binary")
done
llvm-cov-$version report "${objects[@]:1}" -instr-profile="$out/all.profdata" \
    -ignore-filename-regex='/registry/|/rustc/|/tests/|tests\.rs|softhsm-fixtures|/bench/' 2>/dev/null |
    awk 'NR == 1 || /engine|TOTAL|\.rs/ { print $1, $10 }'
