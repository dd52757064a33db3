#!/bin/bash
# Builds the example `centrifuge` and talks to it with the official SDKs: `centrifuge` for JavaScript in both builds,
# `centrifuge-python` in both modes, and `cent` for the HTTP API. Arguments choose checks in JavaScript. Needs
# redis-server, Node.js 18 and what stands in tests/clients.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/clients.sh

cargo build --quiet --locked --release --features redis --example centrifuge
prepare sdk
export CENTRIFUGE_BIN=$examples/centrifuge
status=0
node tests/sdk/run.mjs "$@" || status=1
node tests/sdk/rolling.mjs || status=1
run_python tests/sdk/run.py || status=1
exit $status
