# shellcheck shell=bash
# Kafka: one KRaft node from Maven's jars. Data in $STATE/kafka/data; survives SIGKILL, for the page cache is the kernel's.

kafka_endpoint() { echo "127.0.0.1:$KAFKA_PORT"; }

# A metadata answer that lists a broker: the port is open long before the broker may be used.
kafka_ready() { timeout 5 kcat -L -b "127.0.0.1:$KAFKA_PORT" -m 4 2>/dev/null | grep -q '^ *broker 1 at'; }

kafka_start() {
    local home=$STATE/kafka properties=$STATE/kafka/server.properties
    [[ -d $KAFKA_HOME ]] || die "Kafka is not installed" "infra/services.sh install"
    need_free "$KAFKA_PORT" HOLDFAST_KAFKA_PORT kafka
    need_free "$KAFKA_CONTROLLER_PORT" HOLDFAST_KAFKA_CONTROLLER_PORT "kafka's controller"
    mkdir -p -- "$home"
    sed -e "s|@PORT@|$KAFKA_PORT|g; s|@CONTROLLER_PORT@|$KAFKA_CONTROLLER_PORT|g" -e "s|@DATA@|$home/data|" \
        "$INFRA/kafka/server.properties" >"$properties"
    if [[ ! -f $home/data/meta.properties ]]; then
        # 16 random bytes in URL-safe base64, without padding: the form that Kafka gives its cluster ids. One in 64 begins with
        # a dash, which the tool would take for an option if it were a word of its own.
        java "${KAFKA_JAVA[@]}" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format --config "$properties" \
            "--cluster-id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d =)" >>"$LOGS/kafka.log" 2>&1 || give_up kafka
    fi
    daemon kafka env -C "$home" java "${KAFKA_JAVA[@]}" -Xms256m -Xmx512m -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError \
        kafka.Kafka "$properties"
}

KAFKA_JAVA=(-cp "$KAFKA_HOME/*" -Djava.awt.headless=true "-Dlog4j2.configurationFile=$INFRA/kafka/log4j2.properties")

# A clean stop writes its snapshots, so that the next start need not read whole segments.
kafka_stop() { end kafka TERM 30; }
