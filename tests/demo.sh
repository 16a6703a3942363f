#!/bin/sh
# The whole network on this machine: a tracker, a seeding peer, and three downloaders that serve each other.
# Shows each command as a user would type it. CASCADE names the binary; everything happens in a directory of its own,
# which is removed at the end.
set -eu

cascade=$(realpath "${CASCADE:?names the binary}")
size=${DEMO_MIB:-256}
unset CASCADE_TRACKER
work=$(mktemp -d "${TMPDIR:-/tmp}/cascade-demo.XXXXXX")
pids=

clean_up() {
    status=$?
    trap - EXIT INT TERM
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for pid in $pids; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n# %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# The address that a server printed on its first line, as soon as it is there.
address_of() {
    while ! grep -q '^listening on ' "$1"; do
        kill -0 "$2" 2>/dev/null || fail "a server ended before it listened"
        sleep 0.05
    done
    sed -n 's/^listening on //p;q' "$1"
}

cd "$work"
mkdir seed one two three

say "A file of $size MiB, and the cascade file that describes its blocks"
head -c "${size}M" /dev/urandom >seed/disk.img
show "cascade create disk.img"
(cd seed && "$cascade" create disk.img)
show "cascade info disk.img.cascade"
(cd seed && "$cascade" info disk.img.cascade)

say "A tracker for it"
show "cascade tracker disk.img.cascade &"
"$cascade" tracker -l 127.0.0.1:0 seed/disk.img.cascade >tracker.out &
tracker_pid=$!
pids="$pids $tracker_pid"
tracker=$(address_of tracker.out "$tracker_pid")
cat tracker.out

say "A peer that has the file and serves it"
show "cascade peer -t $tracker disk.img.cascade &"
(cd seed && exec "$cascade" peer -t "$tracker" -l 127.0.0.1:0 disk.img.cascade) >peer.out &
peer_pid=$!
pids="$pids $peer_pid"
address_of peer.out "$peer_pid" >/dev/null
cat peer.out

say "Three others get it, serving each other meanwhile"
getters=
for who in one two three; do
    cp seed/disk.img.cascade "$who/"
    show "cascade get -t $tracker disk.img.cascade     # in directory $who"
    (cd "$who" && exec "$cascade" get -t "$tracker" -l 127.0.0.1:0 disk.img.cascade) >"$who.out" &
    getters="$getters $!"
    pids="$pids $!"
done
for pid in $getters; do wait "$pid" || fail "a download failed"; done
cat one.out

say "Who is in the network"
show "cascade list -t $tracker disk.img.cascade"
"$cascade" list -t "$tracker" seed/disk.img.cascade

say "The copies are the same, byte for byte"
for who in one two three; do
    cmp "seed/disk.img" "$who/disk.img" || fail "the copy of $who differs"
    show "cmp seed/disk.img $who/disk.img"
done
show "cascade verify disk.img.cascade"
(cd three && "$cascade" verify disk.img.cascade)
say "Done: $size MiB from one peer to three, every block verified"
