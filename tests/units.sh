#!/bin/bash
# What systemd thinks of the units, as they are installed: `make units-check`. Nothing is started.
#
# $1 is the program. Wants systemd-analyze.
set -euo pipefail

binary=$1
cd "$(dirname "$0")/.."
# The most that systemd-analyze security may find exposed, of 100.
most=20
root=$(mktemp -d "${TMPDIR:-/tmp}/cascade-units.XXXXXX")
trap 'rm -rf "$root"' EXIT

fail() { printf 'units: %s\n' "$*" >&2; exit 1; }
command -v systemd-analyze >/dev/null || fail 'systemd-analyze is missing (Debian: systemd)'

# A system of its own: the units of systemd itself, ours, and what they run.
units=$root/usr/lib/systemd/system
mkdir -p "$units" "$root"/{usr/bin,bin,etc/cascade}
cp -r /lib/systemd/system/. "$units"
install -m 755 "$binary" "$root/usr/bin/cascade"
install -m 755 /bin/sh "$root/bin/sh"
names=()
for unit in units/*; do
    sed 's|^\(Exec[A-Za-z]*\)=cascade |\1=/usr/bin/cascade |' "$unit" >"$units/${unit#units/}"
    names+=("${unit#units/}")
done

for name in "${names[@]}"; do
    # It warns with status 0, too; of ours nothing is to be warned about.
    said=$(systemd-analyze verify --man=no --root="$root" "$name" 2>&1) || fail "$name: $said"
    ! grep -F cascade <<<"$said" || fail "$name is not as it should be"
    echo "$name: verified"
done
for name in "${names[@]}"; do
    [[ $name == *.service ]] || continue
    systemd-analyze security --offline=yes --root="$root" --threshold=$most "$name" | tail -n 1 ||
        fail "$name exposes more than $most of 100"
done

# Each option in the units is one that the program has.
for name in "${names[@]}"; do
    while read -r command line; do
        help=$("$binary" "$command" --help)
        for option in $(grep -oE -- '(^| )--?[a-z-]+' <<<"$line"); do
            grep -qE -- "(^|[ ,])$option([ ,=]|$)" <<<"$help" || fail "$name: cascade $command has no $option"
        done
    done < <(sed -n 's/^Exec[A-Za-z]*=cascade //p' "units/$name")
done
