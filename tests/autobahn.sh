#!/bin/bash
# Runs the Autobahn Testsuite against the echo example, all cases but compression (12 and 13), and ends with a line "N
# passed, M failed". With --compression the example compresses and the cases are those of sections 12 and 13, which take
# some minutes; a list of patterns chooses among all: --compression '["12.1.*","13.1.*"]'. Without a Python 2.7 it says
# so and passes. See tests/autobahn/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
cases='["*"]'
exclude='["12.*","13.*"]'
flags=()
if [ "${1:-}" = --compression ]; then
    cases=${2:-'["12.*","13.*"]'}
    exclude='[]'
    flags=(--compression)
fi
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/autobahn"
work=$(cd "$target/autobahn" && pwd)
scripts=tests/autobahn

find_python() {
    if [ -n "${PY27:-}" ]; then
        echo "$PY27"
        return
    fi
    local pyenv
    for pyenv in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
        [ ! -x "$pyenv" ] || { echo "$pyenv"; return; }
    done
    command -v python2.7 || true
}

python=$(find_python)
if ! { [ -n "$python" ] && "$python" -c '' 2>/dev/null; }; then
    echo "autobahn: no Python 2.7 here, the suite is not run (PY27 names one)"
    exit 0
fi

# shellcheck disable=SC2086 # tests/all.sh builds all examples alike
cargo build --quiet --locked --release ${EXAMPLE_OPTIONS:-} --example echo
if [ ! -e "$work/ready" ] || [ "$scripts/requirements.lock" -nt "$work/ready" ]; then
    echo "autobahn: making the environment in $work"
    PY27=$python "$scripts/setup.sh" "$work" >"$work/setup.log" 2>&1 || {
        tail -n 20 "$work/setup.log"
        echo "autobahn: setup failed, see $work/setup.log"
        exit 1
    }
    touch "$work/ready"
fi

"$target/release/examples/echo" --addr 127.0.0.1:0 "${flags[@]}" >"$work/echo.out" &
echo_pid=$!
trap 'kill "$echo_pid" 2>/dev/null || true' EXIT
address=
for _ in $(seq 100); do
    address=$(sed -n 's/^listening on //p' "$work/echo.out")
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || { echo "autobahn: the echo server does not start"; exit 1; }

# The judgement is below, from the report: run.sh lets some results pass that this one does not.
AUTOBAHN_VENV=$work/venv AUTOBAHN_AGENT=wshub AUTOBAHN_TIMEOUT=3000 AUTOBAHN_EXCLUDE=$exclude \
    "$scripts/run.sh" "ws://$address" "$work/out" "$cases" || true

"$work/venv/bin/python" - "$work/out" <<'PY'
import json, sys
out = sys.argv[1]
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
wanted, results = [], {}
try:
    wanted = json.load(open(out + "/expected.json"))
    results = json.load(open(out + "/report/index.json"))["wshub"]
except (IOError, ValueError, KeyError) as e:
    print "no report: %r" % e
def is_good(case):
    got = results.get(case, {"behavior": "MISSING", "behaviorClose": "MISSING"})
    allowed = ("OK", "INFORMATIONAL") if case in INFORMATIONAL else ("OK",)
    good = got["behavior"] in allowed and got["behaviorClose"] in allowed
    if not good:
        print "%s: %s, close %s" % (case, got["behavior"], got["behaviorClose"])
    return good
good = [is_good(case) for case in wanted]
passed, failed = good.count(True), good.count(False)
print "%d passed, %d failed" % (passed, failed)
sys.exit(1 if failed or not passed else 0)
PY
