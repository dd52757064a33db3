# For tests/peers.sh and tests/sdk.sh, which source it: the packages of clients in Python and Node.js.

# prepare NAME: installs what tests/NAME/requirements.lock and tests/NAME/package-lock.json list, unless that is done.
# Python's packages go into an environment of their own under the target folder or, where Python has no venv, into a
# folder there. Afterwards `run_python FILE...` runs Python with them, and `examples` is the folder of the examples that
# are built. Needs Python 3.9 with venv or pip, Node.js with npm, and for the first run PyPI and npm's registry.
prepare() {
    local here=tests/$1
    local target=${CARGO_TARGET_DIR:-target}
    mkdir -p "$target/$1"
    work=$(cd "$target/$1" && pwd)
    if [ ! -e "$work/ready" ] || [ "$here/requirements.lock" -nt "$work/ready" ]; then
        make_environment "$here/requirements.lock" || { tail -n 20 "$work/setup.log"; return 1; }
        touch "$work/ready"
    fi
    if [ ! -e "$here/node_modules/ws" ] || [ "$here/package-lock.json" -nt "$here/node_modules/ws" ]; then
        (cd "$here" && npm ci --silent --no-audit --no-fund && touch node_modules/ws) || return
    fi
    python=$work/venv/bin/python
    [ -x "$python" ] || python=python3
    examples=$(cd "$target/release/examples" && pwd)
}

make_environment() {
    rm -rf "$work/venv" "$work/packages"
    local pip=(-m pip --disable-pip-version-check install --quiet --require-hashes -r "$1")
    if python3 -m venv "$work/venv" >"$work/setup.log" 2>&1; then
        "$work/venv/bin/python" "${pip[@]}"
    else
        rm -rf "$work/venv"
        python3 "${pip[@]}" --target "$work/packages"
    fi >>"$work/setup.log" 2>&1
}

run_python() {
    PYTHONPATH=$work/packages PYTHONDONTWRITEBYTECODE=1 "$python" "$@"
}
