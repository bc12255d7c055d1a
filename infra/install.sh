# shellcheck shell=bash
# `infra/services.sh install`: fetches what is missing, and nothing else. Under a second when all is there.
#
# In     this machine, Debian's packages, Maven Central, PyPI
# Out    commands on the PATH; $DIST/kafka-<version>/ (jars) and $DIST/registry-<version>/ (unpacked)
# Owns   $DIST; whatever is complete there was moved into place in one step, so its presence is its proof

KAFKA_VERSION=4.1.1
REGISTRY_VERSION=3.0.9 # The newest that runs on Java 17.
KAFKA_HOME=$DIST/kafka-$KAFKA_VERSION
REGISTRY_HOME=$DIST/registry-$REGISTRY_VERSION
KAFKA_POM=$INFRA/kafka/pom.xml

# java_major: 17 from `openjdk version "17.0.15"`; empty without Java.
java_major() { java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p;' | head -n 1; }

# missing_packages <engine>: the Debian packages that bring the commands which are not here.
missing_packages() {
    local wanted=()
    have cc && have c++ && have make || wanted+=(build-essential) # For librdkafka, which cargo builds from source.
    have curl || wanted+=(curl)
    have flock && have setsid || wanted+=(util-linux)
    have kcat || wanted+=(kcat)
    python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
    if [[ $1 == native ]]; then
        have redis-server && have redis-cli || wanted+=(redis-server)
        postgres_bin >/dev/null && have psql || wanted+=(postgresql-15)
    fi
    if [[ -n ${HOLDFAST_TEST:-} ]]; then # Tests look at the console as people do.
        have chromium || wanted+=(chromium)
        have node || wanted+=(nodejs)
        have npm || wanted+=(npm)
        have openssl || wanted+=(openssl) # Tests make certificates.
    fi
    echo "${wanted[@]}"
}

# Debian starts a service as soon as its package is there: a Redis on 6379 and a Postgres on 5432 that nobody asked for.
# So it is told not to during our installation, and those that came with it are not left to start at the next boot.
install_packages() {
    local policy=/usr/sbin/policy-rc.d own_policy=no log=$LOGS/install.log package status=0
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -y)
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        own_policy=yes
        # shellcheck disable=SC2064 # The path as it is now.
        trap "rm -f '$policy'" EXIT
    fi
    ticking "Debian package lists" "$log" "${apt[@]}" update &&
        ticking "Debian packages: $*" "$log" "${apt[@]}" install --no-install-recommends "$@" || status=1
    if [[ $own_policy == yes ]]; then
        rm -f -- "$policy"
        trap - EXIT
    fi
    ((status == 0)) || die "apt-get did not install: $*" "read $log, then try again: infra/services.sh install" \
        "or by hand: apt-get update && apt-get install $*"
    if [[ -d /run/systemd/system ]]; then
        for package in "$@"; do
            case $package in
            redis-server) systemctl disable --now redis-server.service >>"$log" 2>&1 || true ;;
            postgresql-15) systemctl disable --now postgresql.service >>"$log" 2>&1 || true ;;
            esac
        done
    fi
}

fetch_kafka() {
    local part=$KAFKA_HOME.part
    rm -rf -- "$part"
    ticking "Kafka $KAFKA_VERSION from Maven Central (54 MB)" "$LOGS/install.log" \
        mvn -B -f "$KAFKA_POM" dependency:copy-dependencies -Dkafka.version="$KAFKA_VERSION" \
        -DincludeScope=runtime -DoutputDirectory="$part" ||
        maven_failed
    mv -- "$part" "$KAFKA_HOME"
}

fetch_registry() {
    local part=$REGISTRY_HOME.part archive=$DIST/registry.tar.gz
    rm -rf -- "$part" "$archive"
    mkdir -p -- "$part"
    # This version of the plugin: later ones also want the artifact's parent pom, which is not on Maven Central.
    ticking "Apicurio Registry $REGISTRY_VERSION from Maven Central (109 MB)" "$LOGS/install.log" \
        mvn -B org.apache.maven.plugins:maven-dependency-plugin:2.8:get -Dtransitive=false \
        -Dartifact="io.apicurio:apicurio-registry-app:$REGISTRY_VERSION:tar.gz:all" -Ddest="$archive" ||
        maven_failed
    tar -xzf "$archive" -C "$part"
    rm -f -- "$archive"
    mv -- "$part" "$REGISTRY_HOME"
}

maven_failed() {
    die "Maven could not fetch it" "is Maven Central reachable? a proxy or mirror goes into ~/.m2/settings.xml" \
        "the whole log: $LOGS/install.log; then try again: infra/services.sh install"
}

install_all() {
    local engine=$1 packages begun major
    begun=$(now_ms)
    read -ra packages <<<"$(missing_packages "$engine")"
    if ((${#packages[@]})); then
        have apt-get || die "missing commands, and no apt-get to install them" \
            "install what your system calls these Debian packages: ${packages[*]}"
        if ((EUID != 0)); then
            die "missing Debian packages: ${packages[*]}" \
                "sudo apt-get update && sudo apt-get install --no-install-recommends ${packages[*]}" "then again: ${HOLDFAST_COMMAND:-$0}"
        fi
        install_packages "${packages[@]}"
    fi
    if [[ $engine == native ]]; then
        major=$(java_major || true)
        [[ -n $major && $major -ge 17 ]] || die "Java 17 or later is needed, found: ${major:-none}" \
            "apt-get install openjdk-17-jre-headless"
        if [[ ! -d $KAFKA_HOME || ! -d $REGISTRY_HOME ]]; then
            have mvn || die "Maven is needed once, to fetch Kafka and the registry" "apt-get install maven"
            mkdir -p -- "$DIST"
            # $DIST is shared by several states, whose own locks do not see each other.
            exec 8>"$DIST/.lock"
            flock 8
            [[ -d $KAFKA_HOME ]] || fetch_kafka
            [[ -d $REGISTRY_HOME ]] || fetch_registry
            exec 8>&-
        fi
    fi
    if ! stripe_is_installed; then
        mkdir -p -- "$DIST"
        exec 8>"$DIST/.lock" # As above.
        flock 8
        stripe_is_installed || fetch_stripe
        exec 8>&-
    fi
    ok "all that the services need is installed ($(seconds_since "$begun"))"
}
