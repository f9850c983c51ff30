#!/usr/bin/env bash
# Runs under Miri what it can run: scripts/miri.sh [FILTER...]
# The core of the engine (nodes, admission, lanes, dispatch, watches, coalescing, payloads, encodings), and the calls of
# `pkcs11` against the simulator, whose functions are linked in. With filters only the unit tests whose names contain one.
# Needs a nightly compiler; installs the component if it is missing.
#
# What cannot be run there: modules that are loaded (foreign code), so the tests crate; `fork`, locked pages and
# terminals (`pin`); what asks the processor for its time (`quanta`), so whatever reads the clock.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_toolchain
cargo +nightly --version >/dev/null 2>&1 || stop "a nightly compiler is missing: rustup toolchain install nightly"
cargo +nightly miri --version >/dev/null 2>&1 || rustup component add --toolchain nightly miri rust-src

if [ $# = 0 ]; then
    set -- schedule::node schedule::admission schedule::waiters schedule::lane schedule::dispatch schedule::idle \
        schedule::seat schedule::wake schedule::demotion schedule::budget schedule::recovery schedule::cost \
        schedule::fairness payload:: coalesce:: token::epoch pkcs11::codes pkcs11::session operation::ask operation::padding
fi
export CARGO_TARGET_DIR=target/miri MIRIFLAGS="${MIRIFLAGS:--Zmiri-disable-isolation}"
exec cargo +nightly miri test -p hsmux --lib -- "$@"
