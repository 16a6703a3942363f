# What checks.sh has to say and to ask about the units. Read by bash.

ok() { printf '%s\n' "$*"; }
fail() { printf 'systemd: %s\n' "$*" >&2; exit 1; }
property() { systemctl show --property "$2" --value "$1"; }
main() { property "cascade-$1" MainPID; }
# All that this start of a unit has logged.
log() { journalctl --sync; journalctl --output cat "_SYSTEMD_INVOCATION_ID=$(property "cascade-$1" InvocationID)"; }
# Waits until a command succeeds; $1 says for what.
await() {
    local what=$1
    shift
    for ((n = 0; n < 200; n++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    fail "$what: not after 20 seconds"
}
is() { [[ $(property "cascade-$1" "$2") == "$3" ]]; }
says() { grep -qE -- "$2" <<<"$(log "$1")"; }
# More settings than the package has, for one unit; systemd reads them.
override() {
    local unit=cascade-$1 name=$2
    shift 2
    mkdir -p "/etc/systemd/system/$unit.service.d"
    printf '%s\n' '[Service]' "$@" >"/etc/systemd/system/$unit.service.d/$name.conf"
    systemctl daemon-reload
}
plain() {
    rm "/etc/systemd/system/cascade-$1.service.d/$2.conf"
    rmdir "/etc/systemd/system/cascade-$1.service.d"
    systemctl daemon-reload
}
# The configuration of the package, with more lines.
configure() {
    local kind=$1
    shift
    [[ -e $kind.toml ]] || cp "/etc/cascade/$kind.toml" "$kind.toml"
    { cat "$kind.toml" && printf '%s\n' "$@"; } >"/etc/cascade/$kind.toml"
}
# Stops a unit, which has ended all of its processes itself, and has not failed; answers after how many milliseconds.
stop() {
    local begin=${EPOCHREALTIME/./} invocation
    invocation=$(property "cascade-$1" InvocationID)
    systemctl stop "cascade-$1.service" 2>/dev/null
    echo $(((${EPOCHREALTIME/./} - begin) / 1000))
    is "$1" Result success || fail "the $1 has not ended well: $(property "cascade-$1" Result)"
    journalctl --sync
    ! journalctl --output cat INVOCATION_ID="$invocation" | grep -F 'Killing process' >&2 || fail "the $1 has left a process"
}
