#!/bin/bash
# The units under a real systemd: `make systemd-check` (root; wants debootstrap, and the network once, for the system).
#
# A Debian of its own boots systemd as process 1, in namespaces and a control group of its own; the package is installed
# there, and checks.sh run. It boots twice, to see what is enabled. Nothing of this machine is touched: what is written
# lies in a directory that this script removes, and processes, mounts and links end with it. The Debian is kept in
# SYSTEMD_BASE for the next time; SYSTEMD_SUITE names another (bookworm has an older systemd).
#
# $1 is the package. The status is 77 where this machine cannot do it.
set -euo pipefail

here=$(realpath "$(dirname "$0")")

fail() { printf 'systemd: %s\n' "$*" >&2; exit 1; }
skip() { printf 'systemd: skipped: %s\n' "$*" >&2; exit 77; }
say() { printf '\n# %s\n' "$*"; }

# A Debian with systemd, made once.
system() {
    [[ ! -e $SYSTEMD_BASE/etc/debian_version ]] || return 0
    command -v debootstrap >/dev/null || skip "debootstrap is needed, which makes a Debian: apt install debootstrap"
    say "A Debian with systemd, once: $SYSTEMD_BASE"
    rm -rf "$SYSTEMD_BASE.new"
    mkdir -p "$(dirname "$SYSTEMD_BASE")"
    debootstrap --variant=minbase --include=systemd,dbus "${SYSTEMD_SUITE:-stable}" "$SYSTEMD_BASE.new" >/dev/null ||
        skip "debootstrap failed"
    mv "$SYSTEMD_BASE.new" "$SYSTEMD_BASE"
}

# On the machine that runs this.
outside() {
    local package=$1 status=0
    [[ $EUID == 0 ]] || skip "only root can make namespaces"
    for tool in unshare nsenter setpriv pivot_root; do
        command -v $tool >/dev/null || skip "$tool is needed (util-linux)"
    done
    : "${SYSTEMD_BASE:?names the directory of a Debian, which is made where it is missing}"
    system
    SYSTEMD_BASE=$(realpath "$SYSTEMD_BASE")
    work=$(mktemp -d "${TMPDIR:-/tmp}/cascade-systemd.XXXXXX")
    group=cascade-systemd.$$
    export SYSTEMD_BASE work group
    trap 'unshare --mount "$0" forget; rm -rf "$work"' EXIT
    mkdir -p "$work"/{upper,scratch,root,groups}
    # Whatever happens there, it is over after ten minutes, and all its processes end with the first.
    timeout --foreground --signal KILL 600 \
        unshare --mount --pid --fork --kill-child --mount-proc "$0" inside "$(realpath "$package")" || status=$?
    [[ $status != 137 ]] || fail "it took too long"
    exit $status
}

# The control group goes, when its processes are gone.
forget() {
    mount -t cgroup2 cgroup2 "$work/groups" 2>/dev/null || return 0
    for ((n = 0; n < 50; n++)); do
        [[ -d $work/groups/$group ]] || break
        find "$work/groups/$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
}

# In namespaces of its own for mounts and processes: boots the system, checks, and stops it, twice.
inside() {
    local package=$1
    trap 'exit 130' INT TERM
    mount -t cgroup2 cgroup2 "$work/groups" 2>/dev/null && mkdir "$work/groups/$group" 2>/dev/null ||
        skip "no control group can be made (cgroup2)"
    mount -t overlay overlay -o "lowerdir=$SYSTEMD_BASE,upperdir=$work/upper,workdir=$work/scratch" "$work/root" ||
        skip "there is no overlay filesystem"
    cp "$package" "$here"/{checks,common}.sh "$work/root/root/"
    : >"$work/root/etc/fstab"
    echo check >"$work/root/etc/hostname"
    on_root dpkg -i "/root/$(basename "$package")" >/dev/null || fail "cannot install the package"
    on_root systemctl enable cascade-tracker.socket 2>/dev/null
    for part in first second; do
        boot
        on_machine bash /root/checks.sh $part || {
            say "The last of its journal"
            on_machine journalctl --no-pager --boot --lines 40 --output short-precise
            exit 1
        }
        off
    done
}

on_root() { chroot "$work/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

# Runs a command where systemd runs.
on_machine() {
    nsenter --target "$first" --all --root --wd env -i HOME=/root LC_ALL=C.UTF-8 TERM=dumb \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# Starts systemd, and waits until it has started what it starts.
boot() {
    local state=
    (
        echo 0 >"$work/groups/$group/cgroup.procs"
        exec unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child "$0" machine
    ) </dev/null >"$work/console" 2>&1 &
    console=$!
    for ((n = 0; n < 300; n++)); do
        kill -0 $console 2>/dev/null || fail "systemd ended: $(cat "$work/console")"
        first=$(cat "/proc/$console/task/$console/children" 2>/dev/null) && first=${first% }
        # It says so before it is there, where it does not run yet.
        state=$([[ -z $first ]] || on_machine systemctl is-system-running 2>/dev/null) || true
        [[ $state != running && $state != degraded ]] || break
        sleep 0.1
    done
    [[ $state == running ]] || fail "systemd does not come up: ${state:-nothing} $(cat "$work/console")"
    say "$(on_machine systemctl --version | head -n 1) as process 1, of which $(on_machine systemd-detect-virt) is known"
}

# Process 1 of a machine of its own. It is no stranger to containers: what it leaves to those that run it is done here.
machine() {
    local root=$work/root device
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    # The settings of the kernel are those of this machine, too.
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root"/dev/{pts,shm}
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    cd "$root"
    mkdir -p mnt/old
    pivot_root . mnt/old
    umount --lazy /mnt/old
    exec env -i container=cascade-check PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-syslog \
        /lib/systemd/systemd --unit=multi-user.target
}

# Stops it as who turns a machine off does, and sees that nothing takes its time.
off() {
    local begin=$EPOCHREALTIME
    on_machine systemctl poweroff --no-wall 2>/dev/null || true
    for ((n = 0; n < 200; n++)); do
        kill -0 $console 2>/dev/null || break
        sleep 0.1
    done
    ! kill -0 $console 2>/dev/null || fail "systemd does not end: $(cat "$work/console")"
    wait $console || true
    awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { printf "off, after %.1f s\n", end - begin }'
}

case ${1:?names the package} in
inside | machine | forget) "$@" ;;
*) outside "$@" ;;
esac
