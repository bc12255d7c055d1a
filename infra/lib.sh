# shellcheck shell=bash disable=SC2034 # Its variables are for those who source it.
# What ./run, ./test and infra/services.sh share: where things are, how progress looks, processes by pid file.
#
# Sourced, never run. Sets paths and ports from HOLDFAST_* with their defaults; starts nothing by itself.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
INFRA=$ROOT/infra
STATE=$(realpath -m -- "${HOLDFAST_STATE:-$ROOT/.holdfast}")
DIST=$(realpath -m -- "${HOLDFAST_DIST:-$ROOT/.holdfast/dist}")
LOGS=$STATE/logs
PIDS=$STATE/pids

KAFKA_PORT=${HOLDFAST_KAFKA_PORT:-19092}
KAFKA_CONTROLLER_PORT=${HOLDFAST_KAFKA_CONTROLLER_PORT:-19093}
REGISTRY_PORT=${HOLDFAST_REGISTRY_PORT:-18081}
REDIS_PORT=${HOLDFAST_REDIS_PORT:-16379}
POSTGRES_PORT=${HOLDFAST_POSTGRES_PORT:-15432}
STRIPE_PORT=${HOLDFAST_STRIPE_PORT:-18420}
START_TIMEOUT_S=${HOLDFAST_START_TIMEOUT:-180}

# ---- what the user sees -------------------------------------------------------------------------

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    GREEN=$'\e[32m' RED=$'\e[31m' YELLOW=$'\e[33m' DIM=$'\e[2m' PLAIN=$'\e[0m'
else
    GREEN='' RED='' YELLOW='' DIM='' PLAIN=''
fi

now_ms() { local t=${EPOCHREALTIME//[.,]/}; echo $((t / 1000)); }

# seconds_since <start in ms>: "2.4 s", because a step that took long should say so.
seconds_since() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

ok() { printf '%s✓%s %s\n' "$GREEN" "$PLAIN" "$*"; }
say() { printf '%s…%s %s\n' "$DIM" "$PLAIN" "$*"; }
warn() { printf '%s!%s %s\n' "$YELLOW" "$PLAIN" "$*" >&2; }
fail() { printf '%s✗%s %s\n' "$RED" "$PLAIN" "$*" >&2; }
hint() { printf '  → %s\n' "$*" >&2; }
die() {
    fail "$1"
    shift
    local line
    for line in "$@"; do hint "$line"; done
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# log_tail <file>: the last lines of a log, indented, on stderr.
log_tail() {
    [[ -s $1 ]] || return 0
    printf '  last lines of %s:\n' "$1" >&2
    tail -n "${2:-15}" -- "$1" | cut -c1-300 | sed 's/^/  │ /' >&2
}

# ticking <what> <log> <command...>: runs a slow, silent command with its output in the log, and shows that time passes.
ticking() {
    local what=$1 log=$2 begun pid waited=0
    shift 2
    begun=$(now_ms)
    mkdir -p -- "$(dirname "$log")"
    "$@" >>"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        waited=$((waited + 1))
        ((waited % 50 == 0)) && say "$what: $(seconds_since "$begun")"
    done
    if wait "$pid"; then
        ok "$what ($(seconds_since "$begun"))"
    else
        fail "$what failed after $(seconds_since "$begun")"
        log_tail "$log" 25
        return 1
    fi
}

# ---- processes ----------------------------------------------------------------------------------
# A pid file holds "pid start-time": a pid alone may by now belong to somebody else, who must not be killed.

# start_time <pid>: the kernel's start time of a live process; fails for a dead one and for a zombie.
start_time() {
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra fields <<<"${stat##*) }" # The name in parentheses may hold blanks.
    # A killed JVM is a zombie at once, but its other threads hold the ports for a moment longer.
    [[ ${fields[0]} != [ZX] || ${fields[17]} -gt 1 ]] || return 1
    echo "${fields[19]}"
}

# pid_of <name>: the pid of our running process of that name; fails when it does not run.
pid_of() {
    local pid started
    { read -r pid started <"$PIDS/$1"; } 2>/dev/null || return 1
    [[ -n $pid && $(start_time "$pid") == "$started" ]] || return 1
    echo "$pid"
}

# daemon <name> <command...>: starts it detached from this terminal, log in $LOGS/<name>.log, pid in $PIDS/<name>.
daemon() {
    local name=$1 pid
    shift
    mkdir -p -- "$LOGS" "$PIDS"
    # One old log is kept; the disk of a machine that runs this for months is not ours to fill.
    [[ $(stat -c %s -- "$LOGS/$name.log" 2>/dev/null || echo 0) -lt 20000000 ]] || mv -f -- "$LOGS/$name.log" "$LOGS/$name.log.1"
    # Descriptors 8 and 9 are our locks: a daemon that kept one would hold it for its whole life.
    setsid "$@" </dev/null >>"$LOGS/$name.log" 2>&1 8>&- 9>&- &
    pid=$!
    echo "$pid $(start_time "$pid" || echo gone)" >"$PIDS/$name"
}

# await_end <pid> <seconds>: true once the process is gone.
await_end() {
    local pid=$1 tries=$(($2 * 20)) started
    started=$(start_time "$pid") || return 0
    while ((tries-- > 0)); do
        [[ $(start_time "$pid") == "$started" ]] || return 0
        sleep 0.05
    done
    return 1
}

# end <name> <signal> <seconds>: asks the process to stop, waits, then kills it. Quiet when it does not run.
end() {
    local name=$1 signal=$2 patience=$3 pid
    if pid=$(pid_of "$name"); then
        kill "-$signal" "$pid" 2>/dev/null || true
        if ! await_end "$pid" "$patience"; then
            warn "$name (pid $pid) did not stop within $patience s after SIG$signal: killing it"
            kill -KILL "$pid" 2>/dev/null || true
            await_end "$pid" 10 || die "$name (pid $pid) survives SIGKILL: it hangs in the kernel (disk full or gone?)"
        fi
    fi
    rm -f -- "$PIDS/$name"
}

# ---- ports --------------------------------------------------------------------------------------

# listener <port>: "pid (command)" of whoever listens on a TCP port here, "another process" if hidden; fails when it is free.
listener() {
    local hex inode fd pid
    hex=$(printf ':%04X' "$1")
    inode=$(awk -v port="$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10; exit }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    [[ -n $inode ]] || return 1
    fd=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print -quit 2>/dev/null) || true
    [[ -n $fd ]] || { echo "a process that is hidden from here"; return 0; }
    pid=${fd#/proc/} pid=${pid%%/*}
    echo "pid $pid ($({ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | cut -c1-80 | sed 's/ *$//'))"
}

# need_free <port> <variable that sets it> <what for>: dies when somebody else has the port.
need_free() {
    local who tries=30 other=$(($1 + 1000))
    # A moment of patience: what was killed just now may not have let go yet.
    while who=$(listener "$1"); do
        ((tries-- > 0)) && sleep 0.1 && continue
        [[ $2 != *_ADDR ]] || other=127.0.0.1:$other
        die "$3 needs port $1, which is taken by $who" \
            "stop that process, or choose another port: $2=$other ${HOLDFAST_COMMAND:-$0}"
    done
}

# await <what> <pid name or -> <command...>: until the command succeeds, the process dies, or the time is up.
await() {
    local what=$1 name=$2 begun said=0 elapsed
    shift 2
    begun=$(now_ms)
    until "$@" >/dev/null 2>&1; do
        elapsed=$((($(now_ms) - begun) / 1000))
        if [[ $name != - ]] && ! pid_of "$name" >/dev/null; then
            fail "$what ended while starting"
            return 1
        fi
        if ((elapsed >= START_TIMEOUT_S)); then
            fail "$what is not ready after $elapsed s"
            return 1
        fi
        ((elapsed >= said + 10)) && said=$elapsed && say "waiting for $what: $elapsed s"
        sleep 0.1
    done
}
