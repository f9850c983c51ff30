#!/usr/bin/env bash
# 256 callers on two SoftHSM2 tokens for so many seconds (first argument, default 60): operations of every symmetric kind,
# RSA and ECDSA mixed, of many lengths and several keys; then every operation from 64 callers for as long. Then 10 000
# keys come and go in one of two instances of the module while both work. Every output is checked by other software.
# Ends with a verdict.
#   scripts/soak.sh [SECONDS] [--operations N] [--faults N] [--steady SECONDS] [--kills N] [--failures]
# With --operations the mixed load makes N requests, however long they take, and nothing follows.
# With --faults it makes N requests of a simulated device under everything that can go wrong at once, every output checked.
# With --steady a load at half speed runs under the same faults for so long (7200 is two hours), and what the process holds is
# watched: how fast its memory grows, with a confidence interval, its descriptors and threads.
# With --kills processes that create, rotate and destroy keys are killed at N random moments on a simulated device, and at N on
# SoftHSM2, half of them with one token and half with two; what SoftHSM2 itself spoils is told apart. A second or two for each N.
# With --failures whole failures follow each other instead, in their long forms and with the bounds that
# engine/RELIABILITY.md names, each with the figures that it measured: about an hour. They are of a simulated device, so the
# test profile does; but nothing else may run on the machine, or what is late is not the engine.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
seconds=60 operations= faults= steady= kills= failures=
while [ $# -gt 0 ]; do
    case $1 in
        --operations | --faults | --steady | --kills)
            case ${2:-} in
                '' | *[!0-9]*) stop "$1 takes a number" ;;
            esac
            declare "${1#--}=$2"
            shift
            ;;
        --failures) failures=1 ;;
        '' | *[!0-9]*) stop "usage: scripts/soak.sh [SECONDS] [--operations N] [--faults N] [--steady SECONDS] [--kills N] [--failures]" ;;
        *) seconds=$1 ;;
    esac
    shift
done
need_toolchain
need_softhsm
export HSMUX_REQUIRE_SOFTHSM=1
if [ -n "$failures" ]; then
    want_p11kit
    failed=
    # One after the other, and all of them, whatever comes of one.
    for test in one_hung token_loss dropped_futures overload tenants bad_flood uniform_errors remote_module; do
        HSMUX_FAILURES=long cargo test -p hsmux-tests --test "$test" -- --nocapture --test-threads 1 || failed="$failed $test"
    done
    # What is never unloaded is reported as leaked, so leaks are not looked for; the rest is.
    if rustc +nightly --version >/dev/null 2>&1; then
        target=$(rustc +nightly --print host-tuple)
        CARGO_TARGET_DIR=target/asan RUSTFLAGS="-Zsanitizer=address" cargo +nightly rustc --target "$target" \
            -p hsmux-tests --test dropped_futures -- -Clink-arg=-rdynamic &&
            HSMUX_FAILURES=long ASAN_OPTIONS=detect_leaks=0 \
                "$(ls -t target/asan/"$target"/debug/deps/dropped_futures-* | grep -v '\.d$' | head -1)" --nocapture ||
            failed="$failed sanitizer"
    else
        echo "no nightly toolchain: the address sanitizer is left out" >&2
    fi
    [ -z "$failed" ] || stop "soak FAILED:$failed"
    echo "soak passed: whole failures"
    exit
fi
if [ -n "$steady" ]; then
    HSMUX_STEADY_SECONDS=$steady cargo test --release -p hsmux-tests --test steady -- --nocapture || stop "soak FAILED"
    echo "soak passed: $steady s"
    exit
fi
if [ -n "$kills" ]; then
    HSMUX_KILLS=$kills cargo test -p hsmux-tests --test managed_keys -- killed:: killed_softhsm:: \
        --nocapture --test-threads 1 || stop "soak FAILED"
    echo "soak passed: $kills kills on a simulated device and on SoftHSM2"
    exit
fi
if [ -n "$faults" ]; then
    export HSMUX_FAULTS_OPERATIONS=$faults
    cargo test --release -p hsmux-tests --test fault_mix -- --nocapture || stop "soak FAILED"
    echo "soak passed: $faults operations under faults"
    exit
fi
if [ -n "$operations" ]; then
    export HSMUX_SOAK_OPERATIONS=$operations
    cargo test --release -p hsmux-tests --test mixed_load -- --nocapture --exact \
        two_hundred_and_fifty_six_callers_lose_nothing_and_get_nothing_wrong || stop "soak FAILED"
    echo "soak passed: $operations operations"
    exit
fi
export HSMUX_SOAK_SECONDS=$seconds HSMUX_INSTANCE_WRITES=10000
# One after the other: the other tests of the file would take the machine from the soak.
if cargo test --release -p hsmux-tests --test mixed_load -- --nocapture --test-threads 1 &&
    cargo test --release -p hsmux-tests --test vectors load -- --nocapture &&
    cargo test --release -p hsmux-tests --test instance_writes -- --nocapture; then
    echo "soak passed: $HSMUX_SOAK_SECONDS s"
else
    stop "soak FAILED"
fi
