"""A service that asks over Kafka: sends one command, waits for its outcome in the events, and prints it as JSON.

    python reserve.py adjust SKU CHANGE COMMAND_ID REASON ACTOR
    python reserve.py reserve SKU QUANTITY USER_ID IDEMPOTENCY_KEY
    python reserve.py confirm HOLD_ID PAYMENT_REF
    python reserve.py cancel HOLD_ID [REASON]

HOLDFAST_KAFKA_BROKERS, HOLDFAST_REGISTRY_URL and HOLDFAST_TOPIC_PREFIX say where; the defaults are a local ./run.
"""
import json
import os
import sys
import time
import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from valid_events import is_valid

BROKERS = os.environ.get("HOLDFAST_KAFKA_BROKERS", "127.0.0.1:19092")
REGISTRY = os.environ.get("HOLDFAST_REGISTRY_URL", "http://127.0.0.1:18081/apis/ccompat/v7")
PREFIX = os.environ.get("HOLDFAST_TOPIC_PREFIX", "")
COMMANDS, EVENTS = PREFIX + "inventory.commands.v1", PREFIX + "inventory.events.v1"
# Events on the way to an outcome; a cart over several lanes has some in each.
STEPS = {"CommandForwarded", "HoldPending", "RelayIgnored"}


class Holdfast:
    def __init__(self):
        registry = SchemaRegistryClient({"url": REGISTRY})
        # The schema is Holdfast's: take the one that is registered, register none.
        self.serialize = AvroSerializer(registry, conf={"auto.register.schemas": False, "use.latest.version": True})
        self.deserialize = AvroDeserializer(registry)
        self.producer = Producer({
            "bootstrap.servers": BROKERS,
            "acks": "all",
            "enable.idempotence": True,  # Retries make no doubles.
            "partitioner": "murmur2_random",  # A key's lane, as the Java client computes it.
        })
        # From the beginning, because what is valid depends on what came before. A service that runs for long keeps its
        # position and `lanes` in its database, and begins there.
        self.events = Consumer({"bootstrap.servers": BROKERS, "group.id": "reserve.py", "enable.auto.commit": False})
        partitions = self.events.list_topics(EVENTS, 10).topics[EVENTS].partitions
        self.events.assign([TopicPartition(EVENTS, lane, OFFSET_BEGINNING) for lane in partitions])
        self.lanes = {}

    def ask(self, body, fields, key, command_id=None, lane=-1, timeout=30):
        """Sends a command and returns its outcome. `lane` -1: the partitioner finds it from the key."""
        request_id = str(uuid.uuid4())
        command = {
            "command_id": command_id or request_id,
            "request_id": request_id,
            "tenant": "default",
            "issued_at": int(time.time() * 1000),
            "source": None,
            "body": ("holdfast.inventory.v1." + body, fields),
        }
        value = self.serialize(command, SerializationContext(COMMANDS, MessageField.VALUE))
        self.producer.produce(COMMANDS, value, key, partition=lane, on_delivery=raise_fault)
        self.producer.flush(timeout)
        return self.outcome_of(request_id, time.monotonic() + timeout)

    def outcome_of(self, request_id, deadline):
        while time.monotonic() < deadline:
            record = self.events.poll(0.1)
            if record is None:
                continue
            raise_fault(record.error(), record)
            if not is_valid(self.lanes, record):
                continue
            event = self.deserialize(record.value(), SerializationContext(EVENTS, MessageField.VALUE))
            kind = dict(record.headers())["ce_type"].decode().removeprefix("holdfast.")
            # A command in another lane than its own is sent on, and a cart passes through its lanes: the outcome comes later.
            # What was written twice is told so; the outcome stands before that, or comes later.
            is_step = kind in STEPS or kind.startswith("Part") or event["body"].get("reason") == "already_applied"
            if event["request_id"] == request_id and not is_step:
                return {"type": kind, "lane": record.partition(), "offset": record.offset()} | event
        raise SystemExit(f"no outcome of {request_id} yet: it is still coming, so ask again with the same key")


def raise_fault(error, _record):
    if error is not None:
        raise KafkaException(error)


def lane_of(hold_id):
    return int(hold_id[:3], 16)


def main(call, *words):
    service = Holdfast()
    if call == "adjust":
        sku, change, command_id, reason, actor = words
        fields = {"sku": sku, "change": int(change), "reason": reason, "actor": actor}
        outcome = service.ask("AdjustStock", fields, sku, command_id)
    elif call == "reserve":
        sku, quantity, user_id, key = words
        lines = [{"sku": sku, "quantity": int(quantity)}]
        outcome = service.ask("Reserve", {"idempotency_key": key, "user_id": user_id, "lines": lines}, sku)
    elif call == "confirm":
        hold_id, payment_ref = words
        fields = {"hold_id": hold_id, "payment_ref": payment_ref}
        outcome = service.ask("Confirm", fields, hold_id, lane=lane_of(hold_id))
    elif call == "cancel":
        hold_id, *reason = words
        fields = {"hold_id": hold_id, "reason": " ".join(reason)}
        outcome = service.ask("Cancel", fields, hold_id, lane=lane_of(hold_id))
    else:
        raise SystemExit(__doc__)
    print(json.dumps(outcome, default=bytes.hex))


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
