//! What one reservation costs outside the engines, stage by stage: `cargo bench -p reserver`.
//!
//! ```text
//! encode command   ingress: Avro of a command        pack 1, 128     reserver: commands for one script call
//! decode command   reserver: and checked             event           reserver: an outcome of the script as an event
//! encode event     reserver: Avro of an event        fold            every reader: does this record count?
//! decode event     ingress, persister: and checked
//! ```

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use domain::{
    Command, CommandBody, Key, Lane, LaneState, Line, Lines, Policy, Quantity, Reserve, Sku, Stamp, Tenant, UserId,
};
use reserver::pack::{self, Asked, Entry, Origin, Rules};
use schemas::{Codec, EventHeaders, Registry, headers};

/// Commands in one script call, at most.
const BATCH: i64 = 128;

const RULES: Rules = Rules {
    remember_ms: 3_600_000,
    request_ms: 120_000,
    max_hold_ms: 86_400_000,
    default_ttl_ms: 600_000,
    relay_ms: 10_000,
    lanes: 1,
};

fn lane() -> Lane {
    Lane::new(0).expect("the first lane")
}

fn origin() -> Origin {
    Origin { lane: lane(), epoch: 7 }
}

fn key(text: &str) -> Key {
    Key::parse("key", text).expect("a legal key")
}

/// As HTTP asks for it: one SKU, ids of 36 characters.
fn command(number: i64) -> Command {
    Command {
        command_id: key(&format!("00000000-0000-4000-8000-{number:012}")),
        request_id: key(&format!("00000000-0000-4000-9000-{number:012}")),
        tenant: Tenant::parse("default").expect("a legal tenant"),
        issued_at: 1_700_000_000_000 + number,
        source: None,
        body: CommandBody::Reserve(Reserve {
            idempotency_key: key(&format!("checkout-{number}")),
            user_id: UserId::parse(&format!("buyer-{number}")).expect("a legal buyer"),
            lines: Lines::parse(vec![Line {
                sku: Sku::parse("shirt-blue-xl").expect("a legal SKU"),
                quantity: Quantity::parse(1).expect("a legal quantity"),
            }])
            .expect("one line"),
            ttl_ms: Some(600_000),
            policy: Policy::AllOrNothing,
            external_ref: None,
        }),
    }
}

fn entry(offset: i64) -> Entry {
    Entry {
        offset,
        previous: offset - 1,
        timestamp: 1_700_000_000_000 + offset,
        hash: 1_234_567_890_123,
        key: None,
        traceparent: None,
        asked: Asked::Command(Box::new(command(offset))),
    }
}

/// What the script says of an entry that got its unit, as `lua/apply` packs it.
fn outcome(entry: &Entry) -> Vec<u8> {
    let none: [u8; 0] = [];
    let line = ("shirt-blue-xl", 1, 1, 1_000, entry.offset, 0, entry.offset + 1);
    let deadline = entry.timestamp + 600_000;
    let head = ("created", entry.timestamp, entry.previous, entry.hash, deadline, "");
    let (kind, time, previous, hash, number, reason) = head;
    rmp_serde::to_vec(&(kind, time, previous, hash, number, reason, [line], none, none, none))
        .expect("it can be packed")
}

/// Headers as a reader gets them.
fn stamp(written: &[(&'static str, String)]) -> Stamp {
    let read = written.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
    EventHeaders::read(read).expect("our own headers").stamp
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let registry = Registry::new("http://127.0.0.1:1").expect("a URL; nobody is asked");
    let codec = Codec::with_ids(registry, 1, 2);
    let entries: Vec<Entry> = (0..BATCH).map(entry).collect();
    let packed = outcome(&entries[1]);
    let event = pack::event(origin(), &entries[1], &packed).expect("it fits");
    let (asked, told) = (codec.encode_command(&command(1)), codec.encode_event(&event));

    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode command", |bencher| {
        bencher.iter_batched_ref(
            || command(1),
            |command| codec.encode_command(command),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("decode command", |bencher| {
        bencher.iter(|| codec.decode_command(black_box(&asked)).expect("our own"));
    });
    group.bench_function("pack 1", |bencher| {
        bencher.iter(|| pack::batch(lane(), black_box(&entries[..1]), &[], true, RULES));
    });
    group.bench_function("event", |bencher| {
        bencher.iter(|| pack::event(origin(), &entries[1], black_box(&packed)).expect("it fits"));
    });
    group.bench_function("encode event", |bencher| {
        bencher.iter(|| {
            (
                codec.encode_event(black_box(&event)),
                headers::of_event(&event, "/bench"),
            )
        });
    });
    group.bench_function("decode event", |bencher| {
        bencher.iter(|| codec.decode_event(black_box(&told)).expect("our own"));
    });
    let written = headers::of_event(&event, "/bench");
    group.bench_function("fold", |bencher| {
        let mut lane = LaneState::default();
        bencher.iter(|| lane.fold(8, stamp(black_box(&written))));
    });
    group.throughput(Throughput::Elements(BATCH.unsigned_abs()));
    group.bench_function("pack 128", |bencher| {
        bencher.iter(|| pack::batch(lane(), black_box(&entries), &[], true, RULES));
    });
    group.finish();
    criterion.final_summary();
}
