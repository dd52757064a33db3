#!/bin/bash
# Installs what the tests need and runs all of them, three parts at a time. The last line says how many passed and failed;
# a skipped test counts as failed. With --compression the Autobahn suite also runs its sections 12 and 13, a quarter of
# an hour. With --targets tests/targets.sh runs as well: other processors, in half an hour.
#
# Needs Rust; redis-server, nats-server and openssl for the tests of clusters and TLS; haproxy and nginx for those
# behind proxies; Node.js with npm, and Chromium for the browser tests; Python 3 and Node.js for the tests of the
# protocols. As root on Debian and its relatives, missing packages are installed; otherwise their names are printed.
# CHROMIUM names another browser than /usr/bin/chromium.
set -euo pipefail
cd "$(dirname "$0")/.."
export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
# Most tests wait most of the time, so more run at once than there are cores.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}

# One set of features for the examples of all parts, or the crate is built again for each set.
export EXAMPLE_OPTIONS="--features redis"

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
: >"$work/results"

# sum WORD FILE: the sum of the numbers before this word.
sum() {
    { grep -oE "[0-9]+ $1" "$2" || true; } | awk '{n += $1} END {print n + 0}'
}

# run WHAT COMMAND...: runs a command and notes the results that it prints (`3 passed; 1 failed`, as cargo and the
# browser tests do). A command that fails without a failed test counts as one failure, as does each skipped test.
run() {
    local what=$1 status=0 log bad started=$SECONDS
    log=$(mktemp "$work/log.XXXXXX")
    printf '\n== %s\n' "$what"
    shift
    "$@" 2>&1 | tee "$log" || status=$?
    bad=$(sum failed "$log")
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        echo "FAILED with status $status: $*"
        bad=1
    fi
    # tests/common/skip.rs prints these lines.
    bad=$((bad + $(grep -c '^SKIPPED ' "$log" || true)))
    echo "$(sum passed "$log") passed, $bad failed, $((SECONDS - started)) s: $what" >>"$work/results"
}

# install PACKAGE...: installs the packages, if that is possible here.
install() {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    fi
}

# need COMMAND PACKAGE...: installs the packages if the command is missing. Without it, the tests that need it fail.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || install "$@" || true
    command -v "$command" >/dev/null || echo "$command is missing; on Debian: apt-get install $*"
}

# What the browser tests need. The commands are a chain because `set -e` has no effect where this is called.
prepare_browser() {
    # shellcheck disable=SC2086 # words are arguments
    timeout 1200 cargo build --locked --release $EXAMPLE_OPTIONS --examples &&
        (cd tests/browser && npm ci --silent --no-audit --no-fund)
}

# browser NAME [TEST]: drives the page of the example, by TEST.mjs if that is not NAME.mjs.
browser() {
    local target
    target=$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/') &&
        cd tests/browser && env "${1^^}_BIN=$target/release/examples/$1" timeout 330 node "${2:-$1}.mjs"
}

# The tests of sockets once more, over TLS: every file whose servers can speak it (tests/common/over_tls.rs), unless the
# file says why not.
over_tls() {
    local file tests=()
    for file in $(grep -lw TestServer tests/*.rs | xargs grep -L '^// Not over TLS: '); do
        tests+=(--test "$(basename "$file" .rs)")
    done
    env WSHUB_TEST_TLS=1 timeout 400 cargo test --locked --all-features --no-fail-fast "${tests[@]}"
}

# What is built without optimization, in one folder: cargo lets nobody else build there, but more than one may run.
debug_lane() {
    # With --all-targets, cargo builds examples as tests only.
    run "building the example that tests start" timeout 1200 cargo build --locked --all-features --example cluster
    run "building the tests" timeout 1500 cargo test --locked --all-features --all-targets --no-run
    small_lane >"$work/small" 2>&1 &
    run "unit tests, socket tests and examples with every feature" \
        timeout 1500 cargo test --locked --all-features --all-targets --no-fail-fast
    wait $!
}

# Starts with what is built already.
small_lane() {
    run "the socket tests over TLS" over_tls
    run "unit tests and smoke tests with the default features" \
        timeout 600 cargo test --locked --lib --test smoke --test alone
    run "unit tests and smoke tests with no feature" \
        timeout 600 cargo test --locked --no-default-features --lib --test smoke --test alone
    run "code in the documentation" timeout 600 cargo test --locked --all-features --doc
}

# What is built with optimization, or in a folder of its own.
release_lane() {
    local page feed
    run "the examples, optimized" prepare_browser
    # It waits for most of a minute, because a browser waits before it connects again.
    run "the page of the feed example in a browser" browser feed >"$work/feed" 2>&1 &
    feed=$!
    run "the outbox under a model checker" \
        timeout 600 cargo run --locked --release --manifest-path tests/loom/Cargo.toml
    for page in chat gateway centrifuge; do
        run "the page of the $page example in a browser" browser "$page"
    done
    run "the dashboard of the chat example in a browser" browser chat dashboard
    run "the dashboard of two nodes in a browser" browser cluster
    wait "$feed"
    cat "$work/feed"
    run "the examples of the protocols with clients in Python and Node.js" timeout 400 tests/peers.sh
    run "the example centrifuge with official Centrifuge SDKs" timeout 600 tests/sdk.sh
    run "the Autobahn conformance suite" timeout 300 tests/autobahn.sh
    run "the load test" timeout 900 cargo test --locked --manifest-path benches/loadgen/Cargo.toml
}

more=()
for option in "$@"; do
    case $option in
    --compression) more+=("timeout 3000 tests/autobahn.sh --compression") ;;
    --targets) more+=("timeout 5400 tests/targets.sh") ;;
    *) echo "unknown option $option"; exit 1 ;;
    esac
done

# What the tests start.
PATH=$PATH:/usr/sbin
need redis-server redis-server
need nats-server nats-server
need openssl openssl
need haproxy haproxy
need nginx nginx-light
need node nodejs npm
need npm npm
need "$CHROMIUM" chromium fonts-dejavu-core
need python3 python3 python3-venv
# Debian's Python comes without it.
python3 -c 'import ensurepip' 2>/dev/null || install python3-venv || true

# What tests/centrifuge_sdk.rs runs; tests/sdk.sh finds it installed.
(cd tests/sdk && npm ci --silent --no-audit --no-fund && touch node_modules/ws) || true

# Three at a time, since tests mostly wait: what the others print comes at the end.
release_lane >"$work/release" 2>&1 &
debug_lane
echo
echo "waiting for what runs beside it"
wait
cat "$work/release" "$work/small"
for command in "${more[@]}"; do
    # shellcheck disable=SC2086 # words are arguments
    run "$command" $command
done

printf '\n'
cat "$work/results"
failed=$(sum failed "$work/results")
printf '\n%d passed, %d failed, in %d s\n' "$(sum passed "$work/results")" "$failed" "$SECONDS"
[ "$failed" -eq 0 ]
