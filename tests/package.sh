#!/bin/bash
# Whether what is installed and packed is whole, works, and goes away again: `make package-check`.
#
# Wants root (for dpkg), dpkg, lintian, man-db, bash with bash-completion, zsh and fish. Everything happens in a directory
# of its own, which is removed at the end.
#
# $1 is the tarball; CASCADE_TARGET names the directory of what is built, MAKE the make that calls this.
set -euo pipefail

tarball=$1
make=${MAKE:-make}
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/cascade-package.XXXXXX")
trap 'rm -rf "$work"' EXIT

say() { printf '\n# %s\n' "$*"; }
fail() { printf 'package: %s\n' "$*" >&2; exit 1; }
# Fails unless the text of $2 has a line that is $3 (or, with more words, each of them).
has() {
    local what=$1 text=$2 line
    shift 2
    for line; do
        grep -qxF -- "$line" <<<"$text" || fail "$what does not offer '$line' but: $text"
    done
}

# All that is below a directory, with its mode.
tree() { (cd "$1" && find . -printf '%p %y %m %l\n' | sort); }

installed_and_gone() {
    say "make install puts everything below DESTDIR and PREFIX, and make uninstall leaves nothing"
    local root=$work/installed files
    # What every prefix has, and a neighbour in a directory that install uses too.
    mkdir -p "$root"/opt/here/{bin,lib,share/man/man1}
    : >"$root/opt/here/share/man/man1/other.1"
    tree "$root" >"$work/before"
    $make --no-print-directory install DESTDIR="$root" PREFIX=/opt/here >/dev/null
    files=$(cd "$root/opt/here" && find . -type f)
    has "make install" "$files" ./bin/cascade ./share/man/man1/cascade.1 ./share/man/man8/cascade-tracker.8 \
        ./share/bash-completion/completions/cascade ./share/zsh/site-functions/_cascade \
        ./share/fish/vendor_completions.d/cascade.fish
    for page in man/*; do
        has "make install" "$files" "./share/man/man${page##*.}/${page#man/}"
    done
    has "make install" "$files" ./share/doc/cascade/examples/tracker.toml ./share/doc/cascade/examples/peer.toml
    for unit in units/*.service units/*.socket; do
        [[ ! -e $unit ]] || has "make install" "$files" "./lib/systemd/system/${unit#units/}"
    done
    for unit in "$root"/opt/here/lib/systemd/system/*.service; do
        grep -q '^ExecStart=/opt/here/bin/cascade ' "$unit" || fail "$unit does not start what was installed"
        ! grep -q '^Exec.*=cascade ' "$unit" || fail "$unit runs something else than what was installed"
    done
    completed "$root/opt/here" share/zsh/site-functions
    $make --no-print-directory uninstall DESTDIR="$root" PREFIX=/opt/here >/dev/null
    tree "$root" | diff "$work/before" - || fail "make uninstall left or took something"
}

# Loads the completions below a prefix in the shells themselves, as the shells look for them.
completed() {
    local prefix=$1 zsh=$2 offered
    local PATH=$prefix/bin:$PATH

    offered=$(XDG_DATA_HOME=$work/none XDG_DATA_DIRS=$prefix/share bash --norc --noprofile -c '
        source /usr/share/bash-completion/bash_completion
        complete_line() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
            "$function" cascade "$word" "$before"
            printf "%s\n" "${COMPREPLY[@]}"
        }
        _completion_loader cascade || [[ $? == 124 ]]
        function=$(complete -p cascade | sed "s/.*-F \([^ ]*\).*/\1/")
        complete_line cascade tr
        complete_line cascade help prot
        complete_line cascade get --no
        complete_line cascade peer -t here:1 --model pref
        complete_line cascade echo serve --res
        complete_line cascade compare-p
    ') || fail "bash cannot load the completions"
    has bash "$offered" tracker protocol --no-serve prefork --resolve
    ! grep -q compare-part <<<"$offered" || fail "bash offers what is hidden"

    offered=$(XDG_CONFIG_HOME=$work/fish HOME=$work/fish XDG_DATA_DIRS=$prefix/share fish -c '
        for line in "cascade tr" "cascade help prot" "cascade get --no" "cascade peer -t here:1 --model pref" \
            "cascade echo serve --res" "cascade compare-p"
            complete -C $line
        end' | cut -f1) || fail "fish cannot load the completions"
    has fish "$offered" tracker protocol --no-serve prefork --resolve
    ! grep -q compare-part <<<"$offered" || fail "fish offers what is hidden"

    # zsh completes only in its line editor: it gets a terminal, and a cascade that shows what was completed.
    cat >"$work/drive.zsh" <<'END'
zmodload zsh/zpty
await() {
    local seen part
    until [[ $seen == *$1* ]]; do
        zpty -r shell part || exit 1
        seen+=$part
    done
    print -r -- $seen
}
zpty shell "TERM=dumb HOME=$1 zsh -f -i"
zpty -w shell "PS1=; fpath=($2 \$fpath); autoload -Uz compinit; compinit -u -d $1/zcompdump"
zpty -w shell 'cascade() { print -rl -- "$@" THE"-"END }; print REA"DY"'
await READY >/dev/null
for line in "cascade tr" "cascade help prot" "cascade get --no-s" "cascade peer -t here:1 --model pref" \
    "cascade echo serve --res" "cascade peer -l "; do
    zpty -w -n shell $line$'\t\r'
    await THE-END
done
END
    offered=$(timeout 60 zsh -f "$work/drive.zsh" "$work" "$prefix/$zsh" | tr -d '\r') ||
        fail "zsh cannot load the completions: $offered"
    has zsh "$offered" tracker protocol --no-serve prefork --resolve
    ! grep -qi 'not found' <<<"$offered" || fail "zsh complains: $offered"
    echo "bash, fish and zsh complete"
}

# Whether `cascade help` finds the pages that came with this program.
shows_pages() {
    local page
    for topic in get protocol; do
        page=$(MANPATH='' "$1" help $topic) || fail "$1 help $topic failed"
        grep -qi "^cascade-$topic(" <<<"$page" || fail "$1 help $topic shows no page but: ${page:0:400}"
    done
}

debian_package() {
    say "The Debian package: lintian, install, run, remove"
    local package root=$work/debian
    package=$(ls -t "$CASCADE_TARGET"/package/cascade_*.deb | head -1)
    lintian --fail-on error "$package"
    # A system of its own, as far as dpkg is concerned.
    mkdir -p "$root"/var/lib/dpkg/{info,updates} "$root"/{usr/share/man/man1,var/log}
    touch "$root"/var/lib/dpkg/{status,available}
    : >"$root/usr/share/man/man1/other.1"
    (cd "$root/usr" && find . | sort) >"$work/before"
    local PATH=$PATH:/usr/sbin:/sbin
    dpkg --root="$root" --force-not-root --force-script-chrootless --log="$work/dpkg.log" --install "$package"
    "$root/usr/bin/cascade" --version
    # What the units begin with, once somebody says so.
    "$root/usr/bin/cascade" tracker --check -c "$root/etc/cascade/tracker.toml"
    "$root/usr/bin/cascade" peer --check -c "$root/etc/cascade/peer.toml" -d "$root/etc"
    # What an administrator wrote stays when the package goes, until it is purged.
    echo 'ttl = 600' >>"$root/etc/cascade/tracker.toml"
    [[ $(dpkg-query --admindir="$root/var/lib/dpkg" -f '${Conffiles}' -W cascade) == *tracker.toml* ]] ||
        fail "the configuration is no conffile"
    MANPATH=$root/usr/share/man man -w cascade
    # What a user sees.
    shows_pages "$root/usr/bin/cascade"
    completed "$root/usr" share/zsh/vendor-completions
    dpkg --root="$root" --force-not-root --force-script-chrootless --log="$work/dpkg.log" --remove cascade
    grep -q 600 "$root/etc/cascade/tracker.toml" || fail "removing the package took a configuration"
    dpkg --root="$root" --force-not-root --force-script-chrootless --log="$work/dpkg.log" --purge cascade
    [[ ! -e $root/etc/cascade ]] || fail "the package left $(ls -A "$root/etc/cascade")"
    (cd "$root/usr" && find . | sort) | diff "$work/before" - || fail "the package left or took something"
}

unpacked() {
    say "The tarball: whole, static, the same from the same, and it runs where it was unpacked"
    (cd "$(dirname "$tarball")" && sha256sum -c "$(basename "$tarball").sha256")
    local first second name
    first=$(sha256sum <"$tarball")
    $make --no-print-directory dist >/dev/null
    second=$(sha256sum <"$tarball")
    [[ $first == "$second" ]] || fail "make dist made another tarball of the same"
    mkdir "$work/unpacked"
    tar -C "$work/unpacked" -xzf "$tarball"
    name=$(basename "$tarball" .tar.gz)
    [[ $(ls "$work/unpacked") == "$name" ]] || fail "the tarball does not hold one directory"
    ! readelf -l "$work/unpacked/$name/bin/cascade" | grep -q INTERP || fail "the binary is not static"
    "$work/unpacked/$name/bin/cascade" --version
    shows_pages "$work/unpacked/$name/bin/cascade"
}

published() {
    say "cargo publish would take it"
    cargo publish --dry-run
}

installed_and_gone
debian_package
unpacked
published
say "Done: installs, completes, packs, and goes away again"
