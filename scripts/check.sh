#!/usr/bin/env bash
# Every check, exactly as CI runs them. Stops at the first that fails; says how long each took.
set -euo pipefail
cd "$(dirname "$0")/.."

times=""
step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@" || { echo "failed: $name" >&2; exit 1; }
    times+="$(printf '%5d s  %s' $((SECONDS - start)) "$name")"$'\n'
}

examples() {
    local example
    for example in engine/examples/*.rs; do
        cargo run -q -p hsmux --example "$(basename "$example" .rs)"
    done
}

loom() {
    RUSTFLAGS="--cfg hsmux_loom" CARGO_TARGET_DIR=target/loom cargo test -q -p hsmux --release --lib loom
}

step "format" cargo fmt --all --check
step "clippy" cargo clippy -q --workspace --all-targets -- -D warnings
step "tests" cargo test -q --workspace
step "loom models" loom
step "examples" examples
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps
printf '\n%s' "$times"
