#!/bin/bash
# What the units promise, seen where systemd runs them: machine.sh calls it there, as root, once after each boot.
set -Eeuo pipefail
# What fails without a word of its own.
trap 'printf "systemd: line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR

. /root/common.sh
tracker=127.0.0.1:8888
group=/sys/fs/cgroup/system.slice
state=/var/lib/cascade
cd /root

listed() { [[ -n $(cascade list -t "${1:-$tracker}" data.cascade) ]]; }
got() { cmp -s data "$state/data"; }
# A peer that has the file, and is no service.
seed() {
    cascade peer -t "${1:-$tracker}" -l 127.0.0.1:9001 data.cascade >seed.log 2>&1 &
    seed=$!
    await "the tracker knows the first peer" listed "${1:-$tracker}"
}
unseed() {
    kill $seed
    wait $seed || fail "the first peer has failed: $(cat seed.log)"
}
# The state of a process, from /proc.
field() { sed -n "s/^$2:\t//p" "/proc/$1/status"; }

activation() {
    [[ $(systemctl is-active cascade-tracker.socket) == active ]] || fail "the socket that is enabled is not there"
    is tracker ActiveState inactive || fail "the tracker runs before somebody wants it"
    cascade list -t $tracker data.cascade 2>error || true
    grep -q '^cascade: no peer is registered for ' error || fail "the first connection is not served: $(cat error)"
    is tracker ActiveState active || fail "nobody has started the tracker"
    says tracker '^listening on .*:8888$' || fail "it listens somewhere else: $(log tracker)"
    ok "the first connection starts the tracker, and is served"
}

# As much as without systemd: all that this kernel offers.
confinement() {
    local alone kind pid child
    alone=$(timeout --signal TERM 1 cascade tracker --open -l 127.0.0.1:0 2>&1 >/dev/null || true)
    alone=$(grep -m 1 -o 'sandbox: .*' <<<"$alone")
    for kind in tracker peer; do
        grep -qxF "$alone" <<<"$(log $kind)" || fail "the $kind confines itself otherwise than alone ($alone): $(log $kind)"
        pid=$(main $kind)
        for child in $(cat "$group/cascade-$kind.service/cgroup.procs"); do
            [[ $(field "$child" CapBnd)$(field "$child" CapEff)$(field "$child" CapPrm) =~ ^0+$ ]] || fail "$child has capabilities"
            [[ $(field "$child" NoNewPrivs) == 1 && $(field "$child" Seccomp) == 2 ]] || fail "$child has no filter"
            [[ $(field "$child" Uid) != 0* ]] || fail "$child is root"
        done
    done
    ok "$alone"
    ok "and they do so where systemd has taken all capabilities and filters calls"
}

# What systemd refuses them is refused: a program is run where the tracker will be.
refusals() {
    cat >/usr/local/bin/probe <<'PERL'
#!/usr/bin/perl
use Errno; use POSIX ();
sub refused { my ($what, $error, $result) = @_;
    my $is = $! + 0; die "$what is not refused\n" if $result; die "$what: $!\n" if $error && $is != $error; }
refused('mount', Errno::EPERM, syscall(165, 0, 0, 0, 0, 0) == 0);
refused('unshare', Errno::EPERM, syscall(272, 0x10000000) == 0);
refused('ptrace', Errno::EPERM, syscall(101, 0, 0, 0, 0) == 0);
# By a filter, or by the kernel itself: the errors differ.
refused('memory to write and execute', 0, syscall(9, 0, 4096, 7, 0x22, -1, 0) != -1);
refused('a packet socket', Errno::EAFNOSUPPORT, syscall(41, 17, 3, 0) != -1);
refused('writing to /usr', Errno::EROFS, open(my $usr, '>', '/usr/x'));
refused('writing to /etc', Errno::EROFS, open(my $etc, '>', '/etc/x'));
refused('reading what is root\'s', Errno::EACCES, opendir(my $root, '/root'));
refused('a program as another user', Errno::EPERM, open(my $file, '>', '/tmp/x') && chmod(04755, '/tmp/x'));
die "other processes are seen\n" if -e '/proc/1';
PERL
    chmod +x /usr/local/bin/probe
    override tracker probe ExecStartPre=/usr/local/bin/probe
    systemctl restart cascade-tracker 2>/dev/null || fail "not all is refused: $(log tracker)"
    plain tracker probe
    ok "what they must not do, they cannot"
}

transfer() {
    seed
    systemctl start cascade-peer
    install -m 644 data.cascade $state
    systemctl reload cascade-peer
    await "the peer has downloaded the file" got
    await "the status says so" is peer StatusText "$(property cascade-peer StatusText | sed 's/files: .*/files: 1, 1 complete/')"
    unseed
    rm -rf copy
    mkdir copy
    cascade get -t $tracker --no-serve -o copy/data "$(hash)" >/dev/null 2>error || fail "cannot get it: $(cat error)"
    cmp data copy/data || fail "the peer serves something else"
    ok "the peer downloads what is put into $state, and serves it; status: $(property cascade-peer StatusText)"
}
hash() { cascade info data.cascade | sed -n 's/^hash: *//p'; }

journal() {
    local entry
    journalctl --sync
    entry=$(journalctl --unit cascade-tracker --output json --lines 1 --grep '^listening on')
    grep -q '"PRIORITY":"6"' <<<"$entry" && grep -q '"SYSLOG_IDENTIFIER":"cascade"' <<<"$entry" || fail "in the journal: $entry"
    [[ $(journalctl --unit cascade-tracker --priority err --output cat) == *"no option 'nonsense'"* ]] ||
        fail "an error is none in the journal"
    ok "the journal knows what is an error"
}

reload() {
    local kind pid told
    for kind in tracker peer; do
        pid=$(main $kind)
        systemctl log-level debug
        systemctl reload cascade-$kind || fail "the $kind does not look at its configuration again"
        told=
        for line in RELOADING=1 READY=1; do
            await "systemd hears $line" grep_journal "Got notification message from PID $pid.*$line"
            told+=" $line"
        done
        systemctl log-level info
        await "the $kind is ready again" is $kind ActiveState active
        configure $kind 'nonsense = 1'
        ! systemctl reload cascade-$kind 2>/dev/null || fail "a configuration that is wrong is taken"
        says $kind "there is no option 'nonsense'" || fail "nobody is told what is wrong: $(log $kind)"
        is $kind ActiveState active && is $kind MainPID "$pid" || fail "a reload that failed has ended the $kind"
        ! systemctl restart cascade-$kind 2>/dev/null || fail "the $kind starts whatever its configuration is"
        is $kind ActiveState failed && is $kind NRestarts 0 || fail "a configuration that is wrong is tried again"
        configure $kind
        systemctl reset-failed cascade-$kind
        systemctl start cascade-$kind
        ok "$kind: reload ($told ), and one of a configuration that is wrong, which changes nothing"
    done
}
grep_journal() { journalctl --sync; journalctl --boot --output cat --grep "$1"; }

nobody_is_refused() {
    local count=0
    (for ((i = 0; i < 3; i++)); do systemctl restart cascade-tracker; sleep 0.3; done) &
    while kill -0 $! 2>/dev/null; do
        listed >/dev/null || fail "somebody was refused while the tracker was started again"
        count=$((count + 1))
    done
    ok "while the tracker was started again thrice, $count clients asked, and each had its answer from the saved state"
}

hangs_and_crashes() {
    local kind pid
    for kind in tracker peer; do
        override $kind watchdog WatchdogSec=4
        systemctl restart cascade-$kind
        pid=$(main $kind)
        kill -STOP "$pid"
        await "a $kind that hangs is started again" is $kind NRestarts 1
        await "it runs" is $kind ActiveState active
        grep_journal "cascade-$kind.service: Watchdog timeout" >/dev/null || fail "it was not the watchdog"
        await "$kind: the old process is gone" test ! -e "/proc/$pid"
        plain $kind watchdog
        systemctl restart cascade-$kind
        kill -KILL "$(main $kind)"
        await "a $kind that crashed is started again" is $kind NRestarts 1
        await "it runs" is $kind ActiveState active
        ok "$kind: started again when it hangs, and when it was killed"
    done
    await "the tracker knows the peer" listed
}

# What a tracker needs is not there, and then it is; a client waits at its socket meanwhile.
needs_come_late() {
    configure tracker "files = ['/srv/late.cascade']"
    systemctl restart cascade-tracker 2>/dev/null && fail "it runs without what it needs"
    sleep 12
    listed >late.log 2>&1 &
    sleep 1
    cp data.cascade /srv/late.cascade
    wait $! || true
    await "it has come up" is tracker ActiveState active
    systemctl is-active cascade-tracker.socket >/dev/null || fail "its socket is gone"
    await "the tracker knows the peer" listed
    ok "a tracker is started when what it needs has come: tries: $(property cascade-tracker NRestarts)"
    configure tracker
    rm /srv/late.cascade
    systemctl restart cascade-tracker
}

# The user of a service may have another number the next time.
other_user() {
    local kind
    stop peer >/dev/null
    systemctl stop cascade-tracker.socket
    stop tracker >/dev/null
    echo 'other:x:61999:61999::/:/bin/false' >>/etc/passwd
    chown -R 61999:61999 /var/lib/private/cascade /var/lib/private/cascade-tracker
    systemctl start cascade-tracker.socket cascade-tracker cascade-peer
    await "the tracker knows the peer" listed
    [[ $(property cascade-peer StatusText) == *'files: 1, 1 complete' ]] || fail "what it had is lost: $(log peer)"
    [[ $(stat -c %u $state/data) == "$(field "$(main peer)" Uid | cut -f 1)" ]] || fail "it is not the peer's"
    ok "what they have survives a change of their users"
}

# Where a call that systemd's filter refuses is the end of the process, so that none goes unseen.
models() {
    local model kind page stops
    for kind in tracker peer; do override $kind strict SystemCallErrorNumber=kill "RuntimeDirectory=cascade-$kind"; done
    for model in iterative process thread prethread event prefork; do
        systemctl reset-failed
        stop peer >/dev/null
        rm -f $state/data
        configure tracker "model = '$model'" "sandbox = 'require'" "control = '/run/cascade-tracker/control'" "http = '127.0.0.1:9100'"
        configure peer "model = '$model'" "sandbox = 'require'" "control = '/run/cascade-peer/control'" \
            "upload-limit = '200MiB'" "upload-slots = 4" "exec = 'echo have \$CASCADE_FILE'"
        systemctl restart cascade-tracker
        seed
        systemctl start cascade-peer
        await "$model: the peer has downloaded the file" got
        await "$model: the command has run" says peer "^have $state/data$"
        unseed
        rm -f copy/data
        cascade get -t $tracker --no-serve -o copy/data "$(hash)" >/dev/null 2>error || fail "$model: cannot get it: $(cat error)"
        cmp data copy/data || fail "$model: the peer serves something else"
        for kind in tracker peer; do
            grep -q '"crashed":0' <<<"$(cascade status --json /run/cascade-$kind/control)" || fail "$model: the $kind crashed"
        done
        exec 3<>/dev/tcp/127.0.0.1/9100
        printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
        page=$(cat <&3)
        exec 3>&-
        grep -q '^cascade_build_info{role="tracker"' <<<"$page" || fail "$model: no metrics but $page"
        stops="$(stop peer) ms, tracker $(stop tracker) ms"
        for kind in tracker peer; do
            ! says $kind 'SIGSYS|Bad system call|signal 31' || fail "$model: a call was refused: $(log $kind)"
        done
        ok "$model: transfers, exec, status, metrics; peer stopped after $stops"
        systemctl start cascade-peer
    done
    for kind in tracker peer; do plain $kind strict && configure $kind; done
    systemctl restart cascade-tracker cascade-peer
}

# A client that does not read what it asked for is waited for, but not longer than the configuration says.
slow_client() {
    local took
    configure peer "grace = '2s'"
    systemctl restart cascade-peer
    perl -MIO::Socket::INET -e '
        my $peer = IO::Socket::INET->new("127.0.0.1:8889") or die $!;
        print $peer pack("a8x16Q>H64", "CASCADE1", 0, $ARGV[0]); $peer->flush; sysread($peer, my $bytes, 9); sleep 60' "$(hash)" &
    await "it has a connection" test "$(main peer)" != 0
    sleep 0.5
    took=$(stop peer)
    kill $! && wait $! || true
    ((took >= 1500 && took < 20000)) || fail "a peer with 2 seconds for its transfers has stopped after $took ms"
    configure peer
    systemctl start cascade-peer
    ok "a peer that still sends, and has 2 s for that: stopped after $took ms"
}

low_port() {
    await "the tracker knows the peer" listed
    mkdir -p /etc/systemd/system/cascade-tracker.socket.d
    printf '%s\n' '[Socket]' ListenStream= ListenStream=80 >/etc/systemd/system/cascade-tracker.socket.d/port.conf
    sed -i 's/^listen = 8888/# &/' /etc/cascade/tracker.toml
    systemctl daemon-reload
    systemctl stop cascade-tracker.socket cascade-tracker
    systemctl start cascade-tracker.socket
    listed 127.0.0.1:80 >/dev/null || fail "nobody is at port 80: $(log tracker)"
    rm -r /etc/systemd/system/cascade-tracker.socket.d
    configure tracker
    systemctl daemon-reload
    systemctl stop cascade-tracker.socket cascade-tracker
    systemctl start cascade-tracker.socket cascade-tracker
    ok "a socket at port 80, of a tracker without privileges"
}

# A process for each connection, which systemd accepts.
accepted() {
    printf '%s\n' '[Socket]' ListenStream=9500 Accept=yes >/etc/systemd/system/each.socket
    printf '%s\n' '[Service]' 'ExecStart=/usr/bin/cascade tracker --open --state ${STATE_DIRECTORY}/peers --inetd' \
        StandardInput=socket StandardError=journal DynamicUser=yes StateDirectory=each >/etc/systemd/system/each@.service
    systemctl daemon-reload
    systemctl start each.socket
    seed 127.0.0.1:9500
    unseed
    await "no process is left" idle
    [[ $(systemctl show --property NAccepted --value each.socket) -ge 2 ]] || fail "each.socket has accepted nothing"
    systemctl stop each.socket
    rm /etc/systemd/system/each[.@]*
    ok "Accept=yes: a tracker for each connection"
}
idle() { [[ $(systemctl show --property NConnections --value each.socket) == 0 ]]; }

first() {
    head -c 64M /dev/urandom >data
    cascade create -b 32MiB data >/dev/null
    activation
    configure peer "tracker = ['$tracker']"
    cp /etc/cascade/peer.toml peer.toml
    transfer
    confinement
    refusals
    reload
    journal
    nobody_is_refused
    hangs_and_crashes
    needs_come_late
    other_user
    models
    slow_client
    low_port
    accepted
    systemctl enable cascade-tracker cascade-peer 2>/dev/null
    systemctl start cascade-peer
    [[ -z $(systemctl list-units --failed --no-legend) ]] || fail "failed: $(systemctl list-units --failed)"
}

# After another start of the machine, and at the end of the package.
second() {
    local pid left
    for unit in cascade-tracker.socket cascade-tracker cascade-peer; do
        await "$unit, which is enabled, runs" systemctl is-active $unit
    done
    await "the tracker knows the peer" listed
    [[ $(property cascade-peer StatusText) == *'files: 1, 1 complete' ]] || fail "what it had is lost: $(log peer)"
    ! says tracker '/peers: ' || fail "the tracker was stopped before the peer took leave"
    ok "what is enabled runs after another start, and has what it had"
    pid=$(main peer)
    dpkg -i --force-confold ./cascade_*.deb >/dev/null 2>&1
    [[ $(main peer) != "$pid" ]] && is peer ActiveState active && is tracker ActiveState active ||
        fail "the old program runs after its package was replaced"
    ! says tracker '/peers: ' || fail "the tracker was stopped before the peer took leave"
    await "the tracker knows the peer" listed
    dpkg --purge cascade >/dev/null 2>&1
    left=$(cat $group/cascade-*/cgroup.procs 2>/dev/null || true)
    [[ -z $left ]] || fail "processes are left of a package that is gone: $left"
    left=$(find / -xdev -iname '*cascade*' ! -path '/root/*' ! -path "/var/lib/private/cascade*" ! -path $state)
    [[ -z $left ]] || fail "a package that is gone has left $left"
    got || fail "the files of the peer are gone with the package"
    ok "another package: both are started again; none: both are gone, and the peer's files are there"
}

"$1"
