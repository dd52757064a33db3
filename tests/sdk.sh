#!/bin/bash
# Builds the example `centrifuge` and talks to it with the official SDKs: `centrifuge` for JavaScript in both builds,
# `centrifuge-python` in both modes, and `cent` for the HTTP API. Arguments choose checks in JavaScript. Needs Python 3.9
# with venv or pip, Node.js 18 with npm, redis-server, and for the first run PyPI and npm's registry.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/sdk"
work=$(cd "$target/sdk" && pwd)
here=tests/sdk

# The packages go into an environment of their own or, where Python has no venv, into a folder.
make_environment() {
    rm -rf "$work/venv" "$work/packages"
    local pip=(-m pip --disable-pip-version-check install --quiet --require-hashes -r "$here/requirements.lock")
    if python3 -m venv "$work/venv" >"$work/setup.log" 2>&1; then
        "$work/venv/bin/python" "${pip[@]}"
    else
        rm -rf "$work/venv"
        python3 "${pip[@]}" --target "$work/packages"
    fi >>"$work/setup.log" 2>&1
}

cargo build --quiet --locked --release --features redis --example centrifuge
if [ ! -e "$work/ready" ] || [ "$here/requirements.lock" -nt "$work/ready" ]; then
    make_environment || { tail -n 20 "$work/setup.log"; exit 1; }
    touch "$work/ready"
fi
if [ ! -e "$here/node_modules/ws" ] || [ "$here/package-lock.json" -nt "$here/node_modules/ws" ]; then
    (cd "$here" && npm ci --silent --no-audit --no-fund && touch node_modules/ws)
fi

CENTRIFUGE_BIN=$(cd "$target/release/examples" && pwd)/centrifuge
export CENTRIFUGE_BIN
status=0
node "$here/run.mjs" "$@" || status=1
node "$here/rolling.mjs" || status=1
python=$work/venv/bin/python
[ -x "$python" ] || python=python3
PYTHONPATH=$work/packages PYTHONDONTWRITEBYTECODE=1 "$python" "$here/run.py" || status=1
exit $status
