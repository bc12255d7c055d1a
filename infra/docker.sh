# shellcheck shell=bash
# The same commands on containers: infra/compose.yaml, one compose project per state folder.

# docker_answers: an engine on this machine, with compose. A remote one would publish its ports elsewhere.
docker_answers() {
    have docker || return 1
    # The context knows, whether DOCKER_HOST or `docker context use` has chosen it.
    case $(docker context inspect -f '{{.Endpoints.docker.Host}}' 2>/dev/null) in unix:*) ;; *) return 1 ;; esac
    timeout 10 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

# choose_engine <command>: docker or native. A state stays with the engine that started it, or its data would seem lost.
choose_engine() {
    local command=$1 engine
    if engine=$(cat "$STATE/engine" 2>/dev/null); then
        if [[ $engine == docker && -n ${HOLDFAST_NATIVE:-} && $command != wipe ]]; then
            die "$STATE was started with Docker" "go on with Docker: unset HOLDFAST_NATIVE" \
                "or delete its data first: HOLDFAST_NATIVE= infra/services.sh wipe"
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

# PATIENCE_S ends it after that many seconds: its own --wait-timeout does not count the time that one service waits for another.
docker_compose() {
    HOLDFAST_KAFKA_PORT=$KAFKA_PORT HOLDFAST_REGISTRY_PORT=$REGISTRY_PORT HOLDFAST_REDIS_PORT=$REDIS_PORT \
        HOLDFAST_POSTGRES_PORT=$POSTGRES_PORT \
        ${PATIENCE_S:+timeout "$PATIENCE_S"} docker compose -p "holdfast-$(printf '%s' "$STATE" | sha256sum | cut -c1-12)" -f "$INFRA/compose.yaml" "$@"
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

# container_ready <service>: asked from this machine where the means are here with Docker too, else its own health check.
container_ready() {
    case $1 in
    kafka | registry) "$1_ready" >/dev/null 2>&1 ;;
    *) [[ $(container_health "$1") == healthy ]] ;;
    esac
}

container_health() { docker inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{end}}' "$(docker_compose ps -aq "$1")" 2>/dev/null; }

docker_start() {
    local service
    shift
    need_free_docker "$@"
    # The images' users read these, and to them a checkout made under umask 077 is closed.
    chmod a+r -- "$INFRA/redis/redis.conf" "$INFRA/postgres/roles.sql" 2>/dev/null || true
    if [[ ! -e $STATE/engine ]] && ! ticking "container images" "$LOGS/docker.log" docker_compose pull --policy missing; then
        # Nothing is started yet, so nothing is lost by going the other way.
        warn "Docker cannot fetch the images: going on with native processes"
        echo native >"$STATE/engine"
        install_all native
        for service in "$@"; do start_one "$service"; done
        return
    fi
    echo docker >"$STATE/engine"
    if ! PATIENCE_S=$START_TIMEOUT_S ticking "containers: $*" "$LOGS/docker.log" docker_compose up -d --wait "$@"; then
        docker_give_up "$@"
    fi
    for service in "$@"; do
        furnish_container "$service"
        ok "$service ready on $("${service}_endpoint") (container)"
    done
}

# docker_give_up <services...>: what those said that did not come up. They are left as they are, to be looked at.
docker_give_up() {
    local service lines
    for service in "$@"; do
        [[ $(container_health "$service") != healthy ]] || continue
        lines=$(docker logs --tail 15 "$(docker_compose ps -aq "$service")" 2>&1 | cut -c1-300 | sed 's/^/  │ /') || true
        [[ -z $lines ]] || printf '  last lines of %s:\n%s\n' "$service" "$lines" >&2
    done
    die "not all containers became healthy" "the log: $LOGS/docker.log" \
        "a slow machine? HOLDFAST_START_TIMEOUT=600 ${HOLDFAST_COMMAND:-$0}" \
        "or go native, which deletes the data of all services: infra/services.sh wipe, then HOLDFAST_NATIVE=1 ${HOLDFAST_COMMAND:-$0}"
}

# furnish_container <service>: what a new container has from compose.yaml, for data or a process that is older than that.
furnish_container() {
    case $1 in
    postgres)
        docker_compose exec -T postgres psql -h 127.0.0.1 -U holdfast -d holdfast -XAtq -v ON_ERROR_STOP=1 \
            <"$INFRA/postgres/roles.sql" >>"$LOGS/docker.log" 2>&1 || die "postgres refuses infra/postgres/roles.sql" "the log: $LOGS/docker.log"
        ;;
    redis) redis_furnish docker_compose exec -T redis redis-cli ;;
    esac
}

docker_stop() { shift; ticking "containers stop: $*" "$LOGS/docker.log" docker_compose stop -t 30 "$@"; }

docker_kill() {
    local service running=()
    shift
    for service in "$@"; do
        if docker_running "$service"; then running+=("$service"); else warn "$service does not run"; fi
    done
    ((${#running[@]} == 0)) || ticking "containers killed: ${running[*]}" "$LOGS/docker.log" docker_compose kill "${running[@]}"
}

docker_restart() { docker_stop "$@" && docker_start "$@"; }

docker_status() {
    shift
    local service failed=0
    for service in "$@"; do
        if ! docker_running "$service"; then
            printf '%-9s stopped\n' "$service"
            failed=1
        elif container_ready "$service"; then
            printf '%-9s ready      %-45s container\n' "$service" "$("${service}_endpoint")"
        else
            printf '%-9s not ready  %-45s container\n' "$service" "$("${service}_endpoint")"
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
