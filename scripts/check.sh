#!/usr/bin/env bash
# Every check, exactly as CI runs them. Stops at the first that fails; says how long each took.
set -euo pipefail
cd "$(dirname "$0")/.."

times=""
# Where a step is called errors do not end the shell: what is not the last command of one says `|| return`.
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
        cargo run -q -p hsmux --example "$(basename "$example" .rs)" || return
    done
}

# By default the packages turn on each other's features: a library is built here as one user has it.
features() {
    cargo clippy -q -p hsmux --lib -- -D warnings || return
    local feature
    for feature in baseline otel; do
        cargo clippy -q -p hsmux --lib --features "$feature" -- -D warnings || return
    done
}

# The flag is for the engine alone: its dependencies are those that the tests have built. Lints have had their say by then.
loom() {
    local built program
    built=$(cargo rustc -q -p hsmux --lib --profile test --message-format json-render-diagnostics -- \
        --cfg hsmux_loom --cap-lints allow) || return
    program=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' <<<"$built")
    (cd engine && "$program" -q loom)
}

# The fuzz targets are a workspace of their own, which is not built here: that takes a nightly compiler.
format() {
    cargo fmt --all --check && cargo fmt --manifest-path fuzz/Cargo.toml --check
}

step "format" format
step "clippy" cargo clippy -q --workspace --all-targets -- -D warnings
step "clippy, feature by feature" features
step "tests" cargo test -q --workspace
step "loom models" loom
step "examples" examples
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps
printf '\n%s' "$times"
