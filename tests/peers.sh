#!/bin/bash
# Builds the examples of the protocols and talks to them with clients in Python and Node.js; see tests/peers/run.py.
# Arguments choose suites: events, binary_rooms, relay, feed, event_readers, metrics. What it needs: tests/clients.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/clients.sh

built=(events binary_rooms relay feed chat)
# shellcheck disable=SC2086 # tests/all.sh builds all examples alike
cargo build --quiet --locked --release ${EXAMPLE_OPTIONS:-} "${built[@]/#/--example=}"
prepare peers
EXAMPLES=$examples run_python tests/peers/run.py "$@"
