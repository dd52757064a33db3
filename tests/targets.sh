#!/bin/bash
# Builds the crate for other processors and C libraries, runs its unit tests and main socket tests there, and prints a table.
# The last line says how many passed and failed.
#
#     tests/targets.sh [TARGET...]        without targets: all of them
#
# Needs root on Debian or a relative, and its mirror: makes a chroot of Debian's packages (debootstrap, 3 GB, under
# target/targets) with its Rust, cross compilers and qemu-user. So it also shows that the crate builds with the oldest Rust that
# it claims: Debian 13's. TARGETS_SUITE names another release, such as forky. The clients of Redis and NATS need a newer Rust:
# their features are left out where it is older. Half an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${TARGETS_SUITE:-trixie}
mirror=${TARGETS_MIRROR:-http://deb.debian.org/debian}
root=$PWD/target/targets/$suite

# In a mount namespace of its own, so that no mount outlives this script.
if [ -z "${TARGETS_INSIDE:-}" ]; then
    exec env TARGETS_INSIDE=1 unshare --mount "$0" "$@"
fi

targets=("$@")
[ $# -gt 0 ] || targets=(i686-unknown-linux-gnu armv7-unknown-linux-gnueabihf aarch64-unknown-linux-gnu
    mipsel-unknown-linux-gnu x86_64-unknown-linux-musl)
tests=(smoke handshake frames close rooms users order races backpressure stalled event_stream http drain)

make_chroot() {
    command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    chroot "$root" sh -ec '
        for arch in i386 armhf arm64; do dpkg --add-architecture $arch; done
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            cargo rustc rust-src qemu-user gcc libc6-dev musl-tools \
            gcc-i686-linux-gnu libc6-dev-i386-cross libstd-rust-dev:i386 \
            gcc-arm-linux-gnueabihf libc6-dev-armhf-cross libstd-rust-dev:armhf \
            gcc-aarch64-linux-gnu libc6-dev-arm64-cross libstd-rust-dev:arm64 \
            gcc-mipsel-linux-gnu libc6-dev-mipsel-cross
        apt-get clean'
    touch "$root/ready"
}

# inside COMMAND: in the chroot, in the project's folder.
inside() {
    chroot "$root" env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root CARGO_HOME=/cargo CARGO_NET_OFFLINE=true CARGO_TARGET_DIR=/target \
        TERM=dumb sh -ec "cd /src; $1"
}

# settings TARGET: shell commands that prepare cargo for a target, and the options for the variable `std`.
settings() {
    local name=${1^^}
    name=CARGO_TARGET_${name//-/_}
    case $1 in
    i686-*) echo "export ${name}_LINKER=i686-linux-gnu-gcc CC_i686_unknown_linux_gnu=i686-linux-gnu-gcc std=" ;;
    armv7-*) echo "export ${name}_LINKER=arm-linux-gnueabihf-gcc ${name}_RUNNER=qemu-arm std=" ;;
    aarch64-*) echo "export ${name}_LINKER=aarch64-linux-gnu-gcc ${name}_RUNNER=qemu-aarch64 std=" ;;
    # Debian has no standard library for these: it is built from its source.
    mipsel-*)
        echo "export RUSTC_BOOTSTRAP=1 std=-Zbuild-std ${name}_LINKER=mipsel-linux-gnu-gcc"
        echo "export ${name}_RUNNER='qemu-mipsel -L /usr/mipsel-linux-gnu'"
        ;;
    x86_64-*-musl)
        # Rust's own musl comes with crt objects and an unwinder; here they are Debian's and gcc's.
        echo "mkdir -p /target/musl; ln -sf \$(gcc -print-file-name=libgcc_eh.a) /target/musl/libunwind.a"
        echo "export RUSTC_BOOTSTRAP=1 std=-Zbuild-std ${name}_LINKER=musl-gcc CC_x86_64_unknown_linux_musl=musl-gcc"
        echo "export ${name}_RUSTFLAGS='-C link-self-contained=no -L native=/target/musl'"
        ;;
    *) echo "echo unknown target $1 >&2; exit 2" ;;
    esac
}

[ -e "$root/ready" ] || make_chroot
# Cargo downloads outside, where the network is known to work: for the crate, and for the standard library.
cargo fetch --locked
RUSTC_BOOTSTRAP=1 cargo fetch --locked --manifest-path "$(echo "$root"/usr/src/rustc-*/library)/Cargo.toml"
mkdir -p "$root/src" "$root/cargo/registry" "$root/target"
mount --bind "$PWD" "$root/src"
mount --bind "${CARGO_HOME:-$HOME/.cargo}/registry" "$root/cargo/registry"
mount -t proc proc "$root/proc"
rust=$(inside 'rustc --version' | cut -d' ' -f2)
sets=("" "default" "default tls")
if [ "$(printf '%s\n' 1.89 "$rust" | sort -V | head -n 1)" = 1.89 ]; then
    sets+=("default tls redis-tls nats")
fi

passed=0
failed=0
table="| target | feature sets that build | tests passed | failed |"$'\n'"| --- | --- | --- | --- |"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in "${targets[@]}"; do
    prepare=$(settings "$target")
    built=()
    for set in "${sets[@]}"; do
        printf '\n== %s: library with features: %s\n' "$target" "${set:-none}"
        if inside "$prepare
            cargo build --locked --lib --target $target \$std --no-default-features --features '$set'"; then
            built+=("${set:-none}")
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
        fi
    done
    printf '\n== %s: tests\n' "$target"
    inside "$prepare
        cargo test --locked --no-fail-fast --target $target \$std --lib ${tests[*]/#/--test }" 2>&1 | tee "$log" || true
    good=$({ grep -oE '[0-9]+ passed' "$log" || true; } | awk '{n += $1} END {print n + 0}')
    bad=$({ grep -oE '[0-9]+ failed' "$log" || true; } | awk '{n += $1} END {print n + 0}')
    # Tests that do not build count as one.
    [ "$good" -gt 0 ] || bad=$((bad + 1))
    passed=$((passed + good))
    failed=$((failed + bad))
    table+=$'\n'"| $target | $(printf '%s; ' "${built[@]}" | sed 's/; $//') | $good | $bad |"
done

printf '\nRust %s of Debian %s, %s\n\n%s\n' "$rust" "$suite" "$(date -u +%F)" "$table"
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
