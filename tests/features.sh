#!/bin/bash
# Prints what each feature adds: crates of a build, CPU seconds of a cold release build, and the size of a stripped
# program. Fails where a figure exceeds its bound. The tables in the README and in the guide for gateways come from
# here.
#
#     tests/features.sh            crates and sizes: the crate is built for each set of features
#     tests/features.sh --quick    crates of all sets, and the sizes that gateways depend on; CI does
#     tests/features.sh --cold     as without options, and cold builds, each from nothing
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# bound WHAT VALUE LIMIT: fails if the value is above the limit.
bound() {
    awk -v value="$2" -v limit="$3" 'BEGIN { exit !(value <= limit) }' && return
    echo "$1: $2 exceeds $3"
    failed=$((failed + 1))
}

# crates OPTIONS...: how many crates a build of the library with these options has.
crates() {
    cargo tree --locked --edges normal --prefix none --format '{p}' "$@" | sed 's/ (\*)//' | sort -u | wc -l
}

# cold OPTIONS...: CPU seconds of a release build from nothing. Of the processor and not of the clock, because a machine
# may have other work.
cold() {
    local times
    rm -rf "$work/cold"
    TIMEFORMAT='%U %S'
    times=$({ time cargo build --quiet --locked --release --target-dir "$work/cold" "$@" 2>"$work/log"; } 2>&1) ||
        { cat "$work/log" >&2; return 1; }
    awk '{ printf "%.0f", $1 + $2 }' <<<"$times"
}

# size PROFILE EXAMPLE OPTIONS...: KB of the stripped example; 1 KB is 1,000 bytes.
size() {
    local profile=$1 example=$2
    shift 2
    cargo build --quiet --locked --profile "$profile" --example "$example" "$@"
    strip -o "$work/program" "target/$profile/examples/$example"
    echo $(($(stat -c %s "$work/program") / 1000))
}

echo "| features | crates | cold build, CPU seconds | stripped program, KB |"
echo "| --- | --- | --- | --- |"
# features | most crates | example | most KB
while IFS='|' read -r features most_crates example most_size; do
    options=(--no-default-features --features "$features")
    count=$(crates "${options[@]}")
    bound "crates with features '$features'" "$count" "$most_crates"
    seconds=– bytes=–
    [ "$mode" != --cold ] || seconds=$(cold --lib "${options[@]}")
    if [ "$mode" != --quick ]; then
        bytes=$(size release "$example" "${options[@]}")
        bound "size of $example with features '$features'" "$bytes" "$most_size"
    fi
    echo "| ${features:-none} | $count | $seconds | $bytes (\`$example\`) |"
done <<'TABLE'
|48|gateway|2600
cluster|48|gateway|2600
protocols|48|gateway|2600
dashboard|49|gateway|2700
deflate|50|gateway|2800
prometheus|51|gateway|2700
centrifuge|55|gateway|2700
default|60|gateway|3000
default,tls|68|gateway|3800
default,redis|92|cluster|4800
default,redis-tls|102|cluster|6800
default,nats|121|cluster|8500
TABLE

# The profile `small`: features | example | most KB
while IFS='|' read -r features example most_size; do
    bytes=$(size small "$example" --no-default-features --features "$features")
    echo "| ${features:-none}, profile \`small\` | | | $bytes (\`$example\`) |"
    bound "size of $example with features '$features' in profile small" "$bytes" "$most_size"
done <<'TABLE'
|gateway|1060
TABLE

if [ "$mode" = --cold ]; then
    library=$(cold --lib)
    chat=$(cold --example chat)
    echo "The example chat: $chat CPU seconds, the library alone: $library."
    bound "cold build of chat, in hundredths of the library's" "$((chat * 100 / library))" 220
fi
[ "$failed" -eq 0 ]
