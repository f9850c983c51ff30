#!/usr/bin/env bash
# Installs what the tests need, then runs every check.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_toolchain
need_softhsm
want_p11kit
export HSMUX_REQUIRE_SOFTHSM=1
exec scripts/check.sh
