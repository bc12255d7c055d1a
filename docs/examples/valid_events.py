"""Prints the valid events of a log as JSON lines, by their headers alone: python valid_events.py [BROKERS [TOPIC]]"""
import json, sys
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

def is_valid(lanes, record):
    """The fold. `lanes` is what it has seen, {lane: [epoch, last valid command]}: keep it with your position in the log."""
    lane, of = lanes.setdefault(record.partition(), [-1, -1]), dict(record.headers() or [])
    if of.get("ce_type") == b"holdfast.LaneOpened":
        lane[0] = record.offset()  # It decides nothing: it says whose decisions count from here on.
        return False
    try:
        _, epoch, previous, command, _ = bytes(of["ce_type"]), *(int(of[name]) for name in ("epoch", "previous", "command", "time"))
    except (KeyError, TypeError, ValueError):
        return False  # No reserver wrote it.
    if epoch < 0 or [epoch, previous] != lane or command <= previous:
        return False  # It never happened, and never will have.
    lane[1] = command
    return True

if __name__ == "__main__":
    brokers, topic = sys.argv[1:] + ["127.0.0.1:19092", "inventory.events.v1"][len(sys.argv) - 1:]
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "valid-events", "enable.auto.commit": False, "enable.partition.eof": True})
    lanes, unread = {}, set(consumer.list_topics(topic, 10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, lane, OFFSET_BEGINNING) for lane in unread])
    while unread:
        for record in consumer.consume(500, 1):
            if record.error() and record.error().code() == KafkaError._PARTITION_EOF:
                unread.discard(record.partition())  # The end that the lane has now.
            elif not record.error() and is_valid(lanes, record):
                names = {name: value.decode() for name, value in record.headers() if name.startswith("ce_") or name == "command"}
                print(json.dumps({"lane": record.partition(), "offset": record.offset()} | names))
