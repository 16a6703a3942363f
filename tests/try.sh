#!/bin/bash
# What a new user does, on clean machines: `make try` (root; wants debootstrap, and the network once, for the system).
#
# Nine machines, each a network namespace and a freshly made Debian of its own, hang on a bridge. On each the package is
# installed; one shares a file of 1 GiB (TRY_MIB), and the line that it prints is run on the eight others. Every copy is
# compared, and the package removed. All of it happens in namespaces that end with this script, and in a directory that
# it removes; the Debian is kept in TRY_BASE for the next time.
set -euo pipefail

mib=${TRY_MIB:-1024}
others=8
package=${1:?names the Debian package}

fail() { printf 'try: %s\n' "$*" >&2; exit 1; }
say() { printf '\n# %s\n' "$*"; }

if [[ -z ${TRY_WORK:-} ]]; then
    [[ $EUID == 0 ]] || fail "only root can make namespaces"
    base=${TRY_BASE:?names the directory of a Debian, which is made where it is missing}
    if [[ ! -e $base/etc/debian_version ]]; then
        command -v debootstrap >/dev/null || fail "debootstrap is needed, which makes a Debian: apt install debootstrap"
        say "A Debian for all machines, once: $base"
        rm -rf "$base.new"
        mkdir -p "$(dirname "$base")"
        debootstrap --variant=minbase "${TRY_SUITE:-stable}" "$base.new" >/dev/null || fail "debootstrap failed"
        mv "$base.new" "$base"
    fi
    work=$(mktemp -d "${TMPDIR:-/tmp}/cascade-try.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # When this ends, however it does, the kernel takes hosts, links, mounts and processes with it.
    TRY_WORK=$work TRY_BASE=$(realpath "$base") unshare --mount --net --pid --fork --kill-child --mount-proc \
        "$0" "$(realpath "$package")"
    exit
fi

work=$TRY_WORK
mount -t tmpfs tmpfs /run
ip link add hub type bridge
ip link set hub up

# A machine: files of its own above those of the Debian, and an address.
machine() {
    local name=$1 address=$2 root=$work/$1
    mkdir -p "$root"/{upper,scratch,root}
    mount -t overlay overlay -o "lowerdir=$TRY_BASE,upperdir=$root/upper,workdir=$root/scratch" "$root/root"
    mount -t proc proc "$root/root/proc"
    cp "$package" "$root/root/root/"
    ip netns add "$name"
    ip link add "to-$name" type veth peer name eth0 netns "$name"
    ip link set "to-$name" master hub up
    ip -n "$name" link set lo up
    ip -n "$name" address add "$address/24" dev eth0
    ip -n "$name" link set eth0 up
}

# Runs a line there, as a user who logs in and types it.
on() {
    ip netns exec "$1" chroot "$work/$1/root" \
        env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb bash -c "cd; $2"
}
type_on() {
    printf '%s$ %s\n' "$1" "$2"
    on "$1" "$2"
}

machine seed 10.99.0.100
for ((n = 1; n <= others; n++)); do machine "host$n" "10.99.0.$n"; done
file=$(basename "$package")
ends=$(on seed 'command -v cascade || true')
[[ -z $ends ]] || fail "the machines are not clean: $ends"

say "The package, on each machine"
for name in seed $(seq -f 'host%g' $others); do
    if [[ $name == seed ]]; then
        type_on seed "apt install -y ./$file 2>/dev/null | tail -n 4"
        type_on seed 'cascade --version'
    else
        on "$name" "apt install -y ./$file >/dev/null 2>&1" || fail "cannot install on $name"
    fi
done

say "A file of $mib MiB, shared until $others others have it"
on seed "head -c ${mib}M /dev/urandom >disk.img"
type_on seed 'ls -lh disk.img'
: >"$work/shared"
type_on seed "cascade share --copies $others disk.img" >"$work/shared" 2>&1 &
share=$!
until grep -q '^cascade get ' "$work/shared"; do
    kill -0 $share 2>/dev/null || fail "share ended: $(cat "$work/shared")"
    sleep 0.1
done
cat "$work/shared"
line=$(grep '^cascade get ' "$work/shared")

say "The line that it printed, on the $others others at once"
SECONDS=0
gets=()
for ((n = 1; n <= others; n++)); do
    type_on "host$n" "$line" >"$work/got$n" 2>&1 &
    gets+=($!)
done
for get in "${gets[@]}"; do wait "$get" || fail "a download failed: $(cat "$work"/got*)"; done
took=$SECONDS
cat "$work"/got*
echo "(all of them after $took s)"
wait $share || fail "share failed: $(cat "$work/shared")"
echo '(and share has ended by itself)'

say "Every copy is the file"
sum=$(on seed 'sha256sum disk.img')
type_on seed 'sha256sum disk.img'
for ((n = 1; n <= others; n++)); do
    type_on "host$n" 'sha256sum disk.img' | tee "$work/sum"
    [[ $(tail -n 1 "$work/sum") == "$sum" ]] || fail "host$n has another file"
done

say "And the package is gone without a trace"
type_on seed 'apt purge -y cascade 2>/dev/null | tail -n 2'
left=$(on seed 'find / -xdev -iname "*cascade*" -not -path "/root/*" -not -path "/var/l*/*" -not -path "/proc/*"')
[[ -z $left ]] || fail "it left $left"
say "Done"
