# shellcheck shell=bash
# Schema registry: Apicurio with its Confluent-compatible API. It keeps everything in Kafka and nothing on disk.

registry_endpoint() { echo "http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7"; }

registry_ready() { curl -fsS -m 5 -o /dev/null "$(registry_endpoint)/subjects"; }

registry_start() {
    local runner home=$STATE/registry
    runner=$(compgen -G "$REGISTRY_HOME/*-runner.jar" | head -n 1) || die "the registry is not installed" "infra/services.sh install"
    need_free "$REGISTRY_PORT" HOLDFAST_REGISTRY_PORT registry
    pid_of kafka >/dev/null || die "the registry keeps its schemas in Kafka, which does not run" "infra/services.sh start kafka registry"
    mkdir -p -- "$home"
    # A line per request would fill the disk of a registry that is asked for schemas all day. Its first, empty poll of
    # Kafka lasts as long as it may, and the default is 5 s.
    daemon registry env -C "$home" \
        QUARKUS_HTTP_HOST=127.0.0.1 QUARKUS_HTTP_PORT="$REGISTRY_PORT" QUARKUS_HTTP_ACCESS_LOG_ENABLED=false \
        APICURIO_STORAGE_KIND=kafkasql APICURIO_KAFKASQL_BOOTSTRAP_SERVERS="127.0.0.1:$KAFKA_PORT" \
        APICURIO_KAFKASQL_CONSUMER_POLL_TIMEOUT=200 \
        java -Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError -Djava.io.tmpdir="$home" -jar "$runner"
}

registry_stop() { end registry TERM 15; }
