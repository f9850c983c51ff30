#!/usr/bin/env bash
# 256 callers on two SoftHSM2 tokens for so many seconds (first argument, default 60): operations of every symmetric kind,
# RSA and ECDSA mixed, of many lengths and several keys; then every operation from 64 callers for as long. Then 10 000
# keys come and go in one of two instances of the module while both work. Every output is checked by other software.
# Ends with a verdict.
#   scripts/soak.sh [SECONDS] [--operations N]
# With --operations the mixed load makes N requests, however long they take, and nothing follows.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
seconds=60 operations=
while [ $# -gt 0 ]; do
    case $1 in
        --operations)
            operations=${2:-}
            case $operations in
                '' | *[!0-9]*) stop "--operations takes a number" ;;
            esac
            shift
            ;;
        '' | *[!0-9]*) stop "usage: scripts/soak.sh [SECONDS] [--operations N]" ;;
        *) seconds=$1 ;;
    esac
    shift
done
need_toolchain
need_softhsm
export HSMUX_REQUIRE_SOFTHSM=1
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
