#!/bin/bash
# Builds the crate for other processors and C libraries, runs its unit tests and main socket tests there, and prints a
# table. The last line says how many passed and failed.
#
#     tests/targets.sh [TARGET...]        without targets: all of them
#     tests/targets.sh --sizes [TARGET...]  prints the size of examples/gateway in the profile `small` instead
#     tests/targets.sh --rust             checks on this processor that the Rust that Cargo.toml claims is that of the release,
#                                         and that it builds the library; CI does
#
# Needs root on Debian, and the mirror of its apt sources: makes a chroot of Debian's packages (debootstrap) with its
# Rust, cross compilers and qemu-user. Debian 13's Rust is the oldest one that the crate claims. The clients of Redis
# and NATS need a newer Rust: their features are left out where it is older.
#
# An emulator is ten times slower than the processor, so tests with random input take 32 cases, or as many as
# PROPTEST_CASES says, and all are more patient.
#
# TARGETS_SUITE names another release, such as forky; TARGETS_DIR another folder than target/targets, which takes 3 GB,
# and 0.9 GB for --rust; TARGETS_RUN a command that runs each call of cargo, such as `nice -n 19`.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${TARGETS_SUITE:-trixie}
root=${TARGETS_DIR:-$PWD/target/targets}/$suite

# In a mount namespace of its own, so that no mount outlives this script.
if [ -z "${TARGETS_INSIDE:-}" ]; then
    exec env TARGETS_INSIDE=1 unshare --mount "$0" "$@"
fi

# The feature sets, and the Rust that each needs.
sets=("|1.85" "default|1.85" "default tls|1.85" "default tls redis-tls|1.88" "default tls redis-tls nats|1.89")
tests=(smoke alone handshake frames close rooms users order races backpressure stalled event_stream http drain)
# Where no emulator takes memory of its own, a process that runs out of it as well.
native_tests=("${tests[@]}" exhaustion)
# The last but one has no 64-bit atomics; the last one neither, and the other order of bytes.
all=(i686-unknown-linux-gnu armv7-unknown-linux-gnueabihf aarch64-unknown-linux-gnu x86_64-unknown-linux-musl
    mipsel-unknown-linux-gnu powerpc-unknown-linux-gnu)

# mirror: where apt gets Debian's packages from.
mirror() {
    apt-get indextargets 'Created-By: Packages' 'Label: Debian' --format '$(REPO_URI)' | sort -u | head -n 1
}

# The release's Rust. From the release's own archive alone, without its updates: so each package has one version, which
# is the same for all processors.
make_chroot() {
    if ! command -v debootstrap >/dev/null || [ -z "$(mirror)" ]; then
        apt-get update -qq
        apt-get install -y -qq debootstrap
    fi
    [ -n "$(mirror)" ] || { echo "no archive of Debian among the apt sources" >&2; exit 1; }
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$(mirror)"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    install_inside 'cargo rustc'
    touch "$root/has-rust"
}

# What other processors need besides.
add_compilers() {
    for arch in i386 armhf arm64; do
        chroot "$root" dpkg --add-architecture "$arch"
    done
    install_inside 'rust-src qemu-user musl-tools libunwind-19-dev
        gcc-i686-linux-gnu libc6-dev-i386-cross libstd-rust-dev:i386
        gcc-arm-linux-gnueabihf libc6-dev-armhf-cross libstd-rust-dev:armhf
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross libstd-rust-dev:arm64
        gcc-mipsel-linux-gnu libc6-dev-mipsel-cross gcc-powerpc-linux-gnu libc6-dev-powerpc-cross'
    touch "$root/has-compilers"
}

# install_inside PACKAGES: installs packages in the chroot.
install_inside() {
    chroot "$root" env DEBIAN_FRONTEND=noninteractive sh -ec "apt-get update -qq -o Acquire::Retries=3
        apt-get install -y -qq -o Acquire::Retries=3 --no-install-recommends $(echo $1)
        apt-get clean"
}

# inside COMMAND: in the chroot, in the project's folder.
inside() {
    ${TARGETS_RUN:-} chroot "$root" env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root CARGO_HOME=/cargo \
        CARGO_NET_OFFLINE=true CARGO_TARGET_DIR=/target CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 PROPTEST_CASES="${PROPTEST_CASES:-32}" WSHUB_TEST_SLOW=1 TERM=dumb sh -ec "cd /src; $1"
}

# settings TARGET: shell commands that prepare cargo for a target, and the options for the variable `std`.
settings() {
    local name=${1^^}
    name=CARGO_TARGET_${name//-/_}
    case $1 in
    x86_64-unknown-linux-gnu) echo "export std=" ;;
    i686-*) echo "export ${name}_LINKER=i686-linux-gnu-gcc CC_i686_unknown_linux_gnu=i686-linux-gnu-gcc std=" ;;
    armv7-*) echo "export ${name}_LINKER=arm-linux-gnueabihf-gcc ${name}_RUNNER=qemu-arm std=" ;;
    aarch64-*) echo "export ${name}_LINKER=aarch64-linux-gnu-gcc ${name}_RUNNER=qemu-aarch64 std=" ;;
    # Debian has no standard library for these: it is built from its source.
    mipsel-* | powerpc-*)
        local gcc=${1/-unknown/} cpu=${1%%-*}
        echo "export RUSTC_BOOTSTRAP=1 std=-Zbuild-std ${name}_LINKER=$gcc-gcc"
        echo "export ${name}_RUNNER='qemu-${cpu/powerpc/ppc} -L /usr/$gcc'"
        # Without optimization, the compiler loads a value of two bytes from an odd address on MIPS. Linux corrects that,
        # and the emulator ends the program.
        echo "export CARGO_PROFILE_DEV_OPT_LEVEL=1"
        ;;
    x86_64-*-musl)
        # Rust's own musl comes with crt objects and an unwinder; here they are Debian's and LLVM's, since gcc's unwinder
        # needs glibc.
        echo "mkdir -p /target/musl; cp /usr/lib/llvm-*/lib/libunwind.a /target/musl
            musl-gcc -c -o /target/musl/musl.o tests/targets/musl.c; ar r /target/musl/libunwind.a /target/musl/musl.o"
        echo "export RUSTC_BOOTSTRAP=1 std=-Zbuild-std ${name}_LINKER=musl-gcc CC_x86_64_unknown_linux_musl=musl-gcc"
        echo "export ${name}_RUSTFLAGS='-C link-self-contained=no -L native=/target/musl'"
        ;;
    *) echo "echo unknown target $1 >&2; exit 2" ;;
    esac
}

# default_of TARGET: its default features. `prometheus` needs 64-bit atomics.
default_of() {
    case $1 in
    mipsel-* | powerpc-*) echo "centrifuge cluster dashboard deflate" ;;
    *) echo default ;;
    esac
}

# is_at_least VERSION: whether the chroot's Rust is that new.
is_at_least() {
    [ "$(printf '%s\n' "$1" "$rust" | sort -V | head -n 1)" = "$1" ]
}

# check TARGET: checks the library with each set of features; adds those that pass to `built`.
check() {
    local target=$1 prepare features needs
    prepare=$(settings "$target")
    for set in "${sets[@]}"; do
        IFS='|' read -r features needs <<<"$set"
        is_at_least "$needs" || continue
        features=${features/default/$(default_of "$target")}
        printf '\n== %s: library with features: %s\n' "$target" "${features:-none}"
        if inside "$prepare
            cargo check --locked --lib --target $target \$std --no-default-features --features '$features'"; then
            built+=("${features:-none}")
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
        fi
    done
}

# sum WORD: the sum of the numbers before this word in the log.
sum() {
    { grep -oE "[0-9]+ $1" "$log" || true; } | awk '{n += $1} END {print n + 0}'
}

# run_tests TARGET: its unit tests, then its socket tests; sets `good` and `bad`.
run_tests() {
    local target=$1 prepare command set missing own
    case $target in
    i686-* | x86_64-*) own="${native_tests[*]/#/--test }" ;;
    *) own="${tests[*]/#/--test }" ;;
    esac
    prepare=$(settings "$target")
    command="cargo test --locked --target $target \$std --no-default-features --features '$(default_of "$target")'"
    good=0
    bad=0
    printf '\n== %s: tests are built\n' "$target"
    inside "$prepare
        $command --no-run --lib $own" || true
    for set in --lib "$own"; do
        printf '\n== %s: %s\n' "$target" "$set"
        inside "$prepare
            $command --no-fail-fast --quiet $set" 2>&1 | tee "$log" || true
        # A program that has not been built, or has not come to its end, counts as one.
        missing=$(($(wc -w <<<"${set//--test/}") - $(grep -c '^test result: ' "$log" || true)))
        good=$((good + $(sum passed)))
        bad=$((bad + $(sum failed) + missing))
    done
}

[ -e "$root/has-rust" ] || make_chroot
mkdir -p "$root/src" "$root/cargo/registry" "$root/target"
mount --bind "$PWD" "$root/src"
# Cargo downloads outside, where the network is known to work: for the crate, and for the standard library.
cargo fetch --locked
mount --bind "${CARGO_HOME:-$HOME/.cargo}/registry" "$root/cargo/registry"
mount -t proc proc "$root/proc"
rust=$(inside 'rustc --version' | cut -d' ' -f2)
passed=0
failed=0
built=()
if [ "${1:-}" = --rust ]; then
    check "$(inside 'rustc --version --verbose' | sed -n 's/^host: //p')"
    claimed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if [[ $rust != "$claimed".* ]]; then
        echo "Cargo.toml claims Rust $claimed"
        failed=$((failed + 1))
    fi
    printf '\nRust %s of Debian %s builds: %s\n' "$rust" "$suite" "$(printf '%s; ' "${built[@]}" | sed 's/; $//')"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" -eq 0 ]
    exit
fi

[ -e "$root/has-compilers" ] || add_compilers
RUSTC_BOOTSTRAP=1 cargo fetch --locked --manifest-path "$(echo "$root"/usr/src/rustc-*/library)/Cargo.toml"
if [ "${1:-}" = --sizes ]; then
    shift
    [ $# -eq 0 ] || all=("$@")
    printf '| target | KB |\n| --- | --- |\n'
    for target in "${all[@]}"; do
        inside "$(settings "$target")
            cargo build --quiet --locked --profile small --target $target \$std --example gateway --no-default-features"
        echo "| $target | $(($(stat -c %s "$root/target/$target/small/examples/gateway") / 1000)) |"
    done
    exit
fi

[ $# -eq 0 ] || all=("$@")
table="| target | feature sets that build | tests passed | failed |"$'\n'"| --- | --- | --- | --- |"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in "${all[@]}"; do
    built=()
    check "$target"
    run_tests "$target"
    passed=$((passed + good))
    failed=$((failed + bad))
    table+=$'\n'"| $target | $(printf '%s; ' "${built[@]}" | sed 's/; $//') | $good | $bad |"
done

printf '\nRust %s of Debian %s, %s\n\n%s\n' "$rust" "$suite" "$(date -u +%F)" "$table"
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
