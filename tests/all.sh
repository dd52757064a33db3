#!/bin/bash
# Installs what the tests need and runs them all. The last line says how many passed and failed. With --compression the
# Autobahn suite runs its sections 12 and 13 as well, a quarter of an hour.
#
# Needs Rust; redis-server, nats-server and openssl for the cluster tests; Node.js with npm, and Chromium for the browser tests;
# Python 3 and Node.js for the tests of the protocols. As root on Debian and its relatives the missing packages are
# installed; otherwise their names are printed. CHROMIUM names another browser than /usr/bin/chromium.
set -euo pipefail
cd "$(dirname "$0")/.."
export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The sum of the numbers before this word in the log.
sum() {
    { grep -oE "[0-9]+ $1" "$log" || true; } | awk '{n += $1} END {print n + 0}'
}

# run WHAT COMMAND...: runs a command and adds up the results that it prints (`3 passed; 1 failed`, as cargo and the
# browser test do). A command that fails without a failed test counts as one.
run() {
    local status=0 bad
    printf '\n== %s\n' "$1"
    shift
    "$@" 2>&1 | tee "$log" || status=$?
    bad=$(sum failed)
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        echo "FAILED with status $status: $*"
        bad=1
    fi
    passed=$((passed + $(sum passed)))
    failed=$((failed + bad))
}

# install PACKAGE...: installs the packages, if that is possible here.
install() {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    fi
}

# need COMMAND PACKAGE...: installs the packages if the command is missing.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || install "$@"
    if ! command -v "$command" >/dev/null; then
        echo "$command is missing; on Debian: apt-get install $*"
        return 1
    fi
}

# browser NAME [TEST]: drives the page of the example, by TEST.mjs if that is not NAME.mjs. Called where `set -e` does not reach: hence the chain.
browser() {
    local target bin
    need node nodejs npm && need npm npm && need "$CHROMIUM" chromium fonts-dejavu-core &&
        cargo build --locked --release --example "$1" &&
        target=$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/') &&
        bin=$target/release/examples/$1 &&
        cd tests/browser && npm ci --silent --no-audit --no-fund &&
        env "${1^^}_BIN=$bin" timeout 330 node "${2:-$1}.mjs"
}

peers() {
    need python3 python3 python3-venv && need node nodejs npm && need npm npm || return
    # Debian's Python comes without it.
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
    timeout 400 tests/peers.sh
}

sdk() {
    need python3 python3 python3-venv && need node nodejs npm && need npm npm || return
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
    timeout 600 tests/sdk.sh
}

# The brokers of the cluster tests. Debian keeps one of them where an ordinary user does not look.
PATH=$PATH:/usr/sbin
need redis-server redis-server || true
need nats-server nats-server || true
# The certificate of one of them.
need openssl openssl || true
# The proxies of the guide.
need haproxy haproxy || true
need nginx nginx || true

# The tests start their processes, and with --all-targets they are built as tests only.
run "the examples that tests start" timeout 1200 cargo build --locked --all-features --example cluster --example loadtest
run "unit and integration tests, examples" \
    timeout 1500 cargo test --locked --all-features --all-targets --no-fail-fast
# What the clients' own addresses are, and the answer in plain HTTP to one connection too many, do not come through TLS.
over_tls=()
for test in backpressure bad_input binary_rooms close deflate drain endpoints event_stream events feed frames handshake hooks \
    http keep_alive lifecycle middleware order races rooms router smoke stalled stress users; do
    over_tls+=(--test "$test")
done
run "the tests of sockets once more, over TLS" env WSHUB_TEST_TLS=1 timeout 400 \
    cargo test --locked --all-features --no-fail-fast "${over_tls[@]}" -- --skip a_client_knows_its_request \
    --skip handshakes_over_the_limit_get_503 --skip what_goes_wrong_before_a_hub --skip one_address_has_only_its_share
run "code in the documentation" timeout 600 cargo test --locked --all-features --doc
for page in chat feed; do
    run "the page of the $page example in a browser" browser "$page"
done
run "the dashboard of the chat example in a browser" browser chat dashboard
run "the examples of the protocols with clients in Python and Node.js" peers
run "the example centrifuge with official Centrifuge SDKs" sdk
if [ -x tests/autobahn.sh ]; then
    run "the Autobahn conformance suite" timeout 300 tests/autobahn.sh
    if [ "${1:-}" = --compression ]; then
        run "the Autobahn conformance suite, compression" timeout 3000 tests/autobahn.sh --compression
    fi
fi

printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
