# shellcheck shell=bash
# Postgres: one cluster, its superuser, password and database all called holdfast, on 127.0.0.1 only.
#
# Postgres refuses to run as root, so root hands it to the user that Debian's package made. That user must reach the data:
# when the state lies in a folder closed to others, the data goes under /var/tmp and $STATE/postgres/data is a link to it.

PG_OWNER=postgres

postgres_endpoint() { echo "postgres://holdfast:holdfast@127.0.0.1:$POSTGRES_PORT/holdfast"; }

# postgres_bin: the folder of the binaries: the version that wrote the data, else the newest.
postgres_bin() {
    local version found
    version=$(cat "$STATE/postgres/data/cluster/PG_VERSION" 2>/dev/null) || version='*'
    found=$(compgen -G "/usr/lib/postgresql/$version/bin/postgres" | sort -V | tail -n 1)
    [[ -n $found ]] || found=$(command -v postgres) || return 1
    dirname -- "$found"
}

# as_postgres <command...>: runs it as a user whom Postgres accepts. Replaces no shell, keeps the pid (setpriv execs).
as_postgres=()
if ((EUID == 0)); then as_postgres=(setpriv --reuid="$PG_OWNER" --regid="$PG_OWNER" --init-groups); fi

postgres_ready() { PGPASSWORD=holdfast PGCONNECT_TIMEOUT=5 "$(postgres_bin)/psql" -h 127.0.0.1 -p "$POSTGRES_PORT" -U holdfast -d postgres -XAtqc 'select 1'; }

postgres_start() {
    local bin data
    bin=$(postgres_bin) || die "Postgres is not installed, or not the version that wrote $STATE/postgres" "infra/services.sh install"
    need_free "$POSTGRES_PORT" HOLDFAST_POSTGRES_PORT postgres
    postgres_home
    data=$(realpath -- "$STATE/postgres/data")
    [[ -d $data/cluster ]] || postgres_init "$bin" "$data"
    postgres_forget_dead "$data/cluster"
    daemon postgres env -C / "${as_postgres[@]}" "$bin/postgres" -D "$data/cluster" -c port="$POSTGRES_PORT" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200
}

postgres_furnish() {
    local psql=("$(postgres_bin)/psql" -h 127.0.0.1 -p "$POSTGRES_PORT" -U holdfast -d postgres -XAtq)
    [[ $(PGPASSWORD=holdfast "${psql[@]}" -c "select 1 from pg_database where datname = 'holdfast'") == 1 ]] ||
        PGPASSWORD=holdfast "${psql[@]}" -c 'create database holdfast' >>"$LOGS/postgres.log" 2>&1 || give_up postgres
    PGPASSWORD=holdfast "${psql[@]}" -v ON_ERROR_STOP=1 -f "$INFRA/postgres/roles.sql" >>"$LOGS/postgres.log" 2>&1 ||
        die "postgres refuses infra/postgres/roles.sql" "the whole log: $LOGS/postgres.log"
}

# SIGINT is Postgres' fast shutdown: clients are cut off, everything is written. SIGTERM would wait for the clients.
postgres_stop() { end postgres INT 30; }

# postgres_spare: where the data goes when the state is out of reach; keyed by the state, so that each has its own.
postgres_spare() { echo "/var/tmp/holdfast-$(printf '%s' "$STATE" | sha256sum | cut -c1-12)-postgres"; }

# postgres_home: makes $STATE/postgres/data, a folder or a link to one, that the user can write.
postgres_home() {
    local home=$STATE/postgres spare
    mkdir -p -- "$home"
    [[ -e $home/data ]] && return
    rm -f -- "$home/data" # A link that leads nowhere any more.
    if ((EUID != 0)); then
        mkdir -m 700 -- "$home/data"
        return
    fi
    id -u "$PG_OWNER" >/dev/null 2>&1 || die "no user $PG_OWNER to run Postgres, which refuses root" \
        "Debian's postgresql-15 makes it: infra/services.sh install"
    install -d -m 700 -o "$PG_OWNER" -g "$PG_OWNER" -- "$home/data"
    env -C / "${as_postgres[@]}" test -w "$home/data" && return
    rmdir -- "$home/data"
    spare=$(postgres_spare)
    if [[ -e $spare || -L $spare ]]; then
        # Left by a state of this path that was deleted by hand. Nobody can have wanted its rows without its log.
        postgres_own_spare "$spare" || die "$spare is in the way: not a folder of user $PG_OWNER" "look at it, and remove it"
        rm -rf -- "$spare"
    fi
    install -d -m 700 -o "$PG_OWNER" -g "$PG_OWNER" -- "$spare"
    ln -s -- "$spare" "$home/data"
    say "postgres keeps its data in $spare, because user $PG_OWNER cannot reach $STATE"
}

postgres_own_spare() { [[ -d $1 && ! -L $1 && $(stat -c %U -- "$1") == "$PG_OWNER" ]]; }

# postgres_init <bin> <data>: under another name first, so that a cut-off initdb leaves nothing that looks finished.
postgres_init() {
    local bin=$1 data=$2 secret made=yes
    secret=$(mktemp /var/tmp/holdfast-secret.XXXXXX)
    echo holdfast >"$secret"
    if ((EUID == 0)); then chown "$PG_OWNER" "$secret"; fi
    rm -rf -- "$data/new"
    # --no-sync is for the empty cluster only: what it serves later is synced as always.
    env -C / "${as_postgres[@]}" "$bin/initdb" -D "$data/new" -U holdfast --pwfile="$secret" --auth=scram-sha-256 \
        -E UTF8 --locale=C.UTF-8 --no-sync >>"$LOGS/postgres.log" 2>&1 || made=no
    rm -f -- "$secret"
    [[ $made == yes ]] || give_up postgres
    mv -- "$data/new" "$data/cluster"
}

# postgres_forget_dead <data>: after SIGKILL or a reboot the lock file may name a pid that another Postgres has now.
postgres_forget_dead() {
    local pid
    pid=$(head -n 1 -- "$1/postmaster.pid" 2>/dev/null) || return 0
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "$1" || rm -f -- "$1/postmaster.pid"
}

postgres_wipe() {
    local spare
    spare=$(postgres_spare)
    [[ ! -e $spare ]] || ! postgres_own_spare "$spare" || rm -rf -- "$spare"
}
