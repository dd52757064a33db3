#!/bin/bash
# Builds the fuzz targets and runs each for SECONDS (20 unless said otherwise). The last line says how many passed and
# failed. Installs cargo-fuzz if it is missing. What a target is and what to do with a crash: tests/fuzz/README.md.
#
# Needs Rust, a C++ compiler, and Linux on x86-64 or ARM64. The fuzzer needs unstable flags of the compiler; with
# RUSTC_BOOTSTRAP the stable one takes them too.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
export RUSTC_BOOTSTRAP=1
# Opens the private modules that the targets drive.
export RUSTFLAGS="--cfg wshub_internals ${RUSTFLAGS:-}"

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
cargo fuzz build --fuzz-dir tests/fuzz

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in $(cargo fuzz list --fuzz-dir tests/fuzz); do
    printf '\n== %s\n' "$target"
    found=tests/fuzz/target/found/$target
    mkdir -p "$found"
    # Twice the time, for a machine that is busy: one input may take long.
    if timeout $((2 * seconds + 60)) cargo fuzz run --fuzz-dir tests/fuzz "$target" "$found" "tests/fuzz/corpus/$target" \
        -- -max_total_time="$seconds" -max_len=4096 -timeout=30 -print_final_stats=1 >"$log" 2>&1; then
        grep -E 'number_of_executed_units' "$log" || true
        passed=$((passed + 1))
    else
        tail -n 40 "$log"
        failed=$((failed + 1))
    fi
done

printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
