#!/usr/bin/env bash
# Runs tests of the engine on the simulator under a sanitizer: scripts/sanitize.sh thread|address [TEST...]
# TEST is a file of tests/tests without its ending; by default those that need nothing but the simulator and put the most
# threads into the engine at once. The simulator is built with the same sanitizer and loaded as a module, so its memory and
# its locks are seen too. Needs a nightly compiler with its sources (the standard library is built with the sanitizer).
#
# Suppressed is nothing by default. SoftHSM2 is not built with a sanitizer, so tests that need it do not belong here: ThreadSanitizer does
# not see its locks and reports what they guard.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_toolchain
sanitizer=${1:-}
case $sanitizer in
    thread | address) shift ;;
    *) stop "usage: scripts/sanitize.sh thread|address [TEST...]" ;;
esac
cargo +nightly --version >/dev/null 2>&1 || stop "a nightly compiler is missing: rustup toolchain install nightly"
rustup component list --toolchain nightly --installed | grep -q rust-src || rustup component add --toolchain nightly rust-src
[ $# -gt 0 ] || set -- hung inline_hang tiny_deadlines recovery coalescing
tests=()
for name; do
    tests+=(--test "$name")
done
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=$sanitizer" CARGO_TARGET_DIR=target/sanitize-$sanitizer
# Nothing is freed before the process ends, on purpose: modules stay mapped, and dropped engines leave their threads.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}" TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}"
exec cargo +nightly test -Zbuild-std --target "$target" -p hsmux-tests "${tests[@]}"
