# shellcheck shell=bash
# Redis: the lanes' working state, append-only file in $STATE/redis.

redis_endpoint() { echo "redis://127.0.0.1:$REDIS_PORT"; }

# PONG only once the append-only file is read; before that it answers LOADING.
redis_ready() { [[ $(timeout 5 redis-cli -h 127.0.0.1 -p "$REDIS_PORT" ping 2>/dev/null) == PONG ]]; }

redis_start() {
    have redis-server || die "redis-server is not installed" "infra/services.sh install"
    need_free "$REDIS_PORT" HOLDFAST_REDIS_PORT redis
    mkdir -p -- "$STATE/redis"
    daemon redis redis-server "$INFRA/redis/redis.conf" --bind 127.0.0.1 --port "$REDIS_PORT" --dir "$STATE/redis" --daemonize no
}

# The users of redis.conf, for a process that has read an older one. redis_furnish [client...]: redis-cli, or how to reach one.
redis_furnish() {
    local answers client=("$@")
    ((${#client[@]})) || client=(redis-cli -h 127.0.0.1 -p "$REDIS_PORT")
    answers=$(sed -n 's/^user \(holdfast_[a-z]*\) /ACL SETUSER \1 reset /p' "$INFRA/redis/redis.conf" | "${client[@]}")
    [[ $answers != *ERR* ]] || die "redis refuses a user of infra/redis/redis.conf: $answers"
}

redis_stop() { end redis TERM 15; }
