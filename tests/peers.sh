#!/bin/bash
# Builds the examples of the protocols and talks to them with clients in Python and Node.js; see tests/peers/run.py.
# Arguments choose suites: events, binary_rooms, relay, feed, event_readers, metrics. Needs Python 3.9 with venv or pip, Node.js with npm,
# and for the first run PyPI and npm's registry. What it makes is under the target folder, and tests/peers/node_modules.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/peers"
work=$(cd "$target/peers" && pwd)
peers=tests/peers

# The package goes into an environment of its own or, where Python has no venv, into a folder.
make_environment() {
    rm -rf "$work/venv" "$work/packages"
    local pip=(-m pip --disable-pip-version-check install --quiet --require-hashes -r "$peers/requirements.lock")
    if python3 -m venv "$work/venv" >"$work/setup.log" 2>&1; then
        "$work/venv/bin/python" "${pip[@]}"
    else
        rm -rf "$work/venv"
        python3 "${pip[@]}" --target "$work/packages"
    fi >>"$work/setup.log" 2>&1
}

examples=(events binary_rooms relay feed chat)
cargo build --quiet --locked --release "${examples[@]/#/--example=}"
if [ ! -e "$work/ready" ] || [ "$peers/requirements.lock" -nt "$work/ready" ]; then
    make_environment || { tail -n 20 "$work/setup.log"; exit 1; }
    touch "$work/ready"
fi
if [ ! -e "$peers/node_modules/ws" ] || [ "$peers/package-lock.json" -nt "$peers/node_modules/ws" ]; then
    (cd "$peers" && npm ci --silent --no-audit --no-fund && touch node_modules/ws)
fi

python=$work/venv/bin/python
[ -x "$python" ] || python=python3
EXAMPLES=$(cd "$target/release/examples" && pwd) PYTHONPATH=$work/packages PYTHONDONTWRITEBYTECODE=1 \
    "$python" "$peers/run.py" "$@"
