# shellcheck shell=bash
# The same commands on containers: infra/compose.yaml, one compose project per state folder.

# docker_answers: an engine on this machine, with compose. A remote one would publish its ports elsewhere.
docker_answers() {
    have docker || return 1
    case ${DOCKER_HOST:-unix:} in unix:*) ;; *) return 1 ;; esac
    timeout 10 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

# choose_engine <command>: docker or native. A state stays with the engine that started it, or its data would seem lost.
choose_engine() {
    local command=$1 engine
    if engine=$(cat "$STATE/engine" 2>/dev/null); then
        if [[ $engine == docker && -n ${HOLDFAST_NATIVE:-} && $command != wipe ]]; then
            die "$STATE was started with Docker" "delete it first: HOLDFAST_NATIVE= infra/services.sh wipe"
        elif [[ $engine == docker ]] && ! docker_answers; then
            die "$STATE was started with Docker, which does not answer now" "start the Docker engine" \
                "or give the containers up and go on natively: rm $STATE/engine"
        fi
        echo "$engine"
    elif [[ -z ${HOLDFAST_NATIVE:-} ]] && docker_answers; then
        echo docker
    else
        echo native
    fi
}

docker_compose() {
    HOLDFAST_KAFKA_PORT=$KAFKA_PORT HOLDFAST_REGISTRY_PORT=$REGISTRY_PORT HOLDFAST_REDIS_PORT=$REDIS_PORT \
        HOLDFAST_POSTGRES_PORT=$POSTGRES_PORT \
        docker compose -p "holdfast-$(printf '%s' "$STATE" | sha256sum | cut -c1-12)" -f "$INFRA/compose.yaml" "$@"
}

docker_running() { docker_compose ps --status running --services 2>/dev/null | grep -qx "$1"; }

# need_free_docker <services...>: a taken port is said in our words, before Docker says it in its own.
need_free_docker() {
    local service port
    for service in "$@"; do
        docker_running "$service" && continue
        port=${service^^}_PORT
        need_free "${!port}" "HOLDFAST_$port" "$service"
    done
}

docker_start() {
    local service
    shift
    need_free_docker "$@"
    if [[ ! -e $STATE/engine ]] && ! ticking "container images" "$LOGS/docker.log" docker_compose pull --policy missing; then
        # Nothing is started yet, so nothing is lost by going the other way.
        warn "Docker cannot fetch the images: going on with native processes"
        echo native >"$STATE/engine"
        install_all native
        for service in "$@"; do start_one "$service"; done
        return
    fi
    echo docker >"$STATE/engine"
    if ! ticking "containers: $*" "$LOGS/docker.log" docker_compose up -d --wait --wait-timeout "$START_TIMEOUT_S" "$@"; then
        docker_compose logs --tail 15 "$@" >&2 || true
        die "not all containers became healthy" "the log: $LOGS/docker.log; or go native: infra/services.sh wipe, then HOLDFAST_NATIVE=1"
    fi
    for service in "$@"; do
        furnish_container "$service"
        ok "$service ready on $("${service}_endpoint") (container)"
    done
}

# furnish_container <service>: compose.yaml gives a new cluster its roles; this, one that was made before there were any.
furnish_container() {
    [[ $1 != postgres ]] || docker_compose exec -T postgres psql -h 127.0.0.1 -U holdfast -d holdfast -XAtq -v ON_ERROR_STOP=1 \
        <"$INFRA/postgres/roles.sql" >>"$LOGS/docker.log" 2>&1 || die "postgres refuses infra/postgres/roles.sql" "the log: $LOGS/docker.log"
}

docker_stop() { shift; ticking "containers stop: $*" "$LOGS/docker.log" docker_compose stop -t 30 "$@"; }

docker_kill() { shift; ticking "containers killed: $*" "$LOGS/docker.log" docker_compose kill "$@"; }

docker_restart() { docker_stop "$@" && docker_start "$@"; }

docker_status() {
    shift
    local service failed=0
    for service in "$@"; do
        if docker_running "$service"; then
            printf '%-9s running    %-45s container\n' "$service" "$("${service}_endpoint")"
        else
            printf '%-9s stopped\n' "$service"
            failed=1
        fi
    done
    return $failed
}

docker_wipe() {
    ticking "containers and their volumes" "$LOGS/docker.log" docker_compose down -v --remove-orphans
    wipe "$1"
}

# on_docker <command> <dist> <services...>: containers for the engines. Stripe's stand-in has no image: it is a process here too.
on_docker() {
    local command=$1 dist=$2 service containers=() has_stand_in=no failed=0
    shift 2
    for service in "$@"; do
        if [[ $service == stripe ]]; then has_stand_in=yes; else containers+=("$service"); fi
    done
    case $command in
    wipe) stop_one stripe; docker_wipe "$dist"; return ;;
    status) ((${#containers[@]} == 0)) || docker_status "$dist" "${containers[@]}" || failed=1 ;;
    *) ((${#containers[@]} == 0)) || docker_"$command" "$dist" "${containers[@]}" ;;
    esac
    if [[ $has_stand_in == yes ]]; then
        case $command in
        start | stop | kill) "${command}_one" stripe ;;
        restart) stop_one stripe; start_one stripe ;;
        status) status_one stripe || failed=1 ;;
        esac
    fi
    return $failed
}
