#!/usr/bin/env bash
# Builds, runs every row of the throughput table interleaved with its baselines, and writes the table in Markdown.
#   scripts/bench.sh [FILE] [--seconds S] [--rows N,..]
# FILE: where to; without it a new file in the directory for temporary files, named at the end. --seconds: what a
# comparison with one baseline takes (default 16, at least five rounds whatever it says). --rows: only these numbers.
# Takes about 20 minutes. Leave the machine alone meanwhile: the callers run on the same cores as the module.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
usage="usage: scripts/bench.sh [FILE] [--seconds S] [--rows N,..]"
file="" options=()
while [ $# -gt 0 ]; do
    case $1 in
        --seconds | --rows)
            [ -n "${2:-}" ] || stop "$usage"
            options+=("$1" "$2")
            shift
            ;;
        -*) stop "$usage" ;;
        *) file=$1 ;;
    esac
    shift
done
need_toolchain
need_softhsm
[ -n "$file" ] || file=$(mktemp -t hsmux-bench-XXXXXX)

cargo build --release -q -p hsmux-cli -p p11-sim
cargo bench -q -p hsmux-bench --bench table --no-run
built=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)

# What the figures depend on.
commit=$(git rev-parse --short HEAD 2>/dev/null || echo "no git")
[ -z "$(git status --porcelain 2>/dev/null)" ] || commit="$commit, with changes"
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
softhsm=$(softhsm2-util --version 2>/dev/null || echo "version unknown")
{
    echo "Machine: $(getconf _NPROCESSORS_ONLN) cores, ${processor:-unknown processor}; $(uname -srm). SoftHSM2 $softhsm, $(rustc --version)."
    echo "Commit: $commit. Made by \`scripts/bench.sh ${options[*]:-}\` on $(date -u +%Y-%m-%d)."
    echo
    echo "Callers share the cores with the engine, the module and the baselines. A figure is the median of at least five"
    echo "rounds; in a round the engine and every thread count of a baseline run one right after the other (cells of 0.2 to"
    echo "0.5 s), and ratios are taken inside it. The baseline's thread count, of 1, 2, 4 and 8 where the command says"
    echo "nothing else, is the one with the best median rate over all rounds. The 90 % interval is that of the median by"
    echo "order statistics, which asks nothing of the distribution; of five rounds it is their whole range. \"raw\" is"
    echo "Init and call, one session per thread, token key; \"raw-copy\" the same on a session copy; \"alone\" the engine"
    echo "with one caller. CPU is that of all threads of the process, callers included. \"tasks\" is one tokio task per"
    echo "caller on one thread, \"window\" one task that keeps so many requests in flight."
    echo
    cargo bench -q -p hsmux-bench --bench table -- --hsmux "$built/hsmux" \
        --sim "$built/$(library_name p11_sim)" ${options[@]+"${options[@]}"}
} >"$file"
echo "written: $file"
