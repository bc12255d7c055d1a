#!/usr/bin/env bash
# The engines under Holdfast: Kafka, schema registry, Redis, Postgres, as local processes or as containers.
#
#   infra/services.sh install | start | stop | kill | restart | status | wipe [--dist] | env   [kafka] [registry] [redis] [postgres] [stripe]
#
# stripe is the local stand-in (PyPI's localstripe): a native process, whatever the others are.
#
# Containers (infra/compose.yaml) where a Docker engine answers, else native processes; HOLDFAST_NATIVE=1 forces native.
# State, logs and pids are under HOLDFAST_STATE (default <repository>/.holdfast), so several sets can run side by side.
set -euo pipefail

# shellcheck source=infra/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=infra/install.sh
source "$INFRA/install.sh"
# shellcheck source=infra/docker.sh
source "$INFRA/docker.sh"
for service in kafka registry redis postgres stripe; do
    # shellcheck source=/dev/null
    source "$INFRA/$service/service.sh"
done

ALL=(kafka registry redis postgres stripe) # In the order of their needs: the registry keeps its schemas in Kafka.

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    cat <<EOF

  install   fetch what is missing: Debian packages, Stripe's stand-in from PyPI; native only: Kafka and the registry from Maven Central
  start     start and wait until ready; what already runs is left alone, and data is kept
  stop      ask to stop, then kill          kill      SIGKILL at once, to see it come back
  status    who runs where; exit 1 unless all run
  wipe      stop all and delete their state (--dist: also what install fetched)
  env       shell exports of the endpoints, as the holdfast binary reads them

  ports     HOLDFAST_KAFKA_PORT=$KAFKA_PORT HOLDFAST_KAFKA_CONTROLLER_PORT=$KAFKA_CONTROLLER_PORT HOLDFAST_REGISTRY_PORT=$REGISTRY_PORT
            HOLDFAST_REDIS_PORT=$REDIS_PORT HOLDFAST_POSTGRES_PORT=$POSTGRES_PORT HOLDFAST_STRIPE_PORT=$STRIPE_PORT
  state     HOLDFAST_STATE=$STATE
  fetched   HOLDFAST_DIST=$DIST
EOF
}

# One command at a time on one state: two starts at once would start everything twice.
lock() {
    mkdir -p -- "$STATE" "$LOGS" "$PIDS" "$DIST"
    exec 9>"$STATE/.lock"
    flock -n 9 && return
    say "another services.sh works on $STATE: waiting for it"
    flock -w 600 9 || die "still locked after 10 minutes: $STATE/.lock"
}

start_one() {
    local service=$1 begun pid
    begun=$(now_ms)
    if pid=$(pid_of "$service"); then
        # It may have been started a moment ago by somebody who did not wait.
        await "$service" "$service" "${service}_ready" || give_up "$service"
        furnish "$service" # Older than this repository's newest users, perhaps.
        ok "$service already runs ($("${service}_endpoint"), pid $pid)"
        return
    fi
    "${service}_start"
    await "$service" "$service" "${service}_ready" || give_up "$service"
    furnish "$service"
    ok "$service ready on $("${service}_endpoint") ($(seconds_since "$begun"))"
}

# furnish <service>: what must be in it once it answers; again at every start, so that kept data and old processes have it too.
furnish() { if declare -F "$1_furnish" >/dev/null; then "$1_furnish"; fi; }

# give_up <service>: it did not come up, so say what it said, and leave nothing half-started.
give_up() {
    end "$1" KILL 10
    log_tail "$LOGS/$1.log" 25
    die "$1 did not start" "the whole log: $LOGS/$1.log" \
        "try again: infra/services.sh start $1; or from nothing, which deletes the data of all services: infra/services.sh wipe"
}

stop_one() {
    local service=$1 begun
    begun=$(now_ms)
    if ! pid_of "$service" >/dev/null; then
        rm -f -- "$PIDS/$service"
        return
    fi
    "${service}_stop"
    ok "$service stopped ($(seconds_since "$begun"))"
}

kill_one() {
    local service=$1 pid child children=()
    pid=$(pid_of "$service") || { warn "$service does not run"; return 0; }
    # Postgres' backends outlive their killed parent for a moment, and a restart would trip over them.
    local family=("$pid")
    read -ra children 2>/dev/null <"/proc/$pid/task/$pid/children" || true
    family+=("${children[@]}")
    kill -KILL "${family[@]}" 2>/dev/null || true
    for child in "${family[@]}"; do await_end "$child" 10 || warn "pid $child of $service still there after SIGKILL"; done
    rm -f -- "$PIDS/$service"
    ok "$service killed (pid $pid)"
}

status_one() {
    local service=$1 pid
    if ! pid=$(pid_of "$service"); then
        printf '%-9s stopped\n' "$service"
        return 1
    elif "${service}_ready" >/dev/null 2>&1; then
        printf '%-9s ready      %-45s pid %s\n' "$service" "$("${service}_endpoint")" "$pid"
    else
        printf '%-9s not ready  %-45s pid %s, log %s\n' "$service" "$("${service}_endpoint")" "$pid" "$LOGS/$service.log"
        return 1
    fi
}

wipe() {
    local everything=$1 part
    ! pid_of holdfast >/dev/null || die "holdfast still runs on $STATE" "./run --stop, or all at once: ./run --wipe"
    postgres_wipe
    # Not the whole folder: HOLDFAST_STATE may name one that holds other things too, and dist usually lies in it.
    for part in kafka registry redis postgres stripe logs pids engine .lock; do rm -rf -- "${STATE:?}/$part"; done
    if [[ $everything == yes ]]; then rm -rf -- "$DIST"; fi
    rmdir -- "$STATE" 2>/dev/null || true
    ok "state deleted: $STATE"
}

# Each service as itself (infra/postgres/roles.sql, infra/redis/redis.conf); the URLs above are the administrator's.
print_logins() {
    local service
    for service in ingress reserver persister expirer checkout fulfiller console; do
        echo "export HOLDFAST_${service^^}_POSTGRES_LOGIN=holdfast_$service:holdfast_$service"
    done
    for service in reserver expirer; do
        echo "export HOLDFAST_${service^^}_REDIS_LOGIN=holdfast_$service:holdfast_$service"
    done
}

print_env() {
    cat <<EOF
export HOLDFAST_KAFKA_BROKERS=127.0.0.1:$KAFKA_PORT
export HOLDFAST_REGISTRY_URL=http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7
export HOLDFAST_REDIS_URL=redis://127.0.0.1:$REDIS_PORT
export HOLDFAST_POSTGRES_URL=postgres://holdfast:holdfast@127.0.0.1:$POSTGRES_PORT/holdfast
$(print_logins)
export HOLDFAST_STRIPE_URL=${HOLDFAST_STRIPE_URL:-http://127.0.0.1:$STRIPE_PORT}
export STRIPE_WEBHOOK_SECRET=${STRIPE_WEBHOOK_SECRET:-whsec_holdfast_local}
EOF
}

main() {
    local command=${1:-help} dist=no services=() argument index service failed=0
    : "${HOLDFAST_COMMAND:=infra/services.sh $*}" # What the hints tell the user to type.
    shift || true
    for argument in "$@"; do
        case $argument in
        kafka | registry | redis | postgres | stripe) services+=("$argument") ;;
        --dist) [[ $command == wipe ]] || die "--dist goes with wipe"; dist=yes ;;
        *) die "unknown service: $argument" "services: ${ALL[*]}" ;;
        esac
    done
    ((${#services[@]})) || services=("${ALL[@]}")

    case $command in
    env) print_env; return ;;
    help | -h | --help) usage; return ;;
    install | start | stop | kill | restart | status | wipe) ;;
    *) usage >&2; die "unknown command: $command" ;;
    esac

    [[ $command == status ]] || lock
    local engine
    engine=$(choose_engine "$command") || exit 1
    if [[ $engine == docker && $command != install ]]; then
        on_docker "$command" "$dist" "${services[@]}"
        return
    fi
    case $command in
    install) install_all "$engine" ;;
    start)
        echo native >"$STATE/engine"
        for service in "${services[@]}"; do start_one "$service"; done
        ;;
    stop | kill | restart | wipe)
        [[ $command != wipe ]] || services=("${ALL[@]}")
        # Backwards: who needs another service stops before it.
        for ((index = ${#services[@]} - 1; index >= 0; index--)); do
            if [[ $command == kill ]]; then kill_one "${services[index]}"; else stop_one "${services[index]}"; fi
        done
        [[ $command != wipe ]] || wipe "$dist"
        if [[ $command == restart ]]; then for service in "${services[@]}"; do start_one "$service"; done; fi
        ;;
    status)
        for service in "${services[@]}"; do status_one "$service" || failed=1; done
        return $failed
        ;;
    esac
}

main "$@"
